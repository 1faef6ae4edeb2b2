"""Elements associated by extremes: minimum zone (ISO criterion "C", Chebyshev), inscribed "GX" and circumscribed "GN".

The zone of ISO 1101 lies between two surfaces of the kind, `width` apart; the element lies in its middle, so that the
largest distance of a point from it is least, and the width is twice that. ISO 14405-1 calls the largest element that
can be inscribed GX and the smallest that can be circumscribed GN. A few points touch the border and alone decide; by
`gain` the element answers to those, as long as they are the ones that touch.

Extremes follow noise: over n points its largest values act, not its mean. So the points are first freed of outliers by
the robust least-squares fit, which is also where the search starts.
"""

from typing import Final

import numpy as np

from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.changes import moved
from depthcell.fusion.association.elements import Associated, Circle, Cylinder, Line, Plane, Sphere, across
from depthcell.fusion.association.leastsquares import (
    as_circle,
    as_line,
    fit_circle,
    fit_cylinder,
    fit_line,
    fit_plane,
    fit_sphere,
    unit,
)
from depthcell.fusion.association.minimax import Contact, Minimax, solve
from depthcell.fusion.association.misfit import FREE, Freedom, Surface, misfit, side_of

MINIMUM_ZONE: Final = "minimum zone"
INSCRIBED: Final = "maximum inscribed"
CIRCUMSCRIBED: Final = "minimum circumscribed"
STARTS = 4
"""A cylinder's zone can settle in several places: it is looked for from so many starts."""
SEED = 20_010


def zone_plane(
    points: FloatArray, normals: FloatArray, sigma_m: FloatArray | None, *, robust: bool = True
) -> Associated:
    """The plane in the middle of the narrowest zone of two parallel planes; `form_m` is its flatness (ISO 12781-1).

    Arguments and errors are those of `leastsquares.fit_plane`.
    """
    found = fit_plane(points, normals, sigma_m, robust=robust)
    return _zoned(found, points, normals, FREE)


def zone_line(
    points: FloatArray,
    normals: FloatArray,
    direction: FloatArray,
    normal: FloatArray,
    sigma_m: FloatArray | None = None,
    *,
    robust: bool = True,
) -> Associated:
    """The line in the middle of the narrowest zone of two parallel lines; `form_m` is its straightness (ISO 12780-1).

    Arguments and errors are those of `leastsquares.fit_line`.
    """
    found = fit_line(points, normals, direction, normal, sigma_m, robust=robust)
    sideways = unit(np.cross(direction, normal))
    return as_line(_zoned(found, points, normals, Freedom(about=sideways)), sideways)


def zone_circle(
    points: FloatArray,
    normals: FloatArray,
    axis: FloatArray,
    sigma_m: FloatArray | None,
    start: Circle,
    *,
    robust: bool = True,
) -> Associated:
    """The circle in the middle of the narrowest ring of two concentric ones; `form_m` is its roundness (ISO 12181-1).

    Arguments and errors are those of `leastsquares.fit_circle`.
    """
    found = fit_circle(points, normals, axis, sigma_m, start, robust=robust)
    return as_circle(_zoned(found, points, normals, Freedom(leans=False)))


def zone_cylinder(
    points: FloatArray, normals: FloatArray, sigma_m: FloatArray | None, start: Cylinder, *, robust: bool = True
) -> Associated:
    """The cylinder in the middle of the narrowest zone of two coaxial ones; `form_m` is its cylindricity (ISO 12180-1).

    Arguments and errors are those of `leastsquares.fit_cylinder`.
    """
    return _zoned(fit_cylinder(points, normals, sigma_m, start, robust=robust), points, normals, FREE)


def zone_sphere(
    points: FloatArray, normals: FloatArray, sigma_m: FloatArray | None, start: Sphere, *, robust: bool = True
) -> Associated:
    """The sphere in the middle of the narrowest shell of two concentric ones.

    Arguments and errors are those of `leastsquares.fit_sphere`.
    """
    return _zoned(fit_sphere(points, normals, sigma_m, start, robust=robust), points, normals, FREE)


def inscribed(found: Associated, points: FloatArray, normals: FloatArray) -> Associated:
    """The largest circle, cylinder or sphere that the points used leave room for (ISO 14405-1 GX).

    Args:
        found: by least squares.
        points: (N, 3) metres, those it was given.
        normals: (N, 3) of them.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the points lie on less than half of the circumference, so that nothing holds
            it; the element has no radius.
    """
    return _sized(found, points, normals, -1.0, INSCRIBED)


def circumscribed(found: Associated, points: FloatArray, normals: FloatArray) -> Associated:
    """The smallest circle, cylinder or sphere that holds the points used (ISO 14405-1 GN).

    Arguments and errors are those of `inscribed`.
    """
    return _sized(found, points, normals, 1.0, CIRCUMSCRIBED)


