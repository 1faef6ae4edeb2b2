"""Several parts as one batch of tensors: images stacked, points laid end to end, so that no loop runs over either."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthcell.errors import DepthcellError
from depthcell.models.network.partinput import CLASSES, NEIGHBOURS, PartInput


class PartBatch(NamedTuple):
    """B parts of V views of S x S pixels each, and of M points in all.

    Attributes:
        images: (B·V, C, S, S) float32, the views of the first part first.
        points: (M, 3) float32, metres, each in its part's frame "part".
        features: (M, F) float32, see `partinput.POINT_FEATURES`.
        edge_index: (2, M·K) int64, from neighbour to point, as PyTorch Geometric has it; the K edges of each point
            stand together, in the order of the points.
        pixel: (M, V) int64, `row * S + column` in that view of the point's own part; -1 where it is not seen.
        part_of_point: (M,) int64.
        points_of_part: (B, L) int64, the points of each part, -1 behind the last; L of the largest part, at least 1.
    """

    images: Tensor
    points: Tensor
    features: Tensor
    edge_index: Tensor
    pixel: Tensor
    part_of_point: Tensor
    points_of_part: Tensor

    @property
    def parts(self) -> int:
        """B."""
        return self.points_of_part.shape[0]

    @property
    def views(self) -> int:
        """V."""
        return self.pixel.shape[1]

    @property
    def side_px(self) -> int:
        """S."""
        return self.images.shape[-1]

    def to(self, device: torch.device | str) -> "PartBatch":
        """The same on another device."""
        return PartBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class LabelBatch(NamedTuple):
    """What is true of the parts of a batch; class numbers of `partinput.CLASSES`.

    Attributes:
        pixels: (B, V, S, S) int64.
        points: (M,) int64.
        parts: (B,) int64, the defect class that most pixels and points of the part have; 0 of a good part.
    """

    pixels: Tensor
    points: Tensor
    parts: Tensor

    def to(self, device: torch.device | str) -> "LabelBatch":
        """The same on another device."""
        return LabelBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def collate(parts: Sequence[PartInput]) -> PartBatch:
    """One batch of parts, each with as many points as it has.

    Raises:
        DepthcellError: no part, or parts that differ in the number or size of their views.
    """
    if not parts:
        raise DepthcellError("a batch needs at least one part, got none")
    for part in parts[1:]:
        if part.images.shape != parts[0].images.shape:
            raise DepthcellError(
                f"part {part.part_id}: images of {part.images.shape} do not fit into one batch with "
                f"{parts[0].images.shape} of part {parts[0].part_id}; build both from the same canonical views"
            )
    counts = np.array([len(part.points_part) for part in parts])
    starts = np.concatenate(([0], np.cumsum(counts)))
    sources = [part.neighbours.ravel() + start for part, start in zip(parts, starts[:-1], strict=True)]
    slots = np.arange(max(1, counts.max()))
    return PartBatch(
        images=_joined([part.images for part in parts]),
        points=_joined([part.points_part for part in parts]),
        features=_joined([part.features for part in parts]),
        edge_index=torch.from_numpy(
            np.stack((np.concatenate(sources), np.arange(starts[-1]).repeat(NEIGHBOURS))).astype(np.int64, copy=False)
        ),
        pixel=_joined([part.pixel for part in parts]).long(),
        part_of_point=torch.from_numpy(np.arange(len(parts)).repeat(counts)),
        points_of_part=torch.from_numpy(
            np.where(slots < counts[:, None], starts[:-1, None] + slots, -1).astype(np.int64, copy=False)
        ),
    )


def collate_labels(parts: Sequence[PartInput]) -> LabelBatch:
    """What is true of the same parts.

    Raises:
        DepthcellError: a part has no labels; names it.
    """
    for part in parts:
        if part.labels is None:
            raise DepthcellError(f"part {part.part_id}: has no labels; training and scoring need them")
    labels = [part.labels for part in parts if part.labels is not None]
    counts = [
        np.bincount(one.pixels.ravel(), minlength=len(CLASSES)) + np.bincount(one.points, minlength=len(CLASSES))
        for one in labels
    ]
    majority = [int(count[1:].argmax()) + 1 if count[1:].any() else 0 for count in counts]
    return LabelBatch(
        pixels=torch.from_numpy(np.stack([one.pixels for one in labels])).long(),
        points=_joined([one.points for one in labels]).long(),
        parts=torch.tensor(majority),
    )


def _joined(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    """Arrays end to end; a copy, so that what happens to the batch leaves the part alone."""
    return torch.from_numpy(np.concatenate(arrays))
