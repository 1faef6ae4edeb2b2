"""What of a part made the model doubt it: for each pixel and point, how much of the score it carries.

Nothing is compared with a black picture, which no camera ever shows, but with the part as it would look were it good
(`examples.healed`). All ways here are judged by the same measure, see `faithfulness.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from depthcell.models.explanation.examples import blended
from depthcell.models.network.partinput import PartInput

Score = Callable[[Sequence[PartInput]], NDArray[np.float64]]
"""Parts -> how unlike a good part the model takes each to be; larger is worse."""

COARSE, FINE = 4, 3
"""Blocks across a view that are healed one at a time, and blocks across each of those that count."""

COUNTS = 0.02
"""A coarse block counts if it carries so much of what the heaviest one carries."""


@dataclass(frozen=True, slots=True, eq=False)
class Saliency:
    """How much each place counts; not negative, without a unit.

    Attributes:
        name: of the way it was had, in words.
        pixels: (V, S, S) float32.
        points: (N,) float32.
    """

    name: str
    pixels: NDArray[np.float32]
    points: NDArray[np.float32]


def map_saliency(part: PartInput, pixel: NDArray[np.float32], point: NDArray[np.float32]) -> Saliency:
    """The model's own anomaly map.

    Args:
        part: that was judged.
        pixel: (V, S, S) probability of a defect.
        point: (N,) the same.
    """
    seen = part.channel("measured") + part.channel("colored") > 0
    return Saliency("the model's own map", np.where(seen, pixel, 0.0).astype(np.float32), point.astype(np.float32))


def occlusion(part: PartInput, good: PartInput, score: Score) -> Saliency:
    """How far the score falls when one block of a view, and the points that show there, are healed.

    Zeiler and Fergus (ECCV 2014) cover a block with grey; here it takes what a good part shows. Blocks that matter are
    healed again in smaller ones; of a part with one defect a quarter of all small blocks is healed so.

    Args:
        part: that was judged.
        good: the same part, healed.
        score: of the model.
    """
    pixels, points = np.zeros(part.images[:, 0].shape, np.float32), np.zeros(len(part.points_part), np.float32)
    whole = float(score([part])[0])

    def fall_of(block: NDArray[np.bool_]) -> float:
        return max(whole - float(score([blended(part, good, block, _shown(part, block))])[0]), 0.0)

    differs = (part.images != good.images).any(axis=1)
    coarse = [(block, fall_of(block)) for block in _blocks(differs, COARSE)]
    least = COUNTS * max((fall for _, fall in coarse), default=0.0)
    for large, fall_large in coarse:
        counts = fall_large > least
        small = _blocks(differs & large, COARSE * FINE) if counts else ()
        for block, fall in [(block, fall_of(block)) for block in small] or [(large, fall_large / FINE**2)]:
            hit = _shown(part, block)
            pixels[block] = fall
            points[hit] = np.maximum(points[hit], fall)
    return Saliency("occlusion", pixels, points)


def _blocks(differs: NDArray[np.bool_], blocks: int) -> Iterator[NDArray[np.bool_]]:
    """(V, S, S) masks of single blocks, so many across a view, of those that hold a pixel that differs."""
    views, side, _ = differs.shape
    edges = np.linspace(0, side, blocks + 1).round().astype(int)
    spans = [slice(first, last) for first, last in pairwise(edges)]
    for view, rows, columns in product(range(views), spans, spans):
        if differs[view, rows, columns].any():
            block = np.zeros_like(differs)
            block[view, rows, columns] = True
            yield block


def _shown(part: PartInput, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) the points that show within a mask (V, S, S) of any view."""
    flat, seen, at = mask.reshape(len(mask), -1), part.pixel >= 0, np.maximum(part.pixel, 0)
    shown: NDArray[np.bool_] = np.any([seen[:, v] & flat[v][at[:, v]] for v in range(len(flat))], axis=0)
    return shown
