"""Find a sphere or a plate among all that was measured, and fit it.

Every search votes with the points' normals: a point of a sphere of radius R points at its centre from R away, a point
of a plate at its plane. What gets most votes is refined on its own points; nothing is drawn at random.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import Cell
from depthcell.calib.verify.acceptance_points import ShapeFit, SurfacePoints, linear_fit, slants
from depthcell.errors import DepthcellError

MIN_POINTS = 60
"""Fewer points than this say nothing of a shape."""
REFINEMENTS = 6
MOST_STEPS = 30
CONVERGED_M = 1e-9
SIGMAS = 5.0
"""A point farther from the shape than so many standard uncertainties belongs to something else."""
NEAR = 0.02
"""Or so much of the shape's size, whichever is more: an artefact measured wrongly is still to be found."""
MOST_BALLS = 4
MOST_VOTES = 200_000
MOST_PLANES = 12
PATCH_CELLS, MOST_CELLS = 40, 4000
ALIKE = 0.02
SAME_WAY = math.cos(math.radians(35.0))
SIZE_SLACK = 1.2
"""A plate or sphere found larger than this times its certificate, or smaller by as much, is another body."""


def find_spheres(points: SurfacePoints, diameters_m: Sequence[float]) -> tuple[NDArray[np.intp], ...]:
    """Points (M,) of each sphere, in the order of `diameters_m`; two alike within 2 % in order of x in the cell.

    Raises:
        DepthcellError: a sphere is not there.
    """
    radii_m = [diameter_m / 2 for diameter_m in diameters_m]
    seen: list[_Ball] = []
    for radius_m in dict.fromkeys(radii_m):
        for ball in _balls(points, radius_m, len(radii_m)):
            if all(np.linalg.norm(ball.centre_m - other.centre_m) > radius_m for other in seen):
                seen.append(ball)
    chosen: list[_Ball] = []
    for radius_m in radii_m:
        fitting = [ball for ball in seen if ball not in chosen and ball.is_like(radius_m)]
        if not fitting:
            found = ", ".join(f"{2e3 * ball.radius_m:.1f}" for ball in seen) or "none"
            raise DepthcellError(
                f"no sphere of {2e3 * radius_m:g} mm diameter was measured (found: {found}); check size, "
                "coating and place"
            )
        chosen.append(min(fitting, key=lambda ball: abs(ball.radius_m - radius_m)))
    if len(chosen) == 2 and abs(radii_m[0] / radii_m[1] - 1) < ALIKE:
        chosen.sort(key=lambda ball: float(ball.centre_m[0]))
    return tuple(ball.members for ball in chosen)


def fit_sphere(points: SurfacePoints, radius_m: float) -> ShapeFit:
    """Least-squares sphere with free centre and radius: parameters (x, y, z, R).

    Minimised is the sum of `((|p - c| - R) / sigma)²`, the geometric distance, by Gauss-Newton steps: that distance
    changes by `-u · dc - dR`, u the unit vector from the centre to the point.

    Args:
        points: of the sphere alone.
        radius_m: to start from.

    Raises:
        DepthcellError: the points do not make a sphere.
    """
    centre = np.median(points.points_cell - radius_m * points.normals_cell, axis=0)
    sphere = np.append(centre, radius_m)
    for _ in range(MOST_STEPS):
        offset = points.points_cell - sphere[:3]
        distance_m = np.linalg.norm(offset, axis=1)
        units = offset / np.maximum(distance_m, 1e-9)[:, None]
        design = np.column_stack((units, np.ones(len(units))))
        fit = linear_fit(sphere, points, units, design, distance_m - sphere[3])
        step = fit.gain @ fit.residuals_m
        if np.abs(step).max() < CONVERGED_M:
            return fit
        sphere = sphere + step
    raise DepthcellError(f"no sphere of {2e3 * radius_m:g} mm diameter fits what was taken for one; check the artefact")


def sphere_bias_m(fit: ShapeFit, cell: Cell) -> NDArray[np.float64]:
    """What noise adds to the parameters (x, y, z, R) of a sphere's fit on average, to be taken off.

    A point that noise takes out by e moves along the surface by t e (`slants`). Its unit vector turns by t e / R, and
    its distance grows by another `|t|² e² / (2 R)`: both of second order, but they never cancel. With `E(e²) = sigma²`
    the normal equations `sum u' (|p - c| - R) / sigma²`, `u' = (u, 1)`, gain `sum (t, 0) / R + u' |t|² / (2 R)`.
    """
    along = slants(fit.points, fit.directions, cell)
    turned = np.column_stack((along, np.zeros(len(along)))) / fit.parameters[3]
    outwards = fit.design * np.square(along).sum(axis=1, keepdims=True) / (2 * fit.parameters[3])
    weight = 1 / np.square(fit.points.sigma_m)
    normal = (fit.design.T * weight) @ fit.design
    return np.asarray(np.linalg.solve(normal, (turned + outwards).sum(axis=0)), dtype=np.float64)


