"""Cameras and a USB bus made of software: the SDK's software device with a D4xx camera's sensors and options."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.camerasettings import StreamSettings
from depthcell.acquisition.deviceoptions import SdkDevice, serial_of
from depthcell.acquisition.sdk import realsense

SMALL = StreamSettings(64, 48, 30)
PERIOD_NS = 33_333_000
Range = tuple[float, float, float, float]

STEREO_OPTIONS: Mapping[str, Range] = {
    "exposure": (1, 165_000, 1, 8_500),
    "gain": (16, 248, 1, 16),
    "enable_auto_exposure": (0, 1, 1, 1),
    "emitter_enabled": (0, 2, 1, 1),
    "laser_power": (0, 360, 30, 150),
    "inter_cam_sync_mode": (0, 260, 1, 0),
    "global_time_enabled": (0, 1, 1, 1),
}
COLOR_OPTIONS: Mapping[str, Range] = {
    "exposure": (1, 10_000, 1, 156),
    "gain": (0, 128, 1, 64),
    "enable_auto_exposure": (0, 1, 1, 1),
    "global_time_enabled": (0, 1, 1, 1),
}


class SoftwareCamera:
    """A camera made of software, which the SDK treats as any other; its frames are sent by hand.

    It has the sensors and options of a D435, or, by that name, of a D405. Each image is random, decided by its number.

    Args:
        serial: serial number.
        stream: size and rate of both streams.
        model: D405, D415, D435 or D455; decides the name, and that a D405 takes colour through its stereo imagers.
    """

    def __init__(self, serial: str, stream: StreamSettings = SMALL, model: str = "D435") -> None:
        rs = realsense()
        self.rs, self.serial, self.stream = rs, serial, stream
        self.device = rs.software_device()
        for info, value in {
            "name": f"Intel RealSense {model}",
            "serial_number": serial,
            "firmware_version": "5.16.0.1",
            "usb_type_descriptor": "3.2",
            "product_line": "D400",
        }.items():
            self.device.register_info(getattr(rs.camera_info, info), value)
        self.stereo = self._sensor("Stereo Module", STEREO_OPTIONS)
        self.stereo.add_read_only_option(rs.option.depth_units, 0.001)
        self.stereo.add_read_only_option(rs.option.stereo_baseline, 50.0)
        self.stereo.add_read_only_option(rs.option.asic_temperature, 41.0)
        # As on the real camera, colour of a D405 comes from the stereo imagers.
        self.rgb = self.stereo if model == "D405" else self._sensor("RGB Camera", COLOR_OPTIONS)
        self.depth_profile = self._profile(self.stereo, rs.stream.depth, rs.format.z16, 2, 1)
        self.color_profile = self._profile(self.rgb, rs.stream.color, rs.format.rgb8, 3, 2)
        self.infrared_profile = self._profile(self.stereo, rs.stream.infrared, rs.format.y8, 1, 3, index=1)
        shift = rs.extrinsics()
        shift.rotation, shift.translation = [0, 1, 0, -1, 0, 0, 0, 0, 1], [0.015, 0.001, 0.002]
        self.depth_profile.register_extrinsics_to(self.color_profile, shift)

    def _sensor(self, name: str, options: Mapping[str, Range]) -> Any:
        sensor = self.device.add_sensor(name)
        for option, (low, high, step, default) in options.items():
            span = self.rs.option_range()
            span.min, span.max, span.step, span.default = low, high, step, default
            sensor.add_option(getattr(self.rs.option, option), span, True)
        return sensor

    def _profile(self, sensor: Any, kind: Any, pixel_format: Any, pixel_bytes: int, uid: int, index: int = 0) -> Any:
        lens = self.rs.intrinsics()
        lens.width, lens.height = self.stream.width_px, self.stream.height_px
        lens.fx = lens.fy = 0.6 * self.stream.width_px
        lens.ppx, lens.ppy = self.stream.width_px / 2, self.stream.height_px / 2
        lens.model, lens.coeffs = self.rs.distortion.brown_conrady, [0.0] * 5
        stream = self.rs.video_stream()
        stream.type, stream.fmt, stream.bpp, stream.uid, stream.index = kind, pixel_format, pixel_bytes, uid, index
        stream.width, stream.height, stream.fps = self.stream.width_px, self.stream.height_px, self.stream.fps
        stream.intrinsics = lens
        return sensor.add_video_stream(stream)

    def depth_counts(self, number: int) -> NDArray[Any]:
        """The depth image of this number, (H, W) uint16."""
        rng = np.random.default_rng(number)
        return rng.integers(0, 60_000, (self.stream.height_px, self.stream.width_px), np.uint16)

    def rgb_image(self, number: int) -> NDArray[Any]:
        """The colour image of this number, (H, W, 3) uint8."""
        rng = np.random.default_rng(number + 1_000_000)
        return rng.integers(0, 256, (self.stream.height_px, self.stream.width_px, 3), np.uint8)

    def send_depth(self, number: int, time_ns: int | None = None, counts: NDArray[Any] | None = None) -> None:
        """Send one depth image, by default that of `number` at `number` frame intervals."""
        counts = self.depth_counts(number) if counts is None else counts
        self._send(self.stereo, self.depth_profile, counts, number, time_ns)

    def send_color(self, number: int, time_ns: int | None = None, rgb: NDArray[Any] | None = None) -> None:
        """Send one colour image, by default that of `number` at `number` frame intervals."""
        self._send(self.rgb, self.color_profile, self.rgb_image(number) if rgb is None else rgb, number, time_ns)

    def infrared_image(self, number: int) -> NDArray[Any]:
        """The left infrared image of this number, (H, W) uint8."""
        rng = np.random.default_rng(number + 2_000_000)
        return rng.integers(0, 256, (self.stream.height_px, self.stream.width_px), np.uint8)

    def send_infrared(
        self, number: int, time_ns: int | None = None, intensity: NDArray[np.uint8] | None = None
    ) -> None:
        """Send one left infrared image, by default that of `number` at `number` frame intervals."""
        intensity = self.infrared_image(number) if intensity is None else intensity
        self._send(self.stereo, self.infrared_profile, intensity, number, time_ns)

    def send(self, number: int, time_ns: int | None = None) -> None:
        """Depth and colour of one instant."""
        self.send_depth(number, time_ns)
        self.send_color(number, time_ns)

    def _send(self, sensor: Any, profile: Any, pixels: NDArray[Any], number: int, time_ns: int | None) -> None:
        frame = self.rs.software_video_frame()
        frame.pixels = pixels
        frame.bpp = pixels.itemsize * (3 if pixels.ndim == 3 else 1)
        frame.stride = frame.bpp * pixels.shape[1]
        frame.timestamp = (number * PERIOD_NS if time_ns is None else time_ns) / 1e6
        frame.domain = self.rs.timestamp_domain.hardware_clock
        frame.frame_number = number
        frame.profile = profile.as_video_stream_profile()
        if pixels.dtype == np.uint16:
            frame.depth_units = 0.001
        sensor.on_video_frame(frame)


@dataclass
class SoftwareBus:
    """A USB bus of software cameras, plugged in and out by hand; a `DeviceSource`.

    Attributes:
        cameras: what is plugged in, by serial number.
        finds: serial numbers that were looked for.
        waits_s: times that were waited for a change.
    """

    cameras: dict[str, SoftwareCamera] = field(default_factory=dict)
    finds: list[str] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    _changed: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, *cameras: SoftwareCamera) -> "SoftwareBus":
        """A bus with these cameras plugged in."""
        return cls({camera.serial: camera for camera in cameras})

    def plug(self, camera: SoftwareCamera) -> None:
        """Plug a camera in, in the place of one with the same serial number."""
        self.cameras[camera.serial] = camera
        self._changed.set()

    def unplug(self, serial: str) -> None:
        """Pull a camera's cable."""
        del self.cameras[serial]
        self._changed.set()

    def serials(self) -> tuple[str, ...]:
        """See `DeviceSource`."""
        return tuple(self.cameras)

    def find(self, serial: str) -> SdkDevice | None:
        """See `DeviceSource`."""
        self.finds.append(serial)
        camera = self.cameras.get(serial)
        return camera.device if camera else None

    def is_connected(self, device: SdkDevice) -> bool:
        """See `DeviceSource`."""
        camera = self.cameras.get(serial_of(device))
        return camera is not None and camera.device is device

    def wait_for_change(self, timeout_s: float) -> bool:
        """See `DeviceSource`."""
        self.waits_s.append(timeout_s)
        has_changed = self._changed.wait(timeout_s)
        self._changed.clear()
        return has_changed
