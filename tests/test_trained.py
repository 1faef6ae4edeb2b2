"""From recordings of good parts to a signed model that judges: trained on the staged plate, small and quick."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stagedpart import Part, Stage
from stagedviews import SIDE_PX, seen_as, views_of

from depthcell.errors import DepthcellError, Reason
from depthcell.models.artifact import ModelIdentity, load_model, save_model
from depthcell.models.goodonly.goodmodel import GoodSettings
from depthcell.models.metrics import Estimate
from depthcell.models.network.network import NetworkSettings
from depthcell.models.network.partinput import CHANNELS, PartInput
from depthcell.models.trained import TrainedModel
from depthcell.models.training.checkpoint import Look
from depthcell.models.training.settings import TrainingSettings
from depthcell.models.training.training import NewModel, TrainingRequest, chosen_share, train_model
from depthcell.models.views.canonical import CanonicalViews
from depthcell.models.views.partstore import PartStore

SETTINGS = TrainingSettings(
    seed=1,
    steps=80,
    validate_every=40,
    painted=1,
    false_reject=0.05,
    network=NetworkSettings(side_px=SIDE_PX, image_width=8, point_width=8),
)
GOOD = 34


class Silence:
    def stepped(self, step: int, loss: float) -> None: ...

    def looked(self, look: Look) -> None: ...


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set_up(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def views(stage: Stage) -> CanonicalViews:
    return views_of(stage)


@pytest.fixture(scope="module")
def store(stage: Stage, views: CanonicalViews, tmp_path_factory: pytest.TempPathFactory) -> PartStore:
    found = PartStore(tmp_path_factory.mktemp("parts"), identity(views), SIDE_PX)
    for seed in range(200, 200 + GOOD):
        found.add(seen_as(stage, Part(seed), views), good=True)
    return found


def identity(views: CanonicalViews) -> ModelIdentity:
    return ModelIdentity(views.sha256, "plate", "plate cell", views.serials)


@pytest.fixture(scope="module")
def made(store: PartStore, views: CanonicalViews, tmp_path_factory: pytest.TempPathFactory) -> NewModel:
    torch.set_num_threads(1)
    return train_model(TrainingRequest(store, views, SETTINGS, tmp_path_factory.mktemp("work")), Silence())


@pytest.fixture(scope="module")
def folder(made: NewModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "plate", made.content)


@pytest.fixture(scope="module")
def model(folder: Path) -> TrainedModel:
    return TrainedModel.load(folder)


@pytest.fixture(scope="module")
def fresh(stage: Stage, views: CanonicalViews) -> Sequence[PartInput]:
    return [seen_as(stage, Part(seed), views) for seed in range(400, 406)]


def test_fresh_good_parts_pass_and_a_dent_does_not(
    model: TrainedModel, fresh: Sequence[PartInput], stage: Stage, views: CanonicalViews
) -> None:
    judged = [model.judge(part) for part in fresh]
    assert sum(one.is_anomalous for one in judged) <= 1
    assert not any(one.is_out_of_distribution or one.degraded for one in judged)
    dented = model.judge(seen_as(stage, Part(21, dent=(-10.0, 5.0, 5.0, 1.2)), views))
    assert dented.is_anomalous
    assert dented.part_probability > max(one.part_probability for one in judged)
    places_mm = views.points_part[..., :2] * 1e3
    inside = np.hypot(places_mm[..., 0] + 10, places_mm[..., 1] - 5) < 3
    outside = views.expected & (np.hypot(places_mm[..., 0] + 10, places_mm[..., 1] - 5) > 8)
    assert dented.pixel_probability[inside].mean() > 2 * dented.pixel_probability[outside].mean()


def test_a_loaded_model_judges_as_the_one_that_was_saved(
    made: NewModel, model: TrainedModel, folder: Path, fresh: Sequence[PartInput]
) -> None:
    again = TrainedModel.load(folder).judge(fresh[0])
    found = model.judge(fresh[0])
    assert again.part_score == found.part_score
    np.testing.assert_array_equal(again.pixel_probability, found.pixel_probability)
    assert model.sha256
    assert load_model(folder).card["good_to_learn_from"] == round(0.7 * GOOD)
    assert "Limits." in made.content.card_text


def test_the_joint_judge_is_no_worse_than_its_better_half_where_it_was_chosen(made: NewModel) -> None:
    by_share = {name: one["value"] for name, one in made.content.card["figures"]["auroc"].items()}
    chosen = by_share[f"network counts {made.content.card['figures']['share_of_network']:g}"]
    assert chosen >= max(by_share["network counts 1"], by_share["network counts 0"])


@pytest.mark.parametrize(
    ("auroc", "share"),
    [
        ((0.98, 0.99, 0.985, 0.98, 0.97), 0.5),
        ((0.98, 0.98, 0.90, 0.80, 0.70), 0.75),
        ((0.70, 0.80, 0.90, 0.98, 0.98), 0.25),
        ((0.70, 0.80, 0.90, 0.97, 0.98), 0.0),
        ((0.98, 0.90, 0.85, 0.80, 0.70), 1.0),
        ((0.99, 0.99, 0.90, 0.99, 0.98), 0.25),
        ((0.985, 0.99, 0.984, 0.98, 0.97), 0.75),
    ],
)
def test_the_share_leans_on_both_judges_unless_one_is_really_worse(auroc: Sequence[float], share: float) -> None:
    of_share = zip((1.0, 0.75, 0.5, 0.25, 0.0), auroc, strict=True)
    assert chosen_share({one: Estimate(value, value - 0.025, value + 0.025) for one, value in of_share}) == share


def test_splits_are_by_part(made: NewModel) -> None:
    parts = made.content.card["parts"]
    assert not set(parts["train"]) & set(parts["validation"])
    assert len(parts["train"]) + len(parts["validation"]) == GOOD


def test_what_is_lacking_is_said_and_never_quietly_good(model: TrainedModel, fresh: Sequence[PartInput]) -> None:
    images = fresh[0].images.copy()
    images[1] = 0
    lost = model.judge(replace(fresh[0], images=images))
    assert any("saw nothing" in word for word in lost.degraded)
    black = fresh[0].images.copy()
    black[:, :3] = 0
    assert model.judge(replace(fresh[0], images=black)).is_out_of_distribution
    nothing = model.judge(replace(fresh[0], images=np.zeros_like(images), pixel=np.full_like(fresh[0].pixel, -1)))
    assert len(nothing.degraded) >= 3
    assert nothing.is_out_of_distribution
    assert np.isfinite(nothing.part_score)
    assert not nothing.pixel_probability.any()


def test_another_part_is_out_of_distribution(model: TrainedModel, fresh: Sequence[PartInput]) -> None:
    images = fresh[0].images.copy()
    images[:, CHANNELS.index("deviation")] += 3 * (images[:, CHANNELS.index("measured")] > 0)
    assert model.judge(replace(fresh[0], images=images)).is_out_of_distribution


def test_weights_that_do_not_fit_are_refused(made: NewModel, tmp_path: Path) -> None:
    network = dict(made.content.network)
    network.pop(next(iter(network)))
    broken = save_model(tmp_path / "broken", replace(made.content, network=network))
    with pytest.raises(DepthcellError, match="its parts do not fit together") as refusal:
        TrainedModel.load(broken)
    assert refusal.value.reason is Reason.MODEL_INVALID


def test_a_student_is_tried_and_the_model_keeps_it_if_the_gate_hears_it(
    store: PartStore, views: CanonicalViews, tmp_path: Path, fresh: Sequence[PartInput]
) -> None:
    settings = replace(SETTINGS, steps=2, validate_every=2, good=GoodSettings(student_steps=40))
    content = train_model(TrainingRequest(store, views, settings, tmp_path / "work"), Silence()).content
    figures = content.card["figures"]
    assert 0 <= figures["good_parts_alone"]["image_auroc"]["student"] <= 1
    heard = figures["gate_of_good_parts"]["student"] > 0
    assert any(name.startswith("student_network.") for name in content.good) == heard
    judged = TrainedModel.load(save_model(tmp_path / "taught", content)).judge(fresh[0])
    assert np.isfinite(judged.part_score)


def test_too_few_parts_and_other_views_are_refused(
    store: PartStore, views: CanonicalViews, tmp_path: Path, fresh: Sequence[PartInput]
) -> None:
    few = PartStore(tmp_path / "few", identity(views), SIDE_PX)
    for part in fresh:
        few.add(part, good=True)
    with pytest.raises(DepthcellError, match="at least 10 are needed; record 40 good parts"):
        train_model(TrainingRequest(few, views, SETTINGS, tmp_path / "work"), Silence())
    with pytest.raises(DepthcellError, match="parts are of other views"):
        train_model(TrainingRequest(store, replace(views, sha256="0" * 64), SETTINGS, tmp_path / "work"), Silence())
