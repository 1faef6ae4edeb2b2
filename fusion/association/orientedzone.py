"""The narrowest zones whose direction a datum holds: parallelism, perpendicularity, angularity (ISO 1101, clause 17).

A plane or an axis that is toleranced against a datum lies between two parallel planes, or within a cylinder, that stand
at the theoretically exact angle to the datum's direction: at 0 the zone's direction is the datum's, at any other angle
it may still turn about it. An axis is given by points on it: its ends, or the centres of its sections.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.elements import Cylinder, Line, Plane
from depthcell.fusion.association.leastsquares import unit
from depthcell.fusion.association.minimax import Contact, Minimax, solve
from depthcell.fusion.association.misfit import FREE, Freedom, Surface, misfit

HELD_RAD = 1e-9
"""A zone closer than this to the datum's direction is held by it altogether."""


@dataclass(frozen=True, slots=True, eq=False)
class Zone:
    """A zone of two parallel planes or of a cylinder.

    Attributes:
        width_m: distance of the planes, or the cylinder's diameter.
        middle: the plane half-way, or the cylinder's axis.
        touching: (A,) intp, ascending: which points touch it.
        pull: (A, 3) change of `width_m` per metre that each of these moves along x, y, z. The change with the datum's
            direction is `turn`.
        turn: (3,) change of `width_m` per radian that the datum's direction turns about x, y, z.
    """

    width_m: float
    middle: Plane | Line
    touching: NDArray[np.intp]
    pull: NDArray[np.float64]
    turn: NDArray[np.float64]


def zone_between_planes(points: FloatArray, start: Plane, datum: FloatArray, angle_rad: float) -> Zone:
    """The narrowest zone of two parallel planes whose normal stands at an angle to a datum's direction.

    Args:
        points: (N, 3) metres, of the surface or on the axis.
        start: roughly the zone's middle; of an angle other than 0 it says which way about the datum.
        datum: (3,) the datum's direction.
        angle_rad: between it and the zone's normal, 0 to pi.

    Raises:
        DepthcellError: shapes do not fit; (`NOT_MEASURED`) no point at all, or the points do not settle it.
    """
    freedom = _freedom(datum, angle_rad)
    along = _begun(start.normal, freedom, datum, angle_rad)
    contact = _solved(points, Plane(start.point, along), freedom, (1.0, -1.0))
    middle = contact.surface
    if not isinstance(middle, Plane):
        raise DepthcellError("zone: comes of a plane")
    return _zone(contact, points, middle, datum)


def zone_within_cylinder(points: FloatArray, start: Line, datum: FloatArray | None, angle_rad: float = 0.0) -> Zone:
    """The smallest cylinder around points on an axis that stands at an angle to a datum's direction.

    Without a datum its direction is free: that is the straightness of a median line (ISO 1101, a cylindrical zone).

    Args:
        points: (N, 3) metres, on the axis.
        start: roughly the zone's axis; of an angle other than 0 it says which way about the datum.
        datum: (3,) the datum's direction, or None.
        angle_rad: between it and the zone's axis, 0 to pi.

    Raises:
        DepthcellError: shapes do not fit; (`NOT_MEASURED`) no point at all, or the points do not settle it.
    """
    freedom = FREE if datum is None else _freedom(datum, angle_rad)
    along = start.direction if datum is None else _begun(start.direction, freedom, datum, angle_rad)
    contact = _solved(points, Cylinder(start.point, along, 0.0), freedom, (1.0,))
    middle = contact.surface
    if not isinstance(middle, Cylinder):
        raise DepthcellError("zone: comes of a cylinder")
    return _zone(contact, points, middle.line, datum)


def _solved(points: FloatArray, start: Surface, freedom: Freedom, signs: tuple[float, ...]) -> Contact:
    if points.ndim != 2 or points.shape[1:] != (3,):
        raise DepthcellError(f"zone: needs points (N, 3), got {points.shape}")
    if len(points) == 0:
        raise DepthcellError("zone: no point to put it around", Reason.NOT_MEASURED)
    resized = isinstance(start, Plane)
    return solve(Minimax(points.astype(np.float64), 1.0, freedom, signs, resized=resized), start)


def _freedom(datum: FloatArray, angle_rad: float) -> Freedom:
    if min(angle_rad, np.pi - angle_rad) < HELD_RAD:
        return Freedom(leans=False)
    return Freedom(about=unit(datum), cosine=float(np.cos(angle_rad)))


def _begun(direction: FloatArray, freedom: Freedom, datum: FloatArray, angle_rad: float) -> NDArray[np.float64]:
    """The start's direction turned to the angle that the datum asks for."""
    if freedom.leans:
        held = freedom.held(Plane(np.zeros(3), unit(direction)))
        return held.normal if isinstance(held, Plane) else unit(direction)
    along = unit(datum) * (1.0 if angle_rad < 1 else -1.0)
    return along if along @ direction >= 0 else -along


def _zone(contact: Contact, points: FloatArray, middle: Plane | Line, datum: FloatArray | None) -> Zone:
    """Width twice the bound. A point's pull is its dual weight along the surface's normal there.

    At the optimum the motions that were free change nothing, so turning the whole zone with the datum changes the
    width as turning the points the other way would: by `-(x - p) x pull`, summed.
    """
    touching, place = np.unique(contact.touching, return_inverse=True)
    normals = misfit(contact.surface, points[touching]).normals
    pull = np.zeros((len(touching), 3))
    np.add.at(pull, place, 2 * (contact.weight * contact.signs)[:, None] * normals[place])
    turn = np.zeros(3) if datum is None else -np.cross(points[touching] - middle.point, pull).sum(axis=0)
    return Zone(2 * contact.bound_m, middle, touching.astype(np.intp), pull, turn)
