"""What a person looks at: each camera's view of a part, its deviation in colour, every finding outlined and labelled.

The colours are those of a metrology report, in bands: grey is nominal, blue is missing material, red is excess; the
two are told apart by colour-blind readers too. Pictures serve the eye alone; nothing is measured in them.
"""

import base64
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.view import View
from depthcell.inspect.inspection import Inspection
from depthcell.inspect.verdict import Finding

BAND_EDGES = (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0)
"""Limits of the colour bands in units of the tolerance."""

BAND_COLORS = ("#053061", "#2166ac", "#4393c3", "#b3d4e6", "#e8e8e8", "#f7cbb0", "#e0705a", "#b2182b", "#67001f")
"""C. Brewer's RdBu with a grey middle, from far below nominal to far above: one more than there are edges."""

UNSEEN_RGB = (38, 43, 51)
SMOOTHING_PX = 3
MIN_OUTLINE_PX = 6
JPEG_QUALITY = 88
MIN_CIRCLE_PX = 6.0
MARGIN_PX = 12
MAX_LABELS = 10
LABEL_HEIGHT = 0.05
"""Of a line of text, as a share of the picture's width."""
LABEL_LINES = (0, 1, -1, 2, -2, 3, -3, 4, -4)
MAX_LABEL_AWAY_LINES = 4
LabelSide = Literal["start", "end"]
SIDES: tuple[LabelSide, ...] = ("start", "end")


@dataclass(frozen=True, slots=True)
class Mark:
    """One finding in one picture.

    Attributes:
        number: of the finding in the verdict, from 1.
        outlines: SVG path data around its regions.
        column_px, row_px, radius_px: of a circle around it.
        label_column_px, label_row_px, label_side: where its label is written; "start" is to the right, "end" left.
        points: how many of its points this camera sees.
        label: number and size, such as "1: -0.82 mm".
        title: the finding in words.
    """

    number: int
    outlines: str
    column_px: float
    row_px: float
    radius_px: float
    points: int
    label: str
    title: str
    label_column_px: float = 0.0
    label_row_px: float = 0.0
    label_side: LabelSide = "start"


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
        _picture(
            inspection, inspection.fused.cloud, view, cell.camera(view.serial).T_cell_depth.inverse(), tolerance_mm
        )
        for view in inspection.fused.views
        if view.valid.any()
    )


def band_colors(deviation_mm: NDArray[np.floating[Any]], tolerance_mm: float) -> NDArray[np.uint8]:
    """Red, green, blue (..., 3) of signed deviations (...), in the bands of `BAND_EDGES`."""
    palette = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in BAND_COLORS], dtype=np.uint8)
    colors: NDArray[np.uint8] = palette[np.digitize(deviation_mm / tolerance_mm, BAND_EDGES)]
    return colors


def size_in_words(finding: Finding) -> str:
    """The one number that says most about a finding: its depth, or its area where it has none."""
    if finding.depth_mm is None:
        return f"{finding.area_mm2.value:.0f} mm²"
    return f"{finding.depth_mm.value:+.2f} mm".replace("-", "−")


