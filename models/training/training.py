"""From parts to a model folder: split, train, choose gate and threshold on validation parts, write card and weights."""

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from depthcell import __version__
from depthcell.errors import DepthcellError
from depthcell.models.artifact import ModelContent, ModelIdentity
from depthcell.models.decision.calibration import calibration_error, fit_calibration, reliability
from depthcell.models.decision.outofdistribution import Familiarity
from depthcell.models.decision.threshold import FEWEST_PARTS, choose_threshold
from depthcell.models.goodonly.gate import choose_gate
from depthcell.models.goodonly.goodmodel import GoodModel
from depthcell.models.metrics import Estimate, auroc_estimate, proportion_estimate
from depthcell.models.network.network import PartNetwork
from depthcell.models.network.partinput import CLASSES, PartInput
from depthcell.models.synthesis.augment import augment
from depthcell.models.synthesis.draw import draw_defects
from depthcell.models.synthesis.settings import DrawSettings
from depthcell.models.synthesis.stream import SyntheticParts, labelled_good
from depthcell.models.trained import Rule, TrainedModel, Unit
from depthcell.models.training.card import card_text
from depthcell.models.training.loop import TrainingLog, scores_of, train_network
from depthcell.models.training.settings import TrainingSettings
from depthcell.models.views.canonical import CanonicalViews
from depthcell.models.views.partstore import PartStore

