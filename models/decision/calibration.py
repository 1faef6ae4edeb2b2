"""Scores to probabilities, and how well these hold: Platt's curve and the reliability diagram.

The probability of a defect given a score is `1 / (1 + exp(-(a s + b)))` (J. Platt, "Probabilistic outputs for support
vector machines", 1999), fitted on validation parts that nobody learned from, with his targets
`(n₊ + 1) / (n₊ + 2)` and `1 / (n₋ + 2)` in place of 1 and 0. It holds for as many defective parts as good ones, and for
defects such as the validation parts carry; what a line sees is another share, which a user must say to make it his own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from depthcell.errors import DepthcellError

BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt's curve: `slope` and `offset` of the logit."""

    slope: float
    offset: float

    def probability(self, score: float | NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Of a defect, 0 to 1."""
        return np.asarray(expit(self.slope * np.asarray(score, np.float64) + self.offset))


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram: mean probability, share that is defective, number of parts."""

    probability: float
    share: float
    count: int


def fit_calibration(scores: NDArray[np.floating[Any]], is_defect: NDArray[np.bool_]) -> Calibration:
    """Platt's curve of scores (n,).

    Raises:
        DepthcellError: there are no good parts, or no defective ones.
    """
    positive, negative = int(is_defect.sum()), int((~is_defect).sum())
    if not positive or not negative:
        raise DepthcellError("calibration: needs good and defective validation parts")
    target = np.where(is_defect, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weight = np.where(is_defect, 0.5 / positive, 0.5 / negative)
    centre, spread = float(np.median(scores)), float(np.std(scores)) or 1.0
    unit = (np.asarray(scores, np.float64) - centre) / spread

    def loss(curve: NDArray[np.float64]) -> float:
        logit = curve[0] * unit + curve[1]
        return float((weight * (np.logaddexp(0, logit) - target * logit)).sum())

    slope, offset = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return Calibration(float(slope / spread), float(offset - slope * centre / spread))


def reliability(probability: NDArray[np.float64], is_defect: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """The diagram's bins that hold parts, each a tenth wide."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    groups = [place == number for number in range(BINS)]
    return tuple(
        Bin(float(probability[group].mean()), float(is_defect[group].mean()), int(group.sum()))
        for group in groups
        if group.any()
    )


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Expected calibration error: mean distance of the bins from the diagonal, by their parts."""
    total = sum(one.count for one in bins)
    return sum(abs(one.probability - one.share) * one.count for one in bins) / total
