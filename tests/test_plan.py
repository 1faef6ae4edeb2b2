"""The planner against the simulator, against plain twins, and its refusals."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthcell.acquisition.simulator.cameras import CameraModel, stereo_model
from depthcell.acquisition.simulator.stereo import StereoNoise
from depthcell.calib.planning.plan import PlannedDefect, PlanRequest, defect_shape, defect_weights, parse_defect, plan
from depthcell.calib.planning.plan_report import plan_json, plan_lines, smallest_over_distance, write_plan_picture
from depthcell.calib.planning.plan_trial import try_plan
from depthcell.errors import DepthcellError

DENT, SCRATCH = PlannedDefect.DENT, PlannedDefect.SCRATCH


@pytest.mark.parametrize(
    ("camera", "distance_m", "size_m", "frames"),
    [("D405", 0.15, 0.005, 4), ("D435", 0.3, 0.004, 3), ("D455", 0.6, 0.02, 4), ("D435", 0.5, 0.02, 8)],
)
def test_the_simulator_measures_what_was_planned(camera: str, distance_m: float, size_m: float, frames: int) -> None:
    request = PlanRequest(camera, distance_m, frames, DENT, size_m)
    answer = plan(request)
    flat = try_plan(request, 4, seed=5)
    assert flat.dents > 200
    assert flat.error_m == pytest.approx(answer.sigma_defect_m, rel=0.2)
    assert flat.sigma_pixel_m == pytest.approx(answer.sigma_frame_m, rel=0.05)
    dented = try_plan(request, 2, seed=5, depth_m=8 * answer.sigma_defect_m)
    assert dented.mean_m == pytest.approx(dented.depth_m, rel=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("tilt_deg", [1.5, 3.0, 8.0])
@pytest.mark.parametrize(
    ("camera", "distance_m", "size_m"),
    [("D405", 0.1, 0.01), ("D405", 0.2, 0.01), ("D415", 0.35, 0.02), ("D415", 0.5, 0.01), ("D435", 0.3, 0.01)],
)
def test_the_simulator_measures_what_was_planned_on_tilted_walls(
    camera: str, distance_m: float, size_m: float, tilt_deg: float
) -> None:
    request = PlanRequest(camera, distance_m, 10, DENT, size_m, math.radians(tilt_deg))
    assert try_plan(request, 24, seed=7).error_m == pytest.approx(plan(request).sigma_defect_m, rel=0.2)


def test_noise_that_the_plan_leaves_out_is_missed_by_the_trial() -> None:
    """Negative control: a plan for a camera twice as good does not agree."""
    request = PlanRequest("D405", 0.2, 3, DENT, 0.005)
    better = replace(request, noise=StereoNoise(temporal_px=0.04, fixed_px=0.015))
    assert try_plan(request, 2, seed=5).error_m > 1.5 * plan(better).sigma_defect_m


def test_the_law_holds_for_one_pixel() -> None:
    answer = plan(PlanRequest("D405", 0.2, 1, DENT, 0.01))
    law_m = 0.2**2 * 0.08 / (433 * 0.018)
    assert answer.sigma_frame_m == pytest.approx(law_m, rel=0.02)
    assert answer.min_depth_m == pytest.approx(433 * 0.018 / 126)
    assert answer.width_m == pytest.approx(848 * 0.2 / 433)
    assert answer.pixels_per_mm == pytest.approx(2.165)
    assert answer.defect_px == pytest.approx(21.65)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(list(CameraModel)),
    st.floats(1.1, 4.0),
    st.sampled_from(list(PlannedDefect)),
    st.floats(0.002, 0.02),
    st.integers(1, 60),
)
def test_more_frames_a_larger_dent_and_less_distance_never_hurt(
    camera: CameraModel, times: float, defect: PlannedDefect, size_m: float, frames: int
) -> None:
    nearest_m = stereo_model(camera).min_depth_m
    noise = StereoNoise(staircase_px=0.0)  # its wave falls now on a crest, now between: not monotonic in size
    request = PlanRequest(camera, times * nearest_m, frames, defect, size_m, noise=noise)
    sigma_m = plan(request).sigma_defect_m
    assert plan(replace(request, frames=2 * frames)).sigma_defect_m <= sigma_m
    assert plan(replace(request, frames=2 * frames)).sigma_mean_m > plan(request).sigma_lasting_m
    assert plan(replace(request, distance_m=1.1 * times * nearest_m)).sigma_frame_m > plan(request).sigma_frame_m


def test_the_fixed_pattern_stays() -> None:
    many = plan(PlanRequest("D405", 0.2, 100_000, DENT, 0.01))
    assert many.sigma_mean_m == pytest.approx(many.sigma_lasting_m, rel=1e-3)
    assert many.sigma_defect_m > 0.3 * plan(PlanRequest("D405", 0.2, 1, DENT, 0.01)).sigma_defect_m


def test_weights_read_a_defect_and_nothing_else() -> None:
    for defect, size_m in ((DENT, 0.01), (DENT, 0.001), (SCRATCH, 0.002)):
        request = PlanRequest("D405", 0.15, 1, defect, size_m)
        model = stereo_model("D405")
        weights, (shape, _) = defect_weights(request, model), defect_shape(request, model)
        assert (weights * shape).sum() == pytest.approx(1, abs=0.02)
        assert weights.sum() == pytest.approx(0, abs=1e-9)
        across = np.arange(len(weights)) - len(weights) // 2
        assert abs((weights * across).sum()) < 1e-9
        assert abs((weights * across[:, None]).sum()) < 1e-9


def test_correlated_noise_is_summed_over_all_pairs() -> None:
    """A plain twin: the covariance of every pair of pixels, one by one."""
    request = PlanRequest("D435", 0.35, 1, DENT, 0.003, 0.0, StereoNoise(staircase_px=0, quantum_px=1e-6, fixed_px=0))
    model = stereo_model("D435")
    weights = defect_weights(request, model)
    row, column = np.nonzero(weights)
    apart2 = (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2
    w, slope = weights[row, column], 0.35**2 / model.focal_baseline_m
    variance_m2 = (slope * 0.08) ** 2 * (w @ np.exp(-apart2 / 9.0) @ w) + model.units_m**2 / 12 * (w @ w)
    assert plan(request).sigma_defect_m == pytest.approx(math.sqrt(variance_m2), rel=1e-3)


def test_the_window_takes_small_defects_away() -> None:
    shares = [plan(PlanRequest("D435", 0.3, 30, DENT, size_m)).seen_share for size_m in (0.001, 0.003, 0.01, 0.03)]
    assert shares == sorted(shares)
    assert shares[0] < 0.06
    assert shares[-1] > 0.97
    fine = plan(PlanRequest("D405", 0.15, 30, SCRATCH, 1e-4))
    assert fine.smallest_depth_m is None
    assert fine.color_contrast is not None
    assert fine.color_contrast < 60


@pytest.mark.parametrize(
    ("camera", "distance_m", "size_m", "named"),
    [
        ("D405", 0.06, 0.01, "nearest possible is 62 mm"),
        ("D435", 0.1, 0.01, "nearest possible is 171 mm"),
        ("D405", 9.0, 0.01, "farthest possible is 3897 mm"),
        ("D405", math.nan, 0.01, "nearest possible"),
        ("D405", 0.1, 0.2, "more than the field of view of 196 x 111 mm"),
        ("D999", 0.1, 0.01, "unknown; choose one of"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(camera: str, distance_m: float, size_m: float, named: str) -> None:
    with pytest.raises(DepthcellError, match=named):
        plan(PlanRequest(camera, distance_m, 30, DENT, size_m))


def test_requests_out_of_range_are_refused() -> None:
    for frames, size_m, tilt_rad, named in (
        (0, 0.01, 0, "--frames 0"),
        (1, 5.0, 0, "--defect"),
        (1, 0.01, 2, "--tilt"),
    ):
        with pytest.raises(DepthcellError, match=named):
            PlanRequest("D405", 0.1, frames, DENT, size_m, tilt_rad)
    for text in ("dent", "hole:10mm", "dent:10", "dent:mm"):
        with pytest.raises(DepthcellError, match="--defect"):
            parse_defect(text)
    assert parse_defect("scratch:0.2mm") == (SCRATCH, 0.0002)
    with pytest.raises(DepthcellError, match="only dents"):
        try_plan(PlanRequest("D405", 0.1, 1, SCRATCH, 0.001), 1, 0)
    with pytest.raises(DepthcellError, match="try a smaller"):
        try_plan(PlanRequest("D405", 0.1, 1, DENT, 0.06), 1, 0)


def test_the_answer_is_readable_by_people_and_programs(tmp_path: Path) -> None:
    request = PlanRequest("D405", 0.15, 30, DENT, 0.01)
    answer = plan(request)
    lines = dict(plan_lines(answer))
    assert lines["field of view"] == "294 x 166 mm"
    assert lines["dent of 10mm"].startswith("28.9 px across; seen at 5 sigma from 0.")
    assert json.loads(plan_json(answer))["smallest_depth_m"] == answer.smallest_depth_m
    scratch = dict(plan_lines(plan(replace(request, defect=SCRATCH, size_m=1e-4))))
    assert "not seen in depth" in scratch["scratch of 0.1mm"]
    assert "grey values" in scratch["in colour"]
    write_plan_picture(request, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    distances_m, depths_m = smallest_over_distance(request, 6)
    assert distances_m[0] > answer.min_depth_m
    assert np.nanmax(depths_m) > 10 * np.nanmin(depths_m)
