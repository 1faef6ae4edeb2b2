"""Colour: what a camera sees of a patch, thin lines, and how far that is from good parts."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stagedpart import plate_mesh

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.reference import Reference
from depthcell.inspect.color_check import fit_view, score_view
from depthcell.inspect.deviation import DeviationScales
from depthcell.inspect.surface import Surface
from depthcell.inspect.view_color import ViewColor, gain_to, lab_of, line_strengths, sample_view

INTRINSICS = Intrinsics(240, 180, 430.0, 430.0, 119.5, 89.5)
LOOKING_DOWN = RigidTransform("color:1", "part", np.diag([1.0, -1.0, -1.0]), np.array([0.0, 0.0, 0.168]))


@pytest.fixture(scope="module")
def scales() -> DeviationScales:
    mesh = plate_mesh()
    reference = Reference(mesh.vertices_m, mesh.triangles)
    surface = Surface.build(reference, np.array([-0.028, -0.021, 0.002]), np.array([0.028, 0.021, 0.014]), 9e-6)
    return DeviationScales(surface, 9e-6)


@pytest.fixture(scope="module")
def visible(scales: DeviationScales) -> np.ndarray:
    return np.asarray(scales.surface.normals_part[:, 2] > 0.9)


def picture(seed: int, gain: float = 1.0, spot_mm: tuple[float, float, float] | None = None) -> np.ndarray:
    """A grey plate with some texture, uneven light, and perhaps a brown spot at (x, y) of a radius."""
    rng = np.random.default_rng(seed)
    x_mm, y_mm = np.moveaxis(INTRINSICS.rays()[..., :2] * (1.0, -1.0) * 160.0, -1, 0)
    gray = 130 + 0.8 * x_mm + cv2.GaussianBlur(rng.normal(0, 8, x_mm.shape), (0, 0), 1.5)
    rgb = np.repeat(gray[..., None], 3, axis=2)
    if spot_mm is not None:
        spot = np.hypot(x_mm - spot_mm[0], y_mm - spot_mm[1]) < spot_mm[2]
        rgb = np.where(spot[..., None], rgb * (0.75, 0.6, 0.45), rgb)
    return np.asarray(np.clip(gain * rgb, 0, 255), dtype=np.uint8)


def seen(image: np.ndarray, scales: DeviationScales, visible: np.ndarray) -> ViewColor:
    return sample_view(image, INTRINSICS, LOOKING_DOWN, scales.surface, visible)


def test_patches_are_looked_up_where_they_are(scales: DeviationScales, visible: np.ndarray) -> None:
    view = seen(picture(1, spot_mm=(-10.0, 6.0, 5.0)), scales, visible)
    away = np.hypot(scales.surface.points_part[:, 0] + 0.010, scales.surface.points_part[:, 1] - 0.006)
    reddish = view.rgb[:, 0] - view.rgb[:, 2]
    assert reddish[visible & (away < 0.004)].min() > 20
    assert np.abs(reddish[visible & (away > 0.006)]).max() < 5
    assert not np.isfinite(view.rgb[~visible]).any()
    assert not view.seen[~visible].any()


def test_patch_outside_the_image_is_not_seen(scales: DeviationScales, visible: np.ndarray) -> None:
    beside = RigidTransform("color:1", "part", LOOKING_DOWN.rotation, np.array([0.05, 0.0, 0.168]))
    view = sample_view(picture(1), INTRINSICS, beside, scales.surface, visible)
    assert 0 < view.seen.sum() < visible.sum()


def test_lab_agrees_with_the_definition() -> None:
    """CIE 15: white is L* = 100, sRGB red is (53.24, 80.09, 67.20) under D65."""
    colors = np.array([[255.0, 255.0, 255.0], [255.0, 0.0, 0.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0]])
    lab = lab_of(colors)
    expected = np.array([[100.0, 0.0, 0.0], [53.24, 80.09, 67.20], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(lab[:3].astype(np.float64), expected, atol=0.3)
    assert not np.isfinite(lab[3]).any()


@given(st.floats(0.6, 1.6), st.floats(0.6, 1.6), st.floats(0.6, 1.6))
def test_light_is_taken_out_although_a_third_is_stained(red: float, green: float, blue: float) -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(60, 140, (900, 3))
    rgb = target / (red, green, blue) * rng.normal(1, 0.01, (900, 1))
    rgb[:300] *= 0.4
    np.testing.assert_allclose(gain_to(target, rgb), (red, green, blue), rtol=0.01)


def test_light_of_nothing_in_common_is_left_alone() -> None:
    np.testing.assert_array_equal(gain_to(np.full((5, 3), np.nan), np.ones((5, 3))), np.ones(3))


@pytest.mark.parametrize("angle_deg", [0, 20, 45, 70, 90, 135])
@pytest.mark.parametrize("sign", [1, -1])
def test_thin_line_stands_out_in_every_direction(angle_deg: float, sign: int) -> None:
    rng = np.random.default_rng(3)
    drawn = np.full((120, 120, 3), 120, np.uint8)
    turn = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    ends = [tuple((60 + s * 25 * turn).round().astype(int).tolist()) for s in (-1, 1)]
    cv2.line(drawn, ends[0], ends[1], (120 + sign * 15,) * 3, 1, cv2.LINE_AA)
    strengths = line_strengths((drawn + rng.normal(0, 2, (120, 120, 1))).astype(np.uint8), 11.0)
    kind = 0 if sign > 0 else 1
    assert strengths[60, 60, kind] > 6
    assert strengths[60, 60, kind] > 2 * strengths[..., 1 - kind].max()
    background = strengths[5:25, 5:25, kind] if angle_deg != 45 else strengths[5:25, 95:115, kind]
    assert strengths[60, 60, kind] > 2.5 * background.max()


def test_good_parts_score_low_and_a_spot_high(scales: DeviationScales, visible: np.ndarray) -> None:
    good = fit_view([seen(picture(seed, 1 + 0.02 * (seed % 3)), scales, visible) for seed in range(8)], scales)
    fresh = score_view(seen(picture(50, 0.95), scales, visible), good, scales)
    assert np.nanmax(fresh.largest) < 6
    spotted = score_view(seen(picture(51, 1.05, spot_mm=(-10.0, 6.0, 2.0)), scales, visible), good, scales)
    away = np.hypot(scales.surface.points_part[:, 0] + 0.010, scales.surface.points_part[:, 1] - 0.006)
    assert spotted.lab[0][visible & (away < 0.001)].min() > 10
    assert np.nanmax(spotted.lab[0][away > 0.006]) < 6
    assert np.median(spotted.difference_lab[visible & (away < 0.001)], axis=0)[0] < -10


def test_what_no_good_part_shows_is_not_compared(scales: DeviationScales, visible: np.ndarray) -> None:
    half = visible & (scales.surface.points_part[:, 0] < 0)
    good = fit_view([seen(picture(seed), scales, half) for seed in range(5)], scales)
    score = score_view(seen(picture(9, spot_mm=(10.0, 6.0, 3.0)), scales, visible), good, scales)
    assert not np.isfinite(score.lab[:, ~half]).any()
    assert np.isfinite(score.lab[0][half]).all()


def test_slip_of_the_part_makes_uneven_colour_less_telling(scales: DeviationScales, visible: np.ndarray) -> None:
    good = fit_view([seen(picture(seed), scales, visible) for seed in range(6)], scales)
    view = seen(picture(20, spot_mm=(-10.0, 6.0, 2.0)), scales, visible)
    sharp = score_view(view, good, scales, np.zeros(len(scales.surface)))
    slipped = score_view(view, good, scales, np.full(len(scales.surface), 0.003))
    inner = np.isfinite(slipped.lab[0])
    assert (slipped.lab[0][inner] <= sharp.lab[0][inner]).all()
    rim = inner & (np.abs(np.hypot(*(scales.surface.points_part[:, :2] - (-0.010, 0.006)).T) - 0.002) < 0.0008)
    assert slipped.lab[0][rim].max() < sharp.lab[0][rim].max()
    edge = scales.surface.near_edge & visible
    assert np.isfinite(sharp.lab[0][edge]).all()
    assert not np.isfinite(slipped.lab[0][edge]).any()
