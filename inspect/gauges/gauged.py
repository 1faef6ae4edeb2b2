"""What a gauge says of one part in people's units: value, interval, limits, decision; or the reason for none."""

import math
from dataclasses import dataclass

from depthcell.errors import DepthcellError
from depthcell.fusion.budget import uncertainty_budget
from depthcell.fusion.scan import Scan
from depthcell.inspect.conformance import ProcessSpread, Risks, assess
from depthcell.inspect.decision import COVERAGE_FACTOR, Judged
from depthcell.inspect.gauges.extraction import Features
from depthcell.inspect.gauges.gauging import measure_gauge
from depthcell.inspect.gauges.reading import PEOPLES_FACTOR, PEOPLES_UNIT, Drawn, Quantity, Reading
from depthcell.inspect.gaugesections import AngleGauge, DistanceGauge, GaugeSection, VolumeGauge
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.verdict import Decision, Measurement


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One contribution to a standard uncertainty.

    Attributes:
        source: "noise", "calibration of 405000001", "pose of the part" ...
        u: standard uncertainty from it alone, in the unit of the result.
        share: of the combined variance, 0 to 1.
    """

    source: str
    u: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class GaugeResult:
    """One gauge's outcome. Without a value it is CANNOT-TELL, and `reason` says why.

    Attributes:
        name, kind: as the recipe says.
        unit: "mm", "deg" or "mm3"; of all numbers here.
        value: measured, or None where nothing could be.
        u: its standard uncertainty (k = 1), or None.
        nominal: as the recipe wants it, or None.
        lower, upper: limits, or None where there are none.
        decision: OK, NOK or CANNOT-TELL by guard bands; OK where there are no limits and a value was found.
        conformance: probability that the true value lies within the limits, from this measurement and, where the
            recipe says how parts spread, from that; None without limits or value (see `conformance`).
        budget: what the uncertainty is made of, largest first.
        note: how the value came about.
        drawn: features and constructions to show.
        points_used: points of the cloud that it rests on.
        reason: why it was decided so, in words.
        floor: smallest value that the quantity can have, 0 for widths of zones; None where there is none.
    """

    name: str
    kind: str
    unit: str
    value: float | None
    u: float | None
    nominal: float | None
    lower: float | None
    upper: float | None
    decision: Decision
    conformance: float | None
    budget: tuple[BudgetRow, ...]
    note: str
    drawn: tuple[Drawn, ...]
    points_used: int
    reason: str
    floor: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """About 95 %: the value less and plus twice its standard uncertainty (GUM 6.2.1), or None."""
        if self.value is None or self.u is None:
            return None
        half = COVERAGE_FACTOR * self.u
        low = self.value - half
        return (low if self.floor is None else max(low, self.floor)), self.value + half

    @property
    def judged(self) -> Judged:
        """As one of the checks that a part's verdict combines."""
        return Judged(self.decision, f"{self.name}: {self.reason}")

    @property
    def measurement(self) -> Measurement:
        """As a verdict holds it."""
        return Measurement(
            name=self.name,
            value=self.value,
            u=self.u,
            unit=self.unit,
            lower=self.lower,
            upper=self.upper,
            decision=self.decision,
            provenance=self.note or self.reason,
        )


def gauge_all(recipe: Recipe, scan: Scan) -> tuple[GaugeResult, ...]:
    """All gauges of a recipe on one part, in its order.

    A gauge that cannot be measured is CANNOT-TELL with the reason and without a value; the others go on.
    """
    features = Features(scan, recipe.feature, recipe.datum)
    return tuple(_gauged(section, scan, features) for section in recipe.gauge)


def not_gauged(recipe: Recipe, why: str) -> tuple[GaugeResult, ...]:
    """All gauges of a recipe on a part that could not be looked at: CANNOT-TELL, each with the same reason."""
    return tuple(_not_gauged(section, why) for section in recipe.gauge)


