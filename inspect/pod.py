"""Probability of detection over size, from hits and misses or from measured responses, with one-sided 95 % bounds.

Two models, as in MIL-HDBK-1823A (2009). With x the logarithm of the size a:

    hit/miss          logit POD(a) = b0 + b1 x
    response (â, a)   y = g(â) = c0 + c1 x + ε, ε ~ N(0, τ²), and POD(a) = P(y > y_dec) = Φ((c0 + c1 x - y_dec) / τ)

In both a curve is a straight line under a link, so a_p, the size detected with probability p, is where the line
reaches the link of p: x_p = (link(p) - intercept) / slope.

**Bounds** come from the likelihood ratio. The parameters that the data do not contradict are those whose log-likelihood
lies within `DROP` = z²/2, z = Φ⁻¹(0.95), of the largest: twice the drop is χ² with one degree of freedom for any one
function of the parameters (Wilks, Annals of Mathematical Statistics 9, 1938), and half of it lies on each side. The
bound on POD(a) is the smallest over that region, and a90/95 the largest a90 in it: where the bound crosses 0.9.

**Separation.** Where every defect above some size is hit and none below, the likelihood has no maximum and its slope
runs away. Firth's penalty, half the logarithm of the information's determinant (Biometrika 80, 1993), keeps the
estimate finite and takes out its bias of first order; the profile is that of the penalised likelihood (Heinze and
Schemper, Statistics in Medicine 21, 2002).

**Few responses.** The likelihood's own sigma is too small by two degrees of freedom. So its m log(1/τ) is taken (m - 2)
times, as restricted likelihood does (Patterson and Thompson, Biometrika 58, 1971), and the drop is that at which
Student's t with m - 2 degrees of freedom rejects a straight line's coefficient: (m - 2)/2 log(1 + t²/(m - 2)).

**Censoring.** A defect that was not reported has a response below what would have been reported: it enters by
Φ((y_report - c0 - c1 x) / τ). In the parameters (c0/τ, c1/τ, 1/τ) that likelihood is concave (Burridge, Biometrika 68,
1981), so that its maximum is the only one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, chdtrc, expit, log_ndtr, logit, ndtr, ndtri, stdtrit

from depthcell.errors import DepthcellError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
DROP = NormalDist().inv_cdf(CONFIDENCE) ** 2 / 2
ROUNDS, LONGEST_STEP = 200, 4.0
RAYS_2D, RAYS_3D = 720, 1500
HALVINGS = 22


class Link(StrEnum):
    """What maps a probability to the whole line."""

    LOGIT = "logit"
    PROBIT = "probit"

    def of(self, probability: float) -> float:
        """Link of a probability."""
        return float(logit(probability) if self is Link.LOGIT else ndtri(probability))

    def probability(self, value: Floats) -> Floats:
        """Its inverse."""
        return np.asarray(expit(value) if self is Link.LOGIT else ndtr(value), dtype=np.float64)


class Scale(StrEnum):
    """How sizes and responses are entered."""

    LINEAR = "linear"
    LOG = "logarithmic"

    def of(self, size_mm: Floats) -> Floats:
        """Abscissa of sizes."""
        return np.log(size_mm) if self is Scale.LOG else np.asarray(size_mm, dtype=np.float64)

    def size_mm(self, x: float) -> float:
        """Size at an abscissa."""
        return float(np.exp(min(x, 700.0))) if self is Scale.LOG else float(x)


@dataclass(frozen=True, slots=True, eq=False)
class PodCurve:
    """A curve: link(POD) = intercept + slope x.

    Attributes:
        link, scale: of the line.
        line: (2,) intercept and slope, the best.
        region: (M, 2) the same all around the border of what the data do not contradict.
    """

    link: Link
    scale: Scale
    line: Floats
    region: Floats

    def pod(self, size_mm: Floats) -> Floats:
        """Probability of detection at sizes (N,)."""
        return self.link.probability(self.line[0] + self.line[1] * self.scale.of(size_mm))

    def lower(self, size_mm: Floats) -> Floats:
        """What it exceeds with 95 % confidence, at each size (N,) by itself."""
        x = self.scale.of(size_mm)
        return self.link.probability((self.region[:, :1] + self.region[:, 1:] * x).min(axis=0))

    @property
    def is_rising(self) -> bool:
        """Whether the data prove, at the same 95 %, that larger defects are detected more often."""
        return bool(self.line[1] > 0 and (self.region[:, 1] > 0).all())

    def size_mm(self, probability: float) -> float:
        """Size detected with this probability: a50 for 0.5, a90 for 0.9."""
        return self.scale.size_mm(float((self.link.of(probability) - self.line[0]) / self.line[1]))

    def size_bound_mm(self, probability: float) -> float:
        """What that size lies below with 95 % confidence: a90/95 for 0.9; infinite where the curve need not rise."""
        if not self.is_rising:
            return float("inf")
        return self.scale.size_mm(float(((self.link.of(probability) - self.region[:, 0]) / self.region[:, 1]).max()))


def fit_hit_miss(size_mm: Floats, hit: NDArray[np.bool_], *, firth: bool = True) -> PodCurve:
    """Logistic regression of hits (N,) on the logarithm of sizes (N,), mm, with Firth's bias reduction.

    Without it (`firth=False`) plain maximum likelihood, which hits and misses that do not overlap leave without end.

    Raises:
        DepthcellError: sizes are not positive, or there are fewer than three, or two different ones.
    """
    x, standard = _standardised(np.log(_checked(size_mm, len(hit))))
    y = np.asarray(hit, dtype=np.float64)
    design = np.column_stack((np.ones_like(x), x))

    def log_likelihood(lines: Floats) -> Floats:
        eta = lines[:, :1] + lines[:, 1:] * x
        value: Floats = (y * eta - np.logaddexp(0.0, eta)).sum(axis=1)
        if not firth:
            return value
        weight = expit(eta) * expit(-eta)
        total = np.maximum(weight.sum(axis=1), 1e-300)
        centre = (weight * x).sum(axis=1) / total
        spread = (weight * (x - centre[:, None]) ** 2).sum(axis=1)
        return np.asarray(value + 0.5 * np.log(np.maximum(total * spread, 1e-300)))

    def step(line: Floats) -> tuple[Floats, Floats]:
        share = expit(design @ line)
        weight = share * (1 - share)
        information = design.T @ (weight[:, None] * design) + 1e-12 * np.eye(2)
        leverage = weight * np.einsum("ij,ij->i", design @ np.linalg.inv(information), design)
        score = design.T @ (y - share + (leverage * (0.5 - share) if firth else 0.0))
        return score, information

    best, information = _climbed(np.zeros(2), step, log_likelihood)
    region = _border(best, information, log_likelihood, _circle(), DROP)
    return PodCurve(Link.LOGIT, Scale.LOG, _undone(best[None], standard)[0], _undone(region, standard))


@dataclass(frozen=True, slots=True, eq=False)
class ResponseFit:
    """Response over size: g(â) = intercept + slope x ± sigma, g and x on the same scale.

    Attributes:
        scale: of size and response.
        intercept, slope, sigma: of the line, sigma the standard deviation about it.
        log_likelihood: in the measure of the response itself, so that scales can be compared.
        curvature_p: probability of so much curvature where the line is straight (likelihood ratio of a quadratic term).
        region: (M, 3) intercept / sigma, slope / sigma, 1 / sigma around the border of what the data do not contradict.
    """

    scale: Scale
    intercept: float
    slope: float
    sigma: float
    log_likelihood: float
    curvature_p: float
    region: Floats

    def curve(self, threshold_mm: float) -> PodCurve:
        """Probability that the response exceeds a threshold."""
        level = float(self.scale.of(np.array(threshold_mm)))
        best = np.array([self.intercept - level, self.slope]) / self.sigma
        region = np.column_stack((self.region[:, 0] - level * self.region[:, 2], self.region[:, 1]))
        return PodCurve(Link.PROBIT, self.scale, best, region)


def fit_response(size_mm: Floats, response_mm: Floats, reporting_mm: Floats, scale: Scale | None = None) -> ResponseFit:
    """Linear regression of responses on sizes, those below the reporting threshold censored, by maximum likelihood.

    Args:
        size_mm: (N,) true sizes.
        response_mm: (N,) measured ones, NaN where nothing was reported.
        reporting_mm: (N,) what would have been reported; used where nothing was.
        scale: linear or logarithmic, both ways; None takes that of the larger likelihood.

    Raises:
        DepthcellError: sizes or responses are not positive or all the same, or fewer than four responses were measured.
    """
    size = _checked(size_mm, len(response_mm))
    measured = np.isfinite(response_mm)
    if measured.sum() < 4:
        raise DepthcellError(f"response: {measured.sum()} of {len(size)} defects gave one; four are the least")
    level = np.where(measured, response_mm, reporting_mm)
    if not (np.isfinite(level) & (level > 0)).all():
        raise DepthcellError("response: holds one that is not positive; give its magnitude in mm")
    if np.ptp(level) == 0:
        raise DepthcellError("response: all are the same, as if nothing had been measured")
    if scale is not None:
        return _fitted_response(size, level, measured, scale)
    fits = [_fitted_response(size, level, measured, one) for one in Scale]
    return max(fits, key=lambda fit: fit.log_likelihood)


def _fitted_response(size: Floats, level: Floats, measured: NDArray[np.bool_], scale: Scale) -> ResponseFit:
    x, standard = _standardised(scale.of(size))
    y, (y_mean, y_spread) = _standardised(scale.of(level))
    straight = np.column_stack((np.ones_like(x), x))
    best, information, largest = _climbed_response(straight, y, measured)
    _, _, bent = _climbed_response(np.column_stack((straight, x * x)), y, measured)

    def log_likelihood(lines: Floats) -> Floats:
        return _response_likelihood(lines, straight, y, measured)

    free = int(measured.sum()) - 2
    drop = free / 2 * float(np.log1p(stdtrit(free, CONFIDENCE) ** 2 / free))
    border = _border(best, information, log_likelihood, _sphere(), drop)
    # From y = (g - mean) / spread back to g: h y - z becomes (h / spread) g - (z + h mean / spread).
    lines = np.concatenate((best[None], border))
    inverse = lines[:, 2] / y_spread
    shifted = np.column_stack((lines[:, 0] + inverse * y_mean, lines[:, 1]))
    region = np.column_stack((_undone(shifted, standard), inverse))
    jacobian = np.log(level[measured]).sum() if scale is Scale.LOG else 0.0
    return ResponseFit(
        scale=scale,
        intercept=float(region[0, 0] / region[0, 2]),
        slope=float(region[0, 1] / region[0, 2]),
        sigma=float(1 / region[0, 2]),
        log_likelihood=float(largest - measured.sum() * np.log(y_spread) - jacobian),
        curvature_p=float(chdtrc(1, 2 * max(bent - largest, 0.0))),
        region=region[1:],
    )


def _response_likelihood(lines: Floats, design: Floats, y: Floats, measured: NDArray[np.bool_]) -> Floats:
    """(M,) log-likelihood of lines (M, K + 1): K coefficients over sigma, and 1 / sigma; -inf where that is none."""
    inverse = lines[:, -1:]
    free = measured.sum() - 2
    seen = inverse * y[measured] - lines[:, :-1] @ design[measured].T
    hidden = inverse * y[~measured] - lines[:, :-1] @ design[~measured].T
    value: Floats = free * np.log(np.maximum(inverse[:, 0], 1e-300)) - (seen**2).sum(axis=1) / 2
    value += log_ndtr(hidden).sum(axis=1) - measured.sum() * np.log(2 * np.pi) / 2
    return np.where(inverse[:, 0] > 0, value, -np.inf)


def _climbed_response(design: Floats, y: Floats, measured: NDArray[np.bool_]) -> tuple[Floats, Floats, float]:
    """Parameters over sigma and 1 / sigma at the maximum, the information there, and the log-likelihood."""
    along = np.column_stack((-design, y))

    def step(line: Floats) -> tuple[Floats, Floats]:
        z = along @ line
        mills = np.exp(-(z**2) / 2 - np.log(2 * np.pi) / 2 - log_ndtr(z))
        pull = np.where(measured, -z, mills)
        bend = np.where(measured, 1.0, mills * (mills + z))
        score = along.T @ pull
        information = along.T @ (bend[:, None] * along) + 1e-12 * np.eye(len(line))
        score[-1] += (measured.sum() - 2) / line[-1]
        information[-1, -1] += (measured.sum() - 2) / line[-1] ** 2
        return score, information

    def log_likelihood(lines: Floats) -> Floats:
        return _response_likelihood(lines, design, y, measured)

    start = np.append(np.zeros(design.shape[1]), 1.0)
    best, information = _climbed(start, step, log_likelihood)
    return best, information, float(log_likelihood(best[None])[0])


def _climbed(
    start: Floats, step: Callable[[Floats], tuple[Floats, Floats]], log_likelihood: Callable[[Floats], Floats]
) -> tuple[Floats, Floats]:
    """Newton's method with steps limited and halved until they climb: the maximum, and the information there."""
    line, value = start, float(log_likelihood(start[None])[0])
    for _ in range(ROUNDS):
        score, information = step(line)
        move = np.linalg.solve(information, score)
        move *= min(1.0, LONGEST_STEP / max(float(np.linalg.norm(move)), 1e-300))
        gained = False
        for _ in range(30):
            reached = float(log_likelihood((line + move)[None])[0])
            if reached >= value:
                gained = reached - value > 1e-12 * (1 + abs(value))
                line, value = line + move, reached
                break
            move = move / 2
        if not gained:
            break
    return line, step(line)[1]


