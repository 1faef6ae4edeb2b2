"""How far the measured surface lies from the reference, patch by patch and at several scales, and how sure that is.

Deviation is signed, positive outside the material. A mean over a neighbourhood of N points has the variance

    u² = (1 / sum w) (1 + (N - 1) rho) + u_pose² + u_systematic²        w = 1 / sigma²

where `rho` is the mean correlation of two of its points (GUM, 5.2.2 and F.1.2.3): noise of a stereo camera is alike
over a few pixels, so that ten times the points do not mean a tenth of the variance. Pose and calibration are shared by
all points of the neighbourhood and do not shrink at all.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.align import Alignment
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.uncertainty import pose_variance_m2
from depthcell.inspect.sight import EDGE_WIDTH
from depthcell.inspect.surface import PatchGrid, Surface

SCALES = (1.1, 2.0, 4.0)
"""Radii of the neighbourhoods that are averaged, in patch spacings."""

TOUCHING = 1.7
"""Patches nearer than this many spacings touch each other."""

MIN_COVERED = 0.5
"""Share of a neighbourhood's patches that must hold points."""

OPPOSED = -0.3
"""Cosine between a point's normal and the reference's nearest face below which the point belongs to another face."""


FACING = 0.5
"""Cosine between a point's normal and its face below which the point does not look like the face."""


@dataclass(frozen=True, slots=True, eq=False)
class PointDeviation:
    """The cloud against the reference, point by point, in the cloud's order.

    Attributes:
        points_part: (N, 3) float64, the points in the frame "part".
        patch: (N,) intp, patch of the surface the point belongs to; -1 for none.
        deviation_m: (N,) float64, signed distance from the reference, positive outside the material.
    """

    points_part: NDArray[np.float64]
    patch: NDArray[np.intp]
    deviation_m: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScaleDeviation:
    """Mean deviation over neighbourhoods of one radius. Arrays are (K,), one value per patch.

    NaN where less than half of the neighbourhood holds points: there the mean would speak of another place.

    Attributes:
        radius_m: of the neighbourhood.
        mean_m: weighted mean of the deviation.
        random_u_m: its standard uncertainty from noise, that of the alignment included.
        systematic_u_m: from calibration, by way of the points and of the alignment: the same for every part.
    """

    radius_m: float
    mean_m: NDArray[np.float64]
    random_u_m: NDArray[np.float64]
    systematic_u_m: NDArray[np.float64]

    @property
    def u_m(self) -> NDArray[np.float64]:
        """(K,) combined standard uncertainty against the reference (GUM 5.1.2)."""
        return np.hypot(self.random_u_m, self.systematic_u_m)


@dataclass(frozen=True, slots=True, eq=False)
class DeviationMap:
    """The part against the reference.

    Attributes:
        points: point by point.
        count: (K,) points in each patch itself.
        scales: from the finest to the coarsest.
    """

    points: PointDeviation
    count: NDArray[np.float64]
    scales: tuple[ScaleDeviation, ...]

    def without_points(self) -> "DeviationMap":
        """The averages alone, which take little room."""
        nothing = PointDeviation(np.empty((0, 3)), np.empty(0, np.intp), np.empty(0))
        return replace(self, points=nothing)


def compare(
    cloud: PartCloud, alignment: Alignment, reference: Reference, surface: Surface, grid: PatchGrid
) -> PointDeviation:
    """Signed distance of every point from the face of the reference it belongs to.

    The nearest face is the right one unless the part is thin and bent: then the nearest may be the opposite face, which
    the point's own normal gives away; such points are compared with the nearest face that looks their way.

    A point near a face that it does not look like (the top's rim, say, spread out beside the wall below it) was put
    there by the matching window, which widens near surfaces. Within the window's width it says nothing about that face,
    and belongs to no patch.
    """
    T_part_cell = alignment.T_cell_part.inverse()
    points_part = np.asarray(T_part_cell @ cloud.points_cell, dtype=np.float64)
    normals_part = T_part_cell.rotate(cloud.normals_cell.astype(np.float64))
    deviation_m, outward = reference.signed_distance_and_gradient(points_part)
    patch = grid.nearest(points_part - deviation_m[:, None] * outward)
    facing = np.einsum("ij,ij->i", outward, normals_part)
    opposed = np.flatnonzero(facing < OPPOSED)
    if len(opposed):
        other = surface.nearest_facing(points_part[opposed], normals_part[opposed])
        found, other = opposed[other >= 0], other[other >= 0]
        patch[found] = other
        offset = points_part[found] - surface.points_part[other]
        deviation_m[found] = np.einsum("ij,ij->i", offset, surface.normals_part[other])
        facing[found] = 1.0
    spread = (facing < FACING) & (np.abs(deviation_m) < EDGE_WIDTH * cloud.correlation_m)
    patch[spread] = -1
    return PointDeviation(points_part, patch, deviation_m)


