"""The part on its fixture plate, and what a camera at some pose sees of it: ray casting, no graphics card."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.transform import FloatArray, RigidTransform

PLATE_HALF_M = 1.0
OFF_SURFACE_M = 2e-5
"""Rays from a surface start this far off it, so that they do not hit it again by rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceView:
    """The first surface on every pixel's ray.

    Attributes:
        depth_m: (H, W) float32, z in the camera's frame, NaN where nothing is hit.
        points_cell: (H, W, 3) float32, metres; NaN where nothing is hit.
        normals_cell: (H, W, 3) float32, towards the camera; zero where nothing is hit.
        cosine: (H, W) float32 between normal and ray.
        on_part: (H, W) bool, part rather than plate.
        camera_cell: (3,) float64, where the camera is.
    """

    depth_m: NDArray[np.float32]
    points_cell: NDArray[np.float32]
    normals_cell: NDArray[np.float32]
    cosine: NDArray[np.float32]
    on_part: NDArray[np.bool_]
    camera_cell: NDArray[np.float64]


class Scene:
    """One part in one pose above a plate at z = 0 of the cell."""

    def __init__(self, mesh: PartMesh, T_cell_part: RigidTransform, threads: int = 1) -> None:
        self._core = open3d().core
        self._threads = threads
        self._scene: Any = open3d().t.geometry.RaycastingScene(nthreads=threads)
        self._part_id = self._add(T_cell_part @ mesh.vertices_m, mesh.triangles)
        corners = PLATE_HALF_M * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=np.float64)
        self._add(corners, np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32))

    def _add(self, vertices_cell: FloatArray, triangles: NDArray[np.int32]) -> int:
        vertices = self._core.Tensor(np.ascontiguousarray(vertices_cell, dtype=np.float32))
        return int(self._scene.add_triangles(vertices, self._core.Tensor(triangles.astype(np.uint32))))

    def view(self, T_cell_cam: RigidTransform, intrinsics: Intrinsics) -> SurfaceView:
        """What a pinhole camera sees."""
        rays = intrinsics.rays()
        directions = T_cell_cam.rotate(rays)
        camera = T_cell_cam.translation_m.astype(np.float32)
        origins = np.broadcast_to(camera, directions.shape)
        # The rays have z = 1, so the distance in units of their length is the depth.
        hits = self._scene.cast_rays(self._rays(origins, directions), nthreads=self._threads)
        depth = hits["t_hit"].numpy()
        depth[np.isinf(depth)] = np.nan
        normals = np.nan_to_num(hits["primitive_normals"].numpy())
        towards = -np.einsum("hwk,hwk->hw", normals, directions)
        normals *= np.where(towards < 0, -1.0, 1.0)[..., None].astype(np.float32)
        cosine = np.abs(towards) / np.linalg.norm(directions, axis=-1)
        points = camera + directions * depth[..., None]
        on_part = hits["geometry_ids"].numpy() == self._part_id
        return SurfaceView(depth, points, normals, cosine, on_part, T_cell_cam.translation_m)

    def sees(self, view: SurfaceView, eye_cell: FloatArray) -> NDArray[np.bool_]:
        """Which of the view's points (H, W) a light or another camera at `eye_cell` (3,) sees."""
        start = view.points_cell + OFF_SURFACE_M * view.normals_cell
        directions = eye_cell.astype(np.float32) - start
        faces_eye = np.einsum("hwk,hwk->hw", directions, view.normals_cell) > 0
        start = np.nan_to_num(start)
        hidden = self._scene.test_occlusions(
            self._rays(start, np.nan_to_num(directions)), tfar=1.0, nthreads=self._threads
        )
        seen: NDArray[np.bool_] = faces_eye & ~hidden.numpy()
        return seen

    def _rays(self, origins: FloatArray, directions: FloatArray) -> Any:
        return self._core.Tensor(np.concatenate((origins, directions), axis=-1).astype(np.float32))
