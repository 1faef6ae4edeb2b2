"""Points pooled to cells of a stated size: the areal filter in front of a form deviation, and the noise that it leaves.

An optical sensor's single points say more of noise than of form. Form deviations are therefore taken of a filtered
surface; here of means over cells, the plainest linear areal filter with the cells' side as its nesting index
(ISO 16610-1:2015, filtration; ISO 16610-61 has the Gaussian instead, which rings no bell at the border of a surface).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.spatial import KDTree

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.partcloud import PartCloud

LENGTHS_PER_CELL = 2.5
"""A cell's least side in correlation lengths of the noise: below, neighbouring cells err alike and say nothing more."""
MOST_CELLS = 220
"""With more, cells grow: a zone over 220 of them takes some 50 ms."""
GROWTH = 1.15
SLIVER = 0.35
"""A cell of fewer points than this share of the usual is given to its neighbours."""
REACH = 2.5
"""Correlation lengths over which pairs of points are counted: beyond, they share 0.2 % of their noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Pooled points.

    Attributes:
        side_m: of a cell: the filter's nesting index.
        cell: (K,) which of them each point was pooled to.
        places: (C, 3) metres, middles of the cells, on the element.
        lift_m: (C,) mean of the points' residuals.
        motions: (P, C) means of what a unit of each motion adds to them.
        covariance: (C, C) of `lift_m` from noise.
    """

    side_m: float
    cell: NDArray[np.intp]
    places: NDArray[np.float64]
    lift_m: NDArray[np.float64]
    motions: NDArray[np.float64]
    covariance: NDArray[np.float64]


def pooled(
    cloud: PartCloud,
    points: NDArray[np.intp],
    feet: NDArray[np.float64],
    residual_m: FloatArray,
    motions: NDArray[np.float64],
) -> Cells:
    """Means over cells, each point with its nearest cell; as large as the noise's correlation and their number ask.

    Args:
        cloud: holds the noise of the points.
        points: (K,) indices into it.
        feet: (K, 3) metres, where the points would lie on the element: a place that carries no noise across it.
        residual_m: (K,) of those points.
        motions: (P, K).
    """
    length_m = float(np.median(cloud.correlation_m[points]))
    side_m = max(LENGTHS_PER_CELL * length_m, 1e-9)
    middles = _middles(feet, side_m)
    while len(middles) > MOST_CELLS:
        side_m *= GROWTH
        middles = _middles(feet, side_m)
    cell = np.asarray(KDTree(middles).query(feet)[1], dtype=np.intp)
    count = np.bincount(cell, minlength=len(middles))
    return Cells(
        side_m=side_m,
        cell=cell,
        places=np.stack([_mean(cell, column, count) for column in feet.T], axis=1),
        lift_m=_mean(cell, np.asarray(residual_m), count),
        motions=np.array([_mean(cell, row, count) for row in motions]).reshape(-1, len(middles)),
        covariance=_covariance(cloud, points, cell, count, length_m),
    )


def _middles(places: NDArray[np.float64], side_m: float) -> NDArray[np.float64]:
    """Middles of the cubes that hold points, along the points' own axes, slivers left out."""
    middle = places.mean(axis=0)
    axes = np.linalg.eigh(np.cov((places - middle).T))[1]
    cube = np.floor((places - middle) @ axes / side_m + 0.5).astype(np.int64)
    _, block, count = np.unique(cube, axis=0, return_inverse=True, return_counts=True)
    block = block.ravel()
    means = np.stack([_mean(block, column, count) for column in places.T], axis=1)
    return np.asarray(means[count >= SLIVER * np.median(count)])


def _covariance(
    cloud: PartCloud, points: NDArray[np.intp], cell: NDArray[np.intp], count: NDArray[np.intp], length_m: float
) -> NDArray[np.float64]:
    """(C, C): `sum over pairs s_i s_j sum_k sqrt(q_ik q_jk) exp(-(d / l)²)` over the cells' counts (GUM 5.2.2).

    Points within half a correlation length of each other and of one cell are first taken as one.
    """
    places = cloud.points_cell[points]
    crumb = np.floor((places - places.min(axis=0)) / max(length_m / 2, 1e-9)).astype(np.int64)
    _, block, size = np.unique(np.column_stack((cell, crumb)), axis=0, return_inverse=True, return_counts=True)
    block = block.ravel()
    at = np.stack([_mean(block, column, size) for column in places.T], axis=1)
    length = _mean(block, cloud.correlation_m[points], size)
    owner = np.rint(_mean(block, cell.astype(np.float64), size)).astype(np.intp)
    sigma = _mean(block, cloud.random_sigma_m[points], size) * size / count[owner]
    by_camera = np.sqrt([_mean(block, column, size) for column in cloud.share[points].T]) * sigma
    pairs = KDTree(at).query_pairs(REACH * length_m, output_type="ndarray")
    first, second = pairs.T
    apart2 = np.square(at[first] - at[second]).sum(axis=1)
    alike = np.exp(-4 * apart2 / np.square(length[first] + length[second]))
    shared = np.einsum("kn,kn->n", by_camera[:, first], by_camera[:, second]) * alike
    shape = (len(count), len(count))
    across = coo_array((shared, (owner[first], owner[second])), shape).toarray()
    own = np.bincount(owner, np.square(by_camera).sum(axis=0), len(count))
    return np.asarray(across + across.T + np.diag(own), dtype=np.float64)


def _mean(block: NDArray[np.intp], values: FloatArray, count: NDArray[np.integer]) -> NDArray[np.float64]:
    return np.asarray(np.bincount(block, values, len(count)) / np.maximum(count, 1), dtype=np.float64)
