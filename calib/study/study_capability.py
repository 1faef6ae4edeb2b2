"""Process capability: what the limits leave room for, within subgroups (Cp, Cpk) and overall (Pp, Ppk)."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from depthcell.calib.study.controlchart import ChartKind, ControlChart, control_chart
from depthcell.calib.study.study_table import StudyTable, check_share, read_study_table, refused_setting
from depthcell.calib.study.study_type1 import chi_square_interval
from depthcell.errors import DepthcellError, Reason

FEWEST = 10
"""Values below which a capability says nothing worth printing."""


@dataclass(frozen=True, slots=True)
class CapabilitySettings:
    """What the process is held against.

    Attributes:
        lower, upper: limits of the part, in the unit of the values; one of them may be None.
        chart: which control chart; None takes what fits.
        rules: "nelson" or "western-electric".
        confidence: of every interval.
        unit: of the values, for tables and pictures.
    """

    lower: float | None
    upper: float | None
    chart: ChartKind | None = None
    rules: str = "nelson"
    confidence: float = 0.95
    unit: str = "mm"

    def __post_init__(self) -> None:
        if self.lower is None and self.upper is None:
            raise refused_setting("upper", None, "give a lower or an upper limit, or both")
        for name in ("lower", "upper"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise refused_setting(name, value, "must be a finite number, or be left out")
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise refused_setting("lower", self.lower, f"must be below the upper limit {self.upper}")
        check_share("confidence", self.confidence)


@dataclass(frozen=True, slots=True)
class Index:
    """A capability index with its interval."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class CapabilityStudy:
    """A capability study.

    Attributes:
        source: name of the file.
        settings: what it was held against.
        n, mean: values and their mean.
        sigma_within: standard deviation within subgroups, of the control chart.
        sigma_overall: standard deviation of all values, with n - 1.
        cp, cpk: from `sigma_within`; cp is None with one limit.
        pp, ppk: from `sigma_overall`; pp is None with one limit.
        normal_p: p-value of the Shapiro-Wilk test that the values are normal; the indices mean little below 0.05.
        chart: the control chart; without control there is no capability.
        values: (n,) as measured, in order.
    """

    source: str
    settings: CapabilitySettings
    n: int
    mean: float
    sigma_within: float
    sigma_overall: float
    cp: Index | None
    cpk: Index
    pp: Index | None
    ppk: Index
    normal_p: float
    chart: ControlChart
    values: tuple[float, ...]


def study_capability(path: Path, settings: CapabilitySettings) -> CapabilityStudy:
    """Study a process in order of time.

    Args:
        path: CSV with the column `value`, and `subgroup` where values were taken in groups.
        settings: limits, chart, confidence.

    Raises:
        DepthcellError: the table is bad, too short, or its subgroups are of unequal size.
    """
    return capability_of(read_study_table(path, labels=(), numbers=("value",), optional=("subgroup",)), settings)


def capability_of(table: StudyTable, settings: CapabilitySettings) -> CapabilityStudy:
    """The study of a table with the number column `value` and perhaps the label column `subgroup`.

    `Cp = (U - L) / 6s`, `Cpk = min(U - mean, mean - L) / 3s`, with s of the control chart; Pp and Ppk with s of all
    values (NIST/SEMATECH e-Handbook 6.1.6). Interval of Cp and Pp by chi-square; of Cpk and Ppk the normal
    approximation `± z sqrt(1/(9n) + Cpk² / (2 f))` (Bissell, Applied Statistics 39 (1990) 331), f the degrees of
    freedom of s.
    """
    values = table.numbers["value"]
    if values.size < FEWEST:
        raise DepthcellError(f"{table.source}: {values.size} values, at least {FEWEST} are needed", Reason.BAD_INPUT)
    chart = control_chart(_grouped(table), settings.chart, settings.rules)
    mean, overall = float(values.mean()), float(values.std(ddof=1))
    cp, cpk = _indices(mean, chart.sigma, chart.freedom, values.size, settings)
    pp, ppk = _indices(mean, overall, values.size - 1, values.size, settings)
    return CapabilityStudy(
        source=table.source,
        settings=settings,
        n=values.size,
        mean=mean,
        sigma_within=chart.sigma,
        sigma_overall=overall,
        cp=cp,
        cpk=cpk,
        pp=pp,
        ppk=ppk,
        normal_p=float(stats.shapiro(values[:5000]).pvalue),
        chart=chart,
        values=tuple(map(float, values)),
    )


def _grouped(table: StudyTable) -> NDArray[np.float64]:
    """Individuals (k,), or subgroups (k, n) in order of appearance."""
    values = table.numbers["value"]
    if "subgroup" not in table.labels:
        return values
    names = np.array(table.labels["subgroup"])
    counts = Counter(table.labels["subgroup"])
    size = Counter(counts.values()).most_common(1)[0][0]
    for name, count in counts.items():
        if count != size:
            wrong = f"subgroup '{name}' has {count} values, others {size}"
            raise DepthcellError(f"{table.source}: {wrong}: subgroups must be of equal size", Reason.BAD_INPUT)
    if size == 1:
        return values
    return np.stack([values[names == name] for name in counts])


def _indices(
    mean: float, sigma: float, freedom: float, n: int, settings: CapabilitySettings
) -> tuple[Index | None, Index]:
    lower, upper = settings.lower, settings.upper
    both = None
    if lower is not None and upper is not None:
        cp = (upper - lower) / (6 * sigma)
        both = Index(cp, chi_square_interval(cp, freedom, settings.confidence))
    sides = [] if upper is None else [(upper - mean) / (3 * sigma)]
    sides += [] if lower is None else [(mean - lower) / (3 * sigma)]
    cpk = min(sides)
    half = float(special.ndtri((1 + settings.confidence) / 2)) * math.sqrt(1 / (9 * n) + cpk**2 / (2 * freedom))
    return both, Index(cpk, (cpk - half, cpk + half))
