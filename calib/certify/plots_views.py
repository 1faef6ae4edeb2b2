"""Pictures of what cameras saw of the boards: residuals, and what has been covered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from depthcell.calib.certify.plots import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    SERIES,
    cells_of,
    house_style,
    image_axes,
    panels,
    round_step,
)
from depthcell.errors import DepthcellError

LEAST_IN_CELL = 5
"""Residuals from which a cell's mean is drawn."""
MAGNIFIED = 4.0
"""How much longer means are drawn than single residuals."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamEvidence:
    """What one stream saw of all boards.

    Attributes:
        stream: "depth:<serial>" or "color:<serial>".
        width_px, height_px: of its image.
        pixels: (N, 2) float64, where features were found, (column, row).
        residuals_px: (N, 2) float64, projected minus found.
        sigma_px: (N,) or a number, what the residuals are expected to scatter by.
        inliers: (N,) bool, features that the adjustment believed.
        tilt_rad: (V,) float64, angle between each view's board normal and the line of sight to its middle.
        direction_rad: (V,) float64, in which direction it is tilted, in the image: 0 to the right, pi/2 downwards.
        distance_m: (V,) float64, from camera to the board's middle.
    """

    stream: str
    width_px: int
    height_px: int
    pixels: NDArray[np.float64]
    residuals_px: NDArray[np.float64]
    sigma_px: float
    inliers: NDArray[np.bool_]
    tilt_rad: NDArray[np.float64]
    direction_rad: NDArray[np.float64]
    distance_m: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.pixels)
        if self.pixels.shape != (count, 2) or self.residuals_px.shape != (count, 2) or self.inliers.shape != (count,):
            raise DepthcellError(f"{self.stream}: pixels, residuals and inliers must be of the same features")

    @property
    def rms_px(self) -> float:
        """Root mean square distance of the features believed from where they should be."""
        believed = self.residuals_px[self.inliers]
        return float(np.sqrt((believed**2).sum(axis=1).mean())) if len(believed) else float("nan")


@house_style
def draw_residuals(streams: Sequence[StreamEvidence], columns: int = 2, cells: int = 12) -> Figure:
    """Where features are missed, and in which direction: one by one in grey, mean of each cell in blue, magnified.

    A good calibration leaves grey grass and next to no coloured arrows; those are what the lens model can not follow.
    All panels share one scale.
    """
    figure, grid = panels(_some(streams), columns, 2.25 if len(streams) > 1 else 4.2)
    believed = np.concatenate([np.linalg.norm(one.residuals_px[one.inliers], axis=1) for one in streams])
    typical_px = round_step(max(float(np.quantile(believed, 0.9)), 1e-4)) if len(believed) else 0.1
    for axes, one in zip(grid, streams, strict=True):
        outliers = int((~one.inliers).sum())
        title = f"{one.stream}: rms {one.rms_px:.3f} px, {len(one.pixels)} features, {outliers} outliers"
        image_axes(axes, one.width_px, one.height_px, title)
        _quiver(axes, one, typical_px, cells)
    return figure


def _quiver(axes: Axes, one: StreamEvidence, typical_px: float, cells: int) -> None:
    long_px = one.width_px / 14
    scale: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": typical_px / long_px}
    fine: dict[str, Any] = {**scale, "scale": typical_px / long_px / MAGNIFIED}
    at, off = one.pixels[one.inliers], one.residuals_px[one.inliers]
    axes.quiver(*at.T, *off.T, color=GREY, alpha=0.45, width=0.0014, headwidth=3, headlength=4, **scale)
    axes.plot(*one.pixels[~one.inliers].T, "x", color=ORANGE, markersize=3.5, markeredgewidth=0.8)
    place = cells_of(at, one.width_px, one.height_px, cells)
    number = place[:, 0] * cells + place[:, 1]
    means = [(at[number == n].mean(axis=0), off[number == n].mean(axis=0)) for n in _full(number)]
    if means:
        middle, mean = (np.array(part) for part in zip(*means, strict=True))
        axes.quiver(*middle.T, *mean.T, color=BLUE, width=0.0055, headwidth=3.2, headlength=3.8, minlength=0.1, **fine)
    keys = ((0.72, typical_px, GREY, 0.0025, scale), (0.14, typical_px / MAGNIFIED, BLUE, 0.0055, fine))
    for x, length_px, color, width, scaled in keys:
        arrow = axes.quiver([0], [0], [0], [0], color=color, width=width, headwidth=3.2, headlength=3.8, **scaled)
        text, size = f"{length_px:g} px", {"size": 6.5}
        axes.quiverkey(arrow, x, 0.94, length_px, text, labelpos="E", labelsep=0.06, fontproperties=size)


def _full(number: NDArray[np.int64]) -> NDArray[np.int64]:
    values, counts = np.unique(number, return_counts=True)
    return np.asarray(values[counts >= LEAST_IN_CELL])


@house_style
def draw_coverage(streams: Sequence[StreamEvidence], columns: int = 2, cells: int = 12) -> Figure:
    """How many features were found in each part of each image; white has none, and nothing is known there."""
    figure, grid = panels(_some(streams), columns, 2.1 if len(streams) > 1 else 4.0)
    tables = [coverage(one, cells) for one in streams]
    most = max(10, *(int(table.max(initial=0)) for table in tables))
    drawn = []
    for axes, one, table in zip(grid, streams, tables, strict=True):
        image_axes(axes, one.width_px, one.height_px, f"{one.stream}: {100 * (table > 0).mean():.0f} % of the image")
        edges = (-0.5, one.width_px - 0.5, one.height_px - 0.5, -0.5)
        shown = np.ma.masked_equal(table, 0)
        drawn.append(axes.imshow(shown, extent=edges, cmap="Blues", norm=LogNorm(1, most), aspect="equal"))
        axes.plot(*one.pixels.T, ".", color=INK, markersize=0.7, alpha=0.35)
        axes.set_xlim(edges[:2])
        axes.set_ylim(edges[2:])
    figure.colorbar(drawn[0], ax=grid, label="features in the cell", shrink=0.8, aspect=30)
    return figure


def coverage(one: StreamEvidence, cells: int = 12) -> NDArray[np.int64]:
    """Features that were believed in each cell of a grid over the image, (rows, cells)."""
    rows = max(1, round(one.height_px / (one.width_px / cells)))
    table = np.zeros((rows, cells), np.int64)
    place = cells_of(one.pixels[one.inliers], one.width_px, one.height_px, cells)
    np.add.at(table, (place[:, 0], place[:, 1]), 1)
    return table


@house_style
def draw_poses(streams: Sequence[StreamEvidence]) -> Figure:
    """Which distances and tilts boards were seen at; directions of tilt from the middle, as seen in the image."""
    _some(streams)
    figure, (plane, wheel) = panels(2, 2, 3.0)
    for number, one in enumerate(streams):
        color = SERIES[number % len(SERIES)]
        style: dict[str, Any] = {
            "color": color,
            "markersize": 3.5,
            "alpha": 0.8,
            "markeredgewidth": 0,
            "linestyle": "none",
        }
        tilt = np.degrees(one.tilt_rad)
        plane.plot(1e3 * one.distance_m, tilt, marker="o", label=f"{one.stream} ({len(tilt)})", **style)
        wheel.plot(tilt * np.cos(one.direction_rad), tilt * np.sin(one.direction_rad), marker="o", **style)
    plane.set(xlabel="distance / mm", ylabel="tilt / degrees", title="Distance and tilt of each view")
    plane.set_ylim(bottom=0)
    plane.grid(visible=True)
    plane.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    _rings(wheel, max(45.0, *(np.degrees(one.tilt_rad).max(initial=0.0) for one in streams)))
    return figure


def _rings(axes: Axes, widest_deg: float) -> None:
    turn, limit = np.linspace(0, 2 * np.pi, 181), 1.22 * widest_deg
    for ring in np.arange(15, widest_deg + 1e-9, 15):
        axes.plot(ring * np.cos(turn), ring * np.sin(turn), color=PALE, linewidth=0.7, zorder=0)
        axes.annotate(f"{ring:.0f}°", (0.7071 * ring, 0.7071 * ring), color=GREY, fontsize=6.5, zorder=0)
    axes.set_aspect("equal")
    axes.set_xlim(-limit, limit)
    axes.set_ylim(limit, -limit)
    axes.set(xticks=[], yticks=[], title="Direction of tilt, as the camera sees it")
    end = 0.93 * limit
    for name, at in (("left", (-end, 0)), ("right", (end, 0)), ("up", (0, -end)), ("down", (0, end))):
        axes.annotate(name, at, color=GREY, ha="center", va="center", rotation=0 if at[0] == 0 else 90)


@house_style
def draw_normalised(normalised: NDArray[np.float64], what: str = "residual / its standard uncertainty") -> Figure:
    """Histogram of residuals over what they were expected to scatter by, beside the normal distribution.

    Args:
        normalised: (N,) numbers that should be standard normal.
        what: title of the axis.
    """
    values = np.asarray(normalised, np.float64).ravel()
    if not len(values):
        raise DepthcellError("histogram: there is no residual to draw")
    figure, (axes,) = panels(1, 1, 2.6)
    edges = np.linspace(-5, 5, 51)
    counts, _ = np.histogram(np.clip(values, -5, 5), edges)
    middles, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    axes.bar(middles, counts / (len(values) * width), width=0.92 * width, color=BLUE, alpha=0.75, label="found")
    x = np.linspace(-5, 5, 401)
    normal = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    axes.plot(x, normal, color=ORANGE, linewidth=1.4, label="normal distribution")
    inside = float((np.abs(values) <= 1.96).mean())
    axes.set(xlabel=what, ylabel="density", yscale="log", ylim=(1e-4, 1.0), xlim=(-5, 5))
    share = f"within ±1.96: {100 * inside:.1f} % (95 % expected)"
    axes.set_title(f"{len(values)} values, standard deviation {values.std():.3f}; {share}")
    axes.grid(visible=True, axis="y")
    axes.legend(loc="upper right")
    return figure


def _some(streams: Sequence[StreamEvidence]) -> int:
    if not streams:
        raise DepthcellError("picture: there is no stream to draw")
    return len(streams)
