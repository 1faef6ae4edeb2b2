"""A model beside shape and colour: what it sees is placed, measured and merged; what it cannot judge is not OK."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from judgingstandin import StandIn, stand_in
from stagedpart import SERIALS, Part, Stage, StagedFolder, recorded

from depthcell.errors import DepthcellError, Reason
from depthcell.inspect.inspection import Inspection, Inspector
from depthcell.inspect.model_check import ModelCheck
from depthcell.inspect.verdict import Decision, digest_of

OK, NOK, CANNOT_TELL = Decision.OK, Decision.NOK, Decision.CANNOT_TELL
FOLDER = Path("models/plate")
DENT = (-10.0, 5.0, 5.0, 1.0)
PLACE = (-12.0, -5.0, 2.5)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set_up(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def calm(stage: Stage) -> StandIn:
    return stand_in(stage.observer)


def inspector(stage: Stage, model: StandIn) -> Inspector:
    return Inspector(stage.observer, stage.cell, stage.golden, ModelCheck(model, stage.observer, FOLDER))


def judged(stage: Stage, model: StandIn, part: Part, **how: object) -> Inspection:
    return inspector(stage, model).judge(recorded(part, stage.cell, **how), 1, "t")  # type: ignore[arg-type]


def test_good_part_is_ok_with_the_model_in_its_reasons_and_provenance(stage: Stage, calm: StandIn) -> None:
    verdict = judged(stage, calm, Part(1)).verdict
    assert verdict.verdict is OK, verdict.reasons
    assert verdict.findings == ()
    assert any(reason.startswith("model: score") and "within its limit of 0.6" in reason for reason in verdict.reasons)
    assert verdict.provenance.model == calm.sha256
    assert "model" in verdict.timings_ms
    assert digest_of(verdict) == verdict.digest


def test_dent_that_both_see_is_one_finding(stage: Stage, calm: StandIn) -> None:
    verdict = judged(stage, calm, Part(21, dent=DENT)).verdict
    assert verdict.verdict is NOK
    assert len(verdict.findings) == 1
    finding = verdict.findings[0]
    assert finding.source == "depth+model"
    assert finding.depth_mm is not None
    assert abs(finding.depth_mm.value + 1.0) < 3 * finding.depth_mm.u
    assert "the model sees it too" in finding.text
    assert any("above its limit of 0.6, probability of a defect" in reason for reason in verdict.reasons)


def test_place_that_only_the_model_sees_is_placed_and_measured(stage: Stage, calm: StandIn) -> None:
    result = judged(stage, replace(calm, doubts=(PLACE,)), Part(2))
    verdict = result.verdict
    assert verdict.verdict is NOK
    assert verdict.reasons[0].startswith(
        "model: score 0.97 above its limit of 0.6, probability of a defect 0.970; stain"
    )
    finding = verdict.findings[0]
    assert (finding.kind, finding.source, finding.depth_mm, finding.volume_mm3) == ("stain", "model", None, None)
    assert np.hypot(finding.position_mm.value[0] + 12, finding.position_mm.value[1] + 5) < 0.5
    assert abs(finding.area_mm2.value - np.pi * 2.5**2) < 3 * finding.area_mm2.u
    assert set(finding.cameras) <= set(SERIALS)
    assert finding.cameras
    assert len(result.finding_points[0])


def test_two_places_are_two_findings_and_what_rejects_by_itself_comes_first(stage: Stage, calm: StandIn) -> None:
    verdict = judged(stage, replace(calm, doubts=(PLACE,)), Part(21, dent=DENT)).verdict
    assert [finding.source for finding in verdict.findings] == ["depth+model", "model"]


def test_dent_within_the_limit_is_rejected_by_the_model_alone(stage: Stage) -> None:
    shallow = Part(33, dent=(-10.0, 0.0, 5.0, 0.42))
    alone = stage.inspector.judge(recorded(shallow, stage.cell), 1, "t").verdict
    model = stand_in(stage.observer, doubts=((-10.0, 0.0, 4.0),))
    verdict = judged(stage, model, shallow).verdict
    assert alone.verdict is not NOK
    assert verdict.verdict is NOK
    assert verdict.findings[0].source == "depth+model"


def test_lost_camera_degrades_and_says_so(stage: Stage, calm: StandIn) -> None:
    verdict = judged(stage, calm, Part(51), without=("1002",)).verdict
    assert verdict.verdict is CANNOT_TELL
    assert "model: camera 1002 saw nothing" in verdict.reasons


@pytest.mark.parametrize("doubts", [(), (PLACE,)])
def test_part_unlike_all_in_training_is_never_decided_by_the_model(
    stage: Stage, calm: StandIn, doubts: tuple[tuple[float, float, float], ...]
) -> None:
    verdict = judged(stage, replace(calm, is_lost=True, doubts=doubts), Part(3)).verdict
    assert verdict.verdict is CANNOT_TELL
    assert any("unlike all that it was trained on" in reason for reason in verdict.reasons)
    assert len(verdict.findings) == len(doubts)


@pytest.mark.parametrize("error", [ValueError("tensor shapes"), DepthcellError("weights went away")])
def test_model_that_fails_is_never_ok_and_keeps_what_others_found(
    stage: Stage, calm: StandIn, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    failing = replace(calm, error=error)
    good, bad = (judged(stage, failing, part).verdict for part in (Part(4), Part(21, dent=DENT)))
    assert good.verdict is CANNOT_TELL
    assert str(error) in good.reasons[0]
    assert "the model could not judge this part" in good.reasons[0]
    assert bad.verdict is NOK
    assert bad.findings[0].source == "depth"


def test_recording_without_depth_never_reaches_the_model(stage: Stage, calm: StandIn) -> None:
    fresh = replace(calm, judged=[])
    verdict = inspector(stage, fresh).judge(StagedFolder("empty", ()), 1, "t").verdict
    assert verdict.verdict is CANNOT_TELL
    assert fresh.judged == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe_name": "another"}, "trained for recipe 'another', not 'plate'"),
        ({"serials": ("9",)}, "trained for cameras 9"),
        ({"views_sha256": "0" * 64}, "another reference, nominal pose, calibration"),
    ],
)
def test_model_for_something_else_is_refused(
    stage: Stage, calm: StandIn, change: dict[str, object], message: str
) -> None:
    other = replace(calm, identity=replace(calm.identity, **change))  # type: ignore[arg-type]
    with pytest.raises(DepthcellError, match=message) as caught:
        ModelCheck(other, stage.observer, FOLDER)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert ModelCheck(calm, stage.observer, FOLDER).model is calm
