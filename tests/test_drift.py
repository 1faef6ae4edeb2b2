"""Drift: a bumped camera is named and measured, a steady cell is left in peace."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from artefactscene import SERIALS, erring_cell, measured, plate, scene_cell, sphere

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.calib.target.board import Board
from depthcell.calib.verify.drift import DriftReference, Sighting, check_drift, reference_path
from depthcell.calib.verify.drift_sighting import (
    BoardSeen,
    board_turn,
    plate_middle,
    sighting_of_board,
    sighting_of_plate,
    sighting_of_spheres,
)
from depthcell.calib.verify.drift_trend import depth_trend
from depthcell.errors import DepthcellError

BALL = sphere((0.01, 0.0, 0.02), 0.05)
TILTED = RigidTransform.from_rotation_vector("cell", "plate", np.array([0.1, -0.15, 0.2]), np.array([0.01, 0, 0.01]))
BOARD = Board.parse("charuco:9x6:15mm")
T_CELL_BOARD = RigidTransform.from_rotation_vector(
    "cell", "board", np.array([3.0, 0.1, 0.1]), np.array([-0.06, 0.04, 0])
)


@pytest.fixture(scope="module")
def cell() -> Cell:
    return scene_cell()


def bumped(cell: Cell, serial: str, twist: tuple[float, ...]) -> Cell:
    """A cell of which one camera stands elsewhere than it says; twist in rad about the cell's origin, and m."""
    camera = cell.camera(serial)
    moved = replace(camera, T_cell_depth=camera.T_cell_depth.perturbed(np.array(twist)))
    return Cell(cell.name, {**cell.cameras, serial: moved}, cell.calibrated_at)


def balls(cell: Cell, truth: Cell, seed: int = 0) -> dict[str, Sighting]:
    points = measured([BALL], cell, truth, np.random.default_rng(seed))
    return {serial: sighting_of_spheres(part, (0.05,), cell) for serial, part in points.items()}


def boards_from_up(cell: Cell, truth: Cell, seed: int) -> dict[str, Sighting]:
    """With turns counted from how the board truly lies, each time the same."""
    turn = T_CELL_BOARD.rotation_vector_rad
    return {serial: sighting_of_board(one, BOARD, turn, cell) for serial, one in pictured(cell, truth, seed).items()}


def boards(cell: Cell, truth: Cell, seed: int = 0, from_turn: float = 0.0) -> dict[str, Sighting]:
    """With turns counted from how the first camera finds it, or from so much beside."""
    seen = pictured(cell, truth, seed)
    turn = board_turn(seen[next(iter(seen))], BOARD, cell) + from_turn
    return {serial: sighting_of_board(one, BOARD, turn, cell) for serial, one in seen.items()}


def pictured(cell: Cell, truth: Cell, seed: int) -> dict[str, BoardSeen]:
    """The board as each camera's imager sees it, with noise in the features."""
    sigma_px = 0.05
    rng, ids, seen = np.random.default_rng(seed), np.arange(len(BOARD.points_board)), {}
    for serial in cell.cameras:
        camera = truth.camera(serial)
        points_cam = camera.T_cell_depth.inverse() @ (T_CELL_BOARD @ BOARD.points_board)
        pixels = camera.depth.project(points_cam) + rng.normal(0, sigma_px, (len(ids), 2))
        seen[serial] = BoardSeen(serial, ids, pixels, sigma_px)
    return seen


def plates(cell: Cell, truth: Cell, seed: int = 0) -> dict[str, Sighting]:
    points = measured([plate(TILTED, (0.2, 0.15))], cell, truth, np.random.default_rng(seed))
    middle = plate_middle(points["1001"], (0.2, 0.15))
    return {serial: sighting_of_plate(part, (0.2, 0.15), middle, cell) for serial, part in points.items()}


