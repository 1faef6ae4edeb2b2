"""Good parts kept beside a model, to lay beside what is doubted. NumPy alone.

An image of a good part is kept in bytes: each channel from its smallest to its largest value in 255 steps. Since a
pixel of a canonical view is the same place on every part, a good part also says what a part at hand would look like
without its defect: `healed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.models.network.partinput import CHANNELS, POINT_FEATURES, PartInput

MOST_EXAMPLES = 6

COMPARED = ("red", "green", "blue", "deviation")
"""Channels in which parts are alike or not, each over how much good parts differ in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """n good parts with V views of S x S pixels.

    Attributes:
        part_ids: which.
        levels: (n, V, C, S, S) uint8.
        low, high: (n, C) float32, what levels 0 and 255 stand for.
    """

    part_ids: tuple[str, ...]
    levels: NDArray[np.uint8]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @classmethod
    def of(cls, parts: Sequence[PartInput], most: int = MOST_EXAMPLES) -> "Examples":
        """Keep at most so many good parts, evenly chosen in the order given; a part that lost a camera is none.

        Raises:
            DepthcellError: there is none, or they differ in views.
        """
        whole = [part for part in parts if not part.lost_cameras]
        if not whole:
            raise DepthcellError("examples: no good part was seen by every camera; record some")
        if len({part.images.shape for part in whole}) > 1:
            raise DepthcellError("examples: good parts differ in number or size of views; build them anew")
        chosen = [whole[number] for number in np.unique(np.linspace(0, len(whole) - 1, most).round().astype(int))]
        images = np.stack([part.images for part in chosen])
        low, high = images.min(axis=(1, 3, 4)), images.max(axis=(1, 3, 4))
        step = np.maximum(high - low, 1e-9)[:, None, :, None, None]
        levels = np.rint((images - low[:, None, :, None, None]) / step * 255.0).astype(np.uint8)
        return cls(tuple(part.part_id for part in chosen), levels, low, high)

    @classmethod
    def from_tensors(cls, part_ids: Sequence[str], tensors: dict[str, NDArray[Any]]) -> "Examples":
        """As `tensors` gave them.

        Raises:
            DepthcellError: they do not fit together.
        """
        levels, low, high = (tensors.get(name, np.zeros(0)) for name in ("levels", "low", "high"))
        fits = levels.ndim == 5 and levels.dtype == np.uint8 and levels.shape[2] == len(CHANNELS)
        if (
            not fits
            or len(levels) != len(part_ids)
            or low.shape != high.shape
            or low.shape != levels[:, 0, :, 0, 0].shape
        ):
            raise DepthcellError("examples: the good parts kept with the model do not fit together; train it anew")
        return cls(tuple(part_ids), levels, low.astype(np.float32), high.astype(np.float32))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """To keep in a file of tensors."""
        return {"levels": self.levels, "low": self.low, "high": self.high}

    def images(self, number: int) -> NDArray[np.float32]:
        """(V, C, S, S) of one good part, as `PartInput.images`."""
        low, high = (bound[number][None, :, None, None] for bound in (self.low, self.high))
        share = self.levels[number].astype(np.float32) / np.float32(255.0)
        return np.asarray(low + share * (high - low), dtype=np.float32)

    def nearest(self, part: PartInput) -> int:
        """Number of the good part that is most like a part, over all that both show.

        The middle difference over all pixels counts, so that a defect, which covers few, does not decide.

        Raises:
            DepthcellError: the part has other views.
        """
        if part.images.shape != self.levels.shape[1:]:
            raise DepthcellError(
                f"part {part.part_id}: its views of {part.images.shape} do not fit the good parts kept with the model, "
                f"{self.levels.shape[1:]}"
            )
        return int(np.argmin([_distance(part.images, self.images(number)) for number in range(len(self.part_ids))]))


def healed(part: PartInput, good_images: NDArray[np.float32]) -> PartInput:
    """The part as it would be seen were it like a good one, place by place.

    Its points take what the good part shows at their pixels, the mean of the views that see them, and move along
    their normal to its surface. A point that no view sees keeps its own.

    Args:
        part: at hand.
        good_images: (V, C, S, S) of the good part.
    """
    views = range(len(part.serials))
    flat = good_images.reshape(len(part.serials), len(CHANNELS), -1)
    wanted = [CHANNELS.index(name) for name in POINT_FEATURES]
    measured = flat[:, CHANNELS.index("measured")]
    seen = np.stack([(part.pixel[:, v] >= 0) & (measured[v, np.maximum(part.pixel[:, v], 0)] > 0.5) for v in views])
    taken = np.stack([flat[v][wanted][:, np.maximum(part.pixel[:, v], 0)].T for v in views])
    count = seen.sum(axis=0)
    mean = (taken * seen[..., None]).sum(axis=0) / np.maximum(count, 1)[:, None]
    features = np.where(count[:, None] > 0, mean, part.features).astype(np.float32)
    rise_mm = features[:, POINT_FEATURES.index("deviation")] - part.feature("deviation")
    points = part.points_part + part.features[:, :3] * (rise_mm / 1e3)[:, None]
    return replace(
        part,
        images=good_images.astype(np.float32),
        features=features,
        points_part=points.astype(np.float32),
        labels=None,
    )


def blended(part: PartInput, other: PartInput, pixels: NDArray[np.bool_], points: NDArray[np.bool_]) -> PartInput:
    """The part with what another shows at some places.

    Args:
        part: at hand.
        other: with the same pixels and points.
        pixels: (V, S, S), where the other is taken.
        points: (N,), the same.
    """
    return replace(
        part,
        images=np.where(pixels[:, None], other.images, part.images),
        features=np.where(points[:, None], other.features, part.features),
        points_part=np.where(points[:, None], other.points_part, part.points_part),
        labels=None,
    )


def _distance(images: NDArray[np.float32], good: NDArray[np.float32]) -> float:
    """Mean over `COMPARED` of the median difference over its own median size; infinite without a common pixel."""
    flags = (CHANNELS.index("colored"), CHANNELS.index("measured"))
    shares = []
    for name in COMPARED:
        flag = flags[1] if name == "deviation" else flags[0]
        both = (images[:, flag] > 0.5) & (good[:, flag] > 0.5)
        if not both.any():
            continue
        channel = CHANNELS.index(name)
        values = good[:, channel][both]
        spread = float(np.median(np.abs(values - np.median(values)))) + 1e-6
        shares.append(float(np.median(np.abs(images[:, channel][both] - values))) / spread)
    return float(np.mean(shares)) if shares else float("inf")
