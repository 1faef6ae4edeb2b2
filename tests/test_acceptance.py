"""Acceptance tests on artefacts: what is fitted, how sure it is, and how it is decided."""

import math
from dataclasses import replace

import numpy as np
import pytest
from artefactscene import Surface, erring_cell, measured, plate, scene_cell, sphere, together

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.verify.acceptance import (
    Characteristic,
    Limits,
    TestValue,
    error_value,
    expected_range,
    judged,
    outcome,
    trimmed_range,
    worst,
)
from depthcell.calib.verify.acceptance_evaluation import DIAMETER, evaluate
from depthcell.calib.verify.acceptance_points import SurfacePoints, distance_jacobian, systematic_u_m
from depthcell.calib.verify.acceptance_shapes import (
    find_plate,
    find_spheres,
    fit_plane,
    fit_sphere,
    sphere_bias_m,
)
from depthcell.calib.verify.acceptance_steps import find_faces, fit_faces
from depthcell.calib.verify.artefact import Artefact, BallBar, BoardArtefact, Plate, Sphere, StepGauge
from depthcell.errors import DepthcellError

SPHERE = Sphere(kind="sphere", diameter_mm=50, diameter_u_mm=0.001)
BAR = BallBar(
    kind="ball_bar",
    diameter_a_mm=40,
    diameter_a_u_mm=0.001,
    diameter_b_mm=50,
    diameter_b_u_mm=0.001,
    distance_mm=1e3 * math.dist((-0.06, 0.0, 0.02), (0.07, 0.02, 0.0)),
    distance_u_mm=0.002,
)
PLATE = Plate(kind="plate", width_mm=200, height_mm=150, flatness_mm=0.0)
STEPS = StepGauge(kind="step_gauge", width_mm=120, depth_mm=60, heights_mm=(0, 10, 25), heights_u_mm=(0, 0.002, 0.002))
FLOOR = plate(RigidTransform("cell", "plate", np.eye(3), np.array([0, 0, -0.3])), (2.0, 2.0))
TILTED = RigidTransform.from_rotation_vector("cell", "plate", np.array([0.1, -0.15, 0.2]), np.array([0.01, 0, 0.01]))


def bar_surfaces() -> list[Surface]:
    return [sphere((-0.06, 0.0, 0.02), 0.04), sphere((0.07, 0.02, 0.0), 0.05), FLOOR]


def gauge_surfaces(heights_mm: tuple[float, ...] = (0, 10, 25)) -> list[Surface]:
    shifts = [np.array([-0.04 + 0.04 * n, 0.0, h / 1e3]) for n, h in enumerate(heights_mm)]
    faces = [plate(TILTED @ RigidTransform("plate", "plate", np.eye(3), shift), (0.04, 0.06)) for shift in shifts]
    return [*faces, FLOOR]


@pytest.fixture(scope="module")
def cell() -> Cell:
    return scene_cell()


def seen(surfaces: list[Surface], cell: Cell, seed: int = 0, truth: Cell | None = None) -> dict[str, SurfacePoints]:
    return measured(surfaces, cell, truth or cell, np.random.default_rng(seed))


def test_a_sphere_is_found_before_its_background_and_fitted(cell: Cell) -> None:
    points = together(seen([sphere((0.01, 0.0, 0.02), 0.05), FLOOR], cell))
    (members,) = find_spheres(points, [0.05])
    on_sphere = np.abs(np.linalg.norm(points.points_cell - (0.01, 0.0, 0.02), axis=1) - 0.025) < 0.003
    assert np.mean(np.isin(np.flatnonzero(on_sphere), members)) > 0.98
    assert on_sphere[members].mean() > 0.999
    fit = fit_sphere(points[members], 0.025)
    assert fit.parameters == pytest.approx([0.01, 0.0, 0.02, 0.025], abs=2e-4)


def test_a_sphere_fit_follows_its_points_to_first_order(cell: Cell) -> None:
    points = seen([sphere((0.01, 0.0, 0.02), 0.05)], cell)["1001"].thinned(200)
    fit = fit_sphere(points, 0.025)
    push_m = np.random.default_rng(1).normal(0, 1e-7, len(points))
    moved = replace(points, points_cell=points.points_cell + push_m[:, None] * fit.directions)
    assert fit_sphere(moved, 0.025).parameters - fit.parameters == pytest.approx(fit.gain @ push_m, rel=1e-3, abs=1e-10)


