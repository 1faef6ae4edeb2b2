"""Circular and total run-out against a datum axis (ISO 1101:2017, 17.16 and 17.17).

With h the height along the datum axis and q the distance from it, a cylinder's run-out is how much q varies, a face's
how much h does. Circular run-out is taken ring by ring, and the largest counts: rings of a cylinder lie at one height,
those of a face at one distance. Total run-out is taken over all points at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.association.elements import Cylinder, Element, Plane, across
from depthcell.fusion.association.misfit import misfit
from depthcell.fusion.influence import Influence
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.construction import direction, kind_of, middle
from depthcell.inspect.gauges.extraction import Features, Found
from depthcell.inspect.gauges.formnoise import ZoneCriterion
from depthcell.inspect.gauges.reading import Drawn, Reading, not_measured
from depthcell.inspect.gauges.response import answered
from depthcell.inspect.gauges.surfacepoints import surface_of
from depthcell.inspect.gauges.zonenoise import Zoned, zone_reading
from depthcell.inspect.gaugesections import RunoutGauge

RING_M = 0.001
"""Height, or width, of a ring."""
FEWEST_IN_RING = 20
"""Rings with fewer points are not looked at."""
SQUARE_COSINE = 0.97
"""A face whose normal leans farther than this from the datum axis has no axial run-out."""


def measure_runout(section: RunoutGauge, scan: Scan, features: Features) -> Reading:
    """Run-out of a cylinder (radial) or of a face square to the axis (axial).

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature or the datum is not there, the datum is no cylinder, or no ring
            holds enough points.
    """
    feature, datum = features.found(section.feature), features.datum(section.datum)
    axis = datum.element
    if not isinstance(axis, Cylinder):
        raise not_measured(
            section.name, f"datum '{section.datum}' is a {kind_of(datum)}; run-out needs a cylinder's axis"
        )
    _check_feature(section.name, feature, axis)
    radial = isinstance(feature.element, Cylinder)
    numbers = surface_of(feature, scan)
    points = scan.points_part[numbers]
    distance_m, height_m = _about(points, axis)
    measured, sorted_by = (distance_m, height_m) if radial else (height_m, distance_m)
    rings = _Rings.of(sorted_by) if section.scope == "circular" else _Rings.all_in_one(len(points))
    if rings.count == 0:
        raise not_measured(section.name, f"no ring of {RING_M * 1e3:g} mm holds {FEWEST_IN_RING} points")
    inside = rings.widest_ring(measured)

    def by_datum(elements: Sequence[Element], weight: NDArray[np.float64]) -> float:
        away, height = _about(points[inside], elements[0])
        return float(weight @ (away if radial else height))

    def others(weight: NDArray[np.float64]) -> Influence:
        return answered(partial(by_datum, weight=weight), (datum,))[1]

    apart = points - axis.point
    outwards = apart - (apart @ axis.axis)[:, None] * axis.axis
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1), 1e-12)[:, None]
    normals = outwards if radial else np.broadcast_to(axis.axis, points.shape)
    held = np.zeros((0, len(inside)))
    kept = _kept(section.scope, radial, points[inside], axis)
    zoned = Zoned(scan, numbers[inside], measured[inside], normals[inside], held, ZoneCriterion.MINIMUM, kept, others)
    how = (
        f"{section.scope} run-out {'across' if radial else 'along'} the axis of datum {section.datum}, "
        f"{len(points)} points of '{feature.name}'"
        + (f" in {rings.count} rings" if section.scope == "circular" else "")
    )
    shown = Drawn(feature.name, numbers, feature.element, lift_m=measured - np.median(measured))
    return zone_reading(zoned, (shown, datum.drawn), how)


def _check_feature(gauge: str, feature: Found, axis: Cylinder) -> None:
    element = feature.element
    if isinstance(element, Cylinder):
        return
    if not isinstance(element, Plane):
        raise not_measured(
            gauge, f"feature '{feature.name}' is a {kind_of(feature)}; run-out is of a cylinder or a face"
        )
    if abs(float(direction(element) @ axis.axis)) < SQUARE_COSINE:
        raise not_measured(gauge, f"face '{feature.name}' does not stand square to the datum axis")


def _about(points: NDArray[np.float64], axis: Element) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance (K,) from an axis, and height (K,) along it."""
    apart = points - middle(axis)
    height = apart @ direction(axis)
    return np.linalg.norm(apart - height[:, None] * direction(axis), axis=1), height


def _kept(scope: str, radial: bool, points: NDArray[np.float64], axis: Cylinder) -> NDArray[np.float64]:
    """Motions along which the feature as a whole may be off: a cylinder off the axis, and leaning; a face leaning."""
    moves = misfit(axis, points).jacobian[:4]
    if not radial:
        return np.asarray(np.array(across(axis.axis)) @ (points - points.mean(axis=0)).T)
    return moves[:2] if scope == "circular" else moves


@dataclass(frozen=True, slots=True, eq=False)
class _Rings:
    """Which ring each point is in.

    Attributes:
        ring: (K,) number, -1 for none.
        count: of rings.
    """

    ring: NDArray[np.intp]
    count: int

    @classmethod
    def of(cls, place_m: NDArray[np.float64]) -> "_Rings":
        """Rings of `RING_M` by the place (K,) along or across the axis."""
        number = np.floor((place_m - place_m.min()) / RING_M).astype(np.intp)
        full = np.flatnonzero(np.bincount(number) >= FEWEST_IN_RING)
        renumbered = np.full(int(number.max()) + 1, -1)
        renumbered[full] = np.arange(len(full))
        return cls(renumbered[number], len(full))

    @classmethod
    def all_in_one(cls, points: int) -> "_Rings":
        """One ring of all."""
        return cls(np.zeros(points, np.intp), 1)

    def widest_ring(self, measured_m: NDArray[np.float64]) -> NDArray[np.intp]:
        """The points of the ring with the largest span, ascending."""
        high, low = np.full(self.count, -np.inf), np.full(self.count, np.inf)
        inside = self.ring >= 0
        np.maximum.at(high, self.ring[inside], measured_m[inside])
        np.minimum.at(low, self.ring[inside], measured_m[inside])
        return np.asarray(np.flatnonzero(self.ring == int(np.argmax(high - low))), dtype=np.intp)
