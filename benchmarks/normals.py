"""Normals of one 848x480 depth image: ours on the grid, against open3d's neighbour search on the same points.

The scene is ray-cast by formula (a tilted wall, two balls, two boxes), the depth made in the disparity domain with
correlated noise, so that the true normal of every pixel is known.
Goal: 30 times faster at equal or smaller median error.
"""

import numpy as np
from harness import Goal, Peer, Report, measure
from scipy.spatial.transform import Rotation

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.stereo import correlated_noise
from depthcell.fusion.grid import depth_normals, edge_mask

INTRINSICS = Intrinsics(848, 480, 430.0, 430.0, 423.5, 239.5)
FOCAL_BASELINE = 430.0 * 0.05
TEMPORAL_PX, FIXED_PX, CORRELATION_PX = 0.08, 0.03, 1.5
NEIGHBOURS = (30, 100)
"""Of open3d's search: its own default, and about as many pixels as our large window holds."""


def wall(normal: np.ndarray, distance_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H, W) and normals (H, W, 3) of a plane."""
    unit = -normal / np.linalg.norm(normal)
    rays = INTRINSICS.rays().astype(np.float64)
    return -distance_m / (rays @ unit), np.broadcast_to(unit, rays.shape)


def ball(centre: np.ndarray, radius_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth and normals of a sphere; infinite where the ray misses."""
    rays = INTRINSICS.rays().astype(np.float64)
    along, square = rays @ centre, (rays**2).sum(axis=-1)
    root = along**2 - square * (centre @ centre - radius_m**2)
    depth_m = np.where(root > 0, (along - np.sqrt(np.maximum(root, 0))) / square, np.inf)
    return depth_m, (rays * np.where(root > 0, depth_m, 0)[..., None] - centre) / radius_m


def block(centre: np.ndarray, half_m: np.ndarray, turn_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth and normals of a turned box; infinite where the ray misses."""
    rotation = Rotation.from_rotvec(turn_rad).as_matrix()
    rays, eye = INTRINSICS.rays().astype(np.float64) @ rotation, -rotation.T @ centre
    with np.errstate(divide="ignore"):
        first, second = (-half_m - eye) / rays, (half_m - eye) / rays
    near = np.minimum(first, second)
    depth_m = near.max(axis=-1)
    depth_m[depth_m > np.maximum(first, second).min(axis=-1)] = np.inf
    axis = near.argmax(axis=-1)
    sign = -np.take_along_axis(np.sign(rays), axis[..., None], axis=-1)
    return depth_m, (sign * np.eye(3)[axis]) @ rotation.T


def scene(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean depth of `frames` noisy frames, its standard uncertainty, and the true normals."""
    shapes = [
        wall(np.array([0.2, 0.1, 1.0]), 0.6),
        ball(np.array([-0.15, 0.0, 0.55]), 0.12),
        ball(np.array([0.2, 0.1, 0.5]), 0.08),
        block(np.array([0.15, -0.1, 0.5]), np.array([0.08, 0.05, 0.06]), np.array([0.5, 0.6, 0.3])),
        block(np.array([-0.2, 0.2, 0.5]), np.array([0.08, 0.05, 0.06]), np.array([0.2, 0.8, 0.3])),
    ]
    depths = np.stack([depth_m for depth_m, _ in shapes])
    nearest = depths.argmin(axis=0)[None, ..., None]
    normals = np.take_along_axis(np.stack([normals for _, normals in shapes]), nearest, axis=0)[0]
    rng = np.random.default_rng(seed)
    averaged_px = TEMPORAL_PX / np.sqrt(frames) * correlated_noise(depths.shape[1:], CORRELATION_PX, rng)
    fixed_px = FIXED_PX * correlated_noise(depths.shape[1:], CORRELATION_PX, rng)
    depth_m = (FOCAL_BASELINE / (FOCAL_BASELINE / depths.min(axis=0) + averaged_px + fixed_px)).astype(np.float32)
    sigma_m = depth_m**2 * np.float32(np.hypot(TEMPORAL_PX / np.sqrt(frames), FIXED_PX) / FOCAL_BASELINE)
    return depth_m, sigma_m, normals


def degrees_off(normals: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Angle between directions (N, 3)."""
    return np.degrees(np.arccos(np.clip(np.einsum("ij,ij->i", normals, truth), -1, 1)))


def main() -> None:
    """Time both sides on the same depth, with what each is off on the same pixels."""
    o3d, report = open3d(), Report("normals")
    for frames in (1, 10):
        depth_m, sigma_m, truth = scene(frames, seed=1)

        def on_the_grid(depth_m: np.ndarray = depth_m, sigma_m: np.ndarray = sigma_m) -> np.ndarray:
            usable = ~edge_mask(depth_m, INTRINSICS, sigma_m, 3)
            return depth_normals(depth_m, INTRINSICS, usable, sigma_m)

        ours = on_the_grid()
        known = np.isfinite(ours[..., 0])
        off = degrees_off(ours[known], truth[known])
        us = measure(on_the_grid, repetitions=15, warm_ups=3)
        points = INTRINSICS.deproject(depth_m).reshape(-1, 3).astype(np.float64)
        for neighbours in NEIGHBOURS:
            cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
            search = o3d.geometry.KDTreeSearchParamKNN(neighbours)

            def by_search(cloud: object = cloud, search: object = search) -> None:
                cloud.estimate_normals(search)  # type: ignore[attr-defined]

            timing = measure(by_search, repetitions=5)
            cloud.orient_normals_towards_camera_location(np.zeros(3))
            theirs = np.asarray(cloud.normals).reshape(truth.shape)[known]
            their_off = degrees_off(theirs, truth[known])
            report.add(
                f"normals of 848x480, mean of {frames} frames",
                us,
                Goal(ratio=30.0),
                Peer(f"open3d estimate_normals, {neighbours} nearest neighbours", timing),
                our_median_error_deg=round(float(np.median(off)), 2),
                peer_median_error_deg=round(float(np.median(their_off)), 2),
                our_p90_error_deg=round(float(np.quantile(off, 0.9)), 2),
                peer_p90_error_deg=round(float(np.quantile(their_off, 0.9)), 2),
                share_of_pixels_compared=round(float(known.mean()), 3),
            )
    report.write()


if __name__ == "__main__":
    main()
