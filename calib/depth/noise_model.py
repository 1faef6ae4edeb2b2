"""Noise of a stereo camera, measured on a plate at several distances and angles: never taken from a data sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from depthcell.acquisition.frameset import DepthImage
from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import DisparityNoise
from depthcell.errors import DepthcellError

MARGIN_PX = 8
LAGS = 12
"""Pixels over which the autocorrelation is followed, along rows and columns."""
TERMS = 15
"""Of the smooth surface, all products of x and y up to the fourth degree: a plate's form and a camera's wave."""
TELLING_TAN2 = 0.15
"""Range of tan² of the angles of incidence below which growth with the angle is not sought: 0 to 21 degrees."""


@dataclass(frozen=True, slots=True, eq=False)
class PlateFrames:
    """Depth frames of a plate that rests, and pixels (K, 2) whose convex hull lies on it."""

    images: tuple[DepthImage, ...]
    outline_px: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlaceNoise:
    """What one plate shows.

    Attributes:
        distance_m: median depth.
        incidence_rad: angle between the plate's normal and the ray, at the middle.
        temporal_px: standard deviation from frame to frame, less the rounding to counts.
        fixed_px: standard deviation of what stays, about a smooth surface.
        correlation_px: distance at which the frames' noise correlates by 1/e.
        pixels, frames: that it rests on.
        freedom: degrees of freedom of `temporal_px`, correlated pixels counted once.
    """

    distance_m: float
    incidence_rad: float
    temporal_px: float
    fixed_px: float
    correlation_px: float
    pixels: int
    frames: int
    freedom: float

    @property
    def tan2(self) -> float:
        """Square of the tangent of the angle of incidence."""
        return math.tan(self.incidence_rad) ** 2


@dataclass(frozen=True, slots=True)
class NoiseMeasurement:
    """A noise model with standard uncertainties of its values, and the places it comes from.

    `growth_u` is infinite where the plates' angles do not tell it; `noise.incidence_growth` is 0 then.
    """

    noise: DisparityNoise
    temporal_u_px: float
    fixed_u_px: float
    correlation_u_px: float
    growth_u: float
    places: tuple[PlaceNoise, ...]


def measure_noise(plates: Sequence[PlateFrames], baseline_m: float) -> NoiseMeasurement:
    """The noise model of one camera.

    `temporal_px (1 + g tan² theta)` is fitted to the places' standard deviations by weighted least squares; of the
    fixed pattern and the correlation the mean over places is taken. Their uncertainties are those of the fit, enlarged
    by the places' own scatter where it is more (Birge ratio: R. T. Birge, Physical Review 40 (1932) 207), and the
    standard error of the mean (GUM 4.2.3).

    Args:
        plates: resting ones, at several distances and angles, three frames each or more.
        baseline_m: of the stereo pair.

    Raises:
        DepthcellError: there are fewer than three plates, or one has too few frames or too little depth.
    """
    if len(plates) < 3:
        raise DepthcellError(f"noise: {len(plates)} plates, 3 are needed; record it at several distances and angles")
    places = tuple(place_noise(plate, baseline_m, number) for number, plate in enumerate(plates, start=1))
    sigma = np.array([place.temporal_px for place in places])
    tan2 = np.array([place.tan2 for place in places])
    u = sigma / np.sqrt(2 * np.array([place.freedom for place in places]))
    design = np.ones((len(places), 1))
    if np.ptp(tan2) >= TELLING_TAN2:
        design = np.column_stack((design, tan2))
    information = design.T @ (design / np.square(u)[:, None])
    fitted = np.linalg.solve(information, design.T @ (sigma / np.square(u)))
    freedom = len(places) - design.shape[1]
    birge2 = float(np.square((sigma - design @ fitted) / u).sum()) / freedom if freedom else 1.0
    covariance = np.linalg.inv(information) * max(birge2, 1.0)
    temporal_px, growth, growth_u = float(fitted[0]), 0.0, math.inf
    if len(fitted) > 1:
        growth = float(fitted[1] / fitted[0])
        slope = np.array((-growth / fitted[0], 1 / fitted[0]))
        growth_u = math.sqrt(float(slope @ covariance @ slope))
    fixed, fixed_u = _mean([place.fixed_px for place in places])
    correlation, correlation_u = _mean([place.correlation_px for place in places])
    noise = DisparityNoise(temporal_px, fixed, correlation, max(growth, 0.0))
    return NoiseMeasurement(noise, math.sqrt(covariance[0, 0]), fixed_u, correlation_u, growth_u, places)


def place_noise(plate: PlateFrames, baseline_m: float, number: int = 1) -> PlaceNoise:
    """What one plate shows; `number` names it in a refusal.

    Rounding to counts of q metres adds `(q d² / f B)² / 12` to the frames' variance (GUM F.2.2.1; W. F. Sheppard's
    correction, which holds as long as the noise is half a count or more). The smooth surface takes away as much of the
    fixed pattern as it has terms; that is put back.

    Raises:
        DepthcellError: there are fewer than three frames, too little depth, or its noise is less than its counts tell.
    """
    where = f"noise: plate {number}"
    if len(plate.images) < 3:
        raise DepthcellError(f"{where}: {len(plate.images)} frames, 3 are needed to tell noise from what stays")
    stack, corner = _stack(plate, baseline_m)
    known = np.asarray(np.isfinite(stack).all(axis=0))
    if known.sum() < 40 * TERMS:
        raise DepthcellError(f"{where}: {int(known.sum())} pixels have depth in all frames, {40 * TERMS} are needed")
    mean_px = stack.mean(axis=0)
    off_px, known = _off_surface(mean_px, known)
    frames = len(stack)
    moving = np.where(known, stack - mean_px, 0.0)
    raw_px2 = float(np.square(moving[:, known]).sum() / (known.sum() * (frames - 1)))
    image = plate.images[0]
    focal_baseline_m = image.intrinsics.fx_px * baseline_m
    middle_px = float(np.median(mean_px[known]))
    count_px = image.units_m * middle_px**2 / focal_baseline_m
    temporal_px2 = raw_px2 - count_px**2 / 12
    if temporal_px2 < (0.4 * count_px) ** 2:
        raise DepthcellError(
            f"{where}: its noise is below half a count of {image.units_m * 1e3:g} mm; record finer counts (Depth Units)"
        )
    correlation_px = _correlation_px(moving, known)
    patch_px = max(math.pi * correlation_px**2 / 2, 1.0)
    patches = max(known.sum() / max(math.pi * correlation_px**2, 1.0), TERMS + 1.0)
    fixed_px2 = float(np.square(off_px[known]).mean()) / (1 - TERMS / patches) - raw_px2 / frames
    return PlaceNoise(
        distance_m=focal_baseline_m / middle_px,
        incidence_rad=_incidence_rad(image, mean_px / focal_baseline_m, known, corner),
        temporal_px=math.sqrt(temporal_px2),
        fixed_px=math.sqrt(max(fixed_px2, 0.0)),
        correlation_px=correlation_px,
        pixels=int(known.sum()),
        frames=frames,
        freedom=(frames - 1) * float(known.sum()) / patch_px,
    )


def _stack(plate: PlateFrames, baseline_m: float) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Disparity (F, H, W) in the rectangle about the plate, NaN off it, and the rectangle's first row and column."""
    image = plate.images[0]
    inside = np.zeros(image.depth_m.shape, np.uint8)
    hull = cv2.convexHull(np.asarray(plate.outline_px, dtype=np.float32))
    cv2.fillConvexPoly(inside, np.rint(hull).astype(np.int32), 1)
    margin = np.ones((2 * MARGIN_PX + 1,) * 2, np.uint8)
    inside = cv2.erode(inside, margin, borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(inside)
    window = (slice(top, top + height), slice(left, left + width))
    depth_m = np.stack([each.depth_m[window] for each in plate.images]).astype(np.float64)
    depth_m[:, inside[window] == 0] = np.nan
    return image.intrinsics.fx_px * baseline_m / depth_m, (top, left)


def _off_surface(
    mean_px: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What the mean differs from a smooth surface (H, W), and which pixels lie within 5 standard deviations of it."""
    rows, columns = np.indices(mean_px.shape)
    x, y = 2 * columns / max(mean_px.shape[1] - 1, 1) - 1, 2 * rows / max(mean_px.shape[0] - 1, 1) - 1
    terms = np.stack([x**i * y**j for i in range(5) for j in range(5 - i)], axis=-1)
    off_px = np.full(mean_px.shape, np.nan)
    for _ in range(3):
        fitted = np.linalg.lstsq(terms[known], mean_px[known], rcond=None)[0]
        off_px = mean_px - terms @ fitted
        sigma_px = 1.4826 * float(np.median(np.abs(off_px[known])))
        known = known & (np.abs(off_px) <= 5 * max(sigma_px, 1e-9))
    return off_px, known


def _correlation_px(moving: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """Length l of `A exp(-(r / l)²)` fitted to the autocorrelation at r of 1 to `LAGS` pixels.

    A leaves room for white noise, such as the rounding to counts.

    Args:
        moving: (F, H, W) frames less their mean, 0 where not known.
        known: (H, W).
    """
    variance = np.square(moving).sum() / known.sum()
    lags, values = np.arange(1, LAGS + 1), []
    for lag in lags:
        along = [(moving[:, :, lag:] * moving[:, :, :-lag]).sum() / max((known[:, lag:] & known[:, :-lag]).sum(), 1)]
        along += [(moving[:, lag:] * moving[:, :-lag]).sum() / max((known[lag:] & known[:-lag]).sum(), 1)]
        values.append(float(np.mean(along)) / variance)
    if values[0] < 0.05:
        return 0.0

    def law(lag: FloatArray, share: float, length: float) -> FloatArray:
        return np.asarray(share * np.exp(-np.square(lag / length)))

    found = curve_fit(law, lags, values, p0=(1.0, 3.0), bounds=((0.0, 0.1), (1.5, 5.0 * LAGS)))[0]
    return float(found[1])


def _incidence_rad(
    image: DepthImage, inverse_z: NDArray[np.float64], known: NDArray[np.bool_], corner: tuple[int, int]
) -> float:
    """Angle between ray and normal at the plate's middle: a plane has `1 / z = n · r`, up to the length of n."""
    rays = image.intrinsics.rays()[corner[0] :, corner[1] :][: known.shape[0], : known.shape[1]]
    on_plate = rays[known].astype(np.float64)
    normal = np.linalg.lstsq(on_plate, inverse_z[known], rcond=None)[0]
    ray = on_plate.mean(axis=0)
    return math.acos(min(abs(float(normal @ ray)) / float(np.linalg.norm(normal) * np.linalg.norm(ray)), 1.0))


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))
