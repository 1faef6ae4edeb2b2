"""Artefacts as the cameras of a small cell measure them, in memory: exact shapes, correlated noise, an erring cell."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import CameraFrame, DepthImage, FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.rig import looking_at
from depthcell.acquisition.simulator.stereo import correlated_noise
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise, camera_covariance
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.verify.acceptance_points import SurfacePoints

SERIALS = ("1001", "1002", "1003")
NOISE = DisparityNoise(temporal_px=0.0, fixed_px=0.03, correlation_px=3.0)
STAND_OFF_M = 0.45
COS_FLATTEST = 0.5

Surface = Callable[[FloatArray, FloatArray], NDArray[np.float64]]
"""From an origin (3,) and directions (H, W, 3) to how far along them the surface is, NaN where it is not."""


def scene_camera(serial: str, azimuth_deg: float, u_scale: float = 3e-4) -> CellCamera:
    """A D415-like camera at a quarter of its resolution, tilted by 25 degrees."""
    azimuth, tilt = np.radians((azimuth_deg, 25.0))
    outward = np.array([np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), np.cos(tilt)])
    depth = Intrinsics(320, 240, 430.0, 430.0, 159.5, 119.5)
    pose = np.diag([2e-4**2] * 3 + [1e-4**2] * 3)
    u = {"scale": u_scale, "disparity_offset_px": 0.02, "fx_px": 0.2, "cx_px": 0.3}
    return CellCamera(
        serial=serial,
        model="Intel RealSense D415",
        depth=depth,
        color=None,
        T_cell_depth=looking_at(serial, np.zeros(3), STAND_OFF_M * outward),
        covariance=camera_covariance(pose, depth, DepthCorrection(), u),
        T_color_depth=None,
        baseline_m=0.055,
        noise=NOISE,
    )


def scene_cell(serials: tuple[str, ...] = SERIALS) -> Cell:
    """Cameras around the place of the artefact."""
    cameras = {serial: scene_camera(serial, 20.0 + 120.0 * number) for number, serial in enumerate(serials)}
    return Cell("artefact cell", cameras, "2026-01-02T03:04:05Z")


def erring_cell(cell: Cell, rng: np.random.Generator) -> Cell:
    """The cell as it may truly be: every parameter drawn from its covariance."""
    return Cell(cell.name, {s: _erring(camera, rng) for s, camera in cell.cameras.items()}, cell.calibrated_at)


def _erring(camera: CellCamera, rng: np.random.Generator) -> CellCamera:
    names = camera.parameter_names
    draw = dict(zip(names, rng.multivariate_normal(np.zeros(len(names)), camera.covariance), strict=True))
    depth = camera.depth
    return replace(
        camera,
        T_cell_depth=camera.T_cell_depth.perturbed(np.array([draw[name] for name in names[:6]])),
        depth=replace(depth, fx_px=depth.fx_px + draw["fx_px"], cx_px=depth.cx_px + draw["cx_px"]),
        correction=DepthCorrection(1 + draw["scale"], draw["disparity_offset_px"]),
    )


def sphere(centre_cell: tuple[float, float, float], diameter_m: float) -> Surface:
    """A ball."""

    def reach(origin: FloatArray, directions: FloatArray) -> NDArray[np.float64]:
        offset = origin - np.array(centre_cell)
        square = np.einsum("hwk,hwk->hw", directions, directions)
        half = directions @ offset / square
        inside = half**2 - (offset @ offset - diameter_m**2 / 4) / square
        with np.errstate(invalid="ignore"):
            return np.asarray(-half - np.sqrt(inside))

    return reach


def plate(T_cell_plate: RigidTransform, size_m: tuple[float, float]) -> Surface:
    """A rectangle in the plane z = 0 of its own frame, about the origin."""

    def reach(origin: FloatArray, directions: FloatArray) -> NDArray[np.float64]:
        T_plate_cell = T_cell_plate.inverse()
        start, along = T_plate_cell @ origin, T_plate_cell.rotate(directions)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = -start[2] / along[..., 2]
            at = start + distance[..., None] * along
            on_it = (np.abs(at[..., 0]) < size_m[0] / 2) & (np.abs(at[..., 1]) < size_m[1] / 2) & (distance > 0)
        return np.asarray(np.where(on_it, distance, np.nan))

    return reach


def measured(
    surfaces: list[Surface], cell: Cell, truth: Cell, rng: np.random.Generator, noise_px: float = NOISE.fixed_px
) -> dict[str, SurfacePoints]:
    """What each camera of the cell `truth` measures, as `cell` understands it."""
    return {serial: _measured(surfaces, cell, truth, serial, rng, noise_px) for serial in cell.cameras}


def together(points: dict[str, SurfacePoints]) -> SurfacePoints:
    """All cameras' points side by side, not averaged."""
    parts = list(points.values())
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("points_cell", "normals_cell", "sigma_m", "correlation_m")
    }
    share = np.eye(len(parts)).repeat([len(part) for part in parts], axis=0)
    return SurfacePoints(share=share, serials=tuple(points), **columns)


