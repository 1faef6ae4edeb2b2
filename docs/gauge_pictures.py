"""Pictures of docs/gauges.md: each gauge of the page's recipe, measured on a part of known geometry, and drawn.

Run `.venv/bin/python docs/gauge_pictures.py [OUT]`; without OUT into docs/pictures.
"""

import io
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: small matrices only lose by more threads

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gauge_parts import Shown, measured, page_recipe
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from depthcell.calib.certify.plots import BLUE, GREY, INK, ORANGE, house_style, png_of
from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere, across
from depthcell.fusion.scan import Scan
from depthcell.inspect.featuresections import PlaneFeature
from depthcell.inspect.gauges.extraction import extract
from depthcell.inspect.gauges.reading import PEOPLES_FACTOR, PEOPLES_UNIT, Drawn
from depthcell.inspect.measurement_colors import deviation_rgb, palette

DPI = 100
COLORS = 255
LARGEST_BYTES = 60_000
"""A picture of the documentation is no larger."""
PREFIX = "gauge_"
REST, OTHER = "#b4bec8", "#5aa173"
RING = np.linspace(0, 2 * np.pi, 61)
UNITS = {"mm3": "mm³", "deg": "°"}
CHARTS = {
    **dict.fromkeys(("diameter", "cylindricity", "runout"), "turn"),
    **dict.fromkeys(("flatness", "straightness", "parallelism", "angularity", "volume"), "x"),
    **dict.fromkeys(("profile_surface", "profile_line"), "x"),
    "perpendicularity": "y",
}
"""Over what the second panel shows the deviation, where it shows one."""
CLOSE = {
    "thickness": ("x", (-1.0, 5.0)),
    "gap": ("x", (-3.5, 1.5)),
    "flush": ("x", (-0.5, 0.9)),
    "seam": ("y", (-0.3, 1.9)),
}
"""Sections: what runs to the right, and from where to where they are shown, millimetres."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Where a picture is looked at from: unit vectors (3,) to the right, up, and towards the eye."""

    right: NDArray[np.float64]
    up: NDArray[np.float64]
    eye: NDArray[np.float64]

    @classmethod
    def from_angles(cls, turn_deg: float, lift_deg: float) -> "View":
        """From the side that x is turned to, and from above."""
        turn, lift = np.radians((turn_deg, lift_deg))
        eye = np.array([np.cos(lift) * np.cos(turn), np.cos(lift) * np.sin(turn), np.sin(lift)])
        right = np.array([-np.sin(turn), np.cos(turn), 0.0])
        return cls(right, np.cross(eye, right), eye)

    def __call__(self, points_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 2) millimetres of points (..., 3)."""
        return 1e3 * np.stack((points_m @ self.right, points_m @ self.up), axis=-1)


OBLIQUE, OTHER_SIDE = View.from_angles(-65, 38), View.from_angles(-120, 38)
ABOVE = View(np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]))


def draw_gauges(out: Path) -> list[Path]:
    """Measure every gauge of the page and draw it into `out`.

    Raises:
        DepthcellError: a part does not show its gauge.
        ValueError: a picture came out too large.
    """
    shown = measured(page_recipe())
    figures: dict[str, Figure] = {one.section.kind: draw_gauge(one) for one in shown}
    figures["feature"] = draw_extraction(next(one for one in shown if one.section.kind == "volume").scan)
    return [_written(out / f"{PREFIX}{kind}.png", figure) for kind, figure in figures.items()]


@house_style
def draw_gauge(shown: Shown) -> Figure:
    """The whole part with what was measured on the left; what the value is made of on the right."""
    figure = Figure(figsize=(6.4, 2.5), layout="constrained", facecolor="white")
    whole, detail = figure.subplots(1, 2, width_ratios=[1.15, 1.0])
    view = OTHER_SIDE if shown.section.kind in {"distance", "perpendicularity"} else OBLIQUE
    _draw_part(whole, shown, view)
    kind = shown.section.kind
    if kind in CHARTS:
        _draw_chart(detail, shown, CHARTS[kind])
    elif kind in CLOSE:
        _draw_close(detail, shown, *CLOSE[kind])
    elif kind == "roundness":
        _draw_ring(detail, shown)
    elif kind == "position":
        _draw_offset(detail, shown)
    else:
        _draw_part(detail, shown, ABOVE if kind in {"distance", "coordinate"} else View.from_angles(0, 0))
    if kind == "coordinate":
        _draw_coordinate(detail, shown)
    figure.suptitle(_said(shown), fontsize=8.5)
    return figure


def _draw_coordinate(axes: Axes, shown: Shown) -> None:
    """From the plane x = 0 to the feature, seen from above."""
    (_, y), x = _middle_mm(shown), shown.reading.value * 1e3
    axes.axvline(0, color=ORANGE, linewidth=0.8)
    axes.text(1.5, -30, "x = 0", va="top", color=ORANGE)
    axes.plot([0, x], [y, y], color=ORANGE, linewidth=2.0, marker="o", markersize=3.0)


def _middle_mm(shown: Shown) -> tuple[float, float]:
    """Place (x, y) of the first feature's points."""
    x, y, _ = 1e3 * shown.scan.points_part[shown.reading.drawn[0].points].mean(axis=0)
    return float(x), float(y)


