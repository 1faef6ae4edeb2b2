"""The harness reports what was measured: medians, ratios, and goals that were missed."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

HARNESS = Path(__file__).resolve().parent.parent / "benchmarks" / "harness.py"


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("harness", HARNESS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "harness", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_each_repetition_runs_once_and_warm_ups_do_not_count(harness: ModuleType) -> None:
    calls: list[int] = []
    timing = harness.measure(lambda: calls.append(1), repetitions=5, warm_ups=2)
    assert len(calls) == 7
    assert timing.n == 5
    assert 0 <= timing.p10_s <= timing.median_s <= timing.p90_s


def test_percentiles_of_known_seconds(harness: ModuleType) -> None:
    timing = harness.timing_of([float(value) for value in range(11)])
    assert (timing.p10_s, timing.median_s, timing.p90_s, timing.n) == (1.0, 5.0, 9.0, 11)


def test_loss_is_reported_as_one_and_written_with_its_origin(harness: ModuleType, tmp_path: Path) -> None:
    report = harness.Report("sample")
    twice, peer = harness.Goal(ratio=2.0), harness.Peer("the other", harness.timing_of([3.0]))
    won = report.add("fast", harness.timing_of([1.0]), twice, peer)
    lost = report.add("slow", harness.timing_of([2.0]), twice, peer)
    late = report.add("late", harness.timing_of([0.2]), harness.Goal(seconds=0.15), frames=7)
    missed = report.add("missed", harness.timing_of([0.1]), harness.Goal(words="all found", reached=False))
    assert [won.met, lost.met, late.met, missed.met] == [True, False, False, False]
    content = json.loads(report.write().read_text())
    assert content["benchmark"] == "sample"
    assert [row["met"] for row in content["rows"]] == [True, False, False, False]
    assert content["rows"][3]["goal"]["words"] == "all found"
    assert content["rows"][1]["ratio"] == 1.5
    assert content["rows"][2]["notes"] == {"frames": 7}
    assert {"commit", "date", "machine", "versions"} <= set(content)
