"""From recordings of boards to what a calibration adjusts: views, depth on the boards, what the devices say."""

import multiprocessing
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from depthcell.acquisition.frameset import CameraFrame, DepthImage, FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.recording import Recording, open_recording
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.board_recordings import board_recordings, serials_of
from depthcell.calib.cell import DisparityNoise
from depthcell.calib.depth.depth_tiles import BoardPlace, tiled_depth
from depthcell.calib.factory import baseline_of
from depthcell.calib.target.board import Board
from depthcell.calib.target.board_views import BoardImage, BoardViews, Look, frameset_images, look, views_of
from depthcell.calib.target.boardview import BoardView, DepthTiles
from depthcell.errors import DepthcellError

AHEAD = 8
"""Images that wait for a process to look at them: enough to keep it busy, little to hold in memory."""
TEMPERATURE = "Temperature"


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """What a camera says of itself.

    Attributes:
        serial, model, firmware: its own; `firmware` is "" where not recorded.
        intrinsics: stream -> factory intrinsics, of the imagers that were recorded.
        T_color_depth: the factory's; the identity where the left imager gives the colour, None without colour.
        baseline_m: of its stereo pair.
        temperatures_c: lowest and highest while it looked at the boards; None where it does not say.
    """

    serial: str
    model: str
    firmware: str
    intrinsics: Mapping[str, Intrinsics]
    T_color_depth: RigidTransform | None
    baseline_m: float
    temperatures_c: tuple[float, float] | None


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What was seen of the boards.

    Attributes:
        boards: by number.
        devices: serial -> what the camera says of itself.
        seen: views of boards, and the images that were not used.
        depth: on the faces of boards, one for each camera and place.
        unusable_depth: a sentence for each camera and place whose depth was left out.
        recordings: what was read.
    """

    boards: tuple[Board, ...]
    devices: Mapping[str, Device]
    seen: BoardViews
    depth: tuple[DepthTiles, ...]
    unusable_depth: tuple[str, ...]
    recordings: tuple[Path, ...]


def is_identity(transform: RigidTransform) -> bool:
    """Whether two frames coincide, as those of depth and colour do where the left imager gives both."""
    return np.array_equal(transform.matrix, np.eye(4))


@dataclass(slots=True)
class Notes:
    """What is learnt of the devices while their frames go by."""

    intrinsics: dict[str, dict[str, Intrinsics]] = field(default_factory=lambda: defaultdict(dict))
    T_color_depth: dict[str, RigidTransform] = field(default_factory=dict)
    temperatures_c: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, serial: str, frame: CameraFrame) -> None:
        """Learn what one frame tells."""
        own = self.intrinsics[serial]
        grid = frame.depth or frame.infrared
        if grid is not None:
            own.setdefault(f"depth:{serial}", grid.intrinsics)
        if frame.color is not None and frame.T_color_depth is not None:
            self.T_color_depth.setdefault(serial, frame.T_color_depth)
            stream = "depth" if is_identity(frame.T_color_depth) else "color"
            own.setdefault(f"{stream}:{serial}", frame.color.intrinsics)
        if TEMPERATURE in frame.metadata:
            self.temperatures_c[serial].append(float(frame.metadata[TEMPERATURE]))


def observe(
    folder: Path,
    boards: Sequence[Board],
    noise: Mapping[str, DisparityNoise],
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Observation:
    """Read the recordings of one station looking at boards.

    Args:
        folder: that holds them, see `board_recordings`.
        boards: to look for, by number.
        noise: serial -> depth noise as far as known beforehand.
        jobs: processes that look for boards.
        progress: told how many images have been looked at, and how many there are at most.

    Raises:
        DepthcellError: the folder holds no recordings or several parts, a recording cannot be read, no image shows a
            board, or a camera's baseline is not known.
    """
    part = board_recordings(folder)
    recordings = [open_recording(path) for path in part.paths]
    serials = serials_of(part)
    notes = Notes()
    looks = tuple(looks_at(enumerate(part.framesets(serials)), boards, notes, jobs, progress))
    seen = views_of(boards, looks)
    if not seen.views:
        raise DepthcellError(_nothing_seen(folder, boards, seen))
    devices = {recording.serial: device_of(recording, notes) for recording in recordings}
    depth, unusable = depth_on(enumerate(part.framesets(serials)), seen, devices, noise)
    return Observation(tuple(boards), devices, seen, depth, unusable, part.paths)


def looks_at(
    framesets: Iterable[tuple[int, FrameSet]],
    boards: Sequence[Board],
    notes: Notes,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Look]:
    """Look at every image of numbered frame sets, in several processes if asked, in order all the same.

    Args:
        framesets: each with its instant.
        boards: to look for, by number.
        notes: takes what the frames tell of their cameras.
        jobs: processes.
        progress: as `observe` tells it.
    """
    images = _images(framesets, notes)
    if jobs <= 1:
        for done, (image, intrinsics) in enumerate(images, start=1):
            yield look(boards, image, intrinsics)
            progress(done, done)
        return
    # Forked processes would share the SDK's and Ceres' threads; spawned ones start clean.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        waiting: deque[Future[Look]] = deque()
        done = 0
        for image, intrinsics in images:
            waiting.append(pool.submit(look, tuple(boards), image, intrinsics))
            if len(waiting) > AHEAD * jobs:
                yield waiting.popleft().result()
                done += 1
                progress(done, done + len(waiting))
        while waiting:
            yield waiting.popleft().result()
            done += 1
            progress(done, done + len(waiting))


def _one_thread() -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import cv2  # noqa: PLC0415 - in the process that it is set for

    cv2.setNumThreads(1)


def _images(framesets: Iterable[tuple[int, FrameSet]], notes: Notes) -> Iterator[tuple[BoardImage, Intrinsics | None]]:
    for instant, frameset in framesets:
        for serial, frame in frameset.frames.items():
            notes.take(serial, frame)
        for image in frameset_images(frameset, instant):
            serial = image.stream.partition(":")[2]
            yield image, notes.intrinsics[serial].get(image.stream)


def device_of(recording: Recording, notes: Notes) -> Device:
    """What a camera says of itself, in its recording and in the frames that `notes` took."""
    serial, temperatures_c = recording.serial, notes.temperatures_c[recording.serial]
    return Device(
        serial=serial,
        model=recording.model,
        firmware=recording.firmware,
        intrinsics=dict(notes.intrinsics[serial]),
        T_color_depth=notes.T_color_depth.get(serial),
        baseline_m=baseline_of(recording.model, recording.baseline_m),
        temperatures_c=(min(temperatures_c), max(temperatures_c)) if temperatures_c else None,
    )


def depth_on(
    framesets: Iterable[tuple[int, FrameSet]],
    seen: BoardViews,
    devices: Mapping[str, Device],
    noise: Mapping[str, DisparityNoise],
) -> tuple[tuple[DepthTiles, ...], tuple[str, ...]]:
    """Tiles of every place that a camera's own left imager saw, place by place as the numbered frames go by.

    Args:
        framesets: each with its instant, in order.
        seen: in them.
        devices: serial -> camera.
        noise: serial -> depth noise.

    Returns:
        The tiles, and a sentence for each camera and place whose depth is left out.
    """
    views = {(view.stream, view.place): view for view in seen.views if view.stream.startswith("depth:")}
    ends = {max(place.instants): place for place in seen.places}
    wanted = {instant for place in seen.places for instant in place.instants}
    kept: dict[tuple[int, str], DepthImage] = {}
    tiles, unusable = list[DepthTiles](), list[str]()
    for instant, frameset in framesets:
        if instant in wanted:
            kept |= {(instant, s): frame.depth for s, frame in frameset.frames.items() if frame.depth is not None}
        if instant not in ends:
            continue
        place = ends[instant]
        for serial, device in devices.items():
            view = views.get((f"depth:{serial}", (place.board, place.instant)))
            images = [kept[at, serial] for at in place.instants if (at, serial) in kept]
            if view is None or not images:
                continue
            try:
                tiles.append(_tiles(view, device, images, noise[serial]))
            except DepthcellError as error:
                unusable.append(str(error))
        for key in [key for key in kept if key[0] in place.instants]:
            del kept[key]
    return tuple(tiles), tuple(unusable)


def _tiles(view: BoardView, device: Device, images: Sequence[DepthImage], noise: DisparityNoise) -> DepthTiles:
    focal_baseline_m = images[0].intrinsics.fx_px * device.baseline_m
    place = BoardPlace(device.serial, view.instant, view.board, focal_baseline_m)
    return tiled_depth(place, images, view.pixels, noise).tiles


def _nothing_seen(folder: Path, boards: Sequence[Board], seen: BoardViews) -> str:
    """Which reason most images had, in its own words."""
    counts: dict[str, int] = defaultdict(int)
    for refused in seen.refused:
        counts[refused.issue.sentence] += 1
    specs = ", ".join(board.spec for board in boards)
    why = max(counts, key=lambda sentence: counts[sentence]) if counts else "they hold no infrared and no colour image"
    return f"{folder}: no image shows {specs} usably; most often: {why}"
