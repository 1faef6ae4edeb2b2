"""What does not fit once cameras and boards stand: board size against depth, mixed-up recordings, a bumped camera."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[attr-defined]

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.board import Board
from depthcell.calib.boardview import BoardView, DepthTiles
from depthcell.calib.bundle_problem import Place
from depthcell.calib.rig_pose import nearest_pose, robust_mean
from depthcell.calib.suspicion import Suspected, Suspicion, SuspicionLimits

LEAST_SIDE = 3
"""Views there must be before and after a jump."""


@dataclass(frozen=True, slots=True, eq=False)
class StandingRig:
    """A rig as start values or an adjustment have it.

    Attributes:
        boards: board number -> board.
        views: all views, those held out too.
        streams: stream -> lens.
        T_cell_stream, T_cell_board: poses of streams and of boards at their places.
        T_color_depth: serial -> the factory's transform.
        depth: depth on boards.
        focal_baseline_m: serial -> product f B in px m with which `depth` was counted.
    """

    boards: tuple[Board, ...]
    views: tuple[BoardView, ...]
    streams: Mapping[str, Intrinsics]
    T_cell_stream: Mapping[str, RigidTransform]
    T_cell_board: Mapping[Place, RigidTransform]
    T_color_depth: Mapping[str, RigidTransform] = field(default_factory=dict)
    depth: tuple[DepthTiles, ...] = ()
    focal_baseline_m: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Jump:
    """The likeliest instant at which a camera moved.

    Attributes:
        stream: whose image.
        before, after: last instant before, first one after.
        jump_px: by how much its image of the boards moved against what the others say.
        over_error: the jump over its standard error.
        over_scatter: the jump over the scatter on either side.
    """

    stream: str
    before: int
    after: int
    jump_px: float
    over_error: float
    over_scatter: float


def suspect_rig(rig: StandingRig, limits: SuspicionLimits | None = None) -> tuple[Suspected, ...]:
    """All suspicions that a standing rig raises."""
    limits = limits or SuspicionLimits()
    found = [*_square_size(rig, limits), *_factory_mismatch(rig, limits)]
    return tuple(found or _bumped(rig, limits))


def depth_ratios(rig: StandingRig) -> dict[str, float]:
    """Serial -> median of depth as read over depth of the board's face, where board and pitch put it."""
    ratios: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for tiles in rig.depth:
        stream = f"depth:{tiles.serial}"
        if stream in rig.streams and tiles.place in rig.T_cell_board:
            T_stream_board = rig.T_cell_stream[stream].inverse() @ rig.T_cell_board[tiles.place]
            normal = T_stream_board.rotation[:, 2]
            ideal = rig.streams[stream].normalized(tiles.pixels)
            along = np.c_[ideal, np.ones(len(ideal))] @ normal
            face_m = float(normal @ T_stream_board.translation_m) / along
            ratios[tiles.serial].append(rig.focal_baseline_m[tiles.serial] / tiles.disparity_px / face_m)
    return {serial: float(np.median(np.concatenate(parts))) for serial, parts in ratios.items()}


def _square_size(rig: StandingRig, limits: SuspicionLimits) -> list[Suspected]:
    """Depth and the factory's baselines know metres too: where all of them contradict the board, the board is wrong."""
    depth = np.array(list(depth_ratios(rig).values()))
    baselines = [
        float(np.linalg.norm(factory.translation_m) / np.linalg.norm(_color_depth(rig, serial).translation_m))
        for serial, factory in rig.T_color_depth.items()
        if _has_both(rig, serial) and _alike(factory, _color_depth(rig, serial), limits.factory_turn_rad)
    ]
    if len(depth):
        ratio, limit, witness = float(np.median(depth)), limits.depth_scale, "depth"
        agree = np.ptp(depth) < abs(ratio - 1)
    elif baselines:
        ratio, limit, witness = (
            float(np.median(baselines)),
            limits.factory_baseline,
            "the distance between colour and depth imager",
        )
        agree = np.ptp(baselines) < abs(ratio - 1)
    else:
        return []
    if abs(ratio - 1) <= limit or not agree:
        return []
    pitch_mm = 1e3 * rig.boards[0].pitch_m
    sentence = (
        f"board 0: by {witness} its pitch is about {pitch_mm * ratio:.3g} mm, not {pitch_mm:.3g} mm; "
        "measure the print and correct --board"
    )
    return [Suspected(Suspicion.SQUARE_SIZE, "", sentence)]


