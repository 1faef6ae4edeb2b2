"""Measured parts as JSON and CSV: everything is there, reads back as it was, and what no reader takes is refused."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measuredplate import FACTS, gauge, measured_plate, missing_plate, plate_scan

from depthcell.errors import DepthcellError
from depthcell.inspect.measurement import MeasurementFacts
from depthcell.inspect.measurement_csv import COLUMNS, measurement_csv
from depthcell.inspect.measurement_record import from_json, json_schema, report_of, to_json
from depthcell.inspect.verdict import Decision

SCHEMA = Path(__file__).parent.parent / "docs" / "measurement.schema.json"


def test_the_schema_in_docs_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json_schema(), (
        "write it anew: python -m json.tool of depthcell.inspect.measurement_record.json_schema()"
    )


def test_every_field_of_the_schema_is_explained() -> None:
    definitions = json_schema()["$defs"]
    bare = [
        f"{name}.{field}"
        for name in ("MeasurementReport", "PartRecord", "GaugeRecord", "DeviationRecord", "Contribution")
        for field, entry in definitions[name]["properties"].items()
        if not entry.get("description")
    ]
    assert bare == []


def test_json_reads_back_as_it_was() -> None:
    report = report_of((measured_plate(), missing_plate()), FACTS)
    read = from_json(to_json(report))
    assert read == report
    first, second = read.parts
    assert first.verdict is Decision.NOK
    assert second.verdict is Decision.CANNOT_TELL
    assert [g.value for g in first.gauges] == [g.value for g in measured_plate().results]
    assert second.deviation is None
    assert all(g.value is None for g in second.gauges)


def test_the_deviation_is_that_of_the_points_whose_deviation_is_known() -> None:
    part = measured_plate()
    found = report_of((part,), FACTS).parts[0].deviation
    assert found is not None
    assert part.deviation_m is not None
    known = 1e3 * part.deviation_m[np.isfinite(part.deviation_m)]
    assert found.points == len(known) < len(part.deviation_m)
    assert found.rms_mm == pytest.approx(np.sqrt(np.mean(known**2)))
    assert found.smallest_mm == known.min() < found.low_mm < found.high_mm < found.largest_mm


def test_a_width_of_a_zone_has_no_interval_below_zero() -> None:
    part = measured_plate(results=(gauge("flatness", 0.03, (None, 0.4), floor=0.0),))
    low, high = report_of((part,), FACTS).parts[0].gauges[0].interval or (np.nan, np.nan)
    assert low == 0.0
    assert high == pytest.approx(0.13)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(value: float) -> None:
    part = measured_plate(results=(replace(gauge("diameter", 12.0, (11.0, 13.0)), value=value),))
    with pytest.raises(DepthcellError, match="plates"):
        to_json(report_of((part,), FACTS))


def test_an_unknown_field_is_refused_by_name() -> None:
    content = json.loads(to_json(report_of((measured_plate(),), FACTS)))
    content["parts"][0]["gauges"][0]["guess"] = 1
    with pytest.raises(msgspec.ValidationError, match="guess"):
        from_json(json.dumps(content).encode())


def test_a_part_says_why_it_was_decided_so() -> None:
    with pytest.raises(DepthcellError, match="reasons"):
        measured_plate(reasons=())


def test_deviations_of_another_cloud_are_refused() -> None:
    with pytest.raises(DepthcellError, match="deviation_m needs one value"):
        measured_plate(deviation_m=np.zeros(len(plate_scan().cloud) - 1))


def test_a_colour_scale_without_extent_is_refused() -> None:
    with pytest.raises(DepthcellError, match="tolerance_mm"):
        MeasurementFacts("runs", "plate", "cell", 0.0, "2026-01-01T00:00:00Z")


def test_the_table_has_one_row_for_each_gauge_and_part() -> None:
    parts = (measured_plate(), missing_plate())
    rows = list(csv.DictReader(io.StringIO(measurement_csv(parts), newline=""), strict=True))
    assert [(row["part"], row["gauge"]) for row in rows] == [
        (part.part_id, result.name) for part in parts for result in part.results
    ]
    assert tuple(rows[0]) == COLUMNS
    flat = rows[1]
    assert (flat["gauge"], float(flat["value"]), flat["lower_limit"]) == ("top, flat & <even>", 0.61, "")
    assert float(flat["expanded_uncertainty_k2"]) == 0.1
    assert rows[-1]["value"] == ""
    assert rows[-1]["decision"] == "CANNOT-TELL"


def test_lines_end_as_rfc_4180_wants() -> None:
    text = measurement_csv((measured_plate(),))
    assert text.endswith("\r\n")
    assert "\n" not in text.replace("\r\n", "")


@given(st.text(max_size=30), st.floats(-1e9, 1e9))
def test_any_name_and_any_number_read_back_from_the_table(name: str, value: float) -> None:
    part = measured_plate(results=(gauge("distance", value, (None, None), name=name),))
    row = next(csv.DictReader(io.StringIO(measurement_csv((part,)), newline=""), strict=True))
    assert (row["gauge"], float(row["value"])) == (name, value)
