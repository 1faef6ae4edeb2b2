"""How librealsense since 2.58 spells its messages in a rosbag2 file: mostly as text."""

import re
from functools import cache
from typing import Any

import numpy as np
from backports import zstd
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from depthcell.acquisition.dialect import ImageMessage, Imager, Lens, Payload, StreamPose, nearest_rotation, raw_pixels
from depthcell.acquisition.pixelformat import Layout

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
DEPTH_HEADER_BYTES = 12
"""ConfigHeader of ROS' compressed_depth_image_transport, before the PNG of a depth image."""


class Db3Dialect:
    """See `Dialect`."""

    has_single_metadata = True
    has_packed_images = True

    def version(self, payload: Payload) -> int:
        """See `Dialect`."""
        return int(_read(payload, "std_msgs/msg/UInt32").data)

    def pairs(self, payload: Payload) -> dict[str, str]:
        """See `Dialect`; written as "name=value;name=value"."""
        text = _read(payload, "std_msgs/msg/String").data
        named = [part.partition("=") for part in text.split(";") if part]
        if not all(equals for _, equals, _ in named):
            raise ValueError(f"'{text}' is no list of names and values")
        return {name: value for name, _, value in named}

    def option(self, payload: Payload) -> float:
        """See `Dialect`."""
        return float(_read(payload, "std_msgs/msg/String").data)

    def stream_info(self, payload: Payload) -> tuple[str, int]:
        """See `Dialect`."""
        info = self.pairs(payload)
        return info["encoding"], int(info["fps"])

    def imager(self, payload: Payload) -> Imager:
        """See `Dialect`."""
        lens = self.pairs(payload)
        fx, fy, cx, cy = (_floats(lens[name])[0] for name in ("fx", "fy", "ppx", "ppy"))
        coefficients = tuple(_floats(lens["coeffs"]))
        return Lens(int(lens["width"]), int(lens["height"]), fx, fy, cx, cy, lens["model"], coefficients).imager()

    def pose(self, payload: Payload) -> StreamPose:
        """See `Dialect`; the rotation is written column by column, and to six decimals."""
        pose = self.pairs(payload)
        columns = np.array(_floats(pose["rotation"])).reshape(3, 3)
        return StreamPose(nearest_rotation(columns.T), np.array(_floats(pose["translation"])).reshape(3))

    def image(self, payload: Payload, packing: str, layout: Layout) -> ImageMessage:
        """See `Dialect`."""
        if not packing:
            return ImageMessage(raw_pixels(_read(payload, "sensor_msgs/msg/Image"), layout))
        image = _read(payload, "sensor_msgs/msg/CompressedImage")
        data = memoryview(image.data)
        if "png" in image.format:
            pixels = layout.from_png(data[DEPTH_HEADER_BYTES if packing == "compressedDepth" else 0 :])
        elif match := re.fullmatch(r"\w+; zstd; (\d+)x(\d+) step=(\d+)", image.format):
            if (int(match[1]), int(match[2])) != (layout.width_px, layout.height_px):
                raise ValueError(f"an image of {match[1]} x {match[2]}")
            pixels = layout.from_raw(memoryview(zstd.decompress(data)), int(match[3]))
        else:
            raise ValueError(f"an image packed as '{image.format}'")
        return ImageMessage(pixels)


def _floats(text: str) -> list[float]:
    """Decimals that stand for the SDK's float32, with exactly its values."""
    return [float(np.float32(part)) for part in text.split(",")]


def _read(payload: Payload, name: str) -> Any:
    """A message; SDK 2.58 packs each whole with zstd, 2.59 does not."""
    if bytes(payload[:4]) == ZSTD_MAGIC:
        payload = zstd.decompress(payload)
    return _types().deserialize_cdr(payload, name)


@cache
def _types() -> Typestore:
    return get_typestore(Stores.ROS2_FOXY)
