"""Canonical views: what each camera sees of the perfect part in its nominal pose, place by place."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalViews:
    """The views of a part in a cell, the same for every part. V views of S x S pixels.

    Attributes:
        serials: of the V cameras.
        points_part: (V, S, S, 3) float32, metres, the reference's place behind each pixel; NaN off the part.
        normals_part: (V, S, S, 3) float32, out of the material; NaN off the part.
        expected: (V, S, S) bool, the part lies there and the camera sees it steeply enough to measure.
        cosine: (V, S, S) float32, of incidence, 0 off the part.
        pixel_m: (V,) float32, median spacing of neighbouring places on the part.
        z_nominal_m: (V,) float32, median depth.
        sha256: of all that they rest on: reference, nominal pose, cameras, size. A model holds for one alone.
    """

    serials: tuple[str, ...]
    points_part: NDArray[np.float32]
    normals_part: NDArray[np.float32]
    expected: NDArray[np.bool_]
    cosine: NDArray[np.float32]
    pixel_m: NDArray[np.float32]
    z_nominal_m: NDArray[np.float32]
    sha256: str

    @property
    def side_px(self) -> int:
        """S."""
        return self.expected.shape[-1]
