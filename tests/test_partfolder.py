"""Part folders: which parts a path holds, in which order, their identity, and what a damaged recording still gives."""

from pathlib import Path

import numpy as np
import pytest

from depthcell.acquisition.frameset import FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.acquisition.simulator.recordingwriter import WrittenDevice, WrittenFrame, write_recording
from depthcell.errors import DepthcellError, Reason

DEPTH = Intrinsics(64, 48, 40.0, 40.0, 31.5, 23.5)
PERIOD_NS = 33_333_000


def record(path: Path, serial: str, numbers: range, rng: np.random.Generator | None = None) -> None:
    device = WrittenDevice(serial, "Intel RealSense D435", DEPTH, None, None, 0.001, 0.05)
    rng = rng or np.random.default_rng(0)
    frames = [
        WrittenFrame(rng.integers(1, 60_000, (48, 64)).astype(np.uint16), None, 10**9 + k * PERIOD_NS, k)
        for k in numbers
    ]
    write_recording(path, device, frames)


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"recording")
    return tmp_path


def test_parts_come_in_natural_order_without_golden_hidden_and_partial_ones(tmp_path: Path) -> None:
    source = folder_of(
        tmp_path,
        *(f"part_{k}/a.db3" for k in (10, 9, 2, 1)),
        *("golden/g/a.db3", ".hidden/a.db3", "part_3.partial/a.db3", "cell.json", "part_1/.a.1.partial.db3"),
        *("part_2/b_10.bag", "part_2/b_9.bag", "part_2/truth.json", "part_2/a.db3-wal"),
    )
    parts = find_parts(source)
    assert [part.part_id for part in parts] == ["part_1", "part_2", "part_9", "part_10"]
    assert [path.name for path in parts[1].paths] == ["a.db3", "b_9.bag", "b_10.bag"]
    assert [path.name for path in parts[0].paths] == ["a.db3"]


def test_one_part_folder_and_one_recording_are_parts_too(tmp_path: Path) -> None:
    source = folder_of(tmp_path, "part_7/a.db3", "golden/g_1/a.db3")
    assert [part.part_id for part in find_parts(source / "part_7")] == ["part_7"]
    assert find_parts(source / "part_7" / "a.db3") == (PartFolder("a", (source / "part_7" / "a.db3",)),)
    assert [part.part_id for part in find_parts(source / "golden")] == ["g_1"]  # asked for by name, it is taken


@pytest.mark.parametrize(
    ("make", "ask", "named"),
    [
        (("part_1/a.db3", "part_2/truth.json"), ".", "part_2: holds no recording"),
        (("readme.txt",), ".", "holds no recording"),
        (("a.txt",), "a.txt", "is no recording"),
        (("part_1/a.db3",), "part_9", "part_9: does not exist"),
    ],
)
def test_what_holds_no_recording_is_named(tmp_path: Path, make: tuple[str, ...], ask: str, named: str) -> None:
    with pytest.raises(DepthcellError, match=named):
        find_parts(folder_of(tmp_path, *make) / ask)


def test_identity_follows_every_name_and_every_byte_and_nothing_else(tmp_path: Path) -> None:
    (part,) = find_parts(folder_of(tmp_path / "x" / "part", "a.db3", "b.db3"))
    (elsewhere,) = find_parts(folder_of(tmp_path / "y" / "other", "b.db3", "a.db3"))
    assert part.sha256 == elsewhere.sha256
    seen = {part.sha256}
    part.paths[0].write_bytes(b"recordinG")
    seen.add(part.sha256)
    part.paths[0].with_name("a.db3-wal").write_bytes(b"the last frames")
    seen.add(part.sha256)
    (renamed,) = find_parts(folder_of(tmp_path / "z" / "part", "a.db3", "c.db3"))
    seen.add(renamed.sha256)
    assert len(seen) == 4


def test_recordings_of_one_camera_follow_each_other_and_cameras_are_grouped(tmp_path: Path) -> None:
    record(tmp_path / "A_2.db3", "A", range(5, 8))
    record(tmp_path / "A_1.db3", "A", range(5))
    record(tmp_path / "B.db3", "B", range(1, 8))
    (part,) = find_parts(tmp_path)
    sets = list(part.framesets(("B", "A")))
    assert [each.missing for each in sets] == [("B",)] + [()] * 7
    numbers = [each.frames["A"].depth.number for each in sets if each.frames["A"].depth]
    assert numbers == list(range(8))


def test_cameras_not_asked_for_are_left_out_and_absent_ones_are_missing(tmp_path: Path) -> None:
    record(tmp_path / "A.db3", "A", range(3))
    record(tmp_path / "B.db3", "B", range(3))
    (part,) = find_parts(tmp_path)
    sets = list(part.framesets(("A", "C")))
    assert [tuple(each.frames) for each in sets] == [("A",)] * 3
    assert {each.missing for each in sets} == {("C",)}
    assert [tuple(each.frames) for each in part.framesets()] == [("A", "B")] * 3


def test_a_damaged_recording_gives_what_it_can_and_then_its_error(tmp_path: Path) -> None:
    record(tmp_path / "A.db3", "A", range(20))
    record(tmp_path / "B.db3", "B", range(20))
    whole = (tmp_path / "A.db3").read_bytes()
    (tmp_path / "A.db3").write_bytes(whole[: len(whole) * 3 // 4])
    (part,) = find_parts(tmp_path)
    sets: list[FrameSet] = []
    with pytest.raises(DepthcellError, match=r"A\.db3.*byte") as caught:
        sets.extend(part.framesets(("A", "B")))
    assert caught.value.reason is Reason.RECORDING_DAMAGED
    assert len(sets) == 20
    complete = [each.is_complete for each in sets]
    assert 0 < sum(complete) < 20
    assert complete == sorted(complete, reverse=True)
