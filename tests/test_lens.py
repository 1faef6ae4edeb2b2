"""Lens projection and its derivatives: against `Intrinsics`, OpenCV's own Jacobians and finite differences."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.calib.adjustment.lens import (
    SUPPORTED,
    lens_from_vector,
    lens_vector,
    project_points,
    project_with_jacobians,
    sight_of,
)
from depthcell.calib.cell import lens_names
from depthcell.errors import DepthcellError

SCALES = np.array([0.2, 0.1, 0.01, 0.01, 0.05, 0.2, 0.1, 0.05, 0.01, 0.01, 0.01, 0.01])


def some_lens(model: Distortion, seed: int) -> Intrinsics:
    rng = np.random.default_rng(seed)
    count = model.coefficient_count
    coefficients = tuple(rng.uniform(-1, 1, count) * SCALES[:count]) if model is not Distortion.NONE else (0.0,) * 5
    fx, fy = rng.uniform(500, 700, 2)
    cx, cy = rng.uniform((413.5, 229.5), (433.5, 249.5))
    return Intrinsics(848, 480, fx, fy, cx, cy, model, coefficients)


def some_points(seed: int, count: int = 7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z_m = rng.uniform(0.3, 1.5, count)
    return np.stack((z_m * rng.uniform(-0.6, 0.6, count), z_m * rng.uniform(-0.4, 0.4, count), z_m), axis=1)


models = st.sampled_from(SUPPORTED)
seeds = st.integers(0, 2**31)


@given(models, seeds)
def test_vector_and_intrinsics_are_the_same_lens(model: Distortion, seed: int) -> None:
    lens = some_lens(model, seed)
    assert lens_from_vector(lens_vector(lens), lens) == lens
    assert len(lens_vector(lens)) == len(lens_names(lens))


@given(models, seeds)
def test_projection_is_that_of_intrinsics(model: Distortion, seed: int) -> None:
    lens, points = some_lens(model, seed), some_points(seed)
    expected = lens.project(points)
    np.testing.assert_allclose(project_points(lens_vector(lens), points), expected, atol=1e-9)
    np.testing.assert_allclose(project_with_jacobians(lens_vector(lens), points).pixels, expected, atol=1e-9)


@given(models, seeds)
def test_jacobians_are_those_of_opencv(model: Distortion, seed: int) -> None:
    lens, points = some_lens(model, seed), some_points(seed)
    ours = project_with_jacobians(lens_vector(lens), points)
    pixels, theirs = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), lens.matrix, np.asarray(lens.coefficients, np.float64)
    )
    np.testing.assert_allclose(ours.pixels, pixels[:, 0], atol=1e-9)
    theirs = theirs.reshape(len(points), 2, -1)
    np.testing.assert_allclose(ours.by_point, theirs[:, :, 3:6], rtol=1e-7, atol=1e-7)
    columns = slice(6, 6 + ours.by_lens.shape[2])  # rotation, translation, f, c, coefficients
    np.testing.assert_allclose(ours.by_lens, theirs[:, :, columns], rtol=1e-7, atol=1e-7)


@given(models, seeds)
def test_a_pixel_looks_where_the_point_lies(model: Distortion, seed: int) -> None:
    lens, points = lens_vector(some_lens(model, seed)), some_points(seed)
    sight = sight_of(lens, project_points(lens, points))
    np.testing.assert_allclose(sight.ideal, points[:, :2] / points[:, 2:], atol=1e-10)


@given(models, seeds)
def test_sight_turns_with_the_lens_as_finite_differences_say(model: Distortion, seed: int) -> None:
    lens = lens_vector(some_lens(model, seed))
    pixels = project_points(lens, some_points(seed))
    slope = sight_of(lens, pixels).by_lens
    for column in range(len(lens)):
        step = np.zeros(len(lens))
        step[column] = 1e-3 if column < 4 else 1e-6
        difference = sight_of(lens + step, pixels).ideal - sight_of(lens - step, pixels).ideal
        np.testing.assert_allclose(slope[:, :, column], difference / (2 * step[column]), rtol=1e-5, atol=1e-8)


def test_models_of_librealsense_alone_are_refused() -> None:
    lens = Intrinsics(848, 480, 600.0, 600.0, 423.5, 239.5, Distortion.INVERSE_BROWN_CONRADY)
    with pytest.raises(DepthcellError, match="inverse_brown_conrady is not refined"):
        lens_vector(lens)


def test_a_lens_that_folds_the_image_over_is_refused() -> None:
    lens = np.array([600.0, 600.0, 423.5, 239.5, -2.0, 0.0, 0.0, 0.0, 0.0])
    with pytest.raises(DepthcellError, match="fold the image over"):
        sight_of(lens, np.array([[0.0, 0.0], [847.0, 479.0]]))
