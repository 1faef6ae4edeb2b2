"""One camera looks at a target in one place after another: what it records, and the truth of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.appearance import ColorSensor, Lamp, color_frame, exposed
from depthcell.acquisition.simulator.calibrationcell import CalibrationCamera, CalibrationCell, Faults, Stream
from depthcell.acquisition.simulator.calibrationtruth import PlaceTruth
from depthcell.acquisition.simulator.cameras import SystematicError
from depthcell.acquisition.simulator.recordingwriter import WrittenDevice, WrittenFrame, write_recording
from depthcell.acquisition.simulator.shapes import Print, Shape, Warp
from depthcell.acquisition.simulator.stereo import StereoView, frame_counts, matched
from depthcell.acquisition.simulator.targetbodies import Target, artefact_bodies, board_sheet, ground_below
from depthcell.acquisition.simulator.targetplaces import Extent, artefact_places, board_places
from depthcell.acquisition.simulator.targetview import TargetView, light_of, seen_from, view_of
from depthcell.acquisition.simulator.truth import Pose
from depthcell.acquisition.transform import RigidTransform

FRAME_INTERVAL_NS = 33_333_000
PAUSE_S = 6.0
"""From one place to the next; in between the recorder is paused and the frame counter goes on."""
CLOCK_JITTER_US = 20
STARTS_S = {
    Target.BOARD: 600.0,
    Target.PLATE: 1200.0,
    Target.SPHERE: 1300.0,
    Target.BALL_BAR: 1400.0,
    Target.STEP_GAUGE: 1500.0,
}
"""Time since the cameras were switched on: they still warm up."""
PLACEMENTS = {Target.PLATE: 6, Target.SPHERE: 10, Target.BALL_BAR: 7, Target.STEP_GAUGE: 4}
LAMP = Lamp(position_m=(-0.45, -0.60, 1.25), intensity=0.62, ambient=0.42)
INFRARED = ColorSensor(gain=0.72)
COLOR = ColorSensor(gain=0.75)
TINT = (1.0, 0.985, 0.95)
"""Of the light, in counts."""
EXPOSURE_US, GAIN_LEVEL = 8500, 16
FAULT_BLUR_PX, FAULT_GAIN = 4.0, 6.0


@dataclass(frozen=True, slots=True, eq=False)
class BoardPrint:
    """The board as it truly is.

    Attributes:
        printed: what is on the sheet, faults included.
        features_m: left, top, right, bottom of its features as they truly lie, between which it is bent.
    """

    printed: Print
    features_m: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A target in all its places.

    Attributes:
        target: what is held.
        cell: before which.
        poses: `T_cell_board` or `T_cell_artefact` of every place.
        frames: of each camera at each place.
        board: the printed board; None for artefacts.
    """

    target: Target
    cell: CalibrationCell
    poses: tuple[RigidTransform, ...]
    frames: int
    board: BoardPrint | None = None

    @property
    def faults(self) -> Faults:
        """What goes wrong; only with the board."""
        return self.cell.plan.faults if self.target is Target.BOARD else Faults()

    @property
    def shown(self) -> tuple[int, ...]:
        """Which pose is seen at each place in time; more than `poses` where one is repeated."""
        again = () if self.faults.repeated is None else (self.faults.repeated,) * self.faults.repeats
        return (*range(len(self.poses)), *again)


def plan_session(target: Target, cell: CalibrationCell, board: BoardPrint) -> Session:
    """Where the target is held."""
    rng = cell.plan.generator(Stream.PLACES, list(Target).index(target))
    if target is Target.BOARD:
        poses = board_places(cell, Extent(*board.printed.extent_m), rng)
        return Session(target, cell, poses, cell.plan.frames, board)
    return Session(target, cell, artefact_places(cell, PLACEMENTS[target], rng), cell.plan.artefact_frames)


