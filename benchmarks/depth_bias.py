"""How much of a depth camera's bias a calibration takes away: simulated cameras, whose truth is known, and a real one.

Run `.venv/bin/python benchmarks/depth_bias.py [--seeds 200] [--cells 10]`; data: `benchmarks/results/depth_bias.json`,
picture: `docs/pictures/depth_bias.png`. The real sequence (ViSP, GPL-2, not part of this repository) is looked for at
`--data`; without it that part is left out and said to be.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: small matrices only lose by more threads

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from harness import ROOT, Goal, Report, timing_of
from scipy import optimize

from depthcell.acquisition.frameset import DepthImage
from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.simulator.cameras import SystematicError, stereo_model
from depthcell.acquisition.simulator.stereo import StereoNoise, StereoView, frame_counts, matched
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import CellCamera, DisparityNoise, camera_covariance
from depthcell.calib.certify.plots import png_of
from depthcell.calib.certify.plots_maps import DepthBias, draw_depth_bias
from depthcell.calib.depth.depth_bias import BiasFit, BiasSettings, BoardDepth, depth_errors_m, fit_correction
from depthcell.calib.depth.depth_synthetic import DepthScene, drawn_correction, drawn_views, held_pose, read_px
from depthcell.calib.depth.depth_tiles import BoardPlace, TileSettings, tiled_depth
from depthcell.calib.depth.rolling_shutter import RollingSight, fit_rolling, motions
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.factory import NOISE
from depthcell.calib.propagation import depth_sigma_m
from depthcell.errors import DepthcellError
from depthcell.files import written_beside

SLOW_MM = 6.0
"""Frames between which the board moves less, for a look at what motion costs."""
Half: TypeAlias = tuple[list[BoardDepth], dict[str, float]]
"""All views as one half sees them, and what it found on the way."""
PLACES = 40
"""Held-out places of each drawn camera."""
SIMULATED = StereoNoise()
KNOWN = DisparityNoise(SIMULATED.temporal_px, SIMULATED.lasting_px, SIMULATED.correlation_px)


def as_camera(scene: DepthScene, fit: BiasFit) -> CellCamera:
    """A camera of a cell with this correction, all else exact."""
    pose = RigidTransform.identity("cell", "depth:1")
    covariance = camera_covariance(np.zeros((6, 6)), scene.intrinsics, fit.correction, {})
    covariance[10:, 10:] = fit.covariance
    return CellCamera(
        "1", "drawn", scene.intrinsics, None, pose, covariance, None, scene.baseline_m, KNOWN, fit.correction
    )


def at_places(
    scene: DepthScene, truth: DepthCorrection, fit: BiasFit, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors of depth as read and as corrected at places nobody calibrated at, and the stated uncertainty; metres."""
    middles = np.array([held_pose(scene, rng).translation_m for _ in range(PLACES)])
    pixels, depth_m = scene.intrinsics.project(middles), middles[:, 2]
    read_m = scene.intrinsics.fx_px * scene.baseline_m / read_px(scene, truth, pixels, depth_m)
    camera = as_camera(scene, fit)
    corrected_m = camera.corrected(read_m, pixels)
    return read_m - depth_m, corrected_m - depth_m, depth_sigma_m(camera, pixels, corrected_m)


def report_coverage(report: Report, seeds: int) -> None:
    """Tiles drawn from a known error: whether 95 % intervals of corrected depth hold."""
    scene, shares, before, after, scaled, seconds = DepthScene(), [], [], [], [], []
    for seed in range(seeds):
        rng = np.random.default_rng([11, seed])
        views, truth = drawn_views(scene, rng)
        start_s = time.perf_counter()
        fit = fit_correction(views, scene.intrinsics, scene.baseline_m)
        seconds.append(time.perf_counter() - start_s)
        raw_m, off_m, sigma_m = at_places(scene, truth, fit, rng)
        shares.append(float(np.mean(np.abs(off_m) <= 1.959964 * sigma_m)))
        scaled.append(float(np.mean(np.square(off_m / sigma_m))))
        before.append(float(np.sqrt(np.mean(raw_m**2))))
        after.append(float(np.sqrt(np.mean(off_m**2))))
    share, error = float(np.mean(shares)), float(np.std(shares, ddof=1) / np.sqrt(seeds))
    reduction = np.array(before) / np.array(after)
    report.add(
        f"depth of {seeds} drawn cameras, {scene.views} boards each, at {PLACES} other places: coverage",
        timing_of(seconds),
        Goal(words="95 % intervals hold in 93 to 97 %", reached=0.93 <= share <= 0.97),
        seeds=seeds,
        coverage_of_95_percent=round(share, 4),
        standard_error_of_coverage=round(error, 4),
        mean_square_of_scaled_error=round(float(np.mean(scaled)), 3),
        rms_before_mm_median=round(float(np.median(before)) * 1e3, 3),
        rms_after_mm_median=round(float(np.median(after)) * 1e3, 4),
        reduction_median=round(float(np.median(reduction)), 1),
        reduction_p10=round(float(np.quantile(reduction, 0.1)), 1),
    )


