"""A fused part laid into its canonical views: every pixel holds what was measured at its place, wherever the part lies.

Places are carried into each camera's depth image and looked up there. What lies on the ray through a place need not be
that place: a part that lies aside may hide it. A measured point belongs to a place if it lies near it, or if it lies on
no surface of the reference at all, as the bottom of a dent does or the face of a bore that was never drilled.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import Cell, CellCamera
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.fuse import FusedPart
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.view import View, WindowedColor
from depthcell.models.network.partinput import (
    CHANNELS,
    DEVIATION_LIMIT_MM,
    NEIGHBOURS,
    POINT_FEATURES,
    PartInput,
)
from depthcell.models.views.canonical import GRAZING, CanonicalViews, ViewCamera

NEAR_M = 2e-3
"""A point this near to a place, along the line of sight, is that place's."""

OFF_REFERENCE_M = 5e-4
"""A point farther off the reference is on none of its surfaces."""

FAR_M = 1e-2
"""A point farther from a place is not that place's, whatever it is."""

SIGMAS = 4.0
"""Standard uncertainties that are allowed on top of all three."""

SPREAD_BITS = 10
CANDIDATES = 8
"""Points that are put in order before they are thinned, for each that is kept."""


@dataclass(frozen=True, slots=True)
class ImagingSettings:
    """How a part is laid into its views.

    Attributes:
        points: of the cloud that are kept, spread evenly over it; all of a smaller cloud.
    """

    points: int = 4096

    def __post_init__(self) -> None:
        if self.points < NEIGHBOURS + 1:
            raise DepthcellError(f"points {self.points}: must be {NEIGHBOURS + 1} or more")


@dataclass(frozen=True, slots=True, eq=False)
class Sightline:
    """What one camera's canonical rays lead to.

    Attributes:
        camera: that the view is taken with.
        anchors_part: (S·S, 3) float32, the place behind each pixel; off the part, the ray's point at the depth of the
            nearest pixel on it.
        on_part: (S·S,) bool, there is a place.
        place_z_m: (S·S,) float32, its nominal depth.
        in_color: (S·S,) bool, an expected place that the colour camera sees, steeply enough, in the nominal pose.
    """

    camera: ViewCamera
    anchors_part: NDArray[np.float32]
    on_part: NDArray[np.bool_]
    place_z_m: NDArray[np.float32]
    in_color: NDArray[np.bool_]


@lru_cache(maxsize=4)
def sightlines(views: CanonicalViews, reference: Reference, cell: Cell) -> tuple[Sightline, ...]:
    """One for each view; the same for every part.

    Raises:
        DepthcellError: the views came without their cameras.
    """
    if len(views.cameras) != len(views.serials):
        raise DepthcellError("canonical views: without their cameras; make them by build_canonical")
    return tuple(
        _sightline(views, number, reference, cell.camera(serial)) for number, serial in enumerate(views.serials)
    )


