"""One message of a rosbag, of either version, before its content is looked at."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RosMessage:
    """A serialised message.

    Attributes:
        topic: its name, "/device_0/...".
        recorded_ns: its time in the file, nanoseconds; the SDK counts from the start of recording.
        offset: where it lies in the file, bytes: its row in a `.db3`, its chunk or itself in a `.bag`.
        load: reads its payload; raises DamageError.
    """

    topic: str
    recorded_ns: int
    offset: int
    load: Callable[[], bytes | memoryview]
