"""Normals and edges on the depth grid: analytic surfaces, a slow twin, and what must never be kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.fusion.grid import depth_normals, edge_mask

HEIGHT_PX, WIDTH_PX, FOCAL_PX = 60, 80, 90.0
PINHOLE = Intrinsics(WIDTH_PX, HEIGHT_PX, FOCAL_PX, FOCAL_PX, 41.3, 28.9)
WIDE = Intrinsics(
    WIDTH_PX, HEIGHT_PX, FOCAL_PX, 85.0, 41.3, 28.9, Distortion.BROWN_CONRADY, (-0.2, 0.05, 1e-3, -2e-3, 0.0)
)
RADII_PX = (6, 3)


def plane_depth(intrinsics: Intrinsics, normal: np.ndarray, distance_m: float) -> np.ndarray:
    """Depth (H, W) of the plane through (0, 0, distance_m)."""
    return np.asarray(distance_m * normal[2] / (intrinsics.rays() @ normal), dtype=np.float32)


def tilted(tilt_rad: float, azimuth_rad: float) -> np.ndarray:
    """A unit normal towards the camera."""
    sine = np.sin(tilt_rad)
    return np.array([sine * np.cos(azimuth_rad), sine * np.sin(azimuth_rad), -np.cos(tilt_rad)])


def normals_of(depth_m: np.ndarray, intrinsics: Intrinsics = PINHOLE, sigma_m: float = 1e-4) -> np.ndarray:
    return depth_normals(depth_m, intrinsics, np.isfinite(depth_m), np.full_like(depth_m, sigma_m), RADII_PX)


def degrees_off(normals: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Angle to the truth where a normal is known."""
    known = np.isfinite(normals[..., 0])
    cosine = (normals * truth).sum(axis=-1)[known]
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


@pytest.mark.parametrize("intrinsics", [PINHOLE, WIDE], ids=["pinhole", "distorted"])
@given(st.floats(0, 1.1), st.floats(-np.pi, np.pi), st.floats(0.15, 2.0))
def test_planes_are_exact(intrinsics: Intrinsics, tilt_rad: float, azimuth_rad: float, distance_m: float) -> None:
    truth = tilted(tilt_rad, azimuth_rad)
    depth_m = plane_depth(intrinsics, truth, distance_m)
    depth_m[depth_m <= 0] = np.nan
    normals = normals_of(depth_m, intrinsics, sigma_m=1e-3 * distance_m)
    known = np.isfinite(normals[..., 0])
    assert normals.dtype == np.float32
    assert known[RADII_PX[1] : -RADII_PX[1], RADII_PX[1] : -RADII_PX[1]].mean() > 0.5
    np.testing.assert_allclose(np.linalg.norm(normals[known], axis=-1), 1, atol=1e-5)
    assert ((normals * intrinsics.rays()).sum(axis=-1)[known] < 0).all()  # towards the camera
    # A lens bends the grid itself, so that a plane is linear in it only locally.
    assert np.median(degrees_off(normals, truth)) < (0.05 if intrinsics is PINHOLE else 0.5)


def test_agrees_with_a_slow_twin_at_holes_and_borders() -> None:
    """Plane by least squares, pixel by pixel, over the usable part of the small window."""
    rng = np.random.default_rng(1)
    depth_m = plane_depth(PINHOLE, tilted(0.5, 0.3), 0.4) + rng.normal(0, 2e-3, (HEIGHT_PX, WIDTH_PX)).astype(
        np.float32
    )
    usable = rng.random(depth_m.shape) > 0.25  # so that no large window is whole
    normals = depth_normals(depth_m, PINHOLE, usable, np.full_like(depth_m, 2e-3), RADII_PX)
    reach, rays = RADII_PX[1], PINHOLE.rays()
    for row, column in rng.integers((0, 0), (HEIGHT_PX, WIDTH_PX), (200, 2)):
        rows = slice(max(row - reach, 0), row + reach + 1)
        columns = slice(max(column - reach, 0), column + reach + 1)
        chosen = usable[rows, columns]
        if not usable[row, column] or chosen.sum() < 0.6 * (2 * reach + 1) ** 2:
            assert np.isnan(normals[row, column]).all()
            continue
        xy1 = rays[rows, columns][chosen].astype(np.float64)
        gradient, *_ = np.linalg.lstsq(xy1, 1 / depth_m[rows, columns][chosen], rcond=None)
        expected = -gradient / np.linalg.norm(gradient)
        np.testing.assert_allclose(normals[row, column], expected, atol=2e-3)


