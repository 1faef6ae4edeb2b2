"""One step of the alignment: residuals of points on the reference, what they ask of the pose, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import Cell
from depthcell.fusion.motion import Basis
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.uncertainty import calibration_jacobian

TUKEY = 4.685
"""Cut-off of Tukey's biweight in standard deviations: 95 % efficient on Gaussian noise (Huber, Robust Statistics)."""
FACING = 0.5
"""Cosine between a point's normal and the reference's below which the point belongs to something else."""
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Points on the reference at some pose, as columns (N, ...), and the least-squares problem they pose.

    Attributes:
        used: (N,) numbers of the points that take part, in the cloud.
        points_cell: (N, 3) metres.
        normals_cell: (N, 3) outward normals of the reference there.
        surface_part: (N, 3) nearest points of the reference, frame "part".
        residual_m: (N,) signed distance from it.
        jacobian: (N, 6) lift of the surface per motion in `basis`.
        scaled: (N,) residual over its standard deviation, the common scale of all residuals included.
        sigma_m: (N,) that standard deviation.
        basis: of the motions.
    """

    used: NDArray[np.intp]
    points_cell: FloatArray
    normals_cell: FloatArray
    surface_part: FloatArray
    residual_m: FloatArray
    jacobian: FloatArray
    scaled: FloatArray
    sigma_m: FloatArray
    basis: Basis

    @property
    def cut(self) -> FloatArray:
        """(N,) `(residual / cut-off)²`, up to 1: Tukey's weight is `(1 - cut)²`."""
        return np.asarray(np.minimum(np.square(self.scaled / TUKEY), 1))

    @property
    def slope(self) -> FloatArray:
        """(N,) change of Tukey's influence psi per residual, over the variance: what a small shift of a point does."""
        return np.asarray((1 - self.cut) * (1 - 5 * self.cut) / np.square(self.sigma_m))

    def solved(self, free: NDArray[np.float64]) -> NDArray[np.float64]:
        """The motion (6,) in `basis` that the points ask for, none of it along `free` (6, K)."""
        weight = np.square(1 - self.cut) / np.square(self.sigma_m)
        information = np.einsum("n,ni,nj->ij", weight, self.jacobian, self.jacobian, optimize=True)
        pull = np.einsum("n,ni,n->i", weight, self.jacobian, self.residual_m, optimize=True)
        held = _complement(free)
        return np.asarray(held @ np.linalg.solve(held.T @ information @ held, held.T @ pull))


def linearised(
    points: PartCloud, reference: Reference, T_cell_part: RigidTransform, basis: Basis, capture_m: float
) -> Fit:
    """The problem at one pose: points within `capture_m` of the reference that face as it does.

    The common scale of the residuals is their median absolute deviation in units of their noise, or 1 if that is more:
    wide while the part is off its place, 1 when noise is all that is left, in between where good parts differ in form.
    """
    points_part = T_cell_part.inverse() @ points.points_cell
    residual_m, gradient = reference.signed_distance_and_gradient(points_part)
    gradient /= np.maximum(np.sqrt(np.einsum("ij,ij->i", gradient, gradient)), 1e-3)[:, None]
    normals_cell = T_cell_part.rotate(gradient)
    facing = np.einsum("ij,ij->i", normals_cell, points.normals_cell)
    used = np.flatnonzero((np.abs(residual_m) < capture_m) & (facing > FACING))
    points_cell, normals_cell = points.points_cell.take(used, axis=0), normals_cell.take(used, axis=0)
    residual_m, noise_m = residual_m[used], points.random_sigma_m[used]
    in_noise = residual_m / noise_m
    scale = max(1.0, MAD_TO_SIGMA * float(np.median(np.abs(in_noise)))) if len(used) else 1.0
    return Fit(
        used=used,
        points_cell=points_cell,
        normals_cell=normals_cell,
        surface_part=points_part.take(used, axis=0) - residual_m[:, None] * gradient.take(used, axis=0),
        residual_m=residual_m,
        jacobian=basis.jacobian(points_cell, normals_cell),
        scaled=in_noise / scale,
        sigma_m=noise_m * scale,
        basis=basis,
    )


