"""Live cameras to disk: one genuine SDK recording for each camera of a part, readable whatever ends the recording."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from depthcell.acquisition.camera import RealSenseCamera
from depthcell.acquisition.camerasettings import CameraSettings
from depthcell.acquisition.deviceoptions import SdkDevice
from depthcell.acquisition.devicesource import DeviceSource
from depthcell.acquisition.partfolder import RECORDING_SUFFIXES
from depthcell.acquisition.recordedframe import StreamKind
from depthcell.acquisition.recordingfile import image_count, recorded, settle
from depthcell.acquisition.writtencount import WrittenCount
from depthcell.errors import DepthcellError, Reason

PIXEL_BYTES = {StreamKind.DEPTH: 2, StreamKind.COLOR: 3, StreamKind.INFRARED: 1}
PACKED_SHARE = 0.6
"""PNG's share of the raw size that is planned with; a real D435's images took 0.30 (depth) and 0.37 (colour)."""
LEAST_SECONDS = 10.0
"""A recording without a stated end must have room for at least this long."""
CHECK_INTERVAL_S = 0.25
POLL_INTERVAL_S = 0.005


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """How and where to record.

    Attributes:
        folder: of the part; must hold no recording yet.
        duration_s: how long; None until it is stopped.
        reserve_bytes: of the disk that stay free.
        is_packed: images as PNG, without loss; False writes them as they are (more disk, less processor).
        backlog_s: frames not yet on disk, in seconds, beyond which the recording ends, since a kill would lose them.
            Looked at four times a second, so that with 0.75 s a kill loses at most the last second.
    """

    folder: Path
    duration_s: float | None = None
    reserve_bytes: int = 1_000_000_000
    is_packed: bool = True
    backlog_s: float = 0.75

    def __post_init__(self) -> None:
        if self.duration_s is not None and not self.duration_s > 0:
            raise DepthcellError(f"record.duration_s: must be positive, got {self.duration_s}")
        if not self.backlog_s > 0:
            raise DepthcellError(f"record.backlog_s: must be positive, got {self.backlog_s}")
        if self.reserve_bytes < 0:
            raise DepthcellError(f"record.reserve_bytes: must not be negative, got {self.reserve_bytes}")


@dataclass(frozen=True, slots=True)
class RecordProgress:
    """How a recording stands. Frames are those of all streams and cameras together.

    Attributes:
        least_s: time's worth of frames that came from the camera that gave fewest; cameras begin one after the other.
    """

    elapsed_s: float
    received: int
    dropped: int
    size_bytes: int
    free_bytes: int
    least_s: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.elapsed_s:.1f} s  {self.received} frames  {self.dropped} dropped  "
            f"{self.size_bytes / 1e6:.0f} MB  {self.free_bytes / 1e9:.1f} GB free  (Ctrl-C ends)"
        )


@dataclass(frozen=True, slots=True)
class RecordedCamera:
    """What was recorded of one camera.

    Attributes:
        serial: serial number.
        paths: its recordings in the order of time; a new one begins whenever it was plugged in again.
        received: frames that came from the camera; dropped: frames it numbered but that never came.
        written: frames on disk.
    """

    serial: str
    paths: tuple[Path, ...]
    received: int
    dropped: int
    written: int


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """What a recording came to. `ended_by` is "duration" or "stop"."""

    folder: Path
    cameras: tuple[RecordedCamera, ...]
    duration_s: float
    size_bytes: int
    ended_by: str


def bytes_per_second(cameras: Sequence[CameraSettings], is_packed: bool) -> float:
    """Disk that recording these cameras takes, in bytes a second."""
    raw = sum(
        stream.width_px * stream.height_px * stream.fps * PIXEL_BYTES[kind]
        for camera in cameras
        for kind, stream in camera.streams.items()
    )
    return raw * (PACKED_SHARE if is_packed else 1.0)


def record(
    cameras: Sequence[CameraSettings],
    settings: RecordSettings,
    source: DeviceSource,
    should_stop: Callable[[], bool],
    show: Callable[[RecordProgress], None] = lambda _: None,
) -> RecordSummary:
    """Record until the duration is over or `should_stop` says so. Whatever ends it, what was written is readable.

    A camera that is unplugged goes on in a new file when it is back. After a kill at most the frames not yet on disk
    are lost, which the backlog bounds.

    Raises:
        DepthcellError: the folder holds recordings; the disk has too little room, or runs full (`Reason.DISK_FULL`);
            writing falls behind (`Reason.OVERLOAD`); a camera is missing or lost, or refuses a setting.
    """
    _check_folder(settings.folder)
    _check_room(cameras, settings)
    settings.folder.mkdir(parents=True, exist_ok=True)
    tapes = [_Tape(each, source, settings) for each in cameras]
    try:
        with ExitStack() as stack:
            written = stack.enter_context(WrittenCount())
            for tape in tapes:
                stack.enter_context(tape.camera)
            began_s = time.monotonic()
            ended_by = _run(tapes, settings, written, should_stop, show)
            duration_s = time.monotonic() - began_s
    except DepthcellError as error:
        frames = sum(tape.finish().written for tape in tapes)
        if not frames:
            with suppress(OSError):
                settings.folder.rmdir()
            raise
        message = f"{error}; {frames} frames recorded until then are readable in {settings.folder}"
        raise DepthcellError(message, error.reason) from error
    tapes_ended = tuple(tape.finish() for tape in tapes)
    _check_complete(tapes, tapes_ended, settings)
    return RecordSummary(settings.folder, tapes_ended, duration_s, _size_bytes(settings.folder), ended_by)


class _Tape:
    """One camera and the files it is recorded to."""

    def __init__(self, camera: CameraSettings, source: DeviceSource, settings: RecordSettings) -> None:
        self._settings = settings
        self.camera = RealSenseCamera(camera, source, self._begin_file)
        self.paths: list[Path] = []
        self.unsettled: DepthcellError | None = None

    def _begin_file(self, device: SdkDevice) -> AbstractContextManager[SdkDevice]:
        number = f"_{len(self.paths) + 1}" if self.paths else ""
        path = self._settings.folder / f"{self.camera.settings.serial}{number}.db3"
        self.paths.append(path)
        return recorded(path, device, self._settings.is_packed)

    def take_all(self) -> None:
        """Count the frames that have come; the SDK's recorder has its own copy of each."""
        while self.camera.capture(0.0):
            pass

    @property
    def received_s(self) -> float:
        """Time's worth of frames that came."""
        received = sum(tally.received for tally in self.camera.tallies.values())
        return received / self.camera.settings.frames_per_second

    def backlog_s(self, written: WrittenCount) -> float:
        """Time's worth of frames that came from the camera as it is now open and are not yet on disk."""
        if not self.camera.is_open:
            return 0.0
        return (self.camera.received_since_opened - written.of(self.paths[-1])) / self.camera.settings.frames_per_second

    def finish(self) -> RecordedCamera:
        """Settle the files where the disk allows, and remove those without an image."""
        kept, images = [], 0
        for path in filter(Path.exists, self.paths):
            try:
                settle(path)
            except DepthcellError as error:
                self.unsettled = error
            count = image_count(path)
            if count:
                kept.append(path)
            else:
                path.unlink()
            images += count
        tallies = self.camera.tallies.values()
        received, dropped = sum(each.received for each in tallies), sum(each.dropped for each in tallies)
        return RecordedCamera(self.camera.settings.serial, tuple(kept), received, dropped, images)


