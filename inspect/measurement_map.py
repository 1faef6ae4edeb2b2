"""The part in colours of its deviation, as a picture: its nominal surface from several sides, grey where unmeasured.

A pixel shows the mean deviation of the measured points around the place of the surface that it looks at, of those that
look the same way. The picture serves the eye; nothing is measured in it.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial import KDTree

from depthcell.acquisition.sdk import open3d
from depthcell.calib.certify.plots import house_style, png_of
from depthcell.errors import DepthcellError
from depthcell.fusion.reference import Reference
from depthcell.inspect.measurement import MeasuredPart
from depthcell.inspect.measurement_colors import UNMEASURED_RGB, deviation_rgb, palette

WIDTH_PX, HEIGHT_PX = 460, 330
NEIGHBOURS = 6
MIN_REACH_M = 3e-4
SAME_WAY = 0.5
"""Cosine between the normals of a point and of the place that it may colour."""
AMBIENT = 0.78
BACKGROUND = 255
MARGIN = 1.08
OBLIQUE = ((1, -1.4, 1.0), (-1, 1.4, 1.0))
ALONG = {"from +z": (0, 0, 1), "from −z": (0, 0, -1), "from +x": (1, 0, 0), "from −x": (-1, 0, 0),
         "from +y": (0, 1, 0), "from −y": (0, -1, 0)}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceColors:
    """Deviation over the nominal surface.

    Attributes:
        tree: of the places that measured points belong to: the points less their deviation, frame "part".
        normals_part: (M, 3) the points' normals.
        deviation_m: (M,) their deviations.
        reach_m: a place farther from every point was not measured.
    """

    tree: KDTree
    normals_part: NDArray[np.float64]
    deviation_m: NDArray[np.float64]
    reach_m: float

    def at(self, places: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
        """(P,) mean deviation around places (P, 3) whose surface looks along normals (P, 3); NaN where none."""
        count = len(self.deviation_m)
        distance_m, index = self.tree.query(places, k=NEIGHBOURS, distance_upper_bound=self.reach_m)
        near = np.minimum(index, count - 1)
        facing = np.einsum("pkc,pc->pk", self.normals_part[near], normals) > SAME_WAY
        weight = (np.isfinite(distance_m) & facing).astype(np.float64)
        total = weight.sum(axis=1)
        mean_m = np.divide(
            (weight * self.deviation_m[near]).sum(axis=1), total, where=total > 0, out=np.zeros(len(near))
        )
        return np.where(total > 0, mean_m, np.nan)


@dataclass(frozen=True, slots=True)
class Direction:
    """Where a view looks from: (3,) unit vectors `towards` the eye, `right` and `up` in the picture, frame "part"."""

    title: str
    towards: NDArray[np.float64]
    right: NDArray[np.float64]
    up: NDArray[np.float64]


def deviation_map(part: MeasuredPart, tolerance_mm: float) -> bytes:
    """The picture as the bytes of a PNG file.

    Raises:
        DepthcellError: the part has no reference, or no point of it has a deviation.
    """
    reference, colors = surface_colors(part)
    return png_of(_draw(reference, colors, directions(colors), tolerance_mm), dpi=160)


def surface_colors(part: MeasuredPart) -> tuple[Reference, SurfaceColors]:
    """The part's reference, and what colours it.

    Raises:
        DepthcellError: see `deviation_map`.
    """
    scan = part.scan
    if scan is None or scan.reference is None or part.deviation_m is None or not len(part.seen):
        raise DepthcellError(
            f"part '{part.part_id}': no colour map without points and a reference to compare them with; "
            "name one under [reference] in the recipe"
        )
    seen = part.seen
    deviation_m, normals = part.deviation_m[seen], scan.normals_part[seen].astype(np.float64)
    places = scan.points_part[seen] - deviation_m[:, None] * normals
    tree = KDTree(places)
    spacing_m = float(np.median(tree.query(places[:: max(1, len(places) // 2000)], k=2)[0][:, 1]))
    return scan.reference, SurfaceColors(tree, normals, deviation_m, max(MIN_REACH_M, 3.0 * spacing_m))


def directions(colors: SurfaceColors) -> tuple[Direction, ...]:
    """Two oblique views, and the two along an axis that see most of what was measured."""
    facing = {title: float((colors.normals_part @ np.array(axis) > SAME_WAY).mean()) for title, axis in ALONG.items()}
    best = sorted(facing, key=lambda title: -facing[title])[:2]
    oblique = [_direction(f"oblique {number}", axis) for number, axis in enumerate(OBLIQUE, 1)]
    return (*oblique, *(_direction(title, ALONG[title]) for title in best))


def rendered(reference: Reference, colors: SurfaceColors, view: Direction, tolerance_mm: float) -> NDArray[np.uint8]:
    """(HEIGHT_PX, WIDTH_PX, 3) red, green, blue: the surface as seen along a view, parallel, lit from the eye."""
    origins, shape = _rays(reference, view)
    rays = np.hstack((origins, np.broadcast_to(-view.towards, origins.shape))).astype(np.float32)
    scene = open3d().t.geometry.RaycastingScene()
    scene.add_triangles(reference.vertices_part.astype(np.float32), reference.triangles.astype(np.uint32))
    cast = scene.cast_rays(open3d().core.Tensor(rays))
    distance_m = cast["t_hit"].numpy().astype(np.float64)
    hit = np.isfinite(distance_m)
    normals = cast["primitive_normals"].numpy().astype(np.float64)[hit]
    places = origins[hit] - distance_m[hit, None] * view.towards
    normals *= np.where(normals @ view.towards < 0, -1.0, 1.0)[:, None]
    shade = AMBIENT + (1 - AMBIENT) * np.clip(normals @ view.towards, 0, 1)
    image = np.full((len(origins), 3), BACKGROUND, dtype=np.uint8)
    flat = deviation_rgb(1e3 * colors.at(places, normals), tolerance_mm)
    image[hit] = (flat * shade[:, None]).astype(np.uint8)
    return image.reshape(*shape, 3)


def _rays(reference: Reference, view: Direction) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Origins of parallel rays over the part, row by row from above, in front of it."""
    corners = reference.vertices_part @ np.column_stack((view.right, view.up, view.towards))
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle, size = (low + high) / 2, (high - low) * MARGIN
    pixel_m = max(size[0] / WIDTH_PX, size[1] / HEIGHT_PX)
    across = middle[0] + pixel_m * (np.arange(WIDTH_PX) - (WIDTH_PX - 1) / 2)
    down = middle[1] - pixel_m * (np.arange(HEIGHT_PX) - (HEIGHT_PX - 1) / 2)
    x, y = np.meshgrid(across, down)
    front = high[2] + size.max()
    origins = x.reshape(-1, 1) * view.right + y.reshape(-1, 1) * view.up + front * view.towards
    return origins, (HEIGHT_PX, WIDTH_PX)


