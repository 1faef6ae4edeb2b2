"""Fusion end to end on a ray-cast bracket under three stereo cameras: stated uncertainty against truth; refusals."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial import KDTree

from depthcell.acquisition.frameset import CameraFrame, ColorImage, DepthImage, FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.simulator.parts import load_part
from depthcell.acquisition.simulator.rig import looking_at
from depthcell.acquisition.simulator.scene import Scene
from depthcell.acquisition.simulator.stereo import correlated_noise
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise, camera_covariance
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.errors import DepthcellError
from depthcell.fusion.fuse import FusedPart, FusionSettings, PartAccumulator, fuse
from depthcell.fusion.region import Region

INTRINSICS = Intrinsics(320, 240, 360.0, 360.0, 159.5, 119.5)
BASELINE_M = 0.05
UNITS_M = 1e-5
NOISE = DisparityNoise(temporal_px=0.02, fixed_px=0.01, correlation_px=2.0)
T_CELL_PART = RigidTransform.from_rotation_vector("cell", "part", np.array([0.0, 0.0, 0.1]), np.array([0.0, 0.0, 0.01]))
EYES_M = ((0.14, 0.05, 0.22), (-0.12, 0.12, 0.22), (-0.03, -0.15, 0.23))


@dataclass(frozen=True, eq=False)
class Station:
    cell: Cell
    mesh: PartMesh
    true_m: dict[str, np.ndarray]
    on_part: dict[str, np.ndarray]

    @property
    def region(self) -> Region:
        return Region(T_CELL_PART, self.mesh.min_m - 0.003, self.mesh.max_m + 0.003)

    def distance_m(self, points_cell: np.ndarray) -> np.ndarray:
        """Exact signed distance from the true part."""
        from depthcell.acquisition.sdk import open3d

        o3d = open3d()
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(self.mesh.vertices_m.astype(np.float32), self.mesh.triangles.astype(np.uint32))
        points = (T_CELL_PART.inverse() @ points_cell).astype(np.float32)
        return np.asarray(scene.compute_signed_distance(o3d.core.Tensor(points), nsamples=3).numpy())


def cell_camera(serial: str, T_cell_depth: RigidTransform) -> CellCamera:
    pose_sd = np.array([2e-4, 2e-4, 2e-4, 3e-5, 3e-5, 3e-5])
    return CellCamera(
        serial=serial,
        model="test",
        depth=INTRINSICS,
        color=INTRINSICS,
        T_cell_depth=T_cell_depth,
        covariance=camera_covariance(
            np.diag(pose_sd**2), INTRINSICS, DepthCorrection(), {"scale": 3e-4, "disparity_offset_px": 0.01}
        ),
        T_color_depth=RigidTransform.identity(f"color:{serial}", f"depth:{serial}"),
        baseline_m=BASELINE_M,
        noise=NOISE,
    )


@pytest.fixture(scope="module")
def station() -> Station:
    mesh = load_part("bracket").mesh
    scene = Scene(mesh, T_CELL_PART)
    cameras, true_m, on_part = {}, {}, {}
    for index, eye in enumerate(EYES_M):
        serial = f"C{index}"
        pose = looking_at(serial, np.array([0.0, 0.0, 0.02]), np.array(eye))
        cameras[serial] = cell_camera(serial, pose)
        view = scene.view(pose, INTRINSICS)
        true_m[serial], on_part[serial] = view.depth_m, view.on_part
    return Station(Cell("test", cameras, "2026-01-01T00:00:00Z"), mesh, true_m, on_part)


def frame(camera: CellCamera, depth_m: np.ndarray, rgb: np.ndarray | None = None) -> CameraFrame:
    depth_m = (np.round(depth_m / UNITS_M) * UNITS_M).astype(np.float32)
    depth = DepthImage(depth_m, camera.depth, UNITS_M, BASELINE_M, 0, 0)
    color = None if rgb is None else ColorImage(rgb, camera.depth, 0, 0)
    return CameraFrame(camera.serial, camera.model, depth, color, camera.T_color_depth)


def noisy(station: Station, frames: int, seed: int) -> Iterator[FrameSet]:
    """Frames with correlated disparity noise, one pattern that stays and one that does not."""
    rng = np.random.default_rng(seed)

    def pattern(size_px: float) -> np.ndarray:
        shape = (INTRINSICS.height_px, INTRINSICS.width_px)
        return size_px * correlated_noise(shape, NOISE.correlation_px, rng)

    focal_baseline = INTRINSICS.fx_px * BASELINE_M
    still = {serial: focal_baseline / true + pattern(NOISE.fixed_px) for serial, true in station.true_m.items()}
    for _ in range(frames):
        taken = {
            serial: frame(station.cell.camera(serial), focal_baseline / (disparity + pattern(NOISE.temporal_px)))
            for serial, disparity in still.items()
        }
        yield FrameSet(taken, tuple(station.cell.cameras))


def clean(station: Station) -> FrameSet:
    frames = {serial: frame(station.cell.camera(serial), true) for serial, true in station.true_m.items()}
    return FrameSet(frames, tuple(frames))


def coverage(scaled: np.ndarray) -> float:
    """Share of errors within their 95 % interval."""
    return float(np.mean(np.abs(scaled) < 1.96))


def test_a_views_random_uncertainty_covers_its_error(station: Station) -> None:
    fused = fuse(noisy(station, 6, seed=1), station.cell)
    for view in fused.views:
        flat = view.valid & station.on_part[view.serial] & (view.normals_cell[..., 2] > 0.98)
        true_m = INTRINSICS.deproject(station.true_m[view.serial])[flat]
        T_cell_depth = station.cell.camera(view.serial).T_cell_depth
        error_m = np.einsum("ij,ij->i", view.points_cell[flat] - T_cell_depth @ true_m, view.normals_cell[flat])
        scaled = error_m / view.random_sigma_m[flat]
        assert flat.sum() > 2000
        assert np.sqrt(np.mean(scaled**2)) == pytest.approx(1.0, abs=0.06)
        assert 0.93 < coverage(scaled) < 0.97


def test_the_merged_cloud_is_better_than_a_view_and_says_so(station: Station) -> None:
    fused = fuse(noisy(station, 6, seed=2), station.cell, FusionSettings(region=station.region))
    cloud = fused.cloud
    top = cloud.normals_cell[:, 2] > 0.98
    several = cloud.share.max(axis=1) < 0.6
    error_m = station.distance_m(cloud.points_cell[top & several])
    scaled = error_m / cloud.random_sigma_m[top & several]
    assert len(scaled) > 2000
    assert np.sqrt(np.mean(scaled**2)) == pytest.approx(1.0, abs=0.08)
    assert 0.92 < coverage(scaled) < 0.98
    alone = np.median(np.concatenate([view.random_sigma_m[view.valid] for view in fused.views]))
    assert np.median(cloud.random_sigma_m[top & several]) < 0.75 * alone
    np.testing.assert_allclose(cloud.share.sum(axis=1), 1, atol=1e-5)


def test_systematic_uncertainty_covers_calibration_errors(station: Station) -> None:
    """Poses, scale and offset drawn from the cell's own statement; noise-free depth, so that nothing else errs."""
    rng = np.random.default_rng(3)
    scaled = []
    for _ in range(150):
        believed = {}
        for serial, camera in station.cell.cameras.items():
            xi = rng.multivariate_normal(np.zeros(6), camera.pose_covariance)
            scale, offset_px = 1 + rng.normal(0, 3e-4), rng.normal(0, 0.01)
            correction = replace(camera.correction, scale=scale, disparity_offset_px=offset_px)
            pose = camera.T_cell_depth.perturbed(xi)
            believed[serial] = replace(camera, T_cell_depth=pose, correction=correction)
        cell = Cell("drawn", believed, "2026-01-01T00:00:00Z")
        cloud = fuse([clean(station)], cell, FusionSettings(region=station.region)).cloud
        top = np.flatnonzero(cloud.normals_cell[:, 2] > 0.98)[::200]
        scaled.append(station.distance_m(cloud.points_cell[top]) / cloud.systematic_sigma_m[top])
    # Points of one draw err together: 150 draws, not thousands of points, are the sample.
    assert np.sqrt(np.mean([np.mean(draw**2) for draw in scaled])) == pytest.approx(1.0, abs=0.12)
    assert 0.91 < np.mean([coverage(draw) for draw in scaled]) < 0.99


