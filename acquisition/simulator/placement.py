"""Where defects go: chosen by chance, but on smooth ground, thick enough, away from edges, and seen by a camera."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.defects import Defect, DefectKind, Site
from depthcell.acquisition.simulator.parts import Part
from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError

EDGE_MARGIN_M = 1.2e-3
TRIES = 1000
SMALLEST_CURVATURE_RADIUS_M = 0.013
MIN_COSINE = 0.45


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Half extent and depth of a kind of defect, in mm: (from, to). A negative depth goes into the material.

    Attributes:
        size_mm, depth_mm: the two ranges.
        even_in_log: whether sizes spread evenly in their logarithm, as a study of what is still detected wants them:
            as many from 0.2 to 0.4 mm as from 0.4 to 0.8 mm. Else evenly in mm.
    """

    size_mm: tuple[float, float]
    depth_mm: tuple[float, float]
    even_in_log: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in (("size_mm", self.size_mm), ("depth_mm", self.depth_mm)):
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise DepthcellError(f"{name} [{low:g}, {high:g}]: must be two finite numbers, the smaller first")
            if self.even_in_log and low * high <= 0 and (low, high) != (0.0, 0.0):
                raise DepthcellError(f"{name} [{low:g}, {high:g}]: no logarithm spreads over 0; keep to one sign")

    def draw_mm(self, low: float, high: float, rng: np.random.Generator) -> float:
        """One number from `low` to `high`."""
        if not self.even_in_log or low == high:
            return float(rng.uniform(low, high))
        least, most = sorted((math.log(abs(low)), math.log(abs(high))))
        return math.copysign(math.exp(rng.uniform(least, most)), low)


SIZES: dict[DefectKind, SizeRange] = {
    DefectKind.DENT: SizeRange((4.0, 7.0), (-3.0, -0.9)),
    DefectKind.BUMP: SizeRange((4.0, 7.0), (0.9, 3.0)),
    DefectKind.MISSING_MATERIAL: SizeRange((3.0, 5.5), (-3.0, -1.2)),
    DefectKind.EXCESS_MATERIAL: SizeRange((3.0, 5.5), (1.2, 3.0)),
    DefectKind.WARP: SizeRange((0.0, 0.0), (-1.6, 1.6)),
    DefectKind.BURR: SizeRange((6.0, 8.0), (1.2, 2.2)),
    DefectKind.POROSITY: SizeRange((5.5, 7.0), (-2.5, -1.5)),
    DefectKind.SCRATCH: SizeRange((5.0, 7.5), (0.0, 0.0)),
    DefectKind.STAIN: SizeRange((3.5, 7.0), (0.0, 0.0)),
    DefectKind.DISCOLOURATION: SizeRange((5.0, 7.5), (0.0, 0.0)),
    DefectKind.RUST: SizeRange((3.5, 7.0), (0.0, 0.0)),
}
SMALLEST_WARP_MM = 0.8


