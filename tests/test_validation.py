"""Figures on held-out views: what they count, and that they notice what is wrong."""

from dataclasses import replace

import numpy as np
import pytest
from rigrecording import recorded

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSolution, solve_bundle
from depthcell.calib.adjustment.synthetic_rig import RigSettings, RigTruth
from depthcell.calib.solving.validation import (
    HeldOutPlace,
    by_place,
    check_depth,
    check_streams,
    place_jacobians,
    refit_place,
    stream_jacobians,
    twist_jacobian,
)
from depthcell.calib.solving.validation_halves import compare_halves, split_problem
from depthcell.calib.solving.validation_lengths import check_lengths, far_pairs, measure_corners
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError

RIG = RigSettings(cameras=3, instants=26, board_scale_u=0.0)


class Case:
    """A rig solved without every fifth instant."""

    def __init__(self, seed: int) -> None:
        recording, self.truth = recorded(seed, RIG)
        self.boards = recording.boards
        self.out = tuple(view for view in recording.views if view.instant % 5 == 4)
        self.views = tuple(view for view in recording.views if view.instant % 5 != 4)
        self.depth = recording.depth
        self.focal_baseline_m = {s: recording.factory[f"depth:{s}"].fx_px * b for s, b in recording.baselines_m.items()}
        places = {view.place for view in self.views}
        self.problem = BundleProblem(
            boards=recording.boards,
            views=self.views,
            streams=recording.factory,
            T_cell_stream=self.truth.T_cell_stream,
            T_cell_board={place: T for place, T in self.truth.T_cell_board.items() if place in places},
            origin=(0, 0),
            depth=tuple(tiles for tiles in recording.depth if tiles.place in places),
            baselines_m=recording.baselines_m,
        )
        self.solution = solve_bundle(self.problem)
        self.places = self.refitted(self.solution)

    def refitted(self, solution: BundleSolution) -> list[HeldOutPlace]:
        near = np.array([0.01, -0.01, 0.02, 0.003, -0.002, 0.004])
        return [
            refit_place(solution, self.boards, views, self.truth.T_cell_board[place].perturbed(near))
            for place, views in by_place(self.out).items()
        ]


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(11)


def test_held_out_residuals_are_the_noise(case: Case) -> None:
    checks = check_streams(case.solution, case.views, case.places)
    assert {check.stream for check in checks} == set(case.truth.streams)
    for check in checks:
        assert check.rms_px == pytest.approx(0.1, rel=0.15)
        assert check.fit_rms_px == pytest.approx(0.1, rel=0.1)
        assert 0.90 < check.within_95 < 0.985
        assert check.outliers == 0
        assert check.rms_mm == pytest.approx(1e3 * check.rms_px * 0.5 / 609, rel=0.2)


def test_wrong_pose_of_a_camera_shows(case: Case) -> None:
    stream = "depth:001"
    off = case.solution.T_cell_stream[stream].perturbed(np.array([0.001, 0, 0, 0.0005, 0, 0]))
    bent = replace(case.solution, T_cell_stream={**case.solution.T_cell_stream, stream: off})
    places = case.refitted(bent)
    checks = check_streams(bent, case.views, places)
    assert max(check.rms_px for check in checks) > 0.2
    assert min(check.within_95 for check in checks) < 0.85
    lengths, sound = check_lengths(bent, case.boards, places), check_lengths(case.solution, case.boards, case.places)
    assert lengths is not None
    assert sound is not None
    assert lengths.rms_mm > 1.3 * sound.rms_mm
    assert lengths.within_95 < sound.within_95


def test_wrong_corner_is_counted_and_does_not_drag_the_board(case: Case) -> None:
    views = by_place(case.out)[(0, 4)]
    pixels = views[0].pixels.copy()
    pixels[7] += (9.0, -7.0)
    place = refit_place(
        case.solution, case.boards, [replace(views[0], pixels=pixels), *views[1:]], case.places[0].T_cell_board
    )
    assert list(np.flatnonzero(~place.inliers[0])) == [7]
    moved_m = np.linalg.norm(place.T_cell_board.translation_m - case.places[0].T_cell_board.translation_m)
    assert moved_m < 2e-4