def test_errors_that_all_cameras_share_do_not_shrink_by_merging(station: Station) -> None:
    """An error of the cell's frame moves all cameras alike; then the cell is as sure of itself as one camera."""
    block = np.zeros_like(station.cell.camera("C0").covariance)
    block[:6, :6] = np.diag(np.array([1e-4] * 3 + [5e-5] * 3) ** 2)
    cameras = {serial: replace(camera, covariance=block) for serial, camera in station.cell.cameras.items()}
    settings, count = FusionSettings(region=station.region), len(cameras)
    apart = replace(station.cell, cameras=cameras)
    told = replace(apart, covariance=scipy.linalg.block_diag(*[block] * count))
    alike = replace(apart, covariance=np.tile(block, (count, count)))
    by_apart, by_told, by_alike = (fuse([clean(station)], cell, settings).cloud for cell in (apart, told, alike))
    several = by_apart.share.max(axis=1) < 0.5
    assert several.sum() > 1000
    np.testing.assert_allclose(by_told.systematic_sigma_m, by_apart.systematic_sigma_m, rtol=1e-5)
    ratio = by_alike.systematic_sigma_m[several] / by_apart.systematic_sigma_m[several]
    np.testing.assert_allclose(ratio, 1 / np.linalg.norm(by_apart.share[several], axis=1), rtol=0.1)


