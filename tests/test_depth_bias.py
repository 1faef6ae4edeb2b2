"""The fitted depth correction against the truth it was drawn from, and against a plain solution."""

from dataclasses import replace

import numpy as np
import pytest

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.depth.depth_bias import BiasSettings, BoardDepth, Order, depth_errors_m, fit_correction
from depthcell.calib.depth.depth_synthetic import DepthScene, drawn_views
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.propagation import wave_terms
from depthcell.errors import DepthcellError

SCENE = DepthScene(views=20)
WHOLE = BiasSettings(orders=(Order(curvature=True, wave=(3, 4)),))


def rms_m(views: tuple[BoardDepth, ...], scene: DepthScene, correction: DepthCorrection) -> float:
    errors = [depth_errors_m(view, scene.intrinsics, scene.baseline_m, correction) for view in views]
    return float(np.sqrt(np.mean(np.square(np.concatenate(errors)))))


def values(correction: DepthCorrection) -> np.ndarray:
    waves = [value for row in correction.wave_px for value in row][1:]
    return np.array([correction.scale, correction.disparity_offset_px, correction.curvature_px, *waves])


def test_the_bias_falls_tenfold_on_boards_it_has_not_seen() -> None:
    scene = replace(SCENE, views=40, offset_u_px=0.4)
    exact = replace(scene, sigma_px=1e-6, common_px=0.0, turn_u_rad=0.0, shift_u_m=0.0)
    (views, truth), (clean, same) = (drawn_views(each, np.random.default_rng(1)) for each in (scene, exact))
    assert same == truth
    fit = fit_correction(views[::2], scene.intrinsics, scene.baseline_m)
    before_m = rms_m(clean[1::2], scene, DepthCorrection())
    assert before_m > 1.2e-3
    assert rms_m(clean[1::2], scene, fit.correction) < 0.1 * before_m
    assert rms_m(clean, scene, truth) < 1e-6


def test_the_covariance_holds_the_truth() -> None:
    squares, terms = [], 14
    for seed in range(8):
        views, truth = drawn_views(SCENE, np.random.default_rng([5, seed]))
        fit = fit_correction(views, SCENE.intrinsics, SCENE.baseline_m, WHOLE)
        off = values(fit.correction) - values(truth)
        squares.append(off @ np.linalg.solve(fit.covariance, off))
    # Means of chi-squared variables; averaging over the views' spread gives them slightly longer tails.
    assert np.mean(squares) == pytest.approx(terms, abs=4 * np.sqrt(2 * terms / len(squares)))


def test_it_is_the_plain_least_squares_solution() -> None:
    """With noise of tiles alone, against NumPy on the whole design, priors as further rows."""
    scene = replace(SCENE, views=8, common_px=0.0, turn_u_rad=0.0, shift_u_m=0.0)
    views, _ = drawn_views(scene, np.random.default_rng(2))
    views = tuple(replace(view, covariance=None) for view in views)
    settings = replace(WHOLE, scale_u=0.01, offset_u_px=0.1, curvature_u_px=0.1, wave_u_px=0.02)
    fit = fit_correction(views, scene.intrinsics, scene.baseline_m, settings)
    focal_baseline_m = scene.intrinsics.fx_px * scene.baseline_m
    rows, wanted = [], []
    for view in views:
        normal = view.T_depth_board.rotation[:, 2]
        rays = np.column_stack((scene.intrinsics.normalized(view.tiles.pixels), np.ones(len(view.tiles.pixels))))
        true_px = focal_baseline_m * (rays @ normal) / (normal @ view.T_depth_board.translation_m)
        read_px = view.tiles.disparity_px
        waves = wave_terms(scene.intrinsics, view.tiles.pixels, (3, 4))
        plane = np.column_stack((np.ones(len(read_px)), view.tiles.pixels))
        flat_px = plane @ np.linalg.lstsq(plane, read_px)[0]
        rows.append(np.column_stack((true_px, -np.ones(len(true_px)), -np.square(flat_px / 126), -waves)))
        wanted.append(read_px)
    prior = np.diag(1 / np.array([0.01, 0.1, 0.1, *[0.02] * 11]))
    sigma_px = np.hypot(scene.sigma_px, fit.tile_px)
    design = np.concatenate((np.concatenate(rows) / sigma_px, prior))
    target = np.concatenate((np.concatenate(wanted) / sigma_px, prior @ np.array([1.0, *[0.0] * 13])))
    solution = np.linalg.lstsq(design, target)[0]
    u = np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    assert fit.view_px < 0.008  # there is none, but a few views cannot exclude a little
    assert (np.abs(values(fit.correction) - solution) < 0.5 * u).all()
    np.testing.assert_allclose(np.sqrt(np.diag(fit.covariance)), u, rtol=0.35)