def random_covariance(fit: Fit, free: NDArray[np.float64], shared: FloatArray) -> NDArray[np.float64]:
    """Covariance (6, 6) of the solution from noise, in the fit's basis; zero along `free`.

    Huber's sandwich (Robust Statistics, 1981, 7.6): `A^-1 B A^-1`, with `A = sum psi' / sigma² J J^T` and
    `B = sum k psi² / sigma² J J^T` over scaled residuals, psi that of Tukey.

    Args:
        fit: at the solution.
        free: (6, K) motions that were held.
        shared: (N,) k, how many points share the noise of each, see `sharing`.
    """
    influence = fit.scaled * np.square(1 - fit.cut)
    weight = shared * np.square(influence / fit.sigma_m)
    scatter = np.einsum("n,ni,nj->ij", weight, fit.jacobian, fit.jacobian, optimize=True)
    inverse = _information_inverse(fit, free)
    return np.asarray(inverse @ scatter @ inverse)


def systematic_covariance(
    fit: Fit, free: NDArray[np.float64], cell: Cell, serials: Sequence[str], share: FloatArray
) -> NDArray[np.float64]:
    """Covariance (6, 6) of the solution from the cell's calibration, in the fit's basis; zero along `free`.

    All points of a camera share the errors of its P parameters: pose, lens, depth correction. They lift a point in
    which it has the share q by q times `D` (N, P) per unit, and so move the solution by
    `G = A^-1 sum psi' / sigma² J q D^T`; with Theta the joint covariance of all cameras' parameters, and G the blocks
    of all cameras beside each other, that is `G Theta G^T` (GUM 5.2.2, in matrix form JCGM 102, 6.2.1.3).

    Args:
        fit: at the solution.
        free: (6, K) motions that were held.
        cell: of the cameras.
        serials: of the K cameras.
        share: (N, K) of each camera in each point.
    """
    inverse = _information_inverse(fit, free)
    gain = np.zeros((6, len(cell.joint_covariance)))
    for index, serial in enumerate(serials):
        seen = np.flatnonzero(share[:, index] > 0)
        points_cell, normals_cell = fit.points_cell.take(seen, axis=0), fit.normals_cell.take(seen, axis=0)
        lifts = calibration_jacobian(cell.camera(serial), points_cell, normals_cell)
        weight, motion = fit.slope[seen] * share[seen, index], fit.jacobian.take(seen, axis=0)
        gain[:, cell.rows_of(serial)] = inverse @ np.einsum("n,ni,nj->ij", weight, motion, lifts, optimize=True)
    return np.asarray(gain @ cell.joint_covariance @ gain.T)


def sharing(correlation_px: float, stride: int) -> float:
    """How many points share the noise of one, where every `stride`-th pixel gives a point.

    Noise of pixels r apart correlates by `exp(-(r / l)²)`; over a square grid of spacing `h = sqrt(stride)` that
    sums to `(sum over k of exp(-(k h / l)²))²`: 1 for points far apart, `pi l² / h²` for close ones.
    """
    if correlation_px <= 0:
        return 1.0
    reach = np.arange(-30, 31)
    return float(np.exp(-np.square(reach / correlation_px) * stride).sum() ** 2)


def _information_inverse(fit: Fit, free: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of `sum psi' / sigma² J J^T` within the motions that are not `free`."""
    information = np.einsum("n,ni,nj->ij", fit.slope, fit.jacobian, fit.jacobian, optimize=True)
    held = _complement(free)
    return np.asarray(held @ np.linalg.inv(held.T @ information @ held) @ held.T)


def _complement(free: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal basis (6, 6 - K) of the motions that are determined."""
    return np.linalg.svd(free, full_matrices=True)[0][:, free.shape[1] :]
