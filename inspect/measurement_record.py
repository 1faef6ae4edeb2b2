"""Measured parts as JSON: `MeasurementReport`, whose schema is `docs/measurement.schema.json`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from depthcell.errors import DepthcellError
from depthcell.inspect.gauges.gauged import GaugeResult
from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts
from depthcell.inspect.measurement_deviation import DeviationRecord
from depthcell.inspect.verdict import Decision, NotNegative, Provenance
from depthcell.jsontext import describe_properties

Share = Annotated[float, Meta(ge=0, le=1)]


class Contribution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One contribution to a standard uncertainty.

    Attributes:
        source: what it comes from.
        u: standard uncertainty from it alone, in the unit of the gauge.
        share: of the combined variance.
    """

    source: str
    u: NotNegative
    share: Share


class GaugeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One gauge of one part; all numbers in `unit`.

    Attributes:
        name, kind: as the recipe says.
        unit: "mm", "deg" or "mm3".
        value, u: result and standard uncertainty (k = 1); None where nothing could be measured.
        interval: about 95 %, twice the standard uncertainty on both sides; None without a value.
        nominal, lower, upper: as the recipe wants it; None where it says nothing.
        decision: OK, NOK or CANNOT-TELL by guard bands (ISO 14253-1).
        conformance: probability that the true value lies within the limits (JCGM 106, 7.2); None without limits.
        budget: what the uncertainty is made of, largest first.
        points_used: points that the value rests on.
        note: how the value came about.
        reason: why it was decided so.
    """

    name: str
    kind: str
    unit: str
    value: float | None
    u: NotNegative | None
    interval: tuple[float, float] | None
    nominal: float | None
    lower: float | None
    upper: float | None
    decision: Decision
    conformance: Share | None
    budget: tuple[Contribution, ...]
    points_used: int
    note: str
    reason: str


class PartRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part.

    Attributes:
        part_id: which.
        verdict: OK, NOK or CANNOT-TELL.
        reasons: why, worst first.
        measured_at: ISO 8601, UTC.
        provenance: what it rests on.
        deviation: from the reference; None without one.
        gauges: in the recipe's order.
    """

    part_id: str
    verdict: Decision
    reasons: Annotated[tuple[str, ...], Meta(min_length=1)]
    measured_at: str
    provenance: Provenance
    deviation: DeviationRecord | None
    gauges: tuple[GaugeRecord, ...]


class MeasurementReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `depthcell measure` found.

    Attributes:
        schema_version: of this file.
        source: what was measured.
        recipe, cell: their names; their SHA-256 stand with each part.
        written_at: ISO 8601, UTC.
        versions: software -> version.
        parts: in the order they were measured.
    """

    schema_version: Literal[1]
    source: str
    recipe: str
    cell: str
    written_at: str
    versions: dict[str, str]
    parts: tuple[PartRecord, ...]


def report_of(parts: Sequence[MeasuredPart], facts: MeasurementFacts) -> MeasurementReport:
    """Everything but the points."""
    return MeasurementReport(
        schema_version=1,
        source=facts.source,
        recipe=facts.recipe_name,
        cell=facts.cell_name,
        written_at=facts.written_at,
        versions=facts.versions,
        parts=tuple(part_record(part) for part in parts),
    )


def to_json(report: MeasurementReport) -> bytes:
    """Indented JSON, keys in the order of the schema, UTF-8, with a line end.

    Raises:
        DepthcellError: a reader would refuse it, as with a value that is not finite (JSON has no NaN).
    """
    text = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    try:
        from_json(text)
    except msgspec.ValidationError as error:
        raise DepthcellError(f"measurement of {report.source}: {error}") from error
    return text


def from_json(text: bytes) -> MeasurementReport:
    """Read a report.

    Raises:
        msgspec.ValidationError: a field is missing, unknown or of the wrong type; the message names it.
    """
    return msgspec.json.decode(text, type=MeasurementReport)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a report; `docs/measurement.schema.json` is this, committed."""
    schema = msgspec.json.schema(MeasurementReport)
    for definition in schema["$defs"].values():
        describe_properties(definition)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "depthcell measurement"} | schema


def part_record(part: MeasuredPart) -> PartRecord:
    """One part as its record."""
    return PartRecord(
        part_id=part.part_id,
        verdict=part.decision,
        reasons=part.reasons,
        measured_at=part.measured_at,
        provenance=part.provenance,
        deviation=part.deviation,
        gauges=tuple(_gauge(result) for result in part.results),
    )


def _gauge(result: GaugeResult) -> GaugeRecord:
    return GaugeRecord(
        name=result.name,
        kind=result.kind,
        unit=result.unit,
        value=result.value,
        u=result.u,
        interval=result.interval,
        nominal=result.nominal,
        lower=result.lower,
        upper=result.upper,
        decision=result.decision,
        conformance=result.conformance,
        budget=tuple(Contribution(row.source, row.u, row.share) for row in result.budget),
        points_used=result.points_used,
        note=result.note,
        reason=result.reason,
    )
