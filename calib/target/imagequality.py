"""Whether an image of a board is fit to calibrate with, and if not, why: one reason, named, in one sentence."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.calib.target.board import MARKER_KINDS, Board, BoardKind, board_homography, marker_dictionary
from depthcell.calib.target.detect import Detection, detect, grey_of

MIN_FEATURES = 6
MAX_BLUR_PX = 2.0
MAX_BLUR_SHARE = 0.12
MIN_CONTRAST = 25.0
WHITE = 250
"""Grey value from which on a sensor tells nothing apart: one colour's balance can keep clipped white below 255."""
MAX_CLIPPED = 0.5
LEAST_CLIPPED_AREA = 0.02
"""Share of an image without a board that must be clipped to be the likely cause; a lamp or a reflection is smaller."""
MAX_SIGMA_PX = 0.15
SIZE_TOLERANCE = 0.12
MAX_WRONG_SHADE = 0.3
MAX_BEND_PX = 1.0
RIVAL_DICTIONARIES = (
    "DICT_4X4_1000",
    "DICT_5X5_1000",
    "DICT_6X6_1000",
    "DICT_7X7_1000",
    "DICT_ARUCO_ORIGINAL",
    "DICT_ARUCO_MIP_36h12",
    "DICT_APRILTAG_36h11",
    "DICT_APRILTAG_25h9",
)
"""One of each family: a smaller dictionary holds the first markers of its family's largest."""


class QualityIssue(StrEnum):
    """Why an image is not used."""

    NO_BOARD = "no_board"
    TOO_LITTLE = "too_little"
    WRONG_BOARD = "wrong_board"
    MIRRORED = "mirrored"
    BLURRED = "blurred"
    OVEREXPOSED = "overexposed"
    UNDEREXPOSED = "underexposed"
    BENT = "bent"
    MOVING = "moving"


@dataclass(frozen=True, slots=True)
class ImageIssue:
    """What is wrong with an image, for programs and, in a sentence that says what to do, for people."""

    kind: QualityIssue
    sentence: str


def judge(
    board: Board, image: NDArray[np.uint8], found: Detection, intrinsics: Intrinsics | None = None
) -> ImageIssue | None:
    """The first thing that makes `found`, of `image`, unfit; None if it may be used.

    `MAX_BLUR_PX` is measured, by `benchmarks/detect_board.py`: blur that is the same in all directions hardly moves a
    corner (rms error 0.007 px at 1 px of blur, 0.009 px at 2 px), but at 2 px a ChArUco board of 20 to 35 px squares
    has lost half of its corners with its markers, and from 2.5 px on the stated uncertainty of discs is a quarter too
    small. So much blur mostly comes from motion, and then the cameras of a rig do not see the board in one place.
    At `MAX_BLUR_SHARE` of a pitch, edges two widths of the blur away from a corner belong to the next feature.

    Args:
        board: that was looked for.
        image: (H, W) or (H, W, 3) uint8.
        found: what `detect` said of it.
        intrinsics: of the camera, about right; without them a bent board is not noticed here.
    """
    grey = grey_of(image)
    if len(found.ids) == 0:
        return _absent(board, grey, found)
    return (
        _other_print(found)
        or _exposure(grey, found)
        or _little(board, found)
        or _blurred(board, found)
        or (None if intrinsics is None else _bent(board, found, intrinsics))
    )


def bend_px(board: Board, found: Detection, intrinsics: Intrinsics) -> float:
    """Root mean square distance, in pixels, of the features from the nearest plane-to-plane map.

    It is what a lens described by `intrinsics` and a flat board can not explain; 8 degrees of freedom are taken off.
    """
    ideal = intrinsics.normalized(found.pixels) * (intrinsics.fx_px, intrinsics.fy_px)
    H = board_homography(board, found.ids, ideal)
    freedom = 2 * len(found.ids) - 8
    if H is None or freedom <= 0:
        return math.nan
    off = cv2.perspectiveTransform(board.points_board[found.ids, :2][None], H)[0] - ideal
    return float(np.sqrt((off**2).sum() / freedom))


def pitch_px(board: Board, found: Detection) -> float:
    """Median distance in the image of neighbouring features, or of a marker's corners; NaN where there are none."""
    points_m = board.points_board[found.ids, :2]
    apart_m = np.linalg.norm(points_m[:, None] - points_m[None], axis=-1)
    unit_m = board.pitch_m if board.kind not in (BoardKind.ARUCO, BoardKind.APRIL) else board.marker_m or board.pitch_m
    pairs = np.argwhere(np.triu(np.abs(apart_m - unit_m) < 0.01 * unit_m))
    if len(pairs) == 0:
        return math.nan
    return float(np.median(np.linalg.norm(found.pixels[pairs[:, 0]] - found.pixels[pairs[:, 1]], axis=1)))


