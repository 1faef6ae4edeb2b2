"""Straightness of a cylinder's median line (ISO 12780-1; ISO 17450-2: extracted median line).

The wall is cut across its axis into sections; each section's least-squares circle gives one point of the median line.
The straightness is the diameter of the smallest cylinder that holds these points, or by least squares that of the
smallest one about their least-squares line.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog  # type: ignore[attr-defined]

from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.elements import Associated, Circle, Cylinder, Line, across
from depthcell.fusion.association.leastsquares import LEAST_SQUARES, fit_circle
from depthcell.fusion.influence import Influence, combined
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.construction import counted, middle
from depthcell.inspect.gauges.extraction import FEWEST, Found
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading, not_measured
from depthcell.inspect.gaugesections import StraightnessGauge

MOST_SECTIONS = 15
FEWEST_SECTIONS = 4
SHORTEST_M = 0.0005
"""Length of a section, at least."""
DIRECTIONS, MOST_ROUNDS = 16, 40
"""The smallest cylinder is first looked for in so many directions across it."""
OUTSIDE = 1e-7
"""Share of the radius by which a point may stand out of the cylinder found."""


@dataclass(frozen=True, slots=True, eq=False)
class _MedianLine:
    """Points of a median line.

    Attributes:
        height_m: (S,) along the axis, from its middle.
        offset_m: (S, 2) across it, along `across(axis)`.
        circles: the sections' circles.
        points: their points in the cloud.
    """

    height_m: NDArray[np.float64]
    offset_m: NDArray[np.float64]
    circles: tuple[Associated, ...]
    points: tuple[NDArray[np.intp], ...]


def measure_median_line(section: StraightnessGauge, feature: Found, element: Cylinder, scan: Scan) -> Reading:
    """Straightness of the median line of a cylinder.

    Raises:
        DepthcellError: (`NOT_MEASURED`) fewer than `FEWEST_SECTIONS` sections were seen well enough.
    """
    line = _median_line(section.name, feature, element, scan)
    smallest = section.criterion != LEAST_SQUARES
    radius_m, pulls, motion = _smallest(line, fitted=smallest)
    influence = combined(
        [
            Influence.of(points[circle.used], 2.0 * pull @ circle.gain[:2])
            for pull, circle, points in zip(pulls, line.circles, line.points, strict=True)
        ]
    )
    u, v = across(element.axis)
    places = element.point + line.height_m[:, None] * element.axis + line.offset_m @ np.array([u, v])
    pieces = np.stack((places[:-1], places[1:]), axis=1)
    axis = Line(element.point + motion[0] * u + motion[1] * v, _unit(element.axis + motion[2] * u + motion[3] * v))
    drawn = Drawn(f"median line of {feature.name}", np.zeros(0, np.intp), axis, curve_part=pieces)
    note = f"{section.criterion} of the median line of '{feature.name}', {len(places)} sections, {counted(feature)}"
    return Reading(2.0 * radius_m, Quantity.LENGTH, influence, (feature.drawn, drawn), note)


def _median_line(gauge: str, feature: Found, element: Cylinder, scan: Scan) -> _MedianLine:
    """Cut into sections of equal height, and fit a circle to each that its points determine."""
    points = feature.used
    places = scan.points_part[points]
    height = (places - element.point) @ element.axis
    low, length_m = float(height.min()), float(np.ptp(height))
    count = int(min(MOST_SECTIONS, max(1, length_m // SHORTEST_M), max(1, len(points) // FEWEST)))
    number = np.minimum(((height - low) / max(length_m, 1e-9) * count).astype(np.intp), count - 1)
    heights, offsets, circles, chosen = [], [], [], []
    frame = np.array(across(element.axis))
    for one in range(count):
        inside = np.flatnonzero(number == one)
        if len(inside) < FEWEST:
            continue
        start = Circle(element.point, element.axis, element.radius_m)
        sigma_m = scan.cloud.random_sigma_m[points[inside]].astype(np.float64)
        try:
            circle = fit_circle(
                places[inside], scan.normals_part[points[inside]], element.axis, sigma_m, start, robust=False
            )
        except DepthcellError as error:
            if error.reason is not Reason.NOT_MEASURED:
                raise
            continue
        heights.append(float(height[inside].mean()))
        offsets.append(frame @ (middle(circle.element) - element.point))
        circles.append(circle)
        chosen.append(points[inside])
    if len(heights) < FEWEST_SECTIONS:
        why = f"{len(heights)} sections of '{feature.name}' were seen well enough, needs {FEWEST_SECTIONS}"
        raise not_measured(gauge, why)
    return _MedianLine(np.array(heights), np.array(offsets), tuple(circles), tuple(chosen))


def _smallest(line: _MedianLine, *, fitted: bool) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Radius of the smallest cylinder about the points, its change (S, 2) per metre of each, and the axis' motion (4,).

    The motion is (shift, shift, lean, lean). Without `fitted` the axis is the least-squares line.
    """
    reach = float(np.abs(line.height_m).max())
    heights = line.height_m / reach
    design = np.stack((np.ones(len(heights)), heights), axis=1)
    start = np.asarray(np.linalg.lstsq(design, line.offset_m, rcond=None)[0], dtype=np.float64)
    apart = line.offset_m - design @ start
    scale_m = float(np.linalg.norm(apart, axis=1).max())
    if scale_m < 1e-12:
        return 0.0, np.zeros_like(apart), _motion(start, reach)
    if fitted:
        radius, pulls, further = _enclosing(apart / scale_m, design)
        return radius * scale_m, pulls, _motion(start + scale_m * further, reach)
    worst = int(np.argmax(np.linalg.norm(apart, axis=1)))
    kept = np.eye(len(design)) - design @ np.linalg.pinv(design)
    return scale_m, np.outer(kept[worst], apart[worst] / scale_m), _motion(start, reach)


