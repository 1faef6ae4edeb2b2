"""Specific and global risk against closed forms of the bivariate normal distribution and against plain simulation."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import multivariate_normal

from depthcell.calib.conformity import GUARD_FACTOR, conforms
from depthcell.errors import DepthcellError
from depthcell.inspect.conformance import ProcessSpread, assess, conformance_probability, process_risks
from depthcell.inspect.verdict import Decision

LIMITS = (9.8, 10.3)
PROCESS = ProcessSpread(10.0, 0.12)


def test_probability_is_that_of_the_normal_distribution() -> None:
    found = conformance_probability(10.1, 0.1, LIMITS)
    assert found == pytest.approx(ndtr(2.0) - ndtr(-3.0), abs=1e-9)


def test_at_a_single_limit_half_conform_and_a_guard_band_away_95_percent() -> None:
    assert conformance_probability(1.0, 0.2, (None, 1.0)) == pytest.approx(0.5)
    assert conformance_probability(1.0 - GUARD_FACTOR * 0.2, 0.2, (None, 1.0)) == pytest.approx(0.95, abs=1e-4)


def test_a_known_process_pulls_the_reading_towards_its_mean() -> None:
    """Against the posterior as it follows from the joint distribution, without completing squares."""
    reading, u = 10.35, 0.1
    true = np.linspace(9, 11, 2_000_001)
    posterior = np.exp(-0.5 * (((true - PROCESS.mean) / PROCESS.s) ** 2 + ((reading - true) / u) ** 2))
    expected = posterior[(true >= LIMITS[0]) & (true <= LIMITS[1])].sum() / posterior.sum()
    assert conformance_probability(reading, u, LIMITS, PROCESS) == pytest.approx(expected, abs=3e-6)
    alone = conformance_probability(reading, u, LIMITS)
    assert alone is not None
    assert alone < 0.4 < expected


def test_a_floor_takes_its_share_from_nowhere() -> None:
    value, u, upper = 0.05, 0.1, 0.2
    expected = (ndtr((upper - value) / u) - ndtr(-value / u)) / ndtr(value / u)
    assert conformance_probability(value, u, (None, upper), floor=0.0) == pytest.approx(expected, abs=1e-12)
    assert conformance_probability(-5.0, 0.01, (None, upper), floor=0.0) == 1.0


@pytest.mark.parametrize("u", [0.005, 0.04, 0.1, 0.5])
def test_risks_are_those_of_the_bivariate_normal_distribution(u: float) -> None:
    """True value and reading are bivariate normal; each risk is the probability of rectangles of their plane."""
    risks = process_risks(u, LIMITS, PROCESS)
    covariance = np.array([[PROCESS.s**2, PROCESS.s**2], [PROCESS.s**2, PROCESS.s**2 + u**2]])
    frozen: Any = multivariate_normal
    joint = frozen(np.full(2, PROCESS.mean), covariance, abseps=1e-9, releps=1e-9)

    def chance(true: tuple[float, float], read: tuple[float, float]) -> float:
        if not read[0] < read[1]:
            return 0.0
        return float(joint.cdf([true[1], read[1]], lower_limit=[true[0], read[0]]))

    far, guard = 30.0, GUARD_FACTOR * u
    (low, high), accepted = LIMITS, (LIMITS[0] + guard, LIMITS[1] - guard)
    assert risks.false_acceptance == pytest.approx(
        chance((-far, low), accepted) + chance((high, far), accepted), abs=2e-6
    )
    rejected = chance((low, high), (-far, low - guard)) + chance((low, high), (high + guard, far))
    assert risks.false_rejection == pytest.approx(rejected, abs=2e-6)
    assert risks.nonconforming == pytest.approx(
        ndtr((low - PROCESS.mean) / PROCESS.s) + ndtr((PROCESS.mean - high) / PROCESS.s), abs=1e-9
    )


def test_risks_and_undecided_share_are_what_deciding_many_parts_gives() -> None:
    rng, u, count = np.random.default_rng(4), 0.06, 400_000
    true = rng.normal(PROCESS.mean, PROCESS.s, count)
    read = true + rng.normal(0, u, count)
    conforming, guard = (true >= LIMITS[0]) & (true <= LIMITS[1]), GUARD_FACTOR * u
    accepted = (read >= LIMITS[0] + guard) & (read <= LIMITS[1] - guard)
    rejected = (read < LIMITS[0] - guard) | (read > LIMITS[1] + guard)
    some = [conforms(value, u, *LIMITS) for value in read[:200]]
    assert some == [True if a else False if r else None for a, r in zip(accepted[:200], rejected[:200], strict=True)]
    risks = process_risks(u, LIMITS, PROCESS)
    for found, seen in (
        (risks.false_acceptance, accepted & ~conforming),
        (risks.false_rejection, rejected & conforming),
        (risks.undecided, ~accepted & ~rejected),
    ):
        assert found == pytest.approx(seen.mean(), abs=4 * math.sqrt(seen.mean() / count) + 1e-6)


@given(st.floats(0.001, 1.0), st.floats(0.01, 1.0), st.floats(-1.0, 1.0))
def test_risks_of_a_one_sided_limit_stay_within_what_guard_bands_promise(u: float, s: float, mean: float) -> None:
    """A part at the limit is falsely decided with 5 %, any other with less: on the whole no more than 5 % of each."""
    risks = process_risks(u, (None, 0.0), ProcessSpread(mean, s))
    assert 0 <= risks.false_acceptance <= 0.0501 * risks.nonconforming + 1e-12
    assert 0 <= risks.false_rejection <= 0.0501 * (1 - risks.nonconforming) + 1e-12
    assert -1e-9 <= risks.undecided <= 1 + 1e-9


def test_exact_readings_make_no_mistakes() -> None:
    risks = process_risks(0.0, LIMITS, PROCESS)
    assert (risks.false_acceptance, risks.false_rejection) == (0.0, 0.0)
    assert risks.undecided == pytest.approx(0.0, abs=1e-9)


def test_assess_puts_it_together() -> None:
    judged = assess(10.05, 0.02, LIMITS, PROCESS)
    assert judged.decision is Decision.OK
    assert judged.risks is not None
    assert judged.probability == pytest.approx(1.0)
    assert judged.guard == pytest.approx(0.0329)
    assert assess(10.31, 0.02, LIMITS).decision is Decision.CANNOT_TELL
    assert assess(10.5, 0.02, LIMITS).decision is Decision.NOK
    assert assess(10.5, 0.02, (None, None), PROCESS) == assess(0.0, 0.02, (None, None))


def test_a_value_that_is_none_proves_nothing() -> None:
    judged = assess(math.nan, 0.1, LIMITS)
    assert judged.decision is Decision.CANNOT_TELL
    assert judged.probability is None


def test_limits_and_processes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DepthcellError, match="lower limit 2 must lie below"):
        assess(1.0, 0.1, (2.0, 1.0))
    with pytest.raises(DepthcellError, match="s positive"):
        ProcessSpread(1.0, 0.0)
    with pytest.raises(DepthcellError, match="u must be zero or more"):
        process_risks(-1.0, LIMITS, PROCESS)
