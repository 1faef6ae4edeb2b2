"""Averaging over time: against NumPy on the whole stack, and the stated uncertainty against real scatter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from depthcell.acquisition.frameset import ColorImage, DepthImage
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import CellCamera, DisparityNoise
from depthcell.errors import DepthcellError
from depthcell.fusion.region import Window
from depthcell.fusion.temporal import (
    ColorAccumulator,
    DepthAccumulator,
    MeanDepth,
    average_depth,
    frame_sigma_m,
    random_sigma_m,
)

FOCAL_PX, BASELINE_M = 400.0, 0.05
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
DEPTHS = st.one_of(st.just(np.nan), st.floats(0.125, 5.0, width=32))


def depth_image(depth_m: np.ndarray, units_m: float = 1e-4) -> DepthImage:
    height_px, width_px = depth_m.shape
    intrinsics = Intrinsics(width_px, height_px, FOCAL_PX, FOCAL_PX, width_px / 2, height_px / 2)
    return DepthImage(depth_m.astype(np.float32), intrinsics, units_m, BASELINE_M, 0, 0)


def camera(noise: DisparityNoise) -> CellCamera:
    intrinsics = Intrinsics(200, 200, FOCAL_PX, FOCAL_PX, 100.0, 100.0)
    pose = RigidTransform.identity("cell", "depth:1")
    return CellCamera("1", "test", intrinsics, None, pose, np.zeros((6, 6)), None, BASELINE_M, noise)


def noisy_frames(noise: DisparityNoise, number: int, units_m: float, seed: int) -> tuple[np.ndarray, list[DepthImage]]:
    """A slanted plane at about 0.4 m through a stereo camera: its true depth, and frames of it."""
    rng = np.random.default_rng(seed)
    true_m = np.linspace(0.38, 0.42, 40_000).reshape(200, 200)
    fixed = noise.fixed_px * rng.standard_normal(true_m.shape)
    frames = []
    for _ in range(number):
        disparity = FOCAL_PX * BASELINE_M / true_m + fixed + noise.temporal_px * rng.standard_normal(true_m.shape)
        frames.append(depth_image(np.round(FOCAL_PX * BASELINE_M / disparity / units_m) * units_m, units_m))
    return true_m, frames


@given(SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=DEPTHS)), st.floats(0.05, 1.0))
def test_agrees_with_numpy_on_the_whole_stack(stack: np.ndarray, min_fraction: float) -> None:
    mean = average_depth((depth_image(frame) for frame in stack), min_fraction=min_fraction)
    seen = np.isfinite(stack)
    count = seen.sum(axis=0)
    enough = count >= min_fraction * len(stack)
    assert mean.frames == len(stack)
    np.testing.assert_array_equal(mean.count, count)
    np.testing.assert_array_equal(np.isfinite(mean.mean_m), enough & (count > 0))
    np.testing.assert_array_equal(np.isfinite(mean.sigma_m), enough & (count > 1))
    for row, column in zip(*np.nonzero(enough & (count > 0)), strict=True):
        values = stack[:, row, column][seen[:, row, column]].astype(np.float64)
        assert mean.mean_m[row, column] == pytest.approx(values.mean(), rel=1e-6)
        if len(values) > 1:
            assert mean.sigma_m[row, column] == pytest.approx(values.std(ddof=1), rel=1e-3, abs=2e-6)


def test_small_scatter_far_away_survives_single_precision() -> None:
    # The textbook formula E[z²] - E[z]² in float32 would leave nothing of 50 um at 2 m.
    rng = np.random.default_rng(1)
    stack = (2.0 + 5e-5 * rng.standard_normal((50, 20, 20))).astype(np.float32)
    mean = average_depth(map(depth_image, stack))
    np.testing.assert_allclose(mean.sigma_m, stack.astype(np.float64).std(axis=0, ddof=1), rtol=0.01)


def test_a_window_is_the_same_as_cutting_out_afterwards() -> None:
    rng = np.random.default_rng(2)
    images = [depth_image(rng.uniform(0.2, 0.4, (9, 11))) for _ in range(4)]
    window = Window(top=2, bottom=7, left=3, right=11)
    whole, cut = average_depth(images), average_depth(images, window)
    np.testing.assert_array_equal(cut.mean_m, whole.mean_m[window.slices])
    np.testing.assert_array_equal(cut.sigma_m, whole.sigma_m[window.slices])
    assert cut.window == window
    assert whole.window == Window(0, 9, 0, 11)


def test_what_does_not_belong_together_is_refused() -> None:
    accumulator = DepthAccumulator()
    with pytest.raises(DepthcellError, match="no frame"):
        accumulator.mean()
    accumulator.add(depth_image(np.full((4, 4), 0.3)))
    with pytest.raises(DepthcellError, match="size or depth unit"):
        accumulator.add(depth_image(np.full((4, 5), 0.3)))
    with pytest.raises(DepthcellError, match="size or depth unit"):
        accumulator.add(depth_image(np.full((4, 4), 0.3), units_m=1e-3))
    with pytest.raises(DepthcellError, match="min_fraction"):
        DepthAccumulator(min_fraction=0.0)


def test_one_frame_takes_its_scatter_from_the_model() -> None:
    noise = DisparityNoise(temporal_px=0.08, fixed_px=0.0, correlation_px=0.0)
    mean = average_depth([depth_image(np.full((3, 3), 0.4))])
    assert np.isnan(mean.sigma_m).all()
    expected_m = 0.4**2 * 0.08 / (FOCAL_PX * BASELINE_M)
    np.testing.assert_allclose(frame_sigma_m(mean, camera(noise)), np.hypot(expected_m, 1e-4 / np.sqrt(12)), rtol=1e-3)


def test_few_frames_lean_on_the_model_and_many_on_the_measurement() -> None:
    truth = DisparityNoise(temporal_px=0.08, fixed_px=0.0, correlation_px=0.0)
    wrong = camera(DisparityNoise(temporal_px=0.16, fixed_px=0.0, correlation_px=0.0))
    true_m, frames = noisy_frames(truth, 80, 1e-5, seed=3)
    sigma_m = true_m**2 * 0.08 / (FOCAL_PX * BASELINE_M)
    few = average_depth(frames[:5])
    pooled, alone = frame_sigma_m(few, camera(truth)) / sigma_m, few.sigma_m / sigma_m
    assert np.std(pooled) < 0.5 * np.std(alone)  # negative control: a sample of 5 scatters by 35 %
    assert np.sqrt(np.mean(pooled**2)) == pytest.approx(1.0, abs=0.01)
    assert np.median(frame_sigma_m(few, wrong) / sigma_m) > 1.5
    assert np.median(frame_sigma_m(average_depth(frames), wrong) / sigma_m) < 1.2


@pytest.mark.parametrize("units_m", [1e-5, 1e-4, 1e-3], ids=lambda units_m: f"{units_m * 1e3:g} mm")
@pytest.mark.parametrize("number", [1, 4, 20])
def test_stated_uncertainty_is_the_real_one(number: int, units_m: float) -> None:
    # 0.13 mm of noise: ten steps of the finest unit, an eighth of a step of the coarsest.
    noise = DisparityNoise(temporal_px=0.016, fixed_px=0.004, correlation_px=0.0)
    true_m, frames = noisy_frames(noise, number, units_m, seed=4)
    mean = average_depth(frames)
    scaled = (mean.mean_m - true_m) / random_sigma_m(mean, camera(noise))
    assert np.sqrt(np.mean(scaled**2)) == pytest.approx(1.0, abs=0.05)


def test_the_fixed_pattern_does_not_average_out() -> None:
    noise = DisparityNoise(temporal_px=0.02, fixed_px=0.02, correlation_px=0.0)
    true_m, frames = noisy_frames(noise, 60, 1e-5, seed=5)
    mean = average_depth(frames)
    forgetful = camera(DisparityNoise(temporal_px=0.02, fixed_px=0.0, correlation_px=0.0))
    error_m = mean.mean_m - true_m
    assert np.sqrt(np.mean((error_m / random_sigma_m(mean, camera(noise))) ** 2)) == pytest.approx(1.0, abs=0.05)
    assert np.sqrt(np.mean((error_m / random_sigma_m(mean, forgetful)) ** 2)) > 4.0


def test_colours_are_averaged_and_rounded() -> None:
    rng = np.random.default_rng(6)
    stack = rng.integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)
    intrinsics = Intrinsics(6, 5, 10.0, 10.0, 3.0, 2.5)
    window = Window(1, 5, 0, 4)
    accumulator = ColorAccumulator(window)
    with pytest.raises(DepthcellError, match="no frame"):
        accumulator.mean_rgb()
    for rgb in stack:
        accumulator.add(ColorImage(rgb, intrinsics, 0, 0))
    mean_rgb = accumulator.mean_rgb()
    assert mean_rgb.dtype == np.uint8
    assert np.abs(mean_rgb - stack.mean(axis=0)[window.slices]).max() <= 0.5 + 1e-3


def test_mean_is_a_value() -> None:
    mean = average_depth([depth_image(np.full((2, 2), 0.3))])
    with pytest.raises(AttributeError):
        mean.frames = 3  # type: ignore[misc]
    assert isinstance(mean, MeanDepth)


def test_noise_grows_with_incidence_as_the_cell_says() -> None:
    mean = average_depth([depth_image(np.full((3, 3), 0.4), 1e-6)])
    growing = camera(DisparityNoise(temporal_px=0.08, fixed_px=0.0, correlation_px=0.0, incidence_growth=0.5))
    head_on, slanted = (random_sigma_m(mean, growing, np.full((3, 3), tan2, np.float32)) for tan2 in (0.0, 1.0))
    np.testing.assert_allclose(slanted, 1.5 * head_on, rtol=1e-4)
    np.testing.assert_array_equal(random_sigma_m(mean, growing), head_on)
