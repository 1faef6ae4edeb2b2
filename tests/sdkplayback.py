"""Plays a recording with the SDK itself and prints what it returned, as JSON: the peer of depthcell's reader.

Run as a process of its own, since the SDK's playback can hang and cannot be stopped from within:
`python tests/sdkplayback.py RECORDING [--count]`. With `--count` the frames are only counted, not looked at.
"""

import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from depthcell.acquisition.sdk import realsense

SILENCE_S = 10.0
"""Without an end of the file or a frame for so long, the playback is taken to hang."""


def play(path: Path, is_counting: bool) -> dict[str, Any]:
    """Frames in the order the SDK gave them, seconds between start and end, extrinsics, intrinsics and options."""
    rs = realsense()
    device = rs.context().load_device(str(path))
    device.as_playback().set_real_time(False)
    frames: list[Any] = []
    ended = threading.Event()
    latest = [time.monotonic()]

    def keep(frame: Any) -> None:
        latest[0] = time.monotonic()
        frames.append(None if is_counting else _described(rs, frame))

    device.as_playback().set_status_changed_callback(
        lambda status: ended.set() if status == rs.playback_status.stopped else None
    )
    sensors = [sensor for sensor in device.query_sensors() if sensor.get_stream_profiles()]
    profiles = {sensor: sensor.get_stream_profiles() for sensor in sensors}
    for sensor in sensors:
        sensor.open(profiles[sensor])
    start, start_cpu = time.perf_counter(), time.process_time()
    for sensor in sensors:
        sensor.start(keep)
    while not ended.wait(0.0005) and time.monotonic() - latest[0] < SILENCE_S:
        pass
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    took = {"seconds": seconds, "cpu_seconds": cpu_seconds, "ended": ended.is_set()}
    return {"frames": frames, **took, **_header(rs, profiles)}


def _described(rs: Any, frame: Any) -> dict[str, Any]:
    pixels = np.asanyarray(frame.get_data())
    metadata = {
        str(name): frame.get_frame_metadata(value)
        for name, value in rs.frame_metadata_value.__members__.items()
        if frame.supports_frame_metadata(value)
    }
    return {
        "stream": frame.profile.stream_type().name,
        "index": frame.profile.stream_index(),
        "format": frame.profile.format().name,
        "number": frame.get_frame_number(),
        "timestamp_ms": frame.get_timestamp(),
        "domain": frame.get_frame_timestamp_domain().name,
        "shape": list(pixels.shape),
        "sha256": hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest(),
        "units_m": frame.as_depth_frame().get_units() if frame.is_depth_frame() else None,
        "metadata": metadata,
    }


def _header(rs: Any, profiles: dict[Any, list[Any]]) -> dict[str, Any]:
    streams = {profile.stream_type().name: profile for found in profiles.values() for profile in found}
    extrinsics = None
    if {"depth", "color"} <= streams.keys():
        found = streams["depth"].get_extrinsics_to(streams["color"])
        extrinsics = {"rotation_by_columns": found.rotation, "translation_m": found.translation}
    options = {}
    for sensor in profiles:
        values = {}
        for option in sensor.get_supported_options():
            values[option.name] = sensor.get_option(option)
        options[sensor.get_info(rs.camera_info.name)] = values
    return {"extrinsics": extrinsics, "options": options, "intrinsics": _intrinsics(streams)}


def _intrinsics(streams: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, profile in streams.items():
        if profile.is_video_stream_profile():
            lens = profile.as_video_stream_profile().get_intrinsics()
            size, focal, centre = (lens.width, lens.height), (lens.fx, lens.fy), (lens.ppx, lens.ppy)
            found[name] = [*size, *focal, *centre, lens.model.name, *lens.coeffs]
    return found


if __name__ == "__main__":
    print(json.dumps(play(Path(sys.argv[1]), "--count" in sys.argv)), flush=True)
    os._exit(0)  # the SDK's threads can hang when the interpreter ends in order
