"""What a cell will see, before anyone buys a camera: field of view, noise, and the smallest defect.

The noise model is the simulator's (`acquisition/simulator/stereo.py`), whose figures are those of real D400 cameras;
what is predicted here in closed form `plan_trial.py` measures on simulated frames: within 20 %, `tests/test_plan.py`.
"""

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.cameras import HEIGHT_PX, MAX_DISPARITY_PX, WIDTH_PX, StereoModel, stereo_model
from depthcell.acquisition.simulator.stereo import StereoNoise
from depthcell.calib.target.board_text import format_length, parse_length_m
from depthcell.errors import DepthcellError

SIGMAS = 5.0
MIN_DISPARITY_PX = 2.0
GROOVE_LENGTHS = 10.0
"""A scratch is taken to be ten times as long as it is wide, and at least `GROOVE_LEAST_M`."""
GROOVE_LEAST_M = 0.01
RING_INNER, RING_OUTER = 1.5, 4.0
FINEST_PX = 1600
"""Side of the largest grid on which a defect is drawn finer than the camera's pixels."""
COLOUR_NOISE = 2.0
"""Standard deviation of a grey value in one colour frame."""
STEEPEST = 0.5
"""A defect deeper than half its width is no dent any more, and stereo does not see its walls."""


class PlannedDefect(StrEnum):
    """What is looked for."""

    DENT = "dent"
    BUMP = "bump"
    SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A question to the planner.

    Attributes:
        camera: D405, D415, D435 or D455.
        distance_m: from the camera to the surface, along the optical axis.
        frames: that are averaged.
        defect: what is looked for.
        size_m: diameter of a dent or bump at its rim, width of a scratch.
        tilt_rad: of the surface; it decides how often rounding and staircase repeat across the defect.
        noise: of the camera.
    """

    camera: str
    distance_m: float
    frames: int
    defect: PlannedDefect
    size_m: float
    tilt_rad: float = math.radians(3.0)
    noise: StereoNoise = field(default_factory=StereoNoise)

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 100_000:
            raise DepthcellError(f"--frames {self.frames}: must be 1 to 100000")
        if not 1e-5 <= self.size_m <= 1.0:
            raise DepthcellError(f"--defect: a size of {format_length(self.size_m)} is outside 0.01 mm to 1 m")
        if not 0 <= self.tilt_rad <= math.radians(60):
            raise DepthcellError(f"--tilt: {math.degrees(self.tilt_rad):.0f} degrees is outside 0 to 60")


@dataclass(frozen=True, slots=True)
class CellPlan:
    """What the cell will see.

    Attributes:
        camera: full name.
        distance_m, frames, defect, size_m: as asked.
        min_depth_m, max_depth_m: between which this camera measures.
        width_m, height_m: of the field of view at that distance.
        pixels_per_mm: of the depth image.
        color_pixels_per_mm: of the colour image.
        defect_px: size of the defect in the depth image.
        sigma_frame_m: standard deviation of one pixel's depth from frame to frame.
        sigma_mean_m: standard uncertainty of one pixel's mean over all frames, the pattern that stays included.
        sigma_lasting_m: what no number of frames averages out.
        seen_share: how much of the defect's depth is left in the middle after the matching window.
        sigma_defect_m: standard uncertainty of the defect's depth, fitted over all its pixels.
        smallest_depth_m: the depth seen at 5 sigma; None where the defect is deeper than half its size before it is.
        color_contrast: grey values, of 255, that a scratch must differ from its surroundings to be seen at 5 sigma in
            colour; None for other defects.
    """

    camera: str
    distance_m: float
    frames: int
    defect: PlannedDefect
    size_m: float
    min_depth_m: float
    max_depth_m: float
    width_m: float
    height_m: float
    pixels_per_mm: float
    color_pixels_per_mm: float
    defect_px: float
    sigma_frame_m: float
    sigma_mean_m: float
    sigma_lasting_m: float
    seen_share: float
    sigma_defect_m: float
    smallest_depth_m: float | None
    color_contrast: float | None


def parse_defect(text: str) -> tuple[PlannedDefect, float]:
    """Kind and size in metres of `dent:10mm`.

    Raises:
        DepthcellError: another kind, or no size.
    """
    match = re.fullmatch(r"([a-z]+):(.+)", text.strip())
    kinds = ", ".join(f"{kind}:SIZE" for kind in PlannedDefect)
    if match is None or match.group(1) not in list(PlannedDefect):
        raise DepthcellError(f"--defect {text}: is unknown; write one of {kinds}, as dent:10mm")
    return PlannedDefect(match.group(1)), parse_length_m(match.group(2), f"--defect {text}")


def plan(request: PlanRequest) -> CellPlan:
    """Answer `request`.

    With f the focal length, B the baseline, and disparity d = f B / z, an error of s px is z² s / (f B) of depth. One
    frame has the temporal noise and the rounding of disparity (step²/12) and of depth (unit²/12); the mean over n
    frames has that over n, and all of the fixed pattern, the staircase, and what is left of the depth's rounding
    (`_rounding_left_m`).

    A defect's depth is fitted by least squares to its known shape as the camera sees it, blurred by the matching
    window, against the mean of a ring around it: `A = sum(w z)`, `defect_weights`. Neighbouring pixels err alike, with
    the correlation exp(-(r / r_c)²), so that `u(A)² = sum(w_i w_j cov_ij)` (GUM 5.2.2). On a tilted plane staircase
    and rounding are waves of known length l and unknown phase; the fit sees `a² |sum(w exp(2 pi i x / l))|² / 2`.
    Seen at 5 sigma means five times what a surface without defect shows. The depth that is then read of a real defect
    errs besides by the staircase's slope, 2 pi times its amplitude, at most 13 %.

    Raises:
        DepthcellError: the camera does not measure at that distance, or does not see the whole defect at once.
    """
    model, noise = stereo_model(request.camera), request.noise
    _check_distance(request, model)
    z_m, slope = request.distance_m, request.distance_m**2 / model.focal_baseline_m
    width_m, height_m = (size * z_m / model.focal_px for size in (WIDTH_PX, HEIGHT_PX))
    if request.size_m > min(width_m, height_m):
        seen = f"{1e3 * width_m:.0f} x {1e3 * height_m:.0f} mm"
        raise DepthcellError(f"--defect: {format_length(request.size_m)} is more than the field of view of {seen}")
    white_m = math.hypot(slope * noise.quantum_px, model.units_m) / math.sqrt(12)
    frame_m = math.hypot(slope * noise.temporal_px, white_m)
    rounding_m = _rounding_left_m(model.units_m, slope * noise.temporal_px)
    lasting_m = math.hypot(slope * noise.lasting_px, rounding_m / math.sqrt(2))
    _, seen_share = defect_shape(request, model)
    defect_m = _defect_sigma_m(request, model, white_m, rounding_m)
    smallest_m = SIGMAS * defect_m
    return CellPlan(
        camera=model.name,
        distance_m=z_m,
        frames=request.frames,
        defect=request.defect,
        size_m=request.size_m,
        min_depth_m=model.min_depth_m,
        max_depth_m=model.focal_baseline_m / MIN_DISPARITY_PX,
        width_m=width_m,
        height_m=height_m,
        pixels_per_mm=model.focal_px / z_m / 1e3,
        color_pixels_per_mm=model.color_intrinsics.fx_px / z_m / 1e3,
        defect_px=request.size_m * model.focal_px / z_m,
        sigma_frame_m=frame_m,
        sigma_mean_m=math.hypot(frame_m / math.sqrt(request.frames), lasting_m),
        sigma_lasting_m=lasting_m,
        seen_share=seen_share,
        sigma_defect_m=defect_m,
        smallest_depth_m=smallest_m if smallest_m <= STEEPEST * request.size_m else None,
        color_contrast=_color_contrast(request, model) if request.defect is PlannedDefect.SCRATCH else None,
    )


def defect_shape(request: PlanRequest, model: StereoModel) -> tuple[NDArray[np.float64], float]:
    """The defect of unit depth as the camera sees it, (H, W) on its pixels, and how much is left in its middle.

    A dent has the simulator's shape (1 - r²)², r from 0 to 1 at its rim; a scratch is a groove cos²(pi v / w), w wide.
    The matching window averages over `window_px` pixels along both sides.
    """
    m_per_px = request.distance_m / model.focal_px
    reach = _reach_px(request, model)
    fine = int(np.clip(FINEST_PX // (2 * reach + 1), 1, 8))
    across = ((np.arange((2 * reach + 1) * fine) + 0.5) / fine - 0.5 - reach) * m_per_px
    x, y = np.meshgrid(across, across)
    if request.defect is PlannedDefect.SCRATCH:
        profile = np.where(np.abs(y) < request.size_m / 2, np.cos(np.pi * y / request.size_m) ** 2, 0.0)
        unit = profile * (np.abs(x) < _groove_m(request, model) / 2)
    else:
        unit = np.clip(1 - (x**2 + y**2) / (request.size_m / 2) ** 2, 0, None) ** 2
    pixels = unit.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean(axis=(1, 3))
    window = (request.noise.window_px, request.noise.window_px)
    seen = np.asarray(cv2.blur(pixels, window, borderType=cv2.BORDER_CONSTANT), np.float64)
    return seen, float(seen.max())


def defect_weights(request: PlanRequest, model: StereoModel) -> NDArray[np.float64]:
    """Weights (H, W) w with which pixels' depths add up to the defect's depth, from the middle of the defect.

    With t the shape as seen and m the mean over a ring, `A = sum(t (z - m)) / sum(t²)`. The ring reaches from 1.5 to 4
    radii (half widths), at most as far as the image is high, and at least over twice the window.
    """
    shape, _ = defect_shape(request, model)
    reach = len(shape) // 2
    across = np.arange(-reach, reach + 1)
    half_px, window_px = request.size_m / 2 * model.focal_px / request.distance_m, request.noise.window_px
    inner_px = max(RING_INNER * half_px, half_px + window_px / 2 + 1)
    outer_px = max(min(RING_OUTER * half_px, HEIGHT_PX), inner_px + 2 * window_px)
    away = np.hypot(across[:, None], across)
    if request.defect is PlannedDefect.SCRATCH:
        along = np.abs(across) <= _groove_m(request, model) / 2 * model.focal_px / request.distance_m
        away = np.where(along[None], np.abs(across)[:, None], np.inf)
    ring = (away >= inner_px) & (away <= outer_px)
    square = float((shape**2).sum())
    return np.asarray(shape / square - float(shape.sum()) / square * ring / max(ring.sum(), 1), np.float64)


def _groove_m(request: PlanRequest, model: StereoModel) -> float:
    """Length of a scratch; no more of it than half the image's height."""
    seen_m = HEIGHT_PX / 2 * request.distance_m / model.focal_px
    return min(max(GROOVE_LENGTHS * request.size_m, GROOVE_LEAST_M), max(seen_m, request.size_m))