def _direction(title: str, axis: tuple[float, float, float]) -> Direction:
    towards = np.array(axis, dtype=np.float64)
    towards /= np.linalg.norm(towards)
    upright = np.array([0.0, 0.0, 1.0]) if abs(towards[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    right = np.cross(upright, towards)
    right /= np.linalg.norm(right)
    return Direction(title, towards, right, np.cross(towards, right))


@house_style
def _draw(reference: Reference, colors: SurfaceColors, views: tuple[Direction, ...], tolerance_mm: float) -> Figure:
    figure = Figure(figsize=(7.0, 5.6), layout="constrained", facecolor="white")
    grid = figure.subplots(2, 2).ravel()
    for axes, view in zip(grid, views, strict=True):
        axes.imshow(rendered(reference, colors, view, tolerance_mm), interpolation="nearest")
        axes.set_title(view.title)
        axes.set_axis_off()
    draw_colorbar(figure, list(grid), tolerance_mm)
    return figure


def draw_colorbar(figure: Figure, grid: list[Axes], tolerance_mm: float) -> None:
    """The scale of the deviation beside the pictures, with a word on what is grey."""
    scale = ScalarMappable(Normalize(-tolerance_mm, tolerance_mm), ListedColormap(palette() / 255.0))
    bar = figure.colorbar(scale, ax=grid, shrink=0.85, aspect=32, pad=0.015, extend="both")
    bar.set_label("deviation / mm: + excess, − missing")
    grey = tuple(value / 255 for value in UNMEASURED_RGB)
    figure.text(0.995, 0.012, "■", ha="right", color=grey, fontsize=10)
    figure.text(0.972, 0.014, "not measured", ha="right", fontsize=7)
