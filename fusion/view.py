"""One camera's share of a fused part: everything still on its depth grid, in the cell frame, with uncertainty."""

import math
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import CellCamera
from depthcell.fusion.coloring import colors_of
from depthcell.fusion.grid import depth_normals, edge_mask
from depthcell.fusion.region import Region, Window
from depthcell.fusion.temporal import MeanDepth, random_sigma_m
from depthcell.fusion.uncertainty import pose_variance_m2


@dataclass(frozen=True, slots=True, eq=False)
class ViewSettings:
    """How one camera's mean depth becomes a view.

    Attributes:
        region: box that holds the part; None keeps all that was measured.
        edge_margin_px: pixels dropped on both sides of a depth jump, where the matching window mixes two surfaces.
        normal_radii_px: half sizes of the large and the small window for normals.
        max_incidence_rad: surfaces that the camera sees at a flatter angle are left to the other cameras.
    """

    region: Region | None = None
    edge_margin_px: int = 3
    normal_radii_px: tuple[int, int] = (6, 3)
    max_incidence_rad: float = math.radians(75.0)


@dataclass(frozen=True, slots=True, eq=False)
class WindowedColor:
    """An averaged colour image: `rgb` (H, W, 3) uint8 covers the `window` of the colour stream."""

    rgb: NDArray[np.uint8]
    window: Window


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What one camera saw of the part, organised as the `window` (H, W) of its depth image.

    Where `valid` is False, floats are NaN and colours 0.

    Attributes:
        serial: the camera's serial number.
        window: which rectangle of the depth image the arrays are; pixel (row, column) of the sensor is
            `array[row - window.top, column - window.left]`.
        intrinsics: of the window: `intrinsics.deproject(depth_m)` gives points in the frame "depth:<serial>".
        depth_m: (H, W) float32, mean corrected z depth.
        points_cell: (H, W, 3) float32, metres, frame "cell".
        normals_cell: (H, W, 3) float32, unit length, towards the camera, frame "cell".
        random_sigma_m: (H, W) float32, standard uncertainty along the normal from noise.
        systematic_sigma_m: (H, W) float32, standard uncertainty along the normal from calibration.
        correlation_m: (H, W) float32, distance on the surface over which neighbours' noise is correlated (1/e).
        colors: (H, W, 3) uint8, 0 where `colored` is False.
        colored: (H, W) bool, the colour camera saw this point.
        valid: (H, W) bool, measured, not mixed, with a normal, not too oblique, inside the region.
        frames: depth frames that were averaged.
        color_image: the averaged colour image itself, whether depth was measured there or not; None without colour.
    """

    serial: str
    window: Window
    intrinsics: Intrinsics
    depth_m: NDArray[np.float32]
    points_cell: NDArray[np.float32]
    normals_cell: NDArray[np.float32]
    random_sigma_m: NDArray[np.float32]
    systematic_sigma_m: NDArray[np.float32]
    correlation_m: NDArray[np.float32]
    colors: NDArray[np.uint8]
    colored: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    frames: int
    color_image: WindowedColor | None = None


def build_view(
    camera: CellCamera, mean: MeanDepth, color: WindowedColor | None, settings: ViewSettings | None = None
) -> View:
    """The one geometric pass over a camera's averaged depth.

    Per point, with normal n and ray r = (x, y, 1), a depth error dz moves the point by r dz, and so its surface by c dz
    with c = |n · r|. Its standard uncertainty along the normal has two parts:

    - random: `c u(z)`, with u(z) of `temporal.random_sigma_m` (scatter over frames, fixed pattern, quantisation);
    - systematic: `sqrt(c² u_corr(z)² + J Sigma J^T)`, from what the depth correction leaves
      (`CellCamera.systematic_sigma_m`) and from the camera's pose in the cell (`uncertainty.pose_variance_m2`), which
      are independent and add in quadrature (GUM 5.1.2).

    Args:
        camera: as the cell knows it.
        mean: its averaged depth.
        color: its averaged colour; None leaves the view black.
        settings: what to keep.
    """
    settings = settings or ViewSettings()
    intrinsics = mean.window.intrinsics(camera.depth)
    depth_m, sigma_z_m = _corrected(camera, mean)
    usable = np.isfinite(depth_m) & ~edge_mask(depth_m, intrinsics, sigma_z_m, settings.edge_margin_px)
    normals_cam = depth_normals(depth_m, intrinsics, usable, sigma_z_m, settings.normal_radii_px)
    patches = _worth_keeping(_patches(camera, intrinsics, depth_m, normals_cam), settings)
    colors, colored = _painted(camera, intrinsics, depth_m, color)

    valid = np.zeros(depth_m.shape, np.bool_)
    valid.ravel()[patches.pixel] = True
    colored &= valid

    def on_grid(column: FloatArray) -> NDArray[np.float32]:
        grid = np.full((valid.size, *column.shape[1:]), np.nan, np.float32)
        grid[patches.pixel] = column
        return grid.reshape(*valid.shape, *column.shape[1:])

    return View(
        serial=camera.serial,
        window=mean.window,
        intrinsics=intrinsics,
        depth_m=on_grid(patches.z_m),
        points_cell=on_grid(patches.points_cell),
        normals_cell=on_grid(patches.normals_cell),
        random_sigma_m=on_grid(patches.facing * sigma_z_m.ravel()[patches.pixel]),
        systematic_sigma_m=on_grid(_systematic_sigma_m(camera, patches)),
        correlation_m=on_grid(_correlation_m(camera, patches)),
        colors=cv2.bitwise_and(colors, colors, mask=colored.astype(np.uint8)).astype(np.uint8, copy=False),
        colored=colored,
        valid=valid,
        frames=mean.frames,
        color_image=color,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Patches:
    """Surface patches as columns (N, ...).

    `pixel` counts along the window's rows; `facing` is the motion along the normal per change of z, positive.
    """

    pixel: NDArray[np.intp]
    z_m: FloatArray
    points_cell: FloatArray
    normals_cell: FloatArray
    facing: FloatArray
    cos_incidence: FloatArray


def _corrected(camera: CellCamera, mean: MeanDepth) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Corrected mean depth and its random uncertainty: `z' = s fB / (fB/z + o)` has the slope `(z'/z)² / s`."""
    depth_m = camera.corrected(mean.mean_m).astype(np.float32, copy=False)
    slope = np.square(depth_m / mean.mean_m) / np.float32(camera.correction.scale)
    return depth_m, (random_sigma_m(mean, camera) * slope).astype(np.float32, copy=False)


