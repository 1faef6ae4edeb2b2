"""Gauge R&R against the published AIAG example, a plain twin, known truths and bad tables."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import chdtri
from studydata import grr_csv, written

from depthcell.calib.study import study_grr as module
from depthcell.calib.study.study_grr import GrrSettings, GrrStudy, grr_of, study_grr
from depthcell.calib.study.study_table import StudyTable
from depthcell.errors import DepthcellError, Reason


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> GrrStudy:
    path = grr_csv(tmp_path_factory.mktemp("grr") / "aiag.csv")
    return study_grr(path, GrrSettings(tolerance=8.0))


def table_of(cube: np.ndarray) -> StudyTable:
    """A table of values (parts, operators, trials)."""
    index = list(np.ndindex(*cube.shape))
    labels = {name: tuple(f"{at[axis]}" for at in index) for axis, name in enumerate(("part", "operator", "trial"))}
    return StudyTable("made", tuple(range(2, 2 + len(index))), labels, {"value": cube.ravel()})


def random_cube(rng: np.random.Generator, sigmas: tuple[float, ...], shape: tuple[int, int, int]) -> np.ndarray:
    """Values with standard deviations of repeatability, operators, interaction and parts."""
    ev, av, crossed, pv = sigmas
    p, o, r = shape
    return (
        rng.normal(0, pv, (p, 1, 1))
        + rng.normal(0, av, (1, o, 1))
        + rng.normal(0, crossed, (p, o, 1))
        + rng.normal(0, ev, (p, o, r))
    )


def test_reproduces_the_published_analysis_of_variance(published: GrrStudy) -> None:
    """Sums of squares as printed by B. McNeese, Three Ways to Analyze a Gage R&R Study (2015), on the AIAG data."""
    rows = {row.name: row for row in published.anova}
    assert rows["part"].ss == pytest.approx(88.362, abs=5e-4)
    assert rows["part"].ms == pytest.approx(9.818, abs=5e-4)
    assert rows["operator"].ss == pytest.approx(3.167, abs=5e-4)
    assert rows["operator"].ms == pytest.approx(1.584, abs=5e-4)
    pooled = rows["interaction"].ss + rows["repeatability"].ss
    assert pooled == pytest.approx(3.118, abs=5e-4)
    assert rows["interaction"].freedom + rows["repeatability"].freedom == 78
    assert rows["total"].freedom == 89
    assert rows["interaction"].p == pytest.approx(0.974, abs=5e-4)  # as Minitab prints it for the same data
    assert published.pooled


def test_reproduces_the_published_components(published: GrrStudy) -> None:
    """Variances by McNeese; 7.76 %, 92.24 %, 27.86 % and 4 categories by Minitab's crossed gage R&R example."""
    variance = {one.name: one.sigma**2 for one in published.components}
    assert variance["EV"] == pytest.approx(0.0400, abs=5e-5)
    assert variance["AV"] == pytest.approx(0.0515, abs=5e-5)
    assert variance["INT"] == 0
    assert variance["GRR"] == pytest.approx(0.0914, abs=5e-5)
    assert variance["PV"] == pytest.approx(1.086, abs=5e-4)
    grr, parts = published.component("GRR"), published.component("PV")
    assert grr.contribution == pytest.approx(0.0776, abs=5e-5)
    assert parts.contribution == pytest.approx(0.9224, abs=5e-5)
    assert grr.study_variation == pytest.approx(0.2786, abs=5e-5)
    assert published.ndc == 4
    assert published.verdict == "marginal"
    assert grr.tolerance_share == pytest.approx(6 * math.sqrt(0.0914) / 8, abs=5e-4)


def test_shares_add_up(published: GrrStudy) -> None:
    by = {one.name: one for one in published.components}
    assert by["GRR"].contribution + by["PV"].contribution == pytest.approx(1)
    assert by["EV"].contribution + by["AV"].contribution + by["INT"].contribution == pytest.approx(
        by["GRR"].contribution
    )
    assert by["TV"].study_variation == pytest.approx(1)


def test_the_order_of_lines_does_not_matter(published: GrrStudy, tmp_path: Path) -> None:
    path = grr_csv(tmp_path / "a.csv")
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    np.random.default_rng(1).shuffle(lines)
    shuffled = study_grr(written(tmp_path / "b.csv", header, lines), GrrSettings(tolerance=8.0))
    assert [one.sigma for one in shuffled.components] == pytest.approx([one.sigma for one in published.components])


def test_an_interaction_that_is_there_is_kept() -> None:
    study = grr_of(table_of(random_cube(np.random.default_rng(2), (0.1, 0.2, 1.0, 5.0), (10, 3, 3))), GrrSettings())
    assert not study.pooled
    assert study.component("INT").sigma == pytest.approx(1.0, rel=0.4)
    assert study.component("EV").sigma == pytest.approx(0.1, rel=0.3)


