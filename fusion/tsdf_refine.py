"""A frame's pose refined on the surface so far: point-to-plane on the distance field, held by what the track knows."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError
from depthcell.fusion.track import PartPose
from depthcell.fusion.tsdf import MEAN, NORMAL, Tsdf
from depthcell.fusion.tsdf_sight import SeenPoints
from depthcell.fusion.tsdf_surface import voxel_sigmas_m
from depthcell.fusion.uncertainty import pose_jacobian

FEWEST_POINTS = 100
STILL_M = 1e-6
MOST_STEPS = 12
TUKEY = 4.685
"""Cut-off of Tukey's weight in standard deviations, for 95 % efficiency on normal noise."""
IMPROBABLE = 27.86
"""Chi-squared with six degrees of freedom is above this once in ten thousand."""


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """A frame's pose after refinement.

    Attributes:
        pose: with the covariance that is left.
        points_used: that decided.
        distance2: squared Mahalanobis distance from the track's pose; `IMPROBABLE` says when the track must be wrong.
    """

    pose: PartPose
    points_used: int
    distance2: float


def refined(
    field: Tsdf, seen: SeenPoints, sigma_m: NDArray[np.float32], prior: PartPose, apart: NDArray[np.float64]
) -> Refined:
    """The pose at which a frame's points lie best on the field, given where the track says the part is.

    The field gives each point p the plane of its voxel, centre x, mean normal n and value D: the residual is
    `D + n · (p - x)`. With the pose perturbed by xi it falls by `J xi` (`uncertainty.pose_jacobian`). With W the
    inverse variances of point and voxel times Tukey's biweight, `A = J^T W J` and `g = J^T W r`, the points alone ask
    for `A^-1 g` with covariance A^-1; but the calibrations of the cameras shift what they see against each other, by a
    motion of covariance P that says nothing about the pose. What is left of A is `B = (A^-1 + P)^-1 = (I + A P)^-1 A`,
    and with S the prior's covariance and xi_0 the motion so far, each step solves
    `(B + S^-1) xi = (I + A P)^-1 g - S^-1 xi_0`. The inverse of the left side is the covariance that is left.

    Args:
        field: with the frames so far.
        seen: points (N, 3) of all cameras at this instant, frame "cell", so far apart that their noise is independent.
        sigma_m: (N,) random standard uncertainty along the normal.
        prior: the pose by the track, its own covariance being that against the field's place.
        apart: (6, 6) P.

    Raises:
        DepthcellError: the track states no uncertainty of its poses, so that nothing may be refined.
    """
    if not (np.diag(prior.own_covariance) > 0).all():
        raise DepthcellError(
            "track: states no uncertainty of its poses, so they cannot be refined; give translation_mm and "
            "rotation_deg under [uncertainty]"
        )
    held = np.linalg.inv(prior.own_covariance)
    pose, moved = prior.T_cell_part, np.zeros(6)
    covariance, alone, used = prior.own_covariance, np.eye(6), 0
    reach_m = float(np.abs(seen.points - seen.points.mean(axis=0)).max()) if len(seen.points) else 1.0
    for _ in range(MOST_STEPS):
        residual_m, jacobian, variance_m2 = _linearised(field, seen, sigma_m, pose)
        used = len(residual_m)
        if used < FEWEST_POINTS:
            return Refined(prior, used, 0.0)
        weight = _tukey(residual_m / np.sqrt(variance_m2)) / variance_m2
        alone = np.einsum("n,ni,nj->ij", weight, jacobian, jacobian, optimize=True)
        pull = np.einsum("n,ni,n->i", weight, jacobian, residual_m, optimize=True)
        damped = np.linalg.inv(np.eye(6) + alone @ apart)
        covariance = np.linalg.inv(damped @ alone + held)
        step = covariance @ (damped @ pull - held @ moved)
        pose, moved = pose.perturbed(step), moved + step
        if float(np.linalg.norm(step[3:]) + reach_m * np.linalg.norm(step[:3])) < STILL_M:
            break
    # The points alone ask for (S + A^-1 + P) S^-1 xi, whose squared distance from 0 under that covariance this is.
    forced = held @ moved
    distance2 = float(moved @ forced + forced @ (np.linalg.pinv(alone, hermitian=True) + apart) @ forced)
    return Refined(PartPose(pose, (covariance + covariance.T) / 2, prior.shared_covariance), used, distance2)


def spaced(seen: SeenPoints, shape: tuple[int, int], correlation_px: float) -> NDArray[np.intp]:
    """Which points lie on a grid of pixels so wide that the noise of neighbours is independent."""
    step = max(1, math.ceil(2 * correlation_px))
    row, column = np.unravel_index(seen.pixel, shape)
    return np.flatnonzero((row % step == 0) & (column % step == 0))


def _linearised(
    field: Tsdf, seen: SeenPoints, sigma_m: NDArray[np.float32], T_cell_part: RigidTransform
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Residuals (M,), their fall per motion (M, 6) and variances (M,) of the points near a plane of the field."""
    points_part = T_cell_part.inverse() @ seen.points.astype(np.float64)
    voxels = np.floor((points_part - field.box.lower_m) / field.box.voxel_m).astype(np.intp)
    rows = field.pool.rows_of_voxels(voxels)
    known = np.flatnonzero((rows >= 0) & (field.pool.seen[np.maximum(rows, 0)] > 0))
    values = field.pool.values.take(rows[known], axis=1).astype(np.float64)
    normals = np.ascontiguousarray((values[NORMAL] / np.linalg.norm(values[NORMAL], axis=0)).T)
    normals_cell = T_cell_part.rotate(normals)
    facing = np.einsum("ij,ij->i", normals_cell, seen.normals.take(known, axis=0))
    centres = field.box.lower_m + (voxels[known] + 0.5) * field.box.voxel_m
    residual_m = values[MEAN] + np.einsum("ij,ij->i", normals, points_part[known] - centres)
    jacobian = pose_jacobian(seen.points.take(known, axis=0).astype(np.float64), normals_cell)
    field_sigma_m, _ = voxel_sigmas_m(field, rows[known])
    variance_m2 = np.square(sigma_m[known].astype(np.float64)) + np.square(field_sigma_m)
    same = np.flatnonzero(facing > 0.5)
    return residual_m[same], jacobian[same], variance_m2[same]


def _tukey(scaled: FloatArray) -> FloatArray:
    """Weights for scaled residuals, whose own spread may be wider than noise while the pose is still off."""
    scale = max(1.0, 1.4826 * float(np.median(np.abs(scaled))))
    return np.asarray(np.square(np.maximum(1 - np.square(scaled / (scale * TUKEY)), 0)))
