"""Guard bands and the rule that makes one verdict of many checks."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.inspect.decision import GUARD_FACTOR, Judged, combine, decide
from depthcell.inspect.verdict import Decision

OK, NOK, CANNOT_TELL = Decision.OK, Decision.NOK, Decision.CANNOT_TELL
VALUES = st.floats(-10, 10)
SIGMAS = st.floats(0, 5)
DECISIONS = st.sampled_from(list(Decision))
CHECKS = st.lists(st.builds(Judged, DECISIONS, st.text(min_size=1), st.floats(0, 9)), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("value", "u", "lower", "upper", "expected"),
    [
        (0.0, 0.1, -0.5, 0.5, OK),
        (0.0, 0.4, -0.5, 0.5, CANNOT_TELL),  # no value could be accepted: the gauge is too coarse for this tolerance
        (0.45, 0.1, -0.5, 0.5, CANNOT_TELL),
        (0.55, 0.1, -0.5, 0.5, CANNOT_TELL),
        (0.70, 0.1, -0.5, 0.5, NOK),
        (-0.70, 0.1, -0.5, 0.5, NOK),
        (0.70, 0.1, None, 0.5, NOK),
        (-9.0, 0.1, None, 0.5, OK),
        (9.0, 0.1, 0.5, None, OK),
        (5.0, 0.1, None, None, OK),
        (0.5, 0.0, -0.5, 0.5, OK),
        (math.nan, 0.1, -0.5, 0.5, CANNOT_TELL),
        (0.0, math.nan, -0.5, 0.5, CANNOT_TELL),
        (0.0, math.inf, -0.5, 0.5, CANNOT_TELL),
        (9.0, -1.0, -0.5, 0.5, CANNOT_TELL),
    ],
)
def test_guard_band(value: float, u: float, lower: float | None, upper: float | None, expected: Decision) -> None:
    assert decide(value, u, lower, upper) is expected


@given(VALUES, SIGMAS, st.floats(-10, 0), st.floats(0.01, 10))
def test_ok_and_nok_lie_on_their_side_of_the_limit(value: float, u: float, lower: float, upper: float) -> None:
    decision = decide(value, u, lower, upper)
    if decision is OK:
        assert lower <= value <= upper
    if decision is NOK:
        assert value < lower or value > upper


@given(VALUES, SIGMAS, SIGMAS)
def test_more_uncertainty_never_turns_doubt_into_a_decision(value: float, u: float, more: float) -> None:
    before, after = decide(value, u, -1.0, 1.0), decide(value, u + more, -1.0, 1.0)
    assert after in {before, CANNOT_TELL}


def test_wrong_ok_and_wrong_nok_stay_below_five_percent() -> None:
    """JCGM 106, 8.3: a true value on the limit is called conforming, or not conforming, in at most 5 % of cases."""
    rng = np.random.default_rng(11)
    for true in (0.5, -0.5):
        decisions = [decide(float(value), 0.1, -0.5, 0.5) for value in rng.normal(true, 0.1, 20_000)]
        assert decisions.count(OK) / 20_000 == pytest.approx(0.05, abs=0.005)
        assert decisions.count(NOK) / 20_000 == pytest.approx(0.05, abs=0.005)


def test_guard_factor_is_the_95_percent_quantile() -> None:
    assert 0.5 * (1 + math.erf(GUARD_FACTOR / math.sqrt(2))) == pytest.approx(0.95, abs=1e-4)


@given(CHECKS, st.lists(st.text(min_size=1), max_size=3))
def test_part_is_ok_only_if_every_check_is_and_nothing_is_missing(checks: list[Judged], gaps: list[str]) -> None:
    verdict, reasons = combine(checks, gaps)
    assert (verdict is OK) == (not gaps and all(check.decision is OK for check in checks))
    assert (verdict is NOK) == any(check.decision is NOK for check in checks)
    assert len(reasons) == len(checks) + len(gaps)


@given(CHECKS)
def test_missing_evidence_never_makes_a_verdict_better(checks: list[Judged]) -> None:
    complete, _ = combine(checks, [])
    with_gap, _ = combine(checks, ["camera 2 gave nothing"])
    assert with_gap is (NOK if complete is NOK else CANNOT_TELL)


@given(CHECKS, st.integers(0, 4))
def test_breaking_one_check_breaks_the_verdict(checks: list[Judged], which: int) -> None:
    chosen = which % len(checks)
    broken = [replace(check, decision=NOK) if i == chosen else check for i, check in enumerate(checks)]
    assert combine(broken, [])[0] is NOK


def test_nothing_checked_is_not_ok() -> None:
    assert combine([], []) == (CANNOT_TELL, ("nothing was checked",))


def test_reasons_come_worst_first_and_tell_what_was_missing_too() -> None:
    checks = [
        Judged(OK, "bore A is open"),
        Judged(NOK, "dent 0.6 mm", 1.2),
        Judged(CANNOT_TELL, "bore B not seen"),
        Judged(NOK, "dent 2 mm", 4.0),
    ]
    verdict, reasons = combine(checks, ["camera 2 gave nothing"])
    assert verdict is NOK
    assert reasons == (
        "dent 2 mm",
        "dent 0.6 mm",
        "also missing: camera 2 gave nothing",
        "bore B not seen",
        "bore A is open",
    )
