"""What good parts look like place by place: a robust centre and spread of each feature, and how unlike a part is."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

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
    pooling_cells: float = 1.5
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
        known = np.isfinite(features)
        filled, mask = np.where(known, features, np.float32(0)), known.astype(np.float32)
        rows, columns = features.shape[-2:]
        around = ((0, 0), (0, 0), (reach_cells, reach_cells), (reach_cells, reach_cells))
        center, weight = (np.pad(values, around, mode="edge") for values in (self.center, self.weight))
        least = np.full((len(features), rows, columns), np.inf, np.float32)
        for down in range(2 * reach_cells + 1):
            for right in range(2 * reach_cells + 1):
                here = np.s_[:, :, down : down + rows, right : right + columns]
                off = (filled - center[here]) * weight[here] * mask
                count = np.einsum("vfhw,vfhw->vhw", mask, (weight[here] > 0).astype(np.float32))
                squared = np.einsum("vfhw,vfhw->vhw", off, off)
                np.fmin(least, np.where(count > 0, squared / np.maximum(count, 1), np.inf), out=least)
        return np.where(np.isfinite(least), np.sqrt(least), np.float32(np.nan)).astype(np.float32, copy=False)


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
