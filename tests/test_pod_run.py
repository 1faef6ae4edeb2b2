"""A simulated run, inspected and held against its truth: from recordings to the folder with data, picture and page."""

import json
from pathlib import Path

import numpy as np
import pytest

from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.partrun import TRUTH_FILE, PartTask, simulate_part
from depthcell.acquisition.simulator.placement import SIZES, SizeRange
from depthcell.acquisition.simulator.station import StationPlan, Stream
from depthcell.errors import DepthcellError
from depthcell.inspect.inspection_run import RunPlan
from depthcell.inspect.pod_run import run_pod
from depthcell.inspect.simulated_station import RunSettings, simulate_station

DEEP = SizeRange((5.0, 6.0), (-2.0, -1.5), even_in_log=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good bracket and one with a deep dent, one camera, two frames."""
    folder = tmp_path_factory.mktemp("pod") / "sim"
    folder.mkdir()
    plan = StationPlan("bracket", "D405", 1, 5, frames=2, defect_rate=0.0, sizes=((DefectKind.DENT, DEEP),))
    simulate_station(plan, RunSettings(parts=1, golden=0), folder, lambda _: None)
    truth = simulate_part(plan, PartTask(Stream.LINE, 2, folder / "part_0002", (DefectKind.DENT,)))
    (dent,) = truth.defects
    assert dent.depth_mm is not None
    assert -2.0 <= dent.depth_mm <= -1.5  # what the plan says, not what is usual
    return folder


def test_a_run_is_inspected_and_held_against_its_truth(run: Path, tmp_path: Path) -> None:
    counted: list[int] = []
    steps: list[None] = []
    result = run_pod(RunPlan(run, out=tmp_path / "out"), counted.append, lambda: steps.append(None))
    assert (counted, len(steps)) == ([2], 2)
    assert result.folder == tmp_path / "out"
    left = {path.name for path in result.folder.iterdir()}
    assert left >= {"pod.json", "pod.png", "pod.html", "verdicts.jsonl", "recipe.json", "cell.json", "run.json"}
    data = json.loads((result.folder / "pod.json").read_text())
    assert (data["parts"], data["defects"]) == (2, 1)
    dent = data["kinds"]["dent"]
    assert (dent["hits"]["count"], dent["hits"]["total"]) == (1, 1)
    assert dent["hit_miss"]["a90_95_mm"] is None
    assert dent["responses_mm"][0] == pytest.approx(dent["sizes_mm"][0], rel=0.2)
    assert data["false_calls"]["total"] == 1


def test_a_run_without_truth_is_refused_before_anything_is_inspected(run: Path, tmp_path: Path) -> None:
    truth = run / "part_0002" / TRUTH_FILE
    kept = truth.read_bytes()
    truth.unlink()
    try:
        with pytest.raises(DepthcellError, match=r"part part_0002: no truth\.json beside its recordings; --pod needs"):
            run_pod(RunPlan(run, out=tmp_path / "out"))
    finally:
        truth.write_bytes(kept)
    assert not (tmp_path / "out").exists()


def test_good_parts_alone_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match="no part has a defect; simulate some with --defect-rate above 0"):
        run_pod(RunPlan(run / "part_0001", recipe=run / "recipe.toml", out=tmp_path / "out"))


def test_ranges_of_sizes_are_checked_and_spread_as_they_say() -> None:
    even = np.array([DEEP.draw_mm(*DEEP.depth_mm, np.random.default_rng(seed)) for seed in range(400)])
    assert even.min() >= -2.0
    assert even.max() <= -1.5
    wide = SizeRange((1.0, 1.0), (0.1, 10.0), even_in_log=True)
    drawn = np.array([wide.draw_mm(*wide.depth_mm, np.random.default_rng(seed)) for seed in range(2000)])
    assert (drawn < 1.0).mean() == pytest.approx(0.5, abs=0.05)  # as many below the middle decade as above
    plain = SIZES[DefectKind.DENT]
    assert plain.draw_mm(1.0, 3.0, np.random.default_rng(0)) == np.random.default_rng(0).uniform(1.0, 3.0)
    with pytest.raises(DepthcellError, match=r"depth_mm \[-1, 1\]: no logarithm spreads over 0; keep to one sign"):
        SizeRange((1.0, 2.0), (-1.0, 1.0), even_in_log=True)
    with pytest.raises(DepthcellError, match=r"size_mm \[3, 2\]: must be two finite numbers, the smaller first"):
        SizeRange((3.0, 2.0), (0.0, 0.0))
