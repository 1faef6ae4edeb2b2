"""A part moving past the cameras on a conveyor or a turntable: recordings, what an encoder counted, and the truth."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.simulator.actualpart import ActualPart, draw_part
from depthcell.acquisition.simulator.partrun import (
    CLOCK_JITTER_US,
    EXPOSURE_US,
    FRAME_INTERVAL_NS,
    GAIN_LEVEL,
    STARTS_S,
    written_device,
)
from depthcell.acquisition.simulator.recordingwriter import WrittenFrame, write_recording
from depthcell.acquisition.simulator.rig import StationCamera
from depthcell.acquisition.simulator.scene import Scene
from depthcell.acquisition.simulator.station import Station, StationPlan, Stream, build_station
from depthcell.acquisition.simulator.stereo import StereoView, frame_counts, matched
from depthcell.acquisition.simulator.truth import Pose, TruthFile
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.files import write_text

ENCODER_INTERVAL_NS = 2_000_000
LEAD_S = 0.1
"""The encoder is read from this long before the first frame until as long after the last."""
VOLUME_MARGIN_M = 3e-3
"""Around the part; less below than the pins are high, so that the belt stays out."""
ENCODER_FILE, TRAJECTORY_FILE, TRACK_FILE, TRUTH_FILE = "encoder.csv", "trajectory.csv", "track.toml", "truth.json"


@dataclass(frozen=True, slots=True)
class Motion:
    """How the part moves.

    Attributes:
        kind: "conveyor" along the cell's x axis, "turntable" about its z axis.
        speed: mm/s, or degrees per second.
        counts_per: encoder counts per mm, or per degree.
        offset_ms: the encoder's clock shows this much more than the cameras'.
        number: of the part, from 1; decides which part chance makes.
    """

    kind: Literal["conveyor", "turntable"]
    speed: float
    counts_per: float = 100.0
    offset_ms: float = 0.0
    number: int = 1

    def __post_init__(self) -> None:
        if self.kind not in {"conveyor", "turntable"}:
            raise DepthcellError(f"motion {self.kind}: unknown; choose conveyor or turntable")
        if not (math.isfinite(self.speed) and self.speed != 0):
            raise DepthcellError(f"motion: speed must be a number other than 0, got {self.speed}")
        if not (math.isfinite(self.counts_per) and self.counts_per > 0):
            raise DepthcellError(f"motion: counts_per must be positive, got {self.counts_per}")

    def way(self, seconds: float) -> float:
        """Millimetres or degrees from where the part lies in the middle of the run, `seconds` after that middle."""
        return self.speed * seconds

    def moved(self, way: float) -> RigidTransform:
        """The motion of the cell's points by that way."""
        if self.kind == "conveyor":
            return RigidTransform("cell", "cell", np.eye(3), np.array([way / 1e3, 0.0, 0.0]))
        turn = np.array([0.0, 0.0, math.radians(way)])
        return RigidTransform.from_rotation_vector("cell", "cell", turn, np.zeros(3))


class FrameTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the part truly was when one camera took one frame."""

    serial: str
    timestamp_ns: int
    T_cell_part: Pose


class MotionTruth(TruthFile, frozen=True, forbid_unknown_fields=True):
    """What is true of a moving part.

    Attributes:
        part: which one; seed: of the station.
        size_scale: actual size over nominal, by axis of the part.
        middle: `T_cell_part` in the middle of the run.
        frames: each depth frame.
    """

    part: str
    seed: int
    size_scale: tuple[float, float, float]
    middle: Pose
    frames: tuple[FrameTruth, ...]


def simulate_motion(plan: StationPlan, motion: Motion, folder: Path) -> MotionTruth:
    """Make the folder of one moving part, whole or not at all: recordings of depth, encoder, trajectory, track, truth.

    In the middle of the run the part lies where a resting one would. `track.toml` describes the encoder, or, with its
    [encoder] exchanged for `[trajectory] file = "trajectory.csv"`, the true poses. Every frame is taken at its time
    stamp; nothing blurs.

    Raises:
        DepthcellError: the plan asks for what cannot be had.
    """
    station = build_station(plan)
    part = draw_part(station, (), plan.generator(Stream.LINE, motion.number, 0))
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        truth = _record(station, motion, part, partial)
        truth.save(partial / TRUTH_FILE)
        _write_track(station, motion, part, partial)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return truth


def _record(station: Station, motion: Motion, part: ActualPart, folder: Path) -> MotionTruth:
    truths: list[FrameTruth] = []
    for number, camera in enumerate(station.cameras):
        rng = station.plan.generator(Stream.LINE, motion.number, 1, number)
        frames = []
        for count in range(station.plan.frames):
            jitter_ns = 1000 * int(rng.integers(-CLOCK_JITTER_US, CLOCK_JITTER_US + 1))
            timestamp_ns = _start_ns() + count * FRAME_INTERVAL_NS + jitter_ns
            pose = _pose(motion, part, station.plan.frames, timestamp_ns)
            truths.append(FrameTruth(camera.serial, timestamp_ns, Pose.of(pose)))
            counts = _depth(station, camera, Scene(part.mesh, pose), rng)
            metadata = {"actual_exposure": EXPOSURE_US, "gain_level": GAIN_LEVEL}
            frames.append(WrittenFrame(counts, None, timestamp_ns, count, 0, metadata))
        device = replace(written_device(camera), color=None, T_color_depth=None)
        write_recording(folder / f"{camera.serial}.db3", device, frames)
    x, y, z = part.size_scale.tolist()
    return MotionTruth(
        part=station.part.name,
        seed=station.plan.seed,
        size_scale=(x, y, z),
        middle=Pose.of(part.T_cell_part),
        frames=tuple(truths),
    )


def _depth(station: Station, camera: StationCamera, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint16]:
    """One frame; all that lasts while a scene rests is drawn anew, since the scene moves."""
    view = scene.view(camera.T_cell_depth, camera.model.depth_intrinsics)
    seen_by_right = scene.sees(view, camera.right_imager_cell)
    stereo = StereoView(view.depth_m, seen_by_right, view.cosine, np.zeros_like(seen_by_right))
    still = matched(stereo, camera.model, camera.error, station.plan.noise, rng)
    return frame_counts(still, camera.model, station.plan.noise, rng)


def _start_ns() -> int:
    return round(STARTS_S[Stream.LINE] * 1e9)


def _middle_ns(frames: int) -> int:
    return _start_ns() + (frames - 1) * FRAME_INTERVAL_NS // 2


def _pose(motion: Motion, part: ActualPart, frames: int, timestamp_ns: int) -> RigidTransform:
    return motion.moved(motion.way((timestamp_ns - _middle_ns(frames)) / 1e9)) @ part.T_cell_part


def _write_track(station: Station, motion: Motion, part: ActualPart, folder: Path) -> None:
    frames, offset_ns = station.plan.frames, round(motion.offset_ms * 1e6)
    first_ns = _start_ns() - round(LEAD_S * 1e9)
    last_ns = _start_ns() + frames * FRAME_INTERVAL_NS + round(LEAD_S * 1e9)
    counts, poses = ["t_ns,count"], ["t_ns,x,y,z,qx,qy,qz,qw"]
    for time_ns in range(first_ns, last_ns, ENCODER_INTERVAL_NS):
        way = motion.way((time_ns - _middle_ns(frames)) / 1e9)
        counts.append(f"{time_ns + offset_ns},{round(way * motion.counts_per)}")
        pose = _pose(motion, part, frames, time_ns)
        values = (*pose.translation_m.tolist(), *Rotation.from_matrix(pose.rotation).as_quat().tolist())
        poses.append(f"{time_ns + offset_ns}," + ",".join(f"{value:.12g}" for value in values))
    write_text(folder / ENCODER_FILE, "\n".join(counts) + "\n")
    write_text(folder / TRAJECTORY_FILE, "\n".join(poses) + "\n")
    write_text(folder / TRACK_FILE, _track_text(station, motion, part))


def _track_text(station: Station, motion: Motion, part: ActualPart) -> str:
    start, mesh = Pose.of(part.T_cell_part), station.part.mesh
    direction = "[1.0, 0.0, 0.0]" if motion.kind == "conveyor" else "[0.0, 0.0, 1.0]\npoint_cell_mm = [0.0, 0.0, 0.0]"
    low_mm, high_mm = (mesh.min_m - VOLUME_MARGIN_M) * 1e3, (mesh.max_m + VOLUME_MARGIN_M) * 1e3
    return (
        f"time_offset_ms = {motion.offset_ms:.6f}\n\n"
        f'[encoder]\nfile = "{ENCODER_FILE}"\nkind = "{motion.kind}"\ndirection_cell = {direction}\n'
        f"counts_per = {motion.counts_per:.9g}\n\n"
        f"[encoder.start]\ncount = 0\ntranslation_mm = {_numbers(np.array(start.translation_m) * 1e3)}\n"
        f"rotation_vector_rad = {_numbers(np.array(start.rotation_vector_rad))}\n\n"
        "[uncertainty]\ntranslation_mm = 0.02\nrotation_deg = 0.01\ntime_ms = 0.02\n\n"
        f"[volume]\nmin_mm = {_numbers(low_mm)}\nmax_mm = {_numbers(high_mm)}\n"
    )


def _numbers(values: NDArray[np.float64]) -> str:
    return "[" + ", ".join(f"{value:.9g}" if value % 1 else f"{value:.1f}" for value in values.tolist()) + "]"
