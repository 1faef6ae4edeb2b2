"""What a recording says of the camera before and beside its images, gathered message by message."""

from dataclasses import dataclass, field

from depthcell.acquisition.dialect import Dialect, Imager, StreamPose, payload_of
from depthcell.acquisition.pixelformat import Layout, PixelFormat
from depthcell.acquisition.recordedframe import Stream, StreamKind
from depthcell.acquisition.rosmessage import RosMessage
from depthcell.acquisition.topic import Content, Topic, parse_topic
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason

StreamKey = tuple[int, str, int]
"""Sensor number, stream type as the SDK names it, stream index."""


@dataclass(slots=True)
class RecordingHeader:
    """The static content of a recording, as far as it has been read.

    Attributes:
        dialect: how its messages are spelt.
        with_images: streams that are known to have images, though they may be announced late.
        version: of the SDK's recording format; 0 before it is known.
        device: the device's names and values.
        sensors: sensor number -> names and values.
        options: sensor number -> option -> its first value.
        streams: announced image streams -> name of the pixel format, frame rate.
        imagers: stream -> image size and intrinsics.
        poses: stream -> group of extrinsics, pose in it.
        message_count, image_count: messages and images met so far.
    """

    dialect: Dialect
    with_images: frozenset[StreamKey] = frozenset()
    version: int = 0
    device: dict[str, str] = field(default_factory=dict)
    sensors: dict[int, dict[str, str]] = field(default_factory=dict)
    options: dict[int, dict[str, float]] = field(default_factory=dict)
    streams: dict[StreamKey, tuple[str, int]] = field(default_factory=dict)
    imagers: dict[StreamKey, Imager] = field(default_factory=dict)
    poses: dict[StreamKey, tuple[str, StreamPose]] = field(default_factory=dict)
    message_count: int = 0
    image_count: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all is known: the SDK writes a stream's extrinsics last, after its first image.

        A stream is announced when its sensor starts, by when another may have given images already.
        """
        return self.image_count > 0 and self.streams.keys() | self.with_images <= self.poses.keys()

    def take(self, message: RosMessage) -> Topic:
        """Take a message in, unless it is an image or its metadata, and return its topic.

        Raises:
            DamageError: its payload is damaged.
            DepthcellError: it says something that cannot be read.
        """
        self.message_count += 1
        topic = parse_topic(message.topic)
        if topic.device > 0:
            raise DepthcellError(
                f"it holds several devices ({message.topic}); record each camera to a file of its own",
                Reason.RECORDING_UNSUPPORTED,
            )
        if topic.content is Content.IMAGE:
            self.image_count += 1
        elif topic.content not in (Content.OTHER, Content.IMAGE_METADATA):
            with payload_of(message):
                self._learn(topic, message.load())
        return topic

    def _learn(self, topic: Topic, payload: bytes | memoryview) -> None:
        match topic.content:
            case Content.FILE_VERSION:
                self.version = self.dialect.version(payload)
            case Content.DEVICE_INFO:
                self.device.update(self.dialect.pairs(payload))
            case Content.SENSOR_INFO:
                self.sensors.setdefault(topic.sensor, {}).update(self.dialect.pairs(payload))
            case Content.OPTION:
                value = self.dialect.option(payload)
                self.options.setdefault(topic.sensor, {}).setdefault(topic.detail, value)
            case Content.STREAM_INFO if StreamKind.named(topic.stream[0]):
                self.streams[topic.key] = self.dialect.stream_info(payload)
            case Content.INTRINSICS if StreamKind.named(topic.stream[0]):
                self.imagers[topic.key] = self.dialect.imager(payload)
            case Content.EXTRINSICS:
                self.poses[topic.key] = (topic.detail, self.dialect.pose(payload))

    def stream(self, key: StreamKey) -> Stream:
        """An announced stream.

        Raises:
            DepthcellError: its pixel format cannot be read.
        """
        (format_name, fps), imager = self.streams[key], self.imagers[key]
        sensor, kind, index = key
        layout = Layout(PixelFormat.named(format_name), imager.width_px, imager.height_px)
        return Stream(StreamKind(kind.lower()), index, sensor, layout, fps, imager.intrinsics)

    def all_streams(self) -> dict[StreamKey, Stream]:
        """The announced streams whose image size is known."""
        return {key: self.stream(key) for key in self.streams if key in self.imagers}

    def color_from_depth(self, serial: str) -> RigidTransform | None:
        """`T_color_depth` with its frames named; None unless both poses are there, against one reference."""
        depth = next((pose for key, pose in self.poses.items() if key[1] == "Depth"), None)
        color = next((pose for key, pose in self.poses.items() if key[1] == "Color"), None)
        if depth is None or color is None or depth[0] != color[0]:
            return None
        T_depth_reference, T_color_reference = (
            RigidTransform(frame, "reference", pose.rotation, pose.translation_m)
            for frame, (_, pose) in ((f"depth:{serial}", depth), (f"color:{serial}", color))
        )
        return T_color_reference @ T_depth_reference.inverse()