def sphere_residuals_m(points: SurfacePoints, fit: ShapeFit) -> NDArray[np.float64]:
    """Radial distances (N,) of points from a fitted sphere, positive outside."""
    return np.asarray(np.linalg.norm(points.points_cell - fit.parameters[:3], axis=1) - fit.parameters[3])


def find_plate(points: SurfacePoints, size_m: tuple[float, float]) -> NDArray[np.intp]:
    """Points (M,) of the largest plane that is no larger than the plate.

    Raises:
        DepthcellError: there is no such plane.
    """
    best: NDArray[np.intp] = np.empty(0, np.intp)
    for normal, offset_m in plane_candidates(points, max(size_m)):
        chosen = _refined_plane(points, normal, offset_m, max(size_m))
        if len(chosen) > max(len(best), MIN_POINTS) and _fits_into(points.points_cell[chosen], size_m):
            best = chosen
    if not len(best):
        raise DepthcellError(
            f"no plane of up to {size_m[0] * 1e3:g} x {size_m[1] * 1e3:g} mm was measured; "
            "check the artefact's size, and that it stands free"
        )
    return best


def fit_plane(points: SurfacePoints) -> ShapeFit:
    """Least-squares plane: parameters are the distance at the points' middle, and two tilts times the points' extent.

    Minimised is the sum of squared distances along the normal, each over its variance.
    """
    weight = 1 / np.square(points.sigma_m)
    middle = np.average(points.points_cell, axis=0, weights=weight)
    offset = points.points_cell - middle
    _, axes = np.linalg.eigh((offset * weight[:, None]).T @ offset)
    normal = axes[:, 0] * np.sign(points.normals_cell.mean(axis=0) @ axes[:, 0])
    extent_m = float(np.sqrt(np.mean(np.square(offset @ axes[:, 1:]))))
    design = np.column_stack((np.ones(len(offset)), offset @ axes[:, 1:] / extent_m))
    directions = np.broadcast_to(normal, offset.shape)
    return linear_fit(np.array([normal @ middle, 0, 0]), points, directions, design, offset @ normal)


def plane_residuals_m(points: SurfacePoints, fit: ShapeFit) -> NDArray[np.float64]:
    """Signed distances (N,) of points from a fitted plane, positive outside."""
    return np.asarray(points.points_cell @ fit.directions[0] - fit.parameters[0])


@dataclass(frozen=True, slots=True, eq=False)
class _Ball:
    """A sphere found: its points, where it is, and how large."""

    members: NDArray[np.intp]
    centre_m: NDArray[np.float64]
    radius_m: float

    def is_like(self, radius_m: float) -> bool:
        return 1 / SIZE_SLACK < self.radius_m / radius_m < SIZE_SLACK


def _balls(points: SurfacePoints, radius_m: float, wanted: int) -> list[_Ball]:
    """Spheres of about this radius, the one with most votes first; no more are looked for once enough were found."""
    free = np.ones(len(points), np.bool_)
    votes = points.points_cell - radius_m * points.normals_cell
    balls: list[_Ball] = []
    for _ in range(MOST_BALLS):
        if free.sum() < MIN_POINTS or sum(ball.is_like(radius_m) for ball in balls) >= wanted:
            break
        centre_m = _most_voted(votes[free], radius_m / 3)
        about = np.flatnonzero(free & (np.abs(points.points_cell - centre_m) < 2 * radius_m).all(axis=1))
        ball = _refined_ball(points, about, centre_m, radius_m)
        free[about[np.linalg.norm(points.points_cell[about] - centre_m, axis=1) < 1.5 * radius_m]] = False
        if ball is not None:
            balls.append(ball)
            free[ball.members] = False
    return balls


def _refined_ball(
    points: SurfacePoints, free: NDArray[np.intp], centre_m: NDArray[np.float64], radius_m: float
) -> _Ball | None:
    positions, normals = points.points_cell[free], points.normals_cell[free]
    near_m = np.maximum(SIGMAS * points.sigma_m[free], NEAR * 2 * radius_m)
    found_m = radius_m
    chosen = np.empty(0, np.intp)
    for turn in range(REFINEMENTS):
        wide = 3.0 if turn == 0 else 1.0
        offset = positions - centre_m
        distance_m = np.linalg.norm(offset, axis=1)
        outwards = np.einsum("ij,ij->i", offset, normals) / np.maximum(distance_m, 1e-9)
        chosen = np.flatnonzero((np.abs(distance_m - found_m) < wide * near_m) & (outwards > SAME_WAY))
        if len(chosen) < MIN_POINTS:
            return None
        try:
            fit = fit_sphere(points[free[chosen]].thinned(), radius_m)
        except (DepthcellError, np.linalg.LinAlgError):
            return None
        centre_m, found_m = fit.parameters[:3], float(fit.parameters[3])
    return _Ball(free[chosen], centre_m, found_m)


