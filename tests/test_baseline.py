"""The baseline on drawn parts: each step against what was drawn, the fast search against a slow twin, each defect."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partimages import PIXEL_M, SIDE_PX, Part, draw_part

from depthcell.errors import DepthcellError
from depthcell.models.anomaly import AnomalyMap
from depthcell.models.baseline import Baseline, BaselineSettings, Method, fit_steps, worst
from depthcell.models.baseline_align import ReferenceBank
from depthcell.models.baseline_features import edge_features, least_distance, normal_features
from depthcell.models.baseline_view import Scale, common_scale, height_above_plane, part_outline, view_part
from depthcell.models.mvtec3d import Scan

SCALE = Scale(1.0, 112, 1000 * PIXEL_M)


def drawn(count: int, seed: int, defect: str = "good") -> list[Part]:
    rng = np.random.default_rng(seed)
    return [draw_part(rng, defect) for _ in range(count)]


@pytest.fixture(scope="module")
def goods() -> list[Scan]:
    return [part.scan for part in drawn(24, 1)]


@pytest.fixture(scope="module")
def baselines(goods: list[Scan]) -> dict[Method, Baseline]:
    settings = BaselineSettings(neighbours=6)
    return {method: Baseline.fit(goods, replace(settings, method=method), lambda: None) for method in Method}


# Finding the part


PLATE_PX2 = 64 * 40 - 12 * 12


def test_heights_are_those_drawn(goods: list[Scan]) -> None:
    height_mm = 1000 * height_above_plane(goods[0])
    plate = part_outline(goods[0], height_mm / 1000)
    assert np.nanmedian(height_mm[~cv2.dilate(plate.astype(np.uint8), np.ones((5, 5))).astype(bool)]) == pytest.approx(
        0, abs=0.05
    )
    assert np.nanmedian(height_mm[cv2.erode(plate.astype(np.uint8), np.ones((9, 9))) > 0]) == pytest.approx(
        8.1, abs=0.3
    )
    np.testing.assert_array_equal(np.isnan(height_mm), np.isnan(goods[0].xyz_cam[..., 2]))


def test_outline_is_the_plate_with_its_bores_filled(goods: list[Scan]) -> None:
    for scan in goods[:5]:
        area = part_outline(scan, height_above_plane(scan)).sum()
        assert PLATE_PX2 <= area < PLATE_PX2 + 2 * 208  # at most two pixels beyond its rim of 208


def test_a_part_seen_in_colour_alone_is_found(goods: list[Scan]) -> None:
    """A part that lost all its depth still stands out; one that lost both does not, and is refused by name."""
    flat = np.where(goods[0].xyz_cam[..., 2:] < 0.597, np.nan, goods[0].xyz_cam)
    scan = replace(goods[0], xyz_cam=flat)
    assert PLATE_PX2 <= part_outline(scan, height_above_plane(scan)).sum() < PLATE_PX2 + 2 * 208
    nothing = replace(scan, rgb=np.full_like(scan.rgb, 18))
    with pytest.raises(DepthcellError, match="drawn good: no part stands out"):
        part_outline(nothing, height_above_plane(nothing))


def test_too_few_points_are_refused_by_name(goods: list[Scan]) -> None:
    points = np.full_like(goods[0].xyz_cam, np.nan)
    points[0, :2] = 1.0
    with pytest.raises(DepthcellError, match="drawn good: fewer than three points"):
        height_above_plane(replace(goods[0], xyz_cam=points))


def test_scale_knows_the_pixel(goods: list[Scan]) -> None:
    scale = common_scale(goods[:5])
    assert scale.factor == 1.0
    assert scale.canvas_px % 16 == 0
    assert scale.pixel_mm == pytest.approx(1000 * PIXEL_M, rel=1e-3)


def test_large_images_are_shrunk_and_maps_come_back_at_full_size(goods: list[Scan]) -> None:
    def enlarged(scan: Scan) -> Scan:
        return replace(
            scan,
            rgb=scan.rgb.repeat(6, axis=0).repeat(6, axis=1),
            xyz_cam=scan.xyz_cam.repeat(6, axis=0).repeat(6, axis=1),
        )

    scans = [enlarged(scan) for scan in goods[:4]]
    scale = common_scale(scans)
    assert scale.factor < 0.7
    view = view_part(scans[0], scale)
    back = view.to_image(view.part.astype(np.float32), scale.factor) > 0.5
    outline = part_outline(scans[0], height_above_plane(scans[0]))
    assert back.shape == (672, 672)
    assert (back & outline).sum() / (back | outline).sum() > 0.95


@settings(max_examples=20, deadline=None)
@given(st.integers(-40, 60), st.integers(-40, 60), st.integers(0, 2**31))
def test_what_is_cut_out_goes_back_to_its_place(left: int, top: int, seed: int) -> None:
    """A canvas may hang over any edge of the image; what lies on the image returns, the rest is gone."""
    view = replace(view_part(draw_part(np.random.default_rng(3)).scan, SCALE), corner_px=(left, top))
    canvas = np.random.default_rng(seed).random((112, 112)).astype(np.float32)
    image = view.to_image(canvas, 1.0)
    expected = np.zeros_like(image)
    for row in range(112):
        for column in range(112):
            if 0 <= row - top < 112 and 0 <= column - left < 112:
                expected[row, column] = canvas[row - top, column - left]
    np.testing.assert_array_equal(image, expected)


# Laying good parts over it


def test_a_turned_part_is_laid_over(goods: list[Scan]) -> None:
    """Outlines of parts at any angle agree with the judged part's once laid over it, better than without."""
    bank = ReferenceBank([view_part(scan, SCALE) for scan in goods])
    view = view_part(drawn(1, 77)[0].scan, SCALE)

    def overlap(part: np.ndarray) -> float:
        return float((part & view.part).sum() / (part | view.part).sum())

    overlays = bank.overlays(view, 6)
    laid = [overlap(overlay.carry_view(bank.views[overlay.reference]).part) for overlay in overlays]
    raw = [overlap(bank.views[overlay.reference].part) for overlay in overlays]
    assert min(laid) > 0.93
    assert np.mean(laid) > np.mean(raw) + 0.1


