"""A camera's view of one instant, made ready for the distance field: a plane per pixel, and how uncertain it is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import CellCamera
from depthcell.fusion.region import Region
from depthcell.fusion.track import PartPose
from depthcell.fusion.tsdf import PLANE_COLUMNS, Sight
from depthcell.fusion.uncertainty import pose_variance_m2
from depthcell.fusion.view import View

NEW_SHARE = 0.05
"""At least this share of a frame's variance is taken to be new in each frame; no sensor repeats itself."""
LOOK_CORRELATIONS = 2.0
"""A pattern of correlation `exp(-(r / l)²)` is another one after a way of this many l: 2 % are left."""


@dataclass(frozen=True, slots=True, eq=False)
class SeenPoints:
    """The valid pixels of a view: (N,) pixel along the window's rows, (N, 3) points and normals in some frame."""

    pixel: NDArray[np.intp]
    points: NDArray[np.float32]
    normals: NDArray[np.float32]

    @classmethod
    def of(cls, view: View) -> "SeenPoints":
        """In the frame "cell"."""
        pixel = np.flatnonzero(view.valid)
        points, normals = (image.reshape(-1, 3).take(pixel, axis=0) for image in (view.points_cell, view.normals_cell))
        return cls(pixel, points, normals)

    def moved(self, T_target_source: RigidTransform) -> "SeenPoints":
        """In another frame."""
        points = np.asarray(T_target_source @ self.points, dtype=np.float32)
        return SeenPoints(self.pixel, points, np.asarray(T_target_source.rotate(self.normals), dtype=np.float32))


def sight_of(
    view: View, number: int, camera: CellCamera, pose: PartPose, *, is_new_look: bool, is_new_instant: bool = True
) -> tuple[Sight, SeenPoints]:
    """A view as the field takes it, and its points in the frame "part".

    Along the normal, with `r² = u_random²` of the view: f is the fixed pattern of the cell's noise model times the lift
    of the normal per change of depth, `v = r² - f²` what is new; `p² = J Sigma J^T` of the pose's own covariance, and
    `s² = u_systematic² + J Sigma J^T` of what its frames share (`uncertainty.pose_variance_m2`).

    Args:
        view: of one frame.
        number: of the camera in the field.
        camera: as the cell knows it.
        pose: of the part at the view's instant.
        is_new_look: see `Sight`.
        is_new_instant: see `Sight`.
    """
    seen = SeenPoints.of(view)
    T_part_cell = pose.T_cell_part.inverse()
    in_part = seen.moved(T_part_cell)
    random_m2 = np.square(view.random_sigma_m.ravel()[seen.pixel])
    lasting_m = _lift(seen, camera) * camera.depth_sigma_m(view.depth_m.ravel()[seen.pixel], camera.noise.fixed_px)
    lasting_m = np.minimum(lasting_m, np.sqrt((1 - NEW_SHARE) * random_m2))
    new_m2 = random_m2 - np.square(lasting_m)
    own_m2 = pose_variance_m2(seen.points, seen.normals, pose.own_covariance)
    shared_m2 = np.square(view.systematic_sigma_m.ravel()[seen.pixel])
    shared_m2 = shared_m2 + pose_variance_m2(seen.points, seen.normals, pose.shared_covariance)
    weight = 1 / (random_m2 + own_m2)
    planes = np.empty((len(seen.pixel), PLANE_COLUMNS), np.float32)
    planes[:, :3] = in_part.normals
    planes[:, 3] = np.einsum("ij,ij->i", in_part.normals, in_part.points)
    planes[:, 4] = weight
    planes[:, 5] = np.square(weight) * new_m2
    planes[:, 6] = weight * lasting_m
    planes[:, 7] = weight * np.sqrt(own_m2)
    planes[:, 8] = weight * np.sqrt(shared_m2)
    row = np.full(view.valid.shape, -1, np.int32)
    row.ravel()[seen.pixel] = np.arange(len(seen.pixel), dtype=np.int32)
    T_cam_part = camera.T_cell_depth.inverse() @ pose.T_cell_part
    return Sight(number, T_cam_part, view.intrinsics, row, planes, is_new_look, is_new_instant), in_part


class Looks:
    """Tells when a camera looks at a part anew: when all corners of the part's box moved far enough in its image.

    Args:
        camera: which one.
        region: holds the part, its frame being "part".
    """

    def __init__(self, camera: CellCamera, region: Region) -> None:
        self._camera = camera
        self._corners_part = region.T_cell_box.inverse() @ region.corners_cell
        self._last_px: FloatArray | None = None

    def is_new(self, T_cell_part: RigidTransform) -> bool:
        """Whether this instant starts a look; the first one does."""
        corners_cam = self._camera.T_cell_depth.inverse() @ (T_cell_part @ self._corners_part)
        now_px = self._camera.depth.project(corners_cam)
        least_px = LOOK_CORRELATIONS * self._camera.noise.correlation_px
        if self._last_px is not None:
            moved_px = np.linalg.norm(now_px - self._last_px, axis=-1)
            if not np.nanmin(moved_px) >= least_px:
                return False
        self._last_px = now_px
        return True


def _lift(seen: SeenPoints, camera: CellCamera) -> NDArray[np.float32]:
    """Motion along the normal per change of depth, (N,): `|n · (p - o)| / z` for a camera at o."""
    lines_m = seen.points - camera.T_cell_depth.translation_m.astype(np.float32)
    axis = camera.T_cell_depth.rotation[:, 2].astype(np.float32)
    lift = np.abs(np.einsum("ij,ij->i", seen.normals, lines_m)) / (lines_m @ axis)
    return np.asarray(lift, dtype=np.float32)
