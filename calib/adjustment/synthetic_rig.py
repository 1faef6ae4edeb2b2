"""Simulated rigs with known truth: cameras that look into a work volume, boards in it, corners and depth with noise.

Part of the package, since a calibration is judged by what it makes of a rig whose truth is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.adjustment.bundle_blocks import BoardShape
from depthcell.calib.adjustment.bundle_problem import BundleProblem, Place
from depthcell.calib.depthcorrection import FULL_DISPARITY_PX, DepthCorrection
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView, DepthTiles
from depthcell.errors import DepthcellError

D415_LIKE = Intrinsics(848, 480, 609.0, 609.0, 423.5, 239.5)
DISTORTION_SCALES = (0.08, 0.04, 0.001, 0.001, 0.02, 0.05, 0.02, 0.01, 0.001, 0.001, 0.001, 0.001)


@dataclass(frozen=True, slots=True)
class RigSettings:
    """What a simulated rig is like.

    Attributes:
        cameras: how many, evenly around the volume.
        instants: how many times the board is put somewhere.
        board: its text, see `Board.parse`.
        lens: nominal lens of the depth streams.
        color: nominal lens of colour streams; None for cameras without.
        distance_m: from each camera to the middle of the volume.
        elevation_rad: of the cameras above the cell's xy plane.
        spread_m: standard deviation of the board's place about the middle of the volume, each axis.
        tilt_rad: largest tilt of the board away from facing the cameras' mean direction.
        sigma_px: noise of a corner's coordinate.
        stated_px: what the detector says of it.
        outlier_share: share of corners that are shifted by `outlier_px` in a random direction.
        outlier_px: how far.
        warp_u_m, board_scale_u: standard deviations of the board's bends and of its scale.
        baseline_m: of the stereo pairs.
        tiles: columns and rows of depth tiles on each board; (0, 0) leaves depth out.
        tile_sigma_px: noise of a tile's disparity.
        tile_common_px: noise that all tiles of one view share; not stated in `DepthTiles.sigma_px`.
        depth_scale_u, depth_offset_u_px, depth_curvature_u_px, depth_wave_u_px: standard deviations of the true terms.
        distortion: factor on the true coefficients, which are otherwise those of lenses that nobody rectified.
        lens_u: relative standard deviation of true focal lengths about the nominal, and of principal points.
        start_rad, start_m: how far the start is from the truth.
    """

    cameras: int = 4
    instants: int = 30
    board: str = "charuco:9x6:30mm"
    lens: Intrinsics = D415_LIKE
    color: Intrinsics | None = None
    distance_m: float = 0.5
    elevation_rad: float = 0.9
    spread_m: float = 0.04
    tilt_rad: float = 0.6
    sigma_px: float = 0.1
    stated_px: float = 0.1
    outlier_share: float = 0.0
    outlier_px: float = 3.0
    warp_u_m: float = 0.2e-3
    board_scale_u: float = 1e-4
    baseline_m: float = 0.055
    tiles: tuple[int, int] = (6, 4)
    tile_sigma_px: float = 0.03
    tile_common_px: float = 0.0
    depth_scale_u: float = 0.005
    depth_offset_u_px: float = 0.2
    depth_curvature_u_px: float = 0.2
    depth_wave_u_px: float = 0.05
    distortion: float = 1.0
    lens_u: float = 0.005
    start_rad: float = 0.02
    start_m: float = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class RigTruth:
    """What a simulated rig really is.

    Attributes:
        streams: true lenses.
        T_cell_stream, T_cell_board: true poses; the frame "cell" is the board's at the problem's origin.
        warp_m, board_scale: of board 0.
        corrections: true ones, for disparities counted with the true fx.
        outliers: per view, (N,) bool, which corners were shifted.
    """

    streams: Mapping[str, Intrinsics]
    T_cell_stream: Mapping[str, RigidTransform]
    T_cell_board: Mapping[Place, RigidTransform]
    warp_m: NDArray[np.float64]
    board_scale: float
    corrections: Mapping[str, DepthCorrection]
    outliers: tuple[NDArray[np.bool_], ...] = field(default_factory=tuple)


def synthetic_rig(settings: RigSettings, rng: np.random.Generator) -> tuple[BundleProblem, RigTruth]:
    """A problem whose start is a little off, and its truth.

    Raises:
        DepthcellError: the origin is not in view of any camera; the settings describe no working rig.
    """
    board = Board.parse(settings.board)
    truth = _truth(settings, board, rng)
    points = BoardShape(board).points_board(board.points_board[:, :2], truth.warp_m, truth.board_scale)
    views, outliers = [], []
    for stream in truth.streams:
        for place, T_cell_board in truth.T_cell_board.items():
            view, wrong = _seen(settings, truth, stream, place, T_cell_board @ points, rng)
            if view is not None:
                views.append(view)
                outliers.append(wrong)
    truth = replace(truth, outliers=tuple(outliers))
    seen = {view.place for view in views}
    start = _start_lenses(settings, truth)
    depth = [
        tiles
        for view in views
        if min(settings.tiles) > 0 and view.stream.startswith("depth:")
        for tiles in [_measured(settings, board, truth, view, start, rng)]
    ]
    if (0, 0) not in seen:
        raise DepthcellError("synthetic rig: no camera sees the board at the origin; widen the field of view")
    problem = BundleProblem(
        boards=(board,),
        views=tuple(views),
        streams=start,
        T_cell_stream={stream: _jolted(T, settings, rng) for stream, T in truth.T_cell_stream.items()},
        T_cell_board={
            place: T if place == (0, 0) else _jolted(T, settings, rng)
            for place, T in truth.T_cell_board.items()
            if place in seen
        },
        origin=(0, 0),
        depth=tuple(depth),
        baselines_m={stream.removeprefix("depth:"): settings.baseline_m for stream in start if "depth:" in stream},
        board_scale_u=settings.board_scale_u,
    )
    return problem, truth


def true_depth_read_m(
    truth: RigTruth, serial: str, baseline_m: float, pixels: FloatArray, z_m: FloatArray
) -> FloatArray:
    """Depth that a camera reads where the truth is `z_m` (N,) at `pixels` (N, 2): the inverse of its correction."""
    lens, correction = truth.streams[f"depth:{serial}"], truth.corrections[serial]
    focal_baseline_m = lens.fx_px * baseline_m
    wanted_px = correction.scale * focal_baseline_m / z_m
    read_px = wanted_px.copy()
    for _ in range(20):
        read_px = wanted_px - correction.added_px(lens, read_px, pixels)
    return np.asarray(focal_baseline_m / read_px)


def _truth(settings: RigSettings, board: Board, rng: np.random.Generator) -> RigTruth:
    places = {(0, instant): _board_pose(settings, board, instant, rng) for instant in range(settings.instants)}
    T_cell_room = replace(places[0, 0].inverse(), target="cell")
    streams, poses, corrections = {}, {}, {}
    for number in range(settings.cameras):
        serial = f"{number:03d}"
        T_room_depth = _camera_pose(settings, number, rng)
        streams[f"depth:{serial}"] = _true_lens(settings.lens, settings, rng)
        poses[f"depth:{serial}"] = replace(T_cell_room @ T_room_depth, source=f"depth:{serial}")
        if settings.color is not None:
            T_depth_color = RigidTransform.from_rotation_vector(
                "camera", "color", rng.normal(0, 0.005, 3), np.array([0.015, 0, 0]) + rng.normal(0, 0.0005, 3)
            )
            streams[f"color:{serial}"] = _true_lens(settings.color, settings, rng)
            poses[f"color:{serial}"] = replace(T_cell_room @ T_room_depth @ T_depth_color, source=f"color:{serial}")
        corrections[serial] = _true_correction(settings, rng)
    return RigTruth(
        streams=streams,
        T_cell_stream=poses,
        T_cell_board={place: replace(T_cell_room @ T, source="board") for place, T in places.items()},
        warp_m=rng.normal(0, settings.warp_u_m, 2),
        board_scale=float(rng.normal(1, settings.board_scale_u)),
        corrections=corrections,
    )


def _camera_pose(settings: RigSettings, number: int, rng: np.random.Generator) -> RigidTransform:
    """A camera on a circle about the middle of the volume, which it looks at; frame "room" has z up."""
    turn = 2 * np.pi * number / settings.cameras + rng.normal(0, 0.05)
    rise = settings.elevation_rad + rng.normal(0, 0.05)
    away = np.array([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)])
    position = settings.distance_m * (1 + rng.normal(0, 0.02)) * away
    forward = -position / np.linalg.norm(position) + rng.normal(0, 0.02, 3)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    return RigidTransform("room", "camera", np.stack((right, np.cross(forward, right), forward), axis=1), position)


def _board_pose(settings: RigSettings, board: Board, instant: int, rng: np.random.Generator) -> RigidTransform:
    """A board somewhere in the volume, its face up or towards one of the cameras, tilted and turned at random."""
    middle = board.points_board.mean(axis=0)
    lean = rng.uniform(0, settings.tilt_rad) if instant else 0.0
    about = rng.uniform(0, 2 * np.pi)
    tilted = RigidTransform.from_rotation_vector(
        "room", "up", lean * np.array([np.cos(about), np.sin(about), 0.0]), np.zeros(3)
    )
    turned = RigidTransform.from_rotation_vector("up", "flat", np.array([0, 0, rng.uniform(0, 2 * np.pi)]), np.zeros(3))
    over = RigidTransform("flat", "board", np.diag([1.0, -1.0, -1.0]), np.zeros(3))  # its z points away from viewers
    pose = tilted @ turned @ over
    place = rng.normal(0, settings.spread_m, 3) if instant else np.zeros(3)
    return RigidTransform("room", "board", pose.rotation, place - pose.rotation @ middle)


def _true_lens(nominal: Intrinsics, settings: RigSettings, rng: np.random.Generator) -> Intrinsics:
    u = settings.lens_u
    focal = rng.normal(1, u) * (1 + rng.normal(0, u / 10, 2))
    center = rng.normal(0, u * nominal.width_px, 2)
    count = nominal.distortion.coefficient_count
    scales = settings.distortion * np.array(DISTORTION_SCALES[:count]) * (nominal.distortion is not Distortion.NONE)
    return replace(
        nominal,
        fx_px=float(nominal.fx_px * focal[0]),
        fy_px=float(nominal.fy_px * focal[1]),
        cx_px=float(nominal.cx_px + center[0]),
        cy_px=float(nominal.cy_px + center[1]),
        coefficients=tuple(float(value) for value in rng.uniform(-1, 1, count) * scales),
    )


def _true_correction(settings: RigSettings, rng: np.random.Generator) -> DepthCorrection:
    wave = rng.normal(0, settings.depth_wave_u_px, (3, 4))
    wave[0, 0] = 0.0
    return DepthCorrection(
        scale=float(rng.normal(1, settings.depth_scale_u)),
        disparity_offset_px=float(rng.normal(0, settings.depth_offset_u_px)),
        curvature_px=float(rng.normal(0, settings.depth_curvature_u_px)),
        wave_px=tuple(tuple(float(value) for value in row) for row in wave),
    )


def _start_lenses(settings: RigSettings, truth: RigTruth) -> dict[str, Intrinsics]:
    nominal = {"depth": settings.lens, "color": settings.color or settings.lens}
    return {stream: nominal[stream.split(":")[0]] for stream in truth.streams}


def _seen(
    settings: RigSettings,
    truth: RigTruth,
    stream: str,
    place: Place,
    points_cell: FloatArray,
    rng: np.random.Generator,
) -> tuple[BoardView | None, NDArray[np.bool_]]:
    """What one imager finds of the board: corners inside the image, if at least 8, on a face turned towards it."""
    lens, T_stream_cell = truth.streams[stream], truth.T_cell_stream[stream].inverse()
    points_cam = T_stream_cell @ points_cell
    pixels = lens.project(points_cam)
    inside = (pixels > 5).all(axis=1) & (pixels < (lens.width_px - 6, lens.height_px - 6)).all(axis=1)
    facing = T_stream_cell.rotate(truth.T_cell_board[place].rotation[:, 2])
    ids = np.flatnonzero(inside)
    middle = points_cam.mean(axis=0)
    if len(ids) < 8 or facing @ middle < 0.35 * np.linalg.norm(middle):
        return None, np.zeros(0, np.bool_)
    found = pixels[ids] + rng.normal(0, settings.sigma_px, (len(ids), 2)) if settings.sigma_px else pixels[ids]
    wrong = rng.uniform(size=len(ids)) < settings.outlier_share
    turn = rng.uniform(0, 2 * np.pi, len(ids))
    found = found + (wrong * settings.outlier_px)[:, None] * np.stack((np.cos(turn), np.sin(turn)), axis=1)
    return BoardView(stream, place[1], place[0], ids.astype(np.int64), found, settings.stated_px), wrong


def _measured(
    settings: RigSettings,
    board: Board,
    truth: RigTruth,
    view: BoardView,
    start: Mapping[str, Intrinsics],
    rng: np.random.Generator,
) -> DepthTiles:
    """Depth at nominal positions on the board's face, as the camera reads it."""
    serial = view.stream.removeprefix("depth:")
    lens = truth.streams[view.stream]
    flat = board.points_board[view.ids, :2]
    low, high = flat.min(axis=0), flat.max(axis=0)
    share = [(np.arange(count) + 0.5) / count for count in settings.tiles]
    grid = np.stack(np.meshgrid(*share, indexing="ij"), axis=-1).reshape(-1, 2)
    points = BoardShape(board).points_board(low + grid * (high - low), truth.warp_m, truth.board_scale)
    points_cam = truth.T_cell_stream[view.stream].inverse() @ (truth.T_cell_board[view.place] @ points)
    pixels = lens.project(points_cam)
    kept = (pixels > 0).all(axis=1) & (pixels < (lens.width_px - 1, lens.height_px - 1)).all(axis=1)
    pixels, z_m = pixels[kept], points_cam[kept, 2]
    read_m = true_depth_read_m(truth, serial, settings.baseline_m, pixels, z_m)
    sigma = np.full(len(z_m), settings.tile_sigma_px or 0.01)
    noise = rng.normal(0, 1, len(z_m)) * settings.tile_sigma_px + rng.normal(0, 1) * settings.tile_common_px
    disparity = start[view.stream].fx_px * settings.baseline_m / read_m + noise
    return DepthTiles(serial, view.instant, view.board, pixels, disparity, sigma)


def _jolted(transform: RigidTransform, settings: RigSettings, rng: np.random.Generator) -> RigidTransform:
    """The transform, turned about its source's own origin and shifted, both at random."""
    turn = RigidTransform.from_rotation_vector(
        transform.source, transform.source, rng.normal(0, settings.start_rad, 3), np.zeros(3)
    )
    jolted = transform @ turn
    return replace(jolted, translation_m=jolted.translation_m + rng.normal(0, settings.start_m, 3))


__all__ = ["D415_LIKE", "FULL_DISPARITY_PX", "RigSettings", "RigTruth", "synthetic_rig", "true_depth_read_m"]
