"""Noise measured on simulated plates against what the simulator was told."""

from dataclasses import replace

import numpy as np
import pytest

from depthcell.acquisition.frameset import DepthImage
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.cameras import StereoModel, SystematicError, stereo_model
from depthcell.acquisition.simulator.stereo import StereoNoise, StereoView, correlated_noise, frame_counts, matched
from depthcell.calib.depth.noise_model import NoiseMeasurement, PlateFrames, measure_noise, place_noise
from depthcell.errors import DepthcellError

MODEL: StereoModel = replace(stereo_model("D435"), focal_px=220.0, units_m=1e-4)
INTRINSICS = Intrinsics(424, 240, 220.0, 220.0, 211.5, 119.5)
OUTLINE = np.array([[40.0, 20.0], [390.0, 20.0], [390.0, 220.0], [40.0, 220.0]])
PLACES = ((0.30, 0), (0.40, 20), (0.35, 40), (0.5, 30), (0.45, 50), (0.3, 10))


def plate_depth(distance_m: float, tilt_deg: float) -> np.ndarray:
    normal = np.array([np.sin(np.radians(tilt_deg)), 0.0, np.cos(np.radians(tilt_deg))])
    return np.asarray(distance_m * normal[2] / (INTRINSICS.rays() @ normal), dtype=np.float32)


def plate(distance_m: float, tilt_deg: float, noise: StereoNoise, seed: int, frames: int = 8) -> PlateFrames:
    rng = np.random.default_rng(seed)
    depth_m = plate_depth(distance_m, tilt_deg)
    seen = np.ones(depth_m.shape, np.bool_)
    still = matched(StereoView(depth_m, seen, np.ones_like(depth_m), ~seen), MODEL, SystematicError(), noise, rng)
    counts = [frame_counts(still, MODEL, noise, rng) for _ in range(frames)]
    return PlateFrames(tuple(DepthImage.from_counts(each, INTRINSICS, MODEL.units_m) for each in counts), OUTLINE)


def measured(noise: StereoNoise, seed: int) -> NoiseMeasurement:
    plates = [plate(*place, noise, 100 * seed + number) for number, place in enumerate(PLACES)]
    return measure_noise(plates, MODEL.baseline_m)


@pytest.mark.parametrize(
    ("seed", "noise"),
    [(1, StereoNoise(hole_share=0.0)), (2, StereoNoise(0.05, 0.05, 5.0, hole_share=0.0, staircase_px=0.0))],
    ids=["as simulated", "quiet and coarse"],
)
def test_the_simulators_noise_is_found_within_the_stated_interval(seed: int, noise: StereoNoise) -> None:
    found = measured(noise, seed)
    # The subpixel step of 1/32 px is noise of one frame, too, as long as other noise dithers it.
    temporal_px = float(np.hypot(noise.temporal_px, noise.quantum_px / np.sqrt(12)))
    assert abs(found.noise.temporal_px - temporal_px) < 3 * found.temporal_u_px + 2e-4
    assert found.temporal_u_px < 0.02 * temporal_px
    assert abs(found.noise.fixed_px - noise.lasting_px) < 3 * found.fixed_u_px + 1e-3
    assert abs(found.noise.correlation_px - noise.correlation_px) < 3 * found.correlation_u_px + 0.05
    assert found.noise.incidence_growth < 3 * found.growth_u


def test_growth_with_the_angle_is_found() -> None:
    plates = []
    for number, (distance_m, tilt_deg) in enumerate(PLACES):
        rng = np.random.default_rng(number)
        sigma_px = 0.06 * (1 + 0.5 * np.tan(np.radians(tilt_deg)) ** 2)
        disparity_px = MODEL.focal_baseline_m / plate_depth(distance_m, tilt_deg)
        stack = [disparity_px + sigma_px * correlated_noise(disparity_px.shape, 3.0, rng) for _ in range(6)]
        depths = [np.where(each > 1, MODEL.focal_baseline_m / each, np.nan).astype(np.float32) for each in stack]
        images = [DepthImage(depth_m, INTRINSICS, 1e-6, None, 0, 0) for depth_m in depths]
        plates.append(PlateFrames(tuple(images), OUTLINE))
    found = measure_noise(plates, MODEL.baseline_m)
    assert found.noise.incidence_growth == pytest.approx(0.5, abs=max(3 * found.growth_u, 0.03))
    assert found.noise.temporal_px == pytest.approx(0.06, rel=0.03)
    assert found.noise.fixed_px < 0.01  # there is none
    assert np.degrees(found.places[0].incidence_rad) < 5
    assert np.degrees(found.places[4].incidence_rad) == pytest.approx(50, abs=8)
    head_on = measure_noise([plates[0], plates[5], plates[0]], MODEL.baseline_m)
    assert (head_on.noise.incidence_growth, head_on.growth_u) == (0.0, np.inf)


def test_what_does_not_tell_is_refused() -> None:
    good = plate(0.4, 10, StereoNoise(), 1, frames=3)
    with pytest.raises(DepthcellError, match="2 plates, 3 are needed"):
        measure_noise([good, good], MODEL.baseline_m)
    with pytest.raises(DepthcellError, match="plate 2: 2 frames, 3 are needed"):
        place_noise(PlateFrames(good.images[:2], OUTLINE), MODEL.baseline_m, 2)
    with pytest.raises(DepthcellError, match="pixels have depth in all frames"):
        place_noise(PlateFrames(good.images, OUTLINE / 10), MODEL.baseline_m)
    same = PlateFrames((good.images[0],) * 4, OUTLINE)
    with pytest.raises(DepthcellError, match="below half a count"):
        place_noise(same, MODEL.baseline_m)
