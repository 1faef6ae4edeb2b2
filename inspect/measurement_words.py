"""How reports say a gauge's outcome: units, limits, probability, and the bar that shows a value against its limits."""

from dataclasses import dataclass

from depthcell.inspect.decision import COVERAGE_FACTOR
from depthcell.inspect.gauges.gauged import GaugeResult
from depthcell.inspect.measurement import MeasuredPart
from depthcell.inspect.report import signed, with_uncertainty
from depthcell.inspect.verdict import Decision

UNITS = {"mm": "mm", "deg": "°", "mm3": "mm³"}
EDGE = 0.06
"""Room at both ends of a bar, as a share of its length."""


@dataclass(frozen=True, slots=True)
class ToleranceBar:
    """A value with its 95 % interval against its limits, as shares of the bar's length from the left.

    Attributes:
        start, end: of the tolerance; 0 or 1 where it is open on that side.
        lower, upper: the limits; None where there is none.
        value: measured.
        low, high: ends of the interval.
    """

    start: float
    end: float
    lower: float | None
    upper: float | None
    value: float
    low: float
    high: float


def tolerance_bar(result: GaugeResult) -> ToleranceBar | None:
    """The bar of one result; None without a value or without limits. Zero is at the left of a one-sided tolerance."""
    if result.value is None or (result.lower is None and result.upper is None):
        return None
    reach = COVERAGE_FACTOR * (result.u or 0.0)
    ends = [result.value - reach, result.value + reach]
    floor = result.floor if result.lower is None else None
    ends += [limit for limit in (result.lower, result.upper, floor) if limit is not None]
    left, right = min(ends), max(ends)
    span = (right - left) or 1.0

    def share(value: float) -> float:
        return EDGE + (1 - 2 * EDGE) * (value - left) / span

    lower = None if result.lower is None else share(result.lower)
    upper = None if result.upper is None else share(result.upper)
    open_start = 0.0 if floor is None else share(floor)
    return ToleranceBar(
        start=open_start if lower is None else lower,
        end=1.0 if upper is None else upper,
        lower=lower,
        upper=upper,
        value=share(result.value),
        low=share(ends[0]),
        high=share(ends[1]),
    )


def shown_reasons(part: MeasuredPart) -> tuple[str, ...]:
    """The part's reasons with those of gauges that are OK counted instead of listed: the table of gauges has them."""
    fine = [result for result in part.results if result.decision is Decision.OK]
    said = {f"{result.name}: {result.reason}" for result in fine}
    reasons = tuple(reason for reason in part.reasons if reason not in said)
    if not fine:
        return reasons
    count = f"{len(fine)} of {len(part.results)} gauges are OK"
    without = sum(result.lower is None and result.upper is None for result in fine)
    return (*reasons, f"{count}; the recipe states no limit for {without} of these" if without else count)


def value_text(result: GaugeResult) -> str:
    """Value ± U with its unit; a dash where nothing was measured."""
    text = with_uncertainty(result.value, result.u)
    return text if result.value is None else f"{text} {unit_text(result.unit)}"


def limits_text(result: GaugeResult) -> str:
    """Both limits with their unit; "none" without."""
    if result.lower is None and result.upper is None:
        return "none"
    unit = unit_text(result.unit)
    if result.lower is None:
        return f"≤ {signed(f'{result.upper:g}')} {unit}"
    if result.upper is None:
        return f"≥ {signed(f'{result.lower:g}')} {unit}"
    return f"{signed(f'{result.lower:g}')} … {signed(f'{result.upper:g}')} {unit}"


def chance_text(result: GaugeResult) -> str:
    """Probability of conformance in percent, never rounded up to certainty."""
    if result.conformance is None:
        return "—"
    percent = 100 * result.conformance
    if percent > 99.9:
        return "> 99.9 %"
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %"


def unit_text(unit: str) -> str:
    """A unit as people read it."""
    return UNITS.get(unit, unit)


def contribution_text(u: float, unit: str) -> str:
    """A standard uncertainty to two digits."""
    return f"{u:.2g} {unit_text(unit)}"