def part_input(
    part_id: str,
    fused: FusedPart,
    T_cell_part: RigidTransform,
    reference: Reference,
    views: CanonicalViews,
    cell: Cell,
    settings: ImagingSettings | None = None,
) -> PartInput:
    """What a model sees of a fused part.

    Deviation is looked up at the measured point itself, which lies on the ray through the place: with the place at X
    and depth z measured there, at `X z / X_z` in the frame of the depth camera. Depth, normals and uncertainties are
    interpolated only between four pixels that are all measured; fusion has dropped those next to an edge.

    Args:
        part_id: which part.
        fused: what was measured of it.
        T_cell_part: where it lies, from its alignment.
        reference: the perfect part.
        views: its canonical views.
        cell: the cameras that measured.
        settings: how many points.

    Raises:
        DepthcellError: nothing was measured on the part, or a camera of the views is not of this cell.
    """
    settings = settings or ImagingSettings()
    lines = sightlines(views, reference, cell)
    seen = {view.serial: view for view in fused.views}
    cloud = _spread(fused.cloud, settings.points)
    if len(cloud) < 2:
        raise DepthcellError(
            f"part {part_id}: nothing was measured on it; check the recording and the region", Reason.NOT_MEASURED
        )

    def image(number: int) -> NDArray[np.float32]:
        serial, nominal_m = views.serials[number], float(views.z_nominal_m[number])
        if serial not in seen:
            return np.zeros((len(CHANNELS), views.side_px, views.side_px), np.float32)
        return _image(seen[serial], cell.camera(serial), lines[number], nominal_m, T_cell_part, reference)

    T_part_cell = T_cell_part.inverse()
    points_part = (T_part_cell @ cloud.points_cell).astype(np.float32)
    with ThreadPoolExecutor(max_workers=len(lines) + 1) as pool:
        neighbours = pool.submit(nearest, points_part)
        images = np.stack(list(pool.map(image, range(len(lines)))))
        features = _features(cloud, points_part, T_part_cell, reference)
        lost = ~images.any(axis=(1, 2, 3))
        pixel = np.stack([seen_at(points_part, features, line) for line in lines], axis=1)
        pixel[:, lost] = -1
        return PartInput(part_id, views.serials, images, points_part, features, neighbours.result(), pixel)


def nearest(points: NDArray[np.float32]) -> NDArray[np.int32]:
    """The `NEIGHBOURS` nearest of each of N points, itself left out: (N, K). With too few points some come twice."""
    count = min(NEIGHBOURS + 1, len(points))
    _, found = KDTree(points).query(points, k=count, workers=1)
    # Of points in one place, any may come first: a point is left out of its own list wherever it stands.
    order = np.argsort(found != np.arange(len(points))[:, None], axis=1, kind="stable")
    others = np.take_along_axis(found, order, axis=1)[:, 1:]
    return np.asarray(others[:, np.arange(NEIGHBOURS) % (count - 1)], dtype=np.int32)


def seen_at(points_part: NDArray[np.float32], features: NDArray[np.float32], line: Sightline) -> NDArray[np.int32]:
    """Pixels (N,) of one view in which points (N, 3) show, `row * S + column`; -1 where its camera does not see them.

    A point that lies behind a place of the reference, and on the reference, is hidden by it.
    """
    side = line.camera.intrinsics.width_px
    T_depth_part = line.camera.T_depth_part
    in_camera = T_depth_part @ points_part
    normals = T_depth_part.rotate(np.ascontiguousarray(features[:, :3]))
    pixels = np.rint(line.camera.intrinsics.project(in_camera))
    with np.errstate(invalid="ignore"):
        inside = ((pixels >= 0) & (pixels < side)).all(axis=1)
    inside &= np.einsum("ij,ij->i", normals, in_camera) < 0
    pixel = np.where(inside, pixels[:, 1] * side + pixels[:, 0], 0).astype(np.int32)
    place_z_m = line.place_z_m[pixel]
    reach_m = np.abs(in_camera[:, 2] / place_z_m - 1) * np.linalg.norm(in_camera, axis=1)
    column = POINT_FEATURES.index
    deviation_m, sigma_m = features[:, column("deviation")] / 1e3, features[:, column("sigma")] / 1e3
    inside &= _belongs(reach_m, deviation_m, sigma_m, line.on_part[pixel])
    return np.where(inside, pixel, -1).astype(np.int32)


