"""Where an element is and which way it points, and how both answer to its local coordinates (GUM 5.1.3)."""

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere, across


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
