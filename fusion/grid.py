"""Geometry on the depth image's own grid: where it jumps, and which way each surface patch faces.

Neighbours in the image are neighbours on the surface, so no search tree is needed. The work is done in inverse depth
w = 1/z, for two reasons: a stereo camera's noise is the same everywhere there, and a plane is linear there. With
x = X/z and y = Y/z, the plane n·p = d reads `w = (n_x x + n_y y + n_z) / d`: its gradient over the image is its normal.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

STEEPEST_RAD = math.radians(80.0)
"""A surface steeper than this against the image plane is taken for a jump."""
JUMP_SIGMAS = 6.0
"""A step between neighbours below this many standard deviations is noise, not a jump."""
BEND_SIGMAS = 3.0
"""A window whose scatter about its mean exceeds the noise this many times bends too much for its size."""
ENOUGH_OF_WINDOW = 0.6
"""Share of the smallest window that must be usable for a normal."""


def edge_mask(depth_m: Image, intrinsics: Intrinsics, sigma_m: Image, margin_px: int) -> Mask:
    """Pixels where two surfaces may be mixed, (H, W): to be dropped, never to be kept or repaired.

    A stereo camera matches windows, so that near an edge the nearer surface spills over the farther one. Marked are
    pixels within `margin_px` of a step between neighbours that is neither noise nor a surface up to 80° steep, and of
    a hole that holds 3 x 3 pixels or more (the shadow beside an edge). Smaller holes are dropouts, not edges.

    Args:
        depth_m: (H, W) metres, NaN where not measured.
        intrinsics: of this image.
        sigma_m: (H, W) standard uncertainty of `depth_m`.
        margin_px: how far the matching window reaches; 0 marks the pixels at the step alone.
    """
    steepest_m = depth_m * np.float32(math.tan(STEEPEST_RAD) / min(intrinsics.fx_px, intrinsics.fy_px))
    limit_m = np.maximum(sigma_m * np.float32(JUMP_SIGMAS * math.sqrt(2.0)), steepest_m)
    beside = np.abs(depth_m[:, 1:] - depth_m[:, :-1]) > limit_m[:, 1:]
    below = np.abs(depth_m[1:] - depth_m[:-1]) > limit_m[1:]
    edge = np.zeros(depth_m.shape, np.bool_)
    edge[:, 1:] |= beside
    edge[:, :-1] |= beside
    edge[1:] |= below
    edge[:-1] |= below
    if margin_px == 0:
        return edge
    hole = cv2.morphologyEx(np.isnan(depth_m).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    reach = np.ones((2 * margin_px + 1, 2 * margin_px + 1), np.uint8)
    return cv2.dilate(cv2.bitwise_or(hole, edge.astype(np.uint8)), reach).astype(np.bool_)


def depth_normals(
    depth_m: Image,
    intrinsics: Intrinsics,
    usable: Mask,
    sigma_m: Image,
    radii_px: tuple[int, int] = (6, 3),
    wanted: Mask | None = None,
) -> NDArray[np.float32]:
    """Unit surface normals in the camera frame, facing the camera, (H, W, 3) float32; NaN where there is too little.

    A plane is fitted by least squares over a window around each pixel. The large window is taken where it is whole and
    scatters no more than the noise allows; else, near edges, creases and dropouts, the small one on its usable pixels.
    Points are never moved: smoothing serves the normals alone.

    Args:
        depth_m: (H, W) metres.
        intrinsics: of this image.
        usable: (H, W), False for pixels that must not take part (not measured, mixed).
        sigma_m: (H, W) standard uncertainty of `depth_m`, to tell bends from noise.
        radii_px: half sizes of the large and the small window.
        wanted: (H, W), where normals are asked for; None: at all usable pixels. No work is spent on others.
    """
    pixel, found = normals_at(depth_m, intrinsics, usable, sigma_m, radii_px, usable if wanted is None else wanted)
    normals = np.full((depth_m.size, 3), np.nan, np.float32)
    normals[pixel] = found
    return normals.reshape(*depth_m.shape, 3)


def normals_at(
    depth_m: Image,
    intrinsics: Intrinsics,
    usable: Mask,
    sigma_m: Image,
    radii_px: tuple[int, int],
    wanted: Mask,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The pixels (N,), counted along rows, of those `wanted` that have a normal, and these (N, 3): `depth_normals`."""
    large_px, small_px = radii_px
    # A pixel's scatter is that of means over its large window: what lies farther than two of them cannot matter.
    part = rectangle(wanted, 2 * large_px)
    depth_m, usable, sigma_m, wanted = depth_m[part], usable[part], sigma_m[part], wanted[part] & usable[part]
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(usable, 1 / depth_m, np.float32(0))
        inverse_sigma = sigma_m * inverse * inverse
    fit, whole = _slopes_of_whole_windows(inverse, usable, large_px)
    straight = whole & _is_straight(inverse, fit.centre, inverse_sigma, large_px)
    known = wanted & straight
    near_edges = np.flatnonzero(wanted & ~straight)
    small, enough = _slopes_of_usable(inverse, usable, small_px, near_edges)
    known.ravel()[near_edges] = enough
    fit.per_column.ravel()[near_edges] = small.per_column
    fit.per_row.ravel()[near_edges] = small.per_row
    fit.centre.ravel()[near_edges] = small.centre
    pixel = np.flatnonzero(known)
    row, column = np.divmod(pixel, known.shape[1])
    place = (row + part[0].start) * intrinsics.width_px + column + part[1].start
    return place, _normals(fit.at(pixel), intrinsics, place)