def test_noise_on_a_sphere_stays_small() -> None:
    rng = np.random.default_rng(2)
    centre, radius_m = np.array([0.0, 0.0, 0.5]), 0.15
    rays = PINHOLE.rays().astype(np.float64)
    b, a = rays @ centre, (rays**2).sum(axis=-1)
    inside = b * b - a * (centre @ centre - radius_m**2)
    with np.errstate(invalid="ignore"):
        true_m = np.where(inside > 0, (b - np.sqrt(inside)) / a, np.nan)
    truth = (rays * true_m[..., None] - centre) / radius_m
    noise_m = 5e-4
    depth_m = (true_m + rng.normal(0, noise_m, true_m.shape)).astype(np.float32)
    off = degrees_off(normals_of(depth_m, sigma_m=noise_m), truth)
    assert len(off) > 0.7 * np.isfinite(true_m).sum()
    assert np.median(off) < 1.0
    # Negative control: the same noise between neighbours alone would tilt by several degrees.
    steps = np.diff(depth_m, axis=1) / (depth_m[:, 1:] / FOCAL_PX)
    expected = np.diff(true_m, axis=1) / (true_m[:, 1:] / FOCAL_PX)
    assert np.nanmedian(np.degrees(np.abs(np.arctan(steps) - np.arctan(expected)))) > 3.0


def step_scene(step_m: float) -> np.ndarray:
    depth_m = np.full((HEIGHT_PX, WIDTH_PX), 0.4, np.float32)
    depth_m[:, 40:] += np.float32(step_m)
    return depth_m


@pytest.mark.parametrize("margin_px", [0, 1, 3])
def test_a_step_is_masked_on_both_sides(margin_px: int) -> None:
    depth_m = step_scene(0.05)
    edge = edge_mask(depth_m, PINHOLE, np.full_like(depth_m, 1e-4), margin_px)
    columns = np.flatnonzero(edge.any(axis=0))
    assert edge[:, columns].all()
    assert (columns[0], columns[-1]) == (39 - margin_px, 40 + margin_px)


def test_a_mixed_pixel_between_two_surfaces_is_dropped() -> None:
    depth_m = step_scene(0.1)
    depth_m[:, 40] = 0.45  # neither of the two surfaces
    edge = edge_mask(depth_m, PINHOLE, np.full_like(depth_m, 1e-4), 1)
    assert edge[:, 38:43].all()
    assert not edge[:, :38].any()


def test_steep_surfaces_and_noise_are_no_edges() -> None:
    rng = np.random.default_rng(3)
    depth_m = plane_depth(PINHOLE, tilted(np.radians(60), 0.0), 0.4)
    sigma_m = 2e-3
    noisy_m = (depth_m + rng.normal(0, sigma_m, depth_m.shape)).astype(np.float32)
    near = depth_m < 0.6
    assert edge_mask(noisy_m, PINHOLE, np.full_like(depth_m, sigma_m), 0)[near].mean() < 1e-3
    # Negative control: the same step where little noise is stated.
    assert edge_mask(step_scene(0.05), PINHOLE, np.full_like(depth_m, 1e-4), 0).any()
    assert not edge_mask(step_scene(0.05), PINHOLE, np.full_like(depth_m, 1e-2), 0).any()


