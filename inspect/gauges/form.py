"""Flatness, straightness, roundness and cylindricity: the narrowest zone of the feature's own kind about its points.

By minimum zone (ISO 1101 criterion "C", the default of the standard) the zone's width is the least there is; by least
squares ("G") it is the peak-to-valley of the distances from the least-squares element. Lone outliers take no part,
those in company do: see `surfacepoints`.
"""

from collections.abc import Sequence

import numpy as np

from depthcell.fusion.association.elements import Circle, Cylinder, Line, Plane
from depthcell.fusion.association.minimumzone import MINIMUM_ZONE
from depthcell.fusion.association.misfit import Surface, misfit
from depthcell.fusion.scan import Scan
from depthcell.inspect.featuresections import LineFeature
from depthcell.inspect.gauges.construction import kind_of
from depthcell.inspect.gauges.extraction import Features, Found
from depthcell.inspect.gauges.formnoise import ZoneCriterion
from depthcell.inspect.gauges.median_line import measure_median_line
from depthcell.inspect.gauges.nominal import nominal_surface
from depthcell.inspect.gauges.reading import Drawn, Reading, not_measured
from depthcell.inspect.gauges.surfacepoints import surface_of
from depthcell.inspect.gauges.zonenoise import Zoned, zone_reading
from depthcell.inspect.gaugesections import CylindricityGauge, FlatnessGauge, RoundnessGauge, StraightnessGauge
from depthcell.inspect.section import unit_vector

LEANS_OF_PLANE = (1, 2)
SHIFTS_OF_CIRCLE = (0, 1)
MOTIONS_OF_CYLINDER = (0, 1, 2, 3)


def measure_flatness(section: FlatnessGauge, scan: Scan, features: Features) -> Reading:
    """Flatness (ISO 12781-1): the least distance of two parallel planes that hold the points, over all normals.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature is not there or is no plane.
    """
    feature = features.found(section.feature, section.criterion)
    element = feature.element
    if not isinstance(element, Plane):
        raise not_measured(section.name, f"feature '{feature.name}' is a {kind_of(feature)}; flatness is of a plane")
    return _form(section, feature, element, LEANS_OF_PLANE, scan)


def measure_roundness(section: RoundnessGauge, scan: Scan, features: Features) -> Reading:
    """Roundness (ISO 12181-1): the least difference of radii of two concentric circles that hold the points.

    The points are those of a circle feature, seen along its axis.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature is not there or is no circle.
    """
    feature = features.found(section.feature, section.criterion)
    element = feature.element
    if not isinstance(element, Circle):
        why = f"feature '{feature.name}' is a {kind_of(feature)}; roundness is of a circle: a ring of a wall"
        raise not_measured(section.name, why)
    wall = Cylinder(element.centre, element.axis, element.radius_m)
    return _form(section, feature, wall, SHIFTS_OF_CIRCLE, scan)


def measure_cylindricity(section: CylindricityGauge, scan: Scan, features: Features) -> Reading:
    """Cylindricity (ISO 12180-1): the least difference of radii of two coaxial cylinders that hold the points.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature is not there or is no cylinder.
    """
    feature = features.found(section.feature, section.criterion)
    element = feature.element
    if not isinstance(element, Cylinder):
        raise not_measured(section.name, f"feature '{feature.name}' is a {kind_of(feature)}; name a cylinder")
    return _form(section, feature, element, MOTIONS_OF_CYLINDER, scan)


def measure_straightness(section: StraightnessGauge, scan: Scan, features: Features) -> Reading:
    """Straightness (ISO 12780-1) of a profile: the least distance of two parallel lines that hold its points.

    The profile is that of a line feature, seen across its direction and the face's normal. Of a cylinder it is the
    straightness of its median line, see `median_line`.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature is not there, or is neither a line nor a cylinder.
    """
    feature = features.found(section.feature, section.criterion)
    element, wanted = feature.element, feature.section
    if isinstance(element, Cylinder):
        feature = features.found(section.feature)
        return measure_median_line(section, feature, element, scan)
    if not (isinstance(element, Line) and isinstance(wanted, LineFeature)):
        why = f"feature '{feature.name}' is a {kind_of(feature)}; straightness is of a line, or of a cylinder's middle"
        raise not_measured(section.name, why)
    facing = unit_vector(wanted.normal)
    normal = facing - (facing @ element.direction) * element.direction
    normal /= np.linalg.norm(normal)
    points = surface_of(feature, scan)
    apart = scan.points_part[points] - element.point
    motions = np.stack((-np.ones(len(apart)), -(apart @ element.direction)))
    if section.criterion == MINIMUM_ZONE:
        motions = motions[1:]
    normals = np.broadcast_to(normal, apart.shape)
    zoned = Zoned(scan, points, apart @ normal, normals, motions, ZoneCriterion(section.criterion))
    shown = Drawn(feature.name, points, element, lift_m=apart @ normal)
    return zone_reading(zoned, (shown,), _how(section.criterion, feature, len(points)))


FormGauge = FlatnessGauge | RoundnessGauge | CylindricityGauge


def _form(section: FormGauge, feature: Found, start: Surface, rows: Sequence[int], scan: Scan) -> Reading:
    _, side = nominal_surface(feature.section)
    points = surface_of(feature, scan)
    at = misfit(start, scan.points_part[points], side)
    motions = at.jacobian[list(rows)] if section.criterion == MINIMUM_ZONE else at.jacobian
    zoned = Zoned(scan, points, at.residual_m, at.normals, motions, ZoneCriterion(section.criterion))
    shown = Drawn(feature.name, points, feature.element, lift_m=at.residual_m)
    return zone_reading(zoned, (shown,), _how(section.criterion, feature, len(points)))


def _how(criterion: str, feature: Found, count: int) -> str:
    return f"{criterion} over {count} points of '{feature.name}'"
