"""The stereo depth cameras that can be simulated, and how one of them differs from its data sheet."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError

WIDTH_PX, HEIGHT_PX = 848, 480
MAX_DISPARITY_PX = 126.0
"""Search range of the D4 vision processor; nearer than f B / 126 it finds no match, or a wrong one far away."""


@dataclass(frozen=True, slots=True)
class StereoModel:
    """A type of camera at 848x480.

    Attributes:
        name: as the device names itself.
        focal_px: of the rectified pair.
        baseline_m: of the pair.
        units_m: metres per count of the depth image, the device's default.
        color_focal_px: of the colour camera; None where colour comes from the left imager, on the depth image's grid.
        color_offset_m: position of the colour camera right of the left imager.
        color_delay_ns: time from the depth image to the colour image, whose shutter is another.
        standoff_m: distance from which a part of the size of a hand is looked at.
    """

    name: str
    focal_px: float
    baseline_m: float
    units_m: float
    color_focal_px: float | None
    color_offset_m: float
    color_delay_ns: int
    standoff_m: float

    @property
    def focal_baseline_m(self) -> float:
        """Product f B in px m: depth is this over disparity."""
        return self.focal_px * self.baseline_m

    @property
    def min_depth_m(self) -> float:
        """Nearest depth that can be measured, f B / 126."""
        return self.focal_baseline_m / MAX_DISPARITY_PX

    @property
    def depth_intrinsics(self) -> Intrinsics:
        """Of the left imager, rectified."""
        return _centred(self.focal_px)

    @property
    def color_intrinsics(self) -> Intrinsics:
        """Of the colour stream; the depth stream's own where the left imager gives the colour."""
        return _centred(self.focal_px if self.color_focal_px is None else self.color_focal_px)

    def factory_T_color_depth(self, serial: str) -> RigidTransform:  # noqa: N802 - a transform's name says its frames
        """What the device believes about its colour camera."""
        return RigidTransform(
            f"color:{serial}", f"depth:{serial}", np.eye(3), np.array([-self.color_offset_m, 0.0, 0.0])
        )


class CameraModel(StrEnum):
    """The cameras by the names people use."""

    D405 = "D405"
    D415 = "D415"
    D435 = "D435"
    D455 = "D455"


def stereo_model(name: str) -> StereoModel:
    """The camera called `name`.

    Focal lengths are those of 1280x720 or 848x480, scaled with the image width: both modes see the full field.
    """
    narrowed = WIDTH_PX / 1280
    match name:
        case CameraModel.D405:
            return StereoModel("Intel RealSense D405", 433.0, 0.018, 1e-4, None, 0.0, 0, 0.14)
        case CameraModel.D415:
            return StereoModel("Intel RealSense D415", 920.0 * narrowed, 0.055, 1e-3, 613.0, 0.015, 3_200_000, 0.33)
        case CameraModel.D435:
            return StereoModel("Intel RealSense D435", 430.0, 0.050, 1e-3, 617.0, 0.015, 3_200_000, 0.24)
        case CameraModel.D455:
            return StereoModel("Intel RealSense D455", 674.0 * narrowed, 0.095, 1e-3, 430.0, -0.059, 900_000, 0.42)
    raise DepthcellError(f"--camera-model {name}: unknown; choose one of {', '.join(CameraModel)}")


def _centred(focal_px: float) -> Intrinsics:
    return Intrinsics(WIDTH_PX, HEIGHT_PX, focal_px, focal_px, (WIDTH_PX - 1) / 2, (HEIGHT_PX - 1) / 2)


@dataclass(frozen=True, slots=True)
class SystematicError:
    """How the depth of one camera is wrong, so that a `DepthCorrection` of the same values undoes it.

    What it reads is the d of `d + curvature (d / 126)² + W(x, y) = scale f B / z - offset`, with the wave
    `W = sum wave_px[i][j] T_i(y) T_j(x)` of Chebyshev polynomials T, x and y from -1 to 1 over the depth image.

    Attributes:
        scale: of depth; baseline and focal length that differ from the factory's.
        disparity_offset_px: of the rectification.
        curvature_px: of what is not linear in disparity, at the end of the search range.
        wave_px: rows of coefficients over the image; the first is 0, since that is the offset. Empty: no wave.
    """

    scale: float = 1.0
    disparity_offset_px: float = 0.0
    curvature_px: float = 0.0
    wave_px: tuple[tuple[float, ...], ...] = ()

    def disparity_px(self, depth_m: FloatArray, focal_baseline_m: float) -> FloatArray:
        """What the camera finds at true depths, (H, W) of the whole depth image where there is a wave."""
        straight: FloatArray = self.scale * focal_baseline_m / depth_m - self.disparity_offset_px
        if self.wave_px:
            straight = straight - self._wave_px(depth_m.shape).astype(np.float32)
        if not self.curvature_px:
            return straight
        # The root of a d² + d = straight that goes to `straight` with a, in the form that loses no digits.
        bend = self.curvature_px / MAX_DISPARITY_PX**2
        bent: FloatArray = 2 * straight / (1 + np.sqrt(1 + 4 * bend * straight))
        return bent

    def _wave_px(self, shape: tuple[int, ...]) -> FloatArray:
        y, x = (np.linspace(-1.0, 1.0, count) for count in shape)
        wave: FloatArray = np.polynomial.chebyshev.chebgrid2d(y, x, np.array(self.wave_px))
        return wave


@dataclass(frozen=True, slots=True)
class ThermalDrift:
    """A camera that warms up: `T(t) = ambient + rise (1 - exp(-t / time constant))`, lengths growing with it.

    Attributes:
        ambient_c, rise_k, time_constant_s: of the warm-up.
        expansion_per_k: of baseline times focal length, relative. Aluminium alone is 23e-6, the lens holder adds some.
        calibrated_c: temperature at which the cell was calibrated.
    """

    ambient_c: float = 24.0
    rise_k: float = 12.0
    time_constant_s: float = 600.0
    expansion_per_k: float = 30e-6
    calibrated_c: float = 36.0

    def temperature_c(self, seconds: float) -> float:
        """Of the camera `seconds` after it was switched on."""
        return self.ambient_c + self.rise_k * (1.0 - float(np.exp(-seconds / self.time_constant_s)))

    def scale(self, temperature_c: float) -> float:
        """Factor on f B against the calibrated state."""
        return 1.0 + self.expansion_per_k * (temperature_c - self.calibrated_c)
