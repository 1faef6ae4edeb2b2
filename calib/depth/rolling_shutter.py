"""Where a moving board was, by a colour camera that reads its rows one after the other.

A rolling shutter shows the rows of one image at different instants. A board that moves up or down meanwhile is seen too
short or too tall, and a pose that takes all its corners for simultaneous places it too far or too near: at 1 m by a
millimetre for each millimetre that it moves from frame to frame (`docs/decisions/0006`). With the motion known from
neighbouring frames the one unknown, the share of a frame's time that reading the rows takes, is found from the corners
alone; depth takes no part in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.spatial.transform import Rotation

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason

CORNER_PX = 0.3
"""Residuals beyond this count less than their square (soft L1)."""
LEAST_CORNERS = 8
MOST_U = 0.3
"""A share known worse than this is not worth using: the rows' instants would be off by a third of a frame."""


@dataclass(frozen=True, slots=True, eq=False)
class RollingSight:
    """Corners of a board in one image, and how the board moved meanwhile.

    Attributes:
        frame: target frame of the pose sought, such as "color:<serial>".
        points_board: (N, 3) metres.
        pixels: (N, 2) where they are seen, as (column, row).
        motion: (6,) twist that leads from this frame's pose to the next one's as `RigidTransform.perturbed` applies it,
            rad and m in the camera's frame; see `motions`.
    """

    frame: str
    points_board: NDArray[np.float64]
    pixels: NDArray[np.float64]
    motion: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.pixels)
        if count < LEAST_CORNERS or self.points_board.shape != (count, 3) or self.pixels.shape != (count, 2):
            raise DepthcellError(
                f"{self.frame}: {self.points_board.shape} points and {self.pixels.shape} pixels; "
                f"(N, 3) and (N, 2) are needed, N at least {LEAST_CORNERS}",
                Reason.BAD_INPUT,
            )
        if self.motion.shape != (6,) or not all(np.isfinite(a).all() for a in (self.pixels, self.motion)):
            raise DepthcellError(f"{self.frame}: pixels and the six motions must be finite", Reason.BAD_INPUT)


@dataclass(frozen=True, slots=True, eq=False)
class RollingFit:
    """How long reading the rows takes, and where the board was at the middle row of each image.

    Attributes:
        share: time from the first row to the last, over the time from frame to frame.
        u_share: its standard uncertainty, from the corners' scatter.
        poses: `T_color_board` of each sight.
        rms_px: of the corners' residuals, outliers included.
        loss_px2: what the adjustment made least, to compare lenses by.
    """

    share: float
    u_share: float
    poses: tuple[RigidTransform, ...]
    rms_px: float
    loss_px2: float


def motions(poses: Sequence[RigidTransform]) -> NDArray[np.float64]:
    """Twist per frame (K, 6) of a board's successive poses: half of what lies between the frame before and after."""
    if len(poses) < 2:
        raise DepthcellError("motion from frame to frame: two poses at least are needed", Reason.BAD_INPUT)
    last = len(poses) - 1
    twists = []
    for at, pose in enumerate(poses):
        before, after = max(at - 1, 0), min(at + 1, last)
        turn_rad = Rotation.from_matrix(poses[after].rotation @ poses[before].rotation.T).as_rotvec() / (after - before)
        step_m = (poses[after].translation_m - poses[before].translation_m) / (after - before)
        twists.append(np.append(turn_rad, step_m - np.cross(turn_rad, pose.translation_m)))
    return np.array(twists)


def fit_rolling(sights: Sequence[RollingSight], intrinsics: Intrinsics, share: float | None = None) -> RollingFit:
    """Poses of the board at the images' middle row, and the rows' share of a frame's time.

    Nonlinear least squares with analytic Jacobian over six of each sight and the share; a corner in row v is where the
    board was `share ((v - middle) / height)` frames after the middle row.

    Args:
        sights: of one camera; at least one moves across the rows where the share is sought.
        intrinsics: of that colour stream.
        share: known already, from other sights; None seeks it.

    Raises:
        DepthcellError: a pose cannot be found, or the sights leave the share open (`u_share` above `MOST_U`).
    """
    if not sights:
        raise DepthcellError("rolling shutter: no view of the board: record some", Reason.BAD_INPUT)
    starts = tuple(_start(sight, intrinsics) for sight in sights)
    problem = _Problem(tuple(sights), starts, intrinsics, share)
    start = np.append(np.zeros(6 * len(sights)), [] if share is not None else [0.0])
    solve: Any = optimize.least_squares  # untyped, and mistaken for the module of that name
    found = solve(
        lambda x: problem.residuals(x)[0],
        start,
        jac=lambda x: problem.residuals(x)[1],
        loss="soft_l1",
        f_scale=CORNER_PX,
        x_scale="jac",
    )
    residuals, jacobian = problem.residuals(found.x)
    u_share = 0.0 if share is not None else _uncertainty(residuals, jacobian)
    if u_share > MOST_U:
        wrong = "the views do not tell how long the camera takes to read its rows"
        raise DepthcellError(f"rolling shutter: {wrong}: move the board up and down", Reason.BAD_INPUT)
    poses = tuple(problem.pose(found.x, at) for at in range(len(sights)))
    rms_px = float(np.sqrt(np.mean(residuals**2)))
    return RollingFit(problem.share(found.x), u_share, poses, rms_px, float(2 * found.cost))


