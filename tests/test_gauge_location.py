"""Position in datum systems, and profiles against the reference, on exact geometry."""

import math

import numpy as np
import pytest
from gaugedscan import (
    Measured,
    Patch,
    ball,
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
from stagedpart import TOP_MM, plate_mesh

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan

WITHIN_M = 1e-8
turns = st.tuples(*[st.floats(-3, 3)] * 3)
small = st.tuples(*[st.floats(-0.01, 0.01)] * 3, *[st.floats(-4e-4, 4e-4)] * 3)
offsets = st.tuples(*[st.floats(-0.5, 0.5)] * 3)

BOXES = [
    plane_feature("base", (0, 0, 1), (-16, -16, -3), (16, 16, 3)),
    plane_feature("side", (1, 0, 0), (33, -16, -20), (39, 16, -4)),
    plane_feature("end", (0, 1, 0), (-16, 33, -20), (16, 39, -4)),
    round_feature("bore", "cylinder", (5, 4, -10), 12, 6.0, side="inside"),
    round_feature("ball", "sphere", (-60, 0, 0), 20, 14.0),
]


def block(bore_mm: tuple[float, float, float], ball_mm: tuple[float, float, float]) -> list[Patch]:
    """Three faces square to each other, a bore and a ball that lie off by so much."""
    return [
        face((0, 0, 0), (0, 0, 1), (30, 30)),
        face((36, 0, -12), (1, 0, 0), (10, 24)),
        face((0, 36, -12), (0, 1, 0), (24, 10)),
        tube(tuple(np.array((5, 4, -10)) + bore_mm), (0, 0, 1), 12, 8, inside=True),
        ball(tuple(np.array((-60, 0, 0)) + ball_mm), 20),
    ]


@settings(max_examples=12, deadline=None)
@given(turn=turns, off=offsets, misplaced=small)
def test_position_does_not_rest_on_the_alignment_once_datums_hold_all(
    turn: tuple[float, ...], off: tuple[float, float, float], misplaced: tuple[float, ...]
) -> None:
    T_cell_part = RigidTransform.from_rotation_vector("cell", "part", np.array(turn), np.zeros(3))
    scan = scan_of(block(off, off), Measured(stated_m=4e-8, T_cell_part=T_cell_part, misplaced=misplaced))
    features = features_of(scan, BOXES, A="base", B="side", C="end")
    bore = measured(scan, features, kind="position", feature="bore", datums=["A", "B", "C"])
    assert bore.value == pytest.approx(2e-3 * math.hypot(off[0], off[1]), abs=WITHIN_M)
    sphere = measured(scan, features, kind="position", feature="ball", datums=["A", "B", "C"])
    assert sphere.value == pytest.approx(2e-3 * math.dist(off, (0, 0, 0)), abs=WITHIN_M)
    along = measured(scan, features, kind="coordinate", feature="bore", direction=[1, 0, 0], datums=["A", "B", "C"])
    assert along.value == pytest.approx(5e-3 + off[0] * 1e-3, abs=WITHIN_M)
    assert np.abs(bore.influence.pose).max() < 1e-6


def test_position_of_an_axis_counts_at_its_farther_end() -> None:
    lean = 0.01
    tilted = tube((5, 4, -10), (lean, 0, 1), 12, 8, inside=True)
    scan = scan_of([*block((0, 0, 0), (0, 0, 0))[:3], tilted])
    features = features_of(scan, BOXES, A="base", B="side", C="end")
    reading = measured(scan, features, kind="position", feature="bore", datums=["A", "B", "C"])
    assert reading.value == pytest.approx(2 * lean * np.ptp(tilted.points[:, 2]) / 2, rel=1e-3)


@settings(max_examples=8, deadline=None)
@given(shift_mm=st.floats(-0.3, 0.3), lean_deg=st.floats(-0.5, 0.5))
def test_position_of_a_face_and_of_a_face_with_one_datum(shift_mm: float, lean_deg: float) -> None:
    lean = math.radians(lean_deg)
    other = face((60, 0, 5 + shift_mm), (math.sin(lean), 0, math.cos(lean)), (20, 10))
    scan = scan_of([face((0, 0, 0), (0, 0, 1), (30, 30)), other])
    boxes = [BOXES[0], {**plane_feature("other", (0, 0, 1), (45, -14, 2), (75, 14, 8)), "point_mm": [60, 0, 5]}]
    reading = measured(scan, features_of(scan, boxes, A="base"), kind="position", feature="other", datums=["A"])
    assert reading.value == pytest.approx(2 * np.abs(other.points[:, 2] - 0.005).max(), abs=WITHIN_M)
    assert "free" in reading.note


@pytest.mark.parametrize("feature", ["bore", "ball", "end"])
@pytest.mark.parametrize("datums", [["A", "B", "C"], ["A", "B"], ["A"]], ids="".join)
def test_influence_is_what_moving_the_points_and_the_pose_does(feature: str, datums: list[str]) -> None:
    turn = RigidTransform.from_rotation_vector("cell", "part", np.array([0.4, -0.2, 0.5]), np.array([0.1, 0, 0.2]))
    patches = block((0.2, -0.1, 0.05), (0.1, 0.2, 0.3))
    patches[2] = patches[2].lifted(1e-5 * np.random.default_rng(4).standard_normal(len(patches[2].points)))
    # one end of the bore lies farther off than the other: where both do alike, the value has a kink
    patches[3] = tube((5.2, 3.9, -10), (0.005, 0.002, 1), 12, 8, inside=True)
    scan = scan_of(patches, Measured(stated_m=4e-8, T_cell_part=turn))
    labels = {"A": "base", "B": "side", "C": "end"}
    gauge = {"kind": "position", "feature": feature, "datums": [one for one in datums if labels[one] != feature]}
    reading = measured(scan, features_of(scan, BOXES, **labels), **gauge)
    rng = np.random.default_rng(5)
    lift = 1e-9 * np.cos(scan.points_part @ rng.normal(0, 60, 3) + 0.3)
    ends = []
    for sign in (1, -1):
        moved = lifted(scan, sign * lift)
        ends.append(measured(moved, features_of(moved, BOXES, **labels), **gauge).value)
    expected = float(reading.influence.gradient @ lift[reading.influence.points])
    assert (ends[0] - ends[1]) / 2 == pytest.approx(expected, rel=0.01, abs=1e-11)
    for number in range(6):
        ends = []
        for sign in (1, -1):
            turned = twisted(scan, sign * 1e-6 * np.eye(6)[number])
            ends.append(measured(turned, features_of(turned, BOXES, **labels), **gauge).value)
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(reading.influence.pose[number], rel=1e-3, abs=1e-4)


@pytest.fixture(scope="module")
def reference() -> Reference:
    mesh = plate_mesh()
    return Reference(mesh.vertices_m, mesh.triangles)


def plate(reference: Reference, lift: str, misplaced: tuple[float, ...] = (0.0,) * 6) -> Scan:
    """The plate's top, with a bump, a dent or an offset of 0.1 mm."""
    top = face((-8, 0, TOP_MM), (0, 0, 1), (28, 28), spacing_mm=0.5)
    x, y = top.points[:, 0] + 0.008, top.points[:, 1]
    lifts = {
        "bump": 1e-4 * np.exp(-(x**2 + y**2) / 0.006**2),
        "dent": -1e-4 * np.exp(-(x**2 + y**2) / 0.006**2),
        "offset": np.full(len(x), 1e-4),
        "none": np.zeros(len(x)),
    }
    return scan_of([top.lifted(lifts[lift])], Measured(misplaced=misplaced), reference)


BOX = {"min_mm": [-23, -15, 5], "max_mm": [7, 15, 11]}


@pytest.mark.parametrize(("lift", "expected_mm"), [("bump", 0.2), ("dent", 0.2), ("offset", 0.2), ("none", 0.0)])
def test_profile_of_a_surface_and_of_a_line(reference: Reference, lift: str, expected_mm: float) -> None:
    scan = plate(reference, lift)
    features = features_of(scan, [])
    surface = measured(scan, features, kind="profile_surface", **BOX)
    section = {"point_mm": [-8, 0, 8], "normal": [0, 1, 0], "width_mm": 1.5}
    line = measured(scan, features, kind="profile_line", **section, **BOX)
    for reading in (surface, line):
        assert reading.value == pytest.approx(expected_mm / 1e3, abs=1e-6)
        assert "best fit" in reading.note
    assert len(line.drawn[0].points) < len(surface.drawn[0].points) / 10
    assert scan.points_part[line.drawn[0].points][:, 1] == pytest.approx(0, abs=0.76e-3)


def test_profile_with_datums_forgives_the_pose_and_without_does_not(reference: Reference) -> None:
    shift = (0.0, 0.0, 0.0, 0.0, 0.0, 3e-4)
    scan = plate(reference, "bump", shift)
    top = {**plane_feature("rim", (0, 0, 1), (-23, 8, 5), (7, 15, 11)), "point_mm": [0, 0, TOP_MM]}
    features = features_of(scan, [top], A="rim")
    held = measured(scan, features, kind="profile_surface", datums=["A"], **BOX)
    loose = measured(scan, features, kind="profile_surface", **BOX)
    assert held.value == pytest.approx(2e-4, abs=8e-6)  # the bump's foot lifts the rim by some micrometres
    assert loose.value == pytest.approx(6e-4, abs=2e-6)
    assert abs(loose.influence.pose[5]) == pytest.approx(2.0, abs=1e-6)
    assert np.abs(held.influence.pose[5]) < 1e-6


def test_profile_influence_is_what_moving_the_pose_does(reference: Reference) -> None:
    scan = plate(reference, "bump")
    reading = measured(scan, features_of(scan, []), kind="profile_surface", **BOX)
    for number in range(6):
        ends = []
        for sign in (1, -1):
            turned = twisted(scan, sign * 1e-6 * np.eye(6)[number])
            ends.append(measured(turned, features_of(turned, []), kind="profile_surface", **BOX).value)
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(reading.influence.pose[number], abs=2e-3)


@pytest.mark.parametrize(
    ("gauge", "says"),
    [
        ({"kind": "profile_surface", **BOX}, "the scan has none; name reference.mesh"),
        ({"kind": "position", "feature": "line", "datums": ["A"]}, "line on a face"),
        ({"kind": "position", "feature": "ball", "datums": ["L"]}, "datum 'L'.*line on a face"),
    ],
)
def test_what_has_no_answer_is_refused(gauge: dict[str, object], says: str) -> None:
    scan = scan_of(block((0, 0, 0), (0, 0, 0)))
    line = {
        "name": "line",
        "kind": "line",
        "position_mm": [0, 0, 0],
        "direction": [1, 0, 0],
        "normal": [0, 0, 1],
        "min_mm": [-16, -1.5, -3],
        "max_mm": [16, 1.5, 3],
    }
    with pytest.raises(DepthcellError, match=says) as caught:
        measured(scan, features_of(scan, [*BOXES, line], A="base", L="line"), **gauge)
    assert caught.value.reason is Reason.NOT_MEASURED


SIX = [
    ("base 1", (-12, -12, 0), (0, 0, 1)),
    ("base 2", (12, -12, 0), (0, 0, 1)),
    ("base 3", (0, 12, 0), (0, 0, 1)),
    ("side 1", (36, -3, -12), (1, 0, 0)),
    ("side 2", (36, 3, -12), (1, 0, 0)),
    ("end", (0, 36, -12), (0, 1, 0)),
]


@settings(max_examples=6, deadline=None)
@given(misplaced=small)
def test_six_reference_points_hold_the_part_as_three_square_faces_do(misplaced: tuple[float, ...]) -> None:
    where = twisted(scan_of(block((0.2, 0.1, 0.0), (0, 0, 0))), np.array(misplaced) * 0.2)
    points = [{"name": name, "position_mm": at, "direction": along} for name, at, along in SIX]
    features = features_of(where, BOXES, A="base", B="side", C="end", RPS={"points": points})
    by_points = measured(where, features, kind="position", feature="bore", datums=["RPS"])
    by_faces = measured(where, features, kind="position", feature="bore", datums=["A", "B", "C"])
    assert by_points.value == pytest.approx(2 * math.hypot(2e-4, 1e-4), abs=1e-6)
    assert by_points.value == pytest.approx(by_faces.value, abs=1e-6)
    assert "6 reference points RPS" in by_points.note
    assert np.abs(by_points.influence.pose).max() < 1e-6


def test_common_datum_takes_both_faces_alike_and_precedence_the_first() -> None:
    """Of two level faces 60 mm apart, one 0.1 mm high, the common datum lies between, by their points."""
    patches = [face((-30, 0, 0), (0, 0, 1), (20, 20)), face((30, 0, 0.1), (0, 0, 1), (20, 20)), ball((0, 40, 0), 20)]
    boxes = [
        plane_feature("left", (0, 0, 1), (-41, -11, -3), (-19, 11, 3)),
        plane_feature("right", (0, 0, 1), (19, -11, -3), (41, 11, 3)),
        round_feature("ball", "sphere", (0, 40, 0), 20, 14.0),
    ]
    scan = scan_of(patches)
    features = features_of(scan, boxes, A="left", B="right")
    height = {"kind": "coordinate", "feature": "ball", "direction": [0, 0, 1]}
    assert measured(scan, features, **height, datums=["A"]).value == pytest.approx(0.0, abs=1e-6)
    common = measured(scan, features, **height, datums=["A-B"])
    assert common.value == pytest.approx(-5e-5, abs=2e-6)
    assert "datums A-B" in common.note


def test_tangent_datum_lies_on_the_highest_points() -> None:
    scan = scan_of([face((0, 0, 0), (0, 0, 1), (30, 30)), ball((0, 0, 40), 20)])
    waves = 5e-5 * np.sin(scan.points_part[:, 0] * 2 * np.pi / 5e-3)
    raised = lifted(scan, np.where(scan.points_part[:, 2] < 5e-3, waves, 0.0))
    boxes = [plane_feature("base", (0, 0, 1), (-16, -16, -3), (16, 16, 3))]
    boxes.append(round_feature("ball", "sphere", (0, 0, 40), 20, 14.0))
    height = {"kind": "coordinate", "feature": "ball", "direction": [0, 0, 1], "datums": ["A"]}
    by_squares = measured(raised, features_of(raised, boxes, A="base"), **height).value
    touching = measured(
        raised, features_of(raised, boxes, A={"feature": "base", "criterion": "tangent"}), **height
    ).value
    assert by_squares == pytest.approx(0.04, abs=2e-6)
    assert touching == pytest.approx(0.04 - 5e-5, abs=3e-6)


def test_reference_point_that_nobody_saw_is_refused() -> None:
    scan = scan_of(block((0, 0, 0), (0, 0, 0)))
    points = [{"name": "aside", "position_mm": (300, 0, 0), "direction": (0, 0, 1)}]
    features = features_of(scan, BOXES, RPS={"points": points})
    with pytest.raises(DepthcellError, match="reference point 'aside': 0 measured points") as refusal:
        measured(scan, features, kind="position", feature="bore", datums=["RPS"])
    assert refusal.value.reason is Reason.NOT_MEASURED
