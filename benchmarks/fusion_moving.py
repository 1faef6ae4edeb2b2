"""The bracket on a conveyor, ten frames of three cameras: our field along its track, and open3d's at the same poses."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from fusion_judge import Deviation, Judge
from harness import Goal, Peer, Report, measure
from rigcell import cell_of

from depthcell.acquisition.frameset import CameraFrame, DepthImage, FrameSet
from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.cameras import SystematicError
from depthcell.acquisition.simulator.movingrun import VOLUME_MARGIN_M, Motion
from depthcell.acquisition.simulator.scene import Scene
from depthcell.acquisition.simulator.station import Station, StationPlan, build_station
from depthcell.acquisition.simulator.stereo import StereoView, frame_counts, matched
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.region import Region, image_window
from depthcell.fusion.track import Track, TrackUncertainty
from depthcell.fusion.track_fuse import MotionAccumulator, MotionSettings

FRAMES, SEED, SPEED_MM_S = 10, 7, 60.0
STEP_NS = 33_333_000
REFERENCE = FRAMES // 2


@dataclass(frozen=True, eq=False)
class Passed:
    """What both sides start from: counts of each camera at each instant, and where the part was."""

    station: Station
    cell: Cell
    poses: list[RigidTransform]
    counts: dict[str, list[np.ndarray]]

    @property
    def box_m(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the part, frame "part"."""
        mesh = self.station.part.mesh
        return mesh.min_m - VOLUME_MARGIN_M, mesh.max_m + VOLUME_MARGIN_M

    @property
    def framesets(self) -> list[FrameSet]:
        """As they would come from disk."""
        units_m, serials = self.station.cameras[0].model.units_m, tuple(self.cell.cameras)
        sets = []
        for number in range(FRAMES):
            frames = {}
            for serial, camera in self.cell.cameras.items():
                depth = DepthImage.from_counts(
                    self.counts[serial][number],
                    camera.depth,
                    units_m,
                    baseline_m=camera.baseline_m,
                    timestamp_ns=number * STEP_NS,
                    number=number,
                )
                frames[serial] = CameraFrame(serial, camera.model, depth, None)
            sets.append(FrameSet(frames, serials, number * STEP_NS))
        return sets


def passed() -> Passed:
    """Simulate it: at each instant all errors of the sensor but the cameras' own are drawn anew."""
    station = build_station(StationPlan("bracket", "D405", 3, SEED, frames=FRAMES))
    motion, noise = Motion("conveyor", SPEED_MM_S), station.plan.noise
    poses = [motion.moved(motion.way((n - REFERENCE) * STEP_NS / 1e9)) @ station.T_cell_part for n in range(FRAMES)]
    scenes = [Scene(station.part.mesh, pose, threads=0) for pose in poses]
    counts = {}
    for camera in station.cameras:
        rng, model = np.random.default_rng([SEED, int(camera.serial)]), camera.model
        counts[camera.serial] = []
        for scene in scenes:
            view = scene.view(camera.T_cell_depth, model.depth_intrinsics)
            seen = scene.sees(view, camera.right_imager_cell)
            stereo = StereoView(view.depth_m, seen, view.cosine, np.zeros_like(seen))
            still = matched(stereo, model, SystematicError(), noise, rng)
            counts[camera.serial].append(frame_counts(still, model, noise, rng))
    return Passed(station, cell_of(station.cameras, noise, np.zeros((6, 6))), poses, counts)


def our_fusion(given: Passed, settings: MotionSettings) -> Callable[[], PartCloud]:
    """Along the true poses, stated to 1 um and 1 urad."""
    times_ns = np.arange(FRAMES, dtype=np.int64) * STEP_NS
    track = Track("conveyor", times_ns, given.poses, TrackUncertainty(translation_m=1e-6, rotation_rad=1e-6))
    framesets, box_m = given.framesets, given.box_m

    def run() -> PartCloud:
        accumulator = MotionAccumulator(given.cell, track, box_m, REFERENCE * STEP_NS, settings)
        accumulator.add_all(framesets)
        return accumulator.fuse().cloud

    return run


def voxel_fusion(given: Passed, voxel_m: float, truncation: float) -> Callable[[], np.ndarray]:
    """The same poses and rectangles around the part; points in the cell at the reference pose."""
    core, tg = open3d().core, open3d().t.geometry
    scale, views = 1 / given.station.cameras[0].model.units_m, []
    for serial, camera in given.cell.cameras.items():
        for pose, counts in zip(given.poses, given.counts[serial], strict=True):
            window = image_window(Region(pose, *given.box_m), camera.depth, camera.T_cell_depth.inverse(), 10)
            assert window is not None
            image = tg.Image(core.Tensor(np.ascontiguousarray(counts[window.slices])))
            T_cam_part = camera.T_cell_depth.inverse() @ pose
            views.append((image, core.Tensor(window.intrinsics(camera.depth).matrix), core.Tensor(T_cam_part.matrix)))

    def run() -> np.ndarray:
        grid = tg.VoxelBlockGrid(("tsdf", "weight"), (core.float32, core.float32), ((1), (1)), voxel_m, 16, 20_000)
        for image, *pose in views:
            blocks = grid.compute_unique_block_coordinates(image, *pose, scale, 1.0, truncation)
            grid.integrate(blocks, image, *pose, scale, 1.0, truncation)
        points = grid.extract_point_cloud(weight_threshold=2.0).point
        return np.asarray(given.poses[REFERENCE] @ points.positions.numpy().astype(np.float64))

    return run


def add_moving(report: Report) -> None:
    """Time, noise and accuracy of both, at 1 mm and at 0.5 mm."""
    given = passed()
    judge = Judge(given.station.part.mesh, given.poses[REFERENCE])
    low, high = given.box_m
    for voxel_m in (1e-3, 5e-4):
        run, peer = our_fusion(given, MotionSettings(voxel_m=voxel_m)), voxel_fusion(given, voxel_m, 2.0)
        cloud = run()
        inside = given.poses[REFERENCE].inverse() @ (points := peer())
        found, theirs = (
            judge.deviation(cloud.points_cell),
            judge.deviation(points[((inside > low) & (inside < high)).all(axis=1)]),
        )
        distance_m, clear = judge.distances(cloud.points_cell)
        report.add(
            f"a part that moves: 3 cameras x {FRAMES} frames at {voxel_m * 1e3:g} mm, with variance and masks",
            measure(run, repetitions=5),
            Goal(ratio=1.0),
            Peer(f"open3d VoxelBlockGrid, {voxel_m * 1e3:g} mm, same poses", measure(peer, repetitions=3)),
            **_notes("our", found),
            **_notes("peer", theirs),
            our_stated_random_sigma_um=round(float(np.median(cloud.random_sigma_m)) * 1e6, 1),
            our_rms_in_stated_sigmas=round(float(np.sqrt(np.mean((distance_m / cloud.sigma_m)[clear] ** 2))), 3),
        )


def _notes(side: str, found: Deviation) -> dict[str, object]:
    return {
        f"{side}_noise_um": round(found.noise_m * 1e6, 1),
        f"{side}_median_um": round(found.median_m * 1e6, 1),
        f"{side}_rms_um": round(found.rms_m * 1e6, 1),
        f"{side}_points": found.points,
        f"{side}_share_beyond_1_mm": round(found.far_share, 4),
    }