def place_truths(session: Session) -> tuple[PlaceTruth, ...]:
    """What is true at each place."""
    cameras = session.cell.cameras
    return tuple(
        PlaceTruth(
            number=number,
            timestamp_ns=round(_time_s(session, number) * 1e9),
            frames=session.frames,
            temperature_c=session.cell.drift.temperature_c(_time_s(session, number)),
            T_cell_body=Pose.of(session.poses[pose]),
            T_cell_depth={
                camera.serial: Pose.of(_pose_of(session, index, pose)) for index, camera in enumerate(cameras)
            },
        )
        for number, pose in enumerate(session.shown)
    )


def record_session(session: Session, camera: int, path: Path) -> None:
    """Write what one camera sees, whole or not at all."""
    write_recording(path, written_device(session, camera), tuple(_frames(session, camera)))


def written_device(session: Session, camera: int) -> WrittenDevice:
    """What the camera writes about itself: the factory's values.

    Only the board is recorded in colour too, unless the left imager gives the colour.
    """
    this, drift = session.cell.cameras[camera], session.cell.drift
    model, has_color = this.body.model, session.target is Target.BOARD or not this.has_own_color
    return WrittenDevice(
        this.serial,
        model.name,
        this.factory_depth,
        this.factory_color if has_color else None,
        model.factory_T_color_depth(this.serial) if has_color else None,
        model.units_m,
        model.baseline_m,
        color_from_left=not this.has_own_color,
        infrared=this.has_own_color,
        options={
            "exposure": float(EXPOSURE_US),
            "gain": float(GAIN_LEVEL),
            "emitter_enabled": 0.0 if session.target is Target.BOARD else 1.0,
            "asic_temperature": round(drift.temperature_c(STARTS_S[session.target]), 1),
        },
    )