def _gauged(section: GaugeSection, scan: Scan, features: Features) -> GaugeResult:
    try:
        reading = measure_gauge(section, scan, features)
        budget = uncertainty_budget(reading.influence, scan, reading.noise_u, reading.extra_u)
    except DepthcellError as error:
        return _not_gauged(section, str(error))
    factor = PEOPLES_FACTOR[reading.quantity]
    value, u = reading.value * factor, budget.u * factor
    if not (math.isfinite(value) and math.isfinite(u)):
        return _not_gauged(section, "its value is not finite: the points do not determine it")
    lower, upper = limits_of(section)
    spread = None if section.process is None else ProcessSpread(section.process.mean, section.process.sd)
    found = assess(value, u, (lower, upper), spread, _floor(section))
    rows = [BudgetRow(row.source, row.u * factor, budget.share(row)) for row in budget.rows if row.u > 0]
    return GaugeResult(
        name=section.name,
        kind=section.kind,
        unit=PEOPLES_UNIT[reading.quantity],
        value=value,
        u=u,
        nominal=_nominal(section),
        lower=lower,
        upper=upper,
        decision=found.decision,
        conformance=found.probability,
        budget=tuple(sorted(rows, key=lambda row: -row.u)),
        note=reading.note if found.risks is None else f"{reading.note}; {_risks_in_words(found.risks)}",
        drawn=reading.drawn,
        points_used=_points_used(reading),
        reason=_reason(section, value, u, found.decision),
        floor=_floor(section),
    )


def _not_gauged(section: GaugeSection, why: str) -> GaugeResult:
    lower, upper = limits_of(section)
    return GaugeResult(
        name=section.name,
        kind=section.kind,
        unit=_unit(section),
        value=None,
        u=None,
        nominal=_nominal(section),
        lower=lower,
        upper=upper,
        decision=Decision.CANNOT_TELL,
        conformance=None,
        budget=(),
        note="",
        drawn=(),
        points_used=0,
        reason=f"not measured: {why.removeprefix(section.name + ': ')}",
        floor=_floor(section),
    )


def _points_used(reading: Reading) -> int:
    """All points of what is drawn, each once."""
    return len(set().union(*(drawn.points.tolist() for drawn in reading.drawn)))


def limits_of(section: GaugeSection) -> tuple[float | None, float | None]:
    """Lower and upper limit in people's unit; None where there is none."""
    if isinstance(section, AngleGauge):
        return section.limits_deg
    if isinstance(section, VolumeGauge):
        return None, section.largest_mm3
    return section.limits_mm


def _nominal(section: GaugeSection) -> float | None:
    if isinstance(section, AngleGauge):
        return section.nominal_deg
    nominal = getattr(section, "nominal_mm", None)
    return None if nominal is None else float(nominal)


def _unit(section: GaugeSection) -> str:
    quantity = {AngleGauge: Quantity.ANGLE, VolumeGauge: Quantity.VOLUME}.get(type(section), Quantity.LENGTH)
    return PEOPLES_UNIT[quantity]


def _floor(section: GaugeSection) -> float | None:
    """Zones, volumes and distances are never negative."""
    zoned = "criterion" in type(section).model_fields and not hasattr(section, "nominal_mm")
    return 0.0 if zoned or isinstance(section, VolumeGauge | DistanceGauge) else None


def _reason(section: GaugeSection, value: float, u: float, decision: Decision) -> str:
    unit, (lower, upper) = _unit(section), limits_of(section)
    said = f"{value:.3f} ± {COVERAGE_FACTOR * u:.3f} {unit}"
    if lower is None and upper is None:
        return f"{said}; the recipe states no limit for it"
    if lower is None:
        limits = f"at most {upper:g} {unit}"
    else:
        limits = f"{lower:g} to {upper:g} {unit}" if upper is not None else f"at least {lower:g} {unit}"
    words = {Decision.OK: "wanted", Decision.NOK: "is out of", Decision.CANNOT_TELL: "cannot be decided against"}
    return f"{said}{',' if decision is Decision.OK else ''} {words[decision]} {limits}"


def _risks_in_words(risks: Risks) -> str:
    return (
        f"of all parts {risks.false_acceptance:.2%} would be falsely accepted, {risks.false_rejection:.2%} falsely "
        f"rejected, {risks.undecided:.1%} left undecided"
    )
