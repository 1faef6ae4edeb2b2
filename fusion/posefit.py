"""One step of the alignment: residuals of points on the reference, what they ask of the pose, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
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
LONGER = 1.4
"""Newton's step is taken if it is at most so many times as long as the one that surely goes down; below 2."""
ROUNDED = 0.9
"""Slope of the field below which an edge runs through its cell; elsewhere it is 1."""
MAD_TO_SIGMA = 1.4826
CALIBRATION_POINTS = 2000
"""What calibration does to a pose is told by so many points: it is smooth over a part."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Points that a pose is fitted to, prepared once for all steps.

    Attributes:
        cloud: the points.
        basis: of the motions.
        levers: (3, N) from the basis' centre, over its length.
        facing: (3, N) the points' own normals, frame "cell".
        noise_m: (N,) standard uncertainty of each.
    """

    cloud: PartCloud
    basis: Basis
    levers: NDArray[np.float64]
    facing: NDArray[np.float32]
    noise_m: NDArray[np.float64]

    @classmethod
    def of(cls, cloud: PartCloud, basis: Basis) -> "Sample":
        """Prepare a cloud."""
        levers = (np.ascontiguousarray(cloud.points_cell.T) - basis.centre_cell[:, None]) / basis.length_m
        facing = np.ascontiguousarray(cloud.normals_cell.T)
        return cls(cloud, basis, levers, facing, cloud.random_sigma_m.astype(np.float64))

    def some(self, step: int) -> "Sample":
        """Every `step`-th point."""
        return Sample.of(self.cloud[np.arange(0, len(self.cloud), step)], self.basis)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """All points of a sample at some pose, and the least-squares problem they pose.

    A point that has no weight stands at the cut-off.

    Attributes:
        sample: the points.
        T_cell_part: the pose.
        used: (N,) bool, which take part.
        residual_m: (N,) signed distance from the reference.
        jacobian: (6, N) lift of the surface per motion in the sample's basis.
        scaled: (N,) residual over its standard deviation, the common scale of all residuals included.
        sigma_m: (N,) that standard deviation.
    """

    sample: Sample
    T_cell_part: RigidTransform
    used: NDArray[np.bool_]
    residual_m: FloatArray
    jacobian: NDArray[np.float64]
    scaled: FloatArray
    sigma_m: FloatArray

    @property
    def normals(self) -> NDArray[np.float64]:
        """(3, N) outward normals of the reference at the points, frame "cell"."""
        return self.jacobian[3:]

    @property
    def cut(self) -> FloatArray:
        """(N,) `(residual / cut-off)²`, up to 1: Tukey's weight is `(1 - cut)²`."""
        return np.asarray(np.minimum(np.square(self.scaled / TUKEY), 1))

    @property
    def slope(self) -> FloatArray:
        """(N,) change of Tukey's influence psi per residual, over the variance: what a small shift of a point does."""
        cut = self.cut
        return np.asarray((1 - cut) * (1 - 5 * cut) / np.square(self.sigma_m))

    @property
    def information(self) -> NDArray[np.float64]:
        """(6, 6): `sum psi' / sigma² J J^T`."""
        return product(self.jacobian * self.slope, self.jacobian)

    def solved(self, wanted: NDArray[np.float64]) -> NDArray[np.float64]:
        """The motion (6,) in the basis that the points ask for, within the span of `wanted` (6, A).

        Newton's step `H^-1 g`, `H = sum psi' / sigma² J J^T`, if it goes down for sure, else that of iteratively
        reweighted least squares, `W^-1 g` with Tukey's weights as they are. The quadratic with W touches the sum of
        Tukey's losses from above (Huber, Robust Statistics, 1981, 7.8), so that any step `H^-1 g` with `2 H > W` lowers
        it: its change is at most `-g^T H^-1 g + g^T H^-1 W H^-1 g / 2 < 0`. `LONGER` asks for more than that.
        """
        weighted = self.jacobian * np.square((1 - self.cut) / self.sigma_m)
        pull = wanted.T @ product(weighted, self.residual_m[None])[:, 0]
        above, curved = product(weighted, self.jacobian), self.information
        above, curved = wanted.T @ above @ wanted, wanted.T @ curved @ wanted
        downhill = np.linalg.eigvalsh(LONGER * curved - above)[0] > 0
        return np.asarray(wanted @ np.linalg.solve(curved if downhill else above, pull))


def linearised(sample: Sample, reference: Reference, T_cell_part: RigidTransform, capture_m: float) -> Fit:
    """The problem at one pose; points within `capture_m` of the reference that face as it does take part.

    Those within a cell of an edge lie on the reference but have no weight: the field rounds there, all to one side.
    The common scale of the residuals is their median absolute deviation in units of their noise, or 1 if that is more:
    wide while the part is off its place, 1 when noise is all that is left, in between where good parts differ in form.
    """
    points_part = T_cell_part.inverse() @ sample.cloud.points_cell
    residual_m, slopes = reference.field.distance_and_slopes(points_part)
    steepness = np.sqrt(_dot(slopes, slopes))
    slopes /= np.maximum(steepness, np.float32(1e-3))
    normals = np.asarray(cv2.gemm(T_cell_part.rotation.astype(np.float32), slopes, 1, None, 0))  # type: ignore[call-overload]
    used = (np.abs(residual_m) < capture_m) & (_dot(normals, sample.facing) > FACING)
    told = used & (steepness > ROUNDED)
    in_noise = residual_m / sample.noise_m
    scale = max(1.0, MAD_TO_SIGMA * float(np.median(np.abs(in_noise[told])))) if told.any() else 1.0
    jacobian = np.empty((6, len(residual_m)))
    (px, py, pz), (nx, ny, nz) = sample.levers, normals
    jacobian[0], jacobian[1], jacobian[2] = py * nz - pz * ny, pz * nx - px * nz, px * ny - py * nx
    jacobian[3:] = normals
    return Fit(
        sample=sample,
        T_cell_part=T_cell_part,
        used=used,
        residual_m=residual_m,
        jacobian=jacobian,
        scaled=np.where(told, in_noise / scale, TUKEY),
        sigma_m=sample.noise_m * scale,
    )


