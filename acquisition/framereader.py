"""Images and the metadata recorded beside them are put together again, message by message."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType

from depthcell.acquisition.ahead import map_ahead
from depthcell.acquisition.damage import DamageError
from depthcell.acquisition.dialect import Dialect, Payload, payload_of
from depthcell.acquisition.recordedframe import RecordedFrame, Stream, StreamKind
from depthcell.acquisition.recordingheader import RecordingHeader
from depthcell.acquisition.rosmessage import RosMessage
from depthcell.acquisition.topic import Content, Topic, parse_topic
from depthcell.errors import DepthcellError, Reason


@dataclass(slots=True)
class _Parts:
    """An image still packed, and its metadata."""

    message: RosMessage
    topic: Topic
    stream: Stream
    payload: Payload
    metadata: dict[str, str] = field(default_factory=dict)

    def assembled(self, dialect: Dialect) -> RecordedFrame:
        """The frame.

        Raises:
            DamageError: the image is damaged, or its metadata do not say when it was taken.
        """
        rest = dict(self.metadata)
        with payload_of(self.message):
            image = dialect.image(self.payload, self.topic.detail, self.stream.layout)
            if image.number is None or image.timestamp_ns is None:
                number, timestamp_ns = int(rest.pop("Frame number")), _nanoseconds(rest.pop("timestamp"))
            else:
                number, timestamp_ns = image.number, image.timestamp_ns
            units_m = float(rest.pop("depth_units")) if "depth_units" in rest else image.units_m
            return RecordedFrame(
                stream=self.stream,
                pixels=image.pixels,
                timestamp_ns=timestamp_ns,
                timestamp_domain=rest.pop("timestamp_domain"),
                system_time_ns=_nanoseconds(rest.pop("system_time")),
                recorded_ns=self.message.recorded_ns,
                number=number,
                metadata=MappingProxyType({name: _number(text) for name, text in rest.items()}),
                units_m=units_m,
                offset=self.message.offset,
            )


def read_header(messages: Iterable[RosMessage], dialect: Dialect, topics: Iterable[str] = ()) -> RecordingHeader:
    """What a recording says beside its images, read as far as needed.

    Args:
        messages: of the recording.
        dialect: how they are spelt.
        topics: names of all topics, where the format tells them in advance.

    Raises:
        DamageError: the damage lies before the first image.
    """
    known = (parse_topic(name) for name in topics)
    header = RecordingHeader(dialect, frozenset(topic.key for topic in known if topic.content is Content.IMAGE))
    try:
        for message in messages:
            header.take(message)
            if header.is_complete:
                break
    except DamageError:
        if header.image_count == 0:
            raise
    return header


def read_frames(messages: Iterable[RosMessage], dialect: Dialect) -> Iterator[RecordedFrame]:
    """Every image with its metadata, in the order of the messages. All other messages are checked on the way.

    Raises:
        DamageError: after the last frame before the damage; an image whose metadata are not all there is not given.
        DepthcellError: there is an image of a kind that cannot be read.
    """
    parts = _collect_parts(messages, dialect)
    return (map_ahead if dialect.has_packed_images else map)(lambda part: part.assembled(dialect), parts)


def _collect_parts(messages: Iterable[RosMessage], dialect: Dialect) -> Iterator[_Parts]:
    header = RecordingHeader(dialect)
    pending: _Parts | None = None
    for message in messages:
        topic = header.take(message)
        if topic.content is Content.IMAGE:
            if pending is not None:
                yield pending
            pending = _Parts(message, topic, _announced_stream(message, topic, header), message.load())
        elif topic.content is Content.IMAGE_METADATA:
            if pending is None or pending.topic.key != topic.key:
                raise DamageError(message.offset, f"{message.topic}: metadata that follow no image of theirs")
            with payload_of(message):
                pending.metadata.update(dialect.pairs(message.load()))
            if dialect.has_single_metadata:
                yield pending
                pending = None
    if pending is not None:
        yield pending


def _announced_stream(message: RosMessage, topic: Topic, header: RecordingHeader) -> Stream:
    if StreamKind.named(topic.stream[0]) is None:
        raise DepthcellError(f"its images of {message.topic} cannot be read", Reason.RECORDING_UNSUPPORTED)
    if topic.key not in header.streams or topic.key not in header.imagers:
        raise DamageError(message.offset, f"{message.topic}: an image of a stream that was not announced")
    return header.stream(topic.key)


def _nanoseconds(milliseconds: str) -> int:
    return round(Decimal(milliseconds) * 1_000_000)


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)
