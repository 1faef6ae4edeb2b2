"""A board's features in one image: which, where, and how surely."""

import math
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.target.board import MARKER_KINDS, Board, BoardKind
from depthcell.calib.target.detect_circle import fit_circles
from depthcell.calib.target.detect_corner import CornerStart, FeatureFit, fit_corners
from depthcell.calib.target.detect_grid import find_grid
from depthcell.calib.target.detect_marker import FoundMarkers, find_markers, local_homographies, mapped
from depthcell.errors import DepthcellError

GROWING_ROUNDS = 12
MAX_SIGMA_PX = 0.3
SHARP_BLUR_PX = 0.5
FLOOR_PX, FLOOR_SHARP_PX = 0.004, 0.02
MARKER_FLOOR_PX, MARKER_FLOOR_SHARP_PX = 0.018, 0.04
"""What grey values cannot tell: the model's own error, measured by `benchmarks/detect_board.py`. It grows where an
image is sharper than its pixels, so that edges turn to stairs, and is larger at the corner of a marker, which is not
symmetric about itself as a chessboard's corner or a disc is."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """What was found of a board.

    Attributes:
        ids: (N,) int64, ascending, index into `Board.points_board`; empty where the board was not found.
        pixels: (N, 2) float64, (column, row).
        sigma_px: standard uncertainty of one coordinate, root mean square over the features; NaN where there are none.
        blur_px: width (standard deviation) of the Gaussian that edges are smoothed with, the median; NaN likewise.
        contrast: grey values between white and black, the median; NaN likewise.
        wrong_shade: share of corners at which black and white are the other way round; they are left out.
        markers: what was found of the markers; None for boards that have none.
        mirrored: whether the board's mark is where only a mirror puts it; nothing is found then.
        goes_on: whether a larger grid is seen, of which the board named is a part; nothing is found then.
    """

    ids: NDArray[np.int64]
    pixels: NDArray[np.float64]
    sigma_px: float = math.nan
    blur_px: float = math.nan
    contrast: float = math.nan
    wrong_shade: float = 0.0
    markers: FoundMarkers | None = None
    mirrored: bool = False
    goes_on: bool = False


def detect(board: Board, image: NDArray[np.uint8]) -> Detection:
    """Find `board` in `image`, (H, W) or (H, W, 3) RGB, uint8.

    Markers or the grid give each feature's number and rough place; then a model of the grey values is fitted around it
    (`fit_corners`, `fit_circles`). ChArUco corners whose markers were missed are reached from their neighbours.
    A detection says what was found, not whether the image is fit to calibrate with: ask `imagequality.judge`.
    """
    grey = grey_of(image)
    if board.inverted:
        grey = 255 - grey
    if board.kind in MARKER_KINDS:
        return _by_markers(board, grey)
    grid = find_grid(board, grey)
    if grid is None:
        return Detection(np.zeros(0, np.int64), np.zeros((0, 2)))
    if grid.mirrored or grid.goes_on:
        return Detection(np.zeros(0, np.int64), np.zeros((0, 2)), mirrored=grid.mirrored, goes_on=grid.goes_on)
    ids, points_m = np.arange(len(board.points_board)), board.points_board[:, :2]
    if board.kind is BoardKind.CIRCLES:
        return _detection(ids, fit_circles(board, grey, grid.pixels), -np.ones(len(ids)))
    start = _corner_start(board, points_m, (points_m, grid.pixels))
    return _detection(ids, fit_corners(grey, start), _shade(board)[ids])


def grey_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image as (H, W) uint8; colour is taken as RGB."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise DepthcellError(f"image: needs (H, W) or (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)


def _by_markers(board: Board, grey: NDArray[np.uint8]) -> Detection:
    markers = find_markers(board, grey)
    if len(markers.numbers) == 0:
        return Detection(np.zeros(0, np.int64), np.zeros((0, 2)), markers=markers)
    if board.kind is BoardKind.CHARUCO:
        ids, fit = _charuco_corners(board, grey, markers)
        return _detection(ids, fit, _shade(board)[ids], markers)
    ids = (4 * markers.numbers[:, None] + np.arange(4)).ravel()
    fit = fit_corners(grey, _marker_start(board, markers))
    floors_px = (MARKER_FLOOR_PX, MARKER_FLOOR_SHARP_PX)
    return _detection(ids, fit, -np.ones(len(ids)), markers, floors_px)


def _charuco_corners(
    board: Board, grey: NDArray[np.uint8], markers: FoundMarkers
) -> tuple[NDArray[np.int64], FeatureFit]:
    """Corners beside the markers first, then those beside corners, until none is left to try."""
    points_m = board.points_board[:, :2]
    known_m, known_px = board.marker_corners()[markers.numbers].reshape(-1, 2), markers.corners.reshape(-1, 2)
    untried, front_m = np.ones(len(points_m), np.bool_), known_m
    tried, fits = list[NDArray[np.int64]](), list[FeatureFit]()
    for _ in range(GROWING_ROUNDS):
        near = np.linalg.norm(points_m[:, None] - front_m[None], axis=-1).min(axis=1, initial=np.inf)
        ids = np.flatnonzero(untried & (near < 1.1 * board.pitch_m))
        start = _corner_start(board, points_m[ids], (known_m, known_px))
        inside = _inside(start.pixels, grey)
        ids, start = ids[inside], _chosen(start, inside)
        if len(ids) == 0 and fits:
            break
        fit = fit_corners(grey, start)
        untried[ids] = False
        tried.append(ids.astype(np.int64))
        fits.append(fit)
        front_m = points_m[ids[fit.is_good]]
        known_m, known_px = np.concatenate((known_m, front_m)), np.concatenate((known_px, fit.pixels[fit.is_good]))
    joined = FeatureFit(*(np.concatenate([getattr(fit, field.name) for fit in fits]) for field in fields(FeatureFit)))
    return np.concatenate(tried), joined


def _corner_start(board: Board, points_m: FloatArray, known: tuple[FloatArray, FloatArray]) -> CornerStart:
    """Inner corners (N, 2) of squares, predicted from known points on the board and their pixels."""
    maps = local_homographies(*known, points_m)
    half_m = board.pitch_m / 2
    along_p, along_q = (
        mapped(maps, points_m + step) - mapped(maps, points_m - step) for step in np.array([[half_m, 0], [0, half_m]])
    )
    clear = math.inf if board.marker_m is None else (1 - board.marker_m / board.pitch_m) / 2
    return CornerStart(mapped(maps, points_m), along_p, along_q, -0.45, 0.45, clear, is_saddle=True)


def _marker_start(board: Board, markers: FoundMarkers) -> CornerStart:
    """Corners of markers; p and q lead along the marker's own edges, so that the quadrant between them is black."""
    after, before = np.roll(markers.corners, -1, axis=1), np.roll(markers.corners, 1, axis=1)
    along_p, along_q = (after - markers.corners).reshape(-1, 2), (before - markers.corners).reshape(-1, 2)
    gap = board.pitch_m / (board.marker_m or board.pitch_m) - 1
    cell = 1 / len(board.marker_cells(0))
    return CornerStart(markers.corners.reshape(-1, 2), along_p, along_q, -0.8 * gap, 0.45, cell, is_saddle=False)