def test_mean_squares_are_those_of_projections() -> None:
    """A plain twin: sums of squares as drops of the residual when one term after the other joins a regression."""
    cube = random_cube(np.random.default_rng(3), (0.3, 0.2, 0.4, 1.0), (5, 3, 2))
    p, o, r = cube.shape
    part, operator, _ = (axis.ravel() for axis in np.indices(cube.shape))
    y = cube.ravel()

    def residual(*codes: np.ndarray) -> float:
        design = np.column_stack([np.ones(y.size), *(code[:, None] == np.unique(code) for code in codes)])
        return float(np.sum((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2))

    drops = [residual(), residual(part), residual(part, operator), residual(part * o + operator)]
    study = grr_of(table_of(cube), GrrSettings())
    ss = [row.ss for row in study.anova]
    assert ss[:4] == pytest.approx([drops[0] - drops[1], drops[1] - drops[2], drops[2] - drops[3], drops[3]])
    assert ss[4] == pytest.approx(sum(ss[:4]))
    assert study.anova[3].freedom == p * o * (r - 1)


def test_the_interval_of_grr_agrees_with_the_modified_large_sample_one(published: GrrStudy) -> None:
    """MLS limits of `sum c_i MS_i`, all c_i > 0 (Graybill, Wang 1980; Burdick et al. 2005): within 4 %."""
    rows = {row.name: row for row in published.anova}
    freedom = np.array([rows["operator"].freedom, 78])
    ms = np.array([rows["operator"].ms, (rows["interaction"].ss + rows["repeatability"].ss) / 78])
    terms = np.array([1, 29]) / 30 * ms
    g = 1 - freedom / chdtri(freedom, 0.025)
    h = freedom / chdtri(freedom, 0.975) - 1
    low = terms.sum() - math.sqrt(np.sum((g * terms) ** 2))
    high = terms.sum() + math.sqrt(np.sum((h * terms) ** 2))
    assert published.component("GRR").sigma_interval == pytest.approx((math.sqrt(low), math.sqrt(high)), rel=0.04)


def test_the_interval_of_repeatability_is_exact(published: GrrStudy) -> None:
    ev = published.component("EV")
    expected = [ev.sigma * math.sqrt(78 / x) for x in chdtri(78, [0.025, 0.975])]
    assert ev.sigma_interval == pytest.approx(expected, rel=5e-3)


@pytest.mark.slow
def test_the_intervals_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage over 1500 random studies, three standard errors allowed below 95 %."""
    monkeypatch.setattr(module, "DRAWS", 20_000)
    truth = {"EV": 0.2, "GRR": math.sqrt(0.2**2 + 0.25**2 + 0.15**2), "PV": 1.0}
    rng, inside = np.random.default_rng(4), dict.fromkeys(truth, 0)
    for _ in range(1500):
        study = grr_of(table_of(random_cube(rng, (0.2, 0.25, 0.15, 1.0), (10, 4, 3))), GrrSettings())
        for name, value in truth.items():
            low, high = study.component(name).sigma_interval
            inside[name] += low <= value <= high
    assert all(0.933 <= count / 1500 <= 0.985 for count in inside.values()), inside


def test_verdicts_follow_the_guide_line() -> None:
    rng = np.random.default_rng(7)
    good = grr_of(table_of(random_cube(rng, (0.01, 0.01, 0.0, 1.0), (10, 3, 3))), GrrSettings())
    bad = grr_of(table_of(random_cube(rng, (1.0, 0.3, 0.0, 0.5), (10, 3, 3))), GrrSettings())
    assert good.verdict == "acceptable"
    assert good.ndc is not None
    assert good.ndc >= 5
    assert bad.verdict == "unacceptable"


def test_a_gauge_without_scatter_has_no_limit_of_categories() -> None:
    cube = np.broadcast_to(np.arange(4.0)[:, None, None], (4, 2, 2)).copy()
    study = grr_of(table_of(cube), GrrSettings())
    assert study.ndc is None
    assert study.ndc_interval is None
    assert study.component("GRR").sigma == 0


def test_refuses_what_is_not_crossed(tmp_path: Path) -> None:
    header, *lines = grr_csv(tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()

    def refusal(rows: list[str]) -> str:
        with pytest.raises(DepthcellError) as caught:
            study_grr(written(tmp_path / "bad.csv", header, rows))
        assert caught.value.reason is Reason.BAD_INPUT
        return str(caught.value)

    assert "part '4' was measured 2 times by operator 'B', others 3 times" in refusal(
        [line for line in lines if not line.startswith("4,B,2")]
    )
    assert "line 92: part '1', operator 'A', trial '1' is already on line 2" in refusal([*lines, "1,A,1,0.3"])
    assert "10 parts and 1 operators" in refusal([line for line in lines if ",A," in line])
    assert "1 parts and 3 operators" in refusal([line for line in lines if line.startswith("1,")])
    assert "at least 2 trials" in refusal([line for line in lines if line.split(",")[2] == "1"])
    same = [",".join([*line.split(",")[:3], "1.0"]) for line in lines]
    assert "all values are the same" in refusal(same)
    with pytest.raises(DepthcellError, match="tolerance"):
        GrrSettings(tolerance=-8.0)
    with pytest.raises(DepthcellError, match="pooling"):
        GrrSettings(pooling=25.0)
