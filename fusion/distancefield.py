"""A signed distance field on a regular grid: deviations become eight look-ups a point."""

import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.files import written_beside

MARGIN_M = 0.010
"""The grid reaches this far beyond the part on all sides."""
FINEST_M = 4e-4
NODES = 2_500_000
BAND_M = 0.004
"""Closer to the surface than this every node is computed; farther away it is interpolated between every fourth."""
STRIDE = 4
BLOCK = 16_384
"""Points looked up at a time: what they need in between stays in the processor's cache."""
WORTH_KEEPING_S = 1.0
VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class DistanceField:
    """Signed distances at the nodes of a grid, trilinear in between.

    Attributes:
        origin_m: (3,) float64, the first node.
        spacing_m: edge of a cell.
        values_m: (X, Y, Z) float32, positive outside.
    """

    origin_m: NDArray[np.float64]
    spacing_m: float
    values_m: NDArray[np.float32]

    def thinned(self, step: int) -> "DistanceField":
        """Every `step`-th node: rougher, and small enough to stay in the processor's cache."""
        values_m = np.ascontiguousarray(self.values_m[::step, ::step, ::step])
        return DistanceField(self.origin_m, self.spacing_m * step, values_m)

    def distance(self, points: FloatArray) -> NDArray[np.float64]:
        """At points (N, 3): (N,) metres. Outside the grid: the value at its border plus the way there."""
        distance_m = np.empty(len(points))
        for block in _blocks(len(points)):
            corners, (fx, fy, fz), beyond_m = self._cells(points[block])
            edges = [_lerp(corners[i], corners[i + 1], fz) for i in (0, 2, 4, 6)]
            low, high = _lerp(edges[0], edges[1], fy), _lerp(edges[2], edges[3], fy)
            np.add(_lerp(low, high, fx), beyond_m, out=distance_m[block])
        return distance_m

    def distance_and_gradient(self, points: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """At points (N, 3): distance (N,) in metres and its gradient (N, 3)."""
        distance_m, slopes = self.distance_and_slopes(points)
        return distance_m, np.ascontiguousarray(slopes.T, np.float64)

    def distance_and_slopes(self, points: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """As `distance_and_gradient`, the gradient axis by axis, (3, N): what is next done to it is quicker so."""
        distance_m, slopes = np.empty(len(points)), np.empty((3, len(points)), np.float32)
        for block in _blocks(len(points)):
            corners, (fx, fy, fz), beyond_m = self._cells(points[block])
            along_z = [corners[i + 1] - corners[i] for i in (0, 2, 4, 6)]
            edges = [corners[2 * i] + along_z[i] * fz for i in range(4)]
            along_y = edges[1] - edges[0], edges[3] - edges[2]
            low, high = edges[0] + along_y[0] * fy, edges[2] + along_y[1] * fy
            along_x = high - low
            np.add(low + along_x * fx, beyond_m, out=distance_m[block])
            slopes[0, block] = along_x
            slopes[1, block] = _lerp(*along_y, fx)
            slopes[2, block] = _lerp(_lerp(along_z[0], along_z[1], fy), _lerp(along_z[2], along_z[3], fy), fx)
        slopes /= np.float32(self.spacing_m)
        return distance_m, slopes

    def _cells(
        self, points: FloatArray
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]], NDArray[np.float64] | float]:
        """Values at the 8 corners of each point's cell, its position in there, and how far it lies off the grid.

        Axis by axis: NumPy is several times slower where the innermost axis holds three numbers.
        """
        flat, (_, ny, nz) = self.values_m.reshape(-1), self.values_m.shape
        place = np.hstack((np.eye(3), -self.origin_m[:, None])) / self.spacing_m
        column = np.ascontiguousarray(points, np.float64).reshape(-1, 1, 3)
        position = [axis.ravel() for axis in cv2.split(cv2.transform(column, place))]
        clamped = [np.clip(p, 0, count - 1.001) for p, count in zip(position, self.values_m.shape, strict=True)]
        cell = [p.astype(np.int32) for p in clamped]
        fractions = [(p - whole).astype(np.float32) for p, whole in zip(clamped, cell, strict=True)]
        index = ((cell[0] * ny + cell[1]) * nz + cell[2]).astype(np.intp)
        offsets = (0, 1, nz, nz + 1, ny * nz, ny * nz + 1, ny * nz + nz, ny * nz + nz + 1)
        # No index is out of range: mode "wrap" only spares NumPy the check.
        corners = [flat[offset:].take(index, mode="wrap") for offset in offsets]
        off = [p - inside for p, inside in zip(position, clamped, strict=True)]
        if not any(axis.any() for axis in off):
            return corners, fractions, 0.0
        return corners, fractions, self.spacing_m * np.sqrt(sum(np.square(axis) for axis in off))