def _said(shown: Shown) -> str:
    factor = PEOPLES_FACTOR[shown.reading.quantity]
    people = PEOPLES_UNIT[shown.reading.quantity]
    unit = UNITS.get(people, people)
    value, expanded, true = (factor * number for number in (shown.reading.value, 2 * shown.u, shown.true))
    digits = int(np.clip(1 - np.floor(np.log10(expanded)), 0, 3))
    said = f"{value:.{digits}f} ± {expanded:.{digits}f} {unit}   (without noise {true:.{digits}f} {unit})"
    return f"{shown.section.name}: {said.replace('-', '−').replace(' °', '°')}"


def _reach_m(shown: Shown) -> float:
    """To where the colours go."""
    lifts = [np.abs(one.lift_m) for one in shown.reading.drawn[:1] if one.lift_m is not None and len(one.lift_m)]
    return float(np.quantile(np.concatenate(lifts), 0.99)) if lifts else 0.0


def _draw_part(axes: Axes, shown: Shown, view: View) -> None:
    """All points pale, those that count in the colours of their deviation, elements, and the stretch measured."""
    points, reach_m = shown.scan.points_part, _reach_m(shown)
    used = np.unique(np.concatenate([one.points for one in shown.reading.drawn])).astype(np.intp)
    rest = np.setdiff1d(np.arange(len(points)), used)
    _scatter(axes, view, points[rest], REST, 0.9, facing=shown.scan.normals_part[rest])
    for one in shown.reading.drawn:
        lifted = one.lift_m is not None and len(one.lift_m) > 0 and one is shown.reading.drawn[0]
        color = deviation_rgb(one.lift_m, reach_m) / 255 if lifted else OTHER  # type: ignore[arg-type]
        _scatter(axes, view, points[one.points], color, 1.6, facing=shown.scan.normals_part[one.points])
        _draw_element(axes, view, one, points)
        _draw_pieces(axes, view, one)
    axes.set_aspect("equal")
    axes.set_axis_off()
    if reach_m > 0 and view in (OBLIQUE, OTHER_SIDE):
        _draw_scale(axes, reach_m)


def _scatter(
    axes: Axes,
    view: View,
    points: NDArray[np.float64],
    color: str | NDArray[np.float64],
    size: float,
    facing: NDArray[np.float64],
) -> None:
    """Far points first; of those that look away only a hint."""
    order = np.argsort(points @ view.eye)
    place = view(points)[order]
    seen = (facing @ view.eye > 0.05)[order]
    colors = np.asarray(color)[order] if isinstance(color, np.ndarray) else color
    for chosen, alpha in ((~seen, 0.25), (seen, 1.0)):
        if chosen.any():
            own = colors[chosen] if isinstance(colors, np.ndarray) else colors
            axes.scatter(place[chosen, 0], place[chosen, 1], s=size, c=own, alpha=alpha, linewidths=0)


def _draw_element(axes: Axes, view: View, drawn: Drawn, points: NDArray[np.float64]) -> None:
    """Its outline about its points, dark; an axis as a chain line."""
    if drawn.element is None:
        return
    for line, dashed in _outlines(drawn.element, points[drawn.points], view):
        style = (0, (8, 2, 1, 2)) if dashed else "solid"
        axes.plot(*view(line).T, color=INK, linewidth=0.8, linestyle=style)


def _outlines(element: Element, at: NDArray[np.float64], view: View) -> list[tuple[NDArray[np.float64], bool]]:
    match element:
        case Plane(point, normal):
            u, v = across(normal)
            a, b = (at - point) @ u, (at - point) @ v
            corners = [(a.min(), b.min()), (a.max(), b.min()), (a.max(), b.max()), (a.min(), b.max())]
            return [(np.array([point + x * u + y * v for x, y in [*corners, corners[0]]]), False)]
        case Cylinder(point, axis, radius_m):
            height = (at - point) @ axis
            low, high = float(height.min()), float(height.max())
            rings = [(_ring(point + h * axis, axis, radius_m), False) for h in (low, high)]
            ends = np.array([point + h * axis for h in (low - 0.006, high + 0.006)])
            return [*rings, (ends, True)]
        case Circle(centre, axis, radius_m):
            return [(_ring(centre, axis, radius_m), False)]
        case Sphere(centre, radius_m):
            return [(_ring(centre, view.eye, radius_m), False)]
        case Line(point, direction):
            along = (at - point) @ direction if len(at) else np.array([-0.01, 0.01])
            return [(np.array([point + h * direction for h in (along.min(), along.max())]), len(at) == 0)]