def test_random_shrinks_with_frames_and_systematic_does_not(station: Station) -> None:
    few, many = (fuse(noisy(station, n, seed=4), station.cell).views[0] for n in (2, 8))
    both = few.valid & many.valid
    assert np.median(many.random_sigma_m[both]) < 0.8 * np.median(few.random_sigma_m[both])
    np.testing.assert_allclose(many.systematic_sigma_m[both], few.systematic_sigma_m[both], rtol=0.05)


def test_merging_is_the_inverse_variance_mean(station: Station) -> None:
    """The formula by hand, at points of one camera, against what each other camera sees along its own ray."""
    fused = fuse(noisy(station, 3, seed=5), station.cell, FusionSettings(region=station.region))
    cloud, views = fused.cloud, fused.views
    shared = np.flatnonzero((cloud.camera == 0) & (cloud.normals_cell[:, 2] > 0.98) & (cloud.share > 0.1).all(axis=1))
    own = views[0]
    for number in shared[:: len(shared) // 50]:
        row, column = cloud.pixel[number] - (own.window.top, own.window.left)
        point, normal = own.points_cell[row, column].astype(float), own.normals_cell[row, column].astype(float)
        weights = [1 / (own.random_sigma_m[row, column] ** 2 + own.systematic_sigma_m[row, column] ** 2)]
        offsets, randoms = [0.0], [own.random_sigma_m[row, column]]
        for view in views[1:]:
            T_cell_depth = station.cell.camera(view.serial).T_cell_depth
            x, y = view.intrinsics.project(T_cell_depth.inverse() @ point)
            r, c = round(float(y)), round(float(x))
            # The plane of the other camera's patch, cut by its ray through our point.
            eye = T_cell_depth.translation_m
            patch, patch_normal = view.points_cell[r, c].astype(float), view.normals_cell[r, c].astype(float)
            along = ((patch - eye) @ patch_normal) / ((point - eye) @ patch_normal)
            offsets.append(float(normal @ (eye + along * (point - eye) - point)))
            randoms.append(view.random_sigma_m[r, c])
            weights.append(1 / (view.random_sigma_m[r, c] ** 2 + view.systematic_sigma_m[r, c] ** 2))
        share = np.array(weights) / sum(weights)
        expected = point + normal * (share @ offsets)
        np.testing.assert_allclose(cloud.points_cell[number], expected, atol=2e-5)
        np.testing.assert_allclose(cloud.share[number], share, rtol=0.02)
        assert cloud.random_sigma_m[number] == pytest.approx(np.linalg.norm(share * randoms), rel=0.02)


def test_every_place_comes_from_one_pixel(station: Station) -> None:
    fused = fuse([clean(station)], station.cell, FusionSettings(region=station.region))
    cloud = fused.cloud
    assert len(np.unique(np.column_stack((cloud.camera, cloud.pixel)), axis=0)) == len(cloud)
    top = cloud.points_cell[(cloud.normals_cell[:, 2] > 0.98) & (cloud.points_cell[:, 2] > 0.02)]
    spacing_m = KDTree(top).query(top, k=2)[0][:, 1]
    views = np.concatenate([view.points_cell[view.valid & (view.normals_cell[..., 2] > 0.98)] for view in fused.views])
    views = views[views[:, 2] > 0.02]
    # Pixels are 0.6 mm apart. Views laid over each other interleave; the merged cloud does only at its seams.
    assert np.mean(KDTree(views).query(views, k=2)[0][:, 1] < 3e-4) > 0.3
    assert np.mean(spacing_m < 3e-4) < 0.05


def test_the_region_changes_nothing_inside_it(station: Station) -> None:
    whole = fuse(noisy(station, 2, seed=6), station.cell)
    cut = fuse(noisy(station, 2, seed=6), station.cell, FusionSettings(region=station.region))
    for big, small in zip(whole.views, cut.views, strict=True):
        assert small.valid.size < 0.7 * big.valid.size
        inside = big.valid.copy()
        inside[big.valid] = station.region.contains(big.points_cell[big.valid])
        np.testing.assert_array_equal(inside[small.window.slices], small.valid)
        assert inside.sum() == small.valid.sum()
        points = big.points_cell[small.window.slices][small.valid]
        np.testing.assert_allclose(small.points_cell[small.valid], points, atol=1e-6)
        normals = big.normals_cell[small.window.slices][small.valid]
        np.testing.assert_allclose(small.normals_cell[small.valid], normals, atol=2e-3)


def test_a_region_out_of_sight_is_refused_by_camera(station: Station) -> None:
    away = Region(RigidTransform.identity("cell", "part"), np.array([5.0, 5.0, 0.0]), np.array([5.1, 5.1, 0.1]))
    with pytest.raises(DepthcellError, match="camera C0: does not see into the region"):
        PartAccumulator(station.cell, FusionSettings(region=away))
    with pytest.raises(DepthcellError, match="upper_m must exceed"):
        Region(T_CELL_PART, np.zeros(3), np.array([1.0, 0.0, 1.0]))


def test_no_depth_is_invented(station: Station) -> None:
    whole, depth_m = clean(station), station.true_m["C0"].copy()
    depth_m[100:110, 150:160] = np.nan
    holed = FrameSet({**whole.frames, "C0": frame(station.cell.camera("C0"), depth_m)}, whole.expected)
    view = fuse([holed], station.cell).views[0]
    assert not view.valid[100:110, 150:160].any()
    assert np.isnan(view.points_cell[~view.valid]).all() and np.isnan(view.depth_m[~view.valid]).all()  # noqa: PT018
    kept = view.depth_m[view.valid]
    np.testing.assert_allclose(kept, depth_m[view.valid], atol=UNITS_M)  # averaged, never smoothed


def test_a_pixel_seen_too_rarely_is_left_out(station: Station) -> None:
    whole, depth_m = clean(station), station.true_m["C0"].copy()
    depth_m[120, 160] = np.nan
    holed = FrameSet({**whole.frames, "C0": frame(station.cell.camera("C0"), depth_m)}, whole.expected)
    sets = [whole, holed, holed, holed]
    assert not fuse(sets, station.cell).views[0].valid[120, 160]
    assert fuse(sets, station.cell, FusionSettings(min_fraction=0.25)).views[0].valid[120, 160]


def test_flat_views_are_left_to_other_cameras(station: Station) -> None:
    steep = fuse([clean(station)], station.cell, FusionSettings(max_incidence_rad=np.radians(20)))
    loose = fuse([clean(station)], station.cell)
    assert 0 < steep.views[0].valid.sum() < 0.5 * loose.views[0].valid.sum()


def test_depth_correction_puts_points_on_the_truth(station: Station) -> None:
    camera = station.cell.camera("C0")
    wrong = replace(camera, correction=DepthCorrection(scale=1.02, disparity_offset_px=-0.5))
    cell = Cell("one", {"C0": wrong}, "2026-01-01T00:00:00Z")
    focal_baseline = INTRINSICS.fx_px * BASELINE_M
    read_m = focal_baseline / (1.02 * focal_baseline / station.true_m["C0"] + 0.5)
    fused = fuse([FrameSet({"C0": frame(camera, read_m)}, ("C0",))], cell, FusionSettings(region=station.region))
    uncorrected = fuse([FrameSet({"C0": frame(camera, read_m)}, ("C0",))], Cell("raw", {"C0": camera}, "2026"))
    assert np.median(np.abs(station.distance_m(fused.cloud.points_cell))) < 2e-5
    assert np.median(np.abs(station.distance_m(uncorrected.cloud.points_cell))) > 1e-3  # negative control


def test_the_whole_correction_is_applied_where_the_pixel_lies(station: Station) -> None:
    """Curvature, wave and temperature: points and their random part against `CellCamera.corrected` and its slope."""
    camera = station.cell.camera("C0")
    wave_px = ((0.0, 0.4, -0.1), (0.2, -0.3, 0.0))
    correction = DepthCorrection(1.01, 0.3, -3.0, wave_px, scale_per_k=1e-3, reference_c=30.0)
    cell = Cell("one", {"C0": replace(camera, correction=correction, covariance=np.zeros((6, 6)))}, "2026")
    taken = frame(camera, station.true_m["C0"])
    warm = replace(taken, metadata={"Asic Temperature": 42.0})
    columns, rows = np.meshgrid(np.arange(320.0), np.arange(240.0))
    pixels = np.stack((columns, rows), axis=-1)
    assert taken.depth is not None
    read_m = taken.depth.depth_m.astype(np.float64)
    for given, temperature_c in ((taken, None), (warm, 42.0)):
        settings = FusionSettings(region=station.region)
        view = fuse([FrameSet({"C0": given}, ("C0",))], cell, settings).views[0]
        at = np.nonzero(view.valid)
        whole = (at[0] + view.window.top, at[1] + view.window.left)
        corrected_m = cell.camera("C0").corrected(read_m, pixels, temperature_c)
        np.testing.assert_allclose(view.depth_m[at], corrected_m[whole], rtol=3e-7)
        plain = fuse([FrameSet({"C0": given}, ("C0",))], station.cell, settings).views[0]
        both = view.valid & plain.valid[: view.valid.shape[0], : view.valid.shape[1]]
        assert both.sum() > 5000
        step_m = 1e-6
        ahead = cell.camera("C0").corrected(read_m + step_m, pixels, temperature_c)
        slope = ((ahead - corrected_m) / step_m)[view.window.slices]
        # Both views have facing c = |n · r| in common, but for what the correction does to the normals.
        ratio = np.median((view.random_sigma_m / plain.random_sigma_m)[both] / slope[both])
        assert ratio == pytest.approx(1.0, abs=0.02)
    cold = fuse([FrameSet({"C0": taken}, ("C0",))], cell).views[0]
    hot = fuse([FrameSet({"C0": warm}, ("C0",))], cell).views[0]
    both = cold.valid & hot.valid
    np.testing.assert_allclose(hot.depth_m[both] / cold.depth_m[both], 1.012, rtol=1e-6)


def test_a_bumped_camera_is_told(station: Station) -> None:
    settings = FusionSettings(region=station.region)
    assert not any("apart" in warning for warning in fuse(noisy(station, 3, seed=7), station.cell, settings).warnings)
    camera = station.cell.camera("C1")
    bumped = replace(camera, T_cell_depth=camera.T_cell_depth.perturbed(np.array([0, 0, 0, 0, 0, 1.2e-3])))
    cell = Cell("bumped", {**station.cell.cameras, "C1": bumped}, "2026-01-01T00:00:00Z")
    warnings = [warning for warning in fuse(noisy(station, 3, seed=7), cell, settings).warnings if "apart" in warning]
    assert len(warnings) == 2
    assert all("C1" in warning and "calibrate" in warning for warning in warnings)


def test_missing_cameras_and_frames_are_told(station: Station) -> None:
    whole = clean(station)
    without = FrameSet({s: f for s, f in whole.frames.items() if s != "C2"}, whole.expected)
    fused = fuse([whole, without, without], station.cell)
    assert fused.missing == ()
    assert "camera C2: gave depth in 1 of 3 frame sets" in fused.warnings
    fused = fuse([without], station.cell)
    assert (fused.missing, [view.serial for view in fused.views]) == (("C2",), ["C0", "C1"])
    assert {"camera C2: gave no depth", "one frame only: its noise is taken from the cell, not measured"} <= {
        *fused.warnings
    }


def test_a_camera_that_measures_nothing_is_told(station: Station) -> None:
    blind = {s: frame(c, np.full((240, 320), np.nan)) for s, c in station.cell.cameras.items()}
    whole = clean(station)
    fused = fuse([FrameSet({**whole.frames, "C1": blind["C1"]}, whole.expected)], station.cell)
    assert "camera C1: measured nothing of the part" in fused.warnings
    assert not fused.views[1].valid.any()
    assert set(np.unique(fused.cloud.camera)) == {0, 2}
    nothing = fuse([FrameSet(blind, whole.expected)], station.cell, FusionSettings(region=station.region))
    assert len(nothing.cloud) == 0


def test_what_does_not_fit_the_cell_is_refused(station: Station) -> None:
    whole = clean(station)
    one = Cell("one", {"C0": station.cell.camera("C0")}, "2026-01-01T00:00:00Z")
    with pytest.raises(DepthcellError, match="no camera C1"):
        fuse([whole], one)
    with pytest.raises(DepthcellError, match="no camera gave any depth"):
        fuse([], station.cell)
    small = replace(station.cell.camera("C0"), depth=replace(INTRINSICS, width_px=300))
    with pytest.raises(DepthcellError, match="camera C0: depth images are 320 x 240, the cell states 300 x 240"):
        fuse([FrameSet({"C0": whole.frames["C0"]}, ("C0",))], Cell("small", {"C0": small}, "2026"))


def test_the_same_frames_give_the_same_bytes(station: Station) -> None:
    def columns(fused: FusedPart) -> list[bytes]:
        names = [name for name in fused.cloud.__dataclass_fields__ if name != "serials"]
        return [getattr(fused.cloud, name).tobytes() for name in names]

    assert columns(fuse(noisy(station, 2, seed=8), station.cell)) == columns(
        fuse(noisy(station, 2, seed=8), station.cell)
    )


def sheet_between_two_cameras(thickness_m: float) -> tuple[Cell, FrameSet]:
    """A large thin sheet at z = 0 between a camera above and one below."""
    cameras, frames = {}, {}
    for serial, height_m in (("A", 0.2), ("B", -0.2)):
        pose = looking_at(serial, np.zeros(3), np.array([0.0, 1e-4, height_m]))
        cameras[serial] = cell_camera(serial, pose)
        side_m = np.sign(height_m) * thickness_m / 2
        rays_cell = pose.rotate(INTRINSICS.rays().astype(np.float64))
        frames[serial] = frame(cameras[serial], (side_m - height_m) / rays_cell[..., 2])
    return Cell("sheet", cameras, "2026-01-01T00:00:00Z"), FrameSet(frames, ("A", "B"))


def test_the_two_sides_of_a_thin_sheet_never_merge() -> None:
    cell, frames = sheet_between_two_cameras(2e-4)
    fused = fuse([frames], cell)
    cloud = fused.cloud
    assert len(cloud) == sum(view.valid.sum() for view in fused.views)
    assert (cloud.share.max(axis=1) == 1).all()
    np.testing.assert_allclose(cloud.points_cell[cloud.camera == 0, 2], 1e-4, atol=2e-5)
    np.testing.assert_allclose(cloud.points_cell[cloud.camera == 1, 2], -1e-4, atol=2e-5)


def screen_before_wall(offset_m: float) -> FusedPart:
    """A screen before a wall; the colour camera stands `offset_m` beside the depth camera. Red screen, blue wall."""
    camera = cell_camera("S", RigidTransform.identity("cell", "depth:S"))
    T_color_depth = RigidTransform("color:S", "depth:S", np.eye(3), np.array([-offset_m, 0.0, 0.0]))
    camera = replace(camera, T_color_depth=T_color_depth)
    columns = np.arange(INTRINSICS.width_px)
    screen = (columns > 140) & (columns < 200)
    depth_m = np.broadcast_to(np.where(screen, 0.3, 0.6), (INTRINSICS.height_px, INTRINSICS.width_px))
    shift_px = INTRINSICS.fx_px * offset_m / 0.3
    red = (columns > 140 - shift_px) & (columns < 200 - shift_px)
    rgb = np.zeros((INTRINSICS.height_px, INTRINSICS.width_px, 3), np.uint8)
    rgb[:, red] = (200, 0, 0)
    rgb[:, ~red] = (0, 0, 200)
    return fuse([FrameSet({"S": frame(camera, depth_m, rgb)}, ("S",))], Cell("s", {"S": camera}, "2026"))


@pytest.mark.parametrize("offset_m", [0.0, 0.03])
def test_colour_comes_from_the_surface_itself(offset_m: float) -> None:
    view = screen_before_wall(offset_m).views[0]
    near, far = view.valid & (view.depth_m < 0.4), view.valid & (view.depth_m > 0.4)
    assert view.colored[near].mean() > 0.95
    red, blue = view.colors[near & view.colored], view.colors[far & view.colored]
    assert (red == (200, 0, 0)).all(axis=1).mean() > 0.95
    assert (blue == (0, 0, 200)).all(axis=1).mean() > 0.97
    assert (view.colors[~view.colored] == 0).all()


def test_what_the_colour_camera_cannot_see_has_no_colour() -> None:
    offset_m = 0.03
    view = screen_before_wall(offset_m).views[0]
    # Behind the screen from the colour camera's place: a band of f b (1/0.3 - 1/0.6) = 18 px, to the left of it.
    hidden = np.zeros_like(view.valid)
    hidden[:, 127:135] = True
    assert (view.valid & hidden).sum() > 1000
    assert view.colored[view.valid & hidden].mean() < 0.02
    assert screen_before_wall(0.0).views[0].colored[view.valid & hidden].mean() > 0.98  # negative control


def test_black_is_a_colour(station: Station) -> None:
    rgb = np.zeros((INTRINSICS.height_px, INTRINSICS.width_px, 3), np.uint8)
    cell = Cell("one", {"C0": station.cell.camera("C0")}, "2026-01-01T00:00:00Z")
    one = FrameSet({"C0": frame(cell.camera("C0"), station.true_m["C0"], rgb)}, ("C0",))
    view = fuse([one], cell).views[0]
    assert view.colored[view.valid].all()
    assert not fuse([one], cell, FusionSettings(with_color=False)).views[0].colored.any()