def _sightline(views: CanonicalViews, number: int, reference: Reference, camera: CellCamera) -> Sightline:
    view, places = views.cameras[number], views.points_part[number]
    on_part = np.isfinite(places[..., 0])
    T_depth_part = view.T_depth_part
    z_m = (T_depth_part @ places)[..., 2]
    _, nearest_place = KDTree(np.argwhere(on_part)).query(np.argwhere(~on_part))
    z_m[~on_part] = z_m[on_part][nearest_place]
    anchors = T_depth_part.inverse() @ (view.intrinsics.rays() * z_m[..., None])
    in_color = np.zeros(on_part.size, np.bool_)
    if camera.color is not None and camera.T_color_depth is not None:
        at = np.flatnonzero(views.expected[number])
        points, normals = places.reshape(-1, 3)[at], views.normals_part[number].reshape(-1, 3)[at]
        eye_part = (camera.T_color_depth @ T_depth_part).inverse().translation_m
        to_eye = eye_part - points
        steep = np.einsum("ij,ij->i", to_eye, normals) > GRAZING * np.linalg.norm(to_eye, axis=1)
        in_color[at] = steep & reference.visible(points, normals, eye_part)
    return Sightline(
        view, anchors.reshape(-1, 3).astype(np.float32), on_part.ravel(), z_m.ravel().astype(np.float32), in_color
    )


def _image(
    view: View,
    camera: CellCamera,
    line: Sightline,
    z_nominal_m: float,
    T_cell_part: RigidTransform,
    reference: Reference,
) -> NDArray[np.float32]:
    """One canonical view, (C, S, S)."""
    side = line.camera.intrinsics.width_px
    image = np.zeros((len(CHANNELS), side * side), np.float32)
    T_depth_part = camera.T_cell_depth.inverse() @ T_cell_part
    anchors_depth = T_depth_part @ line.anchors_part
    pixels = _folded(view.intrinsics.project(anchors_depth), side)
    z_m = _sampled(view.depth_m, pixels)
    sigma_m = _sampled(np.hypot(view.random_sigma_m, view.systematic_sigma_m), pixels)
    at = np.flatnonzero(np.isfinite(z_m))
    anchors_depth = anchors_depth[at]
    farther = z_m[at] / anchors_depth[:, 2]
    points_part = T_depth_part.inverse() @ (anchors_depth * farther[:, None])
    deviation_m = reference.signed_distance(points_part)
    reach_m = np.abs(farther - 1) * np.linalg.norm(anchors_depth, axis=1)
    belongs = _belongs(reach_m, deviation_m, sigma_m[at], line.on_part[at])
    at, points_part, deviation_m = at[belongs], points_part[belongs], deviation_m[belongs]

    normals = _sampled(view.normals_cell, pixels)[at]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    row = CHANNELS.index
    # Depth as the camera would have it, did the part lie in its nominal pose: so it does not tell how the part lies.
    image[row("inverse_depth"), at] = z_nominal_m / (line.camera.T_depth_part @ points_part)[:, 2] - 1
    image[row("normal_x") : row("normal_z") + 1, at] = T_cell_part.inverse().rotate(normals).T
    image[row("deviation"), at] = np.clip(1e3 * deviation_m, -DEVIATION_LIMIT_MM, DEVIATION_LIMIT_MM)
    image[row("sigma"), at] = 1e3 * sigma_m[at]
    image[row("measured"), at] = 1
    _paint(image, view.color_image, camera, line, T_depth_part)
    return image.reshape(len(CHANNELS), side, side)


def _paint(
    image: NDArray[np.float32],
    color: WindowedColor | None,
    camera: CellCamera,
    line: Sightline,
    T_depth_part: RigidTransform,
) -> None:
    """Fill the colours in, of places that the colour camera sees and of what was measured where there is no place."""
    if color is None or camera.color is None or camera.T_color_depth is None:
        return
    side = line.camera.intrinsics.width_px
    wanted = line.in_color | (~line.on_part & (image[CHANNELS.index("measured")] > 0))
    intrinsics = color.window.intrinsics(camera.color)
    points_color = (camera.T_color_depth @ T_depth_part) @ line.anchors_part
    pixels = _folded(intrinsics.project(points_color), side)
    at = np.flatnonzero(wanted & _inside(pixels, intrinsics))
    image[CHANNELS.index("red") : CHANNELS.index("blue") + 1, at] = _sampled(color.rgb, pixels)[at].T / 255
    image[CHANNELS.index("colored"), at] = 1


