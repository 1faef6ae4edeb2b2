"""`depthcell golden`: from recordings of good parts to a recipe's statistics, and what it refuses."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from depthcell.acquisition.partfolder import GOLDEN_FOLDER
from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.partrun import PartTask, simulate_part
from depthcell.acquisition.simulator.station import StationPlan, Stream
from depthcell.cli import app, main
from depthcell.inspect.golden import Golden
from depthcell.inspect.simulated_station import GOLDEN_FILE, RunSettings, simulate_station

PLAN = StationPlan(part="bracket", camera_model="D405", cameras=1, seed=7, frames=2, defect_rate=1.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated run of one defective part, and four golden ones with their statistics."""
    folder = tmp_path_factory.mktemp("run")
    simulate_station(PLAN, RunSettings(parts=1, golden=4), folder, lambda _: None)
    return folder


def golden(run: Path, data: Path, out: Path) -> Result:
    words = ["golden", str(run / "recipe.toml"), str(data), "--out", str(out), "--cell", str(run / "cell.json")]
    return CliRunner().invoke(app, words)


def test_statistics_are_those_that_simulate_wrote(run: Path, tmp_path: Path) -> None:
    result = golden(run, run / GOLDEN_FOLDER, tmp_path / "golden.npz")
    assert result.exit_code == 0, result.output
    assert "4 good parts, colours of 1 cameras" in result.output
    assert (tmp_path / "golden.npz").read_bytes() == (run / GOLDEN_FILE).read_bytes()
    assert len(Golden.load(tmp_path / "golden.npz").part_ids) == 4


def test_defective_and_doubled_parts_are_refused_by_name(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(run / GOLDEN_FOLDER, data)
    shutil.copytree(data / "part_0002", data / "part_0009", ignore=shutil.ignore_patterns("truth.json"))
    shutil.rmtree(data / "part_0001")
    shutil.copytree(run / "part_0001", data / "part_0001")
    result = golden(run, data, tmp_path / "golden.npz")
    assert result.exit_code != 0
    message = str(result.exception)
    assert "part_0009 is the same recording as part_0002" in message
    assert "part_0001 is labelled defective" in message
    assert not (tmp_path / "golden.npz").exists()


def test_damaged_parts_and_one_that_cannot_be_good_are_named_together(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(run / GOLDEN_FOLDER, data)
    (cut,) = (data / "part_0002").glob("*.db3")
    cut.write_bytes(b"no recording")
    for name, kind in (("part_0009", DefectKind.DENT), ("part_0010", DefectKind.MISSING_MATERIAL)):
        simulate_part(PLAN, PartTask(Stream.LINE, 4, data / name, (kind,)))
        (data / name / "truth.json").unlink()
    message = str(golden(run, data, tmp_path / "golden.npz").exception)
    assert f"recording {cut}: damaged" in message
    assert "part_0009 is said to be good, but shows dent" in message
    assert "part_0010: alignment: the pose ran" in message


def test_a_full_disk_is_one_line_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    words = ["golden", str(run / "recipe.toml"), str(run / GOLDEN_FOLDER), "--out", str(tmp_path / "golden.npz")]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("depthcell:")]
    assert line == "depthcell: No space left on device; make room, or name a place that can be written"
    assert not list(tmp_path.iterdir())


def test_another_kind_of_file_or_a_folder_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "golden.npz").mkdir()
    for name in ("golden.json", "golden.npz"):
        result = golden(run, run / GOLDEN_FOLDER, tmp_path / name)
        assert "name a file that ends in .npz" in str(result.exception)
