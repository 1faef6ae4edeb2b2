"""A measured part as the data of the turnable view: small integers, and each gauge's element as line pieces.

Coordinates are millimetres in the frame "part". Points are 16-bit steps of the part's box, which is a few micrometres;
pictures serve the eye, numbers stand beside them in full.
"""

import base64
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, across
from depthcell.inspect.gauges.gauged import GaugeResult
from depthcell.inspect.gauges.reading import Drawn
from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts
from depthcell.inspect.measurement_colors import UNMEASURED_RGB, palette
from depthcell.inspect.measurement_map import surface_colors

MOST_POINTS, MOST_GAUGE_POINTS, MOST_TRIANGLES, SURFACE_PLACES = 60_000, 1_500, 60_000, 40_000
"""More points are thinned out evenly; a finer nominal surface is left out; so many places of it are coloured."""
STEPS = 65_535
UNKNOWN = -32_768
CIRCLE_PIECES = 72
LIGHT, AMBIENT = np.array([0.40, -0.53, 0.75]), 0.72
"""Direction that the surface is lit from, frame "part", and how bright it is where no light comes from."""


def scene_json(part: MeasuredPart, facts: MeasurementFacts) -> str:
    """The scene's data as JSON that may stand within a script element.

    `points`, `mesh.vertices` and each gauge's `points` are base64 of little-endian uint16 (N, 3), steps of the box
    `low` to `high`; `deviation` is int16 micrometres, -32768 for none; `sigma` is uint16 tenths of a micrometre, 65535
    for none.
    `surface` holds places spread evenly over the nominal surface with the mean of what was measured around each.
    """
    low, high = _box(part)
    content = {
        "part": part.part_id,
        "verdict": part.decision.value,
        "tolerance": facts.tolerance_mm,
        "low": low.tolist(),
        "high": high.tolist(),
        "cloud": _cloud(part, low, high),
        "surface": _surface(part, low, high),
        "mesh": _mesh(part, low, high),
        "gauges": [_gauge(part, result, low, high) for result in part.results],
        "palette": _base64(palette()),
        "unmeasured": list(UNMEASURED_RGB),
    }
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def element_lines(element: Element, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S, 2, 3) line pieces that show an element where its points (K, 3) lie; same unit as both."""
    if isinstance(element, Plane):
        u, v = across(element.normal)
        return _frame(element.point, u, v, points)
    if isinstance(element, Line):
        ends = _along(element.point, element.direction, points)
        return ends[None]
    if isinstance(element, Circle):
        return _ring(element.centre, element.axis, element.radius_m)
    if isinstance(element, Cylinder):
        return _tube(element, points)
    rings = [_ring(element.centre, axis, element.radius_m) for axis in np.eye(3)]
    return np.concatenate(rings)


def _box(part: MeasuredPart) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if part.scan is None or not len(part.scan.points_part):
        return np.zeros(3), np.ones(3)
    corners = [part.scan.points_part.min(axis=0), part.scan.points_part.max(axis=0)]
    if part.scan.reference is not None:
        corners += part.scan.reference.bounds_part
    low, high = 1e3 * np.min(corners, axis=0), 1e3 * np.max(corners, axis=0)
    return low, np.maximum(high, low + 1e-3)


def _cloud(part: MeasuredPart, low: NDArray[np.float64], high: NDArray[np.float64]) -> dict[str, Any] | None:
    if part.scan is None:
        return None
    kept = _evenly(len(part.scan.points_part), MOST_POINTS)
    known = np.full(len(part.scan.points_part), np.nan) if part.deviation_m is None else part.deviation_m
    return {
        "points": _quantised(1e3 * part.scan.points_part[kept], low, high),
        "deviation": _micrometres(known[kept]),
        "sigma": _tenths(_sigma_m(part)[kept]),
        "thinned": len(part.scan.points_part) - len(kept),
    }


def _surface(part: MeasuredPart, low: NDArray[np.float64], high: NDArray[np.float64]) -> dict[str, Any] | None:
    if part.scan is None or part.scan.reference is None or not len(part.seen):
        return None
    reference, colors = surface_colors(part)
    area_m2 = float(reference.surface_samples(float("inf")).area_m2.sum())
    spacing_m = math.sqrt(area_m2 / SURFACE_PLACES)
    samples = reference.surface_samples(spacing_m)
    normals = samples.normals_part.astype(np.float64)
    sigma = replace(colors, deviation_m=_sigma_m(part)[part.seen])
    return {
        "points": _quantised(1e3 * samples.points_part, low, high),
        "deviation": _micrometres(colors.at(samples.points_part, normals)),
        "sigma": _tenths(sigma.at(samples.points_part, normals)),
        "shade": _base64(np.rint(255 * (AMBIENT + (1 - AMBIENT) * np.clip(normals @ LIGHT, 0, 1))).astype(np.uint8)),
        "spacing": round(1e3 * spacing_m, 4),
    }


def _sigma_m(part: MeasuredPart) -> NDArray[np.float64]:
    """(N,) standard uncertainty of each point's deviation, or of the point itself where that is not known."""
    if part.deviation_u_m is not None or part.scan is None:
        return np.empty(0) if part.deviation_u_m is None else part.deviation_u_m
    return part.scan.cloud.sigma_m.astype(np.float64)