def _reach_px(request: PlanRequest, model: StereoModel) -> int:
    """Half the side of the square that holds the defect and its ring."""
    px_per_m, window_px = model.focal_px / request.distance_m, request.noise.window_px
    half_px = request.size_m / 2 * px_per_m
    reach_px = max(min(RING_OUTER * half_px, HEIGHT_PX), RING_INNER * half_px + 3 * window_px, half_px + 4 * window_px)
    if request.defect is PlannedDefect.SCRATCH:
        reach_px = max(reach_px, _groove_m(request, model) / 2 * px_per_m + window_px)
    return math.ceil(reach_px) + 1


def _defect_sigma_m(request: PlanRequest, model: StereoModel, white_m: float, rounding_m: float) -> float:
    """Standard uncertainty of the fitted depth where there is no defect."""
    noise, z_m = request.noise, request.distance_m
    slope = z_m**2 / model.focal_baseline_m
    weights = defect_weights(request, model)
    alike, apart = _summed(weights, noise.correlation_px), float((weights**2).sum())
    per_frame_m2 = (slope * noise.temporal_px) ** 2 * alike + white_m**2 * apart
    m_per_px = z_m * math.tan(request.tilt_rad) / model.focal_px  # the plane recedes by this from column to column
    waves_m2 = [
        (amplitude_m * _wave_share(weights, cycles)) ** 2 / 2
        for amplitude_m, cycles in (
            (slope * noise.staircase_px, m_per_px / slope),
            (rounding_m, m_per_px / model.units_m),
        )
    ]
    return math.sqrt(per_frame_m2 / request.frames + (slope * noise.fixed_px) ** 2 * alike + sum(waves_m2))


