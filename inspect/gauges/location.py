"""Where features lie in a datum system (ISO 5459), and true position (ISO 1101:2017, 17.14; ISO 5458).

The datums are the least-squares elements of their features. The part is turned and shifted until they lie where the
recipe has them, in order of precedence (`fusion.datums`). What no datum holds stays as the part's alignment left it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.fusion.association.changes import carried
from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere, across
from depthcell.fusion.datums.datum import Datum
from depthcell.fusion.datums.datumframe import DatumFrame, datum_frame
from depthcell.fusion.datums.referencepoints import ProbeSettings, ReferencePoint, frame_by_points
from depthcell.fusion.influence import Influence
from depthcell.fusion.scan import Scan
from depthcell.inspect.featuresections import DatumSection
from depthcell.inspect.gauges.construction import counted, direction, kind_of, middle, place_along
from depthcell.inspect.gauges.extraction import Features, Found
from depthcell.inspect.gauges.formnoise import ZoneCriterion
from depthcell.inspect.gauges.nearzero import near_zero_u
from depthcell.inspect.gauges.nominal import nominal_element, nominal_surface
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading, not_measured
from depthcell.inspect.gauges.response import answered
from depthcell.inspect.gauges.surfacepoints import surface_of
from depthcell.inspect.gauges.zonenoise import Zoned, zone_reading
from depthcell.inspect.gaugesections import PositionGauge
from depthcell.inspect.section import metres, unit_vector

NOTHING = np.zeros(0, np.intp)
STEP = 1e-6
"""Of twists, rad or m, for central differences."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """How the part is held while something is measured on it: by datums, or as its alignment left it.

    Attributes:
        T_datum_part: carries what was measured, frame "part", to where the drawing has it.
        frame: of the datums; None without.
        drawn: their features, or the points that they rest on.
        words: the same for people.
    """

    T_datum_part: RigidTransform
    frame: DatumFrame | None
    drawn: tuple[Drawn, ...]
    words: str

    @classmethod
    def by(cls, labels: Sequence[str], features: Features) -> "Held":
        """Look the datums up and lay the frame through them.

        Raises:
            DepthcellError: (`NOT_MEASURED`) a datum is not there, rests on too few points, holds nothing that was free,
                or is of a kind that has no place; (`ALIGNMENT_FAILED`) the part lies far off nominal.
        """
        if not labels:
            return cls(RigidTransform.identity("datum", "part"), None, (), "in the part's frame")
        points = features.datum_section(labels[0]).points if len(labels) == 1 and "-" not in labels[0] else ()
        if points:
            frame = _frame_by_points(features.datum_section(labels[0]), features.scan)
            drawn: tuple[Drawn, ...] = (Drawn(f"datum {labels[0]}", frame.points),)
            words = f"{len(points)} reference points {labels[0]}"
        else:
            levels = [level.split("-") for level in labels]
            frame = datum_frame([[_datum(label, features) for label in level] for level in levels])
            drawn = tuple(features.datum(label).drawn for level in levels for label in level)
            words = f"datums {', '.join(labels)}"
        free = f", free: {'; '.join(frame.free_directions)}, as aligned" if frame.free_directions else ""
        return cls(frame.T_datum_part, frame, drawn, words + free)

    def influence(self, by_twist: NDArray[np.float64], scan: Scan) -> Influence:
        """By the datums and the part's pose, of a scalar that changes by `by_twist` (6,) per twist of `T_datum_part`.

        A twist xi of `T_cell_part` moves points that stay in the cell by `-Ad(T_part_cell) xi` in the frame "part";
        what of that the datums take back is left out.
        """
        T_datum_cell = self.T_datum_part @ scan.T_cell_part.inverse()
        left = np.eye(6) if self.frame is None else self.frame.remaining
        pose = Influence(NOTHING, np.zeros(0), -by_twist @ left @ adjoint(T_datum_cell))
        return pose if self.frame is None else pose + self.frame.influence(by_twist)


def _datum(label: str, features: Features) -> Datum:
    found = features.datum(label)
    if isinstance(found.element, Line):
        raise not_measured(f"datum '{label}'", f"feature '{found.name}' is a line on a face; name a face or a cylinder")
    points_part, normals_part = features.scan.points_part[found.points], features.scan.normals_part[found.points]
    nominal, criterion = nominal_element(found.section), features.datum_section(label).criterion
    return Datum.of(label, nominal, found.associated, points_part, normals_part, criterion).to_cloud(found.points)


def _frame_by_points(section: DatumSection, scan: Scan) -> DatumFrame:
    """The part held by reference points."""
    references = [
        ReferencePoint(point.name, metres(point.position_mm), unit_vector(point.direction)) for point in section.points
    ]
    settings = ProbeSettings(section.radius_mm / 1e3, section.capture_mm / 1e3)
    sigma_m = scan.cloud.random_sigma_m.astype(np.float64)
    return frame_by_points(scan.points_part, scan.normals_part, sigma_m, references, settings)


def adjoint(T_target_source: RigidTransform) -> NDArray[np.float64]:
    """(6, 6): a twist of points in `source`, as a twist of the same points in `target`."""
    rotation, (x, y, z) = T_target_source.rotation, T_target_source.translation_m
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.block([[rotation, np.zeros((3, 3))], [cross @ rotation, rotation]])


def by_twist_of(value: Callable[[Element], float], element: Element) -> NDArray[np.float64]:
    """(6,) change of an element's value per twist that moves it in its frame, "datum"."""
    slope = np.zeros(6)
    for k in range(6):
        ends = [
            value(carried(element, RigidTransform.identity("datum", "datum").perturbed(sign * STEP * np.eye(6)[k])))
            for sign in (1.0, -1.0)
        ]
        slope[k] = (ends[0] - ends[1]) / (2 * STEP)
    return slope


