"""A truncated signed distance field that says how well it knows each value: views of a moving part become one surface.

B. Curless and M. Levoy, SIGGRAPH 1996: each voxel keeps the weighted mean `D = sum w d / sum w` of the signed distances
at which views saw the surface. Here a weight is the inverse variance of the view's pixel, so that the variance of D
follows with it; what frames share is kept apart from what they do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
"""What is kept of a voxel; the last three come once per camera, see `Tsdf`."""
PLANE_COLUMNS = 9
CHUNK = 256
"""Blocks that are worked on at a time: few, so that what is worked out of them stays in a core's cache."""
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
        image = _PlaneImage.of(sight)
        return sum(self._add_to(slots[at : at + CHUNK], sight, image) for at in range(0, len(slots), CHUNK))

    def _add_to(self, slots: NDArray[np.int32], sight: Sight, image: "_PlaneImage") -> int:
        """Take one frame into some blocks; how many voxels it gave a distance to."""
        centres = self.pool.centres(slots)
        plane = image.seen_from(*self.pool.centres(slots, sight.T_cam_part))
        distance_m = image.distance_m(plane, *centres)
        self.pool.free.reshape(-1, BLOCK_VOXELS)[slots] += (distance_m > self.truncation_m).reshape(-1, BLOCK_VOXELS)
        near = np.flatnonzero(np.abs(distance_m) <= self.truncation_m)
        block, own = np.divmod(near, BLOCK_VOXELS)
        rows = slots.take(block).astype(np.intp) * BLOCK_VOXELS + own
        planes = np.ascontiguousarray(sight.planes.take(plane.take(near), axis=0).T)
        return self._absorb(rows, planes, distance_m.take(near), sight.camera)

    def _in_sight(self, sight: Sight) -> NDArray[np.int32]:
        """Blocks handed out that the image may show, those behind the surface and those that are seen through alike."""
        points_cam = np.ascontiguousarray((sight.T_cam_part @ self.pool.block_centres()).T)
        radius_m = np.float32(BLOCK * self.box.voxel_m * 0.87)
        column, line = _pixels(points_cam[0], points_cam[1], points_cam[2], sight.intrinsics)
        depth_m = np.maximum(points_cam[2] - radius_m, np.float32(1e-6))
        reach_px = np.float32(max(sight.intrinsics.fx_px, sight.intrinsics.fy_px)) * radius_m / depth_m + 1
        height_px, width_px = sight.row.shape
        shown = (points_cam[2] > -radius_m) & (column > -reach_px) & (column < width_px + reach_px)
        return np.flatnonzero(shown & (line > -reach_px) & (line < height_px + reach_px)).astype(np.int32)

    def _absorb(
        self, rows: NDArray[np.intp], planes: NDArray[np.float32], distance_m: NDArray[np.float32], camera: int
    ) -> int:
        """Take distances (M,) to planes (9, M) into voxels (M,), each named once."""
        values = self.pool.values
        # One kind after the other: `take` would first copy all of a view that skips some.
        before = np.zeros(len(rows), np.float32)
        for weights in self.per_camera(values, WEIGHT_OF):
            before += weights.take(rows)
        facing = np.zeros(len(rows), np.float32)
        for summed, normal in zip(values[NORMAL], planes[:3], strict=True):
            facing += summed.take(rows) * normal
        same_side = np.flatnonzero(facing >= OPPOSED * before)
        if len(same_side) < len(rows):
            rows, planes, distance_m = rows[same_side], planes.take(same_side, axis=1), distance_m[same_side]
            before = before[same_side]
        weight = planes[4]
        mean_m = values[MEAN].take(rows)
        step = distance_m - mean_m
        mean_m += weight / (before + weight) * step
        values[MEAN][rows] = mean_m
        values[SCATTER][rows] += weight * step * (distance_m - mean_m)
        first = SHARED_COLUMNS + CAMERA_COLUMNS * camera
        for column, added in (
            (NOISE, planes[5]),
            (MOTION_NOW, planes[7]),
            (first + WEIGHT_OF, weight),
            (first + SHARED_OF, planes[8]),
            (first + LOOK_OF, planes[6]),
            *((NORMAL.start + axis, weight * planes[axis]) for axis in range(3)),
        ):
            values[column][rows] += added
        self.pool.seen[rows] += 1
        return len(rows)

    def _close(self, sum_column: int, square_column: int) -> None:
        """What added up within the look or the instant that ends counts as one error."""
        used = self.pool.values[:, : self.pool.used * BLOCK_VOXELS]
        used[square_column] += np.square(used[sum_column])
        used[sum_column] = 0

    def weight(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum of all weights of voxels whose `values` (C, M) are given, (M,)."""
        return np.asarray(self.per_camera(values, WEIGHT_OF).sum(axis=0))

    def per_camera(self, values: NDArray[np.float32], kind: int) -> NDArray[np.float32]:
        """One of the numbers that each camera has, (K, M)."""
        return values[SHARED_COLUMNS + kind :: CAMERA_COLUMNS]


@dataclass(frozen=True, slots=True, eq=False)
class _PlaneImage:
    """A frame's planes, to be looked up by many voxels.

    Attributes:
        row: (H + 2, W + 2) int32, `Sight.row` in a frame of -1.
        normals, offsets: (3, N + 1) and (N + 1,) of the planes; the last one, number -1, lies infinitely far in front.
        intrinsics: of the image.
    """

    row: NDArray[np.int32]
    normals: NDArray[np.float32]
    offsets: NDArray[np.float32]
    intrinsics: Intrinsics

    @classmethod
    def of(cls, sight: Sight) -> "_PlaneImage":
        height_px, width_px = sight.row.shape
        row = np.full((height_px + 2, width_px + 2), -1, np.int32)
        row[1:-1, 1:-1] = sight.row
        planes = np.zeros((4, len(sight.planes) + 1), np.float32)
        planes[:, :-1] = sight.planes[:, :4].T
        planes[3, -1] = np.inf
        return cls(row, planes[:3], planes[3], sight.intrinsics)

    def seen_from(
        self, x_m: NDArray[np.float32], y_m: NDArray[np.float32], z_m: NDArray[np.float32]
    ) -> NDArray[np.int32]:
        """Number of the plane on whose pixel each point (M,) of the camera's frame falls, -1 for none."""
        column, line = _pixels(x_m, y_m, z_m, self.intrinsics)
        height_px, width_px = self.row.shape
        np.minimum(np.maximum(column, -1, out=column), width_px - 2, out=column)
        np.minimum(np.maximum(line, -1, out=line), height_px - 2, out=line)
        place = (line.astype(np.int32) + 1) * width_px + column.astype(np.int32) + 1
        return np.asarray(self.row.ravel().take(place), dtype=np.int32)

    def distance_m(
        self, plane: NDArray[np.int32], x_m: NDArray[np.float32], y_m: NDArray[np.float32], z_m: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Signed distance (M,) of points (M,) of the frame "part" from planes; minus infinity from number -1."""
        distance_m = self.normals[0].take(plane)
        distance_m *= x_m
        for normal, along_m in ((self.normals[1], y_m), (self.normals[2], z_m)):
            product = normal.take(plane)
            product *= along_m
            distance_m += product
        distance_m -= self.offsets.take(plane)
        return np.asarray(distance_m, dtype=np.float32)


def _pixels(
    x_m: NDArray[np.float32], y_m: NDArray[np.float32], z_m: NDArray[np.float32], intrinsics: Intrinsics
) -> tuple[FloatArray, FloatArray]:
    """Nearest column and row of points (M,); what lies behind the camera gets -1."""
    if intrinsics.is_distorted:
        column, row = np.nan_to_num(intrinsics.project(np.stack((x_m, y_m, z_m), axis=1)), nan=-1.0).T
        return np.rint(column), np.rint(row)
    is_behind = not z_m.min(initial=1.0) > 0
    inverse = np.float32(1) / (np.where(z_m > 0, z_m, np.float32(1)) if is_behind else z_m)
    column = x_m * (inverse * np.float32(intrinsics.fx_px))
    column += np.float32(intrinsics.cx_px)
    row = y_m * (inverse * np.float32(intrinsics.fy_px))
    row += np.float32(intrinsics.cy_px)
    if is_behind:
        column[z_m <= 0] = row[z_m <= 0] = -1
    return np.rint(column, out=column), np.rint(row, out=row)
