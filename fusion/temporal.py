"""Time first: N frames of a resting part become one mean image and a measured standard deviation per pixel.

B. P. Welford, Technometrics 4 (1962) 419: one pass, no stack of frames, no difference of large numbers. Frames are
absorbed as they arrive, so that nothing but one geometric pass is left to do after the last of them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import ColorImage, DepthImage
from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import CellCamera
from depthcell.errors import DepthcellError
from depthcell.fusion.region import Window

MODEL_DEGREES_OF_FREEDOM = 8.0
"""Weight of the noise model against the measured scatter: as if it came from 9 frames. GUM G.4.2 (equation G.3) gives
1/2 (u(s)/s)^-2 degrees of freedom to a standard deviation known to a relative u(s)/s, here 25 %."""


@dataclass(frozen=True, slots=True, eq=False)
class MeanDepth:
    """What N frames of one depth camera say about each pixel of its window.

    Attributes:
        mean_m: (H, W) float32, mean depth in metres; NaN where fewer than the asked fraction of frames measured.
        sigma_m: (H, W) float32, sample standard deviation (n - 1) of ONE frame; NaN where fewer than two measured.
        count: (H, W) uint16, frames that measured the pixel.
        frames: frames absorbed.
        units_m: metres per count of the sensor.
        window: which part of the sensor's image this is.
    """

    mean_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32]
    count: NDArray[np.uint16]
    frames: int
    units_m: float
    window: Window


class DepthAccumulator:
    """Takes depth frames one by one: `add` each, then ask for the `mean`.

    Args:
        window: rectangle to keep; None keeps the whole image.
        min_fraction: share of the frames that must have measured a pixel; below it the pixel stays NaN.
    """

    def __init__(self, window: Window | None = None, min_fraction: float = 0.5) -> None:
        if not 0 < min_fraction <= 1:
            raise DepthcellError(f"min_fraction: must lie above 0 and up to 1, got {min_fraction}")
        self._window = window
        self._min_fraction = min_fraction
        self._first: DepthImage | None = None
        self.frames = 0

    def add(self, image: DepthImage) -> None:
        """Absorb one frame.

        Raises:
            DepthcellError: its size or depth unit differs from the first frame's.
        """
        if self._first is None:
            self._start(image)
        first = self._first
        assert first is not None  # noqa: S101 - set by _start; tells the type checker
        if image.depth_m.shape != first.depth_m.shape or image.units_m != first.units_m:
            raise DepthcellError(
                f"depth frame {image.number}: size or depth unit differs from frame {first.number}; "
                "average only frames of one stream"
            )
        depth_m = image.depth_m[self._slices]
        seen = cv2.compare(depth_m, depth_m, cv2.CMP_EQ)  # NaN differs from itself
        self.frames += 1
        cv2.accumulate(cv2.bitwise_and(seen, self._one), self._count)
        if self.frames == 1:
            np.copyto(self._mean, depth_m, where=seen != 0)
            return
        before, after = self._before, self._after
        cv2.subtract(depth_m, self._mean, dst=before)
        cv2.patchNaNs(before, 0.0)
        np.maximum(self._count, 1, out=after)
        cv2.divide(before, after, dst=after)
        cv2.add(self._mean, after, dst=self._mean)
        cv2.subtract(depth_m, self._mean, dst=after)
        cv2.patchNaNs(after, 0.0)
        cv2.accumulateProduct(before, after, self._square_sum)

    def mean(self) -> MeanDepth:
        """Mean and sample standard deviation of the frames so far.

        Raises:
            DepthcellError: no frame was added.
        """
        if self._first is None:
            raise DepthcellError("depth average: no frame to average; the recording holds no depth")
        enough = self._count >= max(1, math.ceil(self._min_fraction * self.frames))
        return MeanDepth(
            mean_m=np.where(enough, self._mean, np.float32(np.nan)),
            sigma_m=self._sigma_m(enough),
            count=self._count.astype(np.uint16),
            frames=self.frames,
            units_m=self._first.units_m,
            window=self._window or Window.whole(self._first.intrinsics),
        )

    def _sigma_m(self, enough: NDArray[np.bool_]) -> NDArray[np.float32]:
        if self.frames == 1:
            return np.full(enough.shape, np.nan, np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = self._square_sum / (self._count - 1)
        variance[(self._count < 2) | ~enough] = np.nan
        return np.asarray(np.sqrt(variance, out=variance), dtype=np.float32)

    def _start(self, image: DepthImage) -> None:
        self._first = image
        self._slices = (self._window or Window.whole(image.intrinsics)).slices
        shape = image.depth_m[self._slices].shape
        self._mean, self._square_sum, self._count = (np.zeros(shape, np.float32) for _ in range(3))
        self._before, self._after = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._one = np.ones(shape, np.uint8)


class ColorAccumulator:
    """Takes colour frames one by one: `add` each, then ask for the `mean_rgb`.

    Args:
        window: rectangle to keep; None keeps the whole image.
    """

    def __init__(self, window: Window | None = None) -> None:
        self._window = window
        self._sum: NDArray[np.float32] | None = None
        self.frames = 0

    def add(self, image: ColorImage) -> None:
        """Absorb one frame.

        Raises:
            DepthcellError: its size differs from the first frame's.
        """
        rgb = image.rgb[(self._window or Window.whole(image.intrinsics)).slices]
        if self._sum is None:
            self._sum = np.zeros(rgb.shape, np.float32)
        if rgb.shape != self._sum.shape:
            raise DepthcellError(f"colour frame {image.number}: its size differs from the frames before")
        cv2.accumulate(rgb, self._sum)
        self.frames += 1

    def mean_rgb(self) -> NDArray[np.uint8]:
        """Mean colour of the frames so far, (H, W, 3) uint8 of the window.

        Raises:
            DepthcellError: no frame was added.
        """
        if self._sum is None:
            raise DepthcellError("colour average: no frame to average; the recording holds no colour")
        return cv2.convertScaleAbs(self._sum, alpha=1.0 / self.frames).astype(np.uint8, copy=False)


def average_depth(images: Iterable[DepthImage], window: Window | None = None, min_fraction: float = 0.5) -> MeanDepth:
    """Mean and measured standard deviation per pixel of all `images`, read one at a time.

    Args:
        images: frames of one camera looking at a resting part.
        window: rectangle to keep; None keeps the whole image.
        min_fraction: share of the frames that must have measured a pixel; below it the pixel stays NaN.

    Raises:
        DepthcellError: there is no image, or they are not of one stream.
    """
    accumulator = DepthAccumulator(window, min_fraction)
    for image in images:
        accumulator.add(image)
    return accumulator.mean()


def frame_sigma_m(mean: MeanDepth, camera: CellCamera) -> NDArray[np.float32]:
    """Standard deviation of one frame per pixel, (H, W) float32: measured scatter, steadied by the noise model.

    The scatter s of n frames is itself uncertain, by 24 % for n = 10. It is pooled with what the model predicts,
    `sigma_0² = (z² s_px / (f B))² + (1 - g) q²/12`, the analogue noise and the share of the quantisation that it
    dithers (`_undithered_share`): `sigma² = (nu_0 sigma_0² + (n - 1) s²) / (nu_0 + n - 1)`, the posterior scale under a
    scaled inverse chi-squared prior (Gelman et al., Bayesian Data Analysis, 2.6). One frame gives sigma_0, many give s.
    """
    return np.sqrt(_frame_variance_m2(mean, *_model_variances_m2(mean, camera)))


def random_sigma_m(mean: MeanDepth, camera: CellCamera, tan2: FloatArray | None = None) -> NDArray[np.float32]:
    """Standard uncertainty of `mean.mean_m` from noise, along the optical axis, (H, W) float32.

    `u² = sigma²/n + sigma_fixed² + g q²/12` (GUM 4.2.3 for the mean of n frames; 5.1.2 for the sum). Two parts do not
    shrink with n: the fixed pattern of the cell's noise model, and the share g of the sensor's quantisation q
    (GUM F.2.2.1) that hits a part at rest the same way in every frame.

    Args:
        mean: of the frames.
        camera: with its noise model.
        tan2: (H, W) square of the tangent of the angle of incidence, by which the model's noise grows; None: head-on.
    """
    frames = np.maximum(mean.count, 1).astype(np.float32)
    growth = 1.0 if tan2 is None else 1 + np.float32(camera.noise.incidence_growth) * tan2
    analogue_m2, lasting_m2 = _model_variances_m2(mean, camera, growth)
    total_m2 = _frame_variance_m2(mean, analogue_m2, lasting_m2)
    total_m2 /= frames
    total_m2 += np.square(camera.depth_sigma_m(mean.mean_m, camera.noise.fixed_px))
    total_m2 += lasting_m2
    return np.asarray(np.sqrt(total_m2, out=total_m2), dtype=np.float32)


def _model_variances_m2(
    mean: MeanDepth, camera: CellCamera, growth: float | FloatArray = 1.0
) -> tuple[FloatArray, FloatArray]:
    """Of one frame by the cell's noise model: analogue noise, and quantisation that averaging leaves; each (H, W)."""
    analogue_m2 = np.square(camera.depth_sigma_m(mean.mean_m, camera.noise.temporal_px) * growth)
    return analogue_m2, _undithered_share(analogue_m2, mean.units_m) * np.float32(mean.units_m**2 / 12)