def test_the_bias_that_noise_gives_a_sphere_is_known(cell: Cell) -> None:
    """Twice the noise of the cell, so that the bias, four times as large, stands out of 40 spheres."""
    one = Cell(cell.name, {"1001": cell.camera("1001")}, cell.calibrated_at)
    diameters_m, biases_m = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        points = measured([sphere((0.07, 0.02, 0.0), 0.05)], one, one, rng, noise_px=0.06)["1001"].thinned(600)
        fit = fit_sphere(points, 0.025)
        diameters_m.append(DIAMETER @ fit.parameters)
        biases_m.append(DIAMETER @ sphere_bias_m(fit, one))
    u_m = float(np.std(diameters_m)) / math.sqrt(40)
    assert np.mean(biases_m) < -1e-4
    assert np.mean(diameters_m) - np.mean(biases_m) == pytest.approx(0.05, abs=3 * u_m)


def test_both_spheres_of_a_bar_are_told_apart(cell: Cell) -> None:
    points = seen(bar_surfaces(), cell)["1001"]
    small, large = find_spheres(points, [0.04, 0.05])
    assert points.points_cell[small][:, 0].max() < 0 < points.points_cell[large][:, 0].min()
    swapped_large, swapped_small = find_spheres(points, [0.05, 0.04])
    assert np.array_equal(small, swapped_small)
    assert np.array_equal(large, swapped_large)


@pytest.mark.parametrize("diameter_m", [0.02, 0.09])
def test_a_sphere_of_another_size_is_not_taken(cell: Cell, diameter_m: float) -> None:
    points = seen([sphere((0.01, 0.0, 0.02), 0.05), FLOOR], cell)["1001"]
    with pytest.raises(DepthcellError, match="no sphere of"):
        find_spheres(points, [diameter_m])


def test_a_scene_without_a_sphere_has_none(cell: Cell) -> None:
    with pytest.raises(DepthcellError, match="no sphere of 50 mm"):
        find_spheres(seen([plate(TILTED, (0.2, 0.15)), FLOOR], cell)["1001"], [0.05])


def test_a_plate_is_found_before_a_larger_floor(cell: Cell) -> None:
    points = seen([plate(TILTED, (0.2, 0.15)), FLOOR], cell)["1001"]
    members = find_plate(points, PLATE.size_m)
    height_m = (TILTED.inverse() @ points.points_cell)[:, 2]
    assert np.abs(height_m[members]).max() < 0.005
    assert len(members) > 0.98 * np.sum(np.abs(height_m) < 0.002)
    assert fit_plane(points[members]).directions[0] == pytest.approx(TILTED.rotation[:, 2], abs=2e-3)
    with pytest.raises(DepthcellError, match="no plane of up to 50 x 40 mm"):
        find_plate(points, (0.05, 0.04))


def test_the_faces_of_a_gauge_are_found_with_their_heights(cell: Cell) -> None:
    points = seen(gauge_surfaces(), cell)["1001"]
    faces = find_faces(points, [0.0, 0.010, 0.025], 0.12)
    height_m = (TILTED.inverse() @ points.points_cell)[:, 2]
    for face, wanted_m in zip(faces, (0.0, 0.010, 0.025), strict=True):
        assert len(face) > 500
        assert height_m[face].mean() == pytest.approx(wanted_m, abs=4e-4)
    number = np.repeat(np.arange(3), [len(face) for face in faces])
    fit = fit_faces(points[np.concatenate(faces)], number)
    assert np.diff(fit.parameters[:3]) == pytest.approx([0.010, 0.015], abs=4e-4)
    with pytest.raises(DepthcellError, match="not all faces"):
        find_faces(points, [0.0, 0.010, 0.060], 0.12)


