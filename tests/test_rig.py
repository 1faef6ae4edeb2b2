"""A whole rig solved from views: right, validated, and refused by name where the recording is bad."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigrecording import COLOR, recorded

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.synthetic_rig import RigSettings, RigTruth
from depthcell.calib.solving.intrinsics_choice import REFERENCE
from depthcell.calib.solving.rig import RigRecording, RigSolution, SolveSettings, solve_rig
from depthcell.calib.solving.rig_candidate import as_model
from depthcell.calib.solving.suspicion import Suspicion
from depthcell.calib.target.board import Board
from depthcell.errors import DepthcellError

RIG = RigSettings(cameras=3, instants=20)
CHOOSING = SolveSettings(compare_halves=False, threads=1, folds=3)
QUICK = replace(CHOOSING, choose_lenses=False)


class Solved:
    """One rig with colour streams, solved with everything on."""

    def __init__(self) -> None:
        self.recording, self.truth = recorded(21, replace(RIG, cameras=2, instants=24, color=COLOR))
        self.said: list[tuple[str, float]] = []
        self.solution = solve_rig(self.recording, progress=lambda what, done: self.said.append((what, done)))


@pytest.fixture(scope="module")
def solved() -> Solved:
    return Solved()


def camera_errors_m(solution: RigSolution, truth: RigTruth) -> list[float]:
    """Distances of the cameras' centres from the truth, both seen from the origin's board."""
    origin = solution.start.origin
    T_true_found = truth.T_cell_board[origin] @ solution.bundle.T_cell_board[origin].inverse()
    return [
        float(np.linalg.norm(T_true_found @ T.translation_m - truth.T_cell_stream[stream].translation_m))
        for stream, T in solution.bundle.T_cell_stream.items()
    ]


def test_rig_is_solved_and_validated(solved: Solved) -> None:
    solution = solved.solution
    assert max(camera_errors_m(solution, solved.truth)) < 1.5e-3
    assert set(solution.bundle.streams) == set(solved.truth.streams)
    assert solution.suspected == ()
    assert solution.validation.instants == (4, 9, 14, 19)
    assert not {view.instant for view in solution.problem.views} & {4, 9, 14, 19}
    assert len(solution.validation.streams) == 4
    assert solution.validation.lengths is not None
    assert solution.validation.halves.reason == ""
    assert [check.serial for check in solution.validation.depth] == ["000", "001"]
    assert {choice.stream for choice in solution.choices.values()} == set(solution.bundle.streams)
    fx_px = solution.bundle.streams["depth:000"].fx_px
    assert solution.focal_baseline_m["000"] == pytest.approx(fx_px * 0.055)


def test_progress_is_told_in_order(solved: Solved) -> None:
    done = [share for _, share in solved.said]
    assert done == sorted(done)
    assert solved.said[0] == ("checking views", 0.0)
    assert solved.said[-1] == ("done", 1.0)


def test_cell_stands_on_the_origins_board(solved: Solved) -> None:
    start = solved.solution.start
    np.testing.assert_allclose(start.T_cell_board[start.origin].rotation, np.diag([1.0, -1.0, -1.0]))
    for T in solved.solution.bundle.T_cell_stream.values():
        assert T.translation_m[2] > 0.2


def test_factory_lens_that_predicts_best_is_kept_with_an_honest_uncertainty() -> None:
    recording, truth = recorded(3, replace(RIG, cameras=2, instants=16, tiles=(0, 0), warp_u_m=0.0))
    known = replace(recording, factory=truth.streams)
    solution = solve_rig(known, CHOOSING)
    assert solution.kept_factory
    for stream in solution.kept_factory:
        # in the model in which its uncertainty is known, with coefficients of zero
        assert solution.bundle.streams[stream] == as_model(truth.streams[stream], REFERENCE)
        assert 0 < solution.bundle.u(f"{stream}.fx_px") < 5
    free = solve_rig(known, replace(CHOOSING, hold_factory=False))
    assert free.kept_factory == frozenset()
    for stream in solution.kept_factory:
        assert solution.bundle.u(f"{stream}.fx_px") >= 0.999 * free.bundle.u(f"{stream}.fx_px")


def test_streams_without_factory_lens_start_from_their_size() -> None:
    recording, truth = recorded(5, replace(RIG, tiles=(0, 0)))
    sizes = dict.fromkeys(recording.factory, (848, 480))
    solution = solve_rig(replace(recording, factory={}, sizes_px=sizes), QUICK)
    assert max(camera_errors_m(solution, truth)) < 2e-3
    with pytest.raises(DepthcellError, match="depth:000: neither factory intrinsics nor the image's size are known"):
        solve_rig(replace(recording, factory={}), QUICK)


def test_stream_that_saw_nothing_is_tied_by_the_factory() -> None:
    recording, truth = recorded(6, replace(RIG, cameras=2, color=COLOR, tiles=(0, 0)))
    blind = replace(recording, views=tuple(view for view in recording.views if view.stream.startswith("color:")))
    solution = solve_rig(blind, QUICK)
    assert set(solution.factory_tied) == {"depth:000", "depth:001"}
    for serial in ("000", "001"):
        relative = solution.bundle.T_cell_stream[f"color:{serial}"].inverse() @ solution.factory_tied[f"depth:{serial}"]
        np.testing.assert_allclose(relative.translation_m, recording.T_color_depth[serial].translation_m, atol=1e-12)
    assert truth.streams


def test_too_few_views_say_what_is_missing() -> None:
    recording, _ = recorded(7, replace(RIG, instants=7, tiles=(0, 0)))
    with pytest.raises(DepthcellError, match=r"too little to calibrate with.*more places of the board \(6 of 8\)"):
        solve_rig(recording, QUICK)


def bumped(recording: RigRecording, truth: RigTruth, twist: np.ndarray) -> RigRecording:
    """Camera 001 stands elsewhere from instant 10 on."""
    pose = truth.T_cell_stream["depth:001"]
    T_moved = RigidTransform(
        "cell", "depth:001", pose.perturbed(twist).rotation, np.asarray(pose.translation_m + twist[3:])
    )
    board, lens = recording.boards[0], truth.streams["depth:001"]
    views = [
        replace(
            view,
            pixels=view.pixels
            + lens.project(T_moved.inverse() @ (truth.T_cell_board[view.place] @ board.points_board[view.ids]))
            - lens.project(pose.inverse() @ (truth.T_cell_board[view.place] @ board.points_board[view.ids])),
        )
        if view.stream == "depth:001" and view.instant >= 10
        else view
        for view in recording.views
    ]
    return replace(recording, views=tuple(views))


@pytest.mark.parametrize("size", [1.0, 15.0])
def test_rig_bumped_half_way_is_refused_naming_camera_and_instant(size: float) -> None:
    """From a millimetre and a twentieth of a degree on, to a centimetre and a degree."""
    recording, truth = recorded(8, replace(RIG, tiles=(0, 0)))
    twist = size * np.array([0.0005, -0.001, 0.0008, 0.001, -0.0007, 0.0005])
    with pytest.raises(DepthcellError, match="camera 001 moved between instants 9 and 10"):
        solve_rig(bumped(recording, truth, twist), QUICK)


def test_wrong_square_size_is_refused_with_the_right_one() -> None:
    recording, _ = recorded(9, RIG)
    with pytest.raises(DepthcellError, match=r"by depth its pitch is about (29\.\d|30|30\.\d) mm, not 25 mm"):
        solve_rig(replace(recording, boards=(Board.parse("charuco:9x6:25mm"),)), QUICK)


def test_tolerated_suspicion_is_reported() -> None:
    recording, truth = recorded(8, replace(RIG, tiles=(0, 0)))
    twist = np.array([0.0005, -0.001, 0.0008, 0.001, -0.0007, 0.0005])
    tolerant = replace(QUICK, tolerated=frozenset({Suspicion.RIG_BUMPED}))
    solution = solve_rig(bumped(recording, truth, twist), tolerant)
    assert [found.suspicion for found in solution.suspected] == [Suspicion.RIG_BUMPED]


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_random_rigs_are_solved_within_their_intervals(seed: int, cameras: int) -> None:
    recording, truth = recorded(seed, replace(RIG, cameras=cameras, tiles=(0, 0)))
    solution = solve_rig(recording, QUICK)
    assert solution.suspected == ()
    assert max(camera_errors_m(solution, truth)) < 5e-3
    for stream, lens in solution.bundle.streams.items():
        off_px = abs(lens.fx_px - truth.streams[stream].fx_px)
        assert off_px < 5 * solution.bundle.u(f"{stream}.fx_px") + 0.2
    assert np.median([check.within_95 for check in solution.validation.streams]) > 0.88
