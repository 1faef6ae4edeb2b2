"""What a gauge says of one part in people's units: value, interval, limits, decision, or the reason why there is none."""

import math
from dataclasses import dataclass

from depthcell.inspect.decision import COVERAGE_FACTOR
from depthcell.inspect.gauges.reading import Drawn
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
        conformance: probability that the true value lies within the limits, as far as this measurement knows; None
            without limits or value (JCGM 106:2012, 7.2, with a normal distribution).
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


def conformance_probability(value: float, u: float, lower: float | None, upper: float | None) -> float | None:
    """Probability that a quantity measured as `value` with `u` lies within its limits; None without limits.

    `Phi((upper - value) / u) - Phi((lower - value) / u)` (JCGM 106:2012, 7.2), which knows nothing of the production
    beforehand.
    """
    if lower is None and upper is None:
        return None
    if not u > 0:
        return float((lower is None or value >= lower) and (upper is None or value <= upper))
    below = 0.0 if lower is None else _normal((lower - value) / u)
    return (1.0 if upper is None else _normal((upper - value) / u)) - below


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))
