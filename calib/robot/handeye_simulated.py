"""Robots with a camera on the hand or beside them, whose true mount is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.robot.handeye import Mount
from depthcell.calib.robot.handeye_trajectory import Poses, Trajectory

NOISE = (5e-4, 5e-4, 2e-4, 1e-4, 1e-4, 5e-4)
"""Standard deviation of a pose from a flat target: tilt and distance are the weak directions. Three rad, three m."""
MIDDLE_M = np.array([0.5, 0.0, 0.4])
"""Middle of the robot's work space, in its base."""


@dataclass(frozen=True, slots=True)
class HandEyeScene:
    """What is simulated.

    Attributes:
        mount: where the camera is.
        poses: camera poses.
        rate_hz: of the camera; None makes paired poses, each from another place, without time.
        offset_s: the robot's clock less the camera's.
        noise: standard deviation of the camera's errors, in its own frame: three rad, three m.
        memory_s: time over which successive errors are alike (1/e); 0 makes them independent.
        outliers: share of camera poses that are off by up to 0.5 rad and 0.1 m.
    """

    mount: Mount = Mount.HAND
    poses: int = 40
    rate_hz: float | None = None
    offset_s: float = 0.0
    noise: tuple[float, float, float, float, float, float] = NOISE
    memory_s: float = 0.0
    outliers: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedHandEye:
    """Poses as the two files would hold them (`target-in-camera`), and the truth."""

    robot: Trajectory
    camera: Trajectory
    T_mount_camera: RigidTransform
    T_fixed_target: RigidTransform
    wrong: NDArray[np.bool_]


def simulate_handeye(scene: HandEyeScene, rng: np.random.Generator) -> SimulatedHandEye:
    """A robot moves about the middle of its work space; the camera is mounted anyhow and sees the target always."""
    fixed, moving = ("base", "hand") if scene.mount is Mount.HAND else ("hand", "base")
    mount = _random_pose(moving, "camera", rng, 0.1)
    target = _random_pose(fixed, "target", rng, 0.4)
    step_s = 1.0 if scene.rate_hz is None else 1 / scene.rate_hz
    times_s = np.asarray(100.0 + step_s * np.arange(scene.poses), dtype=np.float64)
    if scene.rate_hz is None:
        robot = Trajectory("robot", times_s, _scattered(scene.poses, rng))
        hand = robot.poses
    else:
        fine_s = np.arange(float(times_s[0]) - 1, float(times_s[-1]) + 1, 0.01)
        robot = Trajectory("robot", fine_s + scene.offset_s, _smooth(fine_s, rng))
        hand = robot.at(times_s + scene.offset_s).poses
    arm = hand if scene.mount is Mount.HAND else hand.inverse()
    seen, wrong = _seen(arm, mount, target), rng.random(scene.poses) < scene.outliers
    errors = _errors(scene, step_s, rng)
    errors[wrong] += rng.uniform(-1, 1, (np.count_nonzero(wrong), 6)) * ([0.5] * 3 + [0.1] * 3)
    rotation = Rotation.from_rotvec(errors[:, :3]).as_matrix() @ seen.rotation
    camera = Trajectory("camera", times_s, Poses(rotation, seen.translation_m + errors[:, 3:]))
    return SimulatedHandEye(robot, camera, mount, target, wrong)


def _random_pose(frame: str, source: str, rng: np.random.Generator, reach_m: float) -> RigidTransform:
    rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    return RigidTransform(frame, source, rotation, rng.uniform(-reach_m, reach_m, 3))


def _scattered(count: int, rng: np.random.Generator) -> Poses:
    rotation = Rotation.from_rotvec(rng.normal(0, 0.35, (count, 3))).as_matrix()
    return Poses(rotation, rng.uniform(-0.25, 0.25, (count, 3)) + MIDDLE_M)


def _smooth(times_s: NDArray[np.float64], rng: np.random.Generator) -> Poses:
    """Sums of sines of 0.1 to 0.4 Hz in every direction."""
    hertz, phase = rng.uniform(0.1, 0.4, (6, 3)), rng.uniform(0, 2 * np.pi, (6, 3))
    waves = np.sin(2 * np.pi * hertz * times_s[:, None, None] + phase).sum(axis=2)
    rotation = Rotation.from_rotvec(0.25 * waves[:, :3]).as_matrix()
    return Poses(rotation, 0.1 * waves[:, 3:] + MIDDLE_M)


def _seen(arm: Poses, mount: RigidTransform, target: RigidTransform) -> Poses:
    """`X^-1 A^-1 Z`."""
    back = arm.inverse()
    at_hand = back.rotation @ target.translation_m + back.translation_m
    to_camera = mount.inverse()
    rotation = to_camera.rotation @ back.rotation @ target.rotation
    return Poses(rotation, at_hand @ to_camera.rotation.T + to_camera.translation_m)


def _errors(scene: HandEyeScene, step_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Normal errors (N, 6), from one to the next alike by `exp(-step / memory)`."""
    keep = float(np.exp(-step_s / scene.memory_s)) if scene.memory_s > 0 else 0.0
    white = rng.normal(0, scene.noise, (scene.poses, 6))
    errors = np.empty_like(white)
    errors[0] = white[0]
    for index in range(1, scene.poses):
        errors[index] = keep * errors[index - 1] + np.sqrt(1 - keep**2) * white[index]
    return errors
