"""What makes a mesh useless as a reference: holes, inner walls, crossings, turned faces, several bodies, a wrong unit.

A signed distance needs a surface that has an inside: closed, of one body, every face turned the same way, crossing
itself nowhere. Whatever is found is refused with how often it occurs and where it occurs first; nothing is repaired.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError

Ints = NDArray[np.int64]

CROSSING = 1e-7
"""Share of the mesh's extent by which an edge must pass through a face to count as crossing it: beyond rounding."""

RAYS_AT_ONCE = 200_000
UNIT_FACTORS = {25.4: "inches", 1000.0: "metres", 1 / 25.4: "millimetres written as inches", 1e-3: "micrometres"}
"""By how much a mesh is too small for its region, and what its numbers are then in."""

FITS = 1.6
"""How far a part's extent and its region's may differ, as a factor, to belong together."""


class Flaw(StrEnum):
    """What is wrong with a mesh."""

    OPEN = "open edges"
    NON_MANIFOLD = "edges with more than two faces"
    TURNED = "faces turned against their neighbours"
    SHELLS = "separate shells"
    CROSSING = "edges that cross a face of the same mesh"


_ADVICE = {
    Flaw.OPEN: "close it in the CAD program",
    Flaw.NON_MANIFOLD: "remove inner walls and doubled faces in the CAD program",
    Flaw.TURNED: "let the CAD program turn all faces outwards",
    Flaw.SHELLS: "save one body without inner voids",
    Flaw.CROSSING: "unite the bodies in the CAD program, so that no wall crosses another",
}


@dataclass(frozen=True, slots=True)
class MeshFlaw:
    """One kind of flaw.

    Attributes:
        kind: which.
        count: how many, of shells all of them.
        place_mm: where the first is, frame "part".
    """

    kind: Flaw
    count: int
    place_mm: tuple[float, float, float]

    def __str__(self) -> str:
        x, y, z = self.place_mm
        where = "one of them" if self.kind is Flaw.SHELLS else "the first"
        return f"{self.count} {self.kind}, {where} at ({x:.2f}, {y:.2f}, {z:.2f}) mm; {_ADVICE[self.kind]}"


def check_mesh(vertices_m: FloatArray, triangles: NDArray[np.integer], what: str) -> None:
    """Refuse a mesh that has a flaw.

    Args:
        vertices_m: (V, 3) metres, each place once.
        triangles: (T, 3) vertex numbers.
        what: whose mesh it is, such as "mesh part.stl".

    Raises:
        DepthcellError: it has one; the message says which, how many and where.
    """
    flaw = first_flaw(vertices_m, triangles)
    if flaw is not None:
        raise DepthcellError(f"{what}: {flaw}")


def first_flaw(vertices_m: FloatArray, triangles: NDArray[np.integer]) -> MeshFlaw | None:
    """The gravest flaw of a mesh, None of a sound one. Later checks rest on what earlier ones found sound."""
    vertices = np.asarray(vertices_m, dtype=np.float64)
    faces = np.asarray(triangles, dtype=np.int64)
    return _edge_flaw(vertices, faces) or _shell_flaw(vertices, faces) or _crossing_flaw(vertices, faces)


def check_unit(extent_m: float, region_extent_m: float, what: str) -> None:
    """Refuse a mesh that is far smaller than the region to be inspected on it, as inches read as millimetres are.

    A part may be much larger than its region, never much smaller: that region would be empty.

    Args:
        extent_m: largest side of the mesh's bounding box.
        region_extent_m: largest side of the region.
        what: whose mesh it is.

    Raises:
        DepthcellError: it is too small by more than `FITS` times ten; the message says which unit would fit.
    """
    ratio = region_extent_m / extent_m
    if ratio < 10.0 * FITS:
        return
    guess = next((name for factor, name in UNIT_FACTORS.items() if factor / FITS <= ratio <= factor * FITS), None)
    advice = f"its numbers may be {guess}; set mesh_unit" if guess else "set mesh_unit, or make the region smaller"
    raise DepthcellError(
        f"{what}: is {extent_m * 1e3:.4g} mm large, its region {region_extent_m * 1e3:.4g} mm; {advice}"
    )


