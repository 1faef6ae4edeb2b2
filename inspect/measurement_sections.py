"""Cross sections of a measured part: the nominal outline, and the measured points moved off it by their deviation.

Deviations are magnified, and the picture says how much.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial import KDTree

from depthcell.calib.certify.plots import GREY, INK, house_style, png_of
from depthcell.fusion.reference import Reference
from depthcell.inspect.measurement import MeasuredPart
from depthcell.inspect.measurement_colors import deviation_rgb
from depthcell.inspect.measurement_map import draw_colorbar, surface_colors

MAGNIFICATIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
SHOWN_SHARE = 0.08
"""The tolerance, magnified, is drawn at most this share of the section's larger side."""
SMOOTHED_POINTS = 12
AXES = "xyz"


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """What lies in one plane across the part.

    Attributes:
        axis: which coordinate the plane holds: 0 for x, 1 for y, 2 for z.
        at_m: that coordinate.
        outline: (S, 2, 2) metres, pieces of the nominal outline in the two other coordinates.
        foot: (M, 2) metres, places of the outline that measured points belong to.
        outward: (M, 2) direction out of the material there.
        deviation_m: (M,) of those points.
    """

    axis: int
    at_m: float
    outline: NDArray[np.float64]
    foot: NDArray[np.float64]
    outward: NDArray[np.float64]
    deviation_m: NDArray[np.float64]


def sections_picture(part: MeasuredPart, tolerance_mm: float) -> bytes:
    """Two sections through the place that is furthest off, as the bytes of a PNG file.

    Raises:
        DepthcellError: the part has no reference, or no point of it has a deviation.
    """
    sections = sections_of(part)
    return png_of(_draw(sections, tolerance_mm), dpi=160)


def sections_of(part: MeasuredPart) -> tuple[Section, ...]:
    """The sections across the part's two longest sides, through the place whose mean deviation is largest.

    Raises:
        DepthcellError: see `sections_picture`.
    """
    reference, colors = surface_colors(part)
    points = np.empty((0, 3)) if part.scan is None else part.scan.points_part[part.seen]
    place = worst_place(points, colors.deviation_m)
    low, high = reference.bounds_part
    longest = np.argsort(-(high - low))[:2]
    distance_m, outward = reference.signed_distance_and_gradient(points)
    feet = points - distance_m[:, None] * outward
    return tuple(
        _section(reference, int(axis), float(place[axis]), (feet, outward, colors.deviation_m), colors.reach_m)
        for axis in sorted(longest)
    )


def worst_place(points: NDArray[np.float64], deviation_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) the point around which the mean of `SMOOTHED_POINTS` deviations is furthest from zero."""
    near = KDTree(points).query(points, k=min(SMOOTHED_POINTS, len(points)))[1].reshape(len(points), -1)
    place: NDArray[np.float64] = points[int(np.argmax(np.abs(deviation_m[near].mean(axis=1))))]
    return place


def outline(reference: Reference, axis: int, at_m: float) -> NDArray[np.float64]:
    """(S, 2, 2) pieces in which the plane cuts the triangles, in the two other coordinates, metres."""
    corners = reference.vertices_part[reference.triangles]
    above = corners[:, :, axis] - at_m > 0
    cut = corners[above.any(axis=1) & ~above.all(axis=1)]
    other = [index for index in range(3) if index != axis]
    pieces = np.empty((len(cut), 2, 2))
    for number, corner in enumerate(cut):
        height = corner[:, axis] - at_m
        lone = int(np.flatnonzero((height > 0) == (np.count_nonzero(height > 0) == 1))[0])
        for end, second in enumerate(index for index in range(3) if index != lone):
            share = height[lone] / (height[lone] - height[second])
            pieces[number, end] = (corner[lone] + share * (corner[second] - corner[lone]))[other]
    return pieces


def magnification(section: Section, tolerance_mm: float) -> int:
    """How many times deviations are drawn larger than they are."""
    span_m = float(np.ptp(section.outline.reshape(-1, 2), axis=0).max()) if len(section.outline) else 1.0
    wanted = SHOWN_SHARE * span_m / (tolerance_mm / 1e3)
    return max((step for step in MAGNIFICATIONS if step <= wanted), default=1)


def _section(
    reference: Reference,
    axis: int,
    at_m: float,
    measured: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    reach_m: float,
) -> Section:
    feet, outward, deviation_m = measured
    low, high = (float(bound[axis]) for bound in reference.bounds_part)
    inside = float(np.clip(at_m, low + 1e-6, high - 1e-6))
    # A plane that goes exactly through vertices cuts no triangle cleanly: a nanometre beside it does.
    plane_m = inside + 1e-9
    flat = np.abs(outward[:, axis]) < 0.7
    chosen = np.flatnonzero((np.abs(feet[:, axis] - plane_m) < reach_m / 2) & flat)
    other = [index for index in range(3) if index != axis]
    return Section(
        axis,
        plane_m,
        outline(reference, axis, plane_m),
        feet[chosen][:, other],
        outward[chosen][:, other],
        deviation_m[chosen],
    )


@house_style
def _draw(sections: tuple[Section, ...], tolerance_mm: float) -> Figure:
    figure = Figure(figsize=(7.0, 2.3 * len(sections) + 0.4), layout="constrained", facecolor="white")
    grid = list(np.ravel(figure.subplots(len(sections), 1, squeeze=False)))
    for axes, section in zip(grid, sections, strict=True):
        _draw_section(axes, section, tolerance_mm)
    draw_colorbar(figure, grid, tolerance_mm)
    return figure


def _draw_section(axes: Axes, section: Section, tolerance_mm: float) -> None:
    times = magnification(section, tolerance_mm)
    feet_mm = 1e3 * section.foot
    moved_mm = feet_mm + 1e3 * times * section.deviation_m[:, None] * section.outward
    colors = deviation_rgb(1e3 * section.deviation_m, tolerance_mm) / 255.0
    axes.add_collection(LineCollection(list(1e3 * section.outline), colors=INK, linewidths=0.8, zorder=2))
    steps = list(np.stack((feet_mm, moved_mm), axis=1))
    axes.add_collection(LineCollection(steps, colors=[tuple(color) for color in colors], linewidths=0.6, zorder=1))
    x, y = moved_mm.T
    axes.scatter(x, y, s=5, c=colors, edgecolors=GREY, linewidths=0.2, zorder=3)
    across, up = (AXES[index] for index in range(3) if index != section.axis)
    place = f"section {AXES[section.axis]} = {1e3 * section.at_m:.1f} mm".replace("-", "−")
    axes.set_title(f"{place}: {len(feet_mm)} points, deviations drawn {times} times as large")
    axes.set_xlabel(f"{across} / mm")
    axes.set_ylabel(f"{up} / mm")
    axes.set_aspect("equal", adjustable="datalim")
    axes.autoscale_view()
