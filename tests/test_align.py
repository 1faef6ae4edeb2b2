"""Alignment: recovery, an honest covariance, robustness against defects, and motions that cannot be known."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.simulator.parts import load_part
from depthcell.acquisition.simulator.rig import looking_at
from depthcell.acquisition.simulator.stereo import correlated_noise
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise, camera_covariance
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion import align as alignment_module
from depthcell.fusion import distancefield
from depthcell.fusion.align import Alignment, AlignmentSettings, align
from depthcell.fusion.motion import Basis
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.posefit import Sample, linearised, sharing
from depthcell.fusion.reference import Reference
from depthcell.fusion.registration.weakmotion import weak_motions
from depthcell.fusion.uncertainty import calibration_jacobian

T_CELL_PART = RigidTransform.from_rotation_vector(
    "cell", "part", np.array([0.0, 0.0, 0.2]), np.array([0.02, 0.01, 0.03])
)
SIGMA_M = 5e-5
EYES_M = ((0.2, 0.05, 0.3), (-0.15, 0.15, 0.3), (-0.02, -0.2, 0.3))
INTRINSICS = Intrinsics(320, 240, 400.0, 400.0, 159.5, 119.5)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(distancefield, "NODES", 600_000)
        yield


def reference_of(mesh: PartMesh) -> Reference:
    return Reference(mesh.vertices_m, mesh.triangles)


@pytest.fixture(scope="module")
def bracket() -> Reference:
    return reference_of(load_part("bracket").mesh)


@pytest.fixture(scope="module")
def shaft() -> Reference:
    return reference_of(load_part("shaft").mesh)


@pytest.fixture(scope="module")
def cell() -> Cell:
    cameras = {}
    for index, eye in enumerate(EYES_M):
        serial = f"C{index}"
        cameras[serial] = CellCamera(
            serial=serial,
            model="test",
            depth=INTRINSICS,
            color=None,
            T_cell_depth=looking_at(serial, T_CELL_PART.translation_m, np.array(eye)),
            covariance=camera_covariance(
                np.diag(np.array([2e-4, 2e-4, 2e-4, 3e-5, 3e-5, 3e-5]) ** 2),
                INTRINSICS,
                DepthCorrection(),
                {"scale": 2e-4, "disparity_offset_px": 0.01},
            ),
            T_color_depth=None,
            baseline_m=0.05,
            noise=DisparityNoise(0.05, 0.0, 0.0),
        )
    return Cell("test", cameras, "2026-01-01T00:00:00Z")


def in_cell(points_part: np.ndarray) -> np.ndarray:
    return np.asarray(T_CELL_PART @ points_part, dtype=np.float64)


def exact_cloud(reference: Reference, cell: Cell, spacing_m: float = 8e-4) -> PartCloud:
    """Points of the true surface, each from the first camera that sees it."""
    samples = reference.surface_samples(spacing_m)
    camera = np.full(len(samples.points_part), 255)
    for index, each in reversed(list(enumerate(cell.cameras.values()))):
        eye_part = T_CELL_PART.inverse() @ each.T_cell_depth.translation_m
        camera[reference.visible(samples.points_part, samples.normals_part, eye_part)] = index
    seen = np.flatnonzero(camera < 255)
    count = len(seen)
    return PartCloud(
        points_cell=in_cell(samples.points_part[seen]),
        normals_cell=T_CELL_PART.rotate(samples.normals_part[seen]),
        colors=np.zeros((count, 3), np.uint8),
        random_sigma_m=np.full(count, SIGMA_M, np.float32),
        systematic_sigma_m=np.full(count, SIGMA_M, np.float32),
        correlation_m=np.zeros(count, np.float32),
        share=np.eye(len(cell.cameras), dtype=np.float32)[camera[seen]],
        camera=camera[seen].astype(np.uint8),
        pixel=np.zeros((count, 2), np.int32),
        serials=tuple(cell.cameras),
    )


def lifted(cloud: PartCloud, lift_m: np.ndarray) -> PartCloud:
    return replace(cloud, points_cell=cloud.points_cell + lift_m[:, None] * cloud.normals_cell)


def noisy(cloud: PartCloud, seed: int) -> PartCloud:
    return lifted(cloud, np.random.default_rng(seed).normal(0, SIGMA_M, len(cloud)))


def displaced(cloud: PartCloud, turn_deg: np.ndarray, shift_mm: np.ndarray) -> RigidTransform:
    """The true pose, turned about the middle of the cloud and shifted."""
    basis = Basis.around(cloud.points_cell)
    motion = np.concatenate((np.radians(turn_deg) * basis.length_m, np.asarray(shift_mm) * 1e-3))
    return T_CELL_PART.perturbed(basis.twist @ motion)


def errors(cloud: PartCloud, alignment: Alignment, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Error of the pose as six motions in metres about the middle of the cloud, and their covariance."""
    basis = Basis.around(cloud.points_cell)
    to_motion = np.linalg.inv(basis.twist)
    return basis.between(alignment.T_cell_part, T_CELL_PART), to_motion @ covariance @ to_motion.T