def _edge_flaw(vertices: NDArray[np.float64], faces: Ints) -> MeshFlaw | None:
    """Every edge must belong to two faces that run along it in opposite directions."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    low, high = directed.min(axis=1), directed.max(axis=1)
    _, first, number, uses = np.unique(
        low * len(vertices) + high, return_index=True, return_inverse=True, return_counts=True
    )
    forwards = np.bincount(number, weights=directed[:, 0] == low, minlength=len(uses))
    for kind, wrong in (
        (Flaw.NON_MANIFOLD, uses > 2),
        (Flaw.OPEN, uses == 1),
        (Flaw.TURNED, (uses == 2) & (forwards != 1)),
    ):
        if wrong.any():
            place = vertices[directed[first[np.argmax(wrong)]]].mean(axis=0)
            return _flaw(kind, int(wrong.sum()), place)
    return None


def _shell_flaw(vertices: NDArray[np.float64], faces: Ints) -> MeshFlaw | None:
    start, end = faces[:, [0, 1, 1, 2]].reshape(-1, 2).T
    links = coo_array((np.ones(len(start), bool), (start, end)), shape=(len(vertices), len(vertices)))
    _, label = connected_components(links.tocsr(), directed=False)
    of_faces, members = np.unique(label[faces[:, 0]], return_counts=True)
    if len(of_faces) == 1:
        return None
    smallest = faces[label[faces[:, 0]] == of_faces[np.argmin(members)]]
    return _flaw(Flaw.SHELLS, len(of_faces), vertices[smallest].mean(axis=(0, 1)))


def _crossing_flaw(vertices: NDArray[np.float64], faces: Ints) -> MeshFlaw | None:
    """Two faces that cross have an edge of one pass through the other: every edge is a ray to all other faces.

    Rays find the candidates in single precision; each is then computed in double. Faces that share a corner with the
    edge are left out: they meet it by right.
    """
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(vertices.astype(np.float32)), o3d.core.Tensor(faces.astype(np.uint32)))
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    # The mesh is sound so far: each edge runs once in either direction.
    edges = directed[directed[:, 0] < directed[:, 1]]
    edge_of, face_of = [], []
    for begin in range(0, len(edges), RAYS_AT_ONCE):
        some = edges[begin : begin + RAYS_AT_ONCE]
        rays = np.concatenate((vertices[some[:, 0]], vertices[some[:, 1]] - vertices[some[:, 0]]), axis=1)
        hits = scene.list_intersections(o3d.core.Tensor(rays.astype(np.float32)))
        near = hits["t_hit"].numpy() <= 1.0
        edge_of.append(begin + hits["ray_ids"].numpy()[near].astype(np.int64))
        face_of.append(hits["primitive_ids"].numpy()[near].astype(np.int64))
    edge, face = np.concatenate(edge_of), np.concatenate(face_of)
    apart = (edges[edge][:, :, None] != faces[face][:, None, :]).all(axis=(1, 2))
    edge, face = edge[apart], face[apart]
    places, through = _pierced(
        vertices[edges[edge]], vertices[faces[face]], CROSSING * float(np.ptp(vertices, axis=0).max())
    )
    if not through.any():
        return None
    return _flaw(Flaw.CROSSING, len(np.unique(edge[through])), places[through][0])


def _pierced(
    edges: NDArray[np.float64], faces: NDArray[np.float64], margin_m: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where edges (N, 2, 3) meet the planes of faces (N, 3, 3), and which pass through the face or its border.

    Both ends have to lie beyond the plane by more than the margin; a wall that only touches another does not cross it.
    """
    a, b, c = np.moveaxis(faces, 1, 0)
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    unit = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    before, after = (np.einsum("ij,ij->i", edges[:, end] - a, unit) for end in (0, 1))
    crosses = (np.minimum(before, after) < -margin_m) & (np.maximum(before, after) > margin_m)
    share = np.divide(before, before - after, out=np.zeros_like(before), where=crosses)
    places = edges[:, 0] + share[:, None] * (edges[:, 1] - edges[:, 0])
    inside = crosses
    for start, end in ((a, b), (b, c), (c, a)):
        side = np.einsum("ij,ij->i", np.cross(end - start, places - start), unit)
        inside = inside & (side > -margin_m * np.linalg.norm(end - start, axis=1))
    return places, inside


def _flaw(kind: Flaw, count: int, place_m: NDArray[np.float64]) -> MeshFlaw:
    x, y, z = (float(value) * 1e3 for value in place_m)
    return MeshFlaw(kind, count, (x, y, z))
