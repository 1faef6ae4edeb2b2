"""Straightness of a cylinder's median line (ISO 12780-1; ISO 17450-2: extracted median line).

The wall is cut across its axis into sections; each section's least-squares ring gives one point of the median line.
The straightness is the diameter of the smallest cylinder that holds these points, or by least squares that of the
smallest one about their least-squares line.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog  # type: ignore[attr-defined]

from depthcell.fusion.association.elements import Cylinder, Line, across
from depthcell.fusion.association.leastsquares import LEAST_SQUARES
from depthcell.fusion.influence import Influence, combined
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.construction import counted, direction
from depthcell.inspect.gauges.extraction import FEWEST, Found
from depthcell.inspect.gauges.nominal import nominal_surface
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading, not_measured
from depthcell.inspect.gaugesections import StraightnessGauge

MOST_SECTIONS = 15
FEWEST_SECTIONS = 4
SHORTEST_M = 0.0005
"""Length of a section, at least."""
DIRECTIONS, MOST_ROUNDS = 16, 40
"""The smallest cylinder is first looked for in so many directions across it."""
WEAKEST, LEVEL = 1e-3, 1e-2
"""Singular values, over the root of the number of points, below which a ring has no middle, or a stretch no taper."""
STILL_M, ROUNDING_M = 1e-12, 1e-8
OUTSIDE = 1e-7
"""Share of the radius by which a point may stand out of the cylinder found."""


def measure_median_line(section: StraightnessGauge, feature: Found, element: Cylinder, scan: Scan) -> Reading:
    """Straightness of the median line of a cylinder.

    Raises:
        DepthcellError: (`NOT_MEASURED`) fewer than `FEWEST_SECTIONS` sections were seen well enough.
    """
    sections = _sections(section.name, feature, element, scan)
    heights, offsets = np.array([one.height_m for one in sections]), np.stack([one.offset_m for one in sections])
    smallest = section.criterion != LEAST_SQUARES
    radius_m, pulls, motion = _smallest(heights, offsets, fitted=smallest)
    influence = combined(
        [Influence.of(one.points, 2.0 * pull @ one.gain) for pull, one in zip(pulls, sections, strict=True)]
    )
    u, v = across(element.axis)
    places = element.point + heights[:, None] * element.axis + offsets @ np.array([u, v])
    pieces = np.stack((places[:-1], places[1:]), axis=1)
    axis = Line(element.point + motion[0] * u + motion[1] * v, _unit(element.axis + motion[2] * u + motion[3] * v))
    drawn = Drawn(f"median line of {feature.name}", np.zeros(0, np.intp), axis, curve_part=pieces)
    note = f"{section.criterion} of the median line of '{feature.name}', {len(places)} sections, {counted(feature)}"
    return Reading(2.0 * radius_m, Quantity.LENGTH, influence, (feature.drawn, drawn), note)


def _sections(gauge: str, feature: Found, element: Cylinder, scan: Scan) -> "list[_Section]":
    """Cut into stretches of equal height; those whose points determine a middle."""
    points = feature.used
    places = scan.points_part[points]
    # along the nominal axis, so that noise across it moves no point from one stretch into the next
    height = (places - element.point) @ direction(nominal_surface(feature.section)[0])
    low, length_m = float(height.min()), float(np.ptp(height))
    count = int(min(MOST_SECTIONS, max(1, length_m // SHORTEST_M), max(1, len(points) // FEWEST)))
    number = np.minimum(((height - low + ROUNDING_M) / max(length_m, 1e-9) * count).astype(np.intp), count - 1)
    facing = scan.normals_part[points]
    sections: list[_Section] = []
    for one in range(count):
        inside = np.flatnonzero(number == one)
        if len(inside) >= FEWEST:
            section = _Section.of(points[inside], places[inside] - element.point, facing[inside], element)
            sections += [] if section is None else [section]
    if len(sections) < FEWEST_SECTIONS:
        why = f"{len(sections)} sections of '{feature.name}' were seen well enough, needs {FEWEST_SECTIONS}"
        raise not_measured(gauge, why)
    return sections


@dataclass(frozen=True, slots=True, eq=False)
class _Section:
    """A stretch of the wall, and where its middle lies.

    Attributes:
        height_m: along the axis, from the element's point.
        offset_m: (2,) across it, along `across(axis)`.
        points: (K,) in the cloud.
        gain: (2, K) change of the offset per metre that each point moves along its measured normal.
    """

    height_m: float
    offset_m: NDArray[np.float64]
    points: NDArray[np.intp]
    gain: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        points: NDArray[np.intp],
        apart: NDArray[np.float64],
        facing: NDArray[np.float64],
        element: Cylinder,
    ) -> "_Section | None":
        """The least-squares cone through a stretch, its middle at the points' mean height; None where not determined.

        The wall's distance from the axis is `q = R + c . n + k h`, n the direction across, h the height from
        the mean: the taper k is fitted along, so that rows of points that are cut in two do not pull.
        """
        frame = np.array(across(element.axis))
        across_m, height = apart @ frame.T, apart @ element.axis
        mean = float(height.mean())
        h = (height - mean) / SHORTEST_M
        offset = np.zeros(2)
        for _ in range(MOST_ROUNDS):
            q = across_m - offset
            away = np.linalg.norm(q, axis=1)
            n = q / away[:, None]
            ring = np.column_stack((n, np.ones(len(n))))
            if np.linalg.svd(ring, compute_uv=False)[-1] < WEAKEST * np.sqrt(len(n)):
                return None
            solve = np.linalg.pinv(np.column_stack((ring, h)), rcond=LEVEL)
            step = (solve @ (away - element.radius_m))[:2]
            offset = offset + step
            if float(np.abs(step).max()) < STILL_M:
                break
        else:
            return None
        # a wall's normal points out of the material, of a bore towards the axis
        cosine = np.einsum("ij,ij->i", n @ frame, facing)
        return cls(mean, offset, points, solve[:2] * cosine)


def _smallest(
    height_m: NDArray[np.float64], offset_m: NDArray[np.float64], *, fitted: bool
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Radius of the smallest cylinder about the points, its change (S, 2) per metre of each, and the axis' motion (4,).

    The motion is (shift, shift, lean, lean). Without `fitted` the axis is the least-squares line.
    """
    reach = float(np.abs(height_m).max())
    heights = height_m / reach
    design = np.stack((np.ones(len(heights)), heights), axis=1)
    start = np.asarray(np.linalg.lstsq(design, offset_m, rcond=None)[0], dtype=np.float64)
    apart = offset_m - design @ start
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
