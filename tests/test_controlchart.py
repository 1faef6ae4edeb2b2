"""Control charts against published limits and constants, by simulation, and each run rule with its negative control."""

import math

import numpy as np
import pytest
from studydata import FLOWRATE_PUBLISHED, PISTON_RINGS_PUBLISHED

from depthcell.calib.study.controlchart import ChartKind, c4, control_chart, d2, d3, moving_range_variation
from depthcell.calib.study.controlchart_rules import NELSON, WESTERN_ELECTRIC, signals_of
from depthcell.errors import DepthcellError, Reason


def test_constants_are_the_published_ones() -> None:
    """Table of factors for control charts, n = 2 to 10 and 25, as in ASTM E2587 and Montgomery's appendix."""
    assert [round(d2(n), 3) for n in (2, 3, 4, 5, 6, 7, 8, 9, 10, 25)] == [
        1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078, 3.931,
    ]  # fmt: skip
    assert [round(d3(n), 3) for n in (2, 3, 4, 5, 6, 7, 8, 9, 10, 25)] == [
        0.853, 0.888, 0.880, 0.864, 0.848, 0.833, 0.820, 0.808, 0.797, 0.708,
    ]  # fmt: skip
    assert [round(c4(n), 4) for n in (2, 3, 4, 5, 10, 25)] == [0.7979, 0.8862, 0.9213, 0.9400, 0.9727, 0.9896]


def test_constants_with_a_closed_form_are_exact() -> None:
    assert d2(2) == pytest.approx(2 / math.sqrt(math.pi), abs=1e-10)
    assert d2(3) == pytest.approx(3 / math.sqrt(math.pi), abs=1e-10)
    assert d3(2) == pytest.approx(math.sqrt(2 - 4 / math.pi), abs=1e-5)


def test_reproduces_the_published_individuals_chart() -> None:
    """NIST/SEMATECH e-Handbook 6.3.2.2: centre 50.81, mean moving range 1.8778, limits 55.8041 and 45.8159.

    The handbook divides by 1.128, here d2(2) has all its digits: limits agree to 0.002.
    """
    chart = control_chart(np.array(FLOWRATE_PUBLISHED))
    assert chart.kind is ChartKind.I_MR
    assert chart.location.center == pytest.approx(50.81, abs=1e-9)
    assert chart.spread.center == pytest.approx(1.8778, abs=5e-5)
    assert chart.location.upper == pytest.approx(55.8041, abs=2e-3)
    assert chart.location.lower == pytest.approx(45.8159, abs=2e-3)
    assert chart.spread.upper == pytest.approx(6.1349, abs=2e-3)
    assert chart.spread.lower == 0
    assert chart.in_control


def test_reproduces_the_published_means_and_ranges() -> None:
    """Montgomery's piston rings, figures as R's qcc prints them: 74.00118, 74.0143, 73.98805; 0.02276, 0.04812."""
    chart = control_chart(np.array(PISTON_RINGS_PUBLISHED))
    assert chart.kind is ChartKind.XBAR_R
    assert chart.location.center == pytest.approx(74.00118, abs=5e-6)
    assert chart.location.upper == pytest.approx(74.0143, abs=5e-5)
    assert chart.location.lower == pytest.approx(73.98805, abs=5e-6)
    assert chart.spread.center == pytest.approx(0.02276, abs=5e-6)
    assert chart.spread.upper == pytest.approx(0.04812, abs=1e-5)
    assert chart.sigma == pytest.approx(0.009785039, rel=5e-5)


@pytest.mark.parametrize("kind", [ChartKind.XBAR_R, ChartKind.XBAR_S])
def test_sigma_is_unbiased_and_worth_its_freedom(kind: ChartKind) -> None:
    rng = np.random.default_rng(1)
    sigmas = np.array([control_chart(rng.normal(5, 2, (20, 5)), kind).sigma for _ in range(800)])
    freedom = control_chart(rng.normal(5, 2, (20, 5)), kind).freedom
    assert sigmas.mean() == pytest.approx(2, rel=0.01)
    assert sigmas.std() / 2 == pytest.approx(1 / math.sqrt(2 * freedom), rel=0.08)
    assert freedom < 80


def test_sigma_of_moving_ranges_is_unbiased_and_worth_its_freedom() -> None:
    rng = np.random.default_rng(2)
    sigmas = np.abs(np.diff(rng.normal(0, 2, (20000, 30)), axis=1)).mean(axis=1) / d2(2)
    assert sigmas.mean() == pytest.approx(2, rel=0.005)
    assert sigmas.std() / 2 == pytest.approx(moving_range_variation(29), rel=0.02)


