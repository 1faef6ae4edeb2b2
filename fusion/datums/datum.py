"""One datum: a nominal feature, what was associated with its points, and what of a part's place it holds (ISO 5459)."""

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.changes import carried, change, moved
from depthcell.fusion.association.elements import Associated, Circle, Cylinder, Element, Line, Plane, Sphere
from depthcell.fusion.association.minimumzone import circumscribed, inscribed
from depthcell.fusion.association.misfit import misfit, side_of
from depthcell.fusion.association.places import direction_of

DatumCriterion = Literal["least squares", "tangent"]
LOCATING: Final = {Plane: 3, Line: 4, Circle: 2, Cylinder: 4, Sphere: 3}
"""How many of an element's local coordinates, the first ones, say where it lies; a radius does not."""
NARROWEST = 0.02
"""Spread of a plane's points across their length, relative to it, below which they are taken to lie on a line."""
FARTHEST_RAD = 0.6
"""A datum that leans farther than this from nominal belongs to a part that lies otherwise than thought."""
STEP = 1e-6
"""Of local coordinates and twists, m or rad, for central differences."""


@dataclass(frozen=True, slots=True, eq=False)
class Datum:
    """A datum feature as it was measured.

    By default its element is that of least squares. ISO 5459 lets a datum touch the real surface from outside the
    material. With optical points that contact is the extreme of their noise: of 1000 to 10,000 independent Gaussian
    points it is expected 3.2 to 3.9 standard deviations outside, and it wanders with their number. `tangent` is there
    for surfaces whose form is larger than their noise.

    Attributes:
        label: "A", "B" ...
        nominal: where the drawing has it, in the frame "part".
        associated: with its points, in the same frame; of `criterion`.
        points: (K,) intp, ascending, of the cloud: those the element rests on.
        fitted: the least-squares element, by which the points hold the datum where one of higher precedence leaves
            them no choice.
        covariance: (P, P) of its local coordinates for points of unit variance.
        spread_m: root mean square distance of the points from their middle.
    """

    label: str
    nominal: Element
    associated: Associated
    points: NDArray[np.intp]
    fitted: Element
    covariance: NDArray[np.float64]
    spread_m: float

    @classmethod
    def of(
        cls,
        label: str,
        nominal: Element,
        found: Associated,
        points: FloatArray,
        normals: FloatArray,
        criterion: DatumCriterion = "least squares",
    ) -> "Datum":
        """From a least-squares association.

        Args:
            label: of the datum.
            nominal: in the frame "part"; an axis may point either way.
            found: the element of the same kind, by least squares, of these points.
            points: (N, 3) metres, frame "part", those that `found` was given.
            normals: (N, 3) of them, out of the material.
            criterion: what represents the surface.

        Raises:
            DepthcellError: kinds differ; (`NOT_MEASURED`) it rests on too few points, or on a line;
                (`ALIGNMENT_FAILED`) it leans far from nominal.
        """
        if type(nominal) is not type(found.element):
            kinds = f"{type(nominal).__name__.lower()} nominally, {type(found.element).__name__.lower()} measured"
            raise DepthcellError(f"datum {label}: {kinds}")
        _check_support(label, found, points)
        nominal = _same_way(label, nominal, found.element)
        chosen = found if criterion == "least squares" else tangent(found, points, normals)
        kept = points[found.used]
        spread_m = float(np.sqrt(np.square(kept - kept.mean(axis=0)).sum(axis=1).mean()))
        return cls(label, nominal, chosen, found.used, found.element, found.gain @ found.gain.T, spread_m)

    def to_cloud(self, given: NDArray[np.intp]) -> "Datum":
        """With points counted as in the cloud, of which `given` (N,) were handed to the association."""
        return replace(self, points=given[self.points])

    def weight(self, T_datum_part: RigidTransform) -> NDArray[np.float64]:
        """(Q, Q): square root of the inverse covariance of `misplaced`, over that of a shift; 0 for what is untold."""
        by_element = _per_local(self.fitted, self.nominal, T_datum_part)
        covariance = by_element @ self.covariance @ by_element.T
        shifts = {Plane: 1, Sphere: 3}.get(type(self.nominal), 2)
        scale = np.sqrt(np.diag(covariance)[:shifts].max())
        values, vectors = np.linalg.eigh(covariance)
        told = values > 1e-12 * values[-1]
        return np.asarray((vectors * np.where(told, scale / np.sqrt(np.where(told, values, 1.0)), 0.0)) @ vectors.T)

    def misplaced(self, T_datum_part: RigidTransform) -> NDArray[np.float64]:
        """(Q,): locating coordinates by which the measured element lies off nominal, once carried."""
        there = carried(self.associated.element, T_datum_part)
        return change(there, self.nominal)[: LOCATING[type(self.nominal)]]

    def per_twist(self, T_datum_part: RigidTransform | None) -> NDArray[np.float64]:
        """(Q, 6): change of `misplaced` per twist of the transform, there; None: where all is nominal."""
        element, at = self.associated.element, T_datum_part
        if at is None:
            element, at = self.nominal, RigidTransform.identity("datum", "part")
        columns = []
        for twist in STEP * np.eye(6):
            ends = [change(carried(element, at.perturbed(sign * twist)), self.nominal) for sign in (1.0, -1.0)]
            columns.append((ends[0] - ends[1]) / (2 * STEP))
        return np.array(columns).T[: LOCATING[type(self.nominal)]]

    def per_point(self, T_datum_part: RigidTransform) -> NDArray[np.float64]:
        """(Q, K): change of `misplaced` per metre that each point moves along its normal."""
        return np.asarray(_per_local(self.associated.element, self.nominal, T_datum_part) @ self.associated.gain)


