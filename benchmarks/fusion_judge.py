"""How far fused points lie from the true part, for the benchmarks of fusion."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.transform import RigidTransform

NEAR_M, CLEAR_M = 1e-3, 1.5e-3


@dataclass(frozen=True)
class Deviation:
    """Of points within 1 mm of the true part and not within 1.5 mm of an edge, metres.

    Attributes:
        noise_m: standard deviation, from the median absolute one; median_m: their middle; rms_m: root mean square.
        points: how many; far_share: share of all points that lie farther than 1 mm from the part.
    """

    noise_m: float
    median_m: float
    rms_m: float
    points: int
    far_share: float


class Judge:
    """Knows the true part and its edges."""

    def __init__(self, mesh: PartMesh, T_cell_part: RigidTransform) -> None:
        self._o3d: Any = open3d()
        self._T_part_cell = T_cell_part.inverse()
        self._scene = self._o3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(mesh.vertices_m.astype(np.float32), mesh.triangles.astype(np.uint32))
        self._edges = KDTree(_edge_points(mesh.vertices_m, mesh.triangles))

    def deviation(self, points_cell: np.ndarray) -> Deviation:
        """Of points (N, 3)."""
        distance_m, clear = self.distances(points_cell)
        judged = distance_m[clear]
        middle_m = float(np.median(judged))
        return Deviation(
            noise_m=float(1.4826 * np.median(np.abs(judged - middle_m))),
            median_m=middle_m,
            rms_m=float(np.sqrt(np.mean(np.square(judged)))),
            points=len(judged),
            far_share=float(np.mean(np.abs(distance_m) >= NEAR_M)),
        )

    def distances(self, points_cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed distance (N,) of points from the part, and the indices of those that are judged."""
        points_part = self._T_part_cell @ points_cell
        query = self._o3d.core.Tensor(points_part.astype(np.float32))
        distance_m = self._scene.compute_signed_distance(query, nsamples=3).numpy()
        near = np.flatnonzero(np.abs(distance_m) < NEAR_M)
        return distance_m, near[self._edges.query(points_part[near])[0] > CLEAR_M]

    def noise_m(self, points_cell: np.ndarray) -> tuple[float, int]:
        """Noise and the points that it is of."""
        found = self.deviation(points_cell)
        return found.noise_m, found.points


def _edge_points(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Points along the edges at which the surface bends by more than 30°."""
    a, b, c = np.moveaxis(vertices[triangles], 1, 0)
    normals = np.cross(b - a, c - a)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    order = np.lexsort(edges.T)
    owner = np.repeat(np.arange(len(triangles)), 3)[order].reshape(-1, 2)  # closed: each edge has two triangles
    bent = np.einsum("ij,ij->i", normals[owner[:, 0]], normals[owner[:, 1]]) < np.cos(np.radians(30))
    ends = vertices[edges[order][::2][bent]]
    shares = np.linspace(0, 1, 9)[:, None, None]
    return np.concatenate(ends[:, 0] * shares + ends[:, 1] * (1 - shares))
