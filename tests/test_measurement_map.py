"""Colour map and sections: colours are even and told apart by all eyes, and pictures show what was put in."""

import io
from dataclasses import replace

import numpy as np
import pytest
from measuredplate import DENT_AT_M, DENT_M, measured_plate, missing_plate, plate_scan
from numpy.typing import NDArray
from PIL import Image
from stagedpart import BORE_AT_MM, BORE_MM, TOP_MM

from depthcell.errors import DepthcellError
from depthcell.inspect.measurement_colors import (
    MIDDLE,
    STEPS,
    UNMEASURED_RGB,
    deviation_rgb,
    palette,
)
from depthcell.inspect.measurement_map import (
    ALONG,
    _direction,
    deviation_map,
    directions,
    rendered,
    surface_colors,
)
from depthcell.inspect.measurement_sections import (
    magnification,
    outline,
    sections_of,
    sections_picture,
    worst_place,
)

# G. M. Machado et al., "A physiologically-based model for simulation of color vision deficiency", IEEE TVCG 15 (2009)
# 1291, severity 1, on linear RGB.
DEUTAN = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
PROTAN = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
LINEAR_TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
LMS_TO_OKLAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip


def oklab(rgb: NDArray[np.uint8], eye: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = linear if eye is None else np.clip(linear @ eye.T, 0, 1)
    return np.asarray(np.cbrt(seen @ LINEAR_TO_LMS.T) @ LMS_TO_OKLAB.T)


def test_equal_steps_of_deviation_are_equal_steps_of_colour() -> None:
    steps = np.linalg.norm(np.diff(oklab(palette())[:: STEPS // 16], axis=0), axis=1)
    assert np.ptp(steps[:7]) < 0.15 * steps[:7].mean()
    assert np.ptp(steps[-7:]) < 0.15 * steps[-7:].mean()
    assert steps[:7].mean() == pytest.approx(steps[-7:].mean(), rel=0.25)


@pytest.mark.parametrize("eye", [None, DEUTAN, PROTAN])
def test_missing_and_excess_differ_for_every_eye(eye: NDArray[np.float64] | None) -> None:
    seen = oklab(palette(), eye)
    for offset in (STEPS // 4, STEPS // 2 - 1):
        missing, excess = seen[STEPS // 2 - 1 - offset], seen[STEPS // 2 + offset]
        assert np.linalg.norm(missing - excess) > 0.1


def test_lightness_alone_tells_how_far_off_a_place_is() -> None:
    lightness = oklab(palette())[:, 0]
    assert (np.diff(lightness[: STEPS // 2]) > 0).all()
    assert (np.diff(lightness[STEPS // 2 :]) < 0).all()
    assert lightness.max() == pytest.approx(MIDDLE[0], abs=0.01)


def test_what_is_not_known_is_grey_and_what_is_beyond_the_scale_keeps_its_end() -> None:
    colors = deviation_rgb(np.array([np.nan, -9.0, 9.0, 0.0]), 0.5)
    assert tuple(colors[0]) == UNMEASURED_RGB
    assert (colors[1] == palette()[0]).all()
    assert (colors[2] == palette()[-1]).all()
    assert colors[3].min() > 235


def test_grey_differs_from_every_colour_of_the_scale() -> None:
    grey = oklab(np.array([UNMEASURED_RGB], dtype=np.uint8))
    assert np.linalg.norm(oklab(palette()) - grey, axis=1).min() > 0.06


def test_the_dent_is_blue_where_it_is_and_the_underside_grey() -> None:
    reference, colors = surface_colors(measured_plate())
    above = rendered(reference, colors, _direction("above", ALONG["from +z"]), 0.5)
    blue = np.argwhere((above[..., 2].astype(int) - above[..., 0]) > 80)
    size_px = np.ptp(np.argwhere((above < 250).any(axis=2)), axis=0)
    pixel_mm = 50.0 / size_px[1]
    middle = (np.array(above.shape[:2]) - 1) / 2
    row, column = (blue.mean(axis=0) - middle) * pixel_mm
    assert (column, -row) == (pytest.approx(1e3 * DENT_AT_M[0], abs=0.4), pytest.approx(1e3 * DENT_AT_M[1], abs=0.4))
    below = rendered(reference, colors, _direction("below", ALONG["from −z"]), 0.5)
    part = below[(below < 250).any(axis=2)]
    assert (np.abs(part.astype(int) - UNMEASURED_RGB) <= 2).all(axis=1).mean() > 0.95


def test_one_wild_point_does_not_fill_what_was_not_measured() -> None:
    part = measured_plate()
    assert part.scan is not None
    assert part.deviation_m is not None
    hole = np.linalg.norm(part.scan.points_part - (0.0, 0.0, TOP_MM / 1e3), axis=1) < 0.005
    deviation_m = np.where(hole, np.nan, part.deviation_m)
    wild = int(np.flatnonzero(np.isfinite(deviation_m))[7])
    deviation_m[wild] = 0.006
    place, up = np.array([[0.0, 0.0, TOP_MM / 1e3]]), np.array([[0.0, 0.0, 1.0]])
    _, colors = surface_colors(replace(part, deviation_m=deviation_m))
    assert np.isnan(colors.at(place, up)).all()


def test_a_face_far_off_its_nominal_place_is_coloured_whole() -> None:
    part = measured_plate()
    assert part.scan is not None
    lift_m = 0.002
    normals = part.scan.normals_part.astype(np.float64)
    moved = replace(part.scan, points_part=part.scan.points_part + lift_m * normals)
    _, colors = surface_colors(replace(part, scan=moved, deviation_m=np.full(len(normals), lift_m)))
    place, up = np.array([[0.0, 0.0, TOP_MM / 1e3]]), np.array([[0.0, 0.0, 1.0]])
    assert colors.at(place, up) == pytest.approx([lift_m])


def test_a_point_of_the_other_side_colours_nothing() -> None:
    _, colors = surface_colors(measured_plate())
    place = np.array([[0.0, 0.0, TOP_MM / 1e3]])
    assert np.isfinite(colors.at(place, np.array([[0.0, 0.0, 1.0]]))).all()
    assert np.isnan(colors.at(place, np.array([[0.0, 0.0, -1.0]]))).all()


def test_the_views_are_those_that_see_most() -> None:
    titles = [view.title for view in directions(surface_colors(measured_plate())[1])]
    assert titles[:2] == ["oblique 1", "oblique 2"]
    assert titles[2] == "from +z"
    assert "from −z" not in titles


@pytest.mark.parametrize("axis", ALONG.values())
def test_a_view_is_right_handed_whatever_it_looks_along(axis: tuple[float, float, float]) -> None:
    view = _direction("", axis)
    frame = np.stack((view.right, view.up, view.towards))
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame) == pytest.approx(1.0)


def test_the_picture_is_a_png_and_the_same_each_time() -> None:
    once = deviation_map(measured_plate(), 0.5)
    image = Image.open(io.BytesIO(once))
    assert image.size[0] > 1000
    assert once == deviation_map(measured_plate(), 0.5)


@pytest.mark.parametrize(
    "part",
    [
        missing_plate(),
        measured_plate(deviation_m=None, deviation_u_m=None),
        measured_plate(deviation_m=np.full(len(plate_scan().cloud), np.nan)),
        measured_plate(scan=replace(plate_scan(), reference=None)),
    ],
)
def test_without_points_or_reference_there_is_no_picture(part: object) -> None:
    with pytest.raises(DepthcellError, match="no colour map"):
        deviation_map(part, 0.5)  # type: ignore[arg-type]


def test_sections_go_through_the_dent_and_show_its_depth() -> None:
    for section in sections_of(measured_plate()):
        assert 1e3 * section.at_m == pytest.approx(1e3 * DENT_AT_M[section.axis], abs=1.5)
        assert section.deviation_m.min() == pytest.approx(-DENT_M, abs=1e-4)
        on_top = np.abs(section.foot[:, 1] - TOP_MM / 1e3) < 2e-4
        assert on_top.sum() > 20
        assert np.median(section.outward[on_top, 1]) == pytest.approx(1.0, abs=1e-3)


def test_the_outline_closes_and_has_the_length_of_the_section() -> None:
    reference = plate_scan().reference
    assert reference is not None
    pieces = outline(reference, 1, 0.0101)
    length_m = np.linalg.norm(pieces[:, 1] - pieces[:, 0], axis=1).sum()
    assert length_m == pytest.approx(2 * (0.050 + TOP_MM / 1e3), rel=1e-6)
    ends = np.round(pieces.reshape(-1, 2) * 1e9).astype(int)
    assert (np.unique(ends, axis=0, return_counts=True)[1] % 2 == 0).all()


def test_the_outline_has_the_bore_where_the_plane_crosses_it() -> None:
    reference = plate_scan().reference
    assert reference is not None
    pieces = outline(reference, 1, 1e-9)
    upright = np.abs(pieces[:, 0, 0] - pieces[:, 1, 0]) < 1e-9
    walls_mm = np.unique(np.round(1e3 * pieces[upright][:, 0, 0], 1))
    for wall in (BORE_AT_MM[0] - BORE_MM / 2, BORE_AT_MM[0] + BORE_MM / 2, -25.0, 25.0):
        assert np.abs(walls_mm - wall).min() < 0.15


def test_deviations_are_drawn_as_large_as_fits() -> None:
    section = sections_of(measured_plate())[0]
    assert magnification(section, 0.5) == 5
    assert magnification(section, 0.05) == 50
    assert magnification(section, 50.0) == 1


def test_one_wild_point_is_not_the_worst_place() -> None:
    rng = np.random.default_rng(5)
    points = rng.uniform(0, 0.05, (2000, 3))
    deviation = rng.normal(0, 1e-5, 2000)
    deviation[7] = 1e-3
    near = np.linalg.norm(points - points[100], axis=1) < 0.008
    deviation[near] = -3e-4
    assert np.linalg.norm(worst_place(points, deviation) - points[100]) < 0.008


def test_the_sections_are_a_picture() -> None:
    assert Image.open(io.BytesIO(sections_picture(measured_plate(), 0.5))).size[0] > 1000
