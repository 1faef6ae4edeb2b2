"""The cell whose cameras are to be calibrated: what they truly are, and what the factory wrote into them."""

from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import lru_cache

import numpy as np

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.simulator.cameras import CameraModel, ThermalDrift, stereo_model
from depthcell.acquisition.simulator.chance import check_plan, generator_of
from depthcell.acquisition.simulator.rig import StationCamera, build_rig
from depthcell.acquisition.simulator.stereo import StereoNoise
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError

PART_RADIUS_M = 0.10
STANDOFF_M, STANDOFF_SHORT_M = 0.5, 0.25
"""Distance from the cameras to the middle of the work volume; the shorter one is the D405's."""

# Standard deviations of a camera against its type, and of the factory's values against the camera.
FOCAL_SHARE, CENTRE_PX = 3e-3, 4.0
FACTORY_FOCAL_SHARE, FACTORY_CENTRE_PX = 1.5e-3, 1.0
ASPECT_SHARE = 1e-4
DEPTH_LENS = (1e-3, 1e-3, 1e-4, 1e-4, 0.0)
COLOR_LENS, COLOR_LENS_SPREAD = (0.12, -0.22, 4e-4, -2e-4, 0.05), (8e-3, 1e-2, 3e-4, 3e-4, 5e-3)
FACTORY_COLOR_LENS = (3e-3, 5e-3, 1e-4, 1e-4, 3e-3)

CURVATURE_PX = 0.3
WAVE_SHAPE, WAVE_LOW_PX, WAVE_HIGH_PX = (4, 4), 0.05, 0.008
"""Standard deviations of the wave's coefficients: up to the second order together, and beyond."""
WARP_M = (1e-4, 3e-4)
"""Range of either parameter of the board's warp, with either sign."""


class Stream(IntEnum):
    """What chance decides, each from its own generator, so that no order matters."""

    RIG = 100
    LENS = 101
    BOARD = 102
    PLACES = 103
    IMAGES = 104
    CLOCK = 105


