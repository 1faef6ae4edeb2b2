"""Calibration's share in a point: slopes against differences of the whole map, the fast path against the plain one."""

from dataclasses import replace

import numpy as np
import pytest

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import CellCamera, DisparityNoise
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.propagation import (
    depth_sigma_m,
    point_covariance,
    point_jacobian,
    point_lift,
    read_disparity_px,
)
from depthcell.fusion.calibrationvariance import normal_variance_m2
from depthcell.fusion.region import Window

BASELINE_M = 0.05
COEFFICIENTS = (-0.11, 0.06, 1e-3, -8e-4, -0.02, 0.03, -0.02, 0.01, 2e-3, -1e-3, 1.5e-3, 5e-4)
CORRECTION = DepthCorrection(1.004, 0.11, -0.4, ((0.0, 0.05, -0.03), (0.02, 0.01, 0.0)))
POSE = RigidTransform.from_rotation_vector("cell", "depth:1", np.array([2.5, 0.4, -0.3]), np.array([0.1, -0.2, 0.5]))


def intrinsics(distortion: Distortion) -> Intrinsics:
    coefficients = (0.0,) * 5 if distortion is Distortion.NONE else COEFFICIENTS[: distortion.coefficient_count]
    return Intrinsics(640, 480, 420.0, 418.0, 322.0, 238.0, distortion, coefficients)


def camera(lens: Intrinsics, correction: DepthCorrection = CORRECTION, seed: int | None = None) -> CellCamera:
    made = CellCamera(
        "1", "test", lens, None, POSE, np.zeros((6, 6)), None, BASELINE_M, DisparityNoise(0.08, 0.03, 3.0), correction
    )
    if seed is None:
        return made
    sizes = {
        "_rad": 2e-4,
        "_m": 5e-5,
        "fx_px": 0.3,
        "fy_px": 0.3,
        "cx_px": 0.4,
        "cy_px": 0.4,
        "scale": 1e-3,
        "_px": 0.02,
    }
    u = np.array(
        [next((size for end, size in sizes.items() if name.endswith(end)), 2e-3) for name in made.parameter_names]
    )
    mixed = np.random.default_rng(seed).normal(size=(len(u), len(u))) + 3 * np.eye(len(u))
    covariance = mixed @ mixed.T
    scale = u / np.sqrt(np.diag(covariance))
    return replace(made, covariance=covariance * np.outer(scale, scale))


def moved(made: CellCamera, name: str, step: float) -> CellCamera:
    """The camera with one of its parameters changed."""
    names, correction = made.parameter_names, made.correction
    place = names.index(name)
    if place < 6:
        return replace(made, T_cell_depth=made.T_cell_depth.perturbed(step * np.eye(6)[place]))
    if name in ("fx_px", "fy_px", "cx_px", "cy_px"):
        return replace(made, depth=replace(made.depth, **{name: getattr(made.depth, name) + step}))
    if name in ("scale", "disparity_offset_px", "curvature_px"):
        return replace(made, correction=replace(correction, **{name: getattr(correction, name) + step}))
    if name.startswith("wave"):
        row, column = map(int, name.split("_")[1:])
        table = np.array(correction.wave_px)
        table[row, column] += step
        return replace(made, correction=replace(correction, wave_px=tuple(map(tuple, table.tolist()))))
    coefficients = np.array(made.depth.coefficients)
    coefficients[place - 10] += step
    return replace(made, depth=replace(made.depth, coefficients=tuple(coefficients.tolist())))


def points_of_read(made: CellCamera, pixels: np.ndarray, read_m: np.ndarray) -> np.ndarray:
    """The whole map: depth as read, at pixels, to points in the cell."""
    z_m = made.corrected(read_m, pixels)
    rays = np.column_stack((made.depth.normalized(pixels), np.ones(len(pixels))))
    return np.asarray(made.T_cell_depth @ (rays * z_m[:, None]))


@pytest.mark.parametrize("distortion", list(Distortion))
def test_slopes_are_those_of_the_whole_map(distortion: Distortion) -> None:
    made, rng = camera(intrinsics(distortion)), np.random.default_rng(1)
    pixels, read_m = rng.uniform((0, 0), (639, 479), (40, 2)), rng.uniform(0.25, 1.2, 40)
    jacobian = point_jacobian(made, pixels, made.corrected(read_m, pixels))
    assert jacobian.shape == (40, 3, len(made.parameter_names))
    for place, name in enumerate(made.parameter_names):
        step = 1e-3 if name.endswith("_px") else 1e-5
        ahead, back = (points_of_read(moved(made, name, sign * step), pixels, read_m) for sign in (1, -1))
        slope = (ahead - back) / (2 * step)
        tiny = 1e-6 * np.abs(slope).max()
        np.testing.assert_allclose(jacobian[:, :, place], slope, rtol=2e-5, atol=tiny, err_msg=name)


