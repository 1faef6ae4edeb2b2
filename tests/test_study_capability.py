"""Capability against published indices, and intervals that hold."""

from pathlib import Path

import numpy as np
import pytest
from studydata import PISTON_RINGS_PUBLISHED, written

from depthcell.calib.study.controlchart import ChartKind
from depthcell.calib.study.study_capability import CapabilitySettings, capability_of, study_capability
from depthcell.calib.study.study_table import StudyTable
from depthcell.errors import DepthcellError, Reason

LIMITS = CapabilitySettings(lower=73.95, upper=74.05)


def made(values: np.ndarray) -> StudyTable:
    flat = values.ravel()
    labels = {}
    if values.ndim == 2:
        labels = {"subgroup": tuple(str(index) for index in np.indices(values.shape)[0].ravel())}
    return StudyTable("made", tuple(range(2, 2 + flat.size)), labels, {"value": flat})


@pytest.fixture
def rings(tmp_path: Path) -> Path:
    rows = [f"{sample},{value}" for sample, values in enumerate(PISTON_RINGS_PUBLISHED) for value in values]
    return written(tmp_path / "rings.csv", "subgroup,value", rows)


def test_reproduces_the_published_indices(rings: Path) -> None:
    """Montgomery's piston rings with limits 74 ± 0.05: Cp 1.70, Cpk 1.66 as R's qcc prints them."""
    study = study_capability(rings, LIMITS)
    assert study.cp is not None
    assert study.cp.value == pytest.approx(1.70, abs=5e-3)
    assert study.cpk.value == pytest.approx(1.66, abs=5e-3)
    assert study.n == 125
    assert study.chart.kind is ChartKind.XBAR_R


def test_reproduces_the_handbook_example() -> None:
    """NIST/SEMATECH e-Handbook 6.1.6: limits 8 and 20, mean 16, s 2 give 1.0 and 0.6667."""
    scatter = np.random.default_rng(1).normal(size=50)
    values = 16 + 2 * (scatter - scatter.mean()) / scatter.std(ddof=1)
    study = capability_of(made(values), CapabilitySettings(lower=8, upper=20))
    assert study.pp is not None
    assert study.pp.value == pytest.approx(1.0)
    assert study.ppk.value == pytest.approx(0.6667, abs=5e-5)


def test_one_limit_gives_no_cp() -> None:
    study = capability_of(made(np.random.default_rng(2).normal(size=40)), CapabilitySettings(lower=None, upper=4.0))
    assert study.cp is None
    assert study.pp is None
    assert study.cpk.value == pytest.approx((4.0 - study.mean) / (3 * study.sigma_within))


@pytest.mark.parametrize("shape", [(60,), (20, 5)])
def test_the_intervals_hold(shape: tuple[int, ...]) -> None:
    """Of 600 processes with Cp 1.2 and Cpk 1.0; three standard errors of the share are allowed."""
    rng = np.random.default_rng(3)
    settings = CapabilitySettings(lower=-3.0, upper=4.2)
    inside = np.zeros(4)
    for _ in range(600):
        study = capability_of(made(rng.normal(0, 1, shape)), settings)
        assert study.cp is not None
        assert study.pp is not None
        truths = ((study.cp, 1.2), (study.cpk, 1.0), (study.pp, 1.2), (study.ppk, 1.0))
        inside += [index.interval[0] <= truth <= index.interval[1] for index, truth in truths]
    assert (inside / 600 > 0.923).all(), inside
    assert (inside / 600 < 0.977).all(), inside


def test_a_drift_shows_between_within_and_overall() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(0, 1, (25, 4)) + np.linspace(-3, 3, 25)[:, None]
    study = capability_of(made(values), CapabilitySettings(lower=-6.0, upper=6.0))
    assert study.cpk.value > 1.4 * study.ppk.value
    assert not study.chart.in_control


def test_values_far_from_normal_are_named() -> None:
    rng = np.random.default_rng(5)
    settings = CapabilitySettings(lower=0.0, upper=20.0)
    assert capability_of(made(rng.exponential(2, 80)), settings).normal_p < 0.001
    assert capability_of(made(rng.normal(10, 2, 80)), settings).normal_p > 0.05


def test_refuses_bad_limits_and_groups(tmp_path: Path) -> None:
    for lower, upper, said in (
        (None, None, "give a lower"),
        (2.0, 1.0, "below the upper"),
        (float("nan"), 1.0, "finite"),
    ):
        with pytest.raises(DepthcellError, match=said):
            CapabilitySettings(lower=lower, upper=upper)
    with pytest.raises(DepthcellError, match="9 values, at least 10"):
        capability_of(made(np.arange(9.0)), LIMITS)
    rows = [f"{index // 3},{index}" for index in range(12)] + ["9,1", "9,2"]
    with pytest.raises(DepthcellError, match="subgroup '9' has 2 values, others 3") as caught:
        study_capability(written(tmp_path / "a.csv", "subgroup,value", rows), LIMITS)
    assert caught.value.reason is Reason.BAD_INPUT
