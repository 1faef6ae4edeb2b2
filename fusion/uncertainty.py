"""How the uncertainty of depth and of poses acts on a point: along the surface normal, where deviation is judged."""

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray


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
