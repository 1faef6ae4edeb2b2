"""The surface in a signed distance field: points with their uncertainty, and a mesh. Holes stay holes."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.temporal import MODEL_DEGREES_OF_FREEDOM
from depthcell.fusion.tsdf import (
    LASTING,
    LOOK_OF,
    MEAN,
    MOTION,
    MOTION_NOW,
    NOISE,
    NORMAL,
    SCATTER,
    SHARED_OF,
    WEIGHT_OF,
    Tsdf,
)
from depthcell.fusion.tsdf_blocks import BLOCK, BLOCK_VOXELS

STEEPEST = 0.35
"""Least change of D from voxel to voxel, as a share of what the normal asks for: below, they saw two surfaces."""


FEWEST_CUT = 10
"""Points of the surface beside a face of the box that are no accident."""


@dataclass(frozen=True, slots=True, eq=False)
class SurfacePoints:
    """Where D is zero, one point for each voxel edge that runs most nearly along the normal.

    Attributes:
        points_part: (N, 3) float64, metres.
        normals_part: (N, 3) float32, unit length, out of the material.
        random_sigma_m: (N,) float32, from noise.
        systematic_sigma_m: (N,) float32, what calibration and poses leave.
        share: (N, K) float32, weight of each camera.
        frames: (N,) int, frames that saw the less seen end of the edge.
    """

    points_part: NDArray[np.float64]
    normals_part: NDArray[np.float32]
    random_sigma_m: NDArray[np.float32]
    systematic_sigma_m: NDArray[np.float32]
    share: NDArray[np.float32]
    frames: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceMesh:
    """Triangles of the surface, open where nothing was measured.

    Attributes:
        vertices_m: (V, 3) float64, metres.
        triangles: (T, 3) int32, counter-clockwise seen from outside.
        random_sigma_m, systematic_sigma_m: (V,) float32, along the normal.
    """

    vertices_m: NDArray[np.float64]
    triangles: NDArray[np.int32]
    random_sigma_m: NDArray[np.float32]
    systematic_sigma_m: NDArray[np.float32]

    def placed(self, T_target_part: RigidTransform) -> "SurfaceMesh":
        """The mesh in another frame."""
        return replace(self, vertices_m=np.asarray(T_target_part @ self.vertices_m, dtype=np.float64))


def voxel_sigmas_m(field: Tsdf, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Standard uncertainty of D of voxels, given by their rows (M,): random, and systematic; each (M,) metres.

    D is `sum w_i d_i / W`, so by GUM 5.1.2 and 5.2.2 each part of the frames' errors gives

    - new in each frame: `kappa sum w² v / W²`;
    - the same within a look: `sum over looks (sum w f)² / W²`;
    - poses: `sum over instants (sum w p)² / W²`; each moves all points of its frames alike, so this is systematic to a
      cloud;
    - shared by all frames of a camera: `sum over cameras (sum w s)² / W²`, which is an upper bound, since the errors of
      two frames of one camera correlate by 1 at most.

    kappa says how the n distances scatter against their weights: `sum w (d - D)²` has the expectation n - 1. It is
    pooled with the model's 1 as in `temporal.frame_sigma_m`: `kappa = (nu_0 + sum w (d - D)²) / (nu_0 + n - 1)`.
    """
    values = field.pool.values.take(rows, axis=1)
    weight = np.maximum(field.weight(values), np.float32(1e-30))
    own_freedom = np.maximum(field.pool.seen[rows].astype(np.float32) - 1, 0)
    model_freedom = np.float32(MODEL_DEGREES_OF_FREEDOM)
    kappa = (model_freedom + values[SCATTER]) / (model_freedom + own_freedom)
    looks = values[LASTING] + np.square(field.per_camera(values, LOOK_OF)).sum(axis=0)
    shared = np.square(field.per_camera(values, SHARED_OF)).sum(axis=0)
    random_sigma_m = np.sqrt(kappa * values[NOISE] + looks) / weight
    motion = values[MOTION] + np.square(values[MOTION_NOW])
    return random_sigma_m, np.sqrt(motion + shared) / weight


