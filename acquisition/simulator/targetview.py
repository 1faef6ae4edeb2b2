"""What an imager sees of calibration targets: exact depth, and light averaged over each pixel's area.

A printed edge is followed to hundredths of a pixel, since a calibration looks for corners that exactly: sixteen rays
for each pixel, through the true lens, on the bent sheet, in a picture that was itself averaged over its pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.appearance import Lamp
from depthcell.acquisition.simulator.cameras import MAX_DISPARITY_PX
from depthcell.acquisition.simulator.shapes import Ground, Print, Shape, Sheet
from depthcell.acquisition.transform import FloatArray, RigidTransform

STEPS = 4
"""Rays for each pixel along either side."""
WINDOW_MARGIN_PX = 30
"""Lens distortion moves a body's border by less than this."""
NEAR_M = 0.02
INK, PAPER = 0.05, 0.80
VIGNETTING = 0.20
"""Share of light lost at a corner of the image whose ray has a tangent of 1."""
OFF_SURFACE_M = 2e-5
Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class TargetView:
    """The first surface on every pixel's ray.

    Attributes:
        depth_m: (H, W) float32, z in the camera's frame, NaN where nothing is met.
        points_cell, normals_cell: (H, W, 3) float32, metres and unit; NaN and zero where nothing is met.
        cosine: (H, W) float32 between normal and ray, 0 where nothing is met or a back is seen.
        shape: (H, W) int8 number of the body, -1 where nothing is met.
    """

    depth_m: NDArray[np.float32]
    points_cell: NDArray[np.float32]
    normals_cell: NDArray[np.float32]
    cosine: NDArray[np.float32]
    shape: NDArray[np.int8]


def view_of(shapes: Sequence[Shape], T_cell_cam: RigidTransform, lens: Intrinsics) -> TargetView:
    """Trace one ray through each pixel's centre."""
    size = (lens.height_px, lens.width_px)
    depth = np.full(size, np.inf, np.float32)
    number_of = np.full(size, -1, np.int8)
    rays = _rays(lens)[1:-1, 1:-1]
    for number, shape, window in _windows(shapes, T_cell_cam, lens):
        T_body_cam = shape.T_cell_body.inverse() @ T_cell_cam
        distance = shape.met(T_body_cam.translation_m, T_body_cam.rotate(rays[window]))
        nearer = distance < depth[window]
        depth[window][nearer] = distance[nearer]
        number_of[window][nearer] = number
    depth[np.isinf(depth)] = np.nan
    points = T_cell_cam @ (rays * depth[..., None])
    normals = np.zeros((*size, 3), np.float32)
    for number, shape, window in _windows(shapes, T_cell_cam, lens):
        mine = number_of[window] == number
        if mine.any():
            on_body = shape.T_cell_body.inverse() @ points[window][mine]
            normals[window][mine] = shape.T_cell_body.rotate(shape.normals(on_body))
    towards = -np.einsum("hwk,hwk->hw", normals, T_cell_cam.rotate(rays), optimize=False)
    cosine = np.maximum(towards, 0) / _ray_lengths(lens)
    return TargetView(depth, np.asarray(points, np.float32), normals, cosine.astype(np.float32), number_of)


def seen_from(
    view: TargetView, shapes: Sequence[Shape], T_cell_cam: RigidTransform, lens: Intrinsics, eye_cell: FloatArray
) -> NDArray[np.bool_]:
    """Which of the view's points (H, W) the right imager at `eye_cell` (3,) sees too."""
    to_eye = eye_cell.astype(np.float32) - view.points_cell
    seen: NDArray[np.bool_] = np.einsum("hwk,hwk->hw", to_eye, view.normals_cell) > 0
    for number, shape, (rows, columns) in _windows(shapes, T_cell_cam, lens):
        # What a body hides from the right imager lies left of it in the left image, by less than its disparity.
        window = rows, slice(max(0, columns.start - round(MAX_DISPARITY_PX)), columns.stop)
        asked = seen[window] & (view.shape[window] != number)
        if not asked.any():
            continue
        T_body_cell = shape.T_cell_body.inverse()
        directions = T_body_cell.rotate(-to_eye[window][asked])
        # From the eye to the point is one unit of the direction.
        seen[window][asked] = shape.met(T_body_cell @ eye_cell, directions) > 1 - OFF_SURFACE_M
    return seen


def light_of(
    view: TargetView, shapes: Sequence[Shape], T_cell_cam: RigidTransform, lens: Intrinsics, lamp: Lamp
) -> NDArray[np.float32]:
    """Light that reaches the imager, (H, W) float32, linear; white paper under the lamp gives about 1.

    Lambert with one lamp and scattered light; the lens darkens towards the corners.
    """
    albedo = np.zeros(view.depth_m.shape, np.float32)
    for number, shape in enumerate(shapes):
        albedo[view.shape == number] = shape.albedo
    for _, shape, window in _windows(shapes, T_cell_cam, lens):
        if isinstance(shape, Sheet):
            share, printed = _print_of(shape, T_cell_cam, lens, window)
            behind = np.where(view.shape[window] == -1, 0, albedo[window])
            visible = (share > 0) & _is_first(shape, shapes, view, window)
            albedo[window] = np.where(visible, printed + (1 - share) * behind, albedo[window])
    position = np.asarray(lamp.position_m, dtype=np.float32)
    to_lamp = position - view.points_cell
    square = np.einsum("hwk,hwk->hw", to_lamp, to_lamp)
    incidence = np.maximum(np.einsum("hwk,hwk->hw", to_lamp, view.normals_cell), 0) / np.sqrt(square)
    sky = lamp.ambient * (0.6 + 0.4 * np.maximum(view.normals_cell[..., 2], 0))
    falloff = lamp.intensity * float(position @ position) / square
    light = albedo / PAPER * (falloff * incidence + sky) * _vignette(lens)
    return np.asarray(np.nan_to_num(light), np.float32)


