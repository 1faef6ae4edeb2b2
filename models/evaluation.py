"""`depthcell evaluate`: fit on the good parts of a data set, choose the threshold on others, judge the test parts."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from depthcell.errors import DepthcellError
from depthcell.files import written_beside
from depthcell.models.anomaly import AnomalyMap
from depthcell.models.baseline import Baseline, BaselineSettings, fit_steps
from depthcell.models.metrics import (
    CONFIDENCE,
    Estimate,
    ScoredImage,
    auroc_estimate,
    pixel_estimates,
    proportion_estimate,
)
from depthcell.models.mvtec3d import GOOD, DataSet, Sample, ScansOnDemand, load_mask, load_scan, open_data_set


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What to evaluate.

    Attributes:
        root: folder in MVTec 3D-AD layout.
        settings: of the baseline.
        seed: of the bootstrap intervals; the baseline itself draws nothing.
        maps: new or empty folder for the anomaly maps; None writes none.
    """

    root: Path
    settings: BaselineSettings
    seed: int = 0
    maps: Path | None = None


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
        threshold: a part that scores above it is rejected: the highest score among the validation parts.
        false_reject_expected_at_most: (n_validation + 1)^-1, the chance that a new good part scores above every
            validation part if it comes from the same process (split conformal prediction; Vovk et al., "Algorithmic
            Learning in a Random World", 2005). That is an average over validation sets.
        false_reject_at_most: what the share of rejected good parts stays below for 95 % of validation sets:
            1 - 0.05^(1 / n_validation) (Wilks, Annals of Mathematical Statistics 12, 1941).
        false_rejects: good test parts above the threshold.
        missed: defective test parts at or below it.
        seconds_per_part: median wall time from the files of a test part to its map.
        peak_memory_mb: most memory that the process held, in 10^6 bytes.
        method, seed, n_train, n_validation, n_test: what was evaluated.
    """

    per_defect: dict[str, DefectAccuracy]
    threshold: float
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


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """A test part after judgement."""

    kind: str
    part_score: float
    pixels: ScoredImage
    seconds: float


def run_evaluation(plan: EvaluationPlan, begin: Callable[[int], None], advance: Callable[[], None]) -> Evaluation:
    """Fit on train/good, choose the threshold on validation/good, judge test.

    Args:
        plan: what to evaluate.
        begin: called once with the number of steps.
        advance: called after each step.

    Raises:
        DepthcellError: the data set is not as it should be, or the folder for maps may not be written to.
    """
    data = open_data_set(plan.root)
    if plan.maps is not None:
        _check_maps_folder(plan.maps, plan.root)
    for sample in data.test:  # a bad file is refused now, not after minutes of fitting
        load_mask(sample, load_scan(sample).rgb.shape[:2])
    begin(fit_steps(len(data.train), plan.settings) + len(data.validation) + len(data.test))
    baseline = Baseline.fit(ScansOnDemand(data.train), plan.settings, advance)
    validation = []
    for scan in ScansOnDemand(data.validation):
        validation.append(baseline.judge(scan).part_score)
        advance()
    judged = []
    for sample in data.test:
        judged.append(_judged(baseline, sample, plan.maps))
        advance()
    return _evaluation(plan, data, max(validation), judged)


def _judged(baseline: Baseline, sample: Sample, maps: Path | None) -> _Judged:
    started = time.perf_counter()
    scan = load_scan(sample)
    found = baseline.judge(scan)
    seconds = time.perf_counter() - started
    pixels = ScoredImage.of(found.score, load_mask(sample, found.score.shape))
    if maps is not None:
        _write_map(found, maps / f"{sample.name}.tiff")
    return _Judged(sample.kind, found.part_score, pixels, seconds)


def _evaluation(plan: EvaluationPlan, data: DataSet, threshold: float, judged: Sequence[_Judged]) -> Evaluation:
    good = [part for part in judged if part.kind == GOOD]
    kinds = sorted({part.kind for part in judged} - {GOOD})
    defective = {kind: [part for part in judged if part.kind == kind] for kind in kinds}
    return Evaluation(
        **_figures(judged, plan.seed),
        per_defect={
            kind: DefectAccuracy(
                **_figures([*good, *parts], plan.seed), n_parts=len(parts), missed=_wrong(parts, threshold)
            )
            for kind, parts in defective.items()
        },
        threshold=threshold,
        false_reject_expected_at_most=1 / (len(data.validation) + 1),
        false_reject_at_most=1 - (1 - CONFIDENCE) ** (1 / len(data.validation)),
        false_rejects=_wrong(good, threshold),
        missed=_wrong([part for part in judged if part.kind != GOOD], threshold),
        seconds_per_part=float(np.median([part.seconds for part in judged])),
        peak_memory_mb=_peak_memory_mb(),
        method=plan.settings.method.value,
        seed=plan.seed,
        n_train=len(data.train),
        n_validation=len(data.validation),
        n_test=len(data.test),
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
