"""One live RealSense camera that survives being unplugged. `capture()` takes an instant; `read()` gives it."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from depthcell.acquisition.camerasettings import CameraSettings, SyncRole
from depthcell.acquisition.deviceoptions import SdkDevice, choose_streams, configure
from depthcell.acquisition.devicesource import DeviceSource
from depthcell.acquisition.frameset import CameraFrame
from depthcell.acquisition.recordedframe import StreamKind
from depthcell.acquisition.sdk import realsense
from depthcell.acquisition.sdkframe import camera_frame
from depthcell.acquisition.sensorstreams import FrameTally, Instant, SensorStreams
from depthcell.errors import DepthcellError, Reason

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 2.0


def as_it_is(device: SdkDevice) -> SdkDevice:
    """The device itself: what a camera that is not recorded streams from."""
    return device


class RealSenseCamera:
    """A camera by its serial number, from `with` until the end of the block.

    Nothing is opened before the block. On entry the settings are applied and verified; the device is never reset.
    When frames stop, because the cable was pulled or the camera hangs, its streams are closed and opened anew as soon
    as it is back, with pauses that double from 0.1 s to 2 s; meanwhile `capture` returns False.

    Args:
        settings: which camera, and what is asked of it.
        source: where devices come from.
        wrap: what the streams are opened on, given the configured device; the recorder hooks in here.
    """

    def __init__(
        self,
        settings: CameraSettings,
        source: DeviceSource,
        wrap: Callable[[SdkDevice], SdkDevice] = as_it_is,
    ) -> None:
        self.settings = settings
        self._source = source
        self._wrap = wrap
        self._device: SdkDevice | None = None
        self._streams: SensorStreams | None = None
        self._instant: Instant | None = None
        self._identity = (settings.serial, "")
        self._baseline_m: float | None = None
        self._seen_s = 0.0
        self._opened_s = 0.0
        self._retry_s = FIRST_RETRY_S
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
            self._retry_s = FIRST_RETRY_S
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
        return camera_frame(self._identity, self._instant.depth, self._instant.color, self._baseline_m)

    def _open(self) -> None:
        device = self._source.find(self.settings.serial)
        if device is None:
            raise RuntimeError("the device is away")
        rs = realsense()
        chosen = choose_streams(device, self.settings)
        configure(device, self.settings, chosen)
        self._identity = (self.settings.serial, device.get_info(rs.camera_info.name))
        depth = chosen.get(StreamKind.DEPTH)
        if depth is not None and depth[0].supports(rs.option.stereo_baseline):
            self._baseline_m = depth[0].get_option(rs.option.stereo_baseline) / 1e3
        self._streams = SensorStreams(self._wrap(device), self.settings).__enter__()
        self._tallies.append(self._streams.tallies)
        self._device = device
        self._opened_s = time.monotonic()

    def _reopen(self, deadline_s: float) -> bool:
        """Try to open the camera until the deadline, at growing intervals."""
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._source.wait_for_change(min(self._retry_s, left_s))
            self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
            try:
                self._open()
            except (RuntimeError, DepthcellError) as error:
                # Away, or not yet ready: a camera answers some time before it can be opened.
                if isinstance(error, DepthcellError) and error.reason is not Reason.DEVICE_LOST:
                    raise
                continue
            return True
        return False

    def _look_after_silence(self) -> None:
        now_s = time.monotonic()
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
        if not is_there or now_s - max(self._seen_s, self._opened_s) > self.settings.silent_after_s:
            self._close()

    def _close(self) -> None:
        if self._streams is not None:
            self._streams.close()
        self._streams = self._device = self._instant = None
