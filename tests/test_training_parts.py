"""Recordings as a model learns from them: each read once, and nothing wrong, double or mislabelled taken in."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from stagedpart import SERIALS, Part, Stage, StagedFolder, recorded
from stagedviews import views_of
from typer.testing import CliRunner

from depthcell.acquisition.partfolder import PartFolder
from depthcell.cli import app
from depthcell.errors import DepthcellError
from depthcell.inspect.inspection import Inspector
from depthcell.inspect.learning import training_parts
from depthcell.inspect.learning.train_screen import kinds_of
from depthcell.inspect.learning.training_parts import PartReader


@dataclass(frozen=True)
class Recording(StagedFolder):
    """A staged part in a folder of its own, told from others by its content."""

    content: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content.encode()).hexdigest()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set_up(tmp_path_factory.mktemp("stage"))


def recording(stage: Stage, folder: Path, part: Part, content: str | None = None, **how: object) -> Recording:
    made = recorded(part, stage.cell, **how)  # type: ignore[arg-type]
    path = folder / made.part_id / "a.db3"
    return Recording(made.part_id, (path,), made.sets, made.damage, content or made.part_id)


def reader(stage: Stage, folder: Path) -> PartReader:
    return PartReader(Inspector(stage.observer, stage.cell, None), stage.observer, views_of(stage), folder / "store")


def read(
    monkeypatch: pytest.MonkeyPatch, into: PartReader, parts: Sequence[PartFolder], folder: Path
) -> tuple[str, ...]:
    monkeypatch.setattr(training_parts, "find_parts", lambda _: tuple(parts))
    return into.read(folder)


def _not_again(*given: object) -> None:
    pytest.fail(f"observed again: {given[1:]}")


def test_parts_are_kept_and_not_observed_again(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [recording(stage, tmp_path, Part(seed)) for seed in (1, 2)]
    notes = read(monkeypatch, reader(stage, tmp_path), parts, tmp_path)
    assert notes[0] == "2 good parts, 0 with labelled defects"
    assert "have no truth.json and are taken to be good" in notes[1]
    again = reader(stage, tmp_path)
    assert [part.part_id for part in again.store.parts] == ["seed_1", "seed_2"]
    monkeypatch.setattr(Inspector, "judge", _not_again)
    read(monkeypatch, again, parts, tmp_path)
    with pytest.raises(DepthcellError, match="seed_1 was recorded anew; remove"):
        read(monkeypatch, again, [replace(parts[0], content="other"), parts[1]], tmp_path)
    with pytest.raises(DepthcellError, match="holds seed_2, which"):
        read(monkeypatch, again, parts[:1], tmp_path)


def test_all_that_cannot_be_used_is_named_together(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = recording(stage, tmp_path, Part(3), without=(SERIALS[0],))
    dented = recording(stage, tmp_path, Part(4, dent=(-10.0, 5.0, 5.0, 2.5)))
    twice = replace(recording(stage, tmp_path, Part(5)), part_id="copy", content="seed_6")
    missing = replace(recording(stage, tmp_path, Part(7)), sets=())
    parts = [recording(stage, tmp_path, Part(6)), twice, blind, dented, missing]
    with pytest.raises(DepthcellError, match="cannot train on it") as refusal:
        read(monkeypatch, reader(stage, tmp_path), parts, tmp_path)
    said = str(refusal.value)
    assert "copy is the same recording as seed_6; remove one" in said
    assert f"seed_3: camera {SERIALS[0]} measured no depth" in said
    assert "seed_4 is said to be good, but shows dent" in said
    assert "seed_7 was not found" in said
    assert "seed_6 is" not in said.replace("as seed_6", "")


def test_a_black_picture_is_refused(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = recording(stage, tmp_path, Part(8))

    def darkened(serial: str, frame: object) -> object:
        if serial != SERIALS[1]:
            return frame
        color = frame.color  # type: ignore[attr-defined]
        return replace(frame, color=replace(color, rgb=np.zeros_like(color.rgb)))  # type: ignore[type-var]

    sets = tuple(
        replace(one, frames={serial: darkened(serial, frame) for serial, frame in one.frames.items()})  # type: ignore[misc]
        for one in part.sets
    )
    with pytest.raises(DepthcellError, match=f"the picture of camera {SERIALS[1]} is black"):
        read(monkeypatch, reader(stage, tmp_path), [replace(part, sets=sets)], tmp_path)


def test_kinds_are_named_as_the_simulator_names_them() -> None:
    assert [str(kind) for kind in kinds_of(("scratch", "rust"))] == ["scratch", "rust"]
    with pytest.raises(DepthcellError, match="--held-out scrach: no such kind of defect; there are dent"):
        kinds_of(("scrach",))


@pytest.mark.parametrize("verb", ["train", "explain"])
def test_verbs_explain_themselves(verb: str) -> None:
    told = CliRunner().invoke(app, [verb, "--help"])
    assert told.exit_code == 0
    assert "Example: depthcell" in told.output
