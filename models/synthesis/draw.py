"""Defects drawn onto a good scan: in 3D and in colour, the same in every view and in the points, with exact masks.

A defect of shape moves the surface along the reference's normal by a pattern over its tangent plane; a defect of colour
covers it with another albedo. Real noise, edges and gaps of the scan stay as they were measured.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.models.network.partinput import PartInput
from depthcell.models.synthesis.canvas import (
    COLORED,
    DEVIATION,
    INVERSE_DEPTH,
    MEASURED,
    NORMAL,
    POINT_DEVIATION,
    POINT_NORMAL,
    POINT_RGB,
    RGB,
    SIGMA,
    Canvas,
    Floats,
    sightlines,
)
from depthcell.models.synthesis.patterns import Pattern, blot, bowl, lines, pits, plateau, ridge
from depthcell.models.synthesis.settings import DrawSettings, draw_m
from depthcell.models.synthesis.sites import BoreMouth, Spot, bores, edge_spot, surface_spot
from depthcell.models.views.canonical import CanonicalViews

OUTWARDS = {DefectKind.BUMP, DefectKind.EXCESS_MATERIAL, DefectKind.BURR}
ALONG_FACE = 0.6
"""Cosine between a place's normal and the defect's from which on it is of the same face."""
OFF_FACE_M = 2.5e-3
TRIES = 8
AMBIENT = 0.35
"""Share of the light that falls from everywhere."""
GAMMA = 2.2
FINE_M = 2e-4
"""A colour camera resolves slopes over twice this length."""
DARK_HOLE = 0.15
POINT_WIDTH_M = 5e-4
TINTS: dict[DefectKind, tuple[float, float, float]] = {
    DefectKind.SCRATCH: (0.85, 0.85, 0.86),
    DefectKind.STAIN: (0.09, 0.07, 0.05),
    DefectKind.DISCOLOURATION: (0.42, 0.30, 0.12),
    DefectKind.RUST: (0.26, 0.09, 0.03),
}
"""Linear albedo: bare metal, oil, heat tint, iron oxide, about which each one is drawn."""
COVERS = {DefectKind.SCRATCH: 1.0, DefectKind.STAIN: 0.85, DefectKind.DISCOLOURATION: 0.55, DefectKind.RUST: 0.85}


@dataclass(frozen=True, slots=True, eq=False)
class _Stroke:
    """One defect: what and where, how deep (signed, metres, 0 for colour), how far it reaches, and its pattern."""

    kind: DefectKind
    spot: Spot
    depth_m: float
    reach_m: float
    pattern: Pattern


def draw_defects(
    part: PartInput,
    views: CanonicalViews,
    rng: np.random.Generator,
    settings: DrawSettings | None = None,
    kinds: Sequence[DefectKind] | None = None,
) -> PartInput:
    """Draw one to `settings.most` defects, of kinds drawn evenly or of those given, and label them.

    A kind for which the part has no place, such as a missing bore, gives way to another. At least one place is always
    labelled, unless the part was not measured at all.

    Raises:
        DepthcellError: the part is of other views.
    """
    settings = settings or DrawSettings()
    canvas = Canvas(part, views)
    if kinds is None:
        count = int(rng.integers(1, settings.most + 1))
        kinds = [settings.drawn[int(rng.integers(len(settings.drawn)))] for _ in range(count)]
    for kind in kinds:
        _draw(canvas, kind, rng, settings)
    for attempt in range(TRIES):
        if canvas.pixel_class.any() or canvas.point_class.any():
            break
        among = kinds if attempt < TRIES // 2 else settings.drawn
        _draw(canvas, among[int(rng.integers(len(among)))], rng, settings)
    return canvas.finished()


def _draw(canvas: Canvas, kind: DefectKind, rng: np.random.Generator, settings: DrawSettings) -> None:
    if kind is DefectKind.MISSING_BORE:
        mouths = bores(canvas.views)
        if mouths:
            _fill(canvas, mouths[int(rng.integers(len(mouths)))], rng)
            return
        kind = DefectKind.EXCESS_MATERIAL if DefectKind.EXCESS_MATERIAL in settings.drawn else settings.drawn[0]
        if kind is DefectKind.MISSING_BORE:
            return
    stroke = _stroke(canvas, kind, rng, settings)
    if stroke is None:
        return
    if kind in TINTS:
        _tint(canvas, stroke, rng, settings)
        if not stroke.depth_m:
            return
    if kind is DefectKind.MISSING_MATERIAL and rng.random() < settings.hole_share:
        _pierce(canvas, stroke, settings)
        return
    _displace(canvas, stroke, rng, settings)


def _stroke(canvas: Canvas, kind: DefectKind, rng: np.random.Generator, settings: DrawSettings) -> _Stroke | None:
    usable = canvas.usable(COLORED if kind in TINTS else MEASURED)
    spot = edge_spot(canvas.views, usable, rng) if kind is DefectKind.BURR else surface_spot(canvas.views, usable, rng)
    if spot is None:
        return None
    sizes = settings.sizes[kind]
    radius_m, depth_m = draw_m(sizes.radius_mm, rng), draw_m(sizes.depth_mm, rng)
    sign = 1.0 if kind in OUTWARDS else -1.0
    if kind is DefectKind.WARP:
        sign = 1.0 if rng.random() < 0.5 else -1.0
    makers: dict[DefectKind, Callable[[], Pattern]] = {
        DefectKind.DENT: lambda: bowl(radius_m, rng),
        DefectKind.BUMP: lambda: bowl(radius_m, rng),
        DefectKind.MISSING_MATERIAL: lambda: plateau(radius_m, rng, (0.1, 0.4)),
        DefectKind.EXCESS_MATERIAL: lambda: plateau(radius_m, rng, (0.1, 0.4)),
        DefectKind.BURR: lambda: ridge(radius_m, rng),
        DefectKind.POROSITY: lambda: pits(radius_m, rng),
        DefectKind.WARP: lambda: bend(radius_m),
        DefectKind.SCRATCH: lambda: lines(radius_m, rng),
        DefectKind.STAIN: lambda: blot(radius_m, rng, (0.1, 0.4), 0.3, 0.3),
        DefectKind.DISCOLOURATION: lambda: blot(radius_m, rng, (0.5, 1.0), 0.2, 0.2),
        DefectKind.RUST: lambda: blot(radius_m, rng, (0.2, 0.5), 0.5, 1.0),
    }
    reach_m = math.inf if kind is DefectKind.WARP else radius_m
    return _Stroke(kind, spot, sign * depth_m, reach_m, makers[kind]())


def bend(length_m: float) -> Pattern:
    """A part bent beyond a line: nothing on one side of it, rising smoothly to all of it at `length_m`."""

    def weight(u_m: Floats, v_m: Floats, _: Floats) -> Floats:  # noqa: ARG001 - as every pattern
        share = np.clip(u_m / np.float32(length_m), 0, 1)
        return np.asarray(share * share, np.float32)

    return weight


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """Places in the tangent plane of a defect: (n,) u, v and widths of pixels, metres; `on` its own face."""

    u: Floats
    v: Floats
    width: Floats
    on: NDArray[np.bool_]


def _plane(stroke: _Stroke, places: Floats, normals: Floats, width_m: Floats) -> _Plane:
    offset = (places - stroke.spot.centre_m).astype(np.float32)
    u, v, height = (offset @ axis for axis in (stroke.spot.tangent, stroke.spot.bitangent, stroke.spot.normal))
    on = (normals @ stroke.spot.normal > ALONG_FACE) & (np.abs(height) < OFF_FACE_M)
    if stroke.kind is DefectKind.WARP:
        on = np.ones(len(places), np.bool_)
    return _Plane(u, v, width_m, on)


def _lift(stroke: _Stroke, plane: _Plane, resolution_m: float) -> tuple[Floats, Floats, Floats]:
    """(n,) lift as a camera resolves it, and its slopes along u and v: a mean over five places half a window apart."""
    h = np.float32(resolution_m / 2)
    at = [
        stroke.pattern(plane.u + du, plane.v + dv, plane.width) for du, dv in ((0, 0), (h, 0), (-h, 0), (0, h), (0, -h))
    ]
    depth = np.where(plane.on, np.float32(stroke.depth_m), np.float32(0))
    mean = 0.4 * at[0] + 0.15 * (at[1] + at[2] + at[3] + at[4])
    along, across = (at[1] - at[2]) / (2 * h), (at[3] - at[4]) / (2 * h)
    return (
        (depth * mean).astype(np.float32),
        (depth * along).astype(np.float32),
        (depth * across).astype(np.float32),
    )


def _displace(canvas: Canvas, stroke: _Stroke, rng: np.random.Generator, settings: DrawSettings) -> None:
    reach_m = 1.1 * stroke.reach_m + settings.resolution_m
    pixels, points = canvas.near(stroke.spot.centre_m, reach_m)
    view = pixels // canvas.images.shape[2]
    normals = canvas.normals[pixels]
    plane = _plane(stroke, canvas.places[pixels], normals, canvas.views.pixel_m[view])
    lift, *slopes = _lift(stroke, plane, settings.resolution_m)
    limit_m = max(settings.visible_share * abs(stroke.depth_m), settings.visible_mm / 1e3)
    moved = lift != 0
    measured = _measured_normals(canvas, pixels)
    tilted = _tilted(measured, stroke.spot, slopes)
    _, *fine = _lift(stroke, plane, FINE_M)
    _shade(canvas, pixels[moved], measured[moved], _tilted(measured, stroke.spot, fine)[moved], rng)
    least_cosine = math.cos(settings.max_incidence_rad)
    canvas.move_pixels(pixels[moved], lift[moved], tilted[moved], least_cosine, settings.edge_reach_m)

    along = canvas.features[points, POINT_NORMAL]
    widths = np.full(len(points), POINT_WIDTH_M, np.float32)
    point_lift, *slopes = _lift(stroke, _plane(stroke, canvas.points[points], along, widths), settings.resolution_m)
    wrong_points, lifted = points[np.abs(point_lift) > limit_m], point_lift != 0
    leaning = _tilted(along, stroke.spot, slopes)
    canvas.move_points(points[lifted], point_lift[lifted], along[lifted], leaning[lifted])
    canvas.label(pixels[np.abs(lift) > limit_m], wrong_points, stroke.kind)


def _measured_normals(canvas: Canvas, pixels: NDArray[np.intp]) -> Floats:
    """As measured; the reference's where nothing was."""
    view, place = np.divmod(pixels, canvas.images.shape[2])
    measured = np.stack([canvas.images[view, channel, place] for channel in range(NORMAL.start, NORMAL.stop)], axis=1)
    return np.where(measured.any(axis=1, keepdims=True), measured, canvas.normals[pixels]).astype(np.float32)


