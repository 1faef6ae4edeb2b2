"""The training loop: drawn defects in, weights out; seeded, resumable, stopped when it gets no better."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from depthcell.models.metrics import auroc
from depthcell.models.network.batch import LabelBatch, PartBatch, collate, collate_labels
from depthcell.models.network.network import PartNetwork
from depthcell.models.network.partinput import PartInput
from depthcell.models.network.runtime import usable_device
from depthcell.models.samebits import same_bits
from depthcell.models.training.checkpoint import Look, Progress, Tensors, load_checkpoint, save_checkpoint
from depthcell.models.training.loss import part_loss
from depthcell.models.training.settings import TrainingSettings

PREFETCHED = 4
"""Batches that are drawn ahead, on a thread of their own."""
LARGEST_GRADIENT = 1.0
KEPT_SHARE = 0.99
"""Of the averaged weights at each step: they are those of about the last hundred steps, and steadier than any one's."""


class Source(Protocol):
    """An endless row of labelled parts: the same number gives the same part, even ones are good."""

    def part(self, index: int) -> PartInput:
        """The part of this number."""
        ...


class TrainingLog(Protocol):
    """Who is told how it goes."""

    def stepped(self, step: int, loss: float) -> None:
        """After each step."""
        ...

    def looked(self, look: Look) -> None:
        """After each look at the validation parts."""
        ...


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it: the network with its best weights, the looks, seconds spent, and whether it stopped early."""

    network: PartNetwork
    looks: tuple[Look, ...]
    seconds: float
    stopped_early: bool


def train_network(
    source: Source,
    good: Sequence[PartInput],
    validation: Sequence[PartInput],
    settings: TrainingSettings,
    *,
    folder: Path,
    rests_on: str,
    log: TrainingLog,
) -> Trained:
    """Train from the beginning, or go on from the checkpoint in `folder`.

    Args:
        source: of parts to learn from.
        good: parts that say what is usual at each pixel.
        validation: good and defective parts with labels, never learned from.
        settings: how.
        folder: of checkpoints.
        rests_on: identity of parts and settings.
        log: who is told.

    Raises:
        DepthcellError: the checkpoint is damaged or of another training, or the device is not there.
    """
    device = usable_device(settings.device)
    torch.manual_seed(settings.seed)
    network = PartNetwork(settings.network)
    network.image.stem.reference.learn(good)
    with same_bits(device):
        return _trained(network.to(device), source, validation, settings, folder=folder, rests_on=rests_on, log=log)


def _trained(
    network: PartNetwork,
    source: Source,
    validation: Sequence[PartInput],
    settings: TrainingSettings,
    *,
    folder: Path,
    rests_on: str,
    log: TrainingLog,
) -> Trained:
    """Train a new network where it lies; it comes back on the CPU."""
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.2, cycle_momentum=False
    )
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(KEPT_SHARE), use_buffers=True)  # type: ignore[no-untyped-call]
    best, looks, start, spent = _weights(network), [], 0, 0.0
    earlier = load_checkpoint(folder, rests_on)
    if earlier is not None:
        progress, tensors = earlier
        best = _restore(network, averaged, optimiser, tensors)
        looks, start, spent = list(progress.looks), progress.step, progress.seconds
        schedule.last_epoch = start
        for group in optimiser.param_groups:
            group["lr"] = float(tensors["learning_rate"][0])
    began = time.perf_counter() - spent
    for step, batch in enumerate(_batches(source, settings, start), start=start + 1):
        if _is_over(looks, settings):
            break
        log.stepped(step, _step(network, optimiser, schedule, batch))
        averaged.update_parameters(network)
        if step % settings.validate_every == 0 or step == settings.steps:
            look = _look(averaged.module, validation, step)
            looks.append(look)
            if look is _best(looks):
                best = _weights(averaged.module)
            log.looked(look)
            progress = Progress(step, tuple(looks), rests_on, time.perf_counter() - began)
            save_checkpoint(folder, progress, _state(network, averaged, optimiser, best))
    network.cpu().load_state_dict({name: torch.from_numpy(values.copy()) for name, values in best.items()})
    stopped = bool(looks) and looks[-1].step < settings.steps
    return Trained(network.eval(), tuple(looks), time.perf_counter() - began, stopped)


def _step(network: PartNetwork, optimiser: Any, schedule: Any, parts: Sequence[PartInput]) -> float:
    network.train()
    batch, labels = _on_its_device(network, parts)
    loss = part_loss(network(batch), batch, labels)
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
    optimiser.step()
    if schedule.last_epoch < schedule.total_steps - 1:
        schedule.step()
    return float(loss.detach())


def _on_its_device(network: torch.nn.Module, parts: Sequence[PartInput]) -> tuple[PartBatch, LabelBatch]:
    """A batch and its labels, where the network is."""
    device = next(network.parameters()).device
    return collate(parts).to(device), collate_labels(parts).to(device)


@torch.no_grad()
def _look(network: torch.nn.Module, validation: Sequence[PartInput], step: int) -> Look:
    network.eval()
    losses, scores, wrong = [], [], []
    for part in validation:
        batch, labels = _on_its_device(network, [part])
        output = network(batch)
        losses.append(float(part_loss(output, batch, labels)))
        scores.append(float(output.part_anomaly[0]))
        wrong.append(bool(labels.parts[0] > 0))
    return Look(step, float(np.mean(losses)), float(auroc(np.array(wrong), np.array(scores))))


def _best(looks: Sequence[Look]) -> Look:
    """The first of those with the least loss."""
    return min(looks, key=lambda look: look.loss)


def _is_over(looks: Sequence[Look], settings: TrainingSettings) -> bool:
    return bool(looks) and len(looks) - 1 - looks.index(_best(looks)) >= settings.patience


def _batches(source: Source, settings: TrainingSettings, start: int) -> Iterator[list[PartInput]]:
    """Batches from number `start` on, in order, drawn ahead."""

    def drawn(number: int) -> list[PartInput]:
        return [source.part(number * settings.batch + place) for place in range(settings.batch)]

    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[list[PartInput]]] = []
        for number in range(start, settings.steps):
            while len(waiting) < PREFETCHED and number + len(waiting) < settings.steps:
                waiting.append(pool.submit(drawn, number + len(waiting)))
            yield waiting.pop(0).result()
        for late in waiting:
            late.cancel()


def _weights(network: torch.nn.Module) -> Tensors:
    return {name: values.detach().cpu().numpy().copy() for name, values in network.state_dict().items()}


def _state(network: PartNetwork, averaged: AveragedModel, optimiser: Any, best: Tensors) -> Tensors:
    tensors: Tensors = {f"now/{name}": values for name, values in _weights(network).items()}
    tensors |= {f"averaged/{name}": values for name, values in _weights(averaged).items()}
    tensors |= {f"best/{name}": values for name, values in best.items()}
    for number, state in optimiser.state_dict()["state"].items():
        for name, values in state.items():
            tensors[f"optimiser/{number}/{name}"] = np.asarray(values.detach().cpu().numpy()).copy()
    tensors["learning_rate"] = np.array([optimiser.param_groups[0]["lr"]])
    return tensors


def _restore(network: PartNetwork, averaged: AveragedModel, optimiser: Any, tensors: Tensors) -> Tensors:
    """Weights, their average and optimiser as they were; returns the best weights so far."""
    for prefix, module in (("now/", network), ("averaged/", averaged)):
        shapes = {name: values.shape for name, values in module.state_dict().items()}
        module.load_state_dict(
            {name: torch.from_numpy(tensors[prefix + name].copy()).reshape(shape) for name, shape in shapes.items()}
        )
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, values in tensors.items():
        if name.startswith("optimiser/"):
            _, number, field = name.split("/")
            # A file keeps no number without a shape; the optimiser counts its steps in one.
            known = np.array(values).reshape(() if field == "step" else values.shape)
            state.setdefault(int(number), {})[field] = torch.from_numpy(known)
    whole = optimiser.state_dict()
    optimiser.load_state_dict({**whole, "state": state})
    return {name.removeprefix("best/"): values for name, values in tensors.items() if name.startswith("best/")}


def scores_of(network: PartNetwork, parts: Sequence[PartInput]) -> NDArray[np.float64]:
    """(n,) part logits."""
    with torch.no_grad():
        return np.array([float(network.eval()(collate([part])).part_anomaly[0]) for part in parts])
