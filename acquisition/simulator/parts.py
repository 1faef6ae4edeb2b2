"""Five parts of our own, by parameters: bracket, flange, sheet, shaft, weld. Drawn in mm, z up, resting on z = 0."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.partmesh import PartMesh, load_part_mesh, welded
from depthcell.acquisition.simulator.terraces import Terrace, circle, flat, rectangle, terraced_solid
from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError


class PartKind(StrEnum):
    """The parts that need no mesh file."""

    BRACKET = "bracket"
    FLANGE = "flange"
    SHEET = "sheet"
    SHAFT = "shaft"
    WELD = "weld"


@dataclass(frozen=True, slots=True)
class Bore:
    """A round hole.

    Attributes:
        name: as the drawing calls it.
        position_mm: centre of its mouth in the frame "part".
        axis: unit vector out of the material.
        diameter_mm: nominal.
    """

    name: str
    position_mm: tuple[float, float, float]
    axis: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True, slots=True)
class Finish:
    """How the surface answers to light.

    Attributes:
        albedo_rgb: share of light sent back diffusely, linear, 0 to 1.
        mottle: standard deviation of the albedo over the surface, relative.
        grain: length of the texture along x over its width: 1 for cast, more for milled and rolled.
        specular: strength of the highlight; gloss: its Blinn-Phong exponent.
    """

    albedo_rgb: tuple[float, float, float]
    mottle: float
    grain: float
    specular: float
    gloss: float


MILLED = Finish((0.42, 0.43, 0.45), mottle=0.04, grain=12.0, specular=0.16, gloss=40.0)
CAST = Finish((0.30, 0.30, 0.29), mottle=0.05, grain=1.0, specular=0.04, gloss=10.0)
ROLLED = Finish((0.46, 0.47, 0.48), mottle=0.03, grain=20.0, specular=0.13, gloss=40.0)
TURNED = Finish((0.45, 0.45, 0.46), mottle=0.03, grain=0.1, specular=0.14, gloss=40.0)
WELDED = Finish((0.36, 0.35, 0.34), mottle=0.06, grain=3.0, specular=0.08, gloss=20.0)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What the cell looks at.

    Attributes:
        name: of the part, and of its mesh file.
        mesh: perfect surface, frame "part".
        bores: that a drawing would dimension.
        finish: how it answers to light.
        kind: which of our own parts this is, None for one loaded from a file.
    """

    name: str
    mesh: PartMesh
    bores: tuple[Bore, ...]
    finish: Finish
    kind: PartKind | None

    def mesh_without(self, bore: Bore) -> PartMesh:
        """The mesh as it is when `bore` was never drilled."""
        if self.kind is None:
            raise DepthcellError(f"part {self.name}: a loaded mesh has no bores to leave out; choose other --defects")
        return _build(self.kind, frozenset((bore.name,))).mesh


def load_part(source: str, mesh_unit: str = "mm") -> Part:
    """One of our own parts by name, or a mesh file.

    Raises:
        DepthcellError: no part has this name, or the mesh cannot be used.
    """
    if source in set(PartKind):
        return build_part(PartKind(source))
    if not Path(source).suffix:
        raise DepthcellError(f"--part {source}: unknown; choose {', '.join(PartKind)} or the path of a mesh file")
    path = Path(source)
    return Part(path.stem, load_part_mesh(path, mesh_unit), (), MILLED, None)


def build_part(kind: PartKind) -> Part:
    """One of our own parts, perfect."""
    return _build(kind, frozenset())


def _build(kind: PartKind, undrilled: frozenset[str]) -> Part:
    builders: dict[PartKind, Callable[[frozenset[str]], Part]] = {
        PartKind.BRACKET: _bracket,
        PartKind.FLANGE: _flange,
        PartKind.SHEET: _sheet,
        PartKind.SHAFT: lambda _: _shaft(),
        PartKind.WELD: lambda _: _weld(),
    }
    return builders[kind](undrilled)


def _drilled(bores: tuple[Bore, ...], undrilled: frozenset[str]) -> list[Terrace]:
    return [
        Terrace(circle(bore.position_mm[:2], bore.diameter_mm), None) for bore in bores if bore.name not in undrilled
    ]


def _upright(name: str, x_mm: float, y_mm: float, mouth_mm: float, diameter_mm: float) -> Bore:
    return Bore(name, (x_mm, y_mm, mouth_mm), (0.0, 0.0, 1.0), diameter_mm)


def _bracket(undrilled: frozenset[str]) -> Part:
    """A milled plate 96 x 64 mm with a boss, a pocket, an upright rib and three bores."""
    bores = (
        _upright("bore A", -24.0, 10.0, 17.0, 14.0),
        _upright("bore B", 34.0, 20.0, 12.0, 9.0),
        _upright("bore C", 34.0, -14.0, 12.0, 9.0),
    )
    mesh = terraced_solid(
        [
            Terrace(rectangle((0.0, 0.0), (96.0, 64.0), corner_mm=5.0), flat(12.0)),
            Terrace(rectangle((0.0, -27.0), (84.0, 6.0), corner_mm=1.0), flat(22.0)),
            Terrace(circle((-24.0, 10.0), 30.0), flat(17.0)),
            Terrace(rectangle((12.0, 6.0), (18.0, 34.0), corner_mm=4.0), flat(8.0)),
            *_drilled(bores, undrilled),
        ],
        spacing_mm=2.0,
    )
    return Part("bracket", mesh, bores, MILLED, PartKind.BRACKET)


