"""The stated rate of false rejects holds on fresh parts, and the same trial sees a rule under which it does not."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from depthcell.errors import DepthcellError
from depthcell.models.decision import threshold as threshold_module
from depthcell.models.decision.threshold import Method, Threshold, choose_threshold, conformal_p_value

TAILS = {
    "normal": stats.norm(),  # type: ignore[attr-defined, unused-ignore]
    "gamma": stats.gamma(2),  # type: ignore[attr-defined, unused-ignore]
    "lognormal": stats.lognorm(0.5),  # type: ignore[attr-defined, unused-ignore]
    "gumbel": stats.gumbel_r(),  # type: ignore[attr-defined, unused-ignore]
    "student": stats.t(5),  # type: ignore[attr-defined, unused-ignore]
}
Choose = Callable[[NDArray[np.float64], float], Threshold]


def trial(choose: Choose, tail: str, n: int, rate: float, repetitions: int = 200) -> tuple[float, float]:
    """Mean true rate over its stated one, and how often the true rate lies in the stated interval."""
    law, rng = TAILS[tail], np.random.default_rng(5)
    rates, inside = [], []
    for _ in range(repetitions):
        chosen = choose(law.rvs(n, random_state=rng), rate)
        true_rate = float(law.sf(chosen.value))
        rates.append(true_rate)
        inside.append(chosen.low <= true_rate <= chosen.high)
    return float(np.mean(rates)) / rate, float(np.mean(inside))


def holds(factor: float, coverage: float) -> bool:
    return factor <= 1.35 and coverage >= 0.90


@pytest.fixture
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold_module, "SIMULATIONS", 300)


@pytest.mark.parametrize("tail", TAILS)
def test_a_conformal_threshold_holds(tail: str) -> None:
    factor, coverage = trial(choose_threshold, tail, n=120, rate=0.02, repetitions=2000)
    assert factor == pytest.approx(2 / 121 / 0.02, rel=0.08)  # 2000 draws of a beta distribution
    assert coverage == pytest.approx(0.95, abs=0.015)


@pytest.mark.usefixtures("shorter")
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(("n", "rate"), [(30, 0.02), (60, 0.01), (12, 0.05)])
def test_an_extreme_value_threshold_holds(tail: str, n: int, rate: float) -> None:
    assert holds(*trial(choose_threshold, tail, n, rate))


@pytest.mark.usefixtures("shorter")
@pytest.mark.parametrize("tail", TAILS)
def test_the_highest_of_six_does_not_hold(tail: str) -> None:
    def highest_of_six(scores: NDArray[np.float64], rate: float) -> Threshold:
        from dataclasses import replace

        return replace(choose_threshold(scores, rate), value=float(scores[:6].max()))

    assert not holds(*trial(highest_of_six, tail, n=30, rate=0.02))


@pytest.mark.usefixtures("shorter")
def test_a_threshold_on_other_parts_does_not_hold() -> None:
    """Scores of parts that taught the judge are too low; the trial sees that."""

    def flattered(scores: NDArray[np.float64], rate: float) -> Threshold:
        return choose_threshold(scores - 1.0, rate)

    assert not holds(*trial(flattered, "normal", 30, 0.02))


def test_the_interval_of_a_conformal_threshold_is_the_binomial_one() -> None:
    """Share above the highest of n, by hand: 1 - share^(1/n)."""
    chosen = choose_threshold(np.arange(49.0), 0.02)
    assert (chosen.method, chosen.value, chosen.n_parts) == (Method.CONFORMAL, 48.0, 49)
    assert chosen.expected_rate == pytest.approx(1 / 50)
    assert chosen.low == pytest.approx(1 - 0.975 ** (1 / 49))
    assert chosen.high == pytest.approx(1 - 0.025 ** (1 / 49))
    assert chosen.guaranteed_rate == pytest.approx(1 - 0.05 ** (1 / 49))
    assert chosen.confidence == pytest.approx(1 - 0.98**49)


@pytest.mark.parametrize(("n", "method"), [(98, Method.EXTREME_VALUE), (99, Method.CONFORMAL)])
def test_the_method_follows_the_number_of_parts(n: int, method: Method) -> None:
    chosen = choose_threshold(np.random.default_rng(0).normal(size=n), 0.01)
    assert chosen.method is method
    assert ("generalised Pareto" in chosen.statement()) is (method is Method.EXTREME_VALUE)
    assert chosen.low <= chosen.expected_rate <= chosen.high
    assert chosen.expected_rate <= 0.01 + 1e-9
    assert 0 < chosen.confidence < 1


@given(
    st.lists(st.floats(-100, 100), min_size=12, max_size=80),
    st.floats(0.005, 0.2),
    st.floats(0.1, 10),
    st.floats(-50, 50),
)
def test_a_threshold_follows_the_unit_of_the_scores(
    scores: list[float], rate: float, factor: float, offset: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold_module, "SIMULATIONS", 50)
        plain = choose_threshold(np.array(scores), rate)
        other = choose_threshold(np.array(scores) * factor + offset, rate)
    assert other.value == pytest.approx(plain.value * factor + offset, rel=1e-4, abs=1e-3)


def test_equal_scores_give_that_score() -> None:
    for rate in (0.01, 0.1):
        assert choose_threshold(np.full(20, 3.0), rate).value == pytest.approx(3.0, abs=1e-6)


def test_the_same_scores_give_the_same_threshold() -> None:
    scores = np.random.default_rng(3).gumbel(size=25)
    assert choose_threshold(scores, 0.01) == choose_threshold(scores[::-1], 0.01)


@pytest.mark.parametrize(
    ("scores", "rate", "words"),
    [
        (np.arange(9.0), 0.02, "rests on 9 good parts, at least 10"),
        (np.append(np.arange(19.0), np.nan), 0.02, "not finite"),
        (np.arange(20.0), 0.0, "got 0"),
        (np.arange(20.0), 0.5, "got 0.5"),
    ],
)
def test_what_gives_no_threshold_is_refused(scores: NDArray[np.float64], rate: float, words: str) -> None:
    with pytest.raises(DepthcellError, match=words):
        choose_threshold(scores, rate)


def test_p_values_are_uniform_on_good_parts() -> None:
    rng = np.random.default_rng(2)
    found = [conformal_p_value(rng.normal(size=39), rng.normal()) for _ in range(4000)]
    assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.02)
    assert conformal_p_value(np.arange(9.0), 100.0) == pytest.approx(0.1)
