"""Solids made of terraces: closed loops in the ground plane, each lifting its inside to a height, walls between them.

This is what milling and casting make: pockets, bosses, bores, ribs. The mesh is closed by construction, with no boolean
operation: one Delaunay triangulation of the ground plane carries every face, and a wall stands on each edge at which
the height jumps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from depthcell.acquisition.simulator.partmesh import PartMesh, welded
from depthcell.acquisition.transform import FloatArray

HeightFunction = Callable[[FloatArray], FloatArray]
OUTSIDE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Terrace:
    """The inside of one loop. A later terrace lies over an earlier one; loops may not touch or cross.

    Attributes:
        loop_mm: (N, 2) boundary in the ground plane, densely sampled.
        height_mm: height above the ground at points (..., 2) in mm, or None for a hole right through.
    """

    loop_mm: NDArray[np.float64]
    height_mm: HeightFunction | None


def flat(height_mm: float) -> HeightFunction:
    """The same height everywhere."""
    return lambda points_mm: np.full(points_mm.shape[:-1], height_mm)


def circle(centre_mm: tuple[float, float], diameter_mm: float, step_mm: float = 0.5) -> NDArray[np.float64]:
    """A round loop; its corners lie on the circle, so it is smaller than it by `step_mm`² / (4 diameter) at most."""
    count = max(24, int(np.ceil(np.pi * diameter_mm / step_mm)))
    angle = 2 * np.pi * np.arange(count) / count
    return np.asarray(centre_mm) + diameter_mm / 2 * np.stack((np.cos(angle), np.sin(angle)), axis=1)


def rectangle(
    centre_mm: tuple[float, float], size_mm: tuple[float, float], corner_mm: float = 0.0, step_mm: float = 0.8
) -> NDArray[np.float64]:
    """A rectangular loop with corners rounded at radius `corner_mm`."""
    half = np.asarray(size_mm) / 2 - corner_mm
    arc = np.linspace(0, np.pi / 2, max(2, int(np.ceil(corner_mm * np.pi / 2 / step_mm)) + 1)) if corner_mm else [0.0]
    corners = []
    for quarter, sign in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
        angle = np.asarray(arc) + quarter * np.pi / 2
        corners.append(half * sign + corner_mm * np.stack((np.cos(angle), np.sin(angle)), axis=1))
    return np.asarray(centre_mm) + _resampled(np.concatenate(corners), step_mm)


def _resampled(loop_mm: FloatArray, step_mm: float) -> NDArray[np.float64]:
    """Cut the sides of a closed polygon so that none is longer than `step_mm`; its corners stay."""
    pieces = []
    for start, end in zip(loop_mm, np.roll(loop_mm, -1, axis=0), strict=True):
        count = max(1, int(np.ceil(np.linalg.norm(end - start) / step_mm)))
        pieces.append(start + (end - start) * (np.arange(count) / count)[:, None])
    return np.concatenate(pieces).astype(np.float64)


def terraced_solid(terraces: Sequence[Terrace], spacing_mm: float) -> PartMesh:
    """The closed mesh of the terraces on the ground z = 0; `spacing_mm` is the edge length inside the loops."""
    points, triangles = _ground_triangulation(terraces, spacing_mm)
    region = _region_of(points[triangles].mean(axis=1), terraces)
    solid = np.array([terrace.height_mm is not None for terrace in terraces] + [False])
    kept = solid[region]
    faces = [
        np.concatenate((points[triangles], _heights(points[triangles], region, terraces)[..., None]), axis=2)[kept],
        np.concatenate((points[triangles], np.zeros((len(triangles), 3, 1))), axis=2)[kept][:, ::-1],
        _walls(points, triangles, region, terraces),
    ]
    corners = np.concatenate(faces).reshape(-1, 3)
    return welded(corners * 1e-3, np.arange(len(corners)).reshape(-1, 3))


def _ground_triangulation(terraces: Sequence[Terrace], spacing_mm: float) -> tuple[FloatArray, NDArray[np.int32]]:
    loops = [terrace.loop_mm for terrace in terraces]
    boundary = np.concatenate(loops)
    low, high = boundary.min(axis=0), boundary.max(axis=0)
    columns, rows = np.meshgrid(
        np.arange(low[0], high[0], spacing_mm), np.arange(low[1], high[1], spacing_mm * np.sqrt(0.75))
    )
    columns[1::2] += spacing_mm / 2
    grid = np.stack((columns.ravel(), rows.ravel()), axis=1)
    # A side of a loop is an edge of the triangulation when no other point lies in the circle over it.
    longest = max(float(np.linalg.norm(loop - np.roll(loop, 1, axis=0), axis=1).max()) for loop in loops)
    near = np.zeros(len(grid), dtype=bool)
    for point in boundary:
        near |= ((grid - point) ** 2).sum(axis=1) < (0.75 * longest) ** 2
    points = np.concatenate((boundary, grid[~near]))
    simplices = Delaunay(points).simplices
    a, b, c = np.moveaxis(points[simplices], 1, 0)
    turned = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]) < 0
    simplices[turned] = simplices[turned][:, ::-1]
    return points, simplices


def _region_of(centres: FloatArray, terraces: Sequence[Terrace]) -> NDArray[np.int64]:
    region = np.full(len(centres), OUTSIDE)
    for number, terrace in enumerate(terraces):
        region[Polygon(terrace.loop_mm).contains_points(centres)] = number
    return region


def _heights(points: FloatArray, region: NDArray[np.int64], terraces: Sequence[Terrace]) -> FloatArray:
    """Height of `points` (T, K, 2) as their `region` (T,) sees them; 0 outside and in holes."""
    heights = np.zeros(points.shape[:-1])
    for number, terrace in enumerate(terraces):
        if terrace.height_mm is not None:
            heights[region == number] = terrace.height_mm(points[region == number])
    return heights


def _walls(
    points: FloatArray, triangles: NDArray[np.int32], region: NDArray[np.int64], terraces: Sequence[Terrace]
) -> FloatArray:
    """(W, 3, 3) triangles of the vertical faces, each with its normal towards the lower side."""
    edges = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    owner = np.repeat(region, 3)
    key, mirrored = edges[:, 0] * len(points) + edges[:, 1], edges[:, 1] * len(points) + edges[:, 0]
    order = np.argsort(key)
    place = np.searchsorted(key[order], mirrored).clip(max=len(key) - 1)
    has_partner = key[order][place] == mirrored
    other = np.where(has_partner, owner[order][place], OUTSIDE)
    # Each jump is seen from its own side and from the other one; of the two, one is kept.
    jumps = (owner != other) & ((owner > other) | ~has_partner)
    ends = points[edges[jumps]]
    here, there = _heights(ends, owner[jumps], terraces), _heights(ends, other[jumps], terraces)
    p_low, q_low = (np.concatenate((ends[:, k], there[:, k, None]), axis=1) for k in (0, 1))
    p_high, q_high = (np.concatenate((ends[:, k], here[:, k, None]), axis=1) for k in (0, 1))
    return np.concatenate((np.stack((p_low, q_low, q_high), axis=1), np.stack((p_low, q_high, p_high), axis=1)))
