"""Which lens model a stream gets: the one that predicts unseen views best, and none poorer than can be determined."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.calib.adjustment.lens import lens_vector
from depthcell.calib.solving.rig_candidate import CandidateFit, StreamSight, as_model, fit_candidate, judge_lens
from depthcell.calib.solving.rig_lens import MODELS, fit_lens, is_invertible, without_outliers
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError

FACTORY = "factory"
REFERENCE = Distortion.BROWN_CONRADY
"""The model with which the rig is adjusted before the choice, unless the lens is strange to it."""
OPEN = 0.1
"""A coefficient is determined by the views where its uncertainty is below this share of what it was before them."""
KEPT_EXCESS = 1.88
"""Factory intrinsics are contradicted beyond this: 95 % of chi-squared with 9 degrees of freedom, over 9. It is wider
than for a model fitted, since what is kept gets the contradiction added to its uncertainty (`rig_kept.py`)."""
BEYOND_DOUBT, CLEARLY = 3.0, 1.1
"""A model that the views leave open is better beyond doubt by so many standard errors and by this ratio of RMS."""
STRANGE = 1.3
"""The reference model cannot describe a lens whose residuals it leaves this much larger than the richest model does."""
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
        worse: mean over held-out views of the logarithm of the view's mean square over the best candidate's.
        worse_u: standard error of that mean, from view to view.
        excess: chi-squared per parameter by which the rig's adjustment contradicts the values that this candidate gives
            to parameters of the adjusted lens without fitting them; 1 is what noise alone makes; 0 where there are
            none.
        openness: largest uncertainty of a coefficient over what it was before any view.
        usable: whether the lens can be inverted all over the image.
    """

    name: str
    parameters: int
    fit_rms_px: float
    held_out_rms_px: float
    worse: float
    worse_u: float
    excess: float
    openness: float
    usable: bool


