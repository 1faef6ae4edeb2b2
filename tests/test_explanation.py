"""Explanations: saliency that is faithful, features that are true, a tree that names what it sees, good examples."""

from dataclasses import replace

import numpy as np
import pytest
from explainedparts import deepest, dent_mask, dented, flat_views, good_parts

from depthcell.errors import DepthcellError
from depthcell.models.explanation.examples import Examples, blended, healed
from depthcell.models.explanation.faithfulness import measure_faithfulness, most_faithful, random_saliency
from depthcell.models.explanation.findingfeatures import FEATURES, FindingFeatures, best_view, describe_place
from depthcell.models.explanation.saliency import Saliency, map_saliency, occlusion
from depthcell.models.explanation.trainingplaces import training_places
from depthcell.models.explanation.tree import ReasonTree
from depthcell.models.network.partinput import CHANNELS, PartInput

DEVIATION = CHANNELS.index("deviation")


@pytest.fixture(scope="module")
def good() -> PartInput:
    return good_parts(1)[0]


@pytest.fixture(scope="module")
def part(good: PartInput) -> PartInput:
    return dented(good)


def test_occlusion_shows_the_dent(part: PartInput, good: PartInput) -> None:
    saliency = occlusion(part, good, deepest)
    mask = dent_mask()
    assert saliency.pixels[mask].min() > 0
    assert saliency.pixels[1].max() == 0, "the other view has no dent"
    assert saliency.pixels[mask].sum() > 0.5 * saliency.pixels.sum()


def test_occlusion_of_a_good_part_shows_nothing(good: PartInput) -> None:
    saliency = occlusion(good, good, deepest)
    assert not saliency.pixels.any()
    assert not saliency.points.any()


def test_true_saliency_is_more_faithful_than_chance_and_a_false_one_less(good: PartInput) -> None:
    part = dented(good_parts(2)[1])
    good = healed(part, good.images)
    mask = dent_mask().astype(np.float32)
    count = len(part.points_part)
    told = [
        measure_faithfulness(part, good, one, deepest)
        for one in (
            Saliency("false", 1 - mask, np.zeros(count, np.float32)),
            random_saliency(part),
            Saliency("true", mask, np.zeros(count, np.float32)),
        )
    ]
    lie, chance, truth = (one for one in told if one is not None)
    assert lie.gain < chance.gain < truth.gain
    assert truth.deletion_area < 0.2
    assert truth.insertion_area > 0.8
    assert abs(chance.gain) < 0.2
    assert most_faithful([lie, chance, truth]) is truth


@pytest.mark.parametrize("name", ["deletion", "insertion"])
def test_curves_run_between_both_parts(part: PartInput, good: PartInput, name: str) -> None:
    measured = measure_faithfulness(part, good, random_saliency(part), deepest)
    assert measured is not None
    ends = getattr(measured, name)[[0, -1]]
    assert ends == pytest.approx([1, 0] if name == "deletion" else [0, 1], abs=1e-6)


def test_what_is_no_worse_than_good_has_no_faithfulness(good: PartInput) -> None:
    assert measure_faithfulness(good, good, random_saliency(good), deepest) is None


def test_map_counts_nothing_that_was_not_seen(good: PartInput) -> None:
    images = good.images.copy()
    images[0] = 0
    blind = replace(good, images=images)
    saliency = map_saliency(blind, np.ones_like(images[:, 0]), np.ones(len(good.points_part), np.float32))
    assert not saliency.pixels[0].any()
    assert saliency.pixels[1].any()


def test_healed_part_is_the_good_one(part: PartInput, good: PartInput) -> None:
    whole = healed(part, good.images)
    assert np.array_equal(whole.images, good.images)
    touched = part.feature("deviation") < -0.5
    assert touched.any()
    assert (whole.feature("deviation")[touched] > -0.3).all()
    unseen = (part.pixel < 0).all(axis=1)
    assert np.array_equal(whole.features[unseen], part.features[unseen])


def test_healed_points_rise_by_what_they_were_too_deep(part: PartInput, good: PartInput) -> None:
    features = part.features.copy()
    features[:, 2] = 1.0
    upright = replace(part, features=features)
    whole = healed(upright, good.images)
    rise_mm = (whole.points_part - part.points_part)[:, 2] * 1e3
    assert rise_mm == pytest.approx(whole.feature("deviation") - part.feature("deviation"), abs=1e-4)


def test_blending_all_or_nothing(part: PartInput, good: PartInput) -> None:
    pixels, points = np.ones(part.images[:, 0].shape, bool), np.ones(len(part.points_part), bool)
    assert np.array_equal(blended(part, good, pixels, points).images, good.images)
    assert np.array_equal(blended(part, good, ~pixels, ~points).images, part.images)


def test_examples_survive_their_tensors_to_a_step_of_255() -> None:
    parts = good_parts(9)
    kept = Examples.of(parts, most=4)
    again = Examples.from_tensors(kept.part_ids, kept.tensors())
    assert kept.part_ids == ("good-0", "good-3", "good-5", "good-8")
    step = np.ptp(parts[3].images, axis=(0, 2, 3)) / 255
    error = np.abs(again.images(1) - parts[3].images).max(axis=(0, 2, 3))
    assert (error <= step / 2 + 1e-6).all()


def test_nearest_is_the_part_itself_even_with_a_dent() -> None:
    parts = good_parts(5, seed=4)
    kept = Examples.of(parts)
    for number, one in enumerate(parts):
        assert kept.nearest(dented(one)) == number


