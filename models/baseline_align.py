"""The second step of the baseline: the good parts that look most alike, each laid over the part to judge.

A part lies on its plane and turns freely about the vertical, so a good part seen at nearly the same angle is the best
reference. It is found by correlating thumbnails over all angles, laid over by an affine map (Evangelidis and Psarakis,
"Parametric image alignment using enhanced correlation coefficient maximization", IEEE TPAMI 30, 2008), then by smooth
optical flow (Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016) for what an affine map cannot
say about a solid body seen from a slightly other side.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.models.baseline_view import PartView

THUMB_PX = 48
ANGLE_STEP_DEG = 5
ECC_STEPS = 40
FLOW_SIGMA_PX = 3.0
THINNED_PX = 4


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """Where each pixel of the judged canvas lies on the canvas of a reference.

    Attributes:
        reference: index of the good part.
        column, row: (S, S) float32, pixels of the reference's canvas.
    """

    reference: int
    column: NDArray[np.float32]
    row: NDArray[np.float32]

    def thinned(self) -> "Overlay":
        """The same at every `THINNED_PX`-th pixel, to be kept for many parts; `whole` takes it back."""
        return replace(self, column=self.column[::THINNED_PX, ::THINNED_PX], row=self.row[::THINNED_PX, ::THINNED_PX])

    def whole(self) -> "Overlay":
        """A thinned overlay at every pixel again, linear between those that were kept: maps are that smooth."""
        side = THINNED_PX * self.column.shape[0]
        enlarge = np.diag((float(THINNED_PX), float(THINNED_PX), 1.0))[:2]

        def enlarged(values: NDArray[np.float32]) -> NDArray[np.float32]:
            full = cv2.warpAffine(np.ascontiguousarray(values), enlarge, (side, side), borderMode=cv2.BORDER_REPLICATE)
            return full.astype(np.float32, copy=False)

        return replace(self, column=enlarged(self.column), row=enlarged(self.row))

    def carry(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (S, S) on the reference's canvas, read at each pixel of the judged canvas; 0 around."""
        return cv2.remap(image, self.column, self.row, cv2.INTER_LINEAR).astype(np.float32, copy=False)

    def carry_view(self, view: PartView) -> PartView:
        """The reference as it looks laid over the judged part; heights are picked, never mixed."""

        def picked(image: NDArray[Any], around: float) -> NDArray[Any]:
            return cv2.remap(image, self.column, self.row, cv2.INTER_NEAREST, borderValue=(around,) * 4)

        rgb = cv2.remap(view.rgb, self.column, self.row, cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        part = picked(view.part.astype(np.uint8), 0).astype(np.bool_)
        return replace(view, rgb=rgb, height_mm=picked(view.height_mm, np.nan), part=part)


class ReferenceBank:
    """Good parts, findable by how they look at any angle."""

    def __init__(self, views: Sequence[PartView]) -> None:
        self.views = tuple(views)
        self._angles_deg = [float(angle) for angle in range(0, 360, ANGLE_STEP_DEG)]
        self._thumbs = np.stack([_thumb(view, angle) for view in self.views for angle in self._angles_deg])

    def overlays(self, view: PartView, count: int, leave_out: int | None = None) -> list[Overlay]:
        """The `count` most alike good parts, the best first, laid over `view`; `leave_out` names one not to use."""
        likeness = (self._thumbs @ _thumb(view, 0.0)).reshape(len(self.views), -1)
        if leave_out is not None:
            likeness[leave_out] = -np.inf
        nearest = np.argsort(-likeness.max(axis=1), kind="stable")[: min(count, np.isfinite(likeness[:, 0]).sum())]
        return [self._lay_over(view, int(index), self._angles_deg[int(likeness[index].argmax())]) for index in nearest]

    def _lay_over(self, view: PartView, index: int, angle_deg: float) -> Overlay:
        moving, fixed = self.views[index], _grey(view)
        affine = _refined(fixed, _grey(moving), cv2.invertAffineTransform(_turn(fixed.shape[0], angle_deg)))
        laid = cv2.warpAffine(_grey(moving), affine, fixed.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        none = np.zeros((*fixed.shape, 2), np.float32)
        with _one_thread():
            flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(fixed, laid, none)
        flow = cv2.GaussianBlur(flow, (0, 0), FLOW_SIGMA_PX)
        grid = np.indices(fixed.shape, dtype=np.float32)
        column, row = grid[1] + flow[..., 0], grid[0] + flow[..., 1]
        (a, b, c), (d, e, f) = affine.astype(np.float32)
        return Overlay(index, a * column + b * row + c, d * column + e * row + f)


def _refined(fixed: NDArray[np.uint8], moving: NDArray[np.uint8], affine: NDArray[Any]) -> NDArray[np.float64]:
    """Refine a map from pixels of `fixed` to pixels of `moving` on images of half size; as given if that diverges."""
    half = (fixed.shape[1] // 2, fixed.shape[0] // 2)
    small_fixed = cv2.resize(fixed, half, interpolation=cv2.INTER_AREA)
    small_moving = cv2.resize(moving, half, interpolation=cv2.INTER_AREA)
    linear = affine[:, :2]
    centre = np.full(2, 0.5)  # of a small pixel lies at 2 x + 0.5 in the full image
    small: NDArray[Any] = np.column_stack((linear, (affine[:, 2] + linear @ centre - centre) / 2)).astype(np.float32)
    everywhere = np.ones(small_fixed.shape, np.uint8)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, ECC_STEPS, 1e-4)
    try:
        refined = cv2.findTransformECC(small_fixed, small_moving, small, cv2.MOTION_AFFINE, criteria, everywhere, 5)[1]
    except cv2.error:
        return affine
    linear, shift = np.hsplit(np.asarray(refined, dtype=np.float64), [2])
    return np.column_stack((linear, 2 * shift[:, 0] + centre - linear @ centre))


def _thumb(view: PartView, angle_deg: float) -> NDArray[np.float32]:
    """The part's lightness, turned, small, without its mean and of unit length."""
    blurred = cv2.GaussianBlur(_grey(view), (0, 0), 2.0)
    turned = cv2.warpAffine(blurred, _turn(blurred.shape[0], angle_deg), blurred.shape[::-1])
    small = cv2.resize(turned, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    unit: NDArray[np.float32] = small / max(float(np.linalg.norm(small)), 1e-6)
    return unit


def _turn(side_px: int, angle_deg: float) -> NDArray[np.float64]:
    centre = (side_px - 1) / 2
    return np.asarray(cv2.getRotationMatrix2D((centre, centre), float(angle_deg), 1.0), dtype=np.float64)


def _grey(view: PartView) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = np.clip(view.lightness * 2.55, 0, 255).astype(np.uint8)
    return grey


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV's flow differs in the last bits with the number of threads; one gives the same map on every machine."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
