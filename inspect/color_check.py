"""The colour of each patch as each camera sees it: its mean, and thin bright or dark lines that a mean would hide.

Each view is compared with the same view of good parts, never with another camera's: a highlight that all good parts
show at one place is then no finding. Colours are brought to the light of the good parts by one factor per channel
before they become L*a*b* (D65, 2°).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.fusion.view import View
from depthcell.inspect.surface import Surface

LINE_LENGTH_M = 0.005
"""Length over which brightness is averaged along a line: several times the width of a scratch."""
LINE_DIRECTIONS = 8
WIDE_PX = 4.0
"""Width of the blur that a line is told from."""
DEPTH_MARGIN_M = 0.005
"""A pixel whose depth differs by more from the patch's shows something else."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewColor:
    """What one camera's colour says about the K patches.

    Attributes:
        rgb: (K, 3) float32, mean 8-bit counts about the patch; NaN where this camera does not see it.
        bright_line: (K,) float32, counts by which a line through the patch is brighter than its surroundings.
        dark_line: (K,) float32, the same, darker.
    """

    rgb: NDArray[np.float32]
    bright_line: NDArray[np.float32]
    dark_line: NDArray[np.float32]

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(K,) patches this camera gave a colour."""
        return np.isfinite(self.rgb[:, 0])


def sample_view(view: View, T_depth_part: RigidTransform, surface: Surface, visible: NDArray[np.bool_]) -> ViewColor:
    """Look every visible patch up in one camera's image.

    Args:
        view: one camera's share of the fused part.
        T_depth_part: pose of the part in the frame of its depth image.
        surface: the patches.
        visible: (K,) patches that this camera can see.
    """
    chosen = np.flatnonzero(visible)
    points_cam = T_depth_part @ surface.points_part[chosen]
    pixels = view.intrinsics.project(points_cam).astype(np.float32)
    depth_m = _sampled(np.where(view.colored, view.depth_m, np.nan), pixels, cv2.INTER_NEAREST)
    with np.errstate(invalid="ignore"):
        shows_it = np.abs(depth_m - points_cam[:, 2]) < DEPTH_MARGIN_M
    patch_px = surface.spacing_m * view.intrinsics.fx_px / float(np.median(points_cam[:, 2]))
    smooth = _masked_blur(view.colors.astype(np.float32), view.colored, 0.35 * patch_px)
    bright, dark = _lines(view.colors, view.colored, LINE_LENGTH_M / surface.spacing_m * patch_px)
    rgb = np.full((len(surface), 3), np.nan, np.float32)
    lines = np.full((len(surface), 2), np.nan, np.float32)
    rgb[chosen[shows_it]] = _sampled(smooth, pixels[shows_it], cv2.INTER_LINEAR)
    lines[chosen[shows_it]] = _sampled(np.dstack((bright, dark)), pixels[shows_it], cv2.INTER_LINEAR)
    return ViewColor(rgb, lines[:, 0], lines[:, 1])


def lab_of(rgb: FloatArray) -> NDArray[np.float32]:
    """CIE L*a*b* (D65, 2°) of 8-bit sRGB counts (..., 3), which may be fractions and exceed 255; NaN stays NaN."""
    folded = np.ascontiguousarray(rgb, dtype=np.float32).reshape(-1, 1, 3) / np.float32(255)
    lab = cv2.cvtColor(np.clip(np.nan_to_num(folded), 0.0, 1.0), cv2.COLOR_RGB2Lab).reshape(rgb.shape)
    lab[~np.isfinite(rgb).all(axis=-1)] = np.nan
    return np.asarray(lab, dtype=np.float32)


def gain_to(target_rgb: FloatArray, rgb: FloatArray) -> NDArray[np.float32]:
    """Factor per channel (3,) that brings a view's light to the target's: the median ratio over the patches of both.

    A median, because a stain must not shift the light by which it is judged.
    """
    both = np.isfinite(target_rgb[:, 0]) & np.isfinite(rgb[:, 0]) & (rgb.min(axis=1) >= 1.0)
    if not both.any():
        return np.ones(3, np.float32)
    return np.median(target_rgb[both] / rgb[both], axis=0).astype(np.float32)


def _lines(
    colors: NDArray[np.uint8], colored: NDArray[np.bool_], length_px: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Strongest bright and dark line through each pixel, (H, W) counts each, over all directions."""
    gray = cv2.cvtColor(colors, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = np.where(colored, gray - _masked_blur(gray, colored, WIDE_PX), 0.0).astype(np.float32)
    responses = [cv2.filter2D(detail, -1, kernel) for kernel in _line_kernels(length_px)]
    around = np.ones((3, 3), np.uint8)
    bright = cv2.dilate(np.maximum.reduce(responses), around)
    dark = cv2.dilate(-np.minimum.reduce(responses), around)
    return np.asarray(bright, dtype=np.float32), np.asarray(dark, dtype=np.float32)


def _line_kernels(length_px: float) -> list[NDArray[np.float32]]:
    """Averages along a line of this length, one to two pixels wide, in evenly spread directions."""
    half = max(2, round(length_px / 2))
    column, row = np.meshgrid(np.arange(-half, half + 1), np.arange(-half, half + 1))
    kernels = []
    for number in range(LINE_DIRECTIONS):
        angle = math.pi * number / LINE_DIRECTIONS
        along = column * math.cos(angle) + row * math.sin(angle)
        across = row * math.cos(angle) - column * math.sin(angle)
        weight = np.exp(-0.5 * (across / 0.7) ** 2) * (np.abs(along) <= half)
        kernels.append((weight / weight.sum()).astype(np.float32))
    return kernels


def _masked_blur(image: NDArray[np.float32], mask: NDArray[np.bool_], sigma_px: float) -> NDArray[np.float32]:
    """Gaussian mean over the masked pixels alone; 0 where none is near."""
    weight = mask.astype(np.float32)
    shape = (..., None) if image.ndim == 3 else ...
    total = cv2.GaussianBlur(weight, (0, 0), sigma_px)
    blurred = cv2.GaussianBlur(image * weight[shape], (0, 0), sigma_px)
    return np.asarray(blurred / np.maximum(total, 1e-6)[shape], dtype=np.float32)


def _sampled(image: FloatArray, pixels: NDArray[np.float32], how: int) -> NDArray[np.float32]:
    """Values of `image` at (N, 2) pixels given as (column, row); folded, as OpenCV's maps are short in one direction."""
    side = 4096
    rows = max(1, math.ceil(len(pixels) / side))
    maps = np.full((rows * side, 2), -1.0, np.float32)
    maps[: len(pixels)] = pixels
    folded = maps.reshape(rows, side, 2)
    image = image.astype(np.float32, copy=False)
    samples = cv2.remap(
        image, folded[..., 0], folded[..., 1], how, borderMode=cv2.BORDER_CONSTANT, borderValue=(np.nan,) * 4
    )
    return np.asarray(samples, dtype=np.float32).reshape(rows * side, *image.shape[2:])[: len(pixels)]
