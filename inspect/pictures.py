"""What a person looks at: each camera's view of a part, its deviation in colour, every finding outlined and labelled.

The colours are those of a metrology report, in bands: grey is nominal, blue is missing material, red is excess; the
two are told apart by colour-blind readers too. Pictures serve the eye alone; nothing is measured in them.
"""

import base64
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.region import Window
from depthcell.fusion.view import View
from depthcell.inspect.inspection import Inspection
from depthcell.inspect.marks import Mark, encircled, labelled, outlined

BAND_EDGES = (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0)
"""Limits of the colour bands in units of the tolerance."""

BAND_COLORS = ("#053061", "#2166ac", "#4393c3", "#b3d4e6", "#e8e8e8", "#f7cbb0", "#e0705a", "#b2182b", "#67001f")
"""C. Brewer's RdBu with a grey middle, from far below nominal to far above: one more than there are edges."""

UNSEEN_RGB = np.array([38, 43, 51], dtype=np.uint8)
SMOOTHING_PX = 3
JPEG_QUALITY = 88
MARGIN_PX = 12


@dataclass(frozen=True, slots=True)
class ViewPicture:
    """One camera's view of a part.

    Attributes:
        serial: of the camera.
        width_px, height_px: size of both images.
        crop_px: the rectangle that holds the part: left, top, width, height.
        deviation_uri: the deviation in bands of colour, as a data URI.
        photo_uri: the colour image on the depth image's grid, as a data URI; None without colour.
        marks: findings that this camera sees.
        text: what is to be seen, for those who cannot.
    """

    serial: str
    width_px: int
    height_px: int
    crop_px: tuple[int, int, int, int]
    deviation_uri: str
    photo_uri: str | None
    marks: tuple[Mark, ...]
    text: str


def view_pictures(inspection: Inspection, cell: Cell, tolerance_mm: float) -> tuple[ViewPicture, ...]:
    """One picture per camera that saw the part; none where nothing could be fused."""
    if inspection.fused is None:
        return ()
    return tuple(
        _picture(inspection, inspection.fused.cloud, view, cell.camera(view.serial), tolerance_mm)
        for view in inspection.fused.views
        if view.valid.any()
    )


def band_colors(deviation_mm: NDArray[np.floating[Any]], tolerance_mm: float) -> NDArray[np.uint8]:
    """Red, green, blue (..., 3) of signed deviations (...), in the bands of `BAND_EDGES`."""
    palette = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in BAND_COLORS], dtype=np.uint8)
    colors: NDArray[np.uint8] = palette[np.digitize(deviation_mm / tolerance_mm, BAND_EDGES)]
    return colors


