"""The simulated cell as a whole: which part, which cameras, where, and all chance from one seed."""

from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.appearance import PLATE, ColorSensor, Lamp, texture_tile
from depthcell.acquisition.simulator.cameras import ThermalDrift, stereo_model
from depthcell.acquisition.simulator.chance import check_plan, generator_of
from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.parts import Part, load_part
from depthcell.acquisition.simulator.placement import SizeRange
from depthcell.acquisition.simulator.rig import StationCamera, build_rig
from depthcell.acquisition.simulator.stereo import StereoNoise
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError

REST_HEIGHT_M = 0.010
"""The part rests on pins, this far above the plate."""


class Stream(IntEnum):
    """What chance decides. Each part, camera and purpose draws from its own generator, so no order matters."""

    STATION = 0
    CALIBRATION = 1
    LINE = 2
    GOLDEN = 3


@dataclass(frozen=True, slots=True)
class StationPlan:
    """What the user asked for.

    Attributes:
        part: one of our own parts by name, or a mesh file; mesh_unit: of its numbers.
        camera_model, cameras: which and how many.
        seed: decides everything that chance decides.
        frames: of each camera for each part.
        defect_rate: share of defective parts.
        defect_kinds: to choose from; empty means all that the part can have.
        depth_units_mm: what one count of depth is set to. The D415, D435 and D455 come with 1 mm, which would round
            away what an inspection looks for.
        noise: of the depth.
        sizes: of kinds of defects that a study plans otherwise than `placement.SIZES` has them.
    """

    part: str
    camera_model: str
    cameras: int
    seed: int
    mesh_unit: str = "mm"
    frames: int = 8
    defect_rate: float = 0.5
    defect_kinds: tuple[DefectKind, ...] = ()
    depth_units_mm: float = 0.1
    noise: StereoNoise = field(default_factory=StereoNoise)
    sizes: tuple[tuple[DefectKind, SizeRange], ...] = ()

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise DepthcellError(f"--frames {self.frames}: must be 1 or more")
        if not 0 <= self.defect_rate <= 1:
            raise DepthcellError(f"--defect-rate {self.defect_rate}: must be 0 to 1")
        check_plan(self.seed, self.depth_units_mm)

    def generator(self, stream: Stream, *key: int) -> np.random.Generator:
        """The generator for one purpose; `key` holds part number, camera number and the like."""
        return generator_of(self.seed, stream, *key)


@dataclass(frozen=True, slots=True, eq=False)
class Station:
    """What stays the same from part to part.

    Attributes:
        plan: what the user asked for.
        part: perfect.
        cameras: as they truly stand.
        T_cell_part: where the fixture should hold the part.
        lamp: nominal; sensor: of all colour cameras.
        drift: of the cameras' temperature.
        plate_tile: texture of the plate, which is always the same one.
    """

    plan: StationPlan
    part: Part
    cameras: tuple[StationCamera, ...]
    T_cell_part: RigidTransform
    lamp: Lamp
    sensor: ColorSensor
    drift: ThermalDrift
    plate_tile: NDArray[np.float32]


@lru_cache(maxsize=2)
def build_station(plan: StationPlan) -> Station:
    """The same station for the same plan.

    Raises:
        DepthcellError: part, camera model, number of cameras or defects cannot be had; the message lists what can.
    """
    model = replace(stereo_model(plan.camera_model), units_m=plan.depth_units_mm / 1e3)
    part = load_part(plan.part, plan.mesh_unit)
    T_cell_part = fixture_pose(part)
    low, high = part.mesh.min_m, part.mesh.max_m
    radius_m = float(np.linalg.norm(high - low)) / 2
    cameras = build_rig(
        model, plan.cameras, T_cell_part @ ((low + high) / 2), radius_m, plan.generator(Stream.STATION, 0)
    )
    plate_tile = texture_tile(PLATE, plan.generator(Stream.STATION, 1))
    lamp = Lamp(position_m=(-0.22, -0.30, 0.62), intensity=0.75, ambient=0.35)
    return Station(plan, part, cameras, T_cell_part, lamp, ColorSensor(gain=0.7), ThermalDrift(), plate_tile)


def fixture_pose(part: Part) -> RigidTransform:
    """Nominal `T_cell_part`: the part's box stands above the origin of the cell, on its pins, turned a little."""
    turn = np.radians(8.0)
    rotation = RigidTransform.from_rotation_vector("cell", "part", np.array([0.0, 0.0, turn]), np.zeros(3))
    low, high = part.mesh.min_m, part.mesh.max_m
    foot = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    lift = np.array([0.0, 0.0, REST_HEIGHT_M])
    return RigidTransform("cell", "part", rotation.rotation, lift - rotation.rotation @ foot)
