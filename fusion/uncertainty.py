"""How the uncertainty of depth and of poses acts on a point: along the surface normal, where deviation is judged."""

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import Cell, CellCamera
from depthcell.calib.propagation import point_lift

SAMPLES = 200
"""Points at which two cameras' calibration errors are compared; they are smooth over a part."""


def pose_jacobian(points: FloatArray, normals: FloatArray) -> FloatArray:
    """Motion of points along their normals per small motion of a pose, (N, 6) in m/rad and m/m.

    A motion xi = (omega, t) in the convention of `RigidTransform.perturbed` moves p by `omega x p + t`; along n that is
    `omega · (p x n) + t · n`.

    Args:
        points: (N, 3) metres, in the pose's target frame.
        normals: (N, 3) unit length, in the same frame.
    """
    jacobian = np.empty((len(points), 6), dtype=points.dtype)
    px, py, pz = points.T
    nx, ny, nz = normals.T
    jacobian[:, 0] = py * nz - pz * ny
    jacobian[:, 1] = pz * nx - px * nz
    jacobian[:, 2] = px * ny - py * nx
    jacobian[:, 3:] = normals
    return jacobian


def pose_variance_m2(points: FloatArray, normals: FloatArray, covariance: NDArray[np.float64]) -> FloatArray:
    """Variance along the normal that an uncertain pose gives each point, (N,): `J Sigma J^T` (GUM 5.2.2, equation 13).

    Args:
        points: (N, 3) metres, in the pose's target frame.
        normals: (N, 3) unit length, in the same frame.
        covariance: (6, 6) of the pose in the convention of `RigidTransform.perturbed`.
    """
    if not covariance.any() or not len(points):
        return np.zeros(len(points), points.dtype)
    jacobian = pose_jacobian(points, normals)
    # OpenCV's product, because NumPy's hands such narrow matrices to BLAS threads that cost more than they give.
    spread = cv2.transform(jacobian[:, None], covariance)[:, 0]
    return np.asarray(np.einsum("ij,ij->i", jacobian, spread))


def calibration_jacobian(camera: CellCamera, points_cell: FloatArray, normals_cell: FloatArray) -> FloatArray:
    """Lift of a camera's points along their normals per unit of each of its P parameters, (N, P)."""
    points_cam = camera.T_cell_depth.inverse() @ points_cell.astype(np.float64)
    return point_lift(camera, camera.depth.project(points_cam), points_cam[:, 2], normals_cell)


def shared_correlation(cell: Cell, first: str, second: str, points_cell: FloatArray, normals_cell: FloatArray) -> float:
    """Correlation of what the calibrations of two cameras do along the normal of points that both see.

    `J_1 Sigma_12 J_2^T` over the two standard uncertainties, the median over evenly chosen points; 0 where the cell
    holds no joint covariance.

    Args:
        cell: of the cameras.
        first: serial number of one.
        second: serial number of the other.
        points_cell: (N, 3) metres.
        normals_cell: (N, 3) unit length.
    """
    if cell.covariance is None or not len(points_cell):
        return 0.0
    some = np.arange(0, len(points_cell), max(1, len(points_cell) // SAMPLES))
    points, normals = (values.take(some, axis=0).astype(np.float64) for values in (points_cell, normals_cell))
    lifts = [calibration_jacobian(cell.camera(serial), points, normals) for serial in (first, second)]
    rows = [cell.rows_of(serial) for serial in (first, second)]
    both = np.einsum("ni,ij,nj->n", lifts[0], cell.covariance[rows[0], rows[1]], lifts[1], optimize=True)
    own = [
        np.einsum("ni,ij,nj->n", lift, cell.covariance[row, row], lift, optimize=True)
        for lift, row in zip(lifts, rows, strict=True)
    ]
    return float(np.median(both / np.sqrt(np.maximum(own[0] * own[1], 1e-30))))
