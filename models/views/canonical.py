"""Canonical views: what each camera sees of the perfect part in its nominal pose, place by place."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import Cell, CellCamera
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.reference import Reference

GRAZING = math.cos(math.radians(75.0))
"""Cosine of incidence below which fusion drops a point."""

MARGIN = 0.04
"""Free border around the part, as a share of the larger side of its projection."""

SIDES_PX = (32, 2048)

Bounds = tuple[FloatArray, FloatArray]
"""Lower and upper corner (3,) of a box, metres."""


@dataclass(frozen=True, slots=True)
class ViewCamera:
    """The pinhole camera that a canonical view is taken with: a square cut-out of the depth camera's ideal image.

    Attributes:
        intrinsics: S x S pixels, without distortion.
        T_depth_part: nominal pose of the part in the frame of the depth camera.
    """

    intrinsics: Intrinsics
    T_depth_part: RigidTransform


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalViews:
    """The views of a part in a cell, the same for every part. V views of S x S pixels.

    Attributes:
        serials: of the V cameras.
        points_part: (V, S, S, 3) float32, metres, the reference's place behind each pixel; NaN off the part.
        normals_part: (V, S, S, 3) float32, out of the material; NaN off the part.
        expected: (V, S, S) bool, the part lies there, within the region, and the depth camera sees it steeply enough
            to measure.
        cosine: (V, S, S) float32, of incidence, 0 off the part.
        pixel_m: (V,) float32, median spacing of neighbouring places on the part.
        z_nominal_m: (V,) float32, median depth.
        sha256: of all that they rest on: reference, nominal pose, cameras, region, size. A model holds for one alone.
        cameras: the V cameras they are taken with.
    """

    serials: tuple[str, ...]
    points_part: NDArray[np.float32]
    normals_part: NDArray[np.float32]
    expected: NDArray[np.bool_]
    cosine: NDArray[np.float32]
    pixel_m: NDArray[np.float32]
    z_nominal_m: NDArray[np.float32]
    sha256: str
    cameras: tuple[ViewCamera, ...] = ()

    @property
    def side_px(self) -> int:
        """S."""
        return int(self.expected.shape[-1])


def build_canonical(
    reference: Reference,
    T_cell_part: RigidTransform,
    cell: Cell,
    serials: Sequence[str],
    side_px: int = 256,
    bounds_part: Bounds | None = None,
) -> CanonicalViews:
    """Look at the perfect part from every depth camera's place.

    Args:
        reference: the perfect part.
        T_cell_part: nominal pose, in which the fixture should hold it.
        cell: where the cameras stand.
        serials: of the cameras, in the order of the views.
        side_px: S.
        bounds_part: box in the frame "part" outside of which nothing is measured, such as a recipe's region.

    Raises:
        DepthcellError: `side_px` is out of range, a camera is named twice or is not of this cell, or does not see the
            part.
    """
    if not SIDES_PX[0] <= side_px <= SIDES_PX[1]:
        raise DepthcellError(f"side_px {side_px}: must be {SIDES_PX[0]} to {SIDES_PX[1]}")
    if not serials or len(set(serials)) != len(serials):
        raise DepthcellError(f"canonical views: name each camera once, got {', '.join(serials) or 'none'}")
    lower, upper = bounds_part or reference.bounds_part
    held: Bounds = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    shots = [_shot(reference, T_cell_part, cell.camera(serial), side_px, held) for serial in serials]
    return CanonicalViews(
        serials=tuple(serials),
        points_part=np.stack([shot.points_part for shot in shots]),
        normals_part=np.stack([shot.normals_part for shot in shots]),
        expected=np.stack([shot.expected for shot in shots]),
        cosine=np.stack([shot.cosine for shot in shots]),
        pixel_m=np.array([shot.pixel_m for shot in shots], np.float32),
        z_nominal_m=np.array([shot.z_nominal_m for shot in shots], np.float32),
        sha256=_identity(reference, T_cell_part, [cell.camera(serial) for serial in serials], side_px, held),
        cameras=tuple(shot.camera for shot in shots),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Shot:
    """One view, with what `CanonicalViews` says of it."""

    camera: ViewCamera
    points_part: NDArray[np.float32]
    normals_part: NDArray[np.float32]
    expected: NDArray[np.bool_]
    cosine: NDArray[np.float32]
    pixel_m: float
    z_nominal_m: float


def _shot(reference: Reference, T_cell_part: RigidTransform, camera: CellCamera, side_px: int, bounds: Bounds) -> _Shot:
    T_depth_part = camera.T_cell_depth.inverse() @ T_cell_part
    unseen = DepthcellError(
        f"camera {camera.serial}: does not see the part in its nominal pose; correct the pose, the region or the cell",
        Reason.RECIPE_INVALID,
    )
    intrinsics = _framing(T_depth_part @ np.clip(reference.vertices_part, *bounds), camera.depth, side_px)
    if intrinsics is None:
        raise unseen
    T_part_depth = T_depth_part.inverse()
    rays = T_part_depth.rotate(intrinsics.rays())
    z_m, normals_part = reference.first_hits(T_part_depth.translation_m, rays)
    points_part = (T_part_depth.translation_m + rays * z_m[..., None]).astype(np.float32)
    # Where a ray grazes the seam of two triangles it may meet one from behind; it then counts as unseen.
    cosine = -np.einsum("ijk,ijk->ij", normals_part, rays) / np.linalg.norm(rays, axis=-1)
    on_part = np.isfinite(z_m)
    cosine = np.where(on_part, cosine, 0.0).astype(np.float32)
    pixels = camera.depth.project(T_depth_part @ points_part)
    with np.errstate(invalid="ignore"):
        in_image = ((pixels >= 0) & (pixels <= (camera.depth.width_px - 1, camera.depth.height_px - 1))).all(axis=-1)
        in_region = ((points_part >= bounds[0] - 1e-6) & (points_part <= bounds[1] + 1e-6)).all(axis=-1)
    expected = on_part & in_image & in_region & (cosine > GRAZING)
    if not expected.any():
        raise unseen
    return _Shot(
        ViewCamera(intrinsics, T_depth_part),
        points_part,
        normals_part,
        expected,
        cosine,
        _spacing_m(points_part, expected),
        float(np.median(z_m[expected])),
    )


def _framing(corners_depth: FloatArray, depth: Intrinsics, side_px: int) -> Intrinsics | None:
    """The square that frames points (N, 3) as far as the depth image reaches; None where it sees none of them."""
    if not (corners_depth[:, 2] > 0).all():
        return None
    ideal = corners_depth[:, :2] / corners_depth[:, 2:]
    border = depth.rays()[..., :2].reshape(-1, 2)
    lower = np.maximum(ideal.min(axis=0), border.min(axis=0))
    upper = np.minimum(ideal.max(axis=0), border.max(axis=0))
    if not (lower < upper).all():
        return None
    middle, half = (lower + upper) / 2, float((upper - lower).max()) * (0.5 + MARGIN)
    focal_px = (side_px - 1) / (2 * half)
    cx_px, cy_px = (side_px - 1) / 2 - focal_px * middle
    return Intrinsics(side_px, side_px, focal_px, focal_px, float(cx_px), float(cy_px))


def _spacing_m(points_part: NDArray[np.float32], expected: NDArray[np.bool_]) -> float:
    """Median distance between neighbouring places, along rows and columns."""
    along = np.linalg.norm(np.diff(points_part, axis=1), axis=-1)[expected[:, 1:] & expected[:, :-1]]
    across = np.linalg.norm(np.diff(points_part, axis=0), axis=-1)[expected[1:] & expected[:-1]]
    both = np.concatenate((along, across))
    return float(np.median(both)) if len(both) else 0.0


def _identity(
    reference: Reference, T_cell_part: RigidTransform, cameras: Sequence[CellCamera], side_px: int, bounds: Bounds
) -> str:
    digest = hashlib.sha256(f"canonical views 1\n{reference.sha256}\n{side_px}\n".encode())
    numbers = [T_cell_part.matrix, *bounds, *(camera.T_cell_depth.matrix for camera in cameras)]
    for array in numbers:
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    for camera in cameras:
        digest.update(f"{camera.serial}\n{camera.depth!r}\n".encode())
    return digest.hexdigest()
