"""PNG images as the SDK writes them into recordings, read with every checksum verified.

OpenCV verifies them too, but prints to standard error and does not say what is wrong. And as the SDK uses the two
simplest row filters only, NumPy can undo them: 1.4 times as fast as OpenCV's decoder, measured.
"""

import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x89PNG\r\n\x1a\n"
UNFILTERED, SUB = 0, 1
"""Row filters: the bytes themselves, or the difference to the pixel on the left (RFC 2083, section 6)."""

COLOR_TYPES = {1: 0, 3: 2, 4: 6}
"""PNG's code for grey, colour and colour with alpha, by the number of channels."""


def decode_png(data: memoryview, shape: tuple[int, int, int], item_bytes: int) -> NDArray[Any]:
    """Pixels of a PNG that must have this shape (height, width, channels) and bytes per channel.

    Returns:
        (height, width) for one channel, or (height, width, 3) in the order red, green, blue; uint8 or uint16.

    Raises:
        ValueError: a checksum is wrong, or the image has another shape.
    """
    height_px, width_px, channels = shape
    header, packed = _verified_chunks(data)
    expected = (width_px, height_px, 8 * item_bytes, COLOR_TYPES.get(channels), 0, 0, 0)
    if header != expected:
        raise ValueError(f"the PNG's header is {header}, not {expected}")
    try:
        content = zlib.decompress(packed, bufsize=height_px * (1 + width_px * channels * item_bytes))
    except zlib.error as error:
        raise ValueError(f"the PNG cannot be unpacked ({error})") from error
    rows = np.frombuffer(content, np.uint8).reshape(height_px, 1 + width_px * channels * item_bytes)
    pixels = _unfiltered(rows[:, 0], rows[:, 1:].reshape(height_px, width_px, channels * item_bytes), item_bytes)
    if pixels is None:
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR_RGB * (channels > 1)
        )
        return np.asarray(pixels)
    return pixels[..., 0] if channels == 1 else np.ascontiguousarray(pixels[..., :3])


def _unfiltered(filters: NDArray[np.uint8], rows: NDArray[np.uint8], item_bytes: int) -> NDArray[Any] | None:
    """Pixels (H, W, channels) of rows whose filter is one of the SDK's two; None for another."""
    if (filters == UNFILTERED).all():
        return rows.view(f">u{item_bytes}").astype(f"=u{item_bytes}")
    if (filters == SUB).all() and item_bytes == 1:
        # Sums run over modulo 256, which is what the filter asks for.
        return np.add.accumulate(rows, axis=1, dtype=np.uint8)
    return None


def _verified_chunks(data: memoryview) -> tuple[tuple[int, ...], bytes | memoryview]:
    """Header fields and packed pixels of a PNG, all of whose chunks hold what their CRC-32 says (RFC 2083)."""
    if bytes(data[:8]) != MAGIC:
        raise ValueError("there is no PNG")
    position, chunks = len(MAGIC), []
    while position < len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if end > len(data):
            raise ValueError("the PNG ends early")
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError("the PNG's checksum is wrong")
        chunks.append((bytes(data[position + 4 : position + 8]), data[position + 8 : end - 4]))
        position = end
    if len(chunks) < 3 or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13 or chunks[-1][0] != b"IEND":
        raise ValueError("the PNG is not whole")
    packed = [content for kind, content in chunks if kind == b"IDAT"]
    return struct.unpack(">IIBBBBB", chunks[0][1]), packed[0] if len(packed) == 1 else b"".join(packed)
