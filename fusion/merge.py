"""Views become one cloud: one point per small cube of space and side of surface, weighted by what each view knows."""

import math
from collections.abc import Sequence
from typing import Any

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
    chosen = [np.flatnonzero(view.valid) for view in views]

    def column(name: str) -> NDArray[Any]:
        images = [getattr(view, name) for view in views]
        flat = [image.reshape(-1, *image.shape[2:]) for image in images]
        return np.concatenate([values.take(numbers, axis=0) for values, numbers in zip(flat, chosen, strict=True)])

    def pixels(view: View, numbers: NDArray[np.intp]) -> NDArray[np.int32]:
        row, column = np.unravel_index(numbers, view.valid.shape)
        return np.stack((row + view.window.top, column + view.window.left), axis=1, dtype=np.int32)

    return PartCloud(
        points_cell=column("points_cell").astype(np.float64),
        normals_cell=column("normals_cell"),
        colors=column("colors"),
        random_sigma_m=column("random_sigma_m"),
        systematic_sigma_m=column("systematic_sigma_m"),
        correlation_m=column("correlation_m"),
        camera=np.repeat(np.arange(len(views), dtype=np.uint8), [len(numbers) for numbers in chosen]),
        pixel=np.concatenate([pixels(view, numbers) for view, numbers in zip(views, chosen, strict=True)]),
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
    distance are those of the group's most certain point.
    """
    group, best = _groups(cloud, voxel_m)
    number, cameras = len(best), len(cloud.serials)
    source = group * cameras + cloud.camera
    shared = np.bincount(source, minlength=number * cameras)[source]
    weight = 1 / (np.square(cloud.sigma_m, dtype=np.float64) * shared)
    share = weight / np.bincount(group, weight, number)[group]

    def combined_sigma_m(sigma_m: FloatArray) -> NDArray[np.float32]:
        by_camera = np.bincount(source, share * sigma_m, number * cameras).reshape(number, cameras)
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", by_camera, by_camera)), dtype=np.float32)

    normals = _sums(cloud.normals_cell, share, group)
    normals /= np.sqrt(np.einsum("ij,ij->i", normals, normals))[:, None]
    return PartCloud(
        points_cell=_sums(cloud.points_cell, share, group),
        normals_cell=normals.astype(np.float32),
        colors=_mean_colors(cloud.colors, share, group),
        random_sigma_m=combined_sigma_m(cloud.random_sigma_m),
        systematic_sigma_m=combined_sigma_m(cloud.systematic_sigma_m),
        correlation_m=cloud.correlation_m[best],
        camera=cloud.camera[best],
        pixel=cloud.pixel.take(best, axis=0),
        serials=cloud.serials,
    )


def _groups(cloud: PartCloud, voxel_m: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Group number of every point, (N,), and the most certain point of every group."""
    cube = np.zeros(len(cloud), np.int64)
    for coordinate in np.ascontiguousarray(cloud.points_cell.T):
        step = ((coordinate - coordinate.min()) / voxel_m).astype(np.int64)
        cube = cube * (step.max() + 1) + step
    group, best = _numbered(cube, cloud.sigma_m)
    facing = np.einsum("ij,ij->i", cloud.normals_cell, cloud.normals_cell.take(best[group], axis=0))
    other_side = facing < SAME_SIDE
    if other_side.any():
        group, best = _numbered(2 * group + other_side, cloud.sigma_m)
    return group, best


def _numbered(key: NDArray[np.int64], sigma_m: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Points with equal keys get one number, in the order of the keys, and the first of least sigma stands for them."""
    order = np.argsort(key, kind="stable")
    sorted_key, sorted_sigma_m = key[order], sigma_m[order]
    starts = np.flatnonzero(np.concatenate(([True], sorted_key[1:] != sorted_key[:-1])))
    sizes = np.diff(starts, append=len(key))
    sorted_group = np.repeat(np.arange(len(starts)), sizes)
    is_least = sorted_sigma_m == np.minimum.reduceat(sorted_sigma_m, starts)[sorted_group]
    group = np.empty(len(key), np.intp)
    group[order] = sorted_group
    return group, np.minimum.reduceat(np.where(is_least, order, len(key)), starts)


def _sums(values: NDArray[Any], share: FloatArray, group: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sum of `share` times `values` (N, K) over every group: (G, K)."""
    return np.stack([np.bincount(group, share * column).astype(np.float64, copy=False) for column in values.T], axis=1)


def _mean_colors(colors: NDArray[np.uint8], share: FloatArray, group: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Weighted mean of the colours of every group over the points that have one; black where none has."""
    if not colors.any():
        return np.zeros((int(group.max()) + 1, 3), np.uint8)
    share = share * colors.any(axis=1)
    total = np.bincount(group, share)
    return np.rint(_sums(colors, share, group) / np.where(total > 0, total, 1)[:, None]).astype(np.uint8)
