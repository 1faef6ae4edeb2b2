"""Places and directions of elements against what differences say."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from depthcell.fusion.association.changes import moved
from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere
from depthcell.fusion.association.places import direction_of, place_of

STEP = 1e-6
AT, ALONG = np.array([0.01, -0.02, 0.04]), np.array([2.0, -1.0, 2.0]) / 3
ELEMENTS: list[tuple[Element, int]] = [
    (Plane(AT, ALONG), 3),
    (Line(AT, ALONG), 4),
    (Circle(AT, ALONG, 0.01), 3),
    (Cylinder(AT, ALONG, 0.01), 5),
    (Sphere(AT, 0.01), 4),
]
Answer = Callable[[Element], tuple[NDArray[np.float64], NDArray[np.float64]]]


@pytest.mark.parametrize("answer", [place_of, direction_of])
@pytest.mark.parametrize(("element", "freedoms"), ELEMENTS, ids=lambda value: type(value).__name__)
def test_derivatives_are_what_differences_say(answer: Answer, element: Element, freedoms: int) -> None:
    _, slope = answer(element)
    steps = STEP * np.eye(freedoms)
    differences = [(answer(moved(element, step))[0] - answer(moved(element, -step))[0]) / (2 * STEP) for step in steps]
    np.testing.assert_allclose(slope, np.array(differences).T, atol=1e-9)


def test_a_bare_place_moves_by_its_components_and_a_bare_direction_turns_across_itself() -> None:
    np.testing.assert_array_equal(place_of(AT)[1], np.eye(3))
    unit, slope = direction_of(3 * ALONG)
    np.testing.assert_allclose(unit, ALONG, atol=1e-15)
    np.testing.assert_allclose(slope @ ALONG, 0, atol=1e-15)
    aside = np.cross(ALONG, [1.0, 0, 0])
    np.testing.assert_allclose(slope @ aside, aside / 3, atol=1e-15)