def test_what_a_view_shares_is_not_taken_for_many_tiles() -> None:
    shared = replace(SCENE, common_px=0.05, sigma_px=0.01, turn_u_rad=1e-4, shift_u_m=2e-5)
    views, truth = drawn_views(shared, np.random.default_rng(3))
    fit = fit_correction(views, shared.intrinsics, shared.baseline_m, WHOLE)
    calm, _ = drawn_views(replace(shared, common_px=0.0), np.random.default_rng(3))
    other = fit_correction(calm, shared.intrinsics, shared.baseline_m, WHOLE)
    assert fit.view_px == pytest.approx(0.05, rel=0.5)
    assert fit.covariance[1, 1] > 4 * other.covariance[1, 1]
    off = values(fit.correction) - values(truth)
    assert (np.abs(off) < 4 * np.sqrt(np.diag(fit.covariance))).all()


def test_no_more_waves_than_there_are() -> None:
    flat = replace(SCENE, wave_u_px=0.0)
    for seed in range(2):
        fit = fit_correction(drawn_views(flat, np.random.default_rng(seed))[0], flat.intrinsics, flat.baseline_m)
        assert fit.order.wave in {(0, 0), (2, 2)}
    fit = fit_correction(drawn_views(SCENE, np.random.default_rng(0))[0], SCENE.intrinsics, SCENE.baseline_m)
    assert fit.order.wave[0] >= 3
    assert fit.scores[fit.order] == min(fit.scores.values())


def test_the_change_with_temperature_is_found() -> None:
    warm = replace(SCENE, warm_k=15.0, per_k=1.5e-4)
    fit = fit_correction(drawn_views(warm, np.random.default_rng(4))[0], warm.intrinsics, warm.baseline_m, WHOLE)
    assert 0 < fit.scale_per_k_u < 4e-5
    assert fit.correction.scale_per_k == pytest.approx(1.5e-4, abs=4 * fit.scale_per_k_u)
    assert fit.correction.reference_c == pytest.approx(35.0, abs=3.0)
    assert fit.covariance.shape == (14, 14)
    even = replace(SCENE, warm_k=2.0)
    fit = fit_correction(drawn_views(even, np.random.default_rng(4))[0], even.intrinsics, even.baseline_m, WHOLE)
    assert (fit.correction.scale_per_k, fit.scale_per_k_u) == (0.0, 0.0)


def test_one_distance_does_not_tell_scale_from_offset() -> None:
    flat = replace(SCENE, near_m=0.4, far_m=0.401, tilt_rad=0.01)
    order = BiasSettings(orders=(Order(curvature=False, wave=(0, 0)),))
    flat = replace(flat, wave_u_px=0.0, curvature_u_px=0.0)
    fit = fit_correction(drawn_views(flat, np.random.default_rng(6))[0], flat.intrinsics, flat.baseline_m, order)
    u = np.sqrt(np.diag(fit.covariance))
    assert u[0] > 0.01
    assert fit.covariance[0, 1] / (u[0] * u[1]) > 0.95
    assert u[2] == 0


def test_a_board_that_is_not_flat_is_taken_as_it_is() -> None:
    exact = replace(SCENE, sigma_px=1e-4, common_px=0.0, turn_u_rad=0.0, shift_u_m=0.0)
    view = drawn_views(exact, np.random.default_rng(7))[0][0]
    flat = depth_errors_m(view, exact.intrinsics, exact.baseline_m, DepthCorrection())
    raised = replace(view, height_m=lambda points_m: np.full(len(points_m), 1e-3))
    moved_m = flat - depth_errors_m(raised, exact.intrinsics, exact.baseline_m, DepthCorrection())
    normal = view.T_depth_board.rotation[:, 2]
    rays = np.column_stack((exact.intrinsics.normalized(view.tiles.pixels), np.ones(len(view.tiles.pixels))))
    np.testing.assert_allclose(moved_m, 1e-3 / (rays @ normal), rtol=1e-6)


def test_what_cannot_be_fitted_is_refused() -> None:
    views, _ = drawn_views(SCENE, np.random.default_rng(8))
    with pytest.raises(DepthcellError, match="4 views with depth, 5 are needed"):
        fit_correction(views[:4], SCENE.intrinsics, SCENE.baseline_m)
    other = BoardDepth(replace(views[0].tiles, serial="2"), RigidTransform.identity("depth:2", "board"))
    with pytest.raises(DepthcellError, match="views of several cameras"):
        fit_correction((*views, other), SCENE.intrinsics, SCENE.baseline_m)
    with pytest.raises(DepthcellError, match="must lead to depth:1"):
        replace(views[0], T_depth_board=RigidTransform.identity("cell", "board"))
    behind = RigidTransform.from_rotation_vector("depth:1", "board", np.array([0.0, 1.5, 0.0]), np.array([0.0, 0, 0.4]))
    with pytest.raises(DepthcellError, match="lies behind the camera"):
        depth_errors_m(replace(views[0], T_depth_board=behind), SCENE.intrinsics, SCENE.baseline_m, DepthCorrection())
