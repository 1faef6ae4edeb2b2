"""Whether two cameras put the same surface in the same place: the cell's calibration, tested by every part."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.calib.cell import Cell
from depthcell.fusion.uncertainty import shared_correlation
from depthcell.fusion.view import View

SAMPLES = 4000
"""Points of one view that are looked up in the other."""
ENOUGH = 50
"""Shared points below which nothing is said."""
SAME_SURFACE_M = 0.005
"""Points farther apart than this are not of one surface: one camera sees past what the other sees."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two cameras see the same surface apart.

    Attributes:
        first, second: serial numbers.
        offset_m: median distance of the first camera's surface from the second's, along the normal.
        sigma_m: standard uncertainty of that offset by the cell's own statement.
    """

    first: str
    second: str
    offset_m: float
    sigma_m: float

    @property
    def in_words(self) -> str:
        """For a person, in millimetres."""
        return (
            f"cameras {self.first} and {self.second} see the same surface {abs(self.offset_m) * 1e3:.2f} mm apart, "
            f"where the cell's calibration allows {self.sigma_m * 1e3:.2f} mm (1 sigma): calibrate the cell anew"
        )


def disagreements(views: Sequence[View], cell: Cell, sigmas: float = 4.0) -> tuple[Disagreement, ...]:
    """Pairs of cameras whose surfaces lie farther apart than `sigmas` standard uncertainties of their calibration."""
    pairs = (compared(first, second, cell) for first, second in itertools.combinations(views, 2))
    return tuple(pair for pair in pairs if pair is not None and abs(pair.offset_m) > sigmas * pair.sigma_m)


def compared(first: View, second: View, cell: Cell) -> Disagreement | None:
    """How far `first` sees the surface from where `second` does; None where they share too little.

    Evenly chosen points of the first view are projected into the second's depth image. The median along the normal is
    taken, over points whose normals agree within 45° and which lie within 5 mm. Its uncertainty joins both cameras'
    median systematic part, less what they share, with their random part, shrunk by the number of points (GUM 5.1.2).
    """
    chosen = np.flatnonzero(first.valid)
    chosen = chosen[:: max(1, len(chosen) // SAMPLES)]
    points = first.points_cell.reshape(-1, 3)[chosen]
    row, column, seen = _look_up(points, second, cell)
    chosen, points = chosen[seen], points[seen]
    offset_m = np.einsum("ij,ij->i", points - second.points_cell[row, column], second.normals_cell[row, column])
    facing = np.einsum("ij,ij->i", first.normals_cell.reshape(-1, 3)[chosen], second.normals_cell[row, column])
    shared = (np.abs(offset_m) < SAME_SURFACE_M) & (facing > 0.7)
    if shared.sum() < ENOUGH:
        return None
    chosen, row, column = chosen[shared], row[shared], column[shared]
    random_m2 = np.square(first.random_sigma_m.ravel()[chosen]) + np.square(second.random_sigma_m[row, column])
    one_m, other_m = first.systematic_sigma_m.ravel()[chosen], second.systematic_sigma_m[row, column]
    places = first.points_cell.reshape(-1, 3)[chosen], second.normals_cell[row, column]
    alike = shared_correlation(cell, first.serial, second.serial, *places)
    systematic_m2 = np.square(one_m) + np.square(other_m) - 2 * alike * one_m * other_m
    variance_m2 = np.median(systematic_m2) + np.median(random_m2) / np.sqrt(len(chosen))
    return Disagreement(first.serial, second.serial, float(np.median(offset_m[shared])), float(np.sqrt(variance_m2)))


def _look_up(
    points_cell: NDArray[np.float32], view: View, cell: Cell
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Row and column in `view` of the points that fall on a valid pixel of it, and which of the points those are."""
    T_cam_cell = cell.camera(view.serial).T_cell_depth.inverse()
    pixels = np.rint(view.intrinsics.project(T_cam_cell @ points_cell))
    height_px, width_px = view.valid.shape
    column, row = np.nan_to_num(pixels, nan=-1.0).T.astype(np.intp)
    inside = (column >= 0) & (column < width_px) & (row >= 0) & (row < height_px)
    inside[inside] = view.valid[row[inside], column[inside]]
    return row[inside], column[inside], inside
