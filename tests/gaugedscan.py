"""Scans made directly from ideal surfaces: exact points and normals, moved by noise of a known size if wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from stagedpart import plate_cell

from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.align import Alignment
from depthcell.fusion.association.elements import across
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.extraction import Features
from depthcell.inspect.gauges.gauging import measure_gauge
from depthcell.inspect.gauges.reading import Reading
from depthcell.inspect.gaugesections import DatumSection, FeatureSection, GaugeSection

_FEATURE: TypeAdapter[FeatureSection] = TypeAdapter(FeatureSection)
_GAUGE: TypeAdapter[GaugeSection] = TypeAdapter(GaugeSection)

EXACT_M = 1e-9
"""Noise that an exact scan is said to have: a cloud must have some."""


@dataclass(frozen=True)
class Patch:
    """Points (N, 3) of one surface in metres with their normals, frame "part"."""

    points: NDArray[np.float64]
    normals: NDArray[np.float64]

    def lifted(self, along_m: NDArray[np.float64]) -> "Patch":
        """Each point moved along its normal."""
        return Patch(self.points + along_m[:, None] * self.normals, self.normals)


def face(
    centre_mm: Sequence[float], normal: Sequence[float], size_mm: tuple[float, float], spacing_mm: float = 1.0
) -> Patch:
    """A rectangle of points on a plane, size along `across(normal)`."""
    unit = np.array(normal, dtype=float) / np.linalg.norm(normal)
    u, v = across(unit)
    first, second = (np.arange(-size / 2, size / 2 + 1e-9, spacing_mm) / 1e3 for size in size_mm)
    a, b = (grid.ravel() for grid in np.meshgrid(first, second))
    points = np.array(centre_mm) / 1e3 + a[:, None] * u + b[:, None] * v
    return Patch(points, np.broadcast_to(unit, points.shape).copy())


def tube(
    centre_mm: Sequence[float],
    axis: Sequence[float] | NDArray[np.float64],
    diameter_mm: float,
    length_mm: float,
    *,
    inside: bool = False,
    turn_deg: tuple[float, float] = (0.0, 360.0),
    rows: int = 13,
    columns: int = 72,
) -> Patch:
    """A wall about an axis, `length_mm` long about its centre."""
    unit = np.array(axis, dtype=float) / np.linalg.norm(axis)
    u, v = across(unit)
    turn, height = np.meshgrid(
        np.radians(np.linspace(*turn_deg, columns, endpoint=False)), np.linspace(-0.5, 0.5, rows) * length_mm / 1e3
    )
    away = np.cos(turn).ravel()[:, None] * u + np.sin(turn).ravel()[:, None] * v
    points = np.array(centre_mm) / 1e3 + height.ravel()[:, None] * unit + diameter_mm / 2e3 * away
    return Patch(points, -away if inside else away)


def ball(centre_mm: Sequence[float], diameter_mm: float, *, inside: bool = False, count: int = 900) -> Patch:
    """Points spread over a sphere (Fibonacci's spiral)."""
    number = np.arange(count) + 0.5
    z, turn = 1 - 2 * number / count, np.pi * (1 + 5**0.5) * number
    flat = np.sqrt(1 - z**2)
    away = np.stack((flat * np.cos(turn), flat * np.sin(turn), z), axis=1)
    return Patch(np.array(centre_mm) / 1e3 + diameter_mm / 2e3 * away, -away if inside else away)


@dataclass(frozen=True)
class Measured:
    """How a scan was taken.

    Attributes:
        sigma_m: noise along the normals, both added and stated; `EXACT_M` adds none.
        stated_m: noise that is stated, where it is another.
        T_cell_part: where the part truly lies.
        misplaced: twist by which the alignment is off.
        seed: of the noise.
    """

    sigma_m: float = EXACT_M
    stated_m: float | None = None
    T_cell_part: RigidTransform = field(default_factory=lambda: RigidTransform.identity("cell", "part"))
    misplaced: tuple[float, ...] = (0.0,) * 6
    seed: int = 0


def scan_of(patches: Sequence[Patch], how: Measured | None = None, reference: Reference | None = None) -> Scan:
    """A scan of these surfaces, by a cell of three cameras."""
    how = how or Measured()
    points = np.concatenate([patch.points for patch in patches])
    normals = np.concatenate([patch.normals for patch in patches])
    if how.sigma_m > EXACT_M:
        rng = np.random.default_rng(how.seed)
        points = points + how.sigma_m * rng.standard_normal(len(points))[:, None] * normals
    cell = plate_cell()
    count, serials = len(points), tuple(cell.cameras)
    cloud = PartCloud(
        points_cell=np.asarray(how.T_cell_part @ points, dtype=np.float64),
        normals_cell=np.asarray(how.T_cell_part.rotate(normals), dtype=np.float32),
        colors=np.zeros((count, 3), np.uint8),
        random_sigma_m=np.full(count, how.stated_m or how.sigma_m, np.float32),
        systematic_sigma_m=np.full(count, 1e-12, np.float32),
        correlation_m=np.full(count, 1e-6, np.float32),
        share=np.tile(np.array([1.0, 0.0, 0.0], np.float32), (count, 1)),
        camera=np.zeros(count, np.uint8),
        pixel=np.zeros((count, 2), np.int32),
        serials=serials,
    )
    zero = np.zeros((6, 6))
    pose = how.T_cell_part.perturbed(np.array(how.misplaced))
    alignment = Alignment(pose, zero, zero, 0.0, 1.0, count, 3, 0.0, "", ())
    return Scan.of(cloud, alignment, cell, reference)


def lifted(scan: Scan, along_m: NDArray[np.float64]) -> Scan:
    """The scan with each point moved along its own measured normal."""
    normals = scan.cloud.normals_cell.astype(np.float64)
    cloud = replace(scan.cloud, points_cell=scan.cloud.points_cell + along_m[:, None] * normals)
    return Scan.of(cloud, scan.alignment, scan.cell, scan.reference)


def twisted(scan: Scan, twist: NDArray[np.float64]) -> Scan:
    """The scan with another pose of the part, the points staying in the cell."""
    alignment = replace(scan.alignment, T_cell_part=scan.T_cell_part.perturbed(twist))
    return Scan.of(scan.cloud, alignment, scan.cell, scan.reference)


def features_of(scan: Scan, features: Sequence[Mapping[str, object]], **datums: str) -> Features:
    """Features of a scan as a recipe has them; datums as `A="name of the feature"`."""
    sections = [_FEATURE.validate_python(feature) for feature in features]
    return Features(scan, sections, [DatumSection(label=label, feature=name) for label, name in datums.items()])


def measured(scan: Scan, features: Features, **gauge: object) -> Reading:
    """One gauge of that scan."""
    return measure_gauge(_GAUGE.validate_python({"name": "gauge", **gauge}), scan, features)


def plane_feature(name: str, normal: Sequence[float], low: Sequence[float], high: Sequence[float]) -> dict[str, object]:
    """A face, in the middle of its box."""
    return {"name": name, "kind": "plane", "normal": list(normal), "min_mm": list(low), "max_mm": list(high)}


def round_feature(
    name: str, kind: str, at_mm: Sequence[float], diameter_mm: float, half_mm: float, **more: object
) -> dict[str, object]:
    """A cylinder, circle or sphere, outside unless said; its box reaches 3 mm past the wall and `half_mm` along z."""
    reach = diameter_mm / 2 + 3.0
    x, y, z = at_mm
    box = {"min_mm": [x - reach, y - reach, z - half_mm], "max_mm": [x + reach, y + reach, z + half_mm]}
    axis = {} if kind == "sphere" else {"axis": [0, 0, 1]}
    own = {"name": name, "kind": kind, "position_mm": list(at_mm), "diameter_mm": diameter_mm, "side": "outside"}
    return {**own, **axis, **box, **more}