def _flange(undrilled: frozenset[str]) -> Part:
    """A cast disc of 100 mm with a drafted hub, a through bore and six bolt holes on a circle of 78 mm."""
    bolts = tuple(
        _upright(f"bolt {k + 1}", 39.0 * np.cos(np.pi / 3 * k), 39.0 * np.sin(np.pi / 3 * k), 11.0, 9.0)
        for k in range(6)
    )
    bores = (_upright("hub bore", 0.0, 0.0, 22.0, 26.0), *bolts)

    def draft(points_mm: FloatArray) -> FloatArray:
        distance_mm = np.linalg.norm(points_mm, axis=-1)
        return np.asarray(np.interp(distance_mm, (21.0, 25.0), (22.0, 11.0)))

    mesh = terraced_solid(
        [
            Terrace(circle((0.0, 0.0), 100.0), flat(11.0)),
            Terrace(circle((0.0, 0.0), 50.0), draft),
            Terrace(circle((0.0, 0.0), 42.0), flat(22.0)),
            *_drilled(bores, undrilled),
        ],
        spacing_mm=2.0,
    )
    return Part("flange", mesh, bores, CAST, PartKind.FLANGE)


def _sheet(undrilled: frozenset[str]) -> Part:
    """A stamped sheet 110 x 76 mm, its lower side filled: two beads, a dome and two punched holes."""
    bores = (_upright("hole 1", -44.0, -28.0, 8.0, 10.0), _upright("hole 2", 44.0, 28.0, 8.0, 10.0))

    def stamped(points_mm: FloatArray) -> FloatArray:
        x, y = points_mm[..., 0], points_mm[..., 1]
        beads = sum(2.5 * _bell((y - row) / 5.0) * _plateau((np.abs(x) - 26.0) / 8.0) for row in (-22.0, 22.0))
        return 8.0 + beads + 4.0 * _plateau((np.hypot(x, y) - 9.0) / 6.0)

    mesh = terraced_solid(
        [
            Terrace(rectangle((0.0, 0.0), (110.0, 76.0), corner_mm=6.0), stamped),
            *_drilled(bores, undrilled),
        ],
        spacing_mm=0.9,
    )
    return Part("sheet", mesh, bores, ROLLED, PartKind.SHEET)


def _bell(x: FloatArray) -> FloatArray:
    """1 at 0, falling smoothly to 0 at ±1 and beyond."""
    return np.where(np.abs(x) < 1, np.cos(np.clip(x, -1, 1) * np.pi / 2) ** 2, 0.0)


def _plateau(x: FloatArray) -> FloatArray:
    """1 up to 0, then falling smoothly to 0 at 1 and beyond."""
    return _bell(np.clip(x, 0.0, 1.0))


def _shaft() -> Part:
    """A turned shaft of 120 mm lying along x, with three diameters, chamfers and a groove."""
    profile_mm = np.array(
        [
            *((-60, 0), (-60, 13), (-58, 15), (-30, 15)),
            *((-30, 20), (4, 20), (4, 17.5), (9, 17.5), (9, 20), (34, 20)),
            *((34, 14), (58, 14), (60, 12), (60, 0)),
        ],
        dtype=np.float64,
    )
    mesh = _revolved(profile_mm, axis_height_mm=20.0, step_mm=1.2)
    return Part("shaft", mesh, (), TURNED, PartKind.SHAFT)


def _revolved(profile_mm: FloatArray, axis_height_mm: float, step_mm: float) -> PartMesh:
    """Turn a profile of (x, radius) about a line along x; it starts and ends on the axis."""
    rings = [profile_mm[:1]]
    for start, end in pairwise(profile_mm):
        count = max(1, int(np.ceil(np.linalg.norm(end - start) / step_mm)))
        rings.append(start + (end - start) * (np.arange(1, count + 1) / count)[:, None])
    ring_mm = np.concatenate(rings)
    count = int(np.ceil(2 * np.pi * profile_mm[:, 1].max() / step_mm))
    angle = 2 * np.pi * np.arange(count) / count
    around = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    vertices = np.empty((len(ring_mm), count, 3))
    vertices[..., 0] = ring_mm[:, None, 0]
    vertices[..., 1:] = ring_mm[:, None, 1:] * around
    vertices[..., 2] += axis_height_mm
    return welded(vertices.reshape(-1, 3) * 1e-3, _grid_triangles(len(ring_mm), count, is_ring=True))


def _grid_triangles(rows: int, columns: int, *, is_ring: bool) -> NDArray[np.int64]:
    """Two triangles for each square of a grid of vertices; a ring joins the last column to the first."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns if is_ring else columns - 1), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = a + columns, b + columns
    return np.concatenate((np.stack((a, b, c), axis=-1), np.stack((b, d, c), axis=-1))).reshape(-1, 3)


def _weld() -> Part:
    """A lap joint 100 x 70 mm: an 8 mm plate half over another of 8 mm, with a fillet bead that shows its ripples."""

    def joint(points_mm: FloatArray) -> FloatArray:
        x, y = points_mm[..., 0], points_mm[..., 1]
        # A bead of 9 mm leg: 45 degrees between the plates, crowned, scaled by the solidified weld pools.
        across = np.clip((y + 6.0) / 9.0, 0.0, 1.0)
        crown = 1.6 * np.sin(np.pi * across)
        pool = 0.25 * np.sin(2 * np.pi * (x + 0.12 * (y + 1.5) ** 2) / 3.2) * np.sin(np.pi * across)
        return np.asarray(8.0 + 8.0 * across + crown + pool)

    outline = Terrace(rectangle((0.0, 0.0), (100.0, 70.0), corner_mm=2.0), joint)
    return Part("weld", terraced_solid([outline], spacing_mm=0.8), (), WELDED, PartKind.WELD)
