"""Which recordings of boards a folder holds, and in which order."""

from pathlib import Path

import pytest

from depthcell.calib.board_recordings import board_recordings, place_folders
from depthcell.errors import DepthcellError


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names_of(source: Path) -> list[list[str]]:
    return [[str(p.relative_to(source)) for p in segment.paths] for segment in board_recordings(source).segments]


def test_one_recording_for_each_camera_is_one_segment(tmp_path: Path) -> None:
    made(tmp_path, "board/A.db3", "board/B.db3", "plate/A.db3")
    assert names_of(tmp_path) == [["board/A.db3", "board/B.db3"]]
    assert names_of(tmp_path / "board") == [["A.db3", "B.db3"]]


def test_places_follow_each_other_by_number_and_come_after_what_lies_beside_them(tmp_path: Path) -> None:
    made(tmp_path, "board/place_10/A.db3", "board/place_002/A.db3", "board/place_002/B.db3")
    assert names_of(tmp_path) == [["board/place_002/A.db3", "board/place_002/B.db3"], ["board/place_10/A.db3"]]
    made(tmp_path, "board/A.db3", "board/.place_011.partial/A.db3")
    assert names_of(tmp_path)[0] == ["board/A.db3"]
    assert len(names_of(tmp_path)) == 3
    assert [path.name for path in place_folders(tmp_path / "board")] == ["place_002", "place_10"]


def test_one_place_or_one_recording_may_be_named(tmp_path: Path) -> None:
    made(tmp_path, "board/place_002/A.db3")
    assert names_of(tmp_path / "board" / "place_002") == [["A.db3"]]
    assert len(board_recordings(tmp_path / "board" / "place_002" / "A.db3").paths) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("part_1/A.db3", "part_2/A.db3"), "holds recordings of part_1, part_2; name the folder"),
        (("place_001/A.db3", "part_2/A.db3"), "holds recordings of part_2, place_001; name the folder"),
        (("board/place_001/notes.txt",), "place_001: holds no recording"),
        (("board/A.db3", "board/place_001/notes.txt"), "place_001: holds no recording"),
        ((), "holds no recording"),
    ],
)
def test_what_is_no_run_of_places_is_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match=message):
        board_recordings(made(tmp_path, *names))
