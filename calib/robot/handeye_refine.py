"""The nonlinear hand-eye problem: errors weighed by their own scatter, outliers counted, covariance of all."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import fdtri, gammaln

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.robot.handeye_problem import HandEyeState, Misfit, Samples, chart, misfit
from depthcell.errors import DepthcellError, Reason

ROUNDS = 60
TAILS = (5.0, 7.0, 10.0, 15.0, 25.0, 50.0, 200.0, 1e4)
"""Degrees of freedom of Student's t that are tried for the errors; the last is as good as normal. Heavier tails would
let a standstill, whose errors are small and alike, outweigh the motion."""
OUTLYING = 1e-4
"""A pair is called an outlier where so few good ones lie as far out."""
FEWEST = 10
"""Pairs below which no scatter of their errors is estimated."""
FEWEST_FULL = 100
"""Pairs below which the 21 numbers of a full covariance are not: with 40 their 95 % intervals held 92 %."""


class NoiseModel(StrEnum):
    """How the six errors are weighed against each other; how wrong a pose is as a whole is told by their covariance.

    ISOTROPIC: by one standard deviation of the three rotations and one of the three positions. FULL: by the covariance.
    On recordings FULL trusts the quiet directions, such as across the line of sight, more than their errors deserve
    that stay alike for seconds; with independent poses and many of them it is the sharper one.
    """

    ISOTROPIC = "isotropic"
    FULL = "full"


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """A solution of the nonlinear problem.

    Attributes:
        state: mount, target and offset.
        covariance: (P, P) of the parameters `NAMES[:P]`, `state.perturbed(xi)`.
        error: (N, 6) of all pairs, rad and m in the camera's frame.
        noise: (6, 6) scale S of the errors, their covariance where they are normal.
        tail: degrees of freedom of Student's t that suits the errors best.
        distance: (N,) of each pair's errors, `sqrt(e^T S^-1 e)`.
        memory: (6,) how many successive pairs count as one, by each direction of the whitened errors; 1 where they are
            independent.
    """

    state: HandEyeState
    covariance: NDArray[np.float64]
    error: NDArray[np.float64]
    noise: NDArray[np.float64]
    tail: float
    distance: NDArray[np.float64]
    memory: NDArray[np.float64]

    @property
    def outliers(self) -> NDArray[np.bool_]:
        """(N,) pairs that lie farther out than one good pair in 10,000: `d² / 6` beyond the F quantile."""
        return self.distance**2 / 6 > float(fdtri(6, self.tail, 1 - OUTLYING))


def refine(samples: Samples, start: HandEyeState, model: NoiseModel = NoiseModel.ISOTROPIC, *, offset: bool) -> Refined:
    """Fit mount, target and offset to errors that follow a multivariate Student t, whose scale and tail are fitted too.

    In turn, an expectation-maximisation (Lange, Little, Taylor, J. Am. Stat. Assoc. 84 (1989) 881): weights
    `w = (v + 6) / (v + d²)` with `d² = e^T S^-1 e`; least squares with S and w held (`scipy.optimize.least_squares`,
    analytic Jacobian), S as `model` says; `S = sum w e e^T / N`; v by likelihood among `TAILS`. A wrong pose so weighs
    about 1 / d², and normal errors lose nothing.

    Args:
        samples: at least 10 pairs, in order of time where they have one.
        start: near the solution, such as from a linear solver.
        model: how errors are weighed.
        offset: whether the time offset is estimated.

    Raises:
        DepthcellError: too few pairs, more than half of them outliers, or parameters that the motion leaves open.
    """
    if len(samples) < FEWEST:
        raise DepthcellError(f"hand-eye: {len(samples)} pairs of poses, at least {FEWEST} are needed", Reason.BAD_INPUT)
    if model is NoiseModel.FULL and len(samples) < FEWEST_FULL:
        wanted = f"{len(samples)} pairs of poses, noise model 'full' needs {FEWEST_FULL}: choose 'isotropic'"
        raise DepthcellError(f"hand-eye: {wanted}", Reason.BAD_INPUT)
    state, current = start, misfit(samples, start, offset=offset)
    noise, tail = _first_noise(current.error), TAILS[0]
    for _ in range(ROUNDS):
        weight = (tail + 6) / (tail + _distance(current.error, noise) ** 2)
        state, step = _solve(samples, state, _whitening(noise, model), weight, offset=offset)
        current = misfit(samples, state, offset=offset)
        before, noise = noise, _noise(current, weight)
        tail = _best_tail(_distance(current.error, noise))
        if step < 1e-2 and np.abs(np.diag(noise) / np.diag(before) - 1).max() < 1e-3:
            break
    return _finished(samples, state, current, (noise, tail, model))


def _first_noise(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Diagonal, by the median of absolute errors (1.4826 of it is the standard deviation of a normal one)."""
    scale = 1.4826 * np.median(np.abs(error), axis=0)
    return np.diag(np.maximum(scale, (1e-7, 1e-7, 1e-7, 1e-8, 1e-8, 1e-8)) ** 2)


def _whitening(noise: FloatArray, model: NoiseModel) -> FloatArray:
    """`W` (6, 6) with `W e` the errors as least squares sees them."""
    if model is NoiseModel.FULL:
        return np.linalg.inv(np.linalg.cholesky(noise))
    variance = np.diag(noise)
    return np.diag(np.repeat((variance[:3].mean(), variance[3:].mean()), 3) ** -0.5)


