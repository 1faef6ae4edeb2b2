"""Profile of a surface and of a line against the reference (ISO 1660:2017; ISO 1101:2017, 17.8 and 17.9).

The zone lies on both sides of the nominal surface alike, so its width is twice the largest deviation. The part is held
by its alignment, a best fit to the whole reference, or by datums.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.extraction import FEWEST, Features, points_in_box, why_unseen
from depthcell.inspect.gauges.formnoise import ZoneCriterion
from depthcell.inspect.gauges.location import DatumSystem, of_held_points
from depthcell.inspect.gauges.reading import Drawn, Reading, not_measured
from depthcell.inspect.gauges.zone import farthest
from depthcell.inspect.gauges.zonenoise import Zoned, zone_reading
from depthcell.inspect.gaugesections import LineProfileGauge, SurfaceProfileGauge
from depthcell.inspect.section import metres, unit_vector

FACING = 0.5
"""Cosine between a point's normal and the reference's nearest face below which the point belongs to another face."""


def measure_profile_surface(section: SurfaceProfileGauge, scan: Scan, features: Features) -> Reading:
    """Profile of the surface in a box: twice the largest distance of its points from the reference.

    Raises:
        DepthcellError: (`NOT_MEASURED`) no reference, no point in the box, or a datum is not there.
    """
    reference = _reference(section.name, scan)
    points = points_in_box(section.min_mm, section.max_mm, scan.points_part)
    return _profile(section, points, (), reference, scan, features)


def measure_profile_line(section: LineProfileGauge, scan: Scan, features: Features) -> Reading:
    """Profile of the line in which a plane cuts the surface: of points within half of `width_mm` of the plane.

    Raises:
        DepthcellError: (`NOT_MEASURED`) no reference, no point near the section, or a datum is not there.
    """
    reference = _reference(section.name, scan)
    points = points_in_box(section.min_mm, section.max_mm, scan.points_part)
    off_m = (scan.points_part[points] - metres(section.point_mm)) @ unit_vector(section.normal)
    points = points[np.abs(off_m) <= section.width_mm / 2e3]
    return _profile(section, points, unit_vector(section.normal), reference, scan, features)


def _reference(gauge: str, scan: Scan) -> Reference:
    if scan.reference is None:
        raise not_measured(
            gauge, "a profile is measured from the reference, and the scan has none; name reference.mesh"
        )
    return scan.reference


def _profile(
    section: SurfaceProfileGauge | LineProfileGauge,
    points: NDArray[np.intp],
    across_line: Sequence[float] | NDArray[np.float64],
    reference: Reference,
    scan: Scan,
    features: Features,
) -> Reading:
    system = DatumSystem.of(section.datums, features)
    placement = system.placement([one.element for one in system.found])
    if len(points) == 0:
        raise not_measured(section.name, why_unseen(section.min_mm, section.max_mm, scan))
    lift_m, outward = reference.signed_distance_and_gradient(placement @ scan.points_part[points])
    facing = np.einsum("ij,ij->i", outward, np.asarray(placement.rotate(scan.normals_part[points])))
    kept = facing >= FACING
    if kept.sum() < FEWEST:
        why = f"{len(points)} points in its box, {int(kept.sum())} of them facing as the reference does; needs {FEWEST}"
        raise not_measured(section.name, why)
    points, lift_m, outward = points[kept], lift_m[kept], outward[kept]
    outward = outward / np.maximum(np.linalg.norm(outward, axis=1), 1e-9)[:, None]
    normals = np.asarray(placement.inverse().rotate(outward), dtype=np.float64)
    zoned = Zoned(points, lift_m, normals, np.zeros((0, len(points))), ZoneCriterion.FARTHEST)
    others = of_held_points(scan.points_part[points], outward, farthest(lift_m).gradient, system, scan)
    kind = "section" if len(across_line) else "surface"
    how = f"twice the farthest of {len(points)} points of the {kind} from the reference, {_held(system)}"
    shown = Drawn(kind, points, lift_m=lift_m)
    return zone_reading(zoned, scan, (shown, *(one.drawn for one in system.found)), how, others)


def _held(system: DatumSystem) -> str:
    return system.words if system.found else "best fit of the whole part"
