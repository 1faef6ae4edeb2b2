"""What inspection asks of a learned model. The models room has one: `depthcell.models.trained.TrainedModel`."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from depthcell.models.artifact import ModelIdentity
from depthcell.models.network.partinput import PartInput


class ModelOpinion(Protocol):
    """What a model says of one part of V views of S x S pixels and N points."""

    @property
    def pixel_probability(self) -> NDArray[np.float32]:
        """(V, S, S) of a defect at each pixel of the canonical views."""
        ...

    @property
    def point_probability(self) -> NDArray[np.float32]:
        """(N,) of a defect at each point."""
        ...

    @property
    def point_class(self) -> NDArray[np.uint8]:
        """(N,) numbers of `partinput.CLASSES`."""
        ...

    @property
    def part_score(self) -> float:
        """How unlike a good part it is."""
        ...

    @property
    def part_probability(self) -> float:
        """Of a defect anywhere."""
        ...

    @property
    def threshold(self) -> float:
        """What a good part's score exceeds no more often than the false-reject rate that was asked for."""
        ...

    @property
    def is_anomalous(self) -> bool:
        """Whether the score lies above the threshold."""
        ...

    @property
    def is_out_of_distribution(self) -> bool:
        """Whether the part is unlike everything that the model has learned from."""
        ...

    @property
    def degraded(self) -> tuple[str, ...]:
        """What the model had to do without, in words."""
        ...


class JudgingModel(Protocol):
    """A model that judges parts."""

    @property
    def identity(self) -> ModelIdentity:
        """What it holds for."""
        ...

    @property
    def sha256(self) -> str:
        """Of its manifest."""
        ...

    def judge(self, part: PartInput) -> ModelOpinion:
        """Judge one part."""
        ...
