"""The points of a feature (ISO 17450-1: extraction), and the element associated with them, once for all gauges.

A point belongs to a feature when it lies in its box, within `capture_mm` of its nominal surface, and its own normal
agrees with that surface's within `AGREE_DEG`. Nothing is filled in: what no camera saw is missing, and said to be.
"""

import difflib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.elements import Associated, Circle, Cylinder, Element, Plane, Sphere
from depthcell.fusion.association.leastsquares import (
    LEAST_SQUARES,
    fit_circle,
    fit_cylinder,
    fit_line,
    fit_plane,
    fit_sphere,
)
from depthcell.fusion.association.minimumzone import (
    CIRCUMSCRIBED,
    INSCRIBED,
    MINIMUM_ZONE,
    circumscribed,
    inscribed,
    zone_circle,
    zone_cylinder,
    zone_line,
    zone_plane,
    zone_sphere,
)
from depthcell.fusion.association.misfit import Surface, misfit
from depthcell.fusion.influence import Influence
from depthcell.fusion.scan import Scan
from depthcell.inspect.featuresections import (
    CircleFeature,
    CylinderFeature,
    DatumSection,
    FeatureSection,
    LineFeature,
    PlaneFeature,
    SphereFeature,
)
from depthcell.inspect.gauges.edges import edge_margin_m, off_edges
from depthcell.inspect.gauges.nominal import nominal_surface
from depthcell.inspect.gauges.reading import Drawn, not_measured
from depthcell.inspect.section import metres, unit_vector

K = TypeVar("K", str, tuple[str, str])
T = TypeVar("T")

AGREE_DEG = 40.0
"""Largest angle between a point's normal and that of the nominal surface; measured normals are off by some degrees."""
FEWEST = 30
"""Points without which nothing is associated: fewer cannot show an outlier, nor the scatter of the others."""
FLAT_WIDTH = 5.0
"""A face must be so many times wider than its points' noise, or its normal is noise."""
SLENDER = 0.01
"""Width over length below which points of a face lie on a line."""
ARC_HEIGHT = 2.0
"""An arc must rise over its chord by so many times its points' noise, or its radius is noise."""
CLIPPED = 0.02
"""Share of a face's points that its box may cut off across the face; more, and what is left is a biased choice."""
SPREADS = 4.0
"""Points that lie within so many times the scatter of the middle belong to the face."""


def extract(feature: FeatureSection, scan: Scan) -> NDArray[np.intp]:
    """The points of a feature, as ascending indices into the scan's cloud.

    Raises:
        DepthcellError: (`NOT_MEASURED`) there are none, too few, or they do not determine the feature; the message says
            which, and what to do.
    """
    in_box = points_in_box(feature.min_mm, feature.max_mm, scan.points_part)
    if len(in_box) == 0:
        raise not_measured(f"feature '{feature.name}'", _why_empty(feature, scan))
    surface, side = nominal_surface(feature)
    at = misfit(surface, scan.points_part[in_box], side)
    near = np.abs(at.residual_m) <= feature.capture_mm / 1e3
    agree = np.einsum("ij,ij->i", at.normals, scan.normals_part[in_box]) >= math.cos(math.radians(AGREE_DEG))
    points = np.asarray(in_box[near & agree], dtype=np.intp)
    points = _away_from_edges(feature, surface, side, scan, points)
    if len(points) < FEWEST:
        raise not_measured(
            f"feature '{feature.name}'", _why_few(feature, len(in_box), at.residual_m, near, len(points))
        )
    _check_box(feature, surface, side, scan, points)
    _check_spread(feature, scan.points_part[points], float(np.median(scan.cloud.random_sigma_m[points])))
    return points


