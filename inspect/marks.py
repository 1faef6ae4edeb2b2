"""Marks in a picture: each finding outlined where its points are seen, with a label that keeps clear of the others."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.view import View
from depthcell.inspect.verdict import Finding

MIN_OUTLINE_PX = 6
MIN_CIRCLE_PX = 6.0
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


def outlined(number: int, finding: Finding, mask: NDArray[np.uint8]) -> Mark | None:
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


def encircled(number: int, finding: Finding, view: View, T_depth_part: RigidTransform) -> Mark | None:
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


def labelled(marks: tuple[Mark, ...], crop_px: tuple[int, int, int, int]) -> tuple[Mark, ...]:
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


def size_in_words(finding: Finding) -> str:
    """The one number that says most about a finding: its depth, or its area where it has none."""
    if finding.depth_mm is None:
        return f"{finding.area_mm2.value:.0f} mm²"
    return f"{finding.depth_mm.value:+.2f} mm".replace("-", "−")
