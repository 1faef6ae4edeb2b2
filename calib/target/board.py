"""Calibration boards: what is printed, where its features lie, and the one line of text that names it.

Frame "board": x right and y down as printed, z into the board, away from who looks at it; feature 0 is the origin.
A camera that faces the board upright sees it with an identity rotation.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from cv2 import aruco
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.target.board_text import format_length, parse_cells, parse_length_m
from depthcell.errors import DepthcellError

if TYPE_CHECKING:
    from depthcell.calib.target.board_picture import BoardPicture

FLAGS = ("legacy", "inverted", "marked")
LIMITS_M = (0.001, 1.0)
APRIL_DICTIONARY = "DICT_APRILTAG_36h11"


class BoardKind(StrEnum):
    """Patterns that can be printed and found.

    `CHARUCO` is found in part, tells a mirrored image and names every corner: the one to take. `ARUCO` and `APRIL` are
    also found in part, but corners of markers are less exact than those of squares. `CHESSBOARD` and `CIRCLES` must be
    seen whole.
    """

    CHARUCO = "charuco"
    CHESSBOARD = "chessboard"
    ARUCO = "aruco"
    APRIL = "april"
    CIRCLES = "circles"


MARKER_KINDS = frozenset({BoardKind.CHARUCO, BoardKind.ARUCO, BoardKind.APRIL})
DEFAULT_MARKER_SHARE = {
    BoardKind.CHARUCO: 0.73,
    BoardKind.ARUCO: 0.75,
    BoardKind.APRIL: 0.75,
    BoardKind.CIRCLES: 0.5,
}
GRAMMAR = (
    "KIND:COLUMNSxROWS:PITCH[:MARKER][:DICTIONARY][:legacy][:inverted][:marked], as charuco:9x6:30mm, "
    "chessboard:9x6:25mm (inner corners), aruco:6x4:40mm:30mm, april:6x6:24mm:18mm, circles:9x7:20mm"
)


@dataclass(frozen=True, slots=True)
class Board:
    """A flat calibration board.

    Features, in order of their id, row by row from the top left as printed:

    - `CHARUCO`: inner corners, `(columns - 1) (rows - 1)`; columns and rows count squares; the top left square is
      black (with `legacy` and an even number of rows it is white, as OpenCV printed boards before 4.6).
    - `CHESSBOARD`: inner corners, `columns x rows`; columns and rows count them; the top left square is black.
    - `ARUCO`, `APRIL`: four corners of each marker, id `4 marker + corner`, from its top left one clockwise. Markers of
      `APRIL` stand as AprilTag's own generator prints them, which is upside down to OpenCV's.
    - `CIRCLES`: centres of discs on a square grid.

    Attributes:
        kind: the pattern.
        columns, rows: its size in squares, inner corners, markers or discs.
        pitch_m: side of a square, or distance from one marker or disc to the next.
        marker_m: side of a marker with its black border, or diameter of a disc; None for a chessboard.
        dictionary: OpenCV's name of the markers' dictionary; None where there are none.
        legacy: see `CHARUCO`.
        inverted: black and white are swapped in print.
        marked: a bar is printed left of feature 0 (chessboard and circles), which tells the board from its mirror image
            and from itself turned by half.

    Raises:
        DepthcellError: a field is impossible; the message names it.
    """

    kind: BoardKind
    columns: int
    rows: int
    pitch_m: float
    marker_m: float | None = None
    dictionary: str | None = None
    legacy: bool = False
    inverted: bool = False
    marked: bool = False

    def __post_init__(self) -> None:
        least = 2 if self.kind in (BoardKind.ARUCO, BoardKind.APRIL) else 3
        if not (least <= self.columns <= 100 and least <= self.rows <= 100):
            size = f"{self.columns}x{self.rows}"
            raise DepthcellError(f"board {self.kind}: {size} is no size; take {least}x{least} to 100x100")
        if not LIMITS_M[0] <= self.pitch_m <= LIMITS_M[1]:
            pitch = format_length(self.pitch_m)
            raise DepthcellError(f"board {self.kind}: pitch {pitch} is outside 1 mm to 1 m; check its unit")
        object.__setattr__(self, "pitch_m", round(self.pitch_m, 9))
        self._settle_marker()
        self._settle_dictionary()
        if self.legacy and self.kind is not BoardKind.CHARUCO:
            raise DepthcellError(f"board {self.kind}: 'legacy' is a property of charuco boards; leave it out")
        if self.marked and self.kind in MARKER_KINDS:
            raise DepthcellError(f"board {self.kind}: its markers already tell how it lies; leave 'marked' out")

    def _settle_marker(self) -> None:
        if self.kind is BoardKind.CHESSBOARD:
            if self.marker_m is not None:
                raise DepthcellError("board chessboard: has no markers; give one length, the side of a square")
            return
        marker_m = self.marker_m
        if marker_m is None:
            marker_m = DEFAULT_MARKER_SHARE[self.kind] * self.pitch_m
        if not 0.3 * self.pitch_m <= marker_m <= 0.95 * self.pitch_m:
            what = "disc" if self.kind is BoardKind.CIRCLES else "marker"
            raise DepthcellError(
                f"board {self.kind}: {what} of {format_length(marker_m)} on a pitch of {format_length(self.pitch_m)}; "
                f"it must be 0.3 to 0.95 of the pitch"
            )
        object.__setattr__(self, "marker_m", round(marker_m, 9))

    def _settle_dictionary(self) -> None:
        if self.kind not in MARKER_KINDS:
            if self.dictionary is not None:
                raise DepthcellError(f"board {self.kind}: has no markers, so no dictionary {self.dictionary}")
            return
        dictionary = self.dictionary
        if self.kind is BoardKind.APRIL:
            if dictionary not in (None, APRIL_DICTIONARY):
                raise DepthcellError(f"board april: only {APRIL_DICTIONARY} is read; for {dictionary} take kind aruco")
            dictionary = APRIL_DICTIONARY
        elif dictionary is None:
            dictionary = _smallest_dictionary(self.marker_count)
        known = len(marker_dictionary(dictionary).bytesList)
        if known < self.marker_count:
            raise DepthcellError(
                f"board {self.kind}: {dictionary} has {known} markers, {self.columns}x{self.rows} needs "
                f"{self.marker_count}; take a larger dictionary or a smaller board"
            )
        object.__setattr__(self, "dictionary", dictionary)

    @classmethod
    def parse(cls, text: str) -> "Board":
        """The board that `text` names, `KIND:COLUMNSxROWS:PITCH` and what else `GRAMMAR` allows.

        Raises:
            DepthcellError: the text, or the board it names, is impossible.
        """
        parts = [part.strip() for part in text.strip().split(":")]
        if len(parts) < 3:
            raise DepthcellError(f"board '{text}': needs {GRAMMAR}")
        try:
            kind = BoardKind(parts[0].lower())
        except ValueError:
            kinds = ", ".join(BoardKind)
            raise DepthcellError(f"board '{text}': kind '{parts[0]}' is unknown; choose one of {kinds}") from None
        columns, rows = parse_cells(parts[1], f"board '{text}'")
        marker_m, dictionary, flags = None, None, set[str]()
        for part in parts[3:]:
            if part.lower() in FLAGS:
                flags.add(part.lower())
            elif part.upper().startswith("DICT_") and dictionary is None:
                dictionary = part
            elif marker_m is None and dictionary is None and not flags:
                marker_m = parse_length_m(part, f"board '{text}', marker")
            else:
                raise DepthcellError(f"board '{text}': '{part}' is not understood; needs {GRAMMAR}")
        pitch_m = parse_length_m(parts[2], f"board '{text}', pitch")
        return cls(kind, columns, rows, pitch_m, marker_m, dictionary, **dict.fromkeys(flags, True))

    @property
    def spec(self) -> str:
        """The text that names this board and no other; `Board.parse(board.spec) == board`."""
        parts = [self.kind.value, f"{self.columns}x{self.rows}", format_length(self.pitch_m)]
        if self.marker_m is not None:
            parts.append(format_length(self.marker_m))
        if self.dictionary is not None:
            parts.append(self.dictionary)
        return ":".join([*parts, *(flag for flag in FLAGS if getattr(self, flag))])

    @property
    def marker_count(self) -> int:
        """Markers on the board, 0 where it has none; a ChArUco board holds one in each white square."""
        if self.kind is BoardKind.CHARUCO:
            return self.columns * self.rows // 2
        return self.columns * self.rows if self.kind in MARKER_KINDS else 0

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Rows and columns of features of a kind without marker corners; of markers for `ARUCO` and `APRIL`."""
        less = 1 if self.kind is BoardKind.CHARUCO else 0
        return self.rows - less, self.columns - less

    @property
    def points_board(self) -> NDArray[np.float64]:
        """Nominal position of every feature, (N, 3) float64 metres, z = 0, row number = id; read-only."""
        return _points(self)

    @property
    def turns_onto_itself(self) -> bool:
        """Whether the pattern, turned by half, is the same: its numbering then depends on how it is held."""
        if self.marked or self.kind in MARKER_KINDS:
            return False
        return self.kind is BoardKind.CIRCLES or (self.columns + self.rows) % 2 == 0

    @property
    def tells_mirrored(self) -> bool:
        """Whether a mirrored image of the board can be told from a true one."""
        return self.marked or self.kind in MARKER_KINDS

    @property
    def extent_m(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of all that is printed but the mark, in the frame "board"."""
        rows, columns = self.grid_shape
        pitch_m = self.pitch_m
        if self.kind in (BoardKind.CHARUCO, BoardKind.CHESSBOARD):
            return -pitch_m, -pitch_m, columns * pitch_m, rows * pitch_m
        marker_m = self.marker_m or 0.0
        near = marker_m / 2 if self.kind is BoardKind.CIRCLES else 0.0
        far = marker_m - near
        return -near, -near, (columns - 1) * pitch_m + far, (rows - 1) * pitch_m + far

    def picture(self, pixels_per_m: float) -> "BoardPicture":
        """The board as printed, with its white margin; see `board_picture.board_picture`."""
        from depthcell.calib.target.board_picture import board_picture  # noqa: PLC0415 - that module needs this one

        return board_picture(self, pixels_per_m)  # pyright: ignore[reportArgumentType] - the linked folder has two names

    def marker_corners(self) -> NDArray[np.float64]:
        """Corners of every marker as printed, from the top left clockwise: (markers, 4, 2) float64 m, frame "board"."""
        return _marker_corners(self)

    def marker_cells(self, marker: int) -> NDArray[np.bool_]:
        """Which cells of a marker are black, its border included: (n, n) bool as printed."""
        if self.dictionary is None:
            raise DepthcellError(f"board {self.kind}: has no markers")
        dictionary = marker_dictionary(self.dictionary)
        size = dictionary.markerSize + 2
        cells = np.asarray(dictionary.generateImageMarker(marker, size)) < 128
        return np.rot90(cells, 2) if self.kind is BoardKind.APRIL else cells


def marker_dictionary(name: str) -> aruco.Dictionary:
    """OpenCV's dictionary called `name`."""
    number = getattr(aruco, name, None) if name.startswith("DICT_") else None
    if not isinstance(number, int):
        raise DepthcellError(f"board: dictionary '{name}' is unknown; take one such as DICT_5X5_100 or DICT_4X4_50")
    return aruco.getPredefinedDictionary(number)


def opencv_charuco(board: Board) -> aruco.CharucoBoard:
    """The board as OpenCV's ChArUco detector wants it; its corner ids are ours."""
    if board.kind is not BoardKind.CHARUCO or board.marker_m is None or board.dictionary is None:
        raise DepthcellError(f"board {board.kind}: is no charuco board")
    dictionary = marker_dictionary(board.dictionary)
    twin = aruco.CharucoBoard((board.columns, board.rows), board.pitch_m, board.marker_m, dictionary)
    twin.setLegacyPattern(board.legacy)
    return twin


def board_homography(board: Board, ids: NDArray[np.int64], pixels: FloatArray) -> NDArray[np.float64] | None:
    """Least-squares plane-to-image map (3, 3) with `pixels ~ H (x, y, 1)`, (x, y) in metres; None if undetermined."""
    if len(ids) < 4:
        return None
    found, _ = cv2.findHomography(board.points_board[ids, :2], np.asarray(pixels, np.float64), 0)
    return None if found is None else np.asarray(found, np.float64)


def _smallest_dictionary(markers: int) -> str:
    for size in (50, 100, 250, 1000):
        if markers <= size:
            return f"DICT_5X5_{size}"
    raise DepthcellError(f"board: {markers} markers are more than any dictionary holds (1000); take a smaller board")


@lru_cache(maxsize=64)
def _points(board: Board) -> NDArray[np.float64]:
    if board.kind in (BoardKind.ARUCO, BoardKind.APRIL):
        flat = board.marker_corners().reshape(-1, 2)
    else:
        rows, columns = board.grid_shape
        row, column = np.divmod(np.arange(rows * columns), columns)
        flat = np.stack((column, row), axis=-1) * board.pitch_m
    points = np.concatenate((flat, np.zeros((len(flat), 1))), axis=1)
    points.flags.writeable = False
    return points


@lru_cache(maxsize=64)
def _marker_corners(board: Board) -> NDArray[np.float64]:
    if board.marker_m is None or board.kind not in MARKER_KINDS:
        return np.zeros((0, 4, 2))
    row, column = np.divmod(np.arange(board.columns * board.rows), board.columns)
    cells = np.stack((column, row), axis=-1).astype(np.float64)
    shift_m = 0.0
    if board.kind is BoardKind.CHARUCO:
        first_is_white = board.legacy and board.rows % 2 == 0
        cells = cells[(row + column) % 2 == (0 if first_is_white else 1)] - 1.0
        shift_m = (board.pitch_m - board.marker_m) / 2
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]) * board.marker_m
    corners: NDArray[np.float64] = cells[:, None] * board.pitch_m + shift_m + square
    corners.flags.writeable = False
    return corners
