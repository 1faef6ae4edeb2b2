"""The colour of each patch as one camera sees it: its mean, and thin bright or dark lines that a mean would hide."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.inspect.surface import Surface

PATCH_BLUR = 0.35
"""Width of the blur that makes a patch's mean, in patch spacings."""

LINE_LENGTH_M = 0.005
"""Length over which brightness is averaged along a line: several times the width of a scratch."""

LARGEST_HALF_PX = 5
"""OpenCV filters kernels of up to 11 x 11 directly, and larger ones a good deal slower by Fourier transform."""

LINE_DIRECTIONS = 8
LINE_WIDTH_PX = 0.7

GAIN_PATCHES = 3000
"""As many patches, taken evenly, tell the light as well as all."""

SURROUNDINGS_PX = 4.0
"""Width of the blur that a line is told from."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewColor:
    """What one camera's colour says about the K patches.

    Attributes:
        rgb: (K, 3) float32, mean 8-bit counts about the patch; NaN where this camera does not see it.
        lines: (K, 2) float32, counts by which the strongest line through the patch is brighter, and by which the
            strongest dark one is darker, than its surroundings.
    """

    rgb: NDArray[np.float32]
    lines: NDArray[np.float32]

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(K,) patches this camera gave a colour."""
        return np.isfinite(self.rgb[:, 0])


def sample_view(
    rgb: NDArray[np.uint8],
    intrinsics: Intrinsics,
    T_color_part: RigidTransform,
    surface: Surface,
    visible: NDArray[np.bool_],
) -> ViewColor:
    """Look every visible patch up in one camera's averaged colour image, whether depth was measured there or not.

    Args:
        rgb: (H, W, 3) the image.
        intrinsics: of the image.
        T_color_part: pose of the part in the frame of the colour camera.
        surface: the patches.
        visible: (K,) patches that this camera can see.
    """
    points_color = T_color_part @ surface.points_part
    pixels = intrinsics.project(points_color).astype(np.float32)
    patch_px = surface.spacing_m * intrinsics.fx_px / float(np.median(points_color[:, 2]))
    smooth = cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), max(PATCH_BLUR * patch_px, 0.5))
    lines = line_strengths(rgb, LINE_LENGTH_M / surface.spacing_m * patch_px)
    samples = _sampled(np.dstack((smooth, lines)).astype(np.float32, copy=False), pixels)
    samples[~visible] = np.nan
    return ViewColor(samples[:, :3], samples[:, 3:])


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
    stride = max(1, len(rgb) // GAIN_PATCHES)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = target_rgb[::stride] / rgb[::stride]
    ratio = ratio[np.isfinite(ratio.sum(axis=1))]
    if not len(ratio):
        return np.ones(3, np.float32)
    gain: NDArray[np.float32] = np.median(ratio, axis=0).astype(np.float32)
    return gain


def line_strengths(rgb: NDArray[np.uint8], length_px: float) -> NDArray[np.float32]:
    """Strongest bright and strongest dark line through or beside each pixel, over all directions: (H, W, 2) counts.

    Brightness less that of the surroundings is averaged along a line, so that a faint scratch adds up while noise and
    texture average out.
    """
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = gray - cv2.GaussianBlur(gray, (0, 0), SURROUNDINGS_PX)
    responses = [cv2.filter2D(detail, -1, kernel) for kernel in _line_kernels(length_px)]
    bright, dark = np.maximum.reduce(responses), -np.minimum.reduce(responses)
    # A line passes a patch's centre by up to a pixel or so.
    return np.asarray(cv2.dilate(np.dstack((bright, dark)), np.ones((3, 3), np.uint8)), dtype=np.float32)


def _line_kernels(length_px: float) -> list[NDArray[np.float32]]:
    """Averages along a line of this length, one to two pixels wide, in evenly spread directions."""
    half = int(np.clip(round(length_px / 2), 2, LARGEST_HALF_PX))
    column, row = np.meshgrid(np.arange(-half, half + 1), np.arange(-half, half + 1))
    kernels = []
    for number in range(LINE_DIRECTIONS):
        angle = math.pi * number / LINE_DIRECTIONS
        along = column * math.cos(angle) + row * math.sin(angle)
        across = row * math.cos(angle) - column * math.sin(angle)
        weight = np.exp(-0.5 * (across / LINE_WIDTH_PX) ** 2) * (np.abs(along) <= half)
        kernels.append((weight / weight.sum()).astype(np.float32))
    return kernels


def _sampled(image: NDArray[np.float32], pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear samples of (H, W, C) at (N, 2) pixels as (column, row); NaN outside, and where a pixel is NaN."""
    side = 4096  # OpenCV limits the width of its maps, so they are folded
    rows = max(1, math.ceil(len(pixels) / side))
    maps = np.full((rows * side, 2), -2.0, np.float32)
    maps[: len(pixels)] = np.nan_to_num(pixels, nan=-2.0)
    folded = maps.reshape(rows, side, 2)
    planes = [
        cv2.remap(plane, folded, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan)  # type: ignore[call-overload]
        for plane in cv2.split(image)
    ]
    samples = np.stack(planes, axis=-1).reshape(rows * side, -1)
    return np.asarray(samples[: len(pixels)], dtype=np.float32)
