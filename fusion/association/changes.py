"""Small changes of elements: apply local coordinates, and read them off between two elements that are near each other.

The local coordinates are those that `elements` states for each kind.
"""

from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError
from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere, across

E = TypeVar("E", bound=Element)


def moved(element: E, local: FloatArray) -> E:
    """The element after a change by local coordinates (P,); directions keep unit length."""
    return cast(E, _moved(element, np.asarray(local, dtype=np.float64)))


def _moved(element: Element, local: NDArray[np.float64]) -> Element:
    match element:
        case Plane():
            return Plane(element.point + local[0] * element.normal, _leant(element.normal, local[1:3]))
        case Line():
            return Line(_shifted(element.point, element.direction, local[:2]), _leant(element.direction, local[2:4]))
        case Circle():
            centre = _shifted(element.centre, element.axis, local[:2])
            return Circle(centre, element.axis, float(element.radius_m + local[2]))
        case Cylinder():
            point, axis = _shifted(element.point, element.axis, local[:2]), _leant(element.axis, local[2:4])
            return Cylinder(point, axis, float(element.radius_m + local[4]))
        case Sphere():
            return Sphere(element.centre + local[:3], float(element.radius_m + local[3]))


def change(element: Element, reference: Element) -> NDArray[np.float64]:
    """Local coordinates (P,) of `reference` that make it `element`; exact for shifts, to first order in leans.

    What has no meaning for the kind is not compared: where on a plane or an axis its point lies, or how far a circle
    lies along its axis.

    Raises:
        DepthcellError: they are of different kinds.
    """
    match element, reference:
        case Plane(), Plane():
            shift = (element.point - reference.point) @ element.normal / (reference.normal @ element.normal)
            return np.array([shift, *_lean(element.normal, reference.normal)])
        case Line(), Line():
            return _axis_change(element, reference)
        case Cylinder(), Cylinder():
            axis = _axis_change(element.line, reference.line)
            return np.array([*axis, element.radius_m - reference.radius_m])
        case Circle(), Circle():
            shift = np.array(across(reference.axis)) @ (element.centre - reference.centre)
            return np.array([*shift, element.radius_m - reference.radius_m])
        case Sphere(), Sphere():
            return np.array([*(element.centre - reference.centre), element.radius_m - reference.radius_m])
        case _:
            kinds = f"{type(element).__name__} and {type(reference).__name__}"
            raise DepthcellError(f"change: {kinds} are no two of a kind")


def carried(element: E, T_target_source: RigidTransform) -> E:
    """The element given in `source`, in `target`."""
    match element:
        case Plane(point, normal):
            there: Element = Plane(*_carried(point, normal, T_target_source))
        case Line(point, direction):
            there = Line(*_carried(point, direction, T_target_source))
        case Circle(centre, axis, radius_m):
            there = Circle(*_carried(centre, axis, T_target_source), radius_m)
        case Cylinder(point, axis, radius_m):
            there = Cylinder(*_carried(point, axis, T_target_source), radius_m)
        case Sphere(centre, radius_m):
            there = Sphere(_carried(centre, centre, T_target_source)[0], radius_m)
    return cast(E, there)


def _carried(
    place: NDArray[np.float64], direction: NDArray[np.float64], transform: RigidTransform
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    turned = transform.rotation
    return np.asarray(turned @ place + transform.translation_m), np.asarray(turned @ direction)


def _axis_change(line: Line, reference: Line) -> NDArray[np.float64]:
    """(4,): shifts where the line passes the plane through the reference's point across its direction, and leans."""
    lean = _lean(line.direction, reference.direction)
    height = (reference.point - line.point) @ reference.direction / (line.direction @ reference.direction)
    apart = line.point + height * line.direction - reference.point
    return np.array([*(apart @ np.array(across(reference.direction)).T), *lean])


def _lean(direction: FloatArray, reference: FloatArray) -> NDArray[np.float64]:
    return np.asarray(np.array(across(reference)) @ direction / (reference @ direction))


def _leant(direction: NDArray[np.float64], lean: NDArray[np.float64]) -> NDArray[np.float64]:
    turned = direction + lean @ np.array(across(direction))
    return np.asarray(turned / np.linalg.norm(turned))


def _shifted(point: NDArray[np.float64], axis: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(point + shift @ np.array(across(axis)))
