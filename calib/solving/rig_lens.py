"""One stream's lens from its own views, fitted by OpenCV: start values, and candidates among which to choose."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.lens import SUPPORTED, lens_from_vector, lens_vector, sight_of
from depthcell.calib.solving.rig_pose import BOARD_FRAME, is_usable
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError

MODELS = SUPPORTED
"""From the simplest to the richest: pinhole, and OpenCV's models with 5, 8 and 12 coefficients."""
START_VIEWS = 25
OUTLIER = 6.0
"""Features farther off than this many robust standard deviations take no part in the fit of a candidate."""
FLAGS = {
    Distortion.NONE: cv2.CALIB_ZERO_TANGENT_DIST | cv2.CALIB_FIX_K1 | cv2.CALIB_FIX_K2 | cv2.CALIB_FIX_K3,
    Distortion.BROWN_CONRADY: 0,
    Distortion.RATIONAL: cv2.CALIB_RATIONAL_MODEL,
    Distortion.THIN_PRISM: cv2.CALIB_RATIONAL_MODEL | cv2.CALIB_THIN_PRISM_MODEL,
}


@dataclass(frozen=True, slots=True, eq=False)
class FittedLens:
    """A lens and where the boards stood, least squares over all features.

    Attributes:
        intrinsics: the lens.
        poses: of each view's board in the stream's frame.
        residuals_px: of each view, (N, 2), seen minus projected.
        focal_u: standard uncertainty of the focal length over itself, as scatter and geometry say.
    """

    intrinsics: Intrinsics
    poses: tuple[RigidTransform, ...]
    residuals_px: tuple[NDArray[np.float64], ...]
    focal_u: float

    @property
    def rms_px(self) -> float:
        """Root mean square of one coordinate's residual."""
        return float(np.sqrt(np.mean(np.concatenate(self.residuals_px) ** 2)))


def fit_lens(views: Sequence[BoardView], boards: Sequence[Board], start: Intrinsics, model: Distortion) -> FittedLens:
    """Fit `model` to one stream's views of boards taken for flat, with `cv2.calibrateCameraExtended` (Zhang's method).

    Raises:
        DepthcellError: OpenCV finds no solution; the message names the stream.
    """
    count = model.coefficient_count
    known = () if start.distortion not in SUPPORTED else start.coefficients
    coefficients = np.zeros(count)
    coefficients[: min(count, len(known))] = known[:count]
    if model is Distortion.NONE:
        coefficients[:] = 0
    try:
        _, matrix, bent, turns, shifts, sigmas, _, _ = cv2.calibrateCameraExtended(
            [boards[view.board].points_board[view.ids].astype(np.float32) for view in views],
            [view.pixels.astype(np.float32) for view in views],
            (start.width_px, start.height_px),
            start.matrix,
            coefficients,
            flags=FLAGS[model] | cv2.CALIB_USE_INTRINSIC_GUESS,
            criteria=(cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 60, 1e-10),
        )
    except cv2.error as error:
        raise _no_fit(views[0].stream, len(views)) from error
    lens = np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], *bent.ravel()[:count]])
    if not (np.isfinite(lens).all() and min(lens[:2]) > 0):
        raise _no_fit(views[0].stream, len(views))
    like = Intrinsics(start.width_px, start.height_px, 1.0, 1.0, 0.0, 0.0, model, (0.0,) * count)
    fitted = lens_from_vector(lens if model is not Distortion.NONE else lens[:4], like)
    poses = tuple(
        RigidTransform.from_rotation_vector(view.stream, BOARD_FRAME, _vector(turn), _vector(shift))
        for view, turn, shift in zip(views, turns, shifts, strict=True)
    )
    residuals = tuple(
        view.pixels - fitted.project(pose @ boards[view.board].points_board[view.ids])
        for view, pose in zip(views, poses, strict=True)
    )
    focal_u = float(np.max(np.asarray(sigmas).ravel()[:2] / lens[:2]))
    return FittedLens(fitted, poses, residuals, focal_u if np.isfinite(focal_u) else np.inf)


