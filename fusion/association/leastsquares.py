"""Elements associated with points by least squares of orthogonal distances (ISO criterion "G": total least squares).

Gauss-Newton in the element's local coordinates (Forbes, "Least-squares best-fit geometric elements", NPL report
DITC 140/89), each step taken from where the last one led, so that in the end the coordinates are zero and their
derivatives exact. With robust weights it is an M-estimator with Tukey's biweight (Huber, Robust Statistics, 1981),
whose scale follows the residuals' median absolute deviation, as in `fusion.posefit`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.changes import moved
from depthcell.fusion.association.elements import Associated, Circle, Cylinder, Element, Line, Plane, Sphere, across
from depthcell.fusion.association.misfit import (
    FREE,
    Freedom,
    Misfit,
    Surface,
    levers,
    misfit,
    recentred,
    side_of,
)
from depthcell.fusion.posefit import MAD_TO_SIGMA, TUKEY

LEAST_SQUARES: Final = "least squares"
SIGMA_FLOOR = 0.5
"""Share of the median noise below which no point's noise is taken: none weighs more than four times the usual."""
FINEST_M = 1e-9
"""Residuals of less than this are arithmetic, and no outliers are told by them."""
STILL_M = 1e-12
"""A step that moves the surface by less than this is the last one."""
SCALE_STEPS = 30
"""So many steps follow the residuals' scale; then it stands, so that the steps end."""
MOST_STEPS = 200
POINTS_PER_CHANGE = 4
"""With fewer points than that for each change looked for, outliers cannot be told, and none are."""
WEAKEST = 1e-4
"""Ratio of the least to the best determined change (singular values) below which points do not determine an element."""


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """N points with normals out of the material and the noise that weighs them."""

    points: NDArray[np.float64]
    normals: FloatArray
    sigma_m: NDArray[np.float64]
    absolute: bool

    @classmethod
    def of(
        cls, points: FloatArray, normals: FloatArray, sigma_m: FloatArray | None, what: str, needed: int
    ) -> "_Points":
        """Check what was given.

        Raises:
            DepthcellError: shapes do not fit or values are not finite; (`NOT_MEASURED`) too few points.
        """
        if points.ndim != 2 or points.shape[1:] != (3,) or normals.shape != points.shape:
            raise DepthcellError(f"{what}: needs points and normals (N, 3), got {points.shape} and {normals.shape}")
        if len(points) < needed:
            raise DepthcellError(f"{what}: {len(points)} points, needs at least {needed}", Reason.NOT_MEASURED)
        if sigma_m is None:
            return cls(points.astype(np.float64), normals, np.ones(len(points)), False)
        if sigma_m.shape != points.shape[:1] or not (sigma_m > 0).all():
            raise DepthcellError(f"{what}: sigma_m must be {len(points)} positive values")
        floor = SIGMA_FLOOR * float(np.median(sigma_m))
        return cls(points.astype(np.float64), normals, np.maximum(sigma_m, floor).astype(np.float64), True)


@dataclass(frozen=True, slots=True, eq=False)
class _Weighing:
    """The weight of each residual: its influence `psi`, over the residual, and the slope of it, per variance.

    Attributes:
        weight: (N,) `psi(r) / r`, 1 / m²; 0 for outliers.
        slope: (N,) `psi'(r)`, 1 / m²: what a small change of the residual does to the normal equations.
    """

    weight: NDArray[np.float64]
    slope: NDArray[np.float64]

    @classmethod
    def of(cls, residual_m: FloatArray, sigma_m: NDArray[np.float64], scale: float | None) -> "_Weighing":
        """Tukey's at a scale of the noise; plain least squares where that is None."""
        if scale is None:
            inverse = 1 / np.square(sigma_m)
            return cls(inverse, inverse)
        inverse = 1 / np.square(sigma_m * scale)
        cut = np.minimum(np.square(residual_m / (TUKEY * scale * sigma_m)), 1)
        return cls(np.square(1 - cut) * inverse, (1 - cut) * (1 - 5 * cut) * inverse)


def fit_plane(
    points: FloatArray, normals: FloatArray, sigma_m: FloatArray | None, *, robust: bool = True
) -> Associated:
    """The least-squares plane, its normal out of the material as the measured normals say.

    Args:
        points: (N, 3) metres, at least 3.
        normals: (N, 3) unit length, measured, out of the material.
        sigma_m: (N,) standard uncertainty of each from noise, or None: all alike and unknown.
        robust: leave out what lies farther off than the others' scatter allows.

    Raises:
        DepthcellError: (`NOT_MEASURED`) fewer than 3 points, or all on a line.
    """
    given = _Points.of(points, normals, sigma_m, "plane", 3)
    start = _nearest(given, [_plane_by_normals(given), _plane_by_scatter(given)])
    return _associated(start, given, robust, FREE, "plane: the points lie on a line")