def tangent(found: Associated, points: FloatArray, normals: FloatArray) -> Associated:
    """The element that touches the surface from outside the material: ISO 5459's for a single datum.

    A plane keeps the direction of least squares and is shifted out to the farthest point. A bore's cylinder is the
    largest that can be inscribed, a shaft's the smallest that can be circumscribed; so for circles and spheres.

    Raises:
        DepthcellError: of a line; (`NOT_MEASURED`) the points do not surround the element.
    """
    match found.element:
        case Plane(point, normal):
            at = misfit(found.element, points[found.used])
            farthest = int(np.argmax(at.residual_m))
            shift = at.jacobian[:, farthest] @ found.gain
            shift[farthest] += at.normals[farthest] @ normals[found.used[farthest]]
            gain = np.vstack((found.gain[0] + shift, found.gain[1:]))
            lifted = at.residual_m[farthest]
            there = Plane(point + lifted * normal, normal)
            residual_m = at.residual_m - lifted
            return Associated(there, found.used, residual_m, gain, found.form_m, "tangent", found.outliers)
        case Line():
            raise DepthcellError("tangent: a profile has no side of its own; take least squares")
        case Circle(centre, axis, radius_m):
            surface: Cylinder | Sphere = Cylinder(centre, axis, radius_m)
        case Cylinder() | Sphere():
            surface = found.element
    shaft = side_of(surface, points[found.used], normals[found.used]) > 0
    return circumscribed(found, points, normals) if shaft else inscribed(found, points, normals)


def _per_local(element: Element, nominal: Element, T_datum_part: RigidTransform) -> NDArray[np.float64]:
    """(Q, P): change of where the carried element lies against nominal, per its own local coordinates."""
    columns = []
    count = LOCATING[type(element)] + (0 if isinstance(element, Plane | Line) else 1)
    for local in STEP * np.eye(count):
        ends = [change(carried(moved(element, sign * local), T_datum_part), nominal) for sign in (1.0, -1.0)]
        columns.append((ends[0] - ends[1]) / (2 * STEP))
    return np.array(columns).T[: LOCATING[type(nominal)]]


def _check_support(label: str, found: Associated, points: FloatArray) -> None:
    unknowns = len(found.gain) if not isinstance(found.element, Line) else 2
    if len(found.used) <= unknowns:
        raise DepthcellError(f"datum {label} rests on {len(found.used)} points: needs more", Reason.NOT_MEASURED)
    if isinstance(found.element, Plane):
        kept = points[found.used]
        spread = np.linalg.svd(kept - kept.mean(axis=0), compute_uv=False)
        if spread[1] < NARROWEST * spread[0]:
            raise DepthcellError(
                f"datum {label}: its points lie on a line; they must spread over the face", Reason.NOT_MEASURED
            )


def _same_way(label: str, nominal: Element, measured: Element) -> Element:
    """The nominal element, its axis pointing as the measured one's does."""
    if isinstance(nominal, Sphere):
        return nominal
    turned: Element = nominal
    if direction_of(nominal)[0] @ direction_of(measured)[0] < 0:
        turned = _reversed(nominal)
    cosine = float(direction_of(turned)[0] @ direction_of(measured)[0])
    if cosine < np.cos(FARTHEST_RAD):
        degrees = np.degrees(np.arccos(max(cosine, -1.0)))
        raise DepthcellError(
            f"datum {label} leans {degrees:.0f} degrees from nominal; does the part lie as it should?",
            Reason.ALIGNMENT_FAILED,
        )
    return turned


def _reversed(element: Element) -> Element:
    """The same axis pointing the other way; a plane's normal has one way only."""
    match element:
        case Line(point, direction):
            return Line(point, -direction)
        case Circle(centre, axis, radius_m):
            return Circle(centre, -axis, radius_m)
        case Cylinder(point, axis, radius_m):
            return Cylinder(point, -axis, radius_m)
        case Plane() | Sphere():
            return element
