"""Which lens model is taken, and when a stream saw too little for any."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigrecording import recorded

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSolution, solve_bundle
from depthcell.calib.adjustment.bundle_blocks import BoardShape
from depthcell.calib.adjustment.synthetic_rig import RigSettings
from depthcell.calib.solving.intrinsics_choice import (
    FACTORY,
    REFERENCE,
    LensChoice,
    LensScore,
    best_of,
    choose_intrinsics,
    rough_lens,
)
from depthcell.calib.solving.rig_candidate import StreamSight, as_model, fit_candidate, judge_lens, sight_of_stream
from depthcell.calib.solving.rig_evidence import distance_px, distinct_views, require_evidence, weigh_evidence
from depthcell.calib.solving.rig_lens import (
    as_supported,
    fit_lens,
    image_grid,
    is_invertible,
    mean_square_px2,
    residuals_px,
    start_intrinsics,
    without_outliers,
)
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
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
    problem, _ = problem_of(seed, lens, instants, sigma_px)
    return problem.boards, problem.views


def problem_of(
    seed: int, lens: Intrinsics, instants: int = 24, sigma_px: float = 0.1, warp_m: tuple[float, float] = (0.0, 0.0)
) -> tuple[BundleProblem, BundleSolution]:
    """One stream with the true lens `lens`, and the adjustment from which its model is chosen."""
    recording, truth = recorded(seed, replace(STRAIGHT, instants=instants, lens_u=0.0))
    rng = np.random.default_rng(seed)
    board, views = recording.boards[0], []
    points = BoardShape(board).points_board(board.points_board[:, :2], np.array(warp_m), 1.0)
    for view in recording.views:
        T_stream_board = truth.T_cell_stream[view.stream].inverse() @ truth.T_cell_board[view.place]
        pixels = lens.project(T_stream_board @ points)
        ids = np.flatnonzero(((pixels > 4) & (pixels < (843, 475))).all(axis=1))
        if len(ids) > 8:
            noise = rng.normal(0, sigma_px, (len(ids), 2))
            views.append(replace(view, ids=ids, pixels=pixels[ids] + noise, sigma_px=sigma_px))
    start = rough_lens(views, recording.boards, replace(lens, distortion=Distortion.NONE, coefficients=(0.0,) * 5))
    problem = BundleProblem(
        recording.boards,
        tuple(views),
        {views[0].stream: start},
        truth.T_cell_stream,
        {view.place: truth.T_cell_board[view.place] for view in views},
        views[0].place,
    )
    return problem, solve_bundle(problem)


def sight(seed: int, lens: Intrinsics, **how: object) -> StreamSight:
    problem, solution = problem_of(seed, lens, **how)  # type: ignore[arg-type]
    return sight_of_stream(solution, problem.boards, problem.views, problem.views[0].stream)


def chosen(seed: int, lens: Intrinsics, factory: Intrinsics | None = None, **how: object) -> LensChoice:
    return choose_intrinsics(sight(seed, lens, **how), factory)


def row(choice: LensChoice, name: str) -> float:
    return next(score.held_out_rms_px for score in choice.table if score.name == name)


def test_richest_model_is_not_taken_for_fitting_best() -> None:
    choice = chosen(3, lens_of(Distortion.BROWN_CONRADY, (0.12, -0.25, 0.001, -0.001, 0.05)))
    fits = {score.name: score.fit_rms_px for score in choice.table}
    assert fits["thin_prism"] < fits["brown_conrady"]
    assert choice.intrinsics.distortion is Distortion.BROWN_CONRADY
    assert choice.sentence.startswith("depth:000: brown_conrady, held-out RMS 0.")


def score(name: str, parameters: int, held_out_px: float, excess: float = 0.0, openness: float = 0.0) -> LensScore:
    return LensScore(name, parameters, held_out_px, held_out_px, 0.0, 0.1, excess, openness, True)


def test_pinhole_is_taken_only_where_five_coefficients_are_left_open() -> None:
    none, five = score("none", 4, 0.099, excess=0.5), score("brown_conrady", 9, 0.1)
    assert best_of([none, five]) is five
    assert best_of([none, replace(five, openness=0.5)]) is none
    assert best_of([none, replace(five, usable=False)]) is none
    assert best_of([replace(none, usable=False), replace(five, usable=False)]) is None


def test_model_left_open_is_taken_where_all_others_are_worse_beyond_doubt() -> None:
    five, twelve = score("brown_conrady", 9, 0.2), score("thin_prism", 16, 0.1, openness=0.7)
    assert best_of([five, twelve]) is five
    assert best_of([replace(five, worse=0.5), twelve]) is twelve
    worse = replace(five, worse=0.5)
    assert best_of([worse, replace(twelve, held_out_rms_px=0.19)]) is worse
    assert best_of([worse, replace(twelve, usable=False)]) is worse


def test_bent_lens_gets_five_coefficients_and_a_strange_one_more() -> None:
    five = chosen(3, lens_of(Distortion.BROWN_CONRADY, (0.12, -0.25, 0.001, -0.001, 0.05)))
    assert five.intrinsics.distortion is Distortion.BROWN_CONRADY
    assert row(five, "none") > 1.5 * row(five, "brown_conrady")
    prism = (0.1, -0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.02, -0.01, -0.02, 0.01)
    strange = lens_of(Distortion.THIN_PRISM, prism)
    twelve = chosen(3, strange, sigma_px=0.02)
    assert twelve.intrinsics.distortion is Distortion.THIN_PRISM
    assert abs(twelve.intrinsics.fx_px - 609.0) < 1.0


@pytest.mark.parametrize("seed", [3, 4])
def test_small_distortion_is_not_left_out_though_hardly_seen_on_held_out_views(seed: int) -> None:
    """A stream that the device calls rectified; without its coefficients the principal point is far off."""
    lens = lens_of(Distortion.BROWN_CONRADY, (-0.001, 0.0015, -0.0002, -0.0002, 0.0))
    seen = sight(seed, lens, sigma_px=0.01, warp_m=(-0.0002, -0.0002))
    choice = choose_intrinsics(seen)
    table = {score.name: score for score in choice.table}
    assert choice.intrinsics.distortion is Distortion.BROWN_CONRADY
    assert table["none"].held_out_rms_px < 1.5 * table["brown_conrady"].held_out_rms_px
    assert table["none"].excess > 5
    u_px = np.sqrt(np.diag(seen.covariance))[2:4]
    five, none = (fit_candidate(seen, model, 5).intrinsics for model in (REFERENCE, Distortion.NONE))
    off_five, off_none = (np.abs(((one.cx_px - 423.5), (one.cy_px - 239.5))) / u_px for one in (five, none))
    assert off_five.max() < 4
    assert off_none.max() > 4


def test_boards_bend_does_not_hide_what_held_out_views_say() -> None:
    """With the board taken for flat the figure is that of the bend; with it bent as adjusted, that of the noise."""
    problem, solution = problem_of(4, lens_of(REFERENCE, (0.1, -0.2, 0.0, 0.0, 0.0)), 24, 0.02, (0.0003, -0.0002))
    stream = problem.views[0].stream
    bent = sight_of_stream(solution, problem.boards, problem.views, stream)
    flat = replace(bent, points_board=tuple(problem.boards[0].points_board[view.ids] for view in bent.views))
    assert row(choose_intrinsics(bent), "brown_conrady") < 0.024
    assert row(choose_intrinsics(flat), "brown_conrady") > 0.04


def test_model_that_the_views_leave_open_is_not_taken() -> None:
    choice = chosen(3, lens_of(Distortion.BROWN_CONRADY, (0.12, -0.25, 0.001, -0.001, 0.05)))
    openness = {score.name: score.openness for score in choice.table}
    assert openness["brown_conrady"] < 0.01
    assert min(openness["rational"], openness["thin_prism"]) > 0.3


def test_factory_lens_is_kept_only_where_nothing_contradicts_it() -> None:
    assert chosen(5, PINHOLE, PINHOLE).is_factory
    off = replace(PINHOLE, fx_px=612.0, fy_px=612.0)
    choice = chosen(5, PINHOLE, off)
    assert not choice.is_factory
    assert row(choice, FACTORY) > row(choice, "none")
    richer = lens_of(Distortion.RATIONAL, (0.0,) * 8)
    assert not chosen(5, PINHOLE, richer).is_factory  # of its last three coefficients the adjustment says nothing


def test_held_out_figure_is_that_of_fits_done_by_hand() -> None:
    boards, views = views_of(8, PINHOLE, instants=14)
    problem, solution = problem_of(8, PINHOLE, instants=14)
    seen = sight_of_stream(solution, boards, views, "depth:000")
    flat = replace(seen, points_board=tuple(boards[0].points_board[view.ids] for view in seen.views))
    for model in (Distortion.NONE, Distortion.BROWN_CONRADY):
        fit = fit_candidate(flat, model, 7)
        squares = []
        for number, view in enumerate(seen.views):
            rest = [other for k, other in enumerate(seen.views) if k % 7 != number % 7]
            lens = fit_lens(rest, boards, PINHOLE, model).intrinsics
            squares.append(mean_square_px2(residuals_px(view, boards[0], lens, seen.poses[number])))
        assert np.sqrt(fit.held_out_px2.mean()) == pytest.approx(np.sqrt(np.mean(squares)), rel=0.01)
        whole = fit_lens(seen.views, boards, PINHOLE, model)
        assert fit.rms_px == pytest.approx(whole.rms_px, rel=1e-4)
        assert fit.intrinsics.fx_px == pytest.approx(whole.intrinsics.fx_px, abs=0.02)
    assert problem.views == views or len(problem.views) == len(views)


def test_lens_that_is_held_is_judged_where_boards_fit_best_under_it() -> None:
    boards, views = views_of(8, PINHOLE, instants=14)
    _, solution = problem_of(8, PINHOLE, instants=14)
    seen = sight_of_stream(solution, boards, views, "depth:000")
    flat = replace(seen, points_board=tuple(boards[0].points_board[view.ids] for view in seen.views))
    other = replace(PINHOLE, fx_px=620.0)
    judged = judge_lens(flat, other)
    by_hand = [
        mean_square_px2(residuals_px(view, boards[0], other, near))
        for view, near in zip(seen.views, seen.poses, strict=True)
    ]
    np.testing.assert_allclose(judged.held_out_px2, by_hand, rtol=1e-3)


def test_lens_in_another_model_keeps_what_both_have() -> None:
    lens = lens_of(Distortion.BROWN_CONRADY, (0.1, -0.2, 0.001, 0.002, 0.03))
    assert as_model(lens, Distortion.RATIONAL).coefficients == (0.1, -0.2, 0.001, 0.002, 0.03, 0.0, 0.0, 0.0)
    assert as_model(lens, Distortion.NONE).coefficients == (0.0,) * 5
    assert as_model(as_model(lens, Distortion.THIN_PRISM), Distortion.BROWN_CONRADY) == lens
    assert as_model(PINHOLE, Distortion.BROWN_CONRADY).coefficients == (0.0,) * 5


def test_wrong_corners_do_not_decide() -> None:
    boards, views = views_of(3, PINHOLE)
    pixels = views[2].pixels.copy()
    pixels[3] += 20.0
    spoilt = (*views[:2], replace(views[2], pixels=pixels), *views[3:])
    fitted = fit_lens(spoilt, boards, PINHOLE, Distortion.BROWN_CONRADY)
    cleaned = without_outliers(spoilt, fitted)
    assert sum(len(view.ids) for view in cleaned) < sum(len(view.ids) for view in views)
    assert views[2].ids[3] not in cleaned[2].ids
    assert rough_lens(spoilt, boards, PINHOLE).distortion is REFERENCE
    problem, _ = problem_of(3, PINHOLE)
    spoilt_problem = replace(problem, views=spoilt)
    seen = sight_of_stream(solve_bundle(spoilt_problem), boards, spoilt, "depth:000")
    assert views[2].ids[3] not in seen.views[2].ids
    sound = sight(3, PINHOLE)
    assert choose_intrinsics(seen).intrinsics.distortion is choose_intrinsics(sound).intrinsics.distortion


def test_too_few_views_are_refused() -> None:
    boards, views = views_of(3, PINHOLE)
    with pytest.raises(DepthcellError, match="6 views are too few to choose a lens model; show the board at 7 places"):
        choose_intrinsics(sight(3, PINHOLE, instants=6))
    with pytest.raises(DepthcellError, match="2 views of the board are too few to find its lens"):
        start_intrinsics(views[:2], boards, (848, 480))


@settings(max_examples=3, deadline=None)
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
