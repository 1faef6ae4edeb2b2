"""What good parts look like place by place: a robust centre and spread of each feature, and how unlike a part is."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
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


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Good parts, place by place.

    Attributes:
        center: (V, F, h, w) float32 median over good parts; 0 where unknown.
        weight: (V, F, h, w) float32, 1 / spread; 0 where fewer than half of the good parts know the feature.
    """

    center: NDArray[np.float32]
    weight: NDArray[np.float32]

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
        return cls(center, weight)

    def unlikeness(self, features: NDArray[np.float32], reach_cells: int) -> NDArray[np.float32]:
        """(V, h, w): root of the mean square of what each place is off by, in spreads; NaN where nothing is known.

        Args:
            features: (V, F, h, w) of the part to judge, NaN where unknown.
            reach_cells: the place within this reach that fits best counts.
        """
        rows, columns = features.shape[-2:]
        with torch.inference_mode():
            given = torch.from_numpy(features)
            filled, mask = given.nan_to_num(0.0), given.isfinite().float()
            # The outermost place stands for what lies beyond.
            center, weight = (_padded(torch.from_numpy(one), reach_cells) for one in (self.center, self.weight))
            weighs = (weight > 0).float()
            least = torch.full((len(features), rows, columns), torch.inf)
            for down in range(2 * reach_cells + 1):
                for right in range(2 * reach_cells + 1):
                    here = np.s_[:, :, down : down + rows, right : right + columns]
                    off = (filled - center[here]).mul_(weight[here]).mul_(mask)
                    count = (mask * weighs[here]).sum(dim=1)
                    mean = off.square_().sum(dim=1) / count.clamp_min(1)
                    torch.fmin(least, torch.where(count > 0, mean, torch.inf), out=least)
            unlike: NDArray[np.float32] = torch.where(least.isfinite(), least.sqrt(), torch.nan).numpy()
        return unlike


def _padded(values: torch.Tensor, cells: int) -> torch.Tensor:
    return functional.pad(values, (cells, cells, cells, cells), mode="replicate")


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