def test_points_move_with_the_cell_as_its_jacobian_says(cell: Cell) -> None:
    """The slow twin: measure without noise by a cell whose one parameter is off, and look how far points moved."""
    points = seen([plate(TILTED, (0.2, 0.15))], cell)["1002"].thinned(50)
    directions = np.tile(TILTED.rotation[:, 2], (len(points), 1))
    jacobian = distance_jacobian(points, directions, cell)
    camera = cell.camera("1002")
    rows = cell.rows_of("1002")
    step = 1e-6
    moved = replace(camera, T_cell_depth=camera.T_cell_depth.perturbed(np.array([0, step, 0, 0, 0, 0])))
    points_cam = camera.T_cell_depth.inverse() @ points.points_cell
    difference = (moved.T_cell_depth @ points_cam - points.points_cell) / step
    along = np.einsum("ij,ij->i", difference, directions)
    assert jacobian[:, rows][:, 1] == pytest.approx(along, abs=1e-5)
    scale = camera.parameter_names.index("scale")
    ray = points_cam - 0.0
    per_scale = np.einsum("ij,ij->i", camera.T_cell_depth.rotate(ray), directions)
    assert jacobian[:, rows][:, scale] == pytest.approx(per_scale, rel=1e-6)
    assert not jacobian[:, cell.rows_of("1001")].any()


def test_a_merged_point_moves_with_each_camera_by_its_share(cell: Cell) -> None:
    points = seen([plate(TILTED, (0.2, 0.15))], cell)["1001"].thinned(20)
    alone = distance_jacobian(points, points.normals_cell, cell)
    shared = replace(points, share=np.tile([0.25, 0.75], (len(points), 1)), serials=("1001", "1002"))
    both = distance_jacobian(shared, points.normals_cell, cell)
    assert both[:, cell.rows_of("1001")] == pytest.approx(0.25 * alone[:, cell.rows_of("1001")])
    assert both[:, cell.rows_of("1002")].any()


def test_errors_that_cameras_share_do_not_change_a_distance(cell: Cell) -> None:
    """A cell whose cameras all shift together measures a bar as one whose cameras are exact."""
    size = len(cell.joint_covariance)
    shift = np.zeros((size, 3))
    for serial in cell.cameras:
        shift[cell.rows_of(serial)][3:6] = np.eye(3)
    together_m2 = 1e-6 * shift @ shift.T
    cameras = {
        serial: replace(camera, covariance=together_m2[cell.rows_of(serial), cell.rows_of(serial)])
        for serial, camera in cell.cameras.items()
    }
    moved = Cell(cell.name, cameras, cell.calibrated_at, together_m2)
    points = together(seen(bar_surfaces(), cell))
    small, large = (points[members] for members in find_spheres(points, [0.04, 0.05]))
    fits = fit_sphere(small.thinned(), 0.02), fit_sphere(large.thinned(), 0.025)
    along = np.append(fits[1].parameters[:3] - fits[0].parameters[:3], 0.0)
    along /= np.linalg.norm(along)
    per_parameter = fits[1].per_parameter(along, moved) - fits[0].per_parameter(along, moved)
    assert systematic_u_m(per_parameter, moved) < 1e-8
    independent = Cell(cell.name, cameras, cell.calibrated_at)
    assert systematic_u_m(per_parameter, independent) > 1e-5


def test_the_range_leaves_out_the_farthest_few() -> None:
    distances_m = np.concatenate((np.linspace(-1e-3, 1e-3, 1000), [0.05, -0.05, 0.02]))
    assert trimmed_range(distances_m) == pytest.approx(2e-3)
    assert trimmed_range(distances_m, share=0.0) == pytest.approx(0.1)


def test_an_expected_range_is_that_of_fresh_measurements(cell: Cell) -> None:
    found, expected = [], None
    for seed in range(25):
        points = seen([sphere((0.01, 0.0, 0.02), 0.05)], cell, seed)["1001"]
        fit = fit_sphere(points, 0.025)
        found.append(trimmed_range(fit.residuals_m))
        expected = expected or expected_range(fit_sphere(points.thinned(600), 0.025), cell, np.random.default_rng(9))
    assert expected is not None
    assert np.mean(found) == pytest.approx(expected.mean_m, abs=3.5 * expected.total_m / 5)
    assert np.std(found) == pytest.approx(expected.total_m, rel=0.6)