def test_dropouts_are_no_edges_but_shadows_are() -> None:
    depth_m = np.full((HEIGHT_PX, WIDTH_PX), 0.4, np.float32)
    depth_m[10, 10] = depth_m[20:22, 30] = np.nan
    sigma_m = np.full_like(depth_m, 1e-4)
    assert not edge_mask(depth_m, PINHOLE, sigma_m, 3).any()
    depth_m[30:33, 50:53] = np.nan
    edge = edge_mask(depth_m, PINHOLE, sigma_m, 3)
    assert edge[27:36, 47:56].all()
    assert edge.sum() == 81


def test_normals_never_reach_across_an_edge() -> None:
    """Two planes a step apart, each with its own tilt: every normal belongs to its own side."""
    left, right = tilted(0.6, 0.0), tilted(0.6, np.pi / 2)
    depth_m = plane_depth(PINHOLE, left, 0.4)
    depth_m[:, 40:] = plane_depth(PINHOLE, right, 0.5)[:, 40:]
    sigma_m = np.full_like(depth_m, 1e-4)
    usable = ~edge_mask(depth_m, PINHOLE, sigma_m, 3)
    normals = depth_normals(depth_m, PINHOLE, usable, sigma_m, RADII_PX)
    assert degrees_off(normals[:, :40], left).max() < 0.1
    assert degrees_off(normals[:, 40:], right).max() < 0.1
    # Negative control: without the mask they mix.
    mixed = depth_normals(depth_m, PINHOLE, np.ones_like(usable), np.full_like(depth_m, 1.0), RADII_PX)
    assert degrees_off(mixed[:, :40], left).max() > 10


def test_a_crease_blurs_no_farther_than_the_small_window() -> None:
    slopes = [tilted(0.6, azimuth) for azimuth in (0.0, np.pi)]
    sides = np.stack([plane_depth(PINHOLE, normal, 0.4) for normal in slopes])
    nearer = sides.argmin(axis=0)
    normals = normals_of(sides.min(axis=0))
    columns_off = np.abs(PINHOLE.rays()[..., 0] * FOCAL_PX)  # the planes meet at x = 0
    normals[columns_off <= RADII_PX[1] + 1] = np.nan
    assert np.isfinite(normals[..., 0]).sum() > 0.6 * normals[..., 0].size
    assert degrees_off(normals, np.array(slopes)[nearer]).max() < 0.5
    # Negative control: with much noise stated, the bend passes for noise and the large window rounds it.
    rounded = normals_of(sides.min(axis=0), sigma_m=0.1)
    rounded[columns_off <= RADII_PX[1] + 1] = np.nan
    assert degrees_off(rounded, np.array(slopes)[nearer]).max() > 2


@pytest.mark.parametrize("intrinsics", [PINHOLE, WIDE], ids=["pinhole", "distorted"])
def test_a_few_pixels_get_the_normals_that_the_whole_image_has(intrinsics: Intrinsics) -> None:
    rng = np.random.default_rng(4)
    depth_m = plane_depth(intrinsics, tilted(0.4, 1.0), 0.4)
    depth_m += rng.normal(0, 5e-4, depth_m.shape).astype(np.float32)
    usable, sigma_m = rng.random(depth_m.shape) > 0.005, np.full_like(depth_m, 5e-4)
    wanted = np.zeros_like(usable)
    wanted[22:31, 35:52] = True
    whole = depth_normals(depth_m, intrinsics, usable, sigma_m, RADII_PX)
    part = depth_normals(depth_m, intrinsics, usable, sigma_m, RADII_PX, wanted)
    assert np.isfinite(part[..., 0]).sum() > 100
    assert np.isnan(part[~wanted]).all()
    np.testing.assert_allclose(part[wanted], whole[wanted], atol=1e-6)
    nowhere = depth_normals(depth_m, intrinsics, usable, sigma_m, RADII_PX, np.zeros_like(usable))
    assert np.isnan(nowhere).all()
