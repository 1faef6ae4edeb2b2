"""The hand-eye equation: what a camera pose should be, how far it is off, and the derivatives of that.

With `A` the robot's pose, `X` the camera's mount and `B` the target as the camera sees it, `A X B = Z` stays the same
(Shiu, Ahmad 1989; Tsai, Lenz 1989):

    camera on the hand       A = T_base_hand   X = T_hand_camera   Z = T_base_target
    camera beside the robot  A = T_hand_base   X = T_base_camera   Z = T_hand_target
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.robot.handeye_trajectory import Motion, Poses, Trajectory

NAMES = (
    *("mount.rx_rad", "mount.ry_rad", "mount.rz_rad", "mount.tx_m", "mount.ty_m", "mount.tz_m"),
    *("target.rx_rad", "target.ry_rad", "target.rz_rad", "target.tx_m", "target.ty_m", "target.tz_m"),
    "offset_s",
)
"""Parameters: `X.perturbed`, `Z.perturbed`, and the time offset where there is one."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Pairs of a robot pose and a camera pose.

    Attributes:
        camera: poses B, `T_camera_target`, N of them.
        hand: poses `T_base_hand` for a time offset of 0, and without a trajectory for every offset.
        beside: the camera stands beside the robot, so that A is the inverse of `hand`.
        trajectory: of the hand; None where poses come in pairs and have no time.
        times_s: (N,) when the camera saw them, on the camera's clock; empty without a trajectory.
    """

    camera: Poses
    hand: Poses
    beside: bool = False
    trajectory: Trajectory | None = None
    times_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.camera)

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> "Samples":
        """Some of them, by index or mask."""
        times_s = self.times_s if self.trajectory is None else self.times_s[chosen]
        return Samples(self.camera.take(chosen), self.hand.take(chosen), self.beside, self.trajectory, times_s)

    def motion(self, offset_s: float) -> Motion:
        """Poses A when the robot's clock is `offset_s` ahead: at camera time plus offset."""
        if self.trajectory is None:
            still = np.zeros((len(self), 3))
            motion = Motion(self.hand, still, still)
        else:
            motion = self.trajectory.at(self.times_s + offset_s)
        return motion.inverse() if self.beside else motion


@dataclass(frozen=True, slots=True, eq=False)
class HandEyeState:
    """`mount` X, `target` Z, and the robot's clock less the camera's."""

    mount: RigidTransform
    target: RigidTransform
    offset_s: float

    def perturbed(self, twist: NDArray[np.float64]) -> "HandEyeState":
        """Moved by (12,) or (13,) small numbers in the order of `NAMES`."""
        offset_s = self.offset_s + (float(twist[12]) if twist.size > 12 else 0.0)
        return HandEyeState(self.mount.perturbed(twist[:6]), self.target.perturbed(twist[6:12]), offset_s)


@dataclass(frozen=True, slots=True, eq=False)
class Misfit:
    """How far the camera's poses are off.

    Attributes:
        error: (N, 6): rotation vector of `R_seen R_expected^T` in rad, then seen less expected position of the target
            in m, both in the camera's frame.
        jacobian: (N, 6, P) of `error` with respect to the parameters.
    """

    error: NDArray[np.float64]
    jacobian: NDArray[np.float64]


def misfit(samples: Samples, state: HandEyeState, *, offset: bool) -> Misfit:
    """Errors and their derivatives for `state.perturbed(xi)` at xi = 0.

    Expected is `X^-1 A^-1 Z`. Derivatives of the logarithm by the inverse right Jacobian of SO(3) (Chirikjian,
    Stochastic Models, Information Theory, and Lie Groups 2, 10.6; as in Sola, Deray, Atchuthan, arXiv 1812.01537, 143).

    Args:
        samples: N pairs.
        state: where to look.
        offset: whether the time offset is a parameter, the thirteenth.
    """
    motion = samples.motion(state.offset_s)
    to_hand = motion.poses.rotation.transpose(0, 2, 1)
    to_camera = state.mount.rotation.T
    to_base = to_camera @ to_hand
    at_hand = np.einsum("nij,nj->ni", to_hand, state.target.translation_m - motion.poses.translation_m)
    seen = samples.camera
    turn = seen.rotation @ (to_base @ state.target.rotation).transpose(0, 2, 1)
    angle = np.asarray(Rotation.from_matrix(turn).as_rotvec())
    expected_m = (at_hand - state.mount.translation_m) @ to_camera.T
    inner = inverse_right_jacobian(angle)

    jacobian = np.zeros((len(samples), 6, 13 if offset else 12))
    jacobian[:, :3, 0:3] = inner @ to_camera
    jacobian[:, 3:, 0:3] = -to_camera @ cross_matrix(at_hand)
    jacobian[:, 3:, 3:6] = to_camera
    jacobian[:, :3, 6:9] = -inner @ to_base
    jacobian[:, 3:, 6:9] = to_base @ cross_matrix(state.target.translation_m[None])
    jacobian[:, 3:, 9:12] = -to_base
    if offset:
        rate = motion.angular_rad_s
        drift = np.cross(rate, at_hand) + np.einsum("nij,nj->ni", to_hand, motion.linear_m_s)
        jacobian[:, :3, 12] = np.einsum("nij,nj->ni", inner @ to_camera, rate)
        jacobian[:, 3:, 12] = drift @ to_camera.T
    return Misfit(np.hstack([angle, seen.translation_m - expected_m]), jacobian)


def targets(arm: Poses, camera: Poses, mount: RigidTransform) -> Poses:
    """Where each pair of poses says the target is: `A X B`, in the frame that does not move with the target."""
    rotation = arm.rotation @ mount.rotation
    place = arm.rotation @ mount.translation_m + arm.translation_m
    return Poses(rotation @ camera.rotation, np.einsum("nij,nj->ni", rotation, camera.translation_m) + place)


def chart(twist: NDArray[np.float64]) -> NDArray[np.float64]:
    """Derivative (P, P) of the small motion about `state.perturbed(twist)` with respect to `twist` itself.

    Moving `twist` by d moves the state by `chart(twist) @ d`: for each pose `[[J, 0], [[t]x J, 1]]` with J the left
    Jacobian of SO(3) at the rotation and t the translation of the twist.
    """
    result = np.eye(twist.size)
    for start in (0, 6):
        left = inverse_right_jacobian(-twist[None, start : start + 3])[0]
        left = np.linalg.inv(left)
        result[start : start + 3, start : start + 3] = left
        result[start + 3 : start + 6, start : start + 3] = cross_matrix(twist[None, start + 3 : start + 6])[0] @ left
    return result


def cross_matrix(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[v]x` of vectors (N, 3): (N, 3, 3) with `[v]x u = v x u`."""
    result = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    result[:, 0, 1], result[:, 0, 2], result[:, 1, 2] = -z, y, -x
    result[:, 1, 0], result[:, 2, 0], result[:, 2, 1] = z, -y, x
    return result


def inverse_right_jacobian(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """`1 + [a]x / 2 + c [a]x²`, `c = 1/t² - (1 + cos t) / (2 t sin t)`, of rotation vectors (N, 3) with t = |a|."""
    turn, cross = np.linalg.norm(angle, axis=1), cross_matrix(angle)
    small = turn < 1e-4
    safe = np.where(small, 1.0, turn)
    factor = np.where(small, 1 / 12 + turn**2 / 720, 1 / safe**2 - 1 / (2 * safe * np.tan(safe / 2)))
    return np.eye(3) + cross / 2 + factor[:, None, None] * (cross @ cross)
