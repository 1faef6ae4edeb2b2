"""From what a cell does not know exactly to what that does to a point: GUM 5.2.2, in matrix form JCGM 102, 6.2.1.3."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray
from depthcell.calib.adjustment.lens import SUPPORTED, Sight, lens_from_vector, lens_vector, sight_of
from depthcell.calib.cell import CellCamera
from depthcell.calib.depthcorrection import FULL_DISPARITY_PX, wave_coordinates


def point_jacobian(camera: CellCamera, pixels: FloatArray, depth_m: FloatArray) -> NDArray[np.float64]:
    """How points in the cell move with each parameter of their camera, (N, 3, P) in metres per unit of the parameter.

    The map is the whole one from depth as read to the cell: `d = fx B / z_read`, `z = s fx B / D` with
    `D = d + offset + curvature (d / 126)² + W`, `p = T_cell_depth @ (z ray(pixel))`. What the sensor read is held, so
    the focal length acts on the ray, on d and on z. With `D' = 1 + 2 curvature d / 126²`:

    - `dz/dscale = z / s`; `dz/doffset = -z² / (s fx B)`, times `(d / 126)²` or a term of W for the others;
    - `dz/dfx = z / fx (1 - D' d / D)`, zero for a correction that adds nothing to disparity;
    - a ray turns with the lens as its pixel is held, see `lens.sight_of`;
    - a pose moves it by `omega x p + t`, see `RigidTransform.perturbed`.

    Args:
        camera: whose `parameter_names` the last axis follows.
        pixels: (N, 2) in the depth image, (column, row).
        depth_m: (N,) corrected depth there, at the temperature of the calibration.
    """
    points_cell, in_camera = _slopes_in_camera(camera, pixels, depth_m)
    jacobian = np.empty((len(points_cell), 3, len(camera.parameter_names)))
    jacobian[:, :, :3] = -_cross_matrices(points_cell)
    jacobian[:, :, 3:6] = np.eye(3)
    jacobian[:, :, 6:] = np.einsum("ij,njp->nip", camera.T_cell_depth.rotation, in_camera)
    return jacobian


def point_lift(
    camera: CellCamera, pixels: FloatArray, depth_m: FloatArray, normals_cell: FloatArray
) -> NDArray[np.float64]:
    """`n^T J` of `point_jacobian` for a direction n of each point (N, 3), (N, P), in two thirds of the time."""
    points_cell, in_camera = _slopes_in_camera(camera, pixels, depth_m)
    normals = np.asarray(normals_cell, dtype=np.float64)
    lift = np.empty((len(points_cell), len(camera.parameter_names)))
    lift[:, :3], lift[:, 3:6] = np.cross(points_cell, normals), normals  # n . (omega x p) = omega . (p x n)
    lift[:, 6:] = np.einsum("ni,nip->np", normals @ camera.T_cell_depth.rotation, in_camera)
    return lift


def _slopes_in_camera(
    camera: CellCamera, pixels: FloatArray, depth_m: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points (N, 3) in the cell, and their slopes (N, 3, P - 6) with lens and correction in the camera's frame."""
    z_m = np.asarray(depth_m, dtype=np.float64)
    places = np.asarray(pixels, dtype=np.float64)
    sight = _sight(camera.depth, places)
    rays = np.column_stack((sight.ideal, np.ones(len(z_m))))
    points_cell = (rays * z_m[:, None]) @ camera.T_cell_depth.rotation.T + camera.T_cell_depth.translation_m
    in_camera = np.zeros((len(z_m), 3, len(camera.parameter_names) - 6))
    lens_size = sight.by_lens.shape[2]
    in_camera[:, :2, :lens_size] = sight.by_lens * z_m[:, None, None]
    per_fx, per_correction = _depth_slopes(camera, places, z_m)
    in_camera[:, :, 0] += rays * per_fx[:, None]
    in_camera[:, :, lens_size:] = rays[:, :, None] * per_correction[:, None, :]
    return points_cell, in_camera


def point_covariance(camera: CellCamera, pixels: FloatArray, depth_m: FloatArray) -> NDArray[np.float64]:
    """Covariance (N, 3, 3) in m² that the calibration gives points in the cell: `J Sigma J^T`; arguments as above."""
    jacobian = point_jacobian(camera, pixels, depth_m)
    return np.asarray(np.matmul(jacobian @ camera.covariance, jacobian.transpose(0, 2, 1)))


