"""How much of the surface was measured, and measured well enough to tell a defect: what was not seen is not OK."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from depthcell.inspect.deviation import DeviationMap, DeviationScales
from depthcell.inspect.shape_check import ShapeScore


@dataclass(frozen=True, slots=True, eq=False)
class Gap:
    """The largest connected surface that should have been measured and was not; `area_m2` is 0 where there is none."""

    area_m2: float
    centre_m: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of the surface that should be seen, by area.

    Attributes:
        measured: was measured at all.
        capable: was measured so well that a deviation of the tolerance would have stood out.
    """

    measured: float
    capable: float


def coverage(
    expected: NDArray[np.bool_], score: ShapeScore, scales: DeviationScales, tolerance_m: float, significance: float
) -> Coverage:
    """What share of the `expected` (K,) patches the check holds for.

    The check is a test: a region is a finding when its mean deviation exceeds `significance` standard uncertainties. A
    deviation of the tolerance over the smallest area is found where that product is no larger than the tolerance;
    elsewhere the absence of a finding proves nothing, and the patch counts as not seen.
    """
    u_m = score.u_m[scales.smallest]
    area_m2 = np.where(expected, scales.surface.area_m2, 0.0)
    total_m2 = float(area_m2.sum())
    if total_m2 == 0:
        return Coverage(0.0, 0.0)
    measured, capable = np.isfinite(u_m), np.nan_to_num(u_m, nan=np.inf) * significance <= tolerance_m
    return Coverage(float(area_m2[measured].sum()) / total_m2, float(area_m2[capable].sum()) / total_m2)


def largest_gap(expected: NDArray[np.bool_], deviation: DeviationMap, scales: DeviationScales) -> Gap:
    """The largest connected region of `expected` (K,) patches of which nothing was measured."""
    unseen = np.flatnonzero(expected & ~np.isfinite(deviation.scales[0].mean_m))
    if not len(unseen):
        return Gap(0.0, np.zeros(3))
    _, label = connected_components(scales.touching[unseen][:, unseen], directed=False)
    area_m2 = np.bincount(label, scales.surface.area_m2[unseen])
    largest = unseen[label == np.argmax(area_m2)]
    return Gap(float(area_m2.max()), scales.surface.points_part[largest].mean(axis=0))
