"""Bores: presence, diameter with its uncertainty, and that nothing is said of what was not seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.correlated_fit import evenly, fit_linear, noise_covariance
from depthcell.fusion.align import Alignment
from depthcell.fusion.fuse import FusedPart
from depthcell.fusion.partcloud import PartCloud
from depthcell.inspect.bore import BoreCheck, check_bore
from depthcell.inspect.deviation import DeviationMap, PointDeviation
from depthcell.inspect.observation import Observation
from depthcell.inspect.recipe import BoreSection
from depthcell.inspect.verdict import Decision

BORE = BoreSection(
    name="bore A", position_mm=(5.0, -3.0, 8.0), axis=(0.0, 0.0, 1.0), diameter_mm=12.0, tolerance_mm=0.5
)
SIGMA_M, WINDOW_U_M = 5e-5, 5e-4


def scene(
    diameter_mm: float = 12.0,
    arc_deg: float = 360.0,
    covered: float = 0.0,
    rim_arc_deg: float = 360.0,
    seed: int = 0,
) -> Observation:
    """Wall points down to 6 mm, the rim around, and what covers the mouth, in the frame of a tilted part."""
    rng = np.random.default_rng(seed)
    turn = np.radians(rng.uniform(0, arc_deg, 900))
    radius_m = diameter_mm / 2e3 + rng.normal(0, SIGMA_M, 900)
    wall = np.stack((radius_m * np.cos(turn), radius_m * np.sin(turn), rng.uniform(-0.006, -0.001, 900)), axis=1)
    wall_normals = np.stack((-np.cos(turn), -np.sin(turn), np.zeros(900)), axis=1)
    flat = np.stack((*rng.uniform(-0.011, 0.011, (2, 4000)), np.zeros(4000)), axis=1)
    away, angle = np.hypot(flat[:, 0], flat[:, 1]), np.degrees(np.arctan2(flat[:, 1], flat[:, 0])) % 360
    on_rim = (away > diameter_mm / 2e3) & (angle < rim_arc_deg)
    on_lid = (away < 0.006) & (flat[:, 0] < 0.006 * (2 * covered - 1)) & (covered > 0)
    plane = flat[on_rim | on_lid]
    points = np.concatenate((wall, plane)) + BORE.position_m
    normals = np.concatenate((wall_normals, np.broadcast_to((0.0, 0.0, 1.0), plane.shape)))
    return observed(points, normals)


def observed(points_part: np.ndarray, normals_part: np.ndarray) -> Observation:
    pose = RigidTransform.from_rotation_vector("cell", "part", np.array([0.1, -0.2, 0.3]), np.array([0.01, 0.02, 0.03]))
    count, zero = len(points_part), np.zeros((6, 6))
    cloud = PartCloud(
        points_cell=np.asarray(pose @ points_part, dtype=np.float64),
        normals_cell=pose.rotate(normals_part).astype(np.float32),
        colors=np.zeros((count, 3), np.uint8),
        random_sigma_m=np.full(count, SIGMA_M, np.float32),
        systematic_sigma_m=np.full(count, 3e-5, np.float32),
        correlation_m=np.full(count, 3e-4, np.float32),
        camera=(np.arange(count) % 2).astype(np.uint8),
        pixel=np.zeros((count, 2), np.int32),
        share=np.full((count, 2), 0.5, np.float32),
        serials=("1", "2"),
    )
    points = PointDeviation(points_part, np.zeros(count, np.intp), np.zeros(count))
    alignment = Alignment(pose, zero, zero, 0.0, 1.0, count, 1, 0.0, "", ())
    fused = FusedPart((), cloud, (), 1, (), ())
    return Observation(fused, alignment, DeviationMap(points, np.zeros(0), ()), {})


def checked(observation: Observation, bore: BoreSection = BORE) -> BoreCheck:
    return check_bore(bore, observation, WINDOW_U_M)


def test_good_bore_is_measured_and_ok() -> None:
    result = checked(scene())
    assert result.judged.decision is Decision.OK
    assert result.measurement.value == pytest.approx(12.0, abs=0.03)
    assert result.measurement.u is not None
    assert result.measurement.u < 0.12
    assert (result.measurement.lower, result.measurement.upper) == (11.5, 12.5)
    assert "12 of 12 sectors, cameras 1, 2" in result.measurement.provenance


@pytest.mark.parametrize(
    ("diameter_mm", "decision"), [(12.9, Decision.NOK), (11.1, Decision.NOK), (12.45, Decision.CANNOT_TELL)]
)
def test_diameter_is_decided_by_guard_band(diameter_mm: float, decision: Decision) -> None:
    result = checked(scene(diameter_mm))
    assert result.judged.decision is result.measurement.decision is decision
    assert not result.is_missing
    assert result.measurement.value == pytest.approx(diameter_mm, abs=0.05)


@settings(max_examples=30)
@given(st.floats(11.2, 12.8), st.integers(0, 1000))
def test_interval_holds_the_diameter(diameter_mm: float, seed: int) -> None:
    measurement = checked(scene(diameter_mm, seed=seed)).measurement
    assert measurement.value is not None
    assert measurement.u is not None
    assert abs(measurement.value - diameter_mm) < 3 * measurement.u


def test_shorter_arc_is_less_certain() -> None:
    uncertainties = [checked(scene(arc_deg=arc)).measurement.u for arc in (360.0, 240.0, 150.0)]
    assert None not in uncertainties
    assert uncertainties == sorted(uncertainties, key=lambda u: u or 0.0)
    assert (uncertainties[-1] or 0.0) > 1.5 * (uncertainties[0] or 0.0)


def test_closed_mouth_is_a_missing_bore() -> None:
    result = checked(scene(covered=1.0, arc_deg=1.0))
    assert result.is_missing
    assert result.judged.decision is Decision.NOK
    assert result.measurement.value is None
    assert "missing: 100% of its mouth is closed" in result.judged.reason


def test_half_covered_mouth_is_in_doubt() -> None:
    result = checked(scene(covered=0.4))
    assert result.judged.decision is Decision.CANNOT_TELL
    assert "may be obstructed" in result.judged.reason


def test_bore_that_was_not_seen_is_not_open() -> None:
    """The negative control of presence: no points at all must not pass for an open bore."""
    for observation in (scene(rim_arc_deg=150.0), observed(np.array([[0.5, 0.5, 0.5]]), np.array([[0.0, 0.0, 1.0]]))):
        result = checked(observation)
        assert result.judged.decision is Decision.CANNOT_TELL
        assert "was not seen" in result.judged.reason


def test_wall_that_was_not_seen_gives_no_diameter() -> None:
    observation = scene(arc_deg=20.0)
    with_tolerance = checked(observation)
    assert with_tolerance.measurement.value is None
    assert with_tolerance.judged.decision is Decision.CANNOT_TELL
    without = checked(observation, replace_tolerance(None))
    assert without.judged.decision is Decision.OK
    assert "is open; too little of its wall was seen where it should be" in without.judged.reason


def test_without_tolerance_the_diameter_is_reported_and_decides_nothing() -> None:
    result = checked(scene(13.5), replace_tolerance(None))
    assert result.judged.decision is Decision.OK
    assert result.measurement.value == pytest.approx(13.5, abs=0.1)
    assert (result.measurement.lower, result.measurement.upper) == (None, None)


def replace_tolerance(tolerance_mm: float | None) -> BoreSection:
    return BORE.model_copy(update={"tolerance_mm": tolerance_mm})


def test_circle_through_something_beside_the_bore_is_no_diameter() -> None:
    good = scene(arc_deg=200.0)
    points = good.deviation.points.points_part.copy()
    points[:900] += (0.0008, 0.0, 0.0)
    normals = good.alignment.T_cell_part.inverse().rotate(good.fused.cloud.normals_cell.astype(np.float64))
    assert checked(observed(points, np.asarray(normals))).measurement.value is None


def test_a_few_wrong_points_do_not_move_the_circle() -> None:
    good = scene()
    points = good.deviation.points.points_part.copy()
    points[:60] += (0.0012, 0.0, 0.0)
    normals = good.alignment.T_cell_part.inverse().rotate(good.fused.cloud.normals_cell.astype(np.float64))
    assert checked(observed(points, np.asarray(normals))).measurement.value == pytest.approx(12.0, abs=0.05)


def test_generalised_least_squares_states_its_uncertainty() -> None:
    """Over many draws of correlated noise the scatter of the estimate is what one draw says of itself."""
    rng = np.random.default_rng(4)
    points = np.stack((*rng.uniform(0, 0.006, (2, 120)), np.zeros(120)), axis=1)
    covariance = noise_covariance(points, np.full(120, 1e-4), np.full(120, 1e-3))
    design = np.column_stack((np.ones(120), points[:, :2]))
    root = np.linalg.cholesky(covariance)
    fits = [
        fit_linear(design, design @ (1e-3, 0.1, -0.2) + root @ rng.normal(size=120), covariance) for _ in range(400)
    ]
    parameters = np.stack([fit.parameters for fit in fits])
    stated = np.sqrt(np.mean([np.diag(fit.covariance) for fit in fits], axis=0))
    np.testing.assert_allclose(parameters.mean(axis=0), (1e-3, 0.1, -0.2), atol=4 * stated.max() / 20)
    np.testing.assert_allclose(parameters.std(axis=0), stated, rtol=0.12)


def test_residuals_beyond_the_noise_enlarge_the_uncertainty() -> None:
    design, values = np.ones((50, 1)), np.random.default_rng(1).normal(0, 1e-3, 50)
    honest = fit_linear(design, values, np.eye(50) * 1e-6)
    too_sure = fit_linear(design, values, np.eye(50) * 1e-8)
    assert too_sure.covariance[0, 0] == pytest.approx(honest.covariance[0, 0], rel=0.3)


@given(st.integers(1, 2000))
def test_evenly_spread_points_are_few_and_reach_both_ends(count: int) -> None:
    chosen = evenly(count)
    assert chosen[0] == 0
    assert chosen[-1] == count - 1
    assert len(chosen) == len(set(chosen.tolist())) <= 160
