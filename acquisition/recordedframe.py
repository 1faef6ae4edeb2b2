"""What a recording holds: its streams, and each image with the numbers that were recorded beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.pixelformat import Layout, PixelFormat


class StreamKind(StrEnum):
    """Image streams of a RealSense camera (librealsense `rs2_stream`)."""

    DEPTH = "depth"
    COLOR = "color"
    INFRARED = "infrared"
    FISHEYE = "fisheye"
    CONFIDENCE = "confidence"

    @classmethod
    def named(cls, name: str) -> "StreamKind | None":
        """The kind that the SDK calls by this name ("Depth"); None for streams without images ("Gyro")."""
        return next((kind for kind in cls if kind == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Stream:
    """One image stream of a recording.

    Attributes:
        kind: what it shows.
        index: 0, or 1 and 2 for the left and right infrared imager.
        sensor: number of the sensor it comes from, a key of `Recording.sensors`.
        layout: size and pixel format of its images as recorded.
        fps: nominal frame rate, frames per second.
        intrinsics: of the imager; None where the device did not know them.
    """

    kind: StreamKind
    index: int
    sensor: int
    layout: Layout
    fps: int
    intrinsics: Intrinsics | None

    @property
    def format(self) -> PixelFormat:
        """Pixel format as recorded; `RecordedFrame.pixels` says what it is read as."""
        return self.layout.format

    @property
    def name(self) -> str:
        """For people: "depth", "infrared 1"."""
        return f"{self.kind} {self.index}" if self.index else str(self.kind)


@dataclass(frozen=True, slots=True, eq=False)
class RecordedFrame:
    """One recorded image.

    Attributes:
        stream: which stream it belongs to.
        pixels: (H, W) uint16 for depth (counts of `units_m`, 0 where nothing was measured) and 16-bit infrared,
            (H, W) uint8 for 8-bit infrared, (H, W, 3) uint8 red, green, blue for colour whatever `stream.format` is.
            Read-only.
        timestamp_ns: the frame's timestamp in nanoseconds, on the clock that `timestamp_domain` names.
        timestamp_domain: as the SDK names it: "Hardware Clock", "System Time" or "Global Time".
        system_time_ns: when the host's SDK received the frame, nanoseconds since 1970; 0 where not recorded.
        recorded_ns: when the recorder got it, nanoseconds since the recording began.
        number: the camera's own frame counter.
        metadata: what else the SDK recorded about this frame, under the SDK's names ("Actual Exposure" in us,
            "Gain Level", "Frame Laser Power", "Time Of Arrival" in ms ...), in the SDK's units.
        units_m: metres per count as recorded with this depth frame; None for other streams and older recordings.
        offset: position of the image's message (.db3: of its row; .bag: of its chunk) in the file, bytes.
    """

    stream: Stream
    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    timestamp_ns: int
    timestamp_domain: str
    system_time_ns: int
    recorded_ns: int
    number: int
    metadata: Mapping[str, int | float]
    units_m: float | None
    offset: int
