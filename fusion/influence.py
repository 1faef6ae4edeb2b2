"""How a scalar answers to the points and the pose it was measured with, to first order: GUM's sensitivity coefficients.

A gauge says by how much its value changes when a point moves along its own normal, and when the part's pose is another.
From that, and from what the cloud, the alignment and the cell state, `fusion.budget` makes its standard uncertainty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """Sensitivities (GUM 5.1.3) of one scalar.

    Attributes:
        points: (K,) intp, strictly ascending, indices into the scan's cloud.
        gradient: (K,) float64, change of the scalar per metre that the point moves along its normal, out of the
            material.
        pose: (6,) float64, change of the scalar per unit of a perturbation of `T_cell_part` in the convention of
            `RigidTransform.perturbed`, the points staying where they are in the cell. Zero for what depends on the
            points alone, such as a diameter or a distance between two associated features.
    """

    points: NDArray[np.intp]
    gradient: NDArray[np.float64]
    pose: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.points.shape != self.gradient.shape or self.points.ndim != 1 or self.pose.shape != (6,):
            raise DepthcellError(
                f"influence: needs points (K,), gradient (K,) and pose (6,), got {self.points.shape}, "
                f"{self.gradient.shape} and {self.pose.shape}"
            )
        if np.any(np.diff(self.points) <= 0):
            raise DepthcellError("influence: points must be strictly ascending")

    @classmethod
    def none(cls) -> Self:
        """Of a scalar that nothing moves."""
        return cls(np.zeros(0, np.intp), np.zeros(0), np.zeros(6))

    @classmethod
    def of(cls, points: NDArray[np.intp], gradient: FloatArray, pose: FloatArray | None = None) -> Self:
        """From indices in any order, one of them perhaps several times: gradients of the same point add up."""
        unique, place = np.unique(points, return_inverse=True)
        total = np.zeros(len(unique))
        np.add.at(total, place, gradient)
        return cls(unique.astype(np.intp), total, np.zeros(6) if pose is None else np.asarray(pose, dtype=np.float64))

    def scaled(self, factor: float) -> "Influence":
        """Of `factor` times the scalar."""
        return Influence(self.points, self.gradient * factor, self.pose * factor)

    def __add__(self, other: "Influence") -> "Influence":
        return combined((self, other))

    def __sub__(self, other: "Influence") -> "Influence":
        return combined((self, other.scaled(-1.0)))


def combined(influences: Sequence[Influence]) -> Influence:
    """Of a sum of scalars."""
    if not influences:
        return Influence.none()
    return Influence.of(
        np.concatenate([influence.points for influence in influences]),
        np.concatenate([influence.gradient for influence in influences]),
        np.sum([influence.pose for influence in influences], axis=0),
    )
