"""What may be wrong with a recording is found and named; what is right is left alone."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rigrecording import COLOR, recorded

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.synthetic_rig import RigSettings, RigTruth
from depthcell.calib.solving.rig import RigRecording
from depthcell.calib.solving.rig_standing import StandingRig
from depthcell.calib.solving.suspicion import Suspected, Suspicion, SuspicionLimits, refuse_suspected, suspect_views
from depthcell.calib.solving.suspicion_bump import find_jumps
from depthcell.calib.solving.suspicion_rig import depth_ratios, suspect_rig
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError

RIG = RigSettings(cameras=3, instants=16, color=COLOR, lens_u=0.01)


def of_views(recording: RigRecording, boards: tuple[Board, ...] | None = None) -> tuple[Suspected, ...]:
    return suspect_views(recording.views, boards or recording.boards, recording.factory)


def kinds(found: tuple[Suspected, ...]) -> set[Suspicion]:
    return {suspected.suspicion for suspected in found}


def standing(recording: RigRecording, truth: RigTruth) -> StandingRig:
    """The rig as a perfect adjustment would have it."""
    return StandingRig(
        recording.boards,
        recording.views,
        truth.streams,
        truth.T_cell_stream,
        truth.T_cell_board,
        recording.T_color_depth,
        recording.depth,
        {serial: recording.factory[f"depth:{serial}"].fx_px * b for serial, b in recording.baselines_m.items()},
    )


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_nothing_is_suspected_of_sound_rigs(seed: int, cameras: int) -> None:
    recording, truth = recorded(seed, replace(RIG, cameras=cameras))
    assert of_views(replace(recording, factory=truth.streams)) == ()
    assert suspect_rig(standing(recording, truth)) == ()


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10_000))
def test_mirrored_images_are_found(seed: int) -> None:
    recording, _ = recorded(seed, RIG)
    views = tuple(
        replace(view, pixels=view.pixels * (-1, 1) + (847, 0)) if view.stream == "depth:001" else view
        for view in recording.views
    )
    (found,) = of_views(replace(recording, views=views))
    assert (found.suspicion, found.stream) == (Suspicion.MIRRORED, "depth:001")
    assert found.sentence.startswith("depth:001: ")
    assert "show the board mirrored; turn mirroring off" in found.sentence


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["charuco:10x6:30mm", "charuco:8x8:30mm"]))
def test_another_board_is_found(seed: int, other: str) -> None:
    recording, _ = recorded(seed, RIG)
    found = of_views(recording, (Board.parse(other),))
    assert kinds(found) == {Suspicion.WRONG_BOARD}
    assert len(found) == 6
    assert all("check --board" in one.sentence for one in found)


def copied(view: BoardView, count: int, noise_px: float) -> tuple[BoardView, ...]:
    rng = np.random.default_rng(1)
    return tuple(
        replace(view, instant=500 + k, pixels=view.pixels + rng.normal(0, 1, view.pixels.shape) * noise_px)
        for k in range(count)
    )


@pytest.mark.parametrize(("noise_px", "words"), [(0.0, "50 of"), (0.1, "frames of one place belong to one instant")])
def test_one_view_fifty_times_is_found(noise_px: float, words: str) -> None:
    recording, _ = recorded(2, RIG)
    view = next(view for view in recording.views if view.stream == "color:002")
    found = of_views(replace(recording, views=(*recording.views, *copied(view, 50, noise_px))))
    assert kinds(found) == {Suspicion.DUPLICATED_VIEWS}
    assert {one.stream for one in found} == {"color:002"}
    assert words in found[0].sentence
    assert of_views(replace(recording, views=(*recording.views, *copied(view, 3, 0.1)))) == ()


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 10_000))
def test_lenses_of_two_cameras_exchanged_are_found(seed: int) -> None:
    recording, truth = recorded(seed, replace(RIG, lens_u=0.03, color=None, tiles=(0, 0)))
    factory = dict(truth.streams)
    assume(abs(factory["depth:000"].fx_px / factory["depth:002"].fx_px - 1) > 0.03)
    factory["depth:000"], factory["depth:002"] = factory["depth:002"], factory["depth:000"]
    (found,) = of_views(replace(recording, factory=factory))
    assert of_views(replace(recording, factory=truth.streams)) == ()
    assert found.suspicion is Suspicion.CAMERAS_SWAPPED
    assert found.sentence.startswith("depth:000 and depth:002: each one's images fit the other's factory intrinsics")


def test_color_recordings_exchanged_are_found() -> None:
    recording, truth = recorded(3, RIG)
    poses = dict(truth.T_cell_stream)
    first, second = poses["color:000"], poses["color:001"]
    poses["color:000"], poses["color:001"] = replace(second, source="color:000"), replace(first, source="color:001")
    found = suspect_rig(replace(standing(recording, truth), T_cell_stream=poses))
    assert kinds(found) == {Suspicion.CAMERAS_SWAPPED}
    assert "color:001 stands where the colour imager of 000 should be" in found[0].sentence
    turned = {**truth.T_cell_stream}
    turned["color:000"] = turned["color:000"].perturbed(np.array([0.1, 0, 0, 0, 0, 0]))
    (alone,) = suspect_rig(replace(standing(recording, truth), T_cell_stream=turned))
    assert "color:000 does not stand to depth:000 as the factory says" in alone.sentence


def scaled(T: RigidTransform, factor: float) -> RigidTransform:
    return replace(T, translation_m=T.translation_m * factor)


@pytest.mark.parametrize("factor", [0.94, 25 / 30, 1.06])
@pytest.mark.parametrize("witness", ["depth", "baseline"])
def test_wrong_square_size_is_found(factor: float, witness: str) -> None:
    """Told a pitch that is `factor` of the true one, a perfect adjustment makes everything smaller by that."""
    recording, truth = recorded(4, RIG)
    rig = standing(recording, truth)
    small = replace(
        rig,
        boards=(replace(rig.boards[0], pitch_m=rig.boards[0].pitch_m * factor, marker_m=None),),
        T_cell_stream={name: scaled(T, factor) for name, T in rig.T_cell_stream.items()},
        T_cell_board={place: scaled(T, factor) for place, T in rig.T_cell_board.items()},
        depth=rig.depth if witness == "depth" else (),
    )
    found = suspect_rig(small)
    if witness == "baseline" and abs(factor - 1) < 0.1:
        assert Suspicion.SQUARE_SIZE not in kinds(found)
        return
    assert kinds(found) >= {Suspicion.SQUARE_SIZE}
    assert "its pitch is about" in found[0].sentence
    measured_mm = float(found[0].sentence.split("about ")[1].split(" mm")[0])
    assert measured_mm == pytest.approx(30.0, rel=0.02)
    assert depth_ratios(rig)["000"] == pytest.approx(1.0, abs=0.02)


def test_one_cameras_own_depth_bias_is_not_the_boards() -> None:
    recording, truth = recorded(4, RIG)
    depth = tuple(
        replace(tiles, disparity_px=tiles.disparity_px / 1.08) if tiles.serial == "001" else tiles
        for tiles in recording.depth
    )
    assert suspect_rig(replace(standing(recording, truth), depth=depth)) == ()


def bumped(recording: RigRecording, truth: RigTruth, serial: str, after: int, twist: np.ndarray) -> RigRecording:
    """One device stands elsewhere from instant `after` on; its views are seen from there."""
    rng = np.random.default_rng(0)
    views = []
    for view in recording.views:
        if view.stream.endswith(serial) and view.instant >= after:
            pose = truth.T_cell_stream[view.stream]
            T_moved = replace(
                pose, rotation=pose.perturbed(twist).rotation, translation_m=pose.translation_m + twist[3:]
            )
            points = recording.boards[0].points_board[view.ids]
            pixels = truth.streams[view.stream].project(T_moved.inverse() @ (truth.T_cell_board[view.place] @ points))
            views.append(replace(view, pixels=pixels + rng.normal(0, 0.1, pixels.shape)))
        else:
            views.append(view)
    return replace(recording, views=tuple(views))


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 11), st.sampled_from(["000", "001", "002"]))
def test_bumped_camera_and_instant_are_named(seed: int, after: int, serial: str) -> None:
    recording, truth = recorded(seed, RIG)
    twist = np.random.default_rng(seed).choice([-1.0, 1.0], 6) * np.array([0.003, 0.003, 0.003, 0.001, 0.001, 0.001])
    (found,) = suspect_rig(standing(bumped(recording, truth, serial, after, twist), truth))
    assert found.suspicion is Suspicion.RIG_BUMPED
    assert found.stream.endswith(serial)
    assert f"camera {serial} moved between instants " in found.sentence
    before, first = (int(word) for word in re.findall(r"\d+", found.sentence.split("instants ")[1])[:2])
    assert before < after <= first


def test_jump_is_measured_in_pixels_and_small_limits_can_be_asked_for() -> None:
    recording, truth = recorded(9, RIG)
    aside_m = 0.0005 * truth.T_cell_stream["depth:001"].rotation[:, 0]
    slight = bumped(recording, truth, "001", 8, np.append(np.zeros(3), aside_m))
    jumps = {(jump.stream, jump.against): jump for jump in find_jumps(standing(slight, truth))}
    for other in ("000", "002"):
        assert jumps["depth:001", other].jump_px == pytest.approx(609 * 0.0005 / 0.5, rel=0.2)
    assert jumps["depth:000", "002"].jump_px < 0.2
    (found,) = suspect_rig(standing(slight, truth))
    assert found.sentence.startswith("camera 001 moved between instants 7 and 8")
    lax = SuspicionLimits(bump_px=5.0)
    assert suspect_rig(standing(slight, truth), lax) == ()


def test_two_cameras_can_not_say_which_one_moved() -> None:
    recording, truth = recorded(9, replace(RIG, cameras=2, color=None))
    (found,) = suspect_rig(standing(bumped(recording, truth, "001", 8, np.full(6, 0.002)), truth))
    assert found.sentence.startswith("one of the cameras 000, 001 moved between instants 7 and 8")


def test_suspicion_refuses_unless_tolerated() -> None:
    found = [Suspected(Suspicion.MIRRORED, "a", "a: mirrored"), Suspected(Suspicion.RIG_BUMPED, "b", "b moved")]
    with pytest.raises(DepthcellError, match="a: mirrored; b moved"):
        refuse_suspected(found)
    with pytest.raises(DepthcellError, match=r"^b moved$"):
        refuse_suspected(found, frozenset({Suspicion.MIRRORED}))
    refuse_suspected(found, frozenset(Suspicion))
    refuse: Callable[..., None] = refuse_suspected
    refuse([])