def simulated_view(
    scene: DepthScene, error: SystematicError, number: int, rng: np.random.Generator, frames: int = 5
) -> BoardDepth | None:
    """A board before a wall through the stereo simulator; None where too little of it can be read."""
    model, pose = stereo_model("D435"), held_pose(scene, rng)
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * np.append(scene.half_m, 1.0)
    outline = scene.intrinsics.project(pose @ corners)
    inside = np.zeros((scene.intrinsics.height_px, scene.intrinsics.width_px), np.uint8)
    cv2.fillConvexPoly(inside, np.rint(outline).astype(np.int32), 1)
    normal, rays = pose.rotation[:, 2], scene.intrinsics.rays()
    plane_m = float(normal @ pose.translation_m) / (rays @ normal)
    depth_m = np.where(inside > 0, plane_m, 1.5).astype(np.float32)
    everywhere = np.ones(depth_m.shape, np.bool_)
    cosine = np.abs(rays @ normal) / np.linalg.norm(rays, axis=2)
    view = StereoView(depth_m, everywhere, cosine.astype(np.float32), ~everywhere)
    still = matched(view, model, error, SIMULATED, rng)
    counts = [frame_counts(still, model, SIMULATED, rng) for _ in range(frames)]
    images = [DepthImage.from_counts(each, scene.intrinsics, model.units_m) for each in counts]
    place = BoardPlace("1", number, 0, model.focal_baseline_m)
    try:
        tiles = tiled_depth(place, images, outline, KNOWN).tiles
    except DepthcellError:
        return None
    spread = np.diag([scene.turn_u_rad**2] * 3 + [scene.shift_u_m**2] * 3)
    return BoardDepth(tiles, pose.perturbed(rng.multivariate_normal(np.zeros(6), spread)), spread)


def report_simulated(report: Report, cells: int) -> None:
    """Whole depth images of the stereo simulator: noise, pattern, staircase, window and counts."""
    model = stereo_model("D435")
    scene = replace(
        DepthScene(), intrinsics=model.depth_intrinsics, baseline_m=model.baseline_m, far_m=0.6, turn_u_rad=2e-4
    )
    before, after, inside, seconds = [], [], [], []
    for seed in range(cells):
        rng = np.random.default_rng([12, seed])
        truth = drawn_correction(scene, rng)
        error = SystematicError(truth.scale, truth.disparity_offset_px, truth.curvature_px, truth.wave_px)
        found = [simulated_view(scene, error, number, rng) for number in range(scene.views)]
        views = [view for view in found if view is not None]
        start_s = time.perf_counter()
        fit = fit_correction(views, scene.intrinsics, scene.baseline_m)
        seconds.append(time.perf_counter() - start_s)
        raw_m, off_m, sigma_m = at_places(scene, truth, fit, rng)
        before.append(float(np.sqrt(np.mean(raw_m**2))))
        after.append(float(np.sqrt(np.mean(off_m**2))))
        inside.append(float(np.mean(np.abs(off_m) <= 1.959964 * sigma_m)))
    reduction = np.array(before) / np.array(after)
    total = float(np.sqrt(np.sum(np.square(before)) / np.sum(np.square(after))))
    report.add(
        f"depth bias of {cells} simulated D435, {scene.views} boards each through the stereo simulator, other places",
        timing_of(seconds),
        Goal(words="bias (root mean square over all cameras) a tenth or less", reached=total >= 10),
        cells=cells,
        rms_before_mm=[round(each * 1e3, 3) for each in before],
        rms_after_mm=[round(each * 1e3, 3) for each in after],
        reduction_of_rms_over_all=round(total, 1),
        reduction_median=round(float(np.median(reduction)), 1),
        reduction_least=round(float(reduction.min()), 1),
        coverage_of_95_percent=round(float(np.mean(inside)), 3),
    )


