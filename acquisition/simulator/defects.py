"""Defects with exact ground truth: what they do to the mesh or to the colour, and how big they truly are."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.partmesh import PartMesh, refined_in_ball, refined_where
from depthcell.acquisition.simulator.parts import Bore, Part
from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError

MOVED_M = 1e-6
"""A surface that moved by less than this counts as unchanged."""
COARSE_EDGES_ACROSS, FINE_EDGES_ACROSS = 5, 36
BLEMISH_CELL_M = 6e-5
REACH_OFF_PLANE_M = 4e-3


class DefectKind(StrEnum):
    """What can be wrong with a part."""

    DENT = "dent"
    BUMP = "bump"
    MISSING_BORE = "missing_bore"
    MISSING_MATERIAL = "missing_material"
    EXCESS_MATERIAL = "excess_material"
    WARP = "warp"
    BURR = "burr"
    POROSITY = "porosity"
    SCRATCH = "scratch"
    STAIN = "stain"
    DISCOLOURATION = "discolouration"
    RUST = "rust"

    @property
    def is_surface(self) -> bool:
        """Whether it shows in colour alone."""
        return self in _TINTS


# Linear albedo of the blemish, and how much of it covers the surface beneath.
_STRENGTH = {DefectKind.STAIN: 0.85, DefectKind.DISCOLOURATION: 0.55, DefectKind.RUST: 0.85}
_TINTS: dict[DefectKind, tuple[float, float, float]] = {
    DefectKind.SCRATCH: (0.85, 0.85, 0.86),
    DefectKind.STAIN: (0.09, 0.07, 0.05),
    DefectKind.DISCOLOURATION: (0.42, 0.30, 0.12),
    DefectKind.RUST: (0.26, 0.09, 0.03),
}


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A place on the surface, frame "part": centre (3,) in metres, outward `normal` and two tangents, all unit."""

    centre_m: NDArray[np.float64]
    normal: NDArray[np.float64]
    tangent: NDArray[np.float64]

    @property
    def bitangent(self) -> NDArray[np.float64]:
        """The second tangent."""
        return np.cross(self.normal, self.tangent)

    def plane_coordinates(self, points_m: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(u, v, height) of points (..., 3) in metres: along the two tangents and along the normal."""
        offset = points_m - self.centre_m.astype(points_m.dtype)
        u, v, height = (offset @ axis.astype(points_m.dtype) for axis in (self.tangent, self.bitangent, self.normal))
        return u, v, height


@dataclass(frozen=True, slots=True, eq=False)
class Defect:
    """One defect as planned.

    Attributes:
        kind: what it is.
        site: where.
        size_m: its radius, or half its length for burr and scratch.
        depth_m: displacement at its extreme, positive outward; 0 for colour.
        shape: numbers in 0..1 that make each one different; their meaning depends on the kind.
        bore: the one that is missing.
    """

    kind: DefectKind
    site: Site
    size_m: float
    depth_m: float
    shape: tuple[float, ...]
    bore: Bore | None = None

    @property
    def tint_rgb(self) -> tuple[float, float, float] | None:
        """Linear albedo of a blemish; None for a defect of shape."""
        return _TINTS.get(self.kind)

    def covers(self, points_m: FloatArray) -> NDArray[np.bool_]:
        """Which points (..., 3) of the part's surface the defect's mask and area hold."""
        weight = self.weight(points_m)
        # A blemish ends where an eye draws the border, at half its strength; a displacement where it is nothing.
        threshold = (
            _STRENGTH.get(self.kind, 1.0) / 2 if self.kind.is_surface else MOVED_M / max(abs(self.depth_m), MOVED_M)
        )
        covered: NDArray[np.bool_] = weight > (0 if self.bore else threshold)
        return covered

    def weight(self, points_m: FloatArray) -> FloatArray:
        """How much of the defect is at points (..., 3) of the part's surface: 0 none, 1 all of depth or tint."""
        u, v, height = self.site.plane_coordinates(points_m)
        if self.kind is DefectKind.WARP:
            return np.ones_like(u)
        weight = _STRENGTH.get(self.kind, 1.0) * _WEIGHTS[self.kind](self, u, v)
        reach_m = max(REACH_OFF_PLANE_M, 2 * abs(self.depth_m))
        return np.where(np.abs(height) < reach_m, weight, 0.0)


def _rounded(share: FloatArray) -> FloatArray:
    """(1 - r²)², smooth at its rim: its integral over the disc is pi R² / 3."""
    return np.clip(1 - share**2, 0, None) ** 2


def _ramp(x: FloatArray) -> FloatArray:
    """Smooth step from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _round_weight(defect: Defect, u: FloatArray, v: FloatArray) -> FloatArray:
    return _rounded(np.hypot(u, v) / defect.size_m)


def _irregular_share(defect: Defect, u: FloatArray, v: FloatArray) -> FloatArray:
    """Distance from the centre over that of an uneven outline; the outline stays within `size_m`."""
    angle, turn = np.arctan2(v, u), 2 * np.pi * defect.shape[0]
    outline = 0.82 + 0.12 * np.sin(2 * angle + turn) + 0.06 * np.sin(5 * angle + 3 * turn)
    return np.hypot(u, v) / (defect.size_m * outline)


def _chunk_weight(defect: Defect, u: FloatArray, v: FloatArray) -> FloatArray:
    return _ramp((1 - _irregular_share(defect, u, v)) / 0.3)


def _ridge_weight(defect: Defect, u: FloatArray, v: FloatArray) -> FloatArray:
    half_width = defect.size_m * (0.16 + 0.06 * defect.shape[0])
    ends = _ramp((1 - np.abs(u) / defect.size_m) / 0.3)
    across = np.where(np.abs(v) < half_width, np.cos(v / half_width * np.pi / 2) ** 2, 0.0)
    return np.asarray(ends * across)


def _pores_weight(defect: Defect, u: FloatArray, v: FloatArray) -> FloatArray:
    """Pits on a golden-angle spiral, apart from each other, some smaller than others."""
    weight, turn = np.zeros_like(u), 2 * np.pi * defect.shape[0]
    count = 5 + int(4 * defect.shape[1])
    for number in range(count):
        away = defect.size_m * 0.76 * np.sqrt(number / count)
        angle = turn + number * np.pi * (3 - np.sqrt(5))
        radius = defect.size_m * (0.24 if number == 0 else 0.16 + 0.08 * ((number * 0.618 + turn) % 1.0))
        pit = _rounded(np.hypot(u - away * np.cos(angle), v - away * np.sin(angle)) / radius)
        weight = np.maximum(weight, pit)
    return weight


def _scratch_weight(defect: Defect, u: FloatArray, v: FloatArray) -> FloatArray:
    half_width = 2.5e-4 + 2e-4 * defect.shape[0]
    bend = (defect.shape[1] - 0.5) * 0.2 * defect.size_m
    path = bend * ((u / defect.size_m) ** 2 - 0.5)
    return _ramp((1 - np.abs(u) / defect.size_m) / 0.1) * _ramp((1 - np.abs(v - path) / (1.5 * half_width)) * 3)


def _blot_weight(defect: Defect, u: FloatArray, v: FloatArray) -> FloatArray:
    return _ramp((1 - _irregular_share(defect, u, v)) / 0.15)


def _cloud_weight(defect: Defect, u: FloatArray, v: FloatArray) -> FloatArray:
    return _ramp((1 - _irregular_share(defect, u, v)) / 0.5)


def _rust_weight(defect: Defect, u: FloatArray, v: FloatArray) -> FloatArray:
    turn = 2 * np.pi * defect.shape[0]
    grain = np.sin(u * 2600 + turn) * np.sin(v * 3100 + 2 * turn) + np.sin((u - v) * 4700 + 3 * turn)
    return np.asarray(_ramp((1 - _irregular_share(defect, u, v)) / 0.25) * (0.85 + 0.07 * grain))


def _bore_weight(defect: Defect, u: FloatArray, v: FloatArray) -> FloatArray:
    return np.where(np.hypot(u, v) <= defect.size_m, 1.0, 0.0)


_WEIGHTS = {
    DefectKind.DENT: _round_weight,
    DefectKind.BUMP: _round_weight,
    DefectKind.MISSING_MATERIAL: _chunk_weight,
    DefectKind.EXCESS_MATERIAL: _chunk_weight,
    DefectKind.BURR: _ridge_weight,
    DefectKind.POROSITY: _pores_weight,
    DefectKind.SCRATCH: _scratch_weight,
    DefectKind.STAIN: _blot_weight,
    DefectKind.DISCOLOURATION: _cloud_weight,
    DefectKind.RUST: _rust_weight,
    DefectKind.MISSING_BORE: _bore_weight,
}


# Width of the smallest feature over that of the whole defect.
_FINEST_FEATURE = {DefectKind.BURR: 0.3, DefectKind.POROSITY: 0.3}


@dataclass(frozen=True, slots=True, eq=False)
class Damage:
    """A mesh with a defect in it, and how big that is, measured on the meshes.

    Attributes:
        mesh: the actual surface.
        depth_mm: largest displacement along the normal, signed, positive outside the material; None for colour.
        area_mm2: of the reference surface that is affected.
        volume_mm3: added to the part (negative: taken away); None for colour and for warp, which moves without adding.
    """

    mesh: PartMesh
    depth_mm: float | None
    area_mm2: float
    volume_mm3: float | None


def apply_defect(part: Part, mesh: PartMesh, defect: Defect) -> Damage:
    """Put `defect` of `part` into `mesh`, and measure the change."""
    if defect.kind is DefectKind.WARP:
        return _warped(mesh, defect)
    if defect.kind is DefectKind.MISSING_BORE:
        return _undrilled(part, mesh, defect)
    if defect.kind.is_surface:
        return Damage(mesh, None, _blemish_area_mm2(mesh, defect), None)
    feature_m = 2 * defect.size_m * _FINEST_FEATURE.get(defect.kind, 1.0)
    coarse = refined_in_ball(mesh, defect.site.centre_m, 1.1 * defect.size_m, feature_m / COARSE_EDGES_ACROSS)
    fine = refined_where(coarse, lambda points: defect.weight(points) > 0, feature_m / FINE_EDGES_ACROSS)
    weight = defect.weight(fine.vertices_m)
    facing = _vertex_normals(fine) @ defect.site.normal > 0.2
    shift = np.where(facing, defect.depth_m * weight, 0.0)
    actual = fine.with_vertices(fine.vertices_m + shift[:, None] * defect.site.normal)
    extreme = shift[np.argmax(np.abs(shift))]
    return Damage(
        actual,
        float(extreme) * 1e3,
        _area_mm2(fine, np.abs(shift) > MOVED_M, defect),
        (actual.volume_m3 - fine.volume_m3) * 1e9,
    )


def _blemish_area_mm2(mesh: PartMesh, defect: Defect) -> float:
    """Area of the surface under a blemish: summed over a fine grid in its plane, each cell as steep as the surface."""
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    vertices = o3d.core.Tensor(mesh.vertices_m.astype(np.float32))
    scene.add_triangles(vertices, o3d.core.Tensor(mesh.triangles.astype(np.uint32)))
    site = defect.site
    along = np.arange(-1.05 * defect.size_m, 1.05 * defect.size_m, BLEMISH_CELL_M)
    u, v = (grid.reshape(-1, 1) for grid in np.meshgrid(along, along))
    start = site.centre_m + u * site.tangent + v * site.bitangent + REACH_OFF_PLANE_M * site.normal
    rays = np.concatenate((start, np.broadcast_to(-site.normal, start.shape)), axis=1).astype(np.float32)
    hits = scene.cast_rays(o3d.core.Tensor(rays), nthreads=1)
    distance_m = np.minimum(hits["t_hit"].numpy(), 1.0)[:, None]
    steepness = np.abs(hits["primitive_normals"].numpy() @ site.normal)
    covered = defect.covers(start - distance_m * site.normal)
    return float((BLEMISH_CELL_M**2 / np.maximum(steepness[covered], 0.1)).sum()) * 1e6


def _area_mm2(mesh: PartMesh, affected: NDArray[np.bool_], defect: Defect) -> float:
    """Area of the triangles on the defect's side, those at the border by their share of affected corners."""
    vectors = mesh.face_vectors_m2()
    area = np.where(vectors @ defect.site.normal > 0, np.linalg.norm(vectors, axis=1), 0.0)
    return float((area * affected[mesh.triangles].mean(axis=1)).sum()) * 1e6


def _vertex_normals(mesh: PartMesh) -> FloatArray:
    normals = np.zeros_like(mesh.vertices_m)
    vectors = mesh.face_vectors_m2()
    for corner in range(3):
        np.add.at(normals, mesh.triangles[:, corner], vectors)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30))


