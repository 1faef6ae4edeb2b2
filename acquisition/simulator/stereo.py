"""How a stereo camera errs: everything happens to the disparity, in pixels, and only then becomes depth.

In the order of the light: systematic error, matching window (smoothing and fattening), occlusion, the subpixel
staircase, the pattern that stays, holes, the end of the search range; then, for each frame, noise and quantisation.
"""

from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.cameras import MAX_DISPARITY_PX, StereoModel, SystematicError

EDGE_JUMP_PX = 1.0
GHOST_DEPTH_M = 2.0


@dataclass(frozen=True, slots=True)
class StereoNoise:
    """Sizes of the errors, in pixels of disparity where not said otherwise.

    Attributes:
        temporal_px: standard deviation of the noise of one frame.
        fixed_px: standard deviation of the pattern that stays while scene and camera do.
        correlation_px: distance at which the correlation of either has fallen to 1/e.
        staircase_px: amplitude of the pull towards whole disparities.
        quantum_px: step of the subpixel interpolation.
        window_px: width of the matching window: what lies within it is averaged.
        fattening_px: how far a near surface spreads over the far one behind its edge.
        hole_share: share of pixels lost on a well-lit surface seen head-on.
        ghost_share: share of the pixels nearer than the search range that give a wrong far depth instead of none.
    """

    temporal_px: float = 0.08
    fixed_px: float = 0.03
    correlation_px: float = 3.0
    staircase_px: float = 0.02
    quantum_px: float = 1 / 32
    window_px: int = 5
    fattening_px: int = 3
    hole_share: float = 0.002
    ghost_share: float = 0.15

    @property
    def lasting_px(self) -> float:
        """Standard deviation of all that frames do not average out: the fixed pattern and the staircase's sine."""
        return float(np.hypot(self.fixed_px, self.staircase_px / np.sqrt(2)))


@dataclass(frozen=True, slots=True, eq=False)
class StereoView:
    """What the left imager truly sees.

    Attributes:
        depth_m: (H, W) float32 true z, NaN where there is nothing.
        seen_by_right: (H, W) bool, whether the right imager sees the same point.
        cosine: (H, W) float32, of the angle between the surface's normal and the ray; 1 head-on.
        is_blinded: (H, W) bool, where a highlight leaves no texture to match.
    """

    depth_m: NDArray[np.float32]
    seen_by_right: NDArray[np.bool_]
    cosine: NDArray[np.float32]
    is_blinded: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class MatchedView:
    """What stays the same in all frames of a static scene.

    Attributes:
        disparity_px: (H, W) float32, NaN where no match is found.
        flicker: (H, W) float32, share of frames in which the pixel is lost.
        is_ghost: (H, W) bool, where a surface too near was taken for one far away.
    """

    disparity_px: NDArray[np.float32]
    flicker: NDArray[np.float32]
    is_ghost: NDArray[np.bool_]


