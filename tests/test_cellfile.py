"""The schema of the cell file: committed, explained, and as strict as the reader."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from depthcell.calib.cell import Cell
from depthcell.calib.cellfile import json_schema
from depthcell.errors import DepthcellError

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "cell.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def test_the_committed_schema_is_what_the_code_says() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema(), (
        "docs/cell.schema.json is stale: write cellfile.json_schema() into it"
    )


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
