"""Places that a reason tree learns from: defects of training parts; the same places, and the worst, of good parts."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.models.explanation.findingfeatures import FindingFeatures, best_view, describe_place
from depthcell.models.explanation.tree import GOOD
from depthcell.models.network.partinput import CHANNELS, CLASSES, PartInput
from depthcell.models.views.canonical import CanonicalViews

WORST_PX = 5
"""Side of the window over which the worst place of a good part is looked for."""

Place = tuple[FindingFeatures, str]


def training_places(
    good: Sequence[PartInput], defective: Sequence[PartInput], good_images: NDArray[np.float32], views: CanonicalViews
) -> list[Place]:
    """Features of places, and what they are.

    Each defect gives one place; a good part, in turn, gives the same pixels as a place that is good. Every good part
    gives the place where it deviates most in shape, and where it deviates most in colour, too: what must not be called
    a defect.

    Args:
        good: parts without a defect.
        defective: parts with labels.
        good_images: (V, C, S, S) of the good part that all are compared with.
        views: what the pixels are.
    """
    places: list[Place] = []
    for number, part in enumerate(defective):
        for kind, masks in _labelled(part):
            view = best_view(masks, views)
            there = describe_place(part, good_images, views, view, masks[view])
            if there is None:
                continue
            places.append((there, kind))
            same = describe_place(good[number % len(good)], good_images, views, view, masks[view])
            places += [(same, GOOD)] if same is not None else []
    for part in good:
        for view, mask in _worst(part, good_images, views):
            place = describe_place(part, good_images, views, view, mask)
            places += [(place, GOOD)] if place is not None else []
    return places


def _labelled(part: PartInput) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each kind of defect that a part's pixels are labelled with, and where."""
    if part.labels is None:
        return
    for number in np.unique(part.labels.pixels):
        if number:
            yield CLASSES[int(number)], part.labels.pixels == number


def _worst(
    part: PartInput, good_images: NDArray[np.float32], views: CanonicalViews
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Squares of pixels about the largest mean deviation and the largest mean difference of colour."""
    colors = [CHANNELS.index(name) for name in ("red", "green", "blue")]
    deviation, measured, colored = (CHANNELS.index(name) for name in ("deviation", "measured", "colored"))
    shape = np.abs(part.images[:, deviation] - good_images[:, deviation])
    shape *= (part.images[:, measured] * good_images[:, measured] > 0.5) & views.expected
    color = np.abs(part.images[:, colors] - good_images[:, colors]).sum(axis=1)
    color *= (part.images[:, colored] * good_images[:, colored] > 0.5) & views.expected
    for difference in (shape, color):
        mean = np.stack([cv2.blur(one.astype(np.float32), (WORST_PX, WORST_PX)) for one in difference])
        view, row, column = np.unravel_index(int(mean.argmax()), mean.shape)
        mask = np.zeros(mean.shape[1:], dtype=bool)
        half = WORST_PX // 2
        mask[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1] = True
        yield int(view), mask
