"""The third step of the baseline: what is compared, and how unlike two parts laid over each other are at each place."""

import cv2
import numpy as np
from numpy.typing import NDArray

CELL_PX = 2  # features are smooth, so every second pixel is compared
ORIENTATIONS = 8
GRADIENT_FLOOR = 5.0  # lightness per pixel below which an edge counts as noise
PATCH_SIGMA_CELLS = 1.0
HEIGHT_LIMITS_MM = (-5.0, 60.0)


def edge_features(lightness: NDArray[np.float32]) -> NDArray[np.float32]:
    """(8, S / 2, S / 2): how much edge of each direction, relative to the edges around; from lightness (S, S).

    Soft-binned gradient orientations pooled over 1.5 px and divided by their local length, as in SIFT (Lowe, IJCV 60,
    2004), then the square root, as in RootSIFT (Arandjelovic and Zisserman, CVPR 2012).
    """
    column_step = cv2.Sobel(lightness, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    row_step = cv2.Sobel(lightness, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    per_length = 1 / np.maximum(column_step * column_step + row_step * row_step, np.float32(1e-12))
    bins = np.empty((ORIENTATIONS, *lightness.shape), np.float32)
    for number in range(ORIENTATIONS // 2):
        angle = 2 * np.pi * number / ORIENTATIONS
        along = column_step * np.float32(np.cos(angle)) + row_step * np.float32(np.sin(angle))
        cubed = along * along * along * per_length
        for direction, signed in ((number, cubed), (number + ORIENTATIONS // 2, -cubed)):
            cv2.GaussianBlur(np.maximum(signed, 0), (0, 0), 1.5, dst=bins[direction])
    around = cv2.GaussianBlur(np.linalg.norm(bins, axis=0), (0, 0), 3.0)
    features: NDArray[np.float32] = np.sqrt(
        bins[:, ::CELL_PX, ::CELL_PX] / (around + GRADIENT_FLOOR)[::CELL_PX, ::CELL_PX]
    )
    return features


def normal_features(height_mm: NDArray[np.float32], pixel_mm: float) -> NDArray[np.float32]:
    """(3, S / 2, S / 2): direction of the surface normal, shrunk towards zero where little was measured.

    Heights are averaged over 1.2 px among measured pixels only (Knutsson and Westin, "Normalized and differential
    convolution", CVPR 1993); where under 30 % of that neighbourhood was measured there is no normal, and the zero
    vector stands for "not measured", which is itself compared.
    """
    measured = np.isfinite(height_mm).astype(np.float32)
    weight = cv2.GaussianBlur(measured, (0, 0), 1.2)
    known = np.clip(np.nan_to_num(height_mm), *HEIGHT_LIMITS_MM) * measured
    smooth = cv2.GaussianBlur(known, (0, 0), 1.2) / (weight + 1e-3)
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=1 / (8 * pixel_mm))
    slope_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=1 / (8 * pixel_mm))
    normals = np.stack((-slope_x, -slope_y, np.ones_like(smooth))) / np.sqrt(1 + slope_x**2 + slope_y**2)
    normals *= weight > 0.3
    features = [cv2.GaussianBlur(part, (0, 0), 1.2)[::CELL_PX, ::CELL_PX] for part in normals]
    return np.stack(features).astype(np.float32, copy=False)


def least_distance(
    judged: NDArray[np.float32], references: list[NDArray[np.float32]], reach: int
) -> NDArray[np.float32]:
    """(S / 2, S / 2): distance of each patch from the most alike patch of any reference, at most `reach` cells away.

    Args:
        judged: (C, h, w) features.
        references: features of good parts laid over it, same shape.
        reach: largest shift in cells, rows and columns alike.
    """
    _, height, width = judged.shape
    least = np.full((height, width), np.inf, dtype=np.float32)
    difference = np.empty_like(judged)
    for reference in references:
        padded = np.pad(reference, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        for row in range(2 * reach + 1):
            for column in range(2 * reach + 1):
                np.subtract(judged, padded[:, row : row + height, column : column + width], out=difference)
                squared = np.einsum("chw,chw->hw", difference, difference)
                np.minimum(least, cv2.GaussianBlur(squared, (0, 0), PATCH_SIGMA_CELLS), out=least)
    return np.sqrt(least)
