"""How well anomaly maps find defects: image AUROC, pixel AUROC and AUPRO, each with its 95 % interval.

AUPRO is the area under the per-region overlap of Bergmann et al., "The MVTec Anomaly Detection Dataset" (IJCV 2021,
section 5) and "The MVTec 3D-AD Dataset" (VISAPP 2022): for each threshold the share of every connected ground-truth
region (8-connected, over all images) that lies above it, averaged over regions, against the share of good pixels above
it; integrated from 0 to a limit on that false-positive rate and divided by the limit. A perfect map gives 1, a
constant map limit / 2. Between two thresholds the curve is a straight line, so equal scores count as tied, not ordered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root_scalar
from scipy.special import betaincinv, expit, stdtrit
from scipy.stats import rankdata

from depthcell.errors import DepthcellError

CONFIDENCE = 0.95
RESAMPLES = 1000
LEVELS = 1500  # distinct scores that the bootstrap looks at; more are thinned out


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure between 0 and 1 with the interval that covers its true value with probability `confidence`."""

    value: float
    low: float
    high: float
    confidence: float = CONFIDENCE


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What a falling threshold finds: a polyline from (0, 0) to (1, 1).

    Attributes:
        false_positive: (T,) share of good pixels above the threshold, never falling.
        overlap: (T,) share of a defect region above it, mean over regions.
        true_positive: (T,) share of defect pixels above it.
    """

    false_positive: NDArray[np.float64]
    overlap: NDArray[np.float64]
    true_positive: NDArray[np.float64]

    @property
    def pixel_auroc(self) -> float:
        """Probability that a defect pixel scores above a good one, ties counting half."""
        return area_under(self.false_positive, self.true_positive, 1.0)

    def aupro(self, limit: float) -> float:
        """Mean overlap for false-positive rates from 0 to `limit`."""
        return area_under(self.false_positive, self.overlap, limit)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredImage:
    """One image's pixels, sorted for counting: all that the pixel metrics need of it.

    Attributes:
        good: (G,) float32, rising, scores of the pixels outside every defect.
        defect: (D,) float32, rising, scores of the defect pixels.
        region: (D,) index of the 8-connected region, from 0, that each of `defect` belongs to.
    """

    good: NDArray[np.float32]
    defect: NDArray[np.float32]
    region: NDArray[np.intp]

    @classmethod
    def of(cls, scored: NDArray[np.float32], mask: NDArray[np.bool_]) -> "ScoredImage":
        """Sort an anomaly map (H, W) against its ground truth (H, W), True on defects.

        Raises:
            DepthcellError: the sizes differ or a score is not finite.
        """
        if scored.shape != mask.shape:
            raise DepthcellError(f"metrics: map {scored.shape} and ground truth {mask.shape} differ in size")
        if not np.isfinite(scored).all():
            raise DepthcellError("metrics: an anomaly map holds a score that is not finite")
        labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1][mask]
        rising = np.argsort(scored[mask])
        return cls(np.sort(scored[~mask]), scored[mask][rising], labels[rising].astype(np.intp) - 1)

    @property
    def regions(self) -> int:
        """Number of connected defect regions."""
        return int(self.region.max()) + 1 if len(self.region) else 0


def auroc(is_defect: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> float:
    """Probability that a defect scores above a good part, ties counting half (Mann-Whitney U / (m n)).

    Raises:
        DepthcellError: one of the two groups is empty, or a score is not finite.
    """
    defects, goods = int(is_defect.sum()), int((~is_defect).sum())
    _need_both(defects, goods)
    if not np.isfinite(scores).all():
        raise DepthcellError("metrics: a score is not finite; judge every part before measuring")
    ranks = rankdata(scores)
    return float((ranks[is_defect].sum() - defects * (defects + 1) / 2) / (defects * goods))


def auroc_estimate(is_defect: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> Estimate:
    """`auroc` of a few parts with the interval of Newcombe, "Confidence intervals for an effect size measure based on
    the Mann-Whitney statistic, part 2" (Statistics in Medicine 25, 2006), method 5.

    It inverts the test |value - t| = z sqrt(V(t)) with Hanley and McNeil's variance V, so it keeps a width at value 1,
    where the bootstrap and DeLong's interval shrink to nothing.
    """  # noqa: D205
    value = auroc(is_defect, scores)
    defects, goods = int(is_defect.sum()), int((~is_defect).sum())
    z, extra = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), (defects + goods) / 2 - 1

    def excess(t: float) -> float:
        spread = t * (1 - t) * (1 + extra * ((1 - t) / (2 - t) + t / (1 + t))) / (defects * goods)
        return float((value - t) ** 2 - z**2 * spread)

    inside = float(np.clip(value, 1e-9, 1 - 1e-9))  # V is zero at 0 and 1, which would count as a root
    low = root_scalar(excess, bracket=(0.0, inside)).root if value > 0 else 0.0
    high = root_scalar(excess, bracket=(inside, 1.0)).root if value < 1 else 1.0
    return Estimate(value, float(low), float(high))


def proportion_estimate(count: int, total: int) -> Estimate:
    """`count / total` with the exact interval of Clopper and Pearson (Biometrika 26, 1934)."""
    tail = (1 - CONFIDENCE) / 2
    low = betaincinv(count, total - count + 1, tail) if count else 0.0
    high = betaincinv(count + 1, total - count, 1 - tail) if count < total else 1.0
    return Estimate(count / total, float(low), float(high))


def area_under(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Mean of the polyline y(x), x rising from 0, between 0 and `limit`; the last stretch is cut where x = limit."""
    inside = x <= limit
    end = np.interp(limit, x, y)
    return float(np.trapezoid(np.append(y[inside], end), np.append(x[inside], limit)) / limit)


