"""Linear and angular size: distance, step height, angle, diameter, coordinate, all of associated elements.

Distances are local sizes of ideal elements that were associated by least squares (ISO 14405-1:2016 "GG" for diameters,
ISO 14405-2 for distances between them), so that noise is averaged. How each depends on points and pose comes by
differences, see `response`.
"""

import math
from collections.abc import Sequence

import numpy as np

from depthcell.fusion.association.elements import Circle, Element, Line, Plane, Sphere, across
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.construction import (
    check_ends,
    counted,
    direction,
    ends_between,
    kind_of,
    place_along,
    towards,
)
from depthcell.inspect.gauges.extraction import Features, Found
from depthcell.inspect.gauges.location import Held, held_value
from depthcell.inspect.gauges.nominal import nominal_surface
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading, not_measured
from depthcell.inspect.gauges.response import answered
from depthcell.inspect.gaugesections import AngleGauge, CoordinateGauge, DiameterGauge, DistanceGauge, StepHeightGauge
from depthcell.inspect.section import unit_vector

ALIGNED = 1e-12
"""Sine below which two directions have no plane of their own."""
ALONG = 0.7
"""Cosine between a coordinate's direction and an axis from which on the axis does not say where it lies that way."""


def measure_distance(section: DistanceGauge, _: Scan, features: Features) -> Reading:
    """Distance between two features, never negative.

        planes            from the first plane to the middle of the second's points, along the first's normal
        plane, axis       from the plane to the middle of the axis's stretch
        plane, centre     from the plane to the centre
        axes              parallel: across the first axis, half way between the middles of their stretches;
                          at more than `PARALLEL_DEG`: along their common perpendicular
        axis, centre      from the axis to the centre
        centres           between them; of circles, across their axis

    Raises:
        DepthcellError: (`NOT_MEASURED`) the features are not there, or have no distance.
    """
    first, second = (features.found(name) for name in section.between)
    elements = (first.element, second.element)
    check_ends(section.name, first, second)
    ends = ends_between(*elements)
    way = towards(ends, elements)
    value, influence = answered(lambda e: float(np.diff(ends_between(*e), axis=0)[0] @ way), (first, second))
    drawn = (first.drawn, second.drawn, Drawn("distance", np.zeros(0, np.intp), segment_part=ends))
    note = (
        f"{kind_of(first)} '{first.name}' to {kind_of(second)} '{second.name}', least squares, {counted(first, second)}"
    )
    return Reading(abs(value), Quantity.LENGTH, influence, drawn, note)


def measure_step_height(section: StepHeightGauge, _: Scan, features: Features) -> Reading:
    """Height of a face over another: `(m - p) . n`, m the middle of the face's points, p and n of the plane `over`.

    Raises:
        DepthcellError: (`NOT_MEASURED`) a face is not there, is no plane, or they are not parallel.
    """
    over, feature = features.found(section.over), features.found(section.feature)
    for found in (over, feature):
        if not isinstance(found.element, Plane):
            raise not_measured(section.name, f"feature '{found.name}' is a {kind_of(found)}; a step is between planes")
    check_ends(section.name, over, feature)
    value, influence = answered(_height, (over, feature))
    step = Drawn("step", np.zeros(0, np.intp), segment_part=ends_between(over.element, feature.element))
    note = f"plane '{feature.name}' over plane '{over.name}', least squares, {counted(over, feature)}"
    return Reading(value, Quantity.LENGTH, influence, (over.drawn, feature.drawn, step), note)


