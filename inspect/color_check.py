"""Is this patch's colour that of a good part? Statistics per camera and patch, and how far a part lies from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.inspect.deviation import DeviationScales
from depthcell.inspect.pooling import PRIOR_PARTS, mean_of_parts, neighbourhood_mean, steadied_variance
from depthcell.inspect.view_color import ViewColor, gain_to, lab_of

LAB_FLOOR = (1.0, 0.6, 0.6)
"""Standard deviation of L*, a*, b* that is granted everywhere: sensor noise and rounding to 8 bits."""

LINE_FLOOR_COUNTS = 1.2
"""The same for lines, in counts."""

LINE_SHARE = 0.15
"""Share of a line's mean strength by which it may differ between good parts."""

REGISTRATION = 0.5
"""Share of a patch by which alignment slips from part to part in any case."""

SLIPPED = 0.5
"""Slip of a part, in patches, from which on colour at its edges is not compared."""

SHOWN = 0.8
"""Share of good parts that must show a patch to a camera for it to be known."""

GAIN_ROUNDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class ViewStatistics:
    """What good parts look like to one camera: K patches, neighbourhoods of S radii.

    Attributes:
        rgb: (K, 3) float32, mean counts in common light; NaN where too few good parts show the patch.
        lab: (K, 3) float32, L*a*b* of that.
        precision: (S, K, 3, 3) float32, inverse covariance of the mean L*a*b* difference over a neighbourhood.
        lab_slope: (K,) float32, variances per square metre that a slip of the part adds to a score's square.
        lines: (K, 2) float32, mean strength of bright and dark lines, counts.
        lines_sigma: (K, 2) float32, its standard deviation between good parts.
        lines_slope: (K, 2) float32, as `lab_slope`.
        lab_factor: (S, K) float32 by which scores of good parts come out too large about a patch; 1 where the model
            holds.
        lines_factor: (K, 2) float32, the same for lines.
    """

    rgb: NDArray[np.float32]
    lab: NDArray[np.float32]
    precision: NDArray[np.float32]
    lab_slope: NDArray[np.float32]
    lines: NDArray[np.float32]
    lines_sigma: NDArray[np.float32]
    lines_slope: NDArray[np.float32]
    lab_factor: NDArray[np.float32]
    lines_factor: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ColorScore:
    """How far one view is from good parts, in standard deviations; NaN where it was not compared.

    Attributes:
        lab: (S, K) float32, of the mean colour over neighbourhoods of S radii.
        lines: (K, 2) float32, of bright and of dark lines; negative where weaker than on good parts.
        difference_lab: (K, 3) float32, L*a*b* less that of good parts, patch by patch.
    """

    lab: NDArray[np.float32]
    lines: NDArray[np.float32]
    difference_lab: NDArray[np.float32]

    @property
    def largest(self) -> NDArray[np.float32]:
        """(K,) the largest score of each patch; NaN where none is known."""
        largest: NDArray[np.float32] = np.fmax.reduce([*self.lab, *self.lines.T])
        return largest


def fit_view(views: Sequence[ViewColor], scales: DeviationScales) -> ViewStatistics:
    """Statistics of one camera's view of good parts; factors are 1 until they are calibrated."""
    at_least = max(2, math.ceil(SHOWN * len(views)))
    mean_rgb, gains = _common_light(views, at_least)
    mean_lab = lab_of(mean_rgb)
    residual = np.stack([lab_of(view.rgb * gain) - mean_lab for view, gain in zip(views, gains, strict=True)])
    wide = scales.neighbours[-1]
    steepness = _neighbour_covariance(mean_lab, scales.neighbours[0])
    floor = np.diag(np.square(LAB_FLOOR)) + REGISTRATION**2 * steepness
    precision = [
        np.linalg.inv(_covariance(np.stack([neighbourhood_mean(near, one) for one in residual]), wide) + floor)
        for near in scales.neighbours
    ]
    lines = np.stack([view.lines * gain.mean() for view, gain in zip(views, gains, strict=True)])
    mean_lines = mean_of_parts(lines, at_least)
    around = neighbourhood_mean(scales.neighbours[0], mean_lines)
    line_steepness = np.nan_to_num(neighbourhood_mean(scales.neighbours[0], mean_lines**2) - around**2)
    # A line that good parts have too, an edge, may be stronger by its share.
    lines_variance = np.nan_to_num(steadied_variance(lines, wide)) + LINE_FLOOR_COUNTS**2
    lines_variance += REGISTRATION**2 * line_steepness + (LINE_SHARE * np.nan_to_num(mean_lines)) ** 2
    per_m2 = 1.0 / scales.surface.spacing_m**2
    columns = {
        "rgb": mean_rgb,
        "lab": mean_lab,
        "precision": np.stack(precision),
        "lab_slope": np.maximum(np.einsum("kij,kji->k", precision[0], steepness), 0.0) / 3 * per_m2,
        "lines": mean_lines,
        "lines_sigma": np.sqrt(lines_variance),
        "lines_slope": np.maximum(line_steepness, 0.0) / lines_variance * per_m2,
        "lab_factor": np.ones((len(precision), len(mean_rgb))),
        "lines_factor": np.ones(lines.shape[1:]),
    }
    return ViewStatistics(**{name: np.asarray(column, dtype=np.float32) for name, column in columns.items()})


