"""Which points of a feature are its surface: all but those that lie alone off it; and how far those off it reach.

An element is associated with outliers left out, so that a burr does not tilt a plane. A form deviation is about that
burr. What tells it from a flying pixel is company: a flyer's neighbours lie on the surface, a burr's are of the burr.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from depthcell.fusion.association.misfit import misfit
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.edges import edge_margin_m, off_edges
from depthcell.inspect.gauges.extraction import Found, points_in_box
from depthcell.inspect.gauges.nominal import nominal_surface
from depthcell.inspect.gauges.reading import not_measured

LENGTHS, SPACINGS = 1.5, 3.0
"""Neighbours are looked at within so many correlation lengths of the noise, and within so many distances of points."""
COMPANY = 0.4
"""Share of a point's neighbours that must be off the surface as it is, for it not to be alone."""
FEWEST = 3
OFF = 5.0
"""Points off a form by so many times its points' scatter are looked at one by one: means over cells would hide them."""
FARTHEST_SHARE = 0.25
"""Of points in company on one side, the median of the farthest so many says how far they reach."""
ROUNDS = 5
STANDS_OFF_MM = 5.0
"""So far around a feature's box is looked for what stands off its face."""
ON_FACE_M = 5e-5
LEFT_OUT, TOGETHER_M = 8, 1.5e-3
"""So many points together off a face, each with as many within this distance, are something."""


@dataclass(frozen=True, slots=True)
class Excursion:
    """Where a surface leaves its form in a place too small for the means over cells.

    Attributes:
        above_m, below_m: how far it reaches out of the material and into it, both positive; 0 where it does not.
        points: that show it.
    """

    above_m: float
    below_m: float
    points: NDArray[np.intp]


def surface_of(found: Found, scan: Scan) -> NDArray[np.intp]:
    """Points of a feature's surface, ascending indices into the cloud: those used, and outliers in company.

    Args:
        found: the feature.
        scan: the part.

    Raises:
        DepthcellError: (`NOT_MEASURED`) part of the face stands so far off that it is not among the feature's points.
    """
    _check_nothing_left_out(found, scan)
    outlying = np.ones(len(found.points), np.bool_)
    outlying[found.associated.used] = False
    return found.points[~outlying | _in_company(found.points, outlying, scan)]


def _check_nothing_left_out(found: Found, scan: Scan) -> None:
    """A burr higher than `capture_mm`, or as steep as a wall, is no point of the feature, and yet it is of its face.

    Of the face is what has its foot on the reference where the feature lies nominally, off every edge.
    """
    section = found.section
    if scan.reference is None:
        return
    reach_mm = max(STANDS_OFF_MM, 2 * section.capture_mm)
    near = points_in_box(
        [low - reach_mm for low in section.min_mm], [high + reach_mm for high in section.max_mm], scan.points_part
    )
    near = np.setdiff1d(near, found.points, assume_unique=True)
    lift_m, outward = scan.reference.signed_distance_and_gradient(scan.points_part[near])
    away = np.abs(lift_m) > section.capture_mm / 2e3
    near, lift_m, outward = near[away], lift_m[away], outward[away]
    if len(near) < LEFT_OUT:
        return
    feet = scan.points_part[near] - lift_m[:, None] * outward
    surface, side = nominal_surface(section)
    at = misfit(surface, feet, side)
    of_face = np.abs(at.residual_m) < ON_FACE_M
    of_face[np.setdiff1d(np.arange(len(feet)), points_in_box(section.min_mm, section.max_mm, feet))] = False
    margin_m = edge_margin_m(None, scan, found.points)
    of_face[of_face] &= off_edges(scan.reference, feet[of_face], at.normals[of_face], margin_m)
    if of_face.sum() < LEFT_OUT:
        return
    places = scan.points_part[near[of_face]]
    neighbours = KDTree(places).query_ball_point(places, max(margin_m, TOGETHER_M), return_length=True)
    together = np.asarray(neighbours) >= LEFT_OUT
    if together.any():
        worst_mm = 1e3 * float(lift_m[of_face][together][np.argmax(np.abs(lift_m[of_face][together]))])
        raise not_measured(
            f"feature '{found.name}'",
            f"{int(together.sum())} points over its face lie up to {worst_mm:+.1f} mm off the reference, farther than "
            f"capture_mm {section.capture_mm:g} or too steep to be of it; widen capture_mm and its box, or reject the "
            "part",
        )


def excursion_of(
    scan: Scan, points: NDArray[np.intp], residual_m: NDArray[np.float64], motions: NDArray[np.float64]
) -> Excursion | None:
    """What stands out of a form in company, or None.

    The form is taken for what the motions can do, fitted to the points near it (least squares, `ROUNDS` times with
    what lies beyond `OFF` scatters left out).

    Args:
        scan: the part.
        points: (K,) of the surface.
        residual_m: (K,) of each.
        motions: (P, K) what a unit of each motion that is free adds to the residuals.
    """
    basis = np.vstack((np.ones(len(points)), motions)).T
    near, off_m = np.ones(len(points), np.bool_), residual_m
    sigma_m = float(np.median(scan.cloud.random_sigma_m[points]))
    for _ in range(ROUNDS):
        off_m = residual_m - basis @ np.linalg.lstsq(basis[near], residual_m[near], rcond=None)[0]
        limit_m = OFF * max(1.4826 * float(np.median(np.abs(off_m))), sigma_m)
        near = np.abs(off_m) <= limit_m
    company = _in_company(points, ~near, scan)
    if company.sum() < FEWEST:
        return None
    above, below = (_reach_m(sign * off_m[company]) for sign in (1.0, -1.0))
    return Excursion(above, below, points[company])


def _reach_m(off_m: NDArray[np.float64]) -> float:
    """How far points on one side reach; 0 where there are fewer than `FEWEST`."""
    beyond = np.sort(off_m[off_m > 0])
    if len(beyond) < FEWEST:
        return 0.0
    return float(np.median(beyond[-max(FEWEST, int(FARTHEST_SHARE * len(beyond))) :]))


def _in_company(points: NDArray[np.intp], outlying: NDArray[np.bool_], scan: Scan) -> NDArray[np.bool_]:
    """(K,) which of the outlying points have neighbours that are outlying too."""
    kept = np.zeros(len(points), np.bool_)
    if not outlying.any():
        return kept
    places = scan.points_part[points]
    tree = KDTree(places)
    spacing_m = float(np.median(np.asarray(tree.query(places[:: math.ceil(len(places) / 500)], k=2)[0])[:, 1]))
    reach_m = max(LENGTHS * float(np.median(scan.cloud.correlation_m[points])), SPACINGS * spacing_m)
    for point in np.flatnonzero(outlying):
        near = np.asarray(tree.query_ball_point(places[point], reach_m), dtype=np.intp)
        others = int(outlying[near].sum()) - 1
        kept[point] = others >= FEWEST and others >= COMPANY * (len(near) - 1)
    return kept