def start_intrinsics(views: Sequence[BoardView], boards: Sequence[Board], size_px: tuple[int, int]) -> Intrinsics:
    """A lens for a stream nobody knows anything about but its image size `(width, height)`; model `BROWN_CONRADY`.

    Raises:
        DepthcellError: too little was seen of the board, or always square on.
    """
    usable = [view for view in views if is_usable(view, boards[view.board])]
    if len(usable) < 3:
        stream = views[0].stream if views else "stream"
        raise DepthcellError(
            f"{stream}: {len(usable)} views of the board are too few to find its lens; show the board 8 times or more, "
            "tilted by 20 to 40 degrees in several directions"
        )
    best = sorted(usable, key=lambda view: -len(view.ids))[:START_VIEWS]
    guess = cv2.initCameraMatrix2D(
        [boards[view.board].points_board[view.ids].astype(np.float32) for view in best],
        [view.pixels.astype(np.float32) for view in best],
        size_px,
        1.0,
    )
    focal_px = float(guess[0, 0])
    if not (np.isfinite(focal_px) and 0.2 < focal_px / max(size_px) < 20):
        focal_px = 1.2 * max(size_px)
    start = Intrinsics(*size_px, focal_px, focal_px, (size_px[0] - 1) / 2, (size_px[1] - 1) / 2)
    pinhole = fit_lens(best, boards, start, Distortion.NONE)
    return fit_lens(best, boards, pinhole.intrinsics, Distortion.BROWN_CONRADY).intrinsics


def as_supported(intrinsics: Intrinsics) -> Intrinsics:
    """The same lens in a model that can be refined: librealsense's own two become the nearest `BROWN_CONRADY`.

    The five coefficients are a linear least-squares fit over a grid of the image; where all were zero, they stay so.
    """
    if intrinsics.distortion in SUPPORTED:
        return intrinsics
    like = Intrinsics(
        intrinsics.width_px,
        intrinsics.height_px,
        intrinsics.fx_px,
        intrinsics.fy_px,
        intrinsics.cx_px,
        intrinsics.cy_px,
        Distortion.BROWN_CONRADY,
    )
    pixels = image_grid(intrinsics, 15)
    x, y = intrinsics.normalized(pixels).T
    r2 = x * x + y * y
    bent = (pixels - (like.cx_px, like.cy_px)) / (like.fx_px, like.fy_px) - np.stack((x, y), axis=1)
    by_x = np.stack((x * r2, x * r2**2, 2 * x * y, r2 + 2 * x * x, x * r2**3), axis=1)
    by_y = np.stack((y * r2, y * r2**2, r2 + 2 * y * y, 2 * x * y, y * r2**3), axis=1)
    found = np.linalg.lstsq(np.concatenate((by_x, by_y)), bent.T.ravel(), rcond=None)[0]
    return lens_from_vector(np.concatenate((lens_vector(like)[:4], found)), like)


def image_grid(intrinsics: Intrinsics, count: int) -> NDArray[np.float64]:
    """Pixels (count², 2) spread evenly over the image, its corners included."""
    columns = np.linspace(0, intrinsics.width_px - 1, count)
    rows = np.linspace(0, intrinsics.height_px - 1, count)
    return np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)


def is_invertible(intrinsics: Intrinsics) -> bool:
    """Whether every pixel looks in one direction: a polynomial can fold over towards the corners."""
    try:
        sight_of(lens_vector(intrinsics), image_grid(intrinsics, 9))
    except DepthcellError:
        return False
    return True


def without_outliers(views: Sequence[BoardView], fitted: FittedLens) -> tuple[BoardView, ...]:
    """The views without features that stand out by `OUTLIER` robust standard deviations (1.4826 MAD)."""
    away_px = [np.abs(residuals).max(axis=1) for residuals in fitted.residuals_px]
    scale_px = 1.4826 * float(np.median(np.abs(np.concatenate(fitted.residuals_px))))
    kept = []
    for view, off in zip(views, away_px, strict=True):
        good = off <= OUTLIER * max(scale_px, 1e-3)
        if good.sum() >= 6:
            kept.append(
                BoardView(view.stream, view.instant, view.board, view.ids[good], view.pixels[good], view.sigma_px)
            )
    return tuple(kept)


def residuals_px(view: BoardView, board: Board, lens: Intrinsics, near: RigidTransform) -> NDArray[np.float64]:
    """Seen minus projected, (N, 2), with the board where it fits best under this lens, near the pose given."""
    points = board.points_board[view.ids]
    bent = np.array(lens.coefficients)
    turn, shift = cv2.solvePnPRefineLM(
        points,
        view.pixels,
        lens.matrix,
        bent,
        near.rotation_vector_rad[:, None],
        near.translation_m[:, None].copy(),
        (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 20, 1e-10),
    )
    projected, _ = cv2.projectPoints(points, turn, shift, lens.matrix, bent)
    return np.asarray(view.pixels - projected[:, 0])


def mean_square_px2(residuals: NDArray[np.float64]) -> float:
    """Mean square of residuals (N, 2) px per degree of freedom, six being spent on the board's pose."""
    return float(np.sum(residuals**2) / (residuals.size - 6))


def _vector(column: object) -> NDArray[np.float64]:
    return np.asarray(column, np.float64).ravel()


def _no_fit(stream: str, count: int) -> DepthcellError:
    return DepthcellError(
        f"{stream}: no lens fits its {count} views of the board; check --board, and show it tilted by 20 to 40 degrees"
    )
