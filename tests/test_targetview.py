"""Images of simulated targets: corners and depth where geometry says, against plain slow ways and broken ones."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.simulator import targetview
from depthcell.acquisition.simulator.appearance import Lamp
from depthcell.acquisition.simulator.shapes import Ball, Shape, Sheet, Warp
from depthcell.acquisition.simulator.targetbodies import Target, artefact_bodies, ground_below
from depthcell.acquisition.simulator.targetview import light_of, seen_from, view_of
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.simulated_run import board_print
from depthcell.calib.target.board import Board
from depthcell.calib.target.detect import detect

BOARD = Board.parse("charuco:9x6:30mm")
PRINT = board_print(BOARD)
WARP = Warp(2.5e-4, -2e-4, PRINT.features_m)
LENS = Intrinsics(848, 480, 611.0, 610.6, 424.1, 238.7, Distortion.BROWN_CONRADY, (0.12, -0.22, 5e-4, -3e-4, 0.05))
LAMP = Lamp((-0.45, -0.6, 1.25), 0.6, 0.4)
T_CELL_BOARD = RigidTransform("cell", "board", np.diag([1.0, -1.0, -1.0]), np.zeros(3))
GROUND = ground_below(np.array([0.1, -0.06, 0.0]), 0.5)
BASELINE_M = 0.055


def camera(seed: int) -> RigidTransform:
    """`T_cell_cam` from somewhere before the board."""
    rng = np.random.default_rng(seed)
    tilt, azimuth = np.radians(rng.uniform(0, 45)), rng.uniform(0, 2 * np.pi)
    turn = tilt * np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    shift = np.array([*(rng.uniform(-0.08, 0.08, 2) - (0.11, 0.06)), rng.uniform(0.42, 0.6)])
    return T_CELL_BOARD @ RigidTransform.from_rotation_vector("cam", "board", turn, shift).inverse()


def scene(warp: Warp | None = WARP) -> tuple[Shape, ...]:
    return Sheet(T_CELL_BOARD, PRINT.printed, warp), GROUND


def image(shapes: tuple[Shape, ...], T_cell_cam: RigidTransform, lens: Intrinsics = LENS) -> np.ndarray:
    light = light_of(view_of(shapes, T_cell_cam, lens), shapes, T_cell_cam, lens, LAMP)
    blurred = cv2.GaussianBlur(light, (0, 0), 0.7)
    noise = np.random.default_rng(1).normal(0, 1.5, light.shape)
    return np.clip(np.rint(180 * blurred + noise), 0, 255).astype(np.uint8)


def corner_errors_px(warp_believed: Warp | None, lens_believed: Intrinsics, seeds: range) -> np.ndarray:
    errors = []
    for seed in seeds:
        T_cell_cam = camera(seed)
        found = detect(BOARD, image(scene(), T_cell_cam))
        points_board = BOARD.points_board[found.ids].copy()
        if warp_believed is not None:
            points_board[:, 2] = warp_believed.height_m(points_board[:, 0], points_board[:, 1])
        T_cam_board = T_cell_cam.inverse() @ T_CELL_BOARD
        errors.append(found.pixels - lens_believed.project(T_cam_board @ points_board))
    return np.concatenate(errors)


def test_corners_are_found_where_the_lens_puts_them() -> None:
    errors = corner_errors_px(WARP, LENS, range(6))
    assert len(errors) > 200
    assert np.abs(errors.mean(axis=0)).max() < 0.005
    assert np.sqrt((errors**2).mean()) < 0.02


def test_neglecting_warp_or_lens_would_show() -> None:
    """The control of the test above: what is a fortieth of a pixel there is many times that here."""
    assert np.sqrt((corner_errors_px(None, LENS, range(2)) ** 2).mean()) > 0.05
    undistorted = replace(LENS, distortion=Distortion.NONE, coefficients=(0.0,) * 5)
    assert np.sqrt((corner_errors_px(WARP, undistorted, range(2)) ** 2).mean()) > 0.3


def test_depth_lies_on_the_bent_sheet_along_the_true_ray() -> None:
    T_cell_cam = camera(2)
    view = view_of(scene(), T_cell_cam, LENS)
    on_sheet = view.shape == 0
    assert on_sheet.sum() > 30_000
    rows, columns = np.nonzero(on_sheet)
    ideal = LENS.normalized(np.stack((columns, rows), axis=-1).astype(np.float64))
    depth_m = view.depth_m[on_sheet].astype(np.float64)
    points_cam = np.concatenate((ideal, np.ones((len(ideal), 1))), axis=1) * depth_m[:, None]
    x, y, z = np.moveaxis(T_CELL_BOARD.inverse() @ T_cell_cam @ points_cam, -1, 0)
    np.testing.assert_allclose(z, WARP.height_m(x, y), atol=2e-7)
    np.testing.assert_allclose(view.points_cell[on_sheet], T_cell_cam @ points_cam, atol=5e-7)
    ray = T_cell_cam.rotate(points_cam / np.linalg.norm(points_cam, axis=1, keepdims=True))
    cosine = -(view.normals_cell[on_sheet] * ray).sum(axis=1)
    np.testing.assert_allclose(view.cosine[on_sheet], cosine, atol=1e-5)


def test_the_window_of_a_body_is_only_a_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    pose = RigidTransform.from_rotation_vector("cell", "artefact", np.array([0.2, 0.1, 0.8]), np.array([0.1, -0.06, 0]))
    shapes = (
        *artefact_bodies(Target.STEP_GAUGE, pose),
        Ball(pose @ RigidTransform("artefact", "ball", np.eye(3), np.array([0.2, 0.0, 0.0])), 0.02),
        GROUND,
    )
    T_cell_cam = camera(5)
    right_cell = T_cell_cam @ np.array([BASELINE_M, 0, 0])
    view = view_of(shapes, T_cell_cam, LENS)
    seen = seen_from(view, shapes, T_cell_cam, LENS, right_cell)
    whole = slice(0, LENS.height_px), slice(0, LENS.width_px)
    monkeypatch.setattr(targetview, "_window", lambda *_: whole)
    slow = view_of(shapes, T_cell_cam, LENS)
    np.testing.assert_array_equal(view.shape, slow.shape)
    np.testing.assert_array_equal(view.depth_m, slow.depth_m)
    np.testing.assert_array_equal(seen, seen_from(slow, shapes, T_cell_cam, LENS, right_cell))
    assert len(np.unique(view.shape)) == len(shapes)


def test_what_the_right_imager_misses_lies_left_of_the_sheet_by_the_difference_of_disparity() -> None:
    straight = RigidTransform("cell", "cam", np.diag([1.0, -1.0, -1.0]), np.array([0.105, -0.06, 0.5]))
    lens = Intrinsics(848, 480, 611.0, 611.0, 423.5, 239.5)
    shapes = scene(None)
    view = view_of(shapes, straight, lens)
    seen = seen_from(view, shapes, straight, lens, straight @ np.array([BASELINE_M, 0, 0]))
    row = 240
    left = np.flatnonzero(view.shape[row] == 0)[0]
    hidden = np.flatnonzero(~seen[row])
    ground_m = 0.5 + 0.75 * 0.5
    width_px = lens.fx_px * BASELINE_M * (1 / 0.5 - 1 / ground_m)
    assert hidden[-1] == left - 1
    assert len(hidden) == pytest.approx(width_px, abs=1)


def test_four_rays_across_a_pixel_are_as_good_as_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    T_cell_cam, small = camera(6), Intrinsics(424, 240, 305.0, 305.0, 211.5, 119.5)
    fast = image(scene(), T_cell_cam, small).astype(float)
    monkeypatch.setattr(targetview, "STEPS", 16)
    slow = image(scene(), T_cell_cam, small).astype(float)
    assert np.abs(fast - slow).max() <= 6
    monkeypatch.setattr(targetview, "STEPS", 1)
    assert np.abs(image(scene(), T_cell_cam, small).astype(float) - slow).max() > 20


def test_a_board_is_seen_in_part_and_its_back_not_at_all() -> None:
    aside = RigidTransform("cell", "cam", np.diag([1.0, -1.0, -1.0]), np.array([-0.18, -0.06, 0.45]))
    found = detect(BOARD, image(scene(), aside))
    assert 5 < len(found.ids) < 35
    behind = RigidTransform("cell", "cam", np.eye(3), np.array([0.1, -0.06, -0.3]))
    sheet = (Sheet(T_CELL_BOARD, PRINT.printed, None),)
    assert len(detect(BOARD, image(sheet, behind)).ids) == 0
    view = view_of(sheet, behind, LENS)
    assert (view.shape == 0).any()
    assert view.cosine.max() == 0


def test_where_nothing_is_there_is_no_light() -> None:
    up = RigidTransform("cell", "cam", np.eye(3), np.array([0.0, 0.0, 1.0]))
    view = view_of(scene(), up, LENS)
    assert np.isnan(view.depth_m).all()
    assert not light_of(view, scene(), up, LENS, LAMP).any()
