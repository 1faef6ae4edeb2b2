"""The rows of an SQLite file read in order, page by page, up to the first damaged byte.

SQLite itself refuses a truncated file whole and names no offset. So the b-trees are walked here: read-only, checked at
each step, and with each page entered at most once, so that a damaged pointer can neither loop nor repeat rows.
Format: https://www.sqlite.org/fileformat2.html
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from depthcell.acquisition.damage import DamageError

HEADER_BYTES = 100
MAGIC = b"SQLite format 3\0"
INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE = 0x02, 0x05, 0x0A, 0x0D
MAX_DEPTH = 20
"""No tree is deeper: SQLite itself gives up there (BTCURSOR_MAX_DEPTH)."""

Value = int | float | str | memoryview | None


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a b-tree, still in the file.

    Attributes:
        rowid: its key in a table; 0 in an index.
        offset: of its cell in the file, bytes.
        size: of the record, bytes.
        local: what of the record lies in the b-tree page itself.
        overflow_page: where the rest begins, 0 if there is none.
    """

    rowid: int
    offset: int
    size: int
    local: bytes
    overflow_page: int


@dataclass(frozen=True, slots=True)
class Table:
    """Name and root page of a table or an index, from the file's schema."""

    name: str
    root_page: int


class SqliteFile:
    """An SQLite file opened for reading; a context manager.

    Attributes:
        page_bytes: size of a page.
        page_count: whole pages there are.
        stated_page_count: pages the header says there are.

    Raises:
        DamageError: the file's header is not SQLite's.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb", buffering=0)
        try:
            self._read_header()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()

    def _read_header(self) -> None:
        header = self._stream.read(HEADER_BYTES)
        if not header:
            raise DamageError(0, "the file is empty")
        if len(header) < HEADER_BYTES or header[:16] != MAGIC:
            raise DamageError(0, "the file does not begin as an SQLite file")
        stated_bytes, reserved_bytes = int.from_bytes(header[16:18], "big"), header[20]
        self.page_bytes = 65536 if stated_bytes == 1 else stated_bytes
        if self.page_bytes.bit_count() != 1 or self.page_bytes - reserved_bytes < 480:
            raise DamageError(16, f"a page size of {self.page_bytes} bytes cannot be")
        self._usable_bytes = self.page_bytes - reserved_bytes
        self.page_count = os.fstat(self._stream.fileno()).st_size // self.page_bytes
        self.stated_page_count = int.from_bytes(header[28:32], "big")

    def tables(self) -> dict[str, Table]:
        """Tables and indices by name.

        Raises:
            DamageError: the schema cannot be read.
        """
        tables = {}
        for row in self.rows(Table("sqlite_schema", 1)):
            _kind, name, _table, root_page = self.columns(row, 4)
            if not isinstance(name, str) or not isinstance(root_page, int):
                raise DamageError(row.offset, "the schema of the database is damaged")
            tables[name] = Table(name, root_page)
        return tables

    def rows(self, table: Table) -> Iterator[Row]:
        """All rows of a table in the order of their keys, or all entries of an index.

        Raises:
            DamageError: after the last row before the damage.
        """
        yield from self._walk(table.root_page, table, set(), MAX_DEPTH)

    def columns(self, row: Row, count: int) -> list[Value]:
        """The first `count` columns of a row. What lies in later columns is not read from the file.

        Raises:
            DamageError: the record is damaged, or its columns are fewer.
        """
        try:
            types, start = _serial_types(row.local)
            end = start + sum(map(_serial_bytes, types[:count]))
            record = memoryview(row.local) if end <= len(row.local) else self._whole(row)
            return _values(record, types[:count], start, count)
        except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
            raise DamageError(row.offset, f"row {row.rowid} holds no valid record") from error

    def _page(self, number: int) -> bytes:
        offset = (number - 1) * self.page_bytes
        if not 1 <= number <= self.page_count:
            raise DamageError(max(0, offset), f"page {number} of the database is missing")
        return self._read(offset, self.page_bytes)

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._stream.fileno(), size, offset)
        if len(data) != size:
            raise DamageError(offset + len(data), "the file ends early")
        return data

    def _walk(self, number: int, table: Table, seen: set[int], depth: int) -> Iterator[Row]:
        page, base = self._page(number), (number - 1) * self.page_bytes
        if number in seen or depth == 0:
            raise DamageError(base, f"the pages of '{table.name}' run in a circle at page {number}")
        seen.add(number)
        header = HEADER_BYTES if number == 1 else 0
        kind, cell_count = page[header], int.from_bytes(page[header + 3 : header + 5], "big")
        if kind not in (INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE):
            raise DamageError(base + header, f"page {number} is no page of '{table.name}'")
        is_leaf, is_table = kind in (LEAF_INDEX, LEAF_TABLE), kind in (INTERIOR_TABLE, LEAF_TABLE)
        first_pointer = header + (8 if is_leaf else 12)
        for pointer in range(first_pointer, first_pointer + 2 * cell_count, 2):
            cell = int.from_bytes(page[pointer : pointer + 2], "big")
            if not first_pointer + 2 * cell_count <= cell <= self._usable_bytes - 4:
                raise DamageError(base + pointer, f"a cell of page {number} lies outside it")
            if not is_leaf:
                yield from self._walk(int.from_bytes(page[cell : cell + 4], "big"), table, seen, depth - 1)
            if is_leaf or not is_table:
                yield self._row(page, cell + (0 if is_leaf else 4), base, is_table)
        if not is_leaf:
            right_most = int.from_bytes(page[header + 8 : header + 12], "big")
            yield from self._walk(right_most, table, seen, depth - 1)

    def _row(self, page: bytes, cell: int, base: int, is_table: bool) -> Row:
        try:
            size, start = _varint(page, cell)
            rowid, start = _varint(page, start) if is_table else (0, start)
        except IndexError as error:
            raise DamageError(base + cell, "a cell runs over its page") from error
        local_bytes = self._local_bytes(size, is_table)
        has_overflow = local_bytes < size
        end = start + local_bytes
        if size > self.page_count * self.page_bytes or end + (4 if has_overflow else 0) > self._usable_bytes:
            raise DamageError(base + cell, f"row {rowid} runs over its page")
        overflow_page = int.from_bytes(page[end : end + 4], "big") if has_overflow else 0
        return Row(rowid, base + cell, size, page[start:end], overflow_page)

    def _local_bytes(self, size: int, is_table: bool) -> int:
        """How much of a record of `size` bytes lies in the b-tree page: file format, section 1.6."""
        usable = self._usable_bytes
        largest = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
        if size <= largest:
            return size
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        return local if local <= largest else least

    def _whole(self, row: Row) -> memoryview:
        """The record with its overflow pages, which mostly lie one after the other: read in runs."""
        parts = [np.frombuffer(row.local, np.uint8)]
        page, left_bytes = row.overflow_page, row.size - len(row.local)
        content_bytes = self._usable_bytes - 4
        while left_bytes > 0:
            wanted = -(-left_bytes // content_bytes)
            run = min(wanted, self.page_count - page + 1)
            if page < 1 or run < 1:
                raise DamageError(row.offset, f"row {row.rowid} goes on at page {page}, which is missing")
            data = np.frombuffer(self._read((page - 1) * self.page_bytes, run * self.page_bytes), np.uint8)
            pages = data.reshape(run, self.page_bytes)
            following = pages[:, :4].copy().view(">u4")[:, 0]
            breaks = np.flatnonzero(following[:-1] != page + 1 + np.arange(run - 1))
            if breaks.size:
                run = int(breaks[0]) + 1
            parts.extend(pages[:run, 4 : self._usable_bytes])
            left_bytes -= run * content_bytes
            page = int(following[run - 1])
        if page and row.size > len(row.local):
            raise DamageError(row.offset, f"row {row.rowid} goes on beyond its length")
        return np.concatenate(parts).data[: row.size]


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """A variable-length integer of 1 to 9 bytes, big-endian, and where it ends."""
    value = 0
    for position in range(start, start + 8):
        byte = data[position]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position + 1
    return value << 8 | data[start + 8], start + 9


def _serial_types(record: bytes) -> tuple[list[int], int]:
    """Serial types of a record's columns, and where the first column's content begins."""
    header_bytes, position = _varint(record, 0)
    types = []
    while position < header_bytes:
        serial, position = _varint(record, position)
        types.append(serial)
    if position != header_bytes:
        raise ValueError("the record's header has a wrong length")
    return types, header_bytes


def _serial_bytes(serial: int) -> int:
    if serial >= 12:
        return (serial - 12) // 2
    return (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[serial]


def _values(record: memoryview, types: list[int], start: int, count: int) -> list[Value]:
    if len(types) < count:
        raise ValueError(f"{count} columns wanted, {len(types)} there")
    values = []
    for serial in types:
        end = start + _serial_bytes(serial)
        if end > len(record):
            raise ValueError("the record ends early")
        values.append(_value(serial, record[start:end]))
        start = end
    return values


def _value(serial: int, content: memoryview) -> Value:
    if serial == 0:
        return None
    if serial == 7:
        return float(struct.unpack(">d", content)[0])
    if serial < 7:
        return int.from_bytes(content, "big", signed=True)
    if serial in (8, 9):
        return serial - 8
    return str(content, "utf-8") if serial % 2 else content
