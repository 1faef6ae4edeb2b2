"""What is known of a cell's health: kept, sealed, and never believed when it was changed or is of another cell."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from artefactscene import scene_cell

from depthcell.calib.cell import Cell
from depthcell.calib.verify.health import HealthCheck, HealthRecord, add_record, health_path, health_record, load_health
from depthcell.errors import DepthcellError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHECK = HealthCheck("probing error, size", 0.02, 0.01, 0.1, "mm", "pass")


def record(test: str = "drift", *, passed: bool = True, days: float = 30.0) -> HealthRecord:
    return health_record(
        test, passed=passed, checks=(CHECK,), summary="as said", source="runs/cal", now=NOW, valid_days=days
    )


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Cell, Path]:
    path = tmp_path / "cell.json"
    scene_cell().save(path)
    return Cell.load(path), path


def test_it_lies_beside_the_cell() -> None:
    assert health_path(Path("a/cell.json")) == Path("a/cell.health.json")


def test_a_record_is_written_and_read_back(kept: tuple[Cell, Path]) -> None:
    cell, path = kept
    written = add_record(cell, path, record())
    health = load_health(health_path(path))
    assert health == written
    assert health.cell_sha256 == cell.sha256 == Cell.load(path).sha256
    assert health.records[0].valid_until == "2026-03-31T12:00:00+00:00"
    assert health.checked_at == NOW
    assert health.complaints(cell.sha256, NOW + timedelta(days=29)) == ()


def test_each_kind_of_check_has_one_record_and_a_failure_stands_until_it_passes(kept: tuple[Cell, Path]) -> None:
    cell, path = kept
    add_record(cell, path, record("acceptance on a sphere", passed=False))
    add_record(cell, path, record("drift"))
    health = load_health(health_path(path))
    assert [one.test for one in health.records] == ["acceptance on a sphere", "drift"]
    (complaint,) = health.complaints(cell.sha256, NOW)
    assert "failed its check 'acceptance on a sphere': as said" in complaint
    add_record(cell, path, record("acceptance on a sphere"))
    assert load_health(health_path(path)).complaints(cell.sha256, NOW) == ()


def test_a_check_expires(kept: tuple[Cell, Path]) -> None:
    cell, path = kept
    health = add_record(cell, path, record(days=1))
    assert health.complaints(cell.sha256, NOW + timedelta(hours=23)) == ()
    (complaint,) = health.complaints(cell.sha256, NOW + timedelta(hours=25))
    assert "held until 2026-03-02T12:00:00+00:00" in complaint


def test_checks_of_another_cell_do_not_count_and_are_replaced(kept: tuple[Cell, Path]) -> None:
    cell, path = kept
    other = Cell("other", cell.cameras, cell.calibrated_at)
    add_record(other, path, record("acceptance on a sphere"))
    (complaint,) = load_health(health_path(path)).complaints(cell.sha256, NOW)
    assert "belongs to another cell" in complaint
    health = add_record(cell, path, record("drift"))
    assert [one.test for one in health.records] == ["drift"]


def test_a_changed_file_is_refused(kept: tuple[Cell, Path]) -> None:
    cell, path = kept
    add_record(cell, path, record(passed=False))
    file = health_path(path)
    content = json.loads(file.read_text())
    content["records"][0]["passed"] = True
    file.write_text(json.dumps(content))
    with pytest.raises(DepthcellError, match="run depthcell verify again"):
        load_health(file)
    del content["seal"]
    file.write_text(json.dumps(content))
    with pytest.raises(DepthcellError, match="seal: is missing"):
        load_health(file)
    # What cannot be believed is not carried on.
    assert [one.passed for one in add_record(cell, path, record("drift")).records] == [True]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"passed": true', '"passed": "yes"', "passed"),
        ('"schema_version": 1', '"schema_version": 9', "schema_version"),
        ("2026-03-31T12:00:00+00:00", "soon", "soon"),
        ("2026-03-31T12:00:00+00:00", "2026-03-31T12:00:00", "zone"),
        ("{", "[", "health"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(kept: tuple[Cell, Path], old: str, new: str, said: str) -> None:
    cell, path = kept
    add_record(cell, path, record())
    file = health_path(path)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DepthcellError, match=said) as refusal:
        load_health(file)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_a_senseless_validity_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match="cannot be read"):
        load_health(tmp_path / "cell.health.json")
    with pytest.raises(DepthcellError, match="--valid-days"):
        record(days=0)
