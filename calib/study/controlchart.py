"""Shewhart control charts: means with ranges, means with standard deviations, individuals with moving ranges."""

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special

from depthcell.calib.study.controlchart_rules import Signal, signals_of
from depthcell.errors import DepthcellError, Reason

LARGEST_RANGED = 10
"""Subgroups larger than this use standard deviations: the range wastes what the inner values say."""
FEWEST_SUBGROUPS = 2


class ChartKind(StrEnum):
    """Which pair of charts."""

    XBAR_R = "xbar-r"
    XBAR_S = "xbar-s"
    I_MR = "i-mr"


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Attributes:
        name: "mean", "range", "standard deviation", "individual" or "moving range".
        points: one value a subgroup.
        center, lower, upper: its centre line and its limits three standard deviations away; lower is at least 0 for
            ranges and standard deviations.
        signals: points that a run rule found, in order.
    """

    name: str
    points: tuple[float, ...]
    center: float
    lower: float
    upper: float
    signals: tuple[Signal, ...]


@dataclass(frozen=True, slots=True)
class ControlChart:
    """A chart of location with its chart of spread.

    Attributes:
        kind: which pair.
        size: values in a subgroup; 1 for individuals.
        sigma: standard deviation within subgroups, in the unit of the values.
        freedom: degrees of freedom that `sigma` is worth.
        location, spread: the two charts.
        in_control: no rule found anything.
    """

    kind: ChartKind
    size: int
    sigma: float
    freedom: float
    location: Chart
    spread: Chart

    @property
    def in_control(self) -> bool:
        """Whether neither chart has a signal."""
        return not (self.location.signals or self.spread.signals)


@cache
def d2(n: int) -> float:
    """Mean range of `n` standard normal values: the integral of `1 - F(x)^n - (1 - F(x))^n` (Tippett 1925)."""
    value, _ = integrate.quad(lambda x: 1 - special.ndtr(x) ** n - special.ndtr(-x) ** n, -12, 12, epsabs=1e-12)
    return float(value)


@cache
def d3(n: int) -> float:
    """Standard deviation of the range of `n` standard normal values.

    From `E[W²] = 2 ∬_{x<y} (1 - F(y)^n - (1 - F(x))^n + (F(y) - F(x))^n) dx dy` (Tippett 1925), by Gauss-Legendre
    quadrature; agrees with published tables to their last digit (tested).
    """
    nodes, weights = np.polynomial.legendre.leggauss(160)
    high, of_high = 9 * nodes, 9 * weights
    low = (high[:, None] - 9) / 2 + (high[:, None] + 9) / 2 * nodes[None]
    of_low = (high[:, None] + 9) / 2 * weights[None]
    above, below = special.ndtr(high)[:, None], special.ndtr(low)
    integrand = 1 - above**n - special.ndtr(-low) ** n + (above - below) ** n
    second = 2 * float(np.sum(of_high[:, None] * of_low * integrand))
    return math.sqrt(second - d2(n) ** 2)


def c4(n: int) -> float:
    """Mean of the standard deviation of `n` standard normal values: `sqrt(2/(n-1)) G(n/2) / G((n-1)/2)`."""
    return math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


def control_chart(values: NDArray[np.float64], kind: ChartKind | None = None, rules: str = "nelson") -> ControlChart:
    """Chart a process, and look for what chance would not do.

    Limits are three standard deviations from the centre, of the point plotted: Montgomery, Introduction to Statistical
    Quality Control; NIST/SEMATECH e-Handbook 6.3.2.1 (subgroups) and 6.3.2.2 (individuals).

    Args:
        values: (k,) individuals in order of time, or (k, n) subgroups of n.
        kind: which charts; None takes i-mr for individuals, xbar-r up to 10 values a subgroup, xbar-s above.
        rules: "nelson" or "western-electric". The chart of spread is held to its limits alone.

    Raises:
        DepthcellError: fewer than two points, a value that is not finite, no variation, or a kind that does not fit.
    """
    values = np.asarray(values, dtype=np.float64)
    kind = kind or _fitting(values)
    _check(values, kind)
    if kind is ChartKind.I_MR:
        return _individuals(values, rules)
    n = values.shape[1]
    spreads = np.ptp(values, axis=1) if kind is ChartKind.XBAR_R else values.std(axis=1, ddof=1)
    unit, scatter = (d2(n), d3(n)) if kind is ChartKind.XBAR_R else (c4(n), math.sqrt(1 - c4(n) ** 2))
    center = float(spreads.mean())
    sigma = center / unit
    means = values.mean(axis=1)
    half = 3 * sigma / math.sqrt(n)
    name = "range" if kind is ChartKind.XBAR_R else "standard deviation"
    return ControlChart(
        kind=kind,
        size=n,
        sigma=sigma,
        freedom=_freedom(scatter / (unit * math.sqrt(spreads.size))),
        location=_chart("mean", means, float(means.mean()), half, rules),
        spread=_spread_chart(name, spreads, center, 3 * scatter * sigma),
    )


def _fitting(values: NDArray[np.float64]) -> ChartKind:
    if values.ndim == 1:
        return ChartKind.I_MR
    return ChartKind.XBAR_R if values.shape[-1] <= LARGEST_RANGED else ChartKind.XBAR_S


def _check(values: NDArray[np.float64], kind: ChartKind) -> None:
    wanted = 1 if kind is ChartKind.I_MR else 2
    if values.ndim != wanted or (wanted == 2 and values.shape[1] < 2):
        shape = "individual values" if wanted == 1 else "subgroups of at least 2 values"
        raise DepthcellError(f"control chart {kind}: needs {shape}, got shape {values.shape}", Reason.BAD_INPUT)
    if len(values) < FEWEST_SUBGROUPS:
        raise DepthcellError(f"control chart {kind}: {len(values)} point, at least 2 are needed: measure on")
    if not np.isfinite(values).all():
        raise DepthcellError(f"control chart {kind}: holds a value that is not finite: leave it out", Reason.BAD_INPUT)
    spread = np.abs(np.diff(values)) if wanted == 1 else np.ptp(values, axis=1)
    if float(spread.max()) <= 1e-12 * float(np.abs(values).max()):
        raise DepthcellError(
            f"control chart {kind}: values do not vary: the gauge's resolution is too coarse", Reason.BAD_INPUT
        )


def _individuals(values: NDArray[np.float64], rules: str) -> ControlChart:
    """Individuals with moving ranges of two: sigma is their mean over d2(2) = 2 / sqrt(pi)."""
    ranges = np.abs(np.diff(values))
    center = float(ranges.mean())
    sigma = center / d2(2)
    return ControlChart(
        kind=ChartKind.I_MR,
        size=1,
        sigma=sigma,
        freedom=_freedom(moving_range_variation(ranges.size)),
        location=_chart("individual", values, float(values.mean()), 3 * sigma, rules),
        spread=_spread_chart("moving range", ranges, center, 3 * d3(2) * sigma),
    )


def moving_range_variation(ranges: int) -> float:
    """Coefficient of variation of the mean of so many moving ranges of two, neighbours being correlated.

    Of two differences of unit variance with correlation c, `E|ab| = 2/pi (sqrt(1 - c²) + c asin c)`; here c = -1/2,
    variance 2. So the variance of one range is `2 - 4/pi`, the covariance of neighbours
    `(4/pi) (sqrt(3)/2 + pi/12 - 1)`, and that of others 0.
    """
    variance = 2 - 4 / math.pi
    covariance = 4 / math.pi * (math.sqrt(3) / 2 + math.pi / 12 - 1)
    of_mean = (variance + 2 * (1 - 1 / ranges) * covariance) / ranges
    return math.sqrt(of_mean) / d2(2)


def _freedom(variation: float) -> float:
    """Degrees of freedom of a chi-square whose root has this coefficient of variation, to first order (GUM G.4.2)."""
    return 1 / (2 * variation**2)


def _chart(name: str, points: NDArray[np.float64], center: float, half: float, rules: str) -> Chart:
    standard = (points - center) / (half / 3)
    return Chart(name, tuple(map(float, points)), center, center - half, center + half, signals_of(standard, rules))


def _spread_chart(name: str, points: NDArray[np.float64], center: float, half: float) -> Chart:
    """The spread is not symmetric, so that runs beside its centre mean nothing: its limits alone are held."""
    lower, upper = max(0.0, center - half), center + half
    outside = [Signal(index, "beyond the limit") for index, x in enumerate(points) if x > upper or x < lower]
    return Chart(name, tuple(map(float, points)), center, lower, upper, tuple(outside))
