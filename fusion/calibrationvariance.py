"""What the calibration leaves uncertain, at every pixel of a view: the quick way to `propagation.point_covariance`."""

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.calib.cell import CellCamera
from depthcell.calib.propagation import point_covariance
from depthcell.fusion.grid import rectangle
from depthcell.fusion.region import Window

SPACING_PX = 12
"""Distance of the pixels for which the covariance is worked out; between them it is interpolated bilinearly."""
STEP = 1.05
"""Ranges of depth are rounded outward to powers of this, so that a table serves one part after another."""
NARROW = 0.27
"""Half a range of depth over its near end up to which three depths are enough; five are exact up to curvature."""
ENTRIES = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def normal_variance_m2(
    camera: CellCamera, window: Window, depth_m: NDArray[np.float32], normals_cell: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Variance along the normal that the calibration gives each pixel, `n^T C n`, (H, W) float32; NaN without depth.

    The six entries of C are smooth over the image, and over z polynomials of degree 4 but for the correction's
    curvature: displacements go with 1, z and z² (see `propagation.point_jacobian`). They are worked out on a grid of
    pixels and three or five depths. Against the plain way this was measured to differ by less than 1 % in sigma, see
    `tests/test_propagation.py`.

    Args:
        camera: as the cell knows it.
        window: of its depth image that the arrays cover.
        depth_m: (H, W) corrected depth.
        normals_cell: (H, W, 3) unit length, frame "cell".
    """
    is_known = np.isfinite(depth_m)
    if not is_known.any() or not camera.covariance.any():
        return np.where(is_known, np.float32(0), np.float32(np.nan))
    part = rectangle(is_known)
    known_m = depth_m[part][is_known[part]]
    low_m = STEP ** math.floor(math.log(float(known_m.min()), STEP))
    high_m = STEP ** math.ceil(math.log(float(known_m.max()) * 1.0001, STEP))
    table = _table(camera, window, low_m, high_m)
    middle_m, half_m = (high_m + low_m) / 2, (high_m - low_m) / 2
    along = (depth_m[part] - np.float32(middle_m)) / np.float32(half_m)
    normals = [np.ascontiguousarray(normals_cell[part][..., axis]) for axis in range(3)]
    enlarge = _Enlarging(window)
    value, total = np.empty(along.shape, np.float32), np.zeros(along.shape, np.float32)
    for entry, (first, second) in enumerate(ENTRIES):
        # Horner's scheme, the coefficients being images; in place, since new memory costs more than the sums.
        np.copyto(value, enlarge(table[-1, entry])[part])
        for coefficient in table[-2::-1, entry]:
            cv2.multiply(value, along, dst=value)
            cv2.add(value, enlarge(coefficient)[part], dst=value)
        cv2.multiply(value, normals[first], dst=value, scale=1.0 if first == second else 2.0)
        cv2.multiply(value, normals[second], dst=value)
        cv2.add(total, value, dst=total)
    variance_m2 = np.full(window.shape, np.nan, np.float32)
    np.maximum(total, np.float32(0), out=variance_m2[part])
    return variance_m2


@lru_cache(maxsize=32)
def _table(camera: CellCamera, window: Window, low_m: float, high_m: float) -> NDArray[np.float32]:
    """Coefficients (K, 6, h, w) of polynomials in the depth, -1 at `low_m` to 1 at `high_m`, on the grid of nodes."""
    count = 3 if (high_m - low_m) / 2 <= NARROW * low_m else 5
    places = np.polynomial.chebyshev.chebpts1(count)
    rows, columns = _nodes(window.shape[0])[0] + window.top, _nodes(window.shape[1])[0] + window.left
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    values = np.empty((count, len(ENTRIES), len(rows), len(columns)))
    for number, place in enumerate(places):
        depth_m = np.full(len(pixels), (high_m + low_m) / 2 + place * (high_m - low_m) / 2)
        covariance = point_covariance(camera, pixels, depth_m)
        for entry, (first, second) in enumerate(ENTRIES):
            values[number, entry] = covariance[:, first, second].reshape(len(rows), len(columns))
    polynomial = np.linalg.inv(np.vander(places, increasing=True))
    return np.asarray(np.einsum("kn,nehw->kehw", polynomial, values), dtype=np.float32)


def _nodes(size_px: int) -> tuple[NDArray[np.float64], int, int]:
    """Pixels at which an axis is sampled, the size to which OpenCV enlarges the samples, and its first pixel there.

    `cv2.resize` takes n samples to N pixels with sample j at pixel `(j + 1/2) N / n - 1/2`. N and the first pixel are
    chosen so that the samples reach from the first to the last pixel and hardly beyond, where a lens model may fold.
    """
    count = math.ceil(size_px / SPACING_PX) + 1
    first = int(size_px / (count - 1) / 2)
    enlarged = math.ceil((size_px - 0.5 + first) * count / (count - 0.5))
    return (np.arange(count) + 0.5) * enlarged / count - 0.5 - first, enlarged, first


class _Enlarging:
    """Brings samples at the nodes to all pixels of a window, always in the same memory."""

    def __init__(self, window: Window) -> None:
        (_, height_px, top), (_, width_px, left) = (_nodes(size_px) for size_px in window.shape)
        self._all = np.empty((height_px, width_px), np.float32)
        self._window = self._all[top : top + window.shape[0], left : left + window.shape[1]]

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        cv2.resize(samples, self._all.shape[::-1], dst=self._all, interpolation=cv2.INTER_LINEAR)
        return self._window
