"""How a model is trained: everything that, with the parts, decides its weights."""

from dataclasses import dataclass, field

from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.errors import DepthcellError
from depthcell.models.goodonly.goodmodel import GoodSettings
from depthcell.models.network.network import NetworkSettings


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Settings of one training.

    Attributes:
        seed: of all that chance decides: weights, splits, drawn defects.
        steps: at most so many.
        batch: parts of a step, even: half are good, half carry drawn or labelled defects.
        learning_rate: highest of the one-cycle schedule (L. Smith, N. Topin, arXiv:1708.07120).
        weight_decay: of AdamW.
        validate_every: steps between two looks at the validation parts; a checkpoint is written with each.
        patience: so many looks without a better one end the training.
        painted: validation parts are painted so many times with fixed defects.
        labelled_share: of the defective parts of a step that are labelled ones, where there are any.
        false_reject: share of good parts that may be rejected.
        held_out: kinds of defects that are never drawn.
        network, good: of the two judges.
        device: on which the network learns, "cpu" or "cuda"; what it learned comes back to the CPU.
    """

    seed: int = 0
    steps: int = 1600
    batch: int = 2
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    validate_every: int = 200
    patience: int = 4
    painted: int = 3
    labelled_share: float = 0.3
    false_reject: float = 0.01
    held_out: tuple[DefectKind, ...] = ()
    network: NetworkSettings = field(default_factory=NetworkSettings)
    good: GoodSettings = field(default_factory=GoodSettings)
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("steps", 1), ("validate_every", 1), ("patience", 1), ("painted", 1)):
            if getattr(self, name) < least:
                raise DepthcellError(f"training: {name} must be {least} or more, got {getattr(self, name)}")
        if self.batch < 2 or self.batch % 2:
            raise DepthcellError(f"training: batch must be even, 2 or more, got {self.batch}")
        if not 0 < self.false_reject < 0.5:
            raise DepthcellError(f"training: false_reject must lie between 0 and 0.5, got {self.false_reject:g}")
