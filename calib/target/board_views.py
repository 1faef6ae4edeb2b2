"""From images to views of boards: one for each place where a board stood still; each image left out has a reason."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.calib.target.detect import Detection, detect
from depthcell.calib.target.imagequality import ImageIssue, QualityIssue, judge
from depthcell.errors import DepthcellError

COMMON_PX = 0.004
"""Error of a feature that all images of one place share at least, `detect.FLOOR_PX`."""


@dataclass(frozen=True, slots=True, eq=False)
class BoardImage:
    """One image that may show boards.

    Attributes:
        stream: frame of the imager, "depth:<serial>" or "color:<serial>".
        instant: number of the frame set, in the order of time; images of one instant were taken together.
        timestamp_ns: when.
        image: (H, W) or (H, W, 3) RGB uint8.
    """

    stream: str
    instant: int
    timestamp_ns: int
    image: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one image shows of each board, its pixels no longer needed.

    Attributes:
        stream, instant, timestamp_ns: the image's.
        found: by number of the board: what was detected, and why it may not be used, None if it may.
    """

    stream: str
    instant: int
    timestamp_ns: int
    found: tuple[tuple[Detection, ImageIssue | None], ...]


@dataclass(frozen=True, slots=True)
class StillnessSettings:
    """When two images show a board in the same place.

    Attributes:
        still_px: largest median shift of features between two images of one place, besides their noise.
        jump_px: a shift larger than this is no motion, which would have blurred the image, but another place.
        gap_s: images further apart in time say nothing about each other's motion.
    """

    still_px: float = 0.15
    jump_px: float = 40.0
    gap_s: float = 0.25


@dataclass(frozen=True, slots=True)
class RefusedImage:
    """An image of `stream` at `instant` in which `board` is not used, and why."""

    stream: str
    instant: int
    board: int
    issue: ImageIssue


@dataclass(frozen=True, slots=True)
class Place:
    """A place at which a board stood still.

    Attributes:
        board: number of the board.
        instant: number of the first instant at which it stood there; the `instant` of the views of this place.
        instants: all of them, later returns included; their images count as one view with less noise.
    """

    board: int
    instant: int
    instants: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BoardViews:
    """What a recording shows of its boards.

    Attributes:
        views: one for each place and stream.
        places: where the boards stood.
        refused: images not used, with the reason. Images that show no part of a board are among them.
    """

    views: tuple[BoardView, ...]
    places: tuple[Place, ...]
    refused: tuple[RefusedImage, ...]

    @property
    def merged(self) -> tuple[Place, ...]:
        """Places seen at more than one instant: repeats that were averaged, not counted as more evidence."""
        return tuple(place for place in self.places if len(place.instants) > 1)


def look(boards: Sequence[Board], image: BoardImage, intrinsics: Intrinsics | None = None) -> Look:
    """Detect each board in an image, and judge what was found.

    Args:
        boards: by number.
        image: where to look.
        intrinsics: of its imager, to notice a bent board.
    """
    found = []
    for board in boards:
        detection = detect(board, image.image)
        found.append((detection, judge(board, image.image, detection, intrinsics)))
    return Look(image.stream, image.instant, image.timestamp_ns, tuple(found))


def board_views(
    boards: Sequence[Board],
    images: Iterable[BoardImage],
    settings: StillnessSettings | None = None,
    intrinsics: Mapping[str, Intrinsics] | None = None,
) -> BoardViews:
    """Look at all images, and bring together what shows a board in one and the same place: see `views_of`.

    Args:
        boards: by number.
        images: of all streams, in any order.
        settings: when a board is still.
        intrinsics: of some streams, to notice a bent board.
    """
    known = intrinsics or {}
    return views_of(boards, (look(boards, image, known.get(image.stream)) for image in images), settings)