def surface_of(field: Tsdf, least_frames: int = 1) -> SurfacePoints:
    """All points of the surface that at least `least_frames` frames saw and most did not see through.

    On each edge between two voxels where D changes sign, the zero of the straight line between the two values is a
    point, if the edge is the one of the three directions closest to the normal and D rises along it as the normal
    says. Its standard uncertainty along the normal is `(1 - t) u_0 + t u_1` for a point at the share t of the edge:
    both ends see nearly the same pixels, so their errors correlate by nearly 1.
    """
    rows, is_known = _neighbourhood(field, least_frames)
    found = [_crossings(field, rows, is_known, axis) for axis in range(3)]
    edges = _Edges(*(np.concatenate([getattr(part, f.name) for part in found]) for f in fields(_Edges)))
    one, other = (field.pool.values.take(ends, axis=1) for ends in (edges.first, edges.second))
    t = edges.share.astype(np.float32)
    normals = (1 - t) * one[NORMAL] + t * other[NORMAL]
    normals /= np.sqrt(np.einsum("ij,ij->j", normals, normals))
    ends = zip(voxel_sigmas_m(field, edges.first), voxel_sigmas_m(field, edges.second), strict=True)
    random_sigma_m, systematic_sigma_m = (np.asarray((1 - t) * a + t * b, np.float32) for a, b in ends)
    weights = (1 - t) * field.per_camera(one, WEIGHT_OF) + t * field.per_camera(other, WEIGHT_OF)
    voxels = edges.voxel + 0.5
    voxels[np.arange(len(voxels)), edges.axis] += edges.share
    return SurfacePoints(
        points_part=field.box.lower_m + voxels * field.box.voxel_m,
        normals_part=np.ascontiguousarray(normals.T),
        random_sigma_m=random_sigma_m,
        systematic_sigma_m=systematic_sigma_m,
        share=np.ascontiguousarray((weights / np.maximum(weights.sum(axis=0), np.float32(1e-30))).T),
        frames=np.minimum(field.pool.seen[edges.first], field.pool.seen[edges.second]).astype(np.intp),
    )


def mesh_of(field: Tsdf, least_frames: int = 1) -> SurfaceMesh:
    """The surface as triangles by marching cubes, none where one of a cube's corners was not measured.

    W. E. Lorensen and H. E. Cline, SIGGRAPH 1987, as open3d's VoxelBlockGrid does it on our values. A vertex takes the
    uncertainty of the nearest voxel.
    """
    import_ = open3d()
    core, used = import_.core, field.pool.used
    rows = np.arange(used * BLOCK_VOXELS)
    # open3d takes integer corners of voxels, x fastest; ours are centres, x slowest.
    swapped = rows.reshape(-1, BLOCK, BLOCK, BLOCK).transpose(0, 3, 2, 1).reshape(-1)
    known = _is_known(field, rows, least_frames)[swapped]
    grid: Any = import_.t.geometry.VoxelBlockGrid(
        attr_names=("tsdf", "weight"),
        attr_dtypes=(core.float32, core.float32),
        attr_channels=((1), (1)),
        voxel_size=field.box.voxel_m,
        block_resolution=BLOCK,
        block_count=max(used, 1),
    )
    blocks = field.pool.corners(np.arange(used, dtype=np.int32)).astype(np.int32)
    places, _ = grid.hashmap().activate(core.Tensor(np.ascontiguousarray(blocks)))
    slot = places.numpy()
    for name, column in (("tsdf", field.pool.values[MEAN][swapped]), ("weight", known.astype(np.float32))):
        attribute = grid.attribute(name).numpy()
        attribute[slot] = column.reshape(used, BLOCK, BLOCK, BLOCK, 1)
    mesh = grid.extract_triangle_mesh(weight_threshold=0.5)
    if "positions" not in mesh.vertex:
        none = np.zeros(0, np.float32)
        return SurfaceMesh(np.zeros((0, 3)), np.zeros((0, 3), np.int32), none, none)
    voxels = mesh.vertex.positions.numpy().astype(np.float64) / field.box.voxel_m
    return _with_uncertainty(field, voxels, mesh.triangle.indices.numpy().astype(np.int32))


