"""Small motions of a part about its own middle: all six in metres at its surface, so that they can be compared."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.fusion.reference import Reference

SUSPECT = 0.15
"""A motion that moves the surface along its normals by less than this share of itself may be free."""
FREE = 0.03
"""It is, if what a shift over itself lifts the reference by, beyond what good parts differ, is less than this share."""
TRIAL_M = 1e-3
"""So far it is moved; or twice as far as good parts differ, if that is more."""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Coordinates of small motions, `(length omega, t)`: rotation about `centre_cell`, shift of it, both in metres.

    Attributes:
        centre_cell: (3,) metres, the middle of the points.
        length_m: their root mean square distance from it.
    """

    centre_cell: NDArray[np.float64]
    length_m: float

    @classmethod
    def around(cls, points_cell: FloatArray) -> "Basis":
        """Of points (N, 3)."""
        axes = np.ascontiguousarray(points_cell.T, np.float64)
        centre_cell = axes.mean(axis=1)
        spread_m2 = np.square(axes - centre_cell[:, None]).sum() / len(points_cell)
        return cls(centre_cell, float(np.sqrt(spread_m2)))

    @property
    def twist(self) -> NDArray[np.float64]:
        """(6, 6): makes such a motion one of `RigidTransform.perturbed`, which turns about the cell's origin."""
        x, y, z = self.centre_cell
        matrix = np.eye(6)
        matrix[:3, :3] /= self.length_m
        # t = t_centre - omega x centre = t_centre + centre x omega
        matrix[3:, :3] = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]) / self.length_m
        return matrix

    def between(self, T_new: RigidTransform, T_old: RigidTransform) -> NDArray[np.float64]:
        """The motion (6,) that leads from one pose to the other, to first order in its rotation."""
        moved = T_new @ T_old.inverse()
        shift_m = moved @ self.centre_cell - self.centre_cell
        return np.concatenate((moved.rotation_vector_rad * self.length_m, shift_m))

    def in_words(self, motion: FloatArray) -> str:
        """A motion (6,) as a person would name it, in the cell frame."""
        turn, shift = motion[:3] / self.length_m, motion[3:]
        if np.linalg.norm(motion[:3]) < 0.3 * np.linalg.norm(motion):
            return f"shift along {_direction(shift)}"
        through_mm = (self.centre_cell + np.cross(turn, shift) / (turn @ turn)) * 1e3
        place = ", ".join(f"{value:.0f}" for value in through_mm)
        return f"rotation about {_direction(turn)} through ({place}) mm"


def free_motions(
    basis: Basis,
    information: NDArray[np.float64],
    points_part: FloatArray,
    T_cell_part: RigidTransform,
    reference: Reference,
    allowed: NDArray[np.float64],
    form_m: float,
) -> NDArray[np.float64]:
    """Motions that move the reference within its own surface, (6, K) orthonormal columns; K is 0 for most parts.

    The eigenvectors of the mean of `J J^T` with small eigenvalues are suspects. Facets of a round surface and ripples
    of a weld give them some slope, but say no more of the place than good parts are alike in them. So each is tried for
    good: the surface points are moved by 1 mm to either side, and the root mean square of their distances from the
    reference is taken, with 0 for those within `form_m`. On the parts of the simulator a free motion has 0.017 of the
    way or less, one that is held 0.04 or more: of a weld the slide along its bead is free where parts may differ by
    0.5 mm, and held by the ripples where they differ by no more than 0.1 mm.

    Args:
        basis: of the motions.
        information: (6, 6) mean of `J J^T` over the points, J the lift of the surface per motion.
        points_part: (N, 3) points on the reference's surface, in its frame.
        T_cell_part: pose of the part.
        reference: the surface.
        allowed: (6, A) orthonormal columns; only motions within their span are asked about.
        form_m: how far good parts differ in form.
    """
    values, vectors = np.linalg.eigh(allowed.T @ information @ allowed)
    suspects = allowed @ vectors[:, values < SUSPECT**2]
    free, trial_m = [], max(TRIAL_M, 2 * form_m)
    points_cell = T_cell_part @ points_part if suspects.size else points_part
    for motion in suspects.T:
        moved = [T_cell_part.perturbed(basis.twist @ (step * motion)) for step in (trial_m, -trial_m)]
        lifts_m = np.concatenate([reference.signed_distance(T.inverse() @ points_cell) for T in moved])
        told_m = np.where(np.abs(lifts_m) > form_m, lifts_m, 0)
        if np.sqrt(np.mean(np.square(told_m))) < FREE * trial_m:
            free.append(motion)
    return np.array(free).reshape(-1, 6).T


def without(span: NDArray[np.float64], taken: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal columns (6, A - K): the span of the columns (6, A) less that of `taken` (6, K) within it."""
    vectors = np.linalg.svd(span.T @ taken, full_matrices=True)[0]
    return np.asarray(span @ vectors[:, taken.shape[1] :])


def _direction(vector: FloatArray) -> str:
    unit = vector / np.linalg.norm(vector)
    unit = unit * np.sign(unit[np.argmax(np.abs(unit))])
    return "(" + ", ".join(f"{value + 0.0:.2f}" for value in unit) + ")"
