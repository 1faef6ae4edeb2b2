"""What a person sees of a verification: a table, one picture of the deviations, a line on drift."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from depthcell.calib.conformity import COVERAGE_FACTOR
from depthcell.calib.verify.acceptance import MERGED, Tested, worst
from depthcell.calib.verify.acceptance_evaluation import Evaluated
from depthcell.files import written_beside
from depthcell.inspect.drift_run import DriftResult
from depthcell.inspect.verification import Shown, Verification

PICTURE_FILE = "verification.png"
WORDS = {True: ("PASS", "green"), False: ("FAIL", "red"), None: ("CANNOT TELL", "yellow")}
DOTS = 6000
BINS = 60


def print_verification(result: Verification, console: Console) -> None:
    """The worst value of each test and source, what else failed, and the outcome."""
    table = Table(
        title=f"{result.cell.name}: {result.artefact.kind.replace('_', ' ')} at {result.placements} placements",
        title_justify="left",
        caption="± is 95 % by the cell's own statement; of each source the placement that uses up most of the limit",
        caption_justify="left",
    )
    for header in ("test", "measured by", "where", "value mm", "limit mm", "limit from", "decision"):
        table.add_column(header, justify="right" if header.endswith("mm") else "left")
    for one in worst(result.tested):
        table.add_row(*_row(one))
    console.print(table)
    for text in result.failures:
        console.print(Text(f"failed: {text}", style="red"))
    for text in result.notes:
        console.print(Text(f"note: {text}"))
    console.print(Text.assemble("cell ", _word(result.passed), f", {_until(result)}"))


def print_drift(result: DriftResult, console: Console) -> None:
    """How far each camera is off the others, how depth goes, and the outcome."""
    table = Table(title="drift", title_justify="left")
    for header in ("camera", "off the others mm", "± 95 %", "depth ppm/min", "± 95 %"):
        table.add_column(header, justify="left" if header == "camera" else "right")
    trends = {trend.serial: trend for trend in result.trends}
    for shift in result.check.shifts:
        trend = trends.get(shift.serial)
        course = ("", "") if trend is None else (trend.slope_per_min, COVERAGE_FACTOR * trend.u_slope_per_min)
        table.add_row(
            shift.serial,
            f"{shift.size_m * 1e3:.3f}",
            f"{COVERAGE_FACTOR * shift.u_m * 1e3:.3f}",
            *(number if isinstance(number, str) else f"{number * 1e6:.0f}" for number in course),
        )
    console.print(table)
    for text in result.notes:
        console.print(Text(f"note: {text}"))
    summary = result.check.in_words if result.record is None else result.record.summary
    console.print(Text.assemble("cell ", _word(result.passed), f": {summary}"))


def draw_verification(result: Verification, path: Path) -> None:
    """Deviations of each source at the placement that shows most of them: where they are, and how they are spread."""
    chosen = _most_telling(result)
    figure = Figure(figsize=(4.2 * len(chosen), 6.6), layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    largest_mm = max(float(np.percentile(np.abs(one.evaluated.residuals_m), 99.7)) for one in chosen) * 1e3
    for column, one in enumerate(chosen):
        across_mm = _flat_mm(one.evaluated)
        residuals_mm = one.evaluated.residuals_m * 1e3
        kept = slice(None, None, max(len(residuals_mm) // DOTS, 1))
        dots = axes[0, column].scatter(
            *across_mm[kept].T,
            c=residuals_mm[kept],
            s=4,
            cmap="RdBu_r",
            vmin=-largest_mm,
            vmax=largest_mm,
            linewidths=0,
        )
        axes[0, column].set_aspect("equal")
        axes[0, column].set_title(f"{_who(one.source)}, {one.placement}", fontsize=10)
        axes[0, column].set_xlabel("mm")
        axes[1, column].hist(residuals_mm, BINS, range=(-1.2 * largest_mm, 1.2 * largest_mm), color="#4393c3")
        axes[1, column].set_xlabel("deviation mm")
        axes[1, column].set_title(
            f"{len(residuals_mm)} points, standard deviation {residuals_mm.std():.3f} mm", fontsize=9
        )
        if column == len(chosen) - 1:
            figure.colorbar(dots, ax=axes[0, column], label="deviation mm")
    axes[1, 0].set_ylabel("points")
    word, _ = WORDS[result.passed]
    figure.suptitle(f"{result.cell.name}, {result.artefact.kind.replace('_', ' ')}: {word}", fontsize=11)
    with written_beside(path) as partial:
        figure.savefig(partial, dpi=110)


def _most_telling(result: Verification) -> tuple[Shown, ...]:
    """Of each source the placement of its worst value, merged first."""
    places: dict[str, str] = {}
    for one in sorted(worst(result.tested), key=lambda one: one.exhausted):
        places[one.value.source] = one.value.placement
    sources = sorted(places, key=lambda source: (source != MERGED, source))
    by_key = {(one.source, one.placement): one for one in result.shown}
    return tuple(by_key[source, places[source]] for source in sources)


def _flat_mm(evaluated: Evaluated) -> np.ndarray:
    """Points (N, 2) seen from above the artefact, mm from its middle."""
    offset = evaluated.points.points_cell - evaluated.points.points_cell.mean(axis=0)
    normal = evaluated.points.normals_cell.mean(axis=0) if evaluated.normal_cell is None else evaluated.normal_cell
    first = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    first /= np.linalg.norm(first)
    second = np.cross(normal / np.linalg.norm(normal), first)
    return np.asarray(offset @ np.column_stack((first, second)) * 1e3)


def _row(one: Tested) -> tuple[str | Text, ...]:
    value = one.value
    where = f"{value.placement}, {value.detail}" if value.detail else value.placement
    return (
        f"{value.characteristic} {value.characteristic.in_words}",
        _who(value.source),
        where,
        f"{value.value_m * 1e3:.3f} ± {COVERAGE_FACTOR * value.u_m * 1e3:.3f}",
        f"{one.limit_m * 1e3:.3f}",
        "stated" if one.limit_is_stated else "cell",
        _word(one.passed),
    )


def _who(source: str) -> str:
    return "all, merged" if source == MERGED else source


def _word(passed: bool | None) -> Text:
    word, color = WORDS[passed]
    return Text(word, style=f"bold {color}")


def _until(result: Verification) -> str:
    if result.passed:
        return f"valid until {result.record.valid_until}"
    return "it cannot issue OK until it passes"
