"""An evaluation as a person reads it: one row for each defect kind, then the threshold in words."""

from rich.table import Table

from depthcell.models.evaluation import Accuracy, Evaluation, Wrong
from depthcell.models.evaluation_seeds import SeedsAccuracy, SeedsEvaluation
from depthcell.models.metrics import Estimate

FIGURE_HEADINGS = ("image AUROC", "pixel AUROC", "AUPRO@30 %", "AUPRO@1 %")


def evaluation_table(result: Evaluation | SeedsEvaluation) -> Table:
    """Figures with their 95 % intervals, overall and per defect kind."""
    return _table_of_seeds(result) if isinstance(result, SeedsEvaluation) else _table_of_one(result)


def evaluation_in_words(result: Evaluation | SeedsEvaluation) -> str:
    """The threshold, what it promises and what it did, and the cost."""
    return _seeds_in_words(result) if isinstance(result, SeedsEvaluation) else _one_in_words(result)


def _table_of_one(result: Evaluation) -> Table:
    table = Table("defect", "parts", *FIGURE_HEADINGS, "missed", title=f"{result.method}: value over 95 % interval")
    for kind, figures in result.per_defect.items():
        table.add_row(kind, str(figures.n_parts), *_figures(figures), _wrong(figures.missed))
    table.add_section()
    table.add_row("all", str(result.missed.total), *_figures(result), _wrong(result.missed))
    return table


def _table_of_seeds(result: SeedsEvaluation) -> Table:
    title = f"{result.method}: mean over {len(result.seeds)} seeds, 95 % interval, standard deviation over seeds"
    table = Table("defect", *FIGURE_HEADINGS, title=title)
    for kind, figures in result.per_defect.items():
        table.add_row(kind, *_seed_figures(figures))
    table.add_section()
    table.add_row("all", *_seed_figures(result))
    return table


def _one_in_words(result: Evaluation) -> str:
    return (
        f"{_promise(result)}; rejected {_wrong(result.false_rejects)} good test parts, missed "
        f"{_wrong(result.missed)} defective ones\n"
        f"{_cost(result)}, seed {result.seed}"
    )


def _seeds_in_words(result: SeedsEvaluation) -> str:
    first = result.runs[0]
    false, missed = (
        f"{share.value:.1%} ({share.low:.0%} to {share.high:.0%})" for share in (result.false_rejects, result.missed)
    )
    return (
        f"each seed learns from {result.learned_share:.0%} of train/good; intervals speak of other such draws and "
        f"of other test parts\n{_promise(first)}; over seeds rejected {false} of {first.false_rejects.total} good "
        f"test parts, missed {missed} of {first.missed.total} defective ones\n{_cost(first)}, seeds {result.seeds[0]} "
        f"to {result.seeds[-1]}"
    )


def _promise(result: Evaluation) -> str:
    return (
        f"threshold {result.threshold:.3f} by {result.n_threshold} good parts, for {result.false_reject_asked:.1%} "
        f"false rejects: should reject {result.false_reject_expected_at_most:.1%} of good parts on average at most, "
        f"with 95 % confidence under {result.false_reject_at_most:.0%}"
    )


def _cost(result: Evaluation) -> str:
    return (
        f"{result.n_train} parts learned from; {result.seconds_per_part:.2f} s per part, "
        f"{result.peak_memory_mb:.0f} MB at most"
    )


def _figures(figures: Accuracy) -> tuple[str, ...]:
    return tuple(
        _estimate(estimate)
        for estimate in (figures.image_auroc, figures.pixel_auroc, figures.aupro_30, figures.aupro_1)
    )


def _seed_figures(figures: SeedsAccuracy) -> tuple[str, ...]:
    estimates = (figures.image_auroc, figures.pixel_auroc, figures.aupro_30, figures.aupro_1)
    return tuple(f"{_estimate(estimate)}\nsd {estimate.sd:.3f}" for estimate in estimates)


def _estimate(estimate: Estimate) -> str:
    """Value over its interval; bounds without their leading zero, so that the table fits 80 columns."""
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in (estimate.low, estimate.high))
    return f"{estimate.value:.3f}\n{low}-{high}"


def _wrong(wrong: Wrong) -> str:
    return f"{wrong.count} of {wrong.total}"