def test_large_subgroups_take_standard_deviations() -> None:
    chart = control_chart(np.random.default_rng(3).normal(size=(20, 12)))
    assert chart.kind is ChartKind.XBAR_S
    assert chart.spread.lower > 0


def test_limits_are_crossed_as_seldom_as_they_should() -> None:
    """Of normal means, 0.27 % lie beyond three sigma: 20 000 subgroups of 4, limits of the same process."""
    chart = control_chart(np.random.default_rng(4).normal(size=(20000, 4)), ChartKind.XBAR_R, "western-electric")
    beyond = sum(signal.rule.startswith("Western Electric 1") for signal in chart.location.signals)
    assert 30 <= beyond <= 80


def test_a_shift_and_a_burst_are_signalled() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(30, 5))
    values[20:] += 2
    assert not control_chart(values).in_control
    burst = rng.normal(size=(30, 5))
    burst[7] *= 6
    assert any(signal.index == 7 for signal in control_chart(burst).spread.signals)


PATTERNS = {
    "Nelson 1": ([0.0, 3.1], [0.0, 2.9]),
    "Nelson 2": ([-0.5, *[0.5] * 9], [-0.5, *[0.5] * 8]),
    "Nelson 3": ([-0.4, -0.2, 0.0, 0.2, 0.4, 0.6], [-0.4, -0.2, 0.0, 0.2, 0.4, 0.4]),
    "Nelson 4": ([0.5, -0.5] * 7, [*[0.5, -0.5] * 6, 0.5, 0.5]),
    "Nelson 5": ([2.1, 0.0, 2.1], [2.1, 0.0, -2.1]),
    "Nelson 6": ([1.1, 1.1, 0.0, 1.1, 1.1], [1.1, -1.1, 0.0, 1.1, 1.1]),
    "Nelson 7": ([0.5, -0.6, 0.7] * 5, [*[0.5, -0.6, 0.7] * 4, 0.5, 1.2, 0.5]),
    "Nelson 8": ([1.5, -1.5] * 4, [1.5, -1.5, 1.5, 0.5, 1.5, -1.5, 1.5, -1.5]),
    "Western Electric 1": ([0.0, -3.1], [0.0, -2.9]),
    "Western Electric 2": ([-2.1, -2.1], [-2.1, 2.1]),
    "Western Electric 3": ([-1.1, 0.0, -1.1, -1.1, -1.1], [-1.1, 0.0, -1.1, -1.1, 0.9]),
    "Western Electric 4": ([0.2] * 8, [0.2] * 7),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_each_rule_fires_on_its_pattern_and_not_beside_it(name: str) -> None:
    pattern, beside = PATTERNS[name]
    rules = "nelson" if name.startswith("Nelson") else "western-electric"
    if name == "Western Electric 2":
        pattern, beside = [0.0, *pattern], [0.0, *beside]
    fired = [signal for signal in signals_of(np.array(pattern), rules) if signal.rule.startswith(name)]
    assert [signal.index for signal in fired][-1] == len(pattern) - 1
    assert not [signal for signal in signals_of(np.array(beside), rules) if signal.rule.startswith(name)]


def test_every_rule_has_a_pattern() -> None:
    names = {rule.name.split(":")[0] for rule in (*NELSON, *WESTERN_ELECTRIC)}
    assert names == set(PATTERNS)


def test_refuses_what_cannot_be_charted() -> None:
    rng = np.random.default_rng(6)
    for values, kind, said in (
        (np.array([1.0]), None, "1 point"),
        (np.array([1.0, np.nan, 2.0]), None, "not finite"),
        (np.ones((5, 3)), None, "do not vary"),
        (rng.normal(size=(5, 3)), ChartKind.I_MR, "needs individual values"),
        (rng.normal(size=5), ChartKind.XBAR_R, "needs subgroups"),
        (rng.normal(size=(5, 1)), ChartKind.XBAR_S, "needs subgroups"),
    ):
        with pytest.raises(DepthcellError, match=said) as caught:
            control_chart(values, kind)
        assert caught.value.reason is Reason.BAD_INPUT
    with pytest.raises(DepthcellError, match="choose nelson or western-electric"):
        control_chart(rng.normal(size=5), rules="house")
