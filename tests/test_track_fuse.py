"""A plate that moves under cameras, fused along its track: its surface against the truth, and what is refused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from stagedpart import NOISE, plate_cell, plate_mesh

from depthcell.acquisition.frameset import CameraFrame, DepthImage, FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.simulator.scene import Scene
from depthcell.acquisition.simulator.stereo import correlated_noise
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import Cell, CellCamera
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.track import Track, TrackUncertainty
from depthcell.fusion.track_box import BoxFinder
from depthcell.fusion.track_fuse import FusedMotion, MotionAccumulator, MotionSettings
from depthcell.fusion.track_time import instant_ns
from depthcell.fusion.tsdf import SCATTER

STEP_NS = 33_000_000
SETS = 8
BOX_M = (np.array([-0.028, -0.021, 0.001]), np.array([0.028, 0.021, 0.011]))
STATED = TrackUncertainty(translation_m=2e-5, rotation_rad=1e-4)


def pose_at(number: float) -> RigidTransform:
    """Along x by 2 mm and about z by 3 degrees from one set to the next."""
    turn = RigidTransform.from_rotation_vector("cell", "part", np.array([0, 0, 0.052 * (number - 3.5)]), np.zeros(3))
    shift_m = np.array([2e-3 * (number - 3.5), 0.0, 0.010])
    return RigidTransform("cell", "part", turn.rotation, shift_m)


def track_of(poses: Sequence[RigidTransform], uncertainty: TrackUncertainty = STATED) -> Track:
    times_ns = np.arange(len(poses), dtype=np.int64) * STEP_NS
    return Track("plate.csv", times_ns, poses, uncertainty)


@cache
def mesh() -> PartMesh:
    return plate_mesh()


def depth_of(camera: CellCamera, T_cell_part: RigidTransform, rng: np.random.Generator) -> NDArray[np.float32]:
    view = Scene(mesh(), T_cell_part).view(camera.T_cell_depth, camera.depth)
    shape = view.depth_m.shape
    noise_px = np.hypot(NOISE.fixed_px, NOISE.temporal_px) * correlated_noise(shape, 3.0, rng)
    depth_m = camera.focal_baseline_m / (camera.disparity_px(view.depth_m) + noise_px)
    return np.asarray(depth_m, dtype=np.float32)


def frame_of(camera: CellCamera, depth_m: NDArray[np.float32], number: int) -> CameraFrame:
    depth = DepthImage(depth_m, camera.depth, 1e-5, camera.baseline_m, number * STEP_NS, number)
    return CameraFrame(camera.serial, camera.model, depth, None)


def sets_of(cell: Cell, poses: Sequence[RigidTransform], seed: int = 3) -> list[FrameSet]:
    rng = np.random.default_rng(seed)
    sets = []
    for number, pose in enumerate(poses):
        frames = {s: frame_of(camera, depth_of(camera, pose, rng), number) for s, camera in cell.cameras.items()}
        sets.append(FrameSet(frames, tuple(cell.cameras), number * STEP_NS))
    return sets


@dataclass(frozen=True)
class Run:
    cell: Cell
    track: Track
    sets: list[FrameSet]

    def fused(self, track: Track | None = None, settings: MotionSettings | None = None) -> FusedMotion:
        accumulator = MotionAccumulator(self.cell, track or self.track, BOX_M, 3 * STEP_NS, settings)
        accumulator.add_all(self.sets)
        return accumulator.fuse()


@pytest.fixture(scope="module")
def run() -> Run:
    poses = [pose_at(number) for number in range(SETS)]
    whole = plate_cell()
    cell = Cell("two", {s: whole.cameras[s] for s in ("1001", "1002")}, whole.calibrated_at)
    return Run(cell, track_of(poses), sets_of(cell, poses))


def from_truth(points_part: FloatArray) -> NDArray[np.float64]:
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(mesh().vertices_m.astype(np.float32), mesh().triangles.astype(np.uint32))
    query = o3d.core.Tensor(points_part.astype(np.float32))
    return np.asarray(scene.compute_signed_distance(query, nsamples=3).numpy(), dtype=np.float64)


def on_top(fused: FusedMotion) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Deviation from the truth at the asked pose, and which points lie on the top face away from rim and bore."""
    points_part = pose_at(3).inverse() @ fused.cloud.points_cell
    x, y, z = points_part.T
    clear = (np.abs(x) < 0.022) & (np.abs(y) < 0.015) & (np.hypot(x - 0.012, y) > 0.009) & (z > 0.006)
    return from_truth(points_part), clear


