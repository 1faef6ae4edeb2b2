"""In which order a calibration's results are written, and what a failure on the way leaves behind."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from depthcell.calib import calibrate_report
from depthcell.calib.calibrate_report import write_results
from depthcell.errors import DepthcellError

PART: Any = ("known to so much",)


class SavedCell:
    """A cell of which only matters that it is written."""

    def save(self, path: Path) -> None:
        path.write_text("{}")


@pytest.fixture
def calibrated() -> Any:
    return SimpleNamespace(cell=SavedCell())


def test_the_cell_is_there_before_its_certificate(
    calibrated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, certificate = tmp_path / "cell.json", tmp_path / "cell.pdf"

    def full(_content: object, _path: Path) -> None:
        assert out.is_file()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(calibrate_report, "certificate_of", lambda *_: SimpleNamespace(part=PART))
    monkeypatch.setattr(calibrate_report, "write_certificate", full)
    plan: Any = None
    with pytest.raises(OSError, match="No space"):
        write_results(plan, calibrated, plan, out, certificate)
    assert [path.name for path in tmp_path.iterdir()] == ["cell.json"]


def test_what_cannot_be_certified_leaves_nothing(
    calibrated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise DepthcellError("work volume: no camera sees it")

    monkeypatch.setattr(calibrate_report, "certificate_of", refused)
    plan: Any = None
    with pytest.raises(DepthcellError, match="no camera"):
        write_results(plan, calibrated, plan, tmp_path / "cell.json", tmp_path / "cell.pdf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wanted", [None, "cell.pdf"])
def test_the_map_of_the_part_is_made_once(
    calibrated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str | None
) -> None:
    made: list[str] = []

    def certificate_of(*_: object) -> object:
        made.append("certificate's map")
        return SimpleNamespace(part=PART)

    monkeypatch.setattr(calibrate_report, "part_map", lambda *_: made.append("map"))
    monkeypatch.setattr(calibrate_report, "part_uncertainties", lambda *_: PART)
    monkeypatch.setattr(calibrate_report, "certificate_of", certificate_of)
    monkeypatch.setattr(calibrate_report, "write_certificate", lambda *_: None)
    plan: Any = None
    certificate = None if wanted is None else tmp_path / wanted
    written = write_results(plan, calibrated, plan, tmp_path / "cell.json", certificate)
    assert written.part is PART
    assert len(made) == 1
