"""What good parts look like place by place: a robust centre and spread of each feature, and how unlike a part is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SIGMA_OF_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class PlaceSettings:
    """How a place is described.

    Attributes:
        reach_cells: largest shift of a place, rows and columns alike; what lies there is as good.
        pooling_cells: standard deviation of the neighbourhood whose spread is taken together, for a few parts say
            little about the spread at one place.
        floor: share of the feature's usual spread that each place's spread is raised by.
    """

    reach_cells: int = 1
    pooling_cells: float = 6.0
    floor: float = 0.5


@dataclass(frozen=True, eq=False)
class Places:
    """Good parts, place by place.

    Attributes:
        center: (V, F, h, w) float32 median over good parts; 0 where unknown.
        weight: (V, F, h, w) float32, 1 / spread; 0 where fewer than half of the good parts know the feature.
        reach_cells: largest shift of a place, rows and columns alike.
    """

    center: NDArray[np.float32]
    weight: NDArray[np.float32]
    reach_cells: int

    @classmethod
    def learn(cls, values: NDArray[np.floating], settings: PlaceSettings) -> "Places":
        """Median and median absolute deviation over good parts.

        Args:
            values: (N, V, F, h, w), NaN where unknown.
            settings: how to describe a place.
        """
        center, weight = np.zeros(values.shape[1:], np.float32), np.zeros(values.shape[1:], np.float32)
        for view in range(values.shape[1]):
            for feature in range(values.shape[2]):
                center[view, feature], weight[view, feature] = _described(values[:, view, feature], settings)
        return cls(center, weight, settings.reach_cells)

    def unlikeness(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(V, h, w): root of the mean square of what each place is off by, in spreads; NaN where nothing is known.

        Of the places within reach, the one that fits best counts.

        Args:
            features: (V, F, h, w) of the part to judge, NaN where unknown.
        """
        with torch.inference_mode():
            given = torch.from_numpy(features)
            known, filled = given.isfinite(), given.nan_to_num(0.0)
            least = self._least(filled)
            # Of nearly all places a part knows all features or none; how many of them count is then known beforehand.
            count = known.sum(dim=1, dtype=torch.uint8)
            mixed = ((count > 0) & (count < known.shape[1])).nonzero(as_tuple=True)
            least[mixed] = self._least_at(mixed, filled, known)
            is_known = (count > 0) & least.isfinite()
            unlike: NDArray[np.float32] = torch.where(is_known, least.sqrt(), torch.nan).numpy()
        return unlike

    def _least(self, filled: Tensor) -> Tensor:
        """(V, h, w) least mean square of places of which all features are known; infinite where none has a weight."""
        rows, columns = filled.shape[2:]
        off, least = torch.empty_like(filled), torch.full((len(filled), rows, columns), torch.inf)
        for down, right in self._shifts():
            here = np.s_[:, :, down : down + rows, right : right + columns]
            torch.sub(filled, self._padded.center[here], out=off).mul_(self._padded.mean_weight[here])
            mean = off.square_().sum(dim=1).add_(self._padded.unknown[here][:, 0])
            torch.minimum(least, mean, out=least)
        return least

    def _least_at(self, at: tuple[Tensor, ...], filled: Tensor, known: Tensor) -> Tensor:
        """(n,) the same at some places, view, row and column (n,) each, of which some features are known."""
        view, row, column = at
        given, mask = filled[view, :, row, column], known[view, :, row, column].float()
        least = torch.full((len(view),), torch.inf)
        for down, right in self._shifts():
            center, weight = (
                values[view, :, row + down, column + right] for values in (self._padded.center, self._padded.weight)
            )
            count = (mask * (weight > 0)).sum(dim=1)
            mean = ((given - center) * weight * mask).square_().sum(dim=1) / count.clamp_min(1)
            torch.minimum(least, torch.where(count > 0, mean, torch.inf), out=least)
        return least

    def _shifts(self) -> Iterator[tuple[int, int]]:
        """Down and right, counted from the farthest up and left."""
        steps = range(2 * self.reach_cells + 1)
        return product(steps, steps)

    @cached_property
    def _padded(self) -> "_Padded":
        # The outermost place stands for what lies beyond.
        center, weight = (
            functional.pad(torch.from_numpy(values), (self.reach_cells,) * 4, mode="replicate")
            for values in (self.center, self.weight)
        )
        count = (weight > 0).sum(dim=1, keepdim=True)
        unknown = torch.where(count > 0, 0.0, torch.inf)
        return _Padded(center, weight, weight / count.clamp_min(1).sqrt(), unknown)


class _Padded(NamedTuple):
    """Places with a margin of the reach, H and W.

    Attributes:
        center, weight: (V, F, H, W).
        mean_weight: (V, F, H, W), weight over the root of how many features of the place have one.
        unknown: (V, 1, H, W), infinite where none has, 0 elsewhere.
    """

    center: Tensor
    weight: Tensor
    mean_weight: Tensor
    unknown: Tensor


def _described(
    values: NDArray[np.floating], settings: PlaceSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centre and weight (h, w) of one feature, from (N, h, w)."""
    rows, columns = values.shape[1:]
    flat = np.ascontiguousarray(values.reshape(len(values), -1).T, dtype=np.float32)
    center, known = _median(flat)
    spread, _ = _median(np.abs(flat - center[:, None]))
    is_known = (known * 2 >= len(values)).reshape(rows, columns)
    variance = np.where(is_known, (SIGMA_OF_MAD * np.nan_to_num(spread).reshape(rows, columns)) ** 2, 0)
    share = cv2.GaussianBlur(is_known.astype(np.float32), (0, 0), settings.pooling_cells)
    pooled = cv2.GaussianBlur(variance.astype(np.float32), (0, 0), settings.pooling_cells) / np.maximum(share, 1e-6)
    if not is_known.any():
        return np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    floor = settings.floor * float(np.sqrt(np.median(pooled[is_known])))
    weight = np.where(is_known, 1 / np.maximum(np.sqrt(pooled) + floor, 1e-6), 0)
    centered = np.where(is_known, np.nan_to_num(center).reshape(rows, columns), 0)
    return centered.astype(np.float32), weight.astype(np.float32)


def _median(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Median of each row without its NaN, NaN if it has no other value; and how many others it has."""
    rising = np.sort(rows, axis=1)  # NaN go last
    known = np.isfinite(rows).sum(axis=1)
    low, high = np.maximum((known - 1) // 2, 0), np.minimum(known // 2, rows.shape[1] - 1)
    places = np.arange(len(rows))
    middle: NDArray[np.float32] = (rising[places, low] + rising[places, high]) / np.float32(2)
    return middle, known