@dataclass(frozen=True, slots=True, eq=False)
class LensChoice:
    """The lens a stream gets, and why.

    Attributes:
        stream: whose.
        intrinsics: the candidate chosen, fitted to all views; where `is_factory`, the device's own.
        is_factory: whether the device's own intrinsics are as good, so that they are kept.
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
        others = ", ".join(f"{row.name} {row.held_out_rms_px:.4f}" for row in self.table if row.name != name)
        return f"{self.stream}: {name}, held-out RMS {score.held_out_rms_px:.4f} px over {self.views} views ({others})"


def choose_intrinsics(sight: StreamSight, factory: Intrinsics | None = None, folds: int = 5) -> LensChoice:
    """Choose among pinhole and OpenCV's models with 5, 8 and 12 coefficients, and the device's own intrinsics.

    The views, in order of instant, go round robin into `folds`. Each model is fitted without one fold and judged on it:
    only the board's pose is refitted there, so that a view of N features leaves 2 N - 6 degrees of freedom.

    Parameters that are not needed are paid for by the covariance; parameters that are missing by nobody, and a test
    that finds them not needed errs just where they matter as much as noise. Therefore the model with the least held-out
    error is taken among those that have all parameters of `REFERENCE`; a poorer one only where the views leave
    `REFERENCE` open or it folds over in the image, and among those one that the adjustment of the whole rig does not
    contradict, if there is one. A model whose coefficients the views leave open is taken only where all others are
    worse beyond doubt; one that folds over never. The device's own intrinsics are kept where the adjustment does not
    contradict them and they predict as well as the model chosen.

    Args:
        sight: of one stream, from an adjustment that started with `rough_lens`.
        factory: the device's own intrinsics, fitted to none of these views.
        folds: into how many parts the views go.

    Raises:
        DepthcellError: too few views, or no model fits them.
    """
    views = len(sight.views)
    if views < folds + 2:
        raise DepthcellError(
            f"{sight.stream}: {views} views are too few to choose a lens model; "
            f"show the board at {folds + 2} places or more"
        )
    fits = {model.value: fit_candidate(sight, model, folds) for model in MODELS}
    if factory is not None:
        fits[FACTORY] = judge_lens(sight, factory)
    table = _table(sight, fits)
    chosen = best_of(table)
    if chosen is None:
        raise DepthcellError(
            f"{sight.stream}: every lens fitted folds over in the image; show the board in its corners too"
        )
    own = next((row for row in table if row.name == FACTORY), None)
    is_factory = (
        own is not None and own.excess <= KEPT_EXCESS and own.held_out_rms_px <= chosen.held_out_rms_px * (1 + 1e-9)
    )
    name = FACTORY if is_factory else chosen.name
    return LensChoice(sight.stream, fits[name].intrinsics, is_factory, table, views)


def rough_lens(views: Sequence[BoardView], boards: Sequence[Board], start: Intrinsics) -> Intrinsics:
    """A stream's lens with which to adjust the rig before the choice, boards taken for flat.

    Its model is `REFERENCE`, but the richest where that leaves much smaller residuals: outliers are then no outliers.
    """
    fitted = fit_lens(views, boards, start, REFERENCE)
    poses = {view.place: pose for view, pose in zip(views, fitted.poses, strict=True)}
    kept = without_outliers(views, fitted)
    sight = StreamSight(
        views[0].stream,
        kept,
        tuple(boards[view.board].points_board[view.ids] for view in kept),
        tuple(poses[view.place] for view in kept),
        fitted.intrinsics,
        np.zeros((FREE[REFERENCE], FREE[REFERENCE])),
    )
    plain, rich = (fit_candidate(sight, model, 2) for model in (REFERENCE, MODELS[-1]))
    is_strange = plain.rms_px > STRANGE * rich.rms_px and is_invertible(rich.intrinsics)
    return rich.intrinsics if is_strange else fitted.intrinsics


def best_of(table: Sequence[LensScore]) -> LensScore | None:
    """The candidate to take, the factory not among them; None where all fold over. The rule is `choose_intrinsics`'."""
    fitted = [row for row in table if row.usable and row.name != FACTORY]
    determined = [row for row in fitted if row.openness <= OPEN]
    full = [row for row in determined if row.parameters >= FREE[REFERENCE]]
    sound = full or [row for row in determined if row.excess <= 1] or determined
    best = min(sound, key=lambda row: row.held_out_rms_px, default=None)
    least = min(fitted, key=lambda row: row.held_out_rms_px, default=None)
    if best is None or least is None:
        return least
    beyond_doubt = best.worse > BEYOND_DOUBT * best.worse_u
    return least if beyond_doubt and best.held_out_rms_px > CLEARLY * least.held_out_rms_px else best


def _excess(sight: StreamSight, lens: Intrinsics, name: str) -> float:
    """Chi-squared per parameter of the adjusted lens that the candidate does not fit."""
    model, fitted = sight.lens.distortion, 0 if name == FACTORY else FREE[lens.distortion]
    if FREE[lens.distortion] > FREE[model]:
        return 0.0 if fitted else float("inf")  # the adjustment says nothing of the factory's further coefficients
    off = (lens_vector(sight.lens) - lens_vector(as_model(lens, model)))[fitted:]
    return float(off @ np.linalg.solve(sight.covariance[fitted:, fitted:], off) / len(off)) if len(off) else 0.0


def _table(sight: StreamSight, fits: dict[str, CandidateFit]) -> tuple[LensScore, ...]:
    usable = {name: is_invertible(fit.intrinsics) for name, fit in fits.items()}
    squares: dict[str, NDArray[np.float64]] = {name: fit.held_out_px2 for name, fit in fits.items()}
    models = [name for name in fits if usable[name] and name != FACTORY]
    best = min(models, key=lambda name: float(squares[name].mean()), default=None)
    rows = []
    for name, fit in fits.items():
        worse = np.log(squares[name] / squares[best or name])
        rows.append(
            LensScore(
                name=name,
                parameters=0 if name == FACTORY else FREE[fit.intrinsics.distortion],
                fit_rms_px=fit.rms_px,
                held_out_rms_px=float(np.sqrt(squares[name].mean())),
                worse=float(worse.mean()),
                worse_u=float(worse.std(ddof=1) / np.sqrt(len(worse))),
                excess=_excess(sight, fit.intrinsics, name),
                openness=fit.openness,
                usable=usable[name],
            )
        )
    return tuple(rows)
