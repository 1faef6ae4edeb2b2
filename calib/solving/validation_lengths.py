"""Lengths on held-out boards, measured by several cameras without knowledge of the board, against certified ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.calib.adjustment.bundle import BundleSolution
from depthcell.calib.adjustment.lens import lens_vector, project_points, sight_of
from depthcell.calib.solving.validation import COVERAGE_K, HeldOutPlace, board_points, stream_jacobians
from depthcell.calib.target.board import Board

STEPS = 3


@dataclass(frozen=True, slots=True)
class LengthCheck:
    """Distances between corners far apart on held-out boards, as seen from two cameras or more, against the print's.

    Attributes:
        lengths: how many.
        places: on how many held-out boards.
        mean_length_mm: how long they are.
        rms_mm: RMS error, measured minus certified length times the board's scale as calibrated.
        worst_mm: the largest error, with its sign.
        u_mm: RMS of their stated standard uncertainties.
        within_95: share of errors inside their stated 95 % interval.
        scale: mean of measured over certified length, less 1.
        scale_u: standard error of that mean, from place to place.
        plane_rms_mm: RMS distance of the corners so measured from the board's face as calibrated.
    """

    lengths: int
    places: int
    mean_length_mm: float
    rms_mm: float
    worst_mm: float
    u_mm: float
    within_95: float
    scale: float
    scale_u: float
    plane_rms_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredCorners:
    """Corners of one place, each intersected from several cameras.

    Attributes:
        ids: (N,) features.
        points_cell: (N, 3) metres.
        covariance_m2: (N, 3, 3) from noise alone.
        by_shared: (N, 3, P), how they move with the calibration's parameters.
    """

    ids: NDArray[np.int64]
    points_cell: NDArray[np.float64]
    covariance_m2: NDArray[np.float64]
    by_shared: NDArray[np.float64]


def check_lengths(
    solution: BundleSolution, boards: Sequence[Board], places: Sequence[HeldOutPlace]
) -> LengthCheck | None:
    """Measure lengths on held-out boards; None where no two devices saw one.

    The uncertainty of a length follows from noise and from the joint covariance of lenses, poses and board scale (GUM
    5.2.2): with unit vector e between two corners, `u² = e' (C1 + C2) e + g C g'`, `g = e' (J1 - J2)` less the length
    by the board's scale.
    """
    errors, u, lengths, scales, off_plane = [], [], [], [], []
    for place in places:
        board = place.views[0].board
        corners = measure_corners(solution, place)
        if corners is None:
            continue
        T_board_cell = place.T_cell_board.inverse()
        shape = boards[board].points_board[corners.ids]
        off_plane.append(
            (T_board_cell @ corners.points_cell)[:, 2] - board_points(solution, boards, board, corners.ids)[:, 2]
        )
        first, second = far_pairs(shape)
        certified_m = np.linalg.norm(shape[first] - shape[second], axis=1)
        error_m, u_m = _length_errors(solution, board, corners, (first, second), certified_m)
        errors.append(error_m)
        u.append(u_m)
        lengths.append(certified_m)
        scales.append(float(np.mean(error_m / certified_m)) + solution.board_scale.get(board, 1.0) - 1)
    if not errors:
        return None
    error, uncertainty = np.concatenate(errors), np.concatenate(u)
    return LengthCheck(
        lengths=len(error),
        places=len(errors),
        mean_length_mm=1e3 * float(np.mean(np.concatenate(lengths))),
        rms_mm=1e3 * float(np.sqrt(np.mean(error**2))),
        worst_mm=1e3 * float(error[np.argmax(np.abs(error))]),
        u_mm=1e3 * float(np.sqrt(np.mean(uncertainty**2))),
        within_95=float(np.mean(np.abs(error) <= COVERAGE_K * uncertainty)),
        scale=float(np.mean(scales)),
        scale_u=float(np.std(scales, ddof=1) / np.sqrt(len(scales))) if len(scales) > 1 else float("nan"),
        plane_rms_mm=1e3 * float(np.sqrt(np.mean(np.concatenate(off_plane) ** 2))),
    )


def measure_corners(solution: BundleSolution, place: HeldOutPlace) -> MeasuredCorners | None:
    """Intersect each corner from all streams that saw it, least squares in pixels; None below two devices or 4 corners.

    Starts at the point nearest to all lines of sight; Gauss-Newton then weighs each stream by its noise.
    """
    ids = np.unique(np.concatenate([view.ids for view in place.views]))
    normal = np.zeros((len(ids), 3, 3))
    moment = np.zeros((len(ids), 3))
    devices: list[set[str]] = [set() for _ in ids]
    seen = []
    for view, good in zip(place.views, place.inliers, strict=True):
        rows = np.searchsorted(ids, view.ids[good])
        pixels = view.pixels[good]
        T_cell_stream = solution.T_cell_stream[view.stream]
        ideal = sight_of(lens_vector(solution.streams[view.stream]), pixels).ideal
        rays = np.c_[ideal, np.ones(len(ideal))] @ T_cell_stream.rotation.T
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
        normal[rows] += across
        moment[rows] += across @ T_cell_stream.translation_m
        seen.append((view.stream, rows, pixels))
        for row in rows:
            devices[row].add(view.stream.partition(":")[2])
    kept = np.array([len(found) > 1 for found in devices])
    if kept.sum() < 4:
        return None
    points = np.zeros((len(ids), 3))
    points[kept] = np.linalg.solve(normal[kept], moment[kept][:, :, None])[:, :, 0]
    covariance, by_shared = np.zeros_like(normal), np.zeros((len(ids), 3, len(solution.parameter_names)))
    for _ in range(STEPS):
        points[kept], covariance[kept], by_shared[kept] = _improved(solution, seen, points, kept)
    return MeasuredCorners(ids[kept], points[kept], covariance[kept], by_shared[kept])


def _improved(
    solution: BundleSolution,
    seen: Sequence[tuple[str, NDArray[np.intp], NDArray[np.float64]]],
    points: NDArray[np.float64],
    kept: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """One Gauss-Newton step of the points kept, their covariance, and their derivatives by shared parameters."""
    information = np.zeros((len(points), 3, 3))
    right = np.zeros((len(points), 3))
    mixed = np.zeros((len(points), 3, len(solution.parameter_names)))
    for stream, rows, pixels in seen:
        inside = kept[rows]
        own, observed = rows[inside], pixels[inside]
        by_point, by_shared = stream_jacobians(solution, stream, points[own])
        T_stream_cell = solution.T_cell_stream[stream].inverse()
        off = observed - project_points(lens_vector(solution.streams[stream]), T_stream_cell @ points[own])
        weight = 1 / solution.sigma_px[stream] ** 2
        information[own] += weight * np.einsum("nij,nik->njk", by_point, by_point)
        right[own] += weight * np.einsum("nij,ni->nj", by_point, off)
        mixed[own] += weight * np.einsum("nij,nip->njp", by_point, by_shared)
    covariance = np.linalg.inv(information[kept])
    step = np.einsum("nij,nj->ni", covariance, right[kept])
    return (
        np.asarray(points[kept] + step),
        np.asarray(covariance, np.float64),
        -np.einsum("nij,njp->nip", covariance, mixed[kept]),
    )


def far_pairs(points: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of points (N, 3) far apart, each point in one pair only: the farthest pair first, then of the rest."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    first, second = np.unravel_index(np.argsort(-distance, axis=None), distance.shape)
    free = np.ones(len(points), np.bool_)
    pairs = []
    longest = float(distance.max())
    for one, other in zip(first, second, strict=True):
        if distance[one, other] < longest / 2:
            break
        if free[one] and free[other]:
            free[one] = free[other] = False
            pairs.append((one, other))
    chosen = np.array(pairs, np.intp)
    return chosen[:, 0], chosen[:, 1]


def _length_errors(
    solution: BundleSolution,
    board: int,
    corners: MeasuredCorners,
    pairs: tuple[NDArray[np.intp], NDArray[np.intp]],
    certified_m: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measured less printed lengths (certified times the board's scale as calibrated), and their uncertainties."""
    first, second = pairs
    arm = corners.points_cell[first] - corners.points_cell[second]
    measured_m = np.linalg.norm(arm, axis=1)
    unit = arm / measured_m[:, None]
    noise = corners.covariance_m2[first] + corners.covariance_m2[second]
    slope = np.einsum("ni,nip->np", unit, corners.by_shared[first] - corners.by_shared[second])
    scale, name = solution.board_scale.get(board, 1.0), f"board:{board}.scale"
    if name in solution.parameter_names:
        slope[:, solution.parameter_names.index(name)] -= certified_m
    variance = np.einsum("ni,nij,nj->n", unit, noise, unit)
    variance += np.einsum("np,pq,nq->n", slope, solution.covariance, slope, optimize=True)
    return measured_m - scale * certified_m, np.sqrt(np.maximum(variance, 0))