def _run(
    tapes: Sequence[_Tape],
    settings: RecordSettings,
    written: WrittenCount,
    should_stop: Callable[[], bool],
    show: Callable[[RecordProgress], None],
) -> str:
    """Record, checking disk and backlog four times a second; returns what ended it."""
    began_s = checked_s = time.monotonic()
    while not should_stop():
        for tape in tapes:
            tape.take_all()
        now_s = time.monotonic()
        if settings.duration_s is not None and now_s - began_s >= settings.duration_s:
            return "duration"
        if now_s - checked_s >= CHECK_INTERVAL_S:
            checked_s = now_s
            progress = _progress(tapes, settings, now_s - began_s)
            show(progress)
            _check_backlog(tapes, settings, written)
            _check_free(settings, progress.free_bytes)
        time.sleep(POLL_INTERVAL_S)
    return "stop"


def _progress(tapes: Sequence[_Tape], settings: RecordSettings, elapsed_s: float) -> RecordProgress:
    tallies = [tally for tape in tapes for tally in tape.camera.tallies.values()]
    return RecordProgress(
        elapsed_s,
        sum(tally.received for tally in tallies),
        sum(tally.dropped for tally in tallies),
        _size_bytes(settings.folder),
        shutil.disk_usage(settings.folder).free,
        min(tape.received_s for tape in tapes),
    )


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise DepthcellError(f"{folder}: is a file; name a folder for the part")
    if folder.is_dir() and any(path.suffix in RECORDING_SUFFIXES for path in folder.iterdir()):
        raise DepthcellError(f"{folder}: holds recordings already; name a new folder for each part")