def _ring(centre: NDArray[np.float64], axis: NDArray[np.float64], radius_m: float) -> NDArray[np.float64]:
    u, v = across(axis)
    return centre + radius_m * (np.cos(RING)[:, None] * u + np.sin(RING)[:, None] * v)


def _draw_pieces(axes: Axes, view: View, drawn: Drawn) -> None:
    if drawn.segment_part is not None:
        axes.plot(*view(drawn.segment_part).T, color=ORANGE, linewidth=2.0, marker="o", markersize=3.0, zorder=5)
    for piece in drawn.curve_part if drawn.curve_part is not None else ():
        axes.plot(*view(piece).T, color=ORANGE, linewidth=1.2, marker="o", markersize=2.0, zorder=5)


def _draw_scale(axes: Axes, reach_m: float) -> None:
    bar = axes.inset_axes((0.02, -0.06, 0.28, 0.035))
    bar.imshow(palette()[None], aspect="auto", extent=(-1, 1, 0, 1))
    bar.set(yticks=[], xticks=[-1, 1], xticklabels=[f"−{reach_m * 1e3:.2f}", f"+{reach_m * 1e3:.2f} mm"])
    bar.tick_params(length=0, pad=1.5)


def _draw_chart(axes: Axes, shown: Shown, over: str) -> None:
    """Deviation of the points over a place, and the zone or the largest deviation that the value states."""
    drawn, value_mm = shown.reading.drawn[0], shown.reading.value * 1e3
    lift_mm = np.asarray(drawn.lift_m) * 1e3
    place, label = _place(shown, drawn, over)
    reach_m = _reach_m(shown)
    axes.scatter(place, lift_mm, s=2.0, c=deviation_rgb(lift_mm / 1e3, reach_m) / 255, linewidths=0)
    axes.set_xlabel(label)
    axes.set_ylabel("deviation / mm")
    if shown.section.kind in {"volume", "diameter"}:
        return
    middle = 0.0 if shown.section.kind.startswith("profile") else float(np.quantile(lift_mm, [0.01, 0.99]).mean())
    for border in (middle - value_mm / 2, middle + value_mm / 2):
        axes.axhline(border, color=ORANGE, linewidth=1.2)
    axes.annotate(f"{value_mm:.3f} mm", (0.02, middle + value_mm / 2), xycoords=("axes fraction", "data"),
                  xytext=(0, 2), textcoords="offset points", color=ORANGE,
                  bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})  # fmt: skip
    axes.margins(y=0.18)


def _place(shown: Shown, drawn: Drawn, over: str) -> tuple[NDArray[np.float64], str]:
    points = shown.scan.points_part[drawn.points]
    if over != "turn":
        return points[:, "xyz".index(over)] * 1e3, f"{over} / mm"
    middle = drawn.element.point if isinstance(drawn.element, Cylinder) else points.mean(axis=0)
    apart = points - middle
    return np.degrees(np.arctan2(apart[:, 1], apart[:, 0])), "turn about the axis / degrees"


def _draw_ring(axes: Axes, shown: Shown) -> None:
    """A ring seen along its axis, its deviation drawn large, between two circles as far apart as the value."""
    drawn, value_m = shown.reading.drawn[0], shown.reading.value
    ring = drawn.element
    if not isinstance(ring, Circle) or drawn.lift_m is None:
        raise TypeError("roundness: its first picture is not of a circle")
    large = 0.25 * ring.radius_m / value_m
    apart = shown.scan.points_part[drawn.points] - ring.centre
    away = ring.radius_m + large * drawn.lift_m
    turn = np.arctan2(apart[:, 1], apart[:, 0])
    colors = deviation_rgb(drawn.lift_m, _reach_m(shown)) / 255
    axes.scatter(1e3 * away * np.cos(turn), 1e3 * away * np.sin(turn), s=2.0, c=colors, linewidths=0)
    for border in (-0.5, 0.5):
        radius_mm = 1e3 * (ring.radius_m + border * large * value_m)
        axes.plot(radius_mm * np.cos(RING), radius_mm * np.sin(RING), color=ORANGE, linewidth=1.2)
    axes.text(0, 0, f"{value_m * 1e3:.3f} mm\ndrawn {large:.0f} ×", ha="center", va="center", color=ORANGE)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _draw_offset(axes: Axes, shown: Shown) -> None:
    """Where an axis belongs, where it was found, and the zone as wide as the value."""
    segment = next(one.segment_part for one in shown.reading.drawn if one.segment_part is not None)
    (x, y), found = 1e3 * segment[0, :2], 1e3 * segment[1, :2]
    radius_mm = shown.reading.value * 5e2
    axes.plot(x + radius_mm * np.cos(RING), y + radius_mm * np.sin(RING), color=ORANGE, linewidth=1.2)
    axes.plot([x, found[0]], [y, found[1]], color=ORANGE, linewidth=1.2)
    axes.plot(x, y, marker="+", color=INK, markersize=12)
    axes.plot(*found, marker="o", color=BLUE, markersize=4)
    axes.annotate("belongs", (x, y), xytext=(-6, -10), textcoords="offset points", ha="right")
    axes.annotate("found", (found[0], found[1]), xytext=(6, -3), textcoords="offset points", color=BLUE)
    axes.text(x, y + 1.06 * radius_mm, f"⌀ {2 * radius_mm:.3f} mm", ha="center", va="bottom", color=ORANGE)
    axes.set(xlabel="x / mm", ylabel="y / mm", aspect="equal")
    axes.ticklabel_format(useOffset=False)
    axes.margins(0.25)


