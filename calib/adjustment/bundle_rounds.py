"""Outliers and weights of an adjustment: solve, look at what is left, solve again until neither changes.

Corners far off are first made light (Huber's weights), so that they cannot hide by pulling the solution to them; then
all that lie beyond the stated level are left out, and all within it come back. Each group's standard deviation is
estimated from what is left, by its redundancy, and weighs the group in the next round.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.calib.adjustment.bundle_adjustment import Adjustment
from depthcell.calib.adjustment.bundle_determined import solve
from depthcell.calib.adjustment.bundle_normal import Information, information_of
from depthcell.errors import DepthcellError, Reason

MEDIAN_OF_NORM = {1: 0.674490, 2: 1.177410}
"""Median size of a Gaussian error in one dimension and in two (sqrt(2 ln 2)), in standard deviations."""
HUBER = {1: 1.345, 2: 2.0}
HUBER_ROUNDS = 5
LEAST_FACTOR = 1e-3
"""Residuals are never taken for better than this share of what was stated: a simulation may have none at all."""
SETTLED, COMMON_SETTLED = 0.01, 0.02
"""Relative change of a group's standard deviation, and of that of its views' means, below which it is settled."""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """Where the rounds ended.

    Attributes:
        information: covariance, with the weights as they ended.
        factors: per group, standard deviation found over that stated.
        common_px: per group of depth tiles, standard deviation of an error that all tiles of one view share.
        inliers: per block, which rows count.
        rounds: how many times the adjustment was solved.
    """

    information: Information
    factors: dict[str, float]
    common_px: dict[str, float]
    inliers: list[NDArray[np.bool_]]
    rounds: int


def settle(adjustment: Adjustment) -> Settled:
    """Solve until outliers and weights have settled.

    Raises:
        DepthcellError: the solver does not converge, the data do not determine something, or the set of outliers does
            not settle.
    """
    level = adjustment.settings.outlier_level
    rounds, factors, inliers = _screen(adjustment)
    while rounds < adjustment.settings.max_rounds:
        _weigh(adjustment, inliers, factors)
        solve(adjustment, near=True)
        rounds += 1
        information = information_of(adjustment)
        found = {group: information.factor(group, LEAST_FACTOR) for group in factors}
        common_px = {group: common.tau_px() for group, common in information.common.items()}
        settled = _settled(adjustment, information, common_px)
        adjustment.common_px.update(common_px)
        again = _within(adjustment, _norms(adjustment), found, level)
        same = all(np.array_equal(old, new) for old, new in zip(inliers, again, strict=True))
        if settled and same and all(abs(found[group] / factors[group] - 1) < SETTLED for group in found):
            return Settled(information, factors, common_px, inliers, rounds)
        # late rounds only take away, so that no row can come and go for ever
        late = rounds > adjustment.settings.max_rounds // 2
        inliers = [old & new if late else new for old, new in zip(inliers, again, strict=True)]
        factors = found
    raise DepthcellError(
        f"adjustment: outliers have not settled after {rounds} rounds; views contradict each other",
        Reason.CELL_INVALID,
    )


def _screen(adjustment: Adjustment) -> tuple[int, dict[str, float], list[NDArray[np.bool_]]]:
    """First solutions, with Huber's weights while there are rows beyond the level: rounds, robust factors, inliers."""
    rounds, before = 0, None
    while True:
        solve(adjustment, near=rounds > 0)
        rounds += 1
        norms = _norms(adjustment)
        factors = _scales(adjustment, norms)
        inliers = _within(adjustment, norms, factors, adjustment.settings.outlier_level)
        inside = np.concatenate(inliers)
        if rounds > HUBER_ROUNDS or inside.all() or (before is not None and np.array_equal(before, inside)):
            return rounds, factors, inliers
        before = inside
        for number, block in enumerate(adjustment.blocks):
            if block.group in factors:
                ratio = norms[number] / factors[block.group]
                light = np.minimum(1, HUBER[block.width] / np.maximum(ratio, 1e-12))
                adjustment.weights[number][:] = np.sqrt(light) / factors[block.group]


def residuals_of(adjustment: Adjustment) -> list[NDArray[np.float64]]:
    """Per block, residuals (N, D) in units of the stated sigma, outliers included."""
    found = []
    for block in adjustment.blocks:
        evaluation = block.evaluate([adjustment.values[key] for key in block.keys], adjustment.bases)
        if evaluation is None:
            raise DepthcellError(f"adjustment: a board ended up behind {block.group}", Reason.CELL_INVALID)
        found.append(evaluation.residuals)
    return found


def _norms(adjustment: Adjustment) -> list[NDArray[np.float64]]:
    return [np.sqrt(np.square(rows).sum(axis=1)) for rows in residuals_of(adjustment)]


def _scales(adjustment: Adjustment, norms: list[NDArray[np.float64]]) -> dict[str, float]:
    """Robust standard deviation of each group, from the median size of its residuals."""
    gathered: dict[str, list[NDArray[np.float64]]] = {}
    widths: dict[str, int] = {}
    for block, sizes in zip(adjustment.blocks, norms, strict=True):
        if block.group != "prior":
            gathered.setdefault(block.group, []).append(sizes)
            widths[block.group] = block.width
    return {
        group: max(float(np.median(np.concatenate(sizes))) / MEDIAN_OF_NORM[widths[group]], LEAST_FACTOR)
        for group, sizes in gathered.items()
    }


def _within(
    adjustment: Adjustment, norms: list[NDArray[np.float64]], factors: dict[str, float], level: float
) -> list[NDArray[np.bool_]]:
    inliers = []
    for block, sizes in zip(adjustment.blocks, norms, strict=True):
        shared = 0.0 if block.common is None else adjustment.common_px.get(block.group, 0.0) * block.common
        inliers.append(sizes <= level * np.hypot(factors.get(block.group, np.inf), shared))
    return inliers


def _settled(adjustment: Adjustment, information: Information, common_px: dict[str, float]) -> bool:
    """Whether errors that views share are as large as was assumed, for the size of a typical view."""
    for group, tau_px in common_px.items():
        size = float(np.median(information.common[group].size))
        before, after = 1 + size * adjustment.common_px.get(group, 0.0) ** 2, 1 + size * tau_px**2
        if abs(np.sqrt(after / before) - 1) > COMMON_SETTLED:
            return False
    return True


def _weigh(adjustment: Adjustment, inliers: list[NDArray[np.bool_]], factors: dict[str, float]) -> None:
    for number, block in enumerate(adjustment.blocks):
        adjustment.weights[number][:] = inliers[number] / factors.get(block.group, 1.0)
