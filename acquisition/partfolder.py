"""Recordings on disk as parts: one folder per part, in it one recording per camera, or several one after the other."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from depthcell.acquisition.frameset import CameraFrame, FrameSet
from depthcell.acquisition.recording import open_recording
from depthcell.acquisition.synchronizer import SyncSettings, group
from depthcell.errors import DepthcellError
from depthcell.files import sha256_of_file

RECORDING_SUFFIXES = (".db3", ".bag")
GOLDEN_FOLDER = "golden"
INSPECTIONS_FOLDER = "inspections"
PARTIAL_SUFFIX = ".partial"
JOURNAL_SUFFIXES = ("-wal", "-journal")
"""What SQLite appends to a recording's name for the file beside it, where a killed recorder left the last frames."""


@dataclass(frozen=True, slots=True)
class PartFolder:
    """The recordings of one part.

    Attributes:
        part_id: the folder's name, or the file's without its suffix where a single recording is the part.
        paths: its recordings in natural order; those of one camera follow each other in time.
    """

    part_id: str
    paths: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """Over the files' names in sorted order, each with the SHA-256 of its content; reads every byte.

        The journal that a killed recorder leaves beside a recording counts as one of its files.
        """
        digest = hashlib.sha256()
        for path in sorted((*self.paths, *_journals(self.paths)), key=lambda path: path.name):
            digest.update(f"{path.name}\0{sha256_of_file(path)}\n".encode())
        return digest.hexdigest()

    def framesets(
        self, expected: Sequence[str] | None = None, settings: SyncSettings | None = None
    ) -> Iterator[FrameSet]:
        """The part's frames, grouped by time.

        Where a recording is damaged, its frames up to there come out first, and the error after the last set.

        Args:
            expected: serial numbers of the cameras to read; others are left out, absent ones are `missing` in each
                set. None takes all cameras there are.
            settings: of the grouping.

        Raises:
            DepthcellError: a recording cannot be read, or its times cannot be grouped.
        """
        recordings = _paths_by_serial(self.paths)
        serials = tuple(recordings) if expected is None else tuple(expected)
        streams = {serial: _frames(recordings.get(serial, ())) for serial in serials}
        yield from group(streams, settings or SyncSettings())


def find_parts(source: Path) -> tuple[PartFolder, ...]:
    """The parts `source` holds, in natural order (part_2 before part_10).

    Args:
        source: a folder of part folders, one part folder, or one recording. Hidden and half-written (`.partial`)
            entries are left out, and so are folders named `golden` (good parts) and
            `inspections` (results), unless they are `source` itself.

    Raises:
        DepthcellError: `source` does not exist, or it or one of its folders holds no recording.
    """
    if not source.exists():
        raise DepthcellError(f"{source}: does not exist; name a recording, a part folder or a folder of part folders")
    if source.is_file():
        if source.suffix not in RECORDING_SUFFIXES:
            raise DepthcellError(f"{source}: is no recording; its name must end in {' or '.join(RECORDING_SUFFIXES)}")
        return (PartFolder(source.stem, (source,)),)
    if recordings := _recordings(source):
        return (PartFolder(source.resolve().name, recordings),)
    folders = _natural(path for path in source.iterdir() if path.is_dir() and _is_meant(path))
    if not folders:
        raise _no_recording(source)
    return tuple(_part(folder) for folder in folders)


def _part(folder: Path) -> PartFolder:
    recordings = _recordings(folder)
    if not recordings:
        raise _no_recording(folder)
    return PartFolder(folder.name, recordings)


def _recordings(folder: Path) -> tuple[Path, ...]:
    return _natural(
        path for path in folder.iterdir() if path.is_file() and path.suffix in RECORDING_SUFFIXES and _is_meant(path)
    )


def _journals(recordings: Iterable[Path]) -> tuple[Path, ...]:
    beside = (path.with_name(path.name + suffix) for path in recordings for suffix in JOURNAL_SUFFIXES)
    return tuple(path for path in beside if path.exists() and path.stat().st_size)


def _is_meant(path: Path) -> bool:
    is_hidden_or_partial = path.name.startswith(".") or PARTIAL_SUFFIX in path.suffixes
    return not is_hidden_or_partial and path.name not in {GOLDEN_FOLDER, INSPECTIONS_FOLDER}


def _natural(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Sorted so that numbers in names count as numbers; names that differ in leading zeros alone keep a fixed order."""

    def key(path: Path) -> tuple[list[tuple[int, str]], str]:
        words = re.findall(r"\d+|\D+", path.name)
        return [(int(word), "") if word.isdecimal() else (-1, word) for word in words], path.name

    return tuple(sorted(paths, key=key))


def _paths_by_serial(paths: Iterable[Path]) -> dict[str, list[Path]]:
    by_serial: dict[str, list[Path]] = {}
    for path in paths:
        by_serial.setdefault(open_recording(path).serial, []).append(path)
    return by_serial


def _frames(paths: Iterable[Path]) -> Iterator[CameraFrame]:
    for path in paths:
        yield from open_recording(path).camera_frames()


def _no_recording(folder: Path) -> DepthcellError:
    suffixes = " or ".join(RECORDING_SUFFIXES)
    return DepthcellError(f"{folder}: holds no recording ({suffixes}); record the part again or remove the folder")
