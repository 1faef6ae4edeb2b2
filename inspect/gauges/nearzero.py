"""What noise does to a distance from where something belongs: it is never negative, and so only ever made larger.

To first order a distance answers to what moves it along itself. Close to zero that is not enough: what moves it across
counts as well, and a distance of zero is measured as some. There the interval has to reach down to zero.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.budget import calibration_gradient, uncertainty_budget
from depthcell.fusion.influence import Influence
from depthcell.fusion.noisecorrelation import noise_variance
from depthcell.fusion.scan import Scan

NEAR_ZERO = "being near zero"
DRAWS, SEED, LEVEL = 1500, 20260106, 0.95


def near_zero_u(
    value: float, first_order: Influence, components: Sequence[Sequence[Influence]], scan: Scan
) -> tuple[tuple[str, float], ...]:
    """What has to be added to a distance's uncertainty where it may be zero, as a row of its budget; nothing elsewhere.

    The value is the largest length of several vectors. Their components have a joint normal distribution, whose
    covariance follows from how they answer to points and pose. If 95 of 100 draws about zero would give lengths below
    the value, zero is ruled out, and the first order will do. Else the interval of two standard uncertainties is made
    to reach down to zero.

    Args:
        value: the largest length.
        first_order: its own influence.
        components: of each vector, in the unit of the value.
        scan: what was measured.
    """
    whole = [influence for vector in components for influence in vector]
    covariance = joint_covariance(whole, scan) + noise_covariance(whole, scan)
    if not np.isfinite(covariance).all():
        return ()  # the budget itself will say so
    values, vectors = np.linalg.eigh(covariance)
    rng = np.random.default_rng(SEED)
    draws = rng.standard_normal((DRAWS, len(whole))) * np.sqrt(np.maximum(values, 0)) @ vectors.T
    start, lengths = 0, np.zeros(DRAWS)
    for vector in components:
        lengths = np.maximum(lengths, np.linalg.norm(draws[:, start : start + len(vector)], axis=1))
        start += len(vector)
    if value > float(np.quantile(lengths, LEVEL)):
        return ()
    lacking = (value / 2) ** 2 - uncertainty_budget(first_order, scan).u ** 2
    return ((NEAR_ZERO, math.sqrt(lacking)),) if lacking > 0 else ()


def joint_covariance(influences: Sequence[Influence], scan: Scan) -> NDArray[np.float64]:
    """(S, S) covariance of several scalars from calibration and pose, as `fusion.budget` has it of each."""
    change = np.array([calibration_gradient(scan.cloud, scan.cell, one.points, one.gradient) for one in influences])
    pose = np.array([one.pose for one in influences])
    alignment, theta = scan.alignment, scan.cell.joint_covariance
    covariance = pose @ alignment.random_covariance @ pose.T
    if alignment.calibration_gain.shape[1] == len(theta):
        change = change + pose @ alignment.calibration_gain
    else:
        covariance = covariance + pose @ alignment.systematic_covariance @ pose.T
    return np.asarray(covariance + change @ theta @ change.T)


def noise_covariance(influences: Sequence[Influence], scan: Scan) -> NDArray[np.float64]:
    """(S, S) the same from noise: `cov(a, b) = (var(a + b) - var(a) - var(b)) / 2`."""
    own = [_noise_variance(influence, scan) for influence in influences]
    covariance = np.diag(own)
    for i, first in enumerate(influences):
        for j in range(i):
            together = _noise_variance(first + influences[j], scan)
            covariance[i, j] = covariance[j, i] = (together - own[i] - own[j]) / 2
    return covariance


def _noise_variance(influence: Influence, scan: Scan) -> float:
    return noise_variance(scan.cloud, scan.cell, influence.points, influence.gradient)
