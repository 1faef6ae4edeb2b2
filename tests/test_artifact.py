"""A model folder: it comes back as it was written, and any change to it is refused by name."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from depthcell.calib.seal import sign
from depthcell.errors import DepthcellError, Reason
from depthcell.models.artifact import (
    LISTED,
    MANIFEST,
    PURPOSE,
    SIGNATURE,
    ModelContent,
    ModelIdentity,
    load_model,
    refuse_other_identity,
    save_model,
    tensors_sha256,
)

IDENTITY = ModelIdentity("a" * 64, "bracket", "demo cell", ("1", "2", "3"))


def content(seed: int = 0) -> ModelContent:
    rng = np.random.default_rng(seed)
    return ModelContent(
        identity=IDENTITY,
        network={"stem.weight": rng.normal(size=(3, 4)).astype(np.float32), "steps": np.array([7])},
        good={"memory": rng.normal(size=(5, 2)).astype(np.float32).T},  # not contiguous
        settings={"width": 16},
        thresholds={"part": {"value": 1.5}},
        card={"purpose": "find what is wrong"},
        card_text="# bracket\n\n99 µm ± 1\n",
        created_at="2026-01-02T03:04:05Z",
        depthcell_version="0.1.0",
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "bracket", content())


def assert_same(one: ModelContent, other: ModelContent) -> None:
    for tensors, others in ((one.network, other.network), (one.good, other.good)):
        assert tensors.keys() == others.keys()
        for name, values in tensors.items():
            assert values.dtype == others[name].dtype
            np.testing.assert_array_equal(values, others[name])
    for field in ("identity", "settings", "thresholds", "card", "card_text", "created_at", "depthcell_version"):
        assert getattr(one, field) == getattr(other, field)


def test_a_model_comes_back_as_it_was(model: Path) -> None:
    assert_same(load_model(model), content())
    assert {path.name for path in model.iterdir()} == {*LISTED, MANIFEST, SIGNATURE}


def test_the_same_content_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    again = save_model(tmp_path / "again", content())
    assert all((model / name).read_bytes() == (again / name).read_bytes() for name in (*LISTED, MANIFEST, SIGNATURE))


def refusal(folder: Path) -> str:
    with pytest.raises(DepthcellError) as refused:
        load_model(folder)
    assert refused.value.reason is Reason.MODEL_INVALID
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", [*LISTED, MANIFEST, SIGNATURE])
def test_any_changed_byte_is_refused(model: Path, name: str) -> None:
    data = (model / name).read_bytes()
    for place in {0, len(data) // 2, len(data) - 3}:
        changed = bytearray(data)
        changed[place] ^= 1
        (model / name).write_bytes(changed)
        message = refusal(model)
        assert name in message or (name == SIGNATURE and MANIFEST in message)
        assert "anew" in message
    (model / name).write_bytes(data)
    load_model(model)


@pytest.mark.parametrize("name", LISTED)
def test_a_file_cut_short_is_refused(model: Path, name: str) -> None:
    (model / name).write_bytes((model / name).read_bytes()[:-1])
    message = refusal(model)
    assert name in message
    assert "cut short" in message


@pytest.mark.parametrize("name", [*LISTED, MANIFEST, SIGNATURE])
def test_a_missing_file_is_refused(model: Path, name: str) -> None:
    (model / name).unlink()
    message = refusal(model)
    assert name in message
    assert "missing" in message


def test_a_file_too_many_is_refused(model: Path) -> None:
    (model / "deeper").mkdir()
    (model / "deeper" / "notes.txt").write_text("harmless")
    assert "notes.txt: does not belong" in refusal(model)
    (model / "deeper" / "notes.txt").rename(model / "network.pt")
    assert "pickled weights are refused" in refusal(model)
    assert "export as safetensors" in refusal(model)


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "last.ckpt", "MODEL.PKL"])
def test_pickled_weights_are_refused_unread(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n")
    assert "pickled weights are refused" in refusal(tmp_path / name)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert f"{MANIFEST}: is missing" in refusal(tmp_path)


def sign_anew(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    """What someone with a trusted key and a program of his own could write."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    change(manifest)
    data = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(data)
    (folder / SIGNATURE).write_bytes(msgspec.json.encode(sign(PURPOSE, data)))


def test_another_schema_is_refused(model: Path) -> None:
    sign_anew(model, lambda manifest: manifest.update(schema_version=2))
    assert "schema_version: is 2, this depthcell reads 1" in refusal(model)
    sign_anew(model, lambda manifest: manifest.update(schema_version=1, more=1))
    assert "more" in refusal(model)


def test_a_pickle_under_a_safe_name_is_refused(model: Path) -> None:
    pickled = b"\x80\x04cos\nsystem\n(S'touch x'\ntR."
    (model / "network.safetensors").write_bytes(pickled)
    import hashlib

    entry = {"size": len(pickled), "sha256": hashlib.sha256(pickled).hexdigest()}
    sign_anew(model, lambda manifest: manifest["files"].update({"network.safetensors": entry}))  # type: ignore[attr-defined]
    assert "network.safetensors: is no safetensors file" in refusal(model)


def test_a_seal_for_another_purpose_is_refused(model: Path) -> None:
    data = (model / MANIFEST).read_bytes()
    (model / SIGNATURE).write_bytes(msgspec.json.encode(sign("cell", data)))
    assert "does not fit its signature" in refusal(model)


def test_a_stranger_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHCELL_HOME", str(tmp_path / "elsewhere"))
    assert "does not trust" in refusal(model)


def test_a_model_is_replaced_whole(model: Path) -> None:
    save_model(model, content(seed=1))
    assert_same(load_model(model), content(seed=1))
    assert [path.name for path in model.parent.iterdir()] == ["bracket"]


def test_a_failed_write_leaves_the_earlier_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.suffix == ".partial":
            raise OSError(28, "No space left on device")
        return genuine(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(DepthcellError, match="No space left"):
        save_model(model, content(seed=1))
    monkeypatch.undo()
    assert [path.name for path in model.parent.iterdir()] == ["bracket"]


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DepthcellError, match="holds other things"):
        save_model(tmp_path, content())
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    bad = content()
    bad.network["stem.weight"][0, 0] = np.nan
    with pytest.raises(DepthcellError, match=r"network\.safetensors: stem\.weight"):
        save_model(tmp_path / "bracket", bad)
    with pytest.raises(DepthcellError, match="no JSON value"):
        save_model(tmp_path / "bracket", replace(content(), thresholds={"part": float("nan")}))
    assert not (tmp_path / "bracket").exists()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("recipe_name", "plate", "recipe 'bracket', not 'plate'"),
        ("serials", ("1", "3"), "cameras 1, 2, 3"),
        ("views_sha256", "b" * 64, "train it anew"),
    ],
)
def test_a_model_for_something_else_is_refused(field: str, value: object, words: str) -> None:
    refuse_other_identity(IDENTITY, replace(IDENTITY, cell_name="another name of the same"), Path("m"))
    with pytest.raises(DepthcellError, match=words):
        refuse_other_identity(IDENTITY, replace(IDENTITY, **{field: value}), Path("m"))  # type: ignore[arg-type]


def test_a_hash_of_tensors_does_not_depend_on_their_order(model: Path) -> None:
    tensors = content().network
    turned = dict(reversed(tensors.items()))
    assert tensors_sha256(tensors) == tensors_sha256(turned)
    shutil.rmtree(model)
    turned["steps"] = turned["steps"] + 1
    assert tensors_sha256(tensors) != tensors_sha256(turned)
