"""Truth against verdict: a miss is a miss, and a finding elsewhere is not a hit."""

from collections.abc import Callable

import msgspec
import pytest

from depthcell.acquisition.simulator.truth import DefectTruth, PartTruth, Pose
from depthcell.inspect.comparison import Comparison, Outcome, defect_in_words, summary, summary_in_words
from depthcell.inspect.verdict import Decision, Verdict

MakeVerdict = Callable[..., Verdict]
NOWHERE = Pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


def truth(*defects: DefectTruth) -> PartTruth:
    return PartTruth(1, "part_001", "plate", not defects, 7, NOWHERE, (1.0, 1.0, 1.0), defects, (), "truth_cloud.ply")


def dent_at(x_mm: float, y_mm: float) -> DefectTruth:
    return DefectTruth("dent", "volumetric", (x_mm, y_mm, 0.0), -0.8, 40.0, -17.0, {})


@pytest.mark.parametrize(
    ("decision", "defects", "outcome"),
    [
        (Decision.OK, (), Outcome.PASSED),
        (Decision.OK, (dent_at(10, 5),), Outcome.MISSED),
        (Decision.NOK, (dent_at(10, 5),), Outcome.FOUND),
        (Decision.NOK, (dent_at(16, 5),), Outcome.FOUND),  # 6 mm away, on a dent of 3.6 mm radius and 3 mm around it
        (Decision.NOK, (dent_at(30, -20),), Outcome.ELSEWHERE),
        (Decision.NOK, (dent_at(30, -20), dent_at(10, 5)), Outcome.FOUND),
        (Decision.NOK, (), Outcome.FALSE_REJECT),
        (Decision.CANNOT_TELL, (), Outcome.UNDECIDED),
        (Decision.CANNOT_TELL, (dent_at(10, 5),), Outcome.UNDECIDED),
    ],
)
def test_outcome(
    decision: Decision, defects: tuple[DefectTruth, ...], outcome: Outcome, make_verdict: MakeVerdict
) -> None:
    assert Comparison(truth(*defects), make_verdict(1, decision)).outcome is outcome


def test_rejected_without_any_finding_is_no_hit(make_verdict: MakeVerdict) -> None:
    verdict = msgspec.structs.replace(make_verdict(1, Decision.NOK), findings=())
    assert Comparison(truth(dent_at(10, 5)), verdict).outcome is Outcome.ELSEWHERE


def test_counts_add_up_and_small_runs_say_how_little_they_prove(make_verdict: MakeVerdict) -> None:
    good, dented = truth(), truth(dent_at(10, 5))
    cases = [
        *[(good, Decision.OK)] * 9,
        (good, Decision.NOK),
        *[(dented, Decision.NOK)] * 8,
        (dented, Decision.OK),
        (dented, Decision.CANNOT_TELL),
    ]
    counts = summary([Comparison(part, make_verdict(1, decision)) for part, decision in cases])
    assert counts == {
        "parts": 20,
        "good": 10,
        "defective": 10,
        "found": 8,
        "rejected_for_something_else": 0,
        "missed": 1,
        "false_rejects": 1,
        "cannot_tell": 1,
    }
    # Clopper-Pearson for 8 of 10 is 44.4 % to 97.5 %, for 1 of 10 it is 0.3 % to 44.5 % (tables of the binomial).
    assert summary_in_words(counts) == [
        "defects found: 8 of 10 (95 %: 44% to 97%); 1 missed; 1 without a decision",
        "good parts rejected: 1 of 10 (95 %: 0% to 45%)",
    ]


def test_all_and_none_have_intervals_too() -> None:
    counts = dict.fromkeys(summary([]), 0) | {"defective": 10, "found": 10}
    assert summary_in_words(counts) == [
        "defects found: 10 of 10 (95 %: 69% to 100%)",
        "good parts rejected: there were none",
    ]


def test_defects_are_named_with_their_size() -> None:
    assert defect_in_words(dent_at(0, 0)) == "dent −0.80 mm"
    stain = DefectTruth("stain", "surface", (0.0, 0.0, 0.0), None, 12.3, None, {})
    assert defect_in_words(stain) == "stain 12 mm²"