@pytest.mark.parametrize("seed", range(8))
def test_recovers_from_3_mm_and_3_degrees(bracket: Reference, cell: Cell, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cloud = noisy(exact_cloud(bracket, cell), seed)
    nominal = displaced(cloud, rng.uniform(-3, 3, 3) / np.sqrt(3), rng.uniform(-3, 3, 3) / np.sqrt(3))
    alignment = align(cloud, bracket, nominal, cell)
    error_m, covariance = errors(cloud, alignment, alignment.random_covariance)
    assert np.abs(error_m).max() < 2e-5
    assert (np.abs(error_m) < 5 * np.sqrt(np.diag(covariance)) + 2e-6).all()
    assert alignment.free_directions == ()
    assert alignment.inlier_fraction > 0.99
    assert 0.95 * SIGMA_M < alignment.rms_m < 1.5 * SIGMA_M  # the field's rounding at edges comes on top


def test_the_start_does_not_matter(bracket: Reference, cell: Cell) -> None:
    cloud = noisy(exact_cloud(bracket, cell), 1)
    near = align(cloud, bracket, T_CELL_PART, cell)
    far = align(cloud, bracket, displaced(cloud, np.array([1.0, -2.0, 2.0]), np.array([-2.0, 1.0, 2.0])), cell)
    np.testing.assert_allclose(far.T_cell_part.matrix, near.T_cell_part.matrix, atol=2e-6)
    sigma = np.sqrt(np.diag(near.covariance))
    assert (np.abs(far.covariance - near.covariance) < 0.05 * np.outer(sigma, sigma)).all()


def chi_square(cloud: PartCloud, alignments: list[Alignment], covariances: list[np.ndarray]) -> np.ndarray:
    values = []
    for alignment, covariance in zip(alignments, covariances, strict=True):
        error_m, motion_covariance = errors(cloud, alignment, covariance)
        values.append(error_m @ np.linalg.solve(motion_covariance, error_m))
    return np.array(values)


def test_covariance_of_noise_covers(bracket: Reference, cell: Cell) -> None:
    """60 draws of noise: `e^T C^-1 e` is chi-squared with 6 degrees of freedom, mean 6, standard deviation sqrt(12)."""
    cloud = exact_cloud(bracket, cell, spacing_m=1.6e-3)  # finer, and the coarse field of the tests would show
    drawn = [align(noisy(cloud, seed), bracket, T_CELL_PART, cell) for seed in range(60)]
    values = chi_square(cloud, drawn, [each.random_covariance for each in drawn])
    assert values.mean() == pytest.approx(6.0, abs=3 * np.sqrt(12 / 60))
    assert np.mean(values < 12.59) > 0.87  # the 95 % quantile


def test_covariance_of_calibration_covers(bracket: Reference, cell: Cell) -> None:
    """80 draws of every camera's pose, scale and offset from the cell's own statement."""
    cloud = exact_cloud(bracket, cell)
    rng = np.random.default_rng(2)
    drawn = []
    for seed in range(80):
        lift_m = np.zeros(len(cloud))
        for index, camera in enumerate(cell.cameras.values()):
            own = cloud.camera == index
            xi = rng.multivariate_normal(np.zeros(6), camera.pose_covariance)
            moved = camera.T_cell_depth.perturbed(xi) @ camera.T_cell_depth.inverse() @ cloud.points_cell[own]
            depth_m = (camera.T_cell_depth.inverse() @ cloud.points_cell[own])[:, 2]
            stretch = rng.normal(0, 2e-4) + rng.normal(0, 0.01) * depth_m / (INTRINSICS.fx_px * camera.baseline_m)
            moved += stretch[:, None] * (cloud.points_cell[own] - camera.T_cell_depth.translation_m)
            lift_m[own] = np.einsum("ij,ij->i", moved - cloud.points_cell[own], cloud.normals_cell[own])
        drawn.append(align(noisy(lifted(cloud, lift_m), seed), bracket, T_CELL_PART, cell))
    values = chi_square(cloud, drawn, [each.covariance for each in drawn])
    assert values.mean() == pytest.approx(6.0, abs=3 * np.sqrt(12 / 80))
    assert np.mean(values < 12.59) > 0.88
    # Negative control: noise alone explains next to nothing of it.
    assert chi_square(cloud, drawn, [each.random_covariance for each in drawn]).mean() > 60


def test_correlated_noise_is_not_taken_for_more_points(cell: Cell) -> None:
    """A plate on a pixel grid with noise correlated over 3 pixels: the height of the plate, 60 draws."""
    size_m, pitch_m, rng = np.array([0.09, 0.07, 0.01]), 6e-4, np.random.default_rng(3)
    corners = (np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) - 0.5) * size_m
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = [(a, b, c) for a, b, c, _ in quads] + [(a, c, d) for a, _, c, d in quads]
    plate = Reference(corners, np.array(triangles, np.int32))
    shape = (100, 120)
    y, x = (np.indices(shape) - np.array([[[49.5]], [[59.5]]])) * pitch_m
    points_part = np.stack((x, y, np.full(shape, size_m[2] / 2)), axis=-1).reshape(-1, 3)
    count = len(points_part)
    cloud = PartCloud(
        points_cell=in_cell(points_part),
        normals_cell=np.tile(T_CELL_PART.rotate(np.array([[0, 0, 1.0]])), (count, 1)).astype(np.float32),
        colors=np.zeros((count, 3), np.uint8),
        random_sigma_m=np.full(count, SIGMA_M, np.float32),
        systematic_sigma_m=np.zeros(count, np.float32),
        correlation_m=np.full(count, 3 * pitch_m, np.float32),
        share=np.ones((count, 1), np.float32),
        camera=np.zeros(count, np.uint8),
        pixel=np.zeros((count, 2), np.int32),
        serials=("C0",),
    )
    camera = replace(cell.camera("C0"), noise=DisparityNoise(0.05, 0.0, 3.0))
    correlated, white = (
        Cell("c", {"C0": replace(camera, noise=DisparityNoise(0.05, 0.0, size_px))}, "2026") for size_px in (3.0, 0.0)
    )
    # What is free must not be let far: the estimate's own tilt would mix some of it into the height.
    near = AlignmentSettings(capture_m=0.001)
    heights_m: list[float] = []
    stated_m: list[float] = []
    naive_m: list[float] = []
    for _ in range(60):
        drawn = lifted(cloud, SIGMA_M * correlated_noise(shape, 3.0, rng).ravel().astype(np.float64))
        for chosen, into in ((correlated, stated_m), (white, naive_m)):
            alignment = align(drawn, plate, T_CELL_PART, chosen, near)
            error_m, covariance = errors(cloud, alignment, alignment.random_covariance)
            into.append(np.sqrt(covariance[5, 5]))
        heights_m.append(error_m[5])
        assert len(alignment.free_directions) == 3  # a plate slides and spins in its plane
    assert np.std(heights_m) == pytest.approx(np.median(stated_m), rel=0.3)
    assert np.median(naive_m) < 0.6 * np.std(heights_m)  # negative control: taken for white noise