def real_views(folder: Path) -> tuple[list[BoardDepth], Intrinsics, list[int]]:
    """Tiles on the tag grid of each frame, with the pose that comes with the frame; the colour camera's intrinsics.

    The depth is aligned to the colour image, so its z is that of the colour camera: disparity is here only
    `f_color B / z`, with a nominal B of 50 mm, and the correction one of this aligned image, not of the sensor.
    """
    camera = json.loads((folder / "cam.json").read_text())
    told = json.loads((folder / "apriltag_data.json").read_text())
    intrinsics = Intrinsics(camera["w"], camera["h"], camera["px"], camera["py"], camera["u0"], camera["v0"])
    half_m = told["tag_size"] / 2
    square = np.array([[-half_m, -half_m, 0], [half_m, -half_m, 0], [half_m, half_m, 0], [-half_m, half_m, 0]])
    settings = TileSettings(size_px=16, margin_px=3, max_rough_px=0.6)
    views, numbers = [], []
    for path in sorted(folder.glob("depth_image_*.npz")):
        number = int(path.stem.split("_")[-1])
        if number >= len(told["grid"]):
            continue
        counts = np.load(path)["data"]
        image = DepthImage.from_counts(counts, intrinsics, camera["depthScale"])
        poses = [np.array(tag["cMo"]) for tag in told["detections"][number].values()]
        corners = np.concatenate([square @ pose[:3, :3].T + pose[:3, 3] for pose in poses])
        place = BoardPlace("visp", number, 0, intrinsics.fx_px * 0.05)
        tiles = tiled_depth(place, [image], intrinsics.project(corners), NOISE, settings).tiles
        pose = RigidTransform.from_matrix("depth:visp", "board", np.array(told["grid"][number]))
        views.append(BoardDepth(tiles, pose))
        numbers.append(number)
    return views, intrinsics, numbers


def frame_medians_mm(views: list[BoardDepth], intrinsics: Intrinsics, correction: DepthCorrection) -> np.ndarray:
    """Median error of each frame's tiles."""
    return np.array([np.median(depth_errors_m(view, intrinsics, 0.05, correction)) * 1e3 for view in views])


def motion_mm(folder: Path, numbers: list[int]) -> np.ndarray:
    """How far the middle of the tag grid moves from one frame to the next, by the poses of all frames."""
    poses = np.array(json.loads((folder / "apriltag_data.json").read_text())["grid"])
    middle_m = (poses @ np.array([0.18, 0.12, 0.0, 1.0]))[:, :3]
    return np.asarray(np.linalg.norm(np.gradient(middle_m, axis=0), axis=1)[numbers] * 1e3)


