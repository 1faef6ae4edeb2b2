"""Type-1 studies against published examples, exact cases and scipy's own tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from studydata import BIAS_PUBLISHED, LINEARITY_PUBLISHED, linearity_csv, written

from depthcell.calib.study.study_type1 import Type1Settings, study_type1
from depthcell.errors import DepthcellError, Reason

SETTINGS = Type1Settings(tolerance=10.0, resolution=0.1)


def single(path: Path, values: np.ndarray, reference: float) -> Path:
    return written(path, "reference,value", [f"{reference!r},{float(value)!r}" for value in values])


def test_reproduces_the_published_linearity_example(tmp_path: Path) -> None:
    """Data of AIAG MSA; figures as printed by SPC for Excel for the same data (scribd.com/document/414733344)."""
    study = study_type1(linearity_csv(tmp_path / "lin.csv"), SETTINGS)
    line = study.linearity
    assert line is not None
    assert line.intercept == pytest.approx(0.737, abs=5e-4)
    assert line.slope == pytest.approx(-0.132, abs=5e-4)
    assert line.intercept_interval == pytest.approx((0.591, 0.882), abs=6e-4)
    assert line.slope_interval == pytest.approx((-0.154, -0.110), abs=6e-4)
    assert line.residual == pytest.approx(0.240, abs=5e-4)
    assert line.r_squared == pytest.approx(0.7143, abs=5e-5)
    assert line.p_slope < 5e-4
    assert not line.acceptable
    bias = [one.bias for one in study.references]
    assert bias == pytest.approx([0.492, 0.125, 0.0250, -0.292, -0.617], abs=6e-4)
    t = [abs(one.t or 0) for one in study.references]
    assert t == pytest.approx([13.73, 0.968, 0.442, 10.14, 14.56], abs=6e-3)
    p = [one.p for one in study.references]
    assert p == pytest.approx([0.000, 0.354, 0.667, 0.000, 0.000], abs=6e-4)


def test_linearity_is_that_of_linregress(tmp_path: Path) -> None:
    study = study_type1(linearity_csv(tmp_path / "lin.csv"), SETTINGS)
    x = np.repeat(list(LINEARITY_PUBLISHED), 12).astype(float)
    bias = np.concatenate(list(LINEARITY_PUBLISHED.values())) - x
    fit: Any = stats.linregress(x, bias)
    line = study.linearity
    assert line is not None
    assert (line.slope, line.intercept) == pytest.approx((fit.slope, fit.intercept))
    assert line.p_slope == pytest.approx(fit.pvalue)
    quantile = special.stdtrit(58, 0.975)
    assert line.slope_interval == pytest.approx((fit.slope - quantile * fit.stderr, fit.slope + quantile * fit.stderr))


def test_the_band_holds_the_true_line(tmp_path: Path) -> None:
    """95 % of the bands at one reference contain the truth: 400 studies, three standard errors allowed."""
    rng = np.random.default_rng(5)
    levels = np.repeat([1.0, 2.0, 4.0], 10)
    inside = fits = 0
    path = tmp_path / "band.csv"
    for _ in range(400):
        values = levels + 0.1 - 0.02 * levels + rng.normal(0, 0.05, levels.size)
        rows = [f"{x},{y!r}" for x, y in zip(levels, values.tolist(), strict=True)]
        line = study_type1(written(path, "reference,value", rows), SETTINGS).linearity
        assert line is not None
        low, high = line.band[2]
        inside += low <= 0.02 <= high
        fits += (line.p_fit or 0) > 0.05
    assert 0.917 <= inside / 400 <= 0.983
    assert 0.917 <= fits / 400 <= 0.983


def test_a_bent_gauge_is_seen_by_the_lack_of_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    levels = np.repeat([1.0, 2.0, 3.0, 4.0], 10)
    values = levels + 0.2 * (levels - 2.5) ** 2 + rng.normal(0, 0.02, levels.size)
    rows = [f"{x},{y!r}" for x, y in zip(levels, values.tolist(), strict=True)]
    line = study_type1(written(tmp_path / "bent.csv", "reference,value", rows), SETTINGS).linearity
    assert line is not None
    assert line.p_fit is not None
    assert line.p_fit < 1e-6


def test_reproduces_the_published_bias_example(tmp_path: Path) -> None:
    """AIAG MSA: average 6.0067, bias 0.0067 not significant, 14 degrees of freedom in the 4th edition."""
    path = single(tmp_path / "bias.csv", np.array(BIAS_PUBLISHED), 6.0)
    (one,) = study_type1(path, SETTINGS).references
    assert one.mean == pytest.approx(6.0067, abs=5e-5)
    assert one.bias == pytest.approx(0.0067, abs=5e-5)
    expected: Any = stats.ttest_1samp(np.array(BIAS_PUBLISHED), 6.0)
    assert (one.t, one.p) == pytest.approx((expected.statistic, expected.pvalue))
    interval = expected.confidence_interval(0.95)
    assert one.bias_interval == pytest.approx((interval.low - 6.0, interval.high - 6.0))
    assert one.bias_interval[0] < 0 < one.bias_interval[1]


def test_reproduces_the_published_capability_of_a_gauge(tmp_path: Path) -> None:
    """Minitab's type-1 example (coating of 0.025, tolerance 0.0007): mean 0.024985, s 0.0000438 give 0.53 and 0.42."""
    rng = np.random.default_rng(1)
    scatter = rng.normal(size=50)
    scatter = (scatter - scatter.mean()) / scatter.std(ddof=1)
    path = single(tmp_path / "coat.csv", 0.024985 + 0.0000438 * scatter, 0.025)
    study = study_type1(path, Type1Settings(tolerance=0.0007, resolution=0.00001))
    (one,) = study.references
    assert one.cg == pytest.approx(0.53, abs=5e-3)
    assert one.cgk == pytest.approx(0.42, abs=5e-3)
    assert not study.capable
    assert study.resolution_sufficient


