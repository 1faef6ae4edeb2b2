"""Orientation and run-out on exact geometry, truth by construction."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from gaugedscan import (
    Measured,
    Patch,
    face,
    features_of,
    lifted,
    measured,
    plane_feature,
    round_feature,
    scan_of,
    tube,
    twisted,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.budget import uncertainty_budget
from depthcell.fusion.scan import Scan

WITHIN_M = 1e-8
turns = st.tuples(*[st.floats(-3, 3)] * 3)
leans = st.floats(-1.5, 1.5)


def anywhere(turn: tuple[float, ...]) -> Measured:
    T_cell_part = RigidTransform.from_rotation_vector("cell", "part", np.array(turn), np.array([0.1, -0.2, 0.3]))
    return Measured(stated_m=4e-8, T_cell_part=T_cell_part)


def leaning(lean_deg: float, from_deg: float = 0.0) -> tuple[float, float, float]:
    """A direction in the x-z plane, `from_deg` from z and a little more."""
    angle = math.radians(from_deg + lean_deg)
    return math.sin(angle), 0.0, math.cos(angle)


BASE = plane_feature("base", (0, 0, 1), (-16, -16, -3), (16, 16, 3))


@settings(max_examples=10, deadline=None)
@given(turn=turns, lean_deg=leans, angle_deg=st.sampled_from([0.0, 30.0, 60.0, 90.0, 120.0]))
def test_a_face_at_an_angle_to_a_face(turn: tuple[float, ...], lean_deg: float, angle_deg: float) -> None:
    """An exact plane of length L that leans by a beyond its angle: `L |sin a|`; it turns about the lean's axis."""
    patches = [face((0, 0, 0), (0, 0, 1), (30, 30)), face((60, 0, 0), leaning(lean_deg, angle_deg), (20, 10))]
    other = plane_feature("other", leaning(0.0, angle_deg), (45, -14, -15), (75, 14, 15))
    scan = scan_of(patches, anywhere(turn))
    features = features_of(scan, [BASE, {**other, "point_mm": [60, 0, 0]}], A="base")
    kinds: list[Mapping[str, object]] = [{"kind": "angularity", "angle_deg": angle_deg}]
    kinds += [{"kind": "parallelism"}] if angle_deg == 0 else []
    kinds += [{"kind": "perpendicularity"}] if angle_deg == 90 else []
    # along the direction of the lean the patch is as long as `across` has laid it
    apart = patches[1].points - np.array([0.060, 0, 0])
    along = np.array(leaning(90.0 + lean_deg, angle_deg))
    expected = np.ptp(apart @ along) * abs(math.sin(math.radians(lean_deg)))
    for kind in kinds:
        for criterion in ("minimum zone", "least squares"):
            reading = measured(scan, features, feature="other", datum="A", criterion=criterion, **kind)
            assert reading.value == pytest.approx(expected, abs=WITHIN_M)


@settings(max_examples=10, deadline=None)
@given(turn=turns, lean_deg=leans, angle_deg=st.sampled_from([0.0, 45.0, 90.0]))
def test_an_axis_at_an_angle_to_an_axis_and_to_a_face(
    turn: tuple[float, ...], lean_deg: float, angle_deg: float
) -> None:
    length_mm = 12.0
    axis = leaning(lean_deg, angle_deg)
    shafts = [tube((0, 60, 0), (0, 0, 1), 20, length_mm), tube((60, 0, 0), axis, 10, length_mm)]
    boxes: list[Mapping[str, object]] = [
        BASE,
        round_feature("post", "cylinder", (0, 60, 0), 20, 12.0),
        round_feature("shaft", "cylinder", (60, 0, 0), 10, 15.0, axis=leaning(0.0, angle_deg)),
    ]
    boxes[2] = {**boxes[2], "min_mm": [40, -15, -15], "max_mm": [80, 15, 15]}
    scan = scan_of([face((0, 0, 0), (0, 0, 1), (30, 30)), *shafts], anywhere(turn))
    features = features_of(scan, boxes, A="base", B="post")
    expected = length_mm / 1e3 * abs(math.sin(math.radians(lean_deg)))
    gauges: list[Mapping[str, object]] = [
        {"kind": "angularity", "angle_deg": angle_deg, "datum": "B"},
        {"kind": "angularity", "angle_deg": 90.0 - angle_deg, "datum": "A"},
    ]
    if angle_deg in (0.0, 90.0):
        words = ("parallelism", "perpendicularity") if angle_deg == 0 else ("perpendicularity", "parallelism")
        gauges += [{"kind": words[0], "datum": "B"}, {"kind": words[1], "datum": "A"}]
    for gauge in gauges:
        assert measured(scan, features, feature="shaft", **gauge).value == pytest.approx(expected, abs=WITHIN_M)


