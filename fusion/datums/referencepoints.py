"""Alignment on reference points with directions: RPS, of which 3-2-1 is the case of six points.

Each reference point says where the surface must lie along one direction. Three along one direction, two along another
and one along the third hold a part as pins of a fixture would (3-2-1); with more than six the sum of squares is least.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.elements import Plane, across
from depthcell.fusion.association.leastsquares import fit_plane
from depthcell.fusion.datums.datumframe import DatumFrame, named_motions
from depthcell.fusion.motion import Basis

FACING = 0.5
"""Cosine between a point's normal and the reference point's direction below which it belongs to another face."""
FEWEST = 6
"""Measured points that a reference point must rest on, so that one bad one can be told."""
HOLDS = 1e-3
"""Share of a motion by which it must move the reference points along their directions to be held."""
CHOOSING_STEPS = 6
"""So many steps choose the measured points anew; then they stay, so that the steps end."""
STILL_M = 1e-12
MOST_STEPS = 40


@dataclass(frozen=True, slots=True, eq=False)
class ReferencePoint:
    """Where the surface must lie, and along which direction.

    Attributes:
        name: for people.
        place: (3,) metres, on the nominal surface, frame "part".
        direction: (3,) unit length, out of the material; a lean off the surface's normal is allowed.
    """

    name: str
    place: NDArray[np.float64]
    direction: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How the surface at a reference point is measured: by a plane through the points around it.

    A surface of radius R lifts the plane by up to `radius_m² / (4 R)`: take the disc small where the part is round.

    Attributes:
        radius_m: of the disc around the direction's line.
        capture_m: how far from the reference point the surface may lie.
    """

    radius_m: float = 3e-3
    capture_m: float = 5e-3


class Probed(NamedTuple):
    """What was measured at a reference point.

    Attributes:
        deviation_m: of the surface from it along its direction, positive out of the material.
        points: (K,) intp, ascending, those it rests on.
        gain: (K,) change of the deviation per metre that each moves along its normal.
    """

    deviation_m: float
    points: NDArray[np.intp]
    gain: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Surface:
    """Measured points (N, 3), normals (N, 3), noise (N,) or None, and how to look at them."""

    points: FloatArray
    normals: FloatArray
    sigma_m: FloatArray | None
    settings: ProbeSettings

    def carried(self, transform: RigidTransform) -> "_Surface":
        return _Surface(transform @ self.points, transform.rotate(self.normals), self.sigma_m, self.settings)

    def near(self, reference: ReferencePoint) -> NDArray[np.intp]:
        """The points around a reference point that face its way."""
        apart = self.points - reference.place
        height = apart @ reference.direction
        aside = np.linalg.norm(apart - height[:, None] * reference.direction, axis=1)
        facing = self.normals @ reference.direction > FACING
        near = (aside < self.settings.radius_m) & (np.abs(height) < self.settings.capture_m) & facing
        return np.flatnonzero(near)

    def probed(self, reference: ReferencePoint, chosen: NDArray[np.intp]) -> Probed:
        """Where the direction's line pierces the plane through the chosen points."""
        if len(chosen) < FEWEST:
            reach_mm = self.settings.radius_m * 1e3
            raise DepthcellError(
                f"reference point '{reference.name}': {len(chosen)} measured points within {reach_mm:g} mm, "
                f"needs {FEWEST}; was the surface seen there?",
                Reason.NOT_MEASURED,
            )
        sigma_m = None if self.sigma_m is None else self.sigma_m[chosen]
        found = fit_plane(self.points[chosen], self.normals[chosen], sigma_m)
        if not isinstance(found.element, Plane):
            raise DepthcellError("reference point: needs a plane")
        plane, apart = found.element, found.element.point - reference.place
        cosine = float(reference.direction @ plane.normal)
        deviation_m = float(apart @ plane.normal) / cosine
        leans = np.array(across(plane.normal)) @ (apart - deviation_m * reference.direction)
        gradient = np.array([1.0, *leans]) / cosine
        return Probed(deviation_m, chosen[found.used], np.asarray(gradient @ found.gain))


def frame_by_points(
    points_part: FloatArray,
    normals_part: FloatArray,
    sigma_m: FloatArray | None,
    references: Sequence[ReferencePoint],
    settings: ProbeSettings | None = None,
) -> DatumFrame:
    """Turn and shift the measured part until its surface passes through the reference points, or comes nearest.

    A small twist (w, t) of the part moves the surface at a reference point p along its direction d by
    `(p x d) . w + d . t`: one equation each.

    Args:
        points_part: (N, 3) metres, measured, frame "part"; the cloud's.
        normals_part: (N, 3) of them, out of the material.
        sigma_m: (N,) standard uncertainty of each from noise, or None.
        references: at least one.
        settings: how the surface is measured at each.

    Raises:
        DepthcellError: no reference point; (`NOT_MEASURED`) the surface was not seen at one; (`ALIGNMENT_FAILED`) the
            steps do not settle.
    """
    if not references:
        raise DepthcellError("reference points: none given; 3-2-1 needs six")
    settings = settings or ProbeSettings()
    surface = _Surface(points_part, normals_part, sigma_m, settings)
    basis = Basis.around(np.array([reference.place for reference in references]))
    basis = replace(basis, length_m=max(basis.length_m, settings.radius_m))  # of one point alone it would be 0
    per_twist = np.array([[*np.cross(one.place, one.direction), *one.direction] for one in references])
    left, values, right = np.linalg.svd(per_twist @ basis.twist)
    rank = int(np.count_nonzero(values > HOLDS))
    solve = basis.twist @ right[:rank].T @ (left[:, :rank] / values[:rank]).T

    pose, chosen = RigidTransform.identity("datum", "part"), [np.zeros(0, np.intp)] * len(references)
    for step in range(MOST_STEPS):
        there = surface.carried(pose)
        if step < CHOOSING_STEPS:
            chosen = [there.near(reference) for reference in references]
        probed = [there.probed(reference, near) for reference, near in zip(references, chosen, strict=True)]
        twist = -solve @ np.array([one.deviation_m for one in probed])
        if np.abs(np.linalg.solve(basis.twist, twist)).max() < STILL_M:
            free = tuple(basis.in_words(motion) for motion in named_motions(right[rank:].T))
            return _frame(pose, probed, solve, per_twist, free)
        pose = pose.perturbed(twist)
    raise DepthcellError("reference points: the part does not settle on them", Reason.ALIGNMENT_FAILED)


def _frame(
    pose: RigidTransform,
    probed: Sequence[Probed],
    solve: NDArray[np.float64],
    per_twist: NDArray[np.float64],
    free: tuple[str, ...],
) -> DatumFrame:
    unique, place = np.unique(np.concatenate([one.points for one in probed]), return_inverse=True)
    gain = np.zeros((6, len(unique)))
    columns = np.hstack([-solve[:, [number]] * one.gain for number, one in enumerate(probed)])
    np.add.at(gain.T, place, columns.T)
    remaining = np.eye(6) - solve @ per_twist
    return DatumFrame(pose, unique.astype(np.intp), gain, remaining, (6 - len(free),), free)
