"""Five real RGB-D frames with their trajectory (Open3D's sample): our field along it, and open3d's VoxelBlockGrid."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from harness import Goal, Peer, Report, measure
from scipy.spatial import KDTree

from depthcell.acquisition.frameset import CameraFrame, DepthImage, FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.fusion.track import Track, TrackUncertainty
from depthcell.fusion.track_box import BoxFinder
from depthcell.fusion.track_fuse import FusedMotion, MotionAccumulator, MotionSettings

LENS = Intrinsics(640, 480, 525.0, 525.0, 319.5, 239.5)
UNITS_M, VOXEL_M, TRUNCATION = 1e-3, 0.01, 4.0
STEP_NS = 33_333_000
NOISE = DisparityNoise(temporal_px=0.15, fixed_px=0.05, correlation_px=4.0)
"""Of a structured-light camera with a baseline of 75 mm, taken as stereo; nobody measured this one."""


def camera_poses(folder: Path) -> list[RigidTransform]:
    """`T_part_cell` of each frame: the log holds a line of numbers and four rows of a matrix for each."""
    lines = (folder / "RGBD" / "trajectory.log").read_text().split("\n")
    matrices = [np.array([line.split() for line in lines[at + 1 : at + 5]], dtype=np.float64) for at in range(0, 25, 5)]
    poses = []
    for matrix in matrices:
        u, _, vt = np.linalg.svd(matrix[:3, :3])  # printed digits leave it orthonormal to 1e-6 only
        poses.append(RigidTransform("part", "cell", u @ vt, matrix[:3, 3]))
    return poses


def depth_counts(folder: Path) -> list[np.ndarray]:
    """In mm."""
    paths = [folder / "RGBD" / "depth" / f"{n:05d}.png" for n in range(5)]
    return [np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)) for path in paths]


def our_fusion(counts: list[np.ndarray], poses: list[RigidTransform]) -> Callable[[], FusedMotion]:
    """The camera is the cell, the room the part."""
    camera = CellCamera(
        "0", "PrimeSense", LENS, None, RigidTransform.identity("cell", "depth:0"), np.zeros((6, 6)), None, 0.075, NOISE
    )
    cell = Cell("rgbd", {"0": camera}, "2026-01-01T00:00:00Z")
    sets = []
    for n, image in enumerate(counts):
        depth = DepthImage.from_counts(image, LENS, UNITS_M, baseline_m=0.075, timestamp_ns=n * STEP_NS, number=n)
        sets.append(FrameSet({"0": CameraFrame("0", "PrimeSense", depth, None)}, ("0",), n * STEP_NS))
    track = Track(
        "trajectory.log",
        np.arange(len(poses), dtype=np.int64) * STEP_NS,
        [pose.inverse() for pose in poses],
        TrackUncertainty(translation_m=2e-3, rotation_rad=1e-3),
        is_rig_moving=True,
    )
    finder = BoxFinder(cell, track)
    for frameset in sets:
        finder.add(frameset)
    settings = MotionSettings(voxel_m=VOXEL_M, truncation_m=TRUNCATION * VOXEL_M)

    def run() -> FusedMotion:
        accumulator = MotionAccumulator(cell, track, finder.box_m(), 0, settings)
        accumulator.add_all(sets)
        return accumulator.fuse()

    return run


def voxel_fusion(counts: list[np.ndarray], poses: list[RigidTransform]) -> Callable[[], np.ndarray]:
    """Points in the room."""
    core, tg = open3d().core, open3d().t.geometry
    lens = core.Tensor(LENS.matrix)
    views = [
        (tg.Image(core.Tensor(image)), lens, core.Tensor(pose.inverse().matrix))
        for image, pose in zip(counts, poses, strict=True)
    ]

    def run() -> np.ndarray:
        grid = tg.VoxelBlockGrid(("tsdf", "weight"), (core.float32, core.float32), ((1), (1)), VOXEL_M, 16, 20_000)
        for image, *pose in views:
            blocks = grid.compute_unique_block_coordinates(image, *pose, 1 / UNITS_M, 4.0, TRUNCATION)
            grid.integrate(blocks, image, *pose, 1 / UNITS_M, 4.0, TRUNCATION)
        cloud = grid.extract_point_cloud(weight_threshold=2.0)
        return np.asarray(cloud.point.positions.numpy(), dtype=np.float64)

    return run


def add_rgbd(report: Report, folder: Path) -> None:
    """Time of both, and how far our points lie from theirs along our normals, in units of what we state."""
    counts, poses = depth_counts(folder), camera_poses(folder)
    run, peer = our_fusion(counts, poses), voxel_fusion(counts, poses)
    fused, theirs = run(), peer()
    room = np.asarray(fused.T_cell_part.inverse() @ fused.cloud.points_cell)
    normals = np.asarray(fused.T_cell_part.inverse().rotate(fused.cloud.normals_cell.astype(np.float64)))
    tree = KDTree(theirs)
    distance_m, nearest = tree.query(room)
    shared = distance_m < 1.5 * VOXEL_M
    apart_m = np.einsum("ij,ij->i", theirs[nearest] - room, normals)[shared]
    report.add(
        "real RGB-D frames: 5 x 640x480 along a trajectory, 10 mm",
        measure(run, repetitions=5),
        Goal(ratio=1.0),
        Peer("open3d VoxelBlockGrid, 10 mm, same poses", measure(peer, repetitions=5)),
        our_points=len(room),
        peer_points=len(theirs),
        our_points_near_theirs=round(float(shared.mean()), 3),
        their_points_near_ours=round(float((KDTree(room).query(theirs)[0] < 1.5 * VOXEL_M).mean()), 3),
        median_apart_mm=round(float(np.median(apart_m)) * 1e3, 3),
        spread_apart_mm=round(float(1.4826 * np.median(np.abs(apart_m - np.median(apart_m)))) * 1e3, 3),
        our_stated_random_sigma_mm=round(float(np.median(fused.cloud.random_sigma_m)) * 1e3, 3),
        warnings=list(fused.warnings),
    )
