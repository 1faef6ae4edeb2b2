"""A reference from CAD: a STEP file read by OpenCascade, tessellated finely, its faces offered as nominal features.

STEP (ISO 10303-21; AP203, AP214, AP242) carries its unit of length, so the file's own is used and a recipe that says
another is refused. The surface is cut into triangles whose distance from the true surface is measured, face by face,
and made finer until it holds. OpenCascade comes with the optional extra `depthcell[cad]`; see decision 0009.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.partmesh import PartMesh, open_edge_count, welded
from depthcell.errors import DepthcellError
from depthcell.fusion.association.elements import Cylinder, Plane, Sphere

STEP_SUFFIXES = (".step", ".stp")
CHORD_M = 2e-6
"""How far the triangles may lie from the true surface, unless the recipe says otherwise."""
ANGLE_RAD = 0.35
TRIES = 4
"""How often a smaller chord is asked of OpenCascade, which does not always keep what it is asked."""
MEASURED_TRIANGLES = 20_000
"""Of each face whose surface has to be evaluated point by point; spread evenly over the face's triangles."""
UNSEEN = 1.1
"""What may lie between the points at which a free-form face is measured; 3 % more was seen on a torus."""
MOST_TRIANGLES = 2_000_000
UNITS = {"millimetre": "mm", "metre": "m", "inch": "inch"}
WELD_M = 1e-8
SAME_M, SAME_COSINE = 1e-7, 1 - 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class NominalFeature:
    """An analytic surface of the drawing, frame "part".

    Attributes:
        element: plane, cylinder or sphere; a plane's normal points out of the material.
        is_inward: whether the material surrounds it, as it does a bore; False for planes.
        area_m2: of all faces that lie on it.
        faces: their numbers in the file, from 1; a bore often comes as two halves.
    """

    element: Plane | Cylinder | Sphere
    is_inward: bool
    area_m2: float
    faces: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class CadPart:
    """A part as drawn.

    Attributes:
        mesh: closed, metres, frame "part".
        unit: of the file: "mm", "m", "inch", or the name that it gives another.
        chord_m: largest distance of a triangle from the true surface, as measured at its centre and edges.
        features: analytic surfaces, largest first.
    """

    mesh: PartMesh
    unit: str
    chord_m: float
    features: tuple[NominalFeature, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Face:
    """One face in triangles, mm: nodes (N, 3), their surface parameters (N, 2), triangles (M, 3) seen from outside."""

    adaptor: Any
    nodes_mm: NDArray[np.float64]
    parameters: NDArray[np.float64]
    triangles: NDArray[np.int64]

    @property
    def vectors_mm2(self) -> NDArray[np.float64]:
        """(M, 3) outward normal of each triangle times its area."""
        a, b, c = np.moveaxis(self.nodes_mm[self.triangles], 1, 0)
        return np.cross(b - a, c - a) / 2


def load_cad(path: Path, unit: str | None = None, chord_m: float = CHORD_M) -> CadPart:
    """Read a STEP file that holds one solid.

    Args:
        path: the file.
        unit: what the recipe says its unit is; None if it says nothing.
        chord_m: largest distance of the triangles from the true surface.

    Raises:
        DepthcellError: OpenCascade is not installed; the file cannot be read, names no unit or another than `unit`,
            holds no solid or several, is not closed, or would need too many triangles.
    """
    shape, named = _read(path)
    if unit is not None and unit != named:
        raise DepthcellError(f"mesh {path}: is written in {named}, not {unit}; write mesh_unit as the file has it")
    solids = len(_parts_of(shape, "SOLID"))
    if solids != 1:
        raise DepthcellError(f"mesh {path}: holds {solids} solids; save the one part to be inspected as one solid")
    if not chord_m > 0:
        raise DepthcellError(f"mesh {path}: a chord of {chord_m:g} m cannot be kept; give one above 0")
    faces, measured_m = _kept_to(shape, chord_m, path)
    mesh = _joined(faces)
    if open_edges := open_edge_count(mesh):
        raise DepthcellError(
            f"mesh {path}: not closed, {open_edges} open or doubled edges; heal the solid in the CAD program"
        )
    return CadPart(mesh, named, measured_m, _features(faces))


def _kept_to(shape: Any, chord_m: float, path: Path) -> tuple[list[_Face], float]:
    """Triangles that keep the chord, and how well they do; each try asks for as much less as the last one missed."""
    asked_mm = chord_m * 1e3
    for _ in range(TRIES):
        faces = _tessellated(shape, asked_mm, path)
        measured_m = max(_chord_mm(face) for face in faces) / 1e3
        if measured_m <= chord_m:
            return faces, measured_m
        asked_mm *= 0.9 * chord_m / measured_m
    raise DepthcellError(f"mesh {path}: its triangles do not come within {chord_m * 1e6:.2g} um; wish a larger chord")


def _occ(module: str) -> Any:
    """A module of OpenCascade.

    Raises:
        DepthcellError: it is not installed.
    """
    try:
        return importlib.import_module(f"OCP.{module}")
    except ImportError as error:
        raise DepthcellError(
            f"STEP files are read by OpenCascade, which is not installed ({error}); pip install 'depthcell[cad]', or "
            "export the part as STL"
        ) from error


def _read(path: Path) -> tuple[Any, str]:
    """The shape in mm, and the unit that the file is written in."""
    if not path.is_file():
        raise DepthcellError(f"mesh {path}: no such file; check the path")
    # It would print its progress to standard output, where a program may be reading JSON.
    _occ("Message").Message.DefaultMessenger_s().ChangePrinters().Clear()
    reader = _occ("STEPControl").STEPControl_Reader()
    done = _occ("IFSelect").IFSelect_ReturnStatus.IFSelect_RetDone
    if reader.ReadFile(str(path)) != done:
        raise DepthcellError(f"mesh {path}: is no STEP file that can be read; export it again as AP214 or AP242")
    names = _occ("collections").Sequence_TCollection_AsciiString
    lengths, angles, solid_angles = names(), names(), names()
    reader.FileUnits(lengths, angles, solid_angles)
    found = {lengths.Value(number).ToCString().lower() for number in range(1, lengths.Length() + 1)}
    if len(found) != 1:
        what = "names no unit of length" if not found else f"mixes {' and '.join(sorted(found))}"
        raise DepthcellError(f"mesh {path}: {what}; export it again in one unit")
    if not reader.TransferRoots():
        raise DepthcellError(f"mesh {path}: holds no shape; export the part as a solid")
    name = str(found.pop())
    return reader.OneShape(), UNITS.get(name, name)


def _parts_of(shape: Any, kind: str) -> list[Any]:
    topology = _occ("TopAbs").TopAbs_ShapeEnum
    explorer = _occ("TopExp").TopExp_Explorer(shape, getattr(topology, f"TopAbs_{kind}"))
    found = []
    while explorer.More():
        found.append(explorer.Current())
        explorer.Next()
    return found


def _tessellated(shape: Any, chord_mm: float, path: Path) -> list[_Face]:
    """Every face of the shape in triangles that share the points of their edges."""
    _occ("BRepTools").BRepTools.Clean_s(shape)
    _occ("BRepMesh").BRepMesh_IncrementalMesh(shape, chord_mm, False, ANGLE_RAD, False)
    as_face = _occ("TopoDS").TopoDS
    as_face = as_face.Face if hasattr(as_face, "Face") else as_face.Face_s
    faces = [_face(as_face(face), path) for face in _parts_of(shape, "FACE")]
    if not faces or (count := sum(len(face.triangles) for face in faces)) == 0:
        raise DepthcellError(f"mesh {path}: holds no surface that can be cut into triangles; heal it and export again")
    if count > MOST_TRIANGLES:
        raise DepthcellError(f"mesh {path}: {count} triangles at {chord_mm * 1e3:g} um; wish a larger chord")
    return faces


def _face(face: Any, path: Path) -> _Face:
    location = _occ("TopLoc").TopLoc_Location()
    cut = _occ("BRep").BRep_Tool.Triangulation_s(face, location)
    if cut is None:
        raise DepthcellError(f"mesh {path}: a face cannot be cut into triangles; heal it in the CAD program")
    placed = location.Transformation()
    number = range(1, cut.NbNodes() + 1)
    nodes = np.array([cut.Node(i).Transformed(placed).Coord() for i in number], dtype=np.float64)
    parameters = np.array([cut.UVNode(i).Coord() for i in number], dtype=np.float64)
    triangles = np.array([cut.Triangle(i).Get() for i in range(1, cut.NbTriangles() + 1)], dtype=np.int64) - 1
    if face.Orientation() == _occ("TopAbs").TopAbs_Orientation.TopAbs_REVERSED:
        triangles = triangles[:, ::-1]
    return _Face(_occ("BRepAdaptor").BRepAdaptor_Surface(face), nodes, parameters, triangles.reshape(-1, 3))


def _kind(face: _Face) -> str:
    """Name of its surface in OpenCascade: Plane, Cylinder, Cone, Sphere, Torus, BSplineSurface ..."""
    return str(face.adaptor.GetType()).rsplit("_", 1)[-1]


def _chord_mm(face: _Face) -> float:
    """Largest distance from the true surface, at the centre of each triangle and of its edges."""
    kind = _kind(face)
    if kind == "Plane" or not len(face.triangles):
        return 0.0
    chosen = face.triangles
    if kind not in {"Cylinder", "Sphere"} and len(chosen) > MEASURED_TRIANGLES:
        chosen = chosen[np.linspace(0, len(chosen) - 1, MEASURED_TRIANGLES).astype(np.int64)]
    weights = np.array([[1, 1, 1], [1.5, 1.5, 0], [0, 1.5, 1.5], [1.5, 0, 1.5]]) / 3
    points = np.einsum("wc,tcx->twx", weights, face.nodes_mm[chosen]).reshape(-1, 3)
    if kind in {"Cylinder", "Sphere"}:
        centre, axis, radius = _axis(face, kind)
        offset = points - centre
        across = offset - (offset @ axis)[:, None] * axis if kind == "Cylinder" else offset
        return float(np.abs(np.linalg.norm(across, axis=1) - radius).max())
    parameters = np.einsum("wc,tcx->twx", weights, face.parameters[chosen]).reshape(-1, 2)
    return UNSEEN * float(_off_surface_mm(face.adaptor, points, parameters).max())


def _off_surface_mm(adaptor: Any, points: NDArray[np.float64], parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of points (N, 3) from the plane that touches the surface at parameters (N, 2) close to each."""
    geometry = _occ("gp")
    there, along_u, along_v = geometry.gp_Pnt(), geometry.gp_Vec(), geometry.gp_Vec()
    touched = np.empty((len(points), 3, 3))
    for row, (u, v) in zip(touched, parameters.tolist(), strict=True):
        adaptor.D1(u, v, there, along_u, along_v)
        row[:] = there.Coord(), along_u.Coord(), along_v.Coord()
    normals = np.cross(touched[:, 1], touched[:, 2])
    length = np.linalg.norm(normals, axis=1)
    off = np.abs(np.einsum("ij,ij->i", points - touched[:, 0], normals))
    return np.asarray(np.divide(off, length, out=np.zeros(len(off)), where=length > 1e-12))


def _axis(face: _Face, kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """A point, a direction and the radius of a cylinder or sphere, mm."""
    surface = getattr(face.adaptor, kind)()
    axis = surface.Position().Axis() if kind == "Sphere" else surface.Axis()
    direction = axis.Direction()
    return (
        np.array(axis.Location().Coord(), dtype=np.float64),
        np.array([direction.X(), direction.Y(), direction.Z()], dtype=np.float64),
        float(surface.Radius()),
    )


def _joined(faces: list[_Face]) -> PartMesh:
    """All faces as one mesh, their common edges welded."""
    starts = np.cumsum([0, *(len(face.nodes_mm) for face in faces[:-1])])
    vertices_m = np.concatenate([face.nodes_mm for face in faces]) / 1e3
    triangles = np.concatenate([face.triangles + start for face, start in zip(faces, starts, strict=True)])
    return welded(vertices_m, triangles, WELD_M)


def _features(faces: list[_Face]) -> tuple[NominalFeature, ...]:
    """Planes, cylinders and spheres, faces on the same surface taken together, largest first."""
    found: list[NominalFeature] = []
    for number, face in enumerate(faces, start=1):
        feature = _feature(face, number)
        if feature is None:
            continue
        for place, other in enumerate(found):
            if _is_same(feature, other):
                area_m2 = feature.area_m2 + other.area_m2
                found[place] = NominalFeature(other.element, other.is_inward, area_m2, (*other.faces, number))
                break
        else:
            found.append(feature)
    return tuple(sorted(found, key=lambda feature: -feature.area_m2))


def _feature(face: _Face, number: int) -> NominalFeature | None:
    kind, vectors = _kind(face), face.vectors_mm2
    area_m2 = float(np.linalg.norm(vectors, axis=1).sum()) * 1e-6
    if area_m2 == 0 or kind not in {"Plane", "Cylinder", "Sphere"}:
        return None
    middle_mm = (face.nodes_mm.min(axis=0) + face.nodes_mm.max(axis=0)) / 2
    if kind == "Plane":
        normal = vectors.sum(axis=0)
        return NominalFeature(Plane(middle_mm / 1e3, normal / np.linalg.norm(normal)), False, area_m2, (number,))
    centre, axis, radius = _axis(face, kind)
    outward = face.nodes_mm[face.triangles].mean(axis=1) - centre
    if kind == "Sphere":
        is_inward = float(np.einsum("ij,ij->", outward, vectors)) < 0
        return NominalFeature(Sphere(centre / 1e3, radius / 1e3), is_inward, area_m2, (number,))
    outward -= (outward @ axis)[:, None] * axis
    along = (face.nodes_mm - centre) @ axis
    point_m = (centre + (along.min() + along.max()) / 2 * axis) / 1e3
    is_inward = float(np.einsum("ij,ij->", outward, vectors)) < 0
    return NominalFeature(Cylinder(point_m, axis, radius / 1e3), is_inward, area_m2, (number,))


def _is_same(one: NominalFeature, other: NominalFeature) -> bool:
    """Whether two faces lie on one surface."""
    first, second = one.element, other.element
    if one.is_inward != other.is_inward:
        return False
    if isinstance(first, Plane) and isinstance(second, Plane):
        parallel = float(first.normal @ second.normal) > SAME_COSINE
        return parallel and abs(float(second.distance(first.point[None])[0])) < SAME_M
    if isinstance(first, Sphere) and isinstance(second, Sphere):
        away = float(np.linalg.norm(first.centre - second.centre))
        return away < SAME_M and abs(first.radius_m - second.radius_m) < SAME_M
    if isinstance(first, Cylinder) and isinstance(second, Cylinder):
        offset = first.point - second.point
        across = float(np.linalg.norm(offset - (offset @ second.axis) * second.axis))
        parallel = abs(float(first.axis @ second.axis)) > SAME_COSINE
        return parallel and across < SAME_M and abs(first.radius_m - second.radius_m) < SAME_M
    return False
