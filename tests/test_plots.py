"""Pictures of a calibration: they show the numbers they were given, the same bytes each time, and refuse nothing."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.quiver import Quiver
from PIL import Image

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSolution, solve_bundle
from depthcell.calib.adjustment.synthetic_rig import RigSettings, RigTruth, synthetic_rig, true_depth_read_m
from depthcell.calib.certify import certificate_pictures
from depthcell.calib.certify.certificate_pictures import (
    board_aspect,
    depth_bias,
    difference_maps,
    pictures_of,
    stream_evidence,
)
from depthcell.calib.certify.plots import cells_of, png_of, round_step
from depthcell.calib.certify.plots_maps import (
    DepthBias,
    DifferenceMap,
    draw_depth_bias,
    draw_differences,
    draw_uncertainty,
)
from depthcell.calib.certify.plots_views import (
    StreamEvidence,
    coverage,
    draw_coverage,
    draw_normalised,
    draw_poses,
    draw_residuals,
)
from depthcell.calib.certify.uncertaintymap import PointUncertainty, UncertaintyMap, Volume
from depthcell.calib.solving.validation_halves import compare_halves
from depthcell.calib.target.board import Board
from depthcell.errors import DepthcellError


def evidence(stream: str = "depth:1", seed: int = 1) -> StreamEvidence:
    rng = np.random.default_rng(seed)
    return StreamEvidence(
        stream=stream,
        width_px=848,
        height_px=480,
        pixels=rng.uniform((0, 0), (600, 470), (500, 2)),
        residuals_px=rng.normal(0, 0.1, (500, 2)),
        sigma_px=0.1,
        inliers=rng.random(500) > 0.02,
        tilt_rad=rng.uniform(0, 0.8, 12),
        direction_rad=rng.uniform(-3, 3, 12),
        distance_m=rng.uniform(0.4, 0.6, 12),
    )


def uncertainty() -> UncertaintyMap:
    volume, shape = Volume(np.array([-0.1, -0.05, 0.0]), np.array([0.1, 0.05, 0.02])), (9, 5, 3)
    points = volume.grid(shape).reshape(-1, 3)
    u_m = 1e-4 * (1 + 20 * np.abs(points[:, 0]) + 10 * points[:, 2])
    systematic = u_m[:, None, None] ** 2 * np.eye(3)
    systematic[0] = np.nan
    weights = np.ones((1, len(points)))
    weights[0, 0] = 0
    return UncertaintyMap(
        volume, shape, PointUncertainty(points, systematic, np.zeros_like(systematic), weights, ("1",)), 30
    )


def difference(stream: str = "depth:1") -> DifferenceMap:
    return DifferenceMap(stream, 848, 480, np.linspace(0, 0.4, 20 * 30).reshape(20, 30), "px")


def bias() -> DepthBias:
    rng = np.random.default_rng(4)
    z_m = rng.uniform(0.4, 0.6, 300)
    return DepthBias("1", z_m, 12 * z_m + rng.normal(0, 0.1, 300), rng.normal(0, 0.1, 300))


def masked(image: AxesImage) -> int:
    return int(np.ma.getmaskarray(np.ma.asarray(image.get_array())).sum())


def all_figures() -> list[Figure]:
    streams = (evidence(), evidence("color:1", 2), evidence("depth:2", 3))
    return [
        draw_residuals(streams),
        draw_residuals(streams[:1]),
        draw_coverage(streams),
        draw_poses(streams),
        draw_normalised(streams[0].residuals_px / 0.1),
        draw_uncertainty(uncertainty()),
        draw_depth_bias((bias(), bias())),
        draw_differences((difference(), difference("depth:2"))),
    ]


def test_pictures_are_the_same_bytes_each_time_and_fill_a_page_width() -> None:
    first, second = ([png_of(figure, dpi=60) for figure in all_figures()] for _ in range(2))
    assert first == second
    for picture in first:
        image = Image.open(io.BytesIO(picture))
        assert image.width == 420  # 7 inches
        assert 90 < image.height < 630
        assert "Software" not in image.info
        assert len(set(image.convert("L").resize((60, 60)).tobytes())) > 20  # not blank


def test_residuals_are_drawn_from_where_they_are_to_where_they_point() -> None:
    one = evidence()
    (axes,) = draw_residuals((one,)).axes
    arrows = [artist for artist in axes.collections if isinstance(artist, Quiver)]
    single, means = arrows[:2]
    np.testing.assert_allclose(np.asarray(single.XY, np.float64), one.pixels[one.inliers])
    drawn = np.column_stack((np.asarray(single.U, np.float64), np.asarray(single.V, np.float64)))
    np.testing.assert_allclose(drawn, one.residuals_px[one.inliers])
    assert len(np.asarray(means.XY)) == len(full_cells(one))
    assert means.scale
    assert single.scale == pytest.approx(4 * means.scale)  # the smaller the scale, the longer the arrow
    (crosses,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert len(crosses.get_xdata()) == (~one.inliers).sum()  # type: ignore[arg-type]
    assert axes.yaxis_inverted()
    assert f"{(~one.inliers).sum()} outliers" in axes.get_title()


def full_cells(one: StreamEvidence) -> set[tuple[int, int]]:
    place = [(int((y + 0.5) / (480 / 7)), int((x + 0.5) / (848 / 12))) for x, y in one.pixels[one.inliers]]
    return {cell for cell in place if place.count(cell) >= 5}


def test_coverage_counts_features_by_hand() -> None:
    one = evidence()
    table = coverage(one)
    assert table.shape == (7, 12)
    assert table.sum() == one.inliers.sum()
    inside = (one.pixels[:, 0] < 848 / 12 - 0.5) & (one.pixels[:, 1] < 480 / 7 - 0.5) & one.inliers
    assert table[0, 0] == inside.sum()
    assert not table[:, 9:].any()  # nothing was found right of column 600
    figure = draw_coverage((one,))
    (image,) = [artist for artist in figure.axes[0].images if isinstance(artist, AxesImage)]
    assert masked(image) == (table == 0).sum()


@given(st.floats(1e-6, 1e6))
def test_a_round_step_is_one_two_or_five(value: float) -> None:
    step = round_step(value)
    assert step <= value * (1 + 1e-9) < 2.5 * step * (1 + 1e-6)
    assert f"{step:.0e}"[0] in "125"


def test_the_border_belongs_to_the_outer_cells() -> None:
    corners = np.array([[-0.5, -0.5], [847.5, 479.5]])
    assert cells_of(corners, 848, 480, 12).tolist() == [[0, 0], [6, 11]]


def test_unseen_places_stay_empty_in_the_map() -> None:
    found = uncertainty()
    figure = draw_uncertainty(found)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert [masked(image) for image in images] == [1, 0, 0]
    assert images[0].get_clim() == images[2].get_clim()
    assert figure.axes[0].get_title() == "z = 0 mm"


def test_nothing_to_draw_is_refused() -> None:
    blind = replace(uncertainty().points, systematic_m2=np.full((135, 3, 3), np.nan), weights=np.zeros((1, 135)))
    unseen = replace(uncertainty(), points=blind)
    for draw in (
        lambda: draw_residuals(()),
        lambda: draw_poses(()),
        lambda: draw_normalised(np.zeros(0)),
        lambda: draw_depth_bias(()),
        lambda: draw_differences(()),
        lambda: draw_uncertainty(unseen),
        lambda: replace(evidence(), inliers=np.zeros(3, np.bool_)),
    ):
        with pytest.raises(DepthcellError):
            draw()


@pytest.mark.parametrize(
    ("turn_deg", "tilt_deg", "direction_deg"),
    [((0, 0, 0), 0, None), ((0, 30, 0), 30, 180), ((0, -20, 0), 20, 0), ((25, 0, 0), 25, 90), ((0, 30, 70), 30, 180)],
)
def test_tilt_is_told_as_the_camera_sees_it(
    turn_deg: tuple[float, float, float], tilt_deg: float, direction_deg: float | None
) -> None:
    """A board turned about the image's vertical by +30° shows its face to the left: z into the board goes right."""
    around, middle = np.radians(turn_deg), np.array([0.1, 0.05, 0.0])
    spin = RigidTransform.from_rotation_vector("board", "board", np.array([0, 0, around[2]]), np.zeros(3))
    tilt = RigidTransform.from_rotation_vector("cam", "board", np.array([around[0], around[1], 0]), np.zeros(3))
    turned = tilt @ spin
    pose = RigidTransform("cam", "board", turned.rotation, np.array([0, 0, 0.5]) - turned.rotation @ middle)
    tilt_rad, direction_rad, distance_m = board_aspect(pose, middle)
    assert distance_m == pytest.approx(0.5)
    assert np.degrees(tilt_rad) == pytest.approx(tilt_deg, abs=1e-6)
    if direction_deg is not None:
        assert abs(np.degrees(direction_rad)) == pytest.approx(direction_deg)


