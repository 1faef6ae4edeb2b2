"""One recording on disk while it is being written: safe against a kill, counted, and settled at its end.

The SDK writes an SQLite file without any journal on disk, so a kill in the middle of a write may leave a file
that SQLite refuses (measured: docs/decisions/0004-recorder.md). SQLite keeps the journal mode in the file itself, and
every connection follows it. So the file is switched to a write-ahead log once the recorder has created it and before
the first frame; from then on each row is either whole or absent.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from depthcell.acquisition.deviceoptions import SdkDevice
from depthcell.acquisition.halfframes import drop_half_frames
from depthcell.acquisition.sdk import realsense
from depthcell.errors import DepthcellError, Reason


@contextmanager
def recorded(path: Path, device: SdkDevice, is_packed: bool) -> Iterator[SdkDevice]:
    """The SDK's recorder round `device`, paused: once resumed, what streams from it in the block is written to `path`.

    Args:
        path: a `.db3` that does not exist.
        device: the camera, configured, its sensors closed.
        is_packed: whether images are packed as PNG, without loss; else they are written as they are.

    Raises:
        DepthcellError: the file cannot be created.
    """
    recorder = _create(path, device, is_packed)
    try:
        yield recorder
    finally:
        with suppress(RuntimeError):  # of a device that is gone
            recorder.pause()  # returns once all that is queued has been written


def _create(path: Path, device: SdkDevice, is_packed: bool) -> SdkDevice:
    try:
        recorder = realsense().recorder(str(path), device, is_packed)
        recorder.pause()  # so that the file lies still
        with closing(sqlite3.connect(path)) as database:
            (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    except (RuntimeError, sqlite3.Error) as error:
        raise DepthcellError(f"recording {path}: cannot be created ({error}); choose another folder") from error
    if mode != "wal":
        message = f"recording {path}: this file system keeps no write-ahead log; choose a folder on a local disk"
        raise DepthcellError(message)
    return recorder


def settle(path: Path) -> None:
    """Fold the write-ahead log into the file, which no recorder has open any more; drop half frames; flush to disk.

    Raises:
        DepthcellError: the disk is full. Nothing is lost: the log stays beside the file, and reading takes it in.
    """
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode = DELETE")
            drop_half_frames(database)
    except sqlite3.Error as error:
        free_mb = shutil.disk_usage(path.parent).free / 1e6
        raise DepthcellError(
            f"recording {path}: cannot be finished ({error}, {free_mb:.0f} MB free); keep {path.name}-wal with it, it "
            "holds the last frames",
            Reason.DISK_FULL,
        ) from error


def image_count(path: Path) -> int:
    """Images in a recording that nobody writes to.

    Raises:
        DepthcellError: it cannot be read.
    """
    query = "SELECT count(*) FROM messages m JOIN topics t ON m.topic_id = t.id WHERE t.name LIKE '%/image/data%'"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return int(database.execute(query).fetchone()[0])
    except sqlite3.Error as error:
        message = f"recording {path}: its images cannot be counted ({error}); record the part again"
        raise DepthcellError(message, Reason.RECORDING_DAMAGED) from error