def _zoned(found: Associated, points: FloatArray, normals: FloatArray, freedom: Freedom) -> Associated:
    """From a least-squares fit to the minimum zone of the points that it used."""
    surface = _surface_of(found, freedom)
    kept, facing = points[found.used].astype(np.float64), normals[found.used]
    problem = Minimax(kept, side_of(surface, kept, facing), freedom)
    best = _best(problem, surface)
    return _associated(best, problem, found, facing, MINIMUM_ZONE)


def _sized(found: Associated, points: FloatArray, normals: FloatArray, sign: float, criterion: str) -> Associated:
    freedom = Freedom(leans=False) if isinstance(found.element, Circle) else FREE
    surface = _surface_of(found, freedom)
    kept = points[found.used].astype(np.float64)
    if isinstance(surface, Plane):
        raise DepthcellError(f"{criterion}: a flat or straight element has no size")
    _check_surrounded(surface, kept, criterion)
    problem = Minimax(kept, 1.0, freedom, (sign,), resized=False)
    best = _best(problem, surface)
    # R = R0 + sign t, and a border's residual e changes the bound t by weight * sign * e: the radius by weight * e
    response = np.vstack((best.response[:-1], best.weight))
    grown = _resized(best.surface, sign * best.bound_m)
    contact = Contact(grown, 0.0, best.touching, best.signs, best.weight, response)
    facing = normals[found.used]
    located = _associated(contact, problem, found, facing, criterion)
    return as_circle(located) if isinstance(found.element, Circle) else located


def _best(problem: Minimax, start: Surface) -> Contact:
    """The best of several starts for a cylinder, whose zone may settle in several places; one start for the others.

    Raises:
        DepthcellError: (`NOT_MEASURED`) from the first start the points do not hold it.
    """
    best = solve(problem, start)
    if not isinstance(start, Cylinder) or not problem.freedom.leans:
        return best
    rng = np.random.default_rng(SEED)
    spread, size = problem.spanned(start), abs(problem.bound(start))
    for _ in range(STARTS - 1):
        try:
            other = solve(problem, moved(start, spread @ rng.uniform(-size, size, spread.shape[1])))
        except DepthcellError:
            continue  # a start that leads nowhere says nothing against the others
        if other.bound_m < best.bound_m - 1e-12:
            best = other
    return best


def _associated(
    contact: Contact, problem: Minimax, found: Associated, normals: FloatArray, criterion: str
) -> Associated:
    """In the words of `Associated`: each touching point's motion along its measured normal changes its residual."""
    side = side_of(contact.surface, problem.points, normals)
    at = misfit(contact.surface, problem.points, side)
    cosine = np.einsum("ij,ij->i", at.normals, normals)[contact.touching] * (side * problem.side)
    gain = np.zeros((len(contact.response), len(problem.points)))
    np.add.at(gain.T, contact.touching, (contact.response * cosine).T)
    return Associated(
        element=contact.surface,
        used=found.used,
        residual_m=at.residual_m,
        gain=gain,
        form_m=float(np.ptp(at.residual_m)),
        criterion=criterion,
        outliers=found.outliers,
    )


def _surface_of(found: Associated, freedom: Freedom) -> Surface:
    """What the search works on: a circle is a cylinder whose axis is held, a line a plane seen from its side."""
    match found.element:
        case Circle(centre, axis, radius_m):
            return Cylinder(centre, axis, radius_m)
        case Line(point, direction):
            if freedom.about is None:
                raise DepthcellError("minimum zone: an axis has none of its own; give its surface")
            return Plane(point, np.cross(freedom.about, direction))
        case Plane() | Cylinder() | Sphere():
            return found.element


def _resized(surface: Surface, by_m: float) -> Surface:
    match surface:
        case Cylinder(point, axis, radius_m):
            return Cylinder(point, axis, radius_m + by_m)
        case Sphere(centre, radius_m):
            return Sphere(centre, radius_m + by_m)
        case Plane():
            return surface


def _check_surrounded(surface: Surface, points: FloatArray, criterion: str) -> None:
    """An arc of less than half the circumference holds nothing."""
    if not isinstance(surface, Cylinder):
        return
    u, v = across(surface.axis)
    apart = points - surface.point
    angle = np.sort(np.arctan2(apart @ v, apart @ u))
    gap = np.diff(angle, append=angle[0] + 2 * np.pi).max()
    if gap >= np.pi:
        degrees = 360 - np.degrees(gap)
        raise DepthcellError(
            f"{criterion}: the points cover {degrees:.0f} degrees of the circumference, needs more than 180",
            Reason.NOT_MEASURED,
        )