def recorded(
    places: list[list[Surface]], cell: Cell, truth: Cell, seed: int = 0, frames: int = 2, growth: float = 0.0
) -> list[FrameSet]:
    """What the cameras record while the artefact stands at one place after another, six seconds apart.

    `growth` is by what share of itself depth grows from each frame to the next, as while a camera warms up.
    """
    rng = np.random.default_rng(seed)
    sets, time_ns = [], 10**9
    for surfaces in places:
        read = {serial: _read(surfaces, cell, truth, serial, rng, NOISE.fixed_px)[0] for serial in cell.cameras}
        for number in range(frames):
            shots = {
                serial: _frame(cell.camera(serial), read_m * (1 + growth * number), time_ns)
                for serial, read_m in read.items()
            }
            sets.append(FrameSet(shots, tuple(cell.cameras), time_ns))
            time_ns += 500_000_000
        time_ns += 6 * 10**9
    return sets


def _frame(camera: CellCamera, read_m: NDArray[np.float64], time_ns: int) -> CameraFrame:
    depth = DepthImage(read_m.astype(np.float32), camera.depth, 1e-5, camera.baseline_m, time_ns, 1)
    return CameraFrame(camera.serial, camera.model, depth, None)


def _read(
    surfaces: list[Surface], cell: Cell, truth: Cell, serial: str, rng: np.random.Generator, noise_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Depth (H, W) as the sensor gives it, and as it truly is."""
    camera, real = cell.camera(serial), truth.camera(serial)
    rays = real.depth.rays().astype(np.float64)
    depth_m = np.fmin.reduce([one(real.T_cell_depth.translation_m, real.T_cell_depth.rotate(rays)) for one in surfaces])
    # What the sensor reads: `corrected` of the true cell backwards, exact for a scale and an offset.
    read_px = real.correction.scale * real.focal_baseline_m / depth_m - real.correction.disparity_offset_px
    erring_px = read_px + noise_px * correlated_noise(depth_m.shape, NOISE.correlation_px, rng)
    return camera.focal_baseline_m / (erring_px * camera.depth.fx_px / real.depth.fx_px), depth_m


def _measured(
    surfaces: list[Surface], cell: Cell, truth: Cell, serial: str, rng: np.random.Generator, noise_px: float
) -> SurfacePoints:
    camera, real = cell.camera(serial), truth.camera(serial)
    read_m, depth_m = _read(surfaces, cell, truth, serial, rng, noise_px)
    rays = real.depth.rays().astype(np.float64)
    points = camera.T_cell_depth @ (camera.depth.rays().astype(np.float64) * camera.corrected(read_m)[..., None])
    normals, cosine = _normals(surfaces, real, depth_m)
    keep = np.isfinite(depth_m) & (cosine > COS_FLATTEST)
    z_m, facing = depth_m[keep], (cosine * np.linalg.norm(rays, axis=-1))[keep]
    footprint_m = z_m / camera.depth.fx_px
    return SurfacePoints(
        points_cell=points[keep].astype(np.float64),
        normals_cell=normals[keep],
        sigma_m=camera.depth_sigma_m(z_m, noise_px) * facing,
        correlation_m=NOISE.correlation_px * footprint_m / np.sqrt(cosine[keep]),
        share=np.ones((len(z_m), 1)),
        serials=(serial,),
    )


def _normals(
    surfaces: list[Surface], camera: CellCamera, depth_m: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True normals in the cell from the depth of neighbouring rays, and the cosine of incidence."""
    intrinsics, step_px = camera.depth, 0.01
    rays = intrinsics.rays().astype(np.float64)
    sides = []
    for shift in ((step_px / intrinsics.fx_px, 0.0, 0.0), (0.0, step_px / intrinsics.fy_px, 0.0)):
        moved = rays + np.array(shift)
        origin, directions = camera.T_cell_depth.translation_m, camera.T_cell_depth.rotate(moved)
        beside = np.fmin.reduce([one(origin, directions) for one in surfaces])
        sides.append(moved * beside[..., None] - rays * depth_m[..., None])
    normals = np.cross(sides[1], sides[0])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    cosine = -np.einsum("hwk,hwk->hw", normals, rays) / np.linalg.norm(rays, axis=-1)
    return camera.T_cell_depth.rotate(normals).astype(np.float64), np.asarray(cosine)