class DeviationScales:
    """Averages over neighbourhoods of a surface, prepared once.

    Attributes:
        surface: the patches.
        radii_m: of the neighbourhoods, ascending.
        smallest: index of the radius whose disc has the smallest area that must be told apart.
        neighbours: (K, K) for each radius, see `Surface.neighbours`.
        touching: (K, K), patches that touch each other.
    """

    def __init__(self, surface: Surface, min_area_m2: float) -> None:
        """Prepare neighbourhoods of `SCALES`, and of the smallest area that must be told apart."""
        smallest_m = math.sqrt(min_area_m2 / math.pi)
        fixed = [scale * surface.spacing_m for scale in SCALES]
        self.surface = surface
        self.radii_m = tuple(sorted({smallest_m, *(r for r in fixed if not 0.8 < r / smallest_m < 1.25)}))
        self.smallest = self.radii_m.index(smallest_m)
        self.neighbours = tuple(surface.neighbours(radius_m) for radius_m in self.radii_m)
        self.touching = surface.neighbours(TOUCHING * surface.spacing_m)
        self._sizes = tuple(np.diff(near.indptr) for near in self.neighbours)

    def map(self, cloud: PartCloud, points: PointDeviation, alignment: Alignment) -> DeviationMap:
        """Average the deviations of the points over each patch's neighbourhoods."""
        sums = _patch_sums(cloud, points, len(self.surface))
        points_cell = alignment.T_cell_part @ self.surface.points_part
        normals_cell = alignment.T_cell_part.rotate(self.surface.normals_part)
        pose_u_m = [
            np.sqrt(pose_variance_m2(points_cell, normals_cell, covariance))
            for covariance in (alignment.random_covariance, alignment.systematic_covariance)
        ]
        scales = tuple(
            _scale(radius_m, near @ sums, sizes, *pose_u_m)
            for radius_m, near, sizes in zip(self.radii_m, self.neighbours, self._sizes, strict=True)
        )
        return DeviationMap(points, sums[:, 0], scales)


def _patch_sums(cloud: PartCloud, points: PointDeviation, patches: int) -> NDArray[np.float64]:
    """(K, 6): count, weight, weight times deviation, weight times systematic, correlation length, covered patches."""
    used = points.patch >= 0
    patch = points.patch[used]
    weight = 1.0 / cloud.random_sigma_m[used].astype(np.float64) ** 2
    columns = (
        None,
        weight,
        weight * points.deviation_m[used],
        weight * cloud.systematic_sigma_m[used],
        cloud.correlation_m[used].astype(np.float64),
    )
    sums = [np.bincount(patch, column, minlength=patches).astype(np.float64) for column in columns]
    return np.column_stack((*sums, (sums[0] > 0).astype(np.float64)))


def _scale(
    radius_m: float,
    sums: NDArray[np.float64],
    sizes: NDArray[np.intp],
    random_pose_u_m: NDArray[np.float64],
    systematic_pose_u_m: NDArray[np.float64],
) -> ScaleDeviation:
    with np.errstate(divide="ignore", invalid="ignore"):
        count, weight, deviation, systematic, correlation, covered = sums.T
        alike = mean_correlation(correlation / count, radius_m)
        noise_u_m = np.sqrt((1.0 + (count - 1.0) * alike) / weight)
        seen = covered >= MIN_COVERED * sizes
        columns = (
            deviation / weight,
            np.hypot(noise_u_m, random_pose_u_m),
            np.hypot(systematic / weight, systematic_pose_u_m),
        )
    return ScaleDeviation(radius_m, *(np.where(seen, column, np.nan) for column in columns))


def mean_correlation(correlation_m: FloatArray, radius_m: float) -> FloatArray:
    """Mean correlation of two random points of a disc, for noise that correlates as exp(-(d / correlation_m)²).

    With both points taken from a normal distribution of the disc's second moment (variance r²/4 per axis), their
    distance has variance r²/2 per axis and the expectation of the correlation is l² / (l² + r²).
    """
    square: FloatArray = correlation_m**2
    return square / (square + radius_m**2)
