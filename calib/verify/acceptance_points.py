"""Points measured on an artefact, and how noise and calibration move what is fitted through them."""

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import Cell
from depthcell.calib.correlated_fit import noise_covariance
from depthcell.calib.propagation import point_jacobian

MOST_POINTS = 1000
"""Points that a shape is fitted through, evenly taken; noise that neighbours share is told as well by a few of them."""


@dataclass(frozen=True, slots=True, eq=False)
class SurfacePoints:
    """N measured points, of one camera or of several merged.

    Attributes:
        points_cell: (N, 3) metres, frame "cell".
        normals_cell: (N, 3) unit length, out of the material.
        sigma_m: (N,) standard uncertainty along the normal from noise.
        correlation_m: (N,) distance over which the noise of neighbours is correlated (1/e).
        share: (N, K) weight of each camera in the point; rows sum to 1.
        serials: of the K cameras.
    """

    points_cell: NDArray[np.float64]
    normals_cell: NDArray[np.float64]
    sigma_m: NDArray[np.float64]
    correlation_m: NDArray[np.float64]
    share: NDArray[np.float64]
    serials: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.points_cell)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> "SurfacePoints":
        """The points that a boolean mask or an index array (N,) chooses."""
        columns = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name != "serials"}
        return SurfacePoints(serials=self.serials, **columns)

    def thinned(self, most: int = MOST_POINTS) -> "SurfacePoints":
        """At most so many points, evenly over their order."""
        if len(self) <= most:
            return self
        return self[np.unique(np.linspace(0, len(self) - 1, most).round().astype(np.intp))]

    @property
    def noise(self) -> NDArray[np.float64]:
        """(N, N) covariance of the noise along the normals, m²: none between points of different cameras."""
        weights = self.share / np.linalg.norm(self.share, axis=1, keepdims=True)
        noise = noise_covariance(self.points_cell, self.sigma_m, self.correlation_m)
        return np.asarray(noise * (weights @ weights.T))


@dataclass(frozen=True, slots=True, eq=False)
class ShapeFit:
    """A shape fitted by least squares, linear about its solution.

    Attributes:
        parameters: (P,) of the shape, in metres.
        points: (N) that it was fitted through.
        directions: (N, 3) unit normals of the shape at the points.
        design: (N, P) how the signed distance grows with each parameter, with the sign reversed.
        gain: (P, N) by which each point's distance along `directions` enters the parameters.
        residuals_m: (N,) signed distances left, positive outside the material.
    """

    parameters: NDArray[np.float64]
    points: SurfacePoints
    directions: NDArray[np.float64]
    design: NDArray[np.float64]
    gain: NDArray[np.float64]
    residuals_m: NDArray[np.float64]

    def u_noise_m(self, combination: FloatArray) -> float:
        """Standard uncertainty of a combination (P,) of the parameters from noise (GUM 5.2.2, equation 13)."""
        weights = combination @ self.gain
        return math.sqrt(max(float(weights @ self.points.noise @ weights), 0.0))

    def per_parameter(self, combination: FloatArray, cell: Cell) -> NDArray[np.float64]:
        """How a combination (P,) of the shape's parameters moves with each parameter of the cell (sum P,)."""
        return np.asarray(combination @ self.gain @ distance_jacobian(self.points, self.directions, cell))


def linear_fit(
    parameters: FloatArray, points: SurfacePoints, directions: FloatArray, design: FloatArray, residuals_m: FloatArray
) -> ShapeFit:
    """The solution of a weighted least-squares fit with its gain `(A^T W A)⁻¹ A^T W`, W from the points' own noise.

    Raises:
        numpy.linalg.LinAlgError: the points do not determine the parameters.
    """
    weighted = design.T / np.square(points.sigma_m)
    gain = np.asarray(np.linalg.solve(weighted @ design, weighted), dtype=np.float64)
    return ShapeFit(
        parameters=np.asarray(parameters, dtype=np.float64),
        points=points,
        directions=np.asarray(directions, dtype=np.float64),
        design=np.asarray(design, dtype=np.float64),
        gain=gain,
        residuals_m=np.asarray(residuals_m, dtype=np.float64),
    )


def distance_jacobian(points: SurfacePoints, directions: FloatArray, cell: Cell) -> NDArray[np.float64]:
    """How points move along `directions` (N, 3) with every parameter of the cell, (N, sum P), in metres per unit.

    Each camera moves a merged point by its share in it, from the place at which that camera sees it.
    """
    jacobian = np.zeros((len(points), len(cell.joint_covariance)))
    for column, serial in enumerate(points.serials):
        seen = np.flatnonzero(points.share[:, column] > 0)
        if not len(seen):
            continue
        camera = cell.camera(serial)
        points_cam = camera.T_cell_depth.inverse() @ points.points_cell[seen]
        moved = point_jacobian(camera, camera.depth.project(points_cam), points_cam[:, 2])
        along = np.einsum("ni,nip->np", directions[seen], moved)
        jacobian[seen, cell.rows_of(serial)] = points.share[seen, column, None] * along
    return jacobian


def slants(points: SurfacePoints, directions: FloatArray, cell: Cell) -> NDArray[np.float64]:
    """How far noise takes points along the surface for each step out of it, (N, 3): `t = (r - (n · r) n) / (n · r)`.

    Noise acts along the ray r from the camera, the surface's normal being n; where several cameras share a point, the
    mean by their shares.
    """
    mean = np.zeros((len(points), 3))
    for column, serial in enumerate(points.serials):
        rays = points.points_cell - cell.camera(serial).T_cell_depth.translation_m
        facing = np.einsum("ij,ij->i", rays, directions)[:, None]
        mean += points.share[:, column, None] * (rays - facing * directions) / facing
    return mean


def systematic_u_m(per_parameter: FloatArray, cell: Cell) -> float:
    """Standard uncertainty that the cell's covariance gives, from `g Sigma g^T` (GUM 5.2.2, equation 13)."""
    return math.sqrt(max(float(per_parameter @ cell.joint_covariance @ per_parameter), 0.0))
