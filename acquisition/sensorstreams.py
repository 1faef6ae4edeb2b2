"""The streams of one device, open: the SDK's threads fill one queue, from which images of one instant are taken."""

import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from depthcell.acquisition.camerasettings import CameraSettings
from depthcell.acquisition.deviceoptions import SdkDevice, SdkProfile, SdkSensor, choose_streams
from depthcell.acquisition.recordedframe import StreamKind
from depthcell.acquisition.sdk import realsense
from depthcell.acquisition.sdkframe import Instant, SdkFrame, timestamp_ns

QUEUE_FRAMES = 64
"""Half a second of two streams at 60 frames a second; beyond, the SDK drops the oldest, which `dropped` counts."""
PATIENCE = 3
"""Images of one stream that wait for the others: colour takes longer over USB, by less than this."""


@dataclass(slots=True)
class FrameTally:
    """Frames of one stream, counted by the camera's own frame numbers.

    Attributes:
        received: frames that came.
        dropped: numbers that were left out between them.
    """

    received: int = 0
    dropped: int = 0
    _latest: int | None = None

    def count(self, number: int) -> None:
        """Take the next frame's number into account; a number that falls back is a camera that began anew."""
        if self._latest is not None and number > self._latest + 1:
            self.dropped += number - self._latest - 1
        self.received += 1
        self._latest = number


class SensorStreams:
    """Open streams of a device, closed on leaving the context.

    Images of all streams that lie within half a frame interval make one instant; what finds no partner comes alone.
    While a recording is made, the first image of each stream is left out, since it may have come too early for the
    recorder: so what is given out is on disk.
    """

    def __init__(self, device: SdkDevice, settings: CameraSettings) -> None:
        self._device: Any = device
        self._settings = settings
        self._sensors: list[SdkSensor] = []
        self._queue: Any = realsense().frame_queue(QUEUE_FRAMES, keep_frames=True)
        self._waiting: dict[StreamKind, deque[SdkFrame]] = {kind: deque() for kind in settings.streams}
        self._unsure: set[StreamKind] = set()
        self._tolerance_ns = 500_000_000 // max(stream.fps for stream in settings.streams.values())
        self.tallies = {kind: FrameTally() for kind in settings.streams}

    def __enter__(self) -> Self:
        try:
            for sensor, profiles in self._profiles_by_sensor():
                sensor.open(profiles)
                self._sensors.append(sensor)
            for sensor in self._sensors:
                sensor.start(self._queue)
            if self._device.is_recorder():
                # Paused until here, so that the file announces every stream before its first image.
                self._device.resume()
                # A frame that the recorder let pass when it was still paused may be on its way to the queue.
                self._unsure = set(self._waiting)
            # What came while sensors were still being started has no partner, and is not recorded.
            while self._queue.poll_for_frame():
                pass
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop and close what was opened, and let go of the device; an unplugged one is let go without complaint."""
        for sensor in self._sensors:
            for step in (sensor.stop, sensor.close):
                _do_if_possible(step)
        self._sensors.clear()
        self._waiting = {kind: deque() for kind in self._waiting}
        self._queue = None
        self._device = None

    def take(self, timeout_s: float) -> Instant | None:
        """The next instant in the order of time, or None where none came in time."""
        deadline_s = time.monotonic() + timeout_s
        while (instant := self._next_instant()) is None:
            left_ms = round((deadline_s - time.monotonic()) * 1e3)
            came, frame = self._queue.try_wait_for_frame(max(left_ms, 0))
            if not came:
                return None
            kind = StreamKind.named(frame.get_profile().stream_type().name)
            if kind is None or kind not in self._waiting:
                continue
            if kind in self._unsure:
                self._unsure.remove(kind)
            else:
                self.tallies[kind].count(frame.get_frame_number())
                self._waiting[kind].append(frame)
        return instant

    def _profiles_by_sensor(self) -> list[tuple[SdkSensor, list[SdkProfile]]]:
        chosen = choose_streams(self._device, self._settings)
        name = realsense().camera_info.name
        grouped: dict[str, tuple[SdkSensor, list[SdkProfile]]] = {}
        for sensor, profile in chosen.values():
            grouped.setdefault(sensor.get_info(name), (sensor, []))[1].append(profile)
        return list(grouped.values())

    def _next_instant(self) -> Instant | None:
        times_ns = {kind: timestamp_ns(queue[0]) for kind, queue in self._waiting.items() if queue}
        if not times_ns:
            return None
        first = min(times_ns, key=lambda kind: times_ns[kind])
        if len(times_ns) < len(self._waiting) and len(self._waiting[first]) <= PATIENCE:
            return None
        together = {kind for kind, each_ns in times_ns.items() if each_ns - times_ns[first] <= self._tolerance_ns}
        return self._pop(together)

    def _pop(self, kinds: set[StreamKind]) -> Instant:
        frames = {kind: self._waiting[kind].popleft() for kind in kinds}
        return Instant(frames.get(StreamKind.DEPTH), frames.get(StreamKind.COLOR), frames.get(StreamKind.INFRARED))


def _do_if_possible(step: SdkSensor) -> None:
    try:
        step()
    except RuntimeError:
        # The SDK says so of a device that is gone, or that had not been started.
        return
