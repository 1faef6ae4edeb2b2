"""Where features lie in a datum system (ISO 5459), and true position (ISO 1101:2017, 17.14; ISO 5458).

The datums are the least-squares elements of their features. The part is turned and shifted until they lie where the
recipe has them, one after the other: the first holds what it can, each further one only what those before have left
free, its direction before its place. What no datum holds stays as the part's alignment left it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere, across
from depthcell.fusion.influence import Influence
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.construction import counted, direction, kind_of, middle, place_along
from depthcell.inspect.gauges.extraction import Features, Found, nominal_surface
from depthcell.inspect.gauges.formnoise import ZoneCriterion
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading, not_measured
from depthcell.inspect.gauges.response import answered, carried, pose_slope
from depthcell.inspect.gauges.zone import farthest
from depthcell.inspect.gauges.zonenoise import Zoned, zone_reading
from depthcell.inspect.gaugesections import LineFeature, PositionGauge

LEVER_M = 0.05
"""A turn counts as the shift it makes at this distance, so that turns and shifts are told apart by one threshold."""
HOLDS = 0.05
"""A datum holds a motion when a unit of it moves the datum by more than this share."""
STILL = 1e-13
MOST_STEPS = 30


@dataclass(frozen=True, slots=True, eq=False)
class DatumSystem:
    """Datums in order of precedence, as found, with their nominal elements.

    Attributes:
        labels: of the recipe.
        found: their features.
        nominal: where those belong, frame "part".
    """

    labels: tuple[str, ...]
    found: tuple[Found, ...]
    nominal: tuple[Element, ...]

    @classmethod
    def of(cls, labels: Sequence[str], features: Features) -> "DatumSystem":
        """Look the datums up.

        Raises:
            DepthcellError: (`NOT_MEASURED`) one is not there, or is of a kind that holds nothing.
        """
        found = tuple(features.datum(label) for label in labels)
        for label, one in zip(labels, found, strict=True):
            if isinstance(one.section, LineFeature):
                raise not_measured(
                    f"datum '{label}'", f"feature '{one.name}' is a line on a face; name a face or a cylinder"
                )
        return cls(tuple(labels), found, tuple(nominal_surface(one.section)[0] for one in found))

    def placement(self, elements: Sequence[Element]) -> RigidTransform:
        """The motion of the part that puts these elements of the datums where they belong.

        Newton steps; in each, the datums' equations are solved in order, every one in what those before left free.

        Raises:
            DepthcellError: (`NOT_MEASURED`) they cannot be brought there.
        """
        T_part_part = RigidTransform.identity("part", "part")
        for _ in range(MOST_STEPS if elements else 0):
            step, _ = self._step([carried(element, T_part_part) for element in elements])
            T_part_part = RigidTransform.identity("part", "part").perturbed(step) @ T_part_part
            if np.abs(step).max() < STILL:
                break
        else:
            if elements:
                raise DepthcellError(f"datums {', '.join(self.labels)}: they do not settle", Reason.NOT_MEASURED)
        return T_part_part

    @property
    def held(self) -> int:
        """How many of the part's six motions the datums hold."""
        return self._step([one.element for one in self.found])[1] if self.found else 0

    @property
    def words(self) -> str:
        """How the part is held."""
        if not self.found:
            return "in the part's frame"
        rest = "" if self.held == 6 else f", {6 - self.held} motions left to the alignment"
        return f"datums {', '.join(self.labels)}{rest}"

    def _step(self, elements: Sequence[Element]) -> tuple[NDArray[np.float64], int]:
        """(6,) twist towards where the elements belong, and how many motions they hold."""
        scaled, free = np.zeros(6), np.eye(6)
        levers = np.array([1 / LEVER_M] * 3 + [1.0] * 3)
        for element, nominal in zip(elements, self.nominal, strict=True):
            for rows, missing in _equations(element, nominal):
                pulls = rows * levers @ free
                u, size, vt = np.linalg.svd(pulls)
                rank = int((size > HOLDS).sum())
                wanted = -(missing + rows * levers @ scaled)
                scaled = scaled + free @ (vt[:rank].T @ ((u.T @ wanted)[:rank] / size[:rank]))
                free = free @ vt[rank:].T
        return scaled * levers, 6 - free.shape[1]


def _equations(element: Element, nominal: Element) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """What a twist (6,) does to an element's direction and place, (M, 6) each, and what is missing of them, (M,).

    Directions are counted as shifts at `LEVER_M`.
    """
    found: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    sides = np.eye(3)
    if not isinstance(element, Sphere):
        along, nominal_along = direction(element), direction(nominal)
        along = along if along @ nominal_along >= 0 else -along
        sides = np.array(across(nominal_along))
        if not isinstance(element, Circle):
            turns = np.cross(along, sides)
            found.append((LEVER_M * np.hstack((turns, np.zeros_like(turns))), LEVER_M * (sides @ along)))
        if isinstance(element, Plane):
            sides = nominal_along[None]
    place = middle(element) if isinstance(element, Plane) else place_along(element, nominal, np.zeros(3))
    rows = np.hstack((np.cross(place, sides), sides))
    found.append((rows, sides @ (place - middle(nominal))))
    return found


