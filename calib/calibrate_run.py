"""From a folder of recordings to a cell: look for the boards, measure noise, solve the rig, write what was found."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from depthcell.acquisition.partfolder import find_parts
from depthcell.acquisition.recording import open_recording
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle_covariance import cell_camera, cell_covariance
from depthcell.calib.board_recordings import board_recordings
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.calib.depth.plate_frames import noise_of, noise_on_plates
from depthcell.calib.factory import NOISE, baseline_of
from depthcell.calib.observation import Device, Observation, is_identity, observe
from depthcell.calib.solving.rig import RigRecording, RigSolution, SolveSettings, solve_rig
from depthcell.calib.solving.rig_pose import BOARD_FRAME
from depthcell.calib.solving.suspicion import Suspicion
from depthcell.calib.target.board import Board
from depthcell.calib.target.imagequality import QualityIssue
from depthcell.errors import DepthcellError, Reason

Progress = Callable[[str, float], None]
"""Told what is being done, and how much of the whole is behind, 0 to 1."""
PLATE_FOLDER = "plate"
LOOKING, MEASURING = 0.6, 0.7
"""Share of the whole time that is over when the boards have been found, and when the noise is known."""


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """What a person asks of a calibration.

    Attributes:
        source: folder of recordings, one for each camera, or with a subfolder `board`, and `plate` if there is one.
        boards: that were shown.
        name: what people will call the cell.
        pitch_u: relative standard uncertainty of the boards' pitch.
        plate: folder of a resting flat surface, for the noise; None takes `source`'s own, if there is one.
        tolerated: suspicions that are reported and do not refuse.
        jobs: processes that look for boards.
        calibrated_at: ISO 8601; empty for now.
    """

    source: Path
    boards: tuple[Board, ...]
    name: str
    pitch_u: float = 1e-4
    plate: Path | None = None
    tolerated: frozenset[Suspicion] = frozenset()
    jobs: int = 1
    calibrated_at: str = ""

    def __post_init__(self) -> None:
        if not self.boards:
            raise DepthcellError("--board: name the board that was shown, such as charuco:9x6:30mm")
        if not 0 <= self.pitch_u < 0.1:
            raise DepthcellError(f"--pitch-u-um: {self.pitch_u:.3g} of the pitch is no uncertainty of a printed board")


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """What came out.

    Attributes:
        cell: the calibrated cell.
        observation: what was seen.
        rig: how it was solved, and how good it is.
        noise_from: what the noise was measured on, in words.
        noise_recordings: the files that it was measured on; empty where it was not.
    """

    cell: Cell
    observation: Observation
    rig: RigSolution
    noise_from: str
    noise_recordings: tuple[Path, ...]


def calibrate(plan: CalibrationPlan, progress: Progress = lambda _what, _done: None) -> Calibrated:
    """Calibrate all cameras that recorded the boards.

    Raises:
        DepthcellError: the recordings cannot be used, or what they show does not make a cell; one line that names what
            is wrong and what to do.
    """
    progress("measuring noise", 0.0)
    noise, noise_from, noise_recordings = _noise(plan)
    progress("looking for boards", 0.1)
    observation = observe(
        plan.source,
        plan.boards,
        noise,
        plan.jobs,
        lambda done, total: progress("looking for boards", 0.1 + 0.5 * done / max(total, 1)),
    )
    settings = SolveSettings(
        T_cell_origin=centred_on(plan.boards[0]), board_scale_u=plan.pitch_u, tolerated=plan.tolerated
    )
    try:
        rig = solve_rig(
            recording_of(observation), settings, lambda what, done: progress(what, LOOKING + (1 - LOOKING) * done)
        )
    except DepthcellError as error:
        raise DepthcellError(f"{error}{left_out(observation)}", error.reason) from error
    cell = cell_of(plan, observation, rig, noise)
    return Calibrated(cell, observation, rig, noise_from, noise_recordings)


def recording_of(observation: Observation) -> RigRecording:
    """What was seen, as `solve_rig` takes it."""
    devices = observation.devices
    with_depth = {tiles.serial for tiles in observation.depth}
    return RigRecording(
        boards=observation.boards,
        views=observation.seen.views,
        factory={stream: lens for device in devices.values() for stream, lens in device.intrinsics.items()},
        T_color_depth={
            serial: device.T_color_depth
            for serial, device in devices.items()
            if device.T_color_depth is not None and not is_identity(device.T_color_depth)
        },
        depth=observation.depth,
        baselines_m={serial: device.baseline_m for serial, device in devices.items() if serial in with_depth},
    )


def left_out(observation: Observation) -> str:
    """What was seen and not used, as a clause for whoever wonders why so little was left; "" if all was used."""
    seen = observation.seen
    counts = Counter(refused.issue.kind for refused in seen.refused)
    parts = [f"{count} images {kind}" for kind, count in sorted(counts.items()) if kind is not QualityIssue.NO_BOARD]
    repeats = sum(len(place.instants) - 1 for place in seen.merged)
    if repeats:
        parts.append(f"{repeats} repeats of a place, which count once")
    return f" (not used: {', '.join(parts)})" if parts else ""


def centred_on(board: Board) -> RigidTransform:
    """Pose of the board that defines the cell: its middle is the origin, x as printed, z out of its face."""
    turned = np.diag([1.0, -1.0, -1.0])
    low, high = board.points_board.min(axis=0), board.points_board.max(axis=0)
    return RigidTransform("cell", BOARD_FRAME, turned, -turned @ ((low + high) / 2))


def cell_of(
    plan: CalibrationPlan, observation: Observation, rig: RigSolution, noise: Mapping[str, DisparityNoise]
) -> Cell:
    """The cell with the joint covariance of all its cameras.

    Raises:
        DepthcellError: a camera's left imager never saw a board.
    """
    unseen = [s for s in observation.devices if f"depth:{s}" not in rig.bundle.streams]
    if unseen:
        raise DepthcellError(
            f"camera {', '.join(unseen)}: its left imager saw no board, so its depth cannot be placed; record it with "
            "--infrared and without the projector",
            Reason.CELL_INVALID,
        )
    cameras = {serial: _camera(device, rig, noise[serial]) for serial, device in sorted(observation.devices.items())}
    calibrated_at = plan.calibrated_at or datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Cell(plan.name, cameras, calibrated_at, cell_covariance(rig.bundle, list(cameras)))


def _camera(device: Device, rig: RigSolution, noise: DisparityNoise) -> CellCamera:
    camera = cell_camera(rig.bundle, device.serial, device.model, device.baseline_m, noise)
    if device.temperatures_c is not None:
        mean_c = sum(device.temperatures_c) / 2
        camera = replace(camera, correction=replace(camera.correction, reference_c=mean_c))
    if camera.color is None and device.T_color_depth is not None:
        is_left = is_identity(device.T_color_depth)
        color = camera.depth if is_left else device.intrinsics[f"color:{device.serial}"]
        camera = replace(camera, color=color, T_color_depth=device.T_color_depth)
    return camera


def _noise(plan: CalibrationPlan) -> tuple[dict[str, DisparityNoise], str, tuple[Path, ...]]:
    """Noise of each camera: measured on a resting plate, or, without one, the factory's."""
    recordings = [open_recording(path) for path in board_recordings(plan.source).paths]
    baselines_m = {one.serial: baseline_of(one.model, one.baseline_m) for one in recordings}
    folder = plan.plate or plan.source / PLATE_FOLDER
    if plan.plate is None and not folder.is_dir():
        assumed = "no plate was recorded: a camera as it leaves the factory is assumed"
        return dict.fromkeys(baselines_m, NOISE), assumed, ()
    parts = find_parts(folder)
    measured = noise_on_plates((frames for part in parts for frames in part.framesets(tuple(baselines_m))), baselines_m)
    places = min(len(found.places) for found in measured.values())
    said = f"measured on a resting plate at {places} places or more ({folder.name})"
    return noise_of(measured), said, tuple(path for part in parts for path in part.paths)
