"""Does a quantity conform, how sure is that, and how often does a gauge err on the whole production?

Three questions on one measured value and its limits:

- the decision by guard bands: proven, disproven or neither (ISO 14253-1:2017; JCGM 106:2012, 8.3), see `decision`;
- the probability that this one part conforms, given its reading (JCGM 106:2012, clause 7: specific risk);
- the shares of all parts that are falsely accepted, falsely rejected or left undecided (JCGM 106:2012, clause 9: global
  risk), which need to know how parts spread: from golden parts, or from what the process is known to do.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.inspect.decision import GUARD_FACTOR, decide
from depthcell.inspect.verdict import Decision

REACH = 9.0
"""Standard deviations of the process over which is integrated: beyond lies less than 1e-18 of it."""
PIECE = 1.0
"""Longest piece of integration, in the smaller of the two standard deviations' units, for `NODES` nodes of Gauss."""
NODES = 12


@dataclass(frozen=True, slots=True)
class ProcessSpread:
    """How a quantity spreads over good and bad parts alike, as a normal distribution.

    Attributes:
        mean: of the parts, in the quantity's unit.
        s: standard deviation of the true values, the measurement's own noise taken off.
    """

    mean: float
    s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.s) and self.s > 0):
            raise DepthcellError(f"process: mean must be finite and s positive, got {self.mean} and {self.s}")


@dataclass(frozen=True, slots=True)
class Risks:
    """Shares of all parts, 0 to 1.

    Attributes:
        false_acceptance: do not conform and are OK (JCGM 106:2012, 9.3: global consumer's risk).
        false_rejection: conform and are NOK (the same: global producer's risk).
        undecided: CANNOT-TELL, conforming or not.
        nonconforming: do not conform, whatever is said of them.
    """

    false_acceptance: float
    false_rejection: float
    undecided: float
    nonconforming: float


@dataclass(frozen=True, slots=True)
class Conformance:
    """What is known of one value against its limits.

    Attributes:
        decision: OK, NOK or CANNOT-TELL.
        guard: width of the guard band on either side of a limit, in the value's unit.
        probability: that the part conforms, given its reading; None without limits.
        risks: of this gauge over the whole production; None where its spread is not known.
    """

    decision: Decision
    guard: float
    probability: float | None
    risks: Risks | None


def assess(
    value: float,
    u: float,
    limits: tuple[float | None, float | None],
    process: ProcessSpread | None = None,
    floor: float | None = None,
) -> Conformance:
    """Judge one measured value.

    Args:
        value: measured.
        u: its standard uncertainty.
        limits: smallest and largest value allowed; None where there is none.
        process: how parts spread, where that is known.
        floor: smallest value that the quantity can have at all: 0 for the width of a zone.

    Raises:
        DepthcellError: the limits stand in the wrong order.
    """
    lower, upper = _checked(limits)
    if not (math.isfinite(value) and math.isfinite(u) and u >= 0):
        return Conformance(Decision.CANNOT_TELL, math.nan, None, None)
    risks = None if process is None or limits == (None, None) else process_risks(u, limits, process)
    return Conformance(
        decision=decide(value, u, lower, upper),
        guard=GUARD_FACTOR * u,
        probability=conformance_probability(value, u, limits, process, floor),
        risks=risks,
    )


def conformance_probability(
    value: float,
    u: float,
    limits: tuple[float | None, float | None],
    process: ProcessSpread | None = None,
    floor: float | None = None,
) -> float | None:
    """Probability that a quantity lies within its limits, given its reading; None without limits.

    `Phi((upper - y) / s) - Phi((lower - y) / s)` of the normal distribution N(y, s²) that is left of the quantity
    (JCGM 106:2012, clause 7). Without a process that is N(value, u²). With one, the product of both normal densities:
    `y = (value s0² + y0 u²) / (s0² + u²)`, `s² = s0² u² / (s0² + u²)` (Bayes' rule). A floor cuts the distribution off
    and the rest takes its share.
    """
    lower, upper = _checked(limits)
    if lower is None and upper is None:
        return None
    if process is not None and u > 0:
        weight = process.s**2 / (process.s**2 + u**2)
        value, u = process.mean + weight * (value - process.mean), u * math.sqrt(weight)
    if u == 0:
        return float((lower is None or value >= lower) and (upper is None or value <= upper))

    def above(limit: float) -> float:
        return 0.5 * math.erfc((limit - value) / u / math.sqrt(2))

    least = lower if floor is None else max(floor, -math.inf if lower is None else lower)
    from_lower = 1.0 if least is None else above(least)
    beyond = 0.0 if upper is None else above(upper)
    possible = 1.0 if floor is None else above(floor)
    if possible < 1e-12:  # a reading far below what can be: the quantity lies at its floor
        return float((lower is None or floor is None or lower <= floor) and (upper is None or beyond <= possible))
    return max(from_lower - beyond, 0.0) / possible