def depth_sigma_m(camera: CellCamera, pixels: FloatArray, depth_m: FloatArray) -> NDArray[np.float64]:
    """Standard uncertainty (N,) in metres that the depth correction alone leaves in corrected depth."""
    places, z_m = np.asarray(pixels, dtype=np.float64), np.asarray(depth_m, dtype=np.float64)
    slopes = _depth_slopes(camera, places, z_m)[1]
    covariance = camera.covariance_of(*camera.correction.parameter_names)
    return np.asarray(np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", slopes, covariance, slopes), 0)))


def read_disparity_px(camera: CellCamera, pixels: FloatArray, depth_m: FloatArray) -> NDArray[np.float64]:
    """Disparity as read (N,) of places whose corrected depth is `depth_m`: `DepthCorrection` backwards.

    Of the two roots of `c (d / 126)² + d = s f B / z - offset - W` it is the one that stays finite as c goes to zero.
    """
    correction = camera.correction
    plain = replace(correction, curvature_px=0.0)
    linear = correction.scale * camera.focal_baseline_m / np.asarray(depth_m, dtype=np.float64)
    linear = linear - plain.added_px(camera.depth, linear, pixels)
    root = np.sqrt(np.maximum(1 + 4 * correction.curvature_px / FULL_DISPARITY_PX**2 * linear, 0))
    return np.asarray(2 * linear / (1 + root))


def _sight(intrinsics: Intrinsics, pixels: NDArray[np.float64]) -> Sight:
    """Where pixels look, and how that turns with the lens; by central differences for librealsense's own models."""
    if intrinsics.distortion in SUPPORTED:
        return sight_of(lens_vector(intrinsics), pixels)
    pinhole = (intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px)
    lens = np.array((*pinhole, *intrinsics.coefficients))
    slopes = np.empty((len(pixels), 2, len(lens)))
    for place, step in enumerate([1e-3] * 4 + [1e-5] * len(intrinsics.coefficients)):
        change = step * np.eye(len(lens))[place]
        ahead, back = (lens_from_vector(lens + sign * change, intrinsics).normalized(pixels) for sign in (1, -1))
        slopes[:, :, place] = (ahead - back) / (2 * step)
    return Sight(intrinsics.normalized(pixels), slopes)


def _depth_slopes(
    camera: CellCamera, pixels: NDArray[np.float64], z_m: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope of corrected depth with fx (N,), and with the correction's parameters (N, K)."""
    correction, focal_baseline_m = camera.correction, camera.focal_baseline_m
    read_px = read_disparity_px(camera, pixels, z_m)
    corrected_px = correction.scale * focal_baseline_m / z_m
    growth = 1 + 2 * correction.curvature_px * read_px / FULL_DISPARITY_PX**2
    per_px = -z_m / corrected_px
    slopes = np.empty((len(z_m), len(correction.parameter_names)))
    slopes[:, 0] = z_m / correction.scale
    slopes[:, 1] = per_px
    slopes[:, 2] = per_px * np.square(read_px / FULL_DISPARITY_PX)
    if correction.wave_px:
        shape = (len(correction.wave_px), len(correction.wave_px[0]))
        slopes[:, 3:] = per_px[:, None] * wave_terms(camera.depth, pixels, shape)
    return z_m / camera.depth.fx_px * (1 - growth * read_px / corrected_px), slopes


def wave_terms(intrinsics: Intrinsics, pixels: FloatArray, shape: tuple[int, int]) -> NDArray[np.float64]:
    """`T_i(y) T_j(x)` at pixels (N, 2) for a wave table of this shape, (N, rows * columns - 1), the first left out."""
    x, y = wave_coordinates(intrinsics, pixels[:, 0], pixels[:, 1])
    down = np.polynomial.chebyshev.chebvander(y, shape[0] - 1)
    across = np.polynomial.chebyshev.chebvander(x, shape[1] - 1)
    return np.asarray((down[:, :, None] * across[:, None, :]).reshape(len(pixels), shape[0] * shape[1])[:, 1:])


def _cross_matrices(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3, 3) such that `matrix @ w` is `vector x w`."""
    matrices = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    matrices[:, 0, 1], matrices[:, 0, 2], matrices[:, 1, 2] = -z, y, -x
    return matrices - matrices.transpose(0, 2, 1)