def real_sights(folder: Path, numbers: list[int]) -> list[RollingSight]:
    """Tag corners of these frames as they come with the sequence, and the board's motion by the poses of all frames.

    The file gives corners as (row, column), lower left first, and the tags' distance is 0.12 m: their own poses say so
    to 1 mm, and the grid's x leads down, its y to the right.
    """
    told = json.loads((folder / "apriltag_data.json").read_text())
    side_m, pitch_m = told["tag_size"], 0.12
    square = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]) * side_m
    poses = [RigidTransform.from_matrix("depth:visp", "board", np.array(pose)) for pose in told["grid"]]
    moving, sights = motions(poses), []
    for number in numbers:
        tags = {int(name): tag for name, tag in told["detections"][number].items()}
        points = np.concatenate([square + pitch_m * np.array([name // 4, name % 4, 0]) for name in tags])
        pixels = np.concatenate([np.array(tag["tag_corners"])[:, ::-1] for tag in tags.values()])
        sights.append(RollingSight("depth:visp", points, pixels, moving[number]))
    return sights


def with_lens(intrinsics: Intrinsics, k1: float) -> Intrinsics:
    """The colour camera with one term of distortion."""
    return replace(intrinsics, distortion=Distortion.BROWN_CONRADY, coefficients=(k1, 0.0, 0.0, 0.0, 0.0))


def as_rolling(
    views: list[BoardDepth], sights: list[RollingSight], intrinsics: Intrinsics, fitted: slice, lens: bool
) -> Half:
    """The same tiles with poses of our own: rows' time, and the lens if asked for, from the corners of one half."""
    mine, k1 = sights[fitted], 0.0
    if lens:
        seek: Any = optimize.minimize_scalar
        found = seek(lambda k1: fit_rolling(mine, with_lens(intrinsics, k1)).loss_px2, bounds=(-0.1, 0.3))
        k1 = float(found.x)
    camera = with_lens(intrinsics, k1)
    half = fit_rolling(mine, camera)
    every = fit_rolling(sights, camera, half.share)
    told = {
        "rows_share_of_frame": round(half.share, 2),
        "u_rows_share": round(half.u_share, 2),
        "k1": round(k1, 3),
        "corners_rms_px": round(every.rms_px, 3),
        "corners_rms_px_simultaneous": round(fit_rolling(sights, camera, 0.0).rms_px, 3),
    }
    return [BoardDepth(view.tiles, pose) for view, pose in zip(views, every.poses, strict=True)], told


def report_real(report: Report, folder: Path) -> None:
    """The ViSP sequence: by its own poses, all frames and slow ones; by poses that know of the rolling shutter."""
    if not folder.is_dir():
        print(f"left out: the real sequence is not at {folder}")
        return
    views, intrinsics, numbers = real_views(folder)
    halves: list[Half] = [(views, {})] * 2
    report_halves(report, "poses as they come", halves, intrinsics, numbers)
    slow = np.flatnonzero(motion_mm(folder, numbers) < SLOW_MM)
    what = f"poses as they come, frames with less than {SLOW_MM:g} mm of motion to the next"
    few: list[Half] = [([views[at] for at in slow], {})] * 2
    report_halves(report, what, few, intrinsics, [numbers[at] for at in slow])
    sights = real_sights(folder, numbers)
    for lens, name in ((False, "lens as it comes"), (True, "one lens term of the fitted half's corners")):
        rolling = [as_rolling(views, sights, intrinsics, slice(mine, None, 2), lens) for mine in (0, 1)]
        report_halves(report, f"poses by rolling shutter, {name}", rolling, intrinsics, numbers)


def report_halves(
    report: Report,
    what: str,
    halves: Sequence[Half],
    intrinsics: Intrinsics,
    numbers: list[int],
) -> None:
    """Fit on every other frame, look at the rest; then the other way round, each with all views as that half sees."""
    seconds: list[float] = []
    notes: dict[str, Any] = {}
    reached = True
    views = halves[0][0]
    flat = [view.tiles.disparity_px for view in views]
    errors_m = [depth_errors_m(view, intrinsics, 0.05, DepthCorrection()) for view in views]
    true_m = intrinsics.fx_px * 0.05 / np.concatenate(flat) - np.concatenate(errors_m)
    for name, mine in (("fit_on_even", 0), ("fit_on_odd", 1)):
        views, told = halves[mine]
        fitted, shown = views[mine::2], views[1 - mine :: 2]
        start_s = time.perf_counter()
        fit = fit_correction(fitted, intrinsics, 0.05, BiasSettings(min_views=4))
        seconds.append(time.perf_counter() - start_s)
        raw, corrected = (frame_medians_mm(shown, intrinsics, each) for each in (DepthCorrection(), fit.correction))
        raw_mm, after_mm = (
            np.concatenate([depth_errors_m(view, intrinsics, 0.05, each) for view in shown]) * 1e3
            for each in (DepthCorrection(), fit.correction)
        )
        reached &= abs(float(np.median(after_mm))) < 2
        notes[name] = {
            **told,
            "frames_shown": numbers[1 - mine :: 2],
            "order": fit.order.in_words,
            "median_before_mm": round(float(np.median(raw_mm)), 2),
            "median_after_mm": round(float(np.median(after_mm)), 2),
            "median_absolute_before_mm": round(float(np.median(np.abs(raw_mm))), 2),
            "median_absolute_after_mm": round(float(np.median(np.abs(after_mm))), 2),
            "frames_before_mm": np.round(raw, 1).tolist(),
            "frames_after_mm": np.round(corrected, 1).tolist(),
            "frames_scatter_mm": round(float(np.std(corrected, ddof=1)), 2),
            "view_px": round(fit.view_px, 3),
            "tile_px": round(fit.tile_px, 3),
        }
    report.add(
        f"real sequence, {what}: {len(numbers)} frames, fitted on one half, shown on the other",
        timing_of(seconds),
        Goal(words="median below 2 mm on frames not fitted, both ways", reached=reached),
        distances_m=[round(float(np.quantile(true_m, share)), 3) for share in (0.05, 0.95)],
        depth="aligned to colour: disparity is with the colour camera's focal length and a nominal baseline",
        **notes,
    )


def drawn_picture() -> DepthBias:
    """One drawn camera with a usual error, its held-out boards as read and corrected."""
    scene = DepthScene(views=48)
    views, _ = drawn_views(scene, np.random.default_rng([13, 1]))
    fit, shown = fit_correction(views[::2], scene.intrinsics, scene.baseline_m), views[1::2]
    raw_mm, after_mm = (
        np.concatenate([depth_errors_m(view, scene.intrinsics, scene.baseline_m, each) for view in shown]) * 1e3
        for each in (DepthCorrection(), fit.correction)
    )
    read_m = np.concatenate([scene.intrinsics.fx_px * scene.baseline_m / view.tiles.disparity_px for view in shown])
    return DepthBias("drawn D435, boards not fitted", read_m - raw_mm / 1e3, raw_mm, after_mm)


def main() -> None:
    """All parts, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--cells", type=int, default=10)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(__file__).parents[1] / ".." / "shared" / "data" / "realsense_apriltag_seq" / "sequence",
    )
    given = parser.parse_args()
    report = Report("depth_bias")
    report_real(report, given.data)
    report_simulated(report, given.cells)
    report_coverage(report, given.seeds)
    report.write()
    with written_beside(ROOT / "docs" / "pictures" / "depth_bias.png") as path:
        path.write_bytes(png_of(draw_depth_bias([drawn_picture()])))


if __name__ == "__main__":
    main()
