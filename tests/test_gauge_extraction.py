"""Which points are a feature's, and why there are none: every refusal names the feature and says what to do."""

from collections.abc import Mapping

import numpy as np
import pytest
from gaugedscan import Measured, Patch, face, features_of, measured, plane_feature, round_feature, scan_of, tube
from stagedpart import SERIALS, TOP_MM, plate_mesh

from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan
from depthcell.inspect.featuresections import PlaneFeature
from depthcell.inspect.gauges.extraction import extract

TOP = plane_feature("top", (0, 0, 1), (-16, -16, 5), (16, 16, 11))
BORE = round_feature("bore", "cylinder", (12, 0, 4), 12, 3.5, side="inside")


@pytest.fixture(scope="module")
def reference() -> Reference:
    mesh = plate_mesh()
    return Reference(mesh.vertices_m, mesh.triangles)


@pytest.fixture
def scan(reference: Reference) -> Scan:
    wall = tube((12, 0, 4), (0, 0, 1), 12, 6, inside=True)
    return scan_of([face((0, 0, TOP_MM), (0, 0, 1), (30, 30)), wall], Measured(sigma_m=2e-5), reference)


def refusal(scan: Scan, feature: Mapping[str, object]) -> str:
    with pytest.raises(DepthcellError) as caught:
        features_of(scan, [feature]).points(str(feature["name"]))
    assert caught.value.reason is Reason.NOT_MEASURED
    assert f"feature '{feature['name']}'" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_points_are_those_of_the_box_near_the_surface_and_facing_as_it_does(scan: Scan) -> None:
    flat = scan.points_part[features_of(scan, [TOP]).points("top")]
    assert len(flat) == 31 * 31
    assert np.all(np.abs(flat[:, 2] - TOP_MM / 1e3) < 2e-4)
    # the wall's upper rows lie in the top's box, and near its plane; their normals look another way
    assert len(features_of(scan, [BORE]).points("bore")) == 13 * 72


def test_points_beyond_the_capture_are_left_out(scan: Scan) -> None:
    flat = scan_of([face((0, 0, TOP_MM), (0, 0, 1), (30, 30))], Measured(sigma_m=2e-5))
    near = {**TOP, "point_mm": [0, 0, TOP_MM - 0.6], "capture_mm": 0.5}
    assert "none within capture_mm 0.5 of the nominal surface, the nearest" in refusal(flat, near)
    assert len(features_of(flat, [{**near, "capture_mm": 0.8}]).points("top")) == 31 * 31


def test_an_empty_region_of_interest_is_told_from_a_surface_no_camera_saw(scan: Scan) -> None:
    nowhere = plane_feature("nowhere", (0, 0, 1), (100, 100, 5), (120, 120, 11))
    assert "its box is empty: the reference has no surface in it either" in refusal(scan, nowhere)
    below = plane_feature("underside", (0, 0, -1), (-20, -10, -2), (-8, 10, 2))
    told = refusal(scan, below)
    assert "no camera saw it: the reference has a surface in its box" in told
    assert all(serial in told for serial in SERIALS)
    unknown = scan_of([face((0, 0, TOP_MM), (0, 0, 1), (30, 30))])
    assert "no camera saw it" in refusal(unknown, below)
    assert "or min_mm, max_mm miss the part" in refusal(unknown, below)


def test_a_wrong_side_or_normal_is_named(scan: Scan) -> None:
    assert "check normal" in refusal(scan, {**TOP, "normal": [0, 0, -1]})
    narrow = {**BORE, "min_mm": [3, -9, 1], "max_mm": [21, 9, 6]}
    assert "check side" in refusal(scan, {**narrow, "side": "outside"})


def test_too_few_points_are_refused(scan: Scan) -> None:
    small = plane_feature("corner", (0, 0, 1), (-15.5, -15.5, 5), (-12.5, -12.5, 11))
    assert "needs at least 30" in refusal(scan, small)


def test_a_box_that_ends_at_the_surface_is_refused_and_one_that_reaches_beyond_is_not(scan: Scan) -> None:
    cut = {**TOP, "min_mm": [-16, -16, TOP_MM], "point_mm": [0, 0, TOP_MM]}
    assert "its box cuts through the surface" in refusal(scan, cut)
    beyond = {**cut, "min_mm": [-16, -16, TOP_MM - 0.2]}
    assert len(features_of(scan, [beyond]).points("top")) == 31 * 31


def test_a_face_seen_as_a_line_has_no_plane() -> None:
    strip = face((0, 0, 0), (0, 0, 1), (60, 0.1), spacing_mm=0.1)
    scan = scan_of([strip], Measured(sigma_m=3e-5))
    assert "a plane needs an area" in refusal(scan, plane_feature("strip", (0, 0, 1), (-40, -40, -2), (40, 40, 2)))


