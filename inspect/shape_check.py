"""Is this patch's shape that of a good part? Deviation over its standard uncertainty, with or without good parts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.inspect.deviation import DeviationMap, DeviationScales, ScaleDeviation
from depthcell.inspect.pooling import mean_of_parts, steadied_variance
from depthcell.inspect.sight import Sight

OUTLINE = 0.08
"""Share of the matching window's effect by which outlines wander from one good part to the next."""

SHOWN = 0.8
"""Share of good parts that must show a patch for it to be known."""


@dataclass(frozen=True, slots=True, eq=False)
class ShapeStatistics:
    """What shape good parts have: K patches, neighbourhoods of S radii.

    Attributes:
        mean_m: (S, K) float32, mean deviation of good parts from the reference; NaN where too few show the patch.
        spread_m: (S, K) float32, standard deviation between good parts beyond what noise explains.
        factor: (S, K) float32 by which scores of good parts come out too large about a patch; 1 where the model holds.
        parts: how many good parts there were.
    """

    mean_m: NDArray[np.float32]
    spread_m: NDArray[np.float32]
    factor: NDArray[np.float32]
    parts: NDArray[np.int32]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(K,) patches that good parts show."""
        known: NDArray[np.bool_] = np.isfinite(self.mean_m[0])
        return known


@dataclass(frozen=True, slots=True, eq=False)
class ShapeScore:
    """A part's shape against good parts. (S, K) float64 each, NaN where not seen.

    Attributes:
        excess_m: deviation less that of good parts.
        u_m: its standard uncertainty, process variation included.
    """

    excess_m: NDArray[np.float64]
    u_m: NDArray[np.float64]

    @property
    def significance(self) -> NDArray[np.float64]:
        """(S, K) signed: excess over its standard uncertainty."""
        return self.excess_m / self.u_m


def fit_shape(maps: Sequence[DeviationMap], scales: DeviationScales) -> ShapeStatistics:
    """Statistics of good parts; the factor is 1 until it is calibrated."""
    at_least = max(2, math.ceil(SHOWN * len(maps)))
    mean, spread = [], []
    for number in range(len(scales.radii_m)):
        samples = np.stack([one.scales[number].mean_m for one in maps])
        noise = mean_of_parts(np.stack([one.scales[number].random_u_m ** 2 for one in maps]), 1)
        between = steadied_variance(samples, scales.neighbours[-1])
        mean.append(mean_of_parts(samples, at_least))
        spread.append(np.sqrt(np.maximum(between - noise, 0.0)))
    mean_m, spread_m = np.stack(mean).astype(np.float32), np.stack(spread).astype(np.float32)
    return ShapeStatistics(mean_m, spread_m, np.ones_like(mean_m), np.array(len(maps), np.int32))


def score_shape(one: DeviationMap, good: ShapeStatistics | None, sight: Sight, negligible_m: float) -> ShapeScore:
    """Compare one part with good parts, or with the reference alone where none are known.

    Against good parts, errors of calibration drop out: they are in the mean of good parts too, whose spread holds the
    process. Against the reference alone they count, and so does the matching window where edges are near.

    Args:
        one: the part.
        good: good parts, None where none are known.
        sight: what can be seen of the surface.
        negligible_m: half width of what parts may differ by without anybody minding, and of what a handful of good
            parts does not show; a rectangular distribution of it is part of the uncertainty (GUM 4.3.7).
    """
    scores = [
        _against_reference(scale, ~sight.well_seen, sight)
        if good is None
        else _against_good_parts(scale, good, number, sight)
        for number, scale in enumerate(one.scales)
    ]
    u_m = np.stack([u for _, u in scores])
    return ShapeScore(np.stack([excess for excess, _ in scores]), np.hypot(u_m, negligible_m / math.sqrt(3)))


def _against_reference(
    scale: ScaleDeviation, doubtful: NDArray[np.bool_], sight: Sight
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Deviation itself and its standard uncertainty; `doubtful` patches may be shifted by the matching window."""
    return scale.mean_m, np.hypot(scale.u_m, np.where(doubtful, sight.window_u_m, 0.0))


def _against_good_parts(
    scale: ScaleDeviation, good: ShapeStatistics, number: int, sight: Sight
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known = np.isfinite(good.mean_m[number])
    excess_m, u_m = _against_reference(scale, ~known, sight)
    process_m = math.sqrt(1.0 + 1.0 / int(good.parts)) * good.spread_m[number]
    outline_m = np.where(sight.well_seen, 0.0, OUTLINE * sight.window_u_m)
    within_m = good.factor[number] * np.sqrt(scale.random_u_m**2 + process_m**2 + outline_m**2)
    return np.where(known, scale.mean_m - good.mean_m[number], excess_m), np.where(known, within_m, u_m)
