"""Boards without markers: the whole grid is found, then numbered so that each feature keeps its number in all views."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.calib.target.board import Board, BoardKind
from depthcell.calib.target.board_picture import mark_rectangle_m
from depthcell.calib.target.detect_marker import local_homographies, mapped

MARK_DARKNESS = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class FoundGrid:
    """A whole grid.

    Attributes:
        pixels: (N, 2) float64, row number = id.
        mirrored: only a mirror shows it so.
        goes_on: it is part of a larger one.
    """

    pixels: NDArray[np.float64]
    mirrored: bool = False
    goes_on: bool = False


def find_grid(board: Board, grey: NDArray[np.uint8]) -> FoundGrid | None:
    """A chessboard or a grid of discs in `grey` (H, W), black on white; None if it is not there as a whole.

    Of the ways in which the grid falls onto itself the board's mark decides; without one, the shades of a chessboard's
    squares do. Where both are silent (`Board.turns_onto_itself`) x is taken to run to the right in the image. A
    chessboard's mirror image is itself a chessboard, so without a mark a mirror is not noticed.
    """
    pixels = _circle_grid(board, grey) if board.kind is BoardKind.CIRCLES else _chessboard(board, grey)
    if pixels is None:
        return None
    readings = list(_readings(pixels.reshape(*board.grid_shape, 2)))
    upright = [reading for reading in readings if not _is_mirrored(reading)]
    if board.marked:
        darkness = [_mark_darkness(board, grey, reading) for reading in readings]
        best = readings[int(np.argmax(darkness))]
        if max(darkness) < MARK_DARKNESS:
            return None
    elif board.kind is BoardKind.CHESSBOARD and not board.turns_onto_itself:
        best = max(upright, key=lambda reading: _shade_agreement(grey, reading))
    else:
        best = max(upright, key=lambda reading: float(_axes(reading)[0][0]))
    return FoundGrid(best.reshape(-1, 2), _is_mirrored(best), _goes_on(board, grey, best))


def _chessboard(board: Board, grey: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    size = (board.columns, board.rows)
    for flags in (cv2.CALIB_CB_NORMALIZE_IMAGE, cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_EXHAUSTIVE):
        found, corners = cv2.findChessboardCornersSB(grey, size, flags=flags)
        if found:
            break
    else:
        flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_FAST_CHECK
        found, corners = cv2.findChessboardCorners(grey, size, flags=flags)
    return np.asarray(corners, np.float64).reshape(-1, 2) if found else None


def _circle_grid(board: Board, grey: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    settings = cv2.SimpleBlobDetector.Params()
    settings.minArea, settings.maxArea = 20.0, grey.size / 20
    settings.minDistBetweenBlobs = 5.0
    settings.minThreshold, settings.maxThreshold, settings.thresholdStep = 20.0, 235.0, 15.0
    blobs = cv2.SimpleBlobDetector.create(settings)
    size = (board.columns, board.rows)
    for flags in (cv2.CALIB_CB_SYMMETRIC_GRID, cv2.CALIB_CB_SYMMETRIC_GRID | cv2.CALIB_CB_CLUSTERING):
        found, centres = cv2.findCirclesGrid(grey, size, flags=flags, blobDetector=blobs)
        if found:
            return np.asarray(centres, np.float64).reshape(-1, 2)
    return None


def _readings(grid: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """All ways (rows, columns, 2) to number a grid so that it keeps its shape."""
    turned = [grid] if grid.shape[0] != grid.shape[1] else [grid, grid.transpose(1, 0, 2)]
    for one in turned:
        yield from (one, one[::-1, ::-1], one[::-1], one[:, ::-1])


def _axes(reading: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean step in the image along columns, and along rows."""
    return np.diff(reading, axis=1).mean(axis=(0, 1)), np.diff(reading, axis=0).mean(axis=(0, 1))


def _is_mirrored(reading: NDArray[np.float64]) -> bool:
    x, y = _axes(reading)
    return bool(x[0] * y[1] - x[1] * y[0] <= 0)


