"""One live RealSense camera that survives being unplugged. `capture()` takes an instant; `read()` gives it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import Self

from depthcell.acquisition.camerasettings import CameraSettings, SyncRole
from depthcell.acquisition.deviceoptions import SdkDevice, choose_streams, configure
from depthcell.acquisition.devicesource import DeviceSource
from depthcell.acquisition.frameset import CameraFrame
from depthcell.acquisition.recordedframe import StreamKind
from depthcell.acquisition.sdk import realsense
from depthcell.acquisition.sdkframe import Instant, camera_frame
from depthcell.acquisition.sensorstreams import FrameTally, SensorStreams
from depthcell.errors import DepthcellError, Reason

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 2.0
SHORT_SILENCE_S = 0.2
"""Silence that is no reason yet to ask whether the device is still there."""


class RealSenseCamera:
    """A camera by its serial number, from `with` until the end of the block.

    Nothing is opened before the block. On entry the settings are applied and verified; the device is never reset.
    When frames stop, because the cable was pulled or the camera hangs, its streams are closed and opened anew as soon
    as it is back, with pauses that double from 0.1 s to 2 s; meanwhile `capture` returns False.

    Args:
        settings: which camera, and what is asked of it.
        source: where devices come from.
        wrap: gives, round the configured device, what the streams are opened on, and ends once they are stopped; the
            recorder hooks in here.
    """

    def __init__(
        self,
        settings: CameraSettings,
        source: DeviceSource,
        wrap: Callable[[SdkDevice], AbstractContextManager[SdkDevice]] = nullcontext,
    ) -> None:
        self.settings = settings
        self._source = source
        self._wrap = wrap
        self._device: SdkDevice | None = None
        self._streams: SensorStreams | None = None
        self._opened = ExitStack()
        self._instant: Instant | None = None
        self._identity = (settings.serial, "")
        self._baseline_m: float | None = None
        self._seen_s = 0.0
        self._opened_s = 0.0
        self._retry_s = FIRST_RETRY_S
        self._retry_at_s = 0.0
        self._tallies: list[dict[StreamKind, FrameTally]] = []

    def __enter__(self) -> Self:
        """Open the camera.

        Raises:
            DepthcellError: it is not connected, used by another program, or does not take a setting.
        """
        serial = self.settings.serial
        if self._source.find(serial) is None:
            there = ", ".join(self._source.serials()) or "none"
            raise DepthcellError(
                f"camera {serial}: not connected (there are: {there}); check its cable and run: depthcell devices",
                Reason.DEVICE_MISSING,
            )
        self._seen_s = time.monotonic()
        try:
            self._open()
        except RuntimeError as error:
            raise DepthcellError(
                f"camera {serial}: cannot be opened ({error}); close other programs that use it", Reason.DEVICE_MISSING
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    @property
    def is_open(self) -> bool:
        """Whether its streams are open; False while it is away."""
        return self._streams is not None

    @property
    def tallies(self) -> dict[StreamKind, FrameTally]:
        """Frames received and dropped so far, by stream, over all times it was opened."""
        return {
            kind: FrameTally(
                sum(each[kind].received for each in self._tallies), sum(each[kind].dropped for each in self._tallies)
            )
            for kind in self.settings.streams
        }

    @property
    def received_since_opened(self) -> int:
        """Frames of all streams since it was opened last."""
        return sum(tally.received for tally in self._tallies[-1].values()) if self._tallies else 0

    def capture(self, timeout_s: float = 1.0) -> bool:
        """Take the next instant, which `read` then gives.

        Returns:
            False where none came in time: the camera is silent or away, and its frame is to be reported missing.

        Raises:
            DepthcellError: no frame came for `lost_after_s` (`Reason.DEVICE_LOST`), or the camera came back but no
                longer takes its settings, as on a USB 2 port.
        """
        self._instant = None
        deadline_s = time.monotonic() + timeout_s
        if self._streams is not None or self._reopen(deadline_s):
            self._instant = self._streams.take(max(deadline_s - time.monotonic(), 0.0)) if self._streams else None
        if self._instant is not None:
            self._seen_s = time.monotonic()
            return True
        self._look_after_silence()
        return False

    def read(self) -> CameraFrame:
        """The images of the instant captured last; every call gives the same.

        Raises:
            DepthcellError: the last `capture` took nothing.
        """
        if self._instant is None:
            raise DepthcellError(f"camera {self.settings.serial}: nothing was captured; call capture() first")
        return camera_frame(self._identity, self._instant, self._baseline_m)

    def _open(self) -> None:
        device = self._source.find(self.settings.serial)
        if device is None:
            raise RuntimeError("the device is away")
        rs = realsense()
        chosen = choose_streams(device, self.settings)
        configure(device, self.settings, chosen)
        self._identity = (self.settings.serial, device.get_info(rs.camera_info.name))
        depth = chosen.get(StreamKind.DEPTH) or chosen.get(StreamKind.INFRARED)
        if depth is not None and depth[0].supports(rs.option.stereo_baseline):
            self._baseline_m = depth[0].get_option(rs.option.stereo_baseline) / 1e3
        with ExitStack() as opened:
            streams = SensorStreams(opened.enter_context(self._wrap(device)), self.settings)
            self._streams = opened.enter_context(streams)
            self._opened = opened.pop_all()
        self._tallies.append(streams.tallies)
        self._device = device
        self._opened_s = time.monotonic()
        self._retry_s = FIRST_RETRY_S

    def _reopen(self, deadline_s: float) -> bool:
        """Try to open the camera whenever a device came or went or the next pause is over, until the deadline."""
        while True:
            left_s = min(self._retry_at_s, deadline_s) - time.monotonic()
            has_changed = left_s > 0 and self._source.wait_for_change(left_s)
            if not has_changed and time.monotonic() < self._retry_at_s:
                return False
            try:
                self._open()
            except (RuntimeError, DepthcellError) as error:
                # Away, or not yet ready: a camera answers some time before it can be opened.
                if isinstance(error, DepthcellError) and error.reason is not Reason.DEVICE_LOST:
                    raise
            else:
                return True
            self._retry_at_s = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
            if time.monotonic() >= deadline_s:
                return False

    def _look_after_silence(self) -> None:
        now_s = time.monotonic()
        silence_s = now_s - max(self._seen_s, self._opened_s)
        if self._streams is not None and silence_s < min(SHORT_SILENCE_S, self.settings.silent_after_s):
            return
        is_there = self._device is not None and self._source.is_connected(self._device)
        if is_there and self.settings.sync is SyncRole.GENLOCK:
            self._seen_s = now_s  # it waits for its trigger
            return
        if now_s - self._seen_s > self.settings.lost_after_s:
            raise DepthcellError(
                f"camera {self.settings.serial}: no frame for {now_s - self._seen_s:.1f} s; check its cable and hub, "
                "plug it in again, and start anew",
                Reason.DEVICE_LOST,
            )
        if not is_there or silence_s > self.settings.silent_after_s:
            self._close()

    def _close(self) -> None:
        self._streams = self._device = self._instant = None
        self._opened.close()
