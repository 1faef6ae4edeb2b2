"""Run rules: patterns on a control chart that chance alone would seldom draw."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError, Reason


@dataclass(frozen=True, slots=True)
class Signal:
    """A rule that fired: `index` of the point that completes the pattern, counted from 0, and the rule's name."""

    index: int
    rule: str


@dataclass(frozen=True, slots=True)
class RunRule:
    """A pattern over `window` successive points; `holds` sees them in standard deviations from the centre."""

    name: str
    window: int
    holds: Callable[[NDArray[np.float64]], bool]


def _beyond(count: int, sigmas: float) -> Callable[[NDArray[np.float64]], bool]:
    """At least `count` points beyond so many standard deviations on the same side, the last one among them."""

    def holds(z: NDArray[np.float64]) -> bool:
        same = z if z[-1] > 0 else -z
        return bool(same[-1] > sigmas and np.sum(same > sigmas) >= count)

    return holds


def _one_side(z: NDArray[np.float64]) -> bool:
    return bool((z > 0).all() or (z < 0).all())


def _trend(z: NDArray[np.float64]) -> bool:
    steps = np.diff(z)
    return bool((steps > 0).all() or (steps < 0).all())


def _alternating(z: NDArray[np.float64]) -> bool:
    steps = np.diff(z)
    return bool((steps[1:] * steps[:-1] < 0).all())


def _hugging(z: NDArray[np.float64]) -> bool:
    return bool((np.abs(z) < 1).all())


def _avoiding(z: NDArray[np.float64]) -> bool:
    return bool((np.abs(z) > 1).all())


NELSON = (
    RunRule("Nelson 1: beyond 3 sigma", 1, _beyond(1, 3.0)),
    RunRule("Nelson 2: nine in a row on one side", 9, _one_side),
    RunRule("Nelson 3: six in a row rising or falling", 6, _trend),
    RunRule("Nelson 4: fourteen in a row up and down", 14, _alternating),
    RunRule("Nelson 5: two of three beyond 2 sigma", 3, _beyond(2, 2.0)),
    RunRule("Nelson 6: four of five beyond 1 sigma", 5, _beyond(4, 1.0)),
    RunRule("Nelson 7: fifteen in a row within 1 sigma", 15, _hugging),
    RunRule("Nelson 8: eight in a row beyond 1 sigma", 8, _avoiding),
)
"""L. S. Nelson, The Shewhart control chart: tests for special causes, J. Quality Technology 16 (1984) 237-239."""

WESTERN_ELECTRIC = (
    RunRule("Western Electric 1: beyond 3 sigma", 1, _beyond(1, 3.0)),
    RunRule("Western Electric 2: two of three beyond 2 sigma", 3, _beyond(2, 2.0)),
    RunRule("Western Electric 3: four of five beyond 1 sigma", 5, _beyond(4, 1.0)),
    RunRule("Western Electric 4: eight in a row on one side", 8, _one_side),
)
"""Western Electric, Statistical Quality Control Handbook (1956); as listed in the NIST/SEMATECH e-Handbook 6.3.2."""

RULES = {"nelson": NELSON, "western-electric": WESTERN_ELECTRIC}


def signals_of(standard: NDArray[np.float64], rules: str = "nelson") -> tuple[Signal, ...]:
    """What the rules find, in order of the points.

    Args:
        standard: (k,) points less centre, over the standard deviation of a point.
        rules: "nelson" or "western-electric".

    Raises:
        DepthcellError: there are no rules of that name.
    """
    if rules not in RULES:
        raise DepthcellError(f"run rules '{rules}': choose {' or '.join(RULES)}", Reason.BAD_INPUT)
    found = [
        Signal(end - 1, rule.name)
        for rule in RULES[rules]
        for end in range(rule.window, standard.size + 1)
        if rule.holds(standard[end - rule.window : end])
    ]
    return tuple(sorted(found, key=lambda signal: signal.index))
