"""Uncertainty at the part: what a measured point is worth anywhere in the work volume, before any part is measured.

A camera's error at a point has two parts (GUM 5.2.2, in matrix form JCGM 102, 6.2.1.3): `J Sigma J^T` from the
calibration, with J of `propagation.point_jacobian` and Sigma the cell's joint covariance, so that what two cameras have
in common stays in common; and noise along the ray r, `r r^T u_z²`, with `u_z = z² / (s f B) sqrt(temporal² / n +
fixed²)` for the mean of n frames. Several cameras are combined as fusion combines them, by inverse variance, each
weighing with the trace of its covariance: `C = sum_ij w_i w_j C_ij`.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import Cell, CellCamera
from depthcell.calib.certify.certificate_content import PartUncertainty
from depthcell.calib.depthcorrection import FULL_DISPARITY_PX
from depthcell.calib.propagation import point_jacobian
from depthcell.errors import DepthcellError


@dataclass(frozen=True, slots=True)
class MapSettings:
    """What a point is measured with.

    Attributes:
        frames: depth frames that are averaged.
        margin_px: width of the border of the depth image that is not counted on.
        serials: the cameras that are asked; None for all of the cell.
    """

    frames: int = 30
    margin_px: float = 8.0
    serials: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise DepthcellError(f"uncertainty map: frames must be at least 1, got {self.frames}")


@dataclass(frozen=True, eq=False)
class PointUncertainty:
    """What points are known to.

    Attributes:
        points_cell: (N, 3) metres, frame "cell".
        systematic_m2: (N, 3, 3), from the calibration; NaN where no camera sees the point.
        random_m2: (N, 3, 3), from noise; NaN likewise.
        weights: (cameras, N), share of each camera in each point; 0 where it does not see it.
        serials: of the cameras.
    """

    points_cell: NDArray[np.float64]
    systematic_m2: NDArray[np.float64]
    random_m2: NDArray[np.float64]
    weights: NDArray[np.float64]
    serials: tuple[str, ...]

    @property
    def cameras(self) -> NDArray[np.int64]:
        """How many cameras see each point, (N,)."""
        return np.asarray((self.weights > 0).sum(axis=0), np.int64)

    @cached_property
    def covariance_m2(self) -> NDArray[np.float64]:
        """All together, (N, 3, 3); calibration and noise are independent (GUM 5.1.2)."""
        return self.systematic_m2 + self.random_m2

    @cached_property
    def u_largest_mm(self) -> NDArray[np.float64]:
        """Standard uncertainty along the direction in which it is largest, (N,) mm; NaN where unseen."""
        largest = np.full(len(self.points_cell), np.nan)
        seen = self.cameras > 0
        largest[seen] = 1e3 * np.sqrt(np.linalg.eigvalsh(self.covariance_m2[seen])[:, -1])
        return largest

    @property
    def u_xyz_mm(self) -> NDArray[np.float64]:
        """Standard uncertainty along the cell's axes, (N, 3) mm; NaN where unseen."""
        return np.asarray(1e3 * np.sqrt(np.einsum("nii->ni", self.covariance_m2)))

    def u_along_mm(self, directions_cell: FloatArray) -> NDArray[np.float64]:
        """Standard uncertainty along unit vectors (3,) or (N, 3), such as normals of the part: (N,) mm."""
        n = np.broadcast_to(np.asarray(directions_cell, np.float64), self.points_cell.shape)
        return np.asarray(1e3 * np.sqrt(np.einsum("ni,nij,nj->n", n, self.covariance_m2, n)))


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A box in the frame "cell", edges along its axes: where parts lie.

    Attributes:
        low_m, high_m: (3,) metres, two opposite corners.
    """

    low_m: NDArray[np.float64]
    high_m: NDArray[np.float64]

    def __post_init__(self) -> None:
        corners = np.stack((self.low_m, self.high_m))
        if corners.shape != (2, 3) or not np.isfinite(corners).all() or not (self.high_m > self.low_m).all():
            raise DepthcellError("work volume: its high corner must lie above its low corner along each axis")

    @classmethod
    def around(cls, points_cell: FloatArray, margin_m: float = 0.0) -> "Volume":
        """The smallest box that holds points (N, 3), such as the corners of all boards, and a margin."""
        points = np.asarray(points_cell, np.float64).reshape(-1, 3)
        return cls(points.min(axis=0) - margin_m, points.max(axis=0) + margin_m)

    def grid(self, steps: tuple[int, int, int]) -> NDArray[np.float64]:
        """Points (nx, ny, nz, 3) that fill the box evenly, its faces included; one step is its middle."""
        axes = [
            np.linspace(low, high, count) if count > 1 else np.array([(low + high) / 2])
            for low, high, count in zip(self.low_m, self.high_m, steps, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


@dataclass(frozen=True, slots=True, eq=False)
class UncertaintyMap:
    """Uncertainty on a grid of the work volume.

    Attributes:
        volume: the box.
        shape: points along x, y and z of the cell.
        points: of all grid points, x slowest.
        frames: averaged in it.
    """

    volume: Volume
    shape: tuple[int, int, int]
    points: PointUncertainty
    frames: int

    def slices_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Heights (nz,) in metres, and the largest standard uncertainty on each: (nz, ny, nx) mm, NaN where unseen."""
        heights_m = self.points.points_cell.reshape(*self.shape, 3)[0, 0, :, 2]
        return heights_m, self.points.u_largest_mm.reshape(self.shape).transpose(2, 1, 0)


