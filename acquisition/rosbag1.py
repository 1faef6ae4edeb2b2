"""Messages of a ROS 1 bag (`.bag`, format 2.0) in the order of the file, up to the first damaged byte.

The bag's own index of chunks lies at its end and is missing in a bag that was cut or never closed. So the records are
read one after the other from the start. Format: http://wiki.ros.org/Bags/Format/2.0
"""

import bz2
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import lz4.frame

from depthcell.acquisition.damage import DamageError
from depthcell.acquisition.rosmessage import RosMessage

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG_HEADER, INDEX, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 4, 5, 6, 7
FIELDS = {
    MESSAGE: ((b"conn", 4), (b"time", 8)),
    BAG_HEADER: ((b"index_pos", 8), (b"conn_count", 4), (b"chunk_count", 4)),
    INDEX: ((b"ver", 4), (b"conn", 4), (b"count", 4)),
    CHUNK: ((b"size", 4),),
    CHUNK_INFO: ((b"ver", 4), (b"chunk_pos", 8), (b"start_time", 8), (b"end_time", 8), (b"count", 4)),
    CONNECTION: ((b"conn", 4),),
}
"""Header fields that must be there and their sizes in bytes, by the record's op code."""

Entry = tuple[int, bytes, int]
"""What a chunk's index says of one message: its connection, its time as stored, its place in the unpacked chunk."""


@dataclass(frozen=True, slots=True)
class _Header:
    """Header of a record, and where the record begins."""

    op: int
    fields: dict[bytes, bytes]
    start: int

    def number(self, name: bytes) -> int:
        return int.from_bytes(self.fields[name], "little")


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk still packed.

    Attributes:
        header: of its record.
        packed: its bytes; fewer than it should have if it `is_cut` by the end of the file.
        index: what the records behind it say of its messages, None where they cannot be read.
        damage: why not.
    """

    header: _Header
    packed: bytes | memoryview
    is_cut: bool
    index: set[Entry] | None


class _Records:
    """Records one after the other, in a file or in an unpacked chunk.

    Attributes:
        position: where the next one begins.
        end: how many bytes there are.
    """

    def __init__(self, fetch: Callable[[int, int], bytes | memoryview], end: int) -> None:
        self._fetch = fetch
        self.position = 0
        self.end = end

    @classmethod
    def of_file(cls, stream: BinaryIO) -> "_Records":
        """Of an open file."""
        file = stream.fileno()
        return cls(lambda start, size: os.pread(file, size, start), os.fstat(file).st_size)

    @classmethod
    def of_bytes(cls, data: memoryview) -> "_Records":
        """Of bytes, which are not copied."""
        return cls(lambda start, size: data[start : start + size], len(data))

    def read(self, size: int) -> bytes | memoryview:
        """Exactly `size` bytes."""
        start = self.position
        data = self._fetch(start, size) if size <= self.end - start else b""
        if len(data) != size:
            raise DamageError(self.end, "the bytes end in the middle of a record")
        self.position = start + size
        return data

    def read_sized(self) -> bytes | memoryview:
        """A length of four bytes, and as many bytes as it says."""
        return self.read(int.from_bytes(self.read(4), "little"))

    def next_header(self) -> _Header | None:
        """Header of the next record, None at the end; `read_sized` reads its data."""
        start = self.position
        return None if start == self.end else _parse_header(bytes(self.read_sized()), start)

    def next_header_of(self, op: int) -> _Header | None:
        """Header of the next record if it has this op code; else None, and the record stays unread."""
        header = self.next_header()
        if header is None or header.op == op:
            return header
        self.position = header.start
        return None


def read_messages(path: Path) -> Iterator[RosMessage]:
    """All messages in the order of the file.

    What the format gives to check is checked. A chunk packed with lz4 or bz2 carries checksums over all its bytes; in
    every chunk, packed or not, connection, time and place of each message must stand in the index behind it; at the
    end all chunks must be there. But the payload of a chunk that is not packed has no checksum: a flipped bit there
    cannot be told.

    Raises:
        DamageError: after the last message before the damage. A packed chunk whose checksum fails gives none; one
            that the end of the file cuts off gives those of its blocks that are whole.
    """
    with path.open("rb") as stream:
        records = _Records.of_file(stream)
        if records.end < len(MAGIC) or records.read(len(MAGIC)) != MAGIC:
            raise DamageError(0, "the file does not begin as a ROS bag of format 2.0")
        bag = records.next_header_of(BAG_HEADER)
        if bag is None:
            raise DamageError(len(MAGIC), "the bag's header is missing")
        records.read_sized()
        topics: dict[int, str] = {}
        chunk_starts = []
        for chunk in _read_chunks(records):
            chunk_starts.append(chunk.header.start)
            yield from _messages_of_chunk(chunk, topics)
        _check_end(records, bag, chunk_starts, topics)


def _parse_header(data: bytes, start: int) -> _Header:
    fields: dict[bytes, bytes] = {}
    position, end = 0, len(data)
    while position < end:
        begin = position + 4
        position = begin + int.from_bytes(data[position:begin], "little")
        name, _, value = data[begin:position].partition(b"=")
        fields[name] = value
    op = int.from_bytes(fields.get(b"op", b""), "little")
    if position != end or op not in FIELDS:
        raise DamageError(start, "a record's header is damaged")
    for name, size in FIELDS[op]:
        if len(fields.get(name, b"")) != size:
            raise DamageError(start, "a record's header is damaged")
    return _Header(op, fields, start)


def _read_chunks(records: _Records) -> Iterator[_Chunk]:
    """Chunks up to the first record that is none; where the file ends within one, that is the last."""
    while (header := records.next_header_of(CHUNK)) is not None:
        stated_bytes = int.from_bytes(records.read(4), "little")
        is_cut = stated_bytes > records.end - records.position
        packed = records.read(min(stated_bytes, records.end - records.position))
        index: set[Entry] | None = None
        damage = DamageError(records.end, "the file ends in the middle of a chunk") if is_cut else None
        try:
            index = None if is_cut else _read_index(records)
        except DamageError as error:
            damage = error
        yield _Chunk(header, packed, is_cut, index)
        if damage is not None:
            raise damage


def _unpacked(chunk: _Chunk) -> bytes | memoryview:
    """The content of a chunk, verified by the packing's own checksums."""
    header, packing = chunk.header, chunk.header.fields.get(b"compression", b"")
    try:
        if packing == b"none":
            content = chunk.packed
        elif packing == b"lz4":
            content = lz4.frame.LZ4FrameDecompressor().decompress(chunk.packed)  # type: ignore[no-untyped-call]
        elif packing == b"bz2":
            content = bz2.BZ2Decompressor().decompress(chunk.packed)
        else:
            raise DamageError(header.start, f"a chunk is packed with '{packing.decode('latin-1')}'")
    except (RuntimeError, OSError, EOFError) as error:
        raise DamageError(header.start, f"a chunk cannot be unpacked ({error})") from error
    if not chunk.is_cut and len(content) != header.number(b"size"):
        raise DamageError(header.start, f"a chunk unpacks to {len(content)} bytes, not {header.number(b'size')}")
    return content