def _is_first(sheet: Sheet, shapes: Sequence[Shape], view: TargetView, window: Window) -> NDArray[np.bool_]:
    """Where the sheet, seen from its face, or what is behind it, is the first surface: no other body covers it."""
    numbers = [n for n, shape in enumerate(shapes) if shape is sheet or isinstance(shape, Ground)]
    return np.isin(view.shape[window], [-1, *numbers])


def _print_of(
    sheet: Sheet, T_cell_cam: RigidTransform, lens: Intrinsics, window: Window
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Share of each pixel that the sheet's face covers, and albedo of that share, both (h, w) float32."""
    T_body_cam = sheet.T_cell_body.inverse() @ T_cell_cam
    origin = T_body_cam.translation_m
    rows, columns = window
    size = (columns.stop - columns.start, rows.stop - rows.start)
    if origin[2] >= 0:
        return np.zeros(size[::-1], np.float32), np.zeros(size[::-1], np.float32)
    # One pixel more on all sides, so that the finer rays at the window's border lie between coarse ones too.
    rays = _rays(lens)[rows.start : rows.stop + 2, columns.start : columns.stop + 2]
    directions = T_body_cam.rotate(rays)
    distance = sheet.plane_met(origin, directions)
    # Rays that leave the sheet's plane would come back from its other side.
    distance = np.where(directions[..., 2] > 0, distance, np.float32(1e3))
    scale, first = sheet.printed.pixels_per_m, sheet.printed.origin_m
    places = [_finer(((origin[axis] + distance * directions[..., axis]) - first[axis]) * scale) for axis in (0, 1)]
    seen = cv2.remap(_two_layers(sheet.printed), places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    mean = cv2.resize(seen.astype(np.float32), size, interpolation=cv2.INTER_AREA) / 255
    share = np.ascontiguousarray(mean[..., 1], np.float32)
    return share, np.asarray(INK * share + (PAPER - INK) * mean[..., 0], np.float32)


def _finer(coarse: FloatArray) -> NDArray[np.float32]:
    """A smooth field (h + 2, w + 2) at `STEPS` times as many points of its inner (h, w) pixels."""
    height, width = coarse.shape
    fine = cv2.resize(coarse.astype(np.float32), (width * STEPS, height * STEPS), interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine[STEPS:-STEPS, STEPS:-STEPS], np.float32)


def _two_layers(printed: Print) -> NDArray[np.uint8]:
    """The picture and a layer that is 255 on the sheet: (H, W, 2); outside both are read as 0."""
    return np.stack((printed.image, np.full_like(printed.image, 255)), axis=-1)


def _windows(
    shapes: Sequence[Shape], T_cell_cam: RigidTransform, lens: Intrinsics
) -> Iterator[tuple[int, Shape, Window]]:
    """Rows and columns that each body can cover; bodies outside the image are left out."""
    T_cam_cell = T_cell_cam.inverse()
    for number, shape in enumerate(shapes):
        corners = shape.corners_m
        window = _window(None if corners is None else T_cam_cell @ (shape.T_cell_body @ corners), lens)
        if window is not None:
            yield number, shape, window


def _window(corners_cam: FloatArray | None, lens: Intrinsics) -> Window | None:
    if corners_cam is None or (corners_cam[:, 2].min() < NEAR_M < corners_cam[:, 2].max()):
        return slice(0, lens.height_px), slice(0, lens.width_px)
    if corners_cam[:, 2].max() < NEAR_M:
        return None
    pixels = corners_cam[:, :2] / corners_cam[:, 2:] * (lens.fx_px, lens.fy_px) + (lens.cx_px, lens.cy_px)
    size = (lens.width_px, lens.height_px)
    low = np.clip(np.floor(pixels.min(axis=0)) - WINDOW_MARGIN_PX, 0, size).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=0)) + WINDOW_MARGIN_PX, 0, size).astype(int)
    if (low >= high).any():
        return None
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


@lru_cache(maxsize=16)
def _rays(lens: Intrinsics) -> NDArray[np.float32]:
    """Direction with z = 1 of every pixel and of one more on all sides: (H + 2, W + 2, 3)."""
    columns, rows = np.meshgrid(np.arange(-1, lens.width_px + 1), np.arange(-1, lens.height_px + 1))
    ideal = lens.normalized(np.stack((columns, rows), axis=-1).astype(np.float64))
    return np.concatenate((ideal, np.ones((*ideal.shape[:2], 1))), axis=-1).astype(np.float32)


@lru_cache(maxsize=16)
def _ray_lengths(lens: Intrinsics) -> NDArray[np.float32]:
    return np.asarray(np.linalg.norm(_rays(lens)[1:-1, 1:-1], axis=-1), np.float32)


@lru_cache(maxsize=16)
def _vignette(lens: Intrinsics) -> NDArray[np.float32]:
    x, y = np.moveaxis(_rays(lens)[1:-1, 1:-1, :2], -1, 0)
    return np.asarray(1 - VIGNETTING * np.clip(x * x + y * y, 0, 1), np.float32)
