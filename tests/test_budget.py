"""Budgets of gauges against what happens: all pairs written out, parameters moved one by one, and Monte Carlo."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from stagedpart import plate_camera

from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.simulator.stereo import correlated_noise
from depthcell.acquisition.simulator.terraces import Terrace, circle, flat, rectangle, terraced_solid
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, DisparityNoise
from depthcell.errors import DepthcellError
from depthcell.fusion.align import align
from depthcell.fusion.budget import calibration_gradient, uncertainty_budget
from depthcell.fusion.influence import Influence
from depthcell.fusion.noisecorrelation import correlated_square, image_places, noise_variance
from depthcell.fusion.reference import Reference
from depthcell.fusion.region import Region
from depthcell.fusion.scan import Scan
from depthcell.fusion.uncertainty import calibration_jacobian
from depthcell.inspect.featuresections import CylinderFeature, PlaneFeature
from depthcell.inspect.gauges.extraction import Features
from depthcell.inspect.gauges.reading import Reading
from depthcell.inspect.gauges.size import measure_coordinate, measure_diameter, measure_step_height
from depthcell.inspect.gaugesections import CoordinateGauge, DiameterGauge, StepHeightGauge
from depthcell.inspect.simulated_scan import ScanConditions, cell_off_by, drawn_cell, scan_cloud

POSE = RigidTransform.from_rotation_vector("cell", "part", np.zeros(3), np.array([0.0, 0.0, 0.01]))
BASE = PlaneFeature(
    kind="plane", name="base", min_mm=(-4, -17, 7), max_mm=(4, 17, 9), normal=(0, 0, 1), capture_mm=0.9, edge_mm=0
)
PAD = PlaneFeature(
    kind="plane", name="pad", min_mm=(-20, -8, 11), max_mm=(-8, 8, 13), normal=(0, 0, 1), capture_mm=0.9, edge_mm=0
)
BORE = CylinderFeature(
    kind="cylinder",
    name="bore",
    min_mm=(5, -8, 3.5),
    max_mm=(19, 8, 7.5),
    position_mm=(12, 0, 6),
    axis=(0, 0, 1),
    diameter_mm=12,
    side="inside",
    capture_mm=1.0,
    edge_mm=0,  # the same points whatever moves
)
GAUGES = {
    "step": StepHeightGauge(kind="step_height", name="step", over="base", feature="pad"),
    "diameter": DiameterGauge(kind="diameter", name="diameter", feature="bore"),
    "coordinate": CoordinateGauge(kind="coordinate", name="coordinate", feature="bore", direction=(1, 0, 0)),
    "height": CoordinateGauge(kind="coordinate", name="height", feature="pad", direction=(0, 0, 1)),
}
TRUE_M = {"step": 4e-3, "diameter": 12e-3, "coordinate": 12e-3, "height": 12e-3}


@cache
def part() -> PartMesh:
    plate = Terrace(rectangle((0.0, 0.0), (50.0, 36.0), corner_mm=2.0), flat(8.0))
    pad = Terrace(rectangle((-14.0, 0.0), (14.0, 18.0), corner_mm=1.0), flat(12.0))
    return terraced_solid([plate, pad, Terrace(circle((12.0, 0.0), 12.0, 0.2), None)], spacing_mm=1.5)


@cache
def reference() -> Reference:
    return Reference(part().vertices_m, part().triangles)


@cache
def cell() -> Cell:
    """Three cameras whose parameters err together, as they do after one bundle adjustment."""
    cameras = {}
    for number in range(3):
        camera = plate_camera(str(1001 + number), 20.0 + 120.0 * number)
        cameras[camera.serial] = replace(camera, noise=DisparityNoise(0.05, 0.02, 3.0))
    plain = Cell("three", cameras, "2026-01-02T03:04:05Z")
    names = next(iter(cameras.values())).parameter_names
    u = {"_rad": 1e-4, "_m": 3e-5, "scale": 3e-4, "offset_px": 0.01, "curvature_px": 0.01, "_px": 0.2}
    sizes = np.tile([next(size for end, size in u.items() if name.endswith(end)) for name in names], 3)
    mixed = np.random.default_rng(5).normal(size=(len(sizes), len(sizes))) + 4 * np.eye(len(sizes))
    joint = mixed @ mixed.T
    joint *= np.outer(sizes, sizes) / np.sqrt(np.outer(np.diag(joint), np.diag(joint)))
    rows = {serial: plain.rows_of(serial) for serial in cameras}
    blocks = {serial: replace(cameras[serial], covariance=joint[rows[serial], rows[serial]]) for serial in cameras}
    return replace(plain, cameras=blocks, covariance=joint)


@cache
def conditions() -> ScanConditions:
    return ScanConditions(cell(), Region(POSE, np.array([-0.03, -0.02, 0.002]), np.array([0.03, 0.02, 0.014])), 4)


@dataclass(frozen=True)
class Measured:
    scan: Scan
    readings: dict[str, Reading]


def measured(true: Cell, seed: int, pose: RigidTransform = POSE) -> Measured:
    cloud = scan_cloud(part(), pose, true, conditions(), np.random.default_rng(seed))
    scan = Scan.of(cloud, align(cloud, reference(), POSE, cell()), cell(), reference())
    features = Features(scan, [BASE, PAD, BORE])
    readings = {
        "step": measure_step_height(GAUGES["step"], scan, features),  # type: ignore[arg-type]
        "diameter": measure_diameter(GAUGES["diameter"], scan, features),  # type: ignore[arg-type]
        "coordinate": measure_coordinate(GAUGES["coordinate"], scan, features),  # type: ignore[arg-type]
        "height": measure_coordinate(GAUGES["height"], scan, features),  # type: ignore[arg-type]
    }
    return Measured(scan, readings)


@pytest.fixture(scope="module")
def exact() -> Measured:
    """As the cell says, but for noise."""
    return measured(cell(), 1)


def quiet(true: Cell) -> Cell:
    cameras = {s: replace(c, noise=DisparityNoise(0.0, 0.0, 3.0)) for s, c in true.cameras.items()}
    return replace(true, cameras=cameras)


def test_noise_over_the_pixel_grid_is_the_sum_over_all_pairs(exact: Measured) -> None:
    """The slow twin: every pair of points, camera by camera."""
    scan, influence = exact.scan, exact.readings["diameter"].influence
    cloud, expected = scan.cloud, 0.0
    for index in range(3):
        share = cloud.share[influence.points, index].astype(float)
        amplitude = influence.gradient * cloud.random_sigma_m[influence.points] * np.sqrt(share)
        places = image_places(cloud, cell(), influence.points, index)
        apart2 = np.square(places[:, None] - places[None]).sum(axis=2)
        expected += amplitude @ np.exp(-apart2 / 3.0**2) @ amplitude
    found = noise_variance(cloud, cell(), influence.points, influence.gradient)
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("length_px", [0.0, 1.0, 3.0, 25.0])
def test_whole_pixels_are_exact_and_others_close(length_px: float) -> None:
    rng = np.random.default_rng(2)
    pixels = np.stack(np.meshgrid(np.arange(40.0), np.arange(30.0)), axis=-1).reshape(-1, 2)[rng.random(1200) < 0.7]
    amplitude = rng.normal(1.0, 0.5, len(pixels))
    for places, tolerance in (
        (pixels, 2e-3 if length_px <= 8 else 0.02),
        (pixels + rng.uniform(-0.5, 0.5, pixels.shape), 0.03),
    ):
        apart2 = np.square(places[:, None] - places[None]).sum(axis=2)
        alike = np.exp(-apart2 / length_px**2) if length_px else np.eye(len(places))
        expected = amplitude @ alike @ amplitude
        assert correlated_square(amplitude, places, length_px) == pytest.approx(expected, rel=tolerance)


def test_averaging_many_points_is_not_one_over_the_square_root(exact: Measured) -> None:
    scan = exact.scan
    points = np.flatnonzero(np.abs(scan.points_part[:, 2] - 0.008) < 1e-3)
    mean = np.full(len(points), 1 / len(points))
    naive = np.sqrt(np.square(mean * scan.cloud.random_sigma_m[points]).sum())
    stated = np.sqrt(noise_variance(scan.cloud, cell(), points, mean))
    drawn = [mean @ noise_of(scan, points, np.random.default_rng(seed)) for seed in range(200)]
    assert np.std(drawn) == pytest.approx(stated, rel=0.15)
    assert stated > 3 * naive


def noise_of(scan: Scan, points: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.float64]:
    """One draw of the points' noise: an image of each camera, as the simulator makes it."""
    cloud, total = scan.cloud, np.zeros(len(points))
    for index in range(len(cloud.serials)):
        image = correlated_noise((180, 240), 3.0, rng)
        column, row = np.rint(image_places(cloud, cell(), points, index)).astype(int).T
        inside = (column >= 0) & (column < 240) & (row >= 0) & (row < 180)
        total += np.where(inside, image[row.clip(0, 179), column.clip(0, 239)], 0) * np.sqrt(cloud.share[points, index])
    return np.asarray(total * cloud.random_sigma_m[points])