def _away_from_edges(
    feature: FeatureSection, surface: Surface, side: float, scan: Scan, points: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Those farther than `edge_mm` from where the reference leaves the nominal surface (see `edges`).

    Without a reference, or where it has no such face, nothing is known of edges, and all are kept.

    Raises:
        DepthcellError: (`NOT_MEASURED`) too few are left.
    """
    if scan.reference is None or len(points) < FEWEST or feature.edge_mm == 0:
        return points

    def onto(places: NDArray[np.float64]) -> NDArray[np.float64]:
        at = misfit(surface, places, side)
        return places - at.residual_m[:, None] * at.normals

    margin_m = edge_margin_m(feature.edge_mm, scan, points)
    feet = onto(scan.points_part[points])
    away = off_edges(scan.reference, feet, misfit(surface, feet, side).normals, margin_m, onto)
    away |= np.abs(scan.reference.signed_distance(feet)) > feature.capture_mm / 1e3
    if away.sum() < FEWEST:
        raise not_measured(
            f"feature '{feature.name}'",
            f"{len(points)} points, but only {int(away.sum())} farther than {margin_m * 1e3:.2g} mm from an edge, needs"
            f" {FEWEST}; nearer ones are shifted by the matching window; set edge_mm to keep them all the same",
        )
    return points[away]


def points_in_box(min_mm: Sequence[float], max_mm: Sequence[float], points_part: FloatArray) -> NDArray[np.intp]:
    """Which points (N, 3), metres, lie in a box of the frame "part", millimetres; ascending."""
    low, high = np.array(min_mm) / 1e3, np.array(max_mm) / 1e3
    inside = (points_part >= low) & (points_part <= high)
    return np.asarray(np.flatnonzero(inside[:, 0] & inside[:, 1] & inside[:, 2]), dtype=np.intp)


def why_unseen(min_mm: Sequence[float], max_mm: Sequence[float], scan: Scan) -> str:
    """Why a box holds no point: the part has no surface there, or no camera saw it."""
    cameras = ", ".join(scan.cell.cameras)
    if scan.reference is None:
        return f"no point in its box; no camera saw it (in the cell: {cameras}), or min_mm, max_mm miss the part"
    narrow_m = min(high - low for low, high in zip(min_mm, max_mm, strict=True)) / 1e3
    samples = scan.reference.surface_samples(min(max(narrow_m / 3, 2e-4), 2e-3))
    if len(points_in_box(min_mm, max_mm, samples.points_part)) == 0:
        return "its box is empty: the reference has no surface in it either; correct min_mm, max_mm (frame 'part', mm)"
    return f"no camera saw it: the reference has a surface in its box, but no point of {cameras} lies there"


def _why_empty(feature: FeatureSection, scan: Scan) -> str:
    return why_unseen(feature.min_mm, feature.max_mm, scan)


def _why_few(
    feature: FeatureSection, in_box: int, residual_m: NDArray[np.float64], near: NDArray[np.bool_], left: int
) -> str:
    if not near.any():
        nearest_mm = residual_m[np.argmin(np.abs(residual_m))] * 1e3
        return (
            f"{in_box} points in its box, but none within capture_mm {feature.capture_mm:g} of the nominal surface, "
            f"the nearest {nearest_mm:+.2f} mm off it; is the nominal place right, and the part where it belongs?"
        )
    if left == 0:
        field = "side" if isinstance(feature, CylinderFeature | CircleFeature | SphereFeature) else "normal"
        return (
            f"{int(near.sum())} points near the nominal surface, but all look another way by more than {AGREE_DEG:g} "
            f"degrees; check {field}, or no camera saw it"
        )
    return f"{left} points, needs at least {FEWEST}; widen its box, or let a camera see more of it"


def _check_box(feature: FeatureSection, surface: Surface, side: float, scan: Scan, points: NDArray[np.intp]) -> None:
    """The box must not end at the surface itself: what it cut off across would leave a biased choice.

    Looked at are points outside the box whose foot on the nominal surface lies inside.
    """
    reach_mm = feature.capture_mm
    wide = points_in_box(
        [low - reach_mm for low in feature.min_mm], [high + reach_mm for high in feature.max_mm], scan.points_part
    )
    wide = np.setdiff1d(wide, points_in_box(feature.min_mm, feature.max_mm, scan.points_part), assume_unique=True)
    if len(wide) == 0:
        return
    at = misfit(surface, scan.points_part[wide], side)
    feet = scan.points_part[wide] - at.residual_m[:, None] * at.normals
    inside = np.zeros(len(wide), np.bool_)
    inside[points_in_box(feature.min_mm, feature.max_mm, feet)] = True
    agree = np.einsum("ij,ij->i", at.normals, scan.normals_part[wide]) >= math.cos(math.radians(AGREE_DEG))
    chosen_m = misfit(surface, scan.points_part[points], side).residual_m
    middle_m = float(np.median(chosen_m))
    scatter_m = 1.4826 * float(np.median(np.abs(chosen_m - middle_m)))
    cut_off = inside & agree & (np.abs(at.residual_m - middle_m) < SPREADS * scatter_m)
    if cut_off.sum() > CLIPPED * len(points):
        raise not_measured(
            f"feature '{feature.name}'",
            f"its box cuts through the surface: {int(cut_off.sum())} points of it lie outside, {len(points)} inside; "
            "move min_mm, max_mm away from the surface, across it",
        )


def _check_spread(feature: FeatureSection, points: FloatArray, sigma_m: float) -> None:
    """Points must span what is to be found."""
    match feature:
        case PlaneFeature():
            short_m, long_m = np.sqrt(np.clip(np.linalg.eigvalsh(np.cov(points.T)), 0, None))[1:]
            if short_m < max(FLAT_WIDTH * sigma_m, SLENDER * long_m):
                why = f"its {len(points)} points lie on a line, {2e3 * short_m:.2g} mm wide; a plane needs an area"
                raise not_measured(f"feature '{feature.name}'", why)
        case CylinderFeature() | CircleFeature():
            arc_rad = _arc(feature, points)
            rise_m = feature.diameter_mm / 2e3 * (1 - math.cos(min(arc_rad, math.pi) / 2))
            if rise_m < ARC_HEIGHT * sigma_m:
                why = (
                    f"only {math.degrees(arc_rad):.0f} degrees of its turn were seen: an arc that rises by "
                    f"{rise_m * 1e3:.2g} mm, with noise of {sigma_m * 1e3:.2g} mm; let a camera see more of it"
                )
                raise not_measured(f"feature '{feature.name}'", why)
        case _:
            pass


def _arc(feature: CylinderFeature | CircleFeature, points: FloatArray) -> float:
    """Radians of the turn about the nominal axis within which all points lie."""
    axis = unit_vector(feature.axis)
    offset = points - metres(feature.position_mm)
    first = np.linalg.svd(axis[None])[2][1]
    turn = np.sort(np.arctan2(offset @ np.cross(axis, first), offset @ first))
    gaps = np.diff(turn, append=turn[0] + 2 * math.pi)
    return float(2 * math.pi - gaps.max())


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A feature as it was found on one part.

    Attributes:
        section: of the recipe.
        points: (N,) intp, its points in the cloud, ascending.
        associated: the element through them, in the frame "part"; its `used` are places in `points`.
    """

    section: FeatureSection
    points: NDArray[np.intp]
    associated: Associated

    @property
    def name(self) -> str:
        """As the recipe calls it."""
        return self.section.name

    @property
    def element(self) -> Element:
        """The associated element, frame "part"."""
        return self.associated.element

    @property
    def used(self) -> NDArray[np.intp]:
        """Its points without outliers, in the cloud, ascending."""
        return self.points[self.associated.used]

    def influence(self, slope: FloatArray) -> Influence:
        """Of a scalar that changes by `slope` (P,) per local coordinate of the element, without pose."""
        return Influence.of(self.used, np.asarray(slope) @ self.associated.gain)

    @property
    def drawn(self) -> Drawn:
        """Its points in the colours of their residuals, and its element."""
        return Drawn(self.name, self.used, self.element, lift_m=self.associated.residual_m)


class Features:
    """The features and datums of a recipe on one part, each looked for once, when it is first asked for.

    Args:
        scan: the part.
        features, datums: of the recipe.
    """

    def __init__(self, scan: Scan, features: Sequence[FeatureSection], datums: Sequence[DatumSection] = ()) -> None:
        self.scan = scan
        self._sections = {feature.name: feature for feature in features}
        self._datums = {datum.label: datum for datum in datums}
        self._points: dict[str, NDArray[np.intp] | DepthcellError] = {}
        self._found: dict[tuple[str, str], Found | DepthcellError] = {}

    def section(self, name: str) -> FeatureSection:
        """What the recipe says of a feature.

        Raises:
            DepthcellError: (`RECIPE_INVALID`) it does not say anything.
        """
        _known(name, self._sections, "feature.name")
        return self._sections[name]

    def points(self, name: str) -> NDArray[np.intp]:
        """A feature's points, ascending indices into the cloud; as `extract`."""
        return _once(self._points, name, lambda: extract(self.section(name), self.scan))

    def found(self, name: str, criterion: str = LEAST_SQUARES) -> Found:
        """A feature with its associated element, outliers left out.

        Args:
            name: of the feature.
            criterion: "least squares", "minimum zone", "maximum inscribed" or "minimum circumscribed".

        Raises:
            DepthcellError: as `extract`; or the points do not determine the element.
        """
        return _once(self._found, (name, criterion), lambda: self._associate(name, criterion))

    def associated(self, name: str, criterion: str = LEAST_SQUARES) -> Associated:
        """A feature's associated element; `used` are places in `points(name)`."""
        return self.found(name, criterion).associated

    def datum_section(self, label: str) -> DatumSection:
        """What the recipe says of a datum.

        Raises:
            DepthcellError: (`RECIPE_INVALID`) the recipe has no such datum.
        """
        _known(label, self._datums, "datum.label")
        return self._datums[label]

    def datum(self, label: str) -> Found:
        """A datum's feature with its associated element, by least squares.

        Raises:
            DepthcellError: as `found`, saying that it is of the datum; (`RECIPE_INVALID`) it is of reference points.
        """
        feature = self.datum_section(label).feature
        if feature is None:
            raise DepthcellError(f"datum '{label}': is of reference points; name a feature", Reason.RECIPE_INVALID)
        try:
            return self.found(feature)
        except DepthcellError as error:
            if error.reason is not Reason.NOT_MEASURED:
                raise
            raise not_measured(f"datum '{label}'", str(error)) from error

    def _associate(self, name: str, criterion: str) -> Found:
        section, points, scan = self.section(name), self.points(name), self.scan
        try:
            if criterion in (INSCRIBED, CIRCUMSCRIBED):
                first, size = self.associated(name), inscribed if criterion == INSCRIBED else circumscribed
                return Found(section, points, size(first, scan.points_part[points], scan.normals_part[points]))
            return Found(section, points, _fitted(section, points, scan, zone=criterion == MINIMUM_ZONE))
        except DepthcellError as error:
            if error.reason is not Reason.NOT_MEASURED or str(error).startswith("feature"):
                raise
            raise not_measured(f"feature '{name}'", str(error)) from error


def _fitted(section: FeatureSection, points: NDArray[np.intp], scan: Scan, *, zone: bool) -> Associated:
    """By minimum zone or by least squares, in the frame "part"."""
    where, facing = scan.points_part[points], scan.normals_part[points]
    sigma_m = scan.cloud.random_sigma_m[points].astype(np.float64)
    surface, _ = nominal_surface(section)
    if isinstance(section, LineFeature):
        along, normal = unit_vector(section.direction), unit_vector(section.normal)
        return (zone_line if zone else fit_line)(where, facing, along, normal, sigma_m)
    match surface:
        case Plane():
            return (zone_plane if zone else fit_plane)(where, facing, sigma_m)
        case Cylinder(point, axis, radius_m) if isinstance(section, CircleFeature):
            start = Circle(point, axis, radius_m)
            return (zone_circle if zone else fit_circle)(where, facing, axis, sigma_m, start)
        case Cylinder():
            return (zone_cylinder if zone else fit_cylinder)(where, facing, sigma_m, surface)
        case Sphere():
            return (zone_sphere if zone else fit_sphere)(where, facing, sigma_m, surface)


def _once(kept: dict[K, T | DepthcellError], name: K, make: Callable[[], T]) -> T:
    """What was made of a name, or the refusal it met, the first time."""
    if name not in kept:
        try:
            kept[name] = make()
        except DepthcellError as error:
            kept[name] = error
    one = kept[name]
    if isinstance(one, DepthcellError):
        raise one
    return one


def _known(word: str, known: Collection[str], field: str) -> None:
    if word not in known:
        near = difflib.get_close_matches(word, known, n=1)
        advice = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known) or 'none'}"
        raise DepthcellError(f"recipe: {field} '{word}' is not in it; {advice}", Reason.RECIPE_INVALID)
