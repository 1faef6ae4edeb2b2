"""What fusing a resting part costs over the number of pixels: a power law fitted to our times, beside open3d's.

Cost is processor time of all threads together, the least of several runs: what else the machine does hardly adds to it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from harness import RESULTS, Goal, Peer, Report, Timing, timing_of
from scipy.optimize import curve_fit
from scipy.stats import t as student

from depthcell.acquisition.frameset import CameraFrame, DepthImage, FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.scene import Scene
from depthcell.acquisition.simulator.station import StationPlan, build_station
from depthcell.acquisition.simulator.stereo import correlated_noise
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.files import written_beside
from depthcell.fusion.fuse import FusionSettings, PartAccumulator

SCALES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
"""Of the width and height of 424 x 240 pixels."""
FRAMES, VOXEL_M, TRUNCATION = 10, 1e-3, 2.0


@dataclass(frozen=True, eq=False)
class Sized:
    """Three cameras of one size: what both sides get."""

    cell: Cell
    framesets: list[FrameSet]

    @property
    def pixels(self) -> int:
        """Of all images together."""
        first = self.framesets[0].frames.values()
        return FRAMES * sum(frame.depth.depth_m.size for frame in first if frame.depth is not None)


def sized(scale: float) -> Sized:
    """The bracket seen by three cameras whose images have 424 x 240 times `scale` pixels, the field of view kept."""
    station = build_station(StationPlan("bracket", "D405", 3, 7))
    scene, rng = Scene(station.part.mesh, station.T_cell_part, threads=0), np.random.default_rng(1)
    cameras, frames = {}, []
    for camera in station.cameras:
        whole = camera.model.depth_intrinsics
        factor = scale / 2
        width_px, height_px = round(whole.width_px * factor), round(whole.height_px * factor)
        focal_px = whole.fx_px * factor
        lens = Intrinsics(width_px, height_px, focal_px, focal_px, (width_px - 1) / 2, (height_px - 1) / 2)
        noise = DisparityNoise(0.08 * factor, 0.03 * factor, 3.0)
        cameras[camera.serial] = CellCamera(
            camera.serial,
            camera.model.name,
            lens,
            None,
            camera.T_cell_depth,
            np.diag(np.array([1e-4] * 3 + [3e-5] * 3) ** 2),
            None,
            camera.model.baseline_m,
            noise,
        )
        true_m = scene.view(camera.T_cell_depth, lens).depth_m
        disparity_px = cameras[camera.serial].disparity_px(true_m)
        shots = []
        for number in range(FRAMES):
            noisy = disparity_px + noise.temporal_px * correlated_noise(true_m.shape, 3.0, rng)
            depth_m = (cameras[camera.serial].focal_baseline_m / noisy).astype(np.float32)
            image = DepthImage(depth_m, lens, 1e-4, camera.model.baseline_m, number, number)
            shots.append(CameraFrame(camera.serial, camera.model.name, image, None))
        frames.append(shots)
    serials = tuple(cameras)
    sets = [FrameSet(dict(zip(serials, shots, strict=True)), serials) for shots in zip(*frames, strict=True)]
    return Sized(Cell("sized", cameras, "2026-01-01T00:00:00Z"), sets)


def ours(given: Sized) -> Callable[[], object]:
    """All pixels, no region."""

    def run() -> object:
        part = PartAccumulator(given.cell, FusionSettings())
        for frameset in given.framesets:
            part.add(frameset)
        return part.fuse()

    return run


def theirs(given: Sized) -> Callable[[], object]:
    """The same images into a VoxelBlockGrid, frame by frame."""
    core, tg = open3d().core, open3d().t.geometry
    views = []
    for serial, camera in given.cell.cameras.items():
        pose = core.Tensor(camera.depth.matrix), core.Tensor(camera.T_cell_depth.inverse().matrix)
        for frameset in given.framesets:
            depth = frameset.frames[serial].depth
            assert depth is not None
            views.append((tg.Image(core.Tensor(np.nan_to_num(depth.depth_m))), *pose))

    def run() -> object:
        grid = tg.VoxelBlockGrid(("tsdf", "weight"), (core.float32, core.float32), ((1), (1)), VOXEL_M, 16, 40_000)
        for image, *pose in views:
            blocks = grid.compute_unique_block_coordinates(image, *pose, 1.0, 1.0, TRUNCATION)
            grid.integrate(blocks, image, *pose, 1.0, 1.0, TRUNCATION)
        return grid.extract_point_cloud(weight_threshold=FRAMES / 2)

    return run


def cpu_time(run: Callable[[], object], repetitions: int) -> Timing:
    """Processor seconds of all threads, after one run that is not counted."""
    run()
    seconds = []
    for _ in range(repetitions):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return timing_of(seconds)


def least_s(timing: Timing) -> float:
    """The lowest decile: near the least, and no single lucky run."""
    return timing.p10_s


def add_cost(report: Report) -> None:
    """Measure both over the sizes, fit `t = a + b N^p` to ours, draw them."""
    pixels, us, them = [], [], []
    for scale in SCALES:
        given = sized(scale)
        pixels.append(given.pixels)
        us.append(cpu_time(ours(given), repetitions=9))
        them.append(cpu_time(theirs(given), repetitions=3))
    count, seconds = np.array(pixels) / 1e6, np.array([least_s(timing) for timing in us])
    (start_s, per_megapixel_s, exponent), covariance = curve_fit(
        lambda n, a, b, p: a + b * n**p,
        count,
        seconds,
        p0=(0.01, 0.02, 1.0),
        sigma=seconds,
        bounds=((0, 0, 0.3), (1, 10, 3)),
    )
    half = float(student.ppf(0.975, len(count) - 3) * np.sqrt(covariance[2, 2]))
    plain, plain_covariance = np.polyfit(np.log(count), np.log(seconds), 1, cov=True)
    plain_half = float(student.ppf(0.975, len(count) - 2) * np.sqrt(plain_covariance[0, 0]))
    picture = RESULTS / "fusion_cost.png"
    _draw(
        picture,
        count,
        seconds,
        np.array([least_s(timing) for timing in them]),
        (start_s, per_megapixel_s, exponent, half),
    )
    report.add(
        f"processor time of {pixels[-1] / 1e6:.1f} million depth pixels, 3 cameras x {FRAMES} frames, no region",
        us[-1],
        Goal(),
        Peer("open3d VoxelBlockGrid, 1 mm, frame by frame", them[-1]),
        exponent_of_pixels=round(float(exponent), 3),
        is_linear_within_interval=abs(float(exponent) - 1) <= half,
        exponent_95_percent=[round(float(exponent) - half, 3), round(float(exponent) + half, 3)],
        exponent_without_constant=round(float(plain[0]), 3),
        exponent_without_constant_95_percent=[
            round(float(plain[0]) - plain_half, 3),
            round(float(plain[0]) + plain_half, 3),
        ],
        constant_ms=round(float(start_s) * 1e3, 2),
        ms_per_megapixel=round(float(per_megapixel_s) * 1e3, 2),
        megapixels=[round(float(n), 3) for n in count],
        our_ms=[round(float(s) * 1e3, 1) for s in seconds],
        peer_ms=[round(least_s(timing) * 1e3, 1) for timing in them],
        picture=picture.name,
    )


def _draw(picture, count, seconds, peer_s, fit) -> None:  # type: ignore[no-untyped-def]
    from matplotlib.figure import Figure

    start_s, per_megapixel_s, exponent, half = fit
    figure = Figure(figsize=(6.4, 4.0), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(count, peer_s * 1e3, "s-", color="C1", ms=4, label="open3d VoxelBlockGrid, 1 mm, frame by frame")
    smooth = np.geomspace(count[0], count[-1], 60)
    law = (start_s + per_megapixel_s * smooth**exponent) * 1e3
    axes.plot(smooth, law, color="C0", lw=1, label=f"a + b N^p, p = {exponent:.2f} ± {half:.2f} (95 %)")
    axes.plot(count, seconds * 1e3, "o", color="C0", ms=5, label="depthcell, resting part")
    axes.set(xscale="log", yscale="log", xlabel="depth pixels, million", ylabel="processor time of all threads, ms")
    axes.set_title("3 cameras x 10 frames to a cloud", fontsize=10)
    axes.grid(which="both", alpha=0.25)
    axes.legend(fontsize=8)
    with written_beside(picture) as partial:
        figure.savefig(partial, format="png")
