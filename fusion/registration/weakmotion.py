"""Motions so weakly held that the nearest fit may be a wrong one: a weld's slide may stop a ripple too far."""

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.fusion.posefit import TUKEY, Fit, product
from depthcell.fusion.reference import Reference

WEAK = 0.1
"""A motion that moves the surface along its normals by less than this share of itself is looked along."""
STEP_M = 8e-4
"""Between places looked at; ripples no longer than twice that may be missed."""
CLEARLY = 10.0
"""By which the logarithm of the likelihood elsewhere must be the less."""
POINTS = 400
"""About so many tell one place from another."""
MOST_PLACES = 4


def weak_motions(fit: Fit, wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Motions (6, W) within the span of `wanted` (6, A) that little of the surface holds; W is 0 for most parts."""
    on_it = np.flatnonzero(fit.cut < 1)
    jacobian = fit.jacobian[:, on_it]
    information = product(jacobian, jacobian) / max(len(on_it), 1)
    values, vectors = np.linalg.eigh(wanted.T @ information @ wanted)
    return np.asarray(wanted @ vectors[:, values < WEAK**2])


def places_along(fit: Fit, motion: FloatArray, reference: Reference, reach_m: float) -> list[RigidTransform]:
    """Poses farther along a motion (6,) where the part may as well lie: where the likelihood has a peak of its own.

    The `MOST_PLACES` likeliest of those that are likelier than half of all places looked at.

    Args:
        fit: where the nearest minimum lies.
        motion: of unit length, in the fit's basis.
        reference: the surface.
        reach_m: how far to look to either side.
    """
    count, step = int(reach_m / STEP_M), max(1, len(fit.sample.cloud) // POINTS)
    twist = STEP_M * (fit.sample.basis.twist @ motion)
    poses = [fit.T_cell_part.perturbed(way * twist) for way in range(-count, count + 1)]
    points_cell, cut_off_m = fit.sample.cloud.points_cell[::step], TUKEY * fit.sigma_m[::step]
    places = np.concatenate([pose.inverse() @ points_cell for pose in poses])
    distance_m = reference.signed_distance(places).reshape(-1, len(points_cell))
    cost = (1 - (1 - np.minimum(np.square(distance_m / cut_off_m), 1)) ** 3).sum(axis=1)
    low = np.flatnonzero((cost[1:-1] <= cost[:-2]) & (cost[1:-1] <= cost[2:]) & (cost[1:-1] < np.median(cost))) + 1
    low = low[np.abs(low - count) > 1]
    return [poses[place] for place in low[np.argsort(cost[low])][:MOST_PLACES]]


def loss_of(fit: Fit, form_m: float) -> float:
    """Negative logarithm of the likelihood, up to a constant: Tukey's losses over noise and half of `form_m`."""
    sigma_m = np.hypot(fit.sample.noise_m, form_m / 2)
    cut = np.where(fit.used, np.minimum(np.square(fit.residual_m / (TUKEY * sigma_m)), 1), 1)
    return float((1 - (1 - cut) ** 3).sum()) * TUKEY**2 / 6
