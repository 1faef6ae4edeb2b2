"""Motions that carry a part onto itself: poses that differ by one of them no cloud can ever tell apart."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.motion import SUSPECT
from depthcell.fusion.reference import Reference
from depthcell.fusion.registration.posebatch import OrientedPoints, PoseBatch, fitted, residuals, rotations_evenly

STARTS = 1200
SCALES_M = (0.01, 0.006, 0.004, 0.002, 0.001, 5e-4, 5e-4)
FORM_M = 5e-4
"""A surface point this far off its image still lies on it: facets, and the field's rounding at edges."""
MOST_OFF = 1e-3
"""Share of the surface that may lie farther off: a smaller feature does not tell poses apart."""
SAMPLE_M = 1.2e-3
SAME_M = 2e-3
"""Turns that move the surface apart by less than this are one."""
FITTED_POINTS = 150
SPIN_RAD = math.radians(7.0)
"""A part that is itself after this turn about an axis, and after twice and five times it, is so after any."""


@dataclass(frozen=True, slots=True, eq=False)
class Symmetry:
    """What carries a part onto itself: rotations about axes through the middle of its surface.

    Attributes:
        turns: (K,) `T_part_part`, the identity first; where `free_axis` is given, less all turns about it.
        free_axis: (3,) unit vector about which every angle will do; None for most parts.
        centre_part: (3,) metres, on every axis.
    """

    turns: tuple[RigidTransform, ...]
    free_axis: NDArray[np.float64] | None
    centre_part: NDArray[np.float64]

    @classmethod
    def of(cls, reference: Reference) -> "Symmetry":
        """Look for them: poses of the part's own surface on itself, from starts all over the rotations."""
        samples = reference.surface_samples(SAMPLE_M)
        surface = OrientedPoints(samples.points_part, samples.normals_part.astype(np.float64))
        centre_part = surface.points.mean(axis=0)
        free_axis = _free_axis(surface, reference, centre_part)
        starts = rotations_evenly(STARTS)
        batch = PoseBatch(starts, centre_part - starts @ centre_part)
        field = reference.field.thinned(2)
        batch = fitted(batch, surface.some(FITTED_POINTS), field, SCALES_M)
        agreement = residuals(batch, surface.some(2 * FITTED_POINTS), field).agreement(FORM_M)
        good = np.flatnonzero(agreement > 0.9 * agreement.max())
        spun = cls((RigidTransform.identity("part", "part"),), free_axis, centre_part)
        turns = list(spun.turns)
        points = surface.some(300).points
        for number in good:
            back = batch.transform(int(number))
            turn = RigidTransform("part", "part", back.rotation, back.translation_m)
            is_new = min(spun.apart_m(turn, one, points) for one in turns) > SAME_M
            if is_new and _share_off(turn, surface, reference) <= MOST_OFF:
                turns.append(turn)
        return cls(tuple(turns), free_axis, centre_part)

    @property
    def in_words(self) -> tuple[str, ...]:
        """Each axis once, as a person would name it, in the frame "part"; empty for a part without any."""
        said = [] if self.free_axis is None else [f"any turn about {_named(self.free_axis)}"]
        axes: list[tuple[NDArray[np.float64], int]] = []
        for vector in (turn.rotation_vector_rad for turn in self.turns[1:]):
            axis = vector / np.linalg.norm(vector)
            for place, (known, count) in enumerate(axes):
                if abs(known @ axis) > 0.99:
                    axes[place] = (known, count + 1)
                    break
            else:
                axes.append((axis, 2))
        if self.free_axis is not None:
            return (*said, *(["end for end"] if axes else []))
        return tuple(f"{count}-fold about {_named(axis)}" for axis, count in axes)

    def alike(self, pose: RigidTransform, wanted: RigidTransform) -> RigidTransform:
        """Of the poses `T_cell_part` that look like `pose`, the one turned least against `wanted`."""
        candidates = [self._spun(pose @ turn, wanted) for turn in self.turns]
        return max(candidates, key=lambda one: float(np.trace(wanted.rotation.T @ one.rotation)))

    def apart_m(self, pose: RigidTransform, other: RigidTransform, points_part: NDArray[np.float64]) -> float:
        """Mean distance of points (N, 3) between two poses, where turns that look alike do not count."""
        away = self.alike(pose, other) @ points_part - other @ points_part
        return float(np.linalg.norm(away, axis=1).mean())

    def _spun(self, pose: RigidTransform, wanted: RigidTransform) -> RigidTransform:
        """Turned about the free axis so that it is turned least against `wanted`.

        With `D = R_wanted^T R_pose` the trace of `D R(axis, angle)` is `a·Da + cos (tr D - a·Da) + sin tr(D [a]x)`.
        """
        if self.free_axis is None:
            return pose
        axis, between = self.free_axis, wanted.rotation.T @ pose.rotation
        cross = np.cross(np.eye(3), axis)
        angle_rad = math.atan2(float(np.trace(between @ cross)), float(np.trace(between) - axis @ between @ axis))
        return pose @ about(axis, angle_rad, self.centre_part)


def about(axis_part: NDArray[np.float64], angle_rad: float, centre_part: NDArray[np.float64]) -> RigidTransform:
    """The turn `T_part_part` about an axis through a place."""
    rotation = Rotation.from_rotvec(angle_rad * axis_part).as_matrix()
    return RigidTransform("part", "part", rotation, centre_part - rotation @ centre_part)


def _free_axis(
    surface: OrientedPoints, reference: Reference, centre_part: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """The axis about which turning lifts the surface least, if it is itself after some turns about it."""
    levers = surface.points - centre_part
    lift = np.cross(levers, surface.normals) / np.sqrt(np.square(levers).sum(axis=1).mean())
    values, vectors = np.linalg.eigh(lift.T @ lift / len(lift))
    if values[0] > SUSPECT**2:
        return None
    turns = (about(vectors[:, 0], times * SPIN_RAD, centre_part) for times in (1, 2, 5))
    return None if any(_share_off(turn, surface, reference) > MOST_OFF for turn in turns) else vectors[:, 0]


def _share_off(turn: RigidTransform, surface: OrientedPoints, reference: Reference) -> float:
    distance_m = reference.signed_distance(turn @ surface.points)
    return float(np.mean(np.abs(distance_m) > FORM_M))


def _named(axis: NDArray[np.float64]) -> str:
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    return "(" + ", ".join(f"{value + 0.0:.2f}" for value in axis.round(2)) + ")"
