"""Factory intrinsics kept as they are, with an uncertainty that says how far they may be off."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSettings, BundleSolution, solve_bundle
from depthcell.calib.adjustment.lens import lens_vector
from depthcell.calib.cell import POSE_NAMES, lens_names
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.solving.intrinsics_choice import LensChoice
from depthcell.calib.solving.rig_candidate import as_model


def with_choices(
    problem: BundleProblem,
    solution: BundleSolution,
    choices: Mapping[str, LensChoice],
    settings: BundleSettings,
    hold_factory: bool,
) -> tuple[BundleProblem, BundleSolution, frozenset[str]]:
    """Adjust again with the lenses chosen where they are other than those of `solution`, and hold what is kept.

    Returns:
        The problem, its solution, and the streams whose factory intrinsics are held.
    """
    kept = {stream: choice.intrinsics for stream, choice in choices.items() if choice.is_factory and hold_factory}
    other = {
        stream: choice.intrinsics
        for stream, choice in choices.items()
        if not choice.is_factory and choice.intrinsics.distortion is not solution.streams[stream].distortion
    }
    if other:
        problem = restarted(problem, solution, other)
        solution = solve_bundle(problem, settings)
    if kept:
        as_adjusted = {stream: as_model(lens, solution.streams[stream].distortion) for stream, lens in kept.items()}
        solution, problem = with_kept_lenses(problem, solution, as_adjusted, settings)
    return problem, solution, frozenset(kept)


def with_kept_lenses(
    problem: BundleProblem,
    free: BundleSolution,
    kept: Mapping[str, Intrinsics],
    settings: BundleSettings | None = None,
) -> tuple[BundleSolution, BundleProblem]:
    """Solve again with the lenses in `kept` held, starting at `free`, the solution with all lenses free.

    What the views know of the parameters is `free` and its covariance C. A value d away from it therefore has the mean
    square error `C + d d'`, which is what the covariance returned holds: to keep the factory's lens is never taken for
    knowing it.

    Returns:
        The solution, and the problem it is of.
    """
    held = replace(restarted(problem, free, kept), fixed_intrinsics=frozenset(kept))
    solved = solve_bundle(held, settings)
    away = _away(free, solved, problem)
    return (
        replace(
            solved,
            parameter_names=free.parameter_names,
            covariance=free.covariance + np.outer(away, away),
            places=free.places,
            place_covariances=free.place_covariances
            + np.array([_squared(free.T_cell_board[p], solved.T_cell_board[p]) for p in free.places]).reshape(-1, 6, 6),
            place_crosses=free.place_crosses
            + np.array(
                [np.outer(_twist(free.T_cell_board[p], solved.T_cell_board[p]), away) for p in free.places]
            ).reshape(-1, 6, len(away)),
        ),
        held,
    )


def restarted(problem: BundleProblem, solution: BundleSolution, lenses: Mapping[str, Intrinsics]) -> BundleProblem:
    """The problem, to be solved from its solution on, with other lenses for some streams.

    Disparities are counted anew with the lenses' focal lengths.
    """
    streams = {**solution.streams, **lenses}
    depth = []
    for tiles in problem.depth:
        ratio = streams[f"depth:{tiles.serial}"].fx_px / problem.streams[f"depth:{tiles.serial}"].fx_px
        depth.append(replace(tiles, disparity_px=tiles.disparity_px * ratio, sigma_px=tiles.sigma_px * ratio))
    return replace(
        problem,
        streams=streams,
        T_cell_stream=solution.T_cell_stream,
        T_cell_board=solution.T_cell_board,
        depth=tuple(depth),
    )


def _away(free: BundleSolution, solved: BundleSolution, problem: BundleProblem) -> NDArray[np.float64]:
    """How far `solved` is from `free`, (P,) in the order of the free solution's parameters."""
    apart: dict[str, float] = {}
    for stream, lens in free.streams.items():
        pairs = [
            (POSE_NAMES, _twist(free.T_cell_stream[stream], solved.T_cell_stream[stream])),
            (lens_names(lens), lens_vector(lens) - lens_vector(solved.streams[stream])),
        ]
        for names, values in pairs:
            apart |= {f"{stream}.{name}": float(value) for name, value in zip(names, values, strict=True)}
    for serial, correction in free.corrections.items():
        values = _correction_vector(correction) - _correction_vector(solved.corrections[serial])
        for name, value in zip(correction.parameter_names, values, strict=True):
            apart[f"depth:{serial}.{name}"] = float(value)
    for number in range(len(problem.boards)):
        if number in free.warp_m:
            bend = free.warp_m[number] - solved.warp_m[number]
            apart |= {f"board:{number}.warp_x_m": float(bend[0]), f"board:{number}.warp_y_m": float(bend[1])}
            apart[f"board:{number}.scale"] = free.board_scale[number] - solved.board_scale[number]
    return np.array([apart[name] for name in free.parameter_names])


def _correction_vector(correction: DepthCorrection) -> NDArray[np.float64]:
    wave = [correction.wave_px[int(i)][int(j)] for _, i, j in (name.split("_") for name in correction.wave_names)]
    return np.array([correction.scale, correction.disparity_offset_px, correction.curvature_px, *wave])


def _twist(first: RigidTransform, second: RigidTransform) -> NDArray[np.float64]:
    """The twist that moves `second` to `first`, as `RigidTransform.perturbed` has it."""
    turn = first.rotation @ second.rotation.T
    vector: NDArray[np.float64] = Rotation.from_matrix(turn).as_rotvec()
    return np.concatenate((vector, first.translation_m - turn @ second.translation_m))


def _squared(first: RigidTransform, second: RigidTransform) -> NDArray[np.float64]:
    twist = _twist(first, second)
    return np.outer(twist, twist)
