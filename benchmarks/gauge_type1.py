"""Type-1 study on the simulated step gauge: is the repeatability that a study reports the one that the gauge has?

A step gauge of 5, 10, 15 and 20 mm over its base (the steps of `calib.target`'s gauge) is laid down anew each time and
measured with the step-height gauge by three D405 of the full simulator: matching window, subpixel staircase, fixed
pattern, rounding. 25 measurements make the study (`calib.study.study_type1`); the truth about its repeatability comes
from as many others as `--truth` says, and stands beside what the gauge's own budget states as noise.

Run `.venv/bin/python benchmarks/gauge_type1.py [--repeats 25] [--truth 75]`; data:
`benchmarks/results/gauge_type1.json`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: small matrices only lose by more threads

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import Goal, Report, timing_of
from scipy.special import chdtri

from depthcell.acquisition.frameset import CameraFrame, DepthImage, FrameSet
from depthcell.acquisition.simulator.partmesh import save_stl
from depthcell.acquisition.simulator.rig import StationCamera
from depthcell.acquisition.simulator.scene import Scene
from depthcell.acquisition.simulator.station import Station, StationPlan, build_station
from depthcell.acquisition.simulator.stereo import StereoView, frame_counts, matched
from depthcell.acquisition.simulator.targetbodies import STEP_BASE_MM, STEP_DEPTH_MM, STEP_HEIGHTS_MM, STEP_WIDTH_MM
from depthcell.acquisition.simulator.terraces import Terrace, flat, rectangle, terraced_solid
from depthcell.calib.study.study_type1 import ReferenceStudy, Type1Settings, study_type1
from depthcell.fusion.align import align
from depthcell.fusion.budget import CALIBRATION, NOISE, uncertainty_budget
from depthcell.fusion.fuse import FusionSettings, PartAccumulator
from depthcell.fusion.reference import Reference
from depthcell.fusion.region import Region
from depthcell.fusion.scan import Scan
from depthcell.inspect.featuresections import PlaneFeature
from depthcell.inspect.gauges.extraction import Features
from depthcell.inspect.gauges.size import measure_step_height
from depthcell.inspect.gaugesections import StepHeightGauge
from depthcell.inspect.simulated_cell import calibrated_cell

SEED, FRAMES, TOLERANCE_MM = 23, 8, 1.0
CLEAR_MM = 5.0
"""How far a feature stays from the edges of its step."""
NAMES = [f"{height:g} mm" for height in STEP_HEIGHTS_MM]


class Bench:
    """The gauge under its cameras."""

    def __init__(self, folder: Path) -> None:
        step_mm = STEP_WIDTH_MM / len(STEP_HEIGHTS_MM)
        base = Terrace(rectangle((0.0, 0.0), (STEP_WIDTH_MM + 4, STEP_DEPTH_MM + 4)), flat(STEP_BASE_MM))
        self.middles_mm = [(number + 0.5) * step_mm - STEP_WIDTH_MM / 2 for number in range(len(STEP_HEIGHTS_MM))]
        steps = [
            Terrace(rectangle((x_mm, 0.0), (step_mm - 0.2, STEP_DEPTH_MM)), flat(STEP_BASE_MM + height_mm))
            for x_mm, height_mm in list(zip(self.middles_mm, STEP_HEIGHTS_MM, strict=True))[1:]
        ]
        mesh = terraced_solid([base, *steps], spacing_mm=3.0)
        save_stl(folder / "step.stl", mesh)
        plan = StationPlan(str(folder / "step.stl"), "D405", 3, SEED, frames=FRAMES)
        self.station: Station = build_station(plan)
        self.cell = calibrated_cell(self.station)
        self.reference = Reference(mesh.vertices_m, mesh.triangles)
        self.pose = self.station.T_cell_part
        self.region = Region(self.pose, mesh.min_m + np.array([-2e-3, -2e-3, 5e-3]), mesh.max_m + 2e-3)
        half = (step_mm / 2 - CLEAR_MM, STEP_DEPTH_MM / 2 - CLEAR_MM)
        self.features = [
            PlaneFeature(
                kind="plane",
                name=name,
                min_mm=(x_mm - half[0], -half[1], STEP_BASE_MM + height_mm - 2),
                max_mm=(x_mm + half[0], half[1], STEP_BASE_MM + height_mm + 2),
                normal=(0, 0, 1),
            )
            for name, x_mm, height_mm in zip(NAMES, self.middles_mm, STEP_HEIGHTS_MM, strict=True)
        ]

    def heights(self, number: int) -> tuple[list[float], list[float], list[float]]:
        """The steps' heights after one laying down, and what noise and calibration state of each, mm."""
        rng = np.random.default_rng([SEED, number])
        laid = self.pose.perturbed(np.concatenate((rng.normal(0, 2e-3, 3), rng.normal(0, 2e-4, 3))))
        scene = Scene(self.station.part.mesh, laid)
        frames = PartAccumulator(self.cell, FusionSettings(region=self.region, with_color=False))
        shots = {camera.serial: self._shots(scene, camera, rng) for camera in self.station.cameras}
        for instant in range(FRAMES):
            frames.add(FrameSet({serial: taken[instant] for serial, taken in shots.items()}, tuple(shots)))
        cloud = frames.fuse().cloud
        scan = Scan.of(cloud, align(cloud, self.reference, self.pose, self.cell), self.cell, self.reference)
        features, values, noises, calibrations = Features(scan, self.features), [], [], []
        for name in NAMES[1:]:
            section = StepHeightGauge(kind="step_height", name=name, over=NAMES[0], feature=name)
            reading = measure_step_height(section, scan, features)
            rows = {row.source: row.u for row in uncertainty_budget(reading.influence, scan).rows}
            values.append(reading.value * 1e3)
            noises.append(rows[NOISE] * 1e3)
            calibrations.append(rows[CALIBRATION] * 1e3)
        return values, noises, calibrations

    def _shots(self, scene: Scene, camera: StationCamera, rng: np.random.Generator) -> list[CameraFrame]:
        model, noise = camera.model, self.station.plan.noise
        view = scene.view(camera.T_cell_depth, model.depth_intrinsics)
        blinded = np.zeros(view.depth_m.shape, np.bool_)
        seen = scene.sees(view, camera.right_imager_cell)
        still = matched(StereoView(view.depth_m, seen, view.cosine, blinded), model, camera.error, noise, rng)
        taken = []
        for number in range(FRAMES):
            counts = frame_counts(still, model, noise, rng)
            depth_m = np.where(counts > 0, counts * np.float32(model.units_m), np.float32(np.nan)).astype(np.float32)
            depth = DepthImage(depth_m, model.depth_intrinsics, model.units_m, model.baseline_m, number, number)
            taken.append(CameraFrame(camera.serial, model.name, depth, None, None))
        return taken