def _wave_share(weights: NDArray[np.float64], cycles_per_px: float) -> float:
    """|sum(w exp(2 pi i x c))|: how much of a wave of unit amplitude along the columns the weights let through."""
    across = np.arange(weights.shape[1]) - weights.shape[1] // 2
    return float(np.abs(weights.sum(axis=0) @ np.exp(2j * np.pi * cycles_per_px * across)))


def _check_distance(request: PlanRequest, model: StereoModel) -> None:
    """Refuse what the camera cannot measure, and name the nearest distance at which it does."""
    nearest_m, farthest_m = model.min_depth_m, model.focal_baseline_m / MIN_DISPARITY_PX
    asked = f"--distance {format_length(round(request.distance_m, 6))}"
    if not request.distance_m >= nearest_m:
        possible = f"{math.ceil(1e3 * nearest_m)} mm"
        raise DepthcellError(
            f"{asked}: {model.name} measures nothing nearer than {1e3 * nearest_m:.1f} mm (f B / "
            f"{MAX_DISPARITY_PX:.0f} px), and below it reads ghosts far away; the nearest possible is {possible}"
        )
    if request.distance_m > farthest_m:
        possible = f"{math.floor(1e3 * farthest_m)} mm"
        raise DepthcellError(
            f"{asked}: {model.name} has a disparity of less than {MIN_DISPARITY_PX:.0f} px there; the farthest "
            f"possible is {possible}"
        )