def test_the_one_left_out_is_never_used(goods: list[Scan]) -> None:
    views = [view_part(scan, SCALE) for scan in goods[:5]]
    bank = ReferenceBank(views)
    assert bank.overlays(views[2], 1)[0].reference == 2
    assert 2 not in {overlay.reference for overlay in bank.overlays(views[2], 9, leave_out=2)}
    assert len(bank.overlays(views[2], 9, leave_out=2)) == 4


def test_a_thinned_overlay_comes_back_nearly_whole(goods: list[Scan]) -> None:
    """Within a twentieth of a pixel wherever the part lies, at a sixteenth of the memory."""
    views = [view_part(scan, SCALE) for scan in goods[:6]]
    for overlay in ReferenceBank(views).overlays(views[0], 5, leave_out=0):
        back = overlay.thinned().whole()
        assert overlay.thinned().column.size * 16 == overlay.column.size
        for kept, whole in ((back.column, overlay.column), (back.row, overlay.row)):
            apart = np.abs(kept - whole)[views[0].part]
            assert apart.mean() < 0.02
            assert apart.max() < 0.25


def test_good_scores_are_those_of_parts_judged_by_the_others(goods: list[Scan]) -> None:
    """Close to what a model without that part gives it; a part that was learned from scores less than by the others."""
    settings = BaselineSettings(method=Method.DEPTH, neighbours=4)
    whole = Baseline.fit(goods[:10], settings, lambda: None)
    for index in (0, 4):
        others = Baseline.fit([*goods[:index], *goods[index + 1 : 10]], settings, lambda: None)
        assert whole.good_scores[index] == pytest.approx(others.judge(goods[index]).part_score, rel=0.25)
        assert whole.judge(goods[index]).part_score < whole.good_scores[index]
    assert np.median(whole.good_scores) == pytest.approx(1.0, rel=0.01)


def test_overlay_keeps_unmeasured_heights_unmeasured(goods: list[Scan]) -> None:
    views = [view_part(scan, SCALE) for scan in goods[:3]]
    overlay = ReferenceBank(views).overlays(views[0], 1, leave_out=0)[0]
    laid = overlay.carry_view(views[overlay.reference])
    assert np.isnan(laid.height_mm).any()
    source = views[overlay.reference].height_mm
    assert np.isin(laid.height_mm[np.isfinite(laid.height_mm)], source[np.isfinite(source)]).all()