def _warped(mesh: PartMesh, defect: Defect) -> Damage:
    """Bend the whole part about a line through the site, `depth_m` at the extreme after the best rigid fit."""
    fine = mesh
    u, v, _ = defect.site.plane_coordinates(fine.vertices_m)
    vectors = fine.face_vectors_m2()
    upward = vectors @ defect.site.normal
    exposed = upward > 0.3 * np.linalg.norm(vectors, axis=1)
    bend = u**2
    # What a rigid alignment takes out again, weighted by the area that a camera sees.
    weight = np.zeros(len(u))
    for corner in range(3):
        np.add.at(weight, fine.triangles[exposed, corner], upward[exposed] / 3)
    basis = np.stack((np.ones_like(u), u, v), axis=1) * np.sqrt(weight)[:, None]
    plane, *_ = np.linalg.lstsq(basis, bend * np.sqrt(weight), rcond=None)
    residual = bend - np.stack((np.ones_like(u), u, v), axis=1) @ plane
    shift = residual * defect.depth_m / np.abs(residual[weight > 0]).max()
    actual = fine.with_vertices(fine.vertices_m + shift[:, None] * defect.site.normal)
    extreme = shift[weight > 0][np.argmax(np.abs(shift[weight > 0]))]
    area = float(np.linalg.norm(vectors[exposed], axis=1).sum()) * 1e6
    return Damage(actual, float(extreme) * 1e3, area, None)


def _undrilled(part: Part, mesh: PartMesh, defect: Defect) -> Damage:
    if defect.bore is None:
        raise DepthcellError("missing_bore: the defect names no bore")
    actual = part.mesh_without(defect.bore)
    if len(mesh.triangles) != len(part.mesh.triangles):
        raise DepthcellError("missing_bore: must be put in before other defects")
    volume_mm3 = (actual.volume_m3 - mesh.volume_m3) * 1e9
    area_mm2 = np.pi * (defect.bore.diameter_mm / 2) ** 2
    return Damage(actual, float(volume_mm3 / area_mm2), float(area_mm2), float(volume_mm3))
