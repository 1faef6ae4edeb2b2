"""How points lie to a plane, a cylinder or a sphere: signed distance, normal, and what a small change would do to it.

A circle is a cylinder whose axis may not lean; a profile over a flat face is a plane that may not lean sideways. So
three kinds of surface and a `Freedom` serve all associations, by least squares as by minimum zone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.association.elements import Cylinder, Plane, Sphere, across

Surface = Plane | Cylinder | Sphere


@dataclass(frozen=True, slots=True, eq=False)
class Misfit:
    """N points at a surface with P local coordinates.

    Attributes:
        residual_m: (N,) signed distance, positive out of the material.
        normals: (N, 3) of the surface at the points, out of the material.
        jacobian: (P, N) change of the residual per local coordinate.
    """

    residual_m: NDArray[np.float64]
    normals: NDArray[np.float64]
    jacobian: NDArray[np.float64]


def misfit(surface: Surface, points: FloatArray, side: float = 1.0) -> Misfit:
    """Orthogonal distances of points (N, 3) from a surface, and their derivatives.

    With `q` the point relative to the surface's, `h` its height along the axis `d`, and `n = (q - h d) / |q - h d|`
    the direction away from the axis, the distance is

        plane     `q . n`                    changes by `(-1, q.u, q.v)` per (shift, lean a, lean b)
        cylinder  `side (|q - h d| - R)`     by `-side (n.u, n.v, h n.u, h n.v, 1)`
        sphere    `side (|q| - R)`           by `-side (n, 1)`, n the direction from the centre

    Args:
        surface: where the points are.
        points: (N, 3) metres.
        side: of a cylinder or sphere, +1 where the material is within the radius (a shaft), -1 for a bore.
    """
    match surface:
        case Plane():
            return _at_plane(surface, points)
        case Cylinder():
            return _at_cylinder(surface, points, side)
        case Sphere():
            away, unit = _length_and_unit(points - surface.centre)
            jacobian = -side * np.vstack((unit.T, np.ones(len(points))))
            return Misfit(side * (away - surface.radius_m), side * unit, jacobian)


def _at_plane(plane: Plane, points: FloatArray) -> Misfit:
    q, (u, v) = points - plane.point, across(plane.normal)
    normals = np.broadcast_to(plane.normal, q.shape)
    return Misfit(np.asarray(q @ plane.normal), normals, np.stack((np.full(len(q), -1.0), q @ u, q @ v)))


def _at_cylinder(cylinder: Cylinder, points: FloatArray, side: float) -> Misfit:
    q, (u, v) = points - cylinder.point, across(cylinder.axis)
    height = q @ cylinder.axis
    away, unit = _length_and_unit(q - height[:, None] * cylinder.axis)
    along_u, along_v = unit @ u, unit @ v
    jacobian = -side * np.stack((along_u, along_v, height * along_u, height * along_v, np.ones(len(q))))
    return Misfit(side * (away - cylinder.radius_m), side * unit, jacobian)


def _length_and_unit(vectors: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return np.asarray(length), np.asarray(vectors / np.maximum(length, 1e-12)[:, None])


def side_of(surface: Surface, points: FloatArray, normals: FloatArray) -> float:
    """+1 where most measured normals (N, 3) point away from the axis or centre, -1 where they point towards it."""
    facing = np.einsum("ij,ij->i", misfit(surface, points).normals, normals)
    return 1.0 if np.median(facing) >= 0 else -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Freedom:
    """Which changes of a surface are looked for.

    Attributes:
        about: (3,) unit vector about which alone a plane's normal or a cylinder's axis may turn, keeping its angle to
            it; None for all turns.
        leans: False holds the direction of the surface altogether.
        cosine: of the angle it keeps to `about`.
    """

    about: NDArray[np.float64] | None = None
    leans: bool = True
    cosine: float = 0.0

    def directions(self, surface: Surface) -> NDArray[np.float64]:
        """(P, F): the changes allowed, in the surface's local coordinates; of a radius the last."""
        match surface:
            case Plane():
                return self._columns(np.eye(3), 1, surface.normal)
            case Cylinder():
                return self._columns(np.eye(5), 2, surface.axis)
            case Sphere():
                return np.eye(4)

    def held(self, surface: Surface) -> Surface:
        """The surface with the angle it must keep; small steps leave it in second order."""
        if self.about is None or not self.leans:
            return surface
        match surface:
            case Plane(point, normal):
                return Plane(point, self._at_angle(self.about, normal))
            case Cylinder(point, axis, radius_m):
                return Cylinder(point, self._at_angle(self.about, axis), radius_m)
            case Sphere():
                return surface

    def _at_angle(self, about: NDArray[np.float64], axis: NDArray[np.float64]) -> NDArray[np.float64]:
        aside = axis - (axis @ about) * about
        return np.asarray(self.cosine * about + np.sqrt(1 - self.cosine**2) * aside / np.linalg.norm(aside))

    def _columns(self, every: NDArray[np.float64], lean: int, axis: NDArray[np.float64]) -> NDArray[np.float64]:
        """Less the two leans from number `lean` on, or with one in their place."""
        if self.leans and self.about is None:
            return every
        turns = []
        if self.leans and self.about is not None:
            turn = np.zeros(len(every))
            towards = np.cross(self.about, axis)
            turn[lean : lean + 2] = np.array(across(axis)) @ (towards / np.linalg.norm(towards))
            turns.append(turn)
        return np.stack((*every[:lean], *turns, *every[lean + 2 :]), axis=1)


FREE = Freedom()


def recentred(surface: Surface, points: FloatArray) -> Surface:
    """The same surface with its point in the middle of the points (N, 3): their mean, or of an axis the mid-height."""
    match surface:
        case Plane():
            middle = points.mean(axis=0)
            return Plane(middle - ((middle - surface.point) @ surface.normal) * surface.normal, surface.normal)
        case Cylinder():
            height = (points - surface.point) @ surface.axis
            middle = surface.point + (height.min() + height.max()) / 2 * surface.axis
            return Cylinder(middle, surface.axis, surface.radius_m)
        case Sphere():
            return surface


def levers(surface: Surface, points: FloatArray) -> NDArray[np.float64]:
    """(P,): the change of each local coordinate that moves the surface at the points by about 1 m: 1 or 1 / spread."""
    spread = float(np.sqrt(np.square(points - points.mean(axis=0)).sum(axis=1).mean()))
    per = 1.0 / max(spread, 1e-9)
    match surface:
        case Plane():
            return np.array([1.0, per, per])
        case Cylinder():
            return np.array([1.0, 1.0, per, per, 1.0])
        case Sphere():
            return np.ones(4)
