"""Bundle adjustment: lenses, camera poses, boards and depth corrections of a whole rig at once, with their covariance.

`solve_bundle` is the one verb. What is estimated and by which formulas stands in `docs/bundle-adjustment.md`.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle_adjustment import Adjustment
from depthcell.calib.adjustment.bundle_covariance import picked, public_correction
from depthcell.calib.adjustment.bundle_determined import check_lenses, check_start
from depthcell.calib.adjustment.bundle_normal import Information
from depthcell.calib.adjustment.bundle_problem import BundleProblem, BundleSettings, DepthPrior, Place
from depthcell.calib.adjustment.bundle_rounds import Settled, residuals_of, settle
from depthcell.calib.adjustment.lens import lens_from_vector
from depthcell.calib.depthcorrection import DepthCorrection

__all__ = ["BundleProblem", "BundleSettings", "BundleSolution", "DepthPrior", "Place", "solve_bundle"]


@dataclass(frozen=True, slots=True, eq=False)
class BundleSolution:
    """What an adjustment found.

    Attributes:
        streams: refined lens of each imager.
        T_cell_stream: pose of each imager.
        T_cell_board: pose of each board at each instant.
        warp_m: per board, deflection (w_x, w_y) in metres: z = w_x (1 - x²) + w_y (1 - y²), x and y from -1 to 1.
        board_scale: per board, true pitch over certified pitch.
        corrections: per serial that had depth, for disparities counted with the refined fx.
        parameter_names: of the shared parameters, as "depth:123.fx_px", "color:123.rx_rad", "depth:123.scale",
            "board:0.warp_x_m".
        covariance: (P, P) of `parameter_names`; poses in the convention of `RigidTransform.perturbed`.
        residuals_px: per view, (N, 2), projected minus found, outliers included.
        inliers: per view, (N,) bool, which corners count.
        sigma_px: per stream, standard deviation of a corner's coordinate, from the residuals.
        stated_px: per stream, what its detector said (root mean square over views).
        outliers: per stream and per "depth of <serial>", how many corners or tiles were left out.
        tile_residuals_px: per item of `problem.depth`, (M,), corrected minus true disparity.
        tile_inliers: per item of `problem.depth`, (M,) bool.
        depth_factors: per serial, standard deviation of its tiles over that stated; already in the covariance.
        depth_common_px: per serial, standard deviation of an error in disparity that all tiles of one view share; 0
            where there is none beyond the noise of tiles; already in the covariance.
        redundancy: per stream and per "depth of <serial>", degrees of freedom left.
        places: (board, instant) in the order of `place_covariances`.
        place_covariances: (B, 6, 6) of `T_cell_board`, the origin's not among them.
        place_crosses: (B, 6, P), covariance of each board's pose with the shared parameters.
        rounds: how many times the adjustment was solved until outliers and weights settled.
    """

    streams: Mapping[str, Intrinsics]
    T_cell_stream: Mapping[str, RigidTransform]
    T_cell_board: Mapping[Place, RigidTransform]
    warp_m: Mapping[int, NDArray[np.float64]]
    board_scale: Mapping[int, float]
    corrections: Mapping[str, DepthCorrection]
    parameter_names: tuple[str, ...]
    covariance: NDArray[np.float64]
    residuals_px: tuple[NDArray[np.float64], ...]
    inliers: tuple[NDArray[np.bool_], ...]
    sigma_px: Mapping[str, float]
    stated_px: Mapping[str, float]
    outliers: Mapping[str, int]
    tile_residuals_px: tuple[NDArray[np.float64], ...]
    tile_inliers: tuple[NDArray[np.bool_], ...]
    depth_factors: Mapping[str, float]
    depth_common_px: Mapping[str, float]
    redundancy: Mapping[str, float]
    places: tuple[Place, ...]
    place_covariances: NDArray[np.float64]
    place_crosses: NDArray[np.float64]
    rounds: int

    def covariance_of(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Covariance of parameters by name, in that order; zeros for what was held."""
        return picked({name: place for place, name in enumerate(self.parameter_names)}, self.covariance, names)

    def u(self, name: str) -> float:
        """Standard uncertainty of one parameter; 0 for what was held."""
        return float(np.sqrt(self.covariance_of([name])[0, 0]))

    def place_covariance(self, place: Place) -> NDArray[np.float64]:
        """(6, 6) of `T_cell_board[place]`; zeros for the origin, which is exact by definition."""
        if place not in self.places:
            return np.zeros((6, 6))
        return np.asarray(self.place_covariances[self.places.index(place)])

    def place_cross_covariance(self, place: Place) -> NDArray[np.float64]:
        """(6, P), covariance of `T_cell_board[place]` with the shared parameters."""
        if place not in self.places:
            return np.zeros((6, len(self.parameter_names)))
        return np.asarray(self.place_crosses[self.places.index(place)])


