"""A camera's hardware clock against the host's, told by when its frames arrive."""

from collections import deque

from depthcell.acquisition.frameset import CameraFrame

ARRIVAL_KEY = "Time Of Arrival"
"""Name of the SDK's frame metadata `RS2_FRAME_METADATA_TIME_OF_ARRIVAL`: host time, milliseconds since 1970."""


def arrival_ns(frame: CameraFrame) -> int | None:
    """When the host received `frame`, nanoseconds since 1970, or None where the recording does not say."""
    arrival_ms = frame.metadata.get(ARRIVAL_KEY)
    return None if arrival_ms is None else round(arrival_ms * 1e6)


class HostClock:
    """Offset of one camera's clock to the host's by the smallest transport delay among its last frames.

    `arrival = hardware + offset + delay`, and a delay is never shorter than the cable and the exposure allow. So the
    least `arrival - hardware` of the last `window` frames is the offset plus that shortest delay, whatever the late
    frames do (the lower envelope of Moon, Skelly and Towsley, INFOCOM 1999, doi:10.1109/INFCOM.1999.749287). Between
    two cameras of one kind the shortest delay cancels. With delays that vary by up to J and clocks that drift by D
    apart, the difference of two such offsets is wrong by at most J + D * window duration, typically by
    J / (window + 1). The window moves, so slow drift is followed.
    """

    def __init__(self, window: int) -> None:
        self._differences_ns: deque[int] = deque(maxlen=window)

    def observe(self, hardware_ns: int, arrived_ns: int) -> None:
        """Take one frame into account."""
        self._differences_ns.append(arrived_ns - hardware_ns)

    @property
    def count(self) -> int:
        """Frames the estimate rests on."""
        return len(self._differences_ns)

    @property
    def offset_ns(self) -> int:
        """Host time minus hardware time, the shortest delay included; 0 before the first frame."""
        return min(self._differences_ns, default=0)
