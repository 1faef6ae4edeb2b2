"""`depthcell explain`: the right part, a page that needs nothing else, and true statements on it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from judgingstandin import StandIn, stand_in
from stagedpart import Part, Stage, recorded

from depthcell.acquisition.partfolder import PartFolder
from depthcell.errors import DepthcellError
from depthcell.inspect.inspection import Inspection, Inspector
from depthcell.inspect.learning.explain_run import chosen_part, explanation_html
from depthcell.inspect.learning.explanation import Explanation, check_explainable, explain_part
from depthcell.inspect.learning.modelreasons import ModelReasons
from depthcell.inspect.model_check import ModelCheck
from depthcell.models.artifact import ModelContent, load_model, save_model
from depthcell.models.network.partinput import CHANNELS, CLASSES, Labels, PartInput

DENT = (-10.0, 5.0, 5.0, 1.0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set_up(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def check(stage: Stage) -> ModelCheck:
    return ModelCheck(stand_in(stage.observer), stage.observer, Path("models/plate"))


def seen(stage: Stage, check: ModelCheck, part: Part) -> tuple[Inspection, PartInput]:
    inspector = Inspector(stage.observer, stage.cell, stage.golden, check)
    inspection = inspector.judge(recorded(part, stage.cell), 1, "t")
    assert inspection.fused is not None
    assert inspection.alignment is not None
    T_cell_part = inspection.alignment.T_cell_part
    return inspection, check.part_input(inspection.fused, T_cell_part, inspection.verdict.part_id)


@pytest.fixture(scope="module")
def reasons(stage: Stage, check: ModelCheck) -> ModelReasons:
    """Three good parts, and dents drawn into the first with their labels."""
    good = [seen(stage, check, Part(seed))[1] for seed in (1, 2, 3)]
    rng = np.random.default_rng(5)
    rows, columns = np.indices(good[0].images.shape[-2:])
    dented = []
    for depth_mm in np.linspace(0.3, 1.2, 10):
        images, labels = good[0].images.copy(), np.zeros(good[0].images[:, 0].shape, np.uint8)
        row, column = rng.integers(100, 150, 2)
        mask = np.hypot(rows - row, columns - column) < 12
        images[0, CHANNELS.index("deviation")][mask] -= depth_mm
        labels[0][mask] = CLASSES.index("dent")
        marks = Labels(labels, np.zeros(len(good[0].points_part), np.uint8))
        dented.append(replace(good[0], images=images, labels=marks))
    return ModelReasons.learnt(good, dented, check.views)


@pytest.fixture(scope="module")
def explained(stage: Stage, check: ModelCheck, reasons: ModelReasons) -> Explanation:
    inspection, part = seen(stage, check, Part(21, dent=DENT))
    return explain_part(inspection, part, check.model, reasons, check.views)


def test_dent_is_explained_by_its_depth(explained: Explanation) -> None:
    found = explained.findings[0]
    assert found.features is not None
    assert abs(found.features.depth_mm + 1.0) < 0.25
    assert found.reason is not None
    assert found.reason.startswith("dent (")
    assert "because" in found.reason
    assert found.saliency_share > 0.3
    assert found.finding.position_mm.value[0] == pytest.approx(-10, abs=0.7)


def test_shown_saliency_beats_chance(explained: Explanation) -> None:
    chance = next(one for one in explained.faithfulness if one.name == "random order")
    shown = next(one for one in explained.faithfulness if one.name == explained.saliency.name)
    assert shown.gain > chance.gain + 0.3
    assert shown.gain == max(one.gain for one in explained.faithfulness)


def test_mask_lies_where_the_dent_is(explained: Explanation, check: ModelCheck) -> None:
    found = explained.findings[0]
    places_mm = check.views.points_part[found.view][found.mask] * 1e3
    assert np.hypot(places_mm[:, 0] + 10, places_mm[:, 1] - 5).max() < 8
    assert found.mask.sum() > 100


def test_page_holds_all_and_asks_nobody(explained: Explanation, reasons: ModelReasons) -> None:
    page = explanation_html(explained, reasons.tree, "recipe plate", 1.0)
    assert "By the decision tree" in page
    assert page.count("<figure>") == 6 * len(explained.findings) + 2 * 3
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert explained.verdict.reasons[0][:20].replace("-", "−") in page.replace("&#39;", "'")
    assert "deletion and insertion curves" in page
    assert 'alt="decision tree"' in page


def test_good_part_has_nothing_to_explain_and_says_so(stage: Stage, check: ModelCheck, reasons: ModelReasons) -> None:
    inspection, part = seen(stage, check, Part(1))
    explanation = explain_part(inspection, part, check.model, reasons, check.views)
    assert explanation.findings == ()
    assert explanation.good_id == part.part_id
    assert "There are none" in explanation_html(explanation, None, "recipe plate", 1.0)


def test_part_that_was_not_found_is_refused(stage: Stage) -> None:
    empty = stage.inspector.judge(recorded(Part(5), stage.cell, without=("1001", "1002", "1003")), 1, "t")
    with pytest.raises(DepthcellError, match="never saw it"):
        check_explainable(empty, Path("runs/x"))


def test_reasons_are_kept_in_a_signed_model(
    tmp_path: Path, check: ModelCheck, reasons: ModelReasons, explained: Explanation
) -> None:
    bare = content_of(check.model)  # type: ignore[arg-type]
    save_model(tmp_path / "model", reasons.kept_with(bare))
    again = ModelReasons.of(load_model(tmp_path / "model"))
    features = explained.findings[0].features
    assert features is not None
    assert again.tree is not None
    assert again.tree.sentence(features) == explained.findings[0].reason
    assert np.array_equal(again.examples.images(1), reasons.examples.images(1))
    save_model(tmp_path / "bare", bare)
    with pytest.raises(DepthcellError, match="nothing to explain by"):
        ModelReasons.of(load_model(tmp_path / "bare"))


def content_of(model: StandIn) -> ModelContent:
    tensors = {"weight": np.ones(3, np.float32)}
    return ModelContent(model.identity, tensors, tensors, {}, {}, {}, "a card", "2026-01-02T03:04:05Z", "0.1.0")


def folders(*names: str) -> list[PartFolder]:
    return [PartFolder(name, (Path(name) / "a.db3",)) for name in names]


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (("part_0006", "part_0007", "part_0017"), "7", "part_0007"),
        (("part_0006", "part_0007"), "part_0006", "part_0006"),
        (("left", "right"), "2", "right"),
        (("7", "a"), "7", "7"),
    ],
)
def test_part_is_found_by_name_number_or_place(names: tuple[str, ...], wanted: str, expected: str) -> None:
    assert chosen_part(folders(*names), wanted, Path("runs/sim")).part_id == expected


@pytest.mark.parametrize(
    ("names", "wanted"), [(("part_1", "part_2"), "3"), (("left",), "0"), (("a_7", "b_7"), "7"), (("left",), "lef")]
)
def test_wrong_part_is_refused_with_the_list(names: tuple[str, ...], wanted: str) -> None:
    with pytest.raises(DepthcellError, match=f"--part {wanted}: .* there are {', '.join(names)}"):
        chosen_part(folders(*names), wanted, Path("runs/sim"))
