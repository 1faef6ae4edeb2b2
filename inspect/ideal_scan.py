"""Scans made directly from ideal surfaces: exact points and normals, moved by noise of a known size if wanted.

What a gauge must read of them is known by construction; tests and `benchmarks/gauge_exact.py` hold the gauges to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.fusion.align import Alignment
from depthcell.fusion.association.elements import across
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan

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


def tube(  # noqa: PLR0913 - a tube has that many dimensions
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


def ideal_scan(
    patches: Sequence[Patch], cell: Cell, how: Measured | None = None, reference: Reference | None = None
) -> Scan:
    """A scan of these surfaces, all seen by the first camera of a cell; each point's noise is independent."""
    how = how or Measured()
    points = np.concatenate([patch.points for patch in patches])
    normals = np.concatenate([patch.normals for patch in patches])
    if how.sigma_m > EXACT_M:
        rng = np.random.default_rng(how.seed)
        points = points + how.sigma_m * rng.standard_normal(len(points))[:, None] * normals
    count, serials = len(points), tuple(cell.cameras)
    cloud = PartCloud(
        points_cell=np.asarray(how.T_cell_part @ points, dtype=np.float64),
        normals_cell=np.asarray(how.T_cell_part.rotate(normals), dtype=np.float32),
        colors=np.zeros((count, 3), np.uint8),
        random_sigma_m=np.full(count, how.stated_m or how.sigma_m, np.float32),
        systematic_sigma_m=np.full(count, 1e-12, np.float32),
        correlation_m=np.full(count, 1e-6, np.float32),
        share=np.tile(np.eye(1, len(serials), dtype=np.float32), (count, 1)),
        camera=np.zeros(count, np.uint8),
        pixel=np.zeros((count, 2), np.int32),
        serials=serials,
    )
    zero = np.zeros((6, 6))
    pose = how.T_cell_part.perturbed(np.array(how.misplaced))
    alignment = Alignment(pose, zero, zero, 0.0, 1.0, count, 3, 0.0, "", ())
    return Scan.of(cloud, alignment, cell, reference)
