"""Parallelism, perpendicularity and angularity of faces and axes to a datum (ISO 1101:2017, 17.11 to 17.13).

Each holds the direction of the feature at an angle `w` to that of the datum, a plane's direction being its normal:

    tolerance            plane to plane, axis to axis     plane to axis, axis to plane
    parallelism          0                                90
    perpendicularity     90                               0
    angularity by A      A                                90 - A

A face is held by two parallel planes whose normal n stands at `w` to the datum: the width is that of its points along
n, the narrowest of all n at that angle (for `w` = 0 there is but one). By least squares n is the nearest to the face's
own plane. An axis is the associated one, over the stretch L on which its surface was seen. Along the datum (`w` = 0) it
is held by a cylinder: its diameter is `L sin a`, a the angle between them; else by two parallel planes at
`L |sin(a - w)|`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.association.elements import Circle, Element, Line, Plane, Sphere, across
from depthcell.fusion.association.minimumzone import MINIMUM_ZONE
from depthcell.fusion.association.orientedzone import zone_between_planes
from depthcell.fusion.influence import Influence
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.construction import counted, direction, kind_of, middle
from depthcell.inspect.gauges.extraction import Features, Found
from depthcell.inspect.gauges.formnoise import ZoneCriterion
from depthcell.inspect.gauges.nearzero import near_zero_u
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading, not_measured
from depthcell.inspect.gauges.response import answered
from depthcell.inspect.gauges.surfacepoints import surface_of
from depthcell.inspect.gauges.zonenoise import Zoned, zone_reading
from depthcell.inspect.gaugesections import AngularityGauge, ParallelismGauge, PerpendicularityGauge

OrientationGauge = ParallelismGauge | PerpendicularityGauge | AngularityGauge

ALONG_DATUM = 1e-9
"""Sine of an angle to the datum below which the zone has one direction only."""


def measure_parallelism(section: ParallelismGauge, scan: Scan, features: Features) -> Reading:
    """Parallelism to a datum: `w` is 0, between a plane and an axis 90 degrees.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature or the datum is not there, or has no direction.
    """
    return _oriented(section, 0.0, scan, features)


def measure_perpendicularity(section: PerpendicularityGauge, scan: Scan, features: Features) -> Reading:
    """Perpendicularity to a datum: `w` is 90 degrees, between a plane and an axis 0.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature or the datum is not there, or has no direction.
    """
    return _oriented(section, 90.0, scan, features)


def measure_angularity(section: AngularityGauge, scan: Scan, features: Features) -> Reading:
    """Angularity to a datum: `w` is `angle_deg`, between a plane and an axis 90 degrees less it.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature or the datum is not there, or has no direction.
    """
    return _oriented(section, section.angle_deg, scan, features)


def _oriented(section: OrientationGauge, angle_deg: float, scan: Scan, features: Features) -> Reading:
    feature, datum = features.found(section.feature), features.datum(section.datum)
    _check_has_direction(section.name, feature, f"feature '{feature.name}'")
    _check_has_direction(section.name, datum, f"datum '{section.datum}'")
    mixed = isinstance(feature.element, Plane) != isinstance(datum.element, Plane)
    wanted_rad = math.radians(90.0 - angle_deg if mixed else angle_deg)
    if isinstance(feature.element, Plane):
        return _of_face(section, feature, datum, wanted_rad, scan)
    return _of_axis(section, feature, datum, wanted_rad, scan)


def _check_has_direction(gauge: str, found: Found, what: str) -> None:
    if isinstance(found.element, Circle | Sphere | Line):
        raise not_measured(
            gauge, f"{what} is a {kind_of(found)}, which has no direction of its own; name a face or cylinder"
        )


def _of_face(section: OrientationGauge, feature: Found, datum: Found, wanted_rad: float, scan: Scan) -> Reading:
    used, held = surface_of(feature, scan), direction(datum.element)
    points = scan.points_part[used]
    normal = _zone_normal(points, direction(feature.element), held, wanted_rad, section.criterion)
    apart = points - points.mean(axis=0)
    turning = (apart @ np.cross(held, normal))[None]
    leans = apart @ np.array(across(normal)).T
    if section.criterion == MINIMUM_ZONE and abs(math.sin(wanted_rad)) > ALONG_DATUM:
        motions, kept = turning, (apart @ np.cross(normal, np.cross(held, normal)))[None]
    else:
        motions, kept = np.zeros((0, len(points))), leans.T
    normals = np.broadcast_to(normal, points.shape)
    turned_alone = section.criterion == MINIMUM_ZONE or abs(math.sin(wanted_rad)) < ALONG_DATUM

    def by_normal(elements: Sequence[Element], place: NDArray[np.float64]) -> float:
        """The zone's normal turned as the datum turns; the points on its borders stay (envelope theorem)."""
        turned = np.cross(held, direction(elements[0]))
        return float(place @ (normal + np.cross(turned, normal)))

    def by_nearest(elements: Sequence[Element], place: NDArray[np.float64]) -> float:
        """The same where the zone's normal keeps nearest to the face's own, which then counts as well."""
        return float(place @ _nearest(direction(elements[1]), direction(elements[0]), wanted_rad))

    def others(weight: NDArray[np.float64]) -> Influence:
        place = weight @ points
        if turned_alone:
            return answered(partial(by_normal, place=place), (datum,))[1]
        return answered(partial(by_nearest, place=place), (datum, feature))[1]

    zoned = Zoned(scan, used, apart @ normal, normals, motions, ZoneCriterion.MINIMUM, kept, others)
    how = f"{section.criterion} over {len(used)} points of '{feature.name}', datum {section.datum} least squares"
    drawn = (Drawn(feature.name, used, Plane(middle(feature.element), normal), lift_m=zoned.residual_m), datum.drawn)
    return zone_reading(zoned, drawn, how)


