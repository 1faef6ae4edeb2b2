"""The schema of the cell file: committed, explained, and as strict as the reader."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib import cellfile
from depthcell.calib.cell import Cell
from depthcell.calib.cellfile import json_schema
from depthcell.errors import DepthcellError

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "cell.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def test_the_committed_schema_is_what_the_code_says() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema(), (
        "docs/cell.schema.json is stale: write cellfile.json_schema() into it"
    )


@given(turn_rad=st.lists(st.floats(-1.8, 1.8), min_size=3, max_size=3))
def test_a_cell_that_is_read_and_written_keeps_its_identity(turn_rad: list[float], plate_cell: Cell) -> None:
    """A certificate and verdicts name the cell by the digest of what was in memory when it was made."""
    serial, *_ = plate_cell.cameras
    pose = RigidTransform.from_rotation_vector("cell", f"depth:{serial}", np.array(turn_rad), np.ones(3) / 3)
    cell = replace(plate_cell, cameras={serial: replace(plate_cell.camera(serial), T_cell_depth=pose)})
    read = cell_from_text(cell.to_json())
    assert read.sha256 == cell.sha256
    assert np.abs(read.camera(serial).T_cell_depth.matrix - pose.matrix).max() < 1e-12


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, -1, 0), (0.6, 0.8, 0.0), (1, 1, 1), (-0.3, 0.2, 0.9)])
@pytest.mark.parametrize("short_rad", [0.0, 1e-15, 1e-14, 1e-13, 1e-9])
def test_a_camera_that_looks_straight_down_keeps_its_identity(
    axis: tuple[float, float, float], short_rad: float, plate_cell: Cell
) -> None:
    turn_rad = (np.pi - short_rad) * np.array(axis) / np.linalg.norm(axis)
    serial, *_ = plate_cell.cameras
    pose = RigidTransform.from_rotation_vector("cell", f"depth:{serial}", turn_rad, np.ones(3) / 3)
    cell = replace(plate_cell, cameras={serial: replace(plate_cell.camera(serial), T_cell_depth=pose)})
    read = cell_from_text(cell.to_json())
    assert read.sha256 == cell.sha256
    assert np.abs(read.camera(serial).T_cell_depth.matrix - pose.matrix).max() < 1e-12


def cell_from_text(text: str) -> Cell:
    return cellfile._from_file(msgspec.json.decode(text, type=cellfile.CellFile))


def test_every_field_is_explained() -> None:
    undescribed = [
        f"{name}.{field}"
        for name, definition in json_schema()["$defs"].items()
        for field, content in definition.get("properties", {}).items()
        if not content.get("description")
    ]
    assert undescribed == []


BREAKAGES: dict[str, Callable[[Any], object]] = {
    "an old version": lambda content: content.update(schema_version=1),
    "a field is missing": lambda content: content["cameras"][0].pop("baseline_m"),
    "a field is unknown": lambda content: content["cameras"][0].update(colour=1),
    "a text for a number": lambda content: content["cameras"][0].update(baseline_m="wide"),
    "half a seal": lambda content: content["seal"].pop("signature"),
}


@pytest.mark.parametrize("why", BREAKAGES)
def test_schema_and_reader_refuse_alike(why: str, plate_cell: Cell, tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    plate_cell.save(path)
    content = json.loads(path.read_text())
    VALIDATOR.validate(content)
    bad = copy.deepcopy(content)
    BREAKAGES[why](bad)
    assert not VALIDATOR.is_valid(bad)
    path.write_text(json.dumps(bad))
    with pytest.raises(DepthcellError, match=r"cell .*cell\.json"):
        Cell.load(path)