def test_the_surface_lies_where_it_says_it_does(run: Run) -> None:
    fused = run.fused()
    deviation_m, clear = on_top(fused)
    assert clear.sum() > 700
    assert np.abs(deviation_m).max() < 1.5e-3
    in_sigmas = deviation_m[clear] / fused.cloud.random_sigma_m[clear]
    assert 0.7 < np.sqrt(np.mean(np.square(in_sigmas))) < 1.35
    assert np.median(fused.cloud.random_sigma_m[clear]) < 6e-5
    assert fused.frames == 2 * SETS
    assert fused.missing == ()
    assert (fused.warnings, fused.least_frames) == ((), 2)
    assert fused.bytes_used < fused.bytes_stated
    share = fused.cloud.share
    np.testing.assert_allclose(share.sum(axis=1), 1.0, atol=1e-5)
    assert 0.2 < np.median(share[:, 0]) < 0.8


def test_points_say_which_camera_and_pixel_they_are(run: Run) -> None:
    cloud = run.fused().cloud
    inside = cloud.pixel[:, 0] >= 0
    assert inside.mean() > 0.9
    for number, camera in enumerate(run.cell.cameras.values()):
        own = inside & (cloud.camera == number)
        places = camera.depth.project(camera.T_cell_depth.inverse() @ cloud.points_cell[own])
        np.testing.assert_allclose(cloud.pixel[own][:, ::-1], places, atol=0.51)


