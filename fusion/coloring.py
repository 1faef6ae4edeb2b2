"""Colour for points: looked up where the colour camera sees them, and left out where something stands in between."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray

STEEPEST = math.tan(math.radians(75.0))
"""Depth may rise this fast across one cell of the visibility map before the far side counts as hidden."""


def colors_of(
    points_color: FloatArray, rgb: NDArray[np.uint8], intrinsics: Intrinsics, footprint_m: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Colours of points, (N, 3) uint8, and which of them the colour camera sees, (N,); unseen ones are black.

    Bilinear look-up at the projected point. A point is hidden if another one lies clearly nearer to the colour camera
    in the same cell of a map coarse enough that the points of a surface leave no gaps in it.

    Args:
        points_color: (N, 3) metres, all that the depth camera measured, in the frame of the colour camera.
        rgb: (H, W, 3) colour image.
        intrinsics: of that image.
        footprint_m: distance of neighbouring points on a surface that faces the camera.
    """
    pixels = intrinsics.project(points_color)
    depth_m = points_color[:, 2]
    with np.errstate(invalid="ignore"):
        inside = (pixels >= -0.5).all(axis=1) & (pixels < (intrinsics.width_px - 0.5, intrinsics.height_px - 0.5)).all(
            axis=1
        )
    seen = np.zeros(len(points_color), np.bool_)
    seen[inside] = _in_front(pixels[inside], depth_m[inside], intrinsics, footprint_m)
    colors = np.zeros((len(points_color), 3), np.uint8)
    if seen.any():
        maps = pixels[seen].astype(np.float32)
        colors[seen] = _sampled(rgb, maps)
    return colors, seen


def _in_front(pixels: FloatArray, depth_m: FloatArray, intrinsics: Intrinsics, footprint_m: float) -> NDArray[np.bool_]:
    if not len(pixels):
        return np.zeros(0, np.bool_)
    nearest_m = float(depth_m.min())
    cell_px = max(1.0, 1.5 * footprint_m * intrinsics.fx_px / nearest_m)
    columns = math.ceil(intrinsics.width_px / cell_px) + 1
    rows = math.ceil(intrinsics.height_px / cell_px) + 1
    column, row = ((pixels + 0.5) / cell_px).astype(np.intp).T
    cell = row * columns + column
    front_m = np.full(rows * columns, np.inf, depth_m.dtype)
    np.minimum.at(front_m, cell, depth_m)
    tolerance = cell_px / intrinsics.fx_px * STEEPEST
    visible: NDArray[np.bool_] = depth_m <= front_m[cell] * (1 + tolerance)
    return visible


def _sampled(rgb: NDArray[np.uint8], pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bilinear samples at (N, 2) pixels; folded into rows, because OpenCV's maps may not exceed 32767 columns."""
    side = 4096
    padded = np.zeros((math.ceil(len(pixels) / side) * side, 2), np.float32)
    padded[: len(pixels)] = pixels
    maps = padded.reshape(-1, side, 2)
    samples = cv2.remap(rgb, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(samples, dtype=np.uint8).reshape(-1, 3)[: len(pixels)]