def views_of(boards: Sequence[Board], looks: Iterable[Look], settings: StillnessSettings | None = None) -> BoardViews:
    """Bring together what shows a board in one and the same place.

    Consecutive instants at which no stream sees the board move by more than noise are one place; so is a later return
    to exactly the same pixels in every stream, such as one view recorded fifty times. Their pixels are averaged: fifty
    copies of a view are one view. An instant at which the board moves is refused.

    Args:
        boards: by number.
        looks: at images of all streams, in any order.
        settings: when a board is still.

    Raises:
        DepthcellError: a board that looks the same turned by half is seen by several cameras, whose numbering of its
            features can not be known to agree.
    """
    settings = settings or StillnessSettings()
    shots, refused = _shots(boards, looks)
    views, places = list[BoardView](), list[Place]()
    for number, board in enumerate(boards):
        _check_numbering(board, shots[number])
        kept, moving = _still(shots[number], settings)
        refused += [_moving(number, shot, stream, shift_px) for shot, shift_px in moving for stream in shot.seen]
        for group in _places(kept, settings):
            instants = tuple(shot.instant for shot in group)
            places.append(Place(number, instants[0], instants))
            views += _averaged(number, group)
    return BoardViews(tuple(views), tuple(places), tuple(refused))


def frameset_images(frameset: FrameSet, instant: int) -> Iterator[BoardImage]:
    """Images of one frame set that may show a board.

    The left imager's is "depth:<serial>". Where it was not recorded but gives the colour, as in a D405, the colour
    image stands in for it: its grid is the depth image's.
    """
    for serial, frame in frameset.frames.items():
        if frame.infrared is not None:
            image = frame.infrared
            yield BoardImage(f"depth:{serial}", instant, image.timestamp_ns, image.intensity)
        if frame.color is not None:
            is_left = (
                frame.infrared is None
                and frame.T_color_depth is not None
                and np.array_equal(frame.T_color_depth.matrix, np.eye(4))
            )
            stream = f"{'depth' if is_left else 'color'}:{serial}"
            yield BoardImage(stream, instant, frame.color.timestamp_ns, frame.color.rgb)


@dataclass(frozen=True, slots=True, eq=False)
class _Shot:
    """One board at one instant, in every stream that sees it well."""

    instant: int
    timestamp_ns: int
    seen: dict[str, Detection] = field(default_factory=dict)


def _shots(boards: Sequence[Board], looks: Iterable[Look]) -> tuple[list[list[_Shot]], list[RefusedImage]]:
    """Shots of each board in the order of time, and what is not used."""
    shots: list[dict[int, _Shot]] = [{} for _ in boards]
    refused = list[RefusedImage]()
    for seen in looks:
        for number, (found, issue) in enumerate(seen.found):
            if issue is not None:
                refused.append(RefusedImage(seen.stream, seen.instant, number, issue))
                continue
            shot = shots[number].setdefault(seen.instant, _Shot(seen.instant, seen.timestamp_ns))
            if seen.stream in shot.seen:
                raise DepthcellError(f"instant {seen.instant}: holds two images of {seen.stream}; number them apart")
            shot.seen[seen.stream] = found
    return [sorted(by_instant.values(), key=lambda shot: shot.instant) for by_instant in shots], refused


def _check_numbering(board: Board, shots: Sequence[_Shot]) -> None:
    serials = {stream.partition(":")[2] for shot in shots for stream in shot.seen}
    if board.turns_onto_itself and len(serials) > 1:
        raise DepthcellError(
            f"board {board.spec}: looks the same turned by half, so cameras {', '.join(sorted(serials))} may number it "
            f"differently; print it with ':marked', or use a charuco board"
        )


def _shift_px(one: _Shot, other: _Shot) -> tuple[float, float]:
    """Largest over the common streams of the median shift of features, and the noise of that; NaN if none is common."""
    shifts = [(math.nan, 0.0)]
    for stream, found in one.seen.items():
        if stream not in other.seen:
            continue
        _, here, there = np.intersect1d(found.ids, other.seen[stream].ids, return_indices=True)
        if len(here) >= 4:
            away = np.linalg.norm(found.pixels[here] - other.seen[stream].pixels[there], axis=1)
            noise_px = math.hypot(found.sigma_px, other.seen[stream].sigma_px)
            shifts.append((float(np.median(away)), noise_px))
    return max(shifts, key=lambda shift: -1.0 if math.isnan(shift[0]) else shift[0] - 2.5 * shift[1])