def test_a_track_that_is_a_frame_late_is_seen_in_the_surface(run: Run) -> None:
    """The control of the test above: with the poses of another time the surface is wrong by more than it states."""
    late = run.track.shifted(-STEP_NS // 2)
    accumulator = MotionAccumulator(run.cell, late, BOX_M, 4 * STEP_NS)
    accumulator.add_all(run.sets[1:])
    assert len(accumulator.fuse().cloud) > 500
    right = np.median(np.abs(on_top(run.fused())[0]))
    points_part = late.pose(4 * STEP_NS).inverse() @ accumulator.fuse().cloud.points_cell
    walls = np.abs(points_part[:, 0]) > 0.0235
    assert np.median(np.abs(from_truth(points_part[walls]))) > 4 * right


def test_shaken_poses_are_refined_on_the_surface() -> None:
    rng, stated = np.random.default_rng(6), TrackUncertainty(translation_m=4e-4, rotation_rad=3e-3)
    poses = [pose_at(number) for number in range(SETS)]
    run = Run(plate_cell(), track_of(poses), sets_of(plate_cell(), poses))
    shaken = []
    for pose in poses:
        turn, shift_m = rng.normal(0, 3e-3, 3), rng.normal(0, 4e-4, 3)
        origin_m = pose.translation_m
        shaken.append(pose.perturbed(np.concatenate((turn, shift_m + np.cross(origin_m, turn)))))
    track = track_of(shaken, stated)
    scatters = []
    for is_refined in (False, True):
        fused = run.fused(track, MotionSettings(is_refined=is_refined))
        assert not any("farther" in words for words in fused.warnings)
        pool = fused.field.pool
        often = np.flatnonzero(pool.seen >= 12)
        scatters.append(float(np.median(pool.values[SCATTER, often] * weight_of(fused, often))))
    assert scatters[1] < 0.3 * scatters[0]


def weight_of(fused: FusedMotion, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """What makes `sum w (d - D)²` the variance of the distances in mm²."""
    weight = fused.field.weight(fused.field.pool.values.take(rows, axis=1)).astype(np.float64)
    return np.asarray(1e6 / weight, dtype=np.float64)


def test_refining_needs_an_uncertainty(run: Run) -> None:
    exact = replace(run.track, uncertainty=TrackUncertainty())
    with pytest.raises(DepthcellError, match="states no uncertainty of its poses"):
        run.fused(exact, MotionSettings(is_refined=True))
    assert "poses are taken as exact" in run.fused(exact).warnings[0]


def test_poses_that_lie_off_their_stated_track_are_told(run: Run) -> None:
    shifted = [
        pose.perturbed(np.array([0, 0, 0, 0, 0, 6e-4 * (number % 2)])) for number, pose in enumerate(run.track.poses)
    ]
    told = run.fused(track_of(shifted), MotionSettings(is_refined=True)).warnings
    assert any("refined poses lie farther off it than it states" in words for words in told)
    assert not run.fused(settings=MotionSettings(is_refined=True)).warnings


def test_more_frames_and_uncertain_poses_act_as_they_should(run: Run) -> None:
    few = MotionAccumulator(run.cell, run.track, BOX_M, 3 * STEP_NS)
    few.add_all(run.sets[:2])
    sigma_m = [float(np.median(fused.cloud.random_sigma_m)) for fused in (few.fuse(), run.fused())]
    assert 1.5 < sigma_m[0] / sigma_m[1] < 2.2
    loose = replace(run.track, uncertainty=TrackUncertainty(translation_m=2e-4, time_ns=2e6))
    base, wide = (float(np.median(fused.cloud.systematic_sigma_m)) for fused in (run.fused(), run.fused(loose)))
    # eight independent poses of 0.2 mm, on a face across their motion
    assert np.sqrt(wide**2 - base**2) == pytest.approx(2e-4 / np.sqrt(SETS), rel=0.25)


def test_bad_frames_are_told_or_refused(run: Run) -> None:
    camera = run.cell.cameras["1001"]
    nothing = frame_of(camera, np.full((180, 240), np.nan, np.float32), 1)
    accumulator = MotionAccumulator(run.cell, run.track, BOX_M, 3 * STEP_NS)
    empty = FrameSet({"1001": nothing}, tuple(run.cell.cameras), STEP_NS)
    accumulator.add_all([empty])
    with pytest.raises(
        DepthcellError, match=r"1 depth frames, none with any depth of the part within its volume"
    ) as no:
        accumulator.fuse()
    assert no.value.reason is Reason.NOT_MEASURED
    accumulator.add_all(run.sets[2:4])
    told = accumulator.fuse().warnings
    assert "1 of 5 depth frames show nothing of the part within its volume" in told
    small = replace(nothing, depth=DepthImage(np.ones((4, 4), np.float32), replace_size(camera), 1e-5, 0.018, 0, 0))
    with pytest.raises(DepthcellError, match="depth images are 4 x 4, the cell states 240 x 180"):
        accumulator.add_all([FrameSet({"1001": small}, tuple(run.cell.cameras), STEP_NS)])
    with pytest.raises(DepthcellError, match=r"share no frame.*time_offset_ms"):
        accumulator.add_all([replace(run.sets[0], timestamp_ns=10**12)])


def replace_size(camera: CellCamera) -> Intrinsics:
    return replace(camera.depth, width_px=4, height_px=4)


def test_a_missing_camera_and_a_cut_volume_are_told(run: Run) -> None:
    one = [replace(frames, frames={"1001": frames.frames["1001"]}) for frames in run.sets]
    narrow = (BOX_M[0], np.array([0.010, 0.021, 0.011]))
    accumulator = MotionAccumulator(run.cell, run.track, narrow, 3 * STEP_NS)
    accumulator.add_all(one)
    fused = accumulator.fuse()
    assert fused.missing == ("1002",)
    assert fused.warnings[0] == "camera 1002: gave no depth"
    assert fused.warnings[1].startswith("the surface runs out of the volume at +x; enlarge it")


def test_memory_is_refused_before_the_first_frame(run: Run) -> None:
    with pytest.raises(DepthcellError, match=r"volume of 56 x 42 x 10 mm at voxels of 0.1 mm: .* allowed are 16 MiB"):
        MotionAccumulator(run.cell, run.track, BOX_M, 0, MotionSettings(voxel_m=1e-4, limit_bytes=16 << 20))


def test_a_box_is_found_where_none_is_named(run: Run) -> None:
    finder = BoxFinder(run.cell, run.track)
    for frames in run.sets:
        finder.add(frames)
    low, high = finder.box_m()
    assert (low < BOX_M[0] + 0.003).all()
    assert (high > BOX_M[1] - 0.003).all()
    with pytest.raises(DepthcellError, match="no frame holds any depth"):
        BoxFinder(run.cell, run.track).box_m()


def test_a_frame_on_another_clock_takes_the_time_of_its_set(run: Run) -> None:
    frame = run.sets[2].frames["1001"]
    shared = FrameSet({"1001": frame}, ("1001",), frame.timestamp_ns - 5, 10)
    foreign = FrameSet({"1001": frame}, ("1001",), 7_000_000_000, 10)
    assert instant_ns(shared, frame) == frame.timestamp_ns
    assert instant_ns(foreign, frame) == 7_000_000_005


def test_the_order_of_cameras_and_threads_do_not_matter(run: Run) -> None:
    def backwards() -> Iterator[FrameSet]:
        for frames in run.sets:
            yield replace(frames, frames={s: frames.frames[s] for s in reversed(tuple(frames.frames))})

    accumulator = MotionAccumulator(run.cell, run.track, BOX_M, 3 * STEP_NS)
    accumulator.add_all(backwards())
    one, other, again = accumulator.fuse().cloud, run.fused().cloud, run.fused().cloud
    np.testing.assert_array_equal(other.points_cell, again.points_cell)
    assert len(one) == pytest.approx(len(other), abs=3)
    assert np.median(one.random_sigma_m) == pytest.approx(np.median(other.random_sigma_m), rel=1e-3)
