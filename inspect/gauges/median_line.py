"""Straightness of a cylinder's median line (ISO 12780-1; ISO 17450-2: extracted median line).

The wall is cut across its axis into sections; each section's least-squares ring gives one point of the median line.
The straightness is the diameter of the smallest cylinder that holds these points, or by least squares that of the
smallest one about their least-squares line.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.association.elements import Cylinder, Line, across
from depthcell.fusion.association.leastsquares import LEAST_SQUARES
from depthcell.fusion.association.orientedzone import zone_within_cylinder
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
MOST_ROUNDS = 40
WEAKEST, LEVEL = 1e-3, 1e-2
"""Singular values, over the root of the number of points, below which a ring has no middle, or a stretch no taper."""
STILL_M, ROUNDING_M = 1e-12, 1e-8
STRAIGHT_M = 1e-12
"""A median line that leaves its fitted line by less is straight."""


def measure_median_line(section: StraightnessGauge, feature: Found, element: Cylinder, scan: Scan) -> Reading:
    """Straightness of the median line of a cylinder.

    Raises:
        DepthcellError: (`NOT_MEASURED`) fewer than `FEWEST_SECTIONS` sections were seen well enough.
    """
    sections = _sections(section.name, feature, element, scan)
    heights, offsets = np.array([one.height_m for one in sections]), np.stack([one.offset_m for one in sections])
    sideways = np.array(across(element.axis))
    places = element.point + heights[:, None] * element.axis + offsets @ sideways
    found = _enclosing(places, element.axis, fitted=section.criterion != LEAST_SQUARES)
    influence = combined(
        [
            Influence.of(one.points, 2.0 * (pull @ sideways.T) @ one.gain)
            for pull, one in zip(found.pulls, sections, strict=True)
        ]
    )
    pieces = np.stack((places[:-1], places[1:]), axis=1)
    drawn = Drawn(f"median line of {feature.name}", np.zeros(0, np.intp), found.axis, curve_part=pieces)
    note = f"{section.criterion} of the median line of '{feature.name}', {len(places)} sections, {counted(feature)}"
    return Reading(2.0 * found.radius_m, Quantity.LENGTH, influence, (feature.drawn, drawn), note)


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


@dataclass(frozen=True, slots=True, eq=False)
class _Enclosing:
    """The cylinder about S points: its radius, the change (S, 3) of it per metre of each point, its axis."""

    radius_m: float
    pulls: NDArray[np.float64]
    axis: Line


def _enclosing(places: NDArray[np.float64], axis: NDArray[np.float64], *, fitted: bool) -> _Enclosing:
    """The smallest cylinder about places (S, 3), roughly along `axis`; without `fitted`, about their fitted line."""
    middle = places.mean(axis=0)
    height = (places - middle) @ axis
    design = np.stack((np.ones(len(places)), height / np.abs(height).max()), axis=1)
    kept = np.eye(len(places)) - design @ np.linalg.pinv(design)
    apart = kept @ places
    line = Line(middle, _unit(height @ places))
    away_m = np.linalg.norm(apart, axis=1)
    worst, pulls = int(np.argmax(away_m)), np.zeros_like(places)
    if away_m[worst] < STRAIGHT_M:
        return _Enclosing(0.0, pulls, line)
    if not fitted:
        return _Enclosing(float(away_m[worst]), np.outer(kept[worst], apart[worst] / away_m[worst]), line)
    zone = zone_within_cylinder(places, line, None)
    pulls[zone.touching] = zone.pull / 2
    if not isinstance(zone.middle, Line):
        raise TypeError("the middle of a cylinder is a line")
    return _Enclosing(zone.width_m / 2, pulls, zone.middle)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector))
