"""Which lens model a stream gets: the simplest that predicts views it has not seen as well as the best one does."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.board import Board
from depthcell.calib.boardview import BoardView
from depthcell.calib.rig_lens import MODELS, FittedLens, fit_lens, is_invertible, without_outliers
from depthcell.errors import DepthcellError

FACTORY = "factory"
FREE = {
    Distortion.NONE: 4,
    Distortion.BROWN_CONRADY: 9,
    Distortion.RATIONAL: 12,
    Distortion.THIN_PRISM: 16,
}


@dataclass(frozen=True, slots=True)
class LensScore:
    """How one candidate did.

    Attributes:
        name: the model, or "factory" for the device's own intrinsics as they are.
        parameters: how many were fitted.
        fit_rms_px: RMS residual of one coordinate where it was fitted; says nothing about which is better.
        held_out_rms_px: RMS on views that took no part in the fit, each board's pose refitted, per degree of freedom.
        worse_px2: mean square on held-out views above the best candidate's.
        worse_u_px2: standard error of that difference, from view to view.
        usable: False where the lens cannot be inverted all over the image.
    """

    name: str
    parameters: int
    fit_rms_px: float
    held_out_rms_px: float
    worse_px2: float
    worse_u_px2: float
    usable: bool


@dataclass(frozen=True, slots=True, eq=False)
class LensChoice:
    """The lens a stream starts from, and why.

    Attributes:
        stream: whose.
        intrinsics: the candidate chosen, fitted to all views; where `is_factory`, the device's own.
        is_factory: whether the device's own intrinsics predict best, so that they are kept.
        table: all candidates.
        views: how many took part.
    """

    stream: str
    intrinsics: Intrinsics
    is_factory: bool
    table: tuple[LensScore, ...]
    views: int

    @property
    def sentence(self) -> str:
        """The choice in words."""
        name = FACTORY if self.is_factory else self.intrinsics.distortion.value
        score = next(row for row in self.table if row.name == name)
        others = ", ".join(f"{row.name} {row.held_out_rms_px:.3f}" for row in self.table if row.name != name)
        return f"{self.stream}: {name}, held-out RMS {score.held_out_rms_px:.3f} px over {self.views} views ({others})"


def choose_intrinsics(
    views: Sequence[BoardView],
    boards: Sequence[Board],
    start: Intrinsics,
    factory: Intrinsics | None = None,
    folds: int = 5,
) -> LensChoice:
    """Choose among pinhole and OpenCV's models with 5, 8 and 12 coefficients by cross-validation over views.

    The views, in order of instant, go round robin into `folds`. Each model is fitted without one fold and judged on it:
    only the board's pose is refitted there, so that a view of N features leaves 2 N - 6 degrees of freedom. Of all
    models whose mean square on held-out views exceeds the least by no more than one standard error, the simplest is
    taken (Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 7.10); the error is that of the
    difference between the two, view by view, since a bad view is bad for every model.

    A rational lens that folds over in the image is fitted again without k5 and k6, as is each of its folds.

    The device's own intrinsics were fitted to none of these views. They are kept where they predict as well as the
    best model does.

    Args:
        views: of one stream.
        boards: board number -> board.
        start: where fits start.
        factory: the device's own intrinsics.
        folds: into how many parts the views go.

    Raises:
        DepthcellError: too few views, or no model fits them.
    """
    stream = views[0].stream if views else "stream"
    if len(views) < folds + 2:
        raise DepthcellError(
            f"{stream}: {len(views)} views are too few to choose a lens model; "
            f"show the board at {folds + 2} places or more"
        )
    views = sorted(views, key=lambda view: view.place[::-1])
    rough = fit_lens(views, boards, start, Distortion.BROWN_CONRADY)
    kept = without_outliers(views, rough)
    fits: dict[str, FittedLens] = {}
    squares: dict[str, NDArray[np.float64]] = {}
    usable: dict[str, bool] = {}
    for model in MODELS:
        fit = fit_lens(kept, boards, rough.intrinsics, model)
        tame = model.coefficient_count >= 8 and not is_invertible(fit.intrinsics)
        if tame:
            fit = fit_lens(kept, boards, rough.intrinsics, model, tame)
        fits[model.value], usable[model.value] = fit, is_invertible(fit.intrinsics)
        squares[model.value] = _held_out(kept, boards, fit, (folds, tame))
    if factory is not None:
        poses = fits[Distortion.BROWN_CONRADY.value].poses
        residuals = [residuals_px(v, boards[v.board], factory, p) for v, p in zip(kept, poses, strict=True)]
        fits[FACTORY] = FittedLens(factory, poses, tuple(residuals), 0.0)
        squares[FACTORY] = np.array([mean_square_px2(part) for part in residuals])
        usable[FACTORY] = True
    table = _table(fits, squares, usable)
    fitted = [row for row in table if row.usable and row.name != FACTORY]
    if not fitted:
        raise DepthcellError(f"{stream}: every lens fitted folds over in the image; show the board in its corners too")
    chosen = next(row for row in fitted if row.worse_px2 <= row.worse_u_px2)
    own = next((row for row in table if row.name == FACTORY), None)
    is_factory = own is not None and own.held_out_rms_px <= min(row.held_out_rms_px for row in fitted)
    name = FACTORY if is_factory else chosen.name
    return LensChoice(stream, fits[name].intrinsics, is_factory, table, len(kept))


def _held_out(
    views: Sequence[BoardView], boards: Sequence[Board], fit: FittedLens, how: tuple[int, bool]
) -> NDArray[np.float64]:
    """Mean square residual of each view (n,) in px² under the lens fitted without its fold."""
    folds, tame = how
    squares = np.full(len(views), np.inf)
    for fold in range(folds):
        seen = [view for number, view in enumerate(views) if number % folds != fold]
        lens = fit_lens(seen, boards, fit.intrinsics, fit.intrinsics.distortion, tame).intrinsics
        for number in range(fold, len(views), folds):
            view = views[number]
            squares[number] = mean_square_px2(residuals_px(view, boards[view.board], lens, fit.poses[number]))
    return squares


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


def _table(
    fits: dict[str, FittedLens], squares: dict[str, NDArray[np.float64]], usable: dict[str, bool]
) -> tuple[LensScore, ...]:
    models = [name for name in fits if usable[name] and name != FACTORY]
    best = min(models, key=lambda name: float(squares[name].mean()), default=None)
    rows = []
    for name, fit in fits.items():
        worse = squares[name] - (squares[name] if best is None else squares[best])
        rows.append(
            LensScore(
                name=name,
                parameters=0 if name == FACTORY else FREE[fit.intrinsics.distortion],
                fit_rms_px=fit.rms_px,
                held_out_rms_px=float(np.sqrt(squares[name].mean())),
                worse_px2=float(worse.mean()),
                worse_u_px2=float(worse.std(ddof=1) / np.sqrt(len(worse))),
                usable=usable[name],
            )
        )
    return tuple(rows)
