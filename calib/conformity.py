"""Is a value within its limits, by guard bands: proven, disproven or neither (ISO 14253-1:2017; JCGM 106:2012, 8.3)."""

import math

GUARD_FACTOR = 1.645
"""Width of a guard band in standard uncertainties: 95 % one-sided of a normal distribution (ISO 14253-1:2017, 5.3)."""

COVERAGE_FACTOR = 2.0
"""k of an interval written for people, about 95 % (GUM 6.2.1)."""


def conforms(value: float, u: float, lower: float | None, upper: float | None) -> bool | None:
    """True where conformity is proven at 95 %, False where non-conformity is, None in between.

    True when `lower + g <= value <= upper - g`, False when `value < lower - g` or `value > upper + g`, with the guard
    band `g = GUARD_FACTOR u`. A value that is not finite, or whose uncertainty is not, proves nothing.

    Args:
        value: the measured value.
        u: its standard uncertainty, in the same unit.
        lower: smallest value allowed; None where there is none.
        upper: largest value allowed; None where there is none.
    """
    if not (math.isfinite(value) and math.isfinite(u) and u >= 0):
        return None
    guard = GUARD_FACTOR * u
    if (lower is not None and value < lower - guard) or (upper is not None and value > upper + guard):
        return False
    inside = (lower is None or value >= lower + guard) and (upper is None or value <= upper - guard)
    return True if inside else None
