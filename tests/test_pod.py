"""Probability of detection: published examples, brute-force likelihoods, separation, coverage, refusals."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from publishedpod import BEETLES, DOSES, KILLED, SIGNALS, SIZES
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import log_ndtr, logit, ndtri, stdtrit

from depthcell.errors import DepthcellError
from depthcell.inspect.pod import DROP, Scale, exact_interval, fit_hit_miss, fit_response

Floats = NDArray[np.float64]


def hits_of(rng: np.random.Generator, count: int, slope: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Sizes from 0.2 to 1.6 mm, half of those at 0.56 mm hit."""
    x = rng.uniform(np.log(0.2), np.log(1.6), count)
    return np.exp(x), rng.random(count) < 1 / (1 + np.exp(-slope * (x - np.log(0.56))))


def penalised(line: Floats, x: Floats, hit: NDArray[np.bool_]) -> float:
    """Firth's log-likelihood, written out."""
    share = np.clip(1 / (1 + np.exp(-np.clip(line[0] + line[1] * x, -600, 600))), 1e-300, 1 - 1e-16)
    design = np.column_stack((np.ones_like(x), x))
    information = design.T @ ((share * (1 - share))[:, None] * design)
    return float(np.log(np.where(hit, share, 1 - share)).sum() + 0.5 * np.linalg.slogdet(information)[1])


def test_beetles_die_as_published() -> None:
    size = np.repeat(np.exp(DOSES), BEETLES)
    killed = np.concatenate([np.arange(n) < k for n, k in zip(BEETLES, KILLED, strict=True)])
    curve = fit_hit_miss(size, killed, firth=False)
    share = curve.pod(np.exp(DOSES))
    design = np.column_stack((np.ones_like(DOSES), DOSES))
    np.testing.assert_allclose(design.T @ (KILLED - BEETLES * share), 0, atol=1e-5)  # the likelihood's maximum
    covariance = np.linalg.inv(design.T @ ((BEETLES * share * (1 - share))[:, None] * design))
    half = np.log(curve.size_mm(0.5))
    gradient = np.array([1.0, half]) / curve.line[1]
    assert np.sqrt(gradient @ covariance @ gradient) == pytest.approx(0.003858052, rel=1e-5)


@pytest.mark.parametrize(("censored", "a90", "a90_95"), [(False, 0.331991, 0.349280), (True, 0.33876, 0.355642)])
def test_signals_are_evaluated_as_published(censored: bool, a90: float, a90_95: float) -> None:
    seen = np.where(SIGNALS > 60, SIGNALS, np.nan) if censored else SIGNALS
    curve = fit_response(SIZES, seen, np.full(100, 60.0), Scale.LINEAR).curve(200.0)
    # otpod finds its bound by simulation, so that its own digits scatter.
    assert curve.size_mm(0.9) == pytest.approx(a90, rel=3e-3)
    assert curve.size_bound_mm(0.9) == pytest.approx(a90_95, rel=6e-3)


@pytest.mark.parametrize(("seed", "count", "slope"), [(1, 60, 6.0), (2, 60, 15.0), (3, 25, 4.0), (4, 200, 8.0)])
def test_the_hit_miss_bound_is_that_of_the_written_out_profile(seed: int, count: int, slope: float) -> None:
    size, hit = hits_of(np.random.default_rng(seed), count, slope)
    x, curve = np.log(size), fit_hit_miss(size, hit)
    best = minimize(
        lambda line: -penalised(line, x, hit), curve.line * 0.9, method="Nelder-Mead", options={"xatol": 1e-9}
    )
    np.testing.assert_allclose(curve.line, best.x, rtol=1e-3)

    def short_of_floor(x90: float) -> float:
        def held(slope: float) -> float:
            return -penalised(np.array([logit(0.9) - slope * x90, slope]), x, hit)

        profile: Any = minimize_scalar(held, bounds=(1e-3, 300), method="bounded")
        return float(-best.fun - DROP + profile.fun)

    log_a90 = float(np.log(curve.size_mm(0.9)))
    log_bound: Any = brentq(short_of_floor, log_a90, log_a90 + 3)
    bound = float(np.exp(log_bound))
    assert curve.size_bound_mm(0.9) == pytest.approx(bound, rel=2e-3)
    assert curve.lower(np.array([bound]))[0] == pytest.approx(0.9, abs=2e-3)