def test_a_face_against_an_axis() -> None:
    lean = math.radians(1.0)
    patches = [tube((0, 60, 0), (0, 0, 1), 20, 12), face((0, 0, 0), (math.sin(lean), 0, math.cos(lean)), (30, 20))]
    scan = scan_of(patches)
    features = features_of(scan, [BASE, round_feature("post", "cylinder", (0, 60, 0), 20, 12.0)], B="post")
    reading = measured(scan, features, kind="perpendicularity", feature="base", datum="B")
    extent = np.ptp(patches[1].points[:, 2])
    assert reading.value == pytest.approx(extent, abs=WITHIN_M)


def eccentric(offset_mm: float) -> Patch:
    return tube((offset_mm, 60, 14), (0, 0, 1), 16, 8, columns=120)


@settings(max_examples=10, deadline=None)
@given(turn=turns, offset_mm=st.floats(0.01, 0.8))
def test_radial_runout_of_an_eccentric_shaft(turn: tuple[float, ...], offset_mm: float) -> None:
    """The farthest and the nearest point lie on the line of both centres: twice the eccentricity (120 columns)."""
    scan = scan_of([tube((0, 60, 0), (0, 0, 1), 20, 12), eccentric(offset_mm)], anywhere(turn))
    boxes: list[Mapping[str, object]] = [
        round_feature("post", "cylinder", (0, 60, 0), 20, 8.0),
        round_feature("shaft", "cylinder", (0, 60, 14), 16, 5.0),
    ]
    features = features_of(scan, boxes, B="post")
    for scope in ("circular", "total"):
        reading = measured(scan, features, kind="runout", feature="shaft", datum="B", scope=scope)
        assert reading.value == pytest.approx(2 * offset_mm / 1e3, abs=WITHIN_M)


def test_circular_runout_forgives_a_taper_and_total_does_not() -> None:
    shaft = eccentric(0.0)
    height = (shaft.points[:, 2] - 0.014) / 0.004
    tapered = shaft.lifted(5e-5 * height)
    scan = scan_of([tube((0, 60, 0), (0, 0, 1), 20, 12), tapered])
    boxes: list[Mapping[str, object]] = [
        round_feature("post", "cylinder", (0, 60, 0), 20, 8.0),
        round_feature("shaft", "cylinder", (0, 60, 14), 16, 5.0),
    ]
    features = features_of(scan, boxes, B="post")
    circular = measured(scan, features, kind="runout", feature="shaft", datum="B")
    total = measured(scan, features, kind="runout", feature="shaft", datum="B", scope="total")
    assert total.value == pytest.approx(1e-4, abs=WITHIN_M)
    # within a ring of 1 mm the taper itself is left
    assert circular.value <= 1e-4 / 8 + WITHIN_M


@pytest.mark.parametrize("lean_deg", [0.2, 1.0])
def test_axial_runout_of_a_leaning_face(lean_deg: float) -> None:
    lean = math.radians(lean_deg)
    flange = face((0, 60, 20), (math.sin(lean), 0, math.cos(lean)), (30, 30), spacing_mm=0.5)
    away = np.hypot(flange.points[:, 0], flange.points[:, 1] - 0.060)
    disc = Patch(flange.points[away < 0.0145], flange.normals[away < 0.0145])
    scan = scan_of([tube((0, 60, 0), (0, 0, 1), 20, 12), disc])
    box = plane_feature("flange", (0, 0, 1), (-16, 44, 17), (16, 76, 23))
    features = features_of(scan, [round_feature("post", "cylinder", (0, 60, 0), 20, 8.0), box], B="post")
    total = measured(scan, features, kind="runout", feature="flange", datum="B", scope="total")
    circular = measured(scan, features, kind="runout", feature="flange", datum="B")
    assert total.value == pytest.approx(np.ptp(disc.points[:, 2]), abs=WITHIN_M)
    assert circular.value == pytest.approx(2 * 0.0145 * math.tan(lean), rel=0.05)


def rough_scene() -> tuple[Scan, list[Mapping[str, object]]]:
    rng = np.random.default_rng(8)
    patches = [
        face((0, 0, 0), (0.01, 0, 1), (30, 30)),
        face((60, 0, 0), leaning(0.5, 90.0), (20, 10)),
        tube((0, 60, 0), (0.01, 0.01, 1), 20, 12),
        tube((0.1, 60, 14), (0, 0.02, 1), 16, 8),
    ]
    patches = [patch.lifted(1e-5 * rng.standard_normal(len(patch.points))) for patch in patches]
    other = plane_feature("other", leaning(0.0, 90.0), (45, -14, -15), (75, 14, 15))
    boxes: list[Mapping[str, object]] = [
        BASE,
        {**other, "point_mm": [60, 0, 0]},
        round_feature("post", "cylinder", (0, 60, 0), 20, 8.0),
        round_feature("shaft", "cylinder", (0, 60, 14), 16, 5.0),
    ]
    return scan_of(patches, anywhere((0.4, 0.3, -0.2))), boxes