SHARES = tuple(twentieth / 20 for twentieth in range(20, -1, -1))
"""How much the network may count; with 1 and 0 each judge alone is among them."""
PAINT_SEED = 77_000
LIBRARIES = ("numpy", "torch", "torch-geometric", "safetensors")


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What to train on, and where to write.

    Attributes:
        store: of parts, good ones and, if there are any, labelled defective ones.
        views: that the parts were laid into.
        settings: how.
        work: folder of checkpoints.
    """

    store: PartStore
    views: CanonicalViews
    settings: TrainingSettings
    work: Path


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """Parts to learn from and parts to choose by; no part is on both sides."""

    train: list[PartInput]
    labelled: list[PartInput]
    good: list[PartInput]
    painted: list[PartInput]
    names: dict[str, list[str]]


@dataclass(frozen=True, slots=True, eq=False)
class _Mixed:
    """Drawn defects, and among them labelled ones."""

    drawn: SyntheticParts
    labelled: Sequence[PartInput]
    share: float
    seed: int

    def part(self, index: int) -> PartInput:
        """The part of this number."""
        rng = np.random.default_rng([self.seed, 5, index])
        if index % 2 and self.labelled and rng.random() < self.share:
            return augment(self.labelled[int(rng.integers(len(self.labelled)))], rng, views=self.drawn.views)
        return self.drawn.part(index)


@dataclass(frozen=True, slots=True, eq=False)
class NewModel:
    """What training made: a model to save, and parts that it can be explained by.

    Attributes:
        content: see `artifact.save_model`.
        good: parts that it learned from.
        defective: drawn and labelled ones.
    """

    content: ModelContent
    good: Sequence[PartInput]
    defective: Sequence[PartInput]


def train_model(request: TrainingRequest, log: TrainingLog) -> NewModel:
    """Train a model.

    Raises:
        DepthcellError: the parts are too few, of other views than `views`, or mislabelled.
    """
    settings = request.settings
    if request.store.identity.views_sha256 != request.views.sha256:
        raise DepthcellError(
            f"{request.store.folder}: parts are of other views; make them again with this recipe and cell"
        )
    sides = _sides(request)
    rests_on = _rests_on(request)
    request.work.mkdir(parents=True, exist_ok=True)
    source = _Mixed(
        SyntheticParts(sides.train, request.views, DrawSettings(held_out=settings.held_out), seed=settings.seed),
        sides.labelled,
        settings.labelled_share,
        settings.seed,
    )
    trained = train_network(
        source,
        sides.train,
        [*sides.good, *sides.painted],
        settings,
        folder=request.work,
        rests_on=rests_on,
        log=log,
    )
    trained_at = time.perf_counter()
    model, figures = _decided(request, sides, trained.network)
    seconds = trained.seconds + time.perf_counter() - trained_at
    card = _card(request, sides, figures) | {
        "looks": [msgspec.to_builtins(look) for look in trained.looks],
        "seconds_of_steps": round(trained.seconds, 1),
        "seconds": round(seconds, 1),
        "stopped_early": trained.stopped_early,
        "data_sha256": rests_on,
    }
    network, good = model.tensors()
    content = ModelContent(
        identity=request.store.identity,
        network=network,
        good=good,
        settings=msgspec.to_builtins(settings),
        thresholds=model.thresholds(),
        card=card,
        card_text=card_text(card),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        depthcell_version=__version__,
    )
    return NewModel(content, sides.train, [*sides.labelled, *sides.painted])


def _sides(request: TrainingRequest) -> _Sides:
    """Split by part, and paint the validation parts with fixed defects."""
    store, settings = request.store, request.settings
    split = store.split(settings.seed)
    is_good = {part.part_id: part.good for part in store.parts}
    unlabelled = [part.part_id for part in store.parts if not part.good and not part.labelled]
    if unlabelled:
        raise DepthcellError(f"part {unlabelled[0]}: is defective but nothing marks where; label it, or leave it out")
    train = list(store.load_all(name for name in split.train if is_good[name]))
    labelled = list(store.load_all(name for name in split.train if not is_good[name]))
    good = list(store.load_all(name for name in split.validation if is_good[name]))
    if len(good) < FEWEST_PARTS:
        raise DepthcellError(
            f"{store.folder}: {len(train) + len(good)} good parts leave {len(good)} to choose the threshold by, "
            f"at least {FEWEST_PARTS} are needed; record {4 * FEWEST_PARTS} good parts or more"
        )
    painted = list(store.load_all(name for name in split.validation if not is_good[name]))
    draw = DrawSettings(held_out=settings.held_out)
    for round_number in range(settings.painted):
        for number, part in enumerate(good):
            rng = np.random.default_rng([PAINT_SEED, round_number, number])
            painted.append(draw_defects(part, request.views, rng, draw))
    names = {"train": list(split.train), "validation": list(split.validation)}
    return _Sides(train, labelled, [labelled_good(part) for part in good], painted, names)


def _decided(request: TrainingRequest, sides: _Sides, network: PartNetwork) -> tuple[TrainedModel, dict[str, Any]]:
    """Gate, threshold and probabilities, by validation parts alone; and what they gave there."""
    settings = request.settings
    good = GoodModel.fit(sides.train, settings.seed, settings.good)
    chosen = choose_gate(good, sides.good, sides.painted)
    good = good.with_gate(chosen.gate).trimmed()
    judged = [good.judge(part) for part in (*sides.good, *sides.painted)]
    is_defect = np.array([False] * len(sides.good) + [True] * len(sides.painted))
    by_good = np.array([one.part_score for one in judged])
    by_network = scores_of(network, [*sides.good, *sides.painted])
    units = [_unit(scores[~is_defect]) for scores in (by_network, by_good)]
    scaled = [(scores - unit.centre) / unit.spread for unit, scores in zip(units, (by_network, by_good), strict=True)]
    joint = {share: share * scaled[0] + (1 - share) * scaled[1] for share in SHARES}
    figures = {share: auroc_estimate(is_defect, scores) for share, scores in joint.items()}
    share = chosen_share(figures)
    scores = joint[share]
    threshold = choose_threshold(scores[~is_defect], settings.false_reject, settings.seed)
    calibration = fit_calibration(scores, is_defect)
    place_limit = float(np.median([one.pixel_score.max() for one in judged[: len(sides.good)]])) * 1.5
    rule = Rule(units[0], units[1], share, threshold.value, calibration, place_limit)
    model = TrainedModel(request.store.identity, network, good, Familiarity.learn(sides.train), rule)
    bins = reliability(calibration.probability(scores), is_defect)
    caught = int((scores[is_defect] > threshold.value).sum())
    return model, {
        "auroc": {f"network counts {one:g}": asdict(figures[one]) for one in sorted({1.0, share, 0.0}, reverse=True)},
        "share_of_network": share,
        "gate_of_good_parts": asdict(chosen.gate),
        "good_parts_alone": {"image_auroc": chosen.image_auroc, "aupro_1": chosen.aupro_1},
        "threshold": asdict(threshold) | {"statement": threshold.statement()},
        "painted_found": asdict(proportion_estimate(caught, int(is_defect.sum()))),
        "reliability": [asdict(one) for one in bins],
        "calibration_error": calibration_error(bins),
    }


def chosen_share(figures: Mapping[float, Estimate]) -> float:
    """How much the network counts: as near to one half as is no worse than either judge alone, nor than the best by
    more than its standard error.

    A few dozen validation parts do not tell shares apart whose AUROC differs by a hundredth; of those the one that
    leans on both judges is the safer, and of two alike the one that leans on the good parts, which miss no kind for not
    having seen it. The one-standard-error rule of L. Breiman et al., "Classification and Regression Trees", 1984,
    3.4.3.

    Args:
        figures: AUROC of validation parts by share; 0 and 1, either judge alone, are among them.
    """  # noqa: D205
    best = max(figures.values(), key=lambda one: one.value)
    standard_error = (best.high - best.low) / (2 * NormalDist().inv_cdf((1 + best.confidence) / 2))
    least = max(best.value - standard_error, figures[0.0].value, figures[1.0].value)
    as_good = [share for share, figure in figures.items() if figure.value >= least]
    return min(as_good, key=lambda share: (round(abs(share - 0.5), 6), -figures[share].value, share))


def _unit(scores: NDArray[np.float64]) -> Unit:
    return Unit(float(scores.mean()), max(float(scores.std(ddof=1)), 1e-6))


def _rests_on(request: TrainingRequest) -> str:
    """SHA-256 of settings and parts."""
    parts = [(part.part_id, part.good, part.file_sha256) for part in request.store.parts]
    content = {"settings": msgspec.to_builtins(request.settings), "parts": parts, "views": request.views.sha256}
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def _card(request: TrainingRequest, sides: _Sides, figures: dict[str, Any]) -> dict[str, Any]:
    identity: ModelIdentity = request.store.identity
    counts = dict.fromkeys(CLASSES, 0)
    for part in request.store.parts:
        for name in part.classes or ("good",) * part.good:
            counts[name] += 1
    return {
        "recipe": identity.recipe_name,
        "cell": identity.cell_name,
        "cameras": list(identity.serials),
        "parts": sides.names,
        "recorded_of_each_class": {name: count for name, count in counts.items() if count},
        "good_to_learn_from": len(sides.train),
        "good_to_choose_by": len(sides.good),
        "painted_to_choose_by": len(sides.painted),
        "held_out": [str(kind) for kind in request.settings.held_out],
        "seed": request.settings.seed,
        "figures": figures,
        "versions": {
            "depthcell": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES},
            "threads": str(torch.get_num_threads()),
        },
    }
