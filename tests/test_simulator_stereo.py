"""The physics of the simulated stereo camera, each law measured on its frames as one would on a real camera's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.cameras import (
    CameraModel,
    StereoModel,
    SystematicError,
    ThermalDrift,
    stereo_model,
)
from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.simulator.rig import looking_at
from depthcell.acquisition.simulator.scene import Scene, SurfaceView
from depthcell.acquisition.simulator.sigmalaw import law_range_m, measured_sigma, wall_frames
from depthcell.acquisition.simulator.stereo import MatchedView, StereoNoise, StereoView, correlated_noise, frame_counts
from depthcell.acquisition.simulator.stereo import matched as match_view
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import CellCamera, DisparityNoise
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.errors import DepthcellError

D405 = stereo_model("D405")
FINE = replace(D405, units_m=1e-7)  # so fine that rounding of depth plays no part
SILENT = StereoNoise(0.0, 0.0, 3.0, 0.0, 0.0, 1, 0, 0.0, 0.0)


def flat_view(depth_m: np.ndarray) -> StereoView:
    everywhere = np.ones(depth_m.shape, dtype=bool)
    return StereoView(depth_m.astype(np.float32), everywhere, np.ones(depth_m.shape, np.float32), ~everywhere)


def matched(
    view: StereoView, model: StereoModel = FINE, error: SystematicError | None = None, noise: StereoNoise = SILENT
) -> MatchedView:
    return match_view(view, model, error or SystematicError(), noise, np.random.default_rng(1))


# --- the noise law --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CameraModel))
def test_sigma_follows_the_law_within_five_percent(name: CameraModel) -> None:
    model, noise = stereo_model(name), StereoNoise()
    low_m, high_m = law_range_m(model, noise)
    for point in measured_sigma(model, np.geomspace(low_m, high_m, 5), noise, frames=30, seed=7):
        assert point.measured_m == pytest.approx(point.law_m, rel=0.05), point.depth_m
        assert point.measured_m == pytest.approx(point.rounded_m, rel=0.03), point.depth_m


def test_the_check_sees_a_simulator_that_is_too_quiet() -> None:
    """Negative control: noise drawn at 0.9 of what the law is told."""
    model, noise = D405, StereoNoise()
    (quiet,) = measured_sigma(model, [0.3], replace(noise, temporal_px=0.9 * noise.temporal_px), frames=30, seed=7)
    law_m = quiet.law_m / 0.9
    assert quiet.measured_m != pytest.approx(law_m, rel=0.05)


def test_focal_length_and_baseline_are_those_of_the_data_sheet() -> None:
    assert [round(stereo_model(name).min_depth_m, 3) for name in CameraModel] == [0.062, 0.266, 0.171, 0.337]
    with pytest.raises(DepthcellError, match="--camera-model D999: unknown; choose one of D405, D415, D435, D455"):
        stereo_model("D999")


@settings(max_examples=10, deadline=None)
@given(st.floats(1.5, 6.0), st.integers(0, 1000))
def test_noise_is_correlated_as_stated(correlation_px: float, seed: int) -> None:
    field = correlated_noise((600, 600), correlation_px, np.random.default_rng(seed)).astype(np.float64)
    assert field.std() == pytest.approx(1.0, abs=0.05)
    lags = np.arange(0, 13)
    correlation = [float((field[:, : 600 - lag] * field[:, lag:]).mean() / field.var()) for lag in lags]
    np.testing.assert_allclose(correlation, np.exp(-((lags / correlation_px) ** 2)), atol=0.06)
    down = float((field[:-2] * field[2:]).mean() / field.var())
    assert down == pytest.approx(np.exp(-((2 / correlation_px) ** 2)), abs=0.06)


def test_white_noise_has_no_neighbours() -> None:
    field = correlated_noise((400, 400), 0.0, np.random.default_rng(0))
    assert abs(float((field[:, 1:] * field[:, :-1]).mean())) < 0.01


def test_frames_average_the_noise_out_and_leave_the_fixed_pattern() -> None:
    noise = replace(SILENT, temporal_px=0.08, fixed_px=0.03)
    truth, counts = wall_frames(replace(FINE, units_m=1e-5), 0.3, noise, 64, 3)
    seen = (counts > 0).all(axis=0)
    disparity_px = FINE.focal_baseline_m / (counts[:, seen] * 1e-5) - FINE.focal_baseline_m / truth[seen]
    assert disparity_px.std(axis=0, ddof=1).mean() == pytest.approx(0.08, rel=0.03)
    left_px = float(disparity_px.mean(axis=0).std())
    assert left_px == pytest.approx(np.hypot(0.03, 0.08 / 8), rel=0.05)


# --- subpixel interpolation -----------------------------------------------------------------------------------------


def test_the_staircase_pulls_to_whole_disparities() -> None:
    noise = replace(SILENT, staircase_px=0.05)
    disparity_px = np.linspace(20.0, 24.0, 848)[None].repeat(4, axis=0)
    bias_px = matched(flat_view(FINE.focal_baseline_m / disparity_px), noise=noise).disparity_px - disparity_px
    np.testing.assert_allclose(bias_px[:, 30:], (-0.05 * np.sin(2 * np.pi * disparity_px))[:, 30:], atol=2e-4)
    just_above = np.abs(disparity_px - 22.25) < 0.01
    assert (bias_px[just_above] < 0).all()  # 22.25 reads low, towards 22
    assert StereoNoise(fixed_px=0.0, staircase_px=0.05).lasting_px == pytest.approx(0.05 / np.sqrt(2))


def test_disparity_comes_in_steps_of_one_thirty_second() -> None:
    truth, counts = wall_frames(replace(FINE, units_m=1e-6), 0.06401, replace(SILENT, quantum_px=1 / 32), 1, 0)
    steps = FINE.focal_baseline_m / (counts[counts > 0] * 1e-6) * 32
    assert np.abs(steps - np.round(steps)).max() < 0.04
    assert len(np.unique(np.round(steps))) > 20
    assert truth.shape == counts.shape[1:]


def test_depth_comes_in_whole_units() -> None:
    coarse = replace(stereo_model("D435"), units_m=1e-3)
    still = matched(flat_view(np.full((8, 848), 0.5004)), coarse)
    counts = frame_counts(still, coarse, SILENT, np.random.default_rng(0))
    assert set(np.unique(counts[:, 100:])) == {500}


# --- edges and occlusion --------------------------------------------------------------------------------------------


def block_below_camera(model: StereoModel) -> tuple[SurfaceView, np.ndarray]:
    """A block 20 mm wide and 40 mm high on the plate, seen straight from 0.2 m above the plate."""
    box = open3d().geometry.TriangleMesh.create_box(0.02, 0.06, 0.04)
    mesh = PartMesh(np.asarray(box.vertices) - (0.01, 0.03, 0.0), np.asarray(box.triangles).astype(np.int32))
    scene = Scene(mesh, RigidTransform.identity("cell", "part"))
    T_cell_depth = looking_at("x", np.zeros(3), np.array([0.0, 0.0, 0.2]))
    view = scene.view(T_cell_depth, model.depth_intrinsics)
    return view, scene.sees(view, T_cell_depth @ np.array([model.baseline_m, 0.0, 0.0]))


def test_rays_measure_plate_and_block() -> None:
    view, _ = block_below_camera(D405)
    assert view.depth_m[240, 424] == pytest.approx(0.16, abs=1e-6)
    assert view.depth_m[240, 10] == pytest.approx(0.2, abs=1e-6)
    np.testing.assert_allclose(view.points_cell[240, 10, 2], 0.0, atol=1e-6)
    width_px = view.on_part[240].sum()
    assert width_px == pytest.approx(0.02 * 433 / 0.16, abs=1.5)
    np.testing.assert_array_equal(view.normals_cell[240, 424], (0, 0, 1))


def test_the_shadow_lies_left_of_the_near_surface_and_is_as_wide_as_the_disparities_differ() -> None:
    view, seen_by_right = block_below_camera(D405)
    row = matched(StereoView(view.depth_m, seen_by_right, view.cosine, np.zeros_like(view.on_part))).disparity_px[240]
    block = np.flatnonzero(view.on_part[240])
    first, last = block[0], block[-1]
    # The sides of the block, seen at a slant, belong to it; the top begins where the depth is 0.16 m.
    disparity_near, disparity_far = (D405.focal_baseline_m / z for z in (0.16, 0.2))
    shadow = np.flatnonzero(np.isnan(row[first - 40 : first])) + first - 40
    assert len(shadow) == pytest.approx(disparity_near - disparity_far, abs=1.5)
    assert shadow[-1] == first - 1
    assert np.isfinite(row[last + 1 : last + 40]).all()


def test_the_left_band_has_no_partner_in_the_right_image() -> None:
    still = matched(flat_view(np.full((8, 848), 0.2)))
    blind = np.isnan(still.disparity_px[4])
    np.testing.assert_array_equal(np.flatnonzero(blind), np.arange(int(np.ceil(D405.focal_baseline_m / 0.2))))


def test_near_surfaces_spread_over_the_far_ones() -> None:
    view, seen_by_right = block_below_camera(D405)
    stereo_view = StereoView(view.depth_m, seen_by_right, view.cosine, np.zeros_like(view.on_part))
    near_px = D405.focal_baseline_m / 0.165
    widths = []
    for fattening_px in (0, 3):
        disparity = matched(stereo_view, noise=replace(SILENT, fattening_px=fattening_px)).disparity_px
        widths.append((disparity[200:280] > near_px).sum(axis=1).mean())
    assert 2.0 < widths[1] - widths[0] < 6.0


def test_nothing_is_invented_where_nothing_is_seen() -> None:
    depth_m = np.full((40, 848), 0.3)
    depth_m[10:30, 300:500] = np.nan
    counts = frame_counts(matched(flat_view(depth_m), D405), D405, StereoNoise(), np.random.default_rng(0))
    assert not counts[14:26, 304:496].any()
    blinded = replace(flat_view(np.full((200, 848), 0.3)), is_blinded=np.ones((200, 848), dtype=bool))
    assert np.isnan(matched(blinded).disparity_px[:, 100:]).mean() > 0.5
    glancing = replace(flat_view(np.full((40, 848), 0.3)), cosine=np.full((40, 848), 0.1, np.float32))
    assert np.isnan(matched(glancing).disparity_px).all()


# --- too near -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CameraModel))
def test_nearer_than_the_search_range_is_nothing_or_a_flagged_ghost(name: CameraModel) -> None:
    model, noise = replace(stereo_model(name), units_m=1e-3), StereoNoise()
    still = matched(flat_view(np.full((400, 848), 0.8 * model.min_depth_m)), model, noise=noise)
    counts = frame_counts(still, model, noise, np.random.default_rng(0))
    assert not counts[~still.is_ghost].any()
    assert counts[still.is_ghost].any()
    assert counts[counts > 0].min() * model.units_m > 1.9  # it seems far away, never near
    assert still.is_ghost.mean() == pytest.approx(noise.ghost_share, abs=0.05)


def test_within_the_search_range_there_is_no_ghost() -> None:
    still = matched(flat_view(np.full((100, 848), 1.05 * D405.min_depth_m)), noise=StereoNoise())
    assert not still.is_ghost.any()


# --- systematic error -----------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.floats(0.98, 1.02), st.floats(-0.5, 0.5), st.floats(0.08, 1.0))
def test_a_calibrated_correction_undoes_the_error(scale: float, offset_px: float, depth_m: float) -> None:
    error = SystematicError(scale, offset_px)
    read_m = D405.focal_baseline_m / error.disparity_px(np.array([depth_m]), D405.focal_baseline_m)
    camera = CellCamera(
        "1",
        D405.name,
        D405.depth_intrinsics,
        None,
        RigidTransform.identity("cell", "depth:1"),
        np.zeros((6, 6)),
        None,
        D405.baseline_m,
        DisparityNoise(0.08, 0.03, 3.0),
        DepthCorrection(scale, offset_px),
    )
    np.testing.assert_allclose(camera.corrected(read_m), depth_m, rtol=1e-9)


def test_a_camera_drifts_while_it_warms_up() -> None:
    drift = ThermalDrift()
    assert drift.temperature_c(0.0) == drift.ambient_c
    assert drift.temperature_c(1e6) == pytest.approx(drift.calibrated_c)
    cold, warm = (drift.scale(drift.temperature_c(seconds)) for seconds in (0.0, 1e6))
    assert warm == pytest.approx(1.0)
    assert cold == pytest.approx(1 - 12 * 30e-6)
    # A cold camera with its short baseline finds too small a disparity and says too far.
    read_m = [
        D405.focal_baseline_m / SystematicError(s).disparity_px(np.array(0.2), D405.focal_baseline_m)
        for s in (cold, warm)
    ]
    assert read_m[0] > read_m[1]
