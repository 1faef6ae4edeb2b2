"""One placement of an artefact as one source measured it: find it, fit it, state every error with its uncertainty."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from depthcell.calib.cell import Cell
from depthcell.calib.verify.acceptance import Characteristic, TestValue, error_value, range_value, window_u_m
from depthcell.calib.verify.acceptance_points import MOST_POINTS, ShapeFit, SurfacePoints
from depthcell.calib.verify.acceptance_shapes import (
    find_plate,
    find_spheres,
    fit_plane,
    fit_sphere,
    plane_residuals_m,
    sphere_bias_m,
    sphere_residuals_m,
)
from depthcell.calib.verify.acceptance_steps import find_faces, fit_faces
from depthcell.calib.verify.artefact import Artefact, BallBar, BoardArtefact, Plate, Sphere, StepGauge
from depthcell.errors import DepthcellError

DIAMETER = np.array([0.0, 0.0, 0.0, 2.0])
"""How a sphere's diameter follows from the parameters (x, y, z, R) of its fit."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """What one source says of one placement.

    Attributes:
        values: every error.
        points: on the artefact.
        residuals_m: (N,) their signed distances from the fitted shape, positive outside the material.
        features_cell: (F, 3) places of the artefact's features: centres of spheres, middle of a plate or of each face.
        normal_cell: (3,) of a plate or step gauge; None for spheres.
    """

    values: tuple[TestValue, ...]
    points: SurfacePoints
    residuals_m: NDArray[np.float64]
    features_cell: NDArray[np.float64]
    normal_cell: NDArray[np.float64] | None = None


def evaluate(artefact: Artefact, points: SurfacePoints, cell: Cell, rng: np.random.Generator) -> Evaluated:
    """Every error that one source shows on an artefact; source and placement in the values are still empty.

    Args:
        artefact: what is certified.
        points: all that was measured, background included.
        cell: what was measured with.
        rng: for what a range should be.

    Raises:
        DepthcellError: the artefact was not found in the points, or is a board, which has no certified depth.
    """
    match artefact:
        case Sphere():
            return _spheres(points, [(artefact.diameter_m, artefact.diameter_u_mm / 1e3)], None, cell, rng)
        case BallBar():
            us_mm = (artefact.diameter_a_u_mm, artefact.diameter_b_u_mm)
            certified = [(d, u / 1e3) for d, u in zip(artefact.diameters_m, us_mm, strict=True)]
            return _spheres(points, certified, (artefact.distance_m, artefact.distance_u_mm / 1e3), cell, rng)
        case Plate():
            return _plate(points, artefact, cell, rng)
        case StepGauge():
            return _step_gauge(points, artefact, cell)
        case BoardArtefact():
            raise DepthcellError("a board has no certified shape; it serves the drift check, with --drift")


def _spheres(
    points: SurfacePoints,
    certified: list[tuple[float, float]],
    distance: tuple[float, float] | None,
    cell: Cell,
    rng: np.random.Generator,
) -> Evaluated:
    """Probing form and size of each sphere, and the error of their distance; certified values with their u, metres."""
    found = find_spheres(points, [diameter_m for diameter_m, _ in certified])
    on_spheres = [points[members] for members in found]
    fits = [
        fit_sphere(part.thinned(), diameter_m / 2) for part, (diameter_m, _) in zip(on_spheres, certified, strict=True)
    ]
    residuals = [sphere_residuals_m(part, fit) for part, fit in zip(on_spheres, fits, strict=True)]
    parameters = [fit.parameters - sphere_bias_m(fit, cell) for fit in fits]
    values = []
    for name, fit, left_m, sphere, found_m in zip("ab", fits, residuals, certified, parameters, strict=False):
        detail = f"sphere {name}" if len(fits) > 1 else ""
        form = range_value(Characteristic.PROBING_FORM, left_m, fit, cell, rng)
        size = error_value(
            Characteristic.PROBING_SIZE,
            float(DIAMETER @ found_m),
            sphere,
            [(fit, DIAMETER)],
            cell,
            window_u_m(fit, DIAMETER),
        )
        values += [replace(form, detail=detail), replace(size, detail=detail)]
    if distance is not None:
        values.append(_spacing(fits, parameters, distance, cell))
    centres = np.stack([found_m[:3] for found_m in parameters])
    return Evaluated(tuple(values), points[np.concatenate(found)], np.concatenate(residuals), centres)


def _spacing(
    fits: list[ShapeFit], parameters: list[NDArray[np.float64]], distance: tuple[float, float], cell: Cell
) -> TestValue:
    """Error of the distance of two centres."""
    apart_m = parameters[1][:3] - parameters[0][:3]
    length_m = float(np.linalg.norm(apart_m))
    along = np.append(apart_m / length_m, 0.0)
    window_m = math.hypot(*(window_u_m(fit, along) for fit in fits))
    return error_value(
        Characteristic.SPHERE_SPACING, length_m, distance, [(fits[1], along), (fits[0], -along)], cell, window_m
    )


def _plate(points: SurfacePoints, artefact: Plate, cell: Cell, rng: np.random.Generator) -> Evaluated:
    on_plate = points[find_plate(points, artefact.size_m)]
    fit = fit_plane(on_plate.thinned())
    residuals_m = plane_residuals_m(on_plate, fit)
    flatness = replace(
        range_value(Characteristic.FLATNESS, residuals_m, fit, cell, rng),
        certified_m=artefact.flatness_mm / 1e3,
        u_certificate_m=artefact.flatness_u_mm / 1e3,
    )
    middle = on_plate.points_cell.mean(axis=0)
    return Evaluated((flatness,), on_plate, residuals_m, middle[None], fit.directions[0])


def _step_gauge(points: SurfacePoints, artefact: StepGauge, cell: Cell) -> Evaluated:
    """The error of each face's height above the first."""
    heights_m = [height_mm / 1e3 for height_mm in artefact.heights_mm]
    faces = find_faces(points, heights_m, artefact.width_mm / 1e3)
    on_gauge = points[np.concatenate(faces)]
    number = np.repeat(np.arange(len(faces)), [len(face) for face in faces])
    kept = np.unique(np.linspace(0, len(number) - 1, min(len(number), MOST_POINTS)).round().astype(np.intp))
    fit = fit_faces(on_gauge[kept], number[kept])
    values = []
    for step in range(1, len(faces)):
        combination = np.zeros(len(faces) + 2)
        combination[step], combination[0] = 1.0, -1.0
        certified = (heights_m[step], artefact.heights_u_mm[step] / 1e3)
        height_m = float(fit.parameters[step] - fit.parameters[0])
        value = error_value(Characteristic.STEP_HEIGHT, height_m, certified, [(fit, combination)], cell)
        values.append(replace(value, detail=f"step of {artefact.heights_mm[step]:g} mm"))
    along_m = on_gauge.points_cell @ fit.directions[0]
    residuals_m = along_m - np.array([along_m[number == face].mean() for face in range(len(faces))])[number]
    middles = np.stack([on_gauge.points_cell[number == face].mean(axis=0) for face in range(len(faces))])
    return Evaluated(tuple(values), on_gauge, residuals_m, middles, fit.directions[0])