def study(values: np.ndarray, folder: Path) -> tuple[ReferenceStudy, ...]:
    """The house's own study of values (R, S) of S steps, by way of the file that a user would write."""
    lines = [f"{h:g},{v:.6f}" for row in values for h, v in zip(STEP_HEIGHTS_MM[1:], row, strict=True)]
    (folder / "study.csv").write_text("\n".join(["reference,value", *lines]) + "\n", encoding="utf-8")
    return study_type1(folder / "study.csv", Type1Settings(tolerance=TOLERANCE_MM, resolution=1e-3)).references


def scatter_interval(s: float, n: int) -> tuple[float, float]:
    """95 % interval of a standard deviation, by chi-square."""
    return s * float(np.sqrt((n - 1) / chdtri(n - 1, 0.025))), s * float(np.sqrt((n - 1) / chdtri(n - 1, 0.975)))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--truth", type=int, default=75)
    chosen = parser.parse_args()
    report, seconds, values, noises, calibrations = Report("gauge_type1"), [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        for number in range(chosen.repeats + chosen.truth):
            start = time.perf_counter()
            heights, noise, calibration = bench.heights(number)
            values.append(heights)
            noises.append(noise)
            calibrations.append(calibration)
            seconds.append(time.perf_counter() - start)
        studied = study(np.array(values[: chosen.repeats]), Path(name))
    others, stated = np.array(values[chosen.repeats :]), np.array(noises)
    for step, found in enumerate(studied):
        low, high = scatter_interval(found.repeatability, found.n)
        true = float(others[:, step].std(ddof=1))
        true_low, true_high = scatter_interval(true, len(others))
        report.add(
            f"step of {found.reference:g} mm, {found.n} measurements, three D405, {FRAMES} frames each",
            timing_of(seconds),
            Goal(
                words="the true repeatability lies within the 95 % interval of the reported one",
                reached=bool(low <= true_high and true_low <= high),
            ),
            repeatability_mm=round(found.repeatability, 5),
            repeatability_interval_mm=(round(low, 5), round(high, 5)),
            true_repeatability_mm=round(true, 5),
            true_repeatability_interval_mm=(round(true_low, 5), round(true_high, 5)),
            true_from=len(others),
            noise_stated_by_the_budget_mm=round(float(np.sqrt(np.mean(np.square(stated[:, step])))), 5),
            bias_mm=round(found.bias, 5),
            bias_interval_mm=tuple(round(end, 5) for end in found.bias_interval),
            calibration_stated_by_the_budget_mm=round(float(np.mean(np.array(calibrations)[:, step])), 5),
            cg=None if found.cg is None else round(found.cg, 2),
            cgk=None if found.cgk is None else round(found.cgk, 2),
            tolerance_mm=TOLERANCE_MM,
        )
    report.write()


if __name__ == "__main__":
    main()
