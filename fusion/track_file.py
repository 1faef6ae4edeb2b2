"""Tracks from files: poses or counts of an encoder as a CSV table, and a TOML file that says how to take them."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.fusion.track import Track, TrackUncertainty

POSE_COLUMNS = ("t_ns", "x", "y", "z", "qx", "qy", "qz", "qw")
COUNT_COLUMNS = ("t_ns", "count")
UNIT_TOLERANCE = 1e-3
"""A quaternion whose length differs from 1 by more is damaged; less is rounding, and made good."""
GAP_INTERVALS = 20.0
"""A pause of more than this many usual intervals means that poses are missing."""

Vector = tuple[float, float, float]
_NotNegative = Annotated[float, msgspec.Meta(ge=0.0)]
_Positive = Annotated[float, msgspec.Meta(gt=0.0)]


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`T_cell_part` when the encoder shows `count`."""

    count: int
    translation_mm: Vector
    rotation_vector_rad: Vector = (0.0, 0.0, 0.0)


class Trajectory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Poses as a table.

    Attributes:
        file: CSV beside the TOML file.
        moving: "part": rows are `T_cell_part`; "camera": rows are `T_base_cell`, the cameras' common frame (that of a
            single uncalibrated camera itself) in a base at rest, where the part rests too; frame "part" is that base.
    """

    file: str
    moving: Literal["part", "camera"] = "part"


class Encoder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Counts as a table, and what a count means.

    Attributes:
        file: CSV beside the TOML file, columns t_ns and count.
        kind: "conveyor" shifts along `direction_cell`, "turntable" turns about it, right-handed.
        direction_cell: in the cell, of any length.
        counts_per: mm or degree.
        start: where the part is at one count.
        point_cell_mm: on the turntable's axis.
    """

    file: str
    kind: Literal["conveyor", "turntable"]
    direction_cell: Vector
    counts_per: _Positive
    start: Start
    point_cell_mm: Vector | None = None


