"""Which points lie off the edges of the reference: beside one a stereo camera's matching window mixes two surfaces."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan

EDGE_LENGTHS = 2.0
"""Width of the strip beside an edge in which the matching window mixes surfaces, in correlation lengths of the noise.
On simulated recordings a face of 0.05 mm noise scatters by 0.09 to 0.11 mm in its outermost millimetre, and the boss of
the bracket came out 0.3 to 0.5 mm out of parallel with it, 0.02 mm without."""
OFF_EDGE = 0.25
"""The surface goes on where the reference leaves it by less than this share of the margin."""
SPACINGS = 3.0
"""Neighbours of one patch are never farther from each other than so many usual distances of neighbours."""
ROUNDED_M = 2e-5
"""By so much the reference's facets and the distance field's cells may differ from the nominal surface."""

Along = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Brings places (N, 3) beside a surface onto it."""


def edge_margin_m(edge_mm: float | None, scan: Scan, points: NDArray[np.intp]) -> float:
    """How far from an edge points must be: as the recipe says, else `EDGE_LENGTHS` correlation lengths of theirs."""
    if edge_mm is not None:
        return edge_mm / 1e3
    return EDGE_LENGTHS * float(np.median(scan.cloud.correlation_m[points]))


def in_patches(places: FloatArray, apart_m: float, fewest: int) -> NDArray[np.bool_]:
    """(N,) which places belong to a patch of enough: what is left of a face beside an edge may be too little to judge.

    Patches are farther from each other than `apart_m` and than three times what neighbours are, but for about a
    quarter of it: places are first taken together in cubes of that size.

    Args:
        places: (N, 3) metres.
        apart_m: distance of patches; 0: all are one.
        fewest: places of a patch.
    """
    if apart_m <= 0 or len(places) < fewest:
        return np.full(len(places), apart_m <= 0)
    some = places[:: max(len(places) // 500, 1)]
    apart_m = max(apart_m, SPACINGS * float(np.median(KDTree(places).query(some, k=2)[0][:, 1])))
    cube = np.floor(places / (apart_m / 4)).astype(np.int64)
    _, block, count = np.unique(cube, axis=0, return_inverse=True, return_counts=True)
    block = block.ravel()
    middles = np.stack([np.bincount(block, column) / count for column in places.T], axis=1)
    first, second = KDTree(middles).query_pairs(apart_m, output_type="ndarray").T
    near = coo_array((np.ones(len(first)), (first, second)), (len(count), len(count)))
    patch = connected_components(near, directed=False)[1]
    return np.asarray((np.bincount(patch, count) >= fewest)[patch][block])


def off_edges(
    reference: Reference, feet: FloatArray, normals: FloatArray, margin_m: float, along: Along | None = None
) -> NDArray[np.bool_]:
    """(N,) which places of a surface are farther than a margin from where the reference leaves it.

    The reference's distance is looked up a margin away along the surface in eight directions: where the surface goes on
    it stays what it is at the foot.

    Args:
        reference: in the frame of the places.
        feet: (N, 3) metres, on the surface.
        normals: (N, 3) unit length, of the surface there.
        margin_m: from an edge.
        along: brings what is a margin away back onto a curved surface; None: its tangent plane will do.
    """
    first = np.cross(normals, np.eye(3)[np.argmin(np.abs(normals), axis=1)])
    first /= np.linalg.norm(first, axis=1)[:, None]
    second = np.cross(normals, first)
    here_m = reference.signed_distance(feet)
    off = np.ones(len(feet), np.bool_)
    for turn in np.arange(8) * math.pi / 4:
        around = np.asarray(feet + margin_m * (math.cos(turn) * first + math.sin(turn) * second), dtype=np.float64)
        there_m = reference.signed_distance(around if along is None else along(around))
        off &= np.abs(there_m - here_m) < OFF_EDGE * margin_m + ROUNDED_M
    return off
