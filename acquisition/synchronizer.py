"""Frames of several free-running clocks become `FrameSet`s: one instant each, on one common clock."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from depthcell.acquisition.frameset import CameraFrame, FrameSet
from depthcell.acquisition.hostclock import ARRIVAL_KEY, HostClock, arrival_ns
from depthcell.errors import DepthcellError, Reason

CLOCK_RESTART_NS = 1_000_000_000
"""A clock that falls back by more than this was restarted (re-plugged, or its 32-bit microseconds ran over)."""


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """How frames are grouped.

    Attributes:
        tolerance_ns: frames of one set lie within this time; below half the frame interval no two instants can mix.
        clock_window: last frames of a camera that its clock's offset is estimated from.
        lead_in: frames of every camera that are looked at before the first set is given out.
    """

    tolerance_ns: int = 15_000_000
    clock_window: int = 90
    lead_in: int = 16

    def __post_init__(self) -> None:
        for name in ("tolerance_ns", "clock_window", "lead_in"):
            if getattr(self, name) < 1:
                raise DepthcellError(f"sync.{name}: must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class _Pending:
    frame: CameraFrame
    clock: HostClock | None

    @property
    def host_ns(self) -> int:
        return self.frame.timestamp_ns + (self.clock.offset_ns if self.clock else 0)


class Synchronizer:
    """Groups frames as they come; each frame pushed in comes out in exactly one set.

    Each camera's clock is brought to the host's by `HostClock`; frames that carry no time of arrival (simulated ones)
    are taken to share one clock. Times of sets are given on the clock of the first expected camera as it stood at the
    first set. The earliest waiting frame opens a set, and the earliest frame of every other camera joins it if it
    lies within the tolerance. A set is given out once every camera has either joined, or shown a later frame, or
    ended; cameras that did not join are `missing` in it.
    """

    def __init__(self, expected: Sequence[str], settings: SyncSettings) -> None:
        self._expected = tuple(expected)
        self._settings = settings
        self._pending: dict[str, deque[_Pending]] = {serial: deque() for serial in expected}
        self._clocks: dict[str, HostClock] = {}
        self._latest: dict[str, CameraFrame] = {}
        self._ended: set[str] = set()
        self._origin_ns: int | None = None  # host time at which the common clock shows zero

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Cameras whose next frame decides about the next set."""
        return tuple(serial for serial in self._expected if serial not in self._ended and self._needs_frame(serial))

    def push(self, frame: CameraFrame) -> list[FrameSet]:
        """Take one frame, and give out the sets it completes.

        Raises:
            DepthcellError: the camera is not expected, its time does not rise, or only some cameras tell arrival times.
        """
        if frame.serial not in self._pending:
            expected = ", ".join(self._expected)
            raise DepthcellError(f"camera {frame.serial}: gave a frame but is not among the expected {expected}")
        clock = self._clock_of(frame)
        self._latest[frame.serial] = frame
        self._ended.discard(frame.serial)
        self._pending[frame.serial].append(_Pending(frame, clock))
        return self._give_out()

    def end(self, serial: str) -> list[FrameSet]:
        """Expect no further frame of `serial` (its recording is over, or it was unplugged) until it is pushed again."""
        self._ended.add(serial)
        return self._give_out()

    def _needs_frame(self, serial: str) -> bool:
        clock = self._clocks.get(serial)
        if self._origin_ns is None and clock and len(self._expected) > 1 and clock.count < self._lead_in:
            return True
        return not self._pending[serial]

    @property
    def _lead_in(self) -> int:
        return min(self._settings.lead_in, self._settings.clock_window)

    def _clock_of(self, frame: CameraFrame) -> HostClock | None:
        """The clock `frame` was stamped by, this frame observed; a new one where the camera's clock was restarted."""
        arrived_ns = arrival_ns(frame)
        self._check_arrival_is_known_of_all(frame.serial, arrived_ns is not None)
        restarted = self._is_restarted(frame)
        if arrived_ns is None:
            if restarted:
                raise _disorder(
                    frame, self._latest[frame.serial], "its clock was restarted, and no arrival times tell when"
                )
            return None
        if restarted or frame.serial not in self._clocks:
            self._clocks[frame.serial] = HostClock(self._settings.clock_window)
        self._clocks[frame.serial].observe(frame.timestamp_ns, arrived_ns)
        return self._clocks[frame.serial]

    def _check_arrival_is_known_of_all(self, serial: str, known: bool) -> None:
        other = next((name for name in self._latest if (name in self._clocks) != known), None)
        if other is not None:
            teller, silent = (serial, other) if known else (other, serial)
            raise DepthcellError(
                f"camera {silent}: its frames lack the metadata '{ARRIVAL_KEY}' that those of camera {teller} carry, "
                "so their clocks cannot be compared; record all cameras with the same driver and metadata enabled",
                Reason.RECORDING_UNSUPPORTED,
            )

    def _is_restarted(self, frame: CameraFrame) -> bool:
        previous = self._latest.get(frame.serial)
        if previous is None or frame.timestamp_ns > previous.timestamp_ns:
            return False
        if frame.timestamp_ns == previous.timestamp_ns:
            raise _disorder(frame, previous, "the frame was given twice")
        if previous.timestamp_ns - frame.timestamp_ns <= CLOCK_RESTART_NS:
            raise _disorder(frame, previous, "frames are out of order")
        return True

    def _give_out(self) -> list[FrameSet]:
        sets: list[FrameSet] = []
        while any(self._pending.values()) and not self.waiting_for:
            sets.append(self._next_set())
        return sets

    def _next_set(self) -> FrameSet:
        waiting = {serial: queue[0].host_ns for serial, queue in self._pending.items() if queue}
        start_ns = min(waiting.values())
        times_ns = {s: t for s, t in waiting.items() if t - start_ns <= self._settings.tolerance_ns}
        frames = {serial: self._pending[serial].popleft().frame for serial in times_ns}
        if self._origin_ns is None:
            self._origin_ns = next((clock.offset_ns for s in self._expected if (clock := self._clocks.get(s))), 0)
        spread_ns = max(times_ns.values()) - start_ns
        return FrameSet(frames, self._expected, start_ns - self._origin_ns, spread_ns)


def group(streams: Mapping[str, Iterable[CameraFrame]], settings: SyncSettings) -> Iterator[FrameSet]:
    """Group the frames of recorded streams, one per serial number; reads no further ahead than it must.

    A stream that fails ends there: the others are read on, their sets marked as lacking it, and the error is raised
    after the last set, so that every readable frame has come out in exactly one set.

    Raises:
        DepthcellError: the first error of a stream or of its order in time, after all sets.
    """
    synchronizer = Synchronizer(tuple(streams), settings)
    sources = {serial: iter(stream) for serial, stream in streams.items()}
    failures: list[DepthcellError] = []
    while waiting := synchronizer.waiting_for:
        serial = waiting[0]
        try:
            yield from synchronizer.push(next(sources[serial]))
        except StopIteration:
            yield from synchronizer.end(serial)
        except DepthcellError as error:
            failures.append(error)
            yield from synchronizer.end(serial)
    if failures:
        raise failures[0]


def _disorder(frame: CameraFrame, previous: CameraFrame, cause: str) -> DepthcellError:
    return DepthcellError(
        f"camera {frame.serial}: its time does not rise from {previous.timestamp_ns} ns to {frame.timestamp_ns} ns "
        f"({cause}); record the part again",
        Reason.RECORDING_DAMAGED,
    )
