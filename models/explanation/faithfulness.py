"""Whether a saliency tells the truth about the model: deletion and insertion.

Petsiuk, Das and Saenko (RISE, BMVC 2018): take away the most salient places first, and the score should fall at once;
put them first into a part that lacks everything, and it should rise at once. Here a place is taken away by showing what
a good part shows there, and the part that lacks everything is the good one. The area under each curve, over the share
of places, is between 0 and 1 where the score runs from the good part's (0) to the judged one's (1). A random order is
the control; any saliency worth showing has a smaller deletion and a larger insertion than that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.models.explanation.examples import blended
from depthcell.models.explanation.saliency import Saliency, Score
from depthcell.models.network.partinput import PartInput

STEPS = 10
"""Shares of the places taken away one after the other; close together at first, since defects are small."""


@dataclass(frozen=True, slots=True, eq=False)
class Faithfulness:
    """Both curves of one saliency.

    Attributes:
        name: of the saliency.
        share: (F,) of places taken away or put in, 0 to 1.
        deletion, insertion: (F,) score, 0 that of the good part and 1 that of the judged one.
    """

    name: str
    share: NDArray[np.float64]
    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]

    @property
    def deletion_area(self) -> float:
        """Smaller is more faithful."""
        return float(np.trapezoid(np.clip(self.deletion, 0.0, 1.0), self.share))

    @property
    def insertion_area(self) -> float:
        """Larger is more faithful."""
        return float(np.trapezoid(np.clip(self.insertion, 0.0, 1.0), self.share))

    @property
    def gain(self) -> float:
        """Insertion less deletion: 1 is perfect, 0 what a random order has."""
        return self.insertion_area - self.deletion_area


def measure_faithfulness(
    part: PartInput, good: PartInput, saliency: Saliency, score: Score, steps: int = STEPS
) -> Faithfulness | None:
    """Deletion and insertion of a saliency; None where the model takes the part to be no worse than the good one.

    Args:
        part: that was judged.
        good: the same part, healed.
        saliency: of it.
        score: of the model.
        steps: shares between 0 and 1.
    """
    low, high = (float(value) for value in score([good, part]))
    if not high > low:
        return None
    share = np.linspace(0.0, 1.0, steps + 1) ** 3
    changing = (part.images != good.images).any(axis=1)
    pixel_rank, point_rank = (
        _ranks(saliency.pixels, changing),
        _ranks(saliency.points, np.ones(len(saliency.points), bool)),
    )
    deletion, insertion = [], []
    for limit in share:
        pixels, points = pixel_rank < limit, point_rank < limit
        deletion.append(float(score([blended(part, good, pixels, points)])[0]))
        insertion.append(float(score([blended(good, part, pixels, points)])[0]))
    curves = [(np.array(values) - low) / (high - low) for values in (deletion, insertion)]
    return Faithfulness(saliency.name, share, *curves)


def random_saliency(part: PartInput, seed: int = 0) -> Saliency:
    """The control: places in a random order."""
    rng = np.random.default_rng(seed)
    pixels = rng.random(part.images[:, 0].shape, dtype=np.float32)
    return Saliency("random order", pixels, rng.random(len(part.points_part), dtype=np.float32))


def most_faithful(measured: Sequence[Faithfulness]) -> Faithfulness:
    """The one of the largest gain."""
    return max(measured, key=lambda one: one.gain)


def _ranks(values: NDArray[np.float32], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the counted places that come before each, the largest value first; infinite for those not counted."""
    ranks = np.full(values.shape, np.inf)
    flat = np.flatnonzero(counted)
    order = flat[np.argsort(-values.ravel()[flat], kind="stable")]
    ranks.ravel()[order] = np.arange(len(order)) / max(len(order), 1)
    return ranks