@pytest.mark.parametrize(
    ("artefact", "surfaces", "tests"),
    [
        (SPHERE, [sphere((0.01, 0.0, 0.02), 0.05), FLOOR], ["PF", "PS"]),
        (BAR, bar_surfaces(), ["PF", "PS", "PF", "PS", "SD"]),
        (PLATE, [plate(TILTED, (0.2, 0.15)), FLOOR], ["F"]),
        (STEPS, gauge_surfaces(), ["H", "H"]),
    ],
)
def test_a_true_cell_passes_on_every_artefact(
    cell: Cell, artefact: Artefact, surfaces: list[Surface], tests: list[str]
) -> None:
    evaluated = evaluate(artefact, together(seen(surfaces, cell)), cell, np.random.default_rng(1))
    assert [value.characteristic.value for value in evaluated.values] == tests
    tested = judged(evaluated.values, Limits())
    assert outcome(tested), [one.in_words for one in tested]
    assert len(evaluated.residuals_m) == len(evaluated.points)


def wrong_by(cell: Cell, correction: DepthCorrection) -> Cell:
    """The cell's cameras as they would be if each depth correction were other than the cell says."""
    cameras = {serial: replace(camera, correction=correction) for serial, camera in cell.cameras.items()}
    return Cell(cell.name, cameras, cell.calibrated_at)


@pytest.mark.parametrize(
    ("artefact", "surfaces", "source", "characteristic", "truth"),
    [
        (BAR, bar_surfaces(), "1001", "SD", DepthCorrection(scale=1.02)),
        (STEPS, gauge_surfaces(), "1001", "H", DepthCorrection(scale=1.03)),
        (SPHERE, [sphere((0.01, 0.0, 0.02), 0.05), FLOOR], "merged", "PS", DepthCorrection(scale=1.003)),
        (PLATE, [plate(TILTED, (0.2, 0.15)), FLOOR], "1001", "F", DepthCorrection(disparity_offset_px=1.5)),
    ],
)
def test_a_cell_that_errs_more_than_it_says_fails(
    cell: Cell, artefact: Artefact, surfaces: list[Surface], source: str, characteristic: str, truth: DepthCorrection
) -> None:
    """The negative control: depth wrong by 0.3 % to 3 %, or 1.5 px, where the cell claims 0.03 % and 0.02 px."""
    points = seen(surfaces, cell, truth=wrong_by(cell, truth))
    measured_points = together(points) if source == "merged" else points[source]
    tested = judged(evaluate(artefact, measured_points, cell, np.random.default_rng(1)).values, Limits())
    assert outcome(tested) is False
    assert any(one.passed is False and one.value.characteristic == characteristic for one in tested)


def test_a_bumped_camera_shows_in_the_form_of_the_merged_cloud(cell: Cell) -> None:
    bumped = replace(
        cell.camera("1002"), T_cell_depth=cell.camera("1002").T_cell_depth.perturbed(np.array([0, 0, 0, 0, 2.5e-3, 0]))
    )
    truth = Cell(cell.name, {**cell.cameras, "1002": bumped}, cell.calibrated_at)
    points = seen([sphere((0.01, 0.0, 0.02), 0.05), FLOOR], cell, truth=truth)
    for source, passed in (("merged", False), ("1002", True)):
        part = together(points) if source == "merged" else points[source]
        form, _ = judged(evaluate(SPHERE, part, cell, np.random.default_rng(1)).values, Limits())
        assert form.value.characteristic is Characteristic.PROBING_FORM
        assert form.passed is passed


def test_a_board_has_no_certified_shape(cell: Cell) -> None:
    board = BoardArtefact(kind="board", board="charuco:9x6:30mm")
    with pytest.raises(DepthcellError, match="drift check"):
        evaluate(board, seen([FLOOR], cell)["1001"], cell, np.random.default_rng(0))


def value(characteristic: Characteristic, value_mm: float, u_mm: float = 0.01, source: str = "merged") -> TestValue:
    return TestValue(characteristic, source, "place_1", value_mm / 1e3, 0.05, u_mm / 1e3, 0.0, 0.05e-3)


def test_a_stated_limit_is_decided_by_guard_bands_of_the_test_alone() -> None:
    limits = Limits.parse(["PS=0.1mm"])
    for value_mm, passed in ((0.08, True), (-0.08, True), (0.09, None), (0.11, None), (-0.12, False)):
        (tested,) = judged([value(Characteristic.PROBING_SIZE, value_mm)], limits)
        assert tested.passed is passed
        assert tested.limit_is_stated
        assert outcome([tested]) is passed
    assert outcome([]) is None