def uncertainty_map(
    cell: Cell, volume: Volume, steps: tuple[int, int, int] = (25, 25, 3), settings: MapSettings | None = None
) -> UncertaintyMap:
    """Uncertainty on a grid of `steps` points along x, y, z of a volume."""
    settings = settings or MapSettings()
    points_cell = volume.grid(steps).reshape(-1, 3)
    return UncertaintyMap(volume, steps, point_uncertainty(cell, points_cell, settings), settings.frames)


def point_uncertainty(cell: Cell, points_cell: FloatArray, settings: MapSettings | None = None) -> PointUncertainty:
    """Uncertainty of what the cell measures at points (N, 3) in metres, frame "cell", if nothing hides them.

    Raises:
        DepthcellError: the settings name a camera that the cell does not have.
    """
    settings = settings or MapSettings()
    points_cell = np.asarray(points_cell, np.float64).reshape(-1, 3)
    serials = settings.serials or tuple(cell.cameras)
    shares = [_share(cell.camera(serial), points_cell, settings) for serial in serials]
    weights = np.stack([_inverse_trace(cell, serial, one) for serial, one in zip(serials, shares, strict=True)])
    total = weights.sum(axis=0)
    seen = total > 0
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=seen)
    systematic, noise = np.full((2, len(points_cell), 3, 3), np.nan)
    systematic[seen], noise[seen] = 0.0, 0.0
    for a, b in itertools.product(range(len(serials)), repeat=2):
        both = (weights[a] > 0) & (weights[b] > 0)
        if not both.any():
            continue
        joint = cell.joint_covariance[cell.rows_of(serials[a]), cell.rows_of(serials[b])]
        weight = (weights[a] * weights[b])[both, None, None]
        systematic[both] += weight * np.einsum(
            "nip,pq,njq->nij", shares[a].jacobian[both], joint, shares[b].jacobian[both], optimize=True
        )
        if a == b:
            noise[both] += weight * shares[a].noise_m2[both]
    return PointUncertainty(points_cell, systematic, noise, weights, serials)


def sees(camera: CellCamera, points_cell: FloatArray, margin_px: float) -> NDArray[np.bool_]:
    """Which points (N, 3) fall on the depth image, `margin_px` within its border, and not too near to be measured.

    Too near is where disparity passes the search range: Min-Z = f B / 126.
    """
    points_cam = camera.T_cell_depth.inverse() @ np.asarray(points_cell, np.float64)
    pixels = camera.depth.project(points_cam)
    size = (camera.depth.width_px, camera.depth.height_px)
    with np.errstate(invalid="ignore"):
        inside = np.asarray(((pixels >= margin_px) & (pixels <= np.subtract(size, 1) - margin_px)).all(axis=1))
    back = camera.depth.normalized(np.where(inside[:, None], pixels, 0.0))  # a lens may fold what is far outside
    ideal = points_cam[:, :2] / np.where(inside, points_cam[:, 2], 1.0)[:, None]
    inside &= np.abs(back - ideal).max(axis=1) < 1e-3
    return np.asarray(inside & (points_cam[:, 2] * FULL_DISPARITY_PX >= camera.focal_baseline_m))


