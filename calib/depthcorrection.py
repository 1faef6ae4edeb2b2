"""What is systematically wrong with the depth of a stereo camera, and how it is put right: in the disparity domain."""

from dataclasses import dataclass

import numpy as np

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError, Reason

FULL_DISPARITY_PX = 126.0
"""Search range of the D4 vision processor, at which `curvature_px` acts in full."""


@dataclass(frozen=True, slots=True)
class DepthCorrection:
    """From depth as read to depth: `z = s f B / (d + offset + curvature (d / 126)² + W)`, with `d = f B / z_read`.

    Scale stands for baseline and focal length, the offset for rectification, the curvature for what is not linear in
    disparity, and W for what waves over the image: `W = sum wave_px[i][j] T_i(y) T_j(x)` with Chebyshev polynomials T
    and x, y from -1 at the first pixel's centre to 1 at the last one's.

    Attributes:
        scale: factor s on depth, at `reference_c`.
        disparity_offset_px: added to disparity.
        curvature_px: added to disparity at the end of the search range, with the square of disparity below.
        wave_px: rows of coefficients; `wave_px[0][0]` is 0, since that is the offset. Empty: no wave.
        scale_per_k: relative change of s per kelvin above `reference_c`; acts where the temperature is known.
        reference_c: temperature of the camera at which it was calibrated; None where nobody knows.

    Raises:
        DepthcellError: a value is not finite, the scale is not positive, or `wave_px` is no such table.
    """

    scale: float = 1.0
    disparity_offset_px: float = 0.0
    curvature_px: float = 0.0
    wave_px: tuple[tuple[float, ...], ...] = ()
    scale_per_k: float = 0.0
    reference_c: float | None = None

    def __post_init__(self) -> None:
        values = (self.scale, self.disparity_offset_px, self.curvature_px, self.scale_per_k, *sum(self.wave_px, ()))
        if not np.isfinite(values).all() or not self.scale > 0:
            raise DepthcellError("correction: values must be finite, scale positive", Reason.CELL_INVALID)
        if self.wave_px and (len({len(row) for row in self.wave_px}) > 1 or not self.wave_px[0]):
            raise DepthcellError("correction.wave_px: rows must be alike and not empty", Reason.CELL_INVALID)
        if self.wave_px and self.wave_px[0][0] != 0.0:
            raise DepthcellError(
                "correction.wave_px: the first coefficient must be 0; that part is disparity_offset_px",
                Reason.CELL_INVALID,
            )

    @property
    def wave_names(self) -> tuple[str, ...]:
        """Names of the wave's free coefficients, row by row: "wave_0_1", ..."""
        return tuple(f"wave_{i}_{j}" for i, row in enumerate(self.wave_px) for j in range(len(row)) if (i, j) != (0, 0))

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """What a calibration estimates of it."""
        return "scale", "disparity_offset_px", "curvature_px", *self.wave_names

    def scale_at(self, temperature_c: float | None) -> float:
        """Factor on depth at a temperature; that of the calibration where it is not known."""
        if temperature_c is None or self.reference_c is None:
            return self.scale
        return self.scale * (1 + self.scale_per_k * (temperature_c - self.reference_c))

    def wave_at(self, intrinsics: Intrinsics, columns: FloatArray, rows: FloatArray) -> FloatArray:
        """W in pixels of disparity at `columns` and `rows` of the depth image, of any shapes that broadcast."""
        if not self.wave_px:
            return np.zeros(np.broadcast_shapes(np.shape(columns), np.shape(rows)))
        x, y = wave_coordinates(intrinsics, columns, rows)
        across = np.polynomial.chebyshev.chebvander(x, len(self.wave_px[0]) - 1)
        down = np.polynomial.chebyshev.chebvander(y, len(self.wave_px) - 1)
        return np.asarray(np.einsum("...i,ij,...j->...", down, np.array(self.wave_px), across, optimize=True))

    def added_px(self, intrinsics: Intrinsics, disparity_px: FloatArray, pixels: FloatArray | None) -> FloatArray:
        """All that is added to a disparity as read.

        Args:
            intrinsics: of the depth stream.
            disparity_px: (...), f B / z_read.
            pixels: (..., 2) where in the depth image, as (column, row); None is allowed where there is no wave.
        """
        added = self.disparity_offset_px + self.curvature_px * np.square(disparity_px / FULL_DISPARITY_PX)
        if not self.wave_px:
            return np.asarray(added)
        if pixels is None:
            raise DepthcellError("correction: has a wave over the image, so it needs to know the pixels")
        return np.asarray(added + self.wave_at(intrinsics, pixels[..., 0], pixels[..., 1]))


def wave_coordinates(intrinsics: Intrinsics, columns: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """X and y of pixels as the wave counts them, -1 to 1 from the first to the last pixel's centre."""
    x = 2 * np.asarray(columns, dtype=np.float64) / max(intrinsics.width_px - 1, 1) - 1
    y = 2 * np.asarray(rows, dtype=np.float64) / max(intrinsics.height_px - 1, 1) - 1
    return x, y
