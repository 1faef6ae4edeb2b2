"""Which board pose to record next: the one that shrinks the uncertainty at the part most, as a picture and a sentence.

Poses are tried in front of every depth camera: places over its image, distances over the work volume, tilts in four
directions. Each is judged by `guidance_information` for the whole rig, whoever sees it.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSettings, BundleSolution, solve_bundle
from depthcell.calib.certify.certificate_pictures import board_aspect
from depthcell.calib.certify.uncertaintymap import Volume
from depthcell.calib.depthcorrection import FULL_DISPARITY_PX
from depthcell.calib.guiding.guidance_information import (
    Advice,
    baselines,
    knowledge_of,
    new_information,
    visible_features,
)
from depthcell.calib.target.board import Board
from depthcell.errors import DepthcellError
from depthcell.files import written_beside

COLUMNS, ROWS = ("left", "", "right"), ("upper", "", "lower")
DIRECTIONS = {"right": 0.0, "down": np.pi / 2, "left": np.pi, "up": -np.pi / 2}
"""Where the board's face turns, in the image; row numbers grow downwards."""


@dataclass(frozen=True, slots=True)
class GuidanceSettings:
    """Which poses are tried, and when enough is known.

    Attributes:
        tilts_rad: against the line of sight.
        shares: of the image's width and height at which the board's middle is tried: left, middle, right.
        distances: how many, from the near to the far end of the work volume.
        seen_share: share of the features that the camera in front of the board must find.
        least_views: views that every stream must have before advice is given.
        least_tilt_rad: tilt that one view of every stream must have.
        worth: relative decrease of the uncertainty below which no further pose is asked for.
    """

    tilts_rad: tuple[float, ...] = (0.0, float(np.radians(25.0)), float(np.radians(45.0)))
    shares: tuple[float, float, float] = (0.22, 0.5, 0.78)
    distances: int = 3
    seen_share: float = 0.6
    least_views: int = 4
    least_tilt_rad: float = float(np.radians(15.0))
    worth: float = 0.01


def guide(
    problem: BundleProblem,
    volume: Volume | None = None,
    picture: Path | None = None,
    settings: GuidanceSettings | None = None,
    bundle: BundleSettings | None = None,
) -> Advice:
    """Adjust what has been recorded so far and say what to record next.

    Args:
        problem: all views so far.
        volume: where parts will lie, frame "cell"; None takes the box around the boards.
        picture: file to draw the advice in, PNG.
        settings: which poses to try.
        bundle: how to adjust.

    Raises:
        DepthcellError: there is too little data to advise on; the message names what is missing.
    """
    settings = settings or GuidanceSettings()
    check_enough(problem, settings)
    try:
        solution = solve_bundle(problem, bundle)
    except DepthcellError as error:
        raise DepthcellError(f"guidance: too little data to advise on yet: {error}") from error
    advice = advise(problem, solution, volume or boards_volume(problem, solution), settings)
    if picture is not None:
        from depthcell.calib.certify.plots import png_of  # noqa: PLC0415 - as above
        from depthcell.calib.guiding.guidance_picture import draw_advice  # noqa: PLC0415 - drawing is slow to load

        png = png_of(draw_advice(problem, solution, advice))
        with written_beside(picture) as partial:
            partial.write_bytes(png)
    return advice


def check_enough(problem: BundleProblem, settings: GuidanceSettings | None = None) -> None:
    """Return if every stream has enough views to start from.

    Raises:
        DepthcellError: a stream has too few views, or none that is tilted; all that is missing is named.
    """
    settings = settings or GuidanceSettings()
    missing = []
    for stream in problem.streams:
        views = [view for view in problem.views if view.stream == stream and len(view.ids) >= 4]
        if len(views) < settings.least_views:
            missing.append(f"{stream} has {len(views)} views of the board, {settings.least_views} are needed")
            continue
        tilts = [
            board_aspect(
                problem.T_cell_stream[stream].inverse() @ problem.T_cell_board[view.place],
                problem.boards[view.board].points_board.mean(axis=0),
            )[0]
            for view in views
        ]
        if max(tilts) < settings.least_tilt_rad:
            wanted = f"{np.degrees(settings.least_tilt_rad):.0f} degrees"
            missing.append(f"no view of {stream} is tilted by {wanted} or more, tilt the board to all sides")
    if missing:
        raise DepthcellError(f"guidance: too little data to advise on yet: {'; '.join(missing)}")


def boards_volume(problem: BundleProblem, solution: BundleSolution) -> Volume:
    """The box around all boards that were seen."""
    places = dict.fromkeys(view.place for view in problem.views)
    points = [solution.T_cell_board[place] @ problem.boards[place[0]].points_board for place in places]
    return Volume.around(np.concatenate(points), margin_m=1e-3)


