"""Pictures of what a calibration is worth: uncertainty in the work volume, depth bias, difference of two halves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from depthcell.calib.certify.plots import BLUE, GREY, ORANGE, WIDTH_IN, house_style, image_axes, panels
from depthcell.calib.certify.uncertaintymap import UncertaintyMap
from depthcell.errors import DepthcellError

MAP_COLORS = "viridis"


@dataclass(frozen=True, slots=True, eq=False)
class DepthBias:
    """How wrong one camera's depth is on faces of boards, before and after correction.

    Attributes:
        serial: the camera's.
        distance_m: (M,) float64, true z depth of each tile.
        before_mm, after_mm: (M,) float64, depth as read, and corrected, less the truth.
    """

    serial: str
    distance_m: NDArray[np.float64]
    before_mm: NDArray[np.float64]
    after_mm: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DifferenceMap:
    """Difference of two calibrations over one image.

    Attributes:
        stream: whose.
        width_px, height_px: of its image.
        difference: (rows, columns) float64, on an even grid over the image, corners included; NaN where unknown.
        unit: of it.
    """

    stream: str
    width_px: int
    height_px: int
    difference: NDArray[np.float64]
    unit: str


@house_style
def draw_uncertainty(found: UncertaintyMap) -> Figure:
    """Largest standard uncertainty of a point on each height of the map, mm; grey is seen by no camera."""
    heights_m, slices_mm = found.slices_mm()
    if not np.isfinite(slices_mm).any():
        raise DepthcellError("uncertainty map: no camera sees any of the work volume")
    across, down = (found.volume.high_m - found.volume.low_m)[:2]
    width_in = WIDTH_IN / min(3, len(heights_m)) - 0.75
    figure, grid = panels(len(heights_m), 3, min(0.75 + width_in * float(down / across), 4.5))
    low, high = _limits(slices_mm)
    extent_mm = 1e3 * np.array(
        [found.volume.low_m[0], found.volume.high_m[0], found.volume.low_m[1], found.volume.high_m[1]]
    )
    drawn = []
    for axes, height_m, table in zip(grid, heights_m, slices_mm, strict=True):
        axes.set_facecolor("#c9ced6")
        image = axes.imshow(
            np.ma.masked_invalid(table),
            extent=tuple(extent_mm.tolist()),
            origin="lower",
            cmap=MAP_COLORS,
            vmin=low,
            vmax=high,
            interpolation="nearest",
        )
        drawn.append(image)
        _contours(axes, table, extent_mm, low, high)
        axes.set(title=f"z = {1e3 * height_m:.0f} mm".replace("-", "−"), xlabel="x / mm", ylabel="y / mm")
    figure.colorbar(drawn[0], ax=grid, label="standard uncertainty / mm", shrink=0.85)
    return figure


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 1e-3 * max(abs(high), 1e-9)
    return low - margin, high + margin


def _contours(axes: Any, table: NDArray[np.float64], extent: NDArray[np.float64], low: float, high: float) -> None:
    if min(table.shape) < 2 or high - low < 0.02 * high:
        return
    y = np.linspace(extent[2], extent[3], table.shape[0])
    x = np.linspace(extent[0], extent[1], table.shape[1])
    levels = np.linspace(low, high, 9)[1:-1]
    lines = axes.contour(x, y, np.ma.masked_invalid(table), levels=levels, colors="white", linewidths=0.7)
    axes.clabel(lines, fmt="%.2g", fontsize=6)


@house_style
def draw_depth_bias(cameras: Sequence[DepthBias]) -> Figure:
    """Error of depth against distance, as read (above) and corrected (below), each camera in a column.

    Dots are tiles of boards, lines the median of each of eight ranges of distance.
    """
    if not cameras:
        raise DepthcellError("picture: there is no camera with depth to draw")
    figure, grid = panels(2 * len(cameras), len(cameras), 2.0)
    for column, one in enumerate(cameras):
        rows = (("as read", one.before_mm, ORANGE), ("corrected", one.after_mm, BLUE))
        for row, (title, error_mm, color) in enumerate(rows):
            axes = grid[row * len(cameras) + column]
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.plot(1e3 * one.distance_m, error_mm, ".", color=color, markersize=2, alpha=0.35, markeredgewidth=0)
            axes.plot(*_medians(1e3 * one.distance_m, error_mm), color=color, linewidth=1.6)
            middle = float(np.median(np.abs(error_mm)))
            axes.set_title(f"{one.serial} {title}\nmedian |error| {middle:.2g} mm", fontsize=7.5)
            axes.grid(visible=True)
            axes.set_xlabel("distance / mm" if row else "")
            axes.set_ylabel("" if column else "error / mm")
    _share_scales(grid, len(cameras))
    return figure


def _share_scales(grid: list[Any], columns: int) -> None:
    """Each row has one scale of its own, so that cameras compare; what was corrected would else be a flat line."""
    for row in (grid[:columns], grid[columns:]):
        limit = max(max(abs(end) for end in axes.get_ylim()) for axes in row)
        for axes in row:
            axes.set_ylim(-limit, limit)


def _medians(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    parts = np.array_split(np.argsort(x, kind="stable"), min(8, max(1, len(x) // 5)))
    return (np.array([np.median(x[part]) for part in parts]), np.array([np.median(y[part]) for part in parts]))


@house_style
def draw_differences(maps: Sequence[DifferenceMap]) -> Figure:
    """Difference of two calibrations over each image, all on one scale."""
    if not maps:
        raise DepthcellError("picture: there is no difference to draw")
    figure, grid = panels(len(maps), 2, 2.15 if len(maps) > 1 else 4.0)
    low, high = _limits(np.concatenate([one.difference.ravel() for one in maps]))
    drawn = []
    for axes, one in zip(grid, maps, strict=True):
        worst = float(np.nanmax(one.difference))
        title = f"{one.stream}: median {np.nanmedian(one.difference):.2g}, worst {worst:.2g} {one.unit}"
        extent = np.array([0.0, one.width_px - 1, 0.0, one.height_px - 1])
        image = axes.imshow(
            one.difference,
            extent=(0, one.width_px - 1, one.height_px - 1, 0),
            cmap=MAP_COLORS,
            vmin=min(low, 0.0),
            vmax=high,
            interpolation="bilinear",
        )
        drawn.append(image)
        _contours(axes, one.difference, extent, low, high)
        image_axes(axes, one.width_px, one.height_px, title)
    figure.colorbar(drawn[0], ax=grid, label=f"difference / {maps[0].unit}", shrink=0.85)
    return figure