def _absent(board: Board, grey: NDArray[np.uint8], found: Detection) -> ImageIssue:
    """Why nothing was found."""
    if found.mirrored or _is_mirrored(board, grey):
        sentence = "the board is seen in a mirror, or the image is flipped; use it as taken"
        return ImageIssue(QualityIssue.MIRRORED, sentence)
    return (
        _other_board(board, grey, found)
        or _no_light(grey)
        or _unreadable(board, grey)
        or _bare_squares(board, grey)
        or ImageIssue(QualityIssue.NO_BOARD, f"no {board.spec} is seen; show {_what_must_show(board)}")
    )


def _other_board(board: Board, grey: NDArray[np.uint8], found: Detection) -> ImageIssue | None:
    """A board that is not the one named, found as that other one."""
    if found.goes_on:
        return _wrong(f"its grid is larger than {board.columns}x{board.rows}; name the board that is held")
    if len(detect(replace(board, inverted=not board.inverted), grey).ids) >= MIN_FEATURES:
        other = "without" if board.inverted else "with"
        return _wrong(f"black and white are swapped; name the board {other} ':inverted', or print it anew")
    if board.kind not in MARKER_KINDS:
        return None
    if found.markers is not None and found.markers.strangers >= 3:
        count = found.markers.strangers
        return _wrong(f"{count} of its markers are seen, but not as {board.spec} has them; name the board held")
    rival = _rival(board, grey)
    if rival is not None:
        return _wrong(f"its markers are of {rival}, not of {board.dictionary}; name the board that is held")
    return None


def _no_light(grey: NDArray[np.uint8]) -> ImageIssue | None:
    clipped, dark = float((grey >= WHITE).mean()), float((grey <= 8).mean())
    if clipped > MAX_CLIPPED or (clipped > LEAST_CLIPPED_AREA and _clipped_share(grey) > MAX_CLIPPED):
        what = f"no board is read, and {clipped:.0%} of the image is cut off at the brightest value"
        return ImageIssue(QualityIssue.OVEREXPOSED, f"{what}; shorten the exposure")
    if dark > 0.95:
        return ImageIssue(QualityIssue.UNDEREXPOSED, f"{dark:.0%} of the image is black; add light")
    return None


def _unreadable(board: Board, grey: NDArray[np.uint8]) -> ImageIssue | None:
    """A board that comes out when the image is made smaller, and so sharper, or its grey values are spread."""
    for step in (2, 4):
        small = cv2.resize(grey, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
        if len(detect(board, small.astype(np.uint8, copy=False)).ids) >= MIN_FEATURES:
            sentence = "the board is too blurred to be read; hold it still, focus, and shorten the exposure"
            return ImageIssue(QualityIssue.BLURRED, sentence)
    if _sharpest_edge_px(grey) > MAX_BLUR_PX:
        return ImageIssue(QualityIssue.BLURRED, "nothing in the image is sharp; focus, and shorten the exposure")
    low, high = np.percentile(grey, (1, 99))
    if high - low < 2 * MIN_CONTRAST:
        spread = np.clip((grey.astype(np.float64) - low) * 200 / max(high - low, 1.0) + 20, 0, 255).astype(np.uint8)
        if len(detect(board, spread).ids) >= MIN_FEATURES:
            sentence = f"the whole image spans only {high - low:.0f} grey values; add light"
            return ImageIssue(QualityIssue.UNDEREXPOSED, sentence)
    return None


def _bare_squares(board: Board, grey: NDArray[np.uint8]) -> ImageIssue | None:
    """The squares of a chessboard, four corners by three of them or more, in whose place markers were looked for."""
    if board.kind is not BoardKind.CHARUCO:
        return None
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_LARGER
    if not cv2.findChessboardCornersSB(grey, (4, 3), flags=flags)[0]:
        return None
    what = "squares are seen, and no readable markers in them"
    return ImageIssue(
        QualityIssue.NO_BOARD, f"{what}; name the chessboard if it is one, or hold the board still and nearer"
    )


def _sharpest_edge_px(grey: NDArray[np.uint8]) -> float:
    """Width of the sharpest edges that span the image's grey values; NaN where there is no contrast to judge by.

    An edge of height c smoothed by a Gaussian of width s has the slope c / (sqrt(2 pi) s). The image is smoothed by
    one pixel first, against noise, which is taken off again.
    """
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0).astype(np.float64)
    low, high = np.percentile(smooth, (0.5, 99.5))
    if high - low < 3 * MIN_CONTRAST:
        return math.nan
    down, across = np.asarray(np.gradient(smooth, axis=0)), np.asarray(np.gradient(smooth, axis=1))
    steepest = float(np.quantile(np.hypot(down, across), 0.9995))
    return math.sqrt(max(((high - low) / (math.sqrt(2 * math.pi) * steepest)) ** 2 - 1.0, 0.0))


