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
        distance_m, patch = self.tree.query(points_part, distance_upper_bound=REACH_M, workers=-1)
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