def score_view(
    view: ViewColor, good: ViewStatistics, scales: DeviationScales, slip_m: FloatArray | float = 0.0
) -> ColorScore:
    """Compare one view of a part with the same view of good parts.

    Args:
        view: of the part.
        good: of good parts.
        scales: averages over the surface.
        slip_m: (K,) standard uncertainty of where each patch lies along the surface; where colour is uneven, a part
            that slipped looks different without being so.
    """
    gain = gain_to(good.rgb, view.rgb)
    difference = lab_of(view.rgb * gain) - good.lab
    # Past an edge or an outline other things come into view, which no good part's neighbourhood tells of.
    outside = scales.surface.near_edge & (np.asarray(slip_m) > SLIPPED * scales.surface.spacing_m)
    slipped = np.sqrt(1.0 + np.square(slip_m) * good.lab_slope)
    distances = []
    for near, precision, factor in zip(scales.neighbours, good.precision, good.lab_factor, strict=True):
        mean = neighbourhood_mean(near, difference)
        mean[~np.isfinite(difference[:, 0]) | outside] = np.nan
        distances.append(np.sqrt(np.einsum("ki,kij,kj->k", mean, precision, mean)) / (factor * slipped))
    lines = (view.lines * gain.mean() - good.lines) / (good.lines_sigma * good.lines_factor)
    lines[outside] = np.nan
    lines = lines / np.sqrt(1.0 + np.square(slip_m)[..., None] * good.lines_slope)
    return ColorScore(np.stack(distances).astype(np.float32), lines.astype(np.float32), difference.astype(np.float32))


def _common_light(views: Sequence[ViewColor], at_least: int) -> tuple[NDArray[np.float64], list[NDArray[np.float32]]]:
    """Mean counts of all parts in one light, and the gain per channel that brings each part to it."""
    mean: NDArray[np.float64] = views[0].rgb.astype(np.float64)
    gains = [gain_to(mean, view.rgb) for view in views]
    for _ in range(GAIN_ROUNDS):
        mean = mean_of_parts(np.stack([view.rgb * gain for view, gain in zip(views, gains, strict=True)]), at_least)
        gains = [gain_to(mean, view.rgb) for view in views]
    return mean, gains


def _neighbour_covariance(mean_lab: FloatArray, near: Any) -> NDArray[np.float64]:
    """(K, 3, 3): how much colour differs between neighbouring patches, which a slip of a patch would change it by."""
    around = neighbourhood_mean(near, mean_lab)
    products = neighbourhood_mean(near, mean_lab[:, :, None] * mean_lab[:, None, :])
    covariance: NDArray[np.float64] = np.nan_to_num(products - around[:, :, None] * around[:, None, :])
    return covariance


def _covariance(residual: FloatArray, wide: Any) -> NDArray[np.float64]:
    """(K, 3, 3) between parts, of residuals (n, K, 3): the neighbourhood's, enlarged where a patch's own is larger."""
    known = np.isfinite(residual[..., 0])
    freedom = np.maximum(known.sum(axis=0) - 1.0, 0.0)
    clean = np.where(known[..., None], residual, 0.0)
    products = np.einsum("nki,nkj->kij", clean, clean)
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = (wide @ products.reshape(-1, 9)).reshape(-1, 3, 3) / (wide @ freedom)[:, None, None]
        own, common = np.trace(products, axis1=1, axis2=2), np.trace(pooled, axis1=1, axis2=2)
        larger = (PRIOR_PARTS + own / common) / (PRIOR_PARTS + freedom)
    covariance: NDArray[np.float64] = np.nan_to_num(pooled) * np.fmax(larger, 1.0)[:, None, None]
    return covariance
