"""The training loop: seeded to the bit, going on after a kill, stopped when it gets no better."""

from dataclasses import replace
from pathlib import Path

import networkparts
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.models.network.batch import collate, collate_labels
from depthcell.models.network.network import NetworkSettings, PartNetwork
from depthcell.models.network.partinput import CHANNELS, Labels, PartInput
from depthcell.models.training import loop
from depthcell.models.training.checkpoint import FILE, Look, Progress, load_checkpoint, save_checkpoint
from depthcell.models.training.loop import Trained, train_network
from depthcell.models.training.loss import part_loss
from depthcell.models.training.settings import TrainingSettings

SMALL = NetworkSettings(views=3, side_px=32, image_width=8, point_width=8, strongest=4)
SETTINGS = TrainingSettings(seed=3, steps=6, validate_every=2, patience=9, network=SMALL)


class KilledError(Exception):
    """A stand-in for a kill: it is raised where the process would end."""


class Parts:
    """Good and dented balls by their number; ends with `KilledError` at one of them."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.killed_at = killed_at

    def part(self, index: int) -> PartInput:
        if index == self.killed_at:
            raise KilledError
        return dented(index)


def dented(number: int) -> PartInput:
    part = networkparts.ball_part(number)
    labels = Labels(np.zeros((3, 32, 32), np.uint8), np.zeros(len(part.points_part), np.uint8))
    images = part.images.copy()
    if number % 2:
        labels.pixels[1, 12:18, 12:18] = 1
        images[1, CHANNELS.index("deviation"), 12:18, 12:18] -= 3.0
    return replace(part, images=images, labels=labels)


class Silence:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.looks: list[Look] = []

    def stepped(self, step: int, loss: float) -> None:
        assert torch.are_deterministic_algorithms_enabled(), "two threads would add in the order in which they come by"
        self.losses += [loss] * (step > 0)

    def looked(self, look: Look) -> None:
        self.looks.append(look)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(
    folder: Path, parts: Parts | None = None, settings: TrainingSettings = SETTINGS, rests_on: str = "a"
) -> Trained:
    folder.mkdir(exist_ok=True)
    good = [networkparts.ball_part(seed) for seed in range(50, 54)]
    validation = [dented(number) for number in range(60, 64)]
    return train_network(parts or Parts(), good, validation, settings, folder=folder, rests_on=rests_on, log=Silence())


def weights(made: Trained) -> dict[str, NDArray[np.float32]]:
    return {name: values.numpy() for name, values in made.network.state_dict().items()}


def test_same_seed_same_weights_to_the_bit_and_another_seed_others(tmp_path: Path) -> None:
    first, again = weights(trained(tmp_path / "a")), weights(trained(tmp_path / "b"))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
    other = weights(trained(tmp_path / "c", settings=replace(SETTINGS, seed=4)))
    assert any(not np.array_equal(values, other[name]) for name, values in first.items())


def test_goes_on_after_a_kill_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = weights(trained(tmp_path / "whole"))
    with pytest.raises(KilledError):
        trained(tmp_path / "cut", Parts(killed_at=9))
    kept = load_checkpoint(tmp_path / "cut", "a")
    assert kept is not None
    assert kept[0].step in (2, 4)
    resumed = trained(tmp_path / "cut")
    for name, values in weights(resumed).items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)


def test_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "a")
    with pytest.raises(DepthcellError, match="is of other parts or settings"):
        trained(tmp_path / "a", rests_on="b")
    tensors = next((tmp_path / "a").glob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-5])
    with pytest.raises(DepthcellError, match="is cut short or changed; remove"):
        trained(tmp_path / "a")
    (tmp_path / "a" / FILE).write_text("{")
    with pytest.raises(DepthcellError, match="is damaged"):
        trained(tmp_path / "a")


def test_only_the_latest_checkpoint_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, Progress(step, (), "x", 0.0), {"w": np.ones(3)})
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["checkpoint_000003.safetensors"]
    kept = load_checkpoint(tmp_path, "x")
    assert kept is not None
    assert kept[0].step == 3
    assert load_checkpoint(tmp_path / "none", "x") is None


def test_stops_early_and_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.1])
    monkeypatch.setattr(loop, "_look", lambda *given: Look(given[-1], next(losses), 0.5))
    made = trained(tmp_path / "a", settings=replace(SETTINGS, steps=20, patience=2))
    assert [look.step for look in made.looks] == [2, 4, 6, 8]
    assert made.stopped_early
    kept = load_checkpoint(tmp_path / "a", "a")
    assert kept is not None
    tensors = kept[1]
    assert any(not np.array_equal(tensors[f"averaged/module.{n}"], tensors[f"best/{n}"]) for n in weights(made))
    for name, values in weights(made).items():
        np.testing.assert_array_equal(values.ravel(), tensors[f"best/{name}"].ravel())


def test_it_learns(tmp_path: Path) -> None:
    made = trained(tmp_path / "a", settings=replace(SETTINGS, steps=60, validate_every=30, learning_rate=1e-2))
    assert made.looks[-1].auroc == 1.0
    assert made.looks[-1].loss < made.looks[0].loss


def test_loss_ignores_what_was_not_measured_and_falls_with_the_truth() -> None:
    part = dented(1)
    assert part.labels is not None
    batch, labels = collate([part]), collate_labels([part])
    output = PartNetwork(SMALL).eval()(batch)
    blind = part.images[:, -2:].max(axis=1) == 0
    worse = output._replace(pixel_anomaly=output.pixel_anomaly + 9 * torch.from_numpy(blind)[None])
    torch.testing.assert_close(part_loss(worse, batch, labels), part_loss(output, batch, labels))
    truth = torch.where(labels.pixels > 0, 8.0, -8.0)
    assert part_loss(output._replace(pixel_anomaly=truth), batch, labels) < part_loss(output, batch, labels)
    assert part_loss(output._replace(pixel_anomaly=-truth), batch, labels) > part_loss(output, batch, labels)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("batch", 3, "must be even"), ("false_reject", 0.5, "between 0 and 0.5"), ("steps", 0, "steps must be 1")],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: float, says: str) -> None:
    with pytest.raises(DepthcellError, match=says):
        replace(SETTINGS, **{field: value})  # type: ignore[arg-type]
