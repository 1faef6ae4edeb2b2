"""Distances and angles between elements, and how each answers to the elements' local coordinates.

A gauge chains them with what the elements' points do: `relation.first @ associated.gain` is the change of the value per
metre that each point used moves along its normal (GUM 5.1.3). All derivatives are by the chain rule from those of a
place `p` and a direction `d` of an element; each is checked against differences in the tests.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere, across

PARALLEL = 0.1
"""Sine of the angle below which two axes are parallel ones that lean a little, and not two that cross."""
NOTHING = 1e-12
"""A length or a sine below this has no direction, and a derivative of 0 stands for the kink there."""


class Relation(NamedTuple):
    """A scalar of two elements.

    Attributes:
        value: in metres or radians.
        first: (P,) change per local coordinate of the first element; for a bare point or direction per component (3,).
        second: (Q,) of the second.
    """

    value: float
    first: NDArray[np.float64]
    second: NDArray[np.float64]


def place_of(element: Element | FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The point (3,) that stands for an element and its derivative (3, P): its centre, or the middle of its points.

    A bare point is moved by its components.
    """
    match element:
        case Plane():
            return element.point, np.stack((element.normal, *np.zeros((2, 3))), axis=1)
        case Line():
            return element.point, np.stack((*across(element.direction), *np.zeros((2, 3))), axis=1)
        case Cylinder():
            return element.point, np.stack((*across(element.axis), *np.zeros((3, 3))), axis=1)
        case Circle():
            return element.centre, np.stack((*across(element.axis), np.zeros(3)), axis=1)
        case Sphere():
            return element.centre, np.eye(3, 4)
        case _:
            return np.asarray(element, dtype=np.float64), np.eye(3)


def direction_of(element: Element | FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The unit direction (3,) of an element, a plane's normal or an axis, and its derivative (3, P).

    A bare direction, brought to unit length, turns by its components across it; that of a circle is held; a sphere has
    none, and x stands for it.
    """
    match element:
        case Plane():
            return element.normal, np.stack((np.zeros(3), *across(element.normal)), axis=1)
        case Line():
            return element.direction, np.stack((*np.zeros((2, 3)), *across(element.direction)), axis=1)
        case Cylinder():
            return element.axis, np.stack((*np.zeros((2, 3)), *across(element.axis), np.zeros(3)), axis=1)
        case Circle():
            return element.axis, np.zeros((3, 3))
        case Sphere():
            return np.array([1.0, 0.0, 0.0]), np.zeros((3, 4))
        case _:
            length = float(np.linalg.norm(element))
            unit = np.asarray(element / length, dtype=np.float64)
            return unit, (np.eye(3) - np.outer(unit, unit)) / length


def coordinate(element: Element | FloatArray, direction: FloatArray) -> tuple[float, NDArray[np.float64]]:
    """The place of an element along a fixed direction (3,) from the origin, and its derivative (P,)."""
    place, moves = place_of(element)
    return float(place @ direction), np.asarray(direction @ moves, dtype=np.float64)


def distance_point_plane(first: Element | FloatArray, plane: Plane) -> Relation:
    """Signed distance of a place from a plane, `(p - q) . n`, positive out of the plane's material."""
    place, moves = place_of(first)
    apart = place - plane.point
    return Relation(
        float(apart @ plane.normal),
        plane.normal @ moves,
        apart @ direction_of(plane)[1] - plane.normal @ place_of(plane)[1],
    )


def distance_plane_plane(first: Plane, second: Plane) -> Relation:
    """Signed distance of the first plane's middle from the second, along the second's normal.

    Planes of a real part are never quite parallel: the second is the one the distance is taken from, and the first is
    met where its points were.
    """
    return distance_point_plane(first, second)


def distance_line_plane(line: Line, plane: Plane) -> Relation:
    """Signed distance of the middle of an axis from a plane it is nominally parallel to."""
    return distance_point_plane(line, plane)


def distance_point_point(first: Element | FloatArray, second: Element | FloatArray) -> Relation:
    """Distance `|p1 - p2|` of two places."""
    (place, moves), (other, other_moves) = place_of(first), place_of(second)
    apart = place - other
    away = _away(apart)
    return Relation(float(np.linalg.norm(apart)), away @ moves, -away @ other_moves)


def offset_point_line(
    first: Element | FloatArray, line: Line
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The two offsets (2,) of a place from an axis along the axis' u and v, and their derivatives (2, P) and (2, 4).

    Near the axis its distance has a kink and no first order; the offsets have one everywhere.
    """
    place, moves = place_of(first)
    apart, directions = place - line.point, np.array(across(line.direction))
    height = apart @ line.direction
    second = np.array([[-1.0, 0.0, -height, 0.0], [0.0, -1.0, 0.0, -height]])
    return directions @ apart, directions @ moves, second


def distance_point_line(first: Element | FloatArray, line: Line) -> Relation:
    """Distance of a place from an axis, `|(p - q) - ((p - q) . d) d|`."""
    offset, by_first, by_second = offset_point_line(first, line)
    away = _away(offset)
    return Relation(float(np.linalg.norm(offset)), away @ by_first, away @ by_second)


def distance_line_line(first: Line, second: Line) -> Relation:
    """Distance of two axes: of the first's middle from the second where they are parallel, else where they cross.

    Parallel are axes within `PARALLEL` of it. Others are met along their common perpendicular `n = d1 x d2 / |d1 x d2|`
    at the distance `|(p1 - p2) . n|`.
    """
    (d1, turns1), (d2, turns2) = direction_of(first), direction_of(second)
    cross = np.cross(d1, d2)
    sine = float(np.linalg.norm(cross))
    if sine < PARALLEL:
        return distance_point_line(first, second)
    normal, apart = cross / sine, first.point - second.point
    value = float(apart @ normal)
    sign = 1.0 if value >= 0 else -1.0
    # d(normal) = (1 - n n^T) d(cross) / sine, and so d(value) by the directions:
    pull = (apart - value * normal) / sine
    by_first = normal @ place_of(first)[1] + np.cross(d2, pull) @ turns1
    by_second = -normal @ place_of(second)[1] + np.cross(pull, d1) @ turns2
    return Relation(abs(value), sign * by_first, sign * by_second)


def angle_directions(first: Element | FloatArray, second: Element | FloatArray) -> Relation:
    """Angle between two directions, 0 to pi; at 0 and pi it has a kink, and the derivative given is 0.

    Turning `d1` by a small `t` across it changes the angle by `-e1 . t`, e1 the unit vector across `d1` towards `d2`.
    """
    (d1, turns1), (d2, turns2) = direction_of(first), direction_of(second)
    cosine = float(d1 @ d2)
    towards2, towards1 = d2 - cosine * d1, d1 - cosine * d2
    value = float(np.arctan2(np.linalg.norm(np.cross(d1, d2)), cosine))
    return Relation(value, -_away(towards2) @ turns1, -_away(towards1) @ turns2)


def _away(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > NOTHING else np.zeros_like(vector))
