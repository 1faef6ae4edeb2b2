"""What does not fit once cameras and boards stand: board size against depth, mixed-up recordings, a bumped camera."""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[attr-defined]

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.solving.rig_standing import StandingRig
from depthcell.calib.solving.suspicion import Suspected, Suspicion, SuspicionLimits
from depthcell.calib.solving.suspicion_bump import suspect_bump


def suspect_rig(rig: StandingRig, limits: SuspicionLimits | None = None) -> tuple[Suspected, ...]:
    """All suspicions that a standing rig raises.

    A camera that moved half way is adjusted to neither of its places, and its colour imager need then not stand to its
    left one as the factory says: the move is the cause, and is named alone.
    """
    limits = limits or SuspicionLimits()
    size = _square_size(rig, limits)
    if size:
        return (*size, *_factory_mismatch(rig, limits))
    return tuple(suspect_bump(rig, limits) or _factory_mismatch(rig, limits))


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
