"""Ten frames of three 848x480 cameras to one cloud: ours, against open3d's VoxelBlockGrid on the same frames.

A ray-cast bracket under three simulated D405, noise made in the disparity domain. Both sides get the frames in memory
and the same rectangle around the part; both return points and normals. Noise is the scatter of the distance from the
true part, over the points that lie within 1 mm of it and not within 1.5 mm of an edge. Goal: three times as fast at
equal or less noise. The peer is also given the averaged depth, for which it is not charged: that is the best we could
make of it.

Three more parts: time over pixels of the static path, with the exponent of a power law fitted to it; the part on a
conveyor, along its encoder's track, ours and VoxelBlockGrid at the same poses; and the five real RGB-D frames of
Open3D's sample with their trajectory, for which a folder is named: benchmarks/fusion.py --rgbd FOLDER.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fusion_cost import add_cost
from fusion_judge import Judge
from fusion_moving import add_moving
from fusion_rgbd import add_rgbd
from harness import Goal, Peer, Report, measure
from rigcell import cell_of

from depthcell.acquisition.frameset import CameraFrame, DepthImage, FrameSet
from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.cameras import SystematicError
from depthcell.acquisition.simulator.scene import Scene
from depthcell.acquisition.simulator.station import Station, StationPlan, build_station
from depthcell.acquisition.simulator.stereo import StereoView, frame_counts, matched
from depthcell.calib.cell import Cell
from depthcell.fusion.fuse import FusionSettings, PartAccumulator
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.region import Region, Window, image_window
from depthcell.fusion.temporal import average_depth

FRAMES, MARGIN_M = 10, 0.004
MINIMUM_WEIGHT = {True: 1.0, False: FRAMES / 2}
"""A surface counts if at least half the frames of one camera saw it; averaged frames have been held to that already."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """What both sides start from: per camera ten images of counts, and how the cameras stand."""

    station: Station
    cell: Cell
    counts: dict[str, list[np.ndarray]]
    region: Region

    @property
    def framesets(self) -> list[FrameSet]:
        """As they would come from disk."""
        serials = tuple(self.cell.cameras)
        return [FrameSet({s: self._frame(s, number) for s in serials}, serials) for number in range(FRAMES)]

    def _frame(self, serial: str, number: int) -> CameraFrame:
        camera, units_m = self.cell.camera(serial), self.station.cameras[0].model.units_m
        depth = DepthImage.from_counts(self.counts[serial][number], camera.depth, units_m, baseline_m=camera.baseline_m)
        return CameraFrame(serial, camera.model, depth, None)


def record(seed: int) -> Recorded:
    """Simulate the part under its cameras."""
    station = build_station(StationPlan("bracket", "D405", 3, seed, frames=FRAMES))
    scene, noise = Scene(station.part.mesh, station.T_cell_part, threads=0), station.plan.noise
    counts = {}
    for camera in station.cameras:
        rng = np.random.default_rng([seed, int(camera.serial)])
        view = scene.view(camera.T_cell_depth, camera.model.depth_intrinsics)
        seen = scene.sees(view, camera.right_imager_cell)
        stereo = StereoView(view.depth_m, seen, view.cosine, np.zeros_like(seen))
        still = matched(stereo, camera.model, SystematicError(), noise, rng)
        counts[camera.serial] = [frame_counts(still, camera.model, noise, rng) for _ in range(FRAMES)]
    mesh = station.part.mesh
    region = Region(station.T_cell_part, mesh.min_m - MARGIN_M, mesh.max_m + MARGIN_M)
    return Recorded(station, cell_of(station.cameras, noise), counts, region)


def our_fusion(recorded: Recorded) -> Callable[[], PartCloud]:
    """Average, one geometric pass, merge."""
    framesets, settings = recorded.framesets, FusionSettings(region=recorded.region)

    def run() -> PartCloud:
        part = PartAccumulator(recorded.cell, settings)
        for frameset in framesets:
            part.add(frameset)
        return part.fuse().cloud

    return run


@dataclass(frozen=True)
class VoxelPlan:
    """How open3d is asked to fuse: edge of a voxel, truncation in voxels, and whether depth is averaged beforehand.

    The truncations are those that gave the least noise of 2, 4 and 8 (open3d's default).
    """

    voxel_m: float
    truncation: float
    is_averaged: bool

    @property
    def name(self) -> str:
        """For the table."""
        images = "our averaged depth" if self.is_averaged else "frame by frame"
        return f"open3d VoxelBlockGrid, {self.voxel_m * 1e3:g} mm, {images}"


PLANS = (
    VoxelPlan(1e-3, 2.0, False),
    VoxelPlan(5e-4, 2.0, False),
    VoxelPlan(1e-3, 4.0, True),
    VoxelPlan(5e-4, 4.0, True),
)


def depth_images(recorded: Recorded, serial: str, window: Window, is_averaged: bool) -> list[np.ndarray]:
    """What open3d integrates of one camera: counts in the window, frame by frame or averaged, 0 where unmeasured."""
    if not is_averaged:
        return [np.ascontiguousarray(counts[window.slices]) for counts in recorded.counts[serial]]
    images = (framesets.frames[serial].depth for framesets in recorded.framesets)
    mean = average_depth((image for image in images if image is not None), window)
    return [np.nan_to_num(mean.mean_m) / np.float32(mean.units_m)]


def voxel_fusion(recorded: Recorded, plan: VoxelPlan) -> Callable[[], np.ndarray]:
    """Integrate depth into a truncated signed distance field, and take its surface points out."""
    o3d = open3d()
    core, tg = o3d.core, o3d.t.geometry
    scale, views = 1 / recorded.station.cameras[0].model.units_m, []
    for serial, camera in recorded.cell.cameras.items():
        T_cam_cell = camera.T_cell_depth.inverse()
        window = image_window(recorded.region, camera.depth, T_cam_cell, 8)
        assert window is not None
        intrinsics, extrinsics = core.Tensor(window.intrinsics(camera.depth).matrix), core.Tensor(T_cam_cell.matrix)
        images = depth_images(recorded, serial, window, plan.is_averaged)
        views += [(tg.Image(core.Tensor(image)), intrinsics, extrinsics) for image in images]

    def run() -> np.ndarray:
        grid = tg.VoxelBlockGrid(
            attr_names=("tsdf", "weight"),
            attr_dtypes=(core.float32, core.float32),
            attr_channels=((1), (1)),
            voxel_size=plan.voxel_m,
            block_resolution=16,
            block_count=20_000,
        )
        for image, *pose in views:
            blocks = grid.compute_unique_block_coordinates(image, *pose, scale, 1.0, plan.truncation)
            grid.integrate(blocks, image, *pose, scale, 1.0, plan.truncation)
        cloud = grid.extract_point_cloud(weight_threshold=MINIMUM_WEIGHT[plan.is_averaged])
        return np.asarray(cloud.point.positions.numpy(), dtype=np.float64)

    return run


def main() -> None:
    """Time both sides and judge their noise."""
    recorded, report = record(seed=7), Report("fusion")
    judge, ours = Judge(recorded.station.part.mesh, recorded.station.T_cell_part), our_fusion(recorded)
    cloud = ours()
    our_noise_m, our_points = judge.noise_m(cloud.points_cell)
    for plan in PLANS:
        theirs = voxel_fusion(recorded, plan)
        noise_m, points = judge.noise_m(theirs())
        report.add(
            f"3 cameras x {FRAMES} frames of 848x480 to a cloud of the part",
            measure(ours, repetitions=15, warm_ups=2),  # beside each peer, so that both share what else runs
            Goal(ratio=3.0),
            Peer(plan.name, measure(theirs, repetitions=5)),
            our_noise_um=round(our_noise_m * 1e6, 1),
            peer_noise_um=round(noise_m * 1e6, 1),
            our_points=our_points,
            peer_points=points,
            our_stated_random_sigma_um=round(float(np.median(cloud.random_sigma_m)) * 1e6, 1),
            is_noise_equal_or_less=our_noise_m <= noise_m,
        )
    add_cost(report)
    add_moving(report)
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rgbd", type=Path)
    if (folder := arguments.parse_args().rgbd) is not None:
        add_rgbd(report, folder)
    report.write()


if __name__ == "__main__":
    main()
