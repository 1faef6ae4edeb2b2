"""A study of detection capability for people: a table, a picture of each curve with its bound, a page with both."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from depthcell.files import written_beside
from depthcell.inspect.pod_result import Detected, KindCapability, PodStudy

HEADINGS = ("kind (its size)", "n", "hits", "tested, mm", "a50", "a90", "a90/95", "a90/95 by depth", "what is missing")
COLUMNS = 3
BLUE, ORANGE, GREY = "#1f5fa8", "#c8641e", "#777777"


def table_rows(study: PodStudy) -> list[tuple[str, ...]]:
    """One row for each kind, sizes in mm, under `HEADINGS`."""
    return [_row(capability) for capability in study.kinds.values()]


def pod_table(study: PodStudy) -> Table:
    """The rows for a terminal."""
    table = Table(title="probability of detection; sizes in mm, bounds at 95 %", title_justify="left", box=SIMPLE_HEAD)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in {HEADINGS[0], HEADINGS[-1]} else "right")
    for row in table_rows(study):
        table.add_row(*row)
    return table


def markdown_rows(study: PodStudy) -> str:
    """The rows as a Markdown table."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in table_rows(study))]) + "\n"


def classes_in_words(study: PodStudy) -> list[str]:
    """Hits of defects that change the shape, and of those in colour alone, in sentences."""
    return [
        f"{share.count} of {share.total} {name} defects hit (95 %: {share.low:.1%} to {share.high:.1%})"
        for name, share in study.classes.items()
    ]


def false_calls_in_words(study: PodStudy) -> list[str]:
    """What good parts did, and findings where no defect was, in sentences."""
    sentences = []
    for share, what in ((study.false_calls, "rejected"), (study.held_back, "held back as CANNOT-TELL")):
        if share is not None:
            text = f"{share.count} of {share.total} good parts {what} (95 %: {share.low:.1%} to {share.high:.1%})"
            sentences.append(text)
    if not sentences:
        sentences.append("no good part in the run: false calls are not known")
    sentences.append(f"{study.findings_elsewhere} findings that reject, on all {study.parts} parts, lie on no defect")
    if study.noise is not None:
        sentences.append(
            f"noise alone would deviate by more than {study.noise.threshold_mm:.2f} mm on 1 % of good parts "
            f"(Gumbel, {study.noise.n} values)"
        )
    return sentences


def render_picture(study: PodStudy, path: Path) -> None:
    """Curves of all kinds as a PNG."""
    kinds = list(study.kinds.values())
    rows = -(-len(kinds) // COLUMNS)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.0 * COLUMNS, 2.9 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = np.ravel(figure.subplots(rows, COLUMNS, squeeze=False, sharey=True))
        for axis, capability in zip(axes, kinds, strict=False):
            _draw(axis, capability)
        for axis in axes[len(kinds) :]:
            axis.set_axis_off()
        with written_beside(path) as partial:
            figure.savefig(partial, dpi=110)


def render_page(study: PodStudy, picture: Path, what: str) -> str:
    """A page that needs no other file."""
    image = base64.b64encode(picture.read_bytes()).decode()
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in HEADINGS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table_rows(study)
    )
    words = "".join(
        f"<p>{html.escape(sentence)}.</p>" for sentence in (*classes_in_words(study), *false_calls_in_words(study))
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>probability of detection</title><style>"
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}"
        "table{border-collapse:collapse}td,th{padding:.2rem .7rem;border-bottom:1px solid #ccc;text-align:left}"
        "img{max-width:100%}</style>"
        f"<h1>Probability of detection</h1><p>{html.escape(what)}: {study.defects} defects on {study.parts} parts. "
        f"A hit: {html.escape(study.criterion)}. Sizes in mm; bounds hold with 95 % confidence, one-sided.</p>"
        f"<table><tr>{head}</tr>{body}</table>{words}"
        f"<p><img alt='curves' src='data:image/png;base64,{image}'></p></html>\n"
    )


def _row(capability: KindCapability) -> tuple[str, ...]:
    found, response = capability.hit_miss, capability.response
    by_depth = None if response is None else response.at_decision
    notes = [found.undetermined]
    if by_depth is not None and by_depth.undetermined is not None:
        notes.append(f"by depth: {by_depth.undetermined}")
    return (
        f"{capability.kind.replace('_', ' ')} ({_measure(capability)})",
        str(capability.hits.total),
        str(capability.hits.count),
        f"{capability.smallest_mm:.2f} to {capability.largest_mm:.2f}",
        _mm(found.a50_mm),
        _mm(found.a90_mm),
        _mm(found.a90_95_mm),
        "" if by_depth is None else _mm(by_depth.a90_95_mm),
        "; ".join(note for note in notes if note),
    )


def _measure(capability: KindCapability) -> str:
    return "diameter" if "diameter" in capability.size else "depth"


def _mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _draw(axis: Any, capability: KindCapability) -> None:
    """One kind: hits above, misses below, both curves, their bounds dashed, a90/95 marked."""
    sizes, hit = np.array(capability.sizes_mm), np.array(capability.hit)
    axis.plot(sizes[hit], np.full(hit.sum(), 1.04), "|", color=GREY, markersize=6)
    axis.plot(sizes[~hit], np.full((~hit).sum(), -0.04), "|", color=GREY, markersize=6)
    _draw_curve(axis, capability.hit_miss, BLUE, "hits and misses")
    if capability.response is not None:
        _draw_curve(axis, capability.response.at_decision, ORANGE, "by depth alone")
    axis.axhline(0.9, color=GREY, linewidth=0.5)
    axis.set_xscale("log")
    ticks = _ticks(sizes)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_ylim(-0.1, 1.1)
    axis.set_yticks([0, 0.5, 0.9, 1])
    axis.set_title(f"{capability.kind.replace('_', ' ')}: {capability.hits.count} of {capability.hits.total}")
    axis.set_xlabel(f"{_measure(capability)}, mm")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower right", bbox_to_anchor=(1.0, 0.06), fontsize=7, frameon=False)


def _draw_curve(axis: Any, found: Detected, color: str, label: str) -> None:
    if found.curve is None:
        return
    bound = "" if found.a90_95_mm is None else f", a90/95 {found.a90_95_mm:.2f} mm"
    axis.plot(found.curve.size_mm, found.curve.pod, color=color, linewidth=1.3, label=label + bound)
    axis.plot(found.curve.size_mm, found.curve.lower, color=color, linewidth=0.9, linestyle="--")
    if found.a90_95_mm is not None:
        axis.plot([found.a90_95_mm], [0.9], "o", color=color, markersize=4)


def _ticks(sizes: Any) -> Sequence[float]:
    candidates = [number * 10.0**power for power in range(-2, 2) for number in (1, 2, 5)]
    return [tick for tick in candidates if 0.8 * sizes.min() <= tick <= 1.25 * sizes.max()]