def _is_same(one: _Shot, other: _Shot, settings: StillnessSettings) -> bool:
    shift_px, noise_px = _shift_px(one, other)
    return shift_px <= settings.still_px + 2.5 * noise_px


def _still(shots: Sequence[_Shot], settings: StillnessSettings) -> tuple[list[list[_Shot]], list[tuple[_Shot, float]]]:
    """Runs of consecutive shots in which the board stands still, and the others with their motion in pixels."""
    runs, moving = list[list[_Shot]](), list[tuple[_Shot, float]]()
    motion = dict[int, float]()
    for before, after in itertools.pairwise(shots):
        # Clocks fall back where a camera was plugged in again.
        if abs(after.timestamp_ns - before.timestamp_ns) > settings.gap_s * 1e9 or _is_same(before, after, settings):
            continue
        shift_px, _ = _shift_px(before, after)
        if shift_px <= settings.jump_px:
            motion[before.instant] = motion[after.instant] = shift_px
    for shot in shots:
        if runs and _is_same(runs[-1][-1], shot, settings):
            runs[-1].append(shot)
        else:
            runs.append([shot])
    kept = list[list[_Shot]]()
    for run in runs:
        if len(run) == 1 and run[0].instant in motion:
            moving.append((run[0], motion[run[0].instant]))
        else:
            kept.append(run)
    return kept, moving


def _places(runs: Sequence[list[_Shot]], settings: StillnessSettings) -> list[list[_Shot]]:
    """Runs that return to an earlier place, in every stream that sees both, join it."""
    places = list[list[_Shot]]()
    for run in runs:
        same = next((place for place in places if _is_same(place[0], run[0], settings)), None)
        if same is None:
            places.append(list(run))
        else:
            same.extend(run)
    return places


def _moving(board: int, shot: _Shot, stream: str, shift_px: float) -> RefusedImage:
    sentence = (
        f"the board moves by {shift_px:.1f} px from image to image; hold it still for half a second at each place"
    )
    return RefusedImage(stream, shot.instant, board, ImageIssue(QualityIssue.MOVING, sentence))


def _averaged(board: int, place: Sequence[_Shot]) -> Iterator[BoardView]:
    """One view for each stream: features that at least half of its images show, at their mean pixel.

    Of the variance s² that the detector states, the scatter v over n images is noise and becomes v / n; the rest is
    common to all images and stays. Copies of one image do not scatter, so they gain nothing.
    """
    for stream in sorted({stream for shot in place for stream in shot.seen}):
        founds = [shot.seen[stream] for shot in place if stream in shot.seen]
        ids, times = np.unique(np.concatenate([found.ids for found in founds]), return_counts=True)
        ids = ids[2 * times >= len(founds)]
        pixels = np.full((len(founds), len(ids), 2), np.nan)
        for row, found in enumerate(founds):
            _, to, of = np.intersect1d(ids, found.ids, return_indices=True)
            pixels[row, to] = found.pixels[of]
        seen = np.isfinite(pixels[..., 0]).sum(axis=0)
        mean = np.nanmean(pixels, axis=0)
        freedom = 2 * int((seen - 1).sum())
        scatter_px2 = float(np.nansum((pixels - mean) ** 2)) / freedom if freedom else 0.0
        stated_px2 = float(np.mean([found.sigma_px**2 for found in founds]))
        common_px2 = max(stated_px2 - scatter_px2, min(stated_px2, COMMON_PX**2))
        sigma_px = math.sqrt(common_px2 + scatter_px2 / len(founds))
        yield BoardView(stream, place[0].instant, board, ids.astype(np.int64), mean, sigma_px)
