"""Where a recipe's features lie nominally, as the elements that are associated with their points."""

import numpy as np

from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere
from depthcell.fusion.association.misfit import Surface
from depthcell.inspect.featuresections import (
    CircleFeature,
    CylinderFeature,
    FeatureSection,
    LineFeature,
    PlaneFeature,
    SphereFeature,
)
from depthcell.inspect.section import metres, unit_vector


def nominal_surface(feature: FeatureSection) -> tuple[Surface, float]:
    """The nominal surface in the frame "part", metres, and its side: -1 where the air is within, else +1.

    A line's is the face it lies on, a circle's the wall it is a ring of.
    """
    match feature:
        case PlaneFeature():
            middle_mm = [(low + high) / 2 for low, high in zip(feature.min_mm, feature.max_mm, strict=True)]
            point = np.array(middle_mm) / 1e3 if feature.point_mm is None else metres(feature.point_mm)
            return Plane(point, unit_vector(feature.normal)), 1.0
        case LineFeature():
            return Plane(metres(feature.position_mm), unit_vector(feature.normal)), 1.0
        case CylinderFeature() | CircleFeature():
            axis, radius_m = unit_vector(feature.axis), feature.diameter_mm / 2e3
            return Cylinder(metres(feature.position_mm), axis, radius_m), _side(feature)
        case SphereFeature():
            return Sphere(metres(feature.position_mm), feature.diameter_mm / 2e3), _side(feature)


def nominal_element(feature: FeatureSection) -> Element:
    """The nominal element of a feature's own kind, frame "part", metres."""
    surface, _ = nominal_surface(feature)
    if isinstance(feature, LineFeature):
        return Line(metres(feature.position_mm), unit_vector(feature.direction))
    if isinstance(feature, CircleFeature) and isinstance(surface, Cylinder):
        return Circle(surface.point, surface.axis, surface.radius_m)
    return surface


def _side(feature: CylinderFeature | CircleFeature | SphereFeature) -> float:
    return 1.0 if feature.side == "outside" else -1.0