def part_uncertainties(cell: Cell, found: UncertaintyMap) -> tuple[PartUncertainty, ...]:
    """The map in three lines for a certificate: middle of the volume, median and worst of the points that are seen.

    Raises:
        DepthcellError: no camera sees any of the volume.
    """
    largest = found.points.u_largest_mm
    seen = np.flatnonzero(np.isfinite(largest))
    if not len(seen):
        raise DepthcellError(
            f"work volume: no camera of cell '{cell.name}' sees it; its corners are {_corners_mm(found.volume)}"
        )
    ordered = seen[np.argsort(largest[seen], kind="stable")]
    middle = (found.volume.low_m + found.volume.high_m) / 2
    at_middle = point_uncertainty(cell, middle, MapSettings(found.frames, serials=found.points.serials))
    rows = [_row("middle of the work volume", at_middle, 0)] if at_middle.cameras[0] else []
    share = f"{100 * len(seen) / len(largest):.0f} % of it is seen"
    rows.append(_row(f"median of the work volume ({share})", found.points, int(ordered[(len(ordered) - 1) // 2])))
    rows.append(_row("worst place seen", found.points, int(ordered[-1])))
    return tuple(rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Share:
    """One camera's: `seen` (N,), Jacobian (N, 3, P) and noise (N, 3, 3), zero where unseen."""

    seen: NDArray[np.bool_]
    jacobian: NDArray[np.float64]
    noise_m2: NDArray[np.float64]


def _share(camera: CellCamera, points_cell: NDArray[np.float64], settings: MapSettings) -> _Share:
    seen = sees(camera, points_cell, settings.margin_px)
    points_cam = camera.T_cell_depth.inverse() @ points_cell[seen]
    z_m = points_cam[:, 2]
    jacobian = np.zeros((len(points_cell), 3, len(camera.parameter_names)))
    jacobian[seen] = point_jacobian(camera, camera.depth.project(points_cam), z_m)
    sigma_px = float(np.hypot(camera.noise.temporal_px / np.sqrt(settings.frames), camera.noise.fixed_px))
    sigma_m = camera.depth_sigma_m(z_m, sigma_px) / camera.correction.scale
    along = camera.T_cell_depth.rotate(points_cam / z_m[:, None]) * sigma_m[:, None]
    noise_m2 = np.zeros((len(points_cell), 3, 3))
    noise_m2[seen] = along[:, :, None] * along[:, None, :]
    return _Share(seen, jacobian, noise_m2)


def _inverse_trace(cell: Cell, serial: str, share: _Share) -> NDArray[np.float64]:
    covariance = cell.joint_covariance[cell.rows_of(serial), cell.rows_of(serial)]
    trace = np.einsum("nip,pq,niq->n", share.jacobian, covariance, share.jacobian, optimize=True)
    trace = trace + np.einsum("nii->n", share.noise_m2)
    floor = 1e-20  # m²: a camera without any uncertainty is still only a camera
    return np.asarray(np.where(share.seen, 1 / np.maximum(trace, floor), 0.0))


def _row(place: str, points: PointUncertainty, index: int) -> PartUncertainty:
    x, y, z = 1e3 * points.points_cell[index]
    ux, uy, uz = points.u_xyz_mm[index]
    return PartUncertainty(
        place=place,
        point_mm=(float(x), float(y), float(z)),
        u_xyz_mm=(float(ux), float(uy), float(uz)),
        u_largest_mm=float(points.u_largest_mm[index]),
        cameras=int(points.cameras[index]),
    )


def _corners_mm(volume: Volume) -> str:
    return " and ".join(str(tuple(np.round(1e3 * corner, 1).tolist())) for corner in (volume.low_m, volume.high_m))
