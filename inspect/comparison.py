"""Truth against verdict: for simulated parts, whose defects are known to the micrometre."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text
from scipy.special import betaincinv

from depthcell.acquisition.simulator.truth import DefectTruth, PartTruth
from depthcell.inspect.report import signed, total_ms, with_uncertainty
from depthcell.inspect.terminal import decision_text
from depthcell.inspect.verdict import Decision, Finding, Verdict

PLACE_TOLERANCE_MM = 3.0
"""A finding belongs to a defect if it lies within the defect's radius and this much more."""

MAX_COLUMN = 36


class Outcome(StrEnum):
    """How a verdict compares with the truth."""

    PASSED = "passed"
    FOUND = "found"
    ELSEWHERE = "rejected for something else"
    FALSE_REJECT = "FALSE REJECT"
    UNDECIDED = "cannot tell"
    MISSED = "MISSED"

    @property
    def style(self) -> str:
        """Colour in the table."""
        if self in {Outcome.PASSED, Outcome.FOUND}:
            return "green"
        return "yellow" if self in {Outcome.ELSEWHERE, Outcome.UNDECIDED} else "bold red"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One part: what it truly is, and what the controller was told."""

    truth: PartTruth
    verdict: Verdict

    @property
    def hit(self) -> Finding | None:
        """The finding that lies where a defect is; the worst of them."""
        for finding in self.verdict.findings:
            if any(_lies_on(finding, defect) for defect in self.truth.defects):
                return finding
        return None

    @property
    def outcome(self) -> Outcome:
        """Found means: rejected, and for a finding at the right place."""
        if self.verdict.verdict is Decision.CANNOT_TELL:
            return Outcome.UNDECIDED
        if self.verdict.verdict is Decision.OK:
            return Outcome.PASSED if self.truth.good else Outcome.MISSED
        if self.truth.good:
            return Outcome.FALSE_REJECT
        return Outcome.ELSEWHERE if self.hit is None else Outcome.FOUND


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Truth against verdict, part by part."""
    table = Table(title="truth against verdict; ± spans 95 %", title_justify="left", box=SIMPLE_HEAD)
    for header in ("part", "truth", "verdict", "main finding", "ms", "outcome"):
        justify: JustifyMethod = "right" if header == "ms" else "left"
        table.add_column(header, justify=justify, no_wrap=header != "truth", max_width=MAX_COLUMN)
    for comparison in comparisons:
        truth, verdict = comparison.truth, comparison.verdict
        table.add_row(
            truth.part_id,
            "good" if truth.good else "; ".join(map(defect_in_words, truth.defects)),
            decision_text(verdict.verdict),
            _main_finding(comparison),
            f"{total_ms(verdict):.0f}",
            Text(comparison.outcome, style=comparison.outcome.style),
        )
    return table


def summary(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """Counts of everything that can be counted, for programs and for `summary_in_words`."""
    outcomes = [comparison.outcome for comparison in comparisons]
    good = sum(comparison.truth.good for comparison in comparisons)
    return {
        "parts": len(comparisons),
        "good": good,
        "defective": len(comparisons) - good,
        "found": outcomes.count(Outcome.FOUND),
        "rejected_for_something_else": outcomes.count(Outcome.ELSEWHERE),
        "missed": outcomes.count(Outcome.MISSED),
        "false_rejects": outcomes.count(Outcome.FALSE_REJECT),
        "cannot_tell": outcomes.count(Outcome.UNDECIDED),
    }


def summary_in_words(counts: dict[str, int]) -> list[str]:
    """The counts in sentences, each share with its 95 % interval (Clopper-Pearson); small runs prove little."""
    found = f"defects found: {_share(counts['found'], counts['defective'])}"
    others = [
        f"{counts[name]} {words}"
        for name, words in (
            ("rejected_for_something_else", "rejected for something else"),
            ("missed", "missed"),
            ("cannot_tell", "without a decision"),
        )
        if counts[name]
    ]
    return [
        "; ".join([found, *others]),
        f"good parts rejected: {_share(counts['false_rejects'], counts['good'])}",
    ]


def defect_in_words(defect: DefectTruth) -> str:
    """Kind and true size, such as "dent −0.62 mm"."""
    size = f"{defect.area_mm2:.0f} mm²" if defect.depth_mm is None else signed(f"{defect.depth_mm:+.2f} mm")
    return f"{_plain(defect.kind)} {size}"


def reach_mm(defect: DefectTruth) -> float:
    """How far from a defect's centre a finding may lie to belong to it."""
    return math.sqrt(defect.area_mm2 / math.pi) + PLACE_TOLERANCE_MM


def _lies_on(finding: Finding, defect: DefectTruth) -> bool:
    return math.dist(finding.position_mm.value, defect.position_mm) <= reach_mm(defect)


def _main_finding(comparison: Comparison) -> Text:
    finding = comparison.hit or next(iter(comparison.verdict.findings), None)
    if finding is None:
        return Text("" if comparison.verdict.verdict is Decision.OK else comparison.verdict.reasons[0])
    quantity, unit = (finding.area_mm2, "mm²") if finding.depth_mm is None else (finding.depth_mm, "mm")
    return Text(f"{_plain(finding.kind)} {with_uncertainty(quantity.value, quantity.u)} {unit}")


def _share(count: int, total: int) -> str:
    """`count` of `total` with its exact 95 % interval (C. Clopper, E. Pearson, Biometrika 26 (1934) 404)."""
    if not total:
        return "there were none"
    low = betaincinv(count, total - count + 1, 0.025) if count else 0.0
    high = betaincinv(count + 1, total - count, 0.975) if count < total else 1.0
    return f"{count} of {total} (95 %: {low:.0%} to {high:.0%})"


def _plain(kind: str) -> str:
    return kind.replace("_", " ")