@pytest.mark.parametrize(("see", "bump_mm"), [(balls, 4.0), (boards, 2.0), (plates, 3.0)])
def test_a_bumped_camera_is_named_with_how_far(cell: Cell, see: object, bump_mm: float) -> None:
    sight = {"balls": balls, "boards": boards, "plates": plates}[see.__name__]  # type: ignore[attr-defined]
    truth = bumped(cell, "1002", (0, 0, 0, 0, 0, bump_mm / 1e3))
    check = check_drift(sight(cell, truth), cell)
    assert not check.passed
    assert check.moved == ("1002",)
    assert "camera 1002 off by" in check.in_words
    shift = next(shift for shift in check.shifts if shift.serial == "1002")
    assert abs(shift.size_m - bump_mm / 1e3) < 3.5 * shift.u_m
    assert shift.u_m < bump_mm / 1e3 / 3


def test_a_steady_cell_passes(cell: Cell) -> None:
    for sight in (balls, boards, plates):
        check = check_drift(sight(cell, cell), cell)
        assert check.passed, check.in_words
        assert check.moved == ()
        assert "no camera has moved" in check.in_words


def test_a_turned_camera_is_named_by_the_board(cell: Cell) -> None:
    check = check_drift(boards(cell, bumped(cell, "1003", (0, 6e-3, 0, 0, 0, 0))), cell)
    assert check.moved == ("1003",)


def test_a_cell_that_errs_as_it_says_is_rarely_called_moved(cell: Cell) -> None:
    """1 % false alarms are meant; 60 cells that err by their covariance give no more than four."""
    alarms = [
        not check_drift(boards(cell, erring_cell(cell, np.random.default_rng(seed)), seed), cell).passed
        for seed in range(60)
    ]
    assert sum(alarms) <= 4


def test_the_statistic_is_of_chi_square(cell: Cell) -> None:
    statistics, freedom = [], 0
    for seed in range(100, 160):
        check = check_drift(boards(cell, erring_cell(cell, np.random.default_rng(seed)), seed), cell)
        statistics.append(check.statistic)
        freedom = check.freedom
    assert freedom == 12
    assert np.mean(statistics) == pytest.approx(freedom, abs=4 * math.sqrt(2 * freedom / 60))


def test_it_does_not_matter_from_where_turns_are_counted(cell: Cell) -> None:
    truth = erring_cell(cell, np.random.default_rng(5))
    near, far = (check_drift(boards(cell, truth, 6, from_turn), cell).statistic for from_turn in (0.0, 0.4))
    assert far == pytest.approx(near, rel=0.02)


def test_a_reference_shows_what_calibration_would_hide(cell: Cell) -> None:
    """The cell errs by its covariance; a camera then moves by less than that, which only the reference can show."""
    truth = erring_cell(cell, np.random.default_rng(4))
    reference = DriftReference.of(boards_from_up(cell, truth, 1), cell, BOARD.spec, "2026-01-02T03:04:05Z")
    moved = bumped(truth, "1001", (0, 0, 0, 0.2e-3, 0, 0))
    blind = check_drift(boards_from_up(cell, moved, 2), cell)
    assert blind.passed
    assert not blind.with_reference
    told = check_drift(boards_from_up(cell, moved, 2), cell, reference)
    assert told.with_reference
    assert told.moved == ("1001",)
    assert check_drift(boards_from_up(cell, truth, 4), cell, reference).passed


def test_two_cameras_cannot_tell_which_of_them_moved() -> None:
    pair = scene_cell(("1001", "1002"))
    check = check_drift(balls(pair, bumped(pair, "1002", (0, 0, 0, 0, 0, 5e-3))), pair)
    assert check.moved == ("1001", "1002")
    assert "either may have been bumped" in check.in_words


def test_two_moved_of_four_are_both_named() -> None:
    four = scene_cell((*SERIALS, "1004"))
    truth = bumped(bumped(four, "1002", (0, 0, 0, 0, 0, 4e-3)), "1003", (0, 0, 0, 5e-3, 0, 0))
    check = check_drift(boards(four, truth), four)
    assert set(check.moved) == {"1002", "1003"}


