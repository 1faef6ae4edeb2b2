"""The topics of a RealSense recording: which message says what about which sensor or stream."""

import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache


class Content(Enum):
    """What the messages of a topic hold."""

    FILE_VERSION = auto()
    DEVICE_INFO = auto()
    SENSOR_INFO = auto()
    OPTION = auto()
    STREAM_INFO = auto()
    INTRINSICS = auto()
    EXTRINSICS = auto()
    IMAGE = auto()
    IMAGE_METADATA = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic taken apart.

    Attributes:
        content: what its messages hold.
        device, sensor: their numbers, -1 where the topic names none.
        stream: type and index of the stream, ("Depth", 0); ("", 0) where the topic names none.
        detail: name of the option, group of the extrinsics, packing of the image; else "".
    """

    content: Content
    device: int = -1
    sensor: int = -1
    stream: tuple[str, int] = ("", 0)
    detail: str = ""

    @property
    def key(self) -> tuple[int, str, int]:
        """Sensor and stream, by which the topics of one stream find each other."""
        return (self.sensor, *self.stream)


_STREAM = r"/device_(\d{1,9})/sensor_(\d{1,9})/([A-Za-z_ ]+)_(\d{1,9})"
_STREAM_PATTERNS = (
    (Content.STREAM_INFO, re.compile(_STREAM + r"/info()")),
    (Content.INTRINSICS, re.compile(_STREAM + r"(?:/info)?/camera_info()")),
    (Content.EXTRINSICS, re.compile(_STREAM + r"/tf/(?:ref_)?(\d{1,9})")),
    (Content.IMAGE, re.compile(_STREAM + r"/image/data(?:/(compressed|compressedDepth))?")),
    (Content.IMAGE_METADATA, re.compile(_STREAM + r"/image/metadata()")),
)
_DEVICE_INFO = re.compile(r"/device_(\d{1,9})/info")
_SENSOR_INFO = re.compile(r"/device_(\d{1,9})/sensor_(\d{1,9})/info")
_OPTION = re.compile(r"/device_(\d{1,9})/sensor_(\d{1,9})/option/([^/]+)/value")


@lru_cache(maxsize=4096)
def parse_topic(name: str) -> Topic:
    """Take a topic's name apart; a name that is none of the SDK's, or not needed here, is `Content.OTHER`.

    Both formats are understood: `.bag` writes "tf/0" and "Stereo Baseline", `.db3` "tf/ref_1" and "Stereo_Baseline".
    """
    if name == "/file_version":
        return Topic(Content.FILE_VERSION)
    if match := _DEVICE_INFO.fullmatch(name):
        return Topic(Content.DEVICE_INFO, int(match[1]))
    if match := _SENSOR_INFO.fullmatch(name):
        return Topic(Content.SENSOR_INFO, int(match[1]), int(match[2]))
    if match := _OPTION.fullmatch(name):
        return Topic(Content.OPTION, int(match[1]), int(match[2]), detail=match[3].replace("_", " "))
    for content, pattern in _STREAM_PATTERNS:
        if match := pattern.fullmatch(name):
            device, sensor, kind, index, detail = match.groups(default="")
            return Topic(content, int(device), int(sensor), (kind.replace("_", " "), int(index)), detail)
    return Topic(Content.OTHER)