def _inside(pixels: NDArray[np.float32], intrinsics: Intrinsics) -> NDArray[np.bool_]:
    columns, rows = pixels[..., 0].ravel(), pixels[..., 1].ravel()
    return np.asarray(
        (columns >= 0) & (rows >= 0) & (columns <= intrinsics.width_px - 1) & (rows <= intrinsics.height_px - 1)
    )


def _belongs(
    reach_m: FloatArray, deviation_m: FloatArray, sigma_m: FloatArray, on_part: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which measured points are of the place on their ray; where there is no place, those off the reference are kept.

    Args:
        reach_m: (N,) distance along the ray between point and place.
        deviation_m: (N,) of the point from the reference.
        sigma_m: (N,) standard uncertainty of the point.
        on_part: (N,) whether the ray has a place.
    """
    slack_m = SIGMAS * sigma_m
    is_off = np.abs(deviation_m) > OFF_REFERENCE_M + slack_m
    is_near = on_part & (reach_m <= NEAR_M + slack_m)
    return np.asarray(is_near | (is_off & (reach_m <= FAR_M + slack_m)))


def _folded(pixels: FloatArray, side: int) -> NDArray[np.float32]:
    """Pixels (S·S, 2) as a map (S, S, 2) for OpenCV, which takes no NaN."""
    return np.nan_to_num(pixels.astype(np.float32), copy=False, nan=-2.0).reshape(side, side, 2)


def _sampled(grid: NDArray[np.float32] | NDArray[np.uint8], pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear samples of (H, W[, C]) at a map (S, S, 2), as (S·S[, C]); NaN where any of the four pixels is.

    OpenCV takes places to 1/32 px, which on a surface seen at 45° moves a point by less than 1/64 of a pixel's width.
    """
    missing = (math.nan,) * 4 if grid.dtype == np.float32 else (0.0,) * 4
    sampled = cv2.remap(grid, pixels, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=missing)  # type: ignore[call-overload]
    return np.asarray(sampled).reshape(-1, *grid.shape[2:])


def _features(
    cloud: PartCloud, points_part: NDArray[np.float32], T_part_cell: RigidTransform, reference: Reference
) -> NDArray[np.float32]:
    deviation_mm = 1e3 * reference.signed_distance(points_part)
    colored = np.asarray(cloud.colors.any(axis=1), dtype=np.float32)
    columns: list[FloatArray] = [
        T_part_cell.rotate(cloud.normals_cell),
        np.clip(deviation_mm, -DEVIATION_LIMIT_MM, DEVIATION_LIMIT_MM)[:, None],
        1e3 * cloud.sigma_m[:, None],
        cloud.colors / np.float32(255),
        colored[:, None],
    ]
    return np.concatenate(columns, axis=1, dtype=np.float32)


def _spread(cloud: PartCloud, count: int) -> PartCloud:
    """`count` points spread evenly over a cloud, the same ones each time; all where there are no more.

    Every so many points along a Z curve (G. M. Morton, 1966), which fills space so that neighbours on it are near.
    """
    if len(cloud) <= count:
        return cloud
    chosen = np.arange(0, len(cloud), max(1, len(cloud) // (CANDIDATES * count)))
    points = cloud.points_cell[chosen]
    lower = points.min(axis=0)
    scale = ((1 << SPREAD_BITS) - 1) / max(float((points.max(axis=0) - lower).max()), 1e-9)
    cells = ((points - lower) * scale).astype(np.uint32)
    order = np.argsort(_parted(cells[:, 0]) | _parted(cells[:, 1]) << 1 | _parted(cells[:, 2]) << 2, kind="stable")
    kept = order[(np.arange(count) * len(order)) // count]
    return cloud[np.sort(chosen[kept])]


def _parted(cells: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Two zero bits after each of the ten lowest."""
    bits = cells.astype(np.uint32)
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        bits = (bits | bits << np.uint32(shift)) & np.uint32(mask)
    return bits
