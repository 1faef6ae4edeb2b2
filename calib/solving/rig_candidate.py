"""One stream's lens fitted to boards whose bend is known, and how it does on views that it was not fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleSolution
from depthcell.calib.adjustment.bundle_adjustment import corner_effects
from depthcell.calib.adjustment.lens import lens_from_vector, lens_vector, project_points, project_with_jacobians
from depthcell.calib.cell import lens_names
from depthcell.calib.solving.validation import board_points, twist_jacobian
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError

OUTLIER = 6.0
"""Features farther off than this many robust standard deviations take no part: wider than the adjustment's own limit,
so that what a poor lens gets wrong in the corners still counts against it."""
LENS_U = 1.0
"""Of each coefficient before any view, as the relative shift in the image's corner; as `BundleSettings.lens_u`."""
ITERATIONS, HALVINGS = 40, 8


@dataclass(frozen=True, slots=True, eq=False)
class StreamSight:
    """What one stream saw, as an adjustment of the whole rig has it.

    Attributes:
        stream: whose.
        views: outliers left out.
        points_board: per view, (N, 3) metres, frame "board", bent and scaled as the boards are.
        poses: per view, the board in the stream's frame.
        lens: that the adjustment found.
        covariance: of `lens_vector(lens)`, from the adjustment.
    """

    stream: str
    views: tuple[BoardView, ...]
    points_board: tuple[NDArray[np.float64], ...]
    poses: tuple[RigidTransform, ...]
    lens: Intrinsics
    covariance: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CandidateFit:
    """A lens at its least squares.

    Attributes:
        intrinsics: the lens.
        squares_px2: (V,) per view, sum of squared residuals.
        rows: (V,) residuals in each view, two per feature.
        held_out_px2: (V,) per view, mean square per degree of freedom under the lens fitted without its fold.
        openness: largest uncertainty of a coefficient over what it was before any view; 1 is not determined at all.
    """

    intrinsics: Intrinsics
    squares_px2: NDArray[np.float64]
    rows: NDArray[np.int64]
    held_out_px2: NDArray[np.float64]
    openness: float

    @property
    def rms_px(self) -> float:
        """Root mean square of one coordinate's residual."""
        return float(np.sqrt(self.squares_px2.sum() / self.rows.sum()))


def sight_of_stream(
    solution: BundleSolution, boards: Sequence[Board], views: Sequence[BoardView], stream: str
) -> StreamSight:
    """What `stream` saw; `views` are those that were adjusted, in the order of `solution.residuals_px`."""
    away_px = [np.abs(rows).max(axis=1) for rows in solution.residuals_px]
    own = [number for number, view in enumerate(views) if view.stream == stream]
    sizes = np.concatenate([np.abs(solution.residuals_px[number]).ravel() for number in own])
    limit_px = OUTLIER * max(1.4826 * float(np.median(sizes)), 1e-3)
    kept = []
    for number in sorted(own, key=lambda number: views[number].place[::-1]):
        view, good = views[number], away_px[number] <= limit_px
        if good.sum() >= 6:
            kept.append(replace(view, ids=view.ids[good], pixels=view.pixels[good]))
    T_stream_cell, lens = solution.T_cell_stream[stream].inverse(), solution.streams[stream]
    return StreamSight(
        stream,
        tuple(kept),
        tuple(board_points(solution, boards, view.board, view.ids) for view in kept),
        tuple(T_stream_cell @ solution.T_cell_board[view.place] for view in kept),
        lens,
        solution.covariance_of([f"{stream}.{name}" for name in lens_names(lens)]),
    )


def fit_candidate(sight: StreamSight, model: Distortion, folds: int) -> CandidateFit:
    """Fit `model` by Gauss and Newton's method, boards' poses free, coefficients with the adjustment's wide prior.

    Fits without a fold are not repeated: with N_v = L' L the information of view v about the lens, its board's pose
    eliminated (L by the lens and residuals r are projected off the pose's derivatives), and g_v = L' r, the lens
    without the views of fold F moves by `(P + sum N - N_F)⁻¹ g_F`, since `sum g` and the prior's part cancel at the
    minimum. This is Newton's step, exact where residuals are linear over the difference of the two lenses.

    Raises:
        DepthcellError: no such lens fits; the message names the stream.
    """
    like = as_model(sight.lens, model)
    lens, poses = lens_vector(like), list(sight.poses)
    parts = _linearised(sight, lens, poses)
    prior = np.zeros(len(lens))
    if len(lens) > 4:
        prior[4:] = (_rms(parts) * corner_effects(like) / LENS_U) ** 2
    for _ in range(ITERATIONS):
        normal, gradient = _normal(parts, prior, lens)
        step = np.asarray(-np.linalg.solve(normal, gradient), np.float64)
        if not (moved := _moved(sight, lens, poses, parts, step, prior)):
            break
        lens, poses, parts = moved
        if -step @ gradient < 1e-6 * _rms(parts) ** 2:
            break
    if not (np.isfinite(lens).all() and min(lens[:2]) > 0):
        raise DepthcellError(f"{sight.stream}: no lens of model {model} fits its {len(sight.views)} views of the board")
    normal, _ = _normal(parts, prior, lens)
    rows = np.array([len(part.residuals) for part in parts])
    squares = np.array([float(part.residuals @ part.residuals) for part in parts])
    freedom = max(int(rows.sum()) - 6 * len(rows) - len(lens), 1)
    u = np.sqrt(np.diag(np.linalg.inv(normal)) * squares.sum() / freedom)[4:]
    openness = float(np.max(u * corner_effects(like) / LENS_U)) if len(u) else 0.0
    return CandidateFit(lens_from_vector(lens, like), squares, rows, _held_out(parts, normal, folds), openness)