def build_field(
    lower_m: FloatArray, upper_m: FloatArray, exact: Callable[[FloatArray], NDArray[np.float64]]
) -> DistanceField:
    """Sample `exact` over a box and its margin.

    A distance field is linear but near edges and the middle between two surfaces, so that far from the surface, where
    only the rough distance matters, every fourth node does.

    Args:
        lower_m: lower corner of the part's bounding box.
        upper_m: its upper corner.
        exact: gives signed distances (N,) at points (N, 3).
    """
    size_m = upper_m - lower_m + 2 * MARGIN_M
    spacing_m = max(FINEST_M, float(np.prod(size_m) / NODES) ** (1 / 3))
    blocks = np.ceil(size_m / (spacing_m * STRIDE)).astype(int)
    origin_m = (lower_m + upper_m - blocks * STRIDE * spacing_m) / 2
    coarse = exact(_nodes(origin_m, spacing_m * STRIDE, blocks + 1)).reshape(blocks + 1)
    values = coarse
    for axis in range(3):
        values = _densified(values, axis)
    near = np.flatnonzero(np.abs(values) < BAND_M)
    index = np.stack(np.unravel_index(near, values.shape), axis=1)
    values.ravel()[near] = exact(origin_m + index * spacing_m)
    return DistanceField(origin_m, spacing_m, values.astype(np.float32))


def cached_field(
    identity: str, lower_m: FloatArray, upper_m: FloatArray, exact: Callable[[FloatArray], NDArray[np.float64]]
) -> DistanceField:
    """`build_field`, kept in the user's cache folder under `identity` if it took longer than a second."""
    path = _cache_folder() / f"distance-field-{VERSION}-{identity}.npz"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            return DistanceField(content["origin_m"], float(content["spacing_m"]), content["values_m"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not there, or damaged: built anew
    start = time.perf_counter()
    field = build_field(lower_m, upper_m, exact)
    if time.perf_counter() - start > WORTH_KEEPING_S:
        _keep(path, field)
    return field


def _keep(path: Path, field: DistanceField) -> None:
    try:
        with written_beside(path) as partial, partial.open("wb") as stream:
            np.savez(stream, origin_m=field.origin_m, spacing_m=field.spacing_m, values_m=field.values_m)
    except OSError:
        pass  # a full or read-only disk costs the next run a few seconds, no more


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "depthcell"


def _nodes(origin_m: FloatArray, spacing_m: float, counts: NDArray[np.integer]) -> NDArray[np.float64]:
    axes = [origin + spacing_m * np.arange(count) for origin, count in zip(origin_m, counts, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _densified(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """`STRIDE` - 1 values put between every two along `axis`, linearly."""
    low, high = np.moveaxis(values, axis, 0)[:-1], np.moveaxis(values, axis, 0)[1:]
    steps = np.arange(STRIDE) / STRIDE
    between = low[:, None] + (high - low)[:, None] * steps[:, None, None]
    joined = np.concatenate((between.reshape(-1, *low.shape[1:]), high[-1:]))
    return np.ascontiguousarray(np.moveaxis(joined, 0, axis))


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]


def _lerp(low: FloatArray, high: FloatArray, share: FloatArray) -> FloatArray:
    return np.asarray(low + (high - low) * share)
