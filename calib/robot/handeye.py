"""Hand-eye calibration: where a camera sits on a robot's hand, or beside the robot, from poses both have seen."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.robot.handeye_problem import NAMES, Samples, targets
from depthcell.calib.robot.handeye_refine import FEWEST, NoiseModel, Refined, refine
from depthcell.calib.robot.handeye_start import LinearStart, best_start, check_belonging, check_motion, guess_offset
from depthcell.calib.robot.handeye_trajectory import Poses, Trajectory, read_trajectory
from depthcell.errors import DepthcellError, Reason

LEAST_CORRELATION = 0.3
"""Agreement of the two rates of rotation below which they say nothing of the clocks."""

SUSPICIOUS_M = 0.002
"""Scatter of the target with the best linear solver from which on the other conventions are tried too."""
CONTRADICTION = 0.01
"""Probability below which the difference of two halves is not put down to chance."""


class Mount(StrEnum):
    """Where the camera is: on the hand with the target standing in the cell, or beside with the target on the hand."""

    HAND = "hand"
    BESIDE = "beside"


class CameraPoses(StrEnum):
    """What a line of the camera's file says: the target's pose in the camera's frame, or the reverse."""

    TARGET_IN_CAMERA = "target-in-camera"
    CAMERA_IN_TARGET = "camera-in-target"


