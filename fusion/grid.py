"""Geometry on the depth image's own grid: where it jumps, and which way each surface patch faces.

Neighbours in the image are neighbours on the surface, so no search tree is needed, and the noise model (constant in
disparity) stays simple.
"""

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics


def edge_mask(
    depth_m: NDArray[np.float32], intrinsics: Intrinsics, sigma_m: NDArray[np.float32], margin_px: int
) -> NDArray[np.bool_]:
    """Pixels at or within `margin_px` of a depth jump, (H, W): mixed pixels, to be dropped."""
    raise NotImplementedError


def depth_normals(
    depth_m: NDArray[np.float32], intrinsics: Intrinsics, usable: NDArray[np.bool_], radii_px: tuple[int, ...] = (4, 2)
) -> NDArray[np.float32]:
    """Unit surface normals in the camera frame, facing the camera, (H, W, 3) float32; NaN without a full neighbourhood.

    Args:
        depth_m: (H, W) metres.
        intrinsics: of this image.
        usable: (H, W), False for pixels that must not take part (not measured, mixed).
        radii_px: half sizes of the windows to try, largest first.
    """
    raise NotImplementedError
