"""What is kept with a model to explain by: a few good parts and the decision tree's table. No code, no pickle.

They lie among the model's own files, under its signature: the good parts as tensors whose names begin with `PREFIX`,
the table in the card.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from depthcell.errors import DepthcellError, Reason
from depthcell.models.artifact import ModelContent
from depthcell.models.explanation.examples import Examples
from depthcell.models.explanation.trainingplaces import training_places
from depthcell.models.explanation.tree import ReasonTree
from depthcell.models.network.partinput import PartInput
from depthcell.models.views.canonical import CanonicalViews

PREFIX = "explanation."
IN_CARD = "explanation"


@dataclass(frozen=True, slots=True, eq=False)
class ModelReasons:
    """What explains.

    Attributes:
        examples: good parts.
        tree: over places of training parts; None where training saw no defects at all.
    """

    examples: Examples
    tree: ReasonTree | None

    @classmethod
    def learnt(cls, good: Sequence[PartInput], defective: Sequence[PartInput], views: CanonicalViews) -> "ModelReasons":
        """From training parts.

        Args:
            good: parts without a defect.
            defective: parts with labels, recorded or synthetic; may be empty.
            views: what the pixels are.

        Raises:
            DepthcellError: no good part was seen by every camera.
        """
        examples = Examples.of(good)
        places = training_places(good, defective, examples.images(0), views)
        taught = {kind for _, kind in places}
        return cls(examples, ReasonTree.fit(places) if len(taught) > 1 else None)

    @classmethod
    def of(cls, content: ModelContent) -> "ModelReasons":
        """As kept with a model.

        Raises:
            DepthcellError: nothing was kept, or it is not whole.
        """
        kept: dict[str, Any] = content.card.get(IN_CARD) or {}
        tensors = {name.removeprefix(PREFIX): t for name, t in content.good.items() if name.startswith(PREFIX)}
        if not kept or not tensors:
            raise DepthcellError(
                "model: keeps nothing to explain by; train it by `depthcell train`", Reason.MODEL_INVALID
            )
        tree = kept.get("tree")
        return cls(
            Examples.from_tensors(kept.get("good_parts", ()), tensors),
            None if tree is None else ReasonTree.from_json(tree),
        )

    def kept_with(self, content: ModelContent) -> ModelContent:
        """The model with what explains it."""
        tensors = {f"{PREFIX}{name}": tensor for name, tensor in self.examples.tensors().items()}
        kept = {
            "good_parts": list(self.examples.part_ids),
            "tree": None if self.tree is None else self.tree.to_json(),
        }
        return replace(content, good=content.good | tensors, card=content.card | {IN_CARD: kept})
