"""Bodies of simulated targets: rays meet them where plain searches and other formulas say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from depthcell.acquisition.simulator.shapes import Ball, Block, Ground, Print, Shape, Sheet, Warp
from depthcell.acquisition.simulator.targetbodies import Target, artefact_bodies, plate_print
from depthcell.acquisition.transform import RigidTransform

EXTENT_M = (-0.03, -0.02, 0.24, 0.16)
WARP = Warp(3e-4, -2e-4, (0.0, 0.0, 0.21, 0.13))
HERE = RigidTransform.identity("cell", "body")
share = st.floats(-1, 1)


def printed() -> Print:
    image = np.random.default_rng(0).integers(0, 256, (180, 270), np.uint8)
    return Print(image, 1000.0, np.array([EXTENT_M[0], EXTENT_M[1]]) + 5e-4)


def rays(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """An eye before the body and directions about it, float64."""
    rng = np.random.default_rng(seed)
    eye = np.array([*rng.uniform(-0.2, 0.3, 2), -rng.uniform(0.3, 0.7)])
    aims = np.stack([*rng.uniform(-0.1, 0.25, (2, count)), rng.uniform(-0.05, 0.05, count)], axis=-1)
    return eye, aims - eye


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_bent_sheet_is_met_where_a_search_along_the_ray_finds_it(seed: int) -> None:
    eye, directions = rays(seed, 30)
    distance = Sheet(HERE, printed(), WARP).plane_met(eye, directions)

    def above_m(along: float, direction: np.ndarray) -> float:
        x, y, z = eye + along * direction
        return float(z - WARP.height_m(np.array(x), np.array(y)))

    for direction, found in zip(directions, distance, strict=True):
        flat = -eye[2] / direction[2]
        assert found == pytest.approx(brentq(above_m, 0.9 * flat, 1.1 * flat, (direction,), xtol=1e-15), abs=1e-9)


def test_a_sheet_ends_at_its_borders_and_bends_as_the_formula_says() -> None:
    sheet = Sheet(HERE, printed(), WARP)
    assert sheet.printed.extent_m == pytest.approx(EXTENT_M)
    eye = np.array([0.1, 0.07, -0.5])
    for aim, meets in (((0.235, 0.155), True), ((0.245, 0.05), False), ((0.1, -0.021), False), ((-0.029, 0.0), True)):
        direction = np.array([*aim, 0.0]) - eye
        assert bool(np.isfinite(sheet.met(eye, direction[None])[0])) is meets
    # In the middle both bends act in full, in a corner of the features neither does.
    assert WARP.height_m(np.array(0.105), np.array(0.065)) == pytest.approx(1e-4)
    assert WARP.height_m(np.array(0.0), np.array(0.13)) == pytest.approx(0, abs=1e-18)


@given(x=st.floats(-0.02, 0.23), y=st.floats(-0.01, 0.14))
def test_a_sheets_normal_is_across_its_slopes_and_towards_who_looks(x: float, y: float) -> None:
    step = 1e-5
    along_x, along_y = (
        np.array([step, 0, WARP.height_m(np.array(x + step), np.array(y)) - WARP.height_m(np.array(x), np.array(y))]),
        np.array([0, step, WARP.height_m(np.array(x), np.array(y + step)) - WARP.height_m(np.array(x), np.array(y))]),
    )
    normal = Sheet(HERE, printed(), WARP).normals(np.array([[x, y, 0.0]]))[0]
    assert np.linalg.norm(normal) == pytest.approx(1)
    assert normal[2] < 0
    assert abs(normal @ along_x) < 1e-4 * step
    assert abs(normal @ along_y) < 1e-4 * step


@given(seed=st.integers(0, 10_000), radius_m=st.floats(0.01, 0.1))
@settings(max_examples=25, deadline=None)
def test_a_ball_is_met_on_its_near_side(seed: int, radius_m: float) -> None:
    eye, directions = rays(seed)
    ball = Ball(HERE, radius_m)
    distance = ball.met(eye, directions)
    # Distance of the ray's line from the middle, by the cross product.
    apart_m = np.linalg.norm(np.cross(eye, directions), axis=1) / np.linalg.norm(directions, axis=1)
    clear = np.abs(apart_m - radius_m) > 1e-7
    np.testing.assert_array_equal(np.isfinite(distance)[clear], (apart_m < radius_m)[clear])
    met = np.isfinite(distance)
    points = eye + distance[met, None] * directions[met]
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), radius_m, atol=2e-6)
    assert ((points * directions[met]).sum(axis=1) < 1e-6).all()
    np.testing.assert_allclose(ball.normals(points), points / radius_m, atol=1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_block_is_met_at_the_nearest_of_its_faces(seed: int) -> None:
    eye, directions = rays(seed)
    half = np.random.default_rng(seed).uniform(0.01, 0.08, 3)
    block = Block(HERE, half)
    nearest = np.full(len(directions), np.inf)
    for axis in range(3):
        for side in (-1, 1):
            along = (side * half[axis] - eye[axis]) / directions[:, axis]
            points = eye + along[:, None] * directions
            others = [other for other in range(3) if other != axis]
            on_face = (np.abs(points[:, others]) < half[others]).all(axis=1) & (along > 0)
            nearest = np.minimum(nearest, np.where(on_face, along, np.inf))
    np.testing.assert_allclose(block.met(eye, directions), nearest, rtol=1e-6)
    met = np.isfinite(nearest)
    points = eye + nearest[met, None] * directions[met]
    normals = block.normals(points)
    np.testing.assert_allclose((np.abs(points) * np.abs(normals)).sum(axis=1), np.abs(normals) @ half, atol=1e-9)
    assert ((normals * directions[met]).sum(axis=1) < 0).all()


def test_the_ground_is_met_from_above_alone() -> None:
    ground = Ground(HERE)
    down, up = np.array([[0.1, 0.0, -1.0]]), np.array([[0.1, 0.0, 1.0]])
    eye = np.array([0.0, 0.0, 0.4])
    assert ground.met(eye, down)[0] == pytest.approx(0.4)
    assert np.isinf(ground.met(eye, up)[0])


@pytest.mark.parametrize("target", [target for target in Target if target is not Target.BOARD])
def test_a_body_lies_between_its_corners(target: Target) -> None:
    pose = RigidTransform.from_rotation_vector("cell", "artefact", np.array([0.2, -0.1, 0.4]), np.array([0.1, 0, 0.02]))
    bodies: tuple[Shape, ...] = artefact_bodies(target, pose)
    eye_cell = np.array([0.05, -0.1, 0.6])
    met = 0
    for body in bodies:
        corners = body.corners_m
        assert corners is not None
        low, high = corners.min(axis=0), corners.max(axis=0)
        T_body_cell = body.T_cell_body.inverse()
        aims = body.T_cell_body @ (np.random.default_rng(1).uniform(low, high, (500, 3)))
        directions = T_body_cell.rotate(aims - eye_cell)
        distance = body.met(T_body_cell @ eye_cell, directions)
        points = (T_body_cell @ eye_cell + distance[:, None] * directions)[np.isfinite(distance)]
        assert ((points > low - 1e-6) & (points < high + 1e-6)).all()
        met += len(points)
    assert met > 100


def test_a_print_can_be_too_large_or_mirrored() -> None:
    true = printed()
    assert true.scaled(1.01).extent_m == pytest.approx(np.array(EXTENT_M) * 1.01)
    np.testing.assert_array_equal(true.mirrored().image, true.image[:, ::-1])
    assert true.mirrored().extent_m == true.extent_m
    assert plate_print().image.std() > 30
