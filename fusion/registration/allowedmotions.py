"""Which motions of a part are looked for, where its fixture holds the others, and how well it does."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.fusion.motion import Basis

MOTIONS: Final = ("rx", "ry", "rz", "x", "y", "z")
"""Rotations about and shifts along the axes of a frame, in the order of `RigidTransform.perturbed`."""


@dataclass(frozen=True, slots=True, eq=False)
class AllowedMotions:
    """Degrees of freedom that the cloud decides; the others stay as the fixture has them.

    Two pins under a plate, say, leave `("x", "y", "rz")` of a frame whose z axis stands on the plate.

    Attributes:
        names: of `MOTIONS`, those that are looked for.
        T_cell_frame: whose axes they follow; rotations turn about its origin.
        held_sigma_m: standard uncertainty of each shift that the fixture holds, from part to part.
        held_sigma_rad: the same of each rotation about the frame's origin.

    Raises:
        DepthcellError: no motion, an unknown or a doubled one, or an uncertainty that is negative or not finite.
    """

    names: tuple[str, ...]
    T_cell_frame: RigidTransform
    held_sigma_m: float
    held_sigma_rad: float

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in MOTIONS]
        if unknown or not self.names or len(set(self.names)) < len(self.names):
            raise DepthcellError(
                f"allowed motions: names must hold some of {', '.join(MOTIONS)}, each once; got {self.names}"
            )
        if self.T_cell_frame.target != "cell":
            raise DepthcellError(f"allowed motions: T_cell_frame leads to '{self.T_cell_frame.target}', not to 'cell'")
        for name in ("held_sigma_m", "held_sigma_rad"):
            if not 0 <= getattr(self, name) < np.inf:
                raise DepthcellError(f"allowed motions: {name} must be 0 or more and finite, got {getattr(self, name)}")

    def looked_for(self, basis: Basis) -> NDArray[np.float64]:
        """Orthonormal columns (6, A) in `basis` that span what is looked for."""
        chosen = np.flatnonzero(np.isin(MOTIONS, self.names))
        return np.asarray(np.linalg.qr(self._motions(basis).take(chosen, axis=1))[0])

    def held_covariance(self, basis: Basis) -> NDArray[np.float64]:
        """Covariance (6, 6) in `basis` of how the fixture holds what is not looked for."""
        sigma = np.array([self.held_sigma_rad] * 3 + [self.held_sigma_m] * 3)
        sigma[np.isin(MOTIONS, self.names)] = 0.0
        held = self._motions(basis) * sigma
        return np.asarray(held @ held.T, dtype=np.float64)

    def _motions(self, basis: Basis) -> NDArray[np.float64]:
        """The six motions of the frame as columns in `basis`.

        A rotation about the axis a through the origin o is the twist `(a, o x a)` about the cell's origin.
        """
        axes, origin_cell = self.T_cell_frame.rotation, self.T_cell_frame.translation_m
        twists = np.zeros((6, 6))
        twists[:3, :3], twists[3:, 3:] = axes, axes
        twists[3:, :3] = np.cross(origin_cell, axes.T).T
        return np.asarray(np.linalg.inv(basis.twist) @ twists)
