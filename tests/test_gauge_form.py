"""Form deviations on exact geometry: a zone's width is known by how the surface was made, or by another optimiser."""

from collections.abc import Mapping

import numpy as np
import pytest
from gaugedscan import (
    Measured,
    face,
    features_of,
    lifted,
    measured,
    plane_feature,
    round_feature,
    scan_of,
    tube,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.zone import narrowest, peak_to_valley

turns = st.tuples(*[st.floats(-3, 3)] * 3)
BOX = plane_feature("face", (0, 0, 1), (-16, -16, -4), (16, 16, 4))
BORE = round_feature("bore", "cylinder", (0, 0, 0), 20.0, 11.0, side="inside")
RING = round_feature("ring", "circle", (0, 0, 0), 20.0, 0.5, side="inside")
LINE = {
    "name": "line",
    "kind": "line",
    "position_mm": [0, 0, 0],
    "direction": [1, 0, 0],
    "normal": [0, 0, 1],
    "min_mm": [-16, -1.5, -4],
    "max_mm": [16, 1.5, 4],
}


def anywhere(turn: tuple[float, ...], seed: int = 0) -> Measured:
    T_cell_part = RigidTransform.from_rotation_vector("cell", "part", np.array(turn), np.array([0.1, -0.2, 0.3]))
    return Measured(stated_m=4e-8, T_cell_part=T_cell_part, seed=seed)


def wavy_face(amplitude_m: float, turn: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Scan:
    """A saddle: its narrowest zone is that of the plane without lean, `2 amplitude` wide, by symmetry."""
    flat = face((0, 0, 0), (0, 0, 1), (30, 30))
    x, y = flat.points[:, 0] / 0.015, flat.points[:, 1] / 0.015
    return scan_of([flat.lifted(amplitude_m * (x**2 - y**2))], anywhere(turn))


@settings(max_examples=10, deadline=None)
@given(turn=turns, amplitude_um=st.floats(0, 400))
def test_flatness_of_a_saddle(turn: tuple[float, ...], amplitude_um: float) -> None:
    scan = wavy_face(amplitude_um * 1e-6, turn)
    for criterion in ("minimum zone", "least squares"):
        reading = measured(scan, features_of(scan, [BOX]), kind="flatness", feature="face", criterion=criterion)
        assert reading.value == pytest.approx(2 * amplitude_um * 1e-6, abs=2e-9)
        assert np.all(reading.influence.pose == 0)


@settings(max_examples=8, deadline=None)
@given(turn=turns, amplitude_um=st.floats(1, 200), lobes=st.integers(3, 8))
def test_roundness_of_lobes(turn: tuple[float, ...], amplitude_um: float, lobes: int) -> None:
    wall = tube((0, 0, 0), (0, 0, 1), 20.0, 20.0, inside=True, columns=12 * lobes, rows=3)
    angle = np.arctan2(wall.points[:, 1], wall.points[:, 0])
    scan = scan_of([wall.lifted(amplitude_um * 1e-6 * np.cos(lobes * angle))], anywhere(turn))
    features = features_of(scan, [RING])
    reading = measured(scan, features, kind="roundness", feature="ring")
    assert reading.value == pytest.approx(2 * amplitude_um * 1e-6, abs=2e-9)


@settings(max_examples=6, deadline=None)
@given(turn=turns, amplitude_um=st.floats(1, 200), barrel=st.booleans())
def test_cylindricity_and_median_line(turn: tuple[float, ...], amplitude_um: float, barrel: bool) -> None:
    amplitude_m = amplitude_um * 1e-6
    wall = tube((0, 0, 0), (0, 0, 1), 20.0, 20.0, inside=True, columns=72, rows=21)
    angle, height = np.arctan2(wall.points[:, 1], wall.points[:, 0]), wall.points[:, 2] / 0.010
    if barrel:  # radius varies along the axis, the median line is straight
        scan, bent_m = scan_of([wall.lifted(amplitude_m * (1 - height**2))], anywhere(turn)), 0.0
        features = features_of(scan, [BORE])
        reading = measured(scan, features, kind="cylindricity", feature="bore")
        assert reading.value == pytest.approx(amplitude_m, abs=2e-9)
    else:  # the axis is bent as a parabola: whose narrowest cylinder is half of its rise about its middle
        points = wall.points + amplitude_m * (height**2)[:, None] * np.array([1.0, 0, 0])
        scan, bent_m = scan_of([type(wall)(points, wall.normals)], anywhere(turn)), amplitude_m
    bent = measured(scan, features_of(scan, [BORE]), kind="straightness", feature="bore")
    sections = len(bent.drawn[1].curve_part) + 1  # type: ignore[arg-type]
    assert sections >= 10
    # sections are means over their height, which take a little off the parabola's ends
    assert bent.value == pytest.approx(bent_m, abs=0.15 * bent_m + 2e-9)
    assert np.abs(angle).max() > 3


@settings(max_examples=10, deadline=None)
@given(turn=turns, amplitude_um=st.floats(0, 300))
def test_straightness_of_a_bent_line(turn: tuple[float, ...], amplitude_um: float) -> None:
    """A parabola's narrowest zone is parallel to its chord."""
    flat = face((0, 0, 0), (0, 0, 1), (30, 2), spacing_mm=0.5)
    scan = scan_of([flat.lifted(amplitude_um * 1e-6 * (flat.points[:, 0] / 0.015) ** 2)], anywhere(turn))
    reading = measured(scan, features_of(scan, [LINE]), kind="straightness", feature="line")
    assert reading.value == pytest.approx(amplitude_um * 1e-6, abs=2e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), motions=st.integers(1, 4))
def test_narrowest_zone_against_another_optimiser(seed: int, motions: int) -> None:
    rng = np.random.default_rng(seed)
    residual, moves = 1e-4 * rng.standard_normal(150), rng.uniform(-1, 1, (motions, 150))
    ours = narrowest(residual, moves)

    def span(c: np.ndarray) -> float:
        return float(np.ptp(residual / 1e-4 + c @ moves))

    def soft(c: np.ndarray, sharp: float) -> float:
        lift = (residual / 1e-4 + c @ moves) * sharp
        return float(np.logaddexp.reduce(lift) + np.logaddexp.reduce(-lift)) / sharp

    at = np.zeros(motions)
    for sharp in (5.0, 50.0, 500.0):
        at = minimize(soft, at, args=(sharp,), method="BFGS").x
    theirs = minimize(span, at, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9, "maxiter": 4000}).fun
    assert ours.width_m <= theirs * 1e-4 + 1e-12
    assert ours.width_m == pytest.approx(theirs * 1e-4, rel=2e-3)
    assert ours.gradient.sum() == pytest.approx(0.0, abs=1e-9)
    assert np.abs(moves @ ours.gradient).max() < 1e-9, "at the optimum no motion changes the width"