def _factory_mismatch(rig: StandingRig, limits: SuspicionLimits) -> list[Suspected]:
    """Colour streams that stand to another device's depth stream as the factory says, not to their own."""
    serials = [serial for serial in rig.T_color_depth if _has_both(rig, serial)]
    off = [serial for serial in serials if not _is_factory(rig, serial, serial, limits)]
    if not off:
        return []
    cost = np.array([[_factory_distance_m(rig, depth, color) for color in serials] for depth in serials])
    rows, columns = linear_sum_assignment(cost)
    partner = {serials[row]: serials[column] for row, column in zip(rows, columns, strict=True)}
    found = []
    for serial in off:
        other = partner[serial]
        if other != serial and _is_factory(rig, serial, other, limits):
            what = f"color:{other} stands where the colour imager of {serial} should be"
        else:
            what = f"color:{serial} does not stand to depth:{serial} as the factory says"
        sentence = f"{what}; check which recording is of which camera"
        found.append(Suspected(Suspicion.CAMERAS_SWAPPED, f"color:{serial}", sentence))
    return found


def _has_both(rig: StandingRig, serial: str) -> bool:
    return f"depth:{serial}" in rig.T_cell_stream and f"color:{serial}" in rig.T_cell_stream


def _color_depth(rig: StandingRig, depth_serial: str, color_serial: str | None = None) -> RigidTransform:
    color = rig.T_cell_stream[f"color:{color_serial or depth_serial}"]
    return color.inverse() @ rig.T_cell_stream[f"depth:{depth_serial}"]


def _turn_rad(first: RigidTransform, second: RigidTransform) -> float:
    cosine = (np.trace(first.rotation.T @ second.rotation) - 1) / 2
    return float(np.arccos(np.clip(cosine, -1, 1)))


def _alike(first: RigidTransform, second: RigidTransform, turn_rad: float) -> bool:
    return _turn_rad(first, second) < turn_rad


def _is_factory(rig: StandingRig, depth_serial: str, color_serial: str, limits: SuspicionLimits) -> bool:
    measured, factory = _color_depth(rig, depth_serial, color_serial), rig.T_color_depth[depth_serial]
    near = float(np.linalg.norm(measured.translation_m - factory.translation_m)) < limits.factory_shift_m
    return near and _alike(measured, factory, limits.factory_turn_rad)


def _factory_distance_m(rig: StandingRig, depth_serial: str, color_serial: str) -> float:
    measured, factory = _color_depth(rig, depth_serial, color_serial), rig.T_color_depth[depth_serial]
    return float(np.linalg.norm(measured.translation_m - factory.translation_m)) + 0.5 * _turn_rad(measured, factory)


def _bumped(rig: StandingRig, limits: SuspicionLimits) -> list[Suspected]:
    jumps = find_jumps(rig)
    beyond = [
        jump
        for jump in jumps
        if jump.jump_px > limits.bump_px
        and jump.over_error > limits.bump_sigmas
        and jump.over_scatter > limits.bump_effect
    ]
    if not beyond:
        return []
    worst = max(beyond, key=lambda jump: jump.jump_px)
    devices = sorted({view.stream.partition(":")[2] for view in rig.views})
    who = f"camera {worst.stream.partition(':')[2]}" if len(devices) > 2 else f"one of the cameras {', '.join(devices)}"
    sentence = (
        f"{who} moved between instants {worst.before} and {worst.after}: the boards jump by {worst.jump_px:.2f} px in "
        f"{worst.stream}, {worst.over_error:.0f} standard errors; fix it and record anew"
    )
    return [Suspected(Suspicion.RIG_BUMPED, worst.stream, sentence)]


