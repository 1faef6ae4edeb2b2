"""A box of voxels of which only those near a surface take memory: blocks of 8 x 8 x 8, handed out as they are touched.

Memory is stated before the first frame: every block of the box has a number in a table, and room for as many blocks as
the box has, or the limit allows, is set aside at once. The system gives real memory only for what is written to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError

BLOCK = 8
"""Voxels along the edge of a block."""
BLOCK_VOXELS = BLOCK**3
SHARED_COLUMNS = 9
"""Numbers that a voxel keeps whatever the cameras, see `tsdf.Tsdf`; float32."""
CAMERA_COLUMNS = 3
"""Numbers that it keeps for each camera."""
COUNTER_BYTES = 4
LIMIT_BYTES = 1 << 30
LEAST_SIDE_VOXELS = 2


@dataclass(frozen=True, slots=True, eq=False)
class VoxelBox:
    """A box in the frame "part", filled with cubic voxels from its lower corner on.

    Attributes:
        lower_m, upper_m: (3,) float64, opposite corners, metres.
        voxel_m: edge of a voxel.

    Raises:
        DepthcellError: corners or voxel are not finite, not in order, or the box is thinner than two voxels.
    """

    lower_m: NDArray[np.float64]
    upper_m: NDArray[np.float64]
    voxel_m: float

    def __post_init__(self) -> None:
        lower_m, upper_m = (np.asarray(corner, dtype=np.float64) for corner in (self.lower_m, self.upper_m))
        if lower_m.shape != (3,) or upper_m.shape != (3,) or not np.isfinite((lower_m, upper_m)).all():
            raise DepthcellError("volume: needs two corners of three finite lengths each")
        if not (math.isfinite(self.voxel_m) and self.voxel_m > 0):
            raise DepthcellError(f"voxel: its edge must be positive, got {self.voxel_m * 1e3:g} mm")
        if not (upper_m - lower_m >= LEAST_SIDE_VOXELS * self.voxel_m).all():
            sides = _sides(upper_m - lower_m)
            raise DepthcellError(
                f"volume: {sides} is thinner than two voxels of {self.voxel_m * 1e3:g} mm; enlarge the volume"
            )
        object.__setattr__(self, "lower_m", lower_m)
        object.__setattr__(self, "upper_m", upper_m)

    @property
    def shape_blocks(self) -> tuple[int, int, int]:
        """Blocks along x, y and z; the last ones may reach beyond the box."""
        sides = np.ceil((self.upper_m - self.lower_m) / (BLOCK * self.voxel_m) - 1e-9).astype(int).tolist()
        return sides[0], sides[1], sides[2]

    @property
    def blocks(self) -> int:
        """How many blocks fill the box."""
        return math.prod(self.shape_blocks)

    @property
    def in_words(self) -> str:
        """For messages, in millimetres."""
        return f"volume of {_sides(self.upper_m - self.lower_m)} at voxels of {self.voxel_m * 1e3:g} mm"

    def dilated(self, margin_m: float) -> "VoxelBox":
        """The box with a margin on all sides."""
        return VoxelBox(self.lower_m - margin_m, self.upper_m + margin_m, self.voxel_m)


def block_bytes(cameras: int) -> int:
    """Bytes that one block takes: its voxels, and its place in the box."""
    return BLOCK_VOXELS * (4 * (SHARED_COLUMNS + CAMERA_COLUMNS * cameras) + COUNTER_BYTES) + 4


def volume_bytes(box: VoxelBox, cameras: int, limit_bytes: int = LIMIT_BYTES) -> int:
    """The most memory that fusion in this box will ever take, in bytes.

    `table + min(blocks, blocks that the limit allows) * block_bytes`, exactly what is set aside. A part fills far less:
    its surface alone does, in a layer of a block or two.

    Args:
        box: the volume and its voxel.
        cameras: whose shares are kept apart.
        limit_bytes: that must not be exceeded.

    Raises:
        DepthcellError: not even the faces of the box, one block thick, fit into the limit; it names volume and voxel.
    """
    table, capacity = _table_bytes(box), _capacity(box, cameras, limit_bytes)
    if capacity < min(box.blocks, _face_blocks(box)):
        needed = table + _face_blocks(box) * block_bytes(cameras)
        raise DepthcellError(
            f"{box.in_words}: its surface alone takes {needed / 2**20:.0f} MiB, allowed are "
            f"{limit_bytes / 2**20:.0f} MiB; enlarge the voxel, shrink the volume or raise the limit"
        )
    return table + capacity * block_bytes(cameras)


class BlockPool:
    """Room for the blocks of a box.

    Attributes:
        box: what it covers.
        values: (C, capacity * 512) float32, one column per voxel: each kind of number lies together.
        seen: (capacity * 512,) uint16, frames that measured the surface near the voxel.
        free: (capacity * 512,) uint16, frames that saw through the voxel.
        used: blocks handed out; their voxels come first.

    Args:
        box: what to cover.
        cameras: how many share the voxels.
        limit_bytes: that must not be exceeded.

    Raises:
        DepthcellError: as `volume_bytes`.
    """

    def __init__(self, box: VoxelBox, cameras: int, limit_bytes: int = LIMIT_BYTES) -> None:
        volume_bytes(box, cameras, limit_bytes)
        self.box = box
        self._limit_bytes = limit_bytes
        self._capacity = _capacity(box, cameras, limit_bytes)
        rows = self._capacity * BLOCK_VOXELS
        self.values = np.zeros((SHARED_COLUMNS + CAMERA_COLUMNS * cameras, rows), np.float32)
        self.seen, self.free = np.zeros(rows, np.uint16), np.zeros(rows, np.uint16)
        self._slot_of = np.full(box.blocks, -1, np.int32)
        self._block_of = np.zeros(self._capacity, np.int32)
        self.used = 0

    @property
    def bytes_used(self) -> int:
        """Bytes of the blocks handed out, and of the table."""
        return self._slot_of.nbytes + self.used * block_bytes(self._cameras)

    @property
    def _cameras(self) -> int:
        return (len(self.values) - SHARED_COLUMNS) // CAMERA_COLUMNS

    def touched(self, points_part: FloatArray) -> NDArray[np.int32]:
        """Numbers in the table, ascending, of the blocks that points (N, 3) lie in; outside the box there are none."""
        scale = 1 / (BLOCK * self.box.voxel_m)
        to_blocks = np.column_stack((scale * np.eye(3), -scale * self.box.lower_m))
        places = np.empty((len(points_part), 1, 3), np.float32)
        cv2.transform(points_part.astype(np.float32, copy=False).reshape(-1, 1, 3), to_blocks, dst=places)
        number, inside = np.zeros(len(places), np.int32), np.ones(len(places), np.bool_)
        for place, count in zip(cv2.split(places), self.box.shape_blocks, strict=True):
            inside &= ((place >= 0) & (place < count)).ravel()
            number = number * np.int32(count) + place.ravel().astype(np.int32)
        marked = np.zeros(self.box.blocks, np.bool_)
        marked[number[inside]] = True
        return np.flatnonzero(marked).astype(np.int32)

    def slots(self, blocks: NDArray[np.int32]) -> NDArray[np.int32]:
        """Where blocks (B,) of the table have their rows, new ones being given room.

        Raises:
            DepthcellError: the limit is reached; it names volume and voxel.
        """
        new = blocks[self._slot_of[blocks] < 0]
        if self.used + len(new) > self._capacity:
            raise DepthcellError(
                f"{self.box.in_words}: {self.used + len(new)} blocks and more of its {self.box.blocks} are needed, the "
                f"limit of {self._limit_bytes / 2**20:.0f} MiB holds {self._capacity}; enlarge the voxel, shrink the "
                "volume or raise the limit"
            )
        self._slot_of[new] = np.arange(self.used, self.used + len(new), dtype=np.int32)
        self._block_of[self.used : self.used + len(new)] = new
        self.used += len(new)
        return self._slot_of[blocks]

    def block_centres(self) -> NDArray[np.float32]:
        """Centres of all blocks handed out, (B, 3) metres."""
        corners = self.corners(np.arange(self.used, dtype=np.int32))
        return (self.box.lower_m + (corners + 0.5) * BLOCK * self.box.voxel_m).astype(np.float32)

    def centres(self, slots: NDArray[np.int32], T_target_part: RigidTransform | None = None) -> NDArray[np.float32]:
        """Centres of all voxels of some blocks, (3, B * 512) metres, x slowest and z fastest within a block.

        Args:
            slots: (B,) of the blocks.
            T_target_part: to the frame in which they are asked for; None for the frame "part".
        """
        first_m: FloatArray = self.box.lower_m + (self.corners(slots) * BLOCK + 0.5) * self.box.voxel_m
        own_m: FloatArray = np.indices((BLOCK,) * 3, np.float64).reshape(3, -1).T * self.box.voxel_m
        if T_target_part is not None:  # a voxel's place within its block turns alike in all of them
            first_m, own_m = T_target_part @ first_m, T_target_part.rotate(own_m)
        first, own = first_m.T.astype(np.float32), own_m.T.astype(np.float32)
        return np.asarray(first[:, :, None] + own[:, None, :], dtype=np.float32).reshape(3, -1)

    def corners(self, slots: NDArray[np.int32]) -> NDArray[np.intp]:
        """Places of blocks in the table, (B, 3), counted in blocks."""
        return np.stack(np.unravel_index(self._block_of[slots], self.box.shape_blocks), axis=1)

    def rows_with_neighbours(self) -> NDArray[np.intp]:
        """Rows (B, 9, 9, 9) of the voxels of all blocks handed out and of the next ones along x, y and z; -1: none."""
        shape = np.array(self.box.shape_blocks)
        blocks = self.corners(np.arange(self.used, dtype=np.int32))[:, None, :] + np.indices((2, 2, 2)).reshape(3, -1).T
        inside = (blocks < shape).all(axis=-1)
        number = (blocks[..., 0] * shape[1] + blocks[..., 1]) * shape[2] + blocks[..., 2]
        slot = np.where(inside, self._slot_of[np.where(inside, number, 0)], -1)
        x, y, z = np.indices((BLOCK + 1,) * 3)
        rows = slot[:, ((x // BLOCK) * 2 + y // BLOCK) * 2 + z // BLOCK].astype(np.intp) * BLOCK_VOXELS
        rows += ((x % BLOCK) * BLOCK + y % BLOCK) * BLOCK + z % BLOCK
        return np.where(rows < 0, -1, rows)

    def rows_of_voxels(self, voxels: NDArray[np.intp]) -> NDArray[np.intp]:
        """Rows of voxels (..., 3), counted from the box's lower corner; -1 where there is none."""
        shape = np.array(self.box.shape_blocks)
        blocks = voxels // BLOCK
        inside = ((voxels >= 0) & (blocks < shape)).all(axis=-1)
        clipped = np.where(np.expand_dims(inside, -1), blocks, 0)
        slot = self._slot_of[(clipped[..., 0] * shape[1] + clipped[..., 1]) * shape[2] + clipped[..., 2]]
        own = voxels - blocks * BLOCK
        row = slot.astype(np.intp) * BLOCK_VOXELS + (own[..., 0] * BLOCK + own[..., 1]) * BLOCK + own[..., 2]
        return np.where(inside & (slot >= 0), row, -1)


def _table_bytes(box: VoxelBox) -> int:
    return 4 * box.blocks


def _capacity(box: VoxelBox, cameras: int, limit_bytes: int) -> int:
    return max(0, min(box.blocks, (limit_bytes - _table_bytes(box)) // block_bytes(cameras)))


def _face_blocks(box: VoxelBox) -> int:
    """Blocks that the six faces of the box take, one block thick: what a convex part in it may need."""
    x, y, z = box.shape_blocks
    return min(box.blocks, 2 * (x * y + y * z + z * x))


def _sides(extent_m: Sequence[float] | FloatArray) -> str:
    return " x ".join(f"{float(side) * 1e3:.0f}" for side in extent_m) + " mm"
