"""Find an artefact among all that was measured, and fit it: spheres, a plate, the faces of a step gauge.

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
from depthcell.calib.acceptance_points import ShapeFit, SurfacePoints, linear_fit, slants
from depthcell.calib.cell import Cell
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
    for normal, offset_m in _plane_candidates(points, max(size_m)):
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


def find_faces(points: SurfacePoints, heights_m: Sequence[float]) -> tuple[NDArray[np.intp], ...]:
    """Points (M,) of each face of a step gauge, in the order of `heights_m` above the first.

    Of the planes that stand out, and of the offsets along their normals, that pair wins under which all faces together
    hold most points while none is empty.

    Raises:
        DepthcellError: some face is not there.
    """
    heights = np.asarray(heights_m, dtype=np.float64)
    reach_m = float(np.diff(np.sort(np.unique(heights))).min()) / 3
    best: tuple[int, tuple[NDArray[np.intp], ...]] = (0, ())
    for normal, offset_m in _plane_candidates(points, float(np.ptp(heights)) * 4):
        for height_m in heights:
            faces = _refined_faces(points, normal, offset_m - height_m, heights, reach_m)
            count = sum(map(len, faces)) if faces else 0
            if count > best[0]:
                best = (count, faces)
    if not best[1]:
        raise DepthcellError(
            "not all faces of the step gauge were measured; turn it to the camera, or correct heights_mm"
        )
    return best[1]


def fit_faces(points: SurfacePoints, face: NDArray[np.intp]) -> ShapeFit:
    """Parallel planes through the faces by least squares: parameters are each face's offset, then two tilts.

    Args:
        points: of all faces.
        face: (N,) number of the face that each point lies on.
    """
    count = int(face.max()) + 1
    offset = points.points_cell.copy()
    for number in range(count):
        offset[face == number] -= points.points_cell[face == number].mean(axis=0)
    weight = 1 / np.square(points.sigma_m)
    _, axes = np.linalg.eigh((offset * weight[:, None]).T @ offset)
    normal = axes[:, 0] * np.sign(points.normals_cell.mean(axis=0) @ axes[:, 0])
    middle = points.points_cell.mean(axis=0)
    across = (points.points_cell - middle) @ axes[:, 1:]
    extent_m = float(np.sqrt(np.mean(np.square(across))))
    design = np.column_stack((np.equal.outer(face, np.arange(count)), across / extent_m)).astype(np.float64)
    values = (points.points_cell - middle) @ normal
    directions = np.broadcast_to(normal, offset.shape)
    fit = linear_fit(np.zeros(count + 2), points, directions, design, values)
    parameters = fit.gain @ values
    return linear_fit(parameters, points, directions, design, values - design @ parameters)


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


def _plane_candidates(points: SurfacePoints, size_m: float) -> list[tuple[NDArray[np.float64], float]]:
    """Planes that many points agree on, the most agreed first: normals in steps of 6°, offsets of size / 20."""
    if len(points) < MIN_POINTS:
        return []
    middle = points.points_cell.mean(axis=0)
    along_m = np.einsum("ij,ij->i", points.points_cell - middle, points.normals_cell)
    keys = _numbered(np.column_stack((np.round(points.normals_cell / 0.1), np.round(along_m / (size_m / 20)))))
    _, members, counts = np.unique(keys, return_inverse=True, return_counts=True)
    candidates = []
    for number in np.argsort(-counts)[:12]:
        if counts[number] < MIN_POINTS / 4:
            break
        of_bin = members == number
        normal = points.normals_cell[of_bin].mean(axis=0)
        normal /= np.linalg.norm(normal)
        candidates.append((normal, float(np.median(points.points_cell[of_bin] @ normal))))
    return candidates


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
        fit = fit_plane(points[chosen].thinned())
        normal, offset_m = fit.directions[0], float(fit.parameters[0])
    return chosen


def _fits_into(points_cell: NDArray[np.float64], size_m: tuple[float, float]) -> bool:
    """Whether the points' smallest enclosing rectangle is no larger than the plate, with some slack."""
    offset = points_cell - points_cell.mean(axis=0)
    _, axes = np.linalg.eigh(offset.T @ offset)
    _, sides, _ = cv2.minAreaRect((offset @ axes[:, 1:]).astype(np.float32))
    return bool(np.all(np.sort(sides) <= SIZE_SLACK * np.sort(size_m)))


def _refined_faces(
    points: SurfacePoints, normal: NDArray[np.float64], first_m: float, heights_m: NDArray[np.float64], reach_m: float
) -> tuple[NDArray[np.intp], ...]:
    faces: tuple[NDArray[np.intp], ...] = ()
    same_way = points.normals_cell @ normal > SAME_WAY
    for _ in range(REFINEMENTS):
        above_m = points.points_cell @ normal - first_m
        apart_m = np.abs(above_m[:, None] - heights_m)
        nearest = np.where(same_way & (apart_m.min(axis=1) < reach_m), apart_m.argmin(axis=1), -1)
        faces = tuple(np.flatnonzero(nearest == number) for number in range(len(heights_m)))
        if min(map(len, faces)) < MIN_POINTS // 2:
            return ()
        fit = fit_faces(*_joined(points, faces))
        normal = fit.directions[0]
        first_m = float(points.points_cell[faces[0]].mean(axis=0) @ normal)
    return faces


def _joined(
    points: SurfacePoints, faces: tuple[NDArray[np.intp], ...], most: int = 1000
) -> tuple[SurfacePoints, NDArray[np.intp]]:
    """Points of all faces together, evenly thinned face by face, and the face of each."""
    share = max(most // len(faces), 10)
    kept = [face[np.unique(np.linspace(0, len(face) - 1, min(len(face), share)).astype(np.intp))] for face in faces]
    number = np.repeat(np.arange(len(kept)), [len(face) for face in kept])
    return points[np.concatenate(kept)], number
