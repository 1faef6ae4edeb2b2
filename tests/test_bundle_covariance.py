"""From the adjustment's parameters to a cell's: depth corrected as fitted, covariances in the cell's own order."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.acquisition.intrinsics import Distortion
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSolution, solve_bundle
from depthcell.calib.adjustment.bundle_covariance import (
    adjoint_of,
    cell_camera,
    cell_covariance,
    color_covariance,
    color_transform,
    public_correction,
)
from depthcell.calib.adjustment.bundle_coverage import QUIET, motion_between
from depthcell.calib.adjustment.synthetic_rig import D415_LIKE, RigSettings, RigTruth, synthetic_rig
from depthcell.calib.cell import Cell, DisparityNoise
from depthcell.errors import DepthcellError

RIG = RigSettings(
    cameras=2,
    instants=10,
    spread_m=0.05,
    tilt_rad=0.7,
    tiles=(5, 4),
    color=replace(D415_LIKE, distortion=Distortion.BROWN_CONRADY),
)


@pytest.fixture(scope="module")
def solved() -> tuple[BundleProblem, RigTruth, BundleSolution]:
    problem, truth = synthetic_rig(RIG, np.random.default_rng(11))
    return problem, truth, solve_bundle(problem)


@given(st.integers(0, 2**31))
def test_correction_is_the_same_with_the_refined_focal_length(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth = np.array([rng.uniform(0.95, 1.05), *rng.normal(0, 0.5, 13)])
    ratio, focal_baseline_m = rng.uniform(0.98, 1.02), 33.0
    read_m, pixels = rng.uniform(0.3, 1.0, 9), rng.uniform(0, 470, (9, 2))
    start, _, _ = public_correction(depth, (3, 4), 1.0)
    final, by_depth, by_ratio = public_correction(depth, (3, 4), ratio)
    fitted_m = [
        correction.scale * k * focal_baseline_m / (d_px + correction.added_px(D415_LIKE, d_px, pixels))
        for correction, k in ((start, 1.0), (final, ratio))
        for d_px in [k * focal_baseline_m / read_m]
    ]
    np.testing.assert_allclose(fitted_m[1], fitted_m[0], rtol=1e-12)

    def values(depth: np.ndarray, ratio: float) -> np.ndarray:
        c = public_correction(depth, (3, 4), ratio)[0]
        return np.array([c.scale, c.disparity_offset_px, c.curvature_px, *sum(c.wave_px, ())[1:]])

    step = 1e-6 * rng.normal(size=14)
    np.testing.assert_allclose(
        by_depth * step, (values(depth + step, ratio) - values(depth - step, ratio)) / 2, atol=1e-12
    )
    slope = (values(depth, ratio + 1e-6) - values(depth, ratio - 1e-6)) / 2e-6
    np.testing.assert_allclose(by_ratio, slope, atol=1e-8)


def test_a_cell_corrects_depth_to_where_the_adjustment_put_the_board(
    solved: tuple[BundleProblem, RigTruth, BundleSolution],
) -> None:
    problem, _, solution = solved
    worst_px = 0.0
    for tiles, residuals_px in zip(problem.depth, solution.tile_residuals_px, strict=True):
        start = problem.streams[f"depth:{tiles.serial}"].fx_px * problem.baselines_m[tiles.serial]
        camera = cell_camera(solution, tiles.serial, "simulated", problem.baselines_m[tiles.serial], QUIET)
        # what the camera should have read on the board, and so the board's own depth, once corrected
        expected_m = start / (tiles.disparity_px - residuals_px)
        z_m = camera.corrected(expected_m, tiles.pixels)
        rays = np.column_stack((camera.depth.normalized(tiles.pixels), np.ones(len(z_m))))
        on_board = solution.T_cell_board[tiles.place].inverse() @ (camera.T_cell_depth @ (rays * z_m[:, None]))
        flat = on_board[:, :2] / solution.board_scale[0]
        points = problem.boards[0].points_board[:, :2]
        low, high = points.min(axis=0), points.max(axis=0)
        relative = 2 * (flat - low) / (high - low) - 1
        bend_m = (1 - relative**2) @ solution.warp_m[0]
        worst_px = max(worst_px, float(np.abs(on_board[:, 2] - bend_m).max()))
    assert 0 < worst_px < 1e-9  # metres off the board's face


def test_covariance_follows_the_order_of_the_cell(solved: tuple[BundleProblem, RigTruth, BundleSolution]) -> None:
    problem, _, solution = solved
    serials = ["001", "000"]
    noise = DisparityNoise(0.05, 0.03, 3.0)
    cameras = {s: cell_camera(solution, s, "D415", problem.baselines_m[s], noise) for s in serials}
    cell = Cell("cell", cameras, "2026-01-01T00:00:00+00:00", cell_covariance(solution, serials))
    assert cell.joint_covariance.shape == (2 * 24, 2 * 24)
    for serial in serials:
        for name in cameras[serial].parameter_names:
            assert cameras[serial].u(name) == pytest.approx(solution.u(f"depth:{serial}.{name}"))
            assert cameras[serial].u(name) > 0
    off_diagonal = cell.joint_covariance[cell.rows_of("001"), cell.rows_of("000")]
    assert np.abs(off_diagonal[3:6, 3:6]).max() > 1e-10  # cameras share the board, so their errors hang together


def test_what_was_held_or_not_measured_is_exact(solved: tuple[BundleProblem, RigTruth, BundleSolution]) -> None:
    problem, truth, _ = solved
    held = replace(problem, depth=(), streams=truth.streams, fixed_intrinsics=frozenset(problem.streams))
    solution = solve_bundle(held)
    camera = cell_camera(solution, "000", "D415", 0.055, QUIET)
    assert camera.u("fx_px") == camera.u("scale") == 0
    assert camera.u("tx_m") > 0
    assert color_covariance(solution, "000")[6:, 6:].max() == 0


@given(st.integers(0, 2**31))
def test_adjoint_carries_a_motion_through_a_transform(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T_a_b = RigidTransform.from_rotation_vector("a", "b", rng.normal(size=3), rng.normal(size=3))
    T_b_c = RigidTransform.from_rotation_vector("b", "c", rng.normal(size=3), rng.normal(size=3))
    xi = 1e-6 * rng.normal(size=6)
    np.testing.assert_allclose(
        (T_a_b @ T_b_c.perturbed(xi)).matrix, (T_a_b @ T_b_c).perturbed(adjoint_of(T_a_b) @ xi).matrix, atol=1e-10
    )


def test_colour_covariance_is_that_of_drawn_poses(solved: tuple[BundleProblem, RigTruth, BundleSolution]) -> None:
    _, truth, solution = solved
    names = [f"{stream}:000.{name}" for stream in ("depth", "color") for name in _pose_names()]
    joint = solution.covariance_of(names)
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal(np.zeros(12), joint, 4000, method="cholesky")
    T_depth, T_color = solution.T_cell_stream["depth:000"], solution.T_cell_stream["color:000"]
    T_color_depth = color_transform(solution, "000")
    moved = [
        motion_between(T_color_depth, T_color.perturbed(d[6:]).inverse() @ T_depth.perturbed(d[:6])) for d in draws
    ]
    stated = color_covariance(solution, "000")[:6, :6]
    np.testing.assert_allclose(np.std(moved, axis=0) / np.sqrt(np.diag(stated)), 1, atol=0.05)
    true = truth.T_cell_stream["color:000"].inverse() @ truth.T_cell_stream["depth:000"]
    off = motion_between(T_color_depth, true)
    assert off @ np.linalg.solve(stated, off) < 22.5  # 99.9 % of chi-squared with 6 degrees of freedom


def test_a_camera_that_was_not_adjusted_is_refused(solved: tuple[BundleProblem, RigTruth, BundleSolution]) -> None:
    _, _, solution = solved
    with pytest.raises(DepthcellError, match="depth:777 was not part of it"):
        cell_covariance(solution, ["777"])


def _pose_names() -> tuple[str, ...]:
    return "rx_rad", "ry_rad", "rz_rad", "tx_m", "ty_m", "tz_m"