def _patches(
    camera: CellCamera, intrinsics: Intrinsics, depth_m: NDArray[np.float32], normals_cam: NDArray[np.float32]
) -> _Patches:
    """All pixels that have a normal."""
    pixel = np.flatnonzero(np.isfinite(normals_cam[..., 0]))
    rays = intrinsics.rays().reshape(-1, 3).take(pixel, axis=0)
    normals = normals_cam.reshape(-1, 3).take(pixel, axis=0)
    z_m = depth_m.ravel()[pixel]
    facing = -np.einsum("ij,ij->i", normals, rays)
    return _Patches(
        pixel=pixel,
        z_m=z_m,
        points_cell=camera.T_cell_depth @ (rays * z_m[:, None]),
        normals_cell=camera.T_cell_depth.rotate(normals),
        facing=facing,
        cos_incidence=facing / np.sqrt(np.einsum("ij,ij->i", rays, rays)),
    )


def _worth_keeping(patches: _Patches, settings: ViewSettings) -> _Patches:
    """Those seen steeply enough that lie in the region."""
    keep = patches.cos_incidence >= math.cos(settings.max_incidence_rad)
    if settings.region is not None:
        keep &= settings.region.contains(patches.points_cell)
    numbers = np.flatnonzero(keep)
    return _Patches(*(getattr(patches, field.name).take(numbers, axis=0) for field in fields(patches)))


def _systematic_sigma_m(camera: CellCamera, patches: _Patches) -> FloatArray:
    """Along the normal (N,): what the depth correction leaves, and the camera's pose in the cell (GUM 5.1.2)."""
    depth_m2 = np.square(patches.facing * camera.systematic_sigma_m(patches.z_m))
    return np.sqrt(depth_m2 + pose_variance_m2(patches.points_cell, patches.normals_cell, camera.pose_covariance))


def _correlation_m(camera: CellCamera, patches: _Patches) -> FloatArray:
    """The sensor's correlation distance laid on the surface (N,).

    A surface seen at incidence theta is stretched by 1 / cos(theta) along one direction; the circle of equal area has
    its radius times 1 / sqrt(cos(theta)).
    """
    footprint_m = patches.z_m / np.float32(camera.depth.fx_px)
    return np.asarray(camera.noise.correlation_px * footprint_m / np.sqrt(patches.cos_incidence))


def _painted(
    camera: CellCamera, intrinsics: Intrinsics, depth_m: NDArray[np.float32], color: WindowedColor | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Colours (H, W, 3) and where they were seen (H, W); everything that was measured may hide something."""
    colors = np.zeros((*depth_m.shape, 3), np.uint8)
    colored = np.zeros(depth_m.shape, np.bool_)
    if color is None or camera.color is None or camera.T_color_depth is None:
        return colors, colored
    color_intrinsics = color.window.intrinsics(camera.color)
    if color_intrinsics == intrinsics and np.array_equal(camera.T_color_depth.matrix, np.eye(4)):
        return color.rgb, np.isfinite(depth_m)  # a D405: colour comes from the imager that depth refers to
    pixel = np.flatnonzero(np.isfinite(depth_m))
    points_cam = intrinsics.rays().reshape(-1, 3).take(pixel, axis=0) * depth_m.ravel()[pixel][:, None]
    footprint_m = float(np.median(depth_m.ravel()[pixel])) / intrinsics.fx_px if len(pixel) else 0.0
    found, seen = colors_of(camera.T_color_depth @ points_cam, color.rgb, color_intrinsics, footprint_m)
    colors.reshape(-1, 3)[pixel] = found
    colored.ravel()[pixel] = seen
    return colors, colored
