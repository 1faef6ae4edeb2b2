"""Views become one cloud: one point per small cube of space and side of surface, weighted by what each view knows."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.view import View

SAME_SIDE = math.cos(math.radians(60.0))
"""Normals closer than 60° belong to one surface, so that the two sides of a thin sheet never merge."""


def merge_views(views: Sequence[View], voxel_m: float | None = None) -> PartCloud:
    """All valid points of all views, merged by inverse variance.

    Args:
        views: of one part.
        voxel_m: edge of the cubes in which points merge; None takes the median footprint of a pixel.
    """
    cloud = concatenated(views)
    if not len(cloud):
        return cloud
    footprint_m = np.concatenate([view.depth_m[view.valid] / view.intrinsics.fx_px for view in views])
    return merged(cloud, voxel_m or float(np.median(footprint_m)))


def concatenated(views: Sequence[View]) -> PartCloud:
    """All valid points of all views as they are, one after the other."""

    def column(name: str) -> NDArray[np.generic]:
        return np.concatenate([getattr(view, name)[view.valid] for view in views])

    pixels = [np.argwhere(view.valid) + np.array((view.window.top, view.window.left)) for view in views]
    return PartCloud(
        points_cell=column("points_cell").astype(np.float64),
        normals_cell=column("normals_cell").astype(np.float32),
        colors=column("colors").astype(np.uint8),
        random_sigma_m=column("random_sigma_m").astype(np.float32),
        systematic_sigma_m=column("systematic_sigma_m").astype(np.float32),
        correlation_m=column("correlation_m").astype(np.float32),
        camera=np.repeat(np.arange(len(views), dtype=np.uint8), [len(pixel) for pixel in pixels]),
        pixel=np.concatenate(pixels).astype(np.int32),
        serials=tuple(view.serial for view in views),
    )


def merged(cloud: PartCloud, voxel_m: float) -> PartCloud:
    """One point per cube of edge `voxel_m` and side of the surface.

    Points of a cube fall into those that face like its best point, and the rest. With random r_i and systematic s_i,
    `u_i² = r_i² + s_i²`, and m_i points of the same camera in the group, point i weighs `w_i = 1 / (m_i u_i²)`, so
    that a camera does not gain by its number of pixels. With W = sum of w_i:

    - position and normal: `sum w_i p_i / W`; colour likewise over the points that have one;
    - random variance: `sum over cameras (sum over its points of w_i r_i)² / W²`; systematic likewise with s_i.

    Within a camera the inputs count as fully correlated and add linearly (GUM 5.2.2, equation 16 at r = 1): pixels as
    close as these share their matching window, and all share the calibration. Cameras are independent and add in
    quadrature (GUM 5.1.2). For one point per camera this is the inverse-variance mean. Camera, pixel and correlation
    distance are those of the heaviest point.
    """
    group, heaviest = _groups(cloud, voxel_m)
    number, cameras = len(heaviest), len(cloud.serials)
    source = group * cameras + cloud.camera
    shared = np.bincount(source, minlength=number * cameras)[source]
    variance_m2 = np.square(cloud.sigma_m, dtype=np.float64)
    weight = 1 / (variance_m2 * shared)
    total = np.bincount(group, weight, number)

    def combined_sigma_m(sigma_m: FloatArray) -> NDArray[np.float32]:
        by_camera = np.bincount(source, weight * sigma_m, number * cameras).reshape(number, cameras)
        return np.asarray(np.linalg.norm(by_camera, axis=1) / total, dtype=np.float32)

    normals = _weighted_mean(cloud.normals_cell, group, weight, number)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return replace(
        cloud[heaviest],
        points_cell=_weighted_mean(cloud.points_cell, group, weight, number),
        normals_cell=normals.astype(np.float32),
        colors=_mean_colors(cloud, group, weight, number),
        random_sigma_m=combined_sigma_m(cloud.random_sigma_m),
        systematic_sigma_m=combined_sigma_m(cloud.systematic_sigma_m),
    )


def _groups(cloud: PartCloud, voxel_m: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Group number of every point, (N,), and the heaviest point of every group."""
    cube = np.floor((cloud.points_cell - cloud.points_cell.min(axis=0)) / voxel_m).astype(np.int64)
    extent = cube.max(axis=0) + 1
    key = (cube[:, 0] * extent[1] + cube[:, 1]) * extent[2] + cube[:, 2]
    # Sorted by weight first, the first point that `unique` meets in a cube is its heaviest.
    by_weight = np.argsort(cloud.sigma_m, kind="stable")
    _, first, group_by_weight = np.unique(key[by_weight], return_index=True, return_inverse=True)
    cube_of = np.empty(len(cloud), np.intp)
    cube_of[by_weight] = group_by_weight
    best_normal = cloud.normals_cell[by_weight[first]]
    other_side = np.einsum("ij,ij->i", cloud.normals_cell, best_normal[cube_of]) < SAME_SIDE
    side_key = 2 * cube_of + other_side
    _, first, group_by_weight = np.unique(side_key[by_weight], return_index=True, return_inverse=True)
    group = np.empty(len(cloud), np.intp)
    group[by_weight] = group_by_weight
    return group, by_weight[first]


def _weighted_mean(values: FloatArray, group: NDArray[np.intp], weight: FloatArray, number: int) -> NDArray[np.float64]:
    total = np.bincount(group, weight, number)
    return np.stack([np.bincount(group, weight * column, number) / total for column in values.T], axis=1)


def _mean_colors(cloud: PartCloud, group: NDArray[np.intp], weight: FloatArray, number: int) -> NDArray[np.uint8]:
    seen_weight = weight * cloud.colors.any(axis=1)
    total = np.bincount(group, seen_weight, number)
    total[total == 0] = 1.0
    sums = [np.bincount(group, seen_weight * channel, number) for channel in cloud.colors.T]
    return np.rint(np.stack(sums, axis=1) / total[:, None]).astype(np.uint8)
