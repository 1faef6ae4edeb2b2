"""From measurements, findings and missing evidence to OK, NOK or CANNOT-TELL.

One value is decided by guard bands (ISO 14253-1:2017; JCGM 106:2012, 8.3): conformity and non-conformity each have to
be proven at 95 %; what lies in between is CANNOT-TELL. A part is OK only when every check says so and no evidence is
missing. A proven defect is NOK whatever else is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from depthcell.calib.conformity import COVERAGE_FACTOR, GUARD_FACTOR, conforms
from depthcell.inspect.verdict import Decision

__all__ = ["COVERAGE_FACTOR", "GUARD_FACTOR", "Judged", "combine", "decide"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One check's outcome.

    Attributes:
        decision: what this check alone says of the part.
        reason: why, in words.
        severity: how bad, to sort by within one decision; larger is worse.
    """

    decision: Decision
    reason: str
    severity: float = 0.0


def decide(value: float, u: float, lower: float | None, upper: float | None) -> Decision:
    """Decide one measured value against its tolerance limits.

    OK when `lower + g <= value <= upper - g`, NOK when `value < lower - g` or `value > upper + g`, with the guard band
    `g = GUARD_FACTOR u`. A value that is not finite, or whose uncertainty is not, is CANNOT-TELL.

    Args:
        value: the measured value.
        u: its standard uncertainty, in the same unit.
        lower: smallest value the tolerance allows; None where there is none.
        upper: largest value the tolerance allows; None where there is none.
    """
    return {True: Decision.OK, False: Decision.NOK, None: Decision.CANNOT_TELL}[conforms(value, u, lower, upper)]


def combine(checks: Sequence[Judged], gaps: Sequence[str]) -> tuple[Decision, tuple[str, ...]]:
    """The part's verdict and its reasons, worst first, never empty.

    Args:
        checks: every check that was made. None at all is missing evidence too.
        gaps: evidence that is missing, in words.
    """
    if not checks and not gaps:
        gaps = ("nothing was checked",)
    if any(check.decision is Decision.NOK for check in checks):
        verdict = Decision.NOK
    elif gaps or any(check.decision is Decision.CANNOT_TELL for check in checks):
        verdict = Decision.CANNOT_TELL
    else:
        verdict = Decision.OK
    return verdict, (
        *_reasons(checks, Decision.NOK),
        *(f"also missing: {gap}" if verdict is Decision.NOK else gap for gap in gaps),
        *_reasons(checks, Decision.CANNOT_TELL),
        *_reasons(checks, Decision.OK),
    )


def _reasons(checks: Sequence[Judged], decision: Decision) -> list[str]:
    chosen = [check for check in checks if check.decision is decision]
    return [check.reason for check in sorted(chosen, key=lambda check: -check.severity)]
