"""Named features of one place on a part, as a metrologist would state them, against a good part's."""

import math
from dataclasses import astuple, dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.models.network.partinput import CHANNELS, PartInput
from depthcell.models.views.canonical import CanonicalViews

WORST_SHARE = 0.1
"""Share of a place's pixels whose mean is its extreme, at least three."""

FEWEST_PIXELS = 3

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FindingFeatures:
    """One place.

    Attributes:
        depth_mm: signed deviation from the good part at its extreme, positive outside the material.
        sigma: mean deviation over its standard uncertainty, the noise of single pixels taken as independent over the
            matching window's width of three pixels.
        area_mm2: on the surface.
        slenderness: length over width.
        curvature_per_m: of the deviation at its extreme: twice the extreme over the square of the place's radius.
        color_distance: mean difference from the good part, CIE 1976 delta E.
        missing: share of it that shows no depth although a good part does.
        edge_mm: distance of its middle from the nearest edge of what the camera sees.
    """

    depth_mm: float
    sigma: float
    area_mm2: float
    slenderness: float
    curvature_per_m: float
    color_distance: float
    missing: float
    edge_mm: float

    def values(self) -> tuple[float, ...]:
        """In the order of `FEATURES`."""
        return astuple(self)


FEATURES = tuple(field.name for field in fields(FindingFeatures))

IN_WORDS = {
    "depth_mm": ("depth", "mm"),
    "sigma": ("significance", ""),
    "area_mm2": ("area", "mm²"),
    "slenderness": ("length over width", ""),
    "curvature_per_m": ("curvature", "1/m"),
    "color_distance": ("colour distance", "ΔE"),
    "missing": ("share without depth", ""),
    "edge_mm": ("distance from an edge", "mm"),
}
"""Feature -> its name and unit for people."""


def describe_place(
    part: PartInput, good_images: NDArray[np.float32], views: CanonicalViews, view: int, mask: Mask
) -> FindingFeatures | None:
    """Features of one place in one view; None where it covers fewer than three pixels of the part.

    Args:
        part: at hand.
        good_images: (V, C, S, S) of the good part it is compared with.
        views: what the pixels are.
        view: which view.
        mask: (S, S), the place.
    """
    mask = mask & views.expected[view]
    if mask.sum() < FEWEST_PIXELS:
        return None
    own = {name: part.images[view, number] for number, name in enumerate(CHANNELS)}
    good = {name: good_images[view, number] for number, name in enumerate(CHANNELS)}
    both = mask & (own["measured"] > 0.5) & (good["measured"] > 0.5)
    depth_mm, sigma = _deviation(own, good, both)
    area_mm2 = float(_pixel_mm2(views, view)[mask].sum())
    length_px, width_px = _axes_px(mask)
    radius_m = math.sqrt(area_mm2 / math.pi) / 1e3
    return FindingFeatures(
        depth_mm=depth_mm,
        sigma=sigma,
        area_mm2=area_mm2,
        slenderness=length_px / width_px,
        curvature_per_m=2.0 * depth_mm / 1e3 / radius_m**2,
        color_distance=_color_distance(own, good, mask),
        missing=float((mask & (own["measured"] < 0.5) & (good["measured"] > 0.5)).sum() / mask.sum()),
        edge_mm=_edge_mm(views, view, mask),
    )


def best_view(masks: NDArray[np.bool_], views: CanonicalViews) -> int:
    """The view that shows most of a place (V, S, S), each pixel by how squarely it is seen."""
    return int(np.argmax((masks * views.cosine).sum(axis=(1, 2))))


def _deviation(
    own: dict[str, NDArray[np.float32]], good: dict[str, NDArray[np.float32]], both: Mask
) -> tuple[float, float]:
    """Extreme deviation from the good part, mm, and the mean's significance; 0 where nothing was measured."""
    if both.sum() < FEWEST_PIXELS:
        return 0.0, 0.0
    difference = (own["deviation"] - good["deviation"])[both]
    count = max(FEWEST_PIXELS, round(WORST_SHARE * len(difference)))
    ends = np.sort(difference)
    low, high = float(ends[:count].mean()), float(ends[-count:].mean())
    # The good part that it is compared with has noise of its own.
    single_mm = float(np.sqrt(2.0) * np.median(own["sigma"][both]))
    independent = max(len(difference) / 9.0, 1.0)
    sigma = abs(float(difference.mean())) / max(single_mm / math.sqrt(independent), 1e-6)
    return (low if -low > high else high), sigma


def _color_distance(own: dict[str, NDArray[np.float32]], good: dict[str, NDArray[np.float32]], mask: Mask) -> float:
    both = mask & (own["colored"] > 0.5) & (good["colored"] > 0.5)
    if not both.any():
        return 0.0
    lab = [
        cv2.cvtColor(
            np.stack([np.clip(one[name][both], 0, 1) for name in ("red", "green", "blue")], axis=-1)[None],
            cv2.COLOR_RGB2LAB,
        )
        for one in (own, good)
    ]
    return float(np.linalg.norm(lab[0] - lab[1], axis=-1).mean())


def _pixel_mm2(views: CanonicalViews, view: int) -> NDArray[np.float64]:
    """(S, S) surface behind each pixel: `pixel_m` is the spacing at the middle cosine, flatter ones have more."""
    cosine = np.maximum(views.cosine[view].astype(np.float64), 0.1)
    middle = float(np.median(cosine[views.expected[view]]))
    return np.asarray((float(views.pixel_m[view]) * 1e3) ** 2 * middle / cosine, dtype=np.float64)


def _axes_px(mask: Mask) -> tuple[float, float]:
    """Length and width, four standard deviations each: those of the ellipse with the same second moments."""
    rows, columns = np.nonzero(mask)
    covariance = np.cov(np.stack((rows, columns)).astype(np.float64), bias=True) + np.eye(2) / 12.0
    small, large = np.linalg.eigvalsh(covariance)
    return 4.0 * math.sqrt(large), 4.0 * math.sqrt(small)


def _edge_mm(views: CanonicalViews, view: int, mask: Mask) -> float:
    distance_px = cv2.distanceTransform(np.pad(views.expected[view], 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    rows, columns = np.nonzero(mask)
    middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return float(distance_px[rows[middle], columns[middle]] * views.pixel_m[view] * 1e3)
