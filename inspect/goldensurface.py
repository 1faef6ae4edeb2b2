"""A golden part where no drawing exists: the mean surface of N good scans, and how much good parts vary about it.

The first scan, thinned to one point a cell, gives the places; every scan is laid upon them by its shape alone and read
there along the normal, and the places move to the mean until they rest. Nothing is closed and no hole is filled: the
surface is open and ends where not enough scans saw it.

At one place the scans give heights d_i with standard uncertainty u_i of their noise. Their variance holds process and
noise, so

    process² = max(0, s² - mean(u_i²))       s² = Σ (d_i - mean)² / (N - 1)
    u(mean)  = s / √N                        u(process²) = s² √(2 / (N - 1))

the last as for a normal sample. Three things are not in it. Calibration, which all scans share. What laying-on takes:
a variation that covers a share of the surface is by that share taken for a motion of the part. And curvature: a mean
over a disc of radius r lies r² / 4R inside a surface of radius R, but alike in every reading, so that deviations hold.
"""

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.spatial import KDTree

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.files import written_beside
from depthcell.fusion.partcloud import PartCloud
from depthcell.inspect.deviation import mean_correlation

MIN_SCANS = 4
SPACING_M = 1e-3
READ_RADII = 1.2
"""Radius about a place within which a scan is read, in spacings."""

ALIKE = 0.8
"""Cosine between a point's normal and a place's, from which on the point is of that surface."""

NEAREST = 12
"""Places that a point may tell something of: there are five or so within that radius."""

FEWEST_POINTS = 3
PULLING_POINTS = 6000
"""Of a scan, spread evenly over it, that lay it upon the surface."""

ROUNDS = 3
CATCH_M = (2e-3, 6e-4)
"""How far off the surface a point may lie to pull a scan towards it, first and then."""