def advise(
    problem: BundleProblem, solution: BundleSolution, volume: Volume, settings: GuidanceSettings | None = None
) -> Advice:
    """The pose that makes the mean variance of points in the volume smallest (an I-optimal next experiment).

    Raises:
        DepthcellError: no camera sees the volume, or no pose in front of any of them can be read.
    """
    settings = settings or GuidanceSettings()
    known = knowledge_of(problem, solution, volume)
    board, criterion = problem.boards[0], known.criterion_mm2
    best: tuple[float, NDArray[np.float64], str, RigidTransform, tuple[str, ...]] | None = None
    tried = 0
    for stream in (name for name in problem.streams if name.startswith("depth:")):
        for T_cam_board in candidate_poses(problem, solution, stream, volume, settings):
            T_cell_board = solution.T_cell_stream[stream] @ T_cam_board
            information, streams = new_information(known, T_cell_board)
            after = known.after(information)
            left = float((criterion * after).sum())
            tried += 1
            if best is None or left < best[0] * (1 - 1e-12):
                best = left, after, stream, T_cell_board, streams
    if best is None:
        raise DepthcellError("guidance: no place in the work volume lets a camera read the board; is it too large?")
    _, after, stream, T_cell_board, streams = best
    now_mm, then_mm = (float(np.sqrt(np.mean(known.u_mm(c) ** 2))) for c in (known.covariance, after))
    enough = then_mm > (1 - settings.worth) * now_mm
    known_to = "the uncertainty at the part by the calibration alone"
    if enough:
        sentence = f"Enough: {known_to} is {now_mm:.2g} mm, and no single pose of the board would take more "
        sentence += f"than {100 * settings.worth:.0f} % off it."
    else:
        T_cam_board = solution.T_cell_stream[stream].inverse() @ T_cell_board
        sentence = f"{pose_in_words(board, solution.streams[stream], stream, T_cam_board)}: {known_to} "
        sentence += f"should fall from {_pair(now_mm, then_mm)} mm."
    return Advice(sentence, stream, T_cell_board, streams, now_mm, then_mm, enough, tried)


def candidate_poses(
    problem: BundleProblem, solution: BundleSolution, stream: str, volume: Volume, settings: GuidanceSettings
) -> list[RigidTransform]:
    """Poses in front of one depth camera that it can read, as T_<stream>_board."""
    board, lens = problem.boards[0], solution.streams[stream]
    T_stream_cell, baseline_m = solution.T_cell_stream[stream].inverse(), baselines(problem)[stream[6:]]
    corners_m = np.array(list(itertools.product(*zip(volume.low_m, volume.high_m, strict=True))))
    z_m = (T_stream_cell @ corners_m)[:, 2]
    near_m = max(float(z_m.min()), 1.05 * lens.fx_px * baseline_m / FULL_DISPARITY_PX)
    distances_m = np.linspace(near_m, max(float(z_m.max()), near_m), settings.distances)
    tilts = [(0.0, 0.0)] if 0.0 in settings.tilts_rad else []
    tilts += [(tilt, turn) for tilt in settings.tilts_rad if tilt for turn in DIRECTIONS.values()]
    found = []
    for z_m_, row, column in itertools.product(distances_m, settings.shares, settings.shares):
        pixel = np.array([column * (lens.width_px - 1), row * (lens.height_px - 1)])
        middle = np.append(lens.normalized(pixel), 1.0) * z_m_
        for tilt_rad, direction_rad in tilts:
            pose = facing_pose(stream, board, middle, tilt_rad, direction_rad)
            if len(visible_features(board, lens, pose)) >= settings.seen_share * len(board.points_board):
                found.append(pose)
    return found


def facing_pose(
    stream: str, board: Board, middle_cam: NDArray[np.float64], tilt_rad: float, direction_rad: float
) -> RigidTransform:
    """A board upright in the image, its middle at `middle_cam`, its face turned; the inverse of `board_aspect`."""
    sight = middle_cam / np.linalg.norm(middle_cam)
    right = np.array([1.0, 0.0, 0.0]) - sight[0] * sight
    right /= np.linalg.norm(right)
    towards = np.array([np.cos(direction_rad), np.sin(direction_rad), 0.0])
    towards -= (towards @ sight) * sight
    axis = np.cross(-sight, towards / np.linalg.norm(towards))
    turn = Rotation.from_rotvec(tilt_rad * axis).as_matrix()
    rotation = turn @ np.stack((right, np.cross(sight, right), sight), axis=1)
    return RigidTransform(stream, "board", rotation, middle_cam - rotation @ board.points_board.mean(axis=0))


def pose_in_words(board: Board, lens: Intrinsics, stream: str, T_cam_board: RigidTransform) -> str:
    """A pose as one tells it to somebody: tilt, distance, place in the image."""
    middle_board = board.points_board.mean(axis=0)
    tilt_rad, direction_rad, distance_m = board_aspect(T_cam_board, middle_board)
    column, row = lens.project(T_cam_board @ middle_board)
    across = COLUMNS[int(np.clip(3 * column / lens.width_px, 0, 2))]
    down = ROWS[int(np.clip(3 * row / lens.height_px, 0, 2))]
    place = f"{down} {across}" if down and across else across or {"upper": "top", "lower": "bottom"}.get(down, "middle")
    tilt_deg = float(np.degrees(tilt_rad))
    if tilt_deg < 5:
        start = "Hold the board facing the camera"
    else:
        off = [abs(np.angle(np.exp(1j * (direction_rad - turn)))) for turn in DIRECTIONS.values()]
        start = f"Tilt the board {tilt_deg:.0f} degrees, its face turned {list(DIRECTIONS)[int(np.argmin(off))]}"
    camera = stream.removeprefix("depth:")
    return f"{start}, at {distance_m:.2f} m, in the {place} of the image of camera {camera}"


def _pair(before: float, after: float) -> str:
    """Two numbers to enough digits to tell them apart."""
    digits = next((d for d in range(2, 6) if f"{before:.{d}g}" != f"{after:.{d}g}"), 6)
    return f"{before:.{digits}g} to {after:.{digits}g}"
