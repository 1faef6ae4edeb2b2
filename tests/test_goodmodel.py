"""The judge by good parts alone: each defect in its own branch, what is lost is said, files come back the same."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch.model import EfficientNet
from goodparts import DEFECTS, SERIALS, SIDE_PX, draw_defect, draw_good
from safetensors.numpy import load, save

from depthcell.errors import DepthcellError
from depthcell.models.goodonly.features import Branch, part_features
from depthcell.models.goodonly.gate import choose_gate
from depthcell.models.goodonly.goodmodel import Gate, GoodModel, GoodSettings
from depthcell.models.goodonly.lite0 import Lite0, load_lite0
from depthcell.models.goodonly.maps import power_mean, worst_mean
from depthcell.models.goodonly.places import SIGMA_OF_MAD, Places, PlaceSettings
from depthcell.models.network.partinput import CHANNELS, PartInput

COLORS = ("red", "green", "blue")


def goods(count: int, seed: int) -> list[PartInput]:
    rng = np.random.default_rng(seed)
    return [draw_good(rng, f"good{index}") for index in range(count)]


def defects(count: int, seed: int, kind: str) -> list[PartInput]:
    rng = np.random.default_rng(seed)
    return [draw_defect(rng, kind, f"{kind}{index}") for index in range(count)]


@pytest.fixture(scope="module")
def model() -> GoodModel:
    return GoodModel.fit(goods(16, 1))


# Frozen features


def test_folded_network_agrees_with_the_whole_one() -> None:
    """Norms folded into convolutions change nothing but the last bits; wrong statistics of a norm are seen."""
    torch.manual_seed(0)
    network: Any = EfficientNet
    whole = network.from_name("efficientnet-lite0").eval()
    for name, buffer in whole.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        plain = whole._swish(whole._bn0(whole._conv_stem((images * 255 - 127) / 128)))
        for block in whole._blocks[:11]:
            plain = block(plain)
        folded = Lite0(deepcopy(whole))(images)
        whole._blocks[10]._bn2.running_mean.add_(1)
        wrong = Lite0(whole)(images).coarse
    assert [tuple(f.shape) for f in folded] == [(2, 24, 16, 16), (2, 40, 8, 8), (2, 112, 4, 4)]
    torch.testing.assert_close(folded.coarse, plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(wrong, plain, rtol=1e-2, atol=1e-2)


def test_installed_weights_are_those_expected_and_tell_a_pattern_from_noise() -> None:
    features = load_lite0()(torch.rand(1, 3, 64, 64))
    assert float(features.coarse.std()) > 0.1
    assert not any(parameter.requires_grad for parameter in load_lite0().parameters())


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not the weights")
    with pytest.raises(DepthcellError, match=r"weights\.pth: is not the file expected"):
        load_lite0(path)
    with pytest.raises(DepthcellError, match="cannot be read"):
        load_lite0(tmp_path / "nowhere.pth")


# Features


def test_features_have_the_stated_shapes_and_know_what_they_do_not_know() -> None:
    features = part_features(goods(1, 3)[0])
    half, eighth, views = SIDE_PX // 2, SIDE_PX // 8, len(SERIALS)
    assert {group: values.shape for group, values in features.items()} == {
        "deviation": (views, 4, half, half),
        "normal": (views, 3, half, half),
        "missing": (views, 1, half, half),
        "color": (views, 6, half, half),
        "edge": (views, 8, half, half),
        "lite0": (views, 152, eighth, eighth),
    }
    assert np.isfinite(features["missing"]).all()
    assert np.isnan(features["deviation"][:, :, 0]).all()  # the top rows are never measured
    assert np.isfinite(features["deviation"][:, :, 4:]).all()


def test_a_mean_over_a_neighbourhood_leaves_out_what_was_not_measured() -> None:
    """Deviation 0.2 mm wherever measured stays 0.2 mm beside a gap, instead of fading to the zeros that stand there."""
    part = changed(goods(1, 4)[0], ("deviation",), 0.2)
    images = part.images.copy()
    images[:, [CHANNELS.index("deviation"), CHANNELS.index("measured")], 20:30, 20:30] = 0
    known = part_features(replace(part, images=images))["deviation"][:, :3]
    np.testing.assert_allclose(known[np.isfinite(known)], 0.2, atol=1e-4)
    assert np.isnan(known[:, 0, 12, 12]).all()


# Places


def test_places_agree_with_a_slow_twin() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(7, 1, 2, 6, 6)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:5, :, :, 0, 0] = np.nan
    judged = rng.normal(size=(1, 2, 6, 6)).astype(np.float32)
    judged[0, 0, 3, 3] = np.nan
    places = Places.learn(values, PlaceSettings(pooling_cells=0.01, floor=0.0))
    found = places.unlikeness(judged)
    for row in range(6):
        for column in range(6):
            off = [
                slow_off(values, judged[0, :, row, column], r, c)
                for r in np.clip([row - 1, row, row + 1], 0, 5)
                for c in np.clip([column - 1, column, column + 1], 0, 5)
            ]
            assert found[0, row, column] == pytest.approx(np.nanmin(off), rel=1e-4)


def slow_off(values: np.ndarray, features: np.ndarray, row: int, column: int) -> float:
    squares = []
    for feature in range(2):
        known = values[:, 0, feature, row, column]
        known = known[np.isfinite(known)]
        if 2 * len(known) < len(values) or np.isnan(features[feature]):
            continue
        spread = SIGMA_OF_MAD * np.median(np.abs(known - np.median(known)))
        squares.append(((features[feature] - np.median(known)) / spread) ** 2)
    return float(np.sqrt(np.mean(squares))) if squares else np.nan


def test_nothing_known_is_nothing_said() -> None:
    values = np.full((5, 1, 2, 4, 4), np.nan, np.float32)
    assert np.isnan(Places.learn(values, PlaceSettings()).unlikeness(np.zeros((1, 2, 4, 4), np.float32))).all()


# Joining


def test_power_mean_is_never_raised_by_what_is_unknown() -> None:
    nan = np.nan
    maps = [np.array([1.0, nan, 3.0, nan], np.float32), np.array([2.0, 5.0, nan, nan], np.float32)]
    half = 0.5**0.25
    np.testing.assert_allclose(power_mean(maps, [0.5, 0.5], 4.0), [half * 17**0.25, half * 5, half * 3, nan], rtol=1e-6)
    np.testing.assert_allclose(power_mean(maps, [1.0, 0.0], 4.0), [1.0, 5.0, 3.0, nan], rtol=1e-6)


def test_worst_mean_is_over_the_highest_that_are_known() -> None:
    assert worst_mean(np.array([1, 5, np.nan, 3], np.float32), 2) == 4.0
    assert worst_mean(np.full(4, np.nan, np.float32), 2) == 0.0


# Judging


@pytest.mark.parametrize(("kind", "seen_by", "unseen_by"), [("dent", "depth", "rgb"), ("stain", "rgb", "depth")])
def test_each_branch_sees_its_own_defects_and_fusion_sees_all(
    model: GoodModel, kind: str, seen_by: Branch, unseen_by: Branch
) -> None:
    good = [model.judge(part).branch_scores for part in goods(10, 2)]
    highest = {name: max(scores[name] for scores in good) for name in good[0]}
    for part in defects(6, 3, kind):
        found = model.judge(part)
        assert found.branch_scores[seen_by] > highest[seen_by]
        assert found.part_score == found.branch_scores["fused"] > highest["fused"]
        assert found.branch_scores[unseen_by] < 1.5 * highest[unseen_by]
        assert part.labels is not None
        assert part.labels.pixels.ravel()[found.pixel_score.argmax()]


def test_points_score_what_shows_at_their_pixels(model: GoodModel) -> None:
    part = defects(1, 8, "hole")[0]
    found = model.judge(part)
    for point in range(0, len(part.points_part), 37):
        seen = [found.pixel_score[view].ravel()[p] for view, p in enumerate(part.pixel[point]) if p >= 0]
        assert found.point_score[point] == max(seen, default=0)


def test_five_good_parts_suffice_to_find_large_defects() -> None:
    few = GoodModel.fit(goods(5, 6))
    highest = max(few.judge(part).part_score for part in goods(10, 7))
    assert all(few.judge(part).part_score > highest for kind in DEFECTS for part in defects(3, 9, kind))


@pytest.mark.parametrize(
    ("lost", "word", "branch"),
    [
        ((*COLORS, "colored"), "camera back saw no colour", "depth"),
        (("inverse_depth", "normal_x", "normal_y", "normal_z", "deviation", "sigma", "measured"), "no depth", "rgb"),
        (CHANNELS, "camera back saw nothing", None),
    ],
)
def test_what_is_lost_is_said_and_the_rest_still_judges(
    model: GoodModel, lost: tuple[str, ...], word: str, branch: str | None
) -> None:
    """A view that lost colour is judged by depth, and the other way round; a view that is black says nothing."""
    whole = model.judge(goods(1, 10)[0])
    found = model.judge(changed(goods(1, 10)[0], lost, 0.0, view=1))
    assert len(found.degraded) == 1
    assert word in found.degraded[0]
    assert np.isfinite(found.pixel_score).all()
    assert whole.degraded == ()
    assert found.part_score <= 1.01 * whole.part_score
    if branch == "depth":
        depth = found.branch_cells["depth"][1]
        np.testing.assert_allclose(model.fuse(found.branch_cells)[1], 0.5**0.25 * depth, rtol=1e-5)
        assert np.isnan(found.branch_cells["rgb"][1]).all()


def test_the_gate_chosen_is_never_worse_than_a_branch_alone(model: GoodModel) -> None:
    dents = defects(4, 12, "dent")
    choice = choose_gate(model, goods(6, 11), dents)
    assert choice.image_auroc["fused"] >= max(choice.image_auroc["rgb"], choice.image_auroc["depth"])
    gated = model.with_gate(choice.gate)
    blinded = [changed(part, COLORS, 0.9) for part in goods(6, 11)]
    alone = choose_gate(model, blinded, [replace(_same_color(part), labels=part.labels) for part in dents])
    assert alone.image_auroc["fused"] == alone.image_auroc["depth"]
    assert alone.gate.depth > alone.gate.rgb
    assert gated.gate == choice.gate


def _same_color(part: PartInput) -> PartInput:
    return changed(part, COLORS, 0.5)


def test_the_gate_needs_labels(model: GoodModel) -> None:
    with pytest.raises(DepthcellError, match="good0: is given as defective but labels no defect"):
        choose_gate(model, goods(2, 1), goods(2, 1))
    with pytest.raises(DepthcellError, match="needs good and defective"):
        choose_gate(model, [], defects(1, 1, "dent"))


# A student


@pytest.fixture(scope="module")
def taught() -> GoodModel:
    return GoodModel.fit(goods(16, 1), settings=GoodSettings(student_steps=60))


def test_a_student_fails_more_where_colour_is_unlike_good_parts(taught: GoodModel) -> None:
    heard = taught.with_gate(Gate(0.0, 0.0, 1.0))
    highest = max(heard.judge(part).branch_scores["student"] for part in goods(8, 2))
    found = [heard.judge(part) for part in defects(4, 3, "stain")]
    assert all(one.branch_scores["student"] > 2 * highest for one in found)
    assert all(one.part_score == pytest.approx(one.branch_scores["student"]) for one in found)
    dents = [heard.judge(part).part_score for part in defects(4, 3, "dent")]
    assert max(dents) < 1.5 * highest


def test_a_student_that_no_gate_needs_is_not_asked_nor_kept(model: GoodModel, taught: GoodModel) -> None:
    part = goods(1, 4)[0]
    assert taught.judge(part).part_score == model.judge(part).part_score
    assert taught.trimmed().tensors().keys() == model.tensors().keys()
    counted = taught.with_gate(Gate(0.4, 0.4, 0.2))
    assert counted.trimmed() is counted


def test_the_gate_weighs_a_student_only_where_nothing_else_does_as_well(taught: GoodModel) -> None:
    choice = choose_gate(taught, goods(6, 11), defects(4, 12, "dent"))
    assert choice.gate.student == 0
    assert choice.image_auroc["fused"] >= max(choice.image_auroc.values())


def test_a_model_with_a_student_comes_back_from_its_file(taught: GoodModel) -> None:
    part = defects(1, 13, "stain")[0]
    counted = taught.with_gate(Gate(0.3, 0.3, 0.4))
    kept = load(save(counted.tensors()))
    judged = GoodModel.from_tensors(kept).judge(part)
    assert judged.branch_scores["student"] == pytest.approx(counted.judge(part).branch_scores["student"], rel=0.02)
    del kept["student_network.mouth.0.weight"]
    with pytest.raises(DepthcellError, match="weights of the student do not fit"):
        GoodModel.from_tensors(kept)


def test_the_same_seed_teaches_the_same_student(taught: GoodModel) -> None:
    again = GoodModel.fit(goods(16, 1), settings=GoodSettings(student_steps=60))
    for name, values in taught.tensors().items():
        np.testing.assert_array_equal(values, again.tensors()[name])


def test_too_few_parts_teach_no_student() -> None:
    with pytest.raises(DepthcellError, match="student: 5 good parts to learn from; at least 6"):
        GoodModel.fit(goods(5, 1), settings=GoodSettings(student_steps=10))


# Keeping and refusing


def test_a_model_comes_back_from_its_file_and_judges_the_same(model: GoodModel) -> None:
    part = defects(1, 13, "dent")[0]
    gated = model.with_gate(Gate(0.1, 0.9))
    back = GoodModel.from_tensors(load(save(gated.tensors())))
    assert (back.settings, back.gate, back.serials, back.n_parts) == (gated.settings, gated.gate, SERIALS, 16)
    assert back.judge(part).part_score == pytest.approx(gated.judge(part).part_score, rel=0.02)


@pytest.mark.parametrize("name", ["header", "lite0.center", "edge.usual"])
def test_a_file_that_lacks_something_is_refused(model: GoodModel, name: str) -> None:
    tensors = model.tensors()
    del tensors[name]
    with pytest.raises(DepthcellError, match=f"{name} is lacking"):
        GoodModel.from_tensors(tensors)


def test_a_spoilt_header_or_shape_is_refused(model: GoodModel) -> None:
    tensors = model.tensors()
    with pytest.raises(DepthcellError, match="header cannot be read"):
        GoodModel.from_tensors({**tensors, "header": tensors["header"][:-3]})
    with pytest.raises(DepthcellError, match="edge holds arrays of shapes"):
        GoodModel.from_tensors({**tensors, "edge.usual": tensors["edge.usual"][:, 1:]})


def test_the_same_seed_gives_the_same_model_and_many_parts_are_thinned_out() -> None:
    few = replace(GoodModel.fit(goods(3, 1)).settings, most_parts=4)
    parts = goods(7, 14)
    first, again, other = (GoodModel.fit(parts, seed, few) for seed in (1, 1, 2))
    assert first.n_parts == 4
    for name, values in first.tensors().items():
        np.testing.assert_array_equal(values, again.tensors()[name])
    assert not np.array_equal(first.tensors()["edge.center"], other.tensors()["edge.center"])


def test_wrong_parts_are_refused(model: GoodModel) -> None:
    with pytest.raises(DepthcellError, match="2 to learn from; at least 3"):
        GoodModel.fit(goods(2, 1))
    with pytest.raises(DepthcellError, match="is labelled defective"):
        GoodModel.fit([*goods(3, 1), *defects(1, 1, "dent")])
    with pytest.raises(DepthcellError, match="learn from good parts of this cell"):
        model.judge(replace(goods(1, 1)[0], serials=("front", "left")))


def changed(part: PartInput, channels: tuple[str, ...], value: float, view: int | None = None) -> PartInput:
    """A part with whole channels replaced by one value, in one view or in all."""
    images = part.images.copy()
    for name in channels:
        images[slice(None) if view is None else view, CHANNELS.index(name)] = value
    return replace(part, images=images)
