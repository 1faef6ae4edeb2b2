"""Which lens model is taken, and when a stream saw too little for any."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigrecording import recorded

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.calib.board import Board
from depthcell.calib.boardview import BoardView
from depthcell.calib.intrinsics_choice import FACTORY, LensChoice, choose_intrinsics, residuals_px
from depthcell.calib.rig_evidence import distance_px, distinct_views, require_evidence, weigh_evidence
from depthcell.calib.rig_lens import (
    as_supported,
    fit_lens,
    image_grid,
    is_invertible,
    start_intrinsics,
    without_outliers,
)
from depthcell.calib.synthetic_rig import RigSettings
from depthcell.errors import DepthcellError

PINHOLE = Intrinsics(848, 480, 609.0, 609.0, 423.5, 239.5)
STRAIGHT = RigSettings(
    cameras=1, instants=24, lens=PINHOLE, tiles=(0, 0), warp_u_m=0.0, board_scale_u=0.0, distance_m=0.35, spread_m=0.05
)


def lens_of(distortion: Distortion, coefficients: tuple[float, ...]) -> Intrinsics:
    return replace(PINHOLE, distortion=distortion, coefficients=coefficients)


def views_of(
    seed: int, lens: Intrinsics, instants: int = 24, sigma_px: float = 0.1
) -> tuple[tuple[Board, ...], tuple[BoardView, ...]]:
    """Views of one stream whose true lens is `lens`."""
    recording, truth = recorded(seed, replace(STRAIGHT, instants=instants, lens_u=0.0))
    rng = np.random.default_rng(seed)
    board, views = recording.boards[0], []
    for view in recording.views:
        T_stream_board = truth.T_cell_stream[view.stream].inverse() @ truth.T_cell_board[view.place]
        pixels = lens.project(T_stream_board @ board.points_board)
        ids = np.flatnonzero(((pixels > 4) & (pixels < (843, 475))).all(axis=1))
        if len(ids) > 8:
            noise = rng.normal(0, sigma_px, (len(ids), 2))
            views.append(replace(view, ids=ids, pixels=pixels[ids] + noise, sigma_px=sigma_px))
    return recording.boards, tuple(views)


def chosen(seed: int, lens: Intrinsics, factory: Intrinsics | None = None, sigma_px: float = 0.1) -> LensChoice:
    boards, views = views_of(seed, lens, sigma_px=sigma_px)
    return choose_intrinsics(views, boards, PINHOLE, factory)


def row(choice: LensChoice, name: str) -> float:
    return next(score.held_out_rms_px for score in choice.table if score.name == name)


def test_straight_lens_gets_the_pinhole_though_richer_models_fit_better() -> None:
    choice = chosen(3, PINHOLE)
    assert choice.intrinsics.distortion is Distortion.NONE
    fits = {score.name: score.fit_rms_px for score in choice.table}
    assert fits["thin_prism"] < fits["none"]
    assert row(choice, "none") <= 1.02 * row(choice, "thin_prism")
    assert choice.sentence.startswith("depth:000: none, held-out RMS 0.")


def test_bent_lens_gets_five_coefficients_and_a_strange_one_more() -> None:
    five = chosen(3, lens_of(Distortion.BROWN_CONRADY, (0.12, -0.25, 0.001, -0.001, 0.05)))
    assert five.intrinsics.distortion is Distortion.BROWN_CONRADY
    assert row(five, "none") > 1.5 * row(five, "brown_conrady")
    prism = (0.1, -0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.02, -0.01, -0.02, 0.01)
    twelve = chosen(3, lens_of(Distortion.THIN_PRISM, prism), sigma_px=0.02)
    assert twelve.intrinsics.distortion is Distortion.THIN_PRISM
    assert abs(twelve.intrinsics.fx_px - 609.0) < 1.0


def test_factory_lens_is_kept_only_where_it_predicts_best() -> None:
    assert chosen(5, PINHOLE, PINHOLE).is_factory
    off = replace(PINHOLE, fx_px=612.0, fy_px=612.0)
    choice = chosen(5, PINHOLE, off)
    assert not choice.is_factory
    assert row(choice, FACTORY) > row(choice, "none")


def test_held_out_figure_is_that_of_fits_done_by_hand() -> None:
    boards, views = views_of(8, PINHOLE, instants=14)
    choice = choose_intrinsics(views, boards, PINHOLE, folds=7)
    ordered = sorted(views, key=lambda view: view.instant)
    squares = []
    for number, view in enumerate(ordered):
        rest = [other for k, other in enumerate(ordered) if k % 7 != number % 7]
        lens = fit_lens(rest, boards, PINHOLE, Distortion.NONE).intrinsics
        points = boards[0].points_board[view.ids]
        _, turn, shift = cv2.solvePnP(points, view.pixels, lens.matrix, None)
        away = view.pixels - cv2.projectPoints(points, turn, shift, lens.matrix, None)[0][:, 0]
        squares.append(float((away**2).sum() / (away.size - 6)))
    assert row(choice, "none") == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-3)


def test_wrong_corners_do_not_decide() -> None:
    boards, views = views_of(3, PINHOLE)
    pixels = views[2].pixels.copy()
    pixels[3] += 20.0
    spoilt = (*views[:2], replace(views[2], pixels=pixels), *views[3:])
    fitted = fit_lens(spoilt, boards, PINHOLE, Distortion.BROWN_CONRADY)
    cleaned = without_outliers(spoilt, fitted)
    assert sum(len(view.ids) for view in cleaned) < sum(len(view.ids) for view in views)
    assert views[2].ids[3] not in cleaned[2].ids
    assert choose_intrinsics(spoilt, boards, PINHOLE).intrinsics.distortion is Distortion.NONE


def test_too_few_views_are_refused() -> None:
    boards, views = views_of(3, PINHOLE)
    with pytest.raises(DepthcellError, match="6 views are too few to choose a lens model; show the board at 7 places"):
        choose_intrinsics(views[:6], boards, PINHOLE)
    with pytest.raises(DepthcellError, match="2 views of the board are too few to find its lens"):
        start_intrinsics(views[:2], boards, (848, 480))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.floats(450, 900))
def test_start_is_found_from_nothing(seed: int, focal_px: float) -> None:
    lens = replace(PINHOLE, fx_px=focal_px, fy_px=focal_px)
    boards, views = views_of(seed, lens)
    start = start_intrinsics(views, boards, (848, 480))
    assert start.fx_px == pytest.approx(focal_px, rel=0.02)
    assert is_invertible(start) or len(views) < 12


def test_librealsense_models_become_the_nearest_of_opencv() -> None:
    own = lens_of(Distortion.INVERSE_BROWN_CONRADY, (-0.055, 0.065, 0.004, -0.003, -0.02))
    twin = as_supported(own)
    assert twin.distortion is Distortion.BROWN_CONRADY
    pixels = image_grid(own, 7)
    rays = np.c_[own.normalized(pixels), np.ones(len(pixels))]
    plain = replace(own, distortion=Distortion.BROWN_CONRADY)
    off_px, plain_off_px = (np.abs(lens.project(rays) - pixels).max() for lens in (twin, plain))
    assert off_px < 0.15
    assert off_px < plain_off_px / 2
    assert as_supported(PINHOLE) is PINHOLE


def test_lens_that_folds_over_is_known() -> None:
    assert is_invertible(PINHOLE)
    assert not is_invertible(lens_of(Distortion.BROWN_CONRADY, (-1.5, 0.0, 0.0, 0.0, 0.0)))


def test_residuals_leave_the_pose_free() -> None:
    boards, views = views_of(3, PINHOLE, sigma_px=0.001)
    fitted = fit_lens(views, boards, PINHOLE, Distortion.NONE)
    jolted = fitted.poses[0].perturbed(np.array([0.02, -0.01, 0.02, 0.004, -0.003, 0.005]))
    assert np.abs(residuals_px(views[0], boards[0], PINHOLE, jolted)).max() < 0.01


def test_what_is_missing_is_said() -> None:
    boards, views = views_of(3, PINHOLE)
    enough = weigh_evidence(views, boards, PINHOLE, "depth:000")
    assert enough.missing == ()
    require_evidence([enough])
    few = weigh_evidence(views[:5], boards, PINHOLE, "depth:000")
    with pytest.raises(DepthcellError, match=r"depth:000: 3 more places of the board \(5 of 8\)"):
        require_evidence([enough, few])


def test_flat_views_and_an_empty_image_are_named() -> None:
    board = Board.parse("charuco:5x4:10mm")
    rng = np.random.default_rng(0)
    flat, tilted = [], []
    for instant in range(12):
        points = board.points_board + np.append(rng.uniform(-0.06, -0.02, 2), 0.3)
        flat.append(BoardView("a", instant, 0, np.arange(12), PINHOLE.project(points), 0.1))
        angle = rng.uniform(-0.6, 0.6)
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        points = board.points_board @ turn.T + np.append(rng.uniform(-0.06, 0.0, 2), 0.3)
        tilted.append(BoardView("a", instant, 0, np.arange(12), PINHOLE.project(points), 0.1))
    found = weigh_evidence(flat, (board,), PINHOLE, "a")
    assert any("tilted by 12 degrees" in clause for clause in found.missing)
    assert any("bottom right" in clause for clause in found.missing)
    one_axis = weigh_evidence(tilted, (board,), PINHOLE, "a")
    assert "views tilted about the board's other axis as well" in one_axis.missing


def test_repeats_of_one_place_count_once() -> None:
    boards, views = views_of(3, PINHOLE)
    rng = np.random.default_rng(0)
    still = [
        replace(views[0], instant=100 + k, pixels=views[0].pixels + rng.normal(0, 0.1, views[0].pixels.shape))
        for k in range(20)
    ]
    assert len(distinct_views((*views, *still))) == len(distinct_views(views)) == len(views)
    assert distance_px(views[0], still[0]) < 0.5
    assert distance_px(views[0], replace(still[0], stream="color:000")) == float("inf")
    assert weigh_evidence([views[0], *still], boards, PINHOLE, "a").views == 1
