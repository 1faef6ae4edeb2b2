"""A measured part, ready to be gauged: its cloud, where it lies, and the cell that saw it."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.fusion.align import Alignment
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """One part, as fusion and registration leave it.

    Attributes:
        cloud: the measured points; never filled, never smoothed, no mixed pixels.
        alignment: where the part lies, with covariance.
        cell: what saw it; holds every camera of the cloud.
        reference: the nominal surface, or None where there is none.
        points_part: (N, 3) float64, metres, the cloud's points in the frame "part".
        normals_part: (N, 3) float64, unit length, out of the material, in the frame "part".
    """

    cloud: PartCloud
    alignment: Alignment
    cell: Cell
    reference: Reference | None = None
    points_part: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))
    normals_part: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))

    @classmethod
    def of(cls, cloud: PartCloud, alignment: Alignment, cell: Cell, reference: Reference | None = None) -> Self:
        """Take the cloud into the part's frame."""
        T_part_cell = alignment.T_cell_part.inverse()
        points_part = np.asarray(T_part_cell @ cloud.points_cell, dtype=np.float64)
        normals_part = np.asarray(T_part_cell.rotate(cloud.normals_cell.astype(np.float64)), dtype=np.float64)
        return cls(cloud, alignment, cell, reference, points_part, normals_part)

    @property
    def T_cell_part(self) -> RigidTransform:  # noqa: N802 - a transform's name says its frames
        """The part's pose."""
        return self.alignment.T_cell_part