def test_peak_to_valley_is_that_of_a_least_squares_fit() -> None:
    rng = np.random.default_rng(3)
    residual, moves = rng.standard_normal(60), rng.uniform(-1, 1, (3, 60))
    fitted = residual - moves.T @ np.linalg.lstsq(moves.T, residual, rcond=None)[0]
    found = peak_to_valley(residual, moves)
    assert found.width_m == pytest.approx(np.ptp(fitted))
    small = 1e-7 * rng.standard_normal(60)
    assert peak_to_valley(residual + small, moves).width_m - found.width_m == pytest.approx(found.gradient @ small)


@pytest.mark.parametrize(
    ("kind", "feature", "criterion"),
    [
        ("flatness", "face", "minimum zone"),
        ("flatness", "face", "least squares"),
        ("straightness", "line", "minimum zone"),
        ("straightness", "line", "least squares"),
        ("roundness", "ring", "minimum zone"),
        ("cylindricity", "bore", "minimum zone"),
        ("straightness", "bore", "minimum zone"),
        ("straightness", "bore", "least squares"),
    ],
)
def test_influence_is_what_moving_the_points_does(kind: str, feature: str, criterion: str) -> None:
    rng = np.random.default_rng(11)
    flat = face((60, 0, 0), (0, 0, 1), (30, 30))
    wall = tube((0, 0, 0), (0, 0, 1), 20.0, 20.0, inside=True, columns=60, rows=21)
    patches = [flat.lifted(2e-5 * rng.standard_normal(len(flat.points)))]
    patches.append(wall.lifted(2e-5 * rng.standard_normal(len(wall.points))))
    scan = scan_of(patches, anywhere((0.1, 0.2, 0.3)))
    box = plane_feature("face", (0, 0, 1), (44, -16, -4), (76, 16, 4))
    line = {**LINE, "position_mm": [60, 0, 0], "min_mm": [44, -1.5, -4], "max_mm": [76, 1.5, 4]}
    boxes: list[Mapping[str, object]] = [box, line, BORE, {**RING, "min_mm": [-13, -13, -2.5], "max_mm": [13, 13, 2.5]}]
    reading = measured(scan, features_of(scan, boxes), kind=kind, feature=feature, criterion=criterion)
    lift = 1e-9 * rng.standard_normal(len(scan.points_part))
    ends = []
    for sign in (1, -1):
        moved = lifted(scan, sign * lift)
        ends.append(measured(moved, features_of(moved, boxes), kind=kind, feature=feature, criterion=criterion).value)
    expected = float(reading.influence.gradient @ lift[reading.influence.points])
    assert abs(expected) > 1e-11
    assert (ends[0] - ends[1]) / 2 == pytest.approx(expected, rel=0.1, abs=5e-12)


