"""The whole way as a user goes it: simulate, inspect, listen. Small, and with nothing stood in for."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from depthcell.acquisition.simulator.truth import PartTruth
from depthcell.inspect.comparison import Comparison, Outcome
from depthcell.inspect.verdict import Decision, digest_of, from_json, json_schema

TIMES = ("timings_ms", "issued_at")


def depthcell(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "depthcell", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


def contents(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four parts of a simulated cell of three cameras: two good, one dented, one without a bore."""
    out = tmp_path_factory.mktemp("end_to_end") / "sim"
    done = depthcell(
        *("simulate", "--parts", "4", "--golden", "4", "--frames", "4", "--seed", "5", "--out", out),
        *("--defects", "dent,missing_bore", "--jobs", "1", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["parts"]) == 4
    return out


@pytest.fixture(scope="module")
def first_run(line: Path) -> subprocess.CompletedProcess[str]:
    return depthcell("inspect", line, "--json")


def test_one_valid_verdict_for_each_part(first_run: subprocess.CompletedProcess[str]) -> None:
    assert first_run.returncode == 0, first_run.stderr
    validator = jsonschema.Draft202012Validator(json_schema())
    verdicts = contents(first_run.stdout)
    assert [verdict["part_id"] for verdict in verdicts] == [f"part_{number:04d}" for number in (1, 2, 3, 4)]
    assert [verdict["sequence"] for verdict in verdicts] == [1, 2, 3, 4]
    for verdict in verdicts:
        validator.validate(verdict)
    for text in first_run.stdout.splitlines():
        read = from_json(text.encode())
        assert digest_of(read) == read.digest


def test_a_second_run_gives_the_same_bytes_but_for_the_times(
    line: Path, first_run: subprocess.CompletedProcess[str]
) -> None:
    second_run = depthcell("inspect", line, "--json")
    assert second_run.returncode == 0, second_run.stderr
    first, second = contents(first_run.stdout), contents(second_run.stdout)
    for verdict in (*first, *second):
        for name in TIMES:
            assert verdict.pop(name)
    assert [json.dumps(verdict) for verdict in first] == [json.dumps(verdict) for verdict in second]


def test_defects_this_plain_are_found_where_they_are_and_good_parts_not_rejected_for_one(
    line: Path, first_run: subprocess.CompletedProcess[str]
) -> None:
    """Four frames are few: a good part may come out as CANNOT-TELL, but not as NOK."""
    for text in first_run.stdout.splitlines():
        verdict = from_json(text.encode())
        truth = PartTruth.load(line / verdict.part_id / "truth.json")
        expected = {Outcome.PASSED, Outcome.UNDECIDED} if truth.good else {Outcome.FOUND}
        assert Comparison(truth, verdict).outcome in expected, (truth.defects, verdict.reasons)


def test_the_report_pictures_the_defects(line: Path, first_run: subprocess.CompletedProcess[str]) -> None:
    results = min((line / "inspections").iterdir())
    assert (results / "verdicts.jsonl").read_text() == first_run.stdout
    report = (results / "report.html").read_text()
    flagged = [verdict for verdict in contents(first_run.stdout) if verdict["verdict"] != "OK"]
    assert flagged
    for verdict in flagged:
        assert f'id="part-{verdict["sequence"]}"' in report
        assert f"dev-{verdict['sequence']}-405000001" in report


def test_without_a_camera_no_part_is_ok(line: Path, tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    shutil.copytree(line, blind, ignore=shutil.ignore_patterns("inspections", "golden"))
    for recording in blind.glob("part_*/405000002.db3"):
        recording.unlink()
    done = depthcell("inspect", blind, "--json", "--no-report")
    assert done.returncode == 0, done.stderr
    verdicts = contents(done.stdout)
    assert len(verdicts) == 4
    for verdict in verdicts:
        assert verdict["verdict"] in {"NOK", "CANNOT-TELL"}
        assert any("405000002" in reason for reason in verdict["reasons"])


def test_a_truncated_recording_is_a_verdict_not_a_crash(line: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(line, cut, ignore=shutil.ignore_patterns("inspections", "golden", "part_0002", "part_0003"))
    recording = cut / "part_0001" / "405000001.db3"
    os.truncate(recording, recording.stat().st_size // 3)
    done = depthcell("inspect", cut, "--json", "--no-report")
    assert done.returncode == 0, done.stderr
    damaged, whole = contents(done.stdout)
    assert damaged["verdict"] != Decision.OK
    assert any("405000001" in reason for reason in damaged["reasons"])
    assert whole["part_id"] == "part_0004"


def test_ctrl_c_leaves_whole_lines_and_a_report(line: Path, tmp_path: Path) -> None:
    out = tmp_path / "interrupted"
    command = [sys.executable, "-m", "depthcell", "inspect", str(line), "--json", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, notes = process.communicate(timeout=120)
    kept = (out / "verdicts.jsonl").read_bytes()
    assert kept == first + rest
    assert all(from_json(text) for text in kept.splitlines())
    is_whole = len(kept.splitlines()) == 4  # the signal may come too late
    assert process.returncode == (0 if is_whole else 130), notes
    assert ("Cut short." in (out / "report.html").read_text()) != is_whole