def test_blocks_of_points_answer_to_calibration_as_single_points_do(exact: Measured) -> None:
    scan, rng = exact.scan, np.random.default_rng(3)
    points = np.arange(len(scan.cloud))
    assert len(points) > 5000
    gradient = rng.normal(0.2, 1.0, len(points)) / len(points)
    expected = np.zeros(len(cell().joint_covariance))
    for index, serial in enumerate(scan.cloud.serials):
        lifts = calibration_jacobian(cell().camera(serial), scan.cloud.points_cell, scan.cloud.normals_cell)
        expected[cell().rows_of(serial)] = (gradient * scan.cloud.share[:, index]) @ lifts
    found = calibration_gradient(scan.cloud, cell(), points, gradient)
    spread = np.sqrt(np.diag(cell().joint_covariance))
    assert np.abs((found - expected) * spread).max() < 0.01 * np.abs(expected * spread).max()


@pytest.mark.parametrize("kind", ["step", "diameter", "coordinate", "height"])
@pytest.mark.parametrize("name", ["ry_rad", "tz_m", "cx_px", "disparity_offset_px"])
def test_moving_a_parameter_moves_a_reading_as_the_budget_says(exact: Measured, kind: str, name: str) -> None:
    """The whole path, with the same noise and the camera off by two standard uncertainties to either side."""
    camera = cell().cameras["1002"]
    row = cell().rows_of("1002").start + camera.parameter_names.index(name)
    size = 2 * camera.u(name)
    ends = [off_by(row, sign * size).readings[kind].value for sign in (1, -1)]
    influence = exact.readings[kind].influence
    stated = calibration_gradient(exact.scan.cloud, cell(), influence.points, influence.gradient)
    stated = stated + influence.pose @ exact.scan.alignment.calibration_gain
    # The budget says what the reading does when the cell errs by a unit; here the cell stands and the truth moves.
    u_m = uncertainty_budget(influence, exact.scan).rows[1].u
    tolerance_m = 0.1 * abs(stated[row] * size) + 0.3 * u_m
    assert abs((ends[1] - ends[0]) / 2 - stated[row] * size) < tolerance_m


