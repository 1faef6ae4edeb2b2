"""The run folder: never overwritten, each verdict on disk at once, the configuration in full."""

import errno
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from depthcell.acquisition.partfolder import find_parts
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.run_folder import RunFolder
from depthcell.inspect.verdict import Verdict, from_json

MakeVerdict = Callable[..., Verdict]
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    part = tmp_path / "line" / "part_0001"
    part.mkdir(parents=True)
    (part / "405000001.db3").touch()
    return tmp_path / "line"


def test_a_run_gets_a_folder_of_its_own_beside_the_parts(source: Path) -> None:
    first, second = (RunFolder.create(source, None, NOW) for _ in range(2))
    with first, second:
        assert first.path == source / "inspections" / "20260304T050607Z"
        assert second.path == source / "inspections" / "20260304T050607Z-2"


def test_results_are_not_taken_for_parts(source: Path) -> None:
    with RunFolder.create(source, None, NOW):
        assert [part.part_id for part in find_parts(source)] == ["part_0001"]


def test_a_single_recording_has_its_results_beside_it(source: Path) -> None:
    recording = source / "part_0001" / "405000001.db3"
    with RunFolder.create(recording, None, NOW) as folder:
        assert folder.path.parent == recording.parent / "inspections"


def test_a_named_folder_is_made_but_never_overwritten(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "results"
    RunFolder.create(source, out, NOW).__exit__(None, None, None)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DepthcellError, match=r"--out .*results: exists already"):
        RunFolder.create(source, out, NOW)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DepthcellError, match=r"--out .*file: exists already"):
        RunFolder.create(source, file, NOW)


def test_an_empty_folder_may_be_named(source: Path, tmp_path: Path) -> None:
    with RunFolder.create(source, tmp_path / "line" / "part_0001" / "empty", NOW):
        pass


def test_a_place_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DepthcellError, match=r"file/results: cannot be written \(Not a directory\).*--out"):
        RunFolder.create(source, tmp_path / "file" / "results", NOW)


def test_each_verdict_is_on_disk_before_the_next(source: Path, make_verdict: MakeVerdict) -> None:
    with RunFolder.create(source, None, NOW) as folder:
        for sequence in (1, 2, 3):
            folder.append(make_verdict(sequence))
            lines = (folder.path / "verdicts.jsonl").read_bytes().splitlines()
            assert [from_json(line) for line in lines] == [make_verdict(n) for n in range(1, sequence + 1)]


def test_a_full_disk_is_said(source: Path, make_verdict: MakeVerdict, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunFolder.create(source, None, NOW) as folder:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DepthcellError, match="No space left on device") as refusal:
            folder.append(make_verdict())
        monkeypatch.undo()
    assert refusal.value.reason is Reason.DISK_FULL


RECIPE = """
schema_version = 1
name = "plate"
[cell]
cameras = ["405000001"]
[reference]
mesh = "plate.stl"
[region]
min_mm = [-30, -20, -5]
max_mm = [30, 20, 5]
[surface]
tolerance_mm = 0.3
"""


def test_the_configuration_is_kept_in_full(source: Path, tmp_path: Path, plate_cell: Cell) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "plate.stl").touch()
    recipe = Recipe.load(tmp_path / "recipe.toml")
    with RunFolder.create(source, None, NOW) as folder:
        folder.write_configuration(recipe, plate_cell, source=source, frames=None)
        kept = json.loads((folder.path / "recipe.json").read_text())
        run = json.loads((folder.path / "run.json").read_text())
        assert Cell.load(folder.path / "cell.json").sha256 == plate_cell.sha256
    assert kept["takt_ms"] == 2000.0  # a default, not in the file
    assert kept["surface"]["tolerance_mm"] == 0.3
    assert run["source"] == str(source)
    assert {"depthcell", "python", "numpy", "open3d", "pyzmq"} <= set(run["software"])
