"""A recipe's gauges on one part: values with decisions, and CANNOT-TELL with a reason in place of a number."""

import math
from typing import Any

import numpy as np
import pytest
from gaugedscan import Measured, face, plane_feature, round_feature, scan_of, tube
from stagedpart import TOP_MM, plate_mesh

from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan
from depthcell.inspect.conformance import conformance_probability
from depthcell.inspect.gauges.gauged import GaugeResult, gauge_all, limits_of, not_gauged
from depthcell.inspect.gauges.gauging import MEASURES
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.verdict import Decision

FEATURES = [
    plane_feature("top", (0, 0, 1), (-16, -16, 5), (16, 16, 11)),
    plane_feature("shelf", (0, 0, 1), (30, -11, 0), (50, 11, 6)),
    round_feature("post", "cylinder", (0, 40, 14), 20, 8.0),
    plane_feature("underside", (0, 0, -1), (-10, -10, -2), (10, 10, 2)),
    plane_feature("nowhere", (0, 0, 1), (200, 200, 5), (220, 220, 11)),
]
DATUMS = [{"label": "A", "feature": "top"}, {"label": "N", "feature": "underside"}]


def recipe_of(*gauges: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(
        {
            "schema_version": 1,
            "name": "plate",
            "cell": {"cameras": ["1001"]},
            "reference": {"mesh": "plate.stl"},
            "region": {"min_mm": [-28, -21, 2], "max_mm": [28, 21, 14]},
            "surface": {"tolerance_mm": 0.5},
            "feature": FEATURES,
            "datum": DATUMS,
            "gauge": gauges,
        }
    )


@pytest.fixture(scope="module")
def reference() -> Reference:
    mesh = plate_mesh()
    return Reference(mesh.vertices_m, mesh.triangles)


@pytest.fixture(scope="module")
def scan(reference: Reference) -> Scan:
    patches = [
        face((0, 0, TOP_MM), (0, 0, 1), (30, 30)),
        face((40, 0, 3), (0, 0, 1), (16, 16)),
        tube((0, 40, 14), (0, 0, 1), 20, 12),
    ]
    return scan_of(patches, Measured(sigma_m=2e-5), reference)


def step(name: str = "step", **more: object) -> dict[str, Any]:
    return {"name": name, "kind": "step_height", "over": "top", "feature": "shelf", **more}


def only(results: tuple[GaugeResult, ...]) -> GaugeResult:
    assert len(results) == 1
    return results[0]


def test_a_value_comes_with_interval_budget_and_decision(scan: Scan) -> None:
    result = only(gauge_all(recipe_of(step(nominal_mm=-5.0, tolerance_mm=0.2)), scan))
    assert result.unit == "mm"
    assert result.value == pytest.approx(-5.0, abs=0.01)
    assert result.u is not None
    assert 1e-4 < result.u < 0.1
    assert (result.lower, result.upper, result.nominal) == (-5.2, -4.8, -5.0)
    assert result.decision is Decision.OK
    assert result.conformance is not None
    assert result.conformance > 0.95
    assert sum(row.share for row in result.budget) == pytest.approx(1.0)
    assert math.sqrt(sum(row.u**2 for row in result.budget)) == pytest.approx(result.u)
    assert [row.u for row in result.budget] == sorted((row.u for row in result.budget), reverse=True)
    assert result.value is not None
    assert result.interval == pytest.approx((result.value - 2 * result.u, result.value + 2 * result.u))
    assert result.points_used == 31 * 31 + 17 * 17
    assert "wanted -5.2 to -4.8 mm" in result.reason
    measurement = result.measurement
    assert (measurement.name, measurement.value, measurement.u) == ("step", result.value, result.u)
    assert measurement.decision is Decision.OK


@pytest.mark.parametrize(
    ("nominal_mm", "tolerance_mm", "decision", "says"),
    [(-5.0, 0.2, "OK", "wanted"), (-6.0, 0.2, "NOK", "is out of"), (-5.0, 0.001, "CANNOT-TELL", "cannot be decided")],
)
def test_decisions_are_by_guard_band(
    scan: Scan, nominal_mm: float, tolerance_mm: float, decision: str, says: str
) -> None:
    result = only(gauge_all(recipe_of(step(nominal_mm=nominal_mm, tolerance_mm=tolerance_mm)), scan))
    assert result.decision.value == decision
    assert says in result.reason


def test_without_limits_a_value_decides_nothing(scan: Scan) -> None:
    result = only(gauge_all(recipe_of(step()), scan))
    assert result.decision is Decision.OK
    assert result.conformance is None
    assert "states no limit" in result.reason


def test_an_angle_is_in_degrees_and_a_zone_has_a_floor(scan: Scan) -> None:
    angle = {"name": "angle", "kind": "angle", "between": ["top", "post"], "nominal_deg": 0.0, "tolerance_deg": 1.0}
    flat = {"name": "flat", "kind": "flatness", "feature": "top", "tolerance_mm": 0.2}
    first, second = gauge_all(recipe_of(angle, flat), scan)
    assert (first.unit, first.upper) == ("deg", 1.0)
    assert first.value is not None
    assert first.value < 0.2
    assert second.interval is not None
    assert second.interval[0] >= 0.0
    assert (second.lower, second.upper) == (None, 0.2)


@pytest.mark.parametrize(
    ("gauge", "says"),
    [
        ({"kind": "flatness", "feature": "nowhere"}, "its box is empty"),
        ({"kind": "flatness", "feature": "underside"}, "no camera saw it"),
        ({"kind": "parallelism", "feature": "shelf", "datum": "N"}, "datum 'N'"),
        ({"kind": "position", "feature": "post", "datums": ["A", "N"]}, "datum 'N'"),
        ({"kind": "coordinate", "feature": "post", "direction": [1, 0, 0], "datums": ["N"]}, "datum 'N'"),
        ({"kind": "profile_surface", "min_mm": [200, 200, 0], "max_mm": [210, 210, 9]}, "its box is empty"),
        ({"kind": "profile_surface", "min_mm": [-9, -9, -1], "max_mm": [9, 9, 1]}, "no camera saw it"),
        ({"kind": "runout", "feature": "post", "datum": "A"}, "needs a cylinder's axis"),
    ],
)
def test_what_cannot_be_measured_is_cannot_tell_with_a_reason_and_no_number(
    scan: Scan, gauge: dict[str, Any], says: str
) -> None:
    first, second = gauge_all(recipe_of({"name": "bad", **gauge}, step()), scan)
    assert first.decision is Decision.CANNOT_TELL
    assert (first.value, first.u, first.interval, first.conformance) == (None, None, None, None)
    assert first.budget == ()
    assert says in first.reason
    assert first.measurement.value is None
    assert first.measurement.provenance == first.reason
    assert second.value is not None, "the others go on"


def test_a_datum_with_three_points_is_refused(scan: Scan) -> None:
    few = np.r_[np.arange(3), np.arange(31 * 31, len(scan.points_part))]
    sparse = Scan.of(scan.cloud[few], scan.alignment, scan.cell, scan.reference)
    gauge = {"name": "par", "kind": "parallelism", "feature": "shelf", "datum": "A"}
    result = only(gauge_all(recipe_of(gauge), sparse))
    assert result.value is None
    assert "datum 'A': feature 'top': 3 points, needs at least 30" in result.reason


def test_a_part_that_lies_elsewhere_gives_no_number(reference: Reference) -> None:
    top = face((0, 0, TOP_MM), (0, 0, 1), (30, 30))
    far = scan_of([top], Measured(sigma_m=2e-5, misplaced=(0, 0, 0, 0, 0, 0.0025)), reference)
    flat = {"name": "flat", "kind": "flatness", "feature": "top"}
    result = only(gauge_all(recipe_of(flat), far))
    assert result.value is None
    assert "the part where it belongs?" in result.reason
    upside_down = scan_of([top], Measured(sigma_m=2e-5, misplaced=(math.pi, 0, 0, 0, 0, 2 * TOP_MM / 1e3)), reference)
    result = only(gauge_all(recipe_of(flat), upside_down))
    assert result.value is None
    assert "look another way" in result.reason


def test_a_part_that_was_not_seen_at_all() -> None:
    results = not_gauged(recipe_of(step(), step("again", nominal_mm=-5.0, tolerance_mm=0.1)), "the part is missing")
    assert [result.decision for result in results] == [Decision.CANNOT_TELL] * 2
    assert all(result.value is None and "the part is missing" in result.reason for result in results)
    assert results[1].lower == pytest.approx(-5.1)


def test_every_kind_of_gauge_has_its_function() -> None:
    from typing import get_args

    from depthcell.inspect.gaugesections import GaugeSection

    kinds = set(get_args(get_args(GaugeSection)[0]))
    assert kinds == set(MEASURES)
    assert limits_of(recipe_of(step(nominal_mm=1.0, tolerance_mm=[-0.1, 0.3])).gauge[0]) == (0.9, 1.3)


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [(None, None, None), (None, 1.0, 0.5), (1.0, None, 0.5), (0.0, 2.0, 0.682689), (-9.0, 9.0, 1.0), (5.0, 6.0, 0.0)],
)
def test_conformance_probability(lower: float | None, upper: float | None, expected: float | None) -> None:
    found = conformance_probability(1.0, 1.0, (lower, upper))
    assert found == (None if expected is None else pytest.approx(expected, abs=4e-5))


def test_conformance_without_uncertainty_is_plain() -> None:
    assert conformance_probability(1.0, 0.0, (0.0, 2.0)) == 1.0
    assert conformance_probability(3.0, 0.0, (0.0, 2.0)) == 0.0