def test_lengths_hold_their_intervals(case: Case) -> None:
    check = check_lengths(case.solution, case.boards, case.places)
    assert check is not None
    assert check.places == 5
    assert 100 < check.mean_length_mm < 260
    assert check.rms_mm < 0.2
    assert 0.5 < check.rms_mm / check.u_mm < 1.6
    assert check.within_95 > 0.85
    assert abs(check.scale) < 5 * check.scale_u + 1e-4
    one = next(place for place in case.places if len(place.views) > 1)
    lone = HeldOutPlace(one.T_cell_board, one.views[:1], one.residuals_px[:1], one.deviates[:1], one.inliers[:1])
    assert check_lengths(case.solution, case.boards, [lone]) is None


def test_too_large_a_rig_reads_too_long(case: Case) -> None:
    grown = replace(
        case.solution,
        T_cell_stream={
            s: replace(T, translation_m=1.002 * T.translation_m) for s, T in case.solution.T_cell_stream.items()
        },
    )
    places = [
        replace(p, T_cell_board=replace(p.T_cell_board, translation_m=1.002 * p.T_cell_board.translation_m))
        for p in case.places
    ]
    check = check_lengths(grown, case.boards, places)
    assert check is not None
    assert check.scale == pytest.approx(0.002, rel=0.15)
    assert check.within_95 < 0.5


def test_measured_corners_are_where_they_are(case: Case) -> None:
    corners = measure_corners(case.solution, case.places[0])
    assert corners is not None
    true = case.truth.T_cell_board[0, 4] @ case.boards[0].points_board[corners.ids]
    assert np.linalg.norm(corners.points_cell - true, axis=1).max() < 0.0012
    assert np.sqrt(np.trace(corners.covariance_m2, axis1=1, axis2=2)).max() < 5e-4


def test_pairs_are_far_apart_and_use_each_point_once(case: Case) -> None:
    points = case.boards[0].points_board
    first, second = far_pairs(points)
    assert len(set(first.tolist()) | set(second.tolist())) == 2 * len(first)
    length = np.linalg.norm(points[first] - points[second], axis=1)
    assert length.min() >= length.max() / 2
    assert length.max() == pytest.approx(np.linalg.norm(points[0] - points[-1]))


def test_depth_is_better_after_correction_on_boards_not_seen(case: Case) -> None:
    poses = {place.views[0].place: place.T_cell_board for place in case.places}
    ratio = {
        s: case.solution.streams[f"depth:{s}"].fx_px / case.problem.streams[f"depth:{s}"].fx_px
        for s in ("000", "001", "002")
    }
    depth = [
        replace(
            tiles, disparity_px=tiles.disparity_px * ratio[tiles.serial], sigma_px=tiles.sigma_px * ratio[tiles.serial]
        )
        for tiles in case.depth
        if tiles.place in poses
    ]
    focal_m = {serial: value * ratio[serial] for serial, value in case.focal_baseline_m.items()}
    checks = check_depth(case.solution, case.boards, depth, poses, focal_m)
    assert [check.serial for check in checks] == ["000", "001", "002"]
    for check in checks:
        assert abs(check.bias_after_mm) < 0.15
        assert check.rms_after_mm < 0.4
    assert max(check.rms_before_mm for check in checks) > 1.0


