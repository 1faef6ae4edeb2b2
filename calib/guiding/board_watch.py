"""Recordings of boards looked at segment by segment, each image once, so that advice can follow while they are made."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from depthcell.acquisition.frameset import FrameSet
from depthcell.acquisition.partfolder import PartFolder
from depthcell.acquisition.recording import open_recording
from depthcell.calib.board_recordings import serials_of
from depthcell.calib.factory import NOISE
from depthcell.calib.observation import Device, Notes, Observation, depth_on, device_of, looks_at
from depthcell.calib.target.board import Board
from depthcell.calib.target.board_views import BoardViews, Look, views_of
from depthcell.calib.target.boardview import DepthTiles

SAMPLE, SAMPLE_APART_NS = 3, 80_000_000
"""Frame sets of a place that are looked at, and their least distance: near enough to tell a motion from a new place."""


@dataclass(frozen=True, slots=True, eq=False)
class SeenSegment:
    """What one segment shows.

    Attributes:
        segment: that was looked at.
        devices: the cameras that recorded it.
        looks: at its images.
        seen: views of boards, had nothing else been recorded.
        depth: on the faces of those boards.
        unusable_depth: a sentence for each camera and place whose depth was left out.
    """

    segment: PartFolder
    devices: dict[str, Device]
    looks: tuple[Look, ...]
    seen: BoardViews
    depth: tuple[DepthTiles, ...]
    unusable_depth: tuple[str, ...]


@dataclass(slots=True)
class BoardWatch:
    """What has been seen of boards so far.

    Attributes:
        boards: to look for, by number.
        kept: segments that count.
    """

    boards: tuple[Board, ...]
    kept: list[SeenSegment] = field(default_factory=list)
    _notes: Notes = field(default_factory=Notes)
    _instants: int = 0

    def look_at(self, segment: PartFolder, *, sampled: bool, jobs: int = 1) -> SeenSegment:
        """Look at one more segment; it counts once it is kept.

        Args:
            segment: its recordings.
            sampled: look only at the last few frame sets that all cameras are in, `SAMPLE_APART_NS` apart. For a
                segment in which the board is at one place.
            jobs: processes that look for boards.

        Raises:
            DepthcellError: a recording cannot be read, or a camera's baseline is not known.
        """
        serials = serials_of(segment)
        framesets = sample_of(tuple(segment.framesets(serials))) if sampled else None
        first = self._instants
        shown = enumerate(framesets or segment.framesets(serials), first)
        looks = tuple(looks_at(shown, self.boards, self._notes, jobs))
        self._instants = 1 + max((each.instant for each in looks), default=first)
        recordings = [open_recording(path) for path in segment.paths]
        devices = {recording.serial: device_of(recording, self._notes) for recording in recordings}
        seen = views_of(self.boards, looks)
        noise = dict.fromkeys(serials, NOISE)
        again = enumerate(framesets or segment.framesets(serials), first)
        return SeenSegment(segment, devices, looks, seen, *depth_on(again, seen, devices, noise))

    def observation(self) -> Observation:
        """All that is kept, as `observe` gives it; depth at a place comes from the first segment that shows it."""
        seen = views_of(self.boards, [each for segment in self.kept for each in segment.looks])
        places = {(place.board, place.instant) for place in seen.places}
        return Observation(
            boards=self.boards,
            devices={serial: device for segment in self.kept for serial, device in segment.devices.items()},
            seen=seen,
            depth=tuple(tiles for segment in self.kept for tiles in segment.depth if tiles.place in places),
            unusable_depth=tuple(sentence for segment in self.kept for sentence in segment.unusable_depth),
            recordings=tuple(path for segment in self.kept for path in segment.segment.paths),
        )


def sample_of(framesets: Sequence[FrameSet]) -> tuple[FrameSet, ...]:
    """The last `SAMPLE` frame sets with most cameras that lie `SAMPLE_APART_NS` apart at least, in order.

    The last ones, because exposure settles while a camera starts.
    """
    most = max((len(each.frames) for each in framesets), default=0)
    chosen = list[FrameSet]()
    for each in reversed(framesets):
        is_apart = not chosen or chosen[-1].timestamp_ns - each.timestamp_ns >= SAMPLE_APART_NS
        if len(each.frames) == most and is_apart and len(chosen) < SAMPLE:
            chosen.append(each)
    return tuple(reversed(chosen))
