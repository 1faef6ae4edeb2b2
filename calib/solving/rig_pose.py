"""Where a board stands before one camera, both answers a flat board allows, and means of poses that outliers spare."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView

BOARD_FRAME = "board"
LEAST_FEATURES = 6
FLATNESS = 0.02
"""Features whose spread across their main direction is below this share of that along it lie on a line."""
AMBIGUITY = 3.0
"""A second pose is kept while its residual is within this factor of the first's, or within what noise explains."""
SAME_RAD = 0.01
"""Two answers nearer to each other than this have fallen into one when they were refined."""


@dataclass(frozen=True, slots=True, eq=False)
class PlanarPose:
    """One answer to where a board stands: `T_stream_board`, and the RMS of its reprojection per coordinate in px."""

    T_stream_board: RigidTransform
    rms_px: float


def is_usable(view: BoardView, board: Board) -> bool:
    """Whether a view holds enough features, not all on a line, for a pose."""
    if len(view.ids) < LEAST_FEATURES:
        return False
    flat = board.points_board[view.ids, :2]
    spread = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False)
    return bool(spread[1] > FLATNESS * spread[0])


def board_poses(view: BoardView, board: Board, intrinsics: Intrinsics) -> tuple[PlanarPose, ...]:
    """One or two poses of a board in the frame of the stream that saw it, the better first; none if undetermined.

    A flat target seen from far looks nearly the same tilted one way or the other: T. Collins and A. Bartoli,
    International Journal of Computer Vision 109 (2014) 252 (`cv2.SOLVEPNP_IPPE`). Both answers are refined; the
    second is dropped when its residual speaks clearly against it.
    """
    points = board.points_board[view.ids]
    ideal = intrinsics.normalized(view.pixels)
    poses = []
    try:
        _, turns, shifts, _ = cv2.solvePnPGeneric(points, ideal, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE)
    except cv2.error:
        return ()
    for turn, shift in zip(turns, shifts, strict=True):
        refined = cv2.solvePnPRefineLM(points, ideal, np.eye(3), None, turn, shift)
        turn_rad, shift_m = (np.asarray(part, np.float64).ravel() for part in refined)
        if not (np.isfinite(turn_rad).all() and np.isfinite(shift_m).all() and shift_m[2] > 0):
            continue
        pose = RigidTransform.from_rotation_vector(view.stream, BOARD_FRAME, turn_rad, shift_m)
        poses.append(PlanarPose(pose, _rms_px(view, points, intrinsics, pose)))
    poses = sorted((pose for pose in poses if np.isfinite(pose.rms_px)), key=lambda pose: pose.rms_px)
    return tuple(pose for number, pose in enumerate(poses) if number == 0 or _is_rival(pose, poses[0], view.sigma_px))


def _is_rival(second: PlanarPose, first: PlanarPose, sigma_px: float) -> bool:
    """Whether the second answer is another one, and fits about as well."""
    cosine = (np.trace(first.T_stream_board.rotation.T @ second.T_stream_board.rotation) - 1) / 2
    fits = second.rms_px <= max(AMBIGUITY * first.rms_px, first.rms_px + sigma_px)
    return bool(fits and np.arccos(np.clip(cosine, -1, 1)) > SAME_RAD)


def nearest_pose(
    view: BoardView, board: Board, intrinsics: Intrinsics, T_stream_board: RigidTransform
) -> RigidTransform:
    """The pose that fits the view best in the neighbourhood of `T_stream_board`, without regard to other views."""
    refined = cv2.solvePnPRefineLM(
        board.points_board[view.ids],
        intrinsics.normalized(view.pixels),
        np.eye(3),
        None,
        T_stream_board.rotation_vector_rad[:, None],
        T_stream_board.translation_m[:, None].copy(),
    )
    turn_rad, shift_m = (np.asarray(part, np.float64).ravel() for part in refined)
    return RigidTransform.from_rotation_vector(view.stream, BOARD_FRAME, turn_rad, shift_m)


def tilt_rad(T_stream_board: RigidTransform) -> float:
    """Angle between the board's normal and the line of sight to its origin: 0 when seen square on."""
    sight = T_stream_board.translation_m / np.linalg.norm(T_stream_board.translation_m)
    return float(np.arccos(np.clip(abs(T_stream_board.rotation[:, 2] @ sight), 0.0, 1.0)))


@dataclass(frozen=True, slots=True, eq=False)
class PoseStack:
    """Many poses of one frame in another: `rotation` (n, 3, 3), `translation_m` (n, 3)."""

    rotation: NDArray[np.float64]
    translation_m: NDArray[np.float64]

    @classmethod
    def of(cls, poses: Sequence[RigidTransform]) -> "PoseStack":
        """Stack poses, which must join the same two frames."""
        return cls(np.stack([pose.rotation for pose in poses]), np.stack([pose.translation_m for pose in poses]))

    def distances_m(self, other: "PoseStack", reach_m: float) -> NDArray[np.float64]:
        """(n, m) how far the poses move a point at `reach_m` apart: translation plus angle times reach."""
        cosine = (np.einsum("nij,mij->nm", self.rotation, other.rotation) - 1) / 2
        angle_rad = np.arccos(np.clip(cosine, -1.0, 1.0))
        apart_m = np.linalg.norm(self.translation_m[:, None] - other.translation_m[None], axis=2)
        return np.asarray(apart_m + reach_m * angle_rad)


def robust_mean(poses: Sequence[RigidTransform], reach_m: float) -> tuple[RigidTransform, float]:
    """The pose of least mean distance to `poses`, and their median distance from it in metres.

    A geometric median by E. Weiszfeld's repeated weighting with the inverse distance (Tohoku Mathematical Journal 43
    (1937) 355); rotations are averaged by the chordal mean, R. Hartley et al., International Journal of Computer Vision
    103 (2013) 267, section 5. Half of the poses may be wrong.
    """
    stack = PoseStack.of(poses)
    weights = np.ones(len(poses))
    rotation, shift_m, away_m = stack.rotation[0], stack.translation_m[0], np.zeros(len(poses))
    for _ in range(10):
        rotation = _nearest_rotation(np.tensordot(weights, stack.rotation, 1))
        shift_m = weights @ stack.translation_m / weights.sum()
        away_m = stack.distances_m(PoseStack(rotation[None], shift_m[None]), reach_m)[:, 0]
        again = 1 / np.maximum(away_m, 1e-6 + 0.1 * float(np.median(away_m)))
        again /= again.sum()
        if np.abs(again - weights).max() < 1e-9:
            break
        weights = again
    return RigidTransform(poses[0].target, poses[0].source, rotation, shift_m), float(np.median(away_m))


def _nearest_rotation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation (3, 3) nearest to a matrix, by singular values; of a sum of rotations it is their chordal mean."""
    left, _, right = np.linalg.svd(matrix)
    left[:, 2] *= np.sign(np.linalg.det(left @ right))
    return np.asarray(left @ right)


def _rms_px(
    view: BoardView, points: NDArray[np.float64], intrinsics: Intrinsics, T_stream_board: RigidTransform
) -> float:
    return float(np.sqrt(np.mean((intrinsics.project(T_stream_board @ points) - view.pixels) ** 2)))