def judge_lens(sight: StreamSight, lens: Intrinsics) -> CandidateFit:
    """A lens as it is, fitted to none of the views, only the boards' poses refitted."""
    vector, poses = lens_vector(lens), list(sight.poses)
    parts = _linearised(sight, vector, poses)
    for _ in range(3):
        poses = [pose.perturbed(-part.to_pose @ part.raw) for pose, part in zip(poses, parts, strict=True)]
        parts = _linearised(sight, vector, poses)
    rows = np.array([len(part.residuals) for part in parts])
    squares = np.array([float(part.residuals @ part.residuals) for part in parts])
    return CandidateFit(lens, squares, rows, squares / (rows - 6), 0.0)


def as_model(lens: Intrinsics, model: Distortion) -> Intrinsics:
    """The lens in another model: coefficients that it lacks are zero, those that the model lacks are dropped."""
    count = model.coefficient_count
    kept = () if Distortion.NONE in (model, lens.distortion) else lens.coefficients[:count]
    return replace(lens, distortion=model, coefficients=(*kept, *(0.0,) * (count - len(kept))))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One view: residuals and their derivatives by the lens, both projected off those by the board's pose."""

    residuals: NDArray[np.float64]
    by_lens: NDArray[np.float64]
    raw: NDArray[np.float64]
    raw_by_lens: NDArray[np.float64]
    to_pose: NDArray[np.float64]


def _linearised(sight: StreamSight, lens: NDArray[np.float64], poses: Sequence[RigidTransform]) -> list[_Part]:
    parts = []
    for view, points, pose in zip(sight.views, sight.points_board, poses, strict=True):
        points_cam = np.asarray(pose @ points, np.float64)
        image = project_with_jacobians(lens, points_cam)
        raw = (image.pixels - view.pixels).ravel()
        by_lens = image.by_lens.reshape(len(raw), -1)
        by_pose = np.einsum("nij,njk->nik", image.by_point, twist_jacobian(points_cam)).reshape(len(raw), 6)
        basis, triangle = np.linalg.qr(by_pose)
        to_pose = np.linalg.solve(triangle, basis.T)
        off = raw - basis @ (basis.T @ raw)
        parts.append(_Part(off, by_lens - basis @ (basis.T @ by_lens), raw, by_lens, to_pose))
    return parts


def _normal(
    parts: Sequence[_Part], prior: NDArray[np.float64], lens: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    normal, gradient = np.diag(prior), prior * lens
    for part in parts:
        normal = normal + part.by_lens.T @ part.by_lens
        gradient = gradient + part.by_lens.T @ part.residuals
    return normal, gradient


def _moved(
    sight: StreamSight,
    lens: NDArray[np.float64],
    poses: Sequence[RigidTransform],
    parts: Sequence[_Part],
    step: NDArray[np.float64],
    prior: NDArray[np.float64],
) -> tuple[NDArray[np.float64], list[RigidTransform], list[_Part]] | None:
    """Lens and poses after the step, halved until the squares are less; None where they cannot be."""
    before = sum(float(part.raw @ part.raw) for part in parts) + float(prior @ lens**2)
    for halving in range(HALVINGS):
        share = 0.5**halving
        new = lens + share * step
        turned = [
            pose.perturbed(-share * part.to_pose @ (part.raw + part.raw_by_lens @ step))
            for pose, part in zip(poses, parts, strict=True)
        ]
        if _squares(sight, new, turned) + float(prior @ new**2) < before:
            return new, turned, _linearised(sight, new, turned)
    return None


def _squares(sight: StreamSight, lens: NDArray[np.float64], poses: Sequence[RigidTransform]) -> float:
    total = 0.0
    for view, points, pose in zip(sight.views, sight.points_board, poses, strict=True):
        points_cam = np.asarray(pose @ points, np.float64)
        if not points_cam[:, 2].min() > 0:
            return float("inf")
        total += float(np.square(project_points(lens, points_cam) - view.pixels).sum())
    return total if np.isfinite(total) else float("inf")


def _held_out(parts: Sequence[_Part], normal: NDArray[np.float64], folds: int) -> NDArray[np.float64]:
    squares = np.empty(len(parts))
    for fold in range(folds):
        out = parts[fold::folds]
        left, _ = _normal(out, np.zeros(len(normal)), np.zeros(len(normal)))
        pull = np.sum([part.by_lens.T @ part.residuals for part in out], axis=0)
        away = np.linalg.solve(normal - left, pull)
        for number, part in enumerate(out):
            rows = part.residuals + part.by_lens @ away
            squares[fold + number * folds] = float(rows @ rows) / (len(rows) - 6)
    return squares


def _rms(parts: Sequence[_Part]) -> float:
    return float(np.sqrt(np.mean(np.concatenate([part.residuals for part in parts]) ** 2)))
