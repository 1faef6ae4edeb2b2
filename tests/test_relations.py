"""Distances and angles of elements against what differences say."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.association.changes import change, moved
from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere
from depthcell.fusion.association.relations import (
    Relation,
    angle_directions,
    coordinate,
    distance_line_line,
    distance_line_plane,
    distance_plane_plane,
    distance_point_line,
    distance_point_plane,
    distance_point_point,
    offset_point_line,
)

STEP = 1e-6
SIZE = {Plane: 3, Line: 4, Circle: 3, Cylinder: 5, Sphere: 4}


def unit(vector: FloatArray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))


def element_of(kind: type[Element], rng: np.random.Generator) -> Element:
    point, direction = rng.normal(size=3) * 0.05, unit(rng.normal(size=3))
    if kind is Sphere:
        return Sphere(point, 0.01)
    if kind is Circle:
        return Circle(point, direction, 0.01)
    if kind is Cylinder:
        return Cylinder(point, direction, 0.01)
    return Plane(point, direction) if kind is Plane else Line(point, direction)


def shifted(thing: Element | np.ndarray, index: int, step: float) -> Element | np.ndarray:
    if isinstance(thing, np.ndarray):
        return np.asarray(thing + step * np.eye(3)[index])
    return moved(thing, step * np.eye(SIZE[type(thing)])[index])


def differences(function: Callable[..., Relation], things: list[Element | np.ndarray], which: int) -> np.ndarray:
    size = 3 if isinstance(things[which], np.ndarray) else SIZE[type(things[which])]
    gradient = []
    for index in range(size):
        values = []
        for step in (STEP, -STEP):
            changed = list(things)
            changed[which] = shifted(things[which], index, step)
            values.append(function(*changed).value)
        gradient.append((values[0] - values[1]) / (2 * STEP))
    return np.array(gradient)


POINT = np.array([0.01, -0.02, 0.04])
CASES = [
    (distance_plane_plane, Plane, Plane),
    (distance_line_plane, Line, Plane),
    (distance_point_plane, Sphere, Plane),
    (distance_point_plane, Circle, Plane),
    (distance_point_plane, None, Plane),
    (distance_point_point, Sphere, Sphere),
    (distance_point_point, Circle, Circle),
    (distance_point_point, Sphere, None),
    (distance_point_line, Sphere, Line),
    (distance_point_line, None, Line),
    (distance_point_line, Cylinder, Line),
    (distance_line_line, Line, Line),
    (angle_directions, Plane, Plane),
    (angle_directions, Plane, Cylinder),
    (angle_directions, Line, None),
    (angle_directions, Circle, Line),
]


@pytest.mark.parametrize(("function", "first", "second"), CASES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_gradients_are_those_of_differences(
    function: Callable[..., Relation], first: type[Element] | None, second: type[Element] | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    things: list[Element | np.ndarray] = [POINT if kind is None else element_of(kind, rng) for kind in (first, second)]
    found = function(*things)
    for which, gradient in enumerate((found.first, found.second)):
        np.testing.assert_allclose(gradient, differences(function, things, which), atol=2e-6, rtol=1e-5)


def test_nearly_parallel_axes_are_met_at_the_middle_of_the_first() -> None:
    first = Line(np.array([0.03, 0.0, 0.1]), unit(np.array([0.02, 0.01, 1.0])))
    second = Line(np.zeros(3), np.array([0.0, 0.0, 1.0]))
    found = distance_line_line(first, second)
    assert found.value == pytest.approx(0.03)
    for which, gradient in enumerate((found.first, found.second)):
        np.testing.assert_allclose(gradient, differences(distance_line_line, [first, second], which), atol=1e-7)


def test_values_of_known_places() -> None:
    floor = Plane(np.zeros(3), np.array([0.0, 0.0, 1.0]))
    step = Plane(np.array([0.01, 0.0, 0.004]), np.array([0.0, 0.0, 1.0]))
    axis = Line(np.array([0.02, 0.0, 0.1]), np.array([0.0, 1.0, 0.0]))
    assert distance_plane_plane(step, floor).value == pytest.approx(0.004)
    assert distance_plane_plane(floor, step).value == pytest.approx(-0.004)
    assert distance_line_plane(axis, floor).value == pytest.approx(0.1)
    assert distance_point_line(np.array([0.02, 7.0, 0.0]), axis).value == pytest.approx(0.1)
    assert distance_line_line(Line(np.zeros(3), np.array([1.0, 0.0, 0.0])), axis).value == pytest.approx(0.1)
    assert angle_directions(floor, axis).value == pytest.approx(np.pi / 2)
    assert coordinate(Sphere(POINT, 0.1), np.array([0.0, 0.0, 1.0]))[0] == pytest.approx(0.04)


def test_a_kink_has_no_slope() -> None:
    axis = Line(np.zeros(3), np.array([0.0, 0.0, 1.0]))
    assert not distance_point_line(np.array([0.0, 0.0, 0.3]), axis).first.any()
    assert not angle_directions(axis, axis).first.any()
    _, by_first, by_axis = offset_point_line(np.array([0.0, 0.0, 0.3]), axis)
    assert np.linalg.matrix_rank(by_first) == 2
    np.testing.assert_allclose(by_axis[:, 2:], -0.3 * np.eye(2))


@pytest.mark.parametrize("kind", [Plane, Line, Circle, Cylinder, Sphere])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_change_is_read_off_as_it_was_made(kind: type[Element], seed: int) -> None:
    rng = np.random.default_rng(seed)
    element = element_of(kind, rng)
    local = rng.normal(size=SIZE[kind]) * 1e-4
    np.testing.assert_allclose(change(moved(element, local), element), local, atol=1e-8)
