"""Where a moving part is at any instant: poses in time, interpolated along screws, each with its uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError

RATE_NS = 1_000_000
"""Time on both sides over which a speed is taken."""


@dataclass(frozen=True, slots=True)
class TrackUncertainty:
    """Standard uncertainties of a track.

    Attributes:
        translation_m, rotation_rad: along and about each axis, of each pose for itself: repeatability, quantisation.
        time_ns: of the offset between the track's clock and the cameras', the same for all poses.
        relative: of the way since the reference pose, such as of counts per mm, the same for all poses.
        direction_rad: of the direction of that way, about each axis across it, the same for all poses.
    """

    translation_m: float = 0.0
    rotation_rad: float = 0.0
    time_ns: float = 0.0
    relative: float = 0.0
    direction_rad: float = 0.0

    def __post_init__(self) -> None:
        for name in ("translation_m", "rotation_rad", "time_ns", "relative", "direction_rad"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise DepthcellError(f"track uncertainty: {name} must be zero or more, got {value}")


@dataclass(frozen=True, slots=True, eq=False)
class PartPose:
    """Where the part is at one instant, and how well that is known.

    Attributes:
        T_cell_part: the pose.
        own_covariance: (6, 6) of what is new in each frame, in the convention of `RigidTransform.perturbed`.
        shared_covariance: (6, 6) of what all frames share, such as a wrong time offset.
    """

    T_cell_part: RigidTransform
    own_covariance: NDArray[np.float64]
    shared_covariance: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Poses `T_cell_part` of a part over time, or of a part as a moving rig of cameras sees it.

    Attributes:
        name: of the file, for messages.
        times_ns: (N,) int64, strictly ascending, on the track's own clock; N is at least 2.
        poses: N transforms from "part" to "cell".
        uncertainty: of them.
        offset_ns: the track's clock shows this much more than the cameras' at the same instant.
        pivot_cell: (3,) metres, a point of the axis about which the part turns; None: the origin of the part.
        is_rig_moving: whether the cameras move and the part rests: a pose's own turn is then about the cell's origin.

    Raises:
        DepthcellError: fewer than two poses, times not ascending, or frames that are not "cell" and "part".
    """

    name: str
    times_ns: NDArray[np.int64]
    poses: Sequence[RigidTransform]
    uncertainty: TrackUncertainty = field(default_factory=TrackUncertainty)
    offset_ns: int = 0
    pivot_cell: NDArray[np.float64] | None = None
    is_rig_moving: bool = False

    def __post_init__(self) -> None:
        if len(self.poses) != len(self.times_ns) or len(self.poses) < 2:
            raise DepthcellError(f"track {self.name}: needs at least two poses, each with a time")
        if (np.diff(self.times_ns) <= 0).any():
            raise DepthcellError(f"track {self.name}: times must ascend")
        if any((pose.target, pose.source) != ("cell", "part") for pose in self.poses):
            raise DepthcellError(f"track {self.name}: every pose must lead from part to cell")

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last instant, on the cameras' clock."""
        return int(self.times_ns[0]) - self.offset_ns, int(self.times_ns[-1]) - self.offset_ns

    def shifted(self, offset_ns: int) -> "Track":
        """The same track with another offset of its clock."""
        return replace(self, offset_ns=offset_ns)

    def check_covers(self, timestamps_ns: Sequence[int]) -> None:
        """See to it that no frame lies before the first or after the last pose; nothing is extrapolated.

        Raises:
            DepthcellError: some frames do, or all of them; the message says by how much, and what to do.
        """
        first_ns, last_ns = self.span_ns
        outside = [time_ns for time_ns in timestamps_ns if not first_ns <= time_ns <= last_ns]
        if not outside:
            return
        spans = f"runs from {first_ns / 1e9:.3f} to {last_ns / 1e9:.3f} s, the recording from "
        spans += f"{min(timestamps_ns) / 1e9:.3f} to {max(timestamps_ns) / 1e9:.3f} s"
        if len(outside) == len(timestamps_ns):
            raise DepthcellError(
                f"track {self.name}: {spans}: they share no frame, so they are of two clocks or two runs; "
                "give time_offset_ms, the track's clock less the cameras', or the right file"
            )
        raise DepthcellError(
            f"track {self.name}: {spans}: {len(outside)} of {len(timestamps_ns)} frames lie outside; record the track "
            "from before the first frame to after the last"
        )

    def pose(self, timestamp_ns: int) -> RigidTransform:
        """`T_cell_part` at an instant of the cameras' clock, on the screw from one pose to the next.

        Raises:
            DepthcellError: the instant lies outside the track.
        """
        self.check_covers([timestamp_ns])
        return self._pose(timestamp_ns + self.offset_ns)

    def part_pose(self, timestamp_ns: int, T_cell_reference: RigidTransform) -> PartPose:
        """The pose at an instant with both of its covariances.

        With q the twist whose screw leads from the reference pose to this one and q' the twist per time, what all
        frames share is, to first order (GUM 5.1.2), `u_time² q' q'^T + u_relative² q q^T`, plus, for the direction, the
        turns and shifts of q across themselves.

        Args:
            timestamp_ns: on the cameras' clock.
            T_cell_reference: pose at which the part's points will be given.

        Raises:
            DepthcellError: the instant lies outside the track.
        """
        T_cell_part, u = self.pose(timestamp_ns), self.uncertainty
        way = _twist(T_cell_reference, T_cell_part)
        speed = self._speed(timestamp_ns + self.offset_ns)
        pivot = np.zeros(3) if self.is_rig_moving else T_cell_part.translation_m
        own = _about(pivot, np.diag([u.rotation_rad**2] * 3 + [u.translation_m**2] * 3))
        shared = u.time_ns**2 * np.outer(speed, speed) + u.relative**2 * np.outer(way, way)
        if u.direction_rad:
            shared += u.direction_rad**2 * self._across(way, T_cell_reference)
        return PartPose(T_cell_part, own, shared)

    def _across(self, way: FloatArray, T_cell_reference: RigidTransform) -> NDArray[np.float64]:
        """Covariance of a way (6,) per squared angle by which its direction is wrong."""
        pivot = T_cell_reference.translation_m if self.pivot_cell is None else self.pivot_cell
        turn, shift = way[:3], way[3:] - np.cross(pivot, way[:3])
        across = np.zeros((6, 6))
        across[:3, :3] = turn @ turn * np.eye(3) - np.outer(turn, turn)
        across[3:, 3:] = shift @ shift * np.eye(3) - np.outer(shift, shift)
        return _about(pivot, across)

    def _speed(self, time_ns: int) -> NDArray[np.float64]:
        """Twist (6,) per nanosecond on the track's own clock."""
        before = max(time_ns - RATE_NS, int(self.times_ns[0]))
        after = min(time_ns + RATE_NS, int(self.times_ns[-1]))
        return _twist(self._pose(before), self._pose(after)) / (after - before)

    def _pose(self, time_ns: int) -> RigidTransform:
        place = int(np.clip(np.searchsorted(self.times_ns, time_ns, side="right") - 1, 0, len(self.poses) - 2))
        start_ns, end_ns = int(self.times_ns[place]), int(self.times_ns[place + 1])
        return between(self.poses[place], self.poses[place + 1], (time_ns - start_ns) / (end_ns - start_ns))


