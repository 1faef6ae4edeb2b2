"""One camera's share of a fused part: everything still on its depth grid, in the cell frame, with uncertainty."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.fusion.region import Window


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What one camera saw of the part, organised as its depth image (H, W of `window`).

    All arrays are NaN (colours 0) where `valid` is False.

    Attributes:
        serial: the camera's serial number.
        window: which rectangle of the depth image the arrays are; pixel (row, column) of the sensor is
            `array[row - window.top, column - window.left]`.
        intrinsics: of the window: `intrinsics.deproject(depth_m)` gives points in the frame "depth:<serial>".
        depth_m: (H, W) float32, mean corrected z depth.
        points_cell: (H, W, 3) float32, metres, frame "cell".
        normals_cell: (H, W, 3) float32, unit length, towards the camera, frame "cell".
        random_sigma_m: (H, W) float32, standard uncertainty along the normal from noise.
        systematic_sigma_m: (H, W) float32, standard uncertainty along the normal from calibration.
        correlation_m: (H, W) float32, distance over which neighbours' noise is correlated (1/e).
        colors: (H, W, 3) uint8, 0 where `colored` is False.
        colored: (H, W) bool, the colour camera saw this point.
        valid: (H, W) bool, measured, not mixed, with a normal, inside the region.
        frames: depth frames that were averaged.
    """

    serial: str
    window: Window
    intrinsics: Intrinsics
    depth_m: NDArray[np.float32]
    points_cell: NDArray[np.float32]
    normals_cell: NDArray[np.float32]
    random_sigma_m: NDArray[np.float32]
    systematic_sigma_m: NDArray[np.float32]
    correlation_m: NDArray[np.float32]
    colors: NDArray[np.uint8]
    colored: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    frames: int