@dataclass(frozen=True, slots=True)
class HandEyeSettings:
    """How the two files are understood.

    Attributes:
        mount: where the camera is.
        camera_poses: what the camera's file holds; what `solvePnP` gives is target-in-camera.
        paired: line by line the files belong together and times are not used; else each has its own clock.
        most_offset_s: largest difference of the clocks that is looked for.
        longest_gap_s: no pose is interpolated across a longer pause of the robot's file.
        noise: how rotation and position errors are weighed.
    """

    mount: Mount
    camera_poses: CameraPoses = CameraPoses.TARGET_IN_CAMERA
    paired: bool = False
    most_offset_s: float = 1.0
    longest_gap_s: float = 0.2
    noise: NoiseModel = NoiseModel.ISOTROPIC

    def __post_init__(self) -> None:
        for name in ("most_offset_s", "longest_gap_s"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise DepthcellError(f"{name} = {value!r}: must be a finite number above 0", Reason.BAD_INPUT)


@dataclass(frozen=True, slots=True, eq=False)
class Scatter:
    """Standard deviation of the target's place about its mean, (3,) m along x, y, z of the frame it stands still in.

    Attributes:
        samples_m: at every camera pose, outliers included.
        common_m: at the robot's times, the camera's poses interpolated, which averages some of their noise; the same
            as `samples_m` for paired poses.
    """

    samples_m: NDArray[np.float64]
    common_m: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Each half of the recording judged by the other.

    Attributes:
        place_rms_m: (2, 3) root mean square of the target's place about where the other half puts it; first row: the
            first half judged by the second.
        rotation_rad: angle between the two halves' mounts.
        translation_m: distance between their origins.
        chi_square: square of the difference of the mounts over its covariance, 6 where the covariances are right.
        p: that it is as large by chance, 6 degrees of freedom.
    """

    place_rms_m: NDArray[np.float64]
    rotation_rad: float
    translation_m: float
    chi_square: float
    p: float


@dataclass(frozen=True, slots=True, eq=False)
class HandEye:
    """A hand-eye calibration.

    Attributes:
        settings: how the files were understood.
        T_mount_camera: `T_hand_camera` or, beside, `T_base_camera`.
        T_fixed_target: `T_base_target` or, beside, `T_hand_target`.
        offset_s: the robot's clock less the camera's; None for paired poses.
        covariance: (P, P) of `parameter_names`, `birge` included; poses in the convention `RigidTransform.perturbed`.
        birge: what the covariance of the fit was multiplied by because the two halves of the recording contradict each
            other: the mean square of their difference over its covariance (Birge, Phys. Rev. 40 (1932) 207). 1 where
            they agree (p of at least 0.01), or cannot be compared.
        parameter_names: P of them.
        residuals: (N, 6) of every pair, seen less expected, in the camera's frame: three in rad, three in m.
        outliers: indices of pairs that lie outside what good ones do; they count little.
        unused: camera poses that no robot pose could be paired with.
        solver: the closed form it started from.
        start: scatter with that one, at the offset guessed from the rates of rotation.
        scatter: with the refined result.
        held_out: None where a half has too few poses or too little motion by itself.
        weakest: unit vector in the frame of the mount along which the camera's origin is least certain.
        weakest_u_m: its standard uncertainty along it.
        noise: (6,) standard deviation of the errors, scale of Student's t: three in rad, three in m.
        tail: degrees of freedom of that t; 10000 is normal.
        memory: (6,) successive pairs that count as one, by kind of error.
    """

    settings: HandEyeSettings
    T_mount_camera: RigidTransform
    T_fixed_target: RigidTransform
    offset_s: float | None
    covariance: NDArray[np.float64]
    birge: float
    parameter_names: tuple[str, ...]
    residuals: NDArray[np.float64]
    outliers: tuple[int, ...]
    unused: int
    solver: str
    start: Scatter
    scatter: Scatter
    held_out: HeldOut | None
    weakest: NDArray[np.float64] = field(repr=False)
    weakest_u_m: float
    noise: NDArray[np.float64]
    tail: float
    memory: NDArray[np.float64]

    @property
    def mount_covariance(self) -> NDArray[np.float64]:
        """(6, 6) of `T_mount_camera`."""
        return self.covariance[:6, :6]

    @property
    def rotation_rms_rad(self) -> float:
        """Root mean square angle of the rotation residuals, outliers included."""
        return float(np.sqrt(np.mean(np.sum(self.residuals[:, :3] ** 2, axis=1))))

    @property
    def translation_rms_m(self) -> float:
        """Root mean square length of the position residuals, outliers included."""
        return float(np.sqrt(np.mean(np.sum(self.residuals[:, 3:] ** 2, axis=1))))


def calibrate_handeye(robot: Path, camera: Path, settings: HandEyeSettings) -> HandEye:
    """Calibrate from two files of poses, `t, x, y, z, qx, qy, qz, qw` (`read_trajectory`).

    Args:
        robot: poses of the hand in the robot's base, `T_base_hand`.
        camera: poses of the target seen by the camera.
        settings: where the camera is, and what its file holds.

    Raises:
        DepthcellError: a file is bad, the clocks do not overlap, the motion is not enough, or the files say that the
            camera is elsewhere than stated.
    """
    return handeye_of(read_trajectory(robot), read_trajectory(camera), settings)


def handeye_of(robot: Trajectory, camera: Trajectory, settings: HandEyeSettings) -> HandEye:
    """As `calibrate_handeye`, from poses in memory; paired poses may have any ascending times."""
    seen = camera.poses if settings.camera_poses is CameraPoses.TARGET_IN_CAMERA else camera.poses.inverse()
    beside = settings.mount is Mount.BESIDE
    guess_s = 0.0
    if settings.paired:
        samples = _paired(robot, camera, seen, beside=beside)
    else:
        guess = guess_offset(robot, camera, settings.most_offset_s)
        guess_s = guess.offset_s if guess.correlation > LEAST_CORRELATION else 0.0
        samples = _overlapping(robot, Trajectory(camera.source, camera.times_s, seen), guess_s, settings)
    if len(samples) < FEWEST:
        wrong = f"{len(samples)} camera poses go with a robot pose, at least {FEWEST} are needed"
        raise DepthcellError(f"hand-eye: {wrong}: record longer, and check the clocks", Reason.BAD_INPUT)
    check_motion(samples.hand.rotation)
    check_belonging(samples.motion(guess_s).poses.rotation, samples.camera.rotation)
    start = best_start(samples, tuple({guess_s, 0.0}) if not settings.paired else (0.0,), _frames(settings.mount))
    _check_conventions(samples, start, settings)
    refined = refine(samples, start.state, settings.noise, offset=not settings.paired)
    return _result(samples, len(camera.poses) - len(samples), start, refined, settings)


def _frames(mount: Mount) -> tuple[str, str, str]:
    return ("hand" if mount is Mount.HAND else "base", "camera", "target")


def _paired(robot: Trajectory, camera: Trajectory, seen: Poses, *, beside: bool) -> Samples:
    if len(robot.poses) != len(camera.poses):
        counts = f"{robot.source} has {len(robot.poses)} poses, {camera.source} {len(camera.poses)}"
        raise DepthcellError(f"hand-eye: {counts}: paired files need as many", Reason.BAD_INPUT)
    different = np.unique(np.round(robot.poses.translation_m, 6), axis=0).shape[0]
    if different < FEWEST:
        wrong = f"{robot.source}: the hand was in {different} different places, at least {FEWEST} are needed"
        raise DepthcellError(f"hand-eye: {wrong}: repeating a pose adds nothing", Reason.BAD_INPUT)
    return Samples(seen, robot.poses, beside)


def _overlapping(robot: Trajectory, camera: Trajectory, guess_s: float, settings: HandEyeSettings) -> Samples:
    """Camera poses whose time, give or take the largest doubt of the offset, lies between close poses of the robot."""
    early, late = robot.times_s[0] - guess_s, robot.times_s[-1] - guess_s
    if camera.times_s[0] > late or camera.times_s[-1] < early:
        spans = " and ".join(f"{one.source} {one.times_s[0]:.3f} to {one.times_s[-1]:.3f} s" for one in (robot, camera))
        raise DepthcellError(f"hand-eye: the clocks do not overlap, {spans}: give both the same origin")
    usable = _between(robot.times_s, camera.times_s + guess_s, settings.longest_gap_s, margin_s=0.05)
    times_s = camera.times_s[usable]
    beside = settings.mount is Mount.BESIDE
    return Samples(camera.poses.take(usable), robot.at(times_s + guess_s).poses, beside, robot, times_s)


def _between(
    known_s: NDArray[np.float64], asked_s: NDArray[np.float64], longest_gap_s: float, margin_s: float
) -> NDArray[np.bool_]:
    """Which of the times asked for lie inside the known ones, and not in a gap between them."""
    index = np.clip(np.searchsorted(known_s, asked_s, side="right") - 1, 0, known_s.size - 2)
    inside = (asked_s >= known_s[0] + margin_s) & (asked_s <= known_s[-1] - margin_s)
    usable: NDArray[np.bool_] = inside & (known_s[index + 1] - known_s[index] <= longest_gap_s)
    return usable


def _check_conventions(samples: Samples, start: LinearStart, settings: HandEyeSettings) -> None:
    """Refuse files that fit badly as stated and three times better with the camera's poses the other way round.

    `A X B = Z` read with both A and B inverted is the same equation with X and Z exchanged. So poses the other way
    round fit as well as the camera at the other place; which of the two was misstated, only the user knows.
    """
    if start.scatter_m < SUSPICIOUS_M:
        return
    inverted = replace(samples, camera=samples.camera.inverse())
    scatter_m = best_start(inverted, (start.state.offset_s,), _frames(settings.mount)).scatter_m
    if 3 * scatter_m < start.scatter_m:
        turned = next(one for one in CameraPoses if one is not settings.camera_poses)
        other = next(one for one in Mount if one is not settings.mount)
        stated = f"mount '{settings.mount}' with '{settings.camera_poses}' poses: {start.scatter_m * 1e3:.3g} mm"
        remedy = f"either the poses are '{turned}' or the mount is '{other}', which gives {scatter_m * 1e3:.3g} mm"
        raise DepthcellError(f"hand-eye: the target scatters with {stated}: {remedy}", Reason.BAD_INPUT)


def _result(samples: Samples, unused: int, start: LinearStart, refined: Refined, settings: HandEyeSettings) -> HandEye:
    state, held_out = refined.state, _held_out(samples, refined, settings)
    birge = held_out.chi_square / 6 if held_out is not None and held_out.p < CONTRADICTION else 1.0
    covariance = birge * refined.covariance
    variances, directions = np.linalg.eigh(covariance[3:6, 3:6])
    return HandEye(
        settings=settings,
        T_mount_camera=state.mount,
        T_fixed_target=state.target,
        offset_s=None if settings.paired else state.offset_s,
        covariance=covariance,
        birge=birge,
        parameter_names=NAMES[: len(covariance)],
        residuals=refined.error,
        outliers=tuple(int(index) for index in np.flatnonzero(refined.outliers)),
        unused=unused,
        solver=start.solver,
        start=_scatter(samples, start.state.mount, start.state.offset_s, settings),
        scatter=_scatter(samples, state.mount, state.offset_s, settings),
        held_out=held_out,
        weakest=directions[:, -1],
        weakest_u_m=float(np.sqrt(variances[-1])),
        noise=np.sqrt(np.diag(refined.noise)),
        tail=refined.tail,
        memory=refined.memory,
    )


def _scatter(samples: Samples, mount: RigidTransform, offset_s: float, settings: HandEyeSettings) -> Scatter:
    places = targets(samples.motion(offset_s).poses, samples.camera, mount).translation_m
    if samples.trajectory is None:
        return Scatter(places.std(axis=0), places.std(axis=0))
    seen = Trajectory("camera", samples.times_s, samples.camera)
    times_s = samples.trajectory.times_s - offset_s
    times_s = times_s[_between(samples.times_s, times_s, settings.longest_gap_s, margin_s=0.0)]
    motion = samples.trajectory.at(times_s + offset_s)
    arm = motion.inverse().poses if samples.beside else motion.poses
    common = targets(arm, seen.at(times_s).poses, mount).translation_m
    return Scatter(places.std(axis=0), common.std(axis=0))


def _held_out(samples: Samples, refined: Refined, settings: HandEyeSettings) -> HeldOut | None:
    """First against second half of a recording, even against odd of paired poses."""
    number = np.arange(len(samples))
    first = number % 2 == 0 if samples.trajectory is None else number < len(samples) / 2
    halves = (samples.take(first), samples.take(~first))
    try:
        for half in halves:
            check_motion(half.hand.rotation)
        fits = [refine(half, refined.state, settings.noise, offset=not settings.paired) for half in halves]
    except DepthcellError:
        return None
    rms = []
    for half, other in zip(halves, reversed(fits), strict=True):
        places = targets(half.motion(other.state.offset_s).poses, half.camera, other.state.mount)
        rms.append(np.sqrt(np.mean((places.translation_m - other.state.target.translation_m) ** 2, axis=0)))
    one, two = (fit.state.mount for fit in fits)
    turn = RigidTransform("mount", "mount", two.rotation @ one.rotation.T, np.zeros(3)).rotation_vector_rad
    gap = np.hstack([turn, two.translation_m - one.translation_m - np.cross(turn, one.translation_m)])
    together = fits[0].covariance[:6, :6] + fits[1].covariance[:6, :6]
    chi_square = float(gap @ np.linalg.solve(together, gap))
    return HeldOut(
        place_rms_m=np.array(rms),
        rotation_rad=float(np.linalg.norm(turn)),
        translation_m=float(np.linalg.norm(two.translation_m - one.translation_m)),
        chi_square=chi_square,
        p=float(chdtrc(6, chi_square)),
    )
