"""A damaged recording gives every frame before the damage and then one clear error: no hang, no other error, no lie."""

import hashlib
import random
import re
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from softwarerecording import Plan, record

from depthcell.acquisition.db3dialect import DEPTH_HEADER_BYTES
from depthcell.acquisition.recordedframe import RecordedFrame
from depthcell.acquisition.recording import Recording, open_recording
from depthcell.errors import DepthcellError, Reason

DATA = Path(__file__).parent / "data"
CHECKED = ["new.db3", "software_sdk257_lz4.bag"]
"""Recordings whose images carry checksums."""
UNCHECKED = ["raw.db3", "software_sdk257_raw.bag", "software_sdk258_zstd.db3"]
DAMAGE_REASONS = {Reason.RECORDING_DAMAGED, Reason.RECORDING_UNSUPPORTED}
"""A flipped letter in the name of a pixel format makes it one that cannot be read; both end with exit code 2."""

Fingerprint = tuple[str, int, str]
Item = TypeVar("Item")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("recordings")
    record(folder / "new.db3", Plan())
    record(folder / "raw.db3", Plan(is_packed=False))
    found = {name: folder / name for name in ("new.db3", "raw.db3")}
    return found | {path.name: path for path in DATA.glob("software*")}


def fingerprint(frame: RecordedFrame) -> Fingerprint:
    return frame.stream.name, frame.number, hashlib.sha256(frame.pixels.tobytes()).hexdigest()


def until_error(items: Iterator[Item]) -> tuple[list[Item], DepthcellError | None]:
    """Items until the end or the error; any other kind of error fails the test."""
    found: list[Item] = []
    try:
        for item in items:
            found.append(item)  # noqa: PERF402 - what came before the error counts
    except DepthcellError as error:
        return found, error
    return found, None


def read(path: Path) -> tuple[list[Fingerprint], DepthcellError | None]:
    """Fingerprints of all frames until the end or the error, which may come when the file is opened."""
    return until_error(fingerprint(frame) for recording in opened(path) for frame in recording.frames())


def opened(path: Path) -> Iterator[Recording]:
    yield open_recording(path)


def read_bytes(content: bytes, like: Path, folder: Path) -> tuple[list[Fingerprint], DepthcellError | None]:
    path = folder / f"damaged{like.suffix}"
    path.write_bytes(content)
    return read(path)


@pytest.mark.parametrize("name", CHECKED + UNCHECKED)
def test_undamaged_recordings_raise_nothing(name: str, originals: dict[str, Path]) -> None:
    frames, error = read(originals[name])
    assert error is None
    assert len(frames) == 10


@pytest.mark.parametrize("name", CHECKED + UNCHECKED)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_anywhere(name: str, originals: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    whole = originals[name].read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1), "length")
    frames, error = read_bytes(whole[:length], originals[name], tmp_path)
    complete, _ = read(originals[name])
    assert frames == complete[: len(frames)]
    assert error is not None
    assert error.reason is Reason.RECORDING_DAMAGED
    assert "damaged at byte" in str(error)
    assert f"damaged{originals[name].suffix}" in str(error)


@pytest.mark.parametrize("name", CHECKED)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_anywhere(name: str, originals: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    """With checksums no wrong pixel gets through: the frames are the originals', to the end or to an error."""
    content = bytearray(originals[name].read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4), "places"):
        content[place] ^= 1 << data.draw(st.integers(0, 7), "bit")
    frames, error = read_bytes(bytes(content), originals[name], tmp_path)
    complete, _ = read(originals[name])
    assert frames == complete[: len(frames)]
    assert error is not None or frames == complete
    assert error is None or error.reason in DAMAGE_REASONS


