"""The picture beside an advice: what has been covered, and where the board should be held next."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from depthcell.calib.adjustment.bundle import BundleProblem, BundleSolution
from depthcell.calib.certify.certificate_pictures import board_aspect, stream_evidence
from depthcell.calib.certify.plots import GREY, INK, ORANGE, SERIES, house_style, image_axes, panels
from depthcell.calib.certify.plots_views import StreamEvidence, coverage
from depthcell.calib.guiding.guidance_information import Advice


@house_style
def draw_advice(problem: BundleProblem, solution: BundleSolution, advice: Advice) -> Figure:
    """Each stream that would see the board, its coverage and the board; last, distance and tilt of all views."""
    streams = {one.stream: one for one in stream_evidence(problem, solution)}
    shown = dict.fromkeys((advice.stream, *advice.streams))
    figure, grid = panels(len(shown) + 1, 2, 2.5)
    for axes, stream in zip(grid, shown, strict=False):
        _image(axes, streams[stream], problem, solution, advice)
    _aspects(grid[-1], list(streams.values()), problem, solution, advice)
    figure.suptitle("\n".join(_lines(advice.sentence, 95)), fontsize=9)
    return figure


def _lines(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _image(axes: Axes, one: StreamEvidence, problem: BundleProblem, solution: BundleSolution, advice: Advice) -> None:
    table = coverage(one)
    image_axes(axes, one.width_px, one.height_px, f"{one.stream}: {100 * (table > 0).mean():.0f} % covered so far")
    extent = (-0.5, one.width_px - 0.5, one.height_px - 0.5, -0.5)
    axes.imshow(np.ma.masked_equal(table, 0), extent=extent, cmap="Blues", norm=LogNorm(0.5, max(10, table.max())))
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    if advice.enough:
        return
    board = problem.boards[0]
    left, top, right, bottom = board.extent_m
    outline = np.array([[left, top, 0], [right, top, 0], [right, bottom, 0], [left, bottom, 0]])
    T_cam_board = solution.T_cell_stream[one.stream].inverse() @ advice.T_cell_board
    lens = solution.streams[one.stream]
    corners = lens.project(T_cam_board @ outline)
    if np.isfinite(corners).all():
        axes.add_patch(Polygon(corners, closed=True, fill=True, facecolor=ORANGE, alpha=0.12))
        axes.add_patch(Polygon(corners, closed=True, fill=False, edgecolor=ORANGE, linewidth=1.6))
        axes.plot(*lens.project(T_cam_board @ board.points_board).T, ".", color=ORANGE, markersize=2.5)


def _aspects(
    axes: Axes, streams: list[StreamEvidence], problem: BundleProblem, solution: BundleSolution, advice: Advice
) -> None:
    for number, one in enumerate(streams):
        color = SERIES[number % len(SERIES)]
        axes.plot(
            1e3 * one.distance_m, np.degrees(one.tilt_rad), "o", color=color, markersize=3, alpha=0.8, label=one.stream
        )
    if not advice.enough:
        T_cam_board = solution.T_cell_stream[advice.stream].inverse() @ advice.T_cell_board
        tilt_rad, _, distance_m = board_aspect(T_cam_board, problem.boards[0].points_board.mean(axis=0))
        axes.plot(
            1e3 * distance_m, np.degrees(tilt_rad), "*", color=ORANGE, markersize=12, markeredgecolor=INK, label="next"
        )
    axes.set(xlabel="distance / mm", ylabel="tilt / degrees", title="Distance and tilt so far")
    axes.set_ylim(bottom=-2)
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.grid(visible=True)
    axes.legend(ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