class StatedUncertainty(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Standard uncertainties, see `TrackUncertainty`."""

    translation_mm: _NotNegative = 0.0
    rotation_deg: _NotNegative = 0.0
    time_ms: _NotNegative = 0.0
    relative: _NotNegative = 0.0
    direction_deg: _NotNegative = 0.0


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two opposite corners of the box that holds the part, frame "part"."""

    min_mm: Vector
    max_mm: Vector


class TrackDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The TOML file; of `trajectory` and `encoder` exactly one is there.

    Attributes:
        time_offset_ms: the track's clock shows this much more than the cameras'.
    """

    trajectory: Trajectory | None = None
    encoder: Encoder | None = None
    time_offset_ms: float = 0.0
    uncertainty: StatedUncertainty = StatedUncertainty()
    volume: Volume | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DescribedTrack:
    """A track and, where its file says it, the box (lower, upper corner, metres, frame "part") that holds the part."""

    track: Track
    box_m: tuple[NDArray[np.float64], NDArray[np.float64]] | None


def read_track(path: Path) -> DescribedTrack:
    """A track file: `.csv` is a trajectory of the part, taken as exact; `.toml` says more, see `TrackDescription`.

    Raises:
        DepthcellError: the ending is another, the file cannot be read, or something in it is wrong; the message names
            file and line or field.
    """
    if path.suffix == ".csv":
        return DescribedTrack(_trajectory(path, Trajectory(path.name), TrackDescription()), None)
    if path.suffix != ".toml":
        raise DepthcellError(f"track {path}: its name must end in .csv (poses) or .toml (description)")
    try:
        said = msgspec.toml.decode(path.read_bytes(), type=TrackDescription)
    except OSError as error:
        raise DepthcellError(f"track {path}: cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DepthcellError(f"track {path}: {error}") from error
    if (said.trajectory is None) == (said.encoder is None):
        raise DepthcellError(f"track {path}: needs either [trajectory] or [encoder]")
    if said.encoder is not None:
        track = _encoded(path, said.encoder, said)
    else:
        assert said.trajectory is not None  # noqa: S101 - just checked; tells the type checker
        track = _trajectory(path.parent / said.trajectory.file, said.trajectory, said)
    box_m = None
    if said.volume is not None:
        box_m = np.array(said.volume.min_mm) / 1e3, np.array(said.volume.max_mm) / 1e3
    return DescribedTrack(track, box_m)


def _trajectory(path: Path, said: Trajectory, description: TrackDescription) -> Track:
    times_ns, rows, lines = _table(path, POSE_COLUMNS)
    poses = []
    for line, (x, y, z, *quaternion) in zip(lines, rows, strict=True):
        length = math.sqrt(sum(value * value for value in quaternion))
        if abs(length - 1) > UNIT_TOLERANCE:
            raise _wrong(path, line, f"quaternion has length {length:.6g}, not 1")
        poses.append(_pose(Rotation.from_quat(quaternion), np.array([x, y, z]), said.moving))
    return Track(
        name=path.name,
        times_ns=times_ns,
        poses=tuple(poses),
        uncertainty=_uncertainty(description.uncertainty),
        offset_ns=round(description.time_offset_ms * 1e6),
        is_rig_moving=said.moving == "camera",
    )


def _pose(rotation: Rotation, translation_m: NDArray[np.float64], moving: str) -> RigidTransform:
    if moving == "part":
        return RigidTransform("cell", "part", rotation.as_matrix(), translation_m)
    return RigidTransform("part", "cell", rotation.as_matrix(), translation_m).inverse()


def _encoded(path: Path, said: Encoder, description: TrackDescription) -> Track:
    direction = np.array(said.direction_cell)
    length = float(np.linalg.norm(direction))
    if not (math.isfinite(length) and length > 0):
        raise DepthcellError(f"track {path}: encoder.direction_cell must have a length, got {said.direction_cell}")
    direction = direction / length
    if said.kind == "turntable" and said.point_cell_mm is None:
        raise DepthcellError(f"track {path}: encoder.point_cell_mm is missing; name a point on the turntable's axis")
    pivot_m = np.array(said.point_cell_mm or (0.0, 0.0, 0.0)) / 1e3
    times_ns, rows, _ = _table(path.parent / said.file, COUNT_COLUMNS)
    start = RigidTransform.from_rotation_vector(
        "cell", "part", np.array(said.start.rotation_vector_rad), np.array(said.start.translation_mm) / 1e3
    )
    poses = []
    for (count,) in rows:
        way = (count - said.start.count) / said.counts_per
        poses.append(_moved(said.kind, way, direction, pivot_m) @ start)
    return Track(
        name=said.file,
        times_ns=times_ns,
        poses=tuple(poses),
        uncertainty=_with_quantisation(_uncertainty(description.uncertainty), said),
        offset_ns=round(description.time_offset_ms * 1e6),
        pivot_cell=pivot_m if said.kind == "turntable" else None,
    )


def _moved(kind: str, way: float, direction: NDArray[np.float64], pivot_m: NDArray[np.float64]) -> RigidTransform:
    """The motion of a conveyor by `way` mm, or of a turntable by `way` degrees."""
    if kind == "conveyor":
        return RigidTransform("cell", "cell", np.eye(3), direction * way / 1e3)
    turn = Rotation.from_rotvec(direction * math.radians(way)).as_matrix()
    return RigidTransform("cell", "cell", turn, pivot_m - turn @ pivot_m)


def _with_quantisation(u: TrackUncertainty, said: Encoder) -> TrackUncertainty:
    """A count is rounded, which is worth `1 / sqrt(12)` of it (GUM F.2.2.1)."""
    count = 1 / math.sqrt(12.0) / said.counts_per
    shift_m, turn_rad = (count / 1e3, 0.0) if said.kind == "conveyor" else (0.0, math.radians(count))
    return TrackUncertainty(
        math.hypot(u.translation_m, shift_m),
        math.hypot(u.rotation_rad, turn_rad),
        u.time_ns,
        u.relative,
        u.direction_rad,
    )


def _uncertainty(said: StatedUncertainty) -> TrackUncertainty:
    return TrackUncertainty(
        said.translation_mm / 1e3,
        math.radians(said.rotation_deg),
        said.time_ms * 1e6,
        said.relative,
        math.radians(said.direction_deg),
    )


def _table(path: Path, columns: tuple[str, ...]) -> tuple[NDArray[np.int64], list[list[float]], list[int]]:
    """Times, the other columns in order, and line numbers of a CSV table."""
    times_ns: list[int] = []
    rows: list[list[float]] = []
    lines: list[int] = []
    for line, time_ns, values in _rows(path, columns):
        if times_ns and time_ns <= times_ns[-1]:
            raise _wrong(path, line, f"t_ns {time_ns} does not come after {times_ns[-1]}; sort the table")
        times_ns.append(time_ns)
        rows.append(values)
        lines.append(line)
    if len(rows) < 2:
        raise DepthcellError(f"track {path}: holds {len(rows)} rows; a motion needs two")
    intervals = np.diff(np.array(times_ns, dtype=np.int64))
    widest, usual = int(np.argmax(intervals)), float(np.median(intervals))
    if intervals[widest] > GAP_INTERVALS * usual:
        raise _wrong(
            path,
            lines[widest + 1],
            f"comes {intervals[widest] / 1e6:.1f} ms after the row before, where {usual / 1e6:.1f} ms are usual; "
            "rows are missing",
        )
    return np.array(times_ns, dtype=np.int64), rows, lines


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, int, list[float]]]:
    """Line number, time and values of each row; empty lines and those that begin with # are left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DepthcellError(f"track {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DepthcellError(f"track {path}: is no text; give a CSV table") from error
    header: list[str] | None = None
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip() or content.lstrip().startswith("#"):
            continue
        cells = [cell.strip() for cell in next(csv.reader([content]))]
        if header is None:
            header = cells
            if header != list(columns):
                raise _wrong(path, line, f"columns must be {','.join(columns)}, got {content.strip()[:80]}")
            continue
        if len(cells) != len(columns):
            raise _wrong(path, line, f"holds {len(cells)} values, {len(columns)} are needed")
        yield line, *_numbers(path, line, columns, cells)


def _numbers(path: Path, line: int, columns: tuple[str, ...], cells: list[str]) -> tuple[int, list[float]]:
    try:
        time_ns = int(cells[0])
    except ValueError:
        raise _wrong(path, line, f"t_ns '{cells[0]}' is no whole number of nanoseconds") from None
    values = []
    for name, cell in zip(columns[1:], cells[1:], strict=True):
        try:
            value = float(cell)
        except ValueError:
            raise _wrong(path, line, f"{name} '{cell}' is no number") from None
        if not math.isfinite(value):
            raise _wrong(path, line, f"{name} is {value}; leave out poses that were not measured")
        values.append(value)
    return time_ns, values


def _wrong(path: Path, line: int, why: str) -> DepthcellError:
    return DepthcellError(f"track {path}, line {line}: {why}")
