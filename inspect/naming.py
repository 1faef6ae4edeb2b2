"""What a region is called, from its geometry and colour alone. A name helps people; no decision rests on it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from depthcell.acquisition.transform import FloatArray
from depthcell.inspect.color_check import ColorScore
from depthcell.inspect.deviation import DeviationScales
from depthcell.inspect.patch_regions import PatchRegion
from depthcell.inspect.surface import Surface

WARPED_SHARE = 0.12
"""Share of the whole surface from which on a smooth deviation is a warp."""

WAVE_SHARE = 0.02
"""Share of the whole surface from which on a region may be a wave of a warp."""

LARGEST_PIT_M2 = 12e-6
PIT_DISTANCE_M = 0.007
"""Pits whose middles are nearer than this to each other belong together."""

SLENDER = 1.75
"""Length over width from which on a raised region is a burr, and one of different colour a scratch."""

HALF, FIFTH = 0.5, 0.2
STEEP, PITTED = 0.58, 0.42
"""Area deeper than half the extreme over that deeper than a fifth of it: a smooth dent (1 - r²)² has 0.53. What has a
flat bottom and steep sides has more, several pits beside each other less."""

TORN = 0.05
"""Share of a region and its rim without points from which on its sides are steep: fusion drops what lies at a jump."""

AT_EDGE = 0.5
"""Share of patches near an edge from which on a region lies at it."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A region's outline.

    Attributes:
        area_m2: of its patches.
        centre_m: (3,) centre, weighted by how much each patch differs, frame "part".
        length_m, width_m: along and across its longest direction, four standard deviations each: a filled ellipse of
            these axes has the same second moments.
    """

    area_m2: float
    centre_m: NDArray[np.float64]
    length_m: float
    width_m: float

    @property
    def slenderness(self) -> float:
        """Length over width."""
        return self.length_m / max(self.width_m, 1e-6)


def region_shape(region: PatchRegion, surface: Surface, difference: FloatArray) -> Shape:
    """Outline of a region whose patches differ by `difference` (K,)."""
    patches = region.patches
    area_m2 = surface.area_m2[patches]
    weight = area_m2 * np.nan_to_num(np.abs(difference[patches]))
    if not weight.any():
        weight = area_m2
    points = surface.points_part[patches]
    centre = weight @ points / weight.sum()
    spread = (points - points.mean(axis=0)) * np.sqrt(area_m2 / area_m2.sum())[:, None]
    # Each patch is itself an extent of its spacing.
    second, first = np.sort(np.linalg.eigvalsh(spread.T @ spread))[1:] + surface.spacing_m**2 / 12
    return Shape(float(area_m2.sum()), centre, 4 * math.sqrt(max(first, 0.0)), 4 * math.sqrt(max(second, 0.0)))


def shape_kind(
    shape: Shape, region: PatchRegion, excess_m: FloatArray, scales: DeviationScales, *, outwards: bool
) -> str:
    """Name of a region whose deviation from good parts is `excess_m` (K,), outwards at its extreme or inwards."""
    surface = scales.surface
    if shape.area_m2 > WARPED_SHARE * surface.area_m2.sum():
        return "warp"
    if outwards and shape.slenderness > SLENDER:
        return "burr"
    values = excess_m[_with_rim(region, scales)] * (1.0 if outwards else -1.0)
    seen = values[np.isfinite(values)]
    extreme = float(seen.max(initial=0.0))
    bottom = float((seen > HALF * extreme).sum()) / max(float((seen > FIFTH * extreme).sum()), 1.0)
    at_edge = float(surface.near_edge[region.patches].mean()) > AT_EDGE
    if at_edge or bottom > STEEP or len(seen) < (1 - TORN) * len(values):
        return "excess_material" if outwards else "missing_material"
    if outwards:
        return "bump"
    return "porosity" if bottom < PITTED else "dent"


def _with_rim(region: PatchRegion, scales: DeviationScales) -> NDArray[np.intp]:
    """The region and two rings of patches about it."""
    inside = np.zeros(len(scales.surface))
    inside[region.patches] = 1.0
    for _ in range(2):
        inside = ((scales.touching @ inside) > 0).astype(np.float64)
    return np.flatnonzero(inside)


def color_kind(shape: Shape, score: ColorScore, region: PatchRegion) -> str:
    """Name of a region by its outline and by how its colour differs in L*a*b*."""
    if shape.slenderness > SLENDER:
        return "scratch"
    lightness, redness, yellowness = np.nan_to_num(np.nanmedian(score.difference_lab[region.patches], axis=0))
    chroma = math.hypot(redness, yellowness)
    if redness > 8.0 and redness > 0.35 * yellowness:
        return "rust"
    return "discolouration" if chroma > max(abs(lightness), 6.0) * 0.8 else "stain"


def joined(regions: list[PatchRegion], surface: Surface, excess_m: FloatArray) -> list[PatchRegion]:
    """Regions that are parts of one defect made one: the waves of a warp, the pits of a porous place."""
    total_m2 = float(surface.area_m2.sum())
    large = [region for region in regions if surface.area_m2[region.patches].sum() > WAVE_SHARE * total_m2]
    if sum(float(surface.area_m2[region.patches].sum()) for region in large) > WARPED_SHARE * total_m2:
        return [_union(large), *(region for region in regions if all(region is not other for other in large))]
    pits = [region for region in regions if _is_pit(region, surface, excess_m)]
    groups = _groups([surface.points_part[region.patches].mean(axis=0) for region in pits])
    merged = [_union([pits[number] for number in group]) for group in groups]
    return [*(region for region in regions if all(region is not pit for pit in pits)), *merged]


def _is_pit(region: PatchRegion, surface: Surface, excess_m: FloatArray) -> bool:
    small = float(surface.area_m2[region.patches].sum()) < LARGEST_PIT_M2
    return small and float(np.nan_to_num(excess_m[region.patches]).mean()) < 0


def _groups(centres: list[NDArray[np.float64]]) -> list[list[int]]:
    """Chains of centres that lie within `PIT_DISTANCE_M` of each other."""
    if not centres:
        return []
    near = KDTree(np.stack(centres)).sparse_distance_matrix(KDTree(np.stack(centres)), PIT_DISTANCE_M)
    count, label = connected_components(near, directed=False)
    return [np.flatnonzero(label == number).tolist() for number in range(count)]


def _union(regions: list[PatchRegion]) -> PatchRegion:
    patches = np.unique(np.concatenate([region.patches for region in regions]))
    return PatchRegion(patches, max(region.significance for region in regions))
