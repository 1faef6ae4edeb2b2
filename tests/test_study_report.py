"""Studies as JSON, tables, pictures and one page."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from studydata import FLOWRATE_PUBLISHED, grr_csv, linearity_csv, written

from depthcell.calib.study.study_capability import CapabilitySettings, study_capability
from depthcell.calib.study.study_grr import study_grr
from depthcell.calib.study.study_report import Study, study_json, study_sentence, study_tables, write_study
from depthcell.calib.study.study_type1 import Type1Settings, study_type1
from depthcell.errors import DepthcellError


@pytest.fixture(scope="module", params=["type1", "grr", "capability"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    if request.param == "type1":
        return study_type1(linearity_csv(folder / "lin.csv"), Type1Settings(tolerance=8.0))
    if request.param == "grr":
        return study_grr(grr_csv(folder / "grr.csv"))
    path = written(folder / "flow.csv", "value", [str(value) for value in (*FLOWRATE_PUBLISHED, 60.0)])
    return study_capability(path, CapabilitySettings(lower=40.0, upper=60.0))


def test_json_holds_settings_values_and_results(study: Study) -> None:
    content = json.loads(study_json(study))
    assert content["study"] in {"type1", "grr", "capability"}
    assert content["settings"]["unit"] == "mm"
    assert content["source"].endswith(".csv")
    assert json.loads(study_json(study)) == content


def test_tables_and_sentence_speak_of_the_same_study(study: Study) -> None:
    console = Console(width=200)
    with console.capture() as captured:
        for table in study_tables(study):
            console.print(table)
    assert "\n" not in study_sentence(study)
    assert study.source in captured.get()
    rows = [table.row_count for table in study_tables(study)]
    assert all(count > 0 for count in rows)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html", ".json"])
def test_files_are_written_by_suffix(study: Study, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"study{suffix}"
    write_study(study, path)
    content = path.read_bytes()
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".html": b"<!doctype html>", ".json": b"{"}
    assert content.startswith(starts[suffix])
    if suffix == ".html":
        assert b"<svg" in content
        assert b"<table>" in content
        assert b"http://" not in content.split(b"<svg")[0]


def test_an_unknown_suffix_is_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match=r"cannot write a study as '\.docx'"):
        write_study(study, tmp_path / "study.docx")
    assert not list(tmp_path.iterdir())


def test_what_is_out_of_control_is_said(tmp_path: Path) -> None:
    path = written(tmp_path / "flow.csv", "value", [str(value) for value in (*FLOWRATE_PUBLISHED, 60.0)])
    assert "NOT in control" in study_sentence(study_capability(path, CapabilitySettings(lower=40.0, upper=60.0)))