def test_more_tests_need_wider_limits_of_the_cell() -> None:
    one = judged([value(Characteristic.PROBING_SIZE, 0.0)], Limits())
    many = judged([value(Characteristic.PROBING_SIZE, 0.0)] * 50, Limits())
    assert one[0].limit_m == pytest.approx(1.95996 * one[0].value.u_m, rel=1e-5)
    assert many[0].limit_m == pytest.approx(3.29053 * one[0].value.u_m, rel=1e-5)


def test_the_worst_of_each_source_is_told() -> None:
    values = [
        value(Characteristic.PROBING_SIZE, 0.05),
        value(Characteristic.PROBING_SIZE, -0.07),
        value(Characteristic.PROBING_SIZE, 0.02, source="1001"),
        value(Characteristic.FLATNESS, 0.02),
    ]
    told = worst(judged(values, Limits.parse(["PS=0.1mm", "F=1mm"])))
    assert [(t.value.characteristic.value, t.value.source, round(t.value.value_m * 1e3, 3)) for t in told] == [
        ("F", "merged", 0.02),
        ("PS", "merged", -0.07),
        ("PS", "1001", 0.02),
    ]


@pytest.mark.parametrize("text", ["PS", "PS=", "PS=-1mm", "XX=1mm", "PS=nan", "=1mm"])
def test_a_limit_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(DepthcellError, match="--limit"):
        Limits.parse([text])
    with pytest.raises(DepthcellError, match="twice"):
        Limits.parse(["PS=1mm", "ps=2mm"])


@pytest.mark.slow
def test_intervals_of_size_and_spacing_hold_the_truth(cell: Cell) -> None:
    """95 % intervals over 240 cells that err by their covariance, each with fresh noise: 93 to 97 %."""
    inside: dict[tuple[str, str], list[bool]] = {}
    for seed in range(240):
        rng = np.random.default_rng(seed)
        points = measured(bar_surfaces()[:2], cell, erring_cell(cell, rng), rng)
        for source, part in {"1001": points["1001"], "merged": together(points)}.items():
            members = find_spheres(part, [0.04, 0.05])
            fits = [fit_sphere(part[m].thinned(), r) for m, r in zip(members, (0.02, 0.025), strict=True)]
            found = [fit.parameters - sphere_bias_m(fit, cell) for fit in fits]
            along = np.append(found[1][:3] - found[0][:3], 0.0)
            length_m = float(np.linalg.norm(along))
            along /= length_m
            certified = (BAR.distance_m, 0.0)
            spacing = error_value(
                Characteristic.SPHERE_SPACING, length_m, certified, [(fits[1], along), (fits[0], -along)], cell
            )
            size = error_value(
                Characteristic.PROBING_SIZE, 2 * float(found[1][3]), (0.05, 0.0), [(fits[1], DIAMETER)], cell
            )
            for one in (spacing, size):
                inside.setdefault((source, one.characteristic), []).append(abs(one.value_m) < 1.96 * one.u_m)
    shares = {key: float(np.mean(hits)) for key, hits in inside.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


def test_a_floor_in_the_plane_of_the_plate_is_left_out(cell: Cell) -> None:
    """A tilted plate whose plane, far off, cuts the floor: only what hangs together with the plate is of it."""
    steep = RigidTransform.from_rotation_vector("cell", "plate", np.array([0.0, 0.35, 0.0]), np.zeros(3))
    near_floor = plate(RigidTransform("cell", "plate", np.eye(3), np.array([0, 0, -0.05])), (2.0, 2.0))
    points = seen([plate(steep, (0.08, 0.08)), near_floor], cell)["1001"]
    members = find_plate(points, (0.08, 0.08))
    assert np.abs(steep.inverse() @ points.points_cell[members]).max() < 0.045


def test_faces_leave_out_their_own_edges(cell: Cell) -> None:
    """Steps so low that both faces are seen up to the edge; a matching window of some pixels would see both there."""
    points = seen(gauge_surfaces((0, 4, 8)), cell)["1001"]
    faces = find_faces(points, [0.0, 0.004, 0.008], 0.12)
    middle_m = (TILTED.inverse() @ points.points_cell)[faces[1], 0]
    assert -0.018 < middle_m.min() < middle_m.max() < 0.018