def _most_voted(votes: FloatArray, reach_m: float) -> NDArray[np.float64]:
    """The place (3,) about which most votes (N, 3) lie: the fullest cube, then means within reach of it."""
    votes = votes[:: max(len(votes) // MOST_VOTES, 1)]
    numbers, counts = np.unique(_numbered(np.floor(votes / reach_m)), return_counts=True)
    fullest = _numbered(np.floor(votes / reach_m)) == numbers[counts.argmax()]
    place = votes[fullest].mean(axis=0)
    for _ in range(REFINEMENTS):
        place = votes[np.linalg.norm(votes - place, axis=1) < 1.5 * reach_m].mean(axis=0)
    return np.asarray(place, dtype=np.float64)


def _numbered(cells: FloatArray) -> NDArray[np.int64]:
    """One number (N,) for each row of whole numbers (N, K): alike where the rows are."""
    steps = (cells - cells.min(axis=0)).astype(np.int64)
    return np.asarray(np.ravel_multi_index(tuple(steps.T), tuple(steps.max(axis=0) + 1)), dtype=np.int64)


def plane_candidates(points: SurfacePoints, size_m: float) -> list[tuple[NDArray[np.float64], float]]:
    """Planes that many points agree on, the most agreed first: normals in steps of 6°, offsets in steps of size / 20.

    What lies on one candidate votes for no other, so that a large floor cannot outvote all that stands on it.
    """
    points = points.thinned(MOST_VOTES)
    positions, normals = points.points_cell, points.normals_cell
    step_m = size_m / 20
    candidates: list[tuple[NDArray[np.float64], float]] = []
    for _ in range(MOST_PLANES):
        if len(positions) < MIN_POINTS:
            break
        along_m = np.einsum("ij,ij->i", positions, normals)
        keys = _numbered(np.column_stack((np.round(normals / 0.1), np.round(along_m / step_m))))
        _, members, counts = np.unique(keys, return_inverse=True, return_counts=True)
        if counts.max() < MIN_POINTS / 4:
            break
        of_bin = members == counts.argmax()
        normal = normals[of_bin].mean(axis=0)
        normal /= np.linalg.norm(normal)
        offset_m = float(np.median(positions[of_bin] @ normal))
        candidates.append((normal, offset_m))
        left = (normals @ normal < SAME_WAY) | (np.abs(positions @ normal - offset_m) > step_m)
        positions, normals = positions[left], normals[left]
    return candidates


def largest_patch(points_cell: NDArray[np.float64], normal: NDArray[np.float64], size_m: float) -> NDArray[np.intp]:
    """Points (M,) of the largest connected patch, seen along the normal, without what lies far off."""
    first = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    first /= np.linalg.norm(first)
    flat = points_cell @ np.column_stack((first, np.cross(normal, first)))
    cells = np.floor((flat - flat.min(axis=0)) / (size_m / PATCH_CELLS)).astype(np.int64)
    if (cells.max(axis=0) > MOST_CELLS).any():
        cells = np.minimum(cells, MOST_CELLS)
    image = np.zeros(cells.max(axis=0) + 3, np.uint8)
    image[cells[:, 0] + 1, cells[:, 1] + 1] = 1
    _, labels = cv2.connectedComponents(cv2.dilate(image, np.ones((3, 3), np.uint8)))
    label = labels[cells[:, 0] + 1, cells[:, 1] + 1]
    return np.flatnonzero(label == np.bincount(label).argmax())


def _refined_plane(
    points: SurfacePoints, normal: NDArray[np.float64], offset_m: float, size_m: float
) -> NDArray[np.intp]:
    chosen = np.empty(0, np.intp)
    near_m = np.maximum(SIGMAS * points.sigma_m, NEAR * size_m / 2)
    same_way = points.normals_cell @ normal > SAME_WAY
    for turn in range(REFINEMENTS):
        wide = 4.0 if turn < REFINEMENTS // 2 else 1.0
        inside = same_way & (np.abs(points.points_cell @ normal - offset_m) < wide * near_m)
        chosen = np.flatnonzero(inside)
        if len(chosen) < MIN_POINTS:
            return chosen
        chosen = chosen[largest_patch(points.points_cell[chosen], normal, size_m)]
        if len(chosen) < MIN_POINTS:
            return chosen
        fit = fit_plane(points[chosen].thinned())
        normal, offset_m = fit.directions[0], float(fit.parameters[0])
    return chosen


def _fits_into(points_cell: NDArray[np.float64], size_m: tuple[float, float]) -> bool:
    """Whether the points' smallest enclosing rectangle is no larger than the plate, with some slack."""
    offset = points_cell - points_cell.mean(axis=0)
    _, axes = np.linalg.eigh(offset.T @ offset)
    _, sides, _ = cv2.minAreaRect((offset @ axes[:, 1:]).astype(np.float32))
    return bool(np.all(np.sort(sides) <= SIZE_SLACK * np.sort(size_m)))