def _motion(start: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    return np.concatenate((start[0], start[1] / reach))


def _enclosing(
    apart: NDArray[np.float64], design: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Min over B (2, 2) of max over k of |apart_k - design_k B|: radius, its gradient (S, 2), and B.

    The norm is the largest of all projections: a linear programme over some directions, to which those in which the
    points then stand out are added until none does (Kelley's cutting planes; the problem is convex).
    """
    turn = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    number = np.repeat(np.arange(len(apart)), DIRECTIONS)
    ways = np.tile(np.stack((np.cos(turn), np.sin(turn)), axis=1), (len(apart), 1))
    further, weight, left, outside = _programme(apart, design, number, ways)
    for _ in range(MOST_ROUNDS):
        if len(outside) == 0:
            break
        number = np.concatenate((number, outside))
        ways = np.concatenate((ways, left[outside] / np.linalg.norm(left[outside], axis=1, keepdims=True)))
        further, weight, left, outside = _programme(apart, design, number, ways)
    pulls = np.zeros_like(apart)
    np.add.at(pulls, number, weight[:, None] * ways)
    return float(np.linalg.norm(left, axis=1).max()), pulls, further


def _programme(
    apart: NDArray[np.float64], design: NDArray[np.float64], number: NDArray[np.intp], ways: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """B, the weight of each direction, what is left of the points, and those that stand out of the radius found."""
    rows = np.hstack((-design[number, :1] * ways, -design[number, 1:] * ways, -np.ones((len(ways), 1))))
    bounds = -np.einsum("ij,ij->i", apart[number], ways)
    solved = linprog([0, 0, 0, 0, 1], A_ub=rows, b_ub=bounds, bounds=(None, None), method="highs-ds")
    further = np.asarray(solved.x[:4], dtype=np.float64).reshape(2, 2)
    left = apart - design @ further
    outside = np.flatnonzero(np.linalg.norm(left, axis=1) > solved.x[4] + OUTSIDE)
    return further, -np.asarray(solved.ineqlin.marginals), left, np.asarray(outside, dtype=np.intp)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector))