def cut_faces(field: Tsdf, points_part: NDArray[np.float64]) -> list[str]:
    """Names of the box's faces that the surface's points (N, 3) reach, such as "+x"."""
    names = []
    for axis, name in enumerate("xyz"):
        for sign, corner in (("-", field.box.lower_m), ("+", field.box.upper_m)):
            near = np.abs(points_part[:, axis] - corner[axis]) < 1.5 * field.box.voxel_m
            if near.sum() >= FEWEST_CUT:
                names.append(f"{sign}{name}")
    return names


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """Edges that the surface crosses: (M,) rows of both ends, (M, 3) voxel of the first, axis, share at the zero."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    voxel: NDArray[np.intp]
    axis: NDArray[np.intp]
    share: NDArray[np.float64]


def _neighbourhood(field: Tsdf, least_frames: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Rows (B, 9, 9, 9) of each block's voxels and of the next ones along x, y and z, and which are known."""
    rows = field.pool.rows_with_neighbours()
    is_known = _is_known(field, np.maximum(rows, 0), least_frames) & (rows >= 0)
    return rows, is_known


def _is_known(field: Tsdf, rows: NDArray[np.intp], least_frames: int) -> NDArray[np.bool_]:
    """Seen by enough frames, and seen through by fewer than saw it."""
    seen = field.pool.seen[rows]
    return np.asarray((seen >= max(least_frames, 1)) & (field.pool.free[rows] < seen))


def _crossings(field: Tsdf, rows: NDArray[np.intp], is_known: NDArray[np.bool_], axis: int) -> _Edges:
    near = (slice(None), slice(BLOCK), slice(BLOCK), slice(BLOCK))
    far = tuple(slice(1, None) if place == axis + 1 else part for place, part in enumerate(near))
    both = np.flatnonzero(is_known[near] & is_known[far])
    first, second = rows[near].reshape(-1)[both], rows[far].reshape(-1)[both]
    start, end = (field.pool.values[MEAN].take(ends).astype(np.float64) for ends in (first, second))
    crossed = np.flatnonzero((start > 0) != (end > 0))
    both, first, second, start, end = both[crossed], first[crossed], second[crossed], start[crossed], end[crossed]
    normal = field.pool.values[NORMAL].take(first, axis=1) + field.pool.values[NORMAL].take(second, axis=1)
    length = np.sqrt(np.einsum("ij,ij->j", normal, normal))
    rise = (end - start) * np.sign(normal[axis])
    is_surface = rise >= STEEPEST * field.box.voxel_m * np.abs(normal[axis]) / np.maximum(length, 1e-30)
    kept = np.flatnonzero((np.argmax(np.abs(normal), axis=0) == axis) & is_surface)
    block, *cell = np.unravel_index(both[kept], (field.pool.used, BLOCK, BLOCK, BLOCK))
    corner = field.pool.corners(block.astype(np.int32)) * BLOCK
    return _Edges(
        first=first[kept],
        second=second[kept],
        voxel=corner + np.stack(cell, axis=1),
        axis=np.full(len(kept), axis),
        share=start[kept] / (start[kept] - end[kept]),
    )


def _with_uncertainty(field: Tsdf, voxels: NDArray[np.float64], triangles: NDArray[np.int32]) -> SurfaceMesh:
    """Vertices (V, 3), counted in voxels from the centre of the box's first, in metres and with their uncertainty."""
    rows = field.pool.rows_of_voxels(np.rint(voxels).astype(np.intp))
    random_sigma_m, systematic_sigma_m = voxel_sigmas_m(field, np.maximum(rows, 0))
    return SurfaceMesh(
        vertices_m=field.box.lower_m + (voxels + 0.5) * field.box.voxel_m,
        triangles=triangles,
        random_sigma_m=random_sigma_m,
        systematic_sigma_m=systematic_sigma_m,
    )
