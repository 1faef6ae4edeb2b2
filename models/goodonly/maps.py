"""Maps of how unlike each place is: joined, smoothed, carried to pixels and to points, and boiled down to a score."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depthcell.models.goodonly.features import BRANCH_OF_GROUP, Branch, Group

BRANCHES: tuple[Branch, ...] = ("rgb", "depth", "student")


def joined(
    scored: Mapping[Group, NDArray[np.float32]], power: float, smoothing_cells: float
) -> dict[Branch, NDArray[np.float32]]:
    """(V, c, c) of each branch: power mean of its groups among those that know a place, smoothed; NaN if none does."""
    branches: dict[Branch, NDArray[np.float32]] = {}
    for branch in BRANCHES:
        members = [scored[group] for group, owner in BRANCH_OF_GROUP.items() if owner == branch and group in scored]
        if not members:
            continue
        mean = power_mean(members, [1.0] * len(members), power)
        known = np.isfinite(mean)
        smooth = [cv2.GaussianBlur(view, (0, 0), smoothing_cells) for view in np.where(known, mean, 0)]
        branches[branch] = np.where(known, np.stack(smooth), np.nan).astype(np.float32)
    return branches


def power_mean(maps: Sequence[NDArray[np.float32]], weights: Sequence[float], power: float) -> NDArray[np.float32]:
    """Weighted power mean; a map that does not know a place (NaN) adds nothing there, so that it never raises a score.

    Where those that know it weigh under 5 % of all, they are taken for all. NaN where none knows it.
    """
    stacked = torch.from_numpy(np.stack(maps))  # NumPy takes powers one by one on many processors
    known = stacked.isfinite()
    shares = torch.tensor(weights, dtype=torch.float32).clamp_min(1e-9).view(-1, *(1,) * maps[0].ndim) * known
    summed = (shares * stacked.nan_to_num(0.0).pow(power)).sum(dim=0)
    heard = shares.sum(dim=0)
    total = torch.where(heard < 0.05 * sum(weights), heard, sum(weights)).clamp_min(1e-20)
    mean: NDArray[np.float32] = torch.where(heard > 0, (summed / total).pow(1 / power), torch.nan).numpy()
    return mean


def worst_mean(found: NDArray[np.float32], cells: int) -> float:
    """Mean of the highest cells; 0 where nothing is known."""
    known = found[np.isfinite(found)]
    return float(np.partition(known, -cells)[-cells:].mean()) if len(known) >= cells else 0.0


def on_cells(found: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(V, h, w) enlarged to (V, c, c) where smaller; unknown stays unknown."""
    if found.shape[-1] == side:
        return found
    known = np.isfinite(found)
    large = [cv2.resize(view, (side, side), interpolation=cv2.INTER_LINEAR) for view in np.where(known, found, 0)]
    share = [cv2.resize(view, (side, side), interpolation=cv2.INTER_LINEAR) for view in known.astype(np.float32)]
    weight = np.stack(share)
    return np.where(weight > 0.25, np.stack(large) / np.maximum(weight, 1e-6), np.nan).astype(np.float32)


def on_pixels(found: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """(V, S, S) from (V, c, c), 0 where nothing is known."""
    return np.stack(
        [
            cv2.resize(view, (side_px, side_px), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
            for view in np.nan_to_num(found)
        ]
    )


def at_points(pixels: NDArray[np.float32], pixel: NDArray[np.int32]) -> NDArray[np.float32]:
    """(N,) the highest score among the pixels (N, V) where each point shows."""
    score = np.zeros(len(pixel), np.float32)
    for view, image in enumerate(pixels):
        seen = pixel[:, view] >= 0
        score[seen] = np.maximum(score[seen], image.ravel()[pixel[seen, view]])
    return score