def process_risks(u: float, limits: tuple[float | None, float | None], process: ProcessSpread) -> Risks:
    """Shares of false decisions over a production, by quadrature.

    With the process' density g and the reading N(true, u²), the share of falsely accepted parts is the integral of
    `g(t) P(OK | t)` over all t that do not conform, that of falsely rejected ones the integral of `g(t) P(NOK | t)`
    over those that do (JCGM 106:2012, 9.3). Both P are differences of normal distributions at the guarded limits. Gauss
    and Legendre's rule is used between the limits, where the integrands are smooth.

    Args:
        u: standard uncertainty of the readings.
        limits: smallest and largest value allowed.
        process: how parts spread.

    Raises:
        DepthcellError: the limits stand in the wrong order, or u is negative.
    """
    lower, upper = _checked(limits)
    if not (math.isfinite(u) and u >= 0):
        raise DepthcellError(f"conformance: u must be zero or more, got {u}")
    edges = [process.mean - REACH * process.s, process.mean + REACH * process.s]
    edges += [limit for limit in (lower, upper) if limit is not None and edges[0] < limit < edges[1]]
    true, weight = _nodes(sorted(edges), min(process.s, u) if u > 0 else process.s, u, (lower, upper))
    density = (
        weight * np.exp(-0.5 * np.square((true - process.mean) / process.s)) / (process.s * math.sqrt(2 * math.pi))
    )
    conforms = np.ones(len(true), np.bool_)
    conforms &= True if lower is None else true >= lower
    conforms &= True if upper is None else true <= upper
    accepted, rejected = _chances(true, u, lower, upper)
    return Risks(
        false_acceptance=float((density * accepted)[~conforms].sum()),
        false_rejection=float((density * rejected)[conforms].sum()),
        undecided=float((density * (1 - accepted - rejected)).sum()),
        nonconforming=float(density[~conforms].sum()),
    )


def _chances(
    true: NDArray[np.float64], u: float, lower: float | None, upper: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities (N,) that parts of these true values are OK, and NOK."""
    guard = GUARD_FACTOR * u
    one, zero = np.ones(len(true)), np.zeros(len(true))
    reach_up = one if lower is None else _below(true - (lower + guard), u)
    too_high = zero if upper is None else _below(true - (upper - guard), u)
    rejected = zero if upper is None else _below(true - (upper + guard), u)
    rejected = rejected + (zero if lower is None else _below((lower - guard) - true, u))
    return np.maximum(reach_up - too_high, 0.0), rejected


def _below(distance: NDArray[np.float64], u: float) -> NDArray[np.float64]:
    """`Phi(distance / u)`."""
    if u == 0:
        return np.asarray(distance > 0, dtype=np.float64)
    return np.array([0.5 * math.erfc(-d / u / math.sqrt(2)) for d in distance])


def _nodes(
    edges: list[float], unit: float, u: float, limits: tuple[float | None, float | None]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights between the edges, in short pieces near the limits, where the reading decides."""
    marks = list(edges)
    for limit in limits:
        if limit is not None and u > 0:
            marks += list(np.clip(limit + u * np.arange(-12.0, 12.5), edges[0], edges[-1]))
    span = edges[-1] - edges[0]
    marks += list(np.linspace(edges[0], edges[-1], min(int(span / (PIECE * max(unit, span / 400))) + 2, 400)))
    ends = np.unique(marks)
    middle, half = (ends[1:] + ends[:-1]) / 2, np.diff(ends) / 2
    place, weight = np.polynomial.legendre.leggauss(NODES)
    return (middle[:, None] + half[:, None] * place).ravel(), (half[:, None] * weight).ravel()


def _checked(limits: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    lower, upper = limits
    if lower is not None and upper is not None and not lower < upper:
        raise DepthcellError(f"conformance: the lower limit {lower:g} must lie below the upper one, {upper:g}")
    return lower, upper