@pytest.mark.parametrize(("seed", "report"), [(1, 0.0), (2, 0.4)])
def test_the_response_bound_is_that_of_the_written_out_profile(seed: int, report: float) -> None:
    rng = np.random.default_rng(seed)
    a = np.exp(rng.uniform(np.log(0.2), np.log(1.6), 50))
    y = 0.1 + 0.9 * a + 0.12 * rng.standard_normal(50)
    seen = y > report
    curve = fit_response(a, np.where(seen, y, np.nan), np.full(50, report or 1.0), Scale.LINEAR).curve(0.7)
    free = seen.sum() - 2

    def lack(line: Floats) -> float:
        sigma = np.exp(line[2])
        z = (np.where(seen, y, report) - line[0] - line[1] * a) / sigma
        return float(free * line[2] - np.where(seen, -(z**2) / 2, log_ndtr(z)).sum())

    options = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000}
    best = minimize(lack, [0.0, 1.0, -2.0], method="Nelder-Mead", options=options)
    assert curve.size_mm(0.9) == pytest.approx((0.7 - best.x[0] + ndtri(0.9) * np.exp(best.x[2])) / best.x[1], rel=1e-4)
    drop = free / 2 * np.log1p(stdtrit(free, 0.95) ** 2 / free)

    def short_of_floor(a90: float) -> float:
        def held(rest: Floats) -> float:
            return lack(np.array([0.7 + ndtri(0.9) * np.exp(rest[1]) - rest[0] * a90, *rest]))

        return float(minimize(held, best.x[1:], method="Nelder-Mead", options=options).fun - best.fun - drop)

    bound = brentq(short_of_floor, curve.size_mm(0.9), curve.size_mm(0.9) + 1, xtol=1e-6)
    assert curve.size_bound_mm(0.9) == pytest.approx(bound, rel=2e-3)


def test_hits_that_do_not_overlap_misses_still_have_a_bound() -> None:
    size = np.geomspace(0.2, 1.6, 60)
    hit = size > 0.56
    curve = fit_hit_miss(size, hit)
    assert size[~hit].max() * 0.97 < curve.size_mm(0.5) < size[hit].min() * 1.03
    assert 0.56 < curve.size_mm(0.9) < curve.size_bound_mm(0.9) < 0.85
    runaway = fit_hit_miss(size, hit, firth=False)
    assert runaway.line[1] > 5 * curve.line[1]  # what the penalty is for


def test_hits_that_have_nothing_to_do_with_size_have_none() -> None:
    rng = np.random.default_rng(5)
    curve = fit_hit_miss(rng.uniform(0.2, 1.6, 80), rng.random(80) < 0.5)
    assert not curve.is_rising
    assert curve.size_bound_mm(0.9) == np.inf


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), factor=st.floats(1e-3, 1e3))
def test_a_change_of_unit_changes_the_unit_alone(seed: int, factor: float) -> None:
    size, hit = hits_of(np.random.default_rng(seed), 60, 6.0)
    if hit.all() or not hit.any():
        return
    one, other = fit_hit_miss(size, hit), fit_hit_miss(factor * size, hit)
    assert other.size_mm(0.9) == pytest.approx(factor * one.size_mm(0.9), rel=1e-6)
    assert other.is_rising == one.is_rising
    if one.is_rising:
        assert other.size_bound_mm(0.9) == pytest.approx(factor * one.size_bound_mm(0.9), rel=1e-5)
    grid = np.geomspace(size.min(), size.max(), 20)
    assert (one.lower(grid) <= one.pod(grid) + 1e-12).all()


def test_the_straighter_scale_is_taken_and_a_bent_line_is_noticed() -> None:
    rng = np.random.default_rng(6)
    a = np.exp(rng.uniform(np.log(0.1), np.log(3.0), 80))
    none = np.full(80, np.nan)
    straight = fit_response(a, 0.2 + 0.9 * a + 0.05 * rng.standard_normal(80), none)
    assert straight.scale is Scale.LINEAR
    assert straight.sigma == pytest.approx(0.05, rel=0.25)
    assert straight.curvature_p > 0.01
    assert fit_response(a, 0.8 * a**1.1 * np.exp(0.1 * rng.standard_normal(80)), none).scale is Scale.LOG
    assert fit_response(a, 0.2 + 0.5 * a**2 + 0.05 * rng.standard_normal(80), none, Scale.LINEAR).curvature_p < 1e-6