@pytest.mark.parametrize("name", UNCHECKED)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_anywhere_without_checksums(
    name: str, originals: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    """Pixels may be wrong here, as the docstring of `frames` says, but no frame is lost, added or moved in silence."""
    content = bytearray(originals[name].read_bytes())
    place = data.draw(st.integers(0, len(content) - 1), "place")
    content[place] ^= 1 << data.draw(st.integers(0, 7), "bit")
    frames, error = read_bytes(bytes(content), originals[name], tmp_path)
    complete, _ = read(originals[name])
    streams = [stream for stream, _, _ in complete]
    assert [stream for stream, _, _ in frames] == streams[: len(frames)]
    assert error is not None or len(frames) == len(complete)
    assert sum(found != kept for found, kept in zip(frames, complete, strict=False)) <= 1


@pytest.mark.parametrize("name", CHECKED + UNCHECKED)
def test_pages_of_zeros(name: str, originals: dict[str, Path], tmp_path: Path) -> None:
    """What a power cut leaves: a stretch that was never written. Seeded; frames before it must all be there."""
    whole = originals[name].read_bytes()
    complete, _ = read(originals[name])
    starts = random.Random(5)  # noqa: S311 - places, not secrets
    for _ in range(40):
        start = starts.randrange(0, len(whole), 4096)
        content = whole[:start] + bytes(len(whole) - start)
        frames, error = read_bytes(content, originals[name], tmp_path)
        assert frames == complete[: len(frames)]
        assert error is not None or frames == complete
        assert error is None or error.reason is Reason.RECORDING_DAMAGED


def test_every_frame_before_the_cut_is_given(originals: dict[str, Path], tmp_path: Path) -> None:
    """Not only some prefix: in a .db3, all frames whose rows lie whole before the cut."""
    recording = open_recording(originals["new.db3"])
    rows = [frame.offset for frame in recording.frames()]
    whole = originals["new.db3"].read_bytes()
    # Rows lie in 4096-byte pages; a frame two pages or more before the cut has its overflow pages before it too.
    for length in range(40960, len(whole), 4096):
        frames, error = read_bytes(whole[:length], originals["new.db3"], tmp_path)
        certainly_whole = sum(offset + 3 * 4096 < length for offset in rows)
        assert len(frames) >= certainly_whole
        assert error is not None


def test_camera_frames_too_come_up_to_the_damage(originals: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.db3"
    path.write_bytes(originals["new.db3"].read_bytes()[:45_056])
    frames, error = read(path)
    pairs, same_error = until_error(open_recording(path).camera_frames())
    images = [image for pair in pairs for image in (pair.depth, pair.color) if image is not None]
    assert 0 < len(images) == len(frames)
    assert str(same_error) == str(error) != "None"


def with_third_image(original: Path, folder: Path, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a .db3 with another PNG as its third image, a depth image; SQLite and CDR find nothing wrong."""
    path = folder / "edited.db3"
    path.write_bytes(original.read_bytes())
    images = "SELECT m.id, data FROM messages m JOIN topics t ON t.id = topic_id WHERE name LIKE '%image/data%' "
    with closing(sqlite3.connect(path)) as database, database:
        row, payload = database.execute(images + "ORDER BY m.id").fetchall()[2]
        start = payload.index(b"\x89PNG")
        png, size_place = change(payload[start:]), start - DEPTH_HEADER_BYTES - 4
        sizes = struct.pack("<I", DEPTH_HEADER_BYTES + len(png)) + bytes(DEPTH_HEADER_BYTES)
        changed = payload[:size_place] + sizes + png
        database.execute("UPDATE messages SET data = ? WHERE id = ?", (changed, row))
    return path


def test_the_error_names_the_byte(originals: dict[str, Path], tmp_path: Path) -> None:
    """One flipped bit in the third image: two frames, then an error at that image's row."""
    path = with_third_image(originals["new.db3"], tmp_path, lambda png: png[:100] + bytes([png[100] ^ 4]) + png[101:])
    offsets = [frame.offset for frame in open_recording(originals["new.db3"]).frames()]
    frames, error = read(path)
    assert len(frames) == 2
    assert f"damaged at byte {offsets[2]}:" in str(error)
    assert "the PNG's checksum is wrong" in str(error)


def with_sealed_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with other content in one chunk, under a checksum that fits."""
    start = png.index(kind)
    size = int.from_bytes(png[start - 4 : start], "big")
    sealed = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[: start - 4] + sealed + png[start + 8 + size :]


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (b"IDAT", b"\xff" * 50, "cannot be unpacked"),
        (b"IDAT", zlib.compress(b"too short"), "cannot reshape"),
        (b"IHDR", struct.pack(">IIBBBBB", 24, 32, 16, 0, 0, 0, 0), "header is"),
        (b"IHDR", struct.pack(">IIBBBBB", 32, 24, 16, 0, 0, 0, 1), "header is"),
        (b"IHDR", b"", "not whole"),
    ],
)
def test_a_fitting_checksum_is_not_enough(
    kind: bytes, content: bytes, message: str, originals: dict[str, Path], tmp_path: Path
) -> None:
    path = with_third_image(originals["new.db3"], tmp_path, lambda png: with_sealed_chunk(png, kind, content))
    frames, error = read(path)
    assert len(frames) == 2
    assert error is not None
    assert error.reason is Reason.RECORDING_DAMAGED
    assert message in str(error)


@pytest.mark.parametrize("suffix", [".db3", ".bag"])
@pytest.mark.parametrize("content", [b"", b"x", b"not a recording at all" * 100, bytes(10_000)])
def test_what_never_was_a_recording(suffix: str, content: bytes, tmp_path: Path) -> None:
    frames, error = read_bytes(content, Path(f"any{suffix}"), tmp_path)
    assert frames == []
    assert error is not None
    assert error.reason is Reason.RECORDING_DAMAGED
    assert "byte 0" in str(error)


def test_wrong_suffix_is_named_as_damage(originals: dict[str, Path], tmp_path: Path) -> None:
    _, error = read_bytes(originals["new.db3"].read_bytes(), Path("any.bag"), tmp_path)
    assert "does not begin as a ROS bag" in str(error)


def edited(original: Path, folder: Path, statement: str) -> Path:
    """A copy of a .db3 changed by SQL: a file that is sound for SQLite and wrong as a recording."""
    path = folder / "edited.db3"
    path.write_bytes(original.read_bytes())
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)
    return path


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM messages", "holds no messages"),
        ("UPDATE topics SET name = '/camera/' || name", "no RealSense recording"),
        ("DELETE FROM topics", "names topic 1"),
        ("DROP TABLE messages", "no tables"),
        ("UPDATE messages SET data = x'00' WHERE id = 6", "Invalid or unsupported CDR"),
        ("UPDATE messages SET data = 1 WHERE id = 6", "holds no data"),
        ("UPDATE topics SET name = '/device_1/info' WHERE name = '/device_0/info'", "several devices"),
        ("UPDATE topics SET name = replace(name, 'image/metadata', 'image/metadatb')", "timestamp|Frame number"),
        ("UPDATE topics SET name = replace(name, 'image/data', 'image/datum')", "follow no image"),
        ("UPDATE topics SET name = replace(name, 'Depth_0/info', 'Depth_7/info')", "not announced"),
        ("UPDATE messages SET topic_id = 99 WHERE id = 20", "names topic 99"),
    ],
)
def test_sound_sqlite_but_wrong_recording(
    statement: str, message: str, originals: dict[str, Path], tmp_path: Path
) -> None:
    path = edited(originals["new.db3"], tmp_path, statement)
    frames, error = read(path)
    assert error is not None
    assert error.reason in DAMAGE_REASONS
    assert len(frames) < 10
    assert re.search(message, str(error))


def test_unknown_format_is_named(originals: dict[str, Path], tmp_path: Path) -> None:
    content = originals["new.db3"].read_bytes().replace(b"encoding=Z16", b"encoding=W10")
    frames, error = read_bytes(content, originals["new.db3"], tmp_path)
    assert frames == []
    assert error is not None
    assert error.reason is Reason.RECORDING_UNSUPPORTED
    assert "'W10' cannot be read" in str(error)


def test_damaged_text_is_shown_fit_for_a_terminal(originals: dict[str, Path], tmp_path: Path) -> None:
    garbage = b"\x1b[31m\n" * 4
    content = originals["new.db3"].read_bytes().replace(b"encoding=Z16;fps=30", (garbage + bytes(30))[:19])
    _, error = read_bytes(content, originals["new.db3"], tmp_path)
    assert error is not None
    assert str(error).isprintable()
    assert len(str(error)) < 600


def test_a_lost_row_is_seen_by_the_index(originals: dict[str, Path], tmp_path: Path) -> None:
    """The negative control of the index: a leaf that claims one cell less loses a row; SQLite would not notice."""
    whole = bytearray(originals["new.db3"].read_bytes())
    complete, _ = read(originals["new.db3"])
    lost = 0
    for page in range(4096 * 2, len(whole), 4096):
        if whole[page] == 0x0D and int.from_bytes(whole[page + 3 : page + 5], "big") > 1:
            content = bytearray(whole)
            content[page + 3 : page + 5] = (int.from_bytes(whole[page + 3 : page + 5], "big") - 1).to_bytes(2, "big")
            frames, error = read_bytes(bytes(content), originals["new.db3"], tmp_path)
            assert frames == complete[: len(frames)]
            assert error is not None
            lost += 1
    assert lost > 3


def test_recorder_killed_in_the_middle_of_a_row(originals: dict[str, Path], tmp_path: Path) -> None:
    """A hot journal beside the file is undone in a copy; the recording itself stays as it was."""
    path = tmp_path / "killed.db3"
    path.write_bytes(originals["new.db3"].read_bytes())
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA cache_size = 1")  # so that changed pages reach the file before the commit
    database.execute("BEGIN")
    database.execute("DELETE FROM messages WHERE id > 5")
    database.execute("INSERT INTO messages SELECT 5000 + id, topic_id, timestamp, zeroblob(100000) FROM messages")
    half_written, journal = path.read_bytes(), (tmp_path / "killed.db3-journal").read_bytes()
    database.execute("ROLLBACK")
    database.close()
    assert half_written != originals["new.db3"].read_bytes()
    path.write_bytes(half_written)
    broken, error = read(path)
    assert error is not None
    assert len(broken) < 10
    (tmp_path / "killed.db3-journal").write_bytes(journal)
    frames, error = read(path)
    assert error is None
    assert frames == read(originals["new.db3"])[0]
    assert path.read_bytes() == half_written
