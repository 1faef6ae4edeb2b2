"""What a calibration is worth on views it has not seen: pixels, millimetres, and whether its intervals hold."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.adjustment.bundle import BundleSolution, Place
from depthcell.calib.adjustment.bundle_blocks import BoardShape
from depthcell.calib.adjustment.lens import lens_vector, project_points, project_with_jacobians
from depthcell.calib.cell import POSE_NAMES, lens_names
from depthcell.calib.solving.rig_pose import BOARD_FRAME
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView, DepthTiles
from depthcell.errors import DepthcellError

COVERAGE_K = 1.96
"""95 % of a Gaussian quantity lie within this many standard uncertainties."""
GROSS_PX = 6.0
"""Corners farther off than this many of their `sigma_px` are counted as outliers and judged no further."""


@dataclass(frozen=True, slots=True)
class StreamCheck:
    """How held-out views fit one stream.

    Attributes:
        stream: whose.
        corners: how many were held out, outliers excluded.
        outliers: corners beyond `GROSS_PX` standard deviations.
        fit_rms_px: RMS of one coordinate where it was fitted.
        rms_px: likewise on held-out views, only the boards' poses refitted.
        rms_mm: the same across the line of sight at the board: residual times depth over focal length.
        within_95: share of coordinates inside their stated 95 % interval (noise, lens and poses together).
    """

    stream: str
    corners: int
    outliers: int
    fit_rms_px: float
    rms_px: float
    rms_mm: float
    within_95: float


@dataclass(frozen=True, slots=True)
class DepthCheck:
    """Depth on held-out boards against the plane that the cameras put them on, in mm: median and RMS, before and after.

    "Before" is depth as read, "after" with the correction.
    """

    serial: str
    tiles: int
    bias_before_mm: float
    rms_before_mm: float
    bias_after_mm: float
    rms_after_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutPlace:
    """A held-out board where it fits best: its pose, the views and, row by row of them, what is left.

    Attributes:
        T_cell_board: refitted.
        views: of this place.
        residuals_px: per view, (N, 2), projected minus seen.
        deviates: per view, (N, 2), residuals over their stated standard deviation.
        inliers: per view, (N,) bool.
    """

    T_cell_board: RigidTransform
    views: tuple[BoardView, ...]
    residuals_px: tuple[NDArray[np.float64], ...]
    deviates: tuple[NDArray[np.float64], ...]
    inliers: tuple[NDArray[np.bool_], ...]


def board_points(
    solution: BundleSolution, boards: Sequence[Board], board: int, ids: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Features as the solution has the board, bent and scaled: (N, 3) metres, frame "board"."""
    flat = boards[board].points_board[ids, :2]
    warp_m = solution.warp_m.get(board, np.zeros(2))
    return BoardShape(boards[board]).points_board(flat, warp_m, solution.board_scale.get(board, 1.0))


def refit_place(
    solution: BundleSolution, boards: Sequence[Board], views: Sequence[BoardView], near: RigidTransform
) -> HeldOutPlace:
    """Fit one board's pose to all cameras that saw it, everything else held; start at `near` (`T_cell_board`).

    The loss is Huber's, so that a wrong corner does not drag the board.

    Raises:
        DepthcellError: no solution near there.
    """
    parts = [
        (solution.T_cell_stream[view.stream].inverse(), lens_vector(solution.streams[view.stream]), view)
        for view in views
    ]
    points = [board_points(solution, boards, view.board, view.ids) for view in views]
    sigma = np.concatenate([np.full(2 * len(view.ids), solution.sigma_px[view.stream]) for view in views])

    def scaled(twist: NDArray[np.float64]) -> NDArray[np.float64]:
        T_cell_board = near.perturbed(twist)
        rows = [
            project_points(lens, T_stream_cell @ (T_cell_board @ point)) - view.pixels
            for (T_stream_cell, lens, view), point in zip(parts, points, strict=True)
        ]
        return np.asarray(np.nan_to_num(np.concatenate(rows).ravel() / sigma, nan=1e6))

    found = least_squares(  # type: ignore[operator]
        scaled, np.zeros(6), loss="huber", f_scale=3.0, x_scale=np.array([0.1] * 3 + [0.1] * 3)
    )
    if not (found.success and np.isfinite(found.x).all()):
        raise DepthcellError(f"validation: board {views[0].board} at instant {views[0].instant} can not be refitted")
    T_cell_board = near.perturbed(found.x)
    rows = scaled(found.x) * sigma
    residuals = np.split(rows.reshape(-1, 2), np.cumsum([len(view.ids) for view in views])[:-1])
    inliers = tuple(
        np.abs(part).max(axis=1) < GROSS_PX * solution.sigma_px[view.stream]
        for view, part in zip(views, residuals, strict=True)
    )
    deviates = _deviates(solution, boards, views, T_cell_board, rows, sigma)
    split = np.split(deviates.reshape(-1, 2), np.cumsum([len(view.ids) for view in views])[:-1])
    return HeldOutPlace(T_cell_board, tuple(views), tuple(residuals), tuple(split), inliers)