def _tilted(normals: Floats, spot: Spot, slopes: Sequence[Floats]) -> Floats:
    leaning = normals - slopes[0][:, None] * spot.tangent - slopes[1][:, None] * spot.bitangent
    return np.asarray(leaning / np.maximum(np.linalg.norm(leaning, axis=1, keepdims=True), 1e-9), np.float32)


def _shade(canvas: Canvas, pixels: NDArray[np.intp], before: Floats, after: Floats, rng: np.random.Generator) -> None:
    """Light from somewhere about the cameras falls on a tilted surface at another angle (Lambert).

    Of an even sky, a surface tilted by b from its face sees a share of (1 + cos b) / 2: one half from its own side of
    the zenith, and the other half's projection.
    """
    if not len(pixels):
        return
    eyes = sightlines(canvas.views).centres
    towards = eyes.mean(axis=0) - canvas.places[pixels].mean(axis=0)
    light = (towards / np.linalg.norm(towards) + rng.normal(0, 0.3, 3)).astype(np.float32)
    light /= np.linalg.norm(light)
    open_sky = (1 + np.einsum("ij,ij->i", before, after)) / 2
    was = AMBIENT + (1 - AMBIENT) * np.clip(before @ light, 0.05, None)
    now = AMBIENT * open_sky + (1 - AMBIENT) * np.clip(after @ light, 0, None)
    view, place = np.divmod(pixels, canvas.images.shape[2])
    factor = (now / was) ** (1 / GAMMA)
    for channel in range(RGB.start, RGB.stop):
        canvas.images[view, channel, place] *= factor