def curve(images: Sequence[ScoredImage]) -> Curve:
    """The exact curve over every distinct score of all pixels of all images.

    Overlap changes only at the score of a defect pixel. So two corners for each distinct one suffice: just above it,
    and at it, where the good pixels tied with it join; between the two the line is straight, elsewhere it is level.

    Raises:
        DepthcellError: there is no defect pixel or no good pixel.
    """
    levels = _levels(images)
    return _curve(_summed(images, levels))


PIXEL_FIGURES = ("pixel_auroc", "aupro_30", "aupro_1")


def pixel_estimates(images: Sequence[ScoredImage], strata: Sequence[str], seed: int) -> dict[str, Estimate]:
    """Pixel AUROC, AUPRO@30 % and AUPRO@1 %, exact, each with a bootstrap interval over parts.

    A part is the unit that is drawn again, with all of its pixels, since pixels and regions of a part are not
    independent. Parts are drawn within their stratum (defect kind or good), `RESAMPLES` times. The interval is
    Student's t on the logit of the figure, with the spread of the draws widened by sqrt(n / (n - 1)) for n defective
    parts; plain percentiles cover too seldom for a few dozen parts. It speaks of other parts of these kinds, not of
    another training.

    Args:
        images: the judged parts.
        strata: (N,) kind of each.
        seed: of the draw.
    """
    values = _pixel_figures(curve(images))
    levels = _thinned(_levels(images), images)
    corners = np.stack([_corners(image, levels) for image in images])
    times_drawn = _times_drawn(strata, np.random.default_rng(seed))
    draws = np.array([_pixel_figures(_curve(np.einsum("i,ijk->jk", times, corners))) for times in times_drawn])
    defective = sum(image.regions > 0 for image in images)
    return {
        name: _logit_t_estimate(value, drawn, defective)
        for name, value, drawn in zip(PIXEL_FIGURES, values, draws.T, strict=True)
    }


def _logit_t_estimate(value: float, draws: NDArray[np.float64], parts: int) -> Estimate:
    """The interval described above; 0 to 1 where the draws show no spread, so nothing can be said."""
    spread = float(np.std(_logit(draws), ddof=1))
    if parts < 2 or spread < 1e-9:
        return Estimate(value, 0.0, 1.0)
    reach = float(stdtrit(parts - 1, (1 + CONFIDENCE) / 2)) * spread * np.sqrt(parts / (parts - 1))
    low, high = expit(_logit(np.array(value)) + np.array((-reach, reach)))
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def _logit(share: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(inside / (1 - inside))


def _pixel_figures(found: Curve) -> tuple[float, float, float]:
    return found.pixel_auroc, found.aupro(0.3), found.aupro(0.01)


def _levels(images: Sequence[ScoredImage]) -> NDArray[np.float32]:
    """Distinct scores of defect pixels, falling."""
    _need_both(sum(len(image.defect) for image in images), sum(len(image.good) for image in images))
    rising: NDArray[np.float32] = np.unique(np.concatenate([image.defect for image in images]))
    return rising[::-1]


def _thinned(levels: NDArray[np.float32], images: Sequence[ScoredImage]) -> NDArray[np.float32]:
    """At most `LEVELS` of them: half evenly by rank, half evenly by the logarithm of the false-positive rate."""
    if len(levels) <= LEVELS:
        return levels
    by_rank = np.linspace(0, len(levels) - 1, LEVELS // 2).astype(np.intp)
    rates = _curve(_summed(images, levels)).false_positive[2:-1:2]
    by_rate = np.searchsorted(rates, np.geomspace(1e-6, 1.0, LEVELS // 2)).clip(max=len(levels) - 1)
    chosen: NDArray[np.float32] = levels[np.union1d(by_rank, by_rate)]
    return chosen


def _corners(image: ScoredImage, levels: NDArray[np.float32]) -> NDArray[np.float64]:
    """(3, 2 L + 2) what lies above nothing, just above and at each falling level in turn, and in all.

    Rows: number of good pixels, sum over regions of the share found, number of defect pixels.
    """

    def count(rising: NDArray[np.float32]) -> NDArray[np.float64]:
        below = np.stack([np.searchsorted(rising, levels, side=side) for side in ("right", "left")], axis=1)
        return np.concatenate(([0.0], len(rising) - below.ravel(), [len(rising)]))

    regions = [image.defect[image.region == index] for index in range(image.regions)]
    found = sum((count(scores) / len(scores) for scores in regions), np.zeros(2 * len(levels) + 2))
    return np.stack((count(image.good), found, count(image.defect)))


def _summed(images: Sequence[ScoredImage], levels: NDArray[np.float32]) -> NDArray[np.float64]:
    summed = _corners(images[0], levels)
    for image in images[1:]:
        summed += _corners(image, levels)
    return summed


def _curve(corners: NDArray[np.float64]) -> Curve:
    false_positive, overlap, true_positive = corners / corners[:, -1:]
    return Curve(false_positive, overlap, true_positive)


def _times_drawn(strata: Sequence[str], rng: np.random.Generator) -> NDArray[np.float64]:
    """(RESAMPLES, N): how often each part is drawn when each stratum is drawn again with replacement."""
    names = np.asarray(strata)
    times = np.zeros((RESAMPLES, len(names)))
    for name in np.unique(names):
        members = np.flatnonzero(names == name)
        times[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), RESAMPLES)
    return times


def _need_both(defects: int, goods: int) -> None:
    if not (defects and goods):
        lacking = "defect" if goods else "good"
        raise DepthcellError(f"metrics: no {lacking} one among those to judge; both kinds are needed")
