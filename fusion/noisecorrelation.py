"""Noise of a weighted sum of points whose neighbours err alike: GUM 5.2.2 over all pairs, at the cost of one filter.

A stereo camera's noise is alike over some pixels of its image, `exp(-(d / l)²)`, whatever surfaces lie there. Summed
over the pixels' grid, all pairs are one convolution with that bell, which falls apart into rows and columns.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import Cell, CellCamera
from depthcell.fusion.partcloud import PartCloud

FINEST, COARSEST = 3.0, 8.0
"""Least and most steps of the grid per correlation length; in between, the grid is the pixels'."""
REACH = 3.0
"""Lengths over which pairs are counted: beyond, they share less than 0.02 % of their noise."""
ALONE_PX = 0.3
"""A correlation length below which neighbouring pixels share nothing."""


def noise_variance(cloud: PartCloud, cell: Cell, points: NDArray[np.intp], gradient: FloatArray) -> float:
    """Variance of `sum g_i e_i` from the noise e of the points along their normals.

    `sum over cameras k, pairs ij: g_i g_j s_i s_j sqrt(q_ik q_jk) exp(-(d_ijk / l_k)²)` (GUM 5.2.2, equation 16).
    Here s is the point's noise; q_ik the share of camera k in it, which is also its share of the noise's variance,
    since merged points are weighted by the inverse of variance; d the distance in that camera's image and l its
    correlation length there, see `correlation_px`. Cameras do not share noise.

    Args:
        cloud: the points.
        cell: of its cameras.
        points: (K,) indices into the cloud.
        gradient: (K,) g, change of the sum per metre that each moves along its normal.
    """
    amplitude = np.asarray(gradient, np.float64) * cloud.random_sigma_m[points]
    total = 0.0
    for index, serial in enumerate(cloud.serials):
        share = cloud.share[points, index]
        seen = np.flatnonzero((share > 0) & (amplitude != 0))
        if len(seen):
            pixels = image_places(cloud, cell, points[seen], index)
            length_px = correlation_px(cloud, cell.camera(serial), index)
            total += correlated_square(amplitude[seen] * np.sqrt(share[seen], dtype=np.float64), pixels, length_px)
    return total


def correlated_square(amplitude: FloatArray, pixels: FloatArray, length_px: float) -> float:
    """`sum_ij a_i a_j exp(-(d_ij / l)²)` over all pairs.

    Places are rounded to a grid, of pixels or whole fractions of them, or `COARSEST` steps to a long length. For whole
    pixels that is exact but for pairs beyond `REACH` lengths; else it moves places by a third of a step, at random.

    Args:
        amplitude: (K,) a.
        pixels: (K, 2) places, (column, row).
        length_px: l.
    """
    if length_px < ALONE_PX:
        return float(np.square(amplitude).sum())
    step_px = max(1.0 / np.ceil(FINEST / length_px), length_px / COARSEST)
    column, row = np.rint((pixels - pixels.min(axis=0)) / step_px).astype(np.intp).T
    width = int(column.max()) + 1
    sums = np.bincount(row * width + column, amplitude, minlength=(int(row.max()) + 1) * width).reshape(-1, width)
    half = int(np.ceil(REACH * length_px / step_px))
    bell = np.exp(-np.square(np.arange(-half, half + 1) * step_px / length_px))
    shared = cv2.sepFilter2D(sums, cv2.CV_64F, bell, bell, borderType=cv2.BORDER_CONSTANT)
    return max(float((sums * shared).sum()), 0.0)


def image_places(cloud: PartCloud, cell: Cell, points: NDArray[np.intp], index: int) -> NDArray[np.float64]:
    """Where points lie in the image of the cloud's camera number `index`, (K, 2) as (column, row)."""
    camera = cell.camera(cloud.serials[index])
    places = cloud.pixel[points, ::-1].astype(np.float64)
    others = np.flatnonzero(cloud.camera[points] != index)
    if len(others):
        points_cam = camera.T_cell_depth.inverse() @ cloud.points_cell[points[others]]
        places[others] = camera.depth.project(points_cam)
    return places


def correlation_px(cloud: PartCloud, camera: CellCamera, index: int) -> float:
    """Correlation length in a camera's image: that which the cloud states for its own points, over their pixels' size.

    A pixel covers `z / f` by `z / (f cos(incidence))`; the square of that area has the side by which the length on the
    surface is divided. Without points of its own the camera's noise model tells.
    """
    own = np.flatnonzero(cloud.camera == index)[:: max(1, len(cloud) // 2000)]
    if not len(own):
        return camera.noise.correlation_px
    points_cam = camera.T_cell_depth.inverse() @ cloud.points_cell[own]
    normals_cam = camera.T_cell_depth.inverse().rotate(cloud.normals_cell[own].astype(np.float64))
    cosine = -np.einsum("ij,ij->i", points_cam, normals_cam) / np.linalg.norm(points_cam, axis=1)
    footprint_m = points_cam[:, 2] / camera.depth.fx_px / np.sqrt(np.clip(cosine, 0.05, 1.0))
    return float(np.median(cloud.correlation_m[own] / footprint_m))
