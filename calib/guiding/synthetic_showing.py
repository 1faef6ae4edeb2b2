"""A simulated rig that is shown its board once more, wherever one likes: what guidance is judged by."""

from dataclasses import replace

import numpy as np

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSolution
from depthcell.calib.adjustment.bundle_blocks import BoardShape
from depthcell.calib.adjustment.synthetic_rig import RigSettings, RigTruth, true_depth_read_m
from depthcell.calib.guiding.guidance_information import visible_features
from depthcell.calib.target.boardview import BoardView, DepthTiles


def shown(
    problem: BundleProblem,
    truth: RigTruth,
    settings: RigSettings,
    T_cell_board: RigidTransform,
    rng: np.random.Generator,
) -> BundleProblem:
    """The problem with one more instant, at which board 0 was truly held there; only who can read it has a view.

    Args:
        problem: so far.
        truth: of its rig.
        settings: noise, and how many tiles of depth a view gives.
        T_cell_board: where the board really is.
        rng: draws the noise.
    """
    board, instant = problem.boards[0], 1 + max(view.instant for view in problem.views)
    points_board = BoardShape(board).points_board(board.points_board[:, :2], truth.warp_m, truth.board_scale)
    views: list[BoardView] = []
    depth: list[DepthTiles] = []
    for stream, lens in truth.streams.items():
        T_stream_board = truth.T_cell_stream[stream].inverse() @ T_cell_board
        ids = visible_features(board, lens, T_stream_board)
        if not len(ids):
            continue
        points_cam = T_stream_board @ points_board[ids]
        pixels = lens.project(points_cam)
        noisy = pixels + rng.normal(0, settings.sigma_px, pixels.shape)
        views.append(BoardView(stream, instant, 0, ids, noisy, settings.stated_px))
        if stream.startswith("depth:") and problem.depth:
            depth.append(_measured(problem, truth, settings, views[-1], pixels, points_cam[:, 2], rng))
    return replace(
        problem,
        views=(*problem.views, *views),
        depth=(*problem.depth, *depth),
        T_cell_board={**problem.T_cell_board, (0, instant): replace(T_cell_board, source="board")},
    )


def _measured(
    problem: BundleProblem,
    truth: RigTruth,
    settings: RigSettings,
    view: BoardView,
    pixels: FloatArray,
    z_m: FloatArray,
    rng: np.random.Generator,
) -> DepthTiles:
    """Depth at some of the features, as many as the rig's settings say."""
    count = settings.tiles[0] * settings.tiles[1]
    chosen = np.unique(np.linspace(0, len(pixels) - 1, count).round().astype(int))
    serial = view.stream.removeprefix("depth:")
    read_m = true_depth_read_m(truth, serial, settings.baseline_m, pixels[chosen], z_m[chosen])
    exact_px = problem.streams[view.stream].fx_px * settings.baseline_m / read_m
    sigma_px = np.full(len(chosen), settings.tile_sigma_px)
    disparity_px = np.asarray(exact_px + rng.normal(0, sigma_px), np.float64)
    tile_pixels = np.asarray(pixels[chosen], np.float64)
    return DepthTiles(serial, view.instant, 0, tile_pixels, disparity_px, sigma_px)


def true_pose(solution: BundleSolution, truth: RigTruth, stream: str, T_cell_board: RigidTransform) -> RigidTransform:
    """Where somebody holds the board who follows an advice by what the camera `stream` shows."""
    return truth.T_cell_stream[stream] @ (solution.T_cell_stream[stream].inverse() @ T_cell_board)
