"""Good and defective scans altered as other parts, other light and other faults of the cell would alter them.

Turns and shifts of the image are not among them: a canonical pixel means one place of the part, however it lies.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.models.network.partinput import DEVIATION_LIMIT_MM, POINT_FEATURES, PartInput
from depthcell.models.synthesis.canvas import (
    COLORED,
    DEVIATION,
    GEOMETRY,
    MEASURED,
    NORMAL,
    POINT_DEVIATION,
    POINT_NORMAL,
    POINT_RGB,
    POINT_SIGMA,
    RGB,
    SIGMA,
)

POINT_COLORED = POINT_FEATURES.index("colored")
NOISE_PX = 1.5
"""Width over which added noise is alike, as a matching window makes it."""


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How far, and how often.

    Attributes:
        gain, channel_gain, contrast: relative standard deviations of the light's strength, its colour, its contrast.
        noise: largest added noise over the measured standard uncertainty.
        turn_rad, shift_m: standard deviations of what alignment leaves.
        scale: relative standard deviation of the part's size; acts on the deviation alone.
        drop_camera, drop_color, drop_depth: how often one camera, all colour, all depth are lost.
        drop_points: largest share of points that are lost.
    """

    gain: float = 0.06
    channel_gain: float = 0.02
    contrast: float = 0.05
    noise: float = 0.5
    turn_rad: float = 3e-4
    shift_m: float = 2e-5
    scale: float = 3e-4
    drop_camera: float = 0.05
    drop_color: float = 0.04
    drop_depth: float = 0.03
    drop_points: float = 0.2

    def __post_init__(self) -> None:
        for name in ("drop_camera", "drop_color", "drop_depth", "drop_points"):
            if not 0 <= getattr(self, name) <= 1:
                raise DepthcellError(f"augment: {name} must lie between 0 and 1, got {getattr(self, name)}")


def augment(part: PartInput, rng: np.random.Generator, settings: AugmentSettings | None = None) -> PartInput:
    """Alter a part; its labels stay as they are."""
    settings = settings or AugmentSettings()
    images, features, points = part.images.copy(), part.features.copy(), part.points_part.copy()
    _relight(images, features, rng, settings)
    _unsettle(images, features, points, rng, settings)
    _lose(images, features, rng, settings)
    gone = np.flatnonzero(rng.random(len(points)) < settings.drop_points * rng.random())
    labels = part.labels
    if len(gone) and len(gone) < len(points):
        kept = np.setdiff1d(np.arange(len(points)), gone)
        instead = kept[rng.integers(len(kept), size=len(gone))]
        order = np.arange(len(points))
        order[gone] = instead
        points, features = points[order], features[order]
        pixel, neighbours = part.pixel[order], part.neighbours[order]
        if labels is not None:
            labels = replace(labels, points=labels.points[order])
        return replace(
            part,
            images=images,
            points_part=points,
            features=features,
            pixel=pixel,
            neighbours=neighbours,
            labels=labels,
        )
    return replace(part, images=images, points_part=points, features=features)


def _relight(
    images: NDArray[np.float32], features: NDArray[np.float32], rng: np.random.Generator, settings: AugmentSettings
) -> None:
    shared = rng.normal(1, settings.gain) * rng.normal(1, settings.channel_gain, 3)
    colored = images[:, COLORED] > 0
    for view in range(len(images)):
        gain = shared * rng.normal(1, settings.gain / 3)
        middle = float(images[view, RGB][:, colored[view]].mean()) if colored[view].any() else 0.0
        contrast = rng.normal(1, settings.contrast)
        lit = ((images[view, RGB] - middle) * contrast + middle) * gain[:, None, None]
        images[view, RGB] = np.clip(lit, 0, 1) * colored[view]
    features[:, POINT_RGB] = np.clip(features[:, POINT_RGB] * shared, 0, 1) * features[:, [POINT_COLORED]]


def _unsettle(
    images: NDArray[np.float32],
    features: NDArray[np.float32],
    points: NDArray[np.float32],
    rng: np.random.Generator,
    settings: AugmentSettings,
) -> None:
    """Noise by the cell's own sigma, and what alignment and size leave: both act along the normal."""
    share, measured = rng.uniform(0, settings.noise), images[:, MEASURED] > 0
    for view in range(len(images)):
        grain = cv2.GaussianBlur(rng.standard_normal(images.shape[2:], dtype=np.float32), (0, 0), NOISE_PX)
        added = share * images[view, SIGMA] * grain / max(float(grain.std()), 1e-9)
        images[view, DEVIATION] += added * measured[view]
    lift_m = share * rng.standard_normal(len(points)).astype(np.float32) * features[:, POINT_SIGMA] / 1e3
    turn, shift = rng.normal(0, settings.turn_rad, 3), rng.normal(0, settings.shift_m, 3)
    grown = rng.normal(0, settings.scale)
    normals = features[:, POINT_NORMAL]
    middle = points.mean(axis=0) if len(points) else np.zeros(3, np.float32)
    moved = np.cross(turn, points - middle) + shift + grown * (points - middle)
    lift_m = lift_m + np.einsum("ij,ij->i", normals, moved).astype(np.float32)
    points += lift_m[:, None] * normals
    features[:, POINT_DEVIATION] = np.clip(
        features[:, POINT_DEVIATION] + lift_m * 1e3, -DEVIATION_LIMIT_MM, DEVIATION_LIMIT_MM
    )
    # On the images the part's places are not at hand; the shift and its normals are, which is most of it.
    along = np.einsum("vkij,k->vij", images[:, NORMAL], shift.astype(np.float32)) * 1e3
    images[:, DEVIATION] = np.clip(images[:, DEVIATION] + along * measured, -DEVIATION_LIMIT_MM, DEVIATION_LIMIT_MM)


def _lose(
    images: NDArray[np.float32], features: NDArray[np.float32], rng: np.random.Generator, settings: AugmentSettings
) -> None:
    camera, color, depth = rng.random(3) < (settings.drop_camera, settings.drop_color, settings.drop_depth)
    if camera and len(images) > 1:
        images[int(rng.integers(len(images)))] = 0
    if color:
        images[:, RGB] = 0
        images[:, COLORED] = 0
        features[:, POINT_RGB] = 0
        features[:, POINT_COLORED] = 0
    elif depth:
        images[:, GEOMETRY] = 0
