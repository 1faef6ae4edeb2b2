"""Many poses fitted to the same points at once: Gauss-Newton on the reference's distance field, all in one sweep.

The same point-to-plane steps as `align`, without its care for noise: what comes out is a ranking of starts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.distancefield import DistanceField

DAMPING = 1e-3
"""Of the normal equations, relative to their mean eigenvalue: a motion that nothing holds stays where it is."""
MOST_TURN_RAD = 0.35
"""A step turns no pose by more: beyond, the linearisation says nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class OrientedPoints:
    """N points with their outward normals, (N, 3) each, in the frame that the poses lead to or from."""

    points: NDArray[np.float64]
    normals: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.points)

    def some(self, count: int) -> "OrientedPoints":
        """About `count` of them, taken evenly."""
        step = max(1, len(self) // count)
        return OrientedPoints(self.points[::step], self.normals[::step])


@dataclass(frozen=True, slots=True, eq=False)
class PoseBatch:
    """K poses `T_part_cell`.

    Attributes:
        rotations: (K, 3, 3).
        shifts_m: (K, 3).
    """

    rotations: NDArray[np.float64]
    shifts_m: NDArray[np.float64]

    @classmethod
    def of(cls, poses: "list[RigidTransform]") -> "PoseBatch":
        """From transforms `T_cell_part`."""
        back = [pose.inverse() for pose in poses]
        return cls(np.array([T.rotation for T in back]), np.array([T.translation_m for T in back]))

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, chosen: NDArray[np.intp]) -> "PoseBatch":
        return PoseBatch(self.rotations[chosen], self.shifts_m[chosen])

    def transform(self, number: int) -> RigidTransform:
        """One of them as `T_cell_part`."""
        left, _, right = np.linalg.svd(self.rotations[number])  # many small turns leave it a rotation but for rounding
        return RigidTransform("part", "cell", left @ right, self.shifts_m[number]).inverse()

    def mapped(self, points_cell: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 3) in the frame "part" of each pose, (K, N, 3)."""
        return np.asarray(np.matmul(points_cell, self.rotations.transpose(0, 2, 1)) + self.shifts_m[:, None])


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """Points on the reference in each of K poses.

    Attributes:
        points_part: (K, N, 3).
        distance_m: (K, N), positive outside.
        gradient: (K, N, 3), the outward direction.
        facing: (K, N) cosine between a point's normal and that direction.
    """

    points_part: NDArray[np.float64]
    distance_m: NDArray[np.float64]
    gradient: NDArray[np.float64]
    facing: NDArray[np.float64]

    def agreement(self, scale_m: float) -> NDArray[np.float64]:
        """(K,) share of points that lie on the reference and face as it does, each by Geman and McClure's weight."""
        weight = np.square(1 / (1 + np.square(self.distance_m / scale_m)))
        return np.asarray((weight * np.clip(self.facing, 0, 1)).mean(axis=1))


def residuals(batch: PoseBatch, data: OrientedPoints, field: DistanceField) -> Residuals:
    """Look the points up in each pose."""
    points_part = batch.mapped(data.points)
    distance_m, gradient = field.distance_and_gradient(points_part.reshape(-1, 3))
    gradient /= np.maximum(np.linalg.norm(gradient, axis=1), 0.1)[:, None]
    gradient = gradient.reshape(points_part.shape)
    facing = np.einsum("knj,knj->kn", np.matmul(data.normals, batch.rotations.transpose(0, 2, 1)), gradient)
    return Residuals(points_part, distance_m.reshape(points_part.shape[:2]), gradient, facing)


def fitted(batch: PoseBatch, data: OrientedPoints, field: DistanceField, scales_m: tuple[float, ...]) -> PoseBatch:
    """Each pose after one step per scale.

    Weights are Geman and McClure's, `1 / (1 + (r / scale)²)²`: far points still pull at a wide scale, and no more at a
    narrow one. A point that faces away from the surface has no say.
    """
    for scale_m in scales_m:
        batch = _stepped(batch, residuals(batch, data, field), scale_m)
    return batch


def _stepped(batch: PoseBatch, now: Residuals, scale_m: float) -> PoseBatch:
    """Moves points in the frame "part" by `w x q + v`, which lifts them by `w · (q x g) + v · g`."""
    middle = now.points_part.mean(axis=1, keepdims=True)
    levers = now.points_part - middle
    length_m = float(np.sqrt(np.square(levers).sum(axis=-1).mean()))
    jacobian = np.concatenate((np.cross(levers, now.gradient) / length_m, now.gradient), axis=-1)
    weight = np.square(1 / (1 + np.square(now.distance_m / scale_m))) * np.clip(now.facing, 0, 1)
    weighted = (jacobian * weight[..., None]).transpose(0, 2, 1)
    normal = np.matmul(weighted, jacobian)
    damping = DAMPING * np.trace(normal, axis1=1, axis2=2) / 6 + 1e-9
    normal += damping[:, None, None] * np.eye(6)
    pull = np.einsum("kin,kn->ki", weighted, now.distance_m)
    step = -np.linalg.solve(normal, pull[..., None])[..., 0]
    turn_rad = step[:, :3] / length_m
    size = np.linalg.norm(turn_rad, axis=1, keepdims=True)
    turn_rad *= np.minimum(1, MOST_TURN_RAD / np.maximum(size, 1e-12))
    turns = Rotation.from_rotvec(turn_rad).as_matrix()
    centre = middle[:, 0]
    shifts_m = np.einsum("kij,kj->ki", turns, batch.shifts_m - centre) + centre + step[:, 3:]
    return PoseBatch(np.matmul(turns, batch.rotations), shifts_m)


def rotations_evenly(count: int) -> NDArray[np.float64]:
    """(K, 3, 3) rotations spread evenly over all: super-Fibonacci spirals (M. Alexa, CVPR 2022, pp. 8291-8300).

    Quaternions `(r sin a, r cos a, R sin b, R cos b)` with `r² = s / n`, `R² = 1 - s / n`, `a = 2 pi s / sqrt(2)`,
    `b = 2 pi s / psi`, `s = i + 1/2`; psi solves `psi^4 = psi + 4`.
    """
    s = np.arange(count) + 0.5
    first, second = np.sqrt(s / count), np.sqrt(1 - s / count)
    a, b = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    quaternions = np.column_stack((first * np.sin(a), first * np.cos(a), second * np.sin(b), second * np.cos(b)))
    return np.asarray(Rotation.from_quat(quaternions).as_matrix(), dtype=np.float64)