@pytest.mark.parametrize(
    "gauge",
    [
        {"kind": "parallelism", "feature": "base", "datum": "C"},
        {"kind": "perpendicularity", "feature": "other", "datum": "A"},
        {"kind": "perpendicularity", "feature": "other", "datum": "A", "criterion": "least squares"},
        {"kind": "angularity", "feature": "other", "datum": "A", "angle_deg": 89},
        {"kind": "perpendicularity", "feature": "post", "datum": "A"},
        {"kind": "parallelism", "feature": "shaft", "datum": "B"},
        {"kind": "perpendicularity", "feature": "base", "datum": "B"},
        {"kind": "runout", "feature": "shaft", "datum": "B"},
        {"kind": "runout", "feature": "base", "datum": "B", "scope": "total"},
    ],
    ids=lambda gauge: f"{gauge['kind']} {gauge['feature']} to {gauge['datum']} {gauge.get('criterion', '')}",
)
def test_influence_is_what_moving_the_points_does(gauge: dict[str, object]) -> None:
    scan, boxes = rough_scene()
    if gauge["datum"] == "C":
        boxes = [*boxes, {**BASE, "name": "again"}]
    datums = {"A": "base", "B": "post", "C": "again" if gauge["datum"] == "C" else "base"}
    reading = measured(scan, features_of(scan, boxes, **datums), **gauge)
    lift = 1e-9 * np.random.default_rng(2).standard_normal(len(scan.points_part))
    # a smooth part, so that datums, which are means over many points, are moved as well
    lift += 2e-9 * np.cos(scan.points_part @ np.array([90.0, 50.0, 120.0]))
    ends = []
    for sign in (1, -1):
        moved = lifted(scan, sign * lift)
        ends.append(measured(moved, features_of(moved, boxes, **datums), **gauge).value)
    expected = float(reading.influence.gradient @ lift[reading.influence.points])
    assert (ends[0] - ends[1]) / 2 == pytest.approx(expected, rel=0.02, abs=2e-11)
    turned = twisted(scan, np.full(6, 1e-5))
    again = measured(turned, features_of(turned, boxes, **datums), **gauge)
    assert again.value == pytest.approx(reading.value, abs=1e-9)
    assert np.all(reading.influence.pose == 0)


@pytest.mark.parametrize(
    ("gauge", "says"),
    [
        ({"kind": "parallelism", "feature": "ring", "datum": "A"}, "has no direction of its own"),
        ({"kind": "parallelism", "feature": "base", "datum": "R"}, "datum 'R' is a circle"),
        ({"kind": "runout", "feature": "shaft", "datum": "A"}, "needs a cylinder's axis"),
        ({"kind": "runout", "feature": "other", "datum": "B"}, "does not stand square"),
        ({"kind": "runout", "feature": "ring", "datum": "B"}, "of a cylinder or a face"),
    ],
)
def test_another_kind_of_feature_is_refused(gauge: dict[str, object], says: str) -> None:
    scan, boxes = rough_scene()
    boxes = [*boxes, round_feature("ring", "circle", (0, 60, 14), 16, 3.0)]
    with pytest.raises(DepthcellError, match=says) as caught:
        measured(scan, features_of(scan, boxes, A="base", B="post", R="ring"), **gauge)
    assert caught.value.reason is Reason.NOT_MEASURED


def test_the_interval_of_a_nearly_parallel_axis_reaches_zero() -> None:
    """Noise only ever widens a cylinder about an axis: where it may be all there is, zero must be in the interval."""
    held = 0
    for seed in range(40):
        patches = [tube((0, 60, 0), (0, 0, 1), 20, 12), face((0, 0, 0), (0, 0, 1), (30, 30))]
        scan = scan_of(patches, Measured(sigma_m=3e-5, seed=seed))
        features = features_of(scan, [BASE, round_feature("post", "cylinder", (0, 60, 0), 20, 8.0)], A="base")
        reading = measured(scan, features, kind="perpendicularity", feature="post", datum="A")
        u_m = uncertainty_budget(reading.influence, scan, reading.noise_u, reading.extra_u).u
        held += reading.value - 2 * u_m <= 1e-12
    assert held >= 35