@pytest.fixture(scope="module")
def solved() -> tuple[BundleProblem, BundleSolution, RigTruth]:
    settings = RigSettings(cameras=2, instants=14, tile_sigma_px=0.01, outlier_share=0.01)
    problem, truth = synthetic_rig(settings, np.random.default_rng(5))
    return problem, solve_bundle(problem), truth


def test_evidence_of_a_solved_rig_is_whole(solved: tuple[BundleProblem, BundleSolution, RigTruth]) -> None:
    problem, solution, truth = solved
    for one in stream_evidence(problem, solution):
        views = [view for view in problem.views if view.stream == one.stream]
        assert len(one.pixels) == sum(len(view.ids) for view in views)
        assert (~one.inliers).sum() == solution.outliers[one.stream]
        assert one.residuals_px[one.inliers].std() == pytest.approx(0.1, rel=0.15)
        middle = Board.parse("charuco:9x6:30mm").points_board.mean(axis=0)
        true_m = [
            np.linalg.norm(truth.T_cell_stream[one.stream].inverse() @ (truth.T_cell_board[view.place] @ middle))
            for view in views
        ]
        np.testing.assert_allclose(one.distance_m, true_m, atol=2e-3)


def test_depth_bias_is_that_of_the_simulated_sensor(solved: tuple[BundleProblem, BundleSolution, RigTruth]) -> None:
    problem, solution, truth = solved
    for one in depth_bias(problem, solution):
        serial_tiles = [
            (tiles, inside)
            for tiles, inside in zip(problem.depth, solution.tile_inliers, strict=True)
            if tiles.serial == one.serial
        ]
        pixels = np.concatenate([tiles.pixels[inside] for tiles, inside in serial_tiles])
        read_m = true_depth_read_m(truth, one.serial, problem.baselines_m[one.serial], pixels, one.distance_m)
        np.testing.assert_allclose(one.before_mm, 1e3 * (read_m - one.distance_m), atol=1.0)
        assert np.median(np.abs(one.after_mm)) < 0.1 * np.median(np.abs(one.before_mm))