def rectangle(wanted: Mask, margin_px: int = 0) -> tuple[slice, slice]:
    """The rows and columns that hold all that is wanted, and a margin."""
    spans = []
    for along, size in ((wanted.any(axis=1), wanted.shape[0]), (wanted.any(axis=0), wanted.shape[1])):
        some = np.flatnonzero(along)
        first, last = (int(some[0]), int(some[-1]) + 1) if len(some) else (0, 0)
        spans.append(slice(max(first - margin_px, 0), min(last + margin_px, size)))
    return spans[0], spans[1]


@dataclass(frozen=True, slots=True, eq=False)
class _Slopes:
    """Of inverse depth around pixels: change per column and per row, value at the pixel; images or columns."""

    per_column: FloatArray
    per_row: FloatArray
    centre: FloatArray

    def at(self, pixel: NDArray[np.intp]) -> "_Slopes":
        """Of some pixels, counted along rows."""
        return _Slopes(self.per_column.take(pixel), self.per_row.take(pixel), self.centre.take(pixel))


def _slopes_of_whole_windows(inverse: FloatArray, usable: Mask, radius_px: int) -> tuple[_Slopes, Mask]:
    """Least squares over windows without a gap: slope and mean are then independent, each of them one linear filter."""
    offsets = np.arange(-radius_px, radius_px + 1, dtype=np.float32)
    side = len(offsets)
    ramp, flat = offsets / float(offsets @ offsets), np.full(side, 1.0 / side, np.float32)
    whole = cv2.erode(
        usable.astype(np.uint8), np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=(0,)
    )
    slopes = _Slopes(
        per_column=_filtered(inverse, ramp, flat),
        per_row=_filtered(inverse, flat, ramp),
        centre=_filtered(inverse, flat, flat),
    )
    return slopes, whole.astype(np.bool_)


