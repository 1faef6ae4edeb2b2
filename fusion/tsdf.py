"""A truncated signed distance field that says how well it knows each value: views of a moving part become one surface.

B. Curless and M. Levoy, SIGGRAPH 1996: each voxel keeps the weighted mean `D = sum w d / sum w` of the signed distances
at which views saw the surface. Here a weight is the inverse variance of the view's pixel, so that the variance of D
follows with it; what frames share is kept apart from what they do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError
from depthcell.fusion.tsdf_blocks import (
    BLOCK,
    BLOCK_VOXELS,
    CAMERA_COLUMNS,
    LIMIT_BYTES,
    SHARED_COLUMNS,
    BlockPool,
    VoxelBox,
)

MEAN, SCATTER, NOISE, LASTING, MOTION, MOTION_NOW = range(6)
NORMAL = slice(6, 9)
WEIGHT_OF, SHARED_OF, LOOK_OF = range(3)
"""Columns of a voxel; the last three come once per camera, see `Tsdf`."""
PLANE_COLUMNS = 9
OPPOSED = -0.2
"""Cosine between a pixel's normal and the voxel's mean one below which they see two sides of a sheet."""


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """One frame of one camera, as the field takes it: a small plane per pixel that is worth it.

    Attributes:
        camera: number of the camera.
        T_cam_part: where the part was.
        intrinsics: of the image.
        row: (H, W) int32, row of each pixel in `planes`, -1 for pixels that must not enter (holes, edges, mixed,
            oblique, outside).
        planes: (N, 9) float32: unit normal in the frame "part", distance `n · p` of the plane from its origin, weight
            `w = 1 / (v + f² + p²)`, then `w² v`, `w f`, `w p`, `w s`, with v the variance along n that is new in each
            frame, f the standard deviation that stays while the image does, p that from the pose at this instant, s
            that which all frames of the camera share.
        is_new_look: whether the part has moved so far in the image since the last look that f is new.
        is_new_instant: whether p is new: it is the same for all cameras of a frame set.
    """

    camera: int
    T_cam_part: RigidTransform
    intrinsics: Intrinsics
    row: NDArray[np.int32]
    planes: NDArray[np.float32]
    is_new_look: bool
    is_new_instant: bool = True

    def __post_init__(self) -> None:
        if self.planes.ndim != 2 or self.planes.shape[1] != PLANE_COLUMNS:
            raise DepthcellError(f"sight: planes need shape (N, {PLANE_COLUMNS}), got {self.planes.shape}")


class Tsdf:
    """The field. `add` a `Sight` after the other; `tsdf_surface` takes the surface out.

    A voxel at x that falls on a pixel with plane (n, e) gets `d = n · x - e`, positive outside the material, if
    `|d| <= truncation`; if d is larger it is counted as free, apart from everything else; behind, nothing is known.
    Per voxel are kept, with sums over the frames that gave it a distance:

    - `D = sum w d / W`, and `sum w (d - D)²` (weighted form of Welford's update), and `sum w n`;
    - `sum w² v` (new in each frame);
    - `sum over instants of (sum within the instant of w p)²`: the cameras of a frame set share its pose's error;
    - `sum over looks of (sum within the look of w f)²`: within a look the pattern is the same, so its errors add up;
    - per camera `W_k = sum w` and `sum w s`.

    Args:
        box: where the part is, in its frame.
        serials: of the cameras.
        truncation_m: half the thickness of the layer that is kept. It should exceed 1.7 voxels plus four standard
            deviations of a frame, or noise decides which distances enter, and walls must be thicker than twice as much.
        limit_bytes: of memory.

    Raises:
        DepthcellError: the box does not fit into the memory, or the truncation is below 1.7 voxels.
    """

    def __init__(
        self, box: VoxelBox, serials: Sequence[str], truncation_m: float, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        if not truncation_m >= 1.7 * box.voxel_m:
            raise DepthcellError(
                f"truncation: {truncation_m * 1e3:g} mm is less than 1.7 voxels of {box.voxel_m * 1e3:g} mm; enlarge it"
            )
        self.serials = tuple(serials)
        self.truncation_m = truncation_m
        self.pool = BlockPool(box, len(self.serials), limit_bytes)
        self.frames = 0

    @property
    def box(self) -> VoxelBox:
        """Where the field is."""
        return self.pool.box

    def add(self, sight: Sight, points_part: FloatArray) -> int:
        """Take one frame.

        Args:
            sight: the frame.
            points_part: (N, 3) float32, its points, one per row of `sight.planes`.

        Returns:
            How many voxels it gave a distance to.

        Raises:
            DepthcellError: the limit of memory is reached.
        """
        if sight.is_new_look:
            self._close(SHARED_COLUMNS + CAMERA_COLUMNS * sight.camera + LOOK_OF, LASTING)
        if sight.is_new_instant:
            self._close(MOTION_NOW, MOTION)
        self.frames += 1
        normals = sight.planes[:, :3]
        reach = np.float32(self.truncation_m) * normals
        self.pool.slots(self.pool.touched(np.concatenate((points_part, points_part + reach, points_part - reach))))
        slots = self._in_sight(sight)
        if not len(slots):
            return 0
        centres = self.pool.centres(slots).reshape(-1, 3)
        voxel, plane = _seen(centres, sight)
        rows = slots[voxel // BLOCK_VOXELS].astype(np.intp) * BLOCK_VOXELS + voxel % BLOCK_VOXELS
        planes = sight.planes.take(plane, axis=0)
        distance_m = np.einsum("ij,ij->i", planes[:, :3], centres.take(voxel, axis=0)) - planes[:, 3]
        self.pool.free[rows[distance_m > self.truncation_m]] += 1
        near = np.flatnonzero(np.abs(distance_m) <= self.truncation_m)
        return self._absorb(rows[near], planes.take(near, axis=0), distance_m[near], sight.camera)

    def _in_sight(self, sight: Sight) -> NDArray[np.int32]:
        """Blocks handed out that the image may show, those behind the surface and those that are seen through alike."""
        points_cam = sight.T_cam_part @ self.pool.block_centres()
        radius_m = np.float32(BLOCK * self.box.voxel_m * 0.87)
        column, line = _pixels(points_cam, sight.intrinsics)
        depth_m = np.maximum(points_cam[:, 2] - radius_m, np.float32(1e-6))
        reach_px = np.float32(max(sight.intrinsics.fx_px, sight.intrinsics.fy_px)) * radius_m / depth_m + 1
        height_px, width_px = sight.row.shape
        shown = (points_cam[:, 2] > -radius_m) & (column > -reach_px) & (column < width_px + reach_px)
        return np.flatnonzero(shown & (line > -reach_px) & (line < height_px + reach_px)).astype(np.int32)

    def _absorb(
        self, rows: NDArray[np.intp], planes: NDArray[np.float32], distance_m: NDArray[np.float32], camera: int
    ) -> int:
        values = self.pool.values.take(rows, axis=0)
        facing = np.einsum("ij,ij->i", values[:, NORMAL], planes[:, :3])
        before = self.weight(values)
        same_side = np.flatnonzero(facing >= OPPOSED * before)
        if len(same_side) < len(rows):
            rows, planes, distance_m = rows[same_side], planes.take(same_side, axis=0), distance_m[same_side]
            values, before = values.take(same_side, axis=0), before[same_side]
        weight = planes[:, 4]
        step = distance_m - values[:, MEAN]
        values[:, MEAN] += weight / (before + weight) * step
        values[:, SCATTER] += weight * step * (distance_m - values[:, MEAN])
        values[:, NOISE] += planes[:, 5]
        values[:, MOTION_NOW] += planes[:, 7]
        values[:, NORMAL] += weight[:, None] * planes[:, :3]
        first = SHARED_COLUMNS + CAMERA_COLUMNS * camera
        values[:, first + WEIGHT_OF] += weight
        values[:, first + SHARED_OF] += planes[:, 8]
        values[:, first + LOOK_OF] += planes[:, 6]
        self.pool.values[rows] = values
        self.pool.seen[rows] += 1
        return len(rows)

    def _close(self, sum_column: int, square_column: int) -> None:
        """What added up within the look or the instant that ends counts as one error."""
        used = self.pool.values[: self.pool.used * BLOCK_VOXELS]
        used[:, square_column] += np.square(used[:, sum_column])
        used[:, sum_column] = 0

    def weight(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum of all weights of voxels whose `values` (M, C) are given, (M,)."""
        return np.asarray(self.per_camera(values, WEIGHT_OF).sum(axis=1))

    def per_camera(self, values: NDArray[np.float32], kind: int) -> NDArray[np.float32]:
        """One of the columns that each camera has, (M, K)."""
        return values[:, SHARED_COLUMNS + kind :: CAMERA_COLUMNS]


def _seen(centres: NDArray[np.float32], sight: Sight) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Which of the points (M, 3) fall on a pixel with a plane, and the row of that plane."""
    height_px, width_px = sight.row.shape
    points_cam = sight.T_cam_part @ centres
    column, line = _pixels(points_cam, sight.intrinsics)
    inside = (column >= 0) & (column < width_px) & (line >= 0) & (line < height_px) & (points_cam[:, 2] > 0)
    voxel = np.flatnonzero(inside)
    plane = sight.row.ravel()[line[voxel].astype(np.int32) * width_px + column[voxel].astype(np.int32)]
    known = np.flatnonzero(plane >= 0)
    return voxel[known], plane[known]


def _pixels(points_cam: NDArray[np.float32], intrinsics: Intrinsics) -> tuple[FloatArray, FloatArray]:
    """Nearest column and row of points (M, 3); what lies behind the camera gets any."""
    if intrinsics.is_distorted:
        column, row = np.nan_to_num(intrinsics.project(points_cam), nan=-1.0).T
        return np.rint(column), np.rint(row)
    x, y, z = cv2.split(points_cam.reshape(-1, 1, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.float32(1) / z.ravel()
        column = np.rint(x.ravel() * (inverse * np.float32(intrinsics.fx_px)) + np.float32(intrinsics.cx_px))
        row = np.rint(y.ravel() * (inverse * np.float32(intrinsics.fy_px)) + np.float32(intrinsics.cy_px))
    return column, row
