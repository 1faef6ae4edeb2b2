"""What the pictures of docs/gauges.md show: small parts of known geometry, and the gauges that the page's recipe names.

Every gauge of the page is measured on one of these parts, once with noise and once without.
"""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.station import StationPlan, build_station
from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.budget import uncertainty_budget
from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.extraction import Features
from depthcell.inspect.gauges.gauging import measure_gauge
from depthcell.inspect.gauges.reading import Reading
from depthcell.inspect.gaugesections import GaugeSection
from depthcell.inspect.ideal_scan import EXACT_M, Measured, Patch, ball, face, ideal_scan, tube
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.simulated_cell import calibrated_cell

PAGE = Path(__file__).resolve().parent / "gauges.md"
SIGMA_M = 2e-5
SEED = 4
SIN30, COS30 = 0.5, 0.75**0.5
LIFT_M = 0.01
REST: dict[str, Any] = {
    "schema_version": 1,
    "name": "shown",
    "cell": {"cameras": ["1"]},
    "reference": {"mesh": "shown.stl"},
    "region": {"min_mm": [-50, -35, -5], "max_mm": [50, 35, 40]},
    "surface": {"tolerance_mm": 0.5},
}
"""What a recipe needs besides the tables of the page."""
Lift = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A gauge measured on the part that shows it.

    Attributes:
        section: as the page's recipe has it.
        scan: with noise of `SIGMA_M`.
        features: of that scan.
        reading: of that scan.
        u: standard uncertainty of the reading, in the unit of its quantity.
        true: what the same gauge reads of the same part without noise.
    """

    section: GaugeSection
    scan: Scan
    features: Features
    reading: Reading
    u: float
    true: float


def recipe_blocks(page: Path = PAGE) -> list[str]:
    """The TOML of the page, block by block."""
    return re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def page_recipe(page: Path = PAGE) -> Recipe:
    """All blocks of the page as one recipe.

    Raises:
        ValueError: a block is no TOML, or no recipe takes it.
    """
    return Recipe.model_validate(REST | tomllib.loads("\n".join(recipe_blocks(page))))


def measured(recipe: Recipe) -> list[Shown]:
    """Every gauge of the recipe on the part that shows it.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the part does not show it.
    """
    noisy, exact = scans(SIGMA_M), scans(EXACT_M)
    shown = []
    for section in recipe.gauge:
        scan, still = noisy[part_of(section)], exact[part_of(section)]
        features = Features(scan, recipe.feature, recipe.datum)
        reading = measure_gauge(section, scan, features)
        true = measure_gauge(section, still, Features(still, recipe.feature, recipe.datum)).value
        u = uncertainty_budget(reading.influence, scan, reading.noise_u, reading.extra_u).u
        shown.append(Shown(section, scan, features, reading, u, true))
    return shown


def part_of(section: GaugeSection) -> str:
    """Which of the parts shows a gauge."""
    others = {"thickness": "wall", "gap": "joint", "flush": "joint", "seam": "weld", "volume": "block"}
    return others.get(section.kind, "block" if section.kind.startswith("profile") else "part")


def scans(sigma_m: float) -> dict[str, Scan]:
    """All parts, seen by a simulated cell of three D405."""
    cell = calibrated_cell(build_station(StationPlan("bracket", "D405", 3, SEED)))
    pose = RigidTransform.from_rotation_vector("cell", "part", np.zeros(3), np.array([0.0, 0.0, LIFT_M]))
    how = Measured(sigma_m, T_cell_part=pose, seed=SEED)
    bodies = {"part": part(), "wall": wall(), "joint": joint(), "weld": weld()}
    seen = {name: ideal_scan(patches, cell, how) for name, patches in bodies.items()}
    return seen | {"block": ideal_scan(dented(), cell, how, block())}


def part() -> list[Patch]:
    """A base with a pad, a slanted face, a bore, a post with a neck, and a ball; none of them quite as it should be."""
    neck = tube((-23.95, -12, 25.5), (0, 0, 1), 12, 6, rows=13)
    post = tube((-24, -12, 16), (0, 0, 1), 20, 11, rows=23, columns=100)
    turn = np.arctan2(post.normals[:, 1], post.normals[:, 0])
    whole = ball((0, 17, 16), 14, count=1400)
    above = whole.points[:, 2] > 0.0115
    return [
        base(),
        sheet((25, -12, 16), turned((1, 0, 0), (0, 1, 0), 0.25), (28, 22), lift_m=bowed),
        sheet((11, -12, 13.3), turned((0, 0, 1), (0, 1, 0), 0.6), (5, 22), 0.6, bowed),
        sheet((26, 16, 14), turned((0, COS30, -SIN30), (-1, 0, 0), 0.4), (13, 26), lift_m=bowed),
        tube((-27.9, 15.94, 6), (0, 0, 1), 14.08, 7, inside=True, rows=15),
        post.lifted(5e-5 * np.cos(3 * turn)),
        neck.lifted(5e-5 * np.cos(2 * np.arctan2(neck.normals[:, 1], neck.normals[:, 0]))),
        Patch(whole.points[above], whole.normals[above]),
    ]


def bowed(_: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """0.08 mm higher in the middle than 11 mm beside it."""
    return 8e-5 * (1 - (b / 11) ** 2)


def base() -> Patch:
    """The bowed top of the base, less where something stands on it or is drilled."""
    top = sheet((0, 0, 10), ((1, 0, 0), (0, 1, 0)), (90, 60), 1.2, lambda x, y: 1e-4 * (1 - (x / 45) ** 2) + 0 * y)
    x, y = top.points[:, :2].T * 1e3
    free = (np.hypot(x + 28, y - 16) > 7.5) & (np.hypot(x + 24, y + 12) > 11) & (np.hypot(x, y - 17) > 5)
    free &= ~((x > 10) & (x < 40) & (y > -24) & (y < 0)) & ~((x > 12) & (x < 40) & (y > 9) & (y < 24))
    return Patch(top.points[free], top.normals[free])


def wall() -> list[Patch]:
    """Two faces 4 mm apart, the upper one with a hollow of 0.5 mm."""
    flat = ((1, 0, 0), (0, 1, 0))
    near = sheet((0, 0, 4), flat, (30, 20), 0.7, lambda x, y: -5e-4 * np.exp(-((x - 6) ** 2 + y**2) / 20))
    return [near, face((0, 0, 0), (0, 0, -1), (30, 20), 0.7)]


def joint() -> list[Patch]:
    """Two faces, the second 0.4 mm higher, with a gap of 4 mm along y, and the upper 3 mm of its walls."""
    sides = ((-2.0, 0.0, 1.0), (2.0, 0.4, -1.0))
    faces = [face((x + np.sign(x) * 6, 0, z), (0, 0, 1), (12, 12), 0.6) for x, z, _ in sides]
    return faces + [face((x, 0, -1.5), (way, 0, 0), (12, 3), 0.6) for x, _, way in sides]


def weld() -> list[Patch]:
    """A butt weld along x: 8 mm wide, 1.5 mm high, an arc of a circle."""
    half, high, step = 4.0, 1.5, 1e-4
    radius = (half**2 + high**2) / (2 * high)

    def height(y: NDArray[np.float64]) -> NDArray[np.float64]:
        arc = np.sqrt(np.maximum(radius**2 - y**2, 0)) - (radius - high)
        return np.where(np.abs(y) < half, arc, 0.0)

    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(-21, 21, 0.5), np.arange(-15, 15, 0.25) + 0.11))
    slope = (height(y + step) - height(y - step)) / (2 * step)
    normals = np.stack((np.zeros_like(x), -slope, np.ones_like(x)), axis=1)
    return [Patch(np.stack((x, y, height(y)), axis=1) / 1e3, normals / np.linalg.norm(normals, axis=1)[:, None])]


def dented() -> list[Patch]:
    """The top of the block with a dent of 0.6 mm and a bump of 0.4 mm."""

    def lift(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        dent = np.maximum(0, 1 - ((x + 10) ** 2 + y**2) / 49)
        bump = np.maximum(0, 1 - ((x - 14) ** 2 + (y - 4) ** 2) / 25)
        return 4e-4 * bump - 6e-4 * dent

    return [sheet((0, 0, 10), ((1, 0, 0), (0, 1, 0)), (58, 38), 0.4, lift)]


def block() -> Reference:
    """60 x 40 x 10 mm, its top at z = 10."""
    corners = np.array([[x, y, z] for z in (0, 10) for y in (-20, 20) for x in (-30, 30)]) / 1e3
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    return Reference(corners, np.array([three for a, b, c, d in quads for three in ((a, b, c), (a, c, d))], np.int32))


Axes2 = tuple[tuple[float, float, float], tuple[float, float, float]]


def turned(u: tuple[float, float, float], v: tuple[float, float, float], angle_deg: float) -> Axes2:
    """Axes u, v of a face that is turned about v."""
    angle, normal = np.radians(angle_deg), np.cross(u, v)
    x, y, z = np.cos(angle) * np.array(u) - np.sin(angle) * normal
    return (float(x), float(y), float(z)), v


def sheet(
    centre_mm: tuple[float, float, float],
    axes: Axes2,
    size_mm: tuple[float, float],
    spacing_mm: float = 1.0,
    lift_m: Lift | None = None,
) -> Patch:
    """A rectangle along two axes that looks along their cross product, lifted by a function of places in mm."""
    a, b = (
        grid.ravel() for grid in np.meshgrid(*(np.arange(-size / 2, size / 2 + 1e-9, spacing_mm) for size in size_mm))
    )
    normal = np.cross(*axes)
    points = (np.array(centre_mm) + a[:, None] * np.array(axes[0]) + b[:, None] * np.array(axes[1])) / 1e3
    flat = Patch(points, np.broadcast_to(normal, points.shape).copy())
    return flat if lift_m is None else flat.lifted(lift_m(a, b))
