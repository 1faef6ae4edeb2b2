"""The same evaluation over several seeds, each of which learns from its own draw of the good parts.

Two things decide a figure by chance: which good parts were learned from, and which parts were tested. The seeds show
the first. The second is what the interval of one run speaks of; all seeds judge the same test parts, so it is averaged
over them, not shrunk. Both are joined as Zou and Donner do for a sum of two effects ("Construction of confidence limits
about effect measures: a general approach", Statistics in Medicine 27, 2008): the distances of the limits from the mean
are added in quadrature, each side by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from depthcell.errors import DepthcellError
from depthcell.models.evaluation import (
    Accuracy,
    Evaluation,
    EvaluationPlan,
    checked_data_set,
    evaluate_once,
    evaluation_steps,
)
from depthcell.models.metrics import CONFIDENCE, Estimate

LEARNED_SHARE = 0.9
FIGURES = ("image_auroc", "pixel_auroc", "aupro_30", "aupro_1")


@dataclass(frozen=True, slots=True)
class SeedsEstimate(Estimate):
    """Mean over seeds with the interval that speaks of other draws of good parts and of other test parts together.

    Attributes:
        sd: standard deviation over seeds.
        per_seed: the figure of each.
        seeds_low, seeds_high: Student's t interval of the mean over seeds alone, for these very test parts.
    """

    sd: float = 0.0
    per_seed: tuple[float, ...] = ()
    seeds_low: float = 0.0
    seeds_high: float = 1.0

    @classmethod
    def of(cls, estimates: Sequence[Estimate]) -> "SeedsEstimate":
        """Join the estimates of one figure; of at least two seeds."""
        values = np.array([estimate.value for estimate in estimates])
        mean, sd = float(values.mean()), float(values.std(ddof=1))
        reach = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * sd / np.sqrt(len(values)))
        below = float(np.hypot(np.mean([estimate.value - estimate.low for estimate in estimates]), reach))
        above = float(np.hypot(np.mean([estimate.high - estimate.value for estimate in estimates]), reach))
        return cls(
            value=mean,
            low=max(0.0, mean - below),
            high=min(1.0, mean + above),
            sd=sd,
            per_seed=tuple(values.tolist()),
            seeds_low=max(0.0, mean - reach),
            seeds_high=min(1.0, mean + reach),
        )


@dataclass(frozen=True, slots=True)
class SeedsAccuracy:
    """The four figures over seeds."""

    image_auroc: SeedsEstimate
    pixel_auroc: SeedsEstimate
    aupro_30: SeedsEstimate
    aupro_1: SeedsEstimate

    @classmethod
    def of(cls, runs: Sequence[Accuracy]) -> "SeedsAccuracy":
        """Join the figures of one evaluation for each seed."""
        return cls(**_joined(runs))


@dataclass(frozen=True, slots=True)
class SeedsEvaluation(SeedsAccuracy):
    """How well a method judges a data set, over seeds. Its fields are the keys of `evaluate --seeds N --json`.

    Attributes:
        per_defect: defect kind -> figures.
        false_rejects: share of the good test parts above each seed's threshold, mean and interval.
        missed: share of the defective test parts at or below it.
        seeds: of each run.
        learned_share: share of train/good that each run learns from, drawn by its seed.
        method: what was looked at.
        runs: each run as a whole.
    """

    per_defect: dict[str, SeedsAccuracy]
    false_rejects: SeedsEstimate
    missed: SeedsEstimate
    seeds: tuple[int, ...]
    learned_share: float
    method: str
    runs: tuple[Evaluation, ...]


def run_seeds(
    plan: EvaluationPlan, seeds: int, begin: Callable[[int], None], advance: Callable[[], None]
) -> SeedsEvaluation:
    """Evaluate once for each seed from `plan.seed` on.

    Args:
        plan: what to evaluate.
        seeds: how many, at least two.
        begin: called once with the number of steps.
        advance: called after each step.

    Raises:
        DepthcellError: fewer than two seeds, maps are asked for, or the data set is not as it should be.
    """
    if seeds < 2:
        raise DepthcellError(f"--seeds {seeds}: needs at least 2; for one run give --seed")
    if plan.maps is not None:
        raise DepthcellError(f"--maps {plan.maps}: belongs to one run; leave --seeds out")
    data = checked_data_set(plan)
    count = round(LEARNED_SHARE * len(data.train))
    begin(seeds * evaluation_steps(data, count))
    numbers = tuple(range(plan.seed, plan.seed + seeds))
    runs = [
        evaluate_once(replace(plan, seed=seed), data, _drawn(len(data.train), count, seed), advance) for seed in numbers
    ]
    return SeedsEvaluation(
        **_joined(runs),
        per_defect={kind: SeedsAccuracy.of([run.per_defect[kind] for run in runs]) for kind in runs[0].per_defect},
        false_rejects=SeedsEstimate.of([run.false_rejects.share for run in runs]),
        missed=SeedsEstimate.of([run.missed.share for run in runs]),
        seeds=numbers,
        learned_share=LEARNED_SHARE,
        method=plan.settings.method.value,
        runs=tuple(runs),
    )


def _drawn(total: int, count: int, seed: int) -> list[int]:
    """So many of the indices below `total`, drawn without replacement, rising."""
    return sorted(np.random.default_rng(seed).permutation(total)[:count].tolist())


def _joined(runs: Sequence[Accuracy]) -> dict[str, SeedsEstimate]:
    return {name: SeedsEstimate.of([getattr(run, name) for run in runs]) for name in FIGURES}
