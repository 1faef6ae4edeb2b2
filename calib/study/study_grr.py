"""Gauge repeatability and reproducibility: parts, operators and trials crossed, by analysis of variance."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from depthcell.calib.study.study_table import StudyTable, check_share, read_study_table, refused_setting
from depthcell.errors import DepthcellError, Reason

DRAWS = 100_000
"""Draws behind the intervals; their seed is fixed, so that the same table gives the same interval."""


@dataclass(frozen=True, slots=True)
class GrrSettings:
    """How the study is judged.

    Attributes:
        tolerance: width of the part's tolerance in the unit of the values; None gives no % of tolerance.
        spread: standard deviations that count as a component's spread, 6 by AIAG.
        pooling: significance above which the interaction joins repeatability, 0.25 by AIAG.
        confidence: of every interval.
        unit: of the values, for tables and pictures.
    """

    tolerance: float | None = None
    spread: float = 6.0
    pooling: float = 0.25
    confidence: float = 0.95
    unit: str = "mm"

    def __post_init__(self) -> None:
        if self.tolerance is not None and not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise refused_setting("tolerance", self.tolerance, "must be a finite number above 0, or be left out")
        if not (math.isfinite(self.spread) and self.spread > 0):
            raise refused_setting("spread", self.spread, "must be a finite number above 0")
        check_share("pooling", self.pooling)
        check_share("confidence", self.confidence)


@dataclass(frozen=True, slots=True)
class AnovaRow:
    """One line of the analysis of variance; F and p are None where nothing is tested.

    `name` is part, operator, interaction, repeatability or total; `ss` and `ms` are sum and mean of squares.
    """

    name: str
    freedom: int
    ss: float
    ms: float
    f: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Component:
    """One source of variation.

    Attributes:
        name: EV repeatability, AV operators, INT interaction, GRR, PV parts or TV total.
        sigma: standard deviation in the unit of the values.
        sigma_interval: of it.
        contribution: share of the total variance, 0 to 1.
        study_variation: share of TV's standard deviation.
        study_variation_interval: of it.
        tolerance_share: `spread * sigma / tolerance`; None without a tolerance.
    """

    name: str
    sigma: float
    sigma_interval: tuple[float, float]
    contribution: float
    study_variation: float
    study_variation_interval: tuple[float, float]
    tolerance_share: float | None


@dataclass(frozen=True, slots=True)
class GrrStudy:
    """A gauge R&R study.

    Attributes:
        source: name of the file.
        settings: how it was judged.
        parts, operators: names, in order of appearance.
        trials: of each part by each operator.
        anova: with all terms.
        pooled: the interaction's p was above `settings.pooling`, so it was counted as repeatability.
        components: EV, AV, INT, GRR, PV, TV.
        ndc: number of distinct categories, `1.41 PV / GRR` truncated, at least 1; None where GRR is 0.
        ndc_interval: of it, truncated likewise.
        verdict: "acceptable", "marginal" or "unacceptable", from %GRR of study variation and ndc.
        values: (parts, operators, trials) as measured.
    """

    source: str
    settings: GrrSettings
    parts: tuple[str, ...]
    operators: tuple[str, ...]
    trials: int
    anova: tuple[AnovaRow, ...]
    pooled: bool
    components: tuple[Component, ...]
    ndc: int | None
    ndc_interval: tuple[int, int] | None
    verdict: str
    values: tuple[tuple[tuple[float, ...], ...], ...]

    def component(self, name: str) -> Component:
        """The component of that name."""
        return next(one for one in self.components if one.name == name)


def study_grr(path: Path, settings: GrrSettings | None = None) -> GrrStudy:
    """Study a crossed experiment: every operator measures every part equally often.

    Args:
        path: CSV with the columns part, operator, trial, value; one reading a line, in any order.
        settings: tolerance, confidence.

    Raises:
        DepthcellError: the table is bad, not crossed or not balanced, or too small; what is wrong is named.
    """
    table = read_study_table(path, labels=("part", "operator", "trial"), numbers=("value",))
    return grr_of(table, settings or GrrSettings())


def grr_of(table: StudyTable, settings: GrrSettings) -> GrrStudy:
    """The study of a table with the label columns part, operator, trial and the number column value.

    Random model `y = mean + part + operator + interaction + repeatability` (AIAG MSA 4th ed., chapter III-B and
    appendix A). With p parts, o operators, r trials and mean squares P, O, I, E:

        EV² = E    INT² = (I - E) / r    AV² = (O - I) / (p r)    PV² = (P - I) / (o r)    GRR² = EV² + AV² + INT²

    Estimates below 0 count as 0. Where the test I / E has a p above `settings.pooling`, I and E are pooled into E, the
    interaction is 0, and E takes the place of I.
    """
    cube, parts, operators = _crossed(table)
    rows = _anova(cube, table.source)
    interaction = next(row for row in rows if row.name == "interaction")
    pooled = interaction.p is not None and interaction.p > settings.pooling
    squares, freedom = _mean_squares(rows, pooled)
    shape = cube.shape
    estimate = _variances(np.array(squares)[:, None], shape)[:, 0]
    drawn = _variances(_plausible(squares, freedom), shape)
    components = tuple(_component(index, estimate, drawn, settings) for index in range(len(NAMES)))
    ndc = _categories(estimate[4], estimate[3])
    return GrrStudy(
        source=table.source,
        settings=settings,
        parts=parts,
        operators=operators,
        trials=shape[2],
        anova=rows,
        pooled=pooled,
        components=components,
        ndc=ndc,
        ndc_interval=_ndc_interval(drawn, settings.confidence),
        verdict=_verdict(components[3].study_variation, ndc),
        values=tuple(tuple(tuple(map(float, cell)) for cell in part) for part in cube),
    )


NAMES = ("EV", "AV", "INT", "GRR", "PV", "TV")


def _crossed(table: StudyTable) -> tuple[NDArray[np.float64], tuple[str, ...], tuple[str, ...]]:
    """The values as (parts, operators, trials), trials in order of the file."""
    source, part, operator = table.source, table.labels["part"], table.labels["operator"]
    parts, operators = tuple(dict.fromkeys(part)), tuple(dict.fromkeys(operator))
    _check_repeats(table)
    if len(parts) < 2 or len(operators) < 2:
        found = f"{len(parts)} parts and {len(operators)} operators"
        wanted = "at least 2 of each are needed, 10 and 3 are usual"
        raise DepthcellError(f"{source}: {found}: {wanted}", Reason.BAD_INPUT)
    counts = Counter(zip(part, operator, strict=True))
    trials = Counter(counts.values()).most_common(1)[0][0]
    for one in parts:
        for who in operators:
            if counts[one, who] != trials:
                wrong = f"part '{one}' was measured {counts[one, who]} times by operator '{who}', others {trials} times"
                raise DepthcellError(f"{source}: {wrong}: every operator must measure every part equally often")
    if trials < 2:
        raise DepthcellError(f"{source}: each part was measured once by each operator: at least 2 trials are needed")
    cube = np.array(
        [
            [
                table.numbers["value"][[p == one and o == who for p, o in zip(part, operator, strict=True)]]
                for who in operators
            ]
            for one in parts
        ]
    )
    return cube, parts, operators


def _check_repeats(table: StudyTable) -> None:
    """Refuse a trial that is there twice."""
    seen: dict[tuple[str, ...], int] = {}
    names = ("part", "operator", "trial")
    for line, key in zip(table.lines, zip(*(table.labels[name] for name in names), strict=True), strict=True):
        if key in seen:
            what = ", ".join(f"{name} '{value}'" for name, value in zip(names, key, strict=True))
            wrong = f"line {line}: {what} is already on line {seen[key]}"
            raise DepthcellError(f"{table.source}: {wrong}: number the trials or delete one", Reason.BAD_INPUT)
        seen[key] = line


def _anova(cube: NDArray[np.float64], source: str) -> tuple[AnovaRow, ...]:
    """Sums of squares of the balanced two-way layout; parts and operators are tested against the interaction."""
    p, o, r = cube.shape
    grand, cells = cube.mean(), cube.mean(axis=2)
    part, operator = cube.mean(axis=(1, 2)), cube.mean(axis=(0, 2))
    ss = (
        o * r * float(np.sum((part - grand) ** 2)),
        p * r * float(np.sum((operator - grand) ** 2)),
        r * float(np.sum((cells - part[:, None] - operator[None] + grand) ** 2)),
        float(np.sum((cube - cells[..., None]) ** 2)),
    )
    total = float(np.sum((cube - grand) ** 2))
    if total <= 1e-24 * max(float(np.abs(cube).max()) ** 2, 1e-300):
        raise DepthcellError(f"{source}: all values are the same: no variation can be told apart", Reason.BAD_INPUT)
    freedom = (p - 1, o - 1, (p - 1) * (o - 1), p * o * (r - 1))
    ms = tuple(s / n for s, n in zip(ss, freedom, strict=True))

    def row(index: int, name: str, against: int | None) -> AnovaRow:
        f = ms[index] / ms[against] if against is not None and ms[against] > 0 else None
        tail = None if f is None or against is None else float(special.fdtrc(freedom[index], freedom[against], f))
        return AnovaRow(name, freedom[index], ss[index], ms[index], f, tail)

    return (
        row(0, "part", 2),
        row(1, "operator", 2),
        row(2, "interaction", 3),
        row(3, "repeatability", None),
        AnovaRow("total", p * o * r - 1, total, total / (p * o * r - 1), None, None),
    )


def _mean_squares(rows: tuple[AnovaRow, ...], pooled: bool) -> tuple[list[float], list[int]]:
    """Mean squares P, O, I, E and their degrees of freedom; pooled, I is E and has none of its own (0)."""
    part, operator, interaction, error = rows[:4]
    if not pooled:
        return [row.ms for row in rows[:4]], [row.freedom for row in rows[:4]]
    freedom = interaction.freedom + error.freedom
    ms = (interaction.ss + error.ss) / freedom
    return [part.ms, operator.ms, ms, ms], [part.freedom, operator.freedom, 0, freedom]


def _variances(ms: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Variances EV, AV, INT, GRR, PV, TV (6, K) of mean squares P, O, I, E (4, K); what is below 0 counts as 0."""
    p, o, r = shape
    part, operator, interaction, error = ms
    crossed = np.maximum((interaction - error) / r, 0)
    av = np.maximum((operator - interaction) / (p * r), 0)
    pv = np.maximum((part - interaction) / (o * r), 0)
    grr = error + av + crossed
    return np.stack([error, av, crossed, grr, pv, grr + pv])


