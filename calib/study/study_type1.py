"""Type-1 gauge study: one part of known size measured many times; with several references, linearity too."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from depthcell.calib.study.study_table import StudyTable, check_share, read_study_table, refused_setting
from depthcell.errors import DepthcellError, Reason

FEWEST = 10
"""Measurements of a reference below which nothing is said (AIAG MSA 4th ed., chapter III-B, asks for at least 10)."""
RESOLUTION_SHARE = 0.05
"""Largest share of the tolerance that one step of the gauge may take."""


@dataclass(frozen=True, slots=True)
class Type1Settings:
    """What the values are held against.

    Attributes:
        tolerance: width of the part's tolerance, upper less lower limit, in the unit of the values.
        resolution: smallest step the gauge shows; None takes the smallest step between values of the file.
        tolerance_share: the part K of the tolerance that the gauge may fill, 0.2 by custom.
        spread: the number L of standard deviations that count as the gauge's spread, 6 by custom.
        minimum: Cg and Cgk that make the gauge capable, 1.33 by custom.
        confidence: of every interval; 1 - confidence is the significance of every test.
        unit: of the values, for tables and pictures.
    """

    tolerance: float
    resolution: float | None = None
    tolerance_share: float = 0.2
    spread: float = 6.0
    minimum: float = 1.33
    confidence: float = 0.95
    unit: str = "mm"

    def __post_init__(self) -> None:
        for name in ("tolerance", "tolerance_share", "spread", "minimum"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise refused_setting(name, value, "must be a finite number above 0")
        if self.resolution is not None and not (math.isfinite(self.resolution) and self.resolution > 0):
            raise refused_setting("resolution", self.resolution, "must be a finite number above 0, or be left out")
        check_share("confidence", self.confidence)


@dataclass(frozen=True, slots=True)
class ReferenceStudy:
    """What the gauge did on one reference; lengths in the unit of the values.

    Attributes:
        reference: the certified value.
        n: measurements.
        mean, repeatability: arithmetic mean, and standard deviation with n - 1.
        bias: mean less reference.
        bias_interval: of the bias, by Student's t.
        t, p: statistic and two-sided p-value of "the bias is 0".
        cg, cgk: capability of the gauge without and with its bias; None where nothing scattered.
        cg_interval: of Cg, by chi-square; None where nothing scattered.
        values: (n,) as measured, in order.
    """

    reference: float
    n: int
    mean: float
    repeatability: float
    bias: float
    bias_interval: tuple[float, float]
    t: float | None
    p: float | None
    cg: float | None
    cgk: float | None
    cg_interval: tuple[float, float] | None
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Linearity:
    """Straight line through the biases, `bias = intercept + slope * reference`.

    Attributes:
        intercept, slope: of the least-squares line.
        intercept_interval, slope_interval: by Student's t.
        p_intercept, p_slope: two-sided p-values of "it is 0".
        residual: standard deviation about the line, with N - 2.
        r_squared: share of the biases' variance that the line explains.
        references: where the band is given.
        band: lower and upper limit of the mean bias at each of `references`.
        p_fit: p-value of "a straight line fits" (pure error against lack of fit); None with two references.
        acceptable: bias 0 lies within the band at every reference.
    """

    intercept: float
    slope: float
    intercept_interval: tuple[float, float]
    slope_interval: tuple[float, float]
    p_intercept: float
    p_slope: float
    residual: float
    r_squared: float
    references: tuple[float, ...]
    band: tuple[tuple[float, float], ...]
    p_fit: float | None
    acceptable: bool


@dataclass(frozen=True, slots=True)
class Type1Study:
    """A type-1 study.

    Attributes:
        source: name of the file.
        settings: what it was held against.
        references: one study for each reference, ascending.
        linearity: None with one reference.
        resolution: of the gauge, given or found.
        resolution_share: of the tolerance.
        resolution_sufficient: it is at most 5 % of the tolerance.
        capable: Cg and Cgk of every reference reach the minimum and the resolution suffices.
    """

    source: str
    settings: Type1Settings
    references: tuple[ReferenceStudy, ...]
    linearity: Linearity | None
    resolution: float
    resolution_share: float
    resolution_sufficient: bool
    capable: bool


def study_type1(path: Path, settings: Type1Settings) -> Type1Study:
    """Study repeated measurements of one or several references.

    Args:
        path: CSV with the columns `reference` (certified value) and `value` (what the gauge read), one reading a line.
        settings: tolerance, resolution, confidence.

    Raises:
        DepthcellError: the table is bad, or a reference has fewer than 10 readings.
    """
    return type1_of(read_study_table(path, labels=(), numbers=("reference", "value")), settings)


def type1_of(table: StudyTable, settings: Type1Settings) -> Type1Study:
    """The study of a table with the number columns `reference` and `value`."""
    certified, values = table.numbers["reference"], table.numbers["value"]
    references = tuple(
        _reference_study(table.source, float(level), values[certified == level], settings)
        for level in np.unique(certified)
    )
    linearity = _linearity(certified, values, settings.confidence) if len(references) > 1 else None
    resolution = settings.resolution or _smallest_step(table.source, values)
    sufficient = resolution <= RESOLUTION_SHARE * settings.tolerance * (1 + 1e-9)
    return Type1Study(
        source=table.source,
        settings=settings,
        references=references,
        linearity=linearity,
        resolution=resolution,
        resolution_share=resolution / settings.tolerance,
        resolution_sufficient=sufficient,
        capable=sufficient and all(_reaches(one, settings) for one in references),
    )


def _reaches(study: ReferenceStudy, settings: Type1Settings) -> bool:
    """Whether Cg and Cgk reach the minimum; without any scatter they are infinite, or Cgk minus infinity."""
    if study.cg is None or study.cgk is None:
        return abs(study.bias) < settings.tolerance_share / 2 * settings.tolerance
    return min(study.cg, study.cgk) >= settings.minimum


def _reference_study(
    source: str, reference: float, values: NDArray[np.float64], settings: Type1Settings
) -> ReferenceStudy:
    """One reference: `Cg = K T / (L s)`, `Cgk = (K T / 2 - |bias|) / (L s / 2)` (Minitab 21, Type 1 gage study).

    Bias by the one-sample t-test with n - 1 degrees of freedom (AIAG MSA 4th ed., chapter III-B, independent sample
    method). The interval of Cg is that of 1/s by chi-square.
    """
    n = values.size
    if n < FEWEST:
        wanted = f"{n} readings of reference {reference:g}, at least {FEWEST} are needed: measure it more often"
        raise DepthcellError(f"{source}: {wanted}", Reason.BAD_INPUT)
    mean, s = float(values.mean()), float(values.std(ddof=1))
    bias = mean - reference
    half = float(special.stdtrit(n - 1, (1 + settings.confidence) / 2)) * s / math.sqrt(n)
    scattered = s > 1e-12 * max(abs(mean), settings.tolerance)
    t = bias * math.sqrt(n) / s if scattered else None
    cg = settings.tolerance_share * settings.tolerance / (settings.spread * s) if scattered else None
    room = settings.tolerance_share * settings.tolerance / 2 - abs(bias)
    return ReferenceStudy(
        reference=reference,
        n=n,
        mean=mean,
        repeatability=s,
        bias=bias,
        bias_interval=(bias - half, bias + half),
        t=t,
        p=None if t is None else float(2 * special.stdtr(n - 1, -abs(t))),
        cg=cg,
        cgk=room / (settings.spread / 2 * s) if scattered else None,
        cg_interval=None if cg is None else chi_square_interval(cg, n - 1, settings.confidence),
        values=tuple(map(float, values)),
    )


def chi_square_interval(ratio: float, freedom: float, confidence: float) -> tuple[float, float]:
    """Interval of an index proportional to 1/s, s having `freedom` degrees (NIST/SEMATECH e-Handbook 6.1.6 for Cp)."""
    low, high = special.chdtri(freedom, [(1 + confidence) / 2, (1 - confidence) / 2])
    return ratio * math.sqrt(low / freedom), ratio * math.sqrt(high / freedom)


def _smallest_step(source: str, values: NDArray[np.float64]) -> float:
    """Smallest difference of two values that is not rounding of binary fractions."""
    steps = np.diff(np.unique(values))
    steps = steps[steps > 1e-9 * np.abs(values).max(initial=1e-300)]
    if steps.size == 0:
        wrong = "all values are the same, so that the gauge's resolution cannot be seen: state the resolution"
        raise DepthcellError(f"{source}: {wrong}", Reason.BAD_INPUT)
    return float(steps.min())


def _linearity(certified: NDArray[np.float64], values: NDArray[np.float64], confidence: float) -> Linearity:
    """Ordinary least squares of bias on reference, with the band of the mean bias (AIAG MSA 4th ed., chapter III-B).

    Half width of the band at x: `t(N-2) s sqrt(1/N + (x - mean)² / Sxx)`.
    """
    bias = values - certified
    n, centre = certified.size, certified.mean()
    sxx = float(np.sum((certified - centre) ** 2))
    slope = float(np.sum((certified - centre) * bias)) / sxx
    intercept = float(bias.mean() - slope * centre)
    residuals = bias - intercept - slope * certified
    sse, total = float(residuals @ residuals), float(np.sum((bias - bias.mean()) ** 2))
    s = math.sqrt(sse / (n - 2))
    quantile = float(special.stdtrit(n - 2, (1 + confidence) / 2))
    u_slope, u_intercept = s / math.sqrt(sxx), s * math.sqrt(1 / n + centre**2 / sxx)
    levels = np.unique(certified)
    half = quantile * s * np.sqrt(1 / n + (levels - centre) ** 2 / sxx)
    line = intercept + slope * levels
    return Linearity(
        intercept=intercept,
        slope=slope,
        intercept_interval=(intercept - quantile * u_intercept, intercept + quantile * u_intercept),
        slope_interval=(slope - quantile * u_slope, slope + quantile * u_slope),
        p_intercept=_two_sided(intercept, u_intercept, n - 2),
        p_slope=_two_sided(slope, u_slope, n - 2),
        residual=s,
        r_squared=1 - sse / total if total > 0 else 1.0,
        references=tuple(map(float, levels)),
        band=tuple(zip((line - half).tolist(), (line + half).tolist(), strict=True)),
        p_fit=_lack_of_fit(certified, bias, sse),
        acceptable=bool(np.all(np.abs(line) <= half)),
    )


def _two_sided(value: float, u: float, freedom: int) -> float:
    return float(2 * special.stdtr(freedom, -abs(value) / u)) if u > 0 else float(value == 0)


def _lack_of_fit(certified: NDArray[np.float64], bias: NDArray[np.float64], sse: float) -> float | None:
    """F-test of the scatter of the level means about the line against pure error (Draper & Smith, lack of fit)."""
    levels = np.unique(certified)
    if levels.size < 3:
        return None
    pure = sum(float(np.sum((bias[certified == x] - bias[certified == x].mean()) ** 2)) for x in levels)
    freedom = (levels.size - 2, certified.size - levels.size)
    if pure <= 0:
        return float(sse <= 0)
    return float(special.fdtrc(*freedom, ((sse - pure) / freedom[0]) / (pure / freedom[1])))
