"""Surface meshes as files: PLY keeps the uncertainty of each vertex, STL cannot."""

from pathlib import Path

import numpy as np

from depthcell.files import written_beside
from depthcell.fusion.cloud_file import unknown_ending
from depthcell.fusion.tsdf_surface import SurfaceMesh

MESH_ENDINGS = (".stl", ".ply")
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def write_mesh(path: Path, mesh: SurfaceMesh) -> tuple[str, ...]:
    """Write a mesh in the format that the ending of `path` names, whole or not at all.

    Returns:
        What the format could not hold, in words; empty for PLY.

    Raises:
        DepthcellError: the ending is none of `MESH_ENDINGS`.
    """
    match path.suffix.lower():
        case ".stl":
            write_stl(path, mesh)
            return (f"{path.name}: STL holds no uncertainty; write .ply to keep it",)
        case ".ply":
            write_mesh_ply(path, mesh)
            return ()
        case _:
            raise unknown_ending(path, MESH_ENDINGS)


def write_stl(path: Path, mesh: SurfaceMesh) -> None:
    """Write a mesh as binary STL in millimetres, the unit in which such files are read."""
    corners = (mesh.vertices_m[mesh.triangles] * 1e3).astype("<f4")
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    records = np.zeros(len(corners), _TRIANGLE)
    records["corners"] = corners
    records["normal"] = normals / np.where(length > 0, length, 1)
    header = b"depthcell surface, millimetres".ljust(80, b" ")
    with written_beside(path) as partial:
        partial.write_bytes(header + np.uint32(len(records)).astype("<u4").tobytes() + records.tobytes())


def write_mesh_ply(path: Path, mesh: SurfaceMesh) -> None:
    """Write a mesh as binary PLY in metres; each vertex has `random_sigma` and `systematic_sigma` in metres."""
    vertices = np.empty(len(mesh.vertices_m), [(name, "<f4") for name in (*"xyz", "random_sigma", "systematic_sigma")])
    for axis, name in enumerate("xyz"):
        vertices[name] = mesh.vertices_m[:, axis]
    vertices["random_sigma"], vertices["systematic_sigma"] = mesh.random_sigma_m, mesh.systematic_sigma_m
    faces = np.empty(len(mesh.triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.triangles
    assert vertices.dtype.names is not None  # noqa: S101 - records have names; tells the type checker
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment depthcell surface, metres",
        f"element vertex {len(vertices)}",
        *(f"property float {name}" for name in vertices.dtype.names),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    with written_beside(path) as partial:
        partial.write_bytes("\n".join(header).encode("ascii") + vertices.tobytes() + faces.tobytes())
