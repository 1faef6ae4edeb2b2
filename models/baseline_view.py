"""The first step of the baseline: find the part above its back plane and cut it out, always at one scale."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError
from depthcell.models.mvtec3d import Scan

Pixel = TypeVar("Pixel", bound=np.generic)

PLANE_TOLERANCE_M = 0.001
PLANE_TRIALS = 200
PART_HEIGHT_M = 0.003
COLOR_LIMIT = 6.0  # robust standard deviations from the colour of the back plane
CLOSING_PX = 9
PART_SIDE_PX = 224
MARGIN_PX = 20


@dataclass(frozen=True, slots=True)
class Scale:
    """How images become canvases.

    Attributes:
        factor: by which images shrink, at most 1.
        canvas_px: side of the square that is cut out of the shrunk image.
        pixel_mm: distance on the part from one shrunk pixel to the next.
    """

    factor: float
    canvas_px: int
    pixel_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class PartView:
    """One part, cut out with its bounding box in the middle of a square canvas of side S.

    Attributes:
        rgb: (S, S, 3) uint8.
        height_mm: (S, S) float32 above the back plane, NaN where not measured.
        part: (S, S) bool, the part's outline, filled.
        corner_px: (column, row) of the canvas in the shrunk image.
        image_shape: (H, W) of the image before shrinking.
    """

    rgb: NDArray[np.uint8]
    height_mm: NDArray[np.float32]
    part: NDArray[np.bool_]
    corner_px: tuple[int, int]
    image_shape: tuple[int, int]

    @property
    def lightness(self) -> NDArray[np.float32]:
        """(S, S) float32, CIE L*, 0 to 100."""
        return _lab(self.rgb)[..., 0]

    def to_image(self, canvas: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
        """Put values on the canvas back on the pixel grid of the image, (H, W) float32, 0 around the canvas."""
        shape = _shrunk(self.image_shape, factor)
        shift = np.array([[1.0, 0.0, self.corner_px[0]], [0.0, 1.0, self.corner_px[1]]])
        placed = cv2.warpAffine(canvas, shift, shape[::-1], flags=cv2.INTER_NEAREST)
        if shape != self.image_shape:
            placed = cv2.resize(placed, self.image_shape[::-1], interpolation=cv2.INTER_LINEAR)
        return placed.astype(np.float32, copy=False)


def height_above_plane(scan: Scan) -> NDArray[np.float32]:
    """(H, W) metres above the plane that most points lie on, positive towards the camera; NaN where not measured.

    Random sample consensus with a fixed seed over at most 5000 points, then the least-squares plane of the points
    within 1.5 tolerances.

    Raises:
        DepthcellError: fewer than three points are measured.
    """
    xyz_cam = scan.xyz_cam
    points = xyz_cam[np.isfinite(xyz_cam[..., 2])].astype(np.float64)
    if len(points) < 3:
        raise DepthcellError(f"{scan.name}: fewer than three points are measured; no plane can be laid through them")
    rng = np.random.default_rng(0)
    some = points[rng.choice(len(points), min(len(points), 5000), replace=False)]
    corners = some[rng.integers(0, len(some), (PLANE_TRIALS, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    normals = normals[lengths > 0] / lengths[lengths > 0, None]
    offsets = np.einsum("ij,ij->i", normals, corners[lengths > 0, 0])
    best = int(np.argmax((np.abs(some @ normals.T - offsets) < PLANE_TOLERANCE_M).sum(axis=0)))
    on_plane = some[np.abs(some @ normals[best] - offsets[best]) < 1.5 * PLANE_TOLERANCE_M]
    centre = on_plane.mean(axis=0)
    normal = np.linalg.svd(on_plane - centre, full_matrices=False)[2][2]
    if normal[2] > 0:
        normal = -normal
    height: NDArray[np.float32] = ((xyz_cam - centre) @ normal).astype(np.float32)
    return height


def part_outline(scan: Scan, height_m: FloatArray) -> NDArray[np.bool_]:
    """(H, W) the largest thing that stands above the back plane or differs from it in colour, holes filled.

    Raises:
        DepthcellError: nothing does.
    """
    lab = cv2.GaussianBlur(_lab(scan.rgb), (0, 0), 1.0)
    plane = lab[np.abs(height_m) < 1.5 * PLANE_TOLERANCE_M]
    median = np.median(plane, axis=0)
    spread = 1.4826 * np.median(np.abs(plane - median), axis=0) + 0.8
    differs = (np.abs(lab - median) / spread).max(axis=2) > COLOR_LIMIT
    stands_out = (differs | (np.nan_to_num(height_m) > PART_HEIGHT_M)).astype(np.uint8)
    opened = cv2.morphologyEx(stands_out, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (CLOSING_PX, CLOSING_PX))
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, disc)
    outlines = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    if not outlines:
        raise DepthcellError(f"{scan.name}: no part stands out from its back plane, in height or in colour")
    filled = np.zeros(closed.shape, np.uint8)
    cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return filled.astype(np.bool_)


def view_part(scan: Scan, scale: Scale) -> PartView:
    """Shrink, find the part and cut it out.

    Raises:
        DepthcellError: no part or no plane is found.
    """
    image_shape = (scan.rgb.shape[0], scan.rgb.shape[1])
    shape = _shrunk(image_shape, scale.factor)
    if shape != image_shape:
        rgb = cv2.resize(scan.rgb, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        xyz_cam = cv2.resize(scan.xyz_cam, shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.float32, copy=False)
        scan = Scan(scan.name, rgb, xyz_cam)
    height_m = height_above_plane(scan)
    part = part_outline(scan, height_m)
    left, top, width, height = cv2.boundingRect(part.astype(np.uint8))
    corner = (left + width // 2 - scale.canvas_px // 2, top + height // 2 - scale.canvas_px // 2)
    return PartView(
        rgb=_cut(scan.rgb, corner, scale.canvas_px, 0),
        height_mm=_cut(1000 * height_m, corner, scale.canvas_px, np.nan),
        part=_cut(part, corner, scale.canvas_px, False),
        corner_px=corner,
        image_shape=image_shape,
    )


def common_scale(scans: Iterable[Scan]) -> Scale:
    """The scale at which the longest part spans at most `PART_SIDE_PX`; images are shrunk to it, never enlarged.

    Raises:
        DepthcellError: no part or no plane is found in one of them.
    """
    sides, pixels_mm = zip(*(_measured(scan) for scan in scans), strict=True)
    factor = min(1.0, PART_SIDE_PX / max(sides))
    canvas_px = 16 * round(np.ceil((max(sides) * factor + 2 * MARGIN_PX) / 16))
    return Scale(factor, canvas_px, float(np.median(pixels_mm)) / factor)


def _measured(scan: Scan) -> tuple[int, float]:
    """Longer side of the part's bounding box in pixels, and the median step in x from one pixel to the next, in mm."""
    part = part_outline(scan, height_above_plane(scan))
    steps_m = np.abs(np.diff(scan.xyz_cam[..., 0], axis=1))
    return max(cv2.boundingRect(part.astype(np.uint8))[2:]), 1000 * float(np.nanmedian(steps_m))


def _cut(image: NDArray[Pixel], corner: tuple[int, int], side: int, around: float) -> NDArray[Pixel]:
    """A square of the image from `corner` (column, row); `around` stands where it leaves the image."""
    canvas = np.full((side, side, *image.shape[2:]), around, dtype=image.dtype)
    left, top = max(0, corner[0]), max(0, corner[1])
    inside = image[top : corner[1] + side, left : corner[0] + side]
    canvas[top - corner[1] :, left - corner[0] :][: inside.shape[0], : inside.shape[1]] = inside
    return canvas


def _shrunk(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    return round(shape[0] * factor), round(shape[1] * factor)


def _lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float32, copy=False)