def test_a_short_arc_is_refused_only_where_it_is_noise() -> None:
    for seen_deg, sigma_m, is_refused in ((8.0, 3e-5, True), (40.0, 3e-5, False), (8.0, 1e-6, False)):
        arc = tube((0, 0, 0), (0, 0, 1), 20, 6, inside=True, turn_deg=(0.0, seen_deg))
        scan = scan_of([arc], Measured(sigma_m=sigma_m))
        bore = round_feature("bore", "cylinder", (0, 0, 0), 20, 5.0, side="inside")
        if is_refused:
            assert "of its turn were seen" in refusal(scan, bore)
        else:
            assert len(features_of(scan, [bore]).points("bore")) == 13 * 72


def test_a_short_arc_says_so_by_its_uncertainty() -> None:
    u_m = []
    for seen_deg in (360.0, 60.0):
        arc = tube((0, 0, 0), (0, 0, 1), 20, 6, inside=True, turn_deg=(0.0, seen_deg))
        scan = scan_of([arc], Measured(sigma_m=2e-5))
        bore = round_feature("bore", "cylinder", (0, 0, 0), 20, 5.0, side="inside")
        reading = measured(scan, features_of(scan, [bore]), kind="diameter", feature="bore")
        u_m.append(2e-5 * float(np.linalg.norm(reading.influence.gradient)))
    assert u_m[1] > 10 * u_m[0]


def test_a_name_that_is_not_in_the_recipe_is_answered_with_the_nearest(scan: Scan) -> None:
    features = features_of(scan, [TOP, BORE], A="top")
    with pytest.raises(DepthcellError, match=r"feature.name 'bor' is not in it; did you mean 'bore'\?") as caught:
        features.points("bor")
    assert caught.value.reason is Reason.RECIPE_INVALID
    with pytest.raises(DepthcellError, match=r"datum.label .Z. is not in it; known are A"):
        features.datum("Z")


def test_a_feature_is_associated_once(scan: Scan) -> None:
    features = features_of(scan, [TOP])
    assert features.found("top") is features.found("top")
    assert features.found("top") is not features.found("top", "minimum zone")
    missing = features_of(scan, [plane_feature("gone", (0, 0, 1), (100, 100, 5), (120, 120, 11))])
    errors = []
    for _ in range(2):
        with pytest.raises(DepthcellError) as caught:
            missing.found("gone")
        errors.append(caught.value)
    assert errors[0] is errors[1]


def test_outliers_take_no_part() -> None:
    flat = face((0, 0, 0), (0, 0, 1), (30, 30))
    rng = np.random.default_rng(1)
    lift = 2e-5 * rng.standard_normal(len(flat.points))
    spoiled = rng.choice(len(flat.points), 60, replace=False)
    lift[spoiled] = 8e-4
    clean = Patch(np.delete(flat.points, spoiled, 0), np.delete(flat.normals, spoiled, 0))
    box = plane_feature("face", (0, 0, 1), (-16, -16, -3), (16, 16, 3))
    scan = scan_of([flat.lifted(lift)], Measured(stated_m=2e-5))
    found = features_of(scan, [box]).found("face")
    assert not np.isin(spoiled, found.used).any()
    assert len(found.used) > 0.97 * len(clean.points)
    assert found.associated.outliers >= 60


def test_points_beside_an_edge_of_the_reference_are_left_out() -> None:
    corners = np.array([[x, y, z] for z in (-10, 0) for y in (-20, 20) for x in (-30, 30)]) / 1e3
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    triangles = [(a, b, c) for a, b, c, d in quads for a, b, c in ((a, b, c), (a, c, d))]
    block = Reference(corners, np.array(triangles, np.int32))
    scan = scan_of([face((0, 0, 0), (0, 0, 1), (60, 40))], Measured(), block)

    def reach_mm(edge_mm: float | None) -> tuple[float, float]:
        box = {"kind": "plane", "name": "top", "normal": (0, 0, 1), "min_mm": (-31, -21, -2), "max_mm": (31, 21, 2)}
        points = extract(PlaneFeature.model_validate(box | {"edge_mm": edge_mm}), scan)
        x_mm, y_mm, _ = np.abs(scan.points_part[points]).max(axis=0) * 1e3
        return float(x_mm), float(y_mm)

    assert reach_mm(0.0) == pytest.approx((30, 20))
    assert reach_mm(4.0) == pytest.approx((26, 16), abs=1.01)  # a quarter of the margin may be beyond
    with pytest.raises(DepthcellError, match="set edge_mm"):
        reach_mm(40.0)
