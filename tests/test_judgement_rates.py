"""How often the judgement errs on simulated stations it has never seen: remakes the figures of docs/judgement.md."""

from collections import Counter
from pathlib import Path

import pytest

from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.acquisition.simulator.actualpart import possible_kinds
from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.partrun import PartTask, simulate_part
from depthcell.acquisition.simulator.station import StationPlan, Stream, build_station
from depthcell.calib.cell import Cell
from depthcell.inspect.inspection import Inspector
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.simulated_station import RunSettings, simulate_station
from depthcell.inspect.verdict import Decision

GOOD = 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("part", "seed"), [("bracket", 201), ("bracket", 202), ("flange", 203)])
def test_no_good_part_is_rejected_and_no_defect_passes(tmp_path: Path, part: str, seed: int) -> None:
    plan = StationPlan(part, "D405", 3, seed, defect_rate=0.0)
    simulate_station(plan, RunSettings(parts=GOOD), tmp_path, lambda _: None)
    inspector = Inspector.load(Recipe.load(tmp_path / "recipe.toml"), Cell.load(tmp_path / "cell.json"))
    good = Counter(inspector.judge(one, 1, "t").verdict.verdict for one in find_parts(tmp_path))
    assert good[Decision.NOK] == 0
    assert good[Decision.OK] >= 0.95 * GOOD
    for number, kind in enumerate(possible_kinds(build_station(plan)), start=1000):
        verdict = inspector.judge(defective(plan, kind, number, tmp_path), 1, "t").verdict
        assert verdict.verdict is Decision.NOK, f"{kind}: {verdict.reasons}"


def defective(plan: StationPlan, kind: DefectKind, number: int, folder: Path) -> PartFolder:
    task = PartTask(Stream.LINE, number, folder / "defective" / f"{kind}", (kind,))
    simulate_part(plan, task)
    return find_parts(task.folder)[0]