def _chosen(start: CornerStart, which: NDArray[np.bool_]) -> CornerStart:
    return replace(start, pixels=start.pixels[which], along_p=start.along_p[which], along_q=start.along_q[which])


def _inside(pixels: FloatArray, grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which points lie in the image, a pixel and a half from its border; NaN does not."""
    height, width = grey.shape
    inside = (pixels > 1.5) & (pixels < (width - 2.5, height - 2.5))
    return np.logical_and(inside[:, 0], inside[:, 1])


def _shade(board: Board) -> NDArray[np.float64]:
    """Sign (N,) of the contrast at each inner corner: -1 where the square above left and below right is black."""
    rows, columns = board.grid_shape
    row, column = np.divmod(np.arange(rows * columns), columns)
    first_is_white = board.legacy and board.rows % 2 == 0
    return np.where((row + column) % 2 == (1 if first_is_white else 0), -1.0, 1.0)


def _detection(
    ids: NDArray[np.int64],
    fit: FeatureFit,
    shade: NDArray[np.float64],
    markers: FoundMarkers | None = None,
    floors_px: tuple[float, float] = (FLOOR_PX, FLOOR_SHARP_PX),
) -> Detection:
    """The good ones, in the order of their ids."""
    is_good = fit.is_good & (fit.sigma_px < MAX_SIGMA_PX)
    wrong = is_good & (np.sign(fit.contrast) != shade)
    share = float(wrong.sum() / max(is_good.sum(), 1))
    good = np.flatnonzero(is_good & ~wrong)
    good = good[np.argsort(ids[good])]
    if len(good) == 0:
        return Detection(np.zeros(0, np.int64), np.zeros((0, 2)), wrong_shade=share, markers=markers)
    blur_px = float(np.median(fit.blur_px[good]))
    floor_px = floors_px[1 if blur_px < SHARP_BLUR_PX else 0]
    return Detection(
        ids=ids[good].astype(np.int64),
        pixels=fit.pixels[good],
        sigma_px=float(np.hypot(np.sqrt(np.mean(fit.sigma_px[good] ** 2)), floor_px)),
        blur_px=blur_px,
        contrast=float(np.median(np.abs(fit.contrast[good]))),
        wrong_shade=share,
        markers=markers,
    )