def _frame_variance_m2(mean: MeanDepth, analogue_m2: FloatArray, lasting_m2: FloatArray) -> NDArray[np.float32]:
    """Measured variance of one frame, pooled with the model's, see `frame_sigma_m`."""
    freedom = np.float32(MODEL_DEGREES_OF_FREEDOM)
    model_m2 = analogue_m2 + np.float32(mean.units_m**2 / 12) - lasting_m2
    if mean.frames == 1:
        return np.asarray(model_m2, dtype=np.float32)
    own_freedom = np.maximum(mean.count.astype(np.float32) - 1, 0)
    measured_m2 = np.where(own_freedom > 0, np.square(mean.sigma_m), np.float32(0))
    pooled_m2 = (freedom * model_m2 + own_freedom * measured_m2) / (freedom + own_freedom)
    return np.asarray(pooled_m2, dtype=np.float32)


def _undithered_share(noise_m2: FloatArray, units_m: float) -> FloatArray:
    """Share g of the quantisation variance q²/12 that averaging frames leaves, (H, W): 1 without noise, then falling.

    A quantiser's error is a saw-tooth, whose k-th harmonic holds 6 / (pi k)² of the variance; Gaussian noise before the
    quantiser damps it by `exp(-4 pi² k² sigma² / q²)` (Widrow and Kollar, Quantization Noise, 2008, chapter 19 on
    dither). Three harmonics are summed; the rest of the variance is damped as the fourth is.
    """
    # Below exp(-20) nothing is left, and numbers too small for single precision would only slow the powers down.
    damping = noise_m2 * np.float32(-4 * math.pi**2 / units_m**2)
    np.exp(np.maximum(damping, -20, out=damping), out=damping)
    first, second, third = (np.float32(6 / (math.pi * k) ** 2) for k in (1, 2, 3))
    power4 = np.square(damping)
    power8 = np.square(np.square(power4, out=power4))
    share = first * damping
    share += np.multiply(power4, second, out=power4)
    share += np.multiply(np.multiply(power8, third, out=power4), damping, out=power4)
    share += np.multiply(np.square(power8, out=power8), 1 - first - second - third, out=power8)
    return np.asarray(share)
