"""A part as it comes down the line: its defects, and what differs from one good part to the next."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.appearance import Lamp, texture_tile
from depthcell.acquisition.simulator.defects import Damage, Defect, DefectKind, apply_defect
from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.simulator.placement import SIZES, Placer
from depthcell.acquisition.simulator.station import Station, Stream
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError

# Standard deviations from one good part to the next.
TURN_DEG = (0.15, 0.15, 0.4)
SHIFT_M = (4e-4, 4e-4, 5e-5)
SIZE_M = 2e-5
SIZE_LIMIT_M = 5e-5
LAMP_SHIFT_M = 5e-3
LIGHT_SHARE = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class ActualPart:
    """A part with all its deviations from the perfect one.

    Attributes:
        mesh: actual surface, frame "part".
        T_cell_part: where it lies.
        size_scale: (3,) actual size over nominal.
        defects: each with its measured damage.
        tile: texture.
        lamp: the light that fell on it.
    """

    mesh: PartMesh
    T_cell_part: RigidTransform
    size_scale: NDArray[np.float64]
    defects: tuple[tuple[Defect, Damage], ...]
    tile: NDArray[np.float32]
    lamp: Lamp

    def nominal_points(self, points_cell: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (..., 3) of the cell in the frame "part", with the part's size variation taken out."""
        points_part = self.T_cell_part.inverse() @ points_cell
        return np.divide(points_part, self.size_scale, dtype=np.float32, casting="same_kind")


def draw_part(station: Station, kinds: tuple[DefectKind, ...], rng: np.random.Generator) -> ActualPart:
    """One part with a defect of each of `kinds`, and with the variation that good parts have."""
    defects = _planned(station, kinds, rng)
    mesh, damaged = station.part.mesh, []
    for defect in defects:
        damage = apply_defect(station.part, mesh, defect)
        mesh = damage.mesh
        damaged.append((defect, damage))
    extent_m = np.ptp(station.part.mesh.vertices_m, axis=0)
    size_scale = 1 + np.clip(rng.normal(0, SIZE_M, 3), -SIZE_LIMIT_M, SIZE_LIMIT_M) / extent_m
    return ActualPart(
        mesh=mesh.with_vertices(mesh.vertices_m * size_scale),
        T_cell_part=_laid_down(station, rng),
        size_scale=size_scale,
        defects=tuple(damaged),
        tile=texture_tile(station.part.finish, rng),
        lamp=_lit(station.lamp, rng),
    )


def _planned(station: Station, kinds: tuple[DefectKind, ...], rng: np.random.Generator) -> list[Defect]:
    if not kinds:
        return []
    placer = _placer(station)
    # A missing bore is a mesh of its own, so it comes first; a warp moves all other defects, so it comes last.
    order = {DefectKind.MISSING_BORE: 0, DefectKind.WARP: 2}
    planned: list[Defect] = []
    for kind in sorted(kinds, key=lambda kind: order.get(kind, 1)):
        planned.append(placer.plan(kind, planned, rng))
    return planned


def _placer(station: Station) -> Placer:
    T_part_cell = station.T_cell_part.inverse()
    eyes_part = np.array([T_part_cell @ camera.T_cell_depth.translation_m for camera in station.cameras])
    return Placer(station.part, eyes_part, SIZES | dict(station.plan.sizes))


def _laid_down(station: Station, rng: np.random.Generator) -> RigidTransform:
    """The nominal pose, turned about the middle of the part, wherever its drawing has the origin, and shifted."""
    nominal = station.T_cell_part
    middle_cell = nominal @ ((station.part.mesh.min_m + station.part.mesh.max_m) / 2)
    turn = RigidTransform.from_rotation_vector("cell", "cell", np.radians(rng.normal(0, TURN_DEG)), np.zeros(3))
    shift_m = middle_cell - turn.rotation @ middle_cell + rng.normal(0, SHIFT_M)
    return RigidTransform("cell", "cell", turn.rotation, shift_m) @ nominal


def _lit(lamp: Lamp, rng: np.random.Generator) -> Lamp:
    x, y, z = np.asarray(lamp.position_m) + rng.normal(0, LAMP_SHIFT_M, 3)
    return replace(
        lamp,
        position_m=(float(x), float(y), float(z)),
        intensity=lamp.intensity * (1 + rng.normal(0, LIGHT_SHARE)),
        ambient=lamp.ambient * (1 + rng.normal(0, LIGHT_SHARE)),
    )


@lru_cache(maxsize=2)
def possible_kinds(station: Station) -> tuple[DefectKind, ...]:
    """Kinds of defects for which this station's part has a place, found by trying each once."""
    placer, rng = _placer(station), station.plan.generator(Stream.STATION, 2)
    return tuple(kind for kind in DefectKind if _has_place(placer, kind, rng))


def _has_place(placer: Placer, kind: DefectKind, rng: np.random.Generator) -> bool:
    try:
        placer.plan(kind, (), rng)
    except DepthcellError:
        return False
    return True
