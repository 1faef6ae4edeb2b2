"""The plots of a certificate, from an adjustment and the cell that came of it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSolution
from depthcell.calib.certify.certificate_content import Picture
from depthcell.calib.certify.plots import png_of
from depthcell.calib.certify.plots_maps import (
    DepthBias,
    DifferenceMap,
    draw_depth_bias,
    draw_differences,
    draw_uncertainty,
)
from depthcell.calib.certify.plots_views import (
    StreamEvidence,
    draw_coverage,
    draw_normalised,
    draw_poses,
    draw_residuals,
)
from depthcell.calib.certify.uncertaintymap import UncertaintyMap
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.solving.validation_halves import Halves


def stream_evidence(problem: BundleProblem, solution: BundleSolution) -> tuple[StreamEvidence, ...]:
    """What each stream saw of the boards, with the poses of the solution."""
    return tuple(_evidence(problem, solution, stream) for stream in problem.streams)


def _evidence(problem: BundleProblem, solution: BundleSolution, stream: str) -> StreamEvidence:
    numbers = [n for n, view in enumerate(problem.views) if view.stream == stream]
    aspects = np.array([_aspect(problem, solution, n) for n in numbers]).reshape(-1, 3)
    return StreamEvidence(
        stream=stream,
        width_px=problem.streams[stream].width_px,
        height_px=problem.streams[stream].height_px,
        pixels=_stacked([problem.views[n].pixels for n in numbers]),
        residuals_px=_stacked([solution.residuals_px[n] for n in numbers]),
        sigma_px=solution.sigma_px[stream],
        inliers=np.concatenate([solution.inliers[n] for n in numbers] or [np.zeros(0, np.bool_)]),
        tilt_rad=aspects[:, 0],
        direction_rad=aspects[:, 1],
        distance_m=aspects[:, 2],
    )


def _stacked(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([part.reshape(-1, 2) for part in parts] or [np.zeros((0, 2))])


def _aspect(problem: BundleProblem, solution: BundleSolution, number: int) -> tuple[float, float, float]:
    view = problem.views[number]
    T_cam_board = solution.T_cell_stream[view.stream].inverse() @ solution.T_cell_board[view.place]
    return board_aspect(T_cam_board, problem.boards[view.board].points_board.mean(axis=0))


def board_aspect(T_cam_board: RigidTransform, middle_board: NDArray[np.float64]) -> tuple[float, float, float]:
    """How a board stands before a camera: tilt against the line of sight, where its face turns, distance.

    Args:
        T_cam_board: the board's pose; its z axis points into the board, so that its face looks along -z.
        middle_board: (3,) metres, middle of its features.

    Returns:
        Tilt in rad, 0 when it faces the camera; direction in rad in which its face is turned, in the image, 0 to the
        right, pi/2 downwards; distance of its middle in metres.
    """
    middle = T_cam_board @ middle_board
    distance_m = float(np.linalg.norm(middle))
    face, sight = -T_cam_board.rotation[:, 2], middle / distance_m
    tilt_rad = float(np.arccos(np.clip(-face @ sight, -1, 1)))
    across = face - (face @ sight) * sight
    return tilt_rad, float(np.arctan2(across[1], across[0])), distance_m


def depth_bias(problem: BundleProblem, solution: BundleSolution) -> tuple[DepthBias, ...]:
    """Error of depth on all tiles that were believed, before and after correction, by camera."""
    return tuple(_bias(problem, solution, serial) for serial in dict.fromkeys(one.serial for one in problem.depth))


def _bias(problem: BundleProblem, solution: BundleSolution, serial: str) -> DepthBias:
    """The adjustment leaves `corrected - true disparity`, counted with the focal length that it started from."""
    stream, baseline_m = f"depth:{serial}", problem.baselines_m[serial]
    lens, correction = solution.streams[stream], solution.corrections.get(serial, DepthCorrection())
    start_px, focal_baseline_m = problem.streams[stream].fx_px, lens.fx_px * baseline_m
    columns = []
    for number, tiles in enumerate(problem.depth):
        if tiles.serial != serial:
            continue
        read_m = start_px * baseline_m / tiles.disparity_px
        read_px = focal_baseline_m / read_m
        corrected_px = read_px + correction.added_px(lens, read_px, tiles.pixels)
        true_px = corrected_px - solution.tile_residuals_px[number] * lens.fx_px / start_px
        factor = correction.scale * focal_baseline_m
        rows = np.stack((factor / true_px, read_m, factor / corrected_px))
        columns.append(rows[:, solution.tile_inliers[number]])
    true_m, read_m, corrected_m = np.concatenate(columns, axis=1)
    return DepthBias(serial, true_m, 1e3 * (read_m - true_m), 1e3 * (corrected_m - true_m))


def difference_maps(problem: BundleProblem, halves: Halves) -> tuple[DifferenceMap, ...]:
    """What two halves of the data leave open, over each image; empty where they were not compared."""
    return tuple(
        DifferenceMap(
            one.stream, problem.streams[one.stream].width_px, problem.streams[one.stream].height_px, one.grid_px, "px"
        )
        for one in halves.streams
    )


def pictures_of(
    problem: BundleProblem,
    solution: BundleSolution,
    uncertainty: UncertaintyMap | None,
    differences: Sequence[DifferenceMap] = (),
) -> tuple[Picture, ...]:
    """All pictures of a certificate that these allow, in the order of printing.

    Args:
        problem: the adjustment that the cell came from.
        solution: what it found.
        uncertainty: of the work volume; None leaves it out.
        differences: of two calibrations, each from half of the data; none leaves it out.
    """
    streams = stream_evidence(problem, solution)
    pictures = [
        _picture(
            draw_residuals(streams),
            "Residuals",
            "Projected less found position of each board feature (grey), and their mean in each part of the image "
            "where at least five lie (blue, drawn four times as long). Crosses are features that were left out.",
        ),
        _picture(
            draw_coverage(streams),
            "Coverage of the images",
            "Number of features in each part of each image. Where there are none, the lens is extrapolated.",
        ),
        _picture(
            draw_poses(streams),
            "Distance and tilt of the boards",
            "Each dot is one view. Tilt is measured against the line of sight; its direction is where the board's face "
            "turns, as the camera sees it.",
        ),
        _picture(
            draw_normalised(_normalised(streams)),
            "Residuals against the normal distribution",
            "Each coordinate's residual over the standard deviation of its stream. Values beyond 5 are counted at 5.",
        ),
    ]
    if problem.depth:
        pictures.append(
            _picture(
                draw_depth_bias(depth_bias(problem, solution)),
                "Depth before and after correction",
                "Depth on faces of boards less where the adjustment says that the face is. Above as read, below "
                "corrected; each row has one scale.",
            )
        )
    if uncertainty is not None:
        pictures.append(
            _picture(
                draw_uncertainty(uncertainty),
                "Uncertainty in the work volume",
                f"Standard uncertainty of a measured point along its worst direction, mean of {uncertainty.frames} "
                "frames, calibration and noise together, if nothing hides it. Grey is seen by no camera.",
            )
        )
    if differences:
        pictures.append(
            _picture(
                draw_differences(differences),
                "Difference of two halves",
                "Two calibrations, each from half of the instants, compared where both can be: what the data, not the "
                "model, leave open.",
            )
        )
    return tuple(pictures)


def _normalised(streams: Sequence[StreamEvidence]) -> NDArray[np.float64]:
    parts = [one.residuals_px[one.inliers].ravel() / one.sigma_px for one in streams if one.inliers.any()]
    return np.concatenate(parts or [np.zeros(0)])


def _picture(figure: Figure, title: str, caption: str) -> Picture:
    titles = "; ".join(text for axes in figure.axes if (text := axes.get_title()))
    return Picture(title=title, caption=caption, alt=f"{title}. {titles}".strip(), png=png_of(figure))