def measure_angle(section: AngleGauge, _: Scan, features: Features) -> Reading:
    """Angle between two directions: `atan2(|a x b|, a . b)`, of normals 0 to 180 degrees, with an axis 0 to 90.

    Raises:
        DepthcellError: (`NOT_MEASURED`) a feature is not there or has no direction.
    """
    first, second = (features.found(name) for name in section.between)
    for found in (first, second):
        if isinstance(found.element, Sphere):
            raise not_measured(section.name, f"feature '{found.name}' is a sphere and has no direction")
        if isinstance(found.element, Circle):
            why = f"feature '{found.name}' is a circle, whose axis is taken from the recipe; name its cylinder"
            raise not_measured(section.name, why)
    along, onto = direction(first.element), direction(second.element)
    folded = not (isinstance(first.element, Plane) and isinstance(second.element, Plane)) and along @ onto < 0
    turned = -1.0 if folded else 1.0
    aside = turned * (onto - (onto @ along) * along)
    sine = float(np.linalg.norm(aside))
    aside = aside / sine if sine > ALIGNED else across(along)[0]
    obtuse = turned * (along @ onto) < 0

    def angle(elements: Sequence[Element]) -> float:
        """In the plane of the two directions, where it is smooth even when they are parallel."""
        a, b = direction(elements[0]), turned * direction(elements[1])
        side = aside - (aside @ a) * a
        rise, run = float(b @ side) / float(np.linalg.norm(side)), float(b @ a)
        return math.pi - math.atan2(rise, -run) if obtuse else math.atan2(rise, run)

    value, influence = answered(angle, (first, second))
    note = (
        f"{kind_of(first)} '{first.name}' to {kind_of(second)} '{second.name}', least squares, {counted(first, second)}"
    )
    return Reading(abs(value), Quantity.ANGLE, influence, (first.drawn, second.drawn), note)


def measure_coordinate(section: CoordinateGauge, scan: Scan, features: Features) -> Reading:
    """Where a feature lies along a direction d, from the origin of the frame "part".

        centre   c . d
        axis     x . d, x where the axis passes the plane through its nominal place, across its nominal direction
        plane    x . d, x where the line along d through the plane's nominal place passes it

    With datums, first the part is put so that they lie where they belong (see `location`); then its pose plays no part
    in what they hold.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature or a datum is not there, or has no place along d.
    """
    feature, along = features.found(section.feature), unit_vector(section.direction)
    nominal, _ = nominal_surface(feature.section)
    _check_has_place(section.name, feature, along)
    held = Held.by(section.datums, features)
    value, influence = held_value(
        lambda element: float(place_along(element, nominal, along) @ along), feature, held, scan
    )
    note = f"{kind_of(feature)} '{feature.name}', least squares, {held.words}, {counted(feature)}"
    return Reading(value, Quantity.LENGTH, influence, (feature.drawn, *held.drawn), note)


def _check_has_place(gauge: str, feature: Found, along: np.ndarray) -> None:
    element = feature.element
    if isinstance(element, Line):
        raise not_measured(gauge, f"feature '{feature.name}' is a line on a face; name the plane it lies on")
    if isinstance(element, Sphere):
        return
    cosine = abs(float(direction(element) @ along))
    if (cosine < ALONG) if isinstance(element, Plane) else (cosine > ALONG):
        raise not_measured(gauge, f"{kind_of(feature)} '{feature.name}' does not say where it lies along direction")


def _height(elements: Sequence[Element]) -> float:
    over, face = elements
    foot, place = ends_between(over, face)
    return float((place - foot) @ direction(over))


def measure_diameter(section: DiameterGauge, _: Scan, features: Features) -> Reading:
    """Diameter of a cylinder, circle or sphere: twice the radius of its associated element (ISO 14405-1).

    By least squares ("GG") it is a mean over all points. The largest inscribed ("GX") and the smallest circumscribed
    ("GN") rest on the few points that touch, and answer to their noise: with optical points GX comes out too small and
    GN too large.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature is not there, is not round, or was seen over less than half of its
            turn where `criterion` is not least squares.
    """
    _check_is_round(section.name, features.found(section.feature))
    feature = features.found(section.feature, section.criterion)
    value, influence = answered(_diameter, (feature,))
    note = f"{section.criterion} {kind_of(feature)} '{feature.name}', {counted(feature)}"
    return Reading(value, Quantity.LENGTH, influence, (feature.drawn,), note)


def _diameter(elements: Sequence[Element]) -> float:
    element = elements[0]
    return 0.0 if isinstance(element, Plane | Line) else 2.0 * element.radius_m


def _check_is_round(gauge: str, feature: Found) -> None:
    if isinstance(feature.element, Plane | Line):
        raise not_measured(gauge, f"feature '{feature.name}' is a {kind_of(feature)} and has no diameter")
