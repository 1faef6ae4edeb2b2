"""The readers of bytes against their oracles: SQLite itself, rosbags, OpenCV's PNG decoder."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rosbags.rosbag1 import Reader, Writer
from rosbags.typesys import Stores, get_typestore

from depthcell.acquisition import rosbag1, rosbag2
from depthcell.acquisition.ahead import AHEAD, map_ahead
from depthcell.acquisition.damage import DamageError
from depthcell.acquisition.png import decode_png
from depthcell.acquisition.sqlitefile import SqliteFile
from depthcell.acquisition.topic import Content, parse_topic

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200),
    st.integers(0, 20_000).map(lambda size: bytes(range(251)) * (size // 251 + 1)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(VALUES, VALUES), max_size=60),
    page_bytes=st.sampled_from([512, 1024, 4096, 65536]),
    removed=st.sets(st.integers(1, 60), max_size=20),
)
def test_rows_are_those_of_sqlite(
    tmp_path: Path, rows: list[tuple[object, object]], page_bytes: int, removed: set[int]
) -> None:
    """Any page size, any values, rows over many pages and rows taken out, which scatters the overflow pages."""
    path = tmp_path / "any.db3"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA page_size = {page_bytes}")
        database.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, a, b)")
        database.execute("CREATE INDEX by_a ON things (a)")
        database.executemany("INSERT INTO things (a, b) VALUES (?, ?)", rows)
        database.executemany("DELETE FROM things WHERE id = ?", [(number,) for number in removed])
        database.executemany("INSERT INTO things (a, b) VALUES (?, ?)", rows[:10])
        expected = database.execute("SELECT id, a, b FROM things ORDER BY id").fetchall()
    with SqliteFile(path) as file:
        tables = file.tables()
        found = [(row.rowid, *file.columns(row, 3)[1:]) for row in file.rows(tables["things"])]
        entries = [file.columns(row, 2) for row in file.rows(tables["by_a"])]
        assert file.page_bytes == page_bytes
    assert found == expected
    assert sorted(str(entry[1]) for entry in entries) == sorted(str(row[0]) for row in expected)


def test_many_rows_make_a_deep_tree_and_all_come(tmp_path: Path) -> None:
    path = tmp_path / "deep.db3"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA page_size = 512")
        database.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, a)")
        database.executemany("INSERT INTO things (a) VALUES (?)", [("x" * (number % 90),) for number in range(20_000)])
    with SqliteFile(path) as file:
        assert [row.rowid for row in file.rows(file.tables()["things"])] == list(range(1, 20_001))


def test_a_ring_of_pages_is_seen(tmp_path: Path) -> None:
    """The negative control of the guard against loops: an inner page that names itself as its own child."""
    path = tmp_path / "ring.db3"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, a)")
        database.executemany("INSERT INTO things (a) VALUES (?)", [("x" * 500,) for _ in range(200)])
    content = bytearray(path.read_bytes())
    assert content[4096] == 0x05  # the root of the table, an inner page
    first_cell = int.from_bytes(content[4096 + 12 : 4096 + 14], "big")
    content[4096 + first_cell : 4096 + first_cell + 4] = (2).to_bytes(4, "big")
    path.write_bytes(content)
    with SqliteFile(path) as file, pytest.raises(DamageError, match="in a circle at page 2"):
        list(file.rows(file.tables()["things"]))


def write_bag(path: Path, packing: Writer.CompressionFormat | None, count: int = 300) -> None:
    types = get_typestore(Stores.ROS1_NOETIC)
    text = types.types["std_msgs/msg/String"]
    writer = Writer(path)
    if packing is not None:
        writer.set_compression(packing)
    with writer:
        writer.chunk_threshold = 20_000
        topics = [writer.add_connection(f"/topic_{n}", "std_msgs/msg/String", typestore=types) for n in range(3)]
        for number in range(count):
            message = text(data=f"message {number} " + "." * (number * 7 % 900))
            writer.write(topics[number % 3], number * 1_000_000, types.serialize_ros1(message, "std_msgs/msg/String"))


PACKINGS = [None, Writer.CompressionFormat.BZ2, Writer.CompressionFormat.LZ4]


@pytest.mark.parametrize("packing", PACKINGS)
def test_messages_are_those_of_rosbags(tmp_path: Path, packing: Writer.CompressionFormat | None) -> None:
    path = tmp_path / "any.bag"
    write_bag(path, packing)
    with Reader(path) as reader:
        expected = [(connection.topic, time, bytes(data)) for connection, time, data in reader.messages()]
    found = [(m.topic, m.recorded_ns, bytes(m.load())) for m in rosbag1.read_messages(path)]
    assert found == expected
    assert len(found) == 300


def until_damage(path: Path) -> tuple[list[bytes], DamageError | None]:
    messages: list[bytes] = []
    try:
        for message in rosbag1.read_messages(path):
            messages.append(bytes(message.load()))  # noqa: PERF401 - what came before the damage counts
    except DamageError as damage:
        return messages, damage
    return messages, None


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_cut_bag_gives_what_came_before(tmp_path: Path, packing: Writer.CompressionFormat | None) -> None:
    """Also where the cut falls between two records, so that only the missing end tells."""
    path, cut = tmp_path / "any.bag", tmp_path / "cut.bag"
    write_bag(path, packing)
    whole = path.read_bytes()
    expected, _ = until_damage(path)
    given_before = 0
    for length in range(0, len(whole), 997):
        cut.write_bytes(whole[:length])
        messages, damage = until_damage(cut)
        assert messages == expected[: len(messages)]
        assert damage is not None
        assert len(messages) >= given_before
        given_before = len(messages)
    assert given_before > 200


@pytest.mark.parametrize("field", ["conn", "time", "place"])
def test_an_index_that_disagrees_is_damage(tmp_path: Path, field: str) -> None:
    """The negative control of the check against the chunk's index, in a bag without other checksums."""
    path = tmp_path / "any.bag"
    write_bag(path, None, count=30)
    content = bytearray(path.read_bytes())
    header, data = _first_index(content)
    place = {"conn": content.index(b"conn=", header) + 5, "time": data + 4, "place": data + 8}[field]
    content[place] ^= 2
    path.write_bytes(content)
    _, damage = until_damage(path)
    assert damage is not None
    assert "index" in damage.what


