"""Two calibrations from two halves of the views, compared all over the images: what two recordings would differ by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSettings, BundleSolution, Place, solve_bundle
from depthcell.calib.adjustment.lens import lens_vector, project_points, sight_of
from depthcell.calib.solving.rig_lens import image_grid, is_invertible
from depthcell.calib.solving.validation import stream_jacobians, twist_jacobian
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError

GRID = 9
LEAST_VIEWS = 6


@dataclass(frozen=True, slots=True)
class HalvesCheck:
    """Difference of the two halves' projections in one stream at the working distance.

    Attributes:
        stream: whose.
        distance_m: at which points were compared, median depth of the boards.
        rms_px: RMS difference of one coordinate over the image, after one common motion of the whole rig.
        worst_px: the largest.
        predicted_px: RMS of what the two halves' covariances predict for it.
        seen_rms_px, seen_predicted_px: the same over the part of the image where corners were seen.
        seen_rms_mm: there, across the line of sight at that distance.
        grid_px: (9, 9), length of the difference at points spread evenly over the image, its corners included; NaN
            where nothing could be compared.
    """

    stream: str
    distance_m: float
    rms_px: float
    worst_px: float
    predicted_px: float
    seen_rms_px: float
    seen_predicted_px: float
    seen_rms_mm: float
    grid_px: NDArray[np.float64] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Halves:
    """The comparison as a whole.

    Attributes:
        streams: one entry each; empty where it could not be made.
        consistency: RMS difference over RMS prediction where corners were seen; about 1 where intervals are honest.
        reason: why there is no comparison; empty where there is one.
    """

    streams: tuple[HalvesCheck, ...]
    consistency: float
    reason: str = ""


def compare_halves(problem: BundleProblem, solution: BundleSolution, settings: BundleSettings | None = None) -> Halves:
    """Solve every other instant by itself, and the rest, and compare what they say of every stream.

    As mrcal's projection difference (`mrcal-show-projection-diff`), but for the rig as a whole: points at the working
    distance over every image, placed by `solution`, are projected by both halves; one rigid motion, common to all
    streams, is fitted away where corners were seen, since the two have their own origins. To first order the
    difference is `Q J (p2 - p1)`, J by lenses and poses, Q what takes the motion away; its covariance is
    `Q J (C1 + C2) J' Q'`.

    Args:
        problem: that was solved.
        solution: of it, where both halves start.
        settings: of the adjustment.
    """
    try:
        halves = [solve_bundle(half, settings) for half in split_problem(problem, solution)]
    except DepthcellError as error:
        return Halves((), float("nan"), f"two halves can not be compared: {error}")
    return differences(halves[0], halves[1], solution, problem.views)


def split_problem(problem: BundleProblem, solution: BundleSolution) -> tuple[BundleProblem, BundleProblem]:
    """Two problems from every other instant, both starting at `solution`, the boards' scale held.

    Raises:
        DepthcellError: a stream has too few views in a half, or is not tied to the others there.
    """
    instants = sorted({view.instant for view in problem.views})
    halves = []
    for start in (0, 1):
        chosen = set(instants[start::2])
        views = tuple(view for view in problem.views if view.instant in chosen)
        for stream in problem.streams:
            count = sum(view.stream == stream for view in views)
            if count < LEAST_VIEWS:
                raise DepthcellError(f"{stream} has {count} views in one half, at least {LEAST_VIEWS} are needed")
        places = {view.place for view in views}
        origin = max(sorted(places), key=lambda place: sum(view.place == place for view in views))
        halves.append(
            replace(
                problem,
                views=views,
                streams=solution.streams,
                T_cell_stream=solution.T_cell_stream,
                T_cell_board={place: solution.T_cell_board[place] for place in places},
                origin=origin,
                depth=(),
                board_scale_u=0.0,
            )
        )
    return halves[0], halves[1]


def differences(
    first: BundleSolution, second: BundleSolution, whole: BundleSolution, views: Sequence[BoardView]
) -> Halves:
    """Compare two solutions of the same streams and lens models at points that `whole`, a third one, places."""
    parts = {stream: _grid_points(whole, stream, views) for stream in whole.streams}
    counts = [len(pixels) for pixels, _, _ in parts.values()]
    gauge, raw = [], []
    for stream, (_, points_cell, _) in parts.items():
        by_point, _ = stream_jacobians(whole, stream, points_cell)
        gauge.append(np.einsum("nij,njk->nik", by_point, twist_jacobian(points_cell)).reshape(-1, 6))
        projected = [
            project_points(lens_vector(half.streams[stream]), half.T_cell_stream[stream].inverse() @ points_cell)
            for half in (first, second)
        ]
        raw.append((projected[1] - projected[0]).ravel())
    seen = {stream: _near_corners(pixels, stream, views) for stream, (pixels, _, _) in parts.items()}
    left = _without_motion(np.concatenate(gauge), np.repeat(np.concatenate(list(seen.values())), 2))
    apart = left(np.concatenate(raw)[:, None])
    variance = sum(_variance(half, parts, left) for half in (first, second))
    apart_by = np.split(apart.reshape(-1, 2), np.cumsum(counts)[:-1])
    variance_by = np.split(np.asarray(variance).reshape(-1, 2), np.cumsum(counts)[:-1])
    checks, apart_seen, variance_seen = [], [], []
    for stream, off, spread in zip(parts, apart_by, variance_by, strict=True):
        distance_m, inside = parts[stream][2], seen[stream]
        seen_px = _root(off[inside] ** 2)
        checks.append(
            HalvesCheck(
                stream=stream,
                distance_m=distance_m,
                rms_px=_root(off**2),
                worst_px=float(np.abs(off).max()),
                predicted_px=_root(spread),
                seen_rms_px=seen_px,
                seen_predicted_px=_root(spread[inside]),
                seen_rms_mm=1e3 * seen_px * distance_m / whole.streams[stream].fx_px,
                grid_px=_on_grid(whole.streams[stream], parts[stream][0], off),
            )
        )
        apart_seen.append(off[inside])
        variance_seen.append(spread[inside])
    return Halves(tuple(checks), _root(np.concatenate(apart_seen) ** 2) / _root(np.concatenate(variance_seen)))


def _grid_points(
    solution: BundleSolution, stream: str, views: Sequence[BoardView]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Pixels over the image, where they look at the working distance (frame "cell"), and that distance."""
    T_cell_stream, lens = solution.T_cell_stream[stream], solution.streams[stream]
    depths = [
        (T_cell_stream.inverse() @ solution.T_cell_board[view.place]).translation_m[2]
        for view in views
        if view.stream == stream and view.place in solution.T_cell_board
    ]
    distance_m = float(np.median(depths))
    pixels = image_grid(lens, GRID)
    if not is_invertible(lens):
        pixels = pixels[_near_corners(pixels, stream, views)]
    ideal = sight_of(lens_vector(lens), pixels).ideal
    points = distance_m * np.c_[ideal, np.ones(len(ideal))]
    return pixels, np.asarray(T_cell_stream @ points), distance_m