@dataclass(frozen=True, slots=True)
class Bump:
    """A camera that is knocked: from a place of the board on it stands elsewhere, as `T.perturbed` about itself.

    Attributes:
        camera: its number, from 0.
        from_place: number of the first place that it sees from its new pose.
        shift_m, turn_deg: how far along its x axis, and how far about its y axis.
    """

    camera: int
    from_place: int
    shift_m: float = 2e-3
    turn_deg: float = 0.2


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong on purpose in the board's recordings, to see whether a calibration notices.

    Attributes:
        blurred, overexposed: places whose images are out of focus, or burnt out, in every camera.
        mirrored: whether the board was printed as its mirror image.
        board_factor: true size of the printed board over what it should be.
        bump: a camera that is knocked half way.
        swapped: numbers of two cameras that are taken off and put back each in the place of the other.
        swapped_from: number of the first place after that.
        repeated: a place whose images come again, `repeats` times, at the end.
    """

    blurred: tuple[int, ...] = ()
    overexposed: tuple[int, ...] = ()
    mirrored: bool = False
    board_factor: float = 1.0
    bump: Bump | None = None
    swapped: tuple[int, int] | None = None
    swapped_from: int = 1
    repeated: int | None = None
    repeats: int = 50


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """What the user asked for.

    Attributes:
        camera_model, cameras: which and how many.
        seed: decides everything that chance decides.
        places: at which the board is held; frames: of each camera at each.
        artefact_frames: of each camera at each placement of an artefact.
        depth_units_mm: what one count of depth is set to.
        standoff_m: of the cameras; None for what suits the type.
        noise: of the depth.
        faults: that the board's recordings get; none by default.
    """

    camera_model: str
    cameras: int
    seed: int
    places: int = 40
    frames: int = 2
    artefact_frames: int = 4
    depth_units_mm: float = 0.1
    standoff_m: float | None = None
    noise: StereoNoise = field(default_factory=StereoNoise)
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        if self.places < 3:
            raise DepthcellError(f"--parts {self.places}: with --calibration the board needs 3 places or more")
        if self.frames < 1 or self.artefact_frames < 1:
            raise DepthcellError(f"--frames {min(self.frames, self.artefact_frames)}: must be 1 or more")
        check_plan(self.seed, self.depth_units_mm)

    def generator(self, stream: Stream, *key: int) -> np.random.Generator:
        """The generator for one purpose; `key` holds camera number and the like."""
        return generator_of(self.seed, stream, *key)


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationCamera:
    """A camera with its true lenses.

    Attributes:
        body: pose, depth error, true `T_color_depth`; its model has the factory's focal length, by which the camera
            makes depth from disparity.
        depth, color: true intrinsics.
        factory_depth, factory_color: what the camera believes and recordings state.
    """

    body: StationCamera
    depth: Intrinsics
    color: Intrinsics
    factory_depth: Intrinsics
    factory_color: Intrinsics

    @property
    def serial(self) -> str:
        """Serial number."""
        return self.body.serial

    @property
    def has_own_color(self) -> bool:
        """Whether colour comes from a camera of its own, and not from the left imager."""
        return self.body.model.color_focal_px is not None


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationCell:
    """The cell.

    Attributes:
        plan: what the user asked for.
        cameras: as they truly are.
        standoff_m: from the cameras to `middle_cell`.
        middle_cell: (3,) middle of the work volume.
        warp_m: bend of the board, along x and y.
        drift: of the cameras' temperature.
    """

    plan: CalibrationPlan
    cameras: tuple[CalibrationCamera, ...]
    standoff_m: float
    middle_cell: tuple[float, float, float]
    warp_m: tuple[float, float]
    drift: ThermalDrift


@lru_cache(maxsize=2)
def build_calibration_cell(plan: CalibrationPlan, middle_cell: tuple[float, float, float]) -> CalibrationCell:
    """The same cell for the same plan.

    Raises:
        DepthcellError: camera model, number of cameras or stand-off cannot be had.
    """
    model = replace(stereo_model(plan.camera_model), units_m=plan.depth_units_mm / 1e3)
    usual_m = STANDOFF_SHORT_M if plan.camera_model == CameraModel.D405 else STANDOFF_M
    standoff_m = plan.standoff_m or usual_m
    if not 1.3 * model.min_depth_m <= standoff_m <= 2.0:
        raise DepthcellError(f"stand-off {standoff_m} m: must be {1.3 * model.min_depth_m:.2f} to 2 m for {model.name}")
    rig = build_rig(
        replace(model, standoff_m=standoff_m),
        plan.cameras,
        np.array(middle_cell),
        min(PART_RADIUS_M, 0.3 * standoff_m),
        plan.generator(Stream.RIG),
    )
    cameras = tuple(_drawn(body, plan.generator(Stream.LENS, number)) for number, body in enumerate(rig))
    rng = plan.generator(Stream.BOARD)
    across_m, down_m = rng.choice((-1, 1), 2) * rng.uniform(*WARP_M, 2)
    return CalibrationCell(plan, cameras, standoff_m, middle_cell, (float(across_m), float(down_m)), ThermalDrift())


def _drawn(body: StationCamera, rng: np.random.Generator) -> CalibrationCamera:
    model = body.model
    depth = _lens(model.depth_intrinsics, np.zeros(5), DEPTH_LENS, rng)
    factory_depth = _as_factory(depth, None, rng)
    body = replace(
        body,
        model=replace(model, focal_px=factory_depth.fx_px),
        error=replace(body.error, curvature_px=float(rng.normal(0, CURVATURE_PX)), wave_px=_wave(rng)),
    )
    if model.color_focal_px is None:
        return CalibrationCamera(body, depth, depth, factory_depth, factory_depth)
    color = _lens(model.color_intrinsics, np.array(COLOR_LENS), COLOR_LENS_SPREAD, rng)
    return CalibrationCamera(body, depth, color, factory_depth, _as_factory(color, FACTORY_COLOR_LENS, rng))


def _lens(nominal: Intrinsics, middle: np.ndarray, spread: tuple[float, ...], rng: np.random.Generator) -> Intrinsics:
    """A lens as it truly is: around its type's."""
    focal_px = nominal.fx_px * (1 + rng.normal(0, FOCAL_SHARE))
    centre_px = rng.normal((nominal.cx_px, nominal.cy_px), CENTRE_PX)
    coefficients = middle + rng.normal(0, 1, 5) * spread
    return replace(
        nominal,
        fx_px=float(focal_px),
        fy_px=float(focal_px * (1 + rng.normal(0, ASPECT_SHARE))),
        cx_px=float(centre_px[0]),
        cy_px=float(centre_px[1]),
        distortion=Distortion.BROWN_CONRADY,
        coefficients=tuple(coefficients.tolist()),
    )


def _as_factory(true: Intrinsics, lens_spread: tuple[float, ...] | None, rng: np.random.Generator) -> Intrinsics:
    """What the factory measured of a lens: near it. A rectified imager is said to have no distortion and square pixels.

    The values are rounded to float32, as the SDK keeps them.
    """
    focal_px = true.fx_px * (1 + rng.normal(0, FACTORY_FOCAL_SHARE))
    centre_px = rng.normal((true.cx_px, true.cy_px), FACTORY_CENTRE_PX)
    coefficients = np.zeros(5) if lens_spread is None else true.coefficients + rng.normal(0, 1, 5) * lens_spread
    return replace(
        true,
        fx_px=float(np.float32(focal_px)),
        fy_px=float(np.float32(focal_px)),
        cx_px=float(np.float32(centre_px[0])),
        cy_px=float(np.float32(centre_px[1])),
        distortion=Distortion.NONE if lens_spread is None else Distortion.BROWN_CONRADY,
        coefficients=tuple(coefficients.astype(np.float32).tolist()),
    )


def _wave(rng: np.random.Generator) -> tuple[tuple[float, ...], ...]:
    order = np.add.outer(np.arange(WAVE_SHAPE[0]), np.arange(WAVE_SHAPE[1]))
    table = rng.normal(0, 1, WAVE_SHAPE) * np.where(order <= 2, WAVE_LOW_PX, WAVE_HIGH_PX)
    table[0, 0] = 0.0
    return tuple(tuple(row) for row in table.tolist())


def board_pose_in_fixture() -> RigidTransform:
    """`T_cell_board` of the first place: the board lies flat, face up, its feature 0 at the cell's origin.

    The board's z goes into it and the cell's z goes up, so the cell is the board turned by half about its x axis:
    x right and y up as printed, z out of the board.
    """
    return RigidTransform("cell", "board", np.diag([1.0, -1.0, -1.0]), np.zeros(3))
