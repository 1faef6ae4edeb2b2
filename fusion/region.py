"""The box of space that holds the part, and the rectangle of each image that can see into it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A box with its own axes. What lies outside is not the part and is dropped before any work is spent on it.

    Attributes:
        T_cell_box: pose of the box's frame in the cell, usually `T_cell_part`.
        lower_m, upper_m: (3,) float64, two opposite corners in the box's frame.
    """

    T_cell_box: RigidTransform
    lower_m: NDArray[np.float64]
    upper_m: NDArray[np.float64]

    def __post_init__(self) -> None:
        lower_m, upper_m = np.asarray(self.lower_m, dtype=np.float64), np.asarray(self.upper_m, dtype=np.float64)
        if lower_m.shape != (3,) or upper_m.shape != (3,) or not (lower_m < upper_m).all():
            raise DepthcellError("region: upper_m must exceed lower_m on all three axes")
        object.__setattr__(self, "lower_m", lower_m)
        object.__setattr__(self, "upper_m", upper_m)

    @property
    def corners_cell(self) -> NDArray[np.float64]:
        """The eight corners, (8, 3) metres, in the cell frame."""
        raise NotImplementedError

    def contains(self, points_cell: FloatArray) -> NDArray[np.bool_]:
        """Whether points (..., 3) lie inside; NaN points do not."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of an image: rows `top` to `bottom`, columns `left` to `right`, both ends excluded at the far side."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index an image with: `image[window.slices]`."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def intrinsics(self, whole: Intrinsics) -> Intrinsics:
        """Intrinsics of the cut-out image: the same rays, counted from its own first pixel."""
        raise NotImplementedError


def image_window(region: Region | None, intrinsics: Intrinsics, T_cam_cell: RigidTransform, margin_px: int) -> Window:
    """The smallest rectangle that holds the region's projection and a margin; the whole image where it cannot be told.

    Args:
        region: None for the whole image.
        intrinsics: of the image.
        T_cam_cell: from the cell to the camera.
        margin_px: added on all sides, for filters that reach beyond a pixel.

    Raises:
        DepthcellError: the camera does not see into the region.
    """
    raise NotImplementedError
