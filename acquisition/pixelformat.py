"""Pixel formats as RealSense recordings spell them, and how each becomes an array."""

from enum import StrEnum


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
