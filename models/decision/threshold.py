"""A threshold that rejects a stated share of good parts, chosen from scores of good parts that taught nobody.

With enough parts, n >= 1 / rate - 1, the threshold is one of the scores, the split-conformal quantile (V. Vovk, A.
Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005): whatever the distribution, if a new good part is
drawn as these were, it scores above the k-th lowest of n with a chance of (n + 1 - k) / (n + 1) on average. For one
choice of parts, the share of good parts above it follows a beta distribution with parameters n + 1 - k and k (S. Wilks,
Annals of Mathematical Statistics 12, 1941); without ties exactly, with ties it is smaller.

With fewer, no rule can promise the rate without assuming what the tail looks like. Here the scores above a high one are
taken as generalised Pareto (J. Pickands, Annals of Statistics 3, 1975), fitted by probability-weighted moments
(J. Hosking, J. Wallis, Technometrics 29, 1987), its shape drawn half way to the exponential tail. How far such
thresholds stray is simulated, with tails whose shape strays from the fitted one too; the threshold is set where the
rate is as stated on average over the simulation. `tests/test_threshold.py` measures how well this holds.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv
from scipy.stats import genpareto  # type: ignore[attr-defined, unused-ignore]

from depthcell.errors import DepthcellError

CONFIDENCE = 0.95
FEWEST_PARTS = 10
TAIL_SHARE, FEWEST_IN_TAIL = 0.34, 8
SHAPE_LIMIT, SHAPE_SPREAD, SHRUNK = 0.5, 0.2, 0.5
SIMULATIONS = 4000


class Method(StrEnum):
    """How a threshold was chosen."""

    CONFORMAL = "conformal"
    EXTREME_VALUE = "extreme_value"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A part that scores above `value` is rejected.

    Attributes:
        value: in the unit of the scores.
        method: how it was chosen.
        stated_rate: share of good parts that may be rejected, as the user stated it.
        n_parts: good parts that it rests on.
        expected_rate: on average over choices of these parts; for the extreme-value method only if the tail is as said.
        low, high: where the rate lies for `CONFIDENCE` of such choices; under the same condition.
        confidence: chance that the rate is at most the stated one; under the same condition.
        guaranteed_rate: what the rate stays below for `CONFIDENCE` of such choices, whatever the distribution.
    """

    value: float
    method: Method
    stated_rate: float
    n_parts: int
    expected_rate: float
    low: float
    high: float
    confidence: float
    guaranteed_rate: float

    def statement(self) -> str:
        """What is promised, in one sentence."""
        about = f"from {self.n_parts} good parts"
        spread = f"{self.low:.2%} to {self.high:.2%} in {CONFIDENCE:.0%} of such choices"
        if self.method is Method.CONFORMAL:
            return f"rejects {self.expected_rate:.2%} of good parts on average, {spread}, whatever the scores ({about})"
        return (
            f"rejects {self.expected_rate:.2%} of good parts on average, {spread}, if scores have a generalised Pareto "
            f"tail; without that, at most {self.guaranteed_rate:.1%} ({about}; {ceil(1 / self.stated_rate - 1)} need "
            "no assumption)"
        )


def choose_threshold(scores: NDArray[np.floating[Any]], rate: float, seed: int = 0) -> Threshold:
    """The threshold that rejects a share `rate` of good parts.

    Args:
        scores: (n,) of good parts that were neither trained nor tuned on; higher is less like a good part.
        rate: share of good parts that may be rejected, above 0 and below 0.5.
        seed: of the simulation behind the extreme-value method.

    Raises:
        DepthcellError: too few scores, one that is not finite, or a rate out of bounds.
    """
    check_rate(rate)
    if len(scores) < FEWEST_PARTS:
        raise DepthcellError(
            f"threshold: rests on {len(scores)} good parts, at least {FEWEST_PARTS} are needed; record more good parts"
        )
    if not np.isfinite(scores).all():
        raise DepthcellError("threshold: a score is not finite; judge every part before choosing")
    rising = np.sort(np.asarray(scores, np.float64))
    if (len(rising) + 1) * rate >= 1 - 1e-9:
        return _conformal(rising, rate)
    return _extreme_value(rising, rate, np.random.default_rng(seed))


def check_rate(rate: float) -> None:
    """Raise DepthcellError if `rate` is no false-reject rate that one could ask for."""
    if not 0 < rate < 0.5:
        raise DepthcellError(f"false-reject rate: must lie above 0 and below 0.5, got {rate:g}")


def conformal_p_value(scores: NDArray[np.floating[Any]], score: float) -> float:
    """Chance that a new good part scores at least `score`: (1 + those that do) / (n + 1), Vovk et al., as above."""
    return float((1 + np.count_nonzero(scores >= score)) / (len(scores) + 1))


