"""The reference surface cut into small patches, the places at which parts are compared with each other.

A patch ("cell") is the same place on every part of a kind. Points are sorted into patches once; averages, statistics of
good parts and connected regions are then sums over patches, with neighbourhoods prepared once per recipe.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import KDTree

from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError
from depthcell.fusion.reference import Reference

MAX_PATCHES = 40_000
MAX_CUBES = 8_000_000
LARGEST_SPACING_M = 0.001
"""Patches are no coarser than this, so that a narrow deep pit keeps its depth, unless the part is large."""

REACH_M = 0.015
"""Points farther from the surface than this belong to no patch: a hand in the picture, the fixture."""

FACING = 0.5
"""Cosine of the largest angle between normals of patches that are averaged with each other."""

CREASE = 0.8
"""Cosine of the angle between neighbouring patches from which on there is an edge between them."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """K patches of the inspected surface.

    Attributes:
        points_part: (K, 3) float64, centres, metres.
        normals_part: (K, 3) float64, out of the material.
        area_m2: (K,) float64.
        spacing_m: about the distance of neighbouring centres.
        near_edge: (K,) bool, within two spacings of a crease of the reference, where stereo rounds and mixes.
        reference_sha256: of the reference, so that statistics of another one are refused.
    """

    points_part: NDArray[np.float64]
    normals_part: NDArray[np.float64]
    area_m2: NDArray[np.float64]
    spacing_m: float
    near_edge: NDArray[np.bool_]
    reference_sha256: str
    tree: KDTree

    def __len__(self) -> int:
        return len(self.points_part)

    @classmethod
    def build(
        cls, reference: Reference, lower_part: FloatArray, upper_part: FloatArray, min_area_m2: float
    ) -> "Surface":
        """Cut the part of the reference that lies in a box into patches.

        Args:
            reference: the closed mesh.
            lower_part: lower corner of the box, (3,) metres.
            upper_part: upper corner of the box.
            min_area_m2: smallest region that must be told apart; about four patches cover it.

        Raises:
            DepthcellError: the box holds none of the surface.
        """
        finest_m = min(LARGEST_SPACING_M, math.sqrt(min_area_m2) / 2)
        spacing_m = max(finest_m, math.sqrt(_area_m2(reference) / MAX_PATCHES))
        samples = reference.surface_samples(spacing_m)
        inside = ((samples.points_part >= lower_part) & (samples.points_part <= upper_part)).all(axis=1)
        if not inside.any():
            raise DepthcellError("region: holds nothing of the reference's surface; correct region.min_mm and max_mm")
        points, normals = samples.points_part[inside], samples.normals_part[inside].astype(np.float64)
        tree = KDTree(points)
        near_edge = _near_edge(tree, normals, 2 * spacing_m)
        area_m2 = samples.area_m2[inside].astype(np.float64)
        return cls(points, normals, area_m2, spacing_m, near_edge, reference.sha256, tree)

    @property
    def identity(self) -> str:
        """What statistics of good parts are keyed on: the same for the same reference, region and spacing."""
        lower, upper = self.points_part.min(axis=0), self.points_part.max(axis=0)
        extent = " ".join(f"{value * 1e3:.3f}" for value in (*lower, *upper))
        return f"{self.reference_sha256} {len(self)} patches of {self.spacing_m * 1e3:.3f} mm, {extent}"

    def neighbours(self, radius_m: float) -> csr_array:
        """Which patches lie within `radius_m` of each other and face about the same way: (K, K), ones, with itself."""
        pairs = self.tree.query_pairs(radius_m, output_type="ndarray")
        facing = np.einsum("ij,ij->i", self.normals_part[pairs[:, 0]], self.normals_part[pairs[:, 1]]) > FACING
        first, second = pairs[facing].T
        itself = np.arange(len(self))
        rows, columns = np.concatenate((first, second, itself)), np.concatenate((second, first, itself))
        return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(self), len(self)))

    def nearest(self, points_part: FloatArray) -> NDArray[np.intp]:
        """Patch nearest to each of the points (N, 3); -1 where none lies within `REACH_M`."""
        distance_m, patch = self.tree.query(points_part, distance_upper_bound=REACH_M)
        return np.where(np.isfinite(distance_m), patch, -1)

    def nearest_facing(self, points_part: FloatArray, normals_part: FloatArray) -> NDArray[np.intp]:
        """Patch nearest to each point (N, 3) among those that face as the point's normal; -1 where there is none."""
        count = min(32, len(self))
        distance_m, patch = self.tree.query(points_part, k=[*range(1, count + 1)], distance_upper_bound=REACH_M)
        normals = np.vstack((self.normals_part, np.zeros(3)))  # a neighbour not found has number K: it faces nowhere
        fits = np.einsum("nkj,nj->nk", normals[patch], normals_part) > FACING
        distance_m = np.where(fits, distance_m, np.inf)
        best = distance_m.argmin(axis=1)
        rows = np.arange(len(best))
        return np.where(np.isfinite(distance_m[rows, best]), patch[rows, best], -1)