# Comparing


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 2))
def test_least_distance_agrees_with_a_slow_twin(seed: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    judged, *references = rng.random((3, 2, 9, 11)).astype(np.float32)
    least = np.full((9, 11), np.inf)
    for reference in references:
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                rows = np.clip(np.arange(9) + down, 0, 8)
                columns = np.clip(np.arange(11) + right, 0, 10)
                squared = ((judged - reference[:, rows][:, :, columns]) ** 2).sum(axis=0)
                least = np.minimum(least, cv2.GaussianBlur(squared, (0, 0), 1.0))
    np.testing.assert_allclose(least_distance(judged, references, reach), np.sqrt(least), rtol=1e-5)


def test_a_shift_within_reach_costs_nothing_and_one_beyond_does() -> None:
    rng = np.random.default_rng(0)
    reference = rng.random((3, 20, 20)).astype(np.float32)
    shifted = np.roll(reference, 2, axis=2)
    inside = (slice(6, 14), slice(6, 14))
    assert least_distance(shifted, [reference], 2)[inside].max() < 1e-3
    assert least_distance(shifted, [reference], 1)[inside].min() > 0.1


def test_edges_do_not_know_brightness_but_know_direction() -> None:
    columns = np.tile(np.linspace(0, 6 * np.pi, 64), (64, 1))
    stripes = (50 + 30 * np.sin(columns)).astype(np.float32)
    upright, brighter, lying = edge_features(stripes), edge_features(stripes + 10), edge_features(stripes.T.copy())
    np.testing.assert_allclose(upright, brighter, atol=1e-3)
    assert np.linalg.norm(upright - lying, axis=0).mean() > 0.3


@pytest.mark.parametrize("slope", [0.0, 0.5, -1.0])
def test_normals_are_those_of_a_slope(slope: float) -> None:
    """A ramp z = slope x has the normal (-slope, 0, 1) / sqrt(1 + slope²)."""
    height_mm = (10 + slope * 0.2 * (np.arange(64, dtype=np.float32) - 32))[None].repeat(64, axis=0)
    normal = normal_features(height_mm, pixel_mm=0.2)[:, 16, 16]
    np.testing.assert_allclose(normal, np.array([-slope, 0, 1]) / np.sqrt(1 + slope**2), atol=0.01)


def test_no_normal_where_nothing_was_measured() -> None:
    height_mm = np.full((64, 64), 10, np.float32)
    height_mm[:, 32:] = np.nan
    normal = normal_features(height_mm, pixel_mm=0.2)
    assert np.abs(normal[:, :, 22:]).max() < 1e-3
    assert normal[2, :, :12].min() > 0.99


# Judging


@pytest.mark.parametrize(
    ("defect", "seen_by", "unseen_by"),
    [("dent", Method.DEPTH, Method.RGB), ("scratch", Method.RGB, Method.DEPTH), ("hole", Method.DEPTH, None)],
)
def test_each_branch_sees_its_own_defects_and_fusion_sees_all(
    baselines: dict[Method, Baseline], defect: str, seen_by: Method, unseen_by: Method | None
) -> None:
    parts = drawn(6, 5, defect)
    good = {method: max(baselines[method].judge(part.scan).part_score for part in drawn(6, 6)) for method in Method}

    def found(method: Method) -> float:
        """Share of parts that score above every good part, with the worst pixel on the defect."""
        maps = [baselines[method].judge(part.scan) for part in parts]
        near = [cv2.dilate(part.mask.astype(np.uint8), np.ones((5, 5))).ravel() for part in parts]
        return float(
            np.mean([m.part_score > good[method] and n[m.score.argmax()] for m, n in zip(maps, near, strict=True)])
        )

    assert found(seen_by) >= 0.8
    assert found(Method.FUSED) >= 0.7
    if unseen_by is not None:
        assert found(unseen_by) <= 0.3


def test_a_map_covers_the_image_and_is_zero_off_the_part(baselines: dict[Method, Baseline]) -> None:
    part = drawn(1, 9)[0]
    judged = baselines[Method.FUSED].judge(part.scan)
    assert judged.score.shape == (SIDE_PX, SIDE_PX)
    assert judged.score.dtype == np.float32
    assert judged.method == "baseline-fused"
    assert judged.score[0, 0] == 0
    assert judged.part_score == worst(judged.score)


def test_judgement_is_the_same_every_time_and_on_any_number_of_threads(goods: list[Scan]) -> None:
    before, scan = cv2.getNumThreads(), drawn(1, 12, "dent")[0].scan
    scores = []
    try:
        for threads in (1, 1, 2):
            cv2.setNumThreads(threads)
            baseline = Baseline.fit(goods[:6], BaselineSettings(neighbours=4), lambda: None)
            scores.append(baseline.judge(scan).score)
            assert cv2.getNumThreads() == threads
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


def test_fit_reports_each_step(goods: list[Scan]) -> None:
    steps: list[None] = []
    step: Callable[[], None] = lambda: steps.append(None)  # noqa: E731
    Baseline.fit(goods[:5], BaselineSettings(neighbours=2), step)
    assert len(steps) == fit_steps(5) == 5


@pytest.mark.parametrize("method", Method)
def test_a_copy_among_good_parts_is_refused(goods: list[Scan], method: Method) -> None:
    """A part judged by its own copy is perfect: it would say that good parts never differ."""
    settings = BaselineSettings(method=method, neighbours=4)
    with pytest.raises(DepthcellError, match="good part 2 of 6 shows exactly what another one shows"):
        Baseline.fit([*goods[:5], goods[1]], settings, lambda: None)
    assert np.isfinite(Baseline.fit(goods[:5], settings, lambda: None).good_scores).all()


def test_too_few_good_parts_are_refused(goods: list[Scan]) -> None:
    with pytest.raises(DepthcellError, match="2 good parts to learn from; at least 3"):
        Baseline.fit(goods[:2], BaselineSettings(), lambda: None)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (np.zeros((3, 3), np.float64), "float32"),
        (np.zeros(3, np.float32), r"\(H, W\)"),
        (np.full((3, 3), np.nan, np.float32), "not finite"),
    ],
)
def test_a_map_that_cannot_be_is_refused(score: np.ndarray, message: str) -> None:
    with pytest.raises(DepthcellError, match=message):
        AnomalyMap(score, 0.0, "by hand")
