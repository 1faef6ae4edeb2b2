"""A device brought to its settings: every option is read back after it was set, and refused by name if it differs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from depthcell.acquisition.camerasettings import CameraSettings, ExposureSettings, StreamSettings, SyncRole
from depthcell.acquisition.recordedframe import StreamKind
from depthcell.acquisition.sdk import realsense
from depthcell.errors import DepthcellError, Reason

SdkDevice: TypeAlias = Any
SdkSensor: TypeAlias = Any
SdkProfile: TypeAlias = Any

FORMATS = {StreamKind.DEPTH: "z16", StreamKind.COLOR: "rgb8", StreamKind.INFRARED: "y8"}
LEFT_IMAGER = 1
"""Index of the infrared stream whose image lies on the depth image's grid."""
COLOR_EXPOSURE_UNIT_US = 100
"""The colour sensor's option `exposure` counts in 100 us (UVC "Exposure Time, Absolute"), the stereo sensor's in us."""

Chosen: TypeAlias = Mapping[StreamKind, tuple[SdkSensor, SdkProfile]]


def serial_of(device: SdkDevice) -> str:
    """The device's serial number."""
    return str(device.get_info(realsense().camera_info.serial_number))


def choose_streams(device: SdkDevice, settings: CameraSettings) -> Chosen:
    """The sensor and the profile of each stream asked for.

    Raises:
        DepthcellError: the device does not offer one; the message lists what it offers.
    """
    return {kind: _choose(device, settings.serial, kind, stream) for kind, stream in settings.streams.items()}


def _choose(device: SdkDevice, serial: str, kind: StreamKind, wanted: StreamSettings) -> tuple[SdkSensor, SdkProfile]:
    rs = realsense()
    offered: set[StreamSettings] = set()
    for sensor in device.query_sensors():
        for profile in sensor.get_stream_profiles():
            if profile.stream_type() != rs.stream.__members__[kind] or profile.format().name != FORMATS[kind]:
                continue
            if kind is StreamKind.INFRARED and profile.stream_index() != LEFT_IMAGER:
                continue
            video = profile.as_video_stream_profile()
            stream = StreamSettings(video.width(), video.height(), profile.fps())
            if stream == wanted:
                return sensor, profile
            offered.add(stream)
    ordered = sorted(offered, key=lambda each: (each.width_px, each.height_px, each.fps))
    choices = ", ".join(map(str, ordered)) or "none at all"
    raise DepthcellError(
        f"camera {serial}: {kind} {wanted} ({FORMATS[kind]}) is not offered, but {choices}; choose one of these, "
        "or use a USB 3 port and cable if one is lacking"
    )


def configure(device: SdkDevice, settings: CameraSettings, chosen: Chosen) -> None:
    """Set all that `settings` names, preset first, and verify that it was taken. Call it before streams are opened.

    Time stamps are brought to the camera's own hardware clock.

    Raises:
        DepthcellError: the device lacks an option, or does not take a value; the message names its range.
    """
    if settings.preset is not None:
        load_preset(realsense().rs400_advanced_mode, device, settings.preset)
    sensors = {kind: sensor for kind, (sensor, _) in chosen.items()}
    for sensor in sensors.values():
        # Global time is a fit of the host's clock by the SDK: it jitters and jumps.
        _set_where_offered(sensor, settings.serial, "global_time_enabled", 0)
    stereo = sensors.get(StreamKind.DEPTH) or sensors.get(StreamKind.INFRARED)
    if stereo is not None:
        _configure_depth(stereo, settings)
    if settings.color_exposure is not None:
        color = sensors.get(StreamKind.COLOR)
        if color is None or _is_same(color, stereo):
            raise DepthcellError(
                f"camera {settings.serial}: color_exposure: it has no colour stream of a sensor of its own; "
                "set depth_exposure instead"
            )
        _expose(color, settings.serial, settings.color_exposure, COLOR_EXPOSURE_UNIT_US)


def _configure_depth(sensor: SdkSensor, settings: CameraSettings) -> None:
    serial = settings.serial
    if settings.sync is SyncRole.INDEPENDENT:
        _set_where_offered(sensor, serial, "inter_cam_sync_mode", settings.sync)
    else:
        set_option(sensor, serial, "inter_cam_sync_mode", settings.sync)
    if settings.depth_exposure is not None:
        _expose(sensor, serial, settings.depth_exposure, 1)
    if settings.emitter is not None:
        set_option(sensor, serial, "emitter_enabled", settings.emitter)
    if settings.laser_power_mw is not None:
        set_option(sensor, serial, "laser_power", settings.laser_power_mw)