def _plausible(squares: list[float], freedom: list[int]) -> NDArray[np.float64]:
    """Draws (4, K) of the expected mean squares: `n MS / chi²(n)`, the generalized pivotal quantity of each.

    Burdick, Borror, Montgomery, Design and Analysis of Gauge R&R Studies (ASA-SIAM 2005), generalized confidence
    intervals; Weerahandi, J. Am. Stat. Assoc. 88 (1993) 899. Freedom 0 means: the same draw as repeatability's.
    """
    rng = np.random.default_rng(20050101)
    drawn = np.empty((4, DRAWS))
    for index in (3, 2, 1, 0):
        n = freedom[index]
        drawn[index] = n * squares[index] / rng.chisquare(n, DRAWS) if n else drawn[3]
    return drawn


def _component(
    index: int, estimate: NDArray[np.float64], drawn: NDArray[np.float64], settings: GrrSettings
) -> Component:
    total = float(estimate[5])
    sigma = math.sqrt(float(estimate[index]))
    return Component(
        name=NAMES[index],
        sigma=sigma,
        sigma_interval=_interval(np.sqrt(drawn[index]), settings.confidence),
        contribution=float(estimate[index]) / total,
        study_variation=sigma / math.sqrt(total),
        study_variation_interval=_interval(np.sqrt(drawn[index] / drawn[5]), settings.confidence),
        tolerance_share=None if settings.tolerance is None else settings.spread * sigma / settings.tolerance,
    )


def _interval(draws: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _categories(parts: float, grr: float) -> int | None:
    """`ndc = 1.41 PV / GRR`, truncated, at least 1 (AIAG MSA 4th ed., chapter III-B)."""
    return max(1, math.floor(1.41 * math.sqrt(parts / grr))) if grr > 0 else None


def _ndc_interval(drawn: NDArray[np.float64], confidence: float) -> tuple[int, int] | None:
    if not (drawn[3] > 0).all():
        return None
    low, high = _interval(1.41 * np.sqrt(drawn[4] / drawn[3]), confidence)
    return max(1, math.floor(low)), max(1, math.floor(high))


def _verdict(study_variation: float, ndc: int | None) -> str:
    """Guide line of AIAG MSA 4th ed.: under 10 % good, over 30 % not; fewer than 5 categories is not good either."""
    if study_variation > 0.3:
        return "unacceptable"
    return "acceptable" if study_variation < 0.1 and (ndc is None or ndc >= 5) else "marginal"
