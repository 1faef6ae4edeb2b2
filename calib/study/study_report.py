"""A gauge study for people and programs: JSON, tables on the terminal, one page of HTML."""

import html
import json
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

from rich.table import Table

from depthcell.calib.study.controlchart import ControlChart
from depthcell.calib.study.study_capability import CapabilityStudy, Index
from depthcell.calib.study.study_grr import GrrStudy
from depthcell.calib.study.study_type1 import Type1Study
from depthcell.errors import DepthcellError, Reason
from depthcell.files import write_text, written_beside

Study = Type1Study | GrrStudy | CapabilityStudy
PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True)
class StudyRows:
    """One table of a study: `rows` of as many cells as `header` has."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def study_json(study: Study) -> str:
    """The whole study as JSON: its kind, its settings, its values, all its figures."""
    kind = {Type1Study: "type1", GrrStudy: "grr", CapabilityStudy: "capability"}[type(study)]
    return json.dumps({"study": kind, **asdict(study)}, indent=2, allow_nan=False) + "\n"


def study_tables(study: Study) -> list[Table]:
    """The study as tables for a terminal."""
    tables = []
    for one in study_rows(study):
        table = Table(title=one.title, title_justify="left")
        for index, name in enumerate(one.header):
            table.add_column(name, justify="left" if index == 0 else "right")
        for row in one.rows:
            table.add_row(*row)
        tables.append(table)
    return tables


def write_study(study: Study, path: Path) -> None:
    """Write the study as its suffix says: .json, a picture (.png .svg .pdf), or .html with tables and picture.

    Raises:
        DepthcellError: the suffix is another one.
    """
    if path.suffix == ".json":
        write_text(path, study_json(study))
    elif path.suffix == ".html":
        write_text(path, _page(study))
    elif path.suffix in PICTURES:
        from depthcell.calib.study.study_plots import draw_study  # noqa: PLC0415 - matplotlib waits until it is drawn with

        with written_beside(path) as partial:
            draw_study(study).savefig(partial, format=path.suffix[1:])
    else:
        wanted = ", ".join((".json", ".html", *PICTURES))
        raise DepthcellError(f"{path}: cannot write a study as '{path.suffix}': choose {wanted}", Reason.BAD_INPUT)


def study_rows(study: Study) -> list[StudyRows]:
    """The tables of a study, in words and figures."""
    if isinstance(study, Type1Study):
        return _type1_rows(study)
    return _grr_rows(study) if isinstance(study, GrrStudy) else _capability_rows(study)


def study_sentence(study: Study) -> str:
    """The outcome in one sentence."""
    if isinstance(study, Type1Study):
        known = [(one.cg, one.cgk) for one in study.references if one.cg is not None and one.cgk is not None]
        indices = "nothing scattered"
        if known:
            cg, cgk = (min(values) for values in zip(*known, strict=True))
            indices = f"Cg {cg:.2f} and Cgk {cgk:.2f}, which must reach {study.settings.minimum:g}"
        step = f"resolution {study.resolution:g}, {study.resolution_share:.1%} of the tolerance, at most 5 % is allowed"
        return f"gauge {'capable' if study.capable else 'NOT capable'}: {indices}; {step}"
    if isinstance(study, GrrStudy):
        grr, ndc = study.component("GRR"), "without limit" if study.ndc is None else str(study.ndc)
        return f"gauge {study.verdict}: GRR is {grr.study_variation:.1%} of study variation, {ndc} distinct categories"
    control = "in control" if study.chart.in_control else "NOT in control, so the indices predict nothing"
    normal = "" if study.normal_p >= 0.05 else f"; values are not normal (Shapiro-Wilk p {study.normal_p:.2g})"
    return f"Cpk {study.cpk.value:.2f}, Ppk {study.ppk.value:.2f}; process {control}{normal}"


def _type1_rows(study: Type1Study) -> list[StudyRows]:
    unit = study.settings.unit
    header = ("reference", "n", "mean", "s", f"bias ({unit})", _of(study.settings.confidence), "p", "Cg", "Cgk")
    rows = tuple(
        (
            f"{one.reference:g}",
            str(one.n),
            f"{one.mean:.6g}",
            f"{one.repeatability:.4g}",
            f"{one.bias:+.4g}",
            _span(one.bias_interval),
            _p(one.p),
            _number(one.cg, ".2f"),
            _number(one.cgk, ".2f"),
        )
        for one in study.references
    )
    tables = [StudyRows(f"Type-1 study of {study.source}", header, rows)]
    line = study.linearity
    if line is not None:
        fit = (
            ("intercept", f"{line.intercept:+.5g}", _span(line.intercept_interval), _p(line.p_intercept)),
            ("slope", f"{line.slope:+.5g}", _span(line.slope_interval), _p(line.p_slope)),
            ("about the line", f"s {line.residual:.4g}", f"R² {line.r_squared:.1%}", _p(line.p_fit)),
        )
        title = f"Linearity: bias 0 {'lies' if line.acceptable else 'does NOT lie'} in the band at every reference"
        tables.append(StudyRows(title, ("", "value", _of(study.settings.confidence), "p"), fit))
    return tables


def _grr_rows(study: GrrStudy) -> list[StudyRows]:
    anova = tuple(
        (row.name, str(row.freedom), f"{row.ss:.5g}", f"{row.ms:.5g}", _number(row.f, ".3f"), _p(row.p))
        for row in study.anova
    )
    level = _of(study.settings.confidence)
    parts = tuple(
        (
            one.name,
            f"{one.sigma:.4g}",
            _span(one.sigma_interval),
            f"{one.contribution:.1%}",
            f"{one.study_variation:.1%}",
            " to ".join(f"{x:.1%}" for x in one.study_variation_interval),
            "-" if one.tolerance_share is None else f"{one.tolerance_share:.1%}",
        )
        for one in study.components
    )
    header = ("", f"sigma ({study.settings.unit})", level, "contribution", "study variation", level, "tolerance")
    size = f"{len(study.parts)} parts, {len(study.operators)} operators, {study.trials} trials"
    pooled = "interaction pooled" if study.pooled else "interaction kept"
    ndc = (
        "" if study.ndc_interval is None else f", ndc {study.ndc} ({study.ndc_interval[0]} to {study.ndc_interval[1]})"
    )
    return [
        StudyRows(f"Analysis of variance, {size}", ("", "df", "SS", "MS", "F", "p"), anova),
        StudyRows(f"Gauge R&R of {study.source}: {pooled}{ndc}", header, parts),
    ]


def _capability_rows(study: CapabilityStudy) -> list[StudyRows]:
    header = ("", "value", _of(study.settings.confidence))
    indices: tuple[tuple[str, Index | None], ...]
    indices = (("Cp", study.cp), ("Cpk", study.cpk), ("Pp", study.pp), ("Ppk", study.ppk))
    rows = tuple((name, f"{one.value:.3f}", _span(one.interval)) for name, one in indices if one is not None)
    within = f"mean {study.mean:.6g}, s within {study.sigma_within:.4g}, overall {study.sigma_overall:.4g}"
    title = f"Capability of {study.source}: {study.n} values, {within} {study.settings.unit}"
    return [StudyRows(title, header, rows), _signal_rows(study.chart)]


def _signal_rows(chart: ControlChart) -> StudyRows:
    rows = tuple(
        (one.name, str(signal.index + 1), f"{one.points[signal.index]:.6g}", signal.rule)
        for one in (chart.location, chart.spread)
        for signal in one.signals
    )
    return StudyRows(f"Signals on the {chart.kind} chart: {len(rows)}", ("chart", "point", "value", "rule"), rows)


def _page(study: Study) -> str:
    """One file of HTML: the sentence, the picture, the tables; it asks for nothing from outside."""
    from depthcell.calib.study.study_plots import draw_study  # noqa: PLC0415 - matplotlib waits until it is drawn with

    drawn = StringIO()
    draw_study(study).savefig(drawn, format="svg")
    picture = drawn.getvalue()
    tables = "".join(_html_table(one) for one in study_rows(study))
    sentence = html.escape(study_sentence(study))
    style = "body{font-family:sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:right}caption{text-align:left}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(study.source)}</title>'
        f"<style>{style}</style><h1>{sentence}</h1>{picture[picture.index('<svg') :]}{tables}</html>\n"
    )


def _html_table(one: StudyRows) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in one.rows)
    return f"<table><caption>{html.escape(one.title)}</caption>{line(one.header, 'th')}{body}</table>"


def _of(confidence: float) -> str:
    return f"{confidence:.3g} interval" if confidence * 100 % 1 else f"{confidence:.0%} interval"


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.4g} to {interval[1]:.4g}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
