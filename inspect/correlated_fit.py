"""Least squares on points whose noise is alike in neighbours: generalised least squares with the noise's covariance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

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
    offset = points_m[:, None, :] - points_m[None, :, :]
    square = np.einsum("ijk,ijk->ij", offset, offset)
    alike = (1 - WHITE_SHARE) * np.exp(-square / np.square((correlation_m[:, None] + correlation_m[None, :]) / 2))
    np.fill_diagonal(alike, 1.0)
    covariance: NDArray[np.float64] = np.outer(sigma_m, sigma_m) * alike
    return covariance


def fit_linear(design: FloatArray, values: FloatArray, covariance: FloatArray) -> Fit:
    """Best linear unbiased estimate of `values = design @ parameters + noise` (C. F. Gauss; A. C. Aitken 1935).

    Args:
        design: (N, P).
        values: (N,).
        covariance: (N, N) of the values' noise.

    Raises:
        numpy.linalg.LinAlgError: the points do not determine the parameters.
    """
    factor = cho_factor(covariance)
    weighted = cho_solve(factor, design)
    normal = np.linalg.inv(design.T @ weighted)
    gain = normal @ weighted.T
    parameters = gain @ values
    residuals = values - design @ parameters
    freedom = max(len(values) - len(parameters), 1)
    birge_square = float(residuals @ cho_solve(factor, residuals)) / freedom
    return Fit(parameters, normal * max(birge_square, 1.0), gain, residuals)


def evenly(count: int) -> NDArray[np.intp]:
    """Indices of at most `MOST_POINTS` of `count` points, evenly spread over their order."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(np.intp))
