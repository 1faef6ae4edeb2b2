"""What good parts look like at each pixel of the canonical views, and how far a part departs from it."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from depthcell.errors import DepthcellError
from depthcell.models.network.partinput import CHANNELS, PartInput

COMPARED = ("red", "green", "blue", "deviation")
"""Channels in which a part is compared with good ones."""

COLOR, DEVIATION = slice(0, 3), slice(CHANNELS.index("deviation"), CHANNELS.index("deviation") + 1)
MEASURED = slice(CHANNELS.index("measured"), CHANNELS.index("measured") + 1)
COLORED = slice(CHANNELS.index("colored"), CHANNELS.index("colored") + 1)

SPREAD_FLOORS = (0.02, 0.02, 0.02, 0.03)
"""Smallest spread that is believed, in the unit of each channel: below it, five parts alike are luck."""

LEAST_PARTS = 3
PRIOR_PARTS = 5
DEPARTURE_LIMIT = 8.0


class GoodReference(nn.Module):
    """Mean and spread of good parts per view and pixel; they travel with the weights.

    A pixel means the same place on every part, so that the departure `(value - mean) / spread` says what a shape or a
    print alone cannot: whether it belongs there. Before `learn`, and where fewer than three good parts were measured,
    the departure is 0, and the network works without.
    """

    mean: Tensor
    inverse_spread: Tensor

    def __init__(self, views: int, side_px: int) -> None:
        super().__init__()
        shape = (views, len(COMPARED), side_px, side_px)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("inverse_spread", torch.zeros(shape))

    @torch.no_grad()
    def learn(self, parts: Sequence[PartInput]) -> None:
        """Take the mean and spread of good parts.

        The variance of n parts at a pixel is drawn towards the median over the view, which counts as five more parts:
        `(n s² + 5 s_view²) / (n + 5)`. So few golden parts do as well.

        Raises:
            DepthcellError: fewer than three parts, or parts of other views.
        """
        if len(parts) < LEAST_PARTS:
            raise DepthcellError(f"a reference of good parts needs at least {LEAST_PARTS}, got {len(parts)}")
        shape = (self.mean.shape[0], len(CHANNELS), *self.mean.shape[2:])
        for part in parts:
            if part.images.shape != shape:
                raise DepthcellError(f"part {part.part_id}: images of {part.images.shape}, the network is for {shape}")
        count, total, squares = _sums(parts)
        known = count >= LEAST_PARTS
        safe = np.maximum(count, 1)
        mean = total / safe
        variance = np.maximum(squares / safe - mean**2, 0) * safe / np.maximum(safe - 1, 1)
        typical = np.nanmedian(np.where(known, variance, np.nan), axis=(2, 3), keepdims=True) if known.any() else 0.0
        shrunk = (count * variance + PRIOR_PARTS * np.nan_to_num(typical)) / (count + PRIOR_PARTS)
        floors = np.array(SPREAD_FLOORS)[:, None, None]
        self.mean.copy_(torch.from_numpy(np.where(known, mean, 0)))
        self.inverse_spread.copy_(torch.from_numpy(np.where(known, 1 / np.maximum(np.sqrt(shrunk), floors), 0)))

    def forward(self, images: Tensor, view: Tensor | None = None) -> Tensor:
        """(n, 4, S, S) departure of images (n, C, S, S), within ±8; 0 where not measured.

        Args:
            images: of the views.
            view: (n,) which views; None where they are all views of one part after the other.
        """
        chosen = slice(None) if view is None else view
        mean, inverse_spread = self.mean[chosen], self.inverse_spread[chosen]
        compared = torch.cat((images[:, COLOR], images[:, DEVIATION]), dim=1).view(-1, *mean.shape)
        seen = torch.cat((images[:, COLORED].expand(-1, 3, -1, -1), images[:, MEASURED]), dim=1)
        departure = (compared - mean) * inverse_spread * seen.view(compared.shape)
        return departure.clamp(-DEPARTURE_LIMIT, DEPARTURE_LIMIT).view(seen.shape)


def _sums(parts: Sequence[PartInput]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Count, sum and sum of squares over the parts that measured a pixel, each (V, 4, S, S)."""
    views, _, side, _ = parts[0].images.shape
    count, total, squares = (np.zeros((views, len(COMPARED), side, side)) for _ in range(3))
    for part in parts:
        values = np.stack([part.channel(name) for name in COMPARED], axis=1).astype(np.float64)
        colored, measured = part.channel("colored"), part.channel("measured")
        seen = np.stack([colored, colored, colored, measured], axis=1)
        count += seen
        total += values * seen
        squares += values**2 * seen
    return count, total, squares
