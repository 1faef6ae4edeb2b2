"""How librealsense up to 2.57 spells its messages in a ROS 1 bag."""

from functools import cache
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from scipy.spatial.transform import Rotation

from depthcell.acquisition.dialect import ImageMessage, Imager, Lens, Payload, StreamPose, nearest_rotation, raw_pixels
from depthcell.acquisition.pixelformat import Layout

STREAM_INFO = "uint32 fps\nstring encoding\nbool is_recommended\n"
IMAGE_WITH_UNITS = """
std_msgs/Header header
uint32 height
uint32 width
string encoding
uint8 is_bigendian
uint32 step
uint8[] data
float32 depth_units
"""
"""sensor_msgs/Image as librealsense has written it since it gave the header the version "1" in place of a frame."""


class BagDialect:
    """See `Dialect`."""

    has_single_metadata = False
    has_packed_images = False

    def version(self, payload: Payload) -> int:
        """See `Dialect`."""
        return int(_read(payload, "std_msgs/msg/UInt32").data)

    def pairs(self, payload: Payload) -> dict[str, str]:
        """See `Dialect`; one pair per message here."""
        pair = _read(payload, "diagnostic_msgs/msg/KeyValue")
        return {pair.key: pair.value}

    def option(self, payload: Payload) -> float:
        """See `Dialect`."""
        return _shortest(_read(payload, "std_msgs/msg/Float32").data)

    def stream_info(self, payload: Payload) -> tuple[str, int]:
        """See `Dialect`."""
        info = _read(payload, "realsense_msgs/msg/StreamInfo")
        return info.encoding, info.fps

    def imager(self, payload: Payload) -> Imager:
        """See `Dialect`."""
        camera = _read(payload, "sensor_msgs/msg/CameraInfo")
        fx, _, cx, _, fy, cy = map(float, camera.K[:6])
        coefficients = tuple(map(float, camera.D))
        return Lens(camera.width, camera.height, fx, fy, cx, cy, camera.distortion_model, coefficients).imager()

    def pose(self, payload: Payload) -> StreamPose:
        """See `Dialect`."""
        pose = _read(payload, "geometry_msgs/msg/Transform")
        x, y, z, w = pose.rotation.x, pose.rotation.y, pose.rotation.z, pose.rotation.w
        rotation = nearest_rotation(Rotation.from_quat([x, y, z, w]).as_matrix())
        return StreamPose(rotation, np.array([pose.translation.x, pose.translation.y, pose.translation.z]))

    def image(self, payload: Payload, packing: str, layout: Layout) -> ImageMessage:
        """See `Dialect`."""
        if packing:
            raise ValueError(f"an image packed as '{packing}'")
        has_units = bytes(payload[12:17]) == b"\1\0\0\0" + b"1"
        image = _read(payload, "realsense_msgs/msg/ImageWithUnits" if has_units else "sensor_msgs/msg/Image")
        units_m = _shortest(image.depth_units) if has_units and image.depth_units > 0 else None
        stamp = image.header.stamp
        timestamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        return ImageMessage(raw_pixels(image, layout), units_m, timestamp_ns, image.header.seq)


def _shortest(value: float) -> float:
    """A float32 as the decimal number it was meant to be: 0.001, not 0.0010000000474974513."""
    return float(np.format_float_scientific(np.float32(value)))


def _read(payload: Payload, name: str) -> Any:
    return _types().deserialize_ros1(payload, name)


@cache
def _types() -> Typestore:
    types = get_typestore(Stores.ROS1_NOETIC)
    types.register(get_types_from_msg(STREAM_INFO, "realsense_msgs/msg/StreamInfo"))
    types.register(get_types_from_msg(IMAGE_WITH_UNITS, "realsense_msgs/msg/ImageWithUnits"))
    return types