def test_noise_is_taken_off_a_zone() -> None:
    flat = face((0, 0, 0), (0, 0, 1), (30, 30), spacing_mm=0.5)
    scan = scan_of([flat], Measured(sigma_m=3e-5, seed=4))
    reading = measured(scan, features_of(scan, [BOX]), kind="flatness", feature="face")
    raw = np.ptp(features_of(scan, [BOX]).associated("face", "minimum zone").residual_m)
    assert raw > 1.5e-4
    assert reading.value < 2e-5
    assert reading.noise_u is not None
    assert reading.value < 3 * reading.noise_u + 1e-5


@pytest.mark.parametrize(
    ("kind", "feature", "says"),
    [
        ("flatness", "ring", "flatness is of a plane"),
        ("roundness", "face", "roundness is of a circle"),
        ("cylindricity", "face", "name a cylinder"),
        ("straightness", "face", "of a line"),
    ],
)
def test_another_kind_of_feature_is_refused(kind: str, feature: str, says: str) -> None:
    wall = tube((60, 0, 0), (0, 0, 1), 20.0, 20.0, inside=True, rows=41)
    scan = scan_of([face((0, 0, 0), (0, 0, 1), (30, 30)), wall])
    ring = round_feature("ring", "circle", (60, 0, 0), 20.0, 2.0, side="inside")
    with pytest.raises(DepthcellError, match=says) as caught:
        measured(scan, features_of(scan, [BOX, ring]), kind=kind, feature=feature)
    assert caught.value.reason is Reason.NOT_MEASURED


def test_a_median_line_needs_sections() -> None:
    scan = scan_of([tube((0, 0, 0), (0, 0, 1), 20.0, 1.0, inside=True)])
    with pytest.raises(DepthcellError, match="sections of 'bore' were seen"):
        measured(scan, features_of(scan, [BORE]), kind="straightness", feature="bore")


def test_a_burr_counts_in_flatness_and_a_flying_pixel_does_not() -> None:
    flat = face((0, 0, 0), (0, 0, 1), (40, 30), 0.5)
    burr = (np.hypot(flat.points[:, 0] - 8e-3, flat.points[:, 1]) < 1.6e-3) * 1e-3
    flyers = np.zeros(len(flat.points))
    flyers[[333, 1700, 3111]] = 1.2e-3
    box = plane_feature("face", (0, 0, 1), (-22, -17, -3), (22, 17, 3))

    def flatness_mm(lift: np.ndarray) -> float:
        scan = scan_of([flat.lifted(lift)], Measured(sigma_m=2e-5))
        return 1e3 * measured(scan, features_of(scan, [box]), kind="flatness", feature="face").value

    assert flatness_mm(burr + flyers) == pytest.approx(1.0, abs=0.1)
    assert flatness_mm(flyers) < 0.1


def test_a_burr_beyond_capture_is_no_flat_face() -> None:
    """It is none of the feature's points, and must not be overlooked for that."""
    corners = np.array([[x, y, z] for z in (-10, 0) for y in (-20, 20) for x in (-30, 30)]) / 1e3
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    triangles = [(a, b, c) for a, b, c, d in quads for a, b, c in ((a, b, c), (a, c, d))]
    block = Reference(corners, np.array(triangles, np.int32))
    flat = face((0, 0, 0), (0, 0, 1), (58, 38), 0.5)
    burr = np.where(np.hypot(flat.points[:, 0] - 8e-3, flat.points[:, 1]) < 1.6e-3, 3e-3, 0.0)
    box = plane_feature("face", (0, 0, 1), (-31, -21, -2), (31, 21, 2))
    good = scan_of([flat], Measured(sigma_m=2e-5), block)
    assert 1e3 * measured(good, features_of(good, [box]), kind="flatness", feature="face").value < 0.05
    burred = scan_of([flat.lifted(burr)], Measured(sigma_m=2e-5), block)
    with pytest.raises(DepthcellError, match=r"points over its face lie up to \+3.0 mm off") as caught:
        measured(burred, features_of(burred, [box]), kind="flatness", feature="face")
    assert caught.value.reason is Reason.NOT_MEASURED