def correlated_noise(shape: tuple[int, int], correlation_px: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gaussian noise of unit variance whose correlation falls as exp(-(r / correlation_px)²): (H, W) float32.

    White noise filtered by a Gaussian of width w has the autocorrelation exp(-r² / (4 w²)), so w is half of
    `correlation_px`. Zero gives white noise.
    """
    if correlation_px <= 0:
        return rng.standard_normal(shape, dtype=np.float32)
    width = correlation_px / 2
    reach = int(np.ceil(3.5 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    kernel = (kernel / np.sqrt((kernel**2).sum())).astype(np.float32)
    white = rng.standard_normal((shape[0] + 2 * reach, shape[1] + 2 * reach), dtype=np.float32)
    smooth = cv2.sepFilter2D(white, cv2.CV_32F, kernel, kernel)
    return np.ascontiguousarray(smooth[reach:-reach, reach:-reach], dtype=np.float32)


def matched(
    view: StereoView, model: StereoModel, error: SystematicError, noise: StereoNoise, rng: np.random.Generator
) -> MatchedView:
    """Match a static scene once; `frame_counts` then draws its frames."""
    shape = view.depth_m.shape
    disparity = error.disparity_px(view.depth_m, model.focal_baseline_m).astype(np.float32)
    disparity[disparity <= 0] = np.nan
    # A point whose match lies left of the right image's border has none: the blind band of every stereo camera.
    in_right_image = np.arange(shape[1]) >= np.nan_to_num(disparity)
    windowed, fattened, near_edge = _through_window(disparity, noise, rng)
    texture_lost = correlated_noise(shape, 2 * noise.correlation_px, rng)
    found = (
        (view.seen_by_right | fattened)
        & in_right_image
        & ~(view.is_blinded & (texture_lost > -0.5))
        & (view.cosine > 0.12)
    )
    is_ghost = (windowed > MAX_DISPARITY_PX) & (texture_lost > _upper_quantile(noise.ghost_share))
    result = _with_lasting_errors(windowed, noise, rng)
    result[~found | (windowed > MAX_DISPARITY_PX)] = np.nan
    farthest = min(model.focal_baseline_m / GHOST_DEPTH_M, 0.9 * MAX_DISPARITY_PX)
    result[is_ghost] = rng.uniform(0.3, 0.9) * farthest
    return MatchedView(result, _flicker(view.cosine, near_edge, noise), is_ghost)


def frame_counts(
    view: MatchedView, model: StereoModel, noise: StereoNoise, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """One frame as the sensor gives it: (H, W) uint16 counts of `model.units_m`, 0 where nothing was measured."""
    shape = view.disparity_px.shape
    disparity = view.disparity_px + noise.temporal_px * correlated_noise(shape, noise.correlation_px, rng)
    if noise.quantum_px:
        disparity = np.round(disparity / noise.quantum_px) * noise.quantum_px
    lost = ~((disparity > 0) & (disparity <= MAX_DISPARITY_PX))
    lost |= rng.random(shape, dtype=np.float32) < view.flicker
    disparity[lost] = np.inf
    counts = np.round(model.focal_baseline_m / model.units_m / disparity)
    counts[counts > np.iinfo(np.uint16).max] = 0
    return counts.astype(np.uint16)


def _through_window(
    disparity: NDArray[np.float32], noise: StereoNoise, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Average over the matching window, and let near surfaces spread over the far ones beside them.

    Returns the disparity, where it was spread, and where an edge lies within the window.
    """
    known = np.nan_to_num(disparity)
    window = np.ones((noise.window_px, noise.window_px), np.uint8)
    highest, lowest = cv2.dilate(known, window), cv2.erode(known, window)
    near_edge = (highest - lowest) > EDGE_JUMP_PX
    averaged = np.where(near_edge, known, cv2.blur(known, (noise.window_px, noise.window_px)))
    # The match tips to the near surface at a distance that depends on the texture there, so the edge gets ragged.
    spread_far = correlated_noise(known.shape, 2 * noise.correlation_px, rng) > 0
    far, near = (cv2.dilate(known, _disc(reach)) for reach in (noise.fattening_px, max(noise.fattening_px - 2, 0)))
    spread = np.where(spread_far, far, near)
    fattened = spread - known > EDGE_JUMP_PX
    result = np.where(fattened, spread, averaged).astype(np.float32)
    result[result <= 0] = np.nan
    return result, fattened, near_edge


def _with_lasting_errors(
    disparity: NDArray[np.float32], noise: StereoNoise, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Add the staircase, which pulls towards whole disparities, and the pattern that stays."""
    staircase = -noise.staircase_px * np.sin(2 * np.pi * disparity)
    pattern = noise.fixed_px * correlated_noise(disparity.shape, noise.correlation_px, rng)
    result: NDArray[np.float32] = (disparity + staircase + pattern).astype(np.float32)
    return result


def _flicker(cosine: NDArray[np.float32], near_edge: NDArray[np.bool_], noise: StereoNoise) -> NDArray[np.float32]:
    """Share of frames in which the left-right check throws a pixel out: more at glancing incidence and at edges."""
    glancing = np.clip((0.35 - cosine) / 0.25, 0, 1)
    share: NDArray[np.float32] = np.clip(noise.hole_share + 0.9 * glancing + 0.15 * near_edge, 0, 1).astype(np.float32)
    return share


def _disc(radius_px: int) -> NDArray[np.uint8]:
    size = 2 * radius_px + 1
    disc: NDArray[np.uint8] = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(np.uint8)
    return disc


def _upper_quantile(share: float) -> float:
    """The value that a standard normal draw exceeds with probability `share`."""
    return NormalDist().inv_cdf(1 - share) if share > 0 else np.inf
