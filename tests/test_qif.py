"""QIF results: valid by the schema, every number and decision where a reader looks for it, and broken ones refused."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measuredplate import FACTS, gauge, measured_plate, missing_plate

from depthcell.errors import DepthcellError
from depthcell.fusion.association.elements import Cylinder, Line, Plane, Sphere
from depthcell.inspect.gauges.gauged import GaugeResult
from depthcell.inspect.gauges.reading import Drawn
from depthcell.inspect.measurement import MeasuredPart
from depthcell.inspect.qif import NAMESPACE, qif_document
from depthcell.inspect.qif_characteristic import SIZES, ZONES, characteristic_of, decimal
from depthcell.inspect.verdict import Decision

etree: Any = pytest.importorskip("lxml.etree", reason="lxml is in the development extras: pip install -e .[dev]")

EXTRACT = Path(__file__).parent / "data" / "qif" / "qif3-results-extract.xsd"
WHOLE = os.environ.get("DEPTHCELL_QIF_SCHEMA", "")
AXIS, ORIGIN = np.array([0.0, 0.0, 1.0]), np.zeros(3)


@pytest.fixture(scope="module")
def schemas() -> list[Any]:
    return [etree.XMLSchema(file=path) for path in (str(EXTRACT), WHOLE) if path]


def faults(document: bytes, schemas: list[Any]) -> list[str]:
    root = etree.fromstring(document)
    return [str(error) for schema in schemas if not schema.validate(root) for error in schema.error_log]


def every_kind() -> tuple[GaugeResult, ...]:
    curve = np.array([[[0.0, 0, 0], [0.01, 0, 0]], [[0.01, 0, 0], [0.02, 0, 0.003]]])
    drawn = (Drawn("feature", np.arange(3), Cylinder(ORIGIN, AXIS, 0.006), curve_part=curve),)
    sizes = [gauge(kind, 12.0, (11.0, 13.0), drawn=drawn, nominal=12.0) for kind in SIZES]
    zones = [gauge(kind, 0.1, (None, 0.4), drawn=drawn) for kind in ZONES]
    bare = [gauge(kind, 0.1, (None, None), name=f"bare {kind}") for kind in (*SIZES, *ZONES)]
    one_sided = [gauge("gap", 1.0, (0.5, None), name="at least"), gauge("flush", 1.0, (None, 2.0), name="at most")]
    volume = gauge("volume", 3.0, (None, 5.0), unit="mm3")
    return (*sizes, *zones, *bare, *one_sided, gauge("seam", 3.0, (2.0, None), name="throat"), volume)


def read(document: bytes) -> ET.Element:
    return ET.fromstring(document)  # noqa: S314 - our own bytes


def found(document: bytes, path: str) -> list[ET.Element]:
    return read(document).findall(re.sub(r"(?<=/)(?=\w)|^(?=\w)", f"{{{NAMESPACE}}}", path))


def test_a_plate_and_a_missing_one_are_valid(schemas: list[Any]) -> None:
    assert faults(qif_document((measured_plate(), missing_plate()), FACTS), schemas) == []


def test_every_kind_of_gauge_is_valid(schemas: list[Any]) -> None:
    assert faults(qif_document((measured_plate(results=every_kind()),), FACTS), schemas) == []


def test_a_part_without_gauges_is_valid(schemas: list[Any]) -> None:
    assert faults(qif_document((measured_plate(results=()),), FACTS), schemas) == []


@pytest.mark.parametrize(
    ("whole", "broken"),
    [
        ("<Scope>Results</Scope>", "<Scope>Results</Scope><Guess/>"),
        ('versionQIF="3.0.0"', 'versionQIF="2.1.0"'),
        ("<CharacteristicStatusEnum>PASS<", "<CharacteristicStatusEnum>GOOD<"),
        ('combinedUncertainty="0.05"', 'combinedUncertainty="5e-2"'),
        ("<CharacteristicItemId>5<", "<CharacteristicItemId>4<"),
        ("<CharacteristicDefinitionId>3<", "<CharacteristicDefinitionId>9<"),
        ('<DiameterCharacteristicNominal id="4"', '<DiameterCharacteristicNominal id="3"'),
        ("<FormalStandardId>1<", "<FormalStandardId>2<"),
        ('<ActualComponent id="', '<ActualComponent id="9'),
        ("<MinValue>11.7</MinValue>", "<MinValue>NaN</MinValue>"),
    ],
)
def test_the_schema_sees_what_is_wrong(schemas: list[Any], whole: str, broken: str) -> None:
    text = qif_document((measured_plate(),), FACTS).decode()
    assert whole in text
    assert faults(text.replace(whole, broken, 1).encode(), schemas[:1])


def test_values_uncertainties_and_limits_stand_where_qif_has_them() -> None:
    document = qif_document((measured_plate(),), FACTS)
    value = found(document, ".//DiameterCharacteristicMeasurement/Value")[0]
    assert (value.text, value.get("combinedUncertainty"), value.get("meanError")) == ("12.03", "0.05", "0")
    tolerance = found(document, ".//DiameterCharacteristicDefinition/Tolerance")[0]
    assert [child.text for child in tolerance] == ["12.3", "11.7", "true"]
    assert found(document, ".//FlatnessCharacteristicDefinition/ToleranceValue")[0].text == "0.4"
    assert found(document, ".//LinearUnit/UnitConversion/Factor")[0].text == "0.001"
    volume = found(document, ".//UserDefinedUnitCharacteristicMeasurement/Value")[0]
    assert (volume.text, volume.get("unitName")) == ("12.5", "mm3")


def test_decisions_become_statuses() -> None:
    document = qif_document((measured_plate(), missing_plate()), FACTS)
    statuses = [element.text for element in found(document, ".//CharacteristicStatusEnum")]
    assert statuses[:8] == ["PASS", "FAIL", "INDETERMINATE", "PASS", "NOT_ANALYZED", "PASS", "UNDEFINED", "PASS"]
    assert set(statuses[8:]) == {"NOT_ANALYZED"}
    parts = [element.text for element in found(document, ".//MeasurementResults/InspectionStatus/InspectionStatusEnum")]
    assert parts == ["FAIL", "NOT_MEASURED"]


def test_each_part_has_results_and_a_component_of_its_own() -> None:
    parts = tuple(measured_plate(f"plate_{number}") for number in range(3))
    document = qif_document(parts, FACTS)
    assert len(found(document, ".//MeasurementResultsSet/MeasurementResults")) == 3
    serials = [element.text for element in found(document, ".//ActualComponent/SerialNumber")]
    assert serials == ["plate_0", "plate_1", "plate_2"]
    of_parts = [element.text for element in found(document, ".//MeasurementResults/ActualComponentIds/Id")]
    assert of_parts == [element.get("id") for element in found(document, ".//ActualComponent")]


def test_what_it_rests_on_is_told() -> None:
    document = qif_document((measured_plate(),), FACTS)
    told = {e.get("name"): e.get("value") for e in found(document, ".//MeasurementResults/Attributes/AttributeStr")}
    assert told["sha256 of recording"] == "1" * 64
    assert told["verdict"] == "NOK"
    software = {child.tag.split("}")[1]: child.text for child in found(document, ".//Software")[0]}
    assert software["ApplicationName"] == "depthcell"


def test_the_same_content_gives_the_same_bytes_and_other_content_another_identifier() -> None:
    once, again = (qif_document((measured_plate(),), FACTS) for _ in range(2))
    other = qif_document((measured_plate("another"),), FACTS)
    assert once == again
    assert found(once, "QPId")[0].text != found(other, "QPId")[0].text


def test_ids_are_unique_and_the_largest_is_told() -> None:
    root = read(qif_document((measured_plate(), missing_plate()), FACTS))
    ids = [int(element.attrib["id"]) for element in root.iter() if "id" in element.attrib]
    assert len(set(ids)) == len(ids)
    assert max(ids) == int(root.attrib["idMax"])


def test_a_volume_without_a_limit_is_left_out_and_named() -> None:
    results = (gauge("volume", 3.0, (None, None), unit="mm3", name="missing"), gauge("gap", 1.0, (None, None)))
    document = qif_document((measured_plate(results=results),), FACTS)
    assert not found(document, ".//UserDefinedUnitCharacteristicMeasurement")
    assert "missing" in (found(document, ".//Header/Description")[0].text or "")


@pytest.mark.parametrize(
    ("kind", "element", "zone"),
    [
        ("position", Sphere(ORIGIN, 0.01), "SphericalZone"),
        ("position", Cylinder(ORIGIN, AXIS, 0.01), "DiametricalZone"),
        ("position", Plane(ORIGIN, AXIS), "NonDiametricalZone"),
        ("parallelism", Plane(ORIGIN, AXIS), "PlanarZone"),
        ("perpendicularity", Cylinder(ORIGIN, AXIS, 0.01), "DiametricalZone"),
        ("straightness", Line(ORIGIN, AXIS), "NonDiametricalZone"),
        ("straightness", Cylinder(ORIGIN, AXIS, 0.01), "DiametricalZone"),
        ("flatness", Plane(ORIGIN, AXIS), ""),
    ],
)
def test_the_zone_is_round_about_an_axis_and_flat_about_a_face(kind: str, element: Plane, zone: str) -> None:
    told = characteristic_of([gauge(kind, 0.1, (None, 0.2), drawn=(Drawn("f", np.arange(3), element),))])
    assert told is not None
    assert told.zone == zone


def test_total_runout_is_told_from_circular() -> None:
    kinds = [
        told.kind
        for note in ("total run-out over 900 points", "circular, 12 sections")
        if (told := characteristic_of([gauge("runout", 0.1, (None, 0.2), note=note)])) is not None
    ]
    assert kinds == ["TotalRunout", "CircularRunout"]


def test_parts_of_two_recipes_do_not_go_into_one_document() -> None:
    other = measured_plate("other", results=measured_plate().results[:2])
    with pytest.raises(DepthcellError, match="part 'other' has other gauges"):
        qif_document((measured_plate(), other), FACTS)


def test_no_part_at_all_is_refused() -> None:
    with pytest.raises(DepthcellError, match="no part"):
        qif_document((), FACTS)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_decimal_reads_back_as_the_same_number_and_has_no_exponent(value: float) -> None:
    assert re.fullmatch(r"-?\d+(\.\d+)?", decimal(value))
    assert float(decimal(value)) == value


@settings(max_examples=25)
@given(st.text(max_size=20), st.floats(-1e6, 1e6), st.sampled_from(list(Decision)))
def test_any_name_gives_a_valid_document(name: str, value: float, decision: Decision) -> None:
    part: MeasuredPart = measured_plate(results=(gauge("gap", value, (0.0, 1.0), name=name, decision=decision),))
    part = replace(part, part_id=name, reasons=(name or "none",))
    assert read(qif_document((part,), replace(FACTS, source=name))).tag == f"{{{NAMESPACE}}}QIFDocument"
