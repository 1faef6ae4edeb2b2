"""Recordings of boards in a folder: one for each camera, and, where recording went on place by place, more of them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from depthcell.acquisition.frameset import FrameSet
from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.acquisition.recording import open_recording
from depthcell.errors import DepthcellError

BOARD_FOLDER = "board"
PLACE_FOLDER = re.compile(r"place_(\d+)")


@dataclass(frozen=True, slots=True)
class BoardRecordings:
    """What was recorded of boards, in the order of time.

    Attributes:
        segments: parts of it. Each is grouped by time on its own: between two, a camera may have been unplugged and
            its clock have begun anew.
    """

    segments: tuple[PartFolder, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All recordings."""
        return tuple(path for segment in self.segments for path in segment.paths)

    def framesets(self, serials: Sequence[str]) -> Iterator[FrameSet]:
        """The frames of these cameras, grouped by time, segment by segment; see `PartFolder.framesets`."""
        for segment in self.segments:
            yield from segment.framesets(serials)


def board_folder(source: Path) -> Path:
    """Where a calibration run keeps what it recorded of boards: its subfolder `board` if there is one."""
    return source / BOARD_FOLDER if (source / BOARD_FOLDER).is_dir() else source


def board_recordings(source: Path) -> BoardRecordings:
    """The recordings of boards in a folder, or in its subfolder `board` as a calibration run has it.

    They are the recordings in the folder itself, and those of its subfolders place_001, place_002 and so on, as
    `depthcell calibrate guide --live` makes them.

    Raises:
        DepthcellError: there are none, or those of several parts.
    """
    folder = board_folder(source)
    parts = find_parts(folder)
    if all(PLACE_FOLDER.fullmatch(part.part_id) for part in parts):
        return BoardRecordings(parts)
    if len(parts) != 1:
        names = ", ".join(part.part_id for part in parts[:5])
        raise DepthcellError(
            f"{source}: holds recordings of {names}; name the folder that holds one recording of the board per camera"
        )
    return BoardRecordings((*parts, *(find_parts(path)[0] for path in place_folders(folder))))


def place_folders(folder: Path) -> tuple[Path, ...]:
    """The subfolders place_001, place_002 and so on, by number; none of a single recording."""
    if not folder.is_dir():
        return ()
    found = [path for path in folder.iterdir() if path.is_dir() and PLACE_FOLDER.fullmatch(path.name)]
    return tuple(sorted(found, key=place_number))


def place_number(path: Path) -> int:
    """Of a folder such as place_007."""
    return int(path.name.rpartition("_")[2])


def serials_of(part: BoardRecordings | PartFolder) -> tuple[str, ...]:
    """The cameras that recorded, each once."""
    return tuple(dict.fromkeys(open_recording(path).serial for path in part.paths))