def _shade_agreement(grey: NDArray[np.uint8], reading: NDArray[np.float64]) -> float:
    """Contrast of white over black squares between the corners, if the square before the first corner is black."""
    centres = (reading[:-1, :-1] + reading[1:, :-1] + reading[:-1, 1:] + reading[1:, 1:]) / 4
    shades = _sampled(grey, centres.reshape(-1, 2)).reshape(centres.shape[:2])
    row, column = np.indices(shades.shape)
    is_black = (row + column) % 2 == 0  # diagonal neighbour of the first, black, square
    return float(shades[~is_black].mean() - shades[is_black].mean())


def _goes_on(board: Board, grey: NDArray[np.uint8], reading: NDArray[np.float64]) -> bool:
    """Whether the pattern continues beyond one of its four sides, where paper should be."""
    rows, columns = board.grid_shape
    if board.kind is BoardKind.CIRCLES:
        start, ends, shift = 0, ((-1, columns), (-1, rows)), 0.0
    else:  # squares: their middles lie half a pitch from the corners, and the board's own reach one beyond them
        start, ends, shift = -1, ((-2, columns), (-2, rows)), 0.5
    along_rows, along_columns = np.arange(start, rows), np.arange(start, columns)
    sides = [np.stack((np.full_like(along_rows, column), along_rows), axis=-1) for column in ends[0]]
    sides += [np.stack((along_columns, np.full_like(along_columns, row)), axis=-1) for row in ends[1]]
    return any(_is_printed(board, grey, reading, cells, shift) for cells in sides)


def _is_printed(
    board: Board, grey: NDArray[np.uint8], reading: NDArray[np.float64], cells: NDArray[np.int_], shift: float
) -> bool:
    """Whether squares (or discs) `cells` (n, 2), as column and row, are black and white (or black) in the image."""
    middles_m = np.asarray((cells + shift) * board.pitch_m, np.float64)
    black_m = middles_m[cells.sum(axis=1) % 2 == 0]
    white_m = middles_m[cells.sum(axis=1) % 2 == 1]
    if board.kind is BoardKind.CIRCLES:
        black_m, white_m = middles_m, (middles_m[1:] + middles_m[:-1]) / 2
    black, white = (_seen_shades(board, grey, reading, points_m) for points_m in (black_m, white_m))
    if min(len(black), len(white)) < 2:
        return False
    return bool(white.mean() - black.mean() > 0.5 * _contrast(grey, reading))


def _seen_shades(
    board: Board, grey: NDArray[np.uint8], reading: NDArray[np.float64], points_m: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Grey values at points (n, 2) of the board that lie within the image."""
    maps = local_homographies(board.points_board[:, :2], reading.reshape(-1, 2), points_m)
    pixels = mapped(maps, points_m)
    height, width = grey.shape
    inside = ((pixels >= 0) & (pixels <= (width - 1, height - 1))).all(axis=1)
    return _sampled(grey, pixels[inside])


def _contrast(grey: NDArray[np.uint8], reading: NDArray[np.float64]) -> float:
    """Grey values between the board's black and its white."""
    x, y, w, h = cv2.boundingRect(reading.reshape(-1, 1, 2).astype(np.float32))
    black, white = np.percentile(grey[max(y, 0) : y + h, max(x, 0) : x + w], (10, 90))
    return max(float(white - black), 1.0)


def _mark_darkness(board: Board, grey: NDArray[np.uint8], reading: NDArray[np.float64]) -> float:
    """How dark the bar is on the scale from the board's white (0) to its black (1), against its surroundings."""
    left, top, right, bottom = mark_rectangle_m(board)
    down = np.linspace(0.2, 0.8, 5)
    bar = np.column_stack((np.full(5, (left + right) / 2), top + down * (bottom - top)))
    aside = np.array([1.0, 0.0]) * (right - left)
    shades = [_seen_shades(board, grey, reading, bar + sideways) for sideways in (0 * aside, -aside, aside)]
    if min(len(shade) for shade in shades) < len(bar):
        return 0.0
    return float((min(shades[1].mean(), shades[2].mean()) - shades[0].mean()) / _contrast(grey, reading))


def _sampled(grey: NDArray[np.uint8], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grey values between pixels, (N,)."""
    if len(pixels) == 0:
        return np.zeros(0)
    where = pixels.astype(np.float32).reshape(1, -1, 2)
    return np.asarray(cv2.remap(grey, where[..., 0], where[..., 1], cv2.INTER_LINEAR), np.float64).ravel()