def test_a_certificate_gets_all_its_pictures(
    solved: tuple[BundleProblem, BundleSolution, RigTruth], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, solution, _ = solved
    monkeypatch.setattr(certificate_pictures, "png_of", lambda figure: png_of(figure, dpi=40))
    pictures = pictures_of(problem, solution, uncertainty(), (difference(),))
    assert [picture.title for picture in pictures] == [
        "Residuals",
        "Coverage of the images",
        "Distance and tilt of the boards",
        "Residuals against the normal distribution",
        "Depth before and after correction",
        "Uncertainty in the work volume",
        "Difference of two halves",
    ]
    assert all(picture.png.startswith(b"\x89PNG") and picture.caption and picture.alt for picture in pictures)
    assert "depth:000: rms" in pictures[0].alt
    fewer = pictures_of(replace(problem, depth=()), solution, None)
    assert len(fewer) == 4


def test_the_difference_of_two_halves_becomes_a_map(solved: tuple[BundleProblem, BundleSolution, RigTruth]) -> None:
    problem, solution, _ = solved
    halves = compare_halves(problem, solution)
    maps = difference_maps(problem, halves)
    assert [one.stream for one in maps] == list(problem.streams)
    for one, check in zip(maps, halves.streams, strict=True):
        assert np.isfinite(one.difference).all()  # a pinhole knows every direction
        assert np.sqrt((one.difference**2).mean() / 2) == pytest.approx(check.rms_px)
        assert one.difference[2:7, 2:7].mean() < one.difference[[0, 0, -1, -1], [0, -1, 0, -1]].mean()
    image = draw_differences(maps).axes[0].images[0]
    np.testing.assert_allclose(np.asarray(image.get_array(), np.float64), maps[0].difference)