def _picture(
    inspection: Inspection, cloud: PartCloud, view: View, T_depth_cell: RigidTransform, tolerance_mm: float
) -> ViewPicture:
    splat = _Splat.of(cloud, view, T_depth_cell)
    deviation_mm = _smoothed(splat.image(inspection.deviation_m) * np.float32(1000.0))
    seen = np.isfinite(deviation_mm)
    unseen = np.array(UNSEEN_RGB, dtype=np.uint8)
    picture = np.where(view.colored[..., None], view.colors // 2, unseen)
    lit = band_colors(deviation_mm[seen], tolerance_mm) * _relief(view, T_depth_cell)[seen][:, None]
    picture[seen] = lit.astype(np.uint8)
    crop_px = _crop(seen | view.valid)
    marks = _labelled(_marks(inspection, splat, view, T_depth_cell), crop_px)
    height_px, width_px = view.depth_m.shape
    return ViewPicture(
        serial=view.serial,
        width_px=width_px,
        height_px=height_px,
        crop_px=crop_px,
        deviation_uri=_data_uri("png", picture),
        photo_uri=_data_uri("jpeg", np.where(view.colored[..., None], view.colors, unseen))
        if view.colored.any()
        else None,
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
        if len(points):
            mark = _outlined(number, finding, splat.mask(points))
        elif inspection.alignment is not None:
            mark = _encircled(number, finding, view, T_depth_cell @ inspection.alignment.T_cell_part)
        else:
            mark = None
        if mark is not None:
            marks.append(mark)
    return tuple(marks)


def _outlined(number: int, finding: Finding, mask: NDArray[np.uint8]) -> Mark | None:
    """Outline the points of a finding; None where this camera sees too few of them."""
    rows, columns = np.nonzero(mask)
    if len(rows) < MIN_OUTLINE_PX:
        return None
    closed = cv2.dilate(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)), np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    column_px, row_px = float(np.median(columns)), float(np.median(rows))
    return Mark(
        number=number,
        outlines=" ".join(_path(contour[:, 0, :]) for contour in contours),
        column_px=column_px,
        row_px=row_px,
        radius_px=float(np.hypot(columns - column_px, rows - row_px).max()),
        points=len(rows),
        label=f"{number}: {size_in_words(finding)}",
        title=finding.text,
    )


def _path(pixels: NDArray[Any]) -> str:
    """SVG path around pixels (N, 2) given as (column, row); SVG counts from a pixel's corner, not its centre."""
    return "M" + " ".join(f"{column + 0.5:g},{row + 0.5:g}" for column, row in pixels) + "Z"


def _encircled(number: int, finding: Finding, view: View, T_depth_part: RigidTransform) -> Mark | None:
    """Draw a circle where a finding without points lies, such as a bore that is not there; None out of the picture."""
    point_depth = T_depth_part @ (np.array(finding.position_mm.value) / 1000.0)
    column_px, row_px = (float(value) for value in view.intrinsics.project(point_depth))
    if not (0 <= column_px < view.intrinsics.width_px and 0 <= row_px < view.intrinsics.height_px):
        return None
    radius_m = math.sqrt(finding.area_mm2.value / math.pi) / 1000.0
    radius_px = max(MIN_CIRCLE_PX, radius_m * view.intrinsics.fx_px / float(point_depth[2]))
    left_px, arc = column_px - radius_px, f"a{radius_px:.1f},{radius_px:.1f} 0 1 0"
    return Mark(
        number=number,
        outlines=f"M{left_px:.1f},{row_px:.1f} {arc} {2 * radius_px:.1f},0 {arc} {-2 * radius_px:.1f},0Z",
        column_px=column_px,
        row_px=row_px,
        radius_px=radius_px,
        points=0,
        label=f"{number}: {size_in_words(finding)}",
        title=finding.text,
    )


def _crop(shown: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what is shown, with a margin."""
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    top, bottom = max(0, int(rows[0]) - MARGIN_PX), min(shown.shape[0], int(rows[-1]) + MARGIN_PX)
    left, right = max(0, int(columns[0]) - MARGIN_PX), min(shown.shape[1], int(columns[-1]) + MARGIN_PX)
    return left, top, right - left, bottom - top


def _labelled(marks: tuple[Mark, ...], crop_px: tuple[int, int, int, int]) -> tuple[Mark, ...]:
    """Each of the first labels at the nearest place beside its mark that is inside the picture and still free."""
    line_px = crop_px[2] * LABEL_HEIGHT
    taken: list[_Box] = []
    placed: list[Mark] = []
    for mark in marks[:MAX_LABELS]:
        spots = [_label_box(mark, side, lines * line_px, line_px) for lines in LABEL_LINES for side in SIDES]
        free = [box for box in spots if box.is_inside(crop_px) and not any(box.overlaps(other) for other in taken)]
        if not free:
            placed.append(replace(mark, label=""))
            continue
        box = free[0]
        taken.append(box)
        column_px = box.left if box.side == "start" else box.right
        row_px = (box.top + box.bottom) / 2
        placed.append(replace(mark, label_column_px=column_px, label_row_px=row_px, label_side=box.side))
    return (*placed, *(replace(mark, label="") for mark in marks[MAX_LABELS:]))


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a label would stand; `side` says on which side of its mark."""

    left: float
    top: float
    right: float
    bottom: float
    side: LabelSide

    def is_inside(self, crop_px: tuple[int, int, int, int]) -> bool:
        left, top, width, height = crop_px
        across = left <= self.left and self.right <= left + width
        return across and top <= self.top and self.bottom <= top + height

    def overlaps(self, other: "_Box") -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def _label_box(mark: Mark, side: LabelSide, below_px: float, line_px: float) -> _Box:
    """The box of a mark's label on one side of it, `below_px` below its middle."""
    # Digits are a little over half as wide as a line of the report is high.
    width_px = len(mark.label) * line_px * 0.5
    away_px = min(mark.radius_px, MAX_LABEL_AWAY_LINES * line_px) + line_px / 4
    left = mark.column_px + away_px if side == "start" else mark.column_px - away_px - width_px
    top = mark.row_px + below_px - line_px / 2
    return _Box(left, top, left + width_px, top + line_px, side)


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
