"""`depthcell evaluate`: learn from the good parts of a data set, choose the threshold by such alone, judge the others.

With several seeds (`evaluation_seeds.py`) each learns from its own draw of the good parts.
"""

import resource
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from depthcell.errors import DepthcellError
from depthcell.files import written_beside
from depthcell.models.anomaly import AnomalyMap
from depthcell.models.baseline import Baseline, BaselineSettings, fit_steps
from depthcell.models.decision.threshold import Threshold, check_rate, choose_threshold
from depthcell.models.metrics import (
    Estimate,
    ScoredImage,
    auroc_estimate,
    pixel_estimates,
    proportion_estimate,
)
from depthcell.models.mvtec3d import GOOD, DataSet, Sample, ScansOnDemand, load_mask, load_scan, open_data_set

FALSE_REJECT = 0.05


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What to evaluate.

    Attributes:
        root: folder in MVTec 3D-AD layout.
        settings: of the baseline.
        seed: of the bootstrap intervals; the first of several.
        maps: new or empty folder for the anomaly maps; None writes none.
        false_reject: share of good parts that may be rejected.
    """

    root: Path
    settings: BaselineSettings
    seed: int = 0
    maps: Path | None = None
    false_reject: float = FALSE_REJECT


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The four figures, each with its 95 % interval."""

    image_auroc: Estimate
    pixel_auroc: Estimate
    aupro_30: Estimate
    aupro_1: Estimate


@dataclass(frozen=True, slots=True)
class Wrong:
    """Parts judged wrongly at the threshold: `count` of `total`, and that share with its 95 % interval."""

    count: int
    total: int
    share: Estimate


@dataclass(frozen=True, slots=True)
class DefectAccuracy(Accuracy):
    """The figures of one defect kind, against all good test parts.

    Attributes:
        n_parts: defective parts of this kind.
        missed: those at or below the threshold.
    """

    n_parts: int
    missed: Wrong


@dataclass(frozen=True, slots=True)
class Evaluation(Accuracy):
    """How well a method judges a data set. Its fields are the keys of `depthcell evaluate --json`.

    Attributes:
        per_defect: defect kind -> figures.
        threshold: a part that scores above it is rejected. Chosen by good parts alone: those of validation, those of
            train that were not learned from, and those learned from, each judged by the others.
        false_reject_asked, false_reject_expected_at_most, false_reject_at_most, n_threshold: see `Threshold`. They
            hold if all these parts and the new one are of one kind, and as far as a good part judged by the others
            scores like a new one: leaving one out (the jackknife) is near to that, but no proof covers it.
        false_rejects: good test parts above the threshold.
        missed: defective test parts at or below it.
        seconds_per_part: median wall time from the files of a test part to its map.
        peak_memory_mb: most memory that the process held, in 10^6 bytes.
        method, seed, n_train, n_validation, n_test: what was evaluated; n_train parts were learned from.
    """

    per_defect: dict[str, DefectAccuracy]
    threshold: float
    false_reject_asked: float
    false_reject_expected_at_most: float
    false_reject_at_most: float
    false_rejects: Wrong
    missed: Wrong
    seconds_per_part: float
    peak_memory_mb: float
    method: str
    seed: int
    n_train: int
    n_validation: int
    n_test: int
    n_threshold: int


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """A test part after judgement."""

    kind: str
    part_score: float
    pixels: ScoredImage
    seconds: float


def run_evaluation(plan: EvaluationPlan, begin: Callable[[int], None], advance: Callable[[], None]) -> Evaluation:
    """Learn from all of train/good, choose the threshold, judge test.

    Args:
        plan: what to evaluate.
        begin: called once with the number of steps.
        advance: called after each step.

    Raises:
        DepthcellError: the data set is not as it should be, or the folder for maps may not be written to.
    """
    data = checked_data_set(plan)
    begin(evaluation_steps(data, len(data.train)))
    return evaluate_once(plan, data, range(len(data.train)), advance)


def checked_data_set(plan: EvaluationPlan) -> DataSet:
    """The data set, every file of which was read once: a bad one is refused now, not after minutes.

    Raises:
        DepthcellError: see `run_evaluation`.
    """
    check_rate(plan.false_reject)
    data = open_data_set(plan.root)
    if plan.maps is not None:
        _check_maps_folder(plan.maps, plan.root)
    for sample in data.test:
        load_mask(sample, load_scan(sample).rgb.shape[:2])
    return data