def _slopes_of_usable(
    inverse: FloatArray, usable: Mask, radius_px: int, pixel: NDArray[np.intp]
) -> tuple[_Slopes, Mask]:
    """Least squares over the usable pixels of windows: the normal equations from nine filtered moments.

    Args:
        inverse: (H, W).
        usable: (H, W).
        radius_px: half size of the windows.
        pixel: (N,) where they are asked for, counted along rows.

    Returns:
        Slopes (N,), and which of them rest on enough pixels.
    """
    offsets = np.arange(-radius_px, radius_px + 1, dtype=np.float32)
    ones, squares = np.ones_like(offsets), offsets * offsets
    mask = usable.astype(np.float32)

    def moment(image: FloatArray, along_row: FloatArray, along_column: FloatArray) -> FloatArray:
        return _filtered(image, along_row, along_column).take(pixel)

    number = moment(mask, ones, ones)
    count = np.maximum(number, 1)
    mean_u, mean_v = moment(mask, offsets, ones) / count, moment(mask, ones, offsets) / count
    mean_w = moment(inverse, ones, ones) / count
    var_u = moment(mask, squares, ones) / count - mean_u * mean_u
    var_v = moment(mask, ones, squares) / count - mean_v * mean_v
    cov_uv = moment(mask, offsets, offsets) / count - mean_u * mean_v
    cov_uw = moment(inverse, offsets, ones) / count - mean_u * mean_w
    cov_vw = moment(inverse, ones, offsets) / count - mean_v * mean_w
    determinant = var_u * var_v - cov_uv * cov_uv
    known = number >= ENOUGH_OF_WINDOW * len(offsets) ** 2
    scale = np.where(known, 1 / np.where(known, determinant, 1), 0)
    per_column = (cov_uw * var_v - cov_vw * cov_uv) * scale
    per_row = (cov_vw * var_u - cov_uw * cov_uv) * scale
    return _Slopes(per_column, per_row, mean_w - per_column * mean_u - per_row * mean_v), known


def _is_straight(inverse: FloatArray, centre: FloatArray, inverse_sigma: FloatArray, radius_px: int) -> Mask:
    """Whether the scatter of pixels about their own window's mean stays within noise: false at creases and rims."""
    bend = inverse - centre
    scatter = cv2.blur(bend * bend, (2 * radius_px + 1, 2 * radius_px + 1))
    straight: Mask = scatter < np.square(np.float32(BEND_SIGMAS) * inverse_sigma)
    return straight


def _filtered(image: FloatArray, along_row: FloatArray, along_column: FloatArray) -> FloatArray:
    return cv2.sepFilter2D(image, cv2.CV_32F, along_row, along_column, borderType=cv2.BORDER_CONSTANT).astype(
        np.float32, copy=False
    )


def _normals(fit: _Slopes, intrinsics: Intrinsics, pixel: NDArray[np.intp]) -> NDArray[np.float32]:
    """The gradient of w over (x, y) as unit normal: `n ~ -(w_x, w_y, w - x w_x - y w_y)`, which faces the camera."""
    x, y, _ = intrinsics.rays().reshape(-1, 3).take(pixel, axis=0).T
    by_x, by_y = _per_ideal_coordinate(fit, intrinsics, pixel)
    by_z = fit.centre - x * by_x - y * by_y
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.float32(-1) / np.sqrt(by_x * by_x + by_y * by_y + by_z * by_z)
        return np.stack((by_x * scale, by_y * scale, by_z * scale), axis=1, dtype=np.float32)


def _per_ideal_coordinate(
    fit: _Slopes, intrinsics: Intrinsics, pixel: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Slopes per pixel become slopes per ideal image coordinate (x, y), by the chain rule."""
    if not intrinsics.is_distorted:
        return fit.per_column * np.float32(intrinsics.fx_px), fit.per_row * np.float32(intrinsics.fy_px)
    x_u, x_v, y_u, y_v = (image.ravel().take(pixel) for image in _ray_jacobian(intrinsics))
    determinant = x_u * y_v - x_v * y_u
    by_x = (fit.per_column * y_v - fit.per_row * y_u) / determinant
    by_y = (fit.per_row * x_u - fit.per_column * x_v) / determinant
    return by_x, by_y


@lru_cache(maxsize=16)
def _ray_jacobian(intrinsics: Intrinsics) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Change of the ideal coordinates x and y per column (u) and per row (v)."""
    rays = intrinsics.rays()
    by_row, by_column = (np.asarray(along) for along in np.gradient(rays, axis=(0, 1)))
    x_u, x_v, y_u, y_v = (np.ascontiguousarray(a[..., k]) for k in (0, 1) for a in (by_column, by_row))
    return x_u, x_v, y_u, y_v
