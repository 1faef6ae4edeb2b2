"""A cell that is not known to be healthy cannot issue OK."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stagedpart import RECIPE, Part, Stage, plate_cell, plate_mesh, recorded

from depthcell.acquisition.simulator.partmesh import save_stl
from depthcell.calib.cell import Cell
from depthcell.calib.verify.health import HealthRecord, add_record, health_path, health_record
from depthcell.inspect.cell_gate import CellGate
from depthcell.inspect.recipe import CellSection, Recipe
from depthcell.inspect.verdict import Decision

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAIN = CellSection(cameras=("1001",))


def record(test: str = "drift", *, passed: bool = True, now: datetime = NOW, days: float = 30.0) -> HealthRecord:
    return health_record(
        test, passed=passed, checks=(), summary="camera 1002 moved", source="runs/d", now=now, valid_days=days
    )


@pytest.fixture
def cell() -> Cell:
    return plate_cell()


def gate(cell: Cell, folder: Path, section: CellSection = PLAIN, now: datetime = NOW) -> CellGate:
    return CellGate(cell, section, health_path(folder / "cell.json"), lambda: now)


def test_a_cell_without_record_may_judge_unless_the_recipe_asks(cell: Cell, tmp_path: Path) -> None:
    assert gate(cell, tmp_path).gaps() == ()
    for section in (
        CellSection(cameras=("1001",), health="required"),
        CellSection(cameras=("1001",), max_age_days=7),
    ):
        (gap,) = gate(cell, tmp_path, section).gaps()
        assert "was never checked" in gap
        add_record(cell, tmp_path / "cell.json", record())
        assert gate(cell, tmp_path, section).gaps() == ()
        health_path(tmp_path / "cell.json").unlink()


def test_failed_expired_foreign_and_damaged_records_forbid(cell: Cell, tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    watching = gate(cell, tmp_path)
    assert watching.gaps() == ()
    add_record(cell, path, record(passed=False))
    assert watching.gaps() == ("the cell failed its check 'drift': camera 1002 moved",)
    add_record(cell, path, record())
    assert watching.gaps() == ()
    (expired,) = gate(cell, tmp_path, now=NOW + timedelta(days=31)).gaps()
    assert "held until" in expired
    other = Cell("other", cell.cameras, cell.calibrated_at)
    (foreign,) = gate(other, tmp_path).gaps()
    assert "belongs to another cell" in foreign
    health_path(path).write_text("{}")
    (damaged,) = watching.gaps()
    assert "health is not known" in damaged
    health_path(path).unlink()
    assert watching.gaps() == ()


def test_the_latest_check_may_be_no_older_than_the_recipe_says(cell: Cell, tmp_path: Path) -> None:
    section = CellSection(cameras=("1001",), max_age_days=7)
    add_record(cell, tmp_path / "cell.json", record())
    assert gate(cell, tmp_path, section, NOW + timedelta(days=6)).gaps() == ()
    (gap,) = gate(cell, tmp_path, section, NOW + timedelta(days=8)).gaps()
    assert "every 7 days" in gap


def test_a_stale_calibration_forbids(cell: Cell, tmp_path: Path) -> None:
    section = CellSection(cameras=("1001",), valid_days=90)
    calibrated_at = datetime.fromisoformat(cell.calibrated_at)
    assert gate(cell, tmp_path, section, calibrated_at + timedelta(days=89)).gaps() == ()
    (gap,) = gate(cell, tmp_path, section, calibrated_at + timedelta(days=91)).gaps()
    assert "stale" in gap
    undated = Cell(cell.name, cell.cameras, "some day")
    (gap,) = gate(undated, tmp_path, section).gaps()
    assert "not known" in gap


def test_a_failed_check_turns_ok_into_cannot_tell_and_leaves_nok(tmp_path: Path) -> None:
    stage = Stage.set_up(tmp_path)
    inspector = stage.inspector
    good, dented = recorded(Part(3), stage.cell), recorded(Part(21, dent=(-10.0, 5.0, 5.0, 1.0)), stage.cell)
    assert inspector.judge(good, 1, "t").verdict.verdict is Decision.OK
    now = datetime.now(UTC)
    add_record(stage.cell, tmp_path / "cell.json", record(passed=False, now=now))
    doubted = inspector.judge(good, 2, "t").verdict
    assert doubted.verdict is Decision.CANNOT_TELL
    assert doubted.reasons[0] == "the cell failed its check 'drift': camera 1002 moved"
    rejected = inspector.judge(dented, 3, "t").verdict
    assert rejected.verdict is Decision.NOK
    assert any("failed its check 'drift'" in reason for reason in rejected.reasons)
    add_record(stage.cell, tmp_path / "cell.json", record(now=now))
    again = inspector.judge(good, 4, "t").verdict
    assert again.verdict is Decision.OK
    inspector.watch_health(tmp_path / "elsewhere.health.json")
    assert inspector.judge(good, 5, "t").verdict.verdict is Decision.OK


def test_a_recipe_that_asks_nothing_keeps_its_identity(tmp_path: Path) -> None:
    save_stl(tmp_path / "plate.stl", plate_mesh())
    path = tmp_path / "recipe.toml"
    shas = []
    for asked in ("", 'health = "if present"\n', 'health = "required"\n', "max_age_days = 7\n", "valid_days = 365\n"):
        path.write_text(RECIPE.replace("[cell]\n", f"[cell]\n{asked}"))
        shas.append(Recipe.load(path).sha256)
    assert shas[0] == shas[1]
    assert len(set(shas)) == 4
