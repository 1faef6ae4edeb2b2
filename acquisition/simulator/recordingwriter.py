"""Frames become a genuine RealSense recording: the SDK's software device plays them, the SDK's recorder writes them."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.sdk import realsense
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.files import written_beside

ATTEMPTS = 3
_NO_MAPPING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class WrittenDevice:
    """What a recording says about the camera itself.

    Attributes:
        serial: serial number; model: as the device names itself, e.g. "Intel RealSense D405".
        depth: intrinsics of the depth stream; color: of the colour stream, None without one.
        T_color_depth: factory extrinsics from "depth:<serial>" to "color:<serial>", None without colour.
        units_m: metres per count of the depth image.
        baseline_m: of the stereo pair.
        frame_rate_hz: of both streams.
        color_from_left: whether the left imager gives the colour too, as in a D405, whose colour stream belongs to the
            stereo sensor; other cameras have a sensor of its own for it.
        infrared: whether the left imager's images are recorded too: stream "infrared 1", on the depth stream's grid.
        options: further options of the depth sensor by their SDK name, e.g. {"exposure": 8000.0}.
    """

    serial: str
    model: str
    depth: Intrinsics
    color: Intrinsics | None
    T_color_depth: RigidTransform | None
    units_m: float
    baseline_m: float
    frame_rate_hz: int = 30
    color_from_left: bool = False
    infrared: bool = False
    options: Mapping[str, float] = field(default_factory=lambda: _NO_MAPPING)


@dataclass(frozen=True, slots=True, eq=False)
class WrittenFrame:
    """One instant of one camera.

    Attributes:
        depth_counts: (H, W) uint16, 0 where nothing was measured.
        rgb: (H, W, 3) uint8, or None.
        timestamp_ns: hardware clock; the SDK keeps microseconds.
        color_delay_ns: time from the depth image to the colour image.
        number: the camera's frame counter.
        metadata: by SDK name, e.g. {"gain_level": 16}; whole numbers only, the SDK keeps no others.
        infrared: (H, W) uint8 of the left imager at the depth image's time, or None.
    """

    depth_counts: NDArray[np.uint16]
    rgb: NDArray[np.uint8] | None
    timestamp_ns: int
    number: int
    color_delay_ns: int = 0
    metadata: Mapping[str, float] = field(default_factory=lambda: _NO_MAPPING)
    infrared: NDArray[np.uint8] | None = None


def write_recording(path: Path, device: WrittenDevice, frames: Sequence[WrittenFrame]) -> None:
    """Write `frames` as a `.db3` recording of `device`, whole or not at all.

    The SDK's recorder works in a thread of its own and reports no loss. So the file is counted afterwards, and
    written again if a frame is missing.

    Raises:
        DepthcellError: the suffix is not .db3, or the recorder lost frames in three attempts.
    """
    if path.suffix != ".db3":
        raise DepthcellError(f"recording {path}: the SDK writes .db3 files only; change the suffix")
    expected = len(frames) * (1 + (device.color is not None) + device.infrared)
    with written_beside(path) as partial:
        for _ in range(ATTEMPTS):
            partial.unlink(missing_ok=True)
            _record(partial, device, frames)
            if _image_count(partial) == expected:
                return
        raise DepthcellError(f"recording {path}: the SDK's recorder lost frames {ATTEMPTS} times; free memory and disk")


def _image_count(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        query = "SELECT count(*) FROM messages m JOIN topics t ON m.topic_id = t.id WHERE t.name LIKE '%/image/data%'"
        return int(database.execute(query).fetchone()[0])


def _record(path: Path, device: WrittenDevice, frames: Sequence[WrittenFrame]) -> None:
    rs = realsense()
    source = rs.software_device()
    source.register_info(rs.camera_info.name, device.model)
    source.register_info(rs.camera_info.serial_number, device.serial)
    stereo = _stereo_sensor(rs, source, device)
    streams = _add_streams(rs, source, stereo, device)
    recorder = rs.recorder(str(path), source)
    recording_sensors = recorder.query_sensors()
    for sensor in recording_sensors:
        sensor.open(sensor.get_stream_profiles())
        sensor.start(lambda _frame: None)
    for frame in frames:
        _play(rs, frame, device, streams)
    for sensor in recording_sensors:
        sensor.stop()
        sensor.close()


def _add_streams(rs: Any, source: Any, stereo: Any, device: WrittenDevice) -> dict[str, tuple[Any, Any]]:
    """Sensor and profile of each stream that the device has, in the order in which an instant's images are sent."""
    depth_profile = _depth_stream(rs, stereo, device)
    streams = {"depth": (stereo, depth_profile)}
    if device.infrared:
        streams["infrared"] = (stereo, _infrared_stream(rs, stereo, device))
        same_place = RigidTransform.identity("infrared", "depth")
        depth_profile.register_extrinsics_to(streams["infrared"][1], _extrinsics(rs, same_place))
    if device.color is not None:
        color_sensor = stereo if device.color_from_left else source.add_sensor("RGB Camera")
        streams["colour"] = (color_sensor, _color_stream(rs, color_sensor, device))
        depth_profile.register_extrinsics_to(streams["colour"][1], _extrinsics(rs, device.T_color_depth))
    return streams


