"""Guidance while recording: say where to hold the board, record it there, look, and say what comes next."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from depthcell.acquisition.camerasettings import CameraSettings, StreamSettings, sync_roles
from depthcell.acquisition.devicelist import summarize
from depthcell.acquisition.devicesource import DeviceSource
from depthcell.acquisition.partfolder import RECORDING_SUFFIXES, find_parts
from depthcell.acquisition.recorder import RecordProgress, RecordSettings, RecordSummary, record, stopped_by_signals
from depthcell.calib.board_recordings import (
    BOARD_FOLDER,
    PLACE_FOLDER,
    board_folder,
    board_recordings,
    place_folders,
    place_number,
)
from depthcell.calib.guiding.board_watch import BoardWatch, SeenSegment
from depthcell.calib.guiding.guidance import GuidanceSettings
from depthcell.calib.guiding.guidance_information import Advice
from depthcell.calib.guiding.guidance_recording import TOO_LITTLE
from depthcell.calib.guiding.guide_run import advise_on
from depthcell.calib.target.board import Board
from depthcell.calib.target.imagequality import QualityIssue
from depthcell.errors import DepthcellError, Reason

USUAL = frozenset({QualityIssue.NO_BOARD, QualityIssue.TOO_LITTLE})
"""Why most cameras do not use a board: it is held before another one."""


@dataclass(frozen=True, slots=True)
class LiveGuide:
    """What a person asks for.

    Attributes:
        source: folder of the calibration run; places are recorded into its subfolder `board`.
        boards: that are shown.
        picture: PNG to draw each advice in.
        volume_mm: work volume, see `work_volume`.
        every_s: time to hold the board elsewhere.
        seconds: that every camera records at each place.
        patience_s: how long cameras may take beyond that to give their images.
        reserve_bytes: of the disk that stay free.
        guidance: which poses are tried, and when enough is known; None for `GuidanceSettings()`.
        jobs: processes that look at what was recorded before.
    """

    source: Path
    boards: tuple[Board, ...]
    picture: Path
    volume_mm: tuple[float, float, float] | None = None
    every_s: float = 4.0
    seconds: float = 0.5
    patience_s: float = 5.0
    reserve_bytes: int = 1_000_000_000
    guidance: GuidanceSettings | None = None
    jobs: int = 1

    def __post_init__(self) -> None:
        if not self.boards:
            raise DepthcellError("--board: name the board that is shown, such as charuco:9x6:30mm")
        for name in ("every_s", "seconds", "patience_s"):
            if not 0 < getattr(self, name) < 3600:
                message = f"guide.{name}: must be more than 0 and less than an hour, got {getattr(self, name)}"
                raise DepthcellError(message)


@dataclass(frozen=True, slots=True)
class Person:
    """Who holds the board, and how to talk with them.

    Attributes:
        say: shows a line that stays.
        count: shows a line until the next one, such as a countdown.
        wait: seconds, for the person to move.
        should_stop: whether they have had enough.
    """

    say: Callable[[str], None]
    count: Callable[[str], None]
    wait: Callable[[float], None]
    should_stop: Callable[[], bool]


def guide_live(
    guide: LiveGuide, cameras: Sequence[CameraSettings], source: DeviceSource, person: Person
) -> Advice | None:
    """Guide a person with a board from place to place until enough is known or they stop.

    A place counts once a camera saw the board stand still there; others are said and removed, so that `board` holds
    what counts and nothing half-written. What was recorded before counts too.

    Returns:
        The last advice; None where too little was recorded for any.

    Raises:
        DepthcellError: earlier recordings cannot be used, the disk is full, a camera refuses a setting, or no pose in
            the work volume can be advised. A camera that is away is said and waited for.
    """
    watch = BoardWatch(guide.boards)
    _look_back(guide, watch, person)
    advice, is_news = None, True
    while not person.should_stop():
        if is_news:
            advice = _advised(guide, watch, person)
        if (advice is not None and advice.enough) or not _moved(guide, person):
            break
        is_news = _record_place(guide, cameras, source, watch, person)
    if watch.kept:
        boards = " ".join(f"--board {board.spec}" for board in guide.boards)
        person.say(f"now run: depthcell calibrate {guide.source} {boards}")
    return advice


def board_cameras(
    source: DeviceSource, serials: Sequence[str] | None, depth: StreamSettings, color: StreamSettings | None
) -> list[CameraSettings]:
    """Cameras as boards are recorded: projector off, the left imager on the grid of the depth.

    The left imager of a D405 gives the colour, and it has no projector; there colour stands in for infrared.

    Args:
        source: where devices come from.
        serials: of the cameras; None takes all that are connected.
        depth: size and rate of depth and infrared.
        color: of colour; None leaves it out.

    Raises:
        DepthcellError: no camera is connected, one that is named is not, or one is named twice.
    """
    cameras = []
    for serial, role in sync_roles(tuple(serials or source.serials()), None, is_genlocked=False).items():
        device = source.find(serial)
        if device is None:
            there = ", ".join(source.serials()) or "none"
            message = f"camera {serial}: not connected (there are: {there}); check its cable and run: depthcell devices"
            raise DepthcellError(message, Reason.DEVICE_MISSING)
        is_left = "D405" in summarize(device).model
        if is_left and color is None:
            raise DepthcellError(f"camera {serial}: the left imager of a D405 gives its colour; leave out --color none")
        infrared, emitter = (None, None) if is_left else (depth, False)
        cameras.append(CameraSettings(serial, depth, color, role, emitter=emitter, infrared=infrared))
    return cameras


@contextmanager
def on_terminal(*, quiet: bool = False) -> Iterator[Person]:
    """A person before a terminal, who ends with Ctrl-C; what is said goes to standard error if `quiet`."""
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    said = notes if quiet else Console(highlight=False, soft_wrap=True)
    with notes.status("starting") as status, stopped_by_signals() as should_stop:
        yield Person(said.print, status.update, time.sleep, should_stop)


def _look_back(guide: LiveGuide, watch: BoardWatch, person: Person) -> None:
    """Take in what was recorded before."""
    folder = _folder(guide.source)
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return
    for segment in board_recordings(guide.source).segments:
        person.count(f"looking at {segment.part_id}, recorded before")
        is_place = PLACE_FOLDER.fullmatch(segment.part_id) is not None
        seen = watch.look_at(segment, sampled=is_place, jobs=1 if is_place else guide.jobs)
        if seen.seen.views:
            watch.kept.append(seen)
    person.say(f"{len(watch.observation().seen.places)} places were recorded before")


def _advised(guide: LiveGuide, watch: BoardWatch, person: Person) -> Advice | None:
    """Say what comes next, or what is missing for an advice, which is None then."""
    if not watch.kept:
        person.say("Nothing is recorded yet: hold the board still, tilted, where as many cameras as possible see it.")
        return None
    person.count("thinking")
    try:
        advice = advise_on(watch.observation(), guide.volume_mm, guide.picture, guide.guidance)
    except DepthcellError as error:
        if not str(error).startswith(TOO_LITTLE):
            raise
        person.say(f"T{str(error).removeprefix('guidance: t')}.")
        return None
    person.say(advice.sentence)
    return advice


def _moved(guide: LiveGuide, person: Person) -> bool:
    """Count down while the board is moved; False if the person stops."""
    left_s = guide.every_s
    while left_s > 0 and not person.should_stop():
        person.count(f"recording in {left_s:.0f} s: move the board, then hold it still (Ctrl-C ends)")
        step_s = min(1.0, left_s)
        person.wait(step_s)
        left_s -= step_s
    return not person.should_stop()


def _record_place(
    guide: LiveGuide, cameras: Sequence[CameraSettings], source: DeviceSource, watch: BoardWatch, person: Person
) -> bool:
    """Record one place and say what came of it; True if it counts."""
    folder = _folder(guide.source)
    number = 1 + max(map(place_number, place_folders(folder)), default=0)
    with _unfinished(folder / f".place_{number:03d}.partial") as partial:
        try:
            summary = _recorded(guide, cameras, source, partial, person)
        except DepthcellError as error:
            if error.reason is not Reason.DEVICE_MISSING:
                # What the message adds, that frames were kept, does not hold here.
                raise error.__cause__ if isinstance(error.__cause__, DepthcellError) else error from None
            person.say(f"Not recorded: {error}.")
            return False
        silent = [camera.serial for camera in summary.cameras if not camera.written]
        without = "".join(f"; camera {serial} gave no image, check its cable" for serial in silent)
        if person.should_stop() or len(silent) == len(summary.cameras):
            person.say(
                "Not counted: it was cut short." if person.should_stop() else f"Not counted: nothing came{without}."
            )
            return False
        person.count("looking for the board")
        seen = watch.look_at(find_parts(partial)[0], sampled=True)
        if not seen.seen.views:
            person.say(f"Not counted: {_commonest(seen)}{without}.")
            return False
        place = folder / f"place_{number:03d}"
        partial.rename(place)
        watch.kept.append(replace(seen, segment=find_parts(place)[0]))
    person.say(f"Place {number}: {_who_saw(seen)}{without}.")
    return True


def _recorded(
    guide: LiveGuide, cameras: Sequence[CameraSettings], source: DeviceSource, folder: Path, person: Person
) -> RecordSummary:
    """Record until every camera gave its share; cameras open one after the other, so the first gives more."""
    has_enough = False

    def look(progress: RecordProgress) -> None:
        nonlocal has_enough
        has_enough = progress.least_s >= guide.seconds

    person.count("hold still")
    longest_s = guide.seconds + guide.patience_s
    settings = RecordSettings(folder, duration_s=longest_s, reserve_bytes=guide.reserve_bytes)
    return record(cameras, settings, source, lambda: has_enough or person.should_stop(), look)


@contextmanager
def _unfinished(partial: Path) -> Iterator[Path]:
    """A folder that is gone afterwards unless it was renamed; a kill leaves it hidden, until the next time."""
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _folder(source: Path) -> Path:
    """Where places go: beside what was recorded of boards before, or into the subfolder of a calibration run."""
    folder = board_folder(source)
    has_own = folder.is_dir() and any(path.suffix in RECORDING_SUFFIXES for path in folder.iterdir())
    return folder if has_own else source / BOARD_FOLDER


def _who_saw(seen: SeenSegment) -> str:
    """Which streams saw the board, and what kept others from it, besides that it is before another camera."""
    streams = sorted({view.stream for view in seen.seen.views})
    refused: dict[str, Counter[str]] = {}
    for each in seen.seen.refused:
        if each.stream not in streams and each.issue.kind not in USUAL:
            refused.setdefault(each.stream, Counter())[each.issue.sentence] += 1
    besides = "".join(f"; not by {s}: {why.most_common(1)[0][0]}" for s, why in sorted(refused.items()))
    return f"seen by {', '.join(streams)}{besides}"


def _commonest(seen: SeenSegment) -> str:
    """Why no image was used: what most had, other than that they show no board at all."""
    issues = [each.issue for each in seen.seen.refused]
    told = [each for each in issues if each.kind not in USUAL] or issues
    if not told:
        return "the cameras gave neither infrared nor colour images"
    return Counter(each.sentence for each in told).most_common(1)[0][0]