def by_twist_of_points(
    points_datum: NDArray[np.float64], normals: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(6,) change, per twist of points (K, 3), of the sum of `weight` (K,) times their lifts along normals (K, 3)."""
    return np.asarray(weight @ np.hstack((np.cross(points_datum, normals), normals)), dtype=np.float64)


def held_value(value: Callable[[Element], float], feature: Found, held: Held, scan: Scan) -> tuple[float, Influence]:
    """A value of a feature's element where the part is held, and its influence.

    Args:
        value: of the element in the frame "datum", smooth where it is.
        feature: whose element.
        held: how.
        scan: the part.
    """
    result, own = answered(lambda elements: value(carried(elements[0], held.T_datum_part)), (feature,))
    by_twist = by_twist_of(value, carried(feature.element, held.T_datum_part))
    return result, own + held.influence(by_twist, scan)


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
    held = Held.by(section.datums, features)
    now = carried(feature.element, held.T_datum_part)
    offsets = [
        (place, offset(now, place))
        for place in _places(now, nominal, held.T_datum_part @ scan.points_part[feature.used])
    ]
    place, worst = max(offsets, key=lambda pair: float(np.linalg.norm(pair[1])))
    size_m = float(np.linalg.norm(worst))
    way = worst / size_m if size_m > 0 else _sideways(nominal)
    value, influence = held_value(lambda element: 2.0 * float(offset(element, place) @ way), feature, held, scan)
    components = [
        [held_value(partial(_along, nominal=at, way=axis), feature, held, scan)[1] for axis in _axes(nominal)]
        for at, _ in offsets
    ]
    extra = near_zero_u(value, influence, components, scan)
    segment = Drawn("offset", NOTHING, segment_part=np.stack((middle(place), middle(place) + worst)))
    note = f"{kind_of(feature)} '{feature.name}', least squares, {held.words}, {counted(feature)}"
    return Reading(value, Quantity.LENGTH, influence, (feature.drawn, *held.drawn, segment), note, extra_u=extra)


def _along(element: Element, nominal: Element, way: NDArray[np.float64]) -> float:
    return 2.0 * float(offset(element, nominal) @ way)


def _axes(nominal: Element) -> NDArray[np.float64]:
    """(2 or 3, 3) unit vectors that an offset may have components along."""
    return np.eye(3) if isinstance(nominal, Sphere) else np.array(across(direction(nominal)))


def offset(element: Element, nominal: Element) -> NDArray[np.float64]:
    """(3,) from where a centre or an axis belongs to where it is, of an axis across the nominal one at its point."""
    return place_along(element, nominal, np.zeros(3)) - middle(nominal)


def _sideways(nominal: Element) -> NDArray[np.float64]:
    return np.array([1.0, 0.0, 0.0]) if isinstance(nominal, Sphere) else across(direction(nominal))[0]


def _places(element: Element, nominal: Element, points_datum: FloatArray) -> list[Element]:
    """The nominal element at each place that is looked at: an axis at both ends of the stretch that was seen."""
    if not isinstance(nominal, Cylinder):
        return [nominal]
    if isinstance(element, Circle):
        height = float((element.centre - nominal.point) @ nominal.axis)
        return [Cylinder(nominal.point + height * nominal.axis, nominal.axis, nominal.radius_m)]
    heights = (points_datum - nominal.point) @ nominal.axis
    return [
        Cylinder(nominal.point + height * nominal.axis, nominal.axis, nominal.radius_m)
        for height in (float(heights.min()), float(heights.max()))
    ]


def _of_plane(section: PositionGauge, feature: Found, scan: Scan, features: Features) -> Reading:
    surface, _ = nominal_surface(feature.section)
    nominal = Plane(middle(surface), direction(surface))
    held = Held.by(section.datums, features)
    points = surface_of(feature, scan)
    points_datum = np.asarray(held.T_datum_part @ scan.points_part[points], dtype=np.float64)
    lift_m, count = nominal.distance(points_datum), len(points_datum)
    leans = np.array(across(nominal.normal)) @ (points_datum - points_datum.mean(axis=0)).T
    normals = np.broadcast_to(held.T_datum_part.inverse().rotation @ nominal.normal, points_datum.shape)
    still, facing = np.zeros((0, count)), np.broadcast_to(nominal.normal, points_datum.shape)

    def others(weight: NDArray[np.float64]) -> Influence:
        return held.influence(by_twist_of_points(points_datum, facing, weight), scan)

    zoned = Zoned(scan, points, lift_m, normals, still, ZoneCriterion.FARTHEST, np.asarray(leans), others)
    shown = Drawn(feature.name, points, nominal, lift_m=lift_m)
    how = f"twice the farthest of {count} points of '{feature.name}', {held.words}"
    return zone_reading(zoned, (shown, *held.drawn), how)
