"""Measured parts as a table: one row for each gauge and part, CSV as RFC 4180 says, UTF-8."""

import csv
import io
from collections.abc import Sequence

from depthcell.inspect.decision import COVERAGE_FACTOR
from depthcell.inspect.gauges.gauged import GaugeResult
from depthcell.inspect.measurement import MeasuredPart

COLUMNS = (
    "part",
    "verdict",
    "gauge",
    "kind",
    "unit",
    "value",
    "standard_uncertainty",
    "expanded_uncertainty_k2",
    "nominal",
    "lower_limit",
    "upper_limit",
    "decision",
    "conformance_probability",
    "points",
    "note",
    "reason",
    "measured_at",
    "recording_sha256",
    "cell_sha256",
    "recipe_sha256",
    "software",
)
"""Numbers are in `unit`, written so that they read back as the same number; a cell is empty where there is none."""


def measurement_csv(parts: Sequence[MeasuredPart]) -> str:
    """The table's text, lines ended by CR LF (RFC 4180, 2.1); commas, quotes and line ends are quoted (2.6, 2.7)."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, dialect="excel")
    writer.writerow(COLUMNS)
    writer.writerows(_row(part, result) for part in parts for result in part.results)
    return stream.getvalue()


def _row(part: MeasuredPart, result: GaugeResult) -> tuple[object, ...]:
    expanded = None if result.u is None else COVERAGE_FACTOR * result.u
    source = part.provenance
    return (
        part.part_id,
        part.decision,
        result.name,
        result.kind,
        result.unit,
        *map(_number, (result.value, result.u, expanded, result.nominal, result.lower, result.upper)),
        result.decision,
        _number(result.conformance),
        result.points_used,
        result.note,
        result.reason,
        part.measured_at,
        source.recording,
        source.cell,
        source.recipe,
        source.software,
    )


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))