def _rounding_left_m(unit_m: float, sigma_m: float) -> float:
    """Amplitude of the wave that averaging leaves of rounding to whole `unit_m`, where noise of `sigma_m` dithers it.

    Rounding errs by a sawtooth of z, whose first harmonic is `(unit / pi) sin(2 pi z / unit)`; its mean over Gaussian
    noise is that times the Gaussian's characteristic function, `exp(-2 pi² (sigma / unit)²)`.
    """
    return unit_m / math.pi * math.exp(-2 * (math.pi * sigma_m / unit_m) ** 2)


def _summed(weights: NDArray[np.float64], correlation_px: float) -> float:
    """Sum over all pairs of pixels of w_i w_j exp(-(r_ij / r_c)²)."""
    if correlation_px <= 0:
        return float((weights**2).sum())
    reach = math.ceil(3.5 * correlation_px)
    kernel = np.exp(-((np.arange(-reach, reach + 1) / correlation_px) ** 2))
    spread = cv2.sepFilter2D(weights, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    return float((weights * spread).sum())


def _color_contrast(request: PlanRequest, model: StereoModel) -> float:
    """Grey values by which a scratch must differ: its pixels, each filled by the share that the scratch covers.

    A line narrower than a pixel fills the share w of it, and is averaged over its length and all frames:
    `5 s / (w sqrt(length n))`; a wider one also over its width.
    """
    px_per_m = model.color_intrinsics.fx_px / request.distance_m
    width_px = request.size_m * px_per_m
    length_px = _groove_m(request, model) * px_per_m
    pixels = max(length_px, 1.0) * max(width_px, 1.0)
    return SIGMAS * COLOUR_NOISE / (min(width_px, 1.0) * math.sqrt(pixels * request.frames))
