"""Profile of a surface and of a line against the reference (ISO 1660:2017; ISO 1101:2017, 17.8 and 17.9).

The zone lies on both sides of the nominal surface alike, so its width is twice the largest deviation. The part is held
by its alignment, a best fit to the whole reference, or by datums.
"""

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.influence import Influence
from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.edges import edge_margin_m, in_patches, off_edges
from depthcell.inspect.gauges.extraction import FEWEST, Features, points_in_box, why_unseen
from depthcell.inspect.gauges.formnoise import ZoneCriterion
from depthcell.inspect.gauges.location import Held, by_twist_of_points
from depthcell.inspect.gauges.reading import Drawn, Reading, not_measured
from depthcell.inspect.gauges.zonenoise import Zoned, zone_reading
from depthcell.inspect.gaugesections import LineProfileGauge, SurfaceProfileGauge
from depthcell.inspect.section import metres, unit_vector

FACING = 0.5
"""Cosine between a point's normal and the reference's nearest face below which the point belongs to another face."""
SHOWN = 0.1


def measure_profile_surface(section: SurfaceProfileGauge, scan: Scan, features: Features) -> Reading:
    """Profile of the surface in a box: twice the largest distance of its points from the reference.

    Raises:
        DepthcellError: (`NOT_MEASURED`) no reference, no point in the box, or a datum is not there.
    """
    reference = _reference(section.name, scan)
    points = points_in_box(section.min_mm, section.max_mm, scan.points_part)
    return _profile(section, points, reference, scan, features)


def measure_profile_line(section: LineProfileGauge, scan: Scan, features: Features) -> Reading:
    """Profile of the line in which a plane cuts the surface: of points within half of `width_mm` of the plane.

    Raises:
        DepthcellError: (`NOT_MEASURED`) no reference, no point near the section, or a datum is not there.
    """
    reference = _reference(section.name, scan)
    points = points_in_box(section.min_mm, section.max_mm, scan.points_part)
    off_m = (scan.points_part[points] - metres(section.point_mm)) @ unit_vector(section.normal)
    points = points[np.abs(off_m) <= section.width_mm / 2e3]
    return _profile(section, points, reference, scan, features)


def _reference(gauge: str, scan: Scan) -> Reference:
    if scan.reference is None:
        raise not_measured(
            gauge, "a profile is measured from the reference, and the scan has none; name reference.mesh"
        )
    return scan.reference


def _profile(
    section: SurfaceProfileGauge | LineProfileGauge,
    points: NDArray[np.intp],
    reference: Reference,
    scan: Scan,
    features: Features,
) -> Reading:
    if len(points) == 0:
        raise not_measured(section.name, why_unseen(section.min_mm, section.max_mm, scan))
    held = Held.by(section.datums, features)
    points_datum = np.asarray(held.T_datum_part @ scan.points_part[points], dtype=np.float64)
    lift_m, outward = reference.signed_distance_and_gradient(points_datum)
    facing = np.einsum("ij,ij->i", outward, np.asarray(held.T_datum_part.rotate(scan.normals_part[points])))
    outward = outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    kept = facing >= FACING
    if section.edge_mm != 0:
        margin_m = edge_margin_m(section.edge_mm, scan, points)
        kept &= off_edges(reference, points_datum - lift_m[:, None] * outward, outward, margin_m)
        kept[kept] = in_patches(points_datum[kept], edge_margin_m(None, scan, points), FEWEST)
    if kept.sum() < FEWEST:
        why = (
            f"{len(points)} points in its box, {int(kept.sum())} of them facing as the reference does and off its "
            f"edges; needs {FEWEST}"
        )
        raise not_measured(section.name, why)
    points, points_datum, lift_m, outward = points[kept], points_datum[kept], lift_m[kept], outward[kept]
    normals = np.asarray(held.T_datum_part.inverse().rotate(outward), dtype=np.float64)
    still, loose = np.zeros((0, len(points))), _motions(points_datum, outward)

    def others(weight: NDArray[np.float64]) -> Influence:
        return held.influence(by_twist_of_points(points_datum, outward, weight), scan)

    zoned = Zoned(scan, points, lift_m, normals, still, ZoneCriterion.FARTHEST, loose, others)
    kind = "surface" if isinstance(section, SurfaceProfileGauge) else "section"
    words = held.words if held.frame is not None else "best fit of the whole part"
    how = f"twice the farthest of {len(points)} points of the {kind} from the reference, {words}"
    return zone_reading(zoned, (Drawn(kind, points, lift_m=lift_m), *held.drawn), how)


def _motions(points: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, K) what those motions of the whole surface that show do to its points, besides lifting all alike.

    Of the six motions of a rigid body those that move the points by more than `SHOWN` of the most.
    """
    apart = points - points.mean(axis=0)
    reach_m = float(np.sqrt(np.square(apart).sum(axis=1).mean()))
    rows = np.hstack((np.cross(apart, normals) / reach_m, normals)).T
    rows = rows - rows.mean(axis=1, keepdims=True)
    u, size, _ = np.linalg.svd(rows @ rows.T)
    shown = size > SHOWN**2 * max(float(size[0]), 1e-3 * len(points))
    return np.asarray(u[:, shown].T @ rows)
