"""Integrated gradients of the network's verdict on a part (Sundararajan, Taly and Yan, ICML 2017), by captum.

The path runs from the part as it would look were it good to the part at hand; attributions over it sum to the
difference of both logits.
"""

from typing import Any

import numpy as np
from captum.attr import IntegratedGradients
from numpy.typing import NDArray
from torch import Tensor

from depthcell.models.explanation.saliency import Saliency
from depthcell.models.network.batch import collate
from depthcell.models.network.network import PartNetwork
from depthcell.models.network.partinput import PartInput

STEPS = 16
"""Points of the Gauss-Legendre rule along the path."""


def integrated_gradients(network: PartNetwork, part: PartInput, good: PartInput, steps: int = STEPS) -> Saliency:
    """How much each pixel and each point carries of the network's logit for the part.

    Channels are summed, negative sums count nothing. Where a point lies stays as it is along the path; what it shows
    changes.

    Args:
        network: whose `part_anomaly` is explained.
        part: that was judged.
        good: the same part, healed.
        steps: along the path.
    """
    pixels, points = attributions(network, part, good, steps)
    side = part.images.shape[-1]
    summed = pixels.sum(axis=1).reshape(len(part.serials), side, side)
    return Saliency(
        "integrated gradients",
        np.maximum(summed, 0.0).astype(np.float32),
        np.maximum(points.sum(axis=1), 0.0).astype(np.float32),
    )


def attributions(
    network: PartNetwork, part: PartInput, good: PartInput, steps: int = STEPS
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(V, C, S, S) and (N, F) attributions, signed; together they sum to the difference of both logits."""
    network.eval()
    batch, baseline = collate([part]), collate([good])

    def logit(images: Tensor, features: Tensor) -> Tensor:
        answer: Tensor = network(batch._replace(images=images, features=features)).part_anomaly
        return answer

    explainer: Any = IntegratedGradients(logit)
    pixels, points = explainer.attribute(
        (batch.images, batch.features),
        baselines=(baseline.images, baseline.features),
        n_steps=steps,
        internal_batch_size=batch.views,  # one step of the path at a time
    )
    return pixels.detach().float().numpy(), points.detach().float().numpy()