def evaluation_steps(data: DataSet, learned: int) -> int:
    """How many steps `evaluate_once` reports when it learns from so many parts."""
    return fit_steps(learned) + len(data.train) - learned + len(data.validation) + len(data.test)


def evaluate_once(
    plan: EvaluationPlan, data: DataSet, learned: Collection[int], advance: Callable[[], None]
) -> Evaluation:
    """Learn from those parts of train/good that `learned` names, choose the threshold, judge test."""
    baseline = Baseline.fit(ScansOnDemand([data.train[index] for index in learned]), plan.settings, advance)
    scores = list(baseline.good_scores)
    left_out = [sample for index, sample in enumerate(data.train) if index not in learned]
    for scan in ScansOnDemand([*left_out, *data.validation]):
        scores.append(baseline.judge(scan).part_score)
        advance()
    judged = []
    for sample in data.test:
        judged.append(_judged(baseline, sample, plan.maps))
        advance()
    return _evaluation(plan, data, len(learned), choose_threshold(np.array(scores), plan.false_reject), judged)


def _judged(baseline: Baseline, sample: Sample, maps: Path | None) -> _Judged:
    started = time.perf_counter()
    scan = load_scan(sample)
    found = baseline.judge(scan)
    seconds = time.perf_counter() - started
    pixels = ScoredImage.of(found.score, load_mask(sample, found.score.shape))
    if maps is not None:
        _write_map(found, maps / f"{sample.name}.tiff")
    return _Judged(sample.kind, found.part_score, pixels, seconds)


def _evaluation(
    plan: EvaluationPlan, data: DataSet, learned: int, threshold: Threshold, judged: Sequence[_Judged]
) -> Evaluation:
    good = [part for part in judged if part.kind == GOOD]
    kinds = sorted({part.kind for part in judged} - {GOOD})
    defective = {kind: [part for part in judged if part.kind == kind] for kind in kinds}
    return Evaluation(
        **_figures(judged, plan.seed),
        per_defect={
            kind: DefectAccuracy(
                **_figures([*good, *parts], plan.seed), n_parts=len(parts), missed=_wrong(parts, threshold.value)
            )
            for kind, parts in defective.items()
        },
        threshold=threshold.value,
        false_reject_asked=threshold.stated_rate,
        false_reject_expected_at_most=threshold.expected_rate,
        false_reject_at_most=threshold.guaranteed_rate,
        false_rejects=_wrong(good, threshold.value),
        missed=_wrong([part for part in judged if part.kind != GOOD], threshold.value),
        seconds_per_part=float(np.median([part.seconds for part in judged])),
        peak_memory_mb=_peak_memory_mb(),
        method=plan.settings.method.value,
        seed=plan.seed,
        n_train=learned,
        n_validation=len(data.validation),
        n_test=len(data.test),
        n_threshold=threshold.n_parts,
    )


def _figures(judged: Sequence[_Judged], seed: int) -> dict[str, Estimate]:
    kinds = [part.kind for part in judged]
    is_defect = np.array([kind != GOOD for kind in kinds])
    scores = np.array([part.part_score for part in judged])
    return {
        "image_auroc": auroc_estimate(is_defect, scores),
        **pixel_estimates([part.pixels for part in judged], kinds, seed),
    }


def _wrong(parts: Sequence[_Judged], threshold: float) -> Wrong:
    """Those of one group, all good or all defective, that the threshold judges wrongly."""
    count = sum((part.part_score > threshold) == (part.kind == GOOD) for part in parts)
    return Wrong(count, len(parts), proportion_estimate(count, len(parts)))


def _check_maps_folder(maps: Path, root: Path) -> None:
    if maps.resolve().is_relative_to(root.resolve()):
        raise DepthcellError(f"--maps {maps}: lies in the data set; name a folder outside of {root}")
    if maps.exists() and not (maps.is_dir() and not any(maps.iterdir())):
        raise DepthcellError(f"--maps {maps}: holds something already; name a new or an empty folder")


def _write_map(found: AnomalyMap, path: Path) -> None:
    with written_beside(path) as partial:
        tifffile.imwrite(partial, found.score)


def _peak_memory_mb() -> float:
    """Most memory the process held; the system counts it in KiB, on macOS in bytes (getrusage(2))."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)