def _micrometres(deviation_m: NDArray[np.float64]) -> str:
    steps = np.rint(np.clip(1e6 * deviation_m, -32_767, 32_767))
    return _base64(np.where(np.isfinite(steps), steps, UNKNOWN).astype("<i2"))


def _tenths(sigma_m: NDArray[np.float64]) -> str:
    steps = np.rint(np.clip(1e7 * sigma_m, 0, STEPS - 1))
    return _base64(np.where(np.isfinite(steps), steps, STEPS).astype("<u2"))


def _mesh(part: MeasuredPart, low: NDArray[np.float64], high: NDArray[np.float64]) -> dict[str, str] | None:
    if part.scan is None or part.scan.reference is None or len(part.scan.reference.triangles) > MOST_TRIANGLES:
        return None
    reference = part.scan.reference
    return {
        "vertices": _quantised(1e3 * reference.vertices_part, low, high),
        "triangles": _base64(reference.triangles.astype("<u4")),
    }


def _gauge(
    part: MeasuredPart, result: GaugeResult, low: NDArray[np.float64], high: NDArray[np.float64]
) -> dict[str, Any]:
    drawn = result.drawn if part.scan is not None else ()
    chosen = [_evenly(len(one.points), MOST_GAUGE_POINTS // max(1, len(drawn))) for one in drawn]
    points = [one.points[kept] for one, kept in zip(drawn, chosen, strict=True)]
    shown = np.unique(np.concatenate(points)) if points else np.empty(0, dtype=np.intp)
    cloud_mm = np.empty((0, 3)) if part.scan is None else 1e3 * part.scan.points_part[shown]
    pieces = [piece for one in drawn for piece in _lines(part, one)]
    return {
        "name": result.name,
        "kind": result.kind.replace("_", " "),
        "unit": result.unit,
        "value": result.value,
        "u": result.u,
        "lower": result.lower,
        "upper": result.upper,
        "decision": result.decision.value,
        "conformance": result.conformance,
        "note": result.note,
        "reason": result.reason,
        "points": _quantised(cloud_mm, low, high),
        "lines": np.round(1e3 * np.concatenate(pieces), 4).ravel().tolist() if pieces else [],
        "pointsUsed": result.points_used,
    }


def _lines(part: MeasuredPart, drawn: Drawn) -> list[NDArray[np.float64]]:
    pieces = []
    if drawn.element is not None and part.scan is not None:
        pieces.append(element_lines(drawn.element, part.scan.points_part[drawn.points]))
    if drawn.segment_part is not None:
        pieces.append(np.asarray(drawn.segment_part, dtype=np.float64)[None])
    if drawn.curve_part is not None and len(drawn.curve_part):
        pieces.append(np.asarray(drawn.curve_part, dtype=np.float64))
    return pieces


def _frame(
    point: NDArray[np.float64], u: NDArray[np.float64], v: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The edges of the rectangle in a plane that holds the points' feet, and its diagonals."""
    if not len(points):
        return np.empty((0, 2, 3))
    flat = (points - point) @ np.column_stack((u, v))
    (left, bottom), (right, top) = flat.min(axis=0), flat.max(axis=0)
    places = np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
    corners = point + places @ np.vstack((u, v))
    pairs = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3)]
    return np.array([corners[list(pair)] for pair in pairs])


def _along(point: NDArray[np.float64], axis: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) ends of the stretch of an axis beside the points."""
    heights = (points - point) @ axis if len(points) else np.zeros(1)
    return np.array([point + heights.min() * axis, point + heights.max() * axis])


def _tube(cylinder: Cylinder, points: NDArray[np.float64]) -> NDArray[np.float64]:
    ends = _along(cylinder.point, cylinder.axis, points)
    rings = [_ring(end, cylinder.axis, cylinder.radius_m) for end in ends]
    ribs = np.stack((rings[0][:: CIRCLE_PIECES // 8, 0], rings[1][:: CIRCLE_PIECES // 8, 0]), axis=1)
    return np.concatenate((*rings, ribs, ends[None]))


def _ring(centre: NDArray[np.float64], axis: NDArray[np.float64], radius_m: float) -> NDArray[np.float64]:
    u, v = across(axis)
    angle = np.linspace(0, 2 * np.pi, CIRCLE_PIECES + 1)[:, None]
    places = centre + radius_m * (np.cos(angle) * u + np.sin(angle) * v)
    return np.stack((places[:-1], places[1:]), axis=1)


def _evenly(count: int, most: int) -> NDArray[np.intp]:
    """Indices of `most` of `count` things at even steps; all where there are no more."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, max(1, most)).astype(np.intp)


def _quantised(points_mm: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    share = np.clip((points_mm - low) / (high - low), 0, 1)
    return _base64(np.rint(STEPS * share).astype("<u2"))


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