def test_derivatives_are_those_of_differences(case: Case) -> None:
    views = by_place(case.out)[(0, 4)]
    T_cell_board = case.places[0].T_cell_board
    by_pose, by_shared = place_jacobians(case.solution, case.boards, views, T_cell_board)
    step, name = 1e-6, f"{views[0].stream}.ty_m"
    twist = np.array([0, 0, 0, 0, step, 0.0])
    moved = replace(
        case.solution,
        T_cell_stream={
            **case.solution.T_cell_stream,
            views[0].stream: case.solution.T_cell_stream[views[0].stream].perturbed(twist),
        },
    )
    change = (projected(moved, case, views, T_cell_board) - projected(case.solution, case, views, T_cell_board)) / step
    np.testing.assert_allclose(by_shared[:, case.solution.parameter_names.index(name)], change, atol=1e-2)
    for axis in range(6):
        twist = np.zeros(6)
        twist[axis] = step
        shifted = projected(case.solution, case, views, T_cell_board.perturbed(twist))
        change = (shifted - projected(case.solution, case, views, T_cell_board)) / step
        np.testing.assert_allclose(by_pose[:, axis], change, atol=1e-2)


def projected(solution: BundleSolution, case: Case, views: list[BoardView], T_cell_board: RigidTransform) -> np.ndarray:
    place = refit_free(solution, case, views, T_cell_board)
    return np.concatenate([rows.ravel() for rows in place])


def refit_free(
    solution: BundleSolution, case: Case, views: list[BoardView], T_cell_board: RigidTransform
) -> list[np.ndarray]:
    from depthcell.calib.solving.validation import board_points

    return [
        solution.streams[view.stream].project(
            solution.T_cell_stream[view.stream].inverse()
            @ (T_cell_board @ board_points(solution, case.boards, view.board, view.ids))
        )
        for view in views
    ]


def test_twist_moves_points_as_perturbed_does() -> None:
    rng = np.random.default_rng(0)
    points, twist = rng.normal(0, 1, (5, 3)), 1e-6 * rng.normal(0, 1, 6)
    still = RigidTransform.identity("a", "b")
    np.testing.assert_allclose(still.perturbed(twist) @ points - points, twist_jacobian(points) @ twist, atol=1e-11)


def test_halves_differ_by_what_is_predicted(case: Case) -> None:
    halves = compare_halves(case.problem, case.solution)
    assert halves.reason == ""
    assert 0.6 < halves.consistency < 1.6
    assert {check.stream for check in halves.streams} == set(case.truth.streams)
    for check in halves.streams:
        assert 0.3 < check.distance_m < 0.7
        assert check.seen_rms_mm == pytest.approx(1e3 * check.seen_rms_px * check.distance_m / 609, rel=0.03)


def test_halves_of_a_bumped_rig_differ_by_more(case: Case) -> None:
    """Every other instant one camera stands 1 mm aside: what two recordings before and after would show."""
    views = tuple(
        shifted(view, case.truth) if view.stream == "depth:001" and odd(case, view) else view for view in case.views
    )
    halves = compare_halves(replace(case.problem, views=views), case.solution)
    assert halves.consistency > 3


def odd(case: Case, view: BoardView) -> bool:
    return sorted({v.instant for v in case.views}).index(view.instant) % 2 == 1


def shifted(view: BoardView, truth: RigTruth) -> BoardView:
    pose = truth.T_cell_stream[view.stream]
    depth_m = (pose.inverse() @ truth.T_cell_board[view.place]).translation_m[2]
    return replace(view, pixels=view.pixels + np.array([609 * 0.001 / depth_m, 0.0]))


def test_too_few_views_for_halves_are_said(case: Case) -> None:
    few = tuple(view for view in case.views if view.instant < 8)
    with pytest.raises(DepthcellError, match=r"depth:000 has \d views in one half, at least 6 are needed"):
        split_problem(replace(case.problem, views=few, depth=()), case.solution)
    assert "has" in compare_halves(replace(case.problem, views=few, depth=()), case.solution).reason


def test_points_far_outside_have_no_jacobian_of_other_streams(case: Case) -> None:
    _, shared = stream_jacobians(case.solution, "depth:000", case.truth.T_cell_board[0, 0].translation_m[None])
    others = [k for k, name in enumerate(case.solution.parameter_names) if not name.startswith("depth:000.")]
    assert not shared[:, :, others].any()