def _is_mirrored(board: Board, grey: NDArray[np.uint8]) -> bool:
    return board.kind in MARKER_KINDS and len(detect(board, np.ascontiguousarray(grey[:, ::-1])).ids) > 0


def _rival(board: Board, grey: NDArray[np.uint8]) -> str | None:
    """Another family of markers of which at least four are seen."""
    shown = 255 - grey if board.inverted else grey
    family = (board.dictionary or "").rsplit("_", 1)[0]
    best, most = None, 3
    for name in RIVAL_DICTIONARIES:
        if name == board.dictionary or name.startswith(family):
            continue
        _, numbers, _ = cv2.aruco.ArucoDetector(marker_dictionary(name)).detectMarkers(shown)
        count = 0 if numbers is None else len(numbers)
        if count > most:
            best, most = name, count
    return best


def _what_must_show(board: Board) -> str:
    return "the whole of it" if board.kind not in MARKER_KINDS else "at least a quarter of it, large enough"


def _wrong(sentence: str) -> ImageIssue:
    return ImageIssue(QualityIssue.WRONG_BOARD, f"this is another board: {sentence}")


def _other_print(found: Detection) -> ImageIssue | None:
    """A board that was found although it is not quite the one named."""
    if found.wrong_shade > MAX_WRONG_SHADE:
        return _wrong(
            f"{found.wrong_shade:.0%} of its corners have black and white swapped; name the board that is held"
        )
    if found.markers is None or not math.isfinite(found.markers.size_ratio):
        return None
    off = found.markers.size_ratio - 1
    if abs(off) > SIZE_TOLERANCE:
        return _wrong(f"its markers are {abs(off):.0%} too {'large' if off > 0 else 'small'} for their distance")
    return None


def _little(board: Board, found: Detection) -> ImageIssue | None:
    spread = board.points_board[found.ids, :2]
    axes_m = np.linalg.svd(spread - spread.mean(axis=0), compute_uv=False) / math.sqrt(len(spread))
    if len(found.ids) >= MIN_FEATURES and axes_m[-1] > 0.2 * board.pitch_m:
        return None
    count, all_of = len(found.ids), len(board.points_board)
    what = (
        f"only {count} of {all_of} features are seen" if count < MIN_FEATURES else f"all {count} features are in a row"
    )
    return ImageIssue(QualityIssue.TOO_LITTLE, f"{what}; show more of the board")


def _exposure(grey: NDArray[np.uint8], found: Detection) -> ImageIssue | None:
    """Too bright where most of the paper is cut off at white, too dark where ink and paper are hardly apart."""
    if found.contrast < MIN_CONTRAST:
        what = f"black and white of the board are {found.contrast:.0f} grey values apart"
        return ImageIssue(QualityIssue.UNDEREXPOSED, f"{what}, {MIN_CONTRAST:.0f} are needed; add light")
    hull = cv2.convexHull(found.pixels.astype(np.float32)).astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros(grey.shape, np.uint8), hull, 1)
    inside = grey[mask > 0]
    clipped = _clipped_share(inside)
    if clipped > MAX_CLIPPED:
        what = f"{clipped:.0%} of the board's white is cut off at the brightest value"
        return ImageIssue(QualityIssue.OVEREXPOSED, f"{what}; shorten the exposure")
    return None


def _clipped_share(grey: NDArray[np.uint8]) -> float:
    """Share of the bright pixels that are cut off at white."""
    bright = grey[grey > grey.min() + 0.7 * (int(grey.max()) - int(grey.min()))]
    return float((bright >= WHITE).mean()) if len(bright) else 0.0


def _blurred(board: Board, found: Detection) -> ImageIssue | None:
    limit_px = np.nanmin([MAX_BLUR_PX, MAX_BLUR_SHARE * pitch_px(board, found)])
    if found.blur_px > limit_px:
        what = f"edges are {found.blur_px:.1f} px soft, {limit_px:.1f} px are allowed"
        return ImageIssue(QualityIssue.BLURRED, f"{what}; hold the board still, focus, and shorten the exposure")
    if found.sigma_px > MAX_SIGMA_PX:
        what = f"corners are uncertain by {found.sigma_px:.2f} px, {MAX_SIGMA_PX:.2f} px are allowed"
        return ImageIssue(QualityIssue.BLURRED, f"{what}; hold the board still, nearer, and in more light")
    return None


def _bent(board: Board, found: Detection, intrinsics: Intrinsics) -> ImageIssue | None:
    off_px = bend_px(board, found, intrinsics)
    if math.isfinite(off_px) and off_px > max(MAX_BEND_PX, 5 * found.sigma_px):
        what = f"features lie {off_px:.1f} px off a flat board, {MAX_BEND_PX:.1f} px are allowed"
        return ImageIssue(QualityIssue.BENT, f"{what}; mount it on glass or aluminium")
    return None
