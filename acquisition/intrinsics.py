"""The pinhole camera with lens distortion, in the conventions of OpenCV and of librealsense's projection code."""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError


class Distortion(StrEnum):
    """Lens models a RealSense stream may carry (librealsense `rs2_distortion`), from ideal to distorted coordinates.

    `BROWN_CONRADY`, `RATIONAL` and `THIN_PRISM` are OpenCV's models with 5, 8 and 12 coefficients; a RealSense stream
    never carries the latter two, a calibration may. `MODIFIED_BROWN_CONRADY` applies the tangential terms to the
    radially distorted point instead of the ideal one. `INVERSE_BROWN_CONRADY` is the same as the modified one in the
    SDK's projection code, whatever its name says: measured on SDK 2.59, see `tests/test_intrinsics.py`.
    """

    NONE = "none"
    BROWN_CONRADY = "brown_conrady"
    MODIFIED_BROWN_CONRADY = "modified_brown_conrady"
    INVERSE_BROWN_CONRADY = "inverse_brown_conrady"
    RATIONAL = "rational"
    THIN_PRISM = "thin_prism"

    @property
    def coefficient_count(self) -> int:
        """How many coefficients the model takes; `NONE` carries five zeros."""
        match self:
            case Distortion.RATIONAL:
                return 8
            case Distortion.THIN_PRISM:
                return 12
            case _:
                return 5


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A camera's own geometry. Pixel centres lie at integers: pixel (0, 0) covers -0.5 to 0.5.

    Attributes:
        width_px, height_px: image size.
        fx_px, fy_px: focal lengths.
        cx_px, cy_px: principal point.
        distortion: which polynomial `coefficients` feed.
        coefficients: (k1, k2, p1, p2, k3), for `RATIONAL` also (k4, k5, k6), for `THIN_PRISM` also (s1, s2, s3, s4);
            OpenCV's order.

    Raises:
        DepthcellError: a size or focal length is not positive, a value is not finite, or there are too few or too many
            coefficients for the model.
    """

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    distortion: Distortion = Distortion.NONE
    coefficients: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("width_px", "height_px", "fx_px", "fy_px"):
            if not getattr(self, name) > 0:
                raise DepthcellError(f"intrinsics.{name}: must be positive, got {getattr(self, name)}")
        if not np.isfinite([self.fx_px, self.fy_px, self.cx_px, self.cy_px, *self.coefficients]).all():
            raise DepthcellError("intrinsics: a value is not finite")
        wanted = self.distortion.coefficient_count
        if len(self.coefficients) != wanted:
            raise DepthcellError(
                f"intrinsics.coefficients: {self.distortion} takes {wanted}, got {len(self.coefficients)}"
            )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The camera matrix K, (3, 3) float64."""
        return np.array([[self.fx_px, 0.0, self.cx_px], [0.0, self.fy_px, self.cy_px], [0.0, 0.0, 1.0]])

    @property
    def is_distorted(self) -> bool:
        """Whether any coefficient acts."""
        return self.distortion is not Distortion.NONE and any(self.coefficients)

    def rays(self) -> NDArray[np.float32]:
        """Direction of every pixel with z = 1: (H, W, 3) float32, read-only; times depth it is a point in metres."""
        return _rays(self)

    def normalized(self, pixels: FloatArray) -> NDArray[np.float64]:
        """Ideal image coordinates (x/z, y/z) of `pixels` (..., 2), given as (column, row)."""
        distorted = (np.asarray(pixels, dtype=np.float64) - (self.cx_px, self.cy_px)) / (self.fx_px, self.fy_px)
        if not self.is_distorted:
            return distorted
        return _undistorted(distorted, self.distortion, self.coefficients)

    def project(self, points_cam: FloatArray) -> NDArray[np.float64]:
        """Pixels (..., 2) as (column, row) of points (..., 3) in metres; NaN for points at or behind the camera."""
        points = np.asarray(points_cam, dtype=np.float64)
        z_m = np.where(points[..., 2] > 0, points[..., 2], np.nan)
        pixels = np.empty((*points.shape[:-1], 2))
        # Column by column: NumPy is several times slower where the innermost axis holds two numbers.
        np.divide(points[..., 0], z_m, out=pixels[..., 0])
        np.divide(points[..., 1], z_m, out=pixels[..., 1])
        if self.is_distorted:
            pixels = _distorted(pixels, self.distortion, self.coefficients)
        for axis, (focal_px, centre_px) in enumerate(((self.fx_px, self.cx_px), (self.fy_px, self.cy_px))):
            pixels[..., axis] *= focal_px
            pixels[..., axis] += centre_px
        return pixels

    def deproject(self, depth_m: FloatArray) -> NDArray[np.float32]:
        """Points in the camera frame, (H, W, 3) float32 metres, NaN where `depth_m` (H, W) is NaN.

        `depth_m` is the z coordinate, not the distance along the ray.
        """
        if depth_m.shape != (self.height_px, self.width_px):
            expected = (self.height_px, self.width_px)
            raise DepthcellError(f"depth image: shape {depth_m.shape} does not fit intrinsics of shape {expected}")
        return self.rays() * depth_m.astype(np.float32)[..., None]


@lru_cache(maxsize=32)
def _rays(intrinsics: Intrinsics) -> NDArray[np.float32]:
    columns, rows = np.meshgrid(np.arange(intrinsics.width_px), np.arange(intrinsics.height_px))
    ideal = intrinsics.normalized(np.stack((columns, rows), axis=-1).astype(np.float64))
    rays = np.concatenate((ideal, np.ones((*ideal.shape[:2], 1))), axis=-1).astype(np.float32)
    rays.flags.writeable = False
    return rays


def _distorted(ideal: FloatArray, model: Distortion, coefficients: tuple[float, ...]) -> NDArray[np.float64]:
    """D. C. Brown, Photogrammetric Engineering 37 (1971) 855; OpenCV calib3d, "Detailed Description"."""
    k1, k2, p1, p2, k3 = coefficients[:5]
    x, y = ideal[..., 0], ideal[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    if len(coefficients) >= 8:
        k4, k5, k6 = coefficients[5:8]
        radial = radial / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    radial_x, radial_y = x * radial, y * radial
    if model in {Distortion.MODIFIED_BROWN_CONRADY, Distortion.INVERSE_BROWN_CONRADY}:
        x, y = radial_x, radial_y
    distorted_x = radial_x + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    distorted_y = radial_y + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    if len(coefficients) == 12:
        s1, s2, s3, s4 = coefficients[8:]
        distorted_x, distorted_y = distorted_x + r2 * (s1 + r2 * s2), distorted_y + r2 * (s3 + r2 * s4)
    return np.stack((distorted_x, distorted_y), axis=-1)


def _undistorted(distorted: FloatArray, model: Distortion, coefficients: tuple[float, ...]) -> NDArray[np.float64]:
    """Invert `_distorted` by fixed-point iteration; 30 rounds reach 1e-9 for lenses below 40 % distortion."""
    ideal = np.array(distorted, dtype=np.float64)
    for _ in range(30):
        ideal = ideal - (_distorted(ideal, model, coefficients) - distorted)
    return ideal
