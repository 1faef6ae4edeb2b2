"""A trained model as it judges: the network and the good parts, joined by a gate, with threshold and probability."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthcell.errors import DepthcellError, Reason
from depthcell.models.artifact import MANIFEST, ModelContent, ModelIdentity, load_model
from depthcell.models.decision.calibration import Calibration
from depthcell.models.decision.outofdistribution import Familiarity
from depthcell.models.goodonly.goodmodel import GoodModel, degraded_in_words
from depthcell.models.network.network import NetworkOutput, NetworkSettings, PartNetwork
from depthcell.models.network.partinput import PartInput
from depthcell.models.network.runtime import prepare

FAMILIAR = "familiarity"
STEEPNESS = 3.0
"""Of the curve by which a place's unlikeness becomes a probability: 0.5 at the limit, 0.95 at twice that."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What good validation parts score by one judge: `centre` and `spread` make scores of two judges comparable."""

    centre: float
    spread: float

    def of(self, score: float) -> float:
        """The score in spreads above the centre."""
        return (score - self.centre) / self.spread


@dataclass(frozen=True, slots=True)
class Rule:
    """How two judges become one decision. All of it was chosen on validation parts.

    Attributes:
        network, good: units of the two scores.
        share: how much the network counts, 0 to 1; the rest is the good parts'.
        threshold: joint score above which a part is rejected.
        calibration: of the joint score.
        place_limit: good parts' pixel score that few good parts reach anywhere.
    """

    network: Unit
    good: Unit
    share: float
    threshold: float
    calibration: Calibration
    place_limit: float

    def joint(self, network: float, good: float) -> float:
        """The joint score of a part."""
        return self.share * self.network.of(network) + (1 - self.share) * self.good.of(good)


@dataclass(frozen=True, slots=True, eq=False)
class ModelJudgement:
    """What the model says of one part; V views of S x S pixels, N points.

    Attributes:
        pixel_probability: (V, S, S) float32, of a defect there.
        point_probability: (N,) float32.
        point_class: (N,) uint8, the likeliest kind of defect, numbers of `partinput.CLASSES` from 1 on.
        part_score: joint score.
        part_probability: of a defect anywhere; see `Calibration` for what it holds for.
        threshold: of `part_score`.
        is_anomalous: whether the score lies above it.
        is_out_of_distribution: whether the part is unlike all that the model learned from.
        branch_scores: of "network", "pixels", "points", "good", "rgb" and "depth".
        degraded: what the model had to do without, and what is unlike, in words.
    """

    pixel_probability: NDArray[np.float32]
    point_probability: NDArray[np.float32]
    point_class: NDArray[np.uint8]
    part_score: float
    part_probability: float
    threshold: float
    is_anomalous: bool
    is_out_of_distribution: bool
    branch_scores: Mapping[str, float]
    degraded: tuple[str, ...]


class TrainedModel:
    """A model ready to judge.

    Attributes:
        identity: what it holds for.
        sha256: of its manifest; empty if it was never saved.
        network, good, familiarity, rule: what it judges by.
    """

    def __init__(
        self,
        identity: ModelIdentity,
        network: PartNetwork,
        good: GoodModel,
        familiarity: Familiarity,
        rule: Rule,
        sha256: str = "",
        device: str = "cpu",
    ) -> None:
        self.identity, self.sha256 = identity, sha256
        self.network, self.good, self.familiarity, self.rule = network, good, familiarity, rule
        self._ready = prepare(network, device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Read a model folder.

        Raises:
            DepthcellError: it is no whole, trusted model (see `load_model`), or its parts do not fit together.
        """
        content = load_model(folder)
        try:
            return cls._from_content(content, hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest(), device)
        except (KeyError, RuntimeError, msgspec.MsgspecError) as error:
            why = str(error).splitlines()[0]
            raise DepthcellError(
                f"model {folder}: its parts do not fit together ({why}); train it anew", Reason.MODEL_INVALID
            ) from error

    @classmethod
    def _from_content(cls, content: ModelContent, sha256: str, device: str) -> Self:
        network = PartNetwork(msgspec.convert(content.settings["network"], NetworkSettings))
        network.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in content.network.items()})
        arrays = dict(content.good)
        centre, spread = arrays.pop(f"{FAMILIAR}.centre"), arrays.pop(f"{FAMILIAR}.spread")
        familiarity = Familiarity(centre, spread, float(content.thresholds[FAMILIAR]))
        rule = msgspec.convert(content.thresholds["rule"], Rule)
        return cls(content.identity, network.eval(), GoodModel.from_tensors(arrays), familiarity, rule, sha256, device)

    def tensors(self) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Of the network, and of the good parts, as `load` takes them back."""
        network = {name: values.detach().cpu().numpy() for name, values in self.network.state_dict().items()}
        familiar = {
            f"{FAMILIAR}.centre": self.familiarity.centre,
            f"{FAMILIAR}.spread": self.familiarity.spread,
        }
        return network, self.good.tensors() | familiar

    def thresholds(self) -> dict[str, Any]:
        """The rule and the limit of familiarity, as `load` takes them back."""
        return {"rule": asdict(self.rule), FAMILIAR: self.familiarity.limit}

    def judge(self, part: PartInput) -> ModelJudgement:
        """Judge one part.

        Raises:
            DepthcellError: the part is of other views than the model's.
        """
        good = self.good.judge(part)
        output = self._ready.judge([part])
        network_score = float(output.part_anomaly[0])
        score = self.rule.joint(network_score, good.part_score)
        unlike = self.familiarity.why(part)
        return ModelJudgement(
            pixel_probability=self._pixels(part, output, good.pixel_score),
            point_probability=self._places(output.point_anomaly, good.point_score),
            point_class=(output.point_class[:, 1:].argmax(dim=1) + 1).cpu().numpy().astype(np.uint8),
            part_score=score,
            part_probability=float(self.rule.calibration.probability(score)),
            threshold=self.rule.threshold,
            is_anomalous=score > self.rule.threshold,
            is_out_of_distribution=unlike is not None,
            branch_scores={
                "network": network_score,
                "pixels": float(output.branch_anomaly[0, 0]),
                "points": float(output.branch_anomaly[0, 1]),
                "good": good.part_score,
                "rgb": good.branch_scores["rgb"],
                "depth": good.branch_scores["depth"],
            },
            degraded=degraded_in_words(part) + (() if unlike is None else (unlike,)),
        )

    def _pixels(self, part: PartInput, output: NetworkOutput, good_score: NDArray[np.float32]) -> NDArray[np.float32]:
        seen = (part.channel("measured") > 0) | (part.channel("colored") > 0)
        return np.where(seen, self._places(output.pixel_anomaly[0], good_score), np.float32(0))

    def _places(self, network: Tensor, good_score: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of a defect at each place: the network's, of logits, and that of the good parts, by the gate."""
        good = torch.sigmoid(STEEPNESS * (torch.from_numpy(good_score) / self.rule.place_limit - 1))
        mixed: NDArray[np.float32] = torch.lerp(good, torch.sigmoid(network).cpu(), self.rule.share).numpy()
        return mixed
