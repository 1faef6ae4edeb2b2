"""Find the faces of a step gauge among all that was measured, and fit them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from depthcell.calib.verify.acceptance_points import MOST_POINTS, ShapeFit, SurfacePoints, linear_fit
from depthcell.calib.verify.acceptance_shapes import MIN_POINTS, REFINEMENTS, SAME_WAY, largest_patch, plane_candidates
from depthcell.errors import DepthcellError

SEARCHED_POINTS = 120_000
SEARCH_ROUNDS = 3
EDGE_CORRELATIONS = 2.0
"""Points nearer to another face than so many correlation lengths are left out: there a matching window sees both."""
LARGEST_SCATTER = 2.0
"""Median distance from the faces, in standard uncertainties (0.67 for noise alone), above which they are no faces."""


def find_faces(points: SurfacePoints, heights_m: Sequence[float], size_m: float) -> tuple[NDArray[np.intp], ...]:
    """Points (M,) of each face of a step gauge of length `size_m`, in the order of `heights_m` above the first.

    Of the planes that stand out, and of the offsets along their normals, that pair wins under which all faces together
    hold most points, none is empty, and points scatter about the faces no more than noise lets them.

    Raises:
        DepthcellError: some face is not there.
    """
    heights = np.asarray(heights_m, dtype=np.float64)
    few = points.thinned(SEARCHED_POINTS)
    best: tuple[int, tuple[NDArray[np.float64], float]] | None = None
    for normal, offset_m in plane_candidates(few, float(np.ptp(heights)) * 4):
        for height_m in heights:
            gauge = _refined(few, (normal, offset_m - height_m), heights, size_m, SEARCH_ROUNDS)
            if gauge is not None and (best is None or gauge.count > best[0]):
                best = gauge.count, (gauge.normal, gauge.first_m)
    gauge = None if best is None else _refined(points, best[1], heights, size_m, REFINEMENTS)
    if gauge is None:
        raise DepthcellError(
            "not all faces of the step gauge were measured; turn it to the camera, or correct heights_mm"
        )
    return gauge.faces


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
class _Gauge:
    """A step gauge found: its faces' points, their normal, and the first face's offset along it."""

    faces: tuple[NDArray[np.intp], ...]
    normal: NDArray[np.float64]
    first_m: float

    @property
    def count(self) -> int:
        """Points of all faces together."""
        return sum(map(len, self.faces))


def _refined(
    points: SurfacePoints,
    start: tuple[NDArray[np.float64], float],
    heights_m: NDArray[np.float64],
    size_m: float,
    rounds: int,
) -> _Gauge | None:
    """The gauge that lies about a plane with this normal and this offset of its first face; None if there is none."""
    reach_m = float(np.diff(np.sort(np.unique(heights_m))).min()) / 3
    normal, first_m = start
    same_way = points.normals_cell @ normal > SAME_WAY
    faces: tuple[NDArray[np.intp], ...] = ()
    fit: ShapeFit | None = None
    for _ in range(rounds):
        above_m = points.points_cell @ normal - first_m
        apart_m = np.abs(above_m[:, None] - heights_m)
        on_gauge = np.flatnonzero(same_way & (apart_m.min(axis=1) < reach_m))
        if len(on_gauge) < MIN_POINTS:
            return None
        on_gauge = on_gauge[largest_patch(points.points_cell[on_gauge], normal, size_m)]
        flat = points.points_cell - (points.points_cell @ normal)[:, None] * normal
        faces = _without_edges(flat, points.correlation_m, on_gauge, apart_m[on_gauge].argmin(axis=1), len(heights_m))
        if min(map(len, faces)) < MIN_POINTS // 2:
            return None
        fit = fit_faces(*_joined(points, faces))
        normal = fit.directions[0]
        first_m = float(points.points_cell[faces[0]].mean(axis=0) @ normal)
    if fit is None:
        return None
    scatter = float(np.median(np.abs(fit.residuals_m) / fit.points.sigma_m))
    return _Gauge(faces, normal, first_m) if scatter < LARGEST_SCATTER else None


def _without_edges(
    flat: NDArray[np.float64],
    correlation_m: NDArray[np.float64],
    on_gauge: NDArray[np.intp],
    nearest: NDArray[np.intp],
    count: int,
) -> tuple[NDArray[np.intp], ...]:
    """Points of each face that lie far enough from all other faces, seen along the normal: `flat` has no height."""
    faces = []
    for number in range(count):
        own, others = on_gauge[nearest == number], on_gauge[nearest != number]
        if len(own) and len(others):
            away_m, _ = KDTree(flat[others]).query(flat[own])
            own = own[away_m > EDGE_CORRELATIONS * correlation_m[own]]
        faces.append(own)
    return tuple(faces)


def _joined(points: SurfacePoints, faces: tuple[NDArray[np.intp], ...]) -> tuple[SurfacePoints, NDArray[np.intp]]:
    """Points of all faces together, evenly thinned face by face, and the face of each."""
    share = max(MOST_POINTS // len(faces), 10)
    kept = [face[np.unique(np.linspace(0, len(face) - 1, min(len(face), share)).astype(np.intp))] for face in faces]
    number = np.repeat(np.arange(len(kept)), [len(face) for face in kept])
    return points[np.concatenate(kept)], number