class PatchGrid:
    """Which patch a place on the surface belongs to, in cubes prepared once: a look-up instead of a search.

    A place belongs to the patch nearest to the middle of its cube, which is half a patch spacing wide, so a place near
    the border of two patches may come to the one that is not quite the nearest.
    """

    def __init__(self, surface: Surface, reference: Reference) -> None:
        lower, upper = surface.points_part.min(axis=0), surface.points_part.max(axis=0)
        extent = upper - lower + 2 * surface.spacing_m
        self._edge_m = max(surface.spacing_m / 2, float(np.cbrt(extent.prod() / MAX_CUBES)))
        self._lower = lower - surface.spacing_m
        self._shape = np.ceil(extent / self._edge_m).astype(np.intp) + 1
        self._surface = surface
        self._patch = np.full(int(self._shape.prod()), -1, np.int32)
        step = max(1, 2_000_000 // int(self._shape[1] * self._shape[2]))
        for first in range(0, int(self._shape[0]), step):
            self._fill(first, min(first + step, int(self._shape[0])), reference)

    def _fill(self, first: int, last: int, reference: Reference) -> None:
        """Cubes that the surface may pass through, of some layers at a time to bound memory."""
        ranges = (np.arange(first, last), np.arange(self._shape[1]), np.arange(self._shape[2]))
        index = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
        middle = self._lower + (index + 0.5) * self._edge_m
        near = np.flatnonzero(np.abs(reference.signed_distance(middle)) < self._edge_m)
        layer = int(self._shape[1] * self._shape[2])
        self._patch[first * layer + near] = self._surface.nearest(middle[near])

    def nearest(self, places_part: FloatArray) -> NDArray[np.intp]:
        """Patch (N,) of places (N, 3) on the surface; -1 where none lies within `REACH_M`."""
        index = np.floor((places_part - self._lower) / self._edge_m).astype(np.intp)
        inside = ((index >= 0) & (index < self._shape)).all(axis=1)
        flat = (index[:, 0] * self._shape[1] + index[:, 1]) * self._shape[2] + index[:, 2]
        patch = np.where(inside, self._patch[np.where(inside, flat, 0)], -1).astype(np.intp)
        missed = np.flatnonzero(patch < 0)
        patch[missed] = self._surface.nearest(places_part[missed])
        return patch


def _area_m2(reference: Reference) -> float:
    a, b, c = np.moveaxis(reference.vertices_part[reference.triangles], 1, 0)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def _near_edge(tree: KDTree, normals: NDArray[np.float64], radius_m: float) -> NDArray[np.bool_]:
    """Patches with a neighbour that faces elsewhere; the opposite face of a thin wall does not count."""
    pairs = tree.query_pairs(radius_m, output_type="ndarray")
    cosine = np.einsum("ij,ij->i", normals[pairs[:, 0]], normals[pairs[:, 1]])
    near_edge = np.zeros(len(normals), dtype=bool)
    near_edge[pairs[(cosine < CREASE) & (cosine > -CREASE)]] = True
    return near_edge