def _pierce(canvas: Canvas, stroke: _Stroke, settings: DrawSettings) -> None:
    """Material is missing right through: no depth, and dark; the points that lay there lie at the rim instead."""
    pixels, points = canvas.near(stroke.spot.centre_m, 1.1 * stroke.reach_m)
    view, place = np.divmod(pixels, canvas.images.shape[2])
    plane = _plane(stroke, canvas.places[pixels], canvas.normals[pixels], canvas.views.pixel_m[view])
    gone = plane.on & (stroke.pattern(plane.u, plane.v, plane.width) > 0.5)
    canvas.lose_pixels(pixels[gone], settings.edge_reach_m)
    for channel in range(RGB.start, RGB.stop):
        canvas.images[view[gone], channel, place[gone]] *= DARK_HOLE
    widths = np.full(len(points), POINT_WIDTH_M, np.float32)
    plane = _plane(stroke, canvas.points[points], canvas.features[points, POINT_NORMAL], widths)
    lost = plane.on & (stroke.pattern(plane.u, plane.v, plane.width) > 0.5)
    kept = np.setdiff1d(np.arange(len(canvas.points)), points[lost])
    rim = kept[
        np.argsort(np.linalg.norm(canvas.points[kept] - stroke.spot.centre_m, axis=1))[: max(1, int(lost.sum()))]
    ]
    if not len(kept):
        lost[:] = False
    for array in (canvas.points, canvas.features, canvas.pixel, canvas.point_class):
        array[points[lost]] = array[np.resize(rim, int(lost.sum()))]
    canvas.label(pixels[gone], np.zeros(0, np.intp), stroke.kind)


