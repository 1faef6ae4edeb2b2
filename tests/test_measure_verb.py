"""`depthcell measure` after the measuring: what is said and written of each part as it comes, one at a time."""

import gc
import json
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
from measuredplate import measured_plate, missing_plate

from depthcell.acquisition.partfolder import PartFolder
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.inspect import measure_run, measurement_files
from depthcell.inspect.inspection_run import RunPlan
from depthcell.inspect.measure_verb import Wanted, measure_parts
from depthcell.inspect.measurement import MeasuredPart

RECIPE = SimpleNamespace(name="plate", surface=SimpleNamespace(tolerance_mm=0.3), cell_path=Path("cell.json"))
PLAN = RunPlan(Path("parts"))


class _FakeMeasurer:
    """Hands out the plate, and a missing part as the second; knows how many parts somebody still holds."""

    def __init__(self, *_: object) -> None:
        self.held: list[weakref.ref[object]] = []
        self.most_held = 0

    def measure(self, part: PartFolder) -> MeasuredPart:
        gc.collect()
        self.most_held = max(self.most_held, sum(ref() is not None for ref in self.held))
        if part.part_id == "b":
            return missing_plate("b")
        measured = measured_plate(part.part_id)
        assert measured.deviation_m is not None
        self.held.append(weakref.ref(measured.deviation_m))
        return measured


@pytest.fixture
def measurer(monkeypatch: pytest.MonkeyPatch) -> _FakeMeasurer:
    fake = _FakeMeasurer()
    monkeypatch.setattr(measure_run, "Measurer", lambda *_: fake)
    monkeypatch.setattr(measure_run, "load_recipe", lambda _: RECIPE)
    monkeypatch.setattr(measure_run, "find_parts", lambda _: [PartFolder(name, ()) for name in "abcd"])
    monkeypatch.setattr(Cell, "load", lambda _: SimpleNamespace(name="one cell"))
    return fake


@pytest.mark.usefixtures("measurer")
def test_each_part_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    measure_parts(PLAN, Wanted(None, None), json_wanted=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["part_id"] for line in lines] == ["a", "b", "c", "d"]
    assert lines[0]["gauges"][0]["value"] == pytest.approx(12.03)
    assert lines[1]["gauges"][0]["value"] is None


@pytest.mark.usefixtures("measurer")
def test_each_part_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    measure_parts(PLAN, Wanted(None, None), json_wanted=False)
    said = capsys.readouterr().out
    assert "12.03 ± 0.10 mm" in said
    assert "the part is missing" in said


@pytest.mark.usefixtures("measurer")
def test_report_and_qif_are_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    measure_parts(PLAN, Wanted(out, tmp_path / "results.qif"), json_wanted=True)
    assert {path.name for path in out.iterdir() if path.is_dir()} == set("abcd")
    content = json.loads((out / "measurements.json").read_text(encoding="utf-8"))
    assert [part["part_id"] for part in content["parts"]] == list("abcd")
    assert content["recipe"] == "plate"
    assert content["cell"] == "one cell"
    assert (out / "index.html").is_file()
    assert b"<SerialNumber>d<" in (tmp_path / "results.qif").read_bytes()


def test_a_long_run_holds_one_part_at_a_time(
    measurer: _FakeMeasurer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measurement_files, "write_part", lambda *_: None)
    measure_parts(PLAN, Wanted(tmp_path / "out", None), json_wanted=True)
    assert len(measurer.held) == 3
    assert measurer.most_held <= 1


@pytest.mark.usefixtures("measurer")
def test_a_full_disk_stops_the_run_at_the_part_that_did_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(part: MeasuredPart, *_: object) -> None:
        if part.part_id == "b":
            raise DepthcellError("no room", Reason.DISK_FULL)

    monkeypatch.setattr(measurement_files, "write_part", full)
    with pytest.raises(DepthcellError) as caught:
        measure_parts(PLAN, Wanted(tmp_path / "out", None), json_wanted=True)
    assert caught.value.reason is Reason.DISK_FULL
    assert [json.loads(line)["part_id"] for line in capsys.readouterr().out.splitlines()] == ["a", "b"]
    assert not (tmp_path / "out" / "index.html").exists()


def test_what_was_measured_until_ctrl_c_is_kept(
    measurer: _FakeMeasurer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = measurer.measure

    def interrupted(part: PartFolder) -> MeasuredPart:
        if part.part_id == "c":
            raise KeyboardInterrupt
        return whole(part)

    monkeypatch.setattr(measurer, "measure", interrupted)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        measure_parts(PLAN, Wanted(out, tmp_path / "results.qif"), json_wanted=True)
    content = json.loads((out / "measurements.json").read_text(encoding="utf-8"))
    assert [part["part_id"] for part in content["parts"]] == ["a", "b"]
    assert b"<SerialNumber>b<" in (tmp_path / "results.qif").read_bytes()
    assert not (out / "index.html").exists(), "where it is, everything is"
