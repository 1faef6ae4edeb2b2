"""Random rigs with one fault each, through the whole solution: the fault is named; sound rigs are never suspected."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigrecording import COLOR, recorded

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.synthetic_rig import RigSettings, RigTruth
from depthcell.calib.solving.rig import RigRecording, SolveSettings, solve_rig
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError, Reason

QUICK = SolveSettings(choose_lenses=False, compare_halves=False)
INSTANTS = 20
Fault = Callable[[RigRecording, RigTruth, np.random.Generator], RigRecording]


def rig(seed: int, cameras: int) -> tuple[RigRecording, RigTruth]:
    return recorded(seed, RigSettings(cameras=cameras, instants=INSTANTS, color=COLOR, tiles=(3, 2)))


def seen_from(
    recording: RigRecording, truth: RigTruth, moved: Mapping[str, RigidTransform], rng: np.random.Generator
) -> RigRecording:
    """From half of the instants on, each of some streams (name -> new pose) stands elsewhere."""
    views = [view for view in recording.views if view.stream not in moved or view.instant < INSTANTS // 2]
    points = recording.boards[0].points_board
    for stream, T_cell_stream in moved.items():
        lens = truth.streams[stream]
        for (board, instant), T_cell_board in truth.T_cell_board.items():
            points_cam = T_cell_stream.inverse() @ (T_cell_board @ points)
            if instant < INSTANTS // 2 or points_cam[:, 2].min() < 0.1:
                continue
            pixels = lens.project(points_cam)
            inside = ((pixels > 5) & (pixels < (lens.width_px - 6, lens.height_px - 6))).all(axis=1)
            if inside.sum() >= 8:
                noisy = pixels[inside] + rng.normal(0, 0.1, (int(inside.sum()), 2))
                views.append(BoardView(stream, instant, board, np.flatnonzero(inside), noisy, 0.1))
    devices = {stream.partition(":")[2] for stream in moved}
    depth = [d for d in recording.depth if d.serial not in devices or d.instant < INSTANTS // 2]
    return replace(recording, views=tuple(views), depth=tuple(depth))


def bumped(recording: RigRecording, truth: RigTruth, rng: np.random.Generator) -> RigRecording:
    """Camera 001 is knocked by 4 mm and half a degree in a random direction."""
    ways = rng.normal(size=(2, 3))
    turn, shift = np.array([[0.009], [0.004]]) * ways / np.linalg.norm(ways, axis=1, keepdims=True)
    stands = {name: T for name, T in truth.T_cell_stream.items() if name.endswith(":001")}
    knock = RigidTransform.from_rotation_vector("cell", "cell", turn, np.zeros(3))
    pivot = stands["depth:001"].translation_m
    moved = {
        name: replace(
            T,
            rotation=knock.rotation @ T.rotation,
            translation_m=pivot + shift + knock.rotation @ (T.translation_m - pivot),
        )
        for name, T in stands.items()
    }
    return seen_from(recording, truth, moved, rng)


def changed_places(recording: RigRecording, truth: RigTruth, rng: np.random.Generator) -> RigRecording:
    T = truth.T_cell_stream
    left, right = T["depth:000"], T["depth:001"]
    moved = {"depth:000": replace(right, source="depth:000"), "depth:001": replace(left, source="depth:001")}
    for serial in ("000", "001"):
        T_depth_color = T[f"depth:{serial}"].inverse() @ T[f"color:{serial}"]
        moved[f"color:{serial}"] = moved[f"depth:{serial}"] @ T_depth_color
    return seen_from(recording, truth, moved, rng)


def mirrored(recording: RigRecording, _: RigTruth, __: np.random.Generator) -> RigRecording:
    views = tuple(
        replace(v, pixels=v.pixels * (-1, 1) + (847, 0)) if v.stream == "depth:000" else v for v in recording.views
    )
    return replace(recording, views=views)


def wrongly_sized(recording: RigRecording, _: RigTruth, rng: np.random.Generator) -> RigRecording:
    board, factor = recording.boards[0], rng.choice([0.9, 1 / 1.1, 1.1, 24 / 25.4])
    return replace(recording, boards=(replace(board, pitch_m=board.pitch_m * factor, marker_m=None),))


def another_board(recording: RigRecording, _: RigTruth, __: np.random.Generator) -> RigRecording:
    return replace(recording, boards=(Board.parse("charuco:10x6:30mm"),))


def copied(recording: RigRecording, _: RigTruth, rng: np.random.Generator) -> RigRecording:
    view = recording.views[int(rng.integers(len(recording.views)))]
    return replace(recording, views=(*recording.views, *(replace(view, instant=500 + number) for number in range(50))))


def colors_exchanged(recording: RigRecording, _: RigTruth, __: np.random.Generator) -> RigRecording:
    other = {"color:000": "color:001", "color:001": "color:000"}
    return replace(
        recording, views=tuple(replace(view, stream=other.get(view.stream, view.stream)) for view in recording.views)
    )


FAULTS: list[tuple[Fault, str]] = [
    (bumped, r"moved between instants \d and 1\d: the boards jump"),
    # Two cameras that face each other stand to each other nearly the same when exchanged: it looks like a knock.
    (changed_places, r"cameras 000 and 001 changed places between|one of the cameras 000, 001 moved between"),
    (mirrored, "depth:000: .*show the board mirrored"),
    (wrongly_sized, "its pitch is about (29|30|31).* mm, not .*measure the print and correct --board"),
    (another_board, "does not lie on the grid of board .*check --board"),
    (copied, "50 of .* views are copies of another, as instant"),
    (colors_exchanged, "color:00[01] stands where the colour imager of 00[01] should be"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
@settings(max_examples=3, derandomize=True)
@given(seed=st.integers(0, 10_000), cameras=st.integers(2, 4))
def test_one_fault_in_a_random_rig_is_named(fault: Fault, words: str, seed: int, cameras: int) -> None:
    check(fault, words, seed, cameras)


def test_a_knock_that_only_all_imagers_together_show_is_named() -> None:
    check(bumped, FAULTS[0][1], seed=17338, cameras=2)


@settings(max_examples=3, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_of_three_cameras_two_that_changed_places_are_named(seed: int) -> None:
    check(changed_places, r"cameras 000 and 001 changed places between instants \d and 1\d", seed, cameras=3)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
@settings(max_examples=40, derandomize=True)
@given(seed=st.integers(10_001, 20_000), cameras=st.integers(2, 4))
def test_one_fault_in_many_random_rigs_is_refused(fault: Fault, words: str, seed: int, cameras: int) -> None:
    """Never a cell. Two cameras of which one moved may contradict each other too much for the adjustment to end."""
    check(fault, f"{words}|outliers have not settled .* views contradict each other", seed, cameras)


def check(fault: Fault, words: str, seed: int, cameras: int) -> None:
    recording, truth = rig(seed, cameras)
    with pytest.raises(DepthcellError, match=words) as refused:
        solve_rig(fault(recording, truth, np.random.default_rng(seed)), QUICK)
    assert refused.value.reason is (Reason.CELL_INVALID if "adjustment: " in str(refused.value) else Reason.BAD_INPUT)
    assert "\n" not in str(refused.value)


@settings(max_examples=3, derandomize=True)
@given(seed=st.integers(0, 10_000), cameras=st.integers(2, 4))
def test_a_sound_random_rig_is_not_suspected(seed: int, cameras: int) -> None:
    assert solve_rig(rig(seed, cameras)[0], QUICK).suspected == ()


@pytest.mark.slow
@settings(max_examples=60, derandomize=True)
@given(seed=st.integers(10_001, 20_000), cameras=st.integers(2, 4))
def test_many_sound_random_rigs_are_not_suspected(seed: int, cameras: int) -> None:
    assert solve_rig(rig(seed, cameras)[0], QUICK).suspected == ()
