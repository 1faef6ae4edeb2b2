"""Connected regions of patches that differ from good parts: seeds beyond chance, grown while they still differ."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from depthcell.acquisition.transform import FloatArray
from depthcell.inspect.deviation import DeviationScales
from depthcell.inspect.shape_check import ShapeScore

GROWING = 2.5
"""Significance down to which a region is grown around its seeds; its area depends on it."""

FINE_M = 0.0025
"""Regions are outlined on the coarsest averages of at most this radius, so that they do not bleed out."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchRegion:
    """One connected region.

    Attributes:
        patches: indices of its patches, ascending.
        significance: of its most significant patch.
    """

    patches: NDArray[np.intp]
    significance: float


def shape_regions(
    score: ShapeScore, scales: DeviationScales, significance: float, min_area_m2: float
) -> list[PatchRegion]:
    """Regions too high and too low, of any scale.

    Args:
        score: the part against good parts.
        scales: the averages it was computed on.
        significance: of a seed.
        min_area_m2: smaller regions are left out.
    """
    found = []
    for sign in (1.0, -1.0):
        found += multiscale_regions(np.nan_to_num(sign * score.significance), scales, significance)
    return large_enough(found, scales, min_area_m2)


def large_enough(regions: list[PatchRegion], scales: DeviationScales, min_area_m2: float) -> list[PatchRegion]:
    """The regions of at least this area."""
    area_m2 = scales.surface.area_m2
    return [region for region in regions if area_m2[region.patches].sum() >= min_area_m2]


def grown(
    significant: FloatArray, seeds: NDArray[np.bool_], member: NDArray[np.bool_], touching: Any
) -> list[PatchRegion]:
    """Connected regions of `member` patches that hold at least one seed, in the order of their first patch.

    Args:
        significant: (K,) score whose largest value a region keeps.
        seeds: (K,) patches beyond chance.
        member: (K,) patches that may belong to a region.
        touching: (K, K) sparse, which patches touch.
    """
    if not seeds.any():
        return []
    chosen = np.flatnonzero(member | seeds)
    _, label = connected_components(touching[chosen][:, chosen], directed=False)
    with_seed = np.unique(label[seeds[chosen]])
    regions = [chosen[label == number] for number in with_seed]
    return [PatchRegion(patches, float(significant[patches].max())) for patches in regions]


def multiscale_regions(signed: NDArray[np.float64], scales: DeviationScales, significance: float) -> list[PatchRegion]:
    """Regions where `signed` (S, K) is large: outlined on fine averages, or on coarse ones if only those see them."""
    touching = scales.touching
    fine = max(number for number, radius_m in enumerate(scales.radii_m) if number == 0 or radius_m <= FINE_M)
    best = signed.max(axis=0)
    seeds = signed[: fine + 1].max(axis=0) >= significance
    regions = grown(best, seeds, signed[fine] >= GROWING, touching)
    for number in range(fine + 1, len(scales.radii_m)):
        covered = np.zeros(len(best))
        for region in regions:
            covered[region.patches] = 1.0
        apart = (scales.neighbours[number] @ covered) == 0
        seeds = apart & (signed[number] >= significance)
        regions += grown(best, seeds, apart & (signed[number] >= GROWING), touching)
    return regions
