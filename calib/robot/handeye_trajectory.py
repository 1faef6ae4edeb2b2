"""Poses over time: read from a file, or refused by line and column; interpolated with their velocities."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.errors import DepthcellError, Reason

COLUMNS = ("t", "x", "y", "z", "qx", "qy", "qz", "qw")
FARTHEST_M = 100.0
"""No robot arm reaches farther: such numbers are millimetres."""


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """Rigid transforms `T_target_source`, one after the other.

    Attributes:
        rotation: (N, 3, 3) float64.
        translation_m: (N, 3) float64.
    """

    rotation: NDArray[np.float64]
    translation_m: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rotation)

    def inverse(self) -> "Poses":
        """`T_source_target` of each."""
        rotation = self.rotation.transpose(0, 2, 1)
        return Poses(rotation, -np.einsum("nij,nj->ni", rotation, self.translation_m))

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> "Poses":
        """Some of them, by index or mask."""
        return Poses(self.rotation[chosen], self.translation_m[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Poses of a trajectory at some times, with their velocities.

    Attributes:
        poses: N of them.
        angular_rad_s: (N, 3) rate of rotation in the source (body) frame: `R(t + d) = R(t) exp([w]x d)`.
        linear_m_s: (N, 3) velocity in the target frame.
    """

    poses: Poses
    angular_rad_s: NDArray[np.float64]
    linear_m_s: NDArray[np.float64]

    def inverse(self) -> "Motion":
        """The motion of `T_source_target`: rate `-R w`, velocity `w x R^T t - R^T v`."""
        rotation, rate = self.poses.rotation, self.angular_rad_s
        place = np.einsum("nji,nj->ni", rotation, self.poses.translation_m)
        linear_m_s = np.cross(rate, place) - np.einsum("nji,nj->ni", rotation, self.linear_m_s)
        return Motion(self.poses.inverse(), -np.einsum("nij,nj->ni", rotation, rate), linear_m_s)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Poses in order of time.

    Attributes:
        source: name of the file, for messages.
        times_s: (N,) float64, strictly ascending, seconds of the clock that stamped them.
        poses: N of them.
    """

    source: str
    times_s: NDArray[np.float64]
    poses: Poses

    def at(self, times_s: NDArray[np.float64]) -> Motion:
        """Poses between samples: positions on straight lines, rotations by slerp (Shoemake 1985), rates constant.

        Times before the first or after the last sample are extrapolated along the first or last step; a caller that
        must not extrapolate selects times first.
        """
        index = np.clip(np.searchsorted(self.times_s, times_s, side="right") - 1, 0, self.times_s.size - 2)
        step = self.times_s[index + 1] - self.times_s[index]
        before, after = self.poses.take(index), self.poses.take(index + 1)
        turn = Rotation.from_matrix(np.einsum("nji,njk->nik", before.rotation, after.rotation)).as_rotvec()
        share = ((times_s - self.times_s[index]) / step)[:, None]
        travel = after.translation_m - before.translation_m
        rotation = before.rotation @ Rotation.from_rotvec(share * turn).as_matrix()
        poses = Poses(rotation, before.translation_m + share * travel)
        return Motion(poses, turn / step[:, None], travel / step[:, None])

    def rate_rad_s(self, times_s: NDArray[np.float64], window_s: float) -> NDArray[np.float64]:
        """Magnitude (N,) of the rotation over `window_s` about each time, over that time; the same in every frame."""
        before, after = self.at(times_s - window_s / 2).poses, self.at(times_s + window_s / 2).poses
        turn = Rotation.from_matrix(np.einsum("nji,njk->nik", before.rotation, after.rotation))
        return np.asarray(turn.magnitude()) / window_s


def read_trajectory(path: Path) -> Trajectory:
    """Read `t, x, y, z, qx, qy, qz, qw`: seconds, metres, unit quaternion; one pose a line, a header may stand first.

    Lines are put in order of time; a pose written twice is taken once.

    Raises:
        DepthcellError: the file is missing or bad: a cell that is no finite number, a quaternion that is not of unit
            length (within 0.001), two poses at one time, millimetres, nanoseconds. Line and column are named.
    """
    rows = sorted(_rows(path), key=lambda one: (one[1][0], one[0]))
    kept: list[list[float]] = []
    for line, row in rows:
        if kept and row[0] == kept[-1][0]:
            if row != kept[-1]:
                wrong = f"line {line}, column 't': time {row[0]:.9g} is there twice, with different poses"
                raise _refused(path, wrong, "keep one of them")
            continue
        kept.append(row)
    if len(kept) < 3:
        raise _refused(path, f"{len(kept)} poses", "at least 3 are needed")
    table = np.array(kept)
    _check_units(path, table)
    return Trajectory(path.name, table[:, 0], Poses(Rotation.from_quat(table[:, 4:]).as_matrix(), table[:, 1:4]))


def _rows(path: Path) -> list[tuple[int, list[float]]]:
    """Lines of numbers with the number of their line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise _refused(path, "no such file", "name a CSV file of poses") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(path, f"cannot be read as text ({error.__class__.__name__})", "save it as CSV") from None
    rows: list[tuple[int, list[float]]] = []
    for line, text in enumerate(lines, start=1):
        cells = [cell.strip() for cell in text.split(",")]
        if not text.strip() or text.lstrip().startswith("#") or (not rows and cells[0].lower() in {"t", "time"}):
            continue
        if len(cells) != len(COLUMNS):
            raise _refused(path, f"line {line} has {len(cells)} columns", f"write {', '.join(COLUMNS)}")
        rows.append((line, [_number(path, line, name, cell) for name, cell in zip(COLUMNS, cells, strict=True)]))
        norm = math.sqrt(sum(q * q for q in rows[-1][1][4:]))
        if abs(norm - 1) > 1e-3:
            wrong = f"line {line}, columns 'qx' to 'qw': the quaternion has length {norm:.4g}"
            raise _refused(path, wrong, "write unit quaternions, x y z w")
    return rows


def _number(path: Path, line: int, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise _refused(path, f"line {line}, column '{name}': '{cell[:40]}' is no number", "") from None
    if not math.isfinite(value):
        raise _refused(path, f"line {line}, column '{name}': '{cell}' is not finite", "delete the line")
    return value


def _check_units(path: Path, table: NDArray[np.float64]) -> None:
    farthest = float(np.abs(table[:, 1:4]).max())
    if farthest > FARTHEST_M:
        raise _refused(path, f"a position of {farthest:.4g} m is out of any robot's reach", "write metres")
    step = float(np.median(np.diff(table[:, 0])))
    if step > 1e4:
        raise _refused(path, f"poses are {step:.3g} s apart", "write seconds, not nanoseconds")


def _refused(path: Path, wrong: str, remedy: str) -> DepthcellError:
    return DepthcellError(f"{path}: {wrong}" + (f": {remedy}" if remedy else ""), Reason.BAD_INPUT)