def _on_grid(lens: Intrinsics, pixels: NDArray[np.float64], off: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths of differences (N, 2) as a table over the image, (9, 9); `pixels` (N, 2) are points of `image_grid`."""
    steps = np.array([lens.width_px - 1, lens.height_px - 1]) / (GRID - 1)
    column, row = np.round(pixels / steps).astype(np.int64).T
    table = np.full((GRID, GRID), np.nan)
    table[row, column] = np.linalg.norm(off, axis=1)
    return table


def _without_motion(
    by_motion: NDArray[np.float64], counts: NDArray[np.bool_]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """What takes from rows (R, n) the rigid motion (R, 6) that fits them best in the rows that count (R,)."""
    inverse = np.linalg.pinv(by_motion[counts])
    return lambda rows: rows - by_motion @ (inverse @ rows[counts])


def _variance(
    half: BundleSolution,
    parts: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64], float]],
    left: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    rows = left(
        np.concatenate(
            [
                stream_jacobians(half, stream, points)[1].reshape(-1, len(half.parameter_names))
                for stream, (_, points, _) in parts.items()
            ]
        )
    )
    return np.asarray(np.einsum("np,pq,nq->n", rows, half.covariance, rows, optimize=True))


def _near_corners(pixels: NDArray[np.float64], stream: str, views: Sequence[BoardView]) -> NDArray[np.bool_]:
    """Which pixels (N,) lie in the rectangle that holds the middle 90 % of the stream's corners, in each axis."""
    corners = np.concatenate([view.pixels for view in views if view.stream == stream])
    low, high = np.quantile(corners, (0.05, 0.95), axis=0)
    inside: NDArray[np.bool_] = ((pixels >= low) & (pixels <= high)).all(axis=1)
    return inside if inside.any() else np.ones(len(pixels), np.bool_)


def _root(squares: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(squares)))


__all__ = ["Halves", "HalvesCheck", "Place", "compare_halves", "differences", "split_problem"]