def random_covariance(fit: Fit, inverse: NDArray[np.float64], shared: FloatArray) -> NDArray[np.float64]:
    """Covariance (6, 6) of the solution from noise, in the fit's basis; zero outside the span of what was looked for.

    Huber's sandwich (Robust Statistics, 1981, 7.6): `A^-1 B A^-1`, with `A = sum psi' / sigma² J J^T` and
    `B = sum k psi² / sigma² J J^T` over scaled residuals, psi that of Tukey.

    Args:
        fit: at the solution.
        inverse: (6, 6) A^-1, see `information_inverse`.
        shared: (N,) k, how many points share the noise of each, see `sharing`.
    """
    influence = fit.scaled * np.square(1 - fit.cut)
    scatter = product(fit.jacobian * (shared * np.square(influence / fit.sigma_m)), fit.jacobian)
    return np.asarray(inverse @ scatter @ inverse)


def calibration_gain(fit: Fit, wanted: NDArray[np.float64], cell: Cell, serials: Sequence[str]) -> NDArray[np.float64]:
    """Change (6, P) of the solution per unit of each of the P parameters of the cell's cameras, in the fit's basis.

    All points of a camera share the errors of its parameters: pose, lens, depth correction. They lift a point in
    which it has the share q by q times `D` (N, P) per unit, and so move the solution by
    `G = A^-1 sum psi' / sigma² J q D^T`; with Theta the joint covariance of all cameras' parameters, and G the blocks
    of all cameras beside each other, its covariance is `G Theta G^T` (GUM 5.2.2, in matrix form JCGM 102, 6.2.1.3).

    Some points stand for all, in A too: what lifts the whole surface as a motion does then gives that motion exactly.

    Args:
        fit: at the solution.
        wanted: (6, A) orthonormal motions that were looked for.
        cell: of the cameras.
        serials: of the K cameras, as in the points' `share`.
    """
    cloud = fit.sample.cloud
    told, weight = _telling(fit, information_inverse(fit.information, wanted))
    jacobian = fit.jacobian[:, told]
    inverse = information_inverse(product(jacobian * weight, jacobian), wanted)
    gain = np.zeros((6, len(cell.joint_covariance)))
    for index, serial in enumerate(serials):
        own = np.flatnonzero(cloud.share[told, index] > 0)
        seen = told[own]
        lifts = calibration_jacobian(cell.camera(serial), cloud.points_cell[seen], fit.normals[:, seen].T)
        pulls = jacobian[:, own] * (weight[own] * cloud.share[seen, index])
        gain[:, cell.rows_of(serial)] = inverse @ product(pulls, lifts.T)
    return gain


def _telling(fit: Fit, inverse: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Points that stand for all in a sum of `psi' / sigma² J ...`, and the weight of each in it.

    Taken evenly along the running sum of `|psi'| / sigma² sqrt(J^T A^-1 J)`, each weighed by what it was taken with
    (Cochran, Sampling Techniques, 1977, 9A): the few that hold a weak motion are then as well told of as the many.
    """
    slope = fit.slope
    values, vectors = np.linalg.eigh(inverse)
    root = (vectors * np.sqrt(np.maximum(values, 0))).T
    pulled = np.asarray(cv2.gemm(root, fit.jacobian, 1, None, 0))  # type: ignore[call-overload]
    size = np.abs(slope) * np.sqrt(np.square(pulled).sum(axis=0))
    ends = np.cumsum(size)
    even = (np.arange(CALIBRATION_POINTS) + 0.5) * (ends[-1] / CALIBRATION_POINTS)
    told = np.searchsorted(ends, even)
    return told, slope[told] / size[told] * (ends[-1] / CALIBRATION_POINTS)


def _dot(left: FloatArray, right: FloatArray) -> FloatArray:
    """Of columns (3, N) each: (N,)."""
    return np.asarray(left[0] * right[0] + left[1] * right[1] + left[2] * right[2])


def sharing(correlation_px: float, stride: int) -> float:
    """How many points share the noise of one, where every `stride`-th pixel gives a point.

    Noise of pixels r apart correlates by `exp(-(r / l)²)`; over a square grid of spacing `h = sqrt(stride)` that
    sums to `(sum over k of exp(-(k h / l)²))²`: 1 for points far apart, `pi l² / h²` for close ones.
    """
    if correlation_px <= 0:
        return 1.0
    reach = np.arange(-30, 31)
    return float(np.exp(-np.square(reach / correlation_px) * stride).sum() ** 2)


def information_inverse(information: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse (6, 6) of an information within the span of `wanted`, zero outside."""
    return np.asarray(wanted @ np.linalg.inv(wanted.T @ information @ wanted) @ wanted.T)


def product(left: FloatArray, right: FloatArray) -> NDArray[np.float64]:
    """`left @ right^T` of (A, N) and (B, N); OpenCV's, which starts no threads for so little."""
    if not left.size or not right.size:
        return np.zeros((len(left), len(right)))
    return np.asarray(cv2.gemm(left, np.ascontiguousarray(right), 1, None, 0, flags=cv2.GEMM_2_T))  # type: ignore[call-overload]