def _picture(
    inspection: Inspection, cloud: PartCloud, view: View, camera: CellCamera, tolerance_mm: float
) -> ViewPicture:
    T_depth_cell = camera.T_cell_depth.inverse()
    splat = _Splat.of(cloud, view, T_depth_cell)
    deviation_mm = _smoothed(splat.image(inspection.deviation_m) * np.float32(1000.0))
    seen = np.isfinite(deviation_mm)
    picture = np.where(view.colored[..., None], view.colors // 2, UNSEEN_RGB).astype(np.uint8)
    lit = band_colors(deviation_mm[seen], tolerance_mm) * _relief(view, T_depth_cell)[seen][:, None]
    picture[seen] = lit.astype(np.uint8)
    crop_px = _crop(seen | view.valid)
    marks = labelled(_marks(inspection, splat, view, T_depth_cell), crop_px)
    height_px, width_px = view.depth_m.shape
    return ViewPicture(
        serial=view.serial,
        width_px=width_px,
        height_px=height_px,
        crop_px=crop_px,
        deviation_uri=_data_uri("png", picture),
        photo_uri=_data_uri("jpeg", _photo(view, camera)) if view.colored.any() else None,
        marks=marks,
        text=_in_words(view.serial, deviation_mm[seen], marks),
    )


@dataclass(frozen=True, slots=True)
class _Splat:
    """Where the points of a cloud fall in a camera's image. `index`: (H, W) int64, the foremost point, -1 for none."""

    index: NDArray[np.int64]
    pixel: NDArray[np.int64]

    @classmethod
    def of(cls, cloud: PartCloud, view: View, T_depth_cell: RigidTransform) -> "_Splat":
        """All points that face the camera, the nearest drawn last, each as two by two pixels to leave no gaps."""
        points_depth = T_depth_cell @ cloud.points_cell
        facing = (T_depth_cell.rotate(cloud.normals_cell) * points_depth).sum(axis=1) < 0
        pixel = np.full((len(cloud), 2), -1, dtype=np.int64)
        projected = view.intrinsics.project(points_depth[facing])
        pixel[facing] = np.nan_to_num(np.floor(projected[:, ::-1]), nan=-9).astype(np.int64)
        height_px, width_px = view.depth_m.shape
        inside = (pixel >= 0).all(axis=1) & (pixel[:, 0] < height_px - 1) & (pixel[:, 1] < width_px - 1)
        order = np.flatnonzero(inside)
        order = order[np.argsort(-points_depth[order, 2], kind="stable")]
        index = np.full((height_px, width_px), -1, dtype=np.int64)
        rows = (pixel[order, :1] + (0, 0, 1, 1)).ravel()
        columns = (pixel[order, 1:] + (0, 1, 0, 1)).ravel()
        index[rows, columns] = np.repeat(order, 4)
        return cls(index, pixel)

    def image(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """`values` (N,) of the points as an image, NaN where there is none."""
        return np.where(self.index >= 0, values[self.index], np.float32(np.nan)).astype(np.float32)

    def mask(self, points: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Where any of `points` is to be seen, (H, W), 0 or 1."""
        chosen = np.zeros(len(self.pixel) + 1, dtype=np.uint8)
        chosen[points] = 1
        return chosen[self.index]


def _smoothed(deviation_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over the measured pixels of a small window, for the eye; NaN stays NaN."""
    seen = np.isfinite(deviation_mm)
    size = (SMOOTHING_PX, SMOOTHING_PX)
    total = cv2.blur(np.where(seen, deviation_mm, np.float32(0.0)), size)
    weight = cv2.blur(seen.astype(np.float32), size)
    return np.where(seen, total / np.maximum(weight, 1e-6), np.float32(np.nan)).astype(np.float32)


def _photo(view: View, camera: CellCamera) -> NDArray[np.uint8]:
    """The colour image on the grid of the depth image, (H, W, 3).

    Where both streams come from one sensor, as in a D405, it is the image itself, holes in the depth included; else
    only what could be carried over by the depth.
    """
    painted = np.where(view.colored[..., None], view.colors, UNSEEN_RGB).astype(np.uint8)
    image = view.color_image
    T_color_depth = camera.T_color_depth
    is_one_sensor = T_color_depth is not None and np.allclose(T_color_depth.matrix, np.eye(4), atol=1e-6)
    if image is None or not is_one_sensor or camera.color != camera.depth:
        return painted
    top, bottom = max(image.window.top, view.window.top), min(image.window.bottom, view.window.bottom)
    left, right = max(image.window.left, view.window.left), min(image.window.right, view.window.right)
    shared = Window(top, bottom, left, right)
    painted[_within(shared, view.window)] = image.rgb[_within(shared, image.window)]
    return painted


def _within(window: Window, outer: Window) -> tuple[slice, slice]:
    """To index `window` out of an image that is `outer`."""
    rows, columns = window.slices
    return (
        slice(rows.start - outer.top, rows.stop - outer.top),
        slice(columns.start - outer.left, columns.stop - outer.left),
    )


def _relief(view: View, T_depth_cell: RigidTransform) -> NDArray[np.float32]:
    """Brightness (H, W), 0.7 to 1, of a surface lit from the camera: the part's shape under the colours.

    In few steps, since a smooth gradient would make the file three times as large.
    """
    rays = view.intrinsics.rays()
    normals_depth = T_depth_cell.rotate(view.normals_cell)
    facing = -(normals_depth * rays).sum(axis=-1) / np.linalg.norm(rays, axis=-1)
    brightness: NDArray[np.float32] = 0.7 + 0.3 * np.round(np.nan_to_num(facing, nan=0.7) * 10) / 10
    return brightness


def _marks(inspection: Inspection, splat: _Splat, view: View, T_depth_cell: RigidTransform) -> tuple[Mark, ...]:
    marks = []
    for number, finding in enumerate(inspection.verdict.findings, start=1):
        points = inspection.finding_points[number - 1]
        mark = outlined(number, finding, splat.mask(points))
        is_seen_without_depth = not len(points) or view.serial in finding.cameras
        if mark is None and is_seen_without_depth and inspection.alignment is not None:
            mark = encircled(number, finding, view, T_depth_cell @ inspection.alignment.T_cell_part)
        if mark is not None:
            marks.append(mark)
    return tuple(marks)


def _crop(shown: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what is shown, with a margin."""
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    top, bottom = max(0, int(rows[0]) - MARGIN_PX), min(shown.shape[0], int(rows[-1]) + MARGIN_PX)
    left, right = max(0, int(columns[0]) - MARGIN_PX), min(shown.shape[1], int(columns[-1]) + MARGIN_PX)
    return left, top, right - left, bottom - top


def _in_words(serial: str, deviation_mm: NDArray[np.float32], marks: tuple[Mark, ...]) -> str:
    text = f"Camera {serial}: "
    if deviation_mm.size == 0:
        return text + "nothing was compared with the reference."
    low_mm, high_mm = np.percentile(deviation_mm, (1, 99))
    text += f"98 % of the surface deviates by {low_mm:+.2f} to {high_mm:+.2f} mm. "
    return text + ("Marked: " + "; ".join(mark.title for mark in marks) if marks else "No finding is seen from here.")


def _data_uri(kind: Literal["png", "jpeg"], rgb: NDArray[np.uint8]) -> str:
    options = [cv2.IMWRITE_PNG_COMPRESSION, 9] if kind == "png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, encoded = cv2.imencode(f".{kind}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