def _messages_of_chunk(chunk: _Chunk, topics: dict[int, str]) -> Iterator[RosMessage]:
    """Messages up to the first that is damaged, or that the index behind the chunk does not confirm."""
    start = chunk.header.start
    count = 0
    for entry, payload in _parse_content(chunk, topics):
        connection, time, place = entry
        if chunk.index is not None and entry not in chunk.index:
            raise DamageError(start, f"the chunk's index knows no message at {place} of the chunk")
        count += 1
        yield RosMessage(topics[connection], _nanoseconds(time), start, partial(_identity, payload))
    if chunk.index is not None and len(chunk.index) != count:
        raise DamageError(start, f"the chunk holds {count} messages, its index {len(chunk.index)}")


def _parse_content(chunk: _Chunk, topics: dict[int, str]) -> Iterator[tuple[Entry, bytes | memoryview]]:
    """Messages of a chunk with their entries; new topics are learnt on the way. A cut chunk ends without error."""
    records = _Records.of_bytes(memoryview(_unpacked(chunk)))
    try:
        while (record := records.next_header()) is not None:
            if record.op not in (MESSAGE, CONNECTION):
                raise DamageError(record.start, "no message")
            data, connection = records.read_sized(), record.number(b"conn")
            if record.op == CONNECTION:
                _learn(topics, record)
            elif connection not in topics:
                raise DamageError(record.start, "a message of no known topic")
            else:
                yield (connection, record.fields[b"time"], record.start), data
    except DamageError as error:
        if not chunk.is_cut or error.offset < records.end:
            place = f"{error.what}, at {error.offset} of the unpacked chunk"
            raise DamageError(chunk.header.start, place) from error


def _learn(topics: dict[int, str], record: _Header) -> None:
    try:
        topic = record.fields[b"topic"].decode()
    except (KeyError, UnicodeDecodeError) as error:
        raise DamageError(record.start, "a connection without topic") from error
    if topics.setdefault(record.number(b"conn"), topic) != topic:
        raise DamageError(record.start, f"a connection with two topics, one of them {topic}")


def _read_index(records: _Records) -> set[Entry]:
    """Entries of the index records that follow a chunk, one record per connection."""
    entries: set[Entry] = set()
    while (record := records.next_header_of(INDEX)) is not None:
        data, count = bytes(records.read_sized()), record.number(b"count")
        if len(data) != 12 * count:
            raise DamageError(record.start, f"an index of {count} messages has {len(data)} bytes")
        for start in range(0, len(data), 12):
            place = int.from_bytes(data[start + 8 : start + 12], "little")
            entries.add((record.number(b"conn"), data[start : start + 8], place))
    return entries


def _check_end(records: _Records, bag: _Header, chunk_starts: list[int], topics: dict[int, str]) -> None:
    """Behind the last chunk every topic and every chunk must be named once more."""
    position = records.position
    if bag.number(b"index_pos") == 0:
        raise DamageError(records.end, "the bag was never closed")
    if bag.number(b"index_pos") != position or bag.number(b"chunk_count") != len(chunk_starts):
        raise DamageError(position, f"the bag does not go on as its header says after {len(chunk_starts)} chunks")
    named: dict[int, str] = {}
    while (record := records.next_header_of(CONNECTION)) is not None:
        records.read_sized()
        _learn(named, record)
    starts = []
    while (record := records.next_header_of(CHUNK_INFO)) is not None:
        records.read_sized()
        starts.append(record.number(b"chunk_pos"))
    if named != topics or starts != chunk_starts or records.position != records.end:
        raise DamageError(position, "topics and chunks at the end of the bag are not those before")


def _identity(payload: bytes | memoryview) -> bytes | memoryview:
    return payload


def _nanoseconds(time: bytes) -> int:
    return int.from_bytes(time[:4], "little") * 1_000_000_000 + int.from_bytes(time[4:], "little")
