"""Messages of a rosbag2 SQLite file (`.db3`) in the order they were written, up to the first damaged byte."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.damage import DamageError
from depthcell.acquisition.halfframes import drop_half_frames
from depthcell.acquisition.rosmessage import RosMessage
from depthcell.acquisition.sqlitefile import Row, SqliteFile, Table

INDEX = "timestamp_idx"


def read_messages(path: Path, is_checked: bool = True) -> Iterator[RosMessage]:
    """All messages in the order of their row numbers, which is the order they were written in.

    SQLite keeps no checksum of a row, but each row's number and time stand in the index `timestamp_idx` as well. With
    `is_checked` both must agree, so that no row is lost, added or moved unseen; a damaged index is reported after the
    last row. Without it the index is not read.

    Raises:
        DamageError: after the last message before the damage.
    """
    with _settled(path) as settled, SqliteFile(settled) as file:
        tables = file.tables()
        if not {"topics", "messages"} <= tables.keys():
            raise DamageError(0, "the database holds no tables 'topics' and 'messages'")
        topics = _read_topics(file, tables["topics"])
        index = _Index(file, tables[INDEX] if is_checked and INDEX in tables else None)
        for row in file.rows(tables["messages"]):
            _, topic, recorded_ns = file.columns(row, 3)
            if topic not in topics or not isinstance(recorded_ns, int):
                raise DamageError(row.offset, f"row {row.rowid} of 'messages' names topic {topic}, which is not there")
            index.confirm(row, recorded_ns)
            yield RosMessage(topics[topic], recorded_ns, row.offset, partial(_load, file, row))
        index.confirm_end(file)


def topic_names(path: Path) -> tuple[str, ...]:
    """Names of all topics, also those whose first message comes late.

    Raises:
        DamageError: the table of topics is damaged.
    """
    with _settled(path) as settled, SqliteFile(settled) as file:
        tables = file.tables()
        return tuple(_read_topics(file, tables["topics"]).values()) if "topics" in tables else ()


def _read_topics(file: SqliteFile, table: Table) -> dict[object, str]:
    topics: dict[object, str] = {}
    for row in file.rows(table):
        _, name = file.columns(row, 2)
        if not isinstance(name, str):
            raise DamageError(row.offset, f"row {row.rowid} of 'topics' holds no name")
        topics[row.rowid] = name
    return topics


def _load(file: SqliteFile, row: Row) -> memoryview:
    payload = file.columns(row, 4)[3]
    if not isinstance(payload, memoryview):
        raise DamageError(row.offset, f"row {row.rowid} of 'messages' holds no data")
    return payload


class _Index:
    """What `timestamp_idx` says of the rows: their numbers in order, and the time of each."""

    def __init__(self, file: SqliteFile, table: Table | None) -> None:
        self._is_read = table is not None
        self._damage: DamageError | None = None
        self._next = 0
        self._rows: NDArray[np.int64] = np.empty((0, 2), np.int64)
        if table is None:
            return
        try:
            entries = [file.columns(row, 2) for row in file.rows(table)]
            rows = np.array([(rowid, recorded_ns) for recorded_ns, rowid in entries], np.int64).reshape(-1, 2)
            self._rows = rows[np.argsort(rows[:, 0], kind="stable")]
        except DamageError as error:
            self._damage = error
        except (TypeError, ValueError, OverflowError):
            self._damage = DamageError((table.root_page - 1) * file.page_bytes, f"the index '{INDEX}' is damaged")

    def confirm(self, row: Row, recorded_ns: int) -> None:
        """Refuse a row that the index does not hold next, or holds with another time."""
        if not self._is_read or self._damage is not None:
            return
        if self._next >= len(self._rows) or tuple(self._rows[self._next]) != (row.rowid, recorded_ns):
            raise DamageError(row.offset, f"row {row.rowid} of 'messages' and the index '{INDEX}' do not agree")
        self._next += 1

    def confirm_end(self, file: SqliteFile) -> None:
        """Refuse a file whose index knows more rows, is damaged itself, or whose last pages are missing."""
        end = file.page_count * file.page_bytes
        if self._damage is not None:
            raise self._damage
        if self._next < len(self._rows):
            raise DamageError(end, f"row {self._rows[self._next][0]} of 'messages' and those after it are missing")
        if file.page_count < file.stated_page_count:
            raise DamageError(end, f"the file ends after page {file.page_count} of {file.stated_page_count}")


@contextmanager
def _settled(path: Path) -> Iterator[Path]:
    """The file, or, where a killed recorder left a journal beside it, a copy in which SQLite has undone the half row.

    A frame that was cut off between its rows is taken out of the copy as well, so that a kill is no damage.

    The recording itself is never written to.
    """
    leftovers = [path.with_name(path.name + suffix) for suffix in ("-journal", "-wal")]
    leftovers = [leftover for leftover in leftovers if leftover.exists() and leftover.stat().st_size]
    if not leftovers:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="depthcell-") as folder:
        copy = Path(folder) / path.name
        for source in (path, *leftovers):
            shutil.copyfile(source, copy.with_name(source.name))
        # Where SQLite cannot repair the copy it stays as it is, and the damage shows in reading it.
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(copy)) as database:
            database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            database.execute("PRAGMA journal_mode = DELETE")
            drop_half_frames(database)
        yield copy
