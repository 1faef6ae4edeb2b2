"""An evaluation as a person reads it: one row for each defect kind, then the threshold in words."""

from rich.table import Table

from depthcell.models.evaluation import Accuracy, Evaluation, Wrong
from depthcell.models.metrics import Estimate

HEADINGS = ("parts", "image AUROC", "pixel AUROC", "AUPRO@30 %", "AUPRO@1 %", "missed")


def evaluation_table(result: Evaluation) -> Table:
    """Figures with their 95 % intervals, overall and per defect kind."""
    table = Table("defect", *HEADINGS, title=f"{result.method}: value over 95 % interval")
    for kind, figures in result.per_defect.items():
        table.add_row(kind, str(figures.n_parts), *_figures(figures), _wrong(figures.missed))
    table.add_section()
    table.add_row("all", str(result.missed.total), *_figures(result), _wrong(result.missed))
    return table


def evaluation_in_words(result: Evaluation) -> str:
    """The threshold, what it promises and what it did, and the cost."""
    return (
        f"threshold {result.threshold:.3f}, the highest of {result.n_validation} validation parts: should reject "
        f"{result.false_reject_expected_at_most:.0%} of good parts on average at most, with 95 % confidence under "
        f"{result.false_reject_at_most:.0%}; rejected {_wrong(result.false_rejects)} good test parts, missed "
        f"{_wrong(result.missed)} defective ones\n"
        f"{result.n_train} parts learned from; {result.seconds_per_part:.2f} s per part, "
        f"{result.peak_memory_mb:.0f} MB at most, seed {result.seed}"
    )


def _figures(figures: Accuracy) -> tuple[str, ...]:
    return tuple(
        _estimate(estimate)
        for estimate in (figures.image_auroc, figures.pixel_auroc, figures.aupro_30, figures.aupro_1)
    )


def _estimate(estimate: Estimate) -> str:
    """Value over its interval; bounds without their leading zero, so that the table fits 80 columns."""
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in (estimate.low, estimate.high))
    return f"{estimate.value:.3f}\n{low}-{high}"


def _wrong(wrong: Wrong) -> str:
    return f"{wrong.count} of {wrong.total}"