def in_datums(
    value: Callable[[Element], float], feature: Found, labels: Sequence[str], scan: Scan, features: Features
) -> tuple[float, Influence, tuple[Drawn, ...], str]:
    """A value of a feature's element once the part is held by datums, its influence, what to show, and how it was held.

    Args:
        value: of the element in the frame "part", smooth where it is.
        feature: whose element.
        labels: datums in order; none for the part as its alignment left it.
        scan: the part.
        features: of the recipe.
    """
    system = DatumSystem.of(labels, features)

    def of_all(elements: Sequence[Element]) -> float:
        return value(carried(elements[0], system.placement(elements[1:])))

    result, influence = answered(of_all, (feature, *system.found), scan, by_pose=True)
    return result, influence, tuple(one.drawn for one in system.found), system.words


def of_held_points(
    points_part: NDArray[np.float64],
    normals_part: NDArray[np.float64],
    weight: NDArray[np.float64],
    system: DatumSystem,
    scan: Scan,
) -> Influence:
    """Influence, by datums and pose, of a sum of weighted lifts of points along fixed normals, the part held by datums.

    Args:
        points_part: (K, 3) as the alignment has them.
        normals_part: (K, 3) in the frame of the drawing.
        weight: (K,), mostly zero: the points that a zone touches.
        system: the datums.
        scan: the part.
    """
    touched = np.flatnonzero(weight)
    count = len(system.found)

    def lift(elements: Sequence[Element]) -> float:
        placement = system.placement(elements[:count])
        places = np.stack([middle(element) for element in elements[count:]])
        return float(weight[touched] @ np.einsum("ij,ij->i", placement @ places, normals_part[touched]))

    balls: list[Element] = [Sphere(point, 0.0) for point in points_part[touched]]
    _, by_datums = answered(lambda elements: lift([*elements, *balls]), system.found, scan)
    pose = pose_slope(lift, [*(one.element for one in system.found), *balls], scan)
    return by_datums + Influence(np.zeros(0, np.intp), np.zeros(0), pose)


def measure_position(section: PositionGauge, scan: Scan, features: Features) -> Reading:
    """True position in a datum system: twice the largest distance from where the feature belongs.

        axis     at both ends of the stretch that was seen, across the nominal axis
        circle   of its centre, across the nominal axis
        sphere   of its centre
        plane    of its points, along the nominal normal (outliers left out)

    Raises:
        DepthcellError: (`NOT_MEASURED`) the feature or a datum is not there.
    """
    feature = features.found(section.feature)
    if isinstance(feature.element, Line):
        raise not_measured(section.name, f"feature '{feature.name}' is a line on a face; name the face")
    if isinstance(feature.element, Plane):
        return _of_plane(section, feature, scan, features)
    nominal, _ = nominal_surface(feature.section)
    system = DatumSystem.of(section.datums, features)
    now = carried(feature.element, system.placement([one.element for one in system.found]))
    offsets = [(place, offset(now, place)) for place in _places(feature, nominal, scan)]
    place, worst = max(offsets, key=lambda pair: float(np.linalg.norm(pair[1])))
    size_m = float(np.linalg.norm(worst))
    way = worst / size_m if size_m > 0 else _sideways(nominal)
    value, influence, drawn, held = in_datums(
        lambda element: 2.0 * float(offset(element, place) @ way), feature, section.datums, scan, features
    )
    segment = Drawn("offset", np.zeros(0, np.intp), segment_part=np.stack((middle(place), middle(place) + worst)))
    note = f"{kind_of(feature)} '{feature.name}', least squares, {held}, {counted(feature)}"
    return Reading(value, Quantity.LENGTH, influence, (feature.drawn, *drawn, segment), note)


def offset(element: Element, nominal: Element) -> NDArray[np.float64]:
    """(3,) from where a centre or an axis belongs to where it is, of an axis across the nominal one at its point."""
    return place_along(element, nominal, np.zeros(3)) - middle(nominal)


def _sideways(nominal: Element) -> NDArray[np.float64]:
    return np.array([1.0, 0.0, 0.0]) if isinstance(nominal, Sphere) else across(direction(nominal))[0]


def _places(feature: Found, nominal: Element, scan: Scan) -> list[Element]:
    """The nominal element at each place that is looked at: an axis at both ends of the stretch that was seen."""
    if not isinstance(nominal, Cylinder):
        return [nominal]
    if isinstance(feature.element, Circle):
        height = float((feature.element.centre - nominal.point) @ nominal.axis)
        return [Cylinder(nominal.point + height * nominal.axis, nominal.axis, nominal.radius_m)]
    heights = (scan.points_part[feature.used] - nominal.point) @ nominal.axis
    return [
        Cylinder(nominal.point + height * nominal.axis, nominal.axis, nominal.radius_m)
        for height in (float(heights.min()), float(heights.max()))
    ]


def _of_plane(section: PositionGauge, feature: Found, scan: Scan, features: Features) -> Reading:
    surface, _ = nominal_surface(feature.section)
    nominal = Plane(middle(surface), direction(surface))
    system = DatumSystem.of(section.datums, features)
    points = scan.points_part[feature.used]
    placement = system.placement([one.element for one in system.found])
    measured_along = np.asarray(placement.inverse().rotate(nominal.normal[None]), dtype=np.float64)
    normals = np.broadcast_to(measured_along, points.shape)
    held = np.zeros((0, len(points)))
    zoned = Zoned(feature.used, nominal.distance(placement @ points), normals, held, ZoneCriterion.FARTHEST)
    weight = farthest(zoned.residual_m).gradient
    turned = np.broadcast_to(nominal.normal, points.shape)
    others = of_held_points(points, turned, weight, system, scan)
    shown = Drawn(feature.name, feature.used, nominal, lift_m=zoned.residual_m)
    how = f"twice the farthest of {len(points)} points of '{feature.name}', {system.words}"
    return zone_reading(zoned, scan, (shown, *(one.drawn for one in system.found)), how, others)
