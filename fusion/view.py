"""One camera's share of a fused part: everything still on its depth grid, in the cell frame, with uncertainty."""

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import CellCamera
from depthcell.calib.depthcorrection import FULL_DISPARITY_PX, DepthCorrection
from depthcell.fusion.calibrationvariance import normal_variance_m2
from depthcell.fusion.coloring import colors_of
from depthcell.fusion.grid import edge_mask, normals_at
from depthcell.fusion.region import Region, Window
from depthcell.fusion.temporal import MeanDepth, random_sigma_m


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
    camera: CellCamera,
    mean: MeanDepth,
    color: WindowedColor | None,
    settings: ViewSettings | None = None,
    temperature_c: float | None = None,
) -> View:
    """The one geometric pass over a camera's averaged depth.

    Per point, with normal n and ray r = (x, y, 1), a depth error dz moves the point by r dz, and so its surface by c dz
    with c = |n · r|. Its standard uncertainty along the normal has two parts:

    - random: `c u(z)`, with u(z) of `temporal.random_sigma_m` (scatter over frames, fixed pattern, quantisation);
    - systematic: `sqrt(n · J Sigma J^T n)`, with Sigma the covariance of all that the cell states of the camera: its
      pose, its lens and its depth correction (`calibrationvariance.normal_variance_m2`).

    Args:
        camera: as the cell knows it.
        mean: its averaged depth.
        color: its averaged colour; None leaves the view black.
        settings: what to keep.
        temperature_c: of the camera; None where nobody knows.
    """
    settings = settings or ViewSettings()
    intrinsics = mean.window.intrinsics(camera.depth)
    depth_m, slope = _corrected(camera, mean, temperature_c)
    sigma_z_m = random_sigma_m(mean, camera) * slope
    usable = np.isfinite(depth_m) & ~edge_mask(depth_m, intrinsics, sigma_z_m, settings.edge_margin_px)
    wanted = usable
    if settings.region is not None:
        wanted = usable & settings.region.may_contain(depth_m, intrinsics.rays(), camera.T_cell_depth)
    found = normals_at(depth_m, intrinsics, usable, sigma_z_m, settings.normal_radii_px, wanted)
    patches = _worth_keeping(_patches(camera, intrinsics, depth_m, *found), settings)
    if camera.noise.incidence_growth:
        sigma_z_m = random_sigma_m(mean, camera, _tan2_incidence(patches, depth_m.shape)) * slope
    colors, colored = _painted(camera, intrinsics, depth_m, color)

    valid = np.zeros(depth_m.shape, np.bool_)
    valid.ravel()[patches.pixel] = True
    colored &= valid

    def on_grid(column: FloatArray) -> NDArray[np.float32]:
        grid = np.full((valid.size, *column.shape[1:]), np.nan, np.float32)
        grid[patches.pixel] = column
        return grid.reshape(*valid.shape, *column.shape[1:])

    seen_m, normals_cell = on_grid(patches.z_m), on_grid(patches.normals_cell)
    return View(
        serial=camera.serial,
        window=mean.window,
        intrinsics=intrinsics,
        depth_m=seen_m,
        points_cell=on_grid(patches.points_cell),
        normals_cell=normals_cell,
        random_sigma_m=on_grid(patches.facing * sigma_z_m.ravel()[patches.pixel]),
        systematic_sigma_m=np.sqrt(normal_variance_m2(camera, mean.window, seen_m, normals_cell)),
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


def _corrected(
    camera: CellCamera, mean: MeanDepth, temperature_c: float | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Corrected mean depth, and its slope with depth as read: what `CellCamera.corrected` does, on a window.

    With `z = s fB / D` and `D = d + offset + curvature (d / 126)² + W`, `dz/dz_read = (z / z_read)² D' / s`, where
    `D' = 1 + 2 curvature d / 126²`.
    """
    correction, read_m = camera.correction, mean.mean_m
    if correction == DepthCorrection():
        return read_m, np.ones((1, 1), np.float32)
    scale, full_px = np.float32(correction.scale_at(temperature_c)), np.float32(FULL_DISPARITY_PX)
    focal_baseline_m = np.float32(camera.focal_baseline_m)
    disparity_px = focal_baseline_m / read_m
    growth = 1 + disparity_px * np.float32(2 * correction.curvature_px / full_px**2)
    added_px = np.square(disparity_px) * np.float32(correction.curvature_px / full_px**2)
    added_px += _wave_and_offset_px(camera, mean.window)
    depth_m = scale * focal_baseline_m / (disparity_px + added_px)
    return depth_m, np.square(depth_m / read_m) * (growth / scale)


@lru_cache(maxsize=32)
def _wave_and_offset_px(camera: CellCamera, window: Window) -> NDArray[np.float32]:
    """What the correction adds to disparity whatever its size, (H, W) float32."""
    columns, rows = np.arange(window.left, window.right, 1.0), np.arange(window.top, window.bottom, 1.0)
    wave_px = camera.correction.wave_at(camera.depth, columns[None, :], rows[:, None])
    return np.asarray(wave_px + camera.correction.disparity_offset_px, dtype=np.float32)


def _patches(
    camera: CellCamera,
    intrinsics: Intrinsics,
    depth_m: NDArray[np.float32],
    pixel: NDArray[np.intp],
    normals_cam: NDArray[np.float32],
) -> _Patches:
    """Pixels that have a normal."""
    rays = intrinsics.rays().reshape(-1, 3).take(pixel, axis=0)
    z_m = depth_m.ravel().take(pixel)
    facing = -np.einsum("ij,ij->i", normals_cam, rays)
    return _Patches(
        pixel=pixel,
        z_m=z_m,
        points_cell=camera.T_cell_depth @ (rays * z_m[:, None]),
        normals_cell=camera.T_cell_depth.rotate(normals_cam),
        facing=facing,
        cos_incidence=facing / np.sqrt(np.einsum("ij,ij->i", rays, rays)),
    )


def _tan2_incidence(patches: _Patches, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Square of the tangent of the angle between ray and normal, (H, W); 0 without a normal."""
    tan2 = np.zeros(shape, np.float32)
    tan2.ravel()[patches.pixel] = 1 / np.maximum(np.square(patches.cos_incidence), np.float32(1e-3)) - 1
    return tan2


def _worth_keeping(patches: _Patches, settings: ViewSettings) -> _Patches:
    """Those seen steeply enough that lie in the region."""
    keep = patches.cos_incidence >= math.cos(settings.max_incidence_rad)
    if settings.region is not None:
        keep &= settings.region.contains(patches.points_cell)
    numbers = np.flatnonzero(keep)
    return _Patches(*(getattr(patches, field.name).take(numbers, axis=0) for field in fields(patches)))


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