def test_examples_refuse_what_does_not_fit() -> None:
    parts = good_parts(2)
    kept = Examples.of(parts)
    dark = replace(parts[0], images=np.zeros_like(parts[0].images))
    with pytest.raises(DepthcellError, match="seen by every camera"):
        Examples.of([dark])
    with pytest.raises(DepthcellError, match="do not fit together"):
        Examples.from_tensors(("one",), kept.tensors())
    with pytest.raises(DepthcellError, match="do not fit together"):
        Examples.from_tensors(kept.part_ids, {})
    smaller = Examples(kept.part_ids, kept.levels[..., :32], kept.low, kept.high)
    with pytest.raises(DepthcellError, match="do not fit the good parts"):
        smaller.nearest(parts[0])


def test_features_of_a_dent_are_true(part: PartInput, good: PartInput) -> None:
    mask, views = dent_mask(), flat_views()
    view = best_view(mask, views)
    place = describe_place(part, good.images, views, view, mask[view])
    assert place is not None
    assert view == 0
    assert place.depth_mm == pytest.approx(-0.8, abs=1e-5)
    assert place.area_mm2 == pytest.approx(36.0, rel=1e-5)  # 12 x 12 pixels of 0.5 mm
    assert place.slenderness == pytest.approx(1.0)
    assert place.color_distance == pytest.approx(0.0, abs=1e-3)
    assert place.edge_mm == pytest.approx(14.0, abs=1.0)  # the middle lies 28 pixels from the border
    assert place.sigma > 20
    radius_m = np.sqrt(36e-6 / np.pi)
    assert place.curvature_per_m == pytest.approx(-2 * 0.8e-3 / radius_m**2, rel=1e-4)


def test_features_of_a_good_place_and_of_none(good: PartInput) -> None:
    mask, views = dent_mask(), flat_views()
    place = describe_place(good, good.images, views, 0, mask[0])
    assert place is not None
    assert (place.depth_mm, place.sigma, place.color_distance, place.missing) == (0, 0, 0, 0)
    assert describe_place(good, good.images, views, 0, np.zeros_like(mask[0])) is None


def test_a_hole_is_missing_and_a_stain_has_colour(good: PartInput) -> None:
    mask, views = dent_mask(), flat_views()
    images = good.images.copy()
    images[0, CHANNELS.index("measured")][mask[0]] = 0
    images[0, CHANNELS.index("red")][mask[0]] += 0.2
    place = describe_place(replace(good, images=images), good.images, views, 0, mask[0])
    assert place is not None
    assert place.missing > 0.9
    assert place.color_distance > 10


@pytest.fixture(scope="module")
def tree() -> ReasonTree:
    goods = good_parts(8, seed=2)
    rng = np.random.default_rng(1)
    bad = [dented(one, float(rng.uniform(0.4, 1.0))) for one in goods]
    return ReasonTree.fit(training_places(goods, bad, goods[0].images, flat_views()))


def place_of(part: PartInput, good: PartInput) -> FindingFeatures:
    place = describe_place(part, good.images, flat_views(), 0, dent_mask()[0])
    assert place is not None
    return place


def test_tree_names_a_dent_and_gives_true_reasons(tree: ReasonTree, part: PartInput, good: PartInput) -> None:
    place = place_of(part, good)
    assert tree.judge(place)[0] == "dent"
    assert tree.judge(place_of(good, good))[0] == "good"
    assert "dent" in tree.sentence(place)
    for condition in tree.path(place):
        value, limit = (float(word) for word in condition.replace(" at most", " above").split() if _is_number(word))
        assert (value > limit) == (" above " in condition)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def test_tree_survives_its_json_and_is_drawn(tree: ReasonTree, part: PartInput, good: PartInput) -> None:
    again = ReasonTree.from_json(tree.to_json())
    assert again.sentence(place_of(part, good)) == tree.sentence(place_of(part, good))
    assert np.array_equal(again.fitted.tree_.threshold, tree.fitted.tree_.threshold)
    assert tree.picture().startswith(b"\x89PNG")


def test_tree_refuses_what_teaches_nothing(tree: ReasonTree) -> None:
    content = tree.to_json()
    with pytest.raises(DepthcellError, match="good parts and defects"):
        ReasonTree.from_json({**content, "kinds": ["good"] * len(content["kinds"])})
    with pytest.raises(DepthcellError, match="other features"):
        ReasonTree.from_json({**content, "features": list(FEATURES[1:])})
    with pytest.raises(DepthcellError, match="not whole"):
        ReasonTree.from_json({"features": list(FEATURES)})


def test_integrated_gradients_add_up_and_stay_where_the_part_differs() -> None:
    """Completeness (Sundararajan et al., proposition 1) against the network's own logits."""
    import torch
    from networkparts import ball_part

    from depthcell.models.explanation.gradients import attributions, integrated_gradients
    from depthcell.models.network.batch import collate
    from depthcell.models.network.network import NetworkSettings, PartNetwork

    torch.manual_seed(1)
    good = ball_part(3)
    network = PartNetwork(NetworkSettings(side_px=32, image_width=8, point_width=8)).eval()
    images, features = good.images.copy(), good.features.copy()
    images[0, DEVIATION, 10:20, 10:20] -= 3.0
    features[:40, 3] -= 3.0
    part = replace(good, images=images, features=features)
    pixels, points = attributions(network, part, good, steps=64)
    with torch.no_grad():
        difference = float(network(collate([part])).part_anomaly - network(collate([good])).part_anomaly)
    assert abs(difference) > 1e-3, "nothing to explain"
    assert pixels.sum() + points.sum() == pytest.approx(difference, rel=0.05, abs=1e-3)
    assert not pixels[1:].any()
    assert not points[40:].any()
    saliency = integrated_gradients(network, part, good)
    assert saliency.pixels.shape == (3, 32, 32)
    assert saliency.pixels.min() == 0