def fit_line(
    points: FloatArray,
    normals: FloatArray,
    direction: FloatArray,
    normal: FloatArray,
    sigma_m: FloatArray | None = None,
    *,
    robust: bool = True,
) -> Associated:
    """The least-squares line of a profile over a flat face, seen across `direction` and `normal`.

    The points are seen along `direction x normal`; their distance from the line is taken in that view. The line lies in
    their middle sideways, where they say nothing about it: shifts and leans that way have no gain.

    Args:
        points: (N, 3) metres, at least 2.
        normals: (N, 3) measured, out of the material.
        direction: (3,) of the profile, nominally; the line's points the same way.
        normal: (3,) of the face, nominally, out of the material.
        sigma_m: (N,) standard uncertainty of each from noise, or None.
        robust: leave out outliers.

    Raises:
        DepthcellError: (`NOT_MEASURED`) fewer than 2 points, or all at one place.
    """
    given = _Points.of(points, normals, sigma_m, "line", 2)
    sideways = unit(np.cross(direction, normal))
    start = Plane(np.median(given.points, axis=0), np.cross(sideways, unit(direction)))
    found = _associated(start, given, robust, Freedom(about=sideways), "line: the points lie at one place")
    return as_line(found, sideways)


def fit_circle(
    points: FloatArray,
    normals: FloatArray,
    axis: FloatArray,
    sigma_m: FloatArray | None,
    start: Circle,
    *,
    robust: bool = True,
) -> Associated:
    """The least-squares circle through points seen along `axis`.

    Args:
        points: (N, 3) metres, at least 3.
        normals: (N, 3) measured, out of the material; they say whether it is a hole or a shaft.
        axis: (3,) unit length, held.
        sigma_m: (N,) standard uncertainty of each from noise, or None.
        start: roughly where.
        robust: leave out outliers.

    Raises:
        DepthcellError: (`NOT_MEASURED`) fewer than 3 points, or on too short an arc.
    """
    given = _Points.of(points, normals, sigma_m, "circle", 3)
    begin = Cylinder(start.centre, unit(axis), start.radius_m)
    found = _associated(begin, given, robust, Freedom(leans=False), "circle: the points cover too short an arc")
    return as_circle(found)


def fit_cylinder(
    points: FloatArray, normals: FloatArray, sigma_m: FloatArray | None, start: Cylinder, *, robust: bool = True
) -> Associated:
    """The least-squares cylinder; its axis points the way of the start's.

    Args:
        points: (N, 3) metres, at least 5.
        normals: (N, 3) measured, out of the material; they say whether it is a bore or a shaft.
        sigma_m: (N,) standard uncertainty of each from noise, or None.
        start: roughly where.
        robust: leave out outliers.

    Raises:
        DepthcellError: (`NOT_MEASURED`) fewer than 5 points, on too short an arc or too short a stretch.
    """
    given = _Points.of(points, normals, sigma_m, "cylinder", 5)
    return _associated(start, given, robust, FREE, "cylinder: the points cover too short an arc or too short a stretch")


def fit_sphere(
    points: FloatArray, normals: FloatArray, sigma_m: FloatArray | None, start: Sphere, *, robust: bool = True
) -> Associated:
    """The least-squares sphere.

    Args:
        points: (N, 3) metres, at least 4.
        normals: (N, 3) measured, out of the material; they say whether it is a ball or a dimple.
        sigma_m: (N,) standard uncertainty of each from noise, or None.
        start: roughly where.
        robust: leave out outliers.

    Raises:
        DepthcellError: (`NOT_MEASURED`) fewer than 4 points, or on too small a cap.
    """
    given = _Points.of(points, normals, sigma_m, "sphere", 4)
    return _associated(start, given, robust, FREE, "sphere: the points cover too small a cap")


def _associated(start: Surface, given: _Points, robust: bool, freedom: Freedom, degenerate: str) -> Associated:
    """Fit and say how the fit answers to the points.

    At the solution `sum psi(r_i) J_i = 0`. A point that moves by `d` along its measured normal `m_i` changes its
    residual by `c_i d`, `c_i = m_i . n_i` with the surface's normal `n_i`; so the local coordinates change by
    `-A^-1 psi'_i J_i c_i d` with `A = sum psi'_i J_i J_i^T` (terms of residual over radius left out). The scale of the
    noise is held: it follows a single point, the median's, and which one that is changes with the noise.
    """
    side = side_of(start, given.points, given.normals)
    robust = robust and len(given.points) >= POINTS_PER_CHANGE * freedom.directions(start).shape[1]
    surface, scale = _settled(start, given, robust, freedom, side, degenerate)
    used = np.flatnonzero(_Weighing.of(misfit(surface, given.points, side).residual_m, given.sigma_m, scale).weight)
    surface = recentred(surface, given.points[used])
    at = misfit(surface, given.points[used], side)
    slope = _Weighing.of(at.residual_m, given.sigma_m[used], scale).slope
    spanned = _spanned(surface, given.points[used], freedom)
    lifts = spanned.T @ at.jacobian
    cosine = np.einsum("ij,ij->i", at.normals, given.normals[used])
    gain = -spanned @ _solved((lifts * slope) @ lifts.T, lifts * (slope * cosine), degenerate)
    return Associated(
        element=surface,
        used=used,
        residual_m=at.residual_m,
        gain=gain,
        form_m=float(np.ptp(at.residual_m)),
        criterion=LEAST_SQUARES,
        outliers=len(given.points) - len(used),
    )