MIN_OVERLAP = 0.5
REACH_M = 3e-3
"""How far above or below its place a scan is read."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One scan on a golden surface. Arrays are (K,), one value a place, NaN where the scan did not see it.

    Attributes:
        T_part_cell: how the scan was laid upon it.
        deviation_m: height above the surface, positive out of the material.
        noise_u_m: its standard uncertainty from the scan's noise.
    """

    T_part_cell: RigidTransform
    deviation_m: NDArray[np.float64]
    noise_u_m: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class GoldenSurface:
    """The mean surface of good parts, frame "part", and their variation.

    Attributes:
        points_part: (K, 3) metres, the places; they are the mean.
        normals_part: (K, 3) unit length, out of the material.
        triangles: (T, 3) int32 between them, an open mesh, counter-clockwise seen from outside.
        scans: (K,) how many saw each place.
        process_m: (K,) standard deviation of good parts about the mean, noise taken out.
        process_u_m: (K,) its standard uncertainty.
        mean_u_m: (K,) standard uncertainty of the mean, from process and noise.
        spacing_m: between places.
    """

    points_part: NDArray[np.float64]
    normals_part: NDArray[np.float64]
    triangles: NDArray[np.int32]
    scans: NDArray[np.int32]
    process_m: NDArray[np.float64]
    process_u_m: NDArray[np.float64]
    mean_u_m: NDArray[np.float64]
    spacing_m: float

    def read(self, cloud: PartCloud, T_part_cell: RigidTransform) -> Reading:
        """Lay a scan upon the surface, starting from `T_part_cell`, and read it there.

        Raises:
            DepthcellError: less than half of the surface finds the scan near it.
        """
        places = _Places(self.points_part, self.normals_part, self.spacing_m)
        return places.read(cloud, places.laid(cloud, T_part_cell))

    def significance(self, reading: Reading) -> NDArray[np.float64]:
        """(K,) deviation over all that makes good parts differ there: process, noise and the mean's own uncertainty."""
        u_m = np.sqrt(self.process_m**2 + reading.noise_u_m**2 + self.mean_u_m**2)
        return np.asarray(reading.deviation_m / u_m)

    def save(self, path: Path) -> None:
        """Write it as one npz, whole or not at all."""
        arrays: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        with written_beside(path) as partial:
            np.savez_compressed(partial, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read one.

        Raises:
            DepthcellError: the file is missing or damaged.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                spacing_m = float(arrays["spacing_m"])
                columns: dict[str, Any] = {f.name: arrays[f.name] for f in fields(cls) if f.name != "spacing_m"}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DepthcellError(f"golden surface {path}: missing or damaged ({error}); build it again") from error
        return cls(spacing_m=spacing_m, **columns)


def golden_surface(
    scans: Sequence[PartCloud], T_cell_part: RigidTransform, spacing_m: float = SPACING_M
) -> GoldenSurface:
    """The mean of good scans.

    Args:
        scans: at least `MIN_SCANS`, each a fused part cut to the region of interest.
        T_cell_part: where the fixture holds a part; the first scan is taken to lie there.
        spacing_m: between places; a few noise lengths, or neighbours tell the same.

    Raises:
        DepthcellError: there are too few scans, or one does not lie on the others.
    """
    if len(scans) < MIN_SCANS:
        raise DepthcellError(
            f"golden surface: needs {MIN_SCANS} good scans or more, got {len(scans)}; scan more", Reason.BAD_INPUT
        )
    start = T_cell_part.inverse()
    places = _Places.of(scans[0], start, spacing_m)
    poses = [start] * len(scans)
    heights_m = noise_u_m = np.empty(0)
    for _ in range(ROUNDS):
        poses = [_laid(places, *pair, number) for number, pair in enumerate(zip(scans, poses, strict=True), start=1)]
        readings = [places.read(scan, pose) for scan, pose in zip(scans, poses, strict=True)]
        heights_m = np.stack([reading.deviation_m for reading in readings])
        noise_u_m = np.stack([reading.noise_u_m for reading in readings])
        known = np.isfinite(heights_m).sum(axis=0) >= MIN_SCANS
        heights_m, noise_u_m = heights_m[:, known], noise_u_m[:, known]
        places = places.moved(known, np.nanmean(heights_m, axis=0))
    return _with_statistics(places, heights_m, noise_u_m)


def _with_statistics(
    places: "_Places", heights_m: NDArray[np.float64], noise_u_m: NDArray[np.float64]
) -> GoldenSurface:
    count = np.isfinite(heights_m).sum(axis=0)
    variance_m2 = np.nanvar(heights_m, axis=0, ddof=1)
    process_m2 = np.maximum(variance_m2 - np.nanmean(noise_u_m**2, axis=0), 0.0)
    process_m2_u = variance_m2 * np.sqrt(2 / (count - 1))
    process_m = np.sqrt(process_m2)
    # u(√v) = u(v) / (2 √v); where v is not told from nothing, it may reach √u(v).
    process_u_m = np.minimum(
        np.divide(process_m2_u, 2 * process_m, out=np.full(len(process_m), np.inf), where=process_m > 0),
        np.sqrt(process_m2_u),
    )
    return GoldenSurface(
        points_part=places.points,
        normals_part=places.normals,
        triangles=places.triangles(),
        scans=count.astype(np.int32),
        process_m=process_m,
        process_u_m=process_u_m,
        mean_u_m=np.sqrt(variance_m2 / count),
        spacing_m=places.spacing_m,
    )


def _laid(places: "_Places", scan: PartCloud, start: RigidTransform, number: int) -> RigidTransform:
    try:
        return places.laid(scan, start)
    except DepthcellError as error:
        raise DepthcellError(f"golden surface: scan {number}: {error}", error.reason) from error


class _Places:
    """Places on a surface: points (K, 3) in metres and unit normals (K, 3), frame "part"."""

    def __init__(self, points: NDArray[np.float64], normals: NDArray[np.float64], spacing_m: float) -> None:
        self.points = points
        self.normals = normals
        self.spacing_m = spacing_m
        self._tree = KDTree(points)

    @classmethod
    def of(cls, scan: PartCloud, T_part_cell: RigidTransform, spacing_m: float) -> Self:
        """One place in each cell of a cubic grid that the scan touches: the mean of its points that look one way."""
        points = np.asarray(T_part_cell @ scan.points_cell, dtype=np.float64)
        normals = np.asarray(T_part_cell.rotate(scan.normals_cell.astype(np.float64)))
        # Opposite sides of a thin wall share a cell but not a direction.
        steepest = np.argmax(np.abs(normals), axis=1)
        outwards = np.take_along_axis(normals, steepest[:, None], axis=1)[:, 0] > 0
        facing = 2 * steepest + outwards
        keys = np.column_stack((np.floor(points / spacing_m).astype(np.int64), facing))
        _, cell, count = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        sums = coo_array((np.ones(len(points)), (cell.reshape(-1), np.arange(len(points))))).tocsr()
        enough = count >= FEWEST_POINTS
        mean_normals = (sums @ normals)[enough]
        mean_normals /= np.linalg.norm(mean_normals, axis=1, keepdims=True)
        return cls(((sums @ points) / count[:, None])[enough], mean_normals, spacing_m)

    def moved(self, kept: NDArray[np.bool_], by_m: NDArray[np.float64]) -> Self:
        """Those that are kept, each moved along its normal."""
        return type(self)(self.points[kept] + by_m[:, None] * self.normals[kept], self.normals[kept], self.spacing_m)

    def laid(self, cloud: PartCloud, start: RigidTransform) -> RigidTransform:
        """`T_part_cell` that brings a scan upon the places, point to plane (open3d, Y. Chen and G. Medioni 1992)."""
        registration = open3d().pipelines.registration
        pulling = np.linspace(0, len(cloud) - 1, min(PULLING_POINTS, len(cloud))).astype(np.intp)
        source, target = self._cloud(cloud.points_cell[pulling]), self._cloud(self.points, self.normals)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = start.rotation, start.translation_m
        found = None
        for catch_m in CATCH_M:
            estimator = registration.TransformationEstimationPointToPlane(registration.TukeyLoss(k=catch_m))
            until = registration.ICPConvergenceCriteria(1e-9, 1e-9, 60)
            # A point on the surface still lies up to a spacing aside of the nearest place.
            found = registration.registration_icp(
                source, target, math.hypot(catch_m, self.spacing_m), pose, estimator, until
            )
            pose = np.asarray(found.transformation)
        if found is None or found.fitness < MIN_OVERLAP:
            share = 0.0 if found is None else found.fitness
            raise DepthcellError(
                f"only {share:.0%} of the scan lies on the surface; it is another part, or lies elsewhere",
                Reason.ALIGNMENT_FAILED,
            )
        u, _, v = np.linalg.svd(pose[:3, :3])
        return RigidTransform("part", "cell", u @ v, pose[:3, 3].copy())

    def read(self, cloud: PartCloud, T_part_cell: RigidTransform) -> Reading:
        """Weighted mean height of the scan's points about each place, and its noise with its correlation."""
        points = np.asarray(T_part_cell @ cloud.points_cell, dtype=np.float64)
        normals = np.asarray(T_part_cell.rotate(cloud.normals_cell.astype(np.float64)))
        radius_m = READ_RADII * self.spacing_m
        found = self._tree.query(points, k=min(NEAREST, len(self.points)), distance_upper_bound=2 * REACH_M)
        near = np.asarray(found[1], dtype=np.intp)
        point, column = np.nonzero(near < len(self.points))
        place = near[point, column]
        offset = points[point] - self.points[place]
        height_m = np.einsum("ij,ij->i", offset, self.normals[place])
        aside_m2 = np.einsum("ij,ij->i", offset, offset) - height_m**2
        used = (aside_m2 < radius_m**2) & (np.abs(height_m) < REACH_M)
        used &= np.einsum("ij,ij->i", normals[point], self.normals[place]) > ALIKE
        point, place, height_m = point[used], place[used], height_m[used]
        weight = 1.0 / cloud.random_sigma_m[point].astype(np.float64) ** 2
        total, summed, correlation, count = (
            np.bincount(place, column, minlength=len(self.points))
            for column in (weight, weight * height_m, cloud.correlation_m[point].astype(np.float64), None)
        )
        seen = count >= FEWEST_POINTS
        with np.errstate(divide="ignore", invalid="ignore"):
            alike = mean_correlation(correlation / count, radius_m)
            noise_u_m = np.sqrt((1.0 + (count - 1.0) * alike) / total)
            deviation_m = summed / total
        return Reading(T_part_cell, np.where(seen, deviation_m, np.nan), np.where(seen, noise_u_m, np.nan))

    def triangles(self) -> NDArray[np.int32]:
        """Faces between neighbouring places by rolling a ball over them; where it falls through, it is open."""
        o3d = open3d()
        radii = o3d.utility.DoubleVector([1.0 * self.spacing_m, 1.6 * self.spacing_m])
        cloud = self._cloud(self.points, self.normals)
        mesh = o3d.geometry.TriangleMesh.create_from_point_cloud_ball_pivoting(cloud, radii)
        return np.asarray(mesh.triangles).astype(np.int32).reshape(-1, 3)

    @staticmethod
    def _cloud(points: NDArray[np.float64], normals: NDArray[np.float64] | None = None) -> Any:
        o3d = open3d()
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(np.ascontiguousarray(points, dtype=np.float64)))
        if normals is not None:
            cloud.normals = o3d.utility.Vector3dVector(np.ascontiguousarray(normals, dtype=np.float64))
        return cloud
