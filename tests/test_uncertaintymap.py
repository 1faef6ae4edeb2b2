"""Uncertainty at the part: against simulated calibrations and readings, point by point and camera by camera."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.calib.certify.uncertaintymap import (
    MapSettings,
    Volume,
    part_uncertainties,
    point_uncertainty,
    sees,
    uncertainty_map,
)
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.errors import DepthcellError

NOISE = DisparityNoise(temporal_px=0.1, fixed_px=0.03, correlation_px=3.0)
LENS = Intrinsics(640, 480, 430.0, 430.0, 319.5, 239.5)
SIZES = np.array([2e-4] * 3 + [1e-4] * 3 + [0.3, 0.3, 0.4, 0.4] + [5e-4, 0.02, 0.02])


def camera(serial: str, tilt_deg: float, covariance: NDArray[np.float64] | None = None) -> CellCamera:
    """At 0.5 m from the cell's origin, looking at it from above, tilted about the cell's y axis."""
    down = RigidTransform("cell", f"depth:{serial}", np.diag([1.0, -1.0, -1.0]), np.array([0.0, 0.0, 0.5]))
    turn = RigidTransform.from_rotation_vector("cell", "cell", np.radians([0.0, tilt_deg, 0.0]), np.zeros(3))
    covariance = np.zeros((6, 6)) if covariance is None else covariance
    correction = DepthCorrection(1.01, 0.1, -0.2)
    return CellCamera(serial, "test", LENS, None, turn @ down, covariance, None, 0.05, NOISE, correction)


def cell_of(*tilts_deg: float, seed: int | None = 1, joint: bool = True) -> Cell:
    count, rng = len(SIZES) * len(tilts_deg), np.random.default_rng(seed)
    root = rng.normal(size=(count, 2 * count)) if seed is not None else np.zeros((count, 1))
    scale = np.tile(SIZES, len(tilts_deg)) / np.sqrt(2 * count)
    covariance = (root @ root.T) * np.outer(scale, scale)
    size = len(SIZES)
    cameras = {
        serial: camera(serial, tilt_deg, covariance[size * n : size * (n + 1), size * n : size * (n + 1)])
        for n, (serial, tilt_deg) in enumerate(zip("ABCD", tilts_deg, strict=False))
    }
    return Cell("test", cameras, "2026-01-01T00:00:00Z", covariance if joint else None)


def with_parameters(made: CellCamera, change: NDArray[np.float64]) -> CellCamera:
    lens, correction = made.depth, made.correction
    fx, fy, cx, cy = np.array([lens.fx_px, lens.fy_px, lens.cx_px, lens.cy_px]) + change[6:10]
    return replace(
        made,
        T_cell_depth=made.T_cell_depth.perturbed(change[:6]),
        depth=replace(lens, fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy),
        correction=replace(
            correction,
            scale=correction.scale + change[10],
            disparity_offset_px=correction.disparity_offset_px + change[11],
            curvature_px=correction.curvature_px + change[12],
        ),
    )


def measured(made: CellCamera, pixels: FloatArray, read_m: FloatArray) -> NDArray[np.float64]:
    """Points in the cell from the depth that the sensor reads, by the whole chain."""
    depth_m = made.corrected(read_m)
    rays = np.column_stack((made.depth.normalized(pixels), np.ones(len(pixels))))
    return np.asarray(made.T_cell_depth @ (rays * depth_m[:, None]), np.float64)


def test_the_map_is_the_scatter_of_simulated_calibrations() -> None:
    """2000 drawn cells, each with its noise, two cameras that share errors: covariance within 5 standard errors."""
    cell, rng, draws = cell_of(0.0, 35.0), np.random.default_rng(7), 2000
    points_cell = np.array([[0.0, 0.0, 0.0], [0.08, -0.05, 0.04], [-0.1, 0.06, -0.03]])
    settings = MapSettings(frames=10)
    stated = point_uncertainty(cell, points_cell, settings)
    assert (stated.cameras == 2).all()
    root = np.linalg.cholesky(cell.joint_covariance + 1e-24 * np.eye(len(cell.joint_covariance)))
    sigma_px = np.hypot(NOISE.temporal_px / np.sqrt(10), NOISE.fixed_px)
    reading = {}
    for serial, made in cell.cameras.items():
        points_cam = made.T_cell_depth.inverse() @ points_cell
        total_px = made.correction.scale * made.focal_baseline_m / points_cam[:, 2]
        read_px = total_px - made.correction.disparity_offset_px
        for _ in range(20):
            read_px = total_px - made.correction.added_px(made.depth, read_px, None)
        pixels = made.depth.project(points_cam)
        reading[serial] = pixels, read_px
        back = measured(made, pixels, made.focal_baseline_m / read_px)
        np.testing.assert_allclose(np.asarray(back, np.float64), points_cell, atol=1e-12)
    found = np.empty((draws, *points_cell.shape))
    for draw in range(draws):
        change = root @ rng.normal(size=len(root))
        each = []
        for serial, made in cell.cameras.items():
            drawn = with_parameters(made, change[cell.rows_of(serial)])
            pixels, read_px = reading[serial]
            noisy_px = read_px + rng.normal(0, sigma_px, len(read_px))
            each.append(measured(drawn, pixels, made.focal_baseline_m / noisy_px))
        found[draw] = np.einsum("cn,cni->ni", stated.weights, np.stack(each))
    for number in range(len(points_cell)):
        scatter = np.cov(found[:, number].T)
        expected = stated.covariance_m2[number]
        diagonal = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        np.testing.assert_allclose(scatter / diagonal, expected / diagonal, atol=5 * np.sqrt(2 / draws))


def test_what_cameras_share_does_not_average_out() -> None:
    """Two cameras at one place: with independent errors two are better by sqrt(2), with the same error not at all."""
    one = cell_of(10.0)
    covariance = np.asarray(one.camera("A").covariance, np.float64)
    twin = replace(
        one.camera("A"),
        serial="B",
        T_cell_depth=RigidTransform(
            "cell", "depth:B", one.camera("A").T_cell_depth.rotation, one.camera("A").T_cell_depth.translation_m
        ),
    )
    cameras = {"A": one.camera("A"), "B": twin}
    apart = Cell("apart", cameras, one.calibrated_at, np.asarray(np.kron(np.eye(2), covariance), np.float64))
    same = Cell("same", cameras, one.calibrated_at, np.asarray(np.kron(np.ones((2, 2)), covariance), np.float64))
    at = np.array([[0.02, 0.03, 0.0]])
    alone, independent, common = (point_uncertainty(cell, at) for cell in (one, apart, same))
    np.testing.assert_allclose(independent.systematic_m2, alone.systematic_m2 / 2, rtol=1e-9)
    np.testing.assert_allclose(common.systematic_m2, alone.systematic_m2, rtol=1e-9)
    np.testing.assert_allclose(common.random_m2, alone.random_m2 / 2, rtol=1e-9)
    unstated = Cell("unstated", cameras, one.calibrated_at)
    np.testing.assert_allclose(point_uncertainty(unstated, at).systematic_m2, independent.systematic_m2, rtol=1e-9)


def test_noise_follows_the_law_of_stereo() -> None:
    cell = cell_of(0.0, seed=None)
    at, made = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -0.5]]), cell.camera("A")
    for frames in (1, 100):
        found = point_uncertainty(cell, at, MapSettings(frames=frames))
        assert not found.systematic_m2.any()
        z_m, sigma_px = np.array([0.5, 1.0]), np.hypot(NOISE.temporal_px / np.sqrt(frames), NOISE.fixed_px)
        expected_mm = 1e3 * z_m**2 * sigma_px / (430.0 * 0.05 * made.correction.scale)
        np.testing.assert_allclose(found.u_along_mm(np.array([0.0, 0.0, 1.0])), expected_mm, rtol=1e-9)
        np.testing.assert_allclose(found.u_largest_mm, found.u_xyz_mm[:, 2], rtol=0.2)


def test_directions_lie_between_the_extremes() -> None:
    found = point_uncertainty(cell_of(0.0, 40.0), np.array([[0.05, 0.0, 0.02]]))
    directions = np.random.default_rng(3).normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    along_mm = np.array([found.u_along_mm(direction)[0] for direction in directions])
    assert along_mm.max() <= found.u_largest_mm[0] * (1 + 1e-12)
    assert along_mm.max() > 0.95 * found.u_largest_mm[0]
    np.testing.assert_allclose([found.u_along_mm(axis)[0] for axis in np.eye(3)], found.u_xyz_mm[0], rtol=1e-12)


def test_a_point_outside_the_image_or_too_near_is_not_seen() -> None:
    made = camera("A", 0.0)
    near_m = made.focal_baseline_m / 126
    points = np.array(
        [[0, 0, 0], [0.37, 0, 0], [0.4, 0, 0], [0, 0, 0.6], [0, 0, 0.5 - 0.99 * near_m], [0, 0, 0.5 - 1.01 * near_m]]
    )
    assert sees(made, points, 0.0).tolist() == [True, True, False, False, False, True]
    assert sees(made, points, 8.0).tolist() == [True, False, False, False, False, True]
    cell = Cell("one", {"A": made}, "2026-01-01T00:00:00Z")
    found = point_uncertainty(cell, points)
    assert np.isnan(found.u_largest_mm).tolist() == [False, True, True, True, True, False]
    assert np.isnan(found.covariance_m2[1]).all()
    waved = replace(made, correction=DepthCorrection(wave_px=((0.0, 0.1), (0.2, 0.0))), covariance=np.zeros((6, 6)))
    unseen = point_uncertainty(Cell("one", {"A": waved}, "2026-01-01T00:00:00Z"), points[1:3])
    assert (unseen.cameras == 0).all()


def test_the_map_fills_the_volume_and_is_told_in_three_lines() -> None:
    cell = cell_of(-30.0, 30.0)
    volume = Volume(np.array([-0.1, -0.08, -0.02]), np.array([0.1, 0.08, 0.06]))
    found = uncertainty_map(cell, volume, (7, 5, 3))
    heights_m, slices = found.slices_mm()
    np.testing.assert_allclose(heights_m, [-0.02, 0.02, 0.06])
    assert slices.shape == (3, 5, 7)
    corner = point_uncertainty(cell, np.array([0.1, -0.08, 0.06]))
    assert slices[2, 0, 6] == pytest.approx(corner.u_largest_mm[0])
    middle, median, worst = part_uncertainties(cell, found)
    assert (middle.cameras, median.cameras) == (2, 2)
    assert middle.point_mm == pytest.approx((0, 0, 20))
    assert median.u_largest_mm == pytest.approx(np.nanmedian(slices))
    assert worst.u_largest_mm == pytest.approx(np.nanmax(slices))


def test_what_can_not_be_mapped_is_refused() -> None:
    cell = cell_of(0.0)
    with pytest.raises(DepthcellError, match="high corner"):
        Volume(np.zeros(3), np.array([1.0, 1.0, 0.0]))
    with pytest.raises(DepthcellError, match="frames must be at least 1"):
        MapSettings(frames=0)
    with pytest.raises(DepthcellError, match="no camera Z"):
        point_uncertainty(cell, np.zeros(3), MapSettings(serials=("Z",)))
    behind = Volume(np.array([0.0, 0.0, 0.6]), np.array([0.1, 0.1, 0.7]))
    with pytest.raises(DepthcellError, match=r"no camera of cell 'test' sees it.*\(0.0, 0.0, 600.0\)"):
        part_uncertainties(cell, uncertainty_map(cell, behind, (3, 3, 3)))
