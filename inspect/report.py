"""The report of a run as people read it: one HTML file that needs nothing else, neither network nor script."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from depthcell.inspect.pictures import BAND_COLORS, BAND_EDGES, ViewPicture
from depthcell.inspect.verdict import Decision, Measurement, Verdict
from depthcell.webpage import page_templates

TEMPLATE = "report.html.j2"
COVERAGE_FACTOR = 2.0
MAX_PICTURED_PARTS = 200
"""Parts whose pictures the report keeps; a long run of scrap would else make a file that no browser opens."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What holds for a whole run.

    Attributes:
        source: what was inspected.
        recipe_name, cell_name: what people call them.
        recipe_json, cell_json: the effective configuration.
        started_at, finished_at: ISO 8601, UTC.
        takt_ms, tolerance_mm: of the recipe.
        versions: software -> version.
        interrupted: the run was cut short.
    """

    source: str
    recipe_name: str
    cell_name: str
    recipe_json: str
    cell_json: str
    started_at: str
    finished_at: str
    takt_ms: float
    tolerance_mm: float
    versions: dict[str, str]
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class ReportedPart:
    """One part of the report; `pictures` are empty for a good part, and where nothing could be seen."""

    verdict: Verdict
    pictures: tuple[ViewPicture, ...] = ()

    @property
    def is_flagged(self) -> bool:
        """Whether a person should look at it."""
        return self.verdict.verdict is not Decision.OK

    def best_view(self, number: int) -> ViewPicture | None:
        """The picture that shows most of finding `number`; None where none does."""
        seen = [(mark.points, view) for view in self.pictures for mark in view.marks if mark.number == number]
        return max(seen, key=lambda pair: pair[0])[1] if seen else None


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A measured value in a chart: `low` to `high` is the 95 % interval, as shares of the chart's height from below."""

    sequence: int
    part_id: str
    decision: Decision
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One measurand over the parts of a run; limits as shares of the chart's height from below."""

    name: str
    unit: str
    lower: float | None
    upper: float | None
    lower_text: str
    upper_text: str
    points: tuple[ChartPoint, ...]
    unmeasured: int


def total_ms(verdict: Verdict) -> float:
    """From asking for the verdict to having it, reading of the recording included."""
    return verdict.timings_ms.get("total", sum(verdict.timings_ms.values()))


def after_last_frame_ms(verdict: Verdict) -> float:
    """From the last frame in memory to the verdict: what a line waits for."""
    return total_ms(verdict) - verdict.timings_ms.get("read", 0.0)


def render_report(facts: RunFacts, parts: Sequence[ReportedPart]) -> str:
    """The report as the text of one HTML file."""
    environment = page_templates(Path(__file__).parent)
    environment.filters |= {
        "pm": with_uncertainty,
        "signed": signed,
        "unit": _spelled,
        "ms": _milliseconds,
    }
    waits_ms = [after_last_frame_ms(part.verdict) for part in parts]
    return environment.get_template(TEMPLATE).render(
        facts=facts,
        parts=parts,
        flagged=[part for part in parts if part.is_flagged],
        counts={decision: sum(part.verdict.verdict is decision for part in parts) for decision in Decision},
        median_ms=median(waits_ms) if waits_ms else None,
        longest_ms=max(waits_ms, default=None),
        late=[part for part in parts if total_ms(part.verdict) > facts.takt_ms],
        total_ms=total_ms,
        charts=charts(part.verdict for part in parts),
        bands=_bands(facts.tolerance_mm),
        max_pictured=MAX_PICTURED_PARTS,
    )


def with_uncertainty(value: float | None, u: float | None) -> str:
    """`value ± U` with U = 2u (95 %), both rounded to the second significant digit of U (GUM 6.2.1, 7.2.6)."""
    if value is None:
        return "—"
    if u is None or u <= 0:
        return signed(f"{value:.3g}")
    expanded = COVERAGE_FACTOR * u
    decimals = min(4, max(0, 1 - math.floor(math.log10(expanded))))
    return f"{signed(f'{value:.{decimals}f}')} ± {expanded:.{decimals}f}"


def signed(text: object) -> str:
    """With a minus before numbers that is as long as a plus, not a hyphen."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", str(text))


def charts(verdicts: Iterable[Verdict]) -> tuple[Chart, ...]:
    """One chart for each measurand that was measured at least once."""
    rows: dict[str, list[tuple[Verdict, Measurement]]] = {}
    for verdict in verdicts:
        for measurement in verdict.measurements:
            rows.setdefault(measurement.name, []).append((verdict, measurement))
    found = (_chart(name, pairs) for name, pairs in rows.items())
    return tuple(chart for chart in found if chart.points)


def _chart(name: str, pairs: list[tuple[Verdict, Measurement]]) -> Chart:
    lower, upper, unit = pairs[0][1].lower, pairs[0][1].upper, pairs[0][1].unit
    measured = [(verdict, m, m.value, COVERAGE_FACTOR * (m.u or 0.0)) for verdict, m in pairs if m.value is not None]
    ends = [value + side * spread for _, _, value, spread in measured for side in (-1, 1)]
    ends += [limit for limit in (lower, upper) if limit is not None]
    bottom, top = min(ends, default=0.0), max(ends, default=1.0)
    span = (top - bottom) or 1.0

    def share(value: float) -> float:
        return 0.08 + 0.84 * (value - bottom) / span

    points = tuple(
        ChartPoint(
            sequence=verdict.sequence,
            part_id=verdict.part_id,
            decision=m.decision,
            value=share(value),
            low=share(value - spread),
            high=share(value + spread),
            text=f"{verdict.part_id}: {with_uncertainty(value, m.u)} {_spelled(unit)}, {m.decision}",
        )
        for verdict, m, value, spread in measured
    )
    return Chart(
        name=name,
        unit=_spelled(unit),
        lower=None if lower is None else share(lower),
        upper=None if upper is None else share(upper),
        lower_text="" if lower is None else signed(f"{lower:g} {_spelled(unit)}"),
        upper_text="" if upper is None else signed(f"{upper:g} {_spelled(unit)}"),
        points=points,
        unmeasured=len(pairs) - len(measured),
    )


def _spelled(unit: str) -> str:
    """A unit as people read it; "1" stands for none."""
    return {"1": "", "mm2": "mm²", "mm3": "mm³", "deg": "°"}.get(unit, unit)


def _bands(tolerance_mm: float) -> list[tuple[str, str]]:
    """The legend of the deviation's colours: (colour, limit above it in mm), from missing to excess."""
    limits = [signed(f"{edge * tolerance_mm:+.3g}") for edge in BAND_EDGES]
    return list(zip(BAND_COLORS, [*limits, ""], strict=True))


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
