"""How pictures of a calibration look, and how they become files: the same bytes for the same numbers."""

import io
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context
from numpy.typing import NDArray

WIDTH_IN = 7.0
"""Of a picture that fills an A4 page between its margins."""
BLUE, ORANGE, GREEN, INK, GREY, PALE = "#0b4f8a", "#c8500a", "#14692f", "#1d2733", "#7b8794", "#d9dee5"
SERIES = (BLUE, ORANGE, GREEN, "#7a3e9d", "#00798c", "#8c6d00", "#b0305c", "#4d5d6c")
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "depthcell",
}


P = ParamSpec("P")


def house_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorates a function that draws a figure: fonts, sizes and colours are those of `STYLE` while it draws."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with context(STYLE):
            return draw(*args, **kwargs)

    return styled


def panels(count: int, columns: int, panel_height_in: float) -> tuple[Figure, list[Axes]]:
    """A figure of page width with `count` panels, so many in a row."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH_IN, rows * panel_height_in), layout="constrained", facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def png_of(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as the bytes of a PNG file, without time or program name in them."""
    stream = io.BytesIO()
    with context(STYLE):
        figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def image_axes(axes: Axes, width_px: int, height_px: int, title: str) -> None:
    """Axes that show an image's area: pixels of one size, row 0 on top."""
    axes.set_xlim(-0.5, width_px - 0.5)
    axes.set_ylim(height_px - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_title(title)
    axes.set_xlabel("column / px")
    axes.set_ylabel("row / px")


def cells_of(pixels: NDArray[np.float64], width_px: int, height_px: int, columns: int) -> NDArray[np.int64]:
    """Which cell of a grid over the image each pixel (N, 2) is in, (N, 2) as (row, column); `columns` across."""
    size_px = width_px / columns
    rows = max(1, round(height_px / size_px))
    column = np.clip((pixels[:, 0] + 0.5) / size_px, 0, columns - 1)
    row = np.clip((pixels[:, 1] + 0.5) / (height_px / rows), 0, rows - 1)
    return np.stack((row, column), axis=1).astype(np.int64)


def round_step(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `value`."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)) * power)