def test_one_camera_alone_is_refused(cell: Cell) -> None:
    seen = boards(cell, cell)
    with pytest.raises(DepthcellError, match="only 1001 did"):
        check_drift({"1001": seen["1001"]}, cell)


def test_a_board_in_sight_of_few_features_is_refused(cell: Cell) -> None:
    with pytest.raises(DepthcellError, match="sees 4 features"):
        sighting_of_board(BoardSeen("1001", np.arange(4), np.zeros((4, 2)), 0.05), BOARD, np.zeros(3), cell)


def test_a_reference_is_kept_beside_the_cell_and_of_this_cell_alone(cell: Cell, tmp_path: Path) -> None:
    path = reference_path(tmp_path / "cell.json")
    assert path.name == "cell.drift.json"
    reference = DriftReference.of(boards(cell, cell), cell, BOARD.spec, "2026-01-02T03:04:05Z")
    reference.save(path)
    assert DriftReference.load(path) == reference
    other = Cell("other", cell.cameras, cell.calibrated_at)
    with pytest.raises(DepthcellError, match="of another cell"):
        check_drift(boards(other, other), other, reference)
    path.write_text("{}")
    with pytest.raises(DepthcellError, match="record it again"):
        DriftReference.load(path)
    with pytest.raises(DepthcellError, match="cannot be read"):
        DriftReference.load(tmp_path / "none.json")


def series(
    slope_per_min: float = 0.0, jump: float = 0.0, count: int = 120, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A minute of depths, 1e-4 of noise in each."""
    times_s = np.linspace(0, 60, count)
    depths = 1 + slope_per_min * times_s / 60 + jump * (times_s > 25)
    return times_s, depths + np.random.default_rng(seed).normal(0, 1e-4, count)


def test_a_camera_that_warms_up_is_seen() -> None:
    trend = depth_trend("1001", *series(slope_per_min=3e-4), 1e-4, 5e-4)
    assert trend.is_running
    assert not trend.jumped
    assert abs(trend.slope_per_min - 3e-4) < 3 * trend.u_slope_per_min
    assert "still warms up" in trend.in_words


def test_a_bump_is_seen_as_a_jump_and_not_as_warming() -> None:
    trend = depth_trend("1001", *series(jump=-1e-3), 1e-4, 5e-4)
    assert trend.jumped
    assert not trend.is_running
    assert trend.jump == pytest.approx(-1e-3, abs=4 * trend.u_jump)
    assert trend.jump_at_s == pytest.approx(25, abs=1.1)
    assert "jumped" in trend.in_words


def test_a_steady_camera_is_left_in_peace() -> None:
    trends = [depth_trend("1001", *series(seed=seed), 1e-4, 5e-4) for seed in range(50)]
    assert not any(trend.jumped or trend.is_running for trend in trends)
    assert "steady" in trends[0].in_words
    assert np.std([trend.slope_per_min for trend in trends]) == pytest.approx(trends[0].u_slope_per_min, rel=0.4)


def test_a_trend_too_small_to_matter_is_let_go() -> None:
    assert not depth_trend("1001", *series(slope_per_min=3e-4), 1e-3, 5e-4).is_running


def test_noise_that_goes_on_makes_a_slope_less_sure() -> None:
    times_s, white = series()
    going_on = 1 + np.convolve(white - 1, np.ones(10) / math.sqrt(10), mode="same")
    assert (
        depth_trend("1", times_s, going_on, 0, 0).u_slope_per_min
        > 2 * depth_trend("1", times_s, white, 0, 0).u_slope_per_min
    )


def test_too_few_frames_tell_no_trend() -> None:
    with pytest.raises(DepthcellError, match="record a minute"):
        depth_trend("1001", np.arange(4.0), np.ones(4), 0, 0)