def solve_bundle(problem: BundleProblem, settings: BundleSettings | None = None) -> BundleSolution:
    """Adjust everything in `problem` at once: least squares over corners and depth, outliers left out and counted.

    Raises:
        DepthcellError: the start puts a board behind a camera, the solver does not converge, outliers do not settle, or
            the views do not determine a lens or a pose; the message names what.
    """
    settings = settings or BundleSettings()
    with closing(Adjustment(problem, settings)) as adjustment:
        check_start(adjustment)
        settled = settle(adjustment)
        check_lenses(adjustment, settled.information)
        return _solution(adjustment, settled)


def _solution(adjustment: Adjustment, settled: Settled) -> BundleSolution:
    problem, values = adjustment.problem, adjustment.values
    streams = {stream: lens_from_vector(values["lens", stream], like) for stream, like in problem.streams.items()}
    corrections, names, information = _public(adjustment, settled.information)
    boards = [int(str(key[1])) for key in values if key[0] == "warp"]
    count = len(problem.views)
    residuals = residuals_of(adjustment)[: count + len(problem.depth)]
    stated = _stated_px(problem)
    serials = dict.fromkeys(tiles.serial for tiles in problem.depth)
    return BundleSolution(
        streams=streams,
        T_cell_stream={stream: adjustment.bases["pose", stream] for stream in streams},
        T_cell_board={place: adjustment.bases.get(("place", place), T) for place, T in problem.T_cell_board.items()},
        warp_m={number: values["warp", number].copy() for number in boards},
        board_scale={number: float(values["scale", number][0]) for number in boards},
        corrections=corrections,
        parameter_names=names,
        covariance=information.covariance,
        residuals_px=tuple(rows * view.sigma_px for rows, view in zip(residuals, problem.views, strict=False)),
        inliers=tuple(settled.inliers[:count]),
        sigma_px={stream: stated[stream] * settled.factors[stream] for stream in stated},
        stated_px=stated,
        outliers=_outliers(adjustment, settled),
        tile_residuals_px=tuple(
            rows[:, 0] * tiles.sigma_px for rows, tiles in zip(residuals[count:], problem.depth, strict=True)
        ),
        tile_inliers=tuple(settled.inliers[count : len(residuals)]),
        depth_factors={serial: settled.factors[f"depth of {serial}"] for serial in serials},
        depth_common_px={serial: settled.common_px.get(f"depth of {serial}", 0.0) for serial in serials},
        redundancy={group: information.redundancy[group] for group in settled.factors},
        places=information.places,
        place_covariances=information.place_covariance,
        place_crosses=information.place_cross,
        rounds=settled.rounds,
    )


def _public(
    adjustment: Adjustment, information: Information
) -> tuple[dict[str, DepthCorrection], tuple[str, ...], Information]:
    """Corrections in terms of the refined focal lengths, names of parameters, and the covariance of those."""
    names = tuple(adjustment.shared_names())
    place_of = {name: place for place, name in enumerate(names)}
    slope = np.eye(len(names))
    corrections = {}
    for key in adjustment.shared_keys():
        if key[0] != "depth":
            continue
        stream = f"depth:{key[1]}"
        start_px = adjustment.problem.streams[stream].fx_px
        ratio = float(adjustment.values["lens", stream][0]) / start_px
        shape = adjustment.settings.depth.wave_shape
        corrections[str(key[1])], by_depth, by_ratio = public_correction(adjustment.values[key], shape, ratio)
        rows = [place_of[name] for name in adjustment.names[key]]
        slope[rows, rows] = by_depth
        if f"{stream}.fx_px" in place_of:
            slope[rows, place_of[f"{stream}.fx_px"]] = by_ratio / start_px
    covariance = slope @ information.covariance @ slope.T
    return (
        corrections,
        names,
        replace(information, covariance=(covariance + covariance.T) / 2, place_cross=information.place_cross @ slope.T),
    )


def _stated_px(problem: BundleProblem) -> dict[str, float]:
    stated = {}
    for stream in problem.streams:
        squares = [view.sigma_px**2 for view in problem.views if view.stream == stream]
        stated[stream] = float(np.sqrt(np.mean(squares)))
    return stated


def _outliers(adjustment: Adjustment, settled: Settled) -> dict[str, int]:
    counts = dict.fromkeys(settled.factors, 0)
    for block, inside in zip(adjustment.blocks, settled.inliers, strict=True):
        if block.group in counts:
            counts[block.group] += int((~inside).sum())
    return counts
