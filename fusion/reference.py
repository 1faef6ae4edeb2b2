"""The part as it should be: a closed mesh, and its signed distance field for looking deviations up."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray


class LengthUnit(StrEnum):
    """The unit a mesh file is written in; the formats themselves do not say."""

    MM = "mm"
    M = "m"
    INCH = "inch"


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceSamples:
    """Points spread evenly over the reference surface.

    Attributes:
        points_part: (N, 3) float64, metres.
        normals_part: (N, 3) float32, out of the material.
        area_m2: (N,) float32, surface that each point stands for; they sum to the whole surface.
    """

    points_part: NDArray[np.float64]
    normals_part: NDArray[np.float32]
    area_m2: NDArray[np.float32]


class Reference:
    """A closed surface in the frame "part", metres, with its signed distance field.

    Attributes:
        vertices_part: (V, 3) float64, metres.
        triangles: (T, 3) int32, counter-clockwise seen from outside.
        sha256: of the mesh's geometry, the reference's identity.
        spacing_m: edge of the distance field's cells.
    """

    vertices_part: NDArray[np.float64]
    triangles: NDArray[np.int32]
    sha256: str
    spacing_m: float

    @classmethod
    def load(cls, path: Path, unit: LengthUnit | str) -> Self:
        """Read an STL, PLY or OBJ file.

        Raises:
            DepthcellError: the file cannot be read, is empty, is not closed, or its size does not fit the unit.
        """
        raise NotImplementedError

    @property
    def bounds_part(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper corner of the bounding box, (3,) metres each."""
        raise NotImplementedError

    def signed_distance(self, points_part: FloatArray) -> NDArray[np.float64]:
        """Distance of points (N, 3) from the surface, (N,) metres, positive outside the material."""
        raise NotImplementedError

    def signed_distance_and_gradient(self, points_part: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distance (N,) and its gradient (N, 3): the outward direction, of unit length away from edges."""
        raise NotImplementedError

    def surface_samples(self, spacing_m: float) -> SurfaceSamples:
        """Points about `spacing_m` apart over the whole surface; the same for the same mesh and spacing."""
        raise NotImplementedError

    def visible(self, points_part: FloatArray, normals_part: FloatArray, camera_part: FloatArray) -> NDArray[np.bool_]:
        """Which surface points (N, 3) a camera at `camera_part` (3,) sees: facing it, and nothing in between."""
        raise NotImplementedError