def test_sharing_counts_the_points_of_one_patch_of_noise() -> None:
    assert sharing(0.0, 1) == 1.0
    assert sharing(3.0, 1) == pytest.approx(np.pi * 9, rel=1e-3)
    assert sharing(1.0, 100) == pytest.approx(1.0, abs=1e-6)


def test_calibration_jacobian_is_the_slope(cell: Cell) -> None:
    camera, rng = cell.camera("C1"), np.random.default_rng(4)
    points = T_CELL_PART.translation_m + rng.uniform(-0.05, 0.05, (50, 3))
    normals = rng.normal(size=(50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    jacobian = calibration_jacobian(camera, points, normals)
    points_cam = camera.T_cell_depth.inverse() @ points
    rays = points_cam / points_cam[:, 2:]
    step = 1e-6
    for index, name in enumerate(camera.parameter_names):
        pose = camera.T_cell_depth.perturbed(step * np.eye(6)[index] if index < 6 else np.zeros(6))
        z_m = points_cam[:, 2] * (1 + step * (name == "scale"))
        # More disparity is less depth.
        z_m = z_m - camera.depth_sigma_m(points_cam[:, 2], step) * (name == "disparity_offset_px")
        if index < 6 or name in ("scale", "disparity_offset_px"):
            lift = np.einsum("ij,ij->i", pose @ (rays * z_m[:, None]) - points, normals) / step
            np.testing.assert_allclose(jacobian[:, index], lift, atol=1e-5, err_msg=name)
    assert jacobian.shape[1] == len(camera.parameter_names)


def test_errors_that_cameras_share_do_not_average_out(bracket: Reference, cell: Cell) -> None:
    cloud, count = noisy(exact_cloud(bracket, cell), 6), len(cell.cameras)
    cloud = replace(cloud, share=np.full((len(cloud), count), 1 / count, np.float32))
    block = cell.camera("C0").covariance
    alike = replace(cell, covariance=np.tile(block, (count, count)))
    apart = replace(cell, covariance=scipy.linalg.block_diag(*[block] * count))
    shared, independent, unsaid = (align(cloud, bracket, T_CELL_PART, each) for each in (alike, apart, cell))
    height = (slice(5, 6), slice(5, 6))
    by = {
        name: errors(cloud, found, found.systematic_covariance)[1][height].item()
        for name, found in (("shared", shared), ("independent", independent), ("unsaid", unsaid))
    }
    assert by["independent"] == pytest.approx(by["unsaid"], rel=1e-9)
    assert by["shared"] > 1.5 * by["independent"]


@pytest.mark.parametrize("depth_m", [-0.002, 0.004])
def test_a_defect_does_not_drag_the_pose(bracket: Reference, cell: Cell, depth_m: float) -> None:
    cloud = noisy(exact_cloud(bracket, cell), 5)
    middle = cloud.points_cell[cloud.normals_cell[:, 2] > 0.9].mean(axis=0)
    spoilt = np.linalg.norm(cloud.points_cell[:, :2] - middle[:2], axis=1) < 0.015
    assert 0.05 < spoilt.mean() < 0.3
    good, bad = (
        align(cloud, bracket, T_CELL_PART, cell),
        align(lifted(cloud, depth_m * spoilt), bracket, T_CELL_PART, cell),
    )
    moved_m = Basis.around(cloud.points_cell).between(bad.T_cell_part, good.T_cell_part)
    assert np.abs(moved_m).max() < 2e-5
    # Negative control: plain least squares would have followed it.
    assert abs(depth_m) * spoilt.mean() > 1e-4


def test_things_around_the_part_do_not_pull(bracket: Reference, cell: Cell) -> None:
    cloud = noisy(exact_cloud(bracket, cell), 6)
    rng = np.random.default_rng(6)
    count = len(cloud) // 3
    plate = cloud[np.arange(count)]
    spread = np.column_stack((rng.uniform(-0.1, 0.1, (count, 2)), np.full(count, -0.004)))
    up = np.tile(T_CELL_PART.rotate(np.array([[0, 0, 1.0]])), (count, 1)).astype(np.float32)
    plate = replace(plate, points_cell=in_cell(spread), normals_cell=up)
    columns = [name for name in cloud.__dataclass_fields__ if name != "serials"]
    both = PartCloud(
        **{name: np.concatenate((getattr(cloud, name), getattr(plate, name))) for name in columns},
        serials=cloud.serials,
    )
    nominal = displaced(cloud, np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 1.0]))
    error_m, _ = errors(cloud, align(both, bracket, nominal, cell), np.eye(6))
    assert np.abs(error_m).max() < 3e-5