def _play(rs: Any, frame: WrittenFrame, device: WrittenDevice, streams: Mapping[str, tuple[Any, Any]]) -> None:
    images = {
        "depth": (frame.depth_counts, frame.timestamp_ns),
        "infrared": (frame.infrared, frame.timestamp_ns),
        "colour": (frame.rgb, frame.timestamp_ns + frame.color_delay_ns),
    }
    for name, (sensor, profile) in streams.items():
        pixels, timestamp_ns = images[name]
        if pixels is None:
            raise DepthcellError(f"recording of {device.serial}: frame {frame.number} has no {name} image; add it")
        for key, value in {**frame.metadata, "frame_timestamp": timestamp_ns // 1000}.items():
            sensor.set_metadata(getattr(rs.frame_metadata_value, key), int(value))
        image = rs.software_video_frame()
        image.pixels = np.ascontiguousarray(pixels)
        image.bpp = pixels.itemsize * (pixels.shape[2] if pixels.ndim == 3 else 1)
        image.stride = image.bpp * pixels.shape[1]
        image.timestamp = timestamp_ns / 1e6
        image.domain = rs.timestamp_domain.hardware_clock
        image.frame_number = frame.number
        image.profile = profile.as_video_stream_profile()
        if name == "depth":
            image.depth_units = device.units_m
        sensor.on_video_frame(image)


def _stereo_sensor(rs: Any, source: Any, device: WrittenDevice) -> Any:
    sensor = source.add_sensor("Stereo Module")
    sensor.add_read_only_option(rs.option.depth_units, device.units_m)
    sensor.add_read_only_option(rs.option.stereo_baseline, device.baseline_m * 1e3)
    for name, value in device.options.items():
        sensor.add_read_only_option(getattr(rs.option, name), value)
    return sensor


def _depth_stream(rs: Any, sensor: Any, device: WrittenDevice) -> Any:
    stream = _video_stream(rs, device.depth, device.frame_rate_hz)
    stream.type, stream.uid, stream.fmt, stream.bpp = rs.stream.depth, 1, rs.format.z16, 2
    return sensor.add_video_stream(stream, True)


def _infrared_stream(rs: Any, sensor: Any, device: WrittenDevice) -> Any:
    stream = _video_stream(rs, device.depth, device.frame_rate_hz)
    stream.type, stream.uid, stream.fmt, stream.bpp, stream.index = rs.stream.infrared, 3, rs.format.y8, 1, 1
    return sensor.add_video_stream(stream, True)


def _color_stream(rs: Any, sensor: Any, device: WrittenDevice) -> Any:
    assert device.color is not None  # noqa: S101 - the caller asked; tells the type checker
    stream = _video_stream(rs, device.color, device.frame_rate_hz)
    stream.type, stream.uid, stream.fmt, stream.bpp = rs.stream.color, 2, rs.format.rgb8, 3
    return sensor.add_video_stream(stream, True)


def _video_stream(rs: Any, intrinsics: Intrinsics, frame_rate_hz: int) -> Any:
    written = rs.intrinsics()
    written.width, written.height = intrinsics.width_px, intrinsics.height_px
    written.fx, written.fy = intrinsics.fx_px, intrinsics.fy_px
    written.ppx, written.ppy = intrinsics.cx_px, intrinsics.cy_px
    written.model = getattr(rs.distortion, intrinsics.distortion.value)
    written.coeffs = list(intrinsics.coefficients)
    stream = rs.video_stream()
    stream.width, stream.height, stream.fps = intrinsics.width_px, intrinsics.height_px, frame_rate_hz
    stream.index, stream.intrinsics = 0, written
    return stream


def _extrinsics(rs: Any, T_color_depth: RigidTransform | None) -> Any:
    if T_color_depth is None:
        raise DepthcellError("recording: a colour stream needs T_color_depth; give the factory extrinsics")
    written = rs.extrinsics()
    # librealsense stores rotations column by column (rs2_extrinsics in rs_sensor.h).
    written.rotation = T_color_depth.rotation.T.ravel().tolist()
    written.translation = T_color_depth.translation_m.tolist()
    return written
