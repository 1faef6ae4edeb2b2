"""Is a part like those that a model has learned from at all? If not, what the model says of it does not hold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.models.network.partinput import CHANNELS, PartInput

FEATURES = (
    "measured",
    "colored",
    "deviation",
    "deviation_spread",
    "sigma",
    "red",
    "green",
    "blue",
    "brightness_spread",
)
"""Of each view: shares measured and coloured; median and spread of the deviation, mm; median sigma, mm; median colour,
and spread of its brightness."""
FLOORS = np.array([0.02, 0.02, 0.03, 0.03, 0.02, 0.03, 0.03, 0.03, 0.03])
"""Differences that mean nothing, in the unit of each feature."""
MARGIN = 2.0
"""A part is unlike the good ones if it is so many times as far off as the farthest of them."""
LEAST_LIMIT = 4.0
EVERY_PX = 2
"""Every second pixel of a row and of a column tells as much of a whole view as all of them."""
MAD_TO_SIGMA = 1.4826


def global_features(part: PartInput) -> NDArray[np.float64]:
    """(V, 9) of a part, see `FEATURES`; 0 of a camera that saw nothing."""
    found = np.zeros((len(part.serials), len(FEATURES)))
    thinned = part.images[:, :, ::EVERY_PX, ::EVERY_PX]
    names = ("measured", "colored", "deviation", "sigma")
    measured, colored, deviation, sigma = (thinned[:, CHANNELS.index(name)] for name in names)
    for view in range(len(part.serials)):
        has_depth, has_color = measured[view] > 0, colored[view] > 0
        found[view, :2] = has_depth.mean(), has_color.mean()
        if has_depth.any():
            low, middle, high = _quantiles(deviation[view][has_depth], (0.25, 0.5, 0.75))
            found[view, 2:5] = middle, high - low, *_quantiles(sigma[view][has_depth], (0.5,))
        if has_color.any():
            colors = [color[has_color] for color in thinned[view, :3]]
            found[view, 5:8] = [_quantiles(color, (0.5,))[0] for color in colors]
            dark, bright = _quantiles(np.mean(colors, axis=0), (0.1, 0.9))
            found[view, 8] = bright - dark
    return found


def _quantiles(values: NDArray[np.float32], shares: Sequence[float]) -> list[float]:
    """Values below which these shares lie, to the next value; sorting all is quicker than NumPy's own search."""
    rising = np.sort(values)
    return [float(rising[round(share * (len(rising) - 1))]) for share in shares]


@dataclass(frozen=True, slots=True, eq=False)
class Familiarity:
    """What good parts look like as a whole.

    Attributes:
        centre, spread: (V, 9) median and scaled median absolute deviation, floors included.
        limit: distance from which on a part is unlike them.
    """

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    limit: float

    @classmethod
    def learn(cls, parts: Sequence[PartInput]) -> "Familiarity":
        """From good parts.

        Raises:
            DepthcellError: fewer than three.
        """
        if len(parts) < 3:
            raise DepthcellError(f"familiarity: {len(parts)} good parts to learn from; at least 3 are needed")
        values = np.stack([global_features(part) for part in parts])
        centre = np.median(values, axis=0)
        spread = MAD_TO_SIGMA * np.median(np.abs(values - centre), axis=0) + FLOORS
        farthest = float(np.abs((values - centre) / spread).max())
        return cls(centre, spread, MARGIN * max(farthest, LEAST_LIMIT))

    def distance(self, part: PartInput) -> float:
        """How far a part is off in the feature in which it is farthest, in spreads."""
        return float(np.abs((global_features(part) - self.centre) / self.spread).max())

    def why(self, part: PartInput) -> str | None:
        """What is unlike the good parts, in words; None if nothing is."""
        off = np.abs((global_features(part) - self.centre) / self.spread)
        if off.max() <= self.limit:
            return None
        view, feature = np.unravel_index(int(off.argmax()), off.shape)
        name = FEATURES[int(feature)].replace("_", " ")
        return f"{name} of camera {part.serials[int(view)]} is {off.max():.0f} spreads off, {self.limit:.0f} are usual"
