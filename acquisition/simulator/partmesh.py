"""The closed triangle mesh of a part: read, written, checked, measured and refined where a defect needs it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError
from depthcell.files import written_beside

METRES_PER_UNIT = {"mm": 1e-3, "m": 1.0, "inch": 0.0254}
MESH_SUFFIXES = (".stl", ".ply", ".obj")


@dataclass(frozen=True, slots=True, eq=False)
class PartMesh:
    """A closed surface in the frame "part".

    Attributes:
        vertices_m: (N, 3) float64, metres.
        triangles: (M, 3) int32 vertex numbers, counter-clockwise when seen from outside the material.
    """

    vertices_m: NDArray[np.float64]
    triangles: NDArray[np.int32]

    @property
    def corners_m(self) -> NDArray[np.float64]:
        """(M, 3, 3): the three corners of every triangle."""
        return self.vertices_m[self.triangles]

    @property
    def volume_m3(self) -> float:
        """Enclosed volume by the divergence theorem, a sum of signed tetrahedra; needs a closed mesh."""
        a, b, c = np.moveaxis(self.corners_m - self.vertices_m.mean(axis=0), 1, 0)
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)

    @property
    def min_m(self) -> NDArray[np.float64]:
        """(3,) lower corner of the bounding box."""
        lowest: NDArray[np.float64] = self.vertices_m.min(axis=0)
        return lowest

    @property
    def max_m(self) -> NDArray[np.float64]:
        """(3,) upper corner of the bounding box."""
        highest: NDArray[np.float64] = self.vertices_m.max(axis=0)
        return highest

    def face_vectors_m2(self) -> NDArray[np.float64]:
        """(M, 3): the outward normal of every triangle times its area."""
        a, b, c = np.moveaxis(self.corners_m, 1, 0)
        return np.cross(b - a, c - a) / 2

    def with_vertices(self, vertices_m: FloatArray) -> "PartMesh":
        """The same triangles on moved vertices."""
        return PartMesh(np.asarray(vertices_m, dtype=np.float64), self.triangles)


def open_edge_count(mesh: PartMesh) -> int:
    """Number of directed edges without exactly one opposite partner; 0 for a closed, consistently oriented mesh."""
    directed = mesh.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    count = len(mesh.vertices_m)
    forward = directed[:, 0] * count + directed[:, 1]
    backward = directed[:, 1] * count + directed[:, 0]
    unique, uses = np.unique(forward, return_counts=True)
    return int((uses > 1).sum() + (~np.isin(forward, backward)).sum()) if len(unique) else 1


def welded(vertices_m: FloatArray, triangles: NDArray[np.integer], tolerance_m: float = 1e-8) -> PartMesh:
    """Join vertices that coincide within `tolerance_m`, drop triangles that collapse, and turn the mesh outside out."""
    keys = np.round(np.asarray(vertices_m, dtype=np.float64) / tolerance_m).astype(np.int64)
    _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    joined = number.reshape(-1)[triangles]
    a, b, c = joined.T
    joined = joined[(a != b) & (b != c) & (c != a)].astype(np.int32)
    mesh = PartMesh(np.asarray(vertices_m, dtype=np.float64)[first], joined)
    return mesh if mesh.volume_m3 >= 0 else PartMesh(mesh.vertices_m, joined[:, ::-1].copy())


def load_part_mesh(path: Path, unit: str = "mm", *, closed: bool = True) -> PartMesh:
    """Read a closed STL, PLY or OBJ mesh whose numbers are in `unit`; without `closed` whoever asks checks that.

    Raises:
        DepthcellError: the file is missing, of another kind, unreadable, empty, not finite, or the mesh is open.
    """
    if unit not in METRES_PER_UNIT:
        raise DepthcellError(f"--mesh-unit {unit}: unknown; choose one of {', '.join(METRES_PER_UNIT)}")
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise DepthcellError(f"mesh {path}: unknown kind of file; give one of {', '.join(MESH_SUFFIXES)}")
    if not path.is_file():
        raise DepthcellError(f"mesh {path}: no such file; check the path")
    o3d = open3d()
    # It would print its opinion to standard output, where a program may be reading JSON.
    with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        raw = o3d.io.read_triangle_mesh(str(path))
    vertices, triangles = np.asarray(raw.vertices), np.asarray(raw.triangles)
    if not len(triangles):
        raise DepthcellError(f"mesh {path}: holds no triangle that can be read; export it again as binary STL or PLY")
    if not np.isfinite(vertices).all():
        raise DepthcellError(f"mesh {path}: holds a vertex that is not finite; repair it in the CAD program")
    # CAD exporters write each triangle with its own corners; single precision leaves them apart by rounding.
    extent = float(np.ptp(vertices, axis=0).max())
    mesh = welded(vertices * METRES_PER_UNIT[unit], triangles, tolerance_m=1e-6 * extent * METRES_PER_UNIT[unit])
    if closed and (open_edges := open_edge_count(mesh)):
        raise DepthcellError(
            f"mesh {path}: not closed, {open_edges} open or doubled edges; close it in the CAD program"
        )
    return mesh


def save_stl(path: Path, mesh: PartMesh) -> None:
    """Write a binary STL in millimetres, whole or not at all."""
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    facets = np.zeros(len(mesh.triangles), dtype=record)
    vectors = mesh.face_vectors_m2()
    facets["normal"] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    facets["corners"] = mesh.corners_m * 1e3
    header = b"depthcell part mesh, millimetres".ljust(80)
    with written_beside(path) as partial:
        partial.write_bytes(header + np.uint32(len(facets)).tobytes() + facets.tobytes())


def refined_in_ball(mesh: PartMesh, centre_m: FloatArray, radius_m: float, edge_m: float) -> PartMesh:
    """Halve every edge longer than `edge_m` that reaches into a ball, until none is left; the mesh stays closed.

    An edge is split for both its triangles at once, so no crack opens. The surface itself does not change.
    """
    return _refined(mesh, lambda start, end: _distance_to_segments(centre_m, start, end) < radius_m, edge_m)


def refined_where(mesh: PartMesh, is_inside: Callable[[FloatArray], NDArray[np.bool_]], edge_m: float) -> PartMesh:
    """The same wherever `is_inside` is true at an end or in the middle of an edge.

    What is inside has to be wider than the mesh's edges there, or it may go unseen.
    """

    def reaches_in(start: FloatArray, end: FloatArray) -> NDArray[np.bool_]:
        return is_inside(start) | is_inside(end) | is_inside((start + end) / 2)

    return _refined(mesh, reaches_in, edge_m)


def _refined(
    mesh: PartMesh, reaches_in: Callable[[FloatArray, FloatArray], NDArray[np.bool_]], edge_m: float
) -> PartMesh:
    """Split every long edge of each triangle that reaches in.

    To split only those edges that reach in themselves would not end: beside a long edge that stays, the new ones
    never get shorter.
    """
    while True:
        vertices = mesh.vertices_m
        ends = np.sort(mesh.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1).astype(np.int64)
        keys, number = np.unique(ends[:, 0] * len(vertices) + ends[:, 1], return_inverse=True)
        edges = np.stack((keys // len(vertices), keys % len(vertices)), axis=1).astype(np.int32)
        start, end = vertices[edges[:, 0]], vertices[edges[:, 1]]
        is_long = np.linalg.norm(end - start, axis=1) > edge_m
        reaching = np.zeros(len(edges), dtype=bool)
        reaching[is_long] = reaches_in(start[is_long], end[is_long])
        if not reaching.any():
            return mesh
        of_triangle = number.reshape(-1, 3)
        touched = np.zeros(len(edges), dtype=bool)
        touched[of_triangle[reaching[of_triangle].any(axis=1)]] = True
        mesh = _with_edges_split(mesh, edges[touched & is_long])


def _distance_to_segments(point: FloatArray, start: FloatArray, end: FloatArray) -> FloatArray:
    along = end - start
    share = np.einsum("ij,ij->i", point - start, along) / np.einsum("ij,ij->i", along, along)
    nearest = start + np.clip(share, 0, 1)[:, None] * along
    distance: FloatArray = np.linalg.norm(nearest - point, axis=1)
    return distance


def _with_edges_split(mesh: PartMesh, edges: NDArray[np.int32]) -> PartMesh:
    """Put a vertex in the middle of each of `edges` and cut the triangles beside it in two, three or four."""
    count = len(mesh.vertices_m)
    middle = mesh.vertices_m[edges].mean(axis=1)
    keys = edges[:, 0].astype(np.int64) * count + edges[:, 1]
    order = np.argsort(keys)

    def midpoint_of(a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.int64]:
        wanted = np.minimum(a, b).astype(np.int64) * count + np.maximum(a, b)
        place = np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)
        found = keys[order][place] == wanted
        return np.where(found, count + order[place], -1)

    a, b, c = mesh.triangles.T
    halves = np.stack((midpoint_of(a, b), midpoint_of(b, c), midpoint_of(c, a)), axis=1)
    pieces: list[NDArray[np.integer]] = [mesh.triangles[(halves < 0).all(axis=1)]]
    for pattern in range(1, 8):
        is_split = np.array([pattern & 1, pattern & 2, pattern & 4], dtype=bool)
        chosen = ((halves >= 0) == is_split).all(axis=1)
        pieces.append(_cut(mesh.triangles[chosen], halves[chosen], is_split))
    return PartMesh(np.concatenate((mesh.vertices_m, middle)), np.concatenate(pieces).astype(np.int32))


def _cut(triangles: NDArray[np.int32], halves: NDArray[np.int64], is_split: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Triangles that share one pattern of split edges (ab, bc, ca), cut along the new midpoints, orientation kept."""
    splits = int(is_split.sum())
    # Turned so that for one split it is ab, and for two splits ab and bc.
    turn = int(np.argmax(is_split)) if splits == 1 else int(np.argmin(is_split) + 1) % 3
    a, b, c = np.roll(triangles, -turn, axis=1).T
    ab, bc, ca = np.roll(halves, -turn, axis=1).T
    if splits == 1:
        parts = [(a, ab, c), (ab, b, c)]
    elif splits == 2:
        parts = [(ab, b, bc), (a, ab, bc), (a, bc, c)]
    else:
        parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.concatenate([np.stack(part, axis=1) for part in parts])
