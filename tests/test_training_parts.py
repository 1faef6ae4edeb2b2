"""Recordings as a model learns from them: each read once, and nothing wrong, double or mislabelled taken in."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import msgspec
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
from depthcell.models.views.partlabels import LABELS_FILE, DefectLabel, PartLabels


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
    assert "have no labels.json and are taken to be good" in notes[1]
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


# Labels


def labelled_part(stage: Stage, folder: Path, part: Part, *, mask_shape: tuple[int, int] | None = None) -> Recording:
    """A recording with the labels of a person: all that the first camera sees is a dent."""
    made = recording(stage, folder, part)
    beside = made.paths[0].parent
    beside.mkdir()
    depth = stage.cell.camera(SERIALS[0]).depth
    shape = mask_shape or (depth.height_px, depth.width_px)
    cv2.imwrite(str(beside / "dent.png"), np.full(shape, 255, np.uint8))
    labels = PartLabels(1, made.part_id, False, (DefectLabel("dent", {SERIALS[0]: "dent.png"}),), "A. Person")
    (beside / LABELS_FILE).write_bytes(msgspec.json.encode(labels))
    return made


def test_labelled_defects_of_a_real_recording_are_taken(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dent = (-10.0, 5.0, 5.0, 2.5)
    into = reader(stage, tmp_path)
    parts = [labelled_part(stage, tmp_path, Part(9, dent=dent)), recording(stage, tmp_path, Part(10))]
    notes = read(monkeypatch, into, parts, tmp_path)
    assert notes[0] == "1 good parts, 1 with labelled defects"
    assert {part.part_id: part.classes for part in into.store.parts} == {"seed_9": ("dent",), "seed_10": ()}
    (kept,) = into.store.load_all(["seed_9"])
    assert kept.labels is not None
    assert (kept.labels.pixels[0] > 0).any(), "where the first camera looks"
    assert not kept.labels.pixels[1].any(), "nobody marked anything there"


def test_mask_of_another_size_is_refused(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = labelled_part(stage, tmp_path, Part(11, dent=(-10.0, 5.0, 5.0, 2.5)), mask_shape=(90, 120))
    with pytest.raises(DepthcellError, match=r"dent\.png: is 120 x 90, depth images of camera 1001 are 240 x 180"):
        read(monkeypatch, reader(stage, tmp_path), [part], tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"good": True}, "say good and list 1 defects"),
        ({"defects": []}, "say defective and list 0 defects"),
        ({"defects": [{"kind": "dent", "masks": {}}]}, "no camera has a mask"),
        ({"defects": [{"kind": "dnt", "masks": {"1001": "a.png"}}]}, "defect 'dnt' is unknown; known are"),
        ({"defects": [{"kind": "dent", "masks": {"1001": "../a.png"}}]}, "lies outside its folder"),
        ({"defects": [{"kind": "dent", "masks": {"1001": "/a.png"}}]}, "lies outside its folder"),
        ({"part_id": "part_2"}, "are of part part_2; put them beside the recording"),
        ({"schema_version": 2}, "schema_version"),
        ({"remark": "dull"}, "unknown field `remark`"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(changes: dict[str, object], says: str, tmp_path: Path) -> None:
    folder = tmp_path / "part_1"
    folder.mkdir()
    defects = [{"kind": "dent", "masks": {"1001": "a.png"}}]
    said = {"schema_version": 1, "part_id": "part_1", "good": False, "defects": defects} | changes
    (folder / LABELS_FILE).write_bytes(msgspec.json.encode(said))
    with pytest.raises(DepthcellError, match=says) as refusal:
        PartLabels.beside(folder)
    assert LABELS_FILE in str(refusal.value)


def test_the_word_of_a_person_counts_more_than_the_simulator(tmp_path: Path) -> None:
    folder = tmp_path / "part_1"
    folder.mkdir()
    assert PartLabels.beside(folder) is None
    (folder / "truth.json").write_text("not read")
    (folder / LABELS_FILE).write_bytes(msgspec.json.encode(PartLabels(1, "part_1", True)))
    labels = PartLabels.beside(folder)
    assert labels is not None
    assert labels.good


# The command


def test_kinds_are_named_as_the_simulator_names_them() -> None:
    assert [str(kind) for kind in kinds_of(("scratch", "rust"))] == ["scratch", "rust"]
    with pytest.raises(DepthcellError, match="--held-out scrach: no such kind of defect; there are dent"):
        kinds_of(("scrach",))


@pytest.mark.parametrize("verb", ["train", "explain"])
def test_verbs_explain_themselves(verb: str) -> None:
    told = CliRunner().invoke(app, [verb, "--help"])
    assert told.exit_code == 0
    assert "Example: depthcell" in told.output
