"""Constructions on associated elements: directions, and the two places that a distance lies between."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere, across
from depthcell.inspect.gauges.extraction import Found
from depthcell.inspect.gauges.reading import not_measured

PARALLEL_DEG = 10.0
"""Planes, or a plane and an axis, at a larger angle than this have no distance: it would change from end to end."""
COINCIDENT_M = 1e-9
"""A distance below this has no direction of its own."""

Ends = NDArray[np.float64]
"""(2, 3) metres: the two places that a distance lies between."""


def kind_of(found: Found) -> str:
    """The kind of its element, in words."""
    return {Plane: "plane", Line: "line", Circle: "circle", Cylinder: "cylinder", Sphere: "sphere"}[type(found.element)]


def counted(*features: Found) -> str:
    """How many points they rest on."""
    return " + ".join(str(len(found.used)) for found in features) + " points"


def direction(element: Element) -> NDArray[np.float64]:
    """(3,) unit: a plane's normal, or the direction of an axis.

    Raises:
        TypeError: a sphere has none.
    """
    match element:
        case Plane():
            return element.normal
        case Line():
            return element.direction
        case Circle() | Cylinder():
            return element.axis
        case Sphere():
            raise TypeError("a sphere has no direction")


def middle(element: Element) -> NDArray[np.float64]:
    """(3,) metres: its centre, or the middle of where it was seen."""
    return element.centre if isinstance(element, Circle | Sphere) else element.point


def ends_between(first: Element, second: Element) -> Ends:
    """The two places that the distance of two elements lies between, on the first and on the second.

    Which they are for each pair, `measure_distance` says.
    """
    if isinstance(second, Plane) and not isinstance(first, Plane):
        return ends_between(second, first)[::-1]
    if isinstance(first, Plane):
        place = middle(second)
        return np.stack((place - ((place - first.point) @ first.normal) * first.normal, place))
    if isinstance(first, Sphere):
        return ends_between(second, first)[::-1] if not isinstance(second, Sphere) else _centres(first, second)
    axis, start = direction(first), middle(first)
    if isinstance(second, Sphere):
        return np.stack((start + ((second.centre - start) @ axis) * axis, second.centre))
    return _between_axes(start, axis, middle(second), direction(second))


def _centres(first: Sphere, second: Sphere) -> Ends:
    return np.stack((first.centre, second.centre))


def _between_axes(
    start: NDArray[np.float64], axis: NDArray[np.float64], other: NDArray[np.float64], other_axis: NDArray[np.float64]
) -> Ends:
    """Half way between their middles where they are parallel, else the feet of the common perpendicular."""
    cosine = float(axis @ other_axis)
    apart = other - start
    if abs(cosine) < math.cos(math.radians(PARALLEL_DEG)):
        along, onto = np.linalg.solve([[1.0, -cosine], [cosine, -1.0]], [apart @ axis, apart @ other_axis])
        return np.stack((start + along * axis, other + onto * other_axis))
    half = (apart @ axis) / 2
    # the other axis where it passes the plane across the first, half way up
    onto = (half - apart @ axis) / cosine
    return np.stack((start + half * axis, other + onto * other_axis))


def towards(ends: Ends, elements: Sequence[Element]) -> NDArray[np.float64]:
    """(3,) unit: the way a distance is taken, from its first end to its second; across the elements where it is zero.

    Held where it is, it makes a distance smooth: to first order `|v|` changes as `v . t` does.
    """
    apart = ends[1] - ends[0]
    length_m = float(np.linalg.norm(apart))
    if length_m > COINCIDENT_M:
        return np.asarray(apart / length_m)
    for element in elements:
        if isinstance(element, Plane):
            return element.normal
    for element in elements:
        if not isinstance(element, Sphere):
            return across(direction(element))[0]
    return np.array([1.0, 0.0, 0.0])


def check_ends(gauge: str, first: Found, second: Found) -> None:
    """Refuse pairs that have no distance.

    Raises:
        DepthcellError: (`NOT_MEASURED`) planes or a plane and an axis at an angle, or a feature with no place there.
    """
    flat = [found for found in (first, second) if isinstance(found.element, Plane)]
    for found in (first, second):
        if isinstance(found.element, Line) and not flat:
            why = f"feature '{found.name}' is a line on a face and has no place sideways; measure it from a plane"
            raise not_measured(gauge, why)
    if not flat or isinstance(first.element, Sphere) or isinstance(second.element, Sphere):
        return
    cosine = abs(float(direction(first.element) @ direction(second.element)))
    angle_deg = math.degrees(math.acos(min(cosine, 1.0)))
    off_deg = angle_deg if len(flat) == 2 else 90.0 - angle_deg
    if off_deg > PARALLEL_DEG:
        why = (
            f"'{first.name}' and '{second.name}' are {off_deg:.0f} degrees from parallel and have no one distance; "
            "measure their angle, or from a point"
        )
        raise not_measured(gauge, why)


def place_along(element: Element, nominal: Element, along: FloatArray) -> NDArray[np.float64]:
    """(3,) metres: where an element lies along a direction (3,), near where it lies nominally.

    A plane: where the line along the direction through its nominal place passes it. An axis: where it passes the plane
    through its nominal place, across its nominal direction. A centre: itself.
    """
    start = middle(nominal)
    if isinstance(element, Plane):
        return start + ((element.point - start) @ element.normal) / (along @ element.normal) * along
    if isinstance(element, Cylinder | Circle):
        point, axis, nominal_axis = middle(element), direction(element), direction(nominal)
        return point + ((start - point) @ nominal_axis) / (axis @ nominal_axis) * axis
    return middle(element)
