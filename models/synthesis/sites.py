"""Where a drawn defect goes: places on the surface, edges, and bores that could be missing."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.models.views.canonical import CanonicalViews

CREASE_COSINE = 0.8
"""Normals of two pixels beside each other that agree less lie on both sides of an edge."""

SAME_FACE_COSINE = 0.94
BORE_PX = 12
"""A gap in a face of fewer pixels is none that a camera could tell from noise."""

LARGEST_BORE_SHARE = 0.15
ROUND_SPREAD = 0.12
"""The rim of a bore keeps its distance from the centre to this share."""

RIM_PX = 2


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """A place on the surface, frame "part": centre (3,) metres, outward normal and two tangents, unit vectors."""

    centre_m: NDArray[np.float32]
    normal: NDArray[np.float32]
    tangent: NDArray[np.float32]
    bitangent: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class BoreMouth:
    """Where a bore opens into a face, as one view sees it: rim centre, `radius_m`, normal of the face."""

    spot: Spot
    radius_m: float


def spot_at(
    centre_m: NDArray[np.float32], normal: NDArray[np.float32], along: NDArray[np.float32] | None, angle_rad: float
) -> Spot:
    """A spot whose tangent runs `along`, or is turned by an angle from a fixed direction where that is None."""
    normal = (normal / np.linalg.norm(normal)).astype(np.float32)
    start = np.eye(3, dtype=np.float32)[np.argmin(np.abs(normal))] if along is None else along
    first = start - (start @ normal) * normal
    first /= np.linalg.norm(first)
    second = np.cross(normal, first)
    tangent = np.cos(angle_rad) * first + np.sin(angle_rad) * second
    return Spot(
        centre_m.astype(np.float32),
        normal.astype(np.float32),
        tangent.astype(np.float32),
        np.cross(normal, tangent).astype(np.float32),
    )


def surface_spot(views: CanonicalViews, usable: NDArray[np.bool_], rng: np.random.Generator) -> Spot | None:
    """A random usable pixel's place, `usable` (V, S, S); None where there is none."""
    chosen = _one_of(usable, rng)
    if chosen is None:
        return None
    return spot_at(views.points_part[chosen], views.normals_part[chosen], None, rng.uniform(0, 2 * np.pi))


def edge_spot(views: CanonicalViews, usable: NDArray[np.bool_], rng: np.random.Generator) -> Spot | None:
    """A random usable pixel beside an edge of the reference, its tangent along the edge; None where there is none."""
    directions = creases(views)
    chosen = _one_of(usable & directions.any(axis=-1), rng)
    if chosen is None:
        return None
    return spot_at(views.points_part[chosen], views.normals_part[chosen], directions[chosen], 0.0)


def _one_of(usable: NDArray[np.bool_], rng: np.random.Generator) -> tuple[np.intp, ...] | None:
    flat = np.flatnonzero(usable)
    return np.unravel_index(flat[rng.integers(len(flat))], usable.shape) if len(flat) else None


@lru_cache(maxsize=8)
def creases(views: CanonicalViews) -> NDArray[np.float32]:
    """(V, S, S, 3) direction of the edge at pixels one beside a crease; 0 elsewhere."""
    normals = np.where(views.expected[..., None], views.normals_part, 0).astype(np.float32)
    found = np.zeros_like(normals)
    for axis in (1, 2):
        for step in (-1, 1):
            other = np.roll(normals, step, axis=axis)
            both = (other.any(axis=-1)) & views.expected
            is_crease = both & (np.einsum("vijk,vijk->vij", normals, other) < CREASE_COSINE)
            direction = np.cross(normals, other)
            length = np.linalg.norm(direction, axis=-1, keepdims=True)
            sharp = (is_crease & (length[..., 0] > 0.1))[..., None]
            found = np.where(sharp, direction / np.maximum(length, 0.1), found)
    return found


@lru_cache(maxsize=8)
def bores(views: CanonicalViews) -> tuple[BoreMouth, ...]:
    """Round gaps within a level face of a view, in which the surface lies lower or is not seen at all."""
    return tuple(bore for view in range(len(views.serials)) for bore in _bores_of(views, view))


def _bores_of(views: CanonicalViews, view: int) -> list[BoreMouth]:
    places, normals = views.points_part[view], views.normals_part[view]
    found: list[BoreMouth] = []
    for face in _faces(views, view):
        mean = normals[face].mean(axis=0)
        mean /= np.linalg.norm(mean)
        count, gaps, stats, _ = cv2.connectedComponentsWithStats((~face).astype(np.uint8), connectivity=4)
        for gap in range(1, count):
            left, top, width, height, area = stats[gap]
            is_border = left == 0 or top == 0 or left + width == face.shape[1] or top + height == face.shape[0]
            if is_border or not BORE_PX <= area <= LARGEST_BORE_SHARE * face.sum():
                continue
            within = gaps == gap
            ring = cv2.dilate(within.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & face
            mouth = _mouth(places[ring], mean)
            heights = (places[within] - mouth.spot.centre_m) @ mean
            around = np.linalg.norm(places[ring] - mouth.spot.centre_m, axis=1)
            sunk = np.isnan(heights) | (heights < -3e-4)
            if sunk.mean() > 0.9 and around.std() < ROUND_SPREAD * around.mean():
                found.append(mouth)
    return found


def _mouth(rim: NDArray[np.float32], normal: NDArray[np.float32]) -> BoreMouth:
    """Circle through a rim (N, 3): least squares in its plane (Kåsa, IEEE Trans. Instrum. Meas. IM-25 (1976) 8)."""
    spot = spot_at(rim.mean(axis=0), normal, None, 0.0)
    u, v = (rim - spot.centre_m) @ spot.tangent, (rim - spot.centre_m) @ spot.bitangent
    (a, b, c), *_ = np.linalg.lstsq(np.stack((2 * u, 2 * v, np.ones_like(u)), axis=1), u * u + v * v, rcond=None)
    centre = spot.centre_m + a * spot.tangent + b * spot.bitangent
    return BoreMouth(spot_at(centre, normal, None, 0.0), float(np.sqrt(max(c + a * a + b * b, 0.0))))


def _faces(views: CanonicalViews, view: int) -> list[NDArray[np.bool_]]:
    """Level stretches of at least a hundredth of the part: pixels of like normals and one height that hang together."""
    normals, expected = views.normals_part[view], views.expected[view]
    codes = np.zeros(expected.shape, np.int32)
    quantised = np.rint(np.nan_to_num(normals) * 8).astype(np.int32) + 8
    codes[expected] = 1 + (quantised @ np.array([289, 17, 1]))[expected]
    faces = []
    for code in np.unique(codes[expected]):
        count, parts = cv2.connectedComponents((codes == code).astype(np.uint8), connectivity=4)
        for number in range(1, count):
            face = parts == number
            if face.sum() > 0.01 * expected.sum():
                faces += _level(views.points_part[view], normals[face].mean(axis=0), face)
    return faces


def _level(
    places: NDArray[np.float32], normal: NDArray[np.float32], face: NDArray[np.bool_]
) -> list[NDArray[np.bool_]]:
    heights = (places[face] - places[face].mean(axis=0)) @ normal
    near = np.abs(heights - np.median(heights)) < 5e-4
    if near.mean() < 0.6:
        return []
    level = face.copy()
    level[face] = near
    return [level]