def _tint(canvas: Canvas, stroke: _Stroke, rng: np.random.Generator, settings: DrawSettings) -> None:
    """Cover the surface with another albedo, in linear light, under the light that falls there."""
    pixels, points = canvas.near(stroke.spot.centre_m, 1.1 * stroke.reach_m)
    view, place = np.divmod(pixels, canvas.images.shape[2])
    plane = _plane(stroke, canvas.places[pixels], canvas.normals[pixels], canvas.views.pixel_m[view])
    covered = np.where(plane.on, COVERS[stroke.kind] * stroke.pattern(plane.u, plane.v, plane.width), 0)
    own_albedo = rng.uniform(0.3, 0.6)
    tint = np.array(TINTS[stroke.kind], np.float32) * rng.uniform(0.75, 1.25, 3).astype(np.float32)
    rgb = np.stack([canvas.images[view, channel, place] for channel in range(RGB.start, RGB.stop)], axis=1)
    rgb = _covered(rgb, covered, tint / own_albedo)
    for number, channel in enumerate(range(RGB.start, RGB.stop)):
        canvas.images[view, channel, place] = rgb[:, number] * (canvas.images[view, COLORED, place] > 0)

    widths = np.full(len(points), POINT_WIDTH_M, np.float32)
    plane = _plane(stroke, canvas.points[points], canvas.features[points, POINT_NORMAL], widths)
    on_points = np.where(plane.on, COVERS[stroke.kind] * stroke.pattern(plane.u, plane.v, plane.width), 0)
    canvas.features[points, POINT_RGB] = _covered(canvas.features[points, POINT_RGB], on_points, tint / own_albedo)
    limit = settings.visible_coverage * COVERS[stroke.kind]
    canvas.label(pixels[covered > limit], points[on_points > limit], stroke.kind)


