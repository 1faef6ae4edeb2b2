"""Good and defective scans altered as other parts, other light and other faults of the cell would alter them.

Turns and shifts of the image are not among them: a canonical pixel means one place of the part, however it lies.
"""

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.errors import DepthcellError
from depthcell.models.network.partinput import CLASSES, DEVIATION_LIMIT_MM, POINT_FEATURES, Labels, PartInput
from depthcell.models.synthesis.canvas import (
    COLORED,
    DEVIATION,
    GEOMETRY,
    INVERSE_DEPTH,
    MEASURED,
    NORMAL,
    POINT_DEVIATION,
    POINT_NORMAL,
    POINT_RGB,
    POINT_SIGMA,
    RGB,
    SIGMA,
    Floats,
    sightlines,
)
from depthcell.models.views.canonical import CanonicalViews
from depthcell.models.views.imaging import nearest

POINT_COLORED = POINT_FEATURES.index("colored")
COLOUR_ALONE = [CLASSES.index(kind) for kind in (DefectKind.STAIN, DefectKind.DISCOLOURATION, DefectKind.RUST)]
"""Classes that nobody sees without colour."""

NOISE_PX = 1.5
"""Width over which added noise is alike, as a matching window makes it."""

STEEPEST = 0.05
"""Least cosine of incidence by which a lift is carried along a ray."""


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How far, and how often.

    Attributes:
        gain, channel_gain, contrast: relative standard deviations of the light's strength, its colour, its contrast.
        noise: largest added noise over the measured standard uncertainty.
        normal_noise: largest added noise of each component of a normal, standard deviation.
        turn_rad, shift_m: standard deviations of what alignment leaves.
        scale: relative standard deviation of the part's size.
        form: relative standard deviation by which all deviation is stretched or shrunk, up to `form_mm`, so that a form
            that all good parts share is not learned to its last micrometre.
        form_mm: deviations beyond are a defect's and stay.
        drop_camera, drop_color, drop_depth: how often one camera, all colour, all depth are lost.
        drop_points: largest share of points that are lost.
    """

    gain: float = 0.06
    channel_gain: float = 0.02
    contrast: float = 0.05
    noise: float = 0.5
    normal_noise: float = 0.02
    turn_rad: float = 3e-4
    shift_m: float = 2e-5
    scale: float = 3e-4
    form: float = 0.05
    form_mm: float = 0.1
    drop_camera: float = 0.05
    drop_color: float = 0.04
    drop_depth: float = 0.03
    drop_points: float = 0.2

    def __post_init__(self) -> None:
        for name in (setting.name for setting in fields(self)):
            if not getattr(self, name) >= 0 or (name.startswith("drop_") and getattr(self, name) > 1):
                limit = "between 0 and 1" if name.startswith("drop_") else "0 or more"
                raise DepthcellError(f"augment: {name} must be {limit}, got {getattr(self, name)}")


def augment(
    part: PartInput,
    rng: np.random.Generator,
    settings: AugmentSettings | None = None,
    views: CanonicalViews | None = None,
) -> PartInput:
    """Alter a part. Its labels stay, less those of what is lost: dropped points, and blemishes where no colour is left.

    Lost points leave the part, so it may have fewer; with all depth lost it has none.

    Args:
        part: is left as it is.
        rng: what is drawn.
        settings: how far.
        views: of the part. Without them nobody knows where its pixels lie, and it is neither turned, shifted nor grown.

    Raises:
        DepthcellError: the part is of other views.
    """
    settings = settings or AugmentSettings()
    if views is not None and (part.serials != views.serials or part.images.shape[-1] != views.side_px):
        raise DepthcellError(f"part {part.part_id}: is of other views than those given; alter it by its own")
    part = replace(part, images=part.images.copy(), features=part.features.copy(), points_part=part.points_part.copy())
    _relight(part, rng, settings)
    _roughen(part, rng, settings)
    if views is not None:
        _unsettle(part, views, rng, settings)
    part = _lose(part, rng, settings)
    for values, column in ((part.images, DEVIATION), (part.features, POINT_DEVIATION)):
        np.clip(values[:, column], -DEVIATION_LIMIT_MM, DEVIATION_LIMIT_MM, out=values[:, column])
    return part


def _relight(part: PartInput, rng: np.random.Generator, settings: AugmentSettings) -> None:
    images, features = part.images, part.features
    shared = rng.normal(1, settings.gain) * rng.normal(1, settings.channel_gain, 3)
    colored = images[:, COLORED] > 0
    for view in range(len(images)):
        gain = shared * rng.normal(1, settings.gain / 3)
        middle = float(images[view, RGB][:, colored[view]].mean()) if colored[view].any() else 0.0
        contrast = rng.normal(1, settings.contrast)
        lit = ((images[view, RGB] - middle) * contrast + middle) * gain[:, None, None]
        images[view, RGB] = np.clip(lit, 0, 1) * colored[view]
    features[:, POINT_RGB] = np.clip(features[:, POINT_RGB] * shared, 0, 1) * features[:, [POINT_COLORED]]


def _roughen(part: PartInput, rng: np.random.Generator, settings: AugmentSettings) -> None:
    """Noise by the cell's own sigma, along the normal, and on the normals; form a little stronger or weaker."""
    images, features = part.images, part.features
    share, lean = rng.uniform(0, settings.noise), rng.uniform(0, settings.normal_noise)
    form = rng.normal(0, settings.form)
    measured = images[:, MEASURED] > 0
    for view, image in enumerate(images):
        grain = cv2.GaussianBlur(rng.standard_normal(image.shape[1:], dtype=np.float32), (0, 0), NOISE_PX)
        grain /= np.float32(grain.std())
        added = share * image[SIGMA] * grain + _form_mm(image[DEVIATION], form, settings)
        image[DEVIATION] += added * measured[view]
        # The same grain from elsewhere in the image: nothing in common with that here.
        leaning = np.stack([np.roll(grain, quarter * len(grain) // 4, axis=0) for quarter in (1, 2, 3)])
        tilted = (image[NORMAL] + lean * leaning) * measured[view]
        image[NORMAL] = tilted / np.sqrt(np.maximum((tilted * tilted).sum(axis=0), 1e-12))
    noise_mm = share * rng.standard_normal(len(features), dtype=np.float32) * features[:, POINT_SIGMA]
    _lift_points(part, (noise_mm + _form_mm(features[:, POINT_DEVIATION], form, settings)) / 1e3)
    tilted = features[:, POINT_NORMAL] + lean * rng.standard_normal((len(features), 3), dtype=np.float32)
    features[:, POINT_NORMAL] = tilted / np.maximum(np.linalg.norm(tilted, axis=1, keepdims=True), 1e-6)


def _form_mm(deviation_mm: Floats, form: float, settings: AugmentSettings) -> Floats:
    limit = np.float32(settings.form_mm)
    return np.asarray(np.float32(form) * np.clip(deviation_mm, -limit, limit), np.float32)


def _lift_points(part: PartInput, lift_m: Floats) -> None:
    np.add(part.points_part, lift_m[:, None] * part.features[:, POINT_NORMAL], out=part.points_part)
    part.features[:, POINT_DEVIATION] += lift_m * 1e3


def _unsettle(part: PartInput, views: CanonicalViews, rng: np.random.Generator, settings: AugmentSettings) -> None:
    """What alignment and size leave: places move by `w x p + t + g p`, deviation by its share along the normal.

    A turn this small leaves the normals as they are.
    """
    motion = np.concatenate(
        (rng.normal(0, settings.turn_rad, 3), rng.normal(0, settings.shift_m, 3), [rng.normal(0, settings.scale)])
    ).astype(np.float32)
    lever = levers(views)
    lift_m = (lever.lift @ motion).reshape(part.images[:, DEVIATION].shape) * (part.images[:, MEASURED] > 0)
    part.images[:, DEVIATION] += lift_m * 1e3
    z_nominal_m = views.z_nominal_m[:, None, None]
    z_m = z_nominal_m / (1 + part.images[:, INVERSE_DEPTH]) + lift_m * lever.away.reshape(lift_m.shape)
    np.copyto(part.images[:, INVERSE_DEPTH], z_nominal_m / z_m - 1, where=lift_m != 0)
    _lift_points(part, _lever(part.points_part - lever.middle_m, part.features[:, POINT_NORMAL]) @ motion)


@dataclass(frozen=True, slots=True, eq=False)
class Levers:
    """What a small motion (turn, shift, growth; 7 numbers) does to every pixel's place, P = V·S·S.

    Attributes:
        lift: (P, 7) along the normal, metres; 0 off the part.
        away: (P,) depth gained for each metre of lift, as seen along the pixel's ray.
        middle_m: (3,) about which it turns and grows.
    """

    lift: Floats
    away: Floats
    middle_m: Floats


@lru_cache(maxsize=4)
def levers(views: CanonicalViews) -> Levers:
    """Of canonical views."""
    places, normals = views.points_part.reshape(-1, 3), np.nan_to_num(views.normals_part.reshape(-1, 3))
    middle = np.nanmean(places, axis=0).astype(np.float32)
    lines = sightlines(views)
    rays = lines.rays.reshape(-1, 3)
    facing = np.minimum(np.einsum("ij,ij->i", normals, rays), -STEEPEST)
    ahead = np.einsum("vij,vj->vi", lines.rays, lines.axes).ravel()
    return Levers(_lever(np.nan_to_num(places - middle), normals), (ahead / facing).astype(np.float32), middle)


def _lever(offset_m: Floats, normals: Floats) -> Floats:
    """(n, 7) lift of places for each unit of turn, shift and growth: `n . (w x p) = w . (p x n)`."""
    along = np.einsum("ij,ij->i", offset_m, normals)
    return np.concatenate((np.cross(offset_m, normals), normals, along[:, None]), axis=1).astype(np.float32)


def _lose(part: PartInput, rng: np.random.Generator, settings: AugmentSettings) -> PartInput:
    camera, color, depth = rng.random(3) < (settings.drop_camera, settings.drop_color, settings.drop_depth)
    gone = rng.random(len(part.points_part)) < settings.drop_points * rng.random()
    if camera and len(part.serials) > 1:
        part, unseen = _without_camera(part, int(rng.integers(len(part.serials))))
        gone |= unseen
    if color and not depth:
        part = _without_color(part)
    if depth:
        part.images[:, GEOMETRY] = 0
        gone[:] = True
    return _without_points(part, gone) if gone.any() else part


def _without_camera(part: PartInput, view: int) -> tuple[PartInput, NDArray[np.bool_]]:
    """One view of zeros, and which points (N,) that camera alone had seen."""
    part.images[view] = 0
    pixel = part.pixel.copy()
    pixel[:, view] = -1
    alone = (part.pixel[:, view] >= 0) & (pixel < 0).all(axis=1)
    return replace(part, pixel=pixel), alone


def _without_color(part: PartInput) -> PartInput:
    part.images[:, RGB], part.images[:, COLORED] = 0, 0
    part.features[:, POINT_RGB], part.features[:, POINT_COLORED] = 0, 0
    if part.labels is None:
        return part
    pixels, points = (
        np.where(np.isin(classes, COLOUR_ALONE), 0, classes).astype(np.uint8)
        for classes in (part.labels.pixels, part.labels.points)
    )
    return replace(part, labels=Labels(pixels, points))


def _without_points(part: PartInput, gone: NDArray[np.bool_]) -> PartInput:
    kept = np.flatnonzero(~gone)
    kept = kept if len(kept) > 1 else kept[:0]
    points = part.points_part[kept]
    return replace(
        part,
        points_part=points,
        features=part.features[kept],
        pixel=part.pixel[kept],
        neighbours=nearest(points) if len(kept) else part.neighbours[kept],
        labels=None if part.labels is None else replace(part.labels, points=part.labels.points[kept]),
    )