def _frames(session: Session, camera: int) -> Iterator[WrittenFrame]:
    """Frames of all places; a repeated place gives the same images again, at a later time."""
    kind = list(Target).index(session.target)
    clock = session.cell.plan.generator(Stream.CLOCK, kind, camera)
    made: dict[int, list[_Images]] = {}
    for number, pose in enumerate(session.shown):
        if pose not in made:
            rng = session.cell.plan.generator(Stream.IMAGES, kind, camera, pose)
            images = list(_images_of(session, camera, pose, rng))
            # Only a place that comes again needs to be kept.
            made = {pose: images, **({key: made[key] for key in made if key == session.faults.repeated})}
        start_s, drift = _time_s(session, number), session.cell.drift
        for index, image in enumerate(made[pose]):
            jitter_ns = 1000 * int(clock.integers(-CLOCK_JITTER_US, CLOCK_JITTER_US + 1))
            since_start_ns = round((start_s - STARTS_S[session.target]) * 1e9) + index * FRAME_INTERVAL_NS
            yield WrittenFrame(
                image.counts,
                image.rgb,
                round(STARTS_S[session.target] * 1e9) + since_start_ns + jitter_ns,
                round(since_start_ns / FRAME_INTERVAL_NS),
                session.cell.cameras[camera].body.model.color_delay_ns,
                {
                    "actual_exposure": EXPOSURE_US,
                    "gain_level": GAIN_LEVEL,
                    "temperature": round(drift.temperature_c(start_s)),
                },
                image.infrared,
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Images:
    counts: NDArray[np.uint16]
    rgb: NDArray[np.uint8] | None
    infrared: NDArray[np.uint8] | None


def _images_of(session: Session, camera: int, pose: int, rng: np.random.Generator) -> Iterator[_Images]:
    this, noise = session.cell.cameras[camera], session.cell.plan.noise
    model = this.body.model
    shapes, T_cell_depth = _shapes(session, pose), _pose_of(session, camera, pose)
    view = view_of(shapes, T_cell_depth, this.depth)
    mean_left = _through_faults(light_of(view, shapes, T_cell_depth, this.depth, LAMP), session.faults, pose)
    mean_infrared = _infrared_counts(mean_left) if this.has_own_color else None
    mean_color = _color_counts(session, camera, pose, mean_left)
    stereo_view = _stereo_view(view, shapes, T_cell_depth, this)
    still = matched(stereo_view, model, _error_at(session, camera, pose), noise, rng)
    for _ in range(session.frames):
        yield _Images(
            frame_counts(still, model, noise, rng),
            None if mean_color is None else color_frame(mean_color, COLOR, rng),
            None if mean_infrared is None else color_frame(mean_infrared, INFRARED, rng),
        )


def _shapes(session: Session, pose: int) -> tuple[Shape, ...]:
    cell, T_cell_body = session.cell, session.poses[pose]
    ground = ground_below(np.array(cell.middle_cell), cell.standoff_m)
    if session.board is None:
        return (*artefact_bodies(session.target, T_cell_body), ground)
    warp = Warp(*cell.warp_m, session.board.features_m)
    return (*board_sheet(T_cell_body, session.board.printed, warp), ground)


def _pose_of(session: Session, camera: int, place: int) -> RigidTransform:
    """`T_cell_depth` of a camera at a place, after all that happened to it."""
    cameras, faults = session.cell.cameras, session.faults
    body = cameras[camera].body
    if faults.swapped is not None and camera in faults.swapped and place >= faults.swapped_from:
        first, second = faults.swapped
        stands = cameras[second if camera == first else first].body.T_cell_depth
        return RigidTransform("cell", body.T_cell_depth.source, stands.rotation, stands.translation_m)
    if faults.bump is not None and camera == faults.bump.camera and place >= faults.bump.from_place:
        frame = body.T_cell_depth.source
        turn_rad = np.array([0.0, np.radians(faults.bump.turn_deg), 0.0])
        moved = RigidTransform.from_rotation_vector(frame, frame, turn_rad, np.array([faults.bump.shift_m, 0.0, 0.0]))
        return body.T_cell_depth @ moved
    return body.T_cell_depth


def _through_faults(light: NDArray[np.float32], faults: Faults, pose: int) -> NDArray[np.float32]:
    if pose in faults.blurred:
        light = cv2.GaussianBlur(light, (0, 0), FAULT_BLUR_PX).astype(np.float32, copy=False)
    if pose in faults.overexposed:
        light = (FAULT_GAIN * light).astype(np.float32)
    return light


def _infrared_counts(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the infrared image: in proportion to light, since the imagers apply no gamma."""
    blurred = cv2.GaussianBlur(light, (0, 0), INFRARED.blur_px)
    return np.asarray(255 * np.clip(INFRARED.gain * blurred, 0, 1), np.float32)


def _color_counts(
    session: Session, camera: int, pose: int, mean_left: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Mean of the colour image, (H, W, 3); None where none is recorded."""
    this = session.cell.cameras[camera]
    if not this.has_own_color:
        light = mean_left
    elif session.target is Target.BOARD:
        shapes, T_cell_depth = _shapes(session, pose), _pose_of(session, camera, pose)
        T_cell_color = T_cell_depth @ this.body.T_color_depth.inverse()
        view = view_of(shapes, T_cell_color, this.color)
        light = _through_faults(light_of(view, shapes, T_cell_color, this.color, LAMP), session.faults, pose)
    else:
        return None
    grey = exposed(light, COLOR)
    return np.stack([share * grey for share in TINT], axis=-1).astype(np.float32, copy=False)


def _stereo_view(
    view: TargetView, shapes: Sequence[Shape], T_cell_depth: RigidTransform, camera: CalibrationCamera
) -> StereoView:
    right_cell = T_cell_depth @ np.array([camera.body.model.baseline_m, 0.0, 0.0])
    seen_by_right = seen_from(view, shapes, T_cell_depth, camera.depth, right_cell)
    return StereoView(view.depth_m, seen_by_right, view.cosine, np.zeros(view.depth_m.shape, bool))


def _error_at(session: Session, camera: int, pose: int) -> SystematicError:
    """Of the depth, at the camera's temperature at that place."""
    error, drift = session.cell.cameras[camera].body.error, session.cell.drift
    return replace(error, scale=error.scale * drift.scale(drift.temperature_c(_time_s(session, pose))))


def _time_s(session: Session, place: int) -> float:
    return STARTS_S[session.target] + PAUSE_S * place