def test_what_was_read_is_found_again() -> None:
    made, rng = camera(intrinsics(Distortion.NONE)), np.random.default_rng(2)
    pixels, read_m = rng.uniform((0, 0), (639, 479), (40, 2)), rng.uniform(0.2, 2.0, 40)
    read_px = read_disparity_px(made, pixels, made.corrected(read_m, pixels))
    np.testing.assert_allclose(read_px, made.focal_baseline_m / read_m, rtol=1e-12)


def test_covariance_is_the_scatter_of_cells_drawn_from_it() -> None:
    made, rng = camera(intrinsics(Distortion.BROWN_CONRADY), seed=3), np.random.default_rng(3)
    pixels, read_m = np.array([[40.0, 60.0], [600.0, 300.0]]), np.array([0.4, 0.7])
    draws = rng.multivariate_normal(np.zeros(len(made.covariance)), made.covariance, 600)
    scattered = []
    for draw in draws:
        other = made
        for name, value in zip(made.parameter_names[6:], draw[6:], strict=True):
            other = moved(other, name, value)
        other = replace(other, T_cell_depth=made.T_cell_depth.perturbed(draw[:6]))
        scattered.append(points_of_read(other, pixels, read_m))
    covariance = point_covariance(made, pixels, made.corrected(read_m, pixels))
    for place in range(2):
        found = np.cov(np.array(scattered)[:, place].T)
        scale = np.sqrt(np.diag(covariance[place]))
        np.testing.assert_allclose(
            found / np.outer(scale, scale), covariance[place] / np.outer(scale, scale), atol=0.12
        )


@pytest.mark.parametrize("depths_m", [(0.3, 0.42), (0.25, 1.2)], ids=["narrow", "wide"])
@pytest.mark.parametrize("distortion", [Distortion.NONE, Distortion.BROWN_CONRADY, Distortion.THIN_PRISM])
def test_a_whole_view_agrees_with_the_plain_way(distortion: Distortion, depths_m: tuple[float, float]) -> None:
    wave = tuple(tuple(0.0 if i == j == 0 else 0.02 for j in range(4)) for i in range(4))
    made = camera(intrinsics(distortion), replace(CORRECTION, wave_px=wave), seed=5)
    window, rng = Window(20, 480, 0, 611), np.random.default_rng(6)
    depth_m = rng.uniform(*depths_m, window.shape).astype(np.float32)
    depth_m[100:110, 5:50] = np.nan
    normals = rng.normal(size=(*window.shape, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    quick = normal_variance_m2(made, window, depth_m, normals)
    assert np.isnan(quick[100:110, 5:50]).all()
    row, column = np.nonzero(np.isfinite(depth_m))
    edges = np.flatnonzero((row < 2) | (column < 2) | (row > 457) | (column > 608))
    chosen = np.concatenate((rng.choice(len(row), 1000), rng.choice(edges, 200)))
    row, column = row[chosen], column[chosen]
    pixels = np.column_stack((column + window.left, row + window.top)).astype(float)
    plain = point_covariance(made, pixels, depth_m[row, column])
    expected = np.einsum("ni,nij,nj->n", normals[row, column], plain, normals[row, column])
    np.testing.assert_allclose(np.sqrt(quick[row, column] / expected), 1.0, atol=0.02)


def test_an_exact_cell_leaves_nothing_uncertain() -> None:
    window, normals = Window(0, 8, 0, 9), np.ones((8, 9, 3), np.float32)
    depth_m = np.full(window.shape, 0.4, np.float32)
    depth_m[0, 0] = np.nan
    quick = normal_variance_m2(camera(intrinsics(Distortion.NONE)), window, depth_m, normals)
    assert np.isnan(quick[0, 0])
    assert np.nansum(quick) == 0
    blind_m = np.full(window.shape, np.nan, np.float32)
    assert np.isnan(normal_variance_m2(camera(intrinsics(Distortion.NONE), seed=1), window, blind_m, normals)).all()


def test_depth_alone_is_the_part_along_the_ray() -> None:
    made, pixels, depth_m = camera(intrinsics(Distortion.NONE), seed=8), np.array([[322.0, 238.0]]), np.array([0.5])
    covariance = made.covariance.copy()
    covariance[:10], covariance[:, :10] = 0, 0
    only_depth = replace(made, covariance=covariance, T_cell_depth=RigidTransform.identity("cell", "depth:1"))
    along = point_covariance(only_depth, pixels, depth_m)[0, 2, 2]
    np.testing.assert_allclose(depth_sigma_m(made, pixels, depth_m), np.sqrt(along), rtol=1e-9)


@pytest.mark.parametrize("distortion", list(Distortion))
def test_lifts_are_the_slopes_along_normals(distortion: Distortion) -> None:
    made, rng = camera(intrinsics(distortion)), np.random.default_rng(6)
    pixels, depth_m = rng.uniform((0, 0), (639, 479), (40, 2)), rng.uniform(0.25, 1.2, 40)
    normals = rng.normal(size=(40, 3))
    slopes = np.einsum("ni,nip->np", normals, point_jacobian(made, pixels, depth_m))
    np.testing.assert_allclose(point_lift(made, pixels, depth_m, normals), slopes, rtol=1e-9, atol=1e-12)