def test_leaving_censored_defects_out_would_flatter() -> None:
    rng = np.random.default_rng(7)
    a = np.exp(rng.uniform(np.log(0.1), np.log(1.0), 200))
    y = 0.9 * a + 0.15 * rng.standard_normal(200)
    seen = y > 0.5
    whole = fit_response(a, np.where(seen, y, np.nan), np.full(200, 0.5), Scale.LINEAR)
    alone = fit_response(a[seen], y[seen], np.full(seen.sum(), 0.5), Scale.LINEAR)
    truth = (0.6 + 1.2816 * 0.15) / 0.9
    assert whole.curve(0.6).size_mm(0.9) == pytest.approx(truth, rel=0.08)
    assert alone.slope < 0.8 * whole.slope


def test_exact_intervals() -> None:
    assert exact_interval(0, 60) == pytest.approx((0.0, 1 - 0.025 ** (1 / 60)))
    assert exact_interval(60, 60) == pytest.approx((0.025 ** (1 / 60), 1.0))
    low, high = exact_interval(7, 20)
    assert sum(_binomial(k, 20, low) for k in range(7, 21)) == pytest.approx(0.025)
    assert sum(_binomial(k, 20, high) for k in range(8)) == pytest.approx(0.025)


def _binomial(count: int, total: int, share: float) -> float:
    ways = float(np.prod([(total - i) / (i + 1) for i in range(count)]))
    return ways * share**count * (1 - share) ** (total - count)


def test_what_cannot_be_evaluated_is_refused() -> None:
    hit = np.array([False, True, True])
    with pytest.raises(DepthcellError, match="must be positive, finite and not all the same"):
        fit_hit_miss(np.array([0.0, 1.0, 2.0]), hit)
    with pytest.raises(DepthcellError, match="not all the same"):
        fit_hit_miss(np.ones(3), hit)
    with pytest.raises(DepthcellError, match=r"size_mm: \(2,\) sizes for 3 defects"):
        fit_hit_miss(np.array([1.0, 2.0]), hit)
    sizes, seen = np.array([0.3, 0.4, 0.5, 0.6]), np.array([0.3, np.nan, 0.5, 0.6])
    with pytest.raises(DepthcellError, match="3 of 4 defects gave one; four are the least"):
        fit_response(sizes, seen, np.full(4, 0.2))
    with pytest.raises(DepthcellError, match="all are the same, as if nothing"):
        fit_response(sizes, np.full(4, 0.3), np.full(4, 0.3))
    with pytest.raises(DepthcellError, match="not positive; give its magnitude"):
        fit_response(sizes, -sizes, np.full(4, 0.2))
    with pytest.raises(DepthcellError, match="4 of 3: no share"):
        exact_interval(4, 3)


@pytest.mark.slow
@pytest.mark.parametrize("slope", [3.0, 6.0])
def test_the_hit_miss_bound_holds_in_95_of_100_repeats(slope: float) -> None:
    rng, truth = np.random.default_rng(8), 0.56 * 9 ** (1 / slope)
    held = [fit_hit_miss(*hits_of(rng, 60, slope)).size_bound_mm(0.9) >= truth for _ in range(300)]
    assert np.mean(held) >= 0.93  # 3 standard errors below 97 %, as measured


@pytest.mark.slow
def test_the_response_bound_holds_in_95_of_100_repeats() -> None:
    rng, truth = np.random.default_rng(9), (0.6 + 1.2815516 * 0.1) / 0.95
    held = []
    for _ in range(300):
        a = np.exp(rng.uniform(np.log(0.2), np.log(1.6), 40))
        y = 0.95 * a + 0.1 * rng.standard_normal(40)
        fit = fit_response(a, np.where(y > 0.3, y, np.nan), np.full(40, 0.3), Scale.LINEAR)
        held.append(fit.curve(0.6).size_bound_mm(0.9) >= truth)
    assert 0.91 <= np.mean(held) <= 0.99