@cache
def off_by(row: int, size: float) -> Measured:
    off = np.zeros(len(cell().joint_covariance))
    off[row] = size
    return measured(cell_off_by(cell(), off), 1)


def test_what_lifts_a_face_and_the_part_alike_cancels(exact: Measured) -> None:
    """The height of a face in the part's frame, when all cameras stand too high together."""
    scan, influence = exact.scan, exact.readings["height"].influence
    together = np.zeros(len(cell().joint_covariance))
    for serial, camera in cell().cameras.items():
        together[cell().rows_of(serial).start + camera.parameter_names.index("tz_m")] = 1.0
    by_points = calibration_gradient(scan.cloud, cell(), influence.points, influence.gradient) @ together
    by_pose = influence.pose @ scan.alignment.calibration_gain @ together
    assert by_points == pytest.approx(1.0, abs=0.02)
    assert abs(by_points + by_pose) < 0.02
    unknown = replace(scan, alignment=replace(scan.alignment, calibration_gain=np.zeros((6, 0))))
    assert uncertainty_budget(influence, unknown).rows[1].u > 1.5 * uncertainty_budget(influence, scan).rows[1].u


def test_rows_add_up_by_squares_and_noise_can_be_stated(exact: Measured) -> None:
    influence = exact.readings["step"].influence
    budget = uncertainty_budget(influence, exact.scan, noise_u=3e-5, extra=(("edge", 4e-5),))
    assert [row.source for row in budget.rows] == ["noise", "calibration", "pose of the part", "edge"]
    assert budget.rows[0].u == 3e-5
    assert budget.u == pytest.approx(np.sqrt(sum(row.u**2 for row in budget.rows)))
    assert sum(budget.share(row) for row in budget.rows) == pytest.approx(1.0)
    assert uncertainty_budget(Influence.none(), exact.scan).u == 0.0


def test_what_is_no_uncertainty_is_refused(exact: Measured) -> None:
    with pytest.raises(DepthcellError, match="'edge' must be a standard uncertainty"):
        uncertainty_budget(Influence.none(), exact.scan, extra=(("edge", -1.0),))
    beyond = Influence.of(np.array([len(exact.scan.cloud)]), np.ones(1))
    with pytest.raises(DepthcellError, match="beyond"):
        uncertainty_budget(beyond, exact.scan)


@pytest.mark.slow
def test_monte_carlo_of_parameters_noise_and_poses_gives_the_stated_uncertainty() -> None:
    """JCGM 101: draws of everything at once through the whole path, for the four gauges."""
    rng = np.random.default_rng(11)
    errors: dict[str, list[float]] = {kind: [] for kind in GAUGES}
    stated: dict[str, list[float]] = {kind: [] for kind in GAUGES}
    for seed in range(250):
        moved = POSE.perturbed(np.concatenate((rng.normal(0, 3e-3, 3), rng.normal(0, 3e-4, 3))))
        try:
            seen = measured(drawn_cell(cell(), rng), seed, moved)
        except DepthcellError:  # a wall of 4 mm height now and then does not settle: refused, not misread
            continue
        for kind, reading in seen.readings.items():
            errors[kind].append(reading.value - TRUE_M[kind])
            stated[kind].append(uncertainty_budget(reading.influence, seen.scan).u)
    assert len(errors["step"]) >= 240
    for kind in GAUGES:
        rms, u = np.sqrt(np.mean(np.square(errors[kind]))), np.sqrt(np.mean(np.square(stated[kind])))
        assert 0.7 < rms / u < 1.15, kind
        held = np.mean(np.abs(errors[kind]) <= 2 * np.array(stated[kind]))
        assert held > 0.915, kind
