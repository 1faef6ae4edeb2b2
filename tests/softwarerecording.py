"""Writes small genuine recordings: the SDK's software device plays known images, the SDK's recorder keeps them.

Runs with old SDKs too, which write the older formats; that is how the files in `tests/data` were made:
`PYTHONPATH=. python tests/softwarerecording.py OUT.bag [--raw]` with pyrealsense2 2.57 or 2.58.
"""

import gc
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.sdk import realsense

SERIAL, MODEL, FIRMWARE = "SIM001", "Intel RealSense D405", "05.12.14.100"
UNITS_M, BASELINE_MM = 0.0001, 18.0
SHAPES = {"z16": 1, "y8": 1, "y16": 1, "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "yuyv": 2, "uyvy": 2}
"""Values per pixel, by format."""
ROTATION = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
"""From depth to colour: a rotation far from its transpose and from the identity."""
TRANSLATION_M = np.array([0.015, -0.002, 0.001])


@dataclass(frozen=True, slots=True)
class Plan:
    """What to record."""

    width_px: int = 32
    height_px: int = 24
    frames: int = 5
    color: str | None = "rgb8"
    infrared: str | None = None
    is_packed: bool = True
    color_delay_ms: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """One image that was recorded."""

    kind: str
    number: int
    timestamp_ms: float
    pixels: NDArray[Any]


def record(path: Path, plan: Plan) -> list[Written]:
    """Record to `path` and return what was played, in order."""
    images = planned_images(plan)
    _record(path, plan, images)
    gc.collect()  # the recorder closes its file when the last object that knows it is gone
    return images


def _record(path: Path, plan: Plan, images: list[Written]) -> None:
    rs = realsense()
    device = rs.software_device()
    device.register_info(rs.camera_info.name, MODEL)
    device.register_info(rs.camera_info.serial_number, SERIAL)
    device.register_info(rs.camera_info.firmware_version, FIRMWARE)
    stereo = device.add_sensor("Stereo Module")
    stereo.add_read_only_option(rs.option.depth_units, UNITS_M)
    stereo.add_read_only_option(rs.option.stereo_baseline, BASELINE_MM)
    streams = {"depth": (stereo, stereo.add_video_stream(_stream(rs, plan, "depth", "z16"), True))}
    if plan.infrared is not None:
        infrared = stereo.add_video_stream(_stream(rs, plan, "infrared", plan.infrared), True)
        streams["infrared"] = (stereo, infrared)
    if plan.color is not None:
        rgb = device.add_sensor("RGB Camera")
        streams["color"] = (rgb, rgb.add_video_stream(_stream(rs, plan, "color", plan.color), True))
        streams["depth"][1].register_extrinsics_to(streams["color"][1], _extrinsics(rs))
    recorder = rs.recorder(str(path), device, plan.is_packed)
    sensors = recorder.query_sensors()
    for sensor in sensors:
        owned = [profile for owner, profile in streams.values() if _name(rs, owner) == _name(rs, sensor)]
        sensor.open(owned)
        sensor.start(lambda _frame: None)
    _play(rs, images, streams)
    for sensor in sensors:
        sensor.stop()
        sensor.close()


def _name(rs: Any, sensor: Any) -> str:
    return str(sensor.get_info(rs.camera_info.name))


def planned_images(plan: Plan) -> list[Written]:
    """The images of a plan in the order they are played; the same for the same plan."""
    rng = np.random.default_rng(plan.seed)
    formats = {"depth": "z16", "infrared": plan.infrared, "color": plan.color}
    images = []
    for number in range(plan.frames):
        for kind, name in formats.items():
            if name is None:
                continue
            timestamp_ms = 1000 + number * 1000 / 30 + (plan.color_delay_ms if kind == "color" else 0.0)
            dtype = np.uint16 if name in ("z16", "y16") else np.uint8
            shape = (plan.height_px, plan.width_px, SHAPES[name])[: 2 + (SHAPES[name] > 1)]
            pixels = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
            images.append(Written(kind, number + 7, timestamp_ms, pixels))
    return images


def _play(rs: Any, images: list[Written], streams: dict[str, tuple[Any, Any]]) -> None:
    for image in images:
        sensor, profile = streams[image.kind]
        frame = rs.software_video_frame()
        frame.pixels, frame.bpp = image.pixels, image.pixels[0, 0].nbytes
        frame.stride = frame.bpp * image.pixels.shape[1]
        frame.timestamp, frame.domain = image.timestamp_ms, rs.timestamp_domain.hardware_clock
        frame.frame_number, frame.profile = image.number, profile.as_video_stream_profile()
        if image.kind == "depth":
            frame.depth_units = UNITS_M
        sensor.set_metadata(rs.frame_metadata_value.actual_exposure, 5000 + image.number)
        sensor.set_metadata(rs.frame_metadata_value.gain_level, 16)
        sensor.on_video_frame(frame)
        time.sleep(0.002)
    time.sleep(0.1)


def _stream(rs: Any, plan: Plan, kind: str, name: str) -> Any:
    lens = rs.intrinsics()
    lens.width, lens.height = plan.width_px, plan.height_px
    lens.fx, lens.fy = plan.width_px * 0.51, plan.width_px * 0.52
    lens.ppx, lens.ppy = plan.width_px / 2 - 0.5, plan.height_px / 2 + 0.25
    lens.model, lens.coeffs = rs.distortion.brown_conrady, [0.01, -0.02, 0.003, 0.004, -0.005]
    stream = rs.video_stream()
    stream.type, stream.fmt = getattr(rs.stream, kind), getattr(rs.format, name)
    stream.index, stream.uid = (1, 3) if kind == "infrared" else (0, 1 if kind == "depth" else 2)
    stream.width, stream.height, stream.fps = plan.width_px, plan.height_px, 30
    stream.bpp = SHAPES[name] * (2 if name in ("z16", "y16") else 1)
    stream.intrinsics = lens
    return stream


def _extrinsics(rs: Any) -> Any:
    extrinsics = rs.extrinsics()
    extrinsics.rotation = ROTATION.T.ravel().tolist()  # librealsense stores it column by column
    extrinsics.translation = TRANSLATION_M.tolist()
    return extrinsics


if __name__ == "__main__":
    record(Path(sys.argv[1]), Plan(is_packed="--raw" not in sys.argv))
