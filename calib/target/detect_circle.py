"""Centres of discs: the centroid of a disc's image, moved to where the disc's own centre is seen.

The image of a disc under perspective is an ellipse whose centre is not the image of the disc's centre. The difference
is computed from the local plane-to-image map and taken off.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.target.board import Board
from depthcell.calib.target.detect_corner import FeatureFit
from depthcell.calib.target.detect_marker import local_homographies

MIN_PIXELS = 20


def fit_circles(board: Board, grey: NDArray[np.uint8], pixels: FloatArray) -> FeatureFit:
    """Centres of all discs of `board` near `pixels` (N, 2), black on white; row number = id."""
    points_m = board.points_board[:, :2]
    maps = local_homographies(points_m, pixels, points_m)
    rows = [_disc(board, grey, H, point_m) for H, point_m in zip(maps, points_m, strict=True)]
    table = np.array(rows)
    centroid, (sigma, blur, contrast, misfit) = table[:, :2], table[:, 2:].T
    shift = np.array([ellipse_shift_px(H, p, (board.marker_m or 0) / 2) for H, p in zip(maps, points_m, strict=True)])
    is_good = np.isfinite(table).all(axis=1) & (np.abs(contrast) > np.maximum(8.0, 5 * misfit))
    # The map is known to some percent of its perspective, and the shift with it.
    sigma = np.hypot(sigma, 0.03 * np.linalg.norm(shift, axis=1))
    return FeatureFit(centroid - shift, sigma, blur, contrast, misfit, is_good)


def ellipse_shift_px(H: FloatArray, centre_m: FloatArray, radius_m: float) -> NDArray[np.float64]:
    """Centre of the ellipse that a disc becomes, less the image of the disc's centre: (2,) px.

    Points on the rim satisfy x^T C x = 0; their images x' = H x satisfy x'^T C' x' = 0 with C' = H^-T C H^-1, and the
    centre of that conic is the pole of the line at infinity, C'^-1 (0, 0, 1) (Hartley and Zisserman, Multiple View
    Geometry, 2nd edition, section 2.2.3 on conics and result 2.13).
    """
    x, y = centre_m
    # C^-1 up to scale, of the circle about (x, y): T diag(r², r², -1) T^T with T the shift by the centre.
    T = np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
    dual = H @ T @ np.diag([radius_m**2, radius_m**2, -1.0]) @ T.T @ H.T
    centre = H @ (x, y, 1.0)
    return np.asarray(dual[:2, 2] / dual[2, 2] - centre[:2] / centre[2])


def _disc(board: Board, grey: NDArray[np.uint8], H: FloatArray, centre_m: FloatArray) -> tuple[float, ...]:
    """Column, row, sigma, blur, contrast and noise of one disc; NaN where it is too small or leaves the image."""
    nothing = (np.nan,) * 6
    half_m = board.pitch_m / 2
    square_m = centre_m + half_m * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    if not np.isfinite(H).all():
        return nothing
    square = cv2.perspectiveTransform(square_m[None], np.asarray(H))[0]
    low, high = np.floor(square.min(axis=0)).astype(int), np.ceil(square.max(axis=0)).astype(int) + 1
    if (low < 0).any() or (high > (grey.shape[1], grey.shape[0])).any():
        return nothing
    columns, rows = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    where = np.stack((columns, rows), axis=-1).reshape(1, -1, 2).astype(np.float64)
    away_m = np.linalg.norm(cv2.perspectiveTransform(where, np.linalg.inv(H))[0] - centre_m, axis=-1)
    values = grey[rows, columns].astype(np.float64).ravel()
    radius_m = (board.marker_m or 0.0) / 2
    margin_m = (half_m - radius_m) / 2
    inner, outer = away_m < 0.5 * radius_m, (away_m > radius_m + margin_m) & (away_m < half_m)
    if inner.sum() < 3 or outer.sum() < 3 or (away_m < radius_m).sum() < MIN_PIXELS:
        return nothing
    paper = _plane(where[0][outer], values[outer], where[0])
    ink, noise = np.median(values[inner]), float(np.std(values[outer] - paper[outer]))
    near = away_m < radius_m + margin_m
    contrast = float(ink - np.median(paper[outer]))
    if abs(contrast) < 1:
        return nothing
    weight = ((values - paper) / (ink - paper))[near]
    centroid = (where[0][near] * weight[:, None]).sum(axis=0) / weight.sum()
    spread = np.square(where[0][near] - centroid).sum() / 2
    sigma = noise / abs(contrast) * np.sqrt(spread) / abs(weight.sum())
    return (*centroid, sigma, _blur_px(grey[low[1] : high[1], low[0] : high[0]], contrast), contrast, noise)


def _plane(where: FloatArray, values: FloatArray, wanted: FloatArray) -> NDArray[np.float64]:
    """A plane through the paper's grey values around a disc: light falls off across it."""
    middle = where.mean(axis=0)
    design = np.column_stack((where - middle, np.ones(len(where))))
    fit = np.linalg.lstsq(design, values, rcond=None)[0]
    return np.asarray(np.column_stack((wanted - middle, np.ones(len(wanted)))) @ fit)


def _blur_px(patch: NDArray[np.uint8], contrast: float) -> float:
    """From the steepest slope g of an edge of height c smoothed by a Gaussian: s = c / (sqrt(2 pi) g)."""
    down, across = np.gradient(patch.astype(np.float64))
    steepest = np.quantile(np.hypot(down, across), 1 - 8 / patch.size) if patch.size > 8 else np.nan
    return float(abs(contrast) / (np.sqrt(2 * np.pi) * max(steepest, 1e-6)))
