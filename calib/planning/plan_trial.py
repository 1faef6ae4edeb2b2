"""The planner's answer put to the test: dents in a simulated wall, measured on simulated frames."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.cameras import HEIGHT_PX, WIDTH_PX, StereoModel, SystematicError, stereo_model
from depthcell.acquisition.simulator.stereo import StereoView, frame_counts, matched
from depthcell.calib.planning.plan import PlannedDefect, PlanRequest, defect_weights
from depthcell.errors import DepthcellError

NEARNESS = 0.04
"""Only dents whose distance is within this share of the one asked for are counted: a tilted wall holds many."""


@dataclass(frozen=True, slots=True)
class PlanTrial:
    """What the simulator measured.

    Attributes:
        dents: how many.
        depth_m: of each, true.
        mean_m: of the measured depths.
        error_m: root mean square of measured less true depth.
        sigma_pixel_m: standard deviation of a pixel from frame to frame, on the wall.
    """

    dents: int
    depth_m: float
    mean_m: float
    error_m: float
    sigma_pixel_m: float


def try_plan(request: PlanRequest, walls: int, seed: int, depth_m: float = 0.0) -> PlanTrial:
    """Measure many equal dents as the planner says they are measured.

    Every wall holds as many dents as fit; each is fitted with `defect_weights` on the mean of `request.frames` frames
    less the known wall.

    Args:
        request: of a dent or bump.
        walls: images to make, each with its own fixed pattern.
        seed: of all draws.
        depth_m: of the dents; 0 shows what a surface without any reads.

    Raises:
        DepthcellError: for a scratch, or a dent of which not even one fits with its ring.
    """
    if request.defect is PlannedDefect.SCRATCH:
        raise DepthcellError("--defect scratch: only dents and bumps are tried")
    model = stereo_model(request.camera)
    spacing = len(defect_weights(request, model))
    if spacing > HEIGHT_PX:
        raise DepthcellError(f"--defect: with its ring it takes {spacing} px, the image has {HEIGHT_PX}; try a smaller")
    rng = np.random.default_rng(seed)
    measured, noise = list[float](), list[float]()
    for _ in range(walls):
        depths, pixel_m = _wall(request, model, depth_m, spacing, rng)
        measured += depths
        noise.append(pixel_m)
    off_m = np.array(measured) - depth_m
    return PlanTrial(
        dents=len(measured),
        depth_m=depth_m,
        mean_m=float(np.mean(measured)),
        error_m=float(np.sqrt(np.mean(off_m**2))),
        sigma_pixel_m=float(np.mean(noise)),
    )


def _wall(
    request: PlanRequest, model: StereoModel, depth_m: float, spacing: int, rng: np.random.Generator
) -> tuple[list[float], float]:
    """Measured depths of the dents in one wall, and the frame-to-frame noise of its pixels."""
    rows = spacing * (HEIGHT_PX // spacing)
    columns = np.arange(WIDTH_PX)
    slope = math.tan(request.tilt_rad) / model.focal_px
    shift_px = rng.uniform(-1, 1)  # of disparity, so that staircase and rounding fall otherwise on every wall
    middle_m = request.distance_m * (1 + shift_px * request.distance_m / model.focal_baseline_m)
    wall = np.broadcast_to(middle_m * (1 + slope * (columns - WIDTH_PX / 2)), (rows, WIDTH_PX))
    first = _first_column(model, request) + spacing // 2
    near_px = NEARNESS / max(slope, 1e-12)
    middles = list(range(first, WIDTH_PX - spacing // 2, spacing))
    middles = [column for column in middles if abs(column - WIDTH_PX / 2) < near_px] or middles[len(middles) // 2 :][:1]
    centres = [(row, column) for row in range(spacing // 2, rows - spacing // 2, spacing) for column in middles]
    unit = _unit(request, model)
    truth, half = wall.copy(), len(unit) // 2
    for row, column in centres:
        truth[row - half : row + half + 1, column - half : column + half + 1] += depth_m * unit
    everywhere = np.ones(truth.shape, np.bool_)
    view = StereoView(truth.astype(np.float32), everywhere, np.ones(truth.shape, np.float32), ~everywhere)
    still = matched(view, model, SystematicError(), request.noise, rng)
    total, squares, count = (np.zeros(truth.shape) for _ in range(3))
    for _ in range(request.frames):
        read_m = frame_counts(still, model, request.noise, rng) * model.units_m
        seen = (read_m > 0) & (np.abs(read_m - wall) < 0.1 * request.distance_m)
        off = np.where(seen, read_m - wall, 0.0)
        total, squares, count = total + off, squares + off**2, count + seen
    mean = total / np.maximum(count, 1)
    scatter = (squares - count * mean**2) / np.maximum(count - 1, 1)
    weights, reach = defect_weights(request, model), spacing // 2
    depths = [
        float((weights * mean[row - reach : row + reach + 1, column - reach : column + reach + 1]).sum())
        for row, column in centres
    ]
    return depths, float(np.sqrt(np.mean(scatter[count > 1])))


def _first_column(model: StereoModel, request: PlanRequest) -> int:
    """Left of it a stereo camera is blind: the match would lie outside the right image."""
    return math.ceil(1.1 * model.focal_baseline_m / request.distance_m) + 4


def _unit(request: PlanRequest, model: StereoModel) -> NDArray[np.float64]:
    """The dent of unit depth as it is, without the matching window, on pixels."""
    m_per_px = request.distance_m / model.focal_px
    half = math.ceil(request.size_m / 2 / m_per_px) + 1
    across = np.arange(-half, half + 1) * m_per_px
    share2 = (across[:, None] ** 2 + across**2) / (request.size_m / 2) ** 2
    return np.asarray(np.clip(1 - share2, 0, None) ** 2, np.float64)
