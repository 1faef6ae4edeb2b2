"""Motions so weakly held that the nearest fit may be a wrong one: a weld's slide may stop a ripple too far."""

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.posefit import TUKEY, Fit, product
from depthcell.fusion.reference import Reference

WEAK = 0.1
"""A motion that moves the surface along its normals by less than this share of itself is looked along."""
STEP_M = 8e-4
"""Between places looked at; ripples no longer than twice that may be missed."""
CLEARLY = 10.0
"""By which the logarithm of the likelihood elsewhere must be the greater."""
POINTS = 400
"""About so many tell one place from another."""


def better_along(fit: Fit, reference: Reference, allowed: NDArray[np.float64], reach_m: float) -> RigidTransform | None:
    """A pose farther along a weakly held motion that fits clearly better; None if there is none, as for most parts.

    The negative logarithm of the likelihood is the sum of Tukey's losses, at the scale of the fit.

    Args:
        fit: where the nearest minimum lies.
        reference: the surface.
        allowed: (6, A) orthonormal columns; only motions within their span are asked about.
        reach_m: how far to look to either side.
    """
    on_it = np.flatnonzero(fit.cut < 1)
    jacobian, basis = fit.jacobian[:, on_it], fit.sample.basis
    information = product(jacobian, jacobian) / max(len(on_it), 1)
    values, vectors = np.linalg.eigh(allowed.T @ information @ allowed)
    count = int(reach_m / STEP_M)
    ways_m = STEP_M * np.arange(-count, count + 1)
    twists = [way_m * basis.twist @ motion for motion in (allowed @ vectors[:, values < WEAK**2]).T for way_m in ways_m]
    if not twists:
        return None
    step = max(1, len(fit.sample.cloud) // POINTS)
    points_cell, cut_off_m = fit.sample.cloud.points_cell[::step], TUKEY * fit.sigma_m[::step]
    poses = [fit.T_cell_part.perturbed(twist) for twist in twists]
    places = np.concatenate([pose.inverse() @ points_cell for pose in (fit.T_cell_part, *poses)])
    distance_m = reference.signed_distance(places).reshape(-1, len(points_cell))
    cut = np.minimum(np.square(distance_m / cut_off_m), 1)
    cost = (1 - (1 - cut) ** 3).sum(axis=1) * (TUKEY**2 / 6)
    best = int(cost[1:].argmin())
    return poses[best] if cost[1 + best] < cost[0] - CLEARLY else None