def _expose(sensor: SdkSensor, serial: str, exposure: ExposureSettings, unit_us: int) -> None:
    set_option(sensor, serial, "enable_auto_exposure", exposure.exposure_us is None)
    if exposure.exposure_us is not None:
        set_option(sensor, serial, "exposure", exposure.exposure_us / unit_us)
    if exposure.gain is not None:
        set_option(sensor, serial, "gain", exposure.gain)


def _set_where_offered(sensor: SdkSensor, serial: str, name: str, value: float) -> None:
    if sensor.supports(getattr(realsense().option, name)):
        set_option(sensor, serial, name, value)


def set_option(sensor: SdkSensor, serial: str, name: str, value: float) -> None:
    """Set one option, named as in `pyrealsense2.option`, and read it back.

    Raises:
        DepthcellError: the sensor lacks it, the value is outside its range or between its steps, or another was taken.
    """
    option = getattr(realsense().option, name)
    where = f"camera {serial}: {name}"
    if not sensor.supports(option):
        raise DepthcellError(f"{where}: this camera does not have it; leave it out of the settings")
    span = sensor.get_option_range(option)
    steps = (value - span.min) / span.step if span.step else 0.0
    if not span.min <= value <= span.max or abs(steps - round(steps)) > 1e-6:
        allowed = f"{span.min:g} to {span.max:g} in steps of {span.step:g}"
        raise DepthcellError(f"{where}: {float(value):g} is not among its values {allowed}; choose one of these")
    try:
        sensor.set_option(option, float(value))
        taken = sensor.get_option(option)
    except RuntimeError as error:
        raise DepthcellError(
            f"{where}: the camera refused {float(value):g} ({error}); close other programs that use it",
            Reason.DEVICE_LOST,
        ) from error
    if not math.isclose(taken, value, rel_tol=1e-6, abs_tol=1e-9):
        raise DepthcellError(f"{where}: {float(value):g} was asked and {taken:g} taken; another option forbids it")


def load_preset(advanced_mode: Any, device: SdkDevice, path: Path) -> None:
    """Load an advanced-mode JSON file, and verify each of its values by reading the device's own back.

    Args:
        advanced_mode: `pyrealsense2.rs400_advanced_mode`, or what behaves like it.
        device: the camera.
        path: the file.

    Raises:
        DepthcellError: the file is no preset, advanced mode is off, or a value was not taken.
    """
    where = f"camera {serial_of(device)}: preset {path}"
    asked = read_preset(path)
    try:
        advanced = advanced_mode(device)
        is_on = advanced.is_enabled()
    except RuntimeError as error:
        raise DepthcellError(f"{where}: this camera has no advanced mode; leave the preset out") from error
    if not is_on:
        # Switching it on resets the device, so that is left to a person.
        raise DepthcellError(f"{where}: advanced mode is off; switch it on once in the RealSense Viewer (More menu)")
    try:
        advanced.load_json(json.dumps(asked))
        taken = _parameters(json.loads(advanced.serialize_json()))
    except RuntimeError as error:
        raise DepthcellError(f"{where}: the camera refused it ({error}); save it anew from this model") from error
    wrong = [
        f"{name} (asked {value}, took {taken[name]})"
        for name, value in _parameters(asked).items()
        if name in taken and not _is_equal(value, taken[name])
    ]
    if wrong:
        raise DepthcellError(f"{where}: not taken: {', '.join(wrong)}; save the preset anew from this model")


def read_preset(path: Path) -> dict[str, object]:
    """The content of an advanced-mode JSON file.

    Raises:
        DepthcellError: it cannot be read, or is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DepthcellError(f"preset {path}: cannot be read ({error}); save it from the RealSense Viewer") from error
    if not isinstance(content, dict):
        raise DepthcellError(f"preset {path}: holds no JSON object; save it from the RealSense Viewer")
    return content


def _parameters(preset: Mapping[str, object]) -> Mapping[str, object]:
    """The device's own parameters: newer files keep them in a section, older ones at the top."""
    section = preset.get("parameters", preset)
    if not isinstance(section, dict):
        return {}
    # Streams are chosen by the settings, whatever the viewer showed when it saved the file.
    return {name: value for name, value in section.items() if not name.startswith("stream-")}


def _is_equal(asked: object, taken: object) -> bool:
    try:
        return math.isclose(float(str(asked)), float(str(taken)), rel_tol=1e-4, abs_tol=1e-6)
    except ValueError:
        return str(asked).lower() == str(taken).lower()


def _is_same(sensor: SdkSensor, other: SdkSensor | None) -> bool:
    name = realsense().camera_info.name
    return other is not None and sensor.get_info(name) == other.get_info(name)