def _check_room(cameras: Sequence[CameraSettings], settings: RecordSettings) -> None:
    existing = next(path for path in (settings.folder, *settings.folder.absolute().parents) if path.exists())
    rate = bytes_per_second(cameras, settings.is_packed)
    seconds = settings.duration_s or LEAST_SECONDS
    free, needed = shutil.disk_usage(existing).free, rate * seconds + settings.reserve_bytes
    if free < needed:
        raise DepthcellError(
            f"{settings.folder}: {seconds:.0f} s need {rate * seconds / 1e6:.0f} MB ({rate / 1e6:.0f} MB/s) and "
            f"{settings.reserve_bytes / 1e6:.0f} MB in reserve, but {free / 1e6:.0f} MB are free; free some, record "
            "shorter, or choose another disk",
            Reason.DISK_FULL,
        )


def _check_free(settings: RecordSettings, free_bytes: int) -> None:
    if free_bytes < settings.reserve_bytes:
        raise DepthcellError(
            f"{settings.folder}: recording ended because {free_bytes / 1e6:.0f} MB are free, less than the reserve of "
            f"{settings.reserve_bytes / 1e6:.0f} MB; free some space",
            Reason.DISK_FULL,
        )


def _check_backlog(tapes: Sequence[_Tape], settings: RecordSettings, written: WrittenCount) -> None:
    behind = max(tapes, key=lambda tape: tape.backlog_s(written))
    backlog_s = behind.backlog_s(written)
    if backlog_s > settings.backlog_s:
        free = shutil.disk_usage(settings.folder).free
        raise DepthcellError(
            f"{settings.folder}: recording ended because frames of camera {behind.camera.settings.serial} are "
            f"{backlog_s:.1f} s behind on their way to disk ({free / 1e6:.0f} MB free); the disk takes no more or is "
            "too slow: record fewer or smaller frames, or choose another disk",
            Reason.DISK_FULL if free < settings.reserve_bytes else Reason.OVERLOAD,
        )


def _check_complete(tapes: Sequence[_Tape], recorded: Sequence[RecordedCamera], settings: RecordSettings) -> None:
    """Refuse to call a recording whole that is not: the SDK's recorder reports no frame that it could not write."""
    for tape, camera in zip(tapes, recorded, strict=True):
        if tape.unsettled is not None:
            raise tape.unsettled
        if camera.written < camera.received:
            raise DepthcellError(
                f"{settings.folder}: of camera {camera.serial} {camera.received} frames came and {camera.written} are "
                "on disk; the disk was full or too slow: free some space, or record fewer or smaller frames",
                Reason.DISK_FULL,
            )


@contextmanager
def stopped_by_signals() -> Iterator[Callable[[], bool]]:
    """Within the block Ctrl-C and SIGTERM end nothing at once; the function yielded says whether one came."""
    stopped = threading.Event()

    def remember(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
