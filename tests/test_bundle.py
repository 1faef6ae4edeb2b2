"""Bundle adjustment on simulated rigs: truth, invariances, outliers, covariance against a dense twin, refusals."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from depthcell.acquisition.intrinsics import Distortion
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSettings, BundleSolution, solve_bundle
from depthcell.calib.adjustment.bundle_adjustment import Adjustment
from depthcell.calib.adjustment.bundle_coverage import motion_between, rig_errors
from depthcell.calib.adjustment.bundle_normal import CommonError, information_of
from depthcell.calib.adjustment.synthetic_rig import D415_LIKE, RigSettings, RigTruth, synthetic_rig
from depthcell.calib.target.boardview import BoardView, DepthTiles
from depthcell.errors import DepthcellError

SMALL = RigSettings(cameras=2, instants=8, spread_m=0.05, tilt_rad=0.7, tiles=(4, 3))
EXACT = replace(SMALL, sigma_px=0.0, tile_sigma_px=0.0, board_scale_u=0.0)
BENT = replace(D415_LIKE, distortion=Distortion.BROWN_CONRADY)
seeds = st.integers(0, 2**31)
few = hypothesis_settings(max_examples=4, deadline=None)


def rig(settings: RigSettings, seed: int) -> tuple[BundleProblem, RigTruth]:
    return synthetic_rig(settings, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def colored() -> tuple[BundleProblem, RigTruth]:
    return rig(replace(SMALL, instants=12, color=BENT), 3)


@pytest.fixture(scope="module")
def colored_solution(colored: tuple[BundleProblem, RigTruth]) -> BundleSolution:
    return solve_bundle(colored[0])


def assert_same(one: BundleSolution, other: BundleSolution, tolerance: float = 1e-7) -> None:
    for stream, lens in one.streams.items():
        assert lens.fx_px == pytest.approx(other.streams[stream].fx_px, abs=1e4 * tolerance)
        off = motion_between(one.T_cell_stream[stream], other.T_cell_stream[stream])
        np.testing.assert_allclose(off, 0, atol=tolerance)
    for place, T in one.T_cell_board.items():
        np.testing.assert_allclose(motion_between(T, other.T_cell_board[place]), 0, atol=tolerance)


# What is compared with what


@few
@given(seeds, st.sampled_from([Distortion.NONE, Distortion.BROWN_CONRADY, Distortion.RATIONAL, Distortion.THIN_PRISM]))
def test_derivatives_are_those_of_finite_differences(seed: int, model: Distortion) -> None:
    coefficients = (0.0,) * model.coefficient_count
    lens = replace(D415_LIKE, distortion=model, coefficients=coefficients)
    problem, _ = rig(replace(SMALL, instants=2, lens=lens), seed)
    adjustment, rng = Adjustment(problem, BundleSettings()), np.random.default_rng(seed)
    for key, value in adjustment.values.items():  # away from zero, where mistakes in rotations cannot hide
        value[:] = value + rng.normal(size=len(value)) * {"lens": 0.0, "warp": 1e-3}.get(key[0], 1e-2)
    for block in (adjustment.blocks[0], adjustment.blocks[len(problem.views)], adjustment.blocks[-1]):
        values = [adjustment.values[key].copy() for key in block.keys]
        found = block.evaluate(values, adjustment.bases)
        assert found is not None
        for number, value in enumerate(values):
            step = 1e-5 * rng.normal(size=len(value)) * np.maximum(1.0, np.abs(value))
            sides = []
            for sign in (1, -1):
                moved = [other + sign * step if place == number else other for place, other in enumerate(values)]
                side = block.evaluate(moved, adjustment.bases)
                assert side is not None
                sides.append(side.residuals)
            change = (sides[0] - sides[1]) / 2
            np.testing.assert_allclose(found.jacobians[number] @ step, change, atol=1e-5 * np.abs(change).max() + 1e-11)


# Truth


@few
@given(seeds)
def test_without_noise_the_truth_is_recovered(seed: int) -> None:
    problem, truth = rig(EXACT, seed)
    solution = solve_bundle(problem)
    for stream, lens in truth.streams.items():
        assert solution.streams[stream].fx_px == pytest.approx(lens.fx_px, abs=1e-3)
        np.testing.assert_allclose(
            motion_between(solution.T_cell_stream[stream], truth.T_cell_stream[stream]), 0, atol=1e-6
        )
    for place, T in solution.T_cell_board.items():
        np.testing.assert_allclose(motion_between(T, truth.T_cell_board[place]), 0, atol=1e-6)
    np.testing.assert_allclose(solution.warp_m[0], truth.warp_m, atol=1e-7)
    for tiles, residuals_px in zip(problem.depth, solution.tile_residuals_px, strict=True):
        assert len(residuals_px) == len(tiles.disparity_px)
        np.testing.assert_allclose(residuals_px, 0, atol=1e-4)


def test_distorted_lenses_and_colour_are_recovered_too() -> None:
    problem, truth = rig(replace(EXACT, instants=12, lens=BENT, color=BENT), 5)
    solution = solve_bundle(problem)
    for stream, lens in truth.streams.items():
        assert solution.streams[stream].cx_px == pytest.approx(lens.cx_px, abs=0.02)
        grid = np.stack(np.meshgrid(np.linspace(-0.4, 0.4, 9), np.linspace(-0.25, 0.25, 5)), axis=-1)
        points = np.concatenate((grid, np.ones((*grid.shape[:2], 1))), axis=-1)
        turned = (solution.T_cell_stream[stream].inverse() @ truth.T_cell_stream[stream]) @ points  # free in part
        np.testing.assert_allclose(solution.streams[stream].project(turned), lens.project(points), atol=0.05)


@few
@given(seeds)
def test_order_of_views_and_streams_does_not_matter(seed: int) -> None:
    problem, _ = rig(SMALL, seed)
    rng = np.random.default_rng(seed)
    shuffled = replace(
        problem,
        views=tuple(problem.views[place] for place in rng.permutation(len(problem.views))),
        depth=tuple(problem.depth[place] for place in rng.permutation(len(problem.depth))),
        streams={stream: problem.streams[stream] for stream in reversed(list(problem.streams))},
    )
    one, other = solve_bundle(problem), solve_bundle(shuffled)
    assert_same(one, other)
    np.testing.assert_allclose(other.covariance_of(one.parameter_names), one.covariance, rtol=1e-3, atol=1e-12)


@few
@given(seeds)
def test_the_start_does_not_matter(seed: int) -> None:
    problem, truth = rig(SMALL, seed)
    near = replace(problem, T_cell_stream=truth.T_cell_stream, T_cell_board=truth.T_cell_board)
    far = replace(
        problem,
        T_cell_stream={
            stream: T.perturbed(np.array([0.1, -0.1, 0.1, 0.03, 0.03, -0.03]))
            for stream, T in truth.T_cell_stream.items()
        },
    )
    assert_same(solve_bundle(near), solve_bundle(far))


def test_the_cell_is_where_the_origin_board_is_put() -> None:
    problem, _ = rig(SMALL, 1)
    shift = RigidTransform.from_rotation_vector("cell", "cell", np.array([0.3, -0.2, 1.0]), np.array([0.5, 0.1, 0.2]))
    moved = replace(
        problem,
        T_cell_stream={stream: shift @ T for stream, T in problem.T_cell_stream.items()},
        T_cell_board={place: shift @ T for place, T in problem.T_cell_board.items()},
    )
    one, other = solve_bundle(problem), solve_bundle(moved)
    origin = problem.origin
    np.testing.assert_array_equal(one.T_cell_board[origin].matrix, problem.T_cell_board[origin].matrix)
    np.testing.assert_array_equal(one.place_covariance(origin), np.zeros((6, 6)))
    for stream, T in one.T_cell_stream.items():
        np.testing.assert_allclose(motion_between(shift @ T, other.T_cell_stream[stream]), 0, atol=1e-7)


def test_a_lens_that_is_held_does_not_move() -> None:
    problem, truth = rig(SMALL, 2)
    held = replace(problem, streams=truth.streams, fixed_intrinsics=frozenset({"depth:000"}))
    solution = solve_bundle(held)
    assert solution.streams["depth:000"] == truth.streams["depth:000"]
    assert solution.streams["depth:001"] != truth.streams["depth:001"]
    assert solution.u("depth:000.fx_px") == 0 < solution.u("depth:001.fx_px")
    assert solution.u("depth:000.tz_m") < solve_bundle(problem).u("depth:000.tz_m")


# Outliers and weights


def test_planted_outliers_are_found_and_nothing_else() -> None:
    problem, truth = rig(replace(SMALL, instants=12, outlier_share=0.03, outlier_px=2.0), 4)
    solution = solve_bundle(problem)
    planted = dict.fromkeys(truth.streams, 0)
    for view, wrong, inside in zip(problem.views, truth.outliers, solution.inliers, strict=True):
        np.testing.assert_array_equal(inside, ~wrong)
        planted[view.stream] += int(wrong.sum())
    assert min(planted.values()) > 3
    assert {stream: solution.outliers[stream] for stream in planted} == planted


def test_without_the_search_outliers_would_spoil_the_lens() -> None:
    problem, truth = rig(replace(SMALL, instants=12, outlier_share=0.05, outlier_px=20.0), 4)
    blind = solve_bundle(problem, BundleSettings(outlier_level=1e6))
    seeing = solve_bundle(problem)
    name, true_px = "depth:001.fx_px", truth.streams["depth:001"].fx_px
    assert abs(blind.streams["depth:001"].fx_px - true_px) > 5 * abs(seeing.streams["depth:001"].fx_px - true_px)
    assert blind.u(name) > 5 * seeing.u(name)


def test_a_tile_of_wrong_depth_is_left_out() -> None:
    problem, _ = rig(SMALL, 6)
    first = problem.depth[0]
    disparity_px = first.disparity_px.copy()
    disparity_px[2] += 1.0
    spoiled = replace(problem, depth=(replace(first, disparity_px=disparity_px), *problem.depth[1:]))
    solution = solve_bundle(spoiled)
    assert list(np.flatnonzero(~solution.tile_inliers[0])) == [2]
    assert solution.outliers[f"depth of {first.serial}"] == 1


def test_noise_is_estimated_whatever_was_stated() -> None:
    problem, _ = rig(replace(SMALL, instants=20, stated_px=0.3), 7)
    solution = solve_bundle(problem)
    for stream in problem.streams:
        assert solution.stated_px[stream] == pytest.approx(0.3)
        assert solution.sigma_px[stream] == pytest.approx(0.1, rel=0.1)
    assert solution.depth_factors["000"] == pytest.approx(1.0, abs=0.2)
    same = solve_bundle(replace(problem, views=tuple(replace(view, sigma_px=0.1) for view in problem.views)))
    assert solution.u("depth:000.fx_px") == pytest.approx(same.u("depth:000.fx_px"), rel=0.01)


def test_an_error_that_a_view_shares_is_seen_and_widens_the_interval() -> None:
    problem, _ = rig(replace(SMALL, instants=40, tile_common_px=0.1), 8)
    solution = solve_bundle(problem)
    quiet = solve_bundle(rig(replace(SMALL, instants=40), 8)[0])
    for serial in ("000", "001"):
        assert solution.depth_common_px[serial] == pytest.approx(0.1, rel=0.5)
        assert quiet.depth_common_px[serial] < 0.02
        assert solution.depth_factors[serial] == pytest.approx(1.0, abs=0.15)
        assert solution.u(f"depth:{serial}.disparity_offset_px") > 1.3 * quiet.u(f"depth:{serial}.disparity_offset_px")


def test_shared_error_is_estimated_by_its_moments() -> None:
    rng = np.random.default_rng(0)
    size = rng.uniform(500.0, 1500.0, 4000)
    square = np.square(rng.normal(0, np.sqrt(1 + 0.05**2 * size)))
    assert CommonError(square, size, 4000.0).tau_px() == pytest.approx(0.05, rel=0.05)
    assert CommonError(np.full(9, 0.5), size[:9], 9.0).tau_px() == 0
    assert CommonError(np.full(2, 9.0), size[:2], 2.0).tau_px() == 0


# Covariance


def test_covariance_is_that_of_the_dense_normal_matrix() -> None:
    problem, _ = rig(replace(SMALL, instants=6, color=BENT, tile_common_px=0.05), 9)
    adjustment = Adjustment(problem, BundleSettings())
    adjustment.solve()
    adjustment.common_px["depth of 000"] = 0.05
    adjustment.weights[0][:3] = 0.0
    information = information_of(adjustment)
    keys = [*adjustment.shared_keys(), *(("place", place) for place in adjustment.place_keys())]
    ends = np.cumsum([0, *(len(adjustment.values[key]) for key in keys)])
    column = {key: slice(ends[number], ends[number + 1]) for number, key in enumerate(keys)}
    groups: dict[str, list[np.ndarray]] = {}
    for number, block in enumerate(adjustment.blocks):
        found = block.evaluate([adjustment.values[key] for key in block.keys], adjustment.bases)
        assert found is not None
        weights = adjustment.weights[number].repeat(block.width)
        variance = np.eye(len(weights))
        if block.common is not None:
            act = (adjustment.weights[number] * block.common)[:, None]
            variance = variance + adjustment.common_px.get(block.group, 0.0) ** 2 * act @ act.T
        dense = np.zeros((len(weights), ends[-1]))
        for key, jacobian in zip(block.keys, found.jacobians, strict=True):
            if key in column:
                dense[:, column[key]] = jacobian.reshape(len(weights), -1) * weights[:, None]
        groups.setdefault(block.group, []).append(np.linalg.cholesky(np.linalg.inv(variance)).T @ dense)
    rows = np.concatenate([part for parts in groups.values() for part in parts])
    scale = 1 / np.linalg.norm(rows, axis=0)
    whole = np.linalg.inv((rows * scale).T @ (rows * scale)) * np.outer(scale, scale)
    size = len(information.covariance)
    u = np.sqrt(np.diag(whole))
    np.testing.assert_allclose(
        information.covariance / np.outer(u, u)[:size, :size], (whole / np.outer(u, u))[:size, :size], atol=1e-6
    )
    for number in range(len(information.places)):
        own = slice(size + 6 * number, size + 6 * number + 6)
        np.testing.assert_allclose(information.place_covariance[number], whole[own, own], rtol=1e-6, atol=1e-14)
        np.testing.assert_allclose(information.place_cross[number], whole[own, :size], rtol=1e-5, atol=1e-12)
    for group, parts in groups.items():
        paid = sum(float(np.trace(part @ whole @ part.T)) for part in parts)
        count = sum(len(part) for part in parts) - (6 if group == adjustment.blocks[0].group else 0)
        shared = information.common[group].redundancy if group in information.common else 0.0
        assert information.redundancy[group] + shared == pytest.approx(count - paid, abs=1e-6)


def test_the_pitch_is_part_of_what_is_uncertain() -> None:
    problem, _ = rig(replace(SMALL, tiles=(0, 0)), 1)
    exact = solve_bundle(replace(problem, board_scale_u=0.0))
    loose = solve_bundle(replace(problem, board_scale_u=1e-2))
    assert "board:0.scale" not in exact.parameter_names
    assert loose.u("board:0.scale") == pytest.approx(1e-2, rel=1e-3)
    distance_m = np.linalg.norm(loose.T_cell_stream["depth:000"].translation_m)
    translation = loose.covariance_of([f"depth:000.t{axis}_m" for axis in "xyz"])
    before = exact.covariance_of([f"depth:000.t{axis}_m" for axis in "xyz"])
    assert np.trace(translation - before) == pytest.approx((1e-2 * distance_m) ** 2, rel=0.02)


def test_two_boards_share_the_error_of_their_pitch() -> None:
    problem, _ = rig(replace(SMALL, tiles=(0, 0)), 1)
    second = tuple(replace(view, board=1) if view.instant % 2 else view for view in problem.views)
    poses = {(instant % 2, instant): T for (_, instant), T in problem.T_cell_board.items()}
    both = replace(problem, boards=problem.boards * 2, views=second, T_cell_board=poses, board_scale_u=1e-2)
    solution = solve_bundle(both)
    joint = solution.covariance_of(["board:0.scale", "board:1.scale"])
    assert np.sqrt(joint.mean()) == pytest.approx(1e-2, rel=1e-3)  # of the mean of both
    assert np.sqrt(joint[0, 0] + joint[1, 1] - 2 * joint[0, 1]) < 2e-3  # of their difference, which the views tell


def normalised(settings: RigSettings, count: int) -> tuple[np.ndarray, np.ndarray]:
    chi2, points = [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        problem, truth = synthetic_rig(settings, rng)
        errors = rig_errors(problem, truth, solve_bundle(problem), rng)
        chi2.append(errors.pose_chi2)
        points.append(errors.error["point_m"] / errors.u["point_m"])
    return np.concatenate(chi2), np.concatenate(points)


def test_errors_are_as_large_as_stated() -> None:
    chi2, points = normalised(replace(SMALL, instants=10), 10)
    # 20 poses of 6 degrees of freedom: the mean is 6 with a standard deviation of sqrt(12 / 20), cameras of one cell
    # being less than independent
    assert 4.2 < chi2.mean() < 8.3
    assert 0.75 < np.sqrt(np.mean(points**2)) < 1.25


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("common_px", [0.0, 0.03])
def test_intervals_hold_over_many_rigs(common_px: float) -> None:
    chi2, points = normalised(replace(SMALL, cameras=3, instants=24, tile_common_px=common_px), 40)
    assert 5.0 < chi2.mean() < 7.1  # 120 poses
    assert 0.92 < np.mean(np.abs(points) < 1.96) < 0.98


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_intervals_at_the_part_break_if_shared_errors_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CommonError, "tau_px", lambda _: 0.0)
    _, points = normalised(replace(SMALL, cameras=3, instants=24, tile_common_px=0.03), 10)
    assert np.mean(np.abs(points) < 1.96) < 0.85


def test_repeated_adjustments_hold_no_memory() -> None:
    problem, _ = rig(replace(SMALL, instants=3, tiles=(0, 0)), 1)
    made = []
    for _ in range(2):
        adjustment = Adjustment(problem, BundleSettings())
        made.append(weakref.ref(adjustment.blocks[0]))
        if len(made) == 2:
            adjustment.close()
        del adjustment
        gc.collect()
    assert made[0]() is not None  # without `close` Ceres keeps it for ever
    assert made[1]() is None


# Refusals


def refused(problem: BundleProblem, match: str, settings: BundleSettings | None = None) -> None:
    with pytest.raises(DepthcellError, match=match):
        solve_bundle(problem, settings)


def test_a_camera_that_shares_no_view_is_refused_by_name() -> None:
    problem, _ = rig(replace(SMALL, tiles=(0, 0)), 1)
    views = tuple(view for view in problem.views if (view.stream == "depth:001") == (view.instant > 3))
    with pytest.raises(DepthcellError, match="nothing ties depth:001 to the origin"):
        replace(problem, views=views)


def test_views_that_leave_the_lens_open_are_refused() -> None:
    flat = replace(SMALL, cameras=1, instants=3, tilt_rad=0.0, spread_m=0.001, elevation_rad=1.55, tiles=(0, 0))
    problem, truth = rig(flat, 1)
    refused(replace(problem, T_cell_stream=truth.T_cell_stream, T_cell_board=truth.T_cell_board), "depth:000.*tilted")


def test_parameters_that_nothing_determines_are_named() -> None:
    problem, truth = rig(replace(SMALL, tiles=(0, 0), cameras=1, instants=1), 1)
    one = replace(problem, T_cell_stream=truth.T_cell_stream, T_cell_board=truth.T_cell_board)
    refused(one, "depth:000")


def test_a_board_behind_the_camera_is_refused() -> None:
    problem, _ = rig(SMALL, 1)
    stream = "depth:000"
    T = problem.T_cell_stream[stream]
    turned = replace(T, rotation=T.rotation @ np.diag([1.0, -1.0, -1.0]))
    refused(replace(problem, T_cell_stream={**problem.T_cell_stream, stream: turned}), "lies behind depth:000")


def test_a_solver_that_does_not_get_there_is_no_solution() -> None:
    problem, _ = rig(SMALL, 1)
    refused(problem, "not converged", BundleSettings(max_iterations=1))


def test_a_view_of_too_few_corners_is_refused() -> None:
    problem, _ = rig(replace(SMALL, tiles=(0, 0)), 1)
    views = []
    for view in problem.views:
        if view.instant != 3:
            views.append(view)
        elif view.stream == "depth:000":
            views.append(replace(view, ids=view.ids[:2], pixels=view.pixels[:2]))
    refused(replace(problem, views=tuple(views)), "too few corners to place board 0 of view 3")


def test_what_does_not_fit_together_is_named() -> None:
    problem, _ = rig(SMALL, 1)
    view = problem.views[0]
    wrong: list[tuple[dict[str, object], str]] = [
        ({"views": ()}, "no board was seen"),
        ({"views": (replace(view, stream="depth:999"),)}, "depth:999: the stream has no lens"),
        ({"views": (replace(view, board=4),)}, "board 4 has no pose"),
        ({"views": (replace(view, ids=view.ids + 10),)}, "a feature's id is outside 0 to 39"),
        ({"baselines_m": {}}, "its baseline is not known"),
        ({"origin": (0, 99)}, "no view of the origin"),
        ({"T_cell_stream": {}}, "has a lens but no pose"),
        ({"views": problem.views[1:2]}, "no camera saw the corners|no view of the origin|nothing ties"),
    ]
    for changes, match in wrong:
        with pytest.raises(DepthcellError, match=match):
            replace(problem, **changes)  # type: ignore[arg-type]


def test_types_of_views_are_those_of_the_targets() -> None:
    problem, _ = rig(SMALL, 1)
    assert all(isinstance(view, BoardView) for view in problem.views)
    assert all(isinstance(tiles, DepthTiles) for tiles in problem.depth)