def _covered(rgb: Floats, covered: NDArray[np.floating], relative: Floats) -> Floats:
    """8-bit shares (n, 3) where a cover of `relative` albedo lies over a share of the surface."""
    linear = rgb**GAMMA
    light = linear.mean(axis=1, keepdims=True)
    mixed = linear + covered[:, None] * (relative * light - linear)
    return np.asarray(np.clip(mixed, 0, 1) ** (1 / GAMMA), np.float32)


def _fill(canvas: Canvas, mouth: BoreMouth, rng: np.random.Generator) -> None:
    """A bore that was never drilled: the face goes on over its mouth."""
    spot, radius_m = mouth.spot, mouth.radius_m
    lines_of_sight = sightlines(canvas.views)
    face = _face(canvas, mouth)
    filled = []
    for view in range(len(canvas.views.serials)):
        rays, centre = lines_of_sight.rays[view], lines_of_sight.centres[view]
        away = rays @ spot.normal
        distance = np.where(away < -0.26, ((spot.centre_m - centre) @ spot.normal) / np.minimum(away, -0.26), np.nan)
        there = centre + distance[:, None] * rays - spot.centre_m
        reached = np.linalg.norm(canvas.places.reshape(-1, *rays.shape)[view] - centre, axis=1)
        with np.errstate(invalid="ignore"):
            within = (np.linalg.norm(there, axis=1) < radius_m) & ~(reached < distance - 1e-3)
        place = np.flatnonzero(within)
        if not len(place) or face is None or not canvas.images[view, MEASURED].any():
            continue
        rgb, sigma = face
        z_m = distance[place] * (rays[place] @ lines_of_sight.axes[view])
        z_m = z_m + rng.normal(0, 1, len(place)) * sigma / 1e3 / 2
        image = canvas.images[view]
        image[INVERSE_DEPTH, place] = canvas.views.z_nominal_m[view] / z_m - 1
        for number, channel in enumerate(range(NORMAL.start, NORMAL.stop)):
            image[channel, place] = spot.normal[number]
        image[DEVIATION, place] = (radius_m - np.linalg.norm(there[place], axis=1)) * 1e3
        image[SIGMA, place] = sigma
        image[MEASURED, place] = 1
        if image[COLORED].any():
            image[COLORED, place] = 1
            image[RGB, place] = rgb[:, None] * rng.normal(1, 0.02, (3, len(place))).astype(np.float32)
        filled.append(view * canvas.images.shape[2] + place)
    offset = canvas.points - spot.centre_m
    height = offset @ spot.normal
    across = np.linalg.norm(offset - height[:, None] * spot.normal, axis=1)
    points = np.flatnonzero((across < 1.02 * radius_m) & (height < -3e-4) & (height > -0.03))
    canvas.points[points] -= height[points, None] * spot.normal
    canvas.features[points, POINT_NORMAL] = spot.normal
    canvas.features[points, POINT_DEVIATION] = np.maximum(radius_m - across[points], 0) * 1e3
    if filled:
        canvas.label(np.concatenate(filled), points, DefectKind.MISSING_BORE)


def _face(canvas: Canvas, mouth: BoreMouth) -> tuple[Floats, float] | None:
    """Median colour (3,) and sigma (mm) of the face about a bore; None where it was not seen."""
    pixels, _ = canvas.near(mouth.spot.centre_m, 1.6 * mouth.radius_m)
    view, place = np.divmod(pixels, canvas.images.shape[2])
    seen = (canvas.images[view, MEASURED, place] > 0) & (canvas.normals[pixels] @ mouth.spot.normal > 0.95)
    if not seen.any():
        return None
    view, place = view[seen], place[seen]
    rgb = np.array(
        [np.median(canvas.images[view, channel, place]) for channel in range(RGB.start, RGB.stop)], np.float32
    )
    return rgb, float(np.median(canvas.images[view, SIGMA, place]))