def _distance(error: FloatArray, noise: FloatArray) -> FloatArray:
    """`sqrt(e^T S^-1 e)` (N,)."""
    return np.asarray(np.linalg.norm(error @ np.linalg.inv(np.linalg.cholesky(noise)).T, axis=1))


def _best_tail(distance: FloatArray) -> float:
    """The tail of highest likelihood of six-dimensional t errors at these distances, S held."""

    def likelihood(v: float) -> float:
        constant = gammaln((v + 6) / 2) - gammaln(v / 2) - 3 * math.log(v)
        return float(distance.size * constant - (v + 6) / 2 * np.log1p(distance**2 / v).sum())

    return max(TAILS, key=likelihood)


def _noise(current: Misfit, weight: FloatArray) -> NDArray[np.float64]:
    """Scale of the errors, corrected for the P / 6 pairs' worth of them that the fit has taken up."""
    pairs, taken = len(weight), current.jacobian.shape[2] / 6
    scatter = np.einsum("n,ni,nj->ij", weight, current.error, current.error) / (pairs - taken)
    return np.asarray(scatter + np.diag((1e-14, 1e-14, 1e-14, 1e-16, 1e-16, 1e-16)))


def _solve(
    samples: Samples, state: HandEyeState, whitening: FloatArray, weight: FloatArray, *, offset: bool
) -> tuple[HandEyeState, float]:
    """Least squares with the weights held: the new state, and its largest step in standard deviations."""
    root = np.sqrt(weight)[:, None, None] * whitening
    last: dict[bytes, Misfit] = {}

    def at(twist: NDArray[np.float64]) -> Misfit:
        """Residuals and Jacobian are asked for one after the other at the same place."""
        key = twist.tobytes()
        if key not in last:
            last.clear()
            last[key] = misfit(samples, state.perturbed(twist), offset=offset)
        return last[key]

    def residuals(twist: NDArray[np.float64]) -> NDArray[np.float64]:
        return (root @ at(twist).error[..., None]).ravel()

    def jacobian(twist: NDArray[np.float64]) -> NDArray[np.float64]:
        return (root @ at(twist).jacobian @ chart(twist)).reshape(-1, twist.size)

    start = np.zeros(13 if offset else 12)
    solve: Any = optimize.least_squares  # untyped, and mistaken for the module of that name
    result = solve(residuals, start, jacobian, method="lm", x_scale="jac")
    curvature = np.linalg.norm(result.jac, axis=0)
    return state.perturbed(result.x), float(np.max(np.abs(result.x) * curvature))


def _finished(
    samples: Samples, state: HandEyeState, current: Misfit, errors: tuple[NDArray[np.float64], float, NoiseModel]
) -> Refined:
    """The covariance `H^-1 M H^-1` of an M-estimate (Huber, Robust Statistics, 1981, section 7.6).

    With rows J and errors r whitened: `H = b J^T J`, b the mean slope of the score `w r`, and `M = J^T V J`, V the
    covariance of the scores, whatever was assumed of it. Where pairs have time, V counts that successive errors are
    alike: each direction's statistical inefficiency multiplies it. That the motion goes on between alike errors is not
    counted in favour, so that M is an upper estimate.
    """
    noise, tail, model = errors
    whitening, distance = _whitening(noise, model), _distance(current.error, noise)
    weight = (tail + 6) / (tail + distance**2)
    score = weight[:, None] * (current.error @ whitening.T)
    memory = np.ones(6) if samples.trajectory is None else np.array([inefficiency(one) for one in score.T])
    taken = current.jacobian.shape[2] / 6
    spread = score.T @ score / (len(samples) - taken) * np.sqrt(np.outer(memory, memory))
    slope = float(np.mean(weight) - np.mean((weight * distance) ** 2) / 3 / (tail + 6))
    rows = whitening @ current.jacobian
    hessian = slope * np.einsum("nij,nik->jk", rows, rows)
    scale = 1 / np.sqrt(np.maximum(np.diag(hessian), 1e-300))
    scaled = hessian * scale[:, None] * scale
    if np.linalg.cond(scaled) > 1e12:
        wrong = "the motion leaves the mount open: turn the hand about two different axes"
        raise DepthcellError(f"hand-eye: {wrong}", Reason.BAD_INPUT)
    inverse = np.linalg.inv(scaled) * scale[:, None] * scale
    covariance = inverse @ np.einsum("nij,il,nlk->jk", rows, spread, rows) @ inverse
    result = Refined(state, covariance, current.error, noise, tail, np.asarray(distance, dtype=np.float64), memory)
    if np.count_nonzero(result.outliers) > len(samples) / 3:
        wrong = f"{np.count_nonzero(result.outliers)} of {len(samples)} pairs of poses contradict the rest"
        raise DepthcellError(f"hand-eye: {wrong}: check that both files are of one recording", Reason.BAD_INPUT)
    return result


def inefficiency(series: NDArray[np.float64]) -> float:
    """How many successive values count as one: `1 + 2 sum rho_k` up to the first rho within chance, `2 / sqrt(N)`.

    Its use for the variance of a mean: e.g. Sokal, Monte Carlo Methods in Statistical Mechanics (1996), section 3.
    """
    n = series.size
    centred = series - series.mean()
    spectrum = np.fft.rfft(centred, 2 * n)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum))[:n]
    if correlation[0] <= 0:
        return 1.0
    rho = correlation / correlation[0]
    beyond = np.flatnonzero(rho < 2 / math.sqrt(n))
    last = int(beyond[0]) if beyond.size else n
    return float(1 + 2 * rho[1:last].sum())
