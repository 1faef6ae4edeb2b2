"""The ideal elements that surfaces are associated with (ISO 17450-1: associated features), with small changes of each.

Every element has local coordinates for small changes, in which its covariance and its sensitivities are written. The
two directions `u`, `v` across an axis or in a plane are those of `across(axis)`, so that everybody means the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray


def across(axis: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two unit vectors `u`, `v` (3,) that form a right-handed frame (u, v, axis) with a unit vector `axis` (3,).

    `u` comes from the coordinate axis that `axis` leans on least.
    """
    helper = np.eye(3)[int(np.argmin(np.abs(axis)))]
    u = helper - (helper @ axis) * np.asarray(axis, dtype=np.float64)
    u /= np.linalg.norm(u)
    return u, np.cross(axis, u)


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """A plane.

    Attributes:
        point: (3,) metres, the middle of the points it was associated with.
        normal: (3,) unit length, out of the material.

    Local coordinates: (shift along the normal [m], lean a, lean b), the normal becoming `normal + a u + b v`: a point
    `point + x u + y v` of the plane is lifted by `shift - a x - b y`.
    """

    point: NDArray[np.float64]
    normal: NDArray[np.float64]

    def distance(self, points: FloatArray) -> NDArray[np.float64]:
        """(N,) signed distance of points (N, 3), positive out of the material."""
        return np.asarray((points - self.point) @ self.normal, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A straight line or an axis.

    Attributes:
        point: (3,) metres, the middle of the stretch it was associated with.
        direction: (3,) unit length.

    Local coordinates: (shift along u [m], along v [m], lean a, lean b), the direction becoming `direction + a u + b v`.
    """

    point: NDArray[np.float64]
    direction: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Circle:
    """A circle.

    Attributes:
        centre: (3,) metres.
        axis: (3,) unit length.
        radius_m: of the circle.

    Local coordinates: (shift along u [m], along v [m], change of radius [m]); its plane is held.
    """

    centre: NDArray[np.float64]
    axis: NDArray[np.float64]
    radius_m: float


@dataclass(frozen=True, slots=True, eq=False)
class Cylinder:
    """A cylinder.

    Attributes:
        point: (3,) metres, on the axis, in the middle of the stretch it was associated with.
        axis: (3,) unit length.
        radius_m: of the cylinder.

    Local coordinates: (shift along u [m], along v [m], lean a, lean b, change of radius [m]).
    """

    point: NDArray[np.float64]
    axis: NDArray[np.float64]
    radius_m: float

    @property
    def line(self) -> Line:
        """Its axis; the first four of its local coordinates are the line's."""
        return Line(self.point, self.axis)


@dataclass(frozen=True, slots=True, eq=False)
class Sphere:
    """A sphere.

    Attributes:
        centre: (3,) metres.
        radius_m: of the sphere.

    Local coordinates: (shift along x, y, z [m], change of radius [m]).
    """

    centre: NDArray[np.float64]
    radius_m: float


Element = Plane | Line | Circle | Cylinder | Sphere


@dataclass(frozen=True, slots=True, eq=False)
class Associated:
    """An element with the points it was associated with.

    Attributes:
        element: in the frame of the points that were given.
        used: (K,) intp, ascending: which of the points given it rests on; outliers are not among them.
        residual_m: (K,) signed distance of those from the element, positive out of the material.
        gain: (P, K) change of the element's P local coordinates per metre that each used point moves along its own
            measured normal, out of the material. For least squares that is the pseudo-inverse; for a minimum zone only
            the points that touch the zone have entries.
        form_m: peak-to-valley of the residuals by the criterion that was asked for (for a minimum zone, its width).
        criterion: "least squares" or "minimum zone" (ISO 1101 "G" and "C"), "maximum inscribed", "minimum
            circumscribed" or "tangent".
        outliers: points given that were left out.
    """

    element: Element
    used: NDArray[np.intp]
    residual_m: NDArray[np.float64]
    gain: NDArray[np.float64]
    form_m: float
    criterion: str
    outliers: int