def test_a_shaft_may_turn_and_says_so(shaft: Reference, cell: Cell) -> None:
    cloud = noisy(exact_cloud(shaft, cell), 7)
    axis_part = np.eye(3)[int(np.argmax(np.ptp(shaft.vertices_part, axis=0)))]
    turn_rad = 0.05
    own_turn = RigidTransform.from_rotation_vector("part", "part", turn_rad * axis_part, np.zeros(3))
    middle = (shaft.vertices_part.min(axis=0) + shaft.vertices_part.max(axis=0)) / 2
    about_axis = RigidTransform("part", "part", own_turn.rotation, middle - own_turn.rotate(middle))
    nominal = T_CELL_PART @ about_axis
    alignment = align(cloud, shaft, nominal, cell)
    assert len(alignment.free_directions) == 1
    assert alignment.free_directions[0].startswith("rotation about")
    kept = alignment.T_cell_part.rotation.T @ nominal.rotation
    assert np.degrees(np.arccos((np.trace(kept) - 1) / 2)) < 0.1  # nominal in what is free
    across = alignment.T_cell_part @ middle - T_CELL_PART @ middle
    assert np.linalg.norm(across) < 3e-5  # measured in what is not
    basis = Basis.around(cloud.points_cell)
    to_motion = np.linalg.inv(basis.twist)
    spread_m = np.sqrt(np.linalg.eigvalsh(to_motion @ alignment.covariance @ to_motion.T))
    assert spread_m[-1] > 1e-3
    assert spread_m[-2] < 2e-4


