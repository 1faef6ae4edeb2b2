"""Measured parts as HTML: a report for each, whole in one file without scripts, and an index of all."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts
from depthcell.inspect.measurement_words import (
    chance_text,
    contribution_text,
    limits_text,
    shown_reasons,
    tolerance_bar,
    unit_text,
    value_text,
)
from depthcell.inspect.report import charts, signed
from depthcell.inspect.verdict import Decision, Verdict
from depthcell.webpage import page_templates

PART_TEMPLATE, INDEX_TEMPLATE = "measurement.html.j2", "measurement_index.html.j2"


def measurement_html(
    part: MeasuredPart, facts: MeasurementFacts, pictures: Sequence[tuple[str, bytes]], links: Sequence[tuple[str, str]]
) -> str:
    """The report of one part.

    Args:
        part: what it is about.
        facts: of the run.
        pictures: (title, PNG), which the file holds.
        links: (what, relative address) of the files beside it.
    """
    return _environment().get_template(PART_TEMPLATE).render(
        part=part,
        facts=facts,
        deviation=part.deviation,
        pictures=[(title, base64.b64encode(png).decode("ascii")) for title, png in pictures],
        links=links,
    )  # fmt: skip


def index_html(parts: Sequence[MeasuredPart], facts: MeasurementFacts, folders: Sequence[str | None]) -> str:
    """The index: all parts with their verdicts, and each gauge over the parts.

    Args:
        parts: in the order they were measured.
        facts: of the run.
        folders: where the report of each part lies; None for a part without one.
    """
    return _environment().get_template(INDEX_TEMPLATE).render(
        parts=list(zip(parts, folders, strict=True)),
        facts=facts,
        counts={decision: sum(part.decision is decision for part in parts) for decision in Decision},
        charts=charts(_verdict(part, number) for number, part in enumerate(parts, 1)),
    )  # fmt: skip


def _verdict(part: MeasuredPart, sequence: int) -> Verdict:
    """The part as the charts of a run take it."""
    return Verdict(
        schema_version=1,
        verdict=part.decision,
        part_id=part.part_id,
        trigger_id=part.part_id,
        sequence=sequence,
        findings=(),
        measurements=tuple(result.measurement for result in part.results),
        reasons=part.reasons,
        timings_ms={},
        issued_at=part.measured_at,
        provenance=part.provenance,
    )


def _environment() -> Environment:
    environment = page_templates(Path(__file__).parent)
    environment.filters |= {
        "bar": tolerance_bar,
        "chance": chance_text,
        "contribution": contribution_text,
        "limits": limits_text,
        "reasons": shown_reasons,
        "signed": signed,
        "unit": unit_text,
        "value": value_text,
    }
    return environment
