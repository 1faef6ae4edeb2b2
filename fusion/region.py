"""The box of space that holds the part, and the rectangle of each image that can see into it."""

import itertools
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError

Mask = NDArray[np.bool_]

NEAR_M = 1e-5
"""More than single precision loses in a point's place."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A box with its own axes. What lies outside is not the part and is dropped before any work is spent on it.

    Attributes:
        T_cell_box: pose of the box's frame in the cell, usually `T_cell_part`.
        lower_m, upper_m: (3,) float64, two opposite corners in the box's frame.

    Raises:
        DepthcellError: the corners are not three finite numbers each, or not in order.
    """

    T_cell_box: RigidTransform
    lower_m: NDArray[np.float64]
    upper_m: NDArray[np.float64]

    def __post_init__(self) -> None:
        lower_m, upper_m = np.asarray(self.lower_m, dtype=np.float64), np.asarray(self.upper_m, dtype=np.float64)
        if lower_m.shape != (3,) or upper_m.shape != (3,) or not (lower_m < upper_m).all():
            raise DepthcellError("region: upper_m must exceed lower_m on all three axes")
        if not np.isfinite([lower_m, upper_m]).all():
            raise DepthcellError("region: lower_m and upper_m must be finite")
        object.__setattr__(self, "lower_m", lower_m)
        object.__setattr__(self, "upper_m", upper_m)

    @property
    def corners_cell(self) -> NDArray[np.float64]:
        """The eight corners, (8, 3) metres, in the cell frame."""
        corners_box = np.array(list(itertools.product(*zip(self.lower_m, self.upper_m, strict=True))))
        return np.asarray(self.T_cell_box @ corners_box, dtype=np.float64)

    def contains(self, points_cell: FloatArray) -> NDArray[np.bool_]:
        """Whether points (..., 3) lie inside; NaN points do not."""
        points_box = self.T_cell_box.inverse() @ points_cell
        inside = np.ones(points_box.shape[:-1], np.bool_)
        # Column by column: NumPy is several times slower where the innermost axis holds three numbers.
        for axis, (lower_m, upper_m) in enumerate(zip(self.lower_m, self.upper_m, strict=True)):
            inside &= (points_box[..., axis] >= lower_m) & (points_box[..., axis] <= upper_m)
        return inside

    def may_contain(self, depth_m: NDArray[np.float32], rays: NDArray[np.float32], T_cell_cam: RigidTransform) -> Mask:
        """Pixels (H, W) of a depth image whose points lie inside, or within 10 µm: a quick first choice.

        Args:
            depth_m: (H, W) z depth, metres, NaN where not measured.
            rays: (H, W, 3) of its pixels.
            T_cell_cam: where the camera stands.
        """
        T_box_cam = self.T_cell_box.inverse() @ T_cell_cam
        inside = np.ones(depth_m.shape, np.bool_)
        for axis, (lower_m, upper_m) in enumerate(zip(self.lower_m, self.upper_m, strict=True)):
            start_m = float(T_box_cam.translation_m[axis])
            along = cv2.transform(rays, T_box_cam.rotation[axis : axis + 1])
            place_m = cv2.multiply(along, depth_m, dst=along)
            found = cv2.inRange(place_m, float(lower_m) - start_m - NEAR_M, float(upper_m) - start_m + NEAR_M)
            inside &= np.asarray(found, dtype=np.bool_)
        return inside


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of an image: rows `top` up to but not `bottom`, columns `left` up to but not `right`."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def whole(cls, intrinsics: Intrinsics) -> "Window":
        """The whole image."""
        return cls(0, intrinsics.height_px, 0, intrinsics.width_px)

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index an image with: `image[window.slices]`."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    def intrinsics(self, whole: Intrinsics) -> Intrinsics:
        """Intrinsics of the cut-out image: the same rays, counted from its own first pixel."""
        height_px, width_px = self.shape
        return replace(
            whole, width_px=width_px, height_px=height_px, cx_px=whole.cx_px - self.left, cy_px=whole.cy_px - self.top
        )


def image_window(
    region: Region | None, intrinsics: Intrinsics, T_cam_cell: RigidTransform, margin_px: int
) -> Window | None:
    """The smallest rectangle that holds the region's projection and a margin; None where no pixel sees the region.

    A box is the convex hull of its corners, and so is its projection as long as all of it lies before the camera.

    Args:
        region: None for the whole image.
        intrinsics: of the image.
        T_cam_cell: from the cell to the camera.
        margin_px: added on all sides, for filters that reach beyond a pixel.
    """
    whole = Window.whole(intrinsics)
    if region is None:
        return whole
    corners_cam = T_cam_cell @ region.corners_cell
    if (corners_cam[:, 2] <= 0).all():
        return None
    if (corners_cam[:, 2] <= 0).any():
        return whole
    pixels = intrinsics.project(corners_cam)
    left, top = (math.floor(low) - margin_px for low in pixels.min(axis=0))
    right, bottom = (math.ceil(high) + margin_px + 1 for high in pixels.max(axis=0))
    window = Window(max(top, 0), min(bottom, whole.bottom), max(left, 0), min(right, whole.right))
    return window if min(window.shape) > 0 else None