def _draw_close(axes: Axes, shown: Shown, right: str, heights_mm: tuple[float, float]) -> None:
    """A section 2 mm thick through the middle of the part, drawn higher than it is."""
    other = "y" if right == "x" else "x"
    view = View(np.eye(3)["xyz".index(right)], np.array([0, 0, 1.0]), np.eye(3)["xyz".index(other)])
    points = shown.scan.points_part
    near = np.abs(points[:, "xyz".index(other)]) < 1e-3
    used = np.unique(np.concatenate([one.points for one in shown.reading.drawn])).astype(np.intp)
    counts = np.isin(np.arange(len(points)), used)
    for chosen, color in ((near & ~counts, GREY), (near & counts, BLUE)):
        place = view(points[chosen])
        axes.scatter(place[:, 0], place[:, 1], s=3.0, c=color, linewidths=0)
    for one in shown.reading.drawn:
        if one.segment_part is not None:
            _draw_pieces(axes, view, one)
        elif one.curve_part is not None and len(one.curve_part):
            piece = one.curve_part[len(one.curve_part) // 2]
            axes.plot(*view(piece).T, color=ORANGE, linewidth=1.2, marker="o", markersize=3.0)
        if isinstance(one.element, Plane):
            _draw_element(axes, view, one, points)
    axes.set(xlabel=f"{right} / mm", ylabel="z / mm", ylim=heights_mm)


@house_style
def draw_extraction(scan: Scan) -> Figure:
    """Which points of the block a feature takes: in its box, and not beside an edge."""
    low, high = (-22.0, -26.0, 8.0), (34.0, 14.0, 12.0)
    every, kept = (
        extract(PlaneFeature(kind="plane", name="top", normal=(0, 0, 1), min_mm=low, max_mm=high, edge_mm=edge), scan)
        for edge in (0.0, 3.0)
    )
    figure = Figure(figsize=(6.4, 2.5), layout="constrained", facecolor="white")
    points, normals = scan.points_part, scan.normals_part
    rest, edge = np.setdiff1d(np.arange(len(points)), every), np.setdiff1d(every, kept)
    panels = figure.subplots(1, 2)
    for axes, view in zip(panels, (OBLIQUE, ABOVE), strict=True):
        for chosen, color, label in ((rest, REST, "outside"), (edge, ORANGE, "beside an edge"), (kept, BLUE, "taken")):
            _scatter(axes, view, points[chosen], color, 0.9, facing=normals[chosen])
            axes.plot([], [], marker="o", linestyle="none", markersize=3, color=color, label=label)
        for line in _box(low, high):
            axes.plot(*view(line).T, color=INK, linewidth=0.8)
        axes.set_aspect("equal")
        axes.set_axis_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _box(low: tuple[float, ...], high: tuple[float, ...]) -> list[NDArray[np.float64]]:
    """The twelve edges of a box given in millimetres, (2, 3) metres each."""
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    pairs = [(i, j) for i in range(8) for j in range(i + 1, 8) if np.count_nonzero(corners[i] != corners[j]) == 1]
    return [corners[[i, j]] / 1e3 for i, j in pairs]


def _written(path: Path, figure: Figure) -> Path:
    """As a PNG of `COLORS` colours."""
    image = Image.open(io.BytesIO(png_of(figure, DPI))).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    if stream.tell() > LARGEST_BYTES:
        raise ValueError(f"{path}: {stream.tell()} bytes, more than {LARGEST_BYTES}; draw less in it")
    path.write_bytes(stream.getvalue())
    return path


def main() -> None:
    """Draw the pictures of the page."""
    for path in draw_gauges(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "pictures"):
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
