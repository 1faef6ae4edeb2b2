"""The simulator checks itself: the noise of a simulated wall against the law sigma_z = z² s / (f B).

.venv/bin/python -m depthcell.acquisition.simulator.sigmalaw docs/pictures/simulator_sigma.png
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.cameras import CameraModel, StereoModel, SystematicError, stereo_model
from depthcell.acquisition.simulator.stereo import StereoNoise, StereoView, frame_counts, matched
from depthcell.acquisition.transform import FloatArray
from depthcell.files import written_beside

ROWS_PX = 96
SLANT = 0.02
"""The wall recedes by this share of its distance across the image, so that no rounding is hit alike everywhere."""
WHOLE_UNITS = 1.2
"""Below this many units of depth, rounding to whole units widens the noise by more than 3 %."""
FEWEST_DISPARITY_PX = 6.0


@dataclass(frozen=True, slots=True)
class SigmaPoint:
    """Noise at one distance.

    Attributes:
        depth_m: mean true depth of the wall.
        law_m: z² s / (f B), averaged over the wall as root mean square.
        measured_m: standard deviation from frame to frame, the same average over all measured pixels.
        rounded_m: the law with the rounding of disparity and of depth added, each step² / 12 (W. F. Sheppard 1897).
    """

    depth_m: float
    law_m: float
    measured_m: float
    rounded_m: float


def law_range_m(model: StereoModel, noise: StereoNoise) -> tuple[float, float]:
    """Distances at which the law stands alone: rounding is small, and the noise is small against the disparity."""
    rounding_ends_m = float(np.sqrt(WHOLE_UNITS * model.units_m * model.focal_baseline_m / noise.temporal_px))
    return max(1.1 * model.min_depth_m, rounding_ends_m), model.focal_baseline_m / FEWEST_DISPARITY_PX


def wall_frames(
    model: StereoModel, depth_m: float, noise: StereoNoise, frames: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """True depth (H, W) and `frames` simulated frames (N, H, W) of a wall that fills the view, seen head-on."""
    columns = np.linspace(-0.5, 0.5, model.depth_intrinsics.width_px)
    truth = np.broadcast_to(depth_m * (1 + SLANT * columns), (ROWS_PX, len(columns))).astype(np.float32)
    everywhere = np.ones(truth.shape, dtype=bool)
    view = StereoView(truth, everywhere, np.ones_like(truth), ~everywhere)
    rng = np.random.default_rng(seed)
    still = matched(view, model, SystematicError(), noise, rng)
    return truth, np.stack([frame_counts(still, model, noise, rng) for _ in range(frames)])


def measured_sigma(
    model: StereoModel, depths_m: Sequence[float] | FloatArray, noise: StereoNoise, frames: int = 40, seed: int = 0
) -> tuple[SigmaPoint, ...]:
    """The noise of a wall at each distance, as anyone would measure it on the recorded frames."""
    points = []
    for number, depth_m in enumerate(depths_m):
        truth, counts = wall_frames(model, float(depth_m), noise, frames, seed + number)
        whole = (counts > 0).all(axis=0)
        read_m = counts[:, whole] * model.units_m
        law_m = truth[whole].astype(np.float64) ** 2 * noise.temporal_px / model.focal_baseline_m
        disparity_step_m = law_m * noise.quantum_px / noise.temporal_px
        rounding_m2 = (disparity_step_m**2 + model.units_m**2) / 12
        points.append(
            SigmaPoint(
                float(depth_m),
                _rms(law_m),
                _rms(read_m.std(axis=0, ddof=1)),
                _rms(np.sqrt(law_m**2 + rounding_m2)),
            )
        )
    return tuple(points)


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def plot_sigma_law(path: Path, noise: StereoNoise | None = None) -> None:
    """Draw measured noise, law and the range of the 5 % check for all four cameras into a PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only the picture needs it

    noise = noise or StereoNoise()
    figure = Figure(figsize=(8.0, 4.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for number, name in enumerate(CameraModel):
        model = stereo_model(name)
        low_m, high_m = law_range_m(model, noise)
        points = measured_sigma(model, np.geomspace(1.05 * model.min_depth_m, high_m, 14), noise)
        depth_m = [point.depth_m for point in points]
        color = f"C{number}"
        axes.plot(depth_m, [1e3 * point.law_m for point in points], color=color, lw=1, label=f"{name}: z² s / (f B)")
        axes.plot(depth_m, [1e3 * point.rounded_m for point in points], color=color, lw=1, ls=":")
        axes.plot(depth_m, [1e3 * point.measured_m for point in points], "o", color=color, ms=4)
        axes.axvspan(low_m, high_m, ymin=0.01 + 0.018 * number, ymax=0.02 + 0.018 * number, color=color, lw=0)
    axes.set(xscale="log", yscale="log", xlabel="distance of the wall, m", ylabel="noise of one frame, mm")
    axes.set_title("Points: simulated. Lines: the law; dotted with rounding. Bars: range of the 5 % check", fontsize=10)
    axes.grid(which="both", alpha=0.25)
    axes.legend(fontsize=9)
    with written_beside(path) as partial:
        figure.savefig(partial, format="png")


def main() -> None:
    """Draw the picture of the documentation."""
    plot_sigma_law(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