def _deviates(
    solution: BundleSolution,
    boards: Sequence[Board],
    views: Sequence[BoardView],
    T_cell_board: RigidTransform,
    rows: NDArray[np.float64],
    sigma: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Residuals over their standard deviation (GUM 5.2.2 for the covariance of residuals after a fit of the pose).

    In units of noise, with A the derivative by the pose, B that by the calibration and C its covariance, residuals are
    `Q (noise + B dp)`, `Q = 1 - A (A' A)⁻¹ A'`: their covariance is `Q + Q B C B' Q`.
    """
    by_pose, by_shared = place_jacobians(solution, boards, views, T_cell_board)
    by_pose, by_shared = by_pose / sigma[:, None], by_shared / sigma[:, None]
    basis = np.linalg.qr(by_pose)[0]
    left = by_shared - basis @ (basis.T @ by_shared)
    variance = 1 - np.sum(basis**2, axis=1) + np.einsum("np,pq,nq->n", left, solution.covariance, left, optimize=True)
    return np.asarray(rows / sigma / np.sqrt(np.maximum(variance, 1e-6)))


def place_jacobians(
    solution: BundleSolution, boards: Sequence[Board], views: Sequence[BoardView], T_cell_board: RigidTransform
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Derivatives of all pixels of one place's `views`: by the board's pose (R, 6), by shared parameters (R, P)."""
    column = {name: number for number, name in enumerate(solution.parameter_names)}
    by_pose, by_shared = [], []
    for view in views:
        points = board_points(solution, boards, view.board, view.ids)
        points_cell = np.asarray(T_cell_board @ points, np.float64)
        by_point, shared = stream_jacobians(solution, view.stream, points_cell)
        rows = np.einsum("nij,njk->nik", by_point, twist_jacobian(points_cell))
        by_pose.append(rows.reshape(-1, 6))
        turned = by_point @ T_cell_board.rotation
        bends = BoardShape(boards[view.board]).bends(boards[view.board].points_board[view.ids, :2])
        own = {
            f"board:{view.board}.warp_x_m": turned[:, :, 2] * bends[:, :1],
            f"board:{view.board}.warp_y_m": turned[:, :, 2] * bends[:, 1:],
            f"board:{view.board}.scale": turned[:, :, :2] @ boards[view.board].points_board[view.ids, :2, None],
        }
        for name, values in own.items():
            if name in column:
                shared[:, :, column[name]] = values.reshape(len(points), 2)
        by_shared.append(shared.reshape(-1, len(column)))
    return np.concatenate(by_pose), np.concatenate(by_shared)


def stream_jacobians(
    solution: BundleSolution, stream: str, points_cell: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Derivatives of a stream's pixels by points in the cell (N, 2, 3) and by shared parameters (N, 2, P)."""
    column = {name: number for number, name in enumerate(solution.parameter_names)}
    T_stream_cell = solution.T_cell_stream[stream].inverse()
    lens = solution.streams[stream]
    projection = project_with_jacobians(lens_vector(lens), T_stream_cell @ points_cell)
    by_point = projection.by_point @ T_stream_cell.rotation
    shared = np.zeros((len(points_cell), 2, len(column)))
    by_pose = -np.einsum("nij,njk->nik", by_point, twist_jacobian(points_cell))
    parts = [(POSE_NAMES, by_pose), (lens_names(lens), projection.by_lens)]
    for names, values in parts:
        for number, name in enumerate(names):
            if f"{stream}.{name}" in column:
                shared[:, :, column[f"{stream}.{name}"]] = values[:, :, number]
    return by_point, shared


def twist_jacobian(points: FloatArray) -> NDArray[np.float64]:
    """Derivative (N, 3, 6) of points moved by a small twist of `RigidTransform.perturbed`: `w x p + t`."""
    x, y, z = points.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = [[zero, z, -y, one, zero, zero], [-z, zero, x, zero, one, zero], [y, -x, zero, zero, zero, one]]
    return np.moveaxis(np.array(rows), 2, 0)


def check_streams(
    solution: BundleSolution, fit_views: Sequence[BoardView], places: Sequence[HeldOutPlace]
) -> tuple[StreamCheck, ...]:
    """What held-out places say of each stream."""
    residuals: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    deviates: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    across_mm: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    outliers: dict[str, int] = defaultdict(int)
    for place in places:
        for view, part, scaled, good in zip(
            place.views, place.residuals_px, place.deviates, place.inliers, strict=True
        ):
            T_stream_board = solution.T_cell_stream[view.stream].inverse() @ place.T_cell_board
            depth_m = float(T_stream_board.translation_m[2])
            residuals[view.stream].append(part[good])
            deviates[view.stream].append(scaled[good])
            across_mm[view.stream].append(1e3 * part[good] * depth_m / solution.streams[view.stream].fx_px)
            outliers[view.stream] += int((~good).sum())
    fitted: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for view, rows, good in zip(fit_views, solution.residuals_px, solution.inliers, strict=True):
        fitted[view.stream].append(rows[good])
    return tuple(
        StreamCheck(
            stream=stream,
            corners=sum(len(part) for part in residuals[stream]),
            outliers=outliers[stream],
            fit_rms_px=_rms(fitted[stream]),
            rms_px=_rms(residuals[stream]),
            rms_mm=_rms(across_mm[stream]),
            within_95=float(np.mean(np.abs(np.concatenate(deviates[stream])) <= COVERAGE_K)),
        )
        for stream in sorted(residuals)
    )


def check_depth(
    solution: BundleSolution,
    boards: Sequence[Board],
    depth: Sequence[DepthTiles],
    places: Mapping[Place, RigidTransform],
    focal_baseline_m: Mapping[str, float],
) -> tuple[DepthCheck, ...]:
    """Depth of held-out tiles against the boards' faces.

    Args:
        solution: of the adjustment.
        boards: board number -> board.
        depth: tiles, counted with the refined focal length.
        places: place -> `T_cell_board` as refitted from corners.
        focal_baseline_m: serial -> product f B with which `depth` counts.
    """
    before: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    after: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for tiles in depth:
        stream = f"depth:{tiles.serial}"
        if tiles.place not in places or tiles.serial not in solution.corrections:
            continue
        lens, correction = solution.streams[stream], solution.corrections[tiles.serial]
        T_stream_board = solution.T_cell_stream[stream].inverse() @ places[tiles.place]
        face_m = _face_depth_m(solution, boards[tiles.board], tiles, T_stream_board)
        focal_m = focal_baseline_m[tiles.serial]
        read_m = focal_m / tiles.disparity_px
        corrected_px = tiles.disparity_px + correction.added_px(lens, tiles.disparity_px, tiles.pixels)
        before[tiles.serial].append(1e3 * (read_m - face_m))
        after[tiles.serial].append(1e3 * (correction.scale * focal_m / corrected_px - face_m))
    return tuple(
        DepthCheck(
            serial=serial,
            tiles=sum(len(part) for part in before[serial]),
            bias_before_mm=float(np.median(np.concatenate(before[serial]))),
            rms_before_mm=_rms(before[serial]),
            bias_after_mm=float(np.median(np.concatenate(after[serial]))),
            rms_after_mm=_rms(after[serial]),
        )
        for serial in sorted(before)
    )


def _face_depth_m(
    solution: BundleSolution, board: Board, tiles: DepthTiles, T_stream_board: RigidTransform
) -> NDArray[np.float64]:
    """Depth (M,) at which lines of sight meet the board's face, which is a plane but for its bend."""
    lens, normal = solution.streams[f"depth:{tiles.serial}"], T_stream_board.rotation[:, 2]
    rays = np.c_[lens.normalized(tiles.pixels), np.ones(len(tiles.pixels))]
    plane_m, along = float(normal @ T_stream_board.translation_m), rays @ normal
    depth_m = plane_m / along
    for _ in range(2):
        flat = np.asarray((T_stream_board.inverse() @ (rays * depth_m[:, None]))[:, :2], np.float64)
        bend_m = BoardShape(board).bends(flat) @ solution.warp_m.get(tiles.board, np.zeros(2))
        depth_m = (plane_m + bend_m) / along
    return np.asarray(depth_m)


def by_place(views: Sequence[BoardView]) -> dict[Place, list[BoardView]]:
    """Views grouped by board and instant."""
    grouped: dict[Place, list[BoardView]] = defaultdict(list)
    for view in views:
        grouped[view.place].append(view)
    return dict(sorted(grouped.items()))


def _rms(parts: Sequence[NDArray[np.float64]]) -> float:
    return float(np.sqrt(np.mean(np.concatenate(parts) ** 2))) if parts else float("nan")


__all__ = [
    "BOARD_FRAME",
    "DepthCheck",
    "HeldOutPlace",
    "StreamCheck",
    "board_points",
    "by_place",
    "check_depth",
    "check_streams",
    "place_jacobians",
    "refit_place",
    "stream_jacobians",
    "twist_jacobian",
]
