"""Means and variances over neighbourhoods of patches, with patches that were not seen left out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray

PRIOR_PARTS = 8.0
"""How many good parts the neighbourhood's variance counts for against a patch's own."""


def neighbourhood_mean(near: Any, values: FloatArray) -> NDArray[np.float64]:
    """Mean of `values` (K, ...) over each patch's neighbours.

    A patch with any NaN among its values is left out as a whole; NaN comes out where all are.

    Args:
        near: (K, K) sparse, ones where patches are neighbours.
        values: one row per patch.
    """
    flat = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    known = np.isfinite(flat.sum(axis=1, keepdims=True))
    sums = near @ np.hstack((np.where(known, flat, 0.0), known))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: NDArray[np.float64] = (sums[:, :-1] / sums[:, -1:]).reshape(values.shape)
    return mean


def mean_of_parts(samples: FloatArray, at_least: int) -> NDArray[np.float64]:
    """Mean over the first axis (n, ...), NaN left out; NaN where fewer than `at_least` samples are known."""
    known = np.isfinite(samples)
    count = known.sum(axis=0)
    total = np.where(known, samples, 0.0).sum(axis=0, dtype=np.float64)
    return np.where(count >= at_least, total / np.maximum(count, 1), np.nan)


def steadied_variance(samples: FloatArray, near: Any) -> NDArray[np.float64]:
    """Variance of each patch between parts, (K, ...), steadied by its neighbours'.

    A handful of parts says little about one patch (the variance of 8 scatters by 50 %), but neighbours vary alike. The
    patch's own variance and its neighbourhood's are weighted by degrees of freedom, the latter as `PRIOR_PARTS`, and
    the result is not let below the neighbourhood's. NaN where no part of the neighbourhood is known twice.

    Args:
        samples: (n, K, ...), one row per part, NaN where not seen.
        near: (K, K) sparse, ones where patches are neighbours.
    """
    known = np.isfinite(samples)
    freedom = np.maximum(known.sum(axis=0) - 1.0, 0.0)
    squares = np.where(known, samples - mean_of_parts(samples, 1), 0.0).astype(np.float64) ** 2
    own_squares = squares.sum(axis=0)
    shape = own_squares.shape
    near_squares = (near @ own_squares.reshape(shape[0], -1)).reshape(shape)
    near_freedom = (near @ freedom.reshape(shape[0], -1)).reshape(shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = near_squares / near_freedom
    steadied = (PRIOR_PARTS * pooled + own_squares) / (PRIOR_PARTS + freedom)
    variance: NDArray[np.float64] = np.maximum(steadied, pooled)
    return variance


def neighbourhood_max(near: Any, values: FloatArray) -> NDArray[np.float64]:
    """Largest of `values` (K,) among each patch's neighbours; NaN count as 0.

    Args:
        near: (K, K) sparse in compressed rows, itself included, so that no row is empty.
        values: zero or more.
    """
    largest: NDArray[np.float64] = np.maximum.reduceat(np.nan_to_num(values)[near.indices], near.indptr[:-1])
    return largest