def find_jumps(rig: StandingRig) -> list[Jump]:
    """For each stream the likeliest instant at which it moved, however likely that is.

    The boards' poses as all other devices see them are projected into the stream; how far its own features lie from
    there, as shift, magnification and turn in the image (all in px), is a series over instants. The split is taken at
    which the medians before and after differ most against their standard error, 1.2533 s sqrt(1/n + 1/m), s being
    1.4826 times the median absolute deviation on the side where it is larger, or a third of a corner's noise.
    """
    own = {(view.stream, view.place): _own_pose(rig, view) for view in rig.views if view.place in rig.T_cell_board}
    offsets: dict[str, list[tuple[int, NDArray[np.float64]]]] = defaultdict(list)
    by_place: dict[Place, list[str]] = defaultdict(list)
    for stream, place in own:
        by_place[place].append(stream)
    one_device = len({stream.partition(":")[2] for stream, _ in own}) == 1
    for view in rig.views:
        others = [
            rig.T_cell_stream[stream] @ own[stream, view.place]
            for stream in by_place[view.place]
            if stream != view.stream and (one_device or not _same_device(stream, view.stream))
        ]
        if others:
            reach_m = float(np.linalg.norm(own[view.stream, view.place].translation_m))
            predicted = rig.T_cell_stream[view.stream].inverse() @ robust_mean(others, reach_m)[0]
            offsets[view.stream].append((view.instant, _offset_px(rig, view, predicted)))
    sigma_px = {view.stream: view.sigma_px for view in rig.views}
    jumps = [
        _largest_jump(stream, sorted(series, key=lambda item: item[0]), sigma_px[stream] / 3)
        for stream, series in offsets.items()
    ]
    return [jump for jump in jumps if jump is not None]


def _same_device(first: str, second: str) -> bool:
    return first.partition(":")[2] == second.partition(":")[2]


def _own_pose(rig: StandingRig, view: BoardView) -> RigidTransform:
    near = rig.T_cell_stream[view.stream].inverse() @ rig.T_cell_board[view.place]
    return nearest_pose(view, rig.boards[view.board], rig.streams[view.stream], near)


def _offset_px(rig: StandingRig, view: BoardView, T_stream_board: RigidTransform) -> NDArray[np.float64]:
    """Similarity (4,) from predicted to seen features, in px: shift x and y, and radius times growth and turn."""
    points = rig.boards[view.board].points_board[view.ids]
    predicted = rig.streams[view.stream].project(T_stream_board @ points)
    shift = view.pixels - predicted
    arms = predicted - predicted.mean(axis=0)
    radius = float(np.sqrt(np.mean(np.sum(arms**2, axis=1))))
    turned = np.stack((-arms[:, 1], arms[:, 0]), axis=1)
    growth, turn = (float(np.sum(part * shift)) / (len(arms) * radius) for part in (arms, turned))
    return np.array([*np.median(shift, axis=0), growth, turn])


def _largest_jump(stream: str, series: Sequence[tuple[int, NDArray[np.float64]]], least_px: float) -> Jump | None:
    instants = [instant for instant, _ in series]
    offsets = np.array([offset for _, offset in series])
    best: Jump | None = None
    for split in range(LEAST_SIDE, len(series) - LEAST_SIDE + 1):
        if instants[split] == instants[split - 1]:
            continue
        first, second = offsets[:split], offsets[split:]
        jump_px = np.abs(np.median(second, axis=0) - np.median(first, axis=0))
        scatter_px = np.maximum(1.4826 * np.maximum(_deviation(first), _deviation(second)), least_px)
        error_px = 1.2533 * scatter_px * np.sqrt(1 / len(first) + 1 / len(second))
        which = int(np.argmax(jump_px / error_px))
        found = Jump(
            stream,
            instants[split - 1],
            instants[split],
            float(jump_px[which]),
            float(jump_px[which] / error_px[which]),
            float(jump_px[which] / scatter_px[which]),
        )
        if best is None or found.over_error > best.over_error:
            best = found
    return best


def _deviation(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median absolute deviation of each column."""
    return np.asarray(np.median(np.abs(offsets - np.median(offsets, axis=0)), axis=0))
