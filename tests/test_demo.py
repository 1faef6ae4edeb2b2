"""The demonstration as `make demo` runs it, on two parts; its controller is a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from depthcell.errors import DepthcellError
from depthcell.inspect import demo
from depthcell.inspect.demo import Controller, check_out
from depthcell.inspect.publisher import VerdictPublisher
from depthcell.inspect.simulated_station import RUN_FILE
from depthcell.inspect.verdict import Verdict, from_json
from depthcell.inspect.wire import Endpoint


def depthcell(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "depthcell", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "runs" / "demo"


@pytest.fixture(scope="module")
def shown(out: Path) -> subprocess.CompletedProcess[str]:
    return depthcell("demo", "--parts", "2", "--seed", "4", "--no-model", "--out", out, "--json")


def test_truth_stands_beside_verdict(shown: subprocess.CompletedProcess[str], out: Path) -> None:
    assert shown.returncode == 0, shown.stderr
    result = json.loads(shown.stdout)
    assert [part["part_id"] for part in result["parts"]] == ["part_0001", "part_0002"]
    assert sorted(part["good"] for part in result["parts"]) == [False, True]
    assert result["summary"]["parts"] == 2
    assert Path(result["report"]).is_relative_to(out)
    assert Path(result["report"]).is_file()


def test_the_verdicts_shown_are_those_the_controller_heard(shown: subprocess.CompletedProcess[str], out: Path) -> None:
    (kept,) = out.glob("inspections/*/verdicts.jsonl")
    verdicts = [from_json(line) for line in kept.read_bytes().splitlines()]
    for verdict, part in zip(verdicts, json.loads(shown.stdout)["parts"], strict=True):
        assert (part["verdict"], tuple(part["reasons"])) == (verdict.verdict.value, verdict.reasons)
        assert f"#{verdict.sequence}  {verdict.part_id}  {verdict.verdict.value}" in shown.stderr
    assert "begins" in (out / "controller.log").read_text()


def test_a_folder_that_is_not_ours_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DepthcellError, match=r"--out .* not empty and no earlier demo"):
        check_out(tmp_path)
    with pytest.raises(DepthcellError, match=r"--out .* is a file"):
        check_out(tmp_path / "thesis.txt")
    check_out(tmp_path / "new")
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / RUN_FILE).touch()
    check_out(tmp_path / "earlier")
    assert sorted((path.name for path in tmp_path.iterdir()), reverse=True) == ["thesis.txt", "earlier"]


def test_a_controller_that_missed_a_verdict_is_said_so(
    tmp_path: Path, make_verdict: Callable[..., Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends after one verdict of two: the controller goes on waiting, and is not believed to have both."""
    monkeypatch.setattr(demo, "CONTROLLER_END_S", 1.0)
    heard: list[Verdict] = []
    with (
        VerdictPublisher(Endpoint("127.0.0.1", "*")) as publisher,
        Controller(publisher.endpoint, 2, tmp_path / "log", heard.append) as controller,
    ):
        assert publisher.wait_for_listener(30.0)
        publisher.publish(make_verdict())
        publisher.close(complete=False)
        with pytest.raises(DepthcellError, match=r"did not hear every verdict.*log"):
            controller.finished()
    assert [verdict.sequence for verdict in heard] == [1]


@pytest.mark.slow
def test_a_model_is_trained_on_the_spot_and_judges_too(tmp_path: Path) -> None:
    told = depthcell("demo", "--parts", "2", "--seed", "4", "--out", tmp_path / "demo", "--json")
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "demo.model" / "manifest.json").is_file()
    (kept,) = (tmp_path / "demo").glob("inspections/*/verdicts.jsonl")
    verdicts = [from_json(line) for line in kept.read_bytes().splitlines()]
    assert all(verdict.provenance.model for verdict in verdicts)
    assert any("model" in reason for verdict in verdicts for reason in verdict.reasons)
