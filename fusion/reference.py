"""The part as it should be: a closed mesh, and its signed distance field for looking deviations up."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.partmesh import load_part_mesh
from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError
from depthcell.fusion.cad import CHORD_M, STEP_SUFFIXES, load_cad
from depthcell.fusion.distancefield import DistanceField, cached_field
from depthcell.fusion.meshcheck import check_mesh

SMALLEST_M, LARGEST_M = 0.002, 3.0
"""Extent of anything a depth camera can inspect; a mesh beyond is taken to be in another unit than was said."""
OFF_SURFACE_M = 2e-5
"""Lines of sight start this far off the surface, so that rounding does not make it hide itself."""
# R. L. Roberts' R2 sequence (2018): two irrational steps whose multiples fill the unit square evenly.
_R2_STEPS = np.array([0.7548776662466927, 0.5698402909980532])


class LengthUnit(StrEnum):
    """The unit a mesh file is written in; the formats themselves do not say."""

    MM = "mm"
    M = "m"
    INCH = "inch"


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceSamples:
    """Points spread evenly over the reference surface.

    Attributes:
        points_part: (N, 3) float64, metres.
        normals_part: (N, 3) float32, out of the material.
        area_m2: (N,) float32, surface that each point stands for; they sum to the whole surface.
    """

    points_part: NDArray[np.float64]
    normals_part: NDArray[np.float32]
    area_m2: NDArray[np.float32]


class Reference:
    """A closed surface in the frame "part", metres, with its signed distance field.

    Args:
        vertices_part: (V, 3) float64, metres.
        triangles: (T, 3) int32, counter-clockwise seen from outside; closed.

    Attributes:
        vertices_part, triangles: as given.
        sha256: of both, lower-case hexadecimal: the reference's identity.
    """

    def __init__(self, vertices_part: NDArray[np.float64], triangles: NDArray[np.int32]) -> None:
        self.vertices_part = np.ascontiguousarray(vertices_part, dtype=np.float64)
        self.triangles = np.ascontiguousarray(triangles, dtype=np.int32)
        self.sha256 = hashlib.sha256(self.vertices_part.tobytes() + self.triangles.tobytes()).hexdigest()
        self._scene = _raycasting_scene(self.vertices_part, self.triangles)
        self._field = cached_field(self.sha256, *self.bounds_part, self.exact_signed_distance)

    @classmethod
    def load(cls, path: Path, unit: LengthUnit | str | None, chord_m: float = CHORD_M) -> Self:
        """Read an STL, PLY, OBJ or STEP file.

        Args:
            path: the file.
            unit: of its numbers. STEP carries its own, which this must not contradict; None leaves it to the file.
            chord_m: how far the triangles of a STEP file may lie from its surface.

        Raises:
            DepthcellError: the file cannot be read, is empty, is not one sound closed surface (see `meshcheck`), or
                its size does not fit the unit; a STEP file cannot be read without the extra `depthcell[cad]`.
        """
        named = None if unit is None else LengthUnit(unit).value
        if path.suffix.lower() in STEP_SUFFIXES:
            mesh = load_cad(path, named, chord_m).mesh
        elif named is None:
            raise DepthcellError(f"mesh {path}: does not say its unit; write mesh_unit")
        else:
            mesh = load_part_mesh(path, named, closed=False)
        largest_m = float((mesh.max_m - mesh.min_m).max())
        if not SMALLEST_M <= largest_m <= LARGEST_M:
            told = f"if its numbers are in {named}" if named else "by its own unit"
            raise DepthcellError(f"mesh {path}: is {largest_m * 1e3:.4g} mm large {told}; name its unit")
        check_mesh(mesh.vertices_m, mesh.triangles, f"mesh {path}")
        return cls(mesh.vertices_m, mesh.triangles)

    @property
    def bounds_part(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper corner of the bounding box, (3,) metres each."""
        return self.vertices_part.min(axis=0), self.vertices_part.max(axis=0)

    @property
    def field(self) -> DistanceField:
        """The distance field itself."""
        return self._field

    @property
    def spacing_m(self) -> float:
        """Edge of the distance field's cells."""
        return self._field.spacing_m

    def signed_distance(self, points_part: FloatArray) -> NDArray[np.float64]:
        """Distance of points (N, 3) from the surface, (N,) metres, positive outside the material.

        Interpolated in the field: exact to a micrometre over flat surfaces; at a sharp edge or corner the field rounds
        within a cell, by up to a third of `spacing_m`. Beyond the field's margin it overstates.
        """
        return self._field.distance(points_part)

    def signed_distance_and_gradient(self, points_part: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distance (N,) and its gradient (N, 3): the outward direction, of unit length away from edges."""
        return self._field.distance_and_gradient(points_part)

    def exact_signed_distance(self, points_part: FloatArray) -> NDArray[np.float64]:
        """As `signed_distance`, from the triangles themselves: some hundred times slower."""
        query = open3d().core.Tensor(np.ascontiguousarray(points_part, dtype=np.float32))
        # The sign is the majority of three rays' crossings, since one may graze an edge.
        distance = self._scene.compute_signed_distance(query, nsamples=3)
        return np.asarray(distance.numpy(), dtype=np.float64)

    def surface_samples(self, spacing_m: float) -> SurfaceSamples:
        """Points about `spacing_m` apart over the whole surface, each for the same area; the same on every call.

        The triangles' areas are laid end to end and cut into equal pieces; each piece places one point in the triangle
        it falls into.
        """
        corners = self.vertices_part[self.triangles]
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        doubled_m2 = np.linalg.norm(cross, axis=1)
        ends_m2 = np.cumsum(doubled_m2) / 2
        number = max(1, round(float(ends_m2[-1]) / spacing_m**2))
        area_m2 = float(ends_m2[-1]) / number
        chosen = np.searchsorted(ends_m2, (np.arange(number) + 0.5) * area_m2)
        across, along = ((np.arange(1, number + 1)[:, None] * _R2_STEPS) % 1.0).T
        folded = across + along > 1
        across, along = np.where(folded, 1 - across, across), np.where(folded, 1 - along, along)
        first, second, third = np.moveaxis(corners[chosen], 1, 0)
        points_part = first + across[:, None] * (second - first) + along[:, None] * (third - first)
        normals_part = (cross[chosen] / doubled_m2[chosen, None]).astype(np.float32)
        return SurfaceSamples(points_part, normals_part, np.full(number, area_m2, np.float32))

    def first_hits(
        self, eye_part: FloatArray, rays_part: FloatArray
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What rays (..., 3) from `eye_part` (3,) meet first: how many ray lengths away (...), and the normal (..., 3).

        Both NaN where a ray passes the part. The normal is the triangle's, out of the material.
        """
        origins = np.broadcast_to(np.asarray(eye_part, dtype=np.float32), rays_part.shape)
        rays = np.concatenate((origins, np.asarray(rays_part, dtype=np.float32)), axis=-1)
        hits = self._scene.cast_rays(open3d().core.Tensor(rays))
        reach: NDArray[np.float32] = hits["t_hit"].numpy()
        normals: NDArray[np.float32] = hits["primitive_normals"].numpy()
        missed = ~np.isfinite(reach)
        reach[missed], normals[missed] = np.nan, np.nan
        return reach, normals

    def visible(self, points_part: FloatArray, normals_part: FloatArray, camera_part: FloatArray) -> NDArray[np.bool_]:
        """Which surface points (N, 3) a camera at `camera_part` (3,) sees: facing it, and nothing in between."""
        start = (points_part + OFF_SURFACE_M * normals_part).astype(np.float32)
        lines = np.asarray(camera_part, dtype=np.float32) - start
        facing = np.einsum("ij,ij->i", lines, normals_part) > 0
        rays = open3d().core.Tensor(np.concatenate((start, lines), axis=1))
        hidden: NDArray[np.bool_] = self._scene.test_occlusions(rays, tfar=1.0).numpy()
        return np.asarray(facing & ~hidden)


def _raycasting_scene(vertices: NDArray[np.float64], triangles: NDArray[np.int32]) -> Any:
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(vertices.astype(np.float32)), o3d.core.Tensor(triangles.astype(np.uint32)))
    return scene