@pytest.fixture(scope="module")
def weld() -> Reference:
    return reference_of(load_part("weld").mesh)


def within(weld: Reference, cell: Cell, half_m: float) -> PartCloud:
    """What cameras above see of the weld no farther than `half_m` along x; it is 100 mm long."""
    cloud = noisy(exact_cloud(weld, cell, spacing_m=6e-4), 9)
    return cloud[np.flatnonzero(np.abs((T_CELL_PART.inverse() @ cloud.points_cell)[:, 0]) < half_m)]


def slid(cloud: PartCloud, way_mm: float) -> RigidTransform:
    return displaced(cloud, np.zeros(3), T_CELL_PART.rotate(np.array([way_mm, 0.0, 0.2])))


def slide_m(alignment: Alignment) -> float:
    return float((T_CELL_PART.inverse() @ alignment.T_cell_part.translation_m)[0])


ALIKE = AlignmentSettings(capture_m=0.008, form_m=1e-4)
"""Good welds have the same ripples, 3.2 mm from one to the next."""


@pytest.mark.parametrize("start_mm", [-2.5, 2.0])
def test_a_slide_held_by_ripples_is_looked_for_beyond_the_next_one(
    weld: Reference, cell: Cell, start_mm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = within(weld, cell, 0.0499)  # the rounded corners are in it, the ends are not
    found = align(cloud, weld, slid(cloud, start_mm), cell, ALIKE)
    assert abs(slide_m(found)) < 5e-5
    assert found.free_directions == ()
    # Negative control: the nearest minimum is that of another ripple.
    monkeypatch.setattr(alignment_module, "places_along", lambda *_: [])
    assert abs(slide_m(align(cloud, weld, slid(cloud, start_mm), cell, ALIKE))) > 1e-3


@pytest.mark.parametrize(("form_m", "why"), [(1e-4, "ripples alike"), (5e-4, "ripples that differ")])
def test_a_slide_that_ripples_cannot_settle_is_free(weld: Reference, cell: Cell, form_m: float, why: str) -> None:
    """Without corners the next ripple does as well; and where good parts differ by more, no ripple tells anything."""
    cloud = within(weld, cell, 0.040)
    found = align(cloud, weld, slid(cloud, 2.0), cell, replace(ALIKE, form_m=form_m))
    assert len(found.free_directions) == 1, why
    assert found.free_directions[0].startswith("shift along (0.98, 0.20")
    assert slide_m(found) == pytest.approx(2e-3, abs=2e-4)  # nominal was kept
    basis = Basis.around(cloud.points_cell)
    to_motion = np.linalg.inv(basis.twist)
    along_m2 = np.linalg.eigvalsh(to_motion @ found.covariance @ to_motion.T)[-1]
    assert along_m2 == pytest.approx(0.008**2 / 3, rel=0.05)


def test_no_part_that_is_held_is_looked_for_elsewhere(bracket: Reference, weld: Reference, cell: Cell) -> None:
    for reference, count in ((bracket, 0), (weld, 1)):
        cloud = within(reference, cell, 0.040)
        fit = linearised(Sample.of(cloud, Basis.around(cloud.points_cell)), reference, T_CELL_PART, 0.008)
        assert weak_motions(fit, np.eye(6)).shape == (6, count)


def test_what_cannot_be_aligned_is_refused(bracket: Reference, shaft: Reference, cell: Cell) -> None:
    cloud = noisy(exact_cloud(bracket, cell), 8)
    few = cloud[np.arange(100)]
    wrong_place = T_CELL_PART.perturbed(np.array([0, 0, 0, 0.3, 0.0, 0.0]))
    strict = AlignmentSettings(capture_m=0.001)
    slid = displaced(cloud, np.zeros(3), np.array([0.7, 0.7, 0.7]))
    cases = [
        (few, bracket, T_CELL_PART, None, "100 of at least 300 points"),
        (cloud, bracket, wrong_place, None, "points near the reference"),
        (cloud, bracket, slid, strict, "ran .* away from nominal"),
        (cloud, shaft, T_CELL_PART, None, "alignment"),
    ]
    for points, reference, nominal, settings, words in cases:
        with pytest.raises(DepthcellError, match=words) as refusal:
            align(points, reference, nominal, cell, settings)
        assert refusal.value.reason is Reason.ALIGNMENT_FAILED


def test_motions_are_named_for_people() -> None:
    basis = Basis(np.array([0.01, 0.0, 0.0]), 0.05)
    assert basis.in_words(np.array([0, 0, 0, 0, -1.0, 0])) == "shift along (0.00, 1.00, 0.00)"
    # About the z axis through the cell's origin: the middle at x = 10 mm moves along y.
    turn = np.linalg.solve(basis.twist, np.array([0, 0, 1.0, 0, 0, 0]))
    assert basis.in_words(turn) == "rotation about (0.00, 0.00, 1.00) through (0, 0, 0) mm"