def _border(
    best: Floats, information: Floats, log_likelihood: Callable[[Floats], Floats], directions: Floats, drop: float
) -> Floats:
    """Where rays from the best parameters leave what the data do not contradict, (M, P)."""
    rays = directions @ np.linalg.cholesky(np.linalg.inv(information)).T
    floor = float(log_likelihood(best[None])[0]) - drop
    inside, outside = np.zeros(len(rays)), np.full(len(rays), np.sqrt(2 * drop))
    for _ in range(40):
        still = log_likelihood(best + outside[:, None] * rays) > floor
        if not still.any():
            break
        inside[still] = outside[still]
        outside[still] *= 2
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        still = log_likelihood(best + middle[:, None] * rays) > floor
        inside, outside = np.where(still, middle, inside), np.where(still, outside, middle)
    return np.asarray(best + outside[:, None] * rays)


def _circle() -> Floats:
    angle = 2 * np.pi * np.arange(RAYS_2D) / RAYS_2D
    return np.column_stack((np.cos(angle), np.sin(angle)))


def _sphere() -> Floats:
    """Directions spread evenly by the golden angle."""
    number = np.arange(RAYS_3D) + 0.5
    height, turn = 1 - 2 * number / RAYS_3D, np.pi * (1 + np.sqrt(5)) * number
    across = np.sqrt(1 - height**2)
    return np.column_stack((across * np.cos(turn), across * np.sin(turn), height))


def _standardised(values: Floats) -> tuple[Floats, tuple[float, float]]:
    mean, spread = float(values.mean()), float(values.std())
    return (values - mean) / spread, (mean, spread)


def _undone(lines: Floats, standard: tuple[float, float]) -> Floats:
    """Intercept and slope (M, 2) in x = mean + spread x' from those in x'."""
    mean, spread = standard
    return np.column_stack((lines[:, 0] - lines[:, 1] * mean / spread, lines[:, 1] / spread))


def _checked(size_mm: Floats, count: int) -> Floats:
    size = np.asarray(size_mm, dtype=np.float64)
    if size.shape != (count,) or count < 3:
        raise DepthcellError(f"size_mm: {size.shape} sizes for {count} defects; give one each, of three or more")
    if not (np.isfinite(size) & (size > 0)).all() or np.ptp(size) == 0:
        raise DepthcellError("size_mm: must be positive, finite and not all the same; give sizes in mm")
    return size


def exact_interval(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share, `count` of `total` (C. Clopper, E. Pearson, Biometrika 26 (1934) 404)."""
    if not 0 <= count <= total or total < 1:
        raise DepthcellError(f"{count} of {total}: no share; the count must lie from 0 to the total")
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return low, high