def _conformal(rising: NDArray[np.float64], rate: float) -> Threshold:
    n = len(rising)
    above = floor((n + 1) * rate + 1e-9)
    k = n + 1 - above
    low, high = (float(betaincinv(above, k, share)) for share in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Threshold(
        value=float(rising[k - 1]),
        method=Method.CONFORMAL,
        stated_rate=rate,
        n_parts=n,
        expected_rate=above / (n + 1),
        low=low,
        high=high,
        confidence=float(betainc(above, k, rate)),
        guaranteed_rate=float(betaincinv(above, k, CONFIDENCE)),
    )


def _extreme_value(rising: NDArray[np.float64], rate: float, rng: np.random.Generator) -> Threshold:
    n = len(rising)
    tail = min(max(FEWEST_IN_TAIL, ceil(TAIL_SHARE * n)), n - 1)
    start = rising[n - tail - 1]
    excess = rising[n - tail :] - start
    shape, scale = (float(value) for value in _fitted(excess))
    simulated = _Simulation.draw(shape, tail, n, rng)
    nominal = simulated.nominal_for(rate)
    value = float(start + _level(np.float64(shape), np.float64(scale), nominal * n / tail))
    rates = simulated.rates(nominal)
    low, high = np.quantile(rates, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    below = int(np.count_nonzero(rising <= value))
    return Threshold(
        value=value,
        method=Method.EXTREME_VALUE,
        stated_rate=rate,
        n_parts=n,
        expected_rate=float(rates.mean()),
        low=float(low),
        high=float(high),
        confidence=float((rates <= rate).mean()),
        guaranteed_rate=float(betaincinv(n + 1 - below, below, CONFIDENCE)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Simulation:
    """Samples of n scores drawn again and again, and what would be fitted to the tail of each.

    The unit is the scale of the tail, which the fit follows in proportion. S simulated samples.

    Attributes:
        true_shape, shape, scale: (S,) of the tail drawn from, and as fitted.
        true_share: (S,) of all parts that lie in the tail.
        share: of the sample's parts that lie there.
    """

    true_shape: NDArray[np.float64]
    true_share: NDArray[np.float64]
    shape: NDArray[np.float64]
    scale: NDArray[np.float64]
    share: float

    @classmethod
    def draw(cls, shape: float, tail: int, n: int, rng: np.random.Generator) -> "_Simulation":
        # Scores above an order statistic are again generalised Pareto; how many parts lie there is beta distributed.
        true_share = rng.beta(tail + 1, n - tail, SIMULATIONS)
        true_shape = np.clip(shape + SHAPE_SPREAD * rng.standard_normal(SIMULATIONS), -SHAPE_LIMIT, SHAPE_LIMIT)
        excess = _level(true_shape[:, None], np.float64(1.0), rng.uniform(size=(SIMULATIONS, tail)))
        return cls(true_shape, true_share, *_fitted(np.sort(excess, axis=1)), tail / n)

    def rates(self, nominal: float) -> NDArray[np.float64]:
        """(S,) true rate of rejection where each sample's threshold is set for `nominal`."""
        level = _level(self.shape, self.scale, nominal / self.share)
        rates: NDArray[np.float64] = self.true_share * genpareto.sf(level, self.true_shape)
        return rates

    def nominal_for(self, rate: float) -> float:
        """What to set thresholds for, so that the mean true rate is `rate`."""

        def excess(log_nominal: float) -> float:
            return float(self.rates(np.exp(log_nominal)).mean() - rate)

        least, most = np.log(rate) - 12, np.log(self.share)
        if not excess(least) < 0 < excess(most):
            return rate
        return float(np.exp(float(brentq(excess, least, most))))  # pyright: ignore[reportArgumentType] - no full output


def _fitted(rising: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shape and scale of generalised Pareto excesses (..., m), rising: probability-weighted moments, shape shrunk."""
    m = rising.shape[-1]
    lighter = 1 - (np.arange(1, m + 1) - 0.35) / m
    mean, weighted = rising.mean(axis=-1), (lighter * rising).mean(axis=-1)
    spread = np.maximum(mean, 1e-12)
    shape = SHRUNK * np.clip(2 - mean / np.maximum(mean - 2 * weighted, 1e-9 * spread), -SHAPE_LIMIT, SHAPE_LIMIT)
    return shape, spread * (1 - shape)


def _level(
    shape: NDArray[np.float64] | np.float64,
    scale: NDArray[np.float64] | np.float64,
    chance: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Excess that is surpassed with that chance."""
    safe = np.where(np.abs(shape) < 1e-6, 1e-6, shape)
    return np.asarray(scale * np.expm1(-safe * np.log(np.minimum(chance, 1.0))) / safe)
