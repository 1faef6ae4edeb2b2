"""Pixel formats as RealSense recordings spell them, and how bytes of each become an array."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.png import decode_png
from depthcell.errors import DepthcellError, Reason

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


class PixelFormat(StrEnum):
    """Formats that can be read (librealsense `rs2_format`)."""

    Z16 = "z16"
    Y8 = "y8"
    Y16 = "y16"
    RGB8 = "rgb8"
    BGR8 = "bgr8"
    RGBA8 = "rgba8"
    BGRA8 = "bgra8"
    YUYV = "yuyv"
    UYVY = "uyvy"

    @classmethod
    def named(cls, name: str) -> "PixelFormat":
        """The format of this name, spelt as the SDK does ("Z16", "RGB8") or as ROS does ("mono16", "8UC1").

        Raises:
            DepthcellError: it cannot be read.
        """
        try:
            return _ROS_NAMES.get(name) or cls(name.lower())
        except ValueError:
            known = ", ".join(cls)
            raise DepthcellError(
                f"pixel format '{name}' cannot be read; record in one of {known}", Reason.RECORDING_UNSUPPORTED
            ) from None

    def is_named(self, name: str) -> bool:
        """Whether `name`, spelt as in `named`, means this format."""
        return _ROS_NAMES.get(name, name.lower()) == self


_ROS_NAMES = {
    "mono16": PixelFormat.Z16,
    "8UC1": PixelFormat.Y8,
    "16UC1": PixelFormat.Y16,
    "yuv422": PixelFormat.UYVY,
}
"""ROS encodings by which librealsense means another format (`convert` in its ros_file_format.h)."""

_BYTES_AND_CHANNELS = {
    PixelFormat.Z16: (2, 1),
    PixelFormat.Y8: (1, 1),
    PixelFormat.Y16: (2, 1),
    PixelFormat.RGB8: (1, 3),
    PixelFormat.BGR8: (1, 3),
    PixelFormat.RGBA8: (1, 4),
    PixelFormat.BGRA8: (1, 4),
    PixelFormat.YUYV: (1, 2),
    PixelFormat.UYVY: (1, 2),
}

_TO_RGB = {
    PixelFormat.RGB8: None,
    PixelFormat.BGR8: cv2.COLOR_BGR2RGB,
    PixelFormat.RGBA8: cv2.COLOR_RGBA2RGB,
    PixelFormat.BGRA8: cv2.COLOR_BGRA2RGB,
    PixelFormat.YUYV: cv2.COLOR_YUV2RGB_YUYV,
    PixelFormat.UYVY: cv2.COLOR_YUV2RGB_UYVY,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Size and format of an image.

    Attributes:
        format: of its pixels.
        width_px, height_px: size.
    """

    format: PixelFormat
    width_px: int
    height_px: int

    def from_raw(self, data: memoryview, row_bytes: int) -> Pixels:
        """Pixels from rows of `row_bytes` bytes each, little-endian; colour comes out as RGB.

        Returns:
            (H, W) uint8 or uint16, or (H, W, 3) uint8; read-only.

        Raises:
            ValueError: the data does not have the size that the layout needs.
        """
        item_bytes, channels = _BYTES_AND_CHANNELS[self.format]
        used_bytes = self.width_px * item_bytes * channels
        if row_bytes < used_bytes or len(data) != row_bytes * self.height_px:
            raise ValueError(f"{len(data)} bytes do not hold {self.height_px} rows of {used_bytes} bytes")
        rows = np.frombuffer(data, np.uint8).reshape(self.height_px, row_bytes)[:, :used_bytes]
        pixels = np.ascontiguousarray(rows).view(f"<u{item_bytes}")
        if channels > 1:
            pixels = pixels.reshape(self.height_px, self.width_px, channels)
        conversion = _TO_RGB.get(self.format)
        return _read_only(pixels if conversion is None else cv2.cvtColor(pixels, conversion))

    def from_png(self, data: memoryview) -> Pixels:
        """Pixels from a PNG, whose checksums are verified; colour comes out as RGB.

        PNG orders channels red, green, blue (, alpha), so BGR formats were turned round when they were written.

        Returns:
            (H, W) uint8 or uint16, or (H, W, 3) uint8; read-only.

        Raises:
            ValueError: a checksum is wrong, or the image is not of this layout.
        """
        item_bytes, channels = _BYTES_AND_CHANNELS[self.format]
        return _read_only(decode_png(data, (self.height_px, self.width_px, channels), item_bytes))


def _read_only(pixels: NDArray[Any]) -> Pixels:
    pixels.flags.writeable = False
    return pixels