def _zone_normal(
    points: NDArray[np.float64],
    normal: NDArray[np.float64],
    held: NDArray[np.float64],
    wanted_rad: float,
    criterion: str,
) -> NDArray[np.float64]:
    """(3,) normal of the zone's planes; the datum's direction taken in that sense which suits the face better."""
    held = _sense(normal, held, wanted_rad) * held
    if criterion == MINIMUM_ZONE:
        return direction(zone_between_planes(points, Plane(points.mean(axis=0), normal), held, wanted_rad).middle)
    return _nearest(normal, held, wanted_rad)


def _sense(normal: NDArray[np.float64], held: NDArray[np.float64], wanted_rad: float) -> float:
    off = [abs(math.acos(np.clip(sense * float(normal @ held), -1, 1)) - wanted_rad) for sense in (1.0, -1.0)]
    return 1.0 if off[0] <= off[1] else -1.0


def _nearest(normal: NDArray[np.float64], held: NDArray[np.float64], wanted_rad: float) -> NDArray[np.float64]:
    """(3,) nearest to a face's normal of all that stand at the angle to the datum's direction."""
    held = _sense(normal, held, wanted_rad) * held
    aside = normal - (normal @ held) * held
    if np.linalg.norm(aside) < ALONG_DATUM:
        aside = across(held)[0]
    return np.asarray(math.cos(wanted_rad) * held + math.sin(wanted_rad) * aside / np.linalg.norm(aside))


def _of_axis(section: OrientationGauge, feature: Found, datum: Found, wanted_rad: float, scan: Scan) -> Reading:
    low_m, high_m = stretch(feature, scan)
    stretch_m, along = high_m - low_m, direction(feature.element)
    value, influence = answered(_axis_value(feature.element, datum.element, wanted_rad, stretch_m), (feature, datum))
    extra: tuple[tuple[str, float], ...] = ()
    if abs(math.sin(wanted_rad)) < ALONG_DATUM:
        sides = across(direction(datum.element))
        both = [answered(partial(_off_axis, way=way, stretch_m=stretch_m), (feature, datum))[1] for way in sides]
        extra = near_zero_u(abs(value), influence, [both], scan)
    ends = middle(feature.element) + np.array([[low_m], [high_m]]) * along
    axis = Drawn(
        f"axis of {feature.name}", np.zeros(0, np.intp), Line(middle(feature.element), along), segment_part=ends
    )
    note = (
        f"axis of '{feature.name}' over {stretch_m * 1e3:.1f} mm, datum {section.datum}, both least squares, "
        f"{counted(feature, datum)}"
    )
    drawn, signed = (feature.drawn, axis, datum.drawn), influence.scaled(math.copysign(1, value))
    return Reading(abs(value), Quantity.LENGTH, signed, drawn, note, extra_u=extra)


def stretch(feature: Found, scan: Scan) -> tuple[float, float]:
    """From where to where along its axis a feature's points were seen, metres from the middle of its element."""
    height = (scan.points_part[feature.used] - middle(feature.element)) @ direction(feature.element)
    return float(height.min()), float(height.max())


def _axis_value(
    feature: Element, datum: Element, wanted_rad: float, stretch_m: float
) -> Callable[[Sequence[Element]], float]:
    """How far an axis leaves its direction over its stretch, smooth where it is; its sign says to which side."""
    along, held = direction(feature), direction(datum)
    sense = 1.0 if along @ held >= 0 else -1.0
    if abs(math.sin(wanted_rad)) > ALONG_DATUM:

        def across_zone(elements: Sequence[Element]) -> float:
            a, d = direction(elements[0]), sense * direction(elements[1])
            return stretch_m * math.sin(math.atan2(float(np.linalg.norm(np.cross(a, d))), float(a @ d)) - wanted_rad)

        return across_zone
    aside = along - (along @ held) * held
    size = float(np.linalg.norm(aside))
    return partial(_off_axis, way=aside / size if size > ALONG_DATUM else across(held)[0], stretch_m=stretch_m)


def _off_axis(elements: Sequence[Element], way: NDArray[np.float64], stretch_m: float) -> float:
    """How far an axis leaves the datum's direction over its stretch, seen one way across it."""
    a, d = direction(elements[0]), direction(elements[1])
    return stretch_m * float((a - (a @ d) * d) @ way)
