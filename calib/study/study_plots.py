"""Pictures of gauge studies."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from depthcell.calib.study.controlchart import Chart
from depthcell.calib.study.study_capability import CapabilityStudy
from depthcell.calib.study.study_grr import GrrStudy
from depthcell.calib.study.study_type1 import Linearity, Type1Study

if TYPE_CHECKING:
    from depthcell.calib.study.study_report import Study

BLUE, RED, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"


def draw_study(study: "Study") -> Figure:
    """The figure of a study, of 10 by 7 inches."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    if isinstance(study, Type1Study):
        _draw_type1(figure, study)
    elif isinstance(study, GrrStudy):
        _draw_grr(figure, study)
    else:
        _draw_capability(figure, study)
    figure.suptitle(study.source)
    return figure


def _draw_type1(figure: Figure, study: Type1Study) -> None:
    """Deviations from the reference in order, with the zone they may fill; below, bias against reference."""
    panels = figure.subplots(1 if study.linearity is None else 2, 1, squeeze=False)[:, 0]
    run, zone = panels[0], study.settings.tolerance_share / 2 * study.settings.tolerance
    start = 0
    for one in study.references:
        run.plot(range(start, start + one.n), np.array(one.values) - one.reference, ".-", label=f"{one.reference:g}")
        start += one.n
    run.axhspan(-zone, zone, color=GREEN, alpha=0.12)
    run.axhline(0, color=GREY, linewidth=0.8)
    run.set(xlabel="reading", ylabel=f"value - reference ({study.settings.unit})")
    run.legend(title="reference")
    if study.linearity is not None:
        _draw_linearity(panels[1], study, study.linearity)


def _draw_linearity(axes: Axes, study: Type1Study, line: Linearity) -> None:
    x = np.array(line.references)
    for one in study.references:
        axes.plot(np.full(one.n, one.reference), np.array(one.values) - one.reference, ".", color=GREY, alpha=0.5)
        axes.plot(one.reference, one.bias, "s", color=RED)
    axes.plot(x, line.intercept + line.slope * x, color=BLUE)
    low, high = np.array(line.band).T
    axes.fill_between(x, low, high, color=BLUE, alpha=0.2, label=f"{study.settings.confidence:.0%} band of the mean")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(xlabel=f"reference ({study.settings.unit})", ylabel=f"bias ({study.settings.unit})")
    axes.legend()


def _draw_grr(figure: Figure, study: GrrStudy) -> None:
    """Components of variation, then every reading by part, by operator, and the interaction."""
    shares, by_part, by_operator, crossed = figure.subplots(2, 2).ravel()
    cube, unit = np.array(study.values), study.settings.unit
    names = ("GRR", "EV", "AV", "INT", "PV")
    at = np.arange(len(names))
    components = [study.component(name) for name in names]
    shares.bar(at - 0.2, [100 * one.contribution for one in components], 0.4, label="contribution", color=GREY)
    shares.bar(at + 0.2, [100 * one.study_variation for one in components], 0.4, label="study variation", color=BLUE)
    shares.set(ylabel="%", xticks=at, xticklabels=names)
    shares.legend()
    for values, axes, labels in ((cube, by_part, study.parts), (cube.swapaxes(0, 1), by_operator, study.operators)):
        flat = values.reshape(len(labels), -1)
        axes.plot(np.repeat(np.arange(len(labels)), flat.shape[1]), flat.ravel(), ".", color=GREY, alpha=0.5)
        axes.plot(flat.mean(axis=1), "s-", color=RED)
        axes.set(ylabel=f"value ({unit})", xticks=range(len(labels)), xticklabels=labels)
    for column, name in enumerate(study.operators):
        crossed.plot(cube.mean(axis=2)[:, column], ".-", label=name)
    crossed.set(xlabel="part", ylabel=f"mean ({unit})", xticks=range(len(study.parts)), xticklabels=study.parts)
    crossed.legend(title="operator")


def _draw_capability(figure: Figure, study: CapabilityStudy) -> None:
    """Histogram with limits beside the two control charts."""
    panels = figure.subplot_mosaic([["histogram", "location"], ["histogram", "spread"]])
    bars, values = panels["histogram"], np.array(study.values)
    bars.hist(values, bins="auto", density=True, color=GREY, alpha=0.5)
    x = np.linspace(values.min() - study.sigma_overall, values.max() + study.sigma_overall, 200)
    for sigma, color, name in ((study.sigma_within, BLUE, "within"), (study.sigma_overall, RED, "overall")):
        density = np.exp(-(((x - study.mean) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
        bars.plot(x, density, color=color, label=name)
    for limit in (study.settings.lower, study.settings.upper):
        if limit is not None:
            bars.axvline(limit, color="black", linestyle="--")
    bars.set(xlabel=f"value ({study.settings.unit})", yticks=[])
    bars.legend(title=f"Cpk {study.cpk.value:.2f}, Ppk {study.ppk.value:.2f}")
    _draw_chart(panels["location"], study.chart.location)
    _draw_chart(panels["spread"], study.chart.spread)


def _draw_chart(axes: Axes, chart: Chart) -> None:
    axes.plot(range(1, len(chart.points) + 1), chart.points, ".-", color=BLUE)
    axes.axhline(chart.center, color=GREEN)
    for limit in (chart.lower, chart.upper):
        axes.axhline(limit, color=RED, linestyle="--")
    marked = sorted({signal.index for signal in chart.signals})
    axes.plot([index + 1 for index in marked], [chart.points[index] for index in marked], "o", color=RED)
    axes.set(ylabel=chart.name)
