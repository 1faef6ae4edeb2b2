"""An endless, seeded row of parts to learn from: every other one carries drawn defects."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from depthcell.errors import DepthcellError
from depthcell.models.network.partinput import Labels, PartInput
from depthcell.models.synthesis.augment import AugmentSettings, augment
from depthcell.models.synthesis.draw import draw_defects
from depthcell.models.synthesis.settings import DrawSettings
from depthcell.models.views.canonical import CanonicalViews


class SyntheticParts:
    """Parts by their number: even ones are good, odd ones carry defects; the same number gives the same part.

    Attributes:
        views: of all parts.

    Raises:
        DepthcellError: there is no good part to draw on.
    """

    def __init__(
        self,
        parts: Sequence[PartInput],
        views: CanonicalViews,
        draw: DrawSettings | None = None,
        alter: AugmentSettings | None = None,
        seed: int = 0,
    ) -> None:
        if not parts:
            raise DepthcellError("synthetic parts: no good part to draw on")
        self.views = views
        self._parts, self._seed = parts, seed
        self._draw, self._alter = draw or DrawSettings(), alter or AugmentSettings()

    def part(self, index: int) -> PartInput:
        """The part of this number, labelled."""
        rng = np.random.default_rng([self._seed, index])
        good = self._parts[int(rng.integers(len(self._parts)))]
        if index % 2:
            return augment(draw_defects(good, self.views, rng, self._draw), rng, self._alter, self.views)
        return augment(labelled_good(good), rng, self._alter, self.views)


def labelled_good(part: PartInput) -> PartInput:
    """The part with labels that mark nothing."""
    views, side = len(part.serials), part.images.shape[-1]
    labels = Labels(np.zeros((views, side, side), np.uint8), np.zeros(len(part.points_part), np.uint8))
    return replace(part, labels=labels)