class Placer:
    """Finds places for defects on one part that cameras at `eyes_part` (N, 3) look at; `sizes` of each kind."""

    def __init__(self, part: Part, eyes_part: FloatArray, sizes: Mapping[DefectKind, SizeRange] = SIZES) -> None:
        self._part = part
        self._sizes = sizes
        self._eyes = np.asarray(eyes_part, dtype=np.float64)
        self._vectors = part.mesh.face_vectors_m2()
        self._core = open3d().core
        self._scene: Any = open3d().t.geometry.RaycastingScene(nthreads=1)
        self._scene.add_triangles(
            self._core.Tensor(part.mesh.vertices_m.astype(np.float32)),
            self._core.Tensor(part.mesh.triangles.astype(np.uint32)),
        )

    def plan(self, kind: DefectKind, taken: Sequence[Defect], rng: np.random.Generator) -> Defect:
        """One defect of this kind, apart from those already `taken`.

        Raises:
            DepthcellError: the part has no place for it.
        """
        if kind is DefectKind.MISSING_BORE:
            return self._plan_missing_bore(taken, rng)
        sizes = self._sizes[kind]
        if kind is DefectKind.WARP:
            low_mm, high_mm = sizes.depth_mm
            depth_mm = sizes.draw_mm(low_mm if low_mm > 0 else SMALLEST_WARP_MM, high_mm, rng) * rng.choice((-1, 1))
            centre_m = (self._part.mesh.min_m + self._part.mesh.max_m) / 2
            site = Site(centre_m, np.array([0.0, 0.0, 1.0]), self._long_axis())
            return Defect(kind, site, float(np.ptp(self._part.mesh.vertices_m, axis=0).max()) / 2, depth_mm / 1e3, ())
        shape = tuple(rng.uniform(0, 1, 3).tolist())
        size_m = sizes.draw_mm(*sizes.size_mm, rng) / 1e3
        depth_m = sizes.draw_mm(*sizes.depth_mm, rng) / 1e3
        for shrink in (1.0, 0.8, 0.65):
            site_found = self._find_site(shrink * size_m, depth_m, taken, rng)
            if site_found is not None:
                return Defect(kind, site_found, shrink * size_m, depth_m, shape)
        raise DepthcellError(
            f"part {self._part.name}: no smooth place of {2 * size_m * 1e3:.0f} mm for a {kind}; choose other --defects"
        )

    def _plan_missing_bore(self, taken: Sequence[Defect], rng: np.random.Generator) -> Defect:
        free = [bore for bore in self._part.bores if all(defect.bore is not bore for defect in taken)]
        if not free:
            raise DepthcellError(f"part {self._part.name}: has no bore that could be missing; choose other --defects")
        bore = free[int(rng.integers(len(free)))]
        axis = np.asarray(bore.axis)
        site = Site(np.asarray(bore.position_mm) / 1e3, axis, _tangent(axis, rng))
        return Defect(DefectKind.MISSING_BORE, site, bore.diameter_mm / 2e3, 0.0, (), bore)

    def _long_axis(self) -> NDArray[np.float64]:
        extent = np.ptp(self._part.mesh.vertices_m, axis=0)
        return np.array([1.0, 0.0, 0.0]) if extent[0] >= extent[1] else np.array([0.0, 1.0, 0.0])

    def _find_site(
        self, size_m: float, depth_m: float, taken: Sequence[Defect], rng: np.random.Generator
    ) -> Site | None:
        upward = np.clip(self._vectors[:, 2], 0, None)
        upward[self._vectors[:, 2] < 0.6 * np.linalg.norm(self._vectors, axis=1)] = 0
        for triangle in rng.choice(len(upward), TRIES, p=upward / upward.sum()):
            corners = self._part.mesh.vertices_m[self._part.mesh.triangles[triangle]]
            share = rng.dirichlet((1.0, 1.0, 1.0))
            normal = self._vectors[triangle] / np.linalg.norm(self._vectors[triangle])
            site = Site(share @ corners, normal, _tangent(normal, rng))
            if (
                self._is_apart(site, size_m, taken)
                and self._is_sound(site, size_m, depth_m)
                and self._is_seen(site, size_m)
            ):
                return site
        return None

    def _is_apart(self, site: Site, size_m: float, taken: Sequence[Defect]) -> bool:
        return all(
            np.linalg.norm(site.centre_m - other.site.centre_m) > size_m + other.size_m + 2e-3
            for other in taken
            if other.kind is not DefectKind.WARP
        )

    def _is_sound(self, site: Site, size_m: float, depth_m: float) -> bool:
        """Smooth ground within the size and a margin, and material enough below."""
        points, distance_m = _ring_points(site, size_m + EDGE_MARGIN_M)
        above_m = 3e-3
        hit_m = self._distances(points + above_m * site.normal, np.broadcast_to(-site.normal, points.shape))
        allowed_m = 1e-4 + distance_m**2 / (2 * SMALLEST_CURVATURE_RADIUS_M)
        if (np.abs(hit_m - above_m) > allowed_m).any():
            return False
        inside = site.centre_m - 1e-4 * site.normal
        return float(self._distances(inside[None], -site.normal[None])[0]) > 1.5 * abs(depth_m) + 5e-4

    def _is_seen(self, site: Site, size_m: float) -> bool:
        """Whether at least one camera sees the whole of it from well above."""
        points, _ = _ring_points(site, size_m)
        start = points + 1e-4 * site.normal
        for eye in self._eyes:
            direction = eye - start
            cosine = direction @ site.normal / np.linalg.norm(direction, axis=1)
            if cosine.min() > MIN_COSINE and np.isinf(self._distances(start, direction)).all():
                return True
        return False

    def _distances(self, origins: FloatArray, directions: FloatArray) -> FloatArray:
        rays = np.concatenate((origins, directions), axis=1).astype(np.float32)
        distances: FloatArray = self._scene.cast_rays(self._core.Tensor(rays), nthreads=1)["t_hit"].numpy()
        return distances


def _ring_points(site: Site, radius_m: float) -> tuple[FloatArray, FloatArray]:
    """Points on three rings in the tangent plane, and their distance from the centre."""
    angle = 2 * np.pi * np.arange(16) / 16
    distance = np.repeat(radius_m * np.array([1 / 3, 2 / 3, 1.0]), 16)
    u, v = distance * np.tile(np.cos(angle), 3), distance * np.tile(np.sin(angle), 3)
    return site.centre_m + u[:, None] * site.tangent + v[:, None] * site.bitangent, distance


def _tangent(normal: FloatArray, rng: np.random.Generator) -> NDArray[np.float64]:
    """A unit vector across `normal`, in a random direction."""
    raw = np.cross(normal, rng.standard_normal(3))
    return np.asarray(raw / np.linalg.norm(raw), dtype=np.float64)