def _uncertainty(residuals: NDArray[np.float64], jacobian: NDArray[np.float64]) -> float:
    """Standard uncertainty of the last parameter of a robust fit: `H^-1 M H^-1` (Huber, Robust Statistics, 1981, 7.6).

    For the loss `rho(r) = 2 c² (sqrt(1 + (r/c)²) - 1)` the slope is `r / q`, its own slope `1 / q³`, q being the root.
    """
    root = np.sqrt(1 + np.square(residuals / CORNER_PX))
    hessian = jacobian.T @ (jacobian / root[:, None] ** 3)
    middle = jacobian.T @ (jacobian * np.square(residuals / root)[:, None])
    freedom = len(residuals) / max(len(residuals) - jacobian.shape[1], 1)
    try:
        half = np.linalg.solve(hessian, np.eye(len(hessian))[-1])
    except np.linalg.LinAlgError:
        return float("inf")
    u = float(np.sqrt(half @ middle @ half * freedom))
    return u if np.linalg.cond(hessian) < 1e15 else float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """Residuals in pixels and their Jacobian; parameters are small motions from `starts`, then the share."""

    sights: tuple[RollingSight, ...]
    starts: tuple[RigidTransform, ...]
    intrinsics: Intrinsics
    known: float | None

    def share(self, x: NDArray[np.float64]) -> float:
        return float(x[-1]) if self.known is None else self.known

    def pose(self, x: NDArray[np.float64], at: int) -> RigidTransform:
        return self.starts[at].perturbed(x[6 * at : 6 * at + 6])

    def residuals(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        parts, rows, offset = [], 2 * sum(len(s.pixels) for s in self.sights), 0
        jacobian = np.zeros((rows, len(x)))
        for at in range(len(self.sights)):
            own, by_pose, by_share = self._of(at, x[6 * at : 6 * at + 6], self.share(x))
            span = slice(offset, offset + len(own))
            jacobian[span, 6 * at : 6 * at + 6] = by_pose
            if self.known is None:
                jacobian[span, -1] = by_share
            parts.append(own)
            offset += len(own)
        return np.concatenate(parts), jacobian

    def _of(
        self, at: int, twist: NDArray[np.float64], share: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Residuals (2N,) of one sight, their change with its twist (2N, 6) and with the share (2N,)."""
        sight = self.sights[at]
        focal_px = np.array([self.intrinsics.fx_px, self.intrinsics.fy_px])
        height_px = self.intrinsics.height_px
        later = (sight.pixels[:, 1] - (height_px - 1) / 2) / height_px
        middle_m = np.asarray(self.starts[at].perturbed(twist) @ sight.points_board, np.float64)
        velocity_m = np.cross(sight.motion[:3], middle_m) + sight.motion[3:]
        points_m = middle_m + share * later[:, None] * velocity_m
        ideal = points_m[:, :2] / points_m[:, 2:]
        off_px = (ideal - self.intrinsics.normalized(sight.pixels)) * focal_px
        flat = np.zeros((len(points_m), 2, 3))
        flat[:, 0, 0] = flat[:, 1, 1] = 1
        flat[:, :, 2] = -ideal
        flat *= focal_px[:, None] / points_m[:, 2, None, None]
        moved = np.zeros((len(points_m), 3, 6))
        moved[:, :, :3], moved[:, :, 3:] = -_cross(middle_m - twist[3:]) @ _left(twist[:3]), np.eye(3)
        spin = np.eye(3) + share * later[:, None, None] * _cross(sight.motion[None, :3])
        by_pose = (flat @ spin @ moved).reshape(-1, 6)
        by_share = np.einsum("nij,nj->ni", flat, later[:, None] * velocity_m).ravel()
        return off_px.ravel(), by_pose, by_share


def _start(sight: RollingSight, intrinsics: Intrinsics) -> RigidTransform:
    """The pose that takes all corners for simultaneous."""
    ideal = intrinsics.normalized(sight.pixels)
    found, turn, place = cv2.solvePnP(sight.points_board, ideal, np.eye(3), None, flags=cv2.SOLVEPNP_SQPNP)
    rotation_rad, place_m = (np.ravel(np.asarray(each, np.float64)) for each in (turn, place))
    if not found or not np.isfinite([*rotation_rad, *place_m]).all():
        raise DepthcellError(f"{sight.frame}: the corners give no pose: check their order", Reason.BAD_INPUT)
    return RigidTransform.from_rotation_vector(sight.frame, "board", rotation_rad, place_m)


def _cross(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrices (N, 3, 3) with `matrix @ b = vector x b`."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([np.stack(row, -1) for row in ((zero, -z, y), (z, zero, -x), (-y, x, zero))], axis=-2)


def _left(turn_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Left Jacobian (3, 3) of SO(3): `exp(turn + d) = exp(_left(turn) d) exp(turn)` for small d."""
    angle = float(np.linalg.norm(turn_rad))
    if angle < 1e-6:
        return np.asarray(np.eye(3) + _cross(turn_rad[None])[0] / 2)
    axis = _cross(turn_rad[None] / angle)[0]
    return np.asarray(np.eye(3) + (1 - np.cos(angle)) / angle * axis + (1 - np.sin(angle) / angle) * axis @ axis)