def _first_index(content: bytearray) -> tuple[int, int]:
    """Where the first index record and its data begin."""
    position = len(rosbag1.MAGIC)
    while True:
        header_bytes = int.from_bytes(content[position : position + 4], "little")
        data = position + 4 + header_bytes + 4
        if b"op=\x04" in content[position : data - 4]:
            return position, data
        position = data + int.from_bytes(content[data - 4 : data], "little")


def test_a_bag_that_was_never_closed_says_so(tmp_path: Path) -> None:
    path = tmp_path / "any.bag"
    write_bag(path, None, count=30)
    content = bytearray(path.read_bytes())
    place = content.index(b"index_pos=") + 10
    content[place : place + 8] = bytes(8)
    path.write_bytes(content)
    messages, damage = until_damage(path)
    assert len(messages) == 30
    assert damage is not None
    assert damage.what == "the bag was never closed"


@pytest.mark.parametrize("shape", [(7, 5, 1), (1, 1, 1), (6, 8, 3), (1, 9, 3), (5, 1, 4), (4, 6, 4)])
@pytest.mark.parametrize(
    "row_filter", [cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_FILTER_SUB, cv2.IMWRITE_PNG_ALL_FILTERS]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_is_what_opencv_says(
    shape: tuple[int, int, int], row_filter: int, dtype: type[np.uint8] | type[np.uint16]
) -> None:
    rng = np.random.default_rng(2)
    pixels: NDArray[np.integer] = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    done, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_FILTER, row_filter])
    assert done
    found = decode_png(memoryview(encoded.tobytes()), shape, pixels.itemsize)
    expected = pixels[..., 0] if shape[2] == 1 else pixels[..., 2::-1]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_work_ahead_keeps_order_and_errors() -> None:
    def items() -> Iterator[int]:
        yield from range(20)
        raise DamageError(20, "the source broke")

    def work(item: int) -> int:
        return item * item

    results = map_ahead(work, items())
    assert [next(results) for _ in range(20)] == [item * item for item in range(20)]
    with pytest.raises(DamageError, match="the source broke"):
        next(results)


def test_work_that_fails_fails_in_its_turn() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise DamageError(item, "this one is broken")
        return item

    results = map_ahead(work, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DamageError, match="this one is broken"):
        next(results)


def test_work_runs_ahead_only_so_far() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_ahead(abs, items())
    next(results)
    assert len(taken) <= AHEAD + 1
    del results


@pytest.mark.parametrize(
    ("name", "content", "key", "detail"),
    [
        ("/device_0/sensor_1/option/Enable Auto Exposure/value", Content.OPTION, (1, "", 0), "Enable Auto Exposure"),
        ("/device_0/sensor_1/option/Enable_Auto_Exposure/value", Content.OPTION, (1, "", 0), "Enable Auto Exposure"),
        ("/device_0/sensor_0/Depth_0/tf/0", Content.EXTRINSICS, (0, "Depth", 0), "0"),
        ("/device_0/sensor_0/Depth_0/tf/ref_1", Content.EXTRINSICS, (0, "Depth", 0), "1"),
        ("/device_0/sensor_0/Infrared_2/info/camera_info", Content.INTRINSICS, (0, "Infrared", 2), ""),
        ("/device_0/sensor_0/Infrared_2/camera_info", Content.INTRINSICS, (0, "Infrared", 2), ""),
        ("/device_0/sensor_0/Depth_0/image/camera_info", Content.OTHER, (-1, "", 0), ""),
        ("/device_0/sensor_0/Depth_0/image/data/compressedDepth", Content.IMAGE, (0, "Depth", 0), "compressedDepth"),
        ("/device_0/sensor_2/Gyro_0/imu/data", Content.OTHER, (-1, "", 0), ""),
        ("/device_0/sensor_0/Depth_99999999999999999999/info", Content.OTHER, (-1, "", 0), ""),
    ],
)
def test_topics_of_both_formats(name: str, content: Content, key: tuple[int, str, int], detail: str) -> None:
    topic = parse_topic(name)
    assert (topic.content, topic.key, topic.detail) == (content, key, detail)


def test_rosbag2_without_its_index_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db3"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT, type TEXT)")
        database.execute(
            "CREATE TABLE messages (id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)"
        )
        database.execute("INSERT INTO topics VALUES (1, '/a', 't')")
        database.executemany("INSERT INTO messages VALUES (?, 1, ?, ?)", [(n, n * 10, b"x" * n) for n in range(1, 50)])
    assert [len(message.load()) for message in rosbag2.read_messages(path)] == list(range(1, 50))
