"""Least squares on points whose noise is alike in neighbours: weighted, with the noise's covariance carried through."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray

WHITE_SHARE = 0.1
"""Share of the noise's variance that neighbours do not have in common: rounding to counts, and merging."""

MOST_POINTS = 160
"""Points taken, evenly, since noise that is alike over several points is told as well by a few of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted linear model.

    Attributes:
        parameters: (P,).
        covariance: (P, P) of them, enlarged where the residuals are larger than the noise explains (Birge ratio:
            R. T. Birge, Physical Review 40 (1932) 207).
        gain: (P, N) by which each value enters the parameters.
        residuals: (N,) values less model.
    """

    parameters: NDArray[np.float64]
    covariance: NDArray[np.float64]
    gain: NDArray[np.float64]
    residuals: NDArray[np.float64]


def noise_covariance(points_m: FloatArray, sigma_m: FloatArray, correlation_m: FloatArray) -> NDArray[np.float64]:
    """(N, N) covariance of noise that correlates as exp(-(d / correlation)²), plus a share that does not.

    Args:
        points_m: (N, 3).
        sigma_m: (N,) standard uncertainty of each.
        correlation_m: (N,) correlation length at each.
    """
    square = sum(np.square(axis[:, None] - axis[None, :]) for axis in np.asarray(points_m).T)
    alike = (1 - WHITE_SHARE) * np.exp(-square / np.square((correlation_m[:, None] + correlation_m[None, :]) / 2))
    np.fill_diagonal(alike, 1.0)
    covariance: NDArray[np.float64] = np.outer(sigma_m, sigma_m) * alike
    return covariance


def fit_linear(design: FloatArray, values: FloatArray, covariance: FloatArray) -> Fit:
    """Estimate `values = design @ parameters + noise`, each value weighted by the inverse of its variance.

    The parameters are `gain @ values`, so their covariance is `gain C gain^T` (GUM 5.2.2, equation 13) with all of the
    noise's covariance C in it. To weight by the inverse of C itself would be a little sharper, but leans on the model
    of the noise where neighbours are alike, and on BLAS threads that cost more than such small matrices give.

    Args:
        design: (N, P).
        values: (N,).
        covariance: (N, N) of the values' noise.

    Raises:
        numpy.linalg.LinAlgError: the points do not determine the parameters.
    """
    weight = 1.0 / np.diag(covariance)
    weighted = design.T * weight
    gain = np.asarray(np.linalg.solve(weighted @ design, weighted), dtype=np.float64)
    parameters = gain @ np.asarray(values, dtype=np.float64)
    residuals = np.asarray(values, dtype=np.float64) - design @ parameters
    spread = covariance @ gain.T
    propagated = gain @ spread
    # What the weighted squares of the residuals would add up to if the noise were as stated.
    expected = len(values) + weight @ (
        np.einsum("ij,jk,ik->i", design, propagated, design) - 2 * np.einsum("ij,ij->i", design, spread)
    )
    birge_square = float(weight @ residuals**2) / max(float(expected), 1e-9)
    return Fit(parameters, propagated * max(birge_square, 1.0), gain, residuals)


def evenly(count: int) -> NDArray[np.intp]:
    """Indices of at most `MOST_POINTS` of `count` points, evenly spread over their order."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(np.intp))