def between(first: RigidTransform, second: RigidTransform, share: float) -> RigidTransform:
    """The pose at a share, 0 to 1, of the screw from `first` to `second`: `first exp(share log(first^-1 second))`.

    A part on a turntable or a conveyor at constant speed moves on just such a screw, whatever frame it is described in.
    With the rotation vector w of angle a, the shift of the motion is `V v`, `V = I + (1 - cos a) / a² [w] +
    (a - sin a) / a³ [w]²`, the integral of `exp(s [w])` over s from 0 to 1 by its power series; so v is got from the
    whole motion and used again for its share.
    """
    motion = first.inverse() @ second
    turn = motion.rotation_vector_rad
    v = np.linalg.solve(_shift_per_speed(turn), motion.translation_m)
    part = share * turn
    step_m = _shift_per_speed(part) @ (share * v)
    return first @ RigidTransform(first.source, second.source, Rotation.from_rotvec(part).as_matrix(), step_m)


def _shift_per_speed(turn: FloatArray) -> NDArray[np.float64]:
    angle = float(np.linalg.norm(turn))
    cross = _cross(turn)
    if angle < 1e-4:  # the next terms of the series are below 1e-9
        return np.asarray(np.eye(3) + cross / 2 + cross @ cross / 6)
    first, second = (1 - math.cos(angle)) / angle**2, (angle - math.sin(angle)) / angle**3
    return np.asarray(np.eye(3) + first * cross + second * cross @ cross)


def _twist(first: RigidTransform, second: RigidTransform) -> NDArray[np.float64]:
    """Turn and speed (6,) whose screw leads from one pose to the other; a small one is the twist of `perturbed`."""
    moved = second @ first.inverse()
    turn = moved.rotation_vector_rad
    return np.asarray(np.concatenate((turn, np.linalg.solve(_shift_per_speed(turn), moved.translation_m))), np.float64)


def _about(pivot: FloatArray, covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance (6, 6) of turns about `pivot`, made one of turns about the frame's origin."""
    matrix = np.eye(6)
    matrix[3:, :3] = _cross(pivot)  # t = t_pivot - omega x pivot
    return np.asarray(matrix @ covariance @ matrix.T)


def _cross(vector: FloatArray) -> NDArray[np.float64]:
    x, y, z = (float(value) for value in vector)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