def _settled(
    surface: Surface, given: _Points, robust: bool, freedom: Freedom, side: float, degenerate: str
) -> tuple[Surface, float | None]:
    """Step until nothing moves; the surface, and the scale of the noise by which outliers were told."""
    scale: float | None = None
    for step in range(MOST_STEPS):
        at = misfit(surface, given.points, side)
        if robust and step < SCALE_STEPS:
            scale = _scale(at, given)
        weight = _Weighing.of(at.residual_m, given.sigma_m, scale).weight
        spanned = _spanned(surface, given.points, freedom)
        lifts = spanned.T @ at.jacobian
        wanted = -_solved((lifts * weight) @ lifts.T, (lifts * weight) @ at.residual_m, degenerate)
        surface = moved(surface, spanned @ (wanted * min(1.0, _reach(surface) / max(np.abs(wanted).max(), 1e-300))))
        if np.abs(wanted).max() < STILL_M:
            return surface, scale
    raise DepthcellError(f"{_name(surface)}: the fit does not settle; are these its points?", Reason.NOT_MEASURED)


def _scale(at: Misfit, given: _Points) -> float:
    """By how much the residuals scatter more than their noise says; where that is unknown, their scatter in metres."""
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(at.residual_m / given.sigma_m)))
    return max(1.0 if given.absolute else FINEST_M, scatter)


def _spanned(surface: Surface, points: FloatArray, freedom: Freedom) -> NDArray[np.float64]:
    """(P, F): the changes allowed, each moving the surface by about 1 m per unit."""
    return np.asarray(levers(surface, points)[:, None] * freedom.directions(surface))


def _reach(surface: Surface) -> float:
    """A step may not move the surface by more than this, so that a bad start does not throw it away."""
    return np.inf if isinstance(surface, Plane) else surface.radius_m / 2


def _solved(information: NDArray[np.float64], pull: NDArray[np.float64], degenerate: str) -> NDArray[np.float64]:
    values = np.linalg.eigvalsh(information)
    if not values[0] > WEAKEST**2 * values[-1]:
        raise DepthcellError(degenerate, Reason.NOT_MEASURED)
    return np.asarray(np.linalg.solve(information, pull), dtype=np.float64)


def _name(element: Element) -> str:
    return type(element).__name__.lower()


def _plane_by_normals(given: _Points) -> Plane:
    """Across the middle of the measured normals, through the middle of the points: outliers hardly move it."""
    normal = np.median(given.normals, axis=0)
    if np.linalg.norm(normal) < 1e-6:
        return _plane_by_scatter(given)
    normal = unit(normal)
    middle = given.points.mean(axis=0)
    return Plane(middle + np.median((given.points - middle) @ normal) * normal, normal)


def _plane_by_scatter(given: _Points) -> Plane:
    """Across the direction of least scatter: right unless outliers are gross."""
    middle = given.points.mean(axis=0)
    normal = np.linalg.eigh(np.cov((given.points - middle).T))[1][:, 0]
    facing = np.median(given.normals @ normal)
    return Plane(middle, np.asarray(normal if facing >= 0 else -normal))


def _nearest(given: _Points, planes: list[Plane]) -> Plane:
    return min(planes, key=lambda plane: float(np.median(np.abs(plane.distance(given.points)))))


def unit(vector: FloatArray) -> NDArray[np.float64]:
    """(3,) at unit length."""
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float64)


def as_line(found: Associated, sideways: NDArray[np.float64]) -> Associated:
    """The line in which a plane that holds `sideways` is seen; shifts and leans go along the plane's normal."""
    match found.element:
        case Plane(point, normal):
            direction = np.cross(normal, sideways)
        case _:
            raise DepthcellError("line: comes of a plane seen from the side")
    along = np.array(across(direction)) @ normal
    # as far as the normal leans towards the direction, the direction leans away from the normal
    lean = -(np.array(across(normal)) @ direction) @ found.gain[1:]
    gain = np.vstack((along[:, None] * found.gain[0], along[:, None] * lean))
    line = Line(point, np.asarray(direction))
    return Associated(line, found.used, found.residual_m, gain, found.form_m, found.criterion, found.outliers)


def as_circle(found: Associated) -> Associated:
    """The circle of a cylinder whose axis was held."""
    match found.element:
        case Cylinder(point, axis, radius_m):
            circle, gain = Circle(point, axis, radius_m), found.gain[[0, 1, 4]]
        case _:
            raise DepthcellError("circle: comes of a cylinder seen along its axis")
    return Associated(circle, found.used, found.residual_m, gain, found.form_m, found.criterion, found.outliers)
