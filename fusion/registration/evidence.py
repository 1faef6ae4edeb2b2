"""How well a pose explains a cloud: points that lie on the part, and surface that was seen where it should be seen."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.posefit import FACING, TUKEY
from depthcell.fusion.reference import Reference
from depthcell.fusion.region import Region
from depthcell.fusion.registration.posebatch import OrientedPoints

CELL_M = 2.5e-3
"""The cloud is averaged over cubes of this size: evenly spread, and beyond the reach of correlated noise."""
COVERED = 1.3
"""A surface sample is covered by an averaged point within so many cubes."""
STEEP = math.cos(math.radians(65.0))
"""Cosine of incidence above which a camera surely measures a surface it sees."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What speaks for one pose.

    Attributes:
        explained: share of the averaged points that lie on the reference and face as it does.
        covered: share of the surface that the cameras must see in this pose where they did measure.
        cost: negative logarithm of the likelihood, up to a constant; see `Scene.evidence`.
    """

    explained: float
    covered: float
    cost: float


class Scene:
    """A cloud, averaged over cubes, and the cameras that saw it.

    Attributes:
        data: the averaged points and their normals, frame "cell".
        cameras: that saw them.
        sigma_m: standard deviation of a point about the part: noise, calibration, and half of what parts may differ by.
        region: box that the cloud was cut to; None for all that was measured.
    """

    def __init__(
        self, data: OrientedPoints, cameras: tuple[CellCamera, ...], sigma_m: float, region: Region | None
    ) -> None:
        self.data, self.cameras, self.sigma_m, self.region = data, cameras, sigma_m, region
        self._tree = KDTree(data.points)

    @classmethod
    def of(cls, cloud: PartCloud, cell: Cell, form_m: float, region: Region | None = None) -> "Scene":
        """Average a cloud; `form_m` is how far good parts may differ.

        Raises:
            DepthcellError: (`ALIGNMENT_FAILED`) the cloud is empty.
        """
        if not len(cloud):
            raise DepthcellError(
                "pose search: the cloud is empty; check the region and the cameras", Reason.ALIGNMENT_FAILED
            )
        cameras = tuple(cell.camera(serial) for serial in cloud.serials)
        return cls(averaged(cloud), cameras, math.hypot(float(np.median(cloud.sigma_m)), form_m / 2), region)

    def part(self, chosen: NDArray[np.bool_]) -> "Scene":
        """Some of the averaged points, by a mask (N,)."""
        data = OrientedPoints(self.data.points[chosen], self.data.normals[chosen])
        return Scene(data, self.cameras, self.sigma_m, self.region)

    @property
    def eyes_cell(self) -> NDArray[np.float64]:
        """(C, 3) where the cameras stand."""
        return np.array([camera.T_cell_depth.translation_m for camera in self.cameras])

    @property
    def worst_cost(self) -> float:
        """What a pose costs that explains no point."""
        return len(self.data) * TUKEY**2 / 2

    def evidence(self, pose: RigidTransform, reference: Reference, samples: OrientedPoints) -> Evidence:
        """Of a pose `T_cell_part`; `samples` are of the reference's surface, frame "part".

        Each averaged point costs `min(r / sigma, c)² / 2`, c Tukey's cut-off, and c² / 2 if it does not face as the
        surface does; so does each sample that a camera must see and nobody measured. A point stands for `CELL_M²` of
        surface and so does a sample, so that excess and lack weigh alike.
        """
        scaled = self.scaled(pose, reference)
        due = self.due(pose, reference, samples)
        reach_m = COVERED * CELL_M
        away_m, _ = self._tree.query(pose @ samples.points[due], distance_upper_bound=reach_m)
        lacking = int(np.isinf(away_m).sum())
        cost = float(np.square(np.minimum(scaled, TUKEY)).sum() + lacking * TUKEY**2) / 2
        covered = 1 - lacking / len(due) if len(due) else 0.0
        return Evidence(float(np.mean(scaled < TUKEY)), covered, cost)

    def scaled(self, pose: RigidTransform, reference: Reference) -> NDArray[np.float64]:
        """(N,) distance of the averaged points from the reference over `sigma_m`; infinite if they face elsewhere."""
        distance_m, gradient = reference.signed_distance_and_gradient(pose.inverse() @ self.data.points)
        gradient /= np.maximum(np.linalg.norm(gradient, axis=1), 0.1)[:, None]
        facing = np.einsum("ij,ij->i", pose.rotate(gradient), self.data.normals)
        return np.where(facing > FACING, np.abs(distance_m) / self.sigma_m, np.inf)

    def due(self, pose: RigidTransform, reference: Reference, samples: OrientedPoints) -> NDArray[np.intp]:
        """Samples that some camera must see: in the region, steep, in its image, not hidden by the part itself."""
        seen = np.zeros(len(samples), np.bool_)
        points_cell, normals_cell = pose @ samples.points, pose.rotate(samples.normals)
        asked_for = np.ones(len(samples), np.bool_) if self.region is None else self.region.contains(points_cell)
        for camera, eye_cell in zip(self.cameras, self.eyes_cell, strict=True):
            ray = eye_cell - points_cell
            steep = np.einsum("ij,ij->i", ray, normals_cell) > STEEP * np.linalg.norm(ray, axis=1)
            pixels = camera.depth.project(camera.T_cell_depth.inverse() @ points_cell)
            size = np.array([camera.depth.width_px, camera.depth.height_px])
            inside = ((pixels > 0) & (pixels < size - 1)).all(axis=1)
            asked = np.flatnonzero(asked_for & steep & inside & ~seen)
            eye_part = pose.inverse() @ eye_cell
            seen[asked] = reference.visible(samples.points[asked], samples.normals[asked], eye_part)
        return np.flatnonzero(seen)


def averaged(cloud: PartCloud) -> OrientedPoints:
    """Means of points and normals over cubes of `CELL_M`; cubes with fewer than 3 points are left out."""
    cube = np.floor(cloud.points_cell / CELL_M).astype(np.int64)
    cube -= cube.min(axis=0)
    size = cube.max(axis=0) + 1
    _, number, count = np.unique(
        (cube[:, 0] * size[1] + cube[:, 1]) * size[2] + cube[:, 2], return_inverse=True, return_counts=True
    )
    kept = count >= min(3, int(count.max()))
    sums = [np.bincount(number, column, len(count)) for column in (*cloud.points_cell.T, *cloud.normals_cell.T)]
    points = np.column_stack(sums[:3])[kept] / count[kept, None]
    normals = np.column_stack(sums[3:])[kept]
    return OrientedPoints(points, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))
