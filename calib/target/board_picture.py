"""A board as shapes, and as the picture that they give: the same for print, for simulation and for tests."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.target.board import Board, BoardKind
from depthcell.errors import DepthcellError

MARGIN_SHARE = 0.5
MARGIN_SHARE_MARKED = 1.0
_DISC_STEPS = 16


@dataclass(frozen=True, slots=True, eq=False)
class BoardShapes:
    """All that is black on white paper (white on black where the board is inverted), frame "board", metres.

    Attributes:
        rectangles_m: (K, 4) float64, left, top, right, bottom; none overlaps another.
        discs_m: (M, 3) float64, centre x, centre y, diameter.
        extent_m: left, top, right, bottom of the paper that belongs to the board, its quiet margin included.
    """

    rectangles_m: NDArray[np.float64]
    discs_m: NDArray[np.float64]
    extent_m: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class BoardPicture:
    """The board as printed, upright.

    Attributes:
        image: (H, W) uint8.
        origin_m: (2,) float64, x and y in the frame "board" of the centre of pixel (column 0, row 0).
        pixels_per_m: scale, the same in both directions.
    """

    image: NDArray[np.uint8]
    origin_m: NDArray[np.float64]
    pixels_per_m: float

    def pixels(self, points_m: FloatArray) -> NDArray[np.float64]:
        """Where points (..., 2) of the board's plane lie in the picture, (column, row)."""
        return (np.asarray(points_m, np.float64) - self.origin_m) * self.pixels_per_m

    @property
    def homography(self) -> NDArray[np.float64]:
        """(3, 3), from (x, y, 1) in metres on the board to (column, row, 1) in the picture."""
        k = self.pixels_per_m
        return np.array([[k, 0.0, -k * self.origin_m[0]], [0.0, k, -k * self.origin_m[1]], [0.0, 0.0, 1.0]])


def board_shapes(board: Board) -> BoardShapes:
    """What has to be printed."""
    left, top, right, bottom = board.extent_m
    margin_m = board.pitch_m * (MARGIN_SHARE_MARKED if board.marked else MARGIN_SHARE)
    extent = (left - margin_m, top - margin_m, right + margin_m, bottom + margin_m)
    rectangles = [_squares(board), *_marker_rectangles(board), _mark(board)]
    discs = np.zeros((0, 3))
    if board.kind is BoardKind.CIRCLES and board.marker_m is not None:
        centres = board.points_board[:, :2]
        discs = np.column_stack((centres, np.full(len(centres), board.marker_m)))
    return BoardShapes(np.concatenate(rectangles), discs, extent)


def board_picture(board: Board, pixels_per_m: float) -> BoardPicture:
    """The board with its white margin; every pixel holds the mean over its area, so edges are exact to 1/255 px.

    Raises:
        DepthcellError: more than 100 million pixels, or fewer than 3 per pitch.
    """
    shapes = board_shapes(board)
    left, top, right, bottom = shapes.extent_m
    width = round((right - left) * pixels_per_m)
    height = round((bottom - top) * pixels_per_m)
    if pixels_per_m * board.pitch_m < 3 or width * height > 100_000_000:
        raise DepthcellError(
            f"board picture: {pixels_per_m:.0f} px per m gives {width}x{height} px; choose another scale"
        )
    origin_m = np.array([left, top]) + 0.5 / pixels_per_m
    black = np.zeros((height, width), np.float32)
    for x0, y0, x1, y1 in shapes.rectangles_m:
        columns, across = _covered(x0, x1, origin_m[0], pixels_per_m)
        rows, down = _covered(y0, y1, origin_m[1], pixels_per_m)
        black[rows, columns] += np.outer(down, across)
    for x, y, diameter in shapes.discs_m:
        _add_disc(black, (np.array([x, y]) - origin_m) * pixels_per_m, diameter / 2 * pixels_per_m)
    white = black if board.inverted else 1 - black
    image = np.clip(np.rint(white * 255), 0, 255).astype(np.uint8)
    return BoardPicture(image, origin_m, pixels_per_m)


def mark_rectangle_m(board: Board) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the bar that a marked board carries left of its first row."""
    left, top, _, _ = board.extent_m
    pitch_m = board.pitch_m
    return left - 0.6 * pitch_m, top + 0.1 * pitch_m, left - 0.4 * pitch_m, top + 1.1 * pitch_m


def _squares(board: Board) -> NDArray[np.float64]:
    """Black squares of a chessboard or a ChArUco board."""
    if board.kind not in (BoardKind.CHARUCO, BoardKind.CHESSBOARD):
        return np.zeros((0, 4))
    more = 1 if board.kind is BoardKind.CHESSBOARD else 0
    row, column = np.divmod(np.arange((board.columns + more) * (board.rows + more)), board.columns + more)
    first_is_white = board.legacy and board.rows % 2 == 0
    black = (row + column) % 2 == (1 if first_is_white else 0)
    corner = (np.stack((column, row), axis=-1)[black] - 1.0) * board.pitch_m
    return np.concatenate((corner, corner + board.pitch_m), axis=1)


def _marker_rectangles(board: Board) -> list[NDArray[np.float64]]:
    """Black cells of every marker, joined along rows."""
    rectangles = []
    for marker, corners in enumerate(board.marker_corners()):
        cells = board.marker_cells(marker)
        size_m = (corners[2] - corners[0])[0] / len(cells)
        padded = np.pad(cells, ((0, 0), (1, 1))).astype(np.int8)
        row, start = np.nonzero(np.diff(padded, axis=1) == 1)
        _, end = np.nonzero(np.diff(padded, axis=1) == -1)
        runs = np.stack((start, row, end, row + 1), axis=-1) * size_m
        rectangles.append(runs + np.tile(corners[0], 2))
    return rectangles


def _mark(board: Board) -> NDArray[np.float64]:
    return np.array([mark_rectangle_m(board)]) if board.marked else np.zeros((0, 4))


def _covered(start_m: float, end_m: float, origin_m: float, pixels_per_m: float) -> tuple[slice, NDArray[np.float64]]:
    """Pixels that an interval touches, and the share of each that it covers; pixel n spans n - 0.5 to n + 0.5."""
    start, end = ((edge - origin_m) * pixels_per_m + 0.5 for edge in (start_m, end_m))
    first, last = int(np.floor(start + 1e-9)), int(np.ceil(end - 1e-9))
    edges = np.clip(np.arange(first, last + 1), start, end)
    return slice(first, last), np.diff(edges)


def _add_disc(black: NDArray[np.float32], centre_px: NDArray[np.float64], radius_px: float) -> None:
    """Share of each pixel within a disc, from 16 x 16 points of it."""
    first = np.floor(centre_px - radius_px - 1).astype(int)
    last = np.ceil(centre_px + radius_px + 2).astype(int)
    fine = (np.arange(_DISC_STEPS) + 0.5) / _DISC_STEPS - 0.5
    x = (np.arange(first[0], last[0])[:, None] + fine).ravel() - centre_px[0]
    y = (np.arange(first[1], last[1])[:, None] + fine).ravel() - centre_px[1]
    inside = ((x[None] ** 2 + y[:, None] ** 2) <= radius_px**2).astype(np.float32)
    size = (int(last[0] - first[0]), int(last[1] - first[1]))
    share = cv2.resize(inside, size, interpolation=cv2.INTER_AREA)
    black[first[1] : last[1], first[0] : last[0]] += share
