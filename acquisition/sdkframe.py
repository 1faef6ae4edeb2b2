"""The SDK's frames become ours, at the edge and nowhere else."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from depthcell.acquisition.dialect import Lens, nearest_rotation
from depthcell.acquisition.frameset import CameraFrame, ColorImage, DepthImage, InfraredImage
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.sdk import realsense
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason

SdkFrame: TypeAlias = Any


def timestamp_ns(frame: SdkFrame) -> int:
    """The frame's time on the clock its domain names; the SDK keeps milliseconds as a double."""
    timestamp_ms: float = frame.get_timestamp()
    return round(timestamp_ms * 1e6)


@dataclass(frozen=True, slots=True)
class Instant:
    """The SDK's frames of one instant, Z16, RGB8 and Y8 of the left imager; at least one is there."""

    depth: SdkFrame | None
    color: SdkFrame | None
    infrared: SdkFrame | None = None


def camera_frame(identity: tuple[str, str], instant: Instant, baseline_m: float | None) -> CameraFrame:
    """The images of one instant in depthcell's terms; the pixels are copied.

    Args:
        identity: serial number and model of the camera.
        instant: the SDK's frames.
        baseline_m: of the stereo pair, None where not known.
    """
    serial, model = identity
    depth, color, infrared = instant.depth, instant.color, instant.infrared
    T_color_depth = None
    if depth is not None and color is not None:
        T_color_depth = _color_from_depth(serial, depth.get_profile(), color.get_profile())
    metadata: dict[str, int | float] = {} if color is None else _metadata(color)
    if depth is not None:
        metadata = {**_metadata(depth), **{f"color:{name}": value for name, value in metadata.items()}}
    return CameraFrame(
        serial,
        model,
        None if depth is None else _depth_image(depth, baseline_m),
        None if color is None else _color_image(color),
        T_color_depth,
        MappingProxyType(metadata),
        None if infrared is None else _infrared_image(infrared),
    )


def _depth_image(frame: SdkFrame, baseline_m: float | None) -> DepthImage:
    return DepthImage.from_counts(
        np.asanyarray(frame.get_data()),
        _intrinsics(frame),
        frame.as_depth_frame().get_units(),
        baseline_m=baseline_m,
        timestamp_ns=timestamp_ns(frame),
        number=frame.get_frame_number(),
    )


def _color_image(frame: SdkFrame) -> ColorImage:
    rgb = np.array(frame.get_data(), dtype=np.uint8)
    return ColorImage(rgb, _intrinsics(frame), timestamp_ns(frame), frame.get_frame_number())


def _infrared_image(frame: SdkFrame) -> InfraredImage:
    intensity = np.array(frame.get_data(), dtype=np.uint8)
    return InfraredImage(intensity, _intrinsics(frame), timestamp_ns(frame), frame.get_frame_number())


def _intrinsics(frame: SdkFrame) -> Intrinsics:
    own = frame.get_profile().as_video_stream_profile().get_intrinsics()
    model = own.model.name.replace("_", " ").title()
    lens = Lens(own.width, own.height, own.fx, own.fy, own.ppx, own.ppy, model, tuple(own.coeffs))
    intrinsics = lens.imager().intrinsics
    if intrinsics is None:
        raise DepthcellError("the camera does not know its own lens; calibrate it anew", Reason.DEVICE_LOST)
    return intrinsics


def _color_from_depth(serial: str, depth: Any, color: Any) -> RigidTransform:
    own = depth.get_extrinsics_to(color)
    # The SDK keeps rotations by columns.
    rotation = nearest_rotation(np.array(own.rotation, dtype=np.float64).reshape(3, 3).T)
    return RigidTransform(f"color:{serial}", f"depth:{serial}", rotation, np.array(own.translation, dtype=np.float64))


def _metadata(frame: SdkFrame) -> dict[str, int | float]:
    """Under the SDK's own names, as recordings carry them: `time_of_arrival` is "Time Of Arrival"."""
    members = realsense().frame_metadata_value.__members__
    return {
        name.replace("_", " ").title(): frame.get_frame_metadata(value)
        for name, value in members.items()
        if frame.supports_frame_metadata(value)
    }