def test_capability_falls_with_bias_and_with_a_coarse_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    values = 5.0 + rng.normal(0, 0.01, 50)
    good = study_type1(single(tmp_path / "a.csv", values, 5.0), Type1Settings(tolerance=1.0, resolution=0.01))
    assert good.capable
    biased = study_type1(single(tmp_path / "b.csv", values + 0.09, 5.0), Type1Settings(tolerance=1.0, resolution=0.01))
    assert not biased.capable
    coarse = study_type1(single(tmp_path / "a.csv", values, 5.0), Type1Settings(tolerance=1.0, resolution=0.06))
    assert not coarse.resolution_sufficient
    assert not coarse.capable


def test_the_interval_of_cg_holds(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = 0.2 * 1.0 / (6 * 0.02)
    path, inside = tmp_path / "a.csv", 0
    for _ in range(400):
        (one,) = study_type1(single(path, rng.normal(5, 0.02, 20), 5.0), Type1Settings(tolerance=1.0)).references
        assert one.cg_interval is not None
        inside += one.cg_interval[0] <= truth <= one.cg_interval[1]
    assert 0.917 <= inside / 400 <= 0.983


def test_resolution_is_found_where_it_is_not_given(tmp_path: Path) -> None:
    path = single(tmp_path / "a.csv", np.array([5.0, 5.02, 5.04] * 5), 5.0)
    assert study_type1(path, Type1Settings(tolerance=1.0)).resolution == pytest.approx(0.02)


def test_a_gauge_that_never_moves_has_no_indices(tmp_path: Path) -> None:
    path = single(tmp_path / "a.csv", np.full(12, 5.1), 5.0)
    (one,) = study_type1(path, SETTINGS).references
    assert (one.cg, one.cgk, one.t, one.p) == (None, None, None, None)
    assert study_type1(path, SETTINGS).capable
    assert not study_type1(path, replace(SETTINGS, tolerance=0.9, resolution=0.01)).capable
    with pytest.raises(DepthcellError, match="all values are the same"):
        study_type1(path, Type1Settings(tolerance=1.0))


def test_refuses_too_few_readings_and_senseless_settings(tmp_path: Path) -> None:
    path = single(tmp_path / "few.csv", np.linspace(5, 5.1, 9), 5.0)
    with pytest.raises(DepthcellError, match=r"few\.csv: 9 readings of reference 5, at least 10") as caught:
        study_type1(path, SETTINGS)
    assert caught.value.reason is Reason.BAD_INPUT
    with pytest.raises(DepthcellError, match="tolerance"):
        Type1Settings(tolerance=0.0)
    with pytest.raises(DepthcellError, match="resolution"):
        Type1Settings(tolerance=1.0, resolution=-1.0)
    with pytest.raises(DepthcellError, match="confidence"):
        Type1Settings(tolerance=1.0, confidence=95.0)
