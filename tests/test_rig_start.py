"""Start values: two answers of a flat board, chains of cameras, and rigs that hang together or not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigrecording import COLOR, recorded
from scipy.spatial.transform import Rotation

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.synthetic_rig import D415_LIKE, RigSettings, RigTruth
from depthcell.calib.solving.rig import RigRecording
from depthcell.calib.solving.rig_pose import board_poses, is_usable, robust_mean
from depthcell.calib.solving.rig_split import held_out_instants
from depthcell.calib.solving.rig_start import RigInput, RigStart, start_rig, tied_groups
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError

CLEAN = RigSettings(cameras=3, instants=10, tiles=(0, 0), warp_u_m=0.0, board_scale_u=0.0, lens_u=0.0)


def given_of(recording: RigRecording, truth: RigTruth) -> RigInput:
    return RigInput(recording.boards, recording.views, truth.streams, recording.T_color_depth)


def off_m(start: RigStart, truth: RigTruth) -> dict[str, float]:
    """How far each stream's centre is from the truth, start and truth being brought together at the start's origin."""
    T_true_start = truth.T_cell_board[start.origin] @ start.T_cell_board[start.origin].inverse()
    return {
        stream: float(np.linalg.norm(T_true_start @ T.translation_m - truth.T_cell_stream[stream].translation_m))
        for stream, T in start.T_cell_stream.items()
    }


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_start_is_near_the_truth(seed: int, cameras: int) -> None:
    recording, truth = recorded(seed, replace(CLEAN, cameras=cameras))
    start = start_rig(given_of(recording, truth))
    assert max(off_m(start, truth).values()) < 0.01
    assert set(start.T_cell_board) == {view.place for view in recording.views}


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_robust_mean_is_that_of_plain_repeated_weighting(count: int) -> None:
    rng = np.random.default_rng(count)
    poses = [
        RigidTransform.from_rotation_vector(
            "a", "b", np.array([3.0, 0.0, 0.2]) + rng.normal(0, 0.05, 3), rng.normal(0, 0.01, 3)
        )
        for _ in range(count)
    ]
    weights, mean, away_m = np.ones(count), poses[0], np.zeros(count)
    for _ in range(10):
        turn = Rotation.from_matrix([pose.rotation for pose in poses]).mean(weights).as_matrix()
        mean = RigidTransform("a", "b", turn, np.average([p.translation_m for p in poses], axis=0, weights=weights))
        off = [mean.inverse() @ replace(pose, target="a") for pose in poses]
        away_m = np.array([np.linalg.norm(p.translation_m - mean.translation_m) for p in poses]) + 0.5 * np.array(
            [np.linalg.norm(T.rotation_vector_rad) for T in off]
        )
        weights = 1 / np.maximum(away_m, 1e-6 + 0.1 * np.median(away_m))
    found, median_m = robust_mean(poses, 0.5)
    np.testing.assert_allclose(found.matrix, mean.matrix, atol=1e-9)
    assert median_m == pytest.approx(np.median(away_m), abs=1e-7)  # an arc cosine near 1


def test_both_answers_of_a_far_board_are_kept_and_the_other_cameras_decide() -> None:
    board = Board.parse("charuco:5x4:10mm")
    points = board.points_board
    T_a_board = RigidTransform.from_rotation_vector(
        "a", "board", np.array([0.25, 0.05, 0.0]), np.array([0.0, 0.0, 1.2])
    )
    rng = np.random.default_rng(4)
    pixels = D415_LIKE.project(T_a_board @ points) + rng.normal(0, 0.2, (len(points), 2))
    view = BoardView("a", 0, 0, np.arange(len(points)), pixels, 0.2)
    answers = board_poses(view, board, D415_LIKE)
    assert len(answers) == 2
    tilts = [answer.T_stream_board.rotation[2, 1] for answer in answers]
    assert np.prod(np.sign(tilts)) == -1
    near = replace(
        view, pixels=D415_LIKE.project(RigidTransform("a", "board", T_a_board.rotation, np.array([0, 0, 0.1])) @ points)
    )
    assert len(board_poses(near, board, D415_LIKE)) == 1

    small = replace(CLEAN, cameras=4, board="charuco:5x4:10mm", sigma_px=0.3, stated_px=0.3, instants=20)
    recording, truth = recorded(2, small)
    given_ = given_of(recording, truth)
    twofold = [v for v in recording.views if len(board_poses(v, recording.boards[0], truth.streams[v.stream])) == 2]
    assert len(twofold) > 5
    wrong = []
    start = start_rig(given_)
    T_true_start = truth.T_cell_board[start.origin] @ start.T_cell_board[start.origin].inverse()
    for place, pose in start.T_cell_board.items():
        leaning = np.degrees(
            np.arccos(np.clip((T_true_start @ pose).rotation[:, 2] @ truth.T_cell_board[place].rotation[:, 2], -1, 1))
        )
        wrong.append(bool(leaning > 8))
    assert not any(wrong)


def chained(recording: RigRecording, seen_by: dict[str, range]) -> RigRecording:
    return replace(recording, views=tuple(v for v in recording.views if v.instant in seen_by[v.stream]))


def test_cameras_that_never_meet_are_tied_through_others() -> None:
    recording, truth = recorded(1, replace(CLEAN, cameras=4, instants=18))
    names = sorted(truth.streams)
    chain = chained(recording, dict(zip(names, [range(6), range(3, 10), range(7, 14), range(11, 18)], strict=True)))
    seen = {stream: {v.instant for v in chain.views if v.stream == stream} for stream in names}
    assert not seen[names[0]] & seen[names[3]]
    start = start_rig(given_of(chain, truth))
    assert max(off_m(start, truth).values()) < 0.01


def test_untied_rig_is_refused_naming_the_missing_link() -> None:
    recording, truth = recorded(1, replace(CLEAN, cameras=4, instants=12))
    names = sorted(truth.streams)
    split = chained(recording, dict(zip(names, [range(6), range(6), range(6, 12), range(6, 12)], strict=True)))
    with pytest.raises(DepthcellError, match="depth:000,depth:001 and depth:002,depth:003 never see a board") as caught:
        start_rig(given_of(split, truth))
    assert "one of depth:000,depth:001 and one of depth:002,depth:003 see it" in str(caught.value)
    assert [len(group) for group in tied_groups(split.views)] == [2, 2]
    assert len(tied_groups(recording.views)) == 1


def test_factory_transform_ties_a_stream_that_saw_nothing() -> None:
    recording, truth = recorded(5, replace(CLEAN, cameras=2, color=COLOR))
    blind = replace(recording, views=tuple(v for v in recording.views if v.stream != "depth:001"))
    start = start_rig(given_of(blind, truth))
    assert start.factory_tied == ("depth:001",)
    assert off_m(start, truth)["depth:001"] < 0.01
    assert start_rig(given_of(recording, truth)).factory_tied == ()
    with pytest.raises(DepthcellError, match="never see a board"):
        start_rig(replace(given_of(blind, truth), T_color_depth={}, views=(*blind.views, lonely(blind.views[0]))))


def lonely(view: BoardView) -> BoardView:
    return replace(view, stream="depth:001", instant=999)


def test_origin_is_the_users_or_the_first_seen_by_most() -> None:
    recording, truth = recorded(7, CLEAN)
    start = start_rig(given_of(recording, truth))
    counts = {place: sum(v.place == place for v in recording.views) for place in start.T_cell_board}
    assert counts[start.origin] == max(counts.values())
    np.testing.assert_allclose(start.T_cell_board[start.origin].rotation, np.diag([1.0, -1.0, -1.0]))
    pose = RigidTransform("cell", "board", np.eye(3), np.array([0.1, 0.2, 0.3]))
    named = start_rig(given_of(recording, truth), (0, 4), pose)
    assert named.T_cell_board[0, 4] is pose
    with pytest.raises(DepthcellError, match="origin: board 0 at instant 99 was not seen"):
        start_rig(given_of(recording, truth), (0, 99))


def test_views_on_a_line_or_of_too_few_features_are_left_out() -> None:
    board = Board.parse("charuco:9x6:30mm")
    row = np.arange(8)
    assert not is_usable(BoardView("a", 0, 0, row, np.zeros((8, 2)), 0.1), board)
    assert not is_usable(BoardView("a", 0, 0, np.array([0, 1, 8, 9]), np.zeros((4, 2)), 0.1), board)
    assert is_usable(BoardView("a", 0, 0, np.array([0, 1, 2, 8, 9, 10]), np.zeros((6, 2)), 0.1), board)


def test_mean_pose_does_not_mind_outliers() -> None:
    rng = np.random.default_rng(0)
    truth = RigidTransform.from_rotation_vector("a", "b", np.array([0.3, -0.2, 1.0]), np.array([0.1, 0.2, 0.5]))
    good = [truth.perturbed(rng.normal(0, 1e-4, 6)) for _ in range(12)]
    bad = [truth.perturbed(rng.normal(0, 0.3, 6)) for _ in range(8)]
    mean, scatter_m = robust_mean(good + bad, 0.5)
    assert np.linalg.norm(mean.translation_m - truth.translation_m) < 3e-4
    assert scatter_m < 1e-3
    plain = np.mean([pose.translation_m for pose in good + bad], axis=0)
    assert np.linalg.norm(plain - truth.translation_m) > 1e-2


def test_held_out_instants_leave_the_rig_whole() -> None:
    recording, truth = recorded(1, replace(CLEAN, cameras=4, instants=18))
    names = sorted(truth.streams)
    out = held_out_instants(recording.views, 5, (0, 0))
    assert out == {4, 9, 14}
    assert held_out_instants(recording.views, 5, (0, 9)) == {4, 14}
    chain = chained(recording, dict(zip(names, [range(5), range(4, 10), range(9, 18), range(9, 18)], strict=True)))
    assert not held_out_instants(chain.views, 5, (0, 0)) & {4, 9}
    with pytest.raises(DepthcellError, match="hold_out_every"):
        held_out_instants(recording.views, 1, (0, 0))
