"""Depth on the face of a board, averaged over small tiles: what a depth calibration is made of.

Everything happens in disparity, where a plane is linear in the pixel, so that the mean over a tile is the value at the
middle of its pixels, whatever the tilt, and where the noise of a stereo camera is the same near and far.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import DepthImage
from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import DisparityNoise
from depthcell.calib.target.boardview import DepthTiles
from depthcell.errors import DepthcellError

MAD_TO_SIGMA = 1.4826
MODEL_FREEDOM = 8.0
"""Weight of the noise model against the tiles' own scatter, as degrees of freedom (GUM G.4.2)."""
SURFACE_TERMS = 6
"""Of a plane in disparity and its bend: 1, x, y, x², x y, y². A board's warp and a camera's wave bend it a little."""


@dataclass(frozen=True, slots=True)
class TileSettings:
    """How a board's depth is cut into tiles.

    Attributes:
        size_px: side of a tile.
        margin_px: kept clear of the outline, since at an edge the matching window mixes two surfaces.
        min_share: of a tile's pixels that must have been measured.
        min_fraction: of the frames in which a pixel must have been measured.
        outlier_sigmas: pixels and tiles farther off the surface, in robust standard deviations, are dropped.
        max_off: share of the tiles that may be dropped so before the whole view is refused.
        max_rough_px: scatter of the tiles about a smooth surface beyond which the view is refused; noise of a stereo
            camera averaged over a tile is a tenth of it.
        min_tiles: tiles that a view must keep.
    """

    size_px: int = 20
    margin_px: int = 8
    min_share: float = 0.6
    min_fraction: float = 0.5
    outlier_sigmas: float = 5.0
    max_off: float = 0.3
    max_rough_px: float = 0.3
    min_tiles: int = 8


@dataclass(frozen=True, slots=True, eq=False)
class TiledDepth:
    """A view's tiles, and what was left out.

    Attributes:
        tiles: that remain.
        frames: that were averaged.
        pixels: inside the outline and its margin.
        holes: of these, measured too seldom.
        stray: of these, off the surface: ghosts, something before the board.
        thin: tiles with too few pixels left.
        off: tiles whose mean lies off the surface.
        temporal_px: standard deviation of a pixel from frame to frame; NaN from one frame.
        bend_px: root mean square of what the surface bends in disparity over the tiles, against a plane.
    """

    tiles: DepthTiles
    frames: int
    pixels: int
    holes: int
    stray: int
    thin: int
    off: int
    temporal_px: float
    bend_px: float


@dataclass(frozen=True, slots=True)
class BoardPlace:
    """Which camera saw which board where.

    Attributes:
        serial: the camera's.
        instant, board: as in `BoardView`.
        focal_baseline_m: product f B of the camera as its cell will hold it.
    """

    serial: str
    instant: int
    board: int
    focal_baseline_m: float


def tiled_depth(
    place: BoardPlace,
    images: Sequence[DepthImage],
    outline_px: FloatArray,
    noise: DisparityNoise,
    settings: TileSettings | None = None,
) -> TiledDepth:
    """Tiles of a resting board.

    A tile's variance is the model's, `(temporal² / n + fixed²) / m` with m the number of independent patches of noise
    in a tile (`independent_patches`), pooled with the scatter of the tiles about a smooth surface as in
    `fusion.temporal`: what is wrong with the model shows in the tiles. An error that all tiles of the view share does
    not show; `depth_bias.fit_correction` finds that from view to view.

    Args:
        place: what is looked at.
        images: depth frames at that instant, one at least.
        outline_px: (K, 2) pixels (column, row) on the face of the board; their convex hull is taken. The features that
            were detected will do.
        noise: of the camera, as far as known beforehand.
        settings: how to cut.

    Raises:
        DepthcellError: there is no image or too little depth on the board, or its depth is not that of one surface.
    """
    settings = settings or TileSettings()
    where = f"depth of view {place.instant}, camera {place.serial}"
    if not images:
        raise DepthcellError(f"{where}: no depth frame; record depth beside infrared")
    patch = _averaged(images, outline_px, place.focal_baseline_m, settings)
    row, column = (axis.astype(np.float64) for axis in np.nonzero(np.isfinite(patch.mean_px)))
    if len(row) < settings.min_tiles * settings.size_px**2 * settings.min_share:
        raise DepthcellError(
            f"{where}: {len(row)} of {patch.pixels} pixels of the board have depth, too few for {settings.min_tiles} "
            "tiles; light it, bring it above the least distance, or let it fill more of the image"
        )
    values_px = patch.mean_px[np.isfinite(patch.mean_px)]
    surface = _Surface.through(column, row, values_px)
    off_px = values_px - surface.at(column, row)
    kept = np.flatnonzero(_near(off_px, settings.outlier_sigmas))
    cut = _cut(column[kept], row[kept], off_px[kept], settings)
    on = np.flatnonzero(_near(cut.off_px, settings.outlier_sigmas))
    lost = len(cut.off_px) - len(on)
    rough_px = _robust_sigma(np.abs(cut.off_px))
    if len(on) < settings.min_tiles or lost > settings.max_off * len(cut.off_px) or rough_px > settings.max_rough_px:
        raise DepthcellError(
            f"{where}: {lost} of {len(cut.off_px)} tiles lie off one smooth surface, the others scatter by "
            f"{rough_px:.2f} px; check that nothing stands before the board and that it does not mirror"
        )
    middle = np.column_stack((cut.column, cut.row))[on]
    disparity_px = surface.at(*middle.T) + cut.off_px[on]
    sigma_px = _sigma_px(middle, disparity_px, cut.count[on], _model_variance_px2(patch, noise, settings))
    pixels = middle + np.array((patch.left, patch.top))
    tiles = DepthTiles(place.serial, place.instant, place.board, pixels, disparity_px, sigma_px)
    return TiledDepth(
        tiles=tiles,
        frames=len(images),
        pixels=patch.pixels,
        holes=patch.pixels - len(row),
        stray=len(row) - len(kept),
        thin=cut.thin,
        off=lost,
        temporal_px=patch.temporal_px,
        bend_px=surface.bend_px(*middle.T),
    )


def independent_patches(size_px: int, correlation_px: float) -> float:
    """How many independent values the mean over a square tile is worth, against one pixel.

    Noise that correlates by `exp(-(r / l)²)` has over a square of side w the variance `sigma² k²` of its mean, with
    `k = w⁻² sum exp(-((a - b) / l)²)` over all pairs of the w rows: the correlation falls into a product of rows and
    columns.
    """
    if correlation_px <= 0:
        return float(size_px**2)
    places = np.arange(size_px)
    apart = np.subtract.outer(places, places) / correlation_px
    return float(np.exp(-np.square(apart)).mean() ** -2)


@dataclass(frozen=True, slots=True, eq=False)
class _Patch:
    """Mean disparity (H, W) float64 in the rectangle about the outline; NaN outside and where measured too seldom."""

    left: int
    top: int
    mean_px: NDArray[np.float64]
    pixels: int
    frames: int
    temporal_px: float


def _averaged(
    images: Sequence[DepthImage], outline_px: FloatArray, focal_baseline_m: float, settings: TileSettings
) -> _Patch:
    shape = images[0].depth_m.shape
    if any(image.depth_m.shape != shape for image in images):
        raise DepthcellError("depth of a board: its frames differ in size; give frames of one stream")
    inside = np.zeros(shape, np.uint8)
    hull = cv2.convexHull(np.asarray(outline_px, dtype=np.float32))
    cv2.fillConvexPoly(inside, np.rint(hull).astype(np.int32), 1)
    # A border that counts as outside: what lies beyond the image is not known to be board.
    margin = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * settings.margin_px + 1,) * 2)
    inside = cv2.erode(inside, margin, borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(inside)
    window = (slice(top, top + height), slice(left, left + width))
    stack = focal_baseline_m / np.stack([image.depth_m[window] for image in images]).astype(np.float64)
    seen = np.isfinite(stack)
    count = seen.sum(axis=0)
    enough = (inside[window] > 0) & (count >= max(1, math.ceil(settings.min_fraction * len(images))))
    mean_px = np.where(seen, stack, 0).sum(axis=0) / np.maximum(count, 1)
    squares = np.where(seen, np.square(stack - mean_px), 0).sum(axis=0)
    freedom = int((count[enough] - 1).sum())
    # Ghosts jump between frames; the median of the pixels' variances does not follow them.
    spread = _median_variance(squares[enough], count[enough]) if freedom > 0 else math.nan
    mean_px[~enough] = np.nan
    return _Patch(left, top, mean_px, int(inside.sum()), len(images), math.sqrt(spread))


def _median_variance(squares: NDArray[np.float64], count: NDArray[np.intp]) -> float:
    """Variance from the sums of squares of many pixels, by the median of those with the most frames.

    The median of a chi-squared variable of k degrees of freedom is `k (1 - 2 / (9 k))³` (Wilson and Hilferty, 1931).
    """
    most = int(count.max())
    freedom = most - 1
    if freedom < 1:
        return math.nan
    return float(np.median(squares[count == most])) / (freedom * (1 - 2 / (9 * freedom)) ** 3)


@dataclass(frozen=True, slots=True, eq=False)
class _Surface:
    """A plane in disparity and its bend, over coordinates from -1 to 1."""

    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    @classmethod
    def through(cls, column: FloatArray, row: FloatArray, values_px: FloatArray) -> "_Surface":
        """Robust fit: least absolute deviations by reweighting, then Tukey's biweight."""
        places = np.column_stack((column, row)).astype(np.float64)
        places, values = places[:: max(1, len(places) // 20_000)], values_px[:: max(1, len(places) // 20_000)]
        centre, half = (places.max(axis=0) + places.min(axis=0)) / 2, np.maximum(np.ptp(places, axis=0) / 2, 1.0)
        terms = _terms(places, centre, half)
        weight: FloatArray = np.ones(len(values))
        fitted: FloatArray = np.zeros(SURFACE_TERMS)
        for step in range(16):
            fitted = np.linalg.lstsq(terms * np.sqrt(weight)[:, None], values * np.sqrt(weight), rcond=None)[0]
            off = np.abs(values - terms @ fitted)
            scale = max(_robust_sigma(off), 1e-9)
            if step < 8:
                weight = 1 / np.maximum(off, 0.1 * scale)
            else:
                weight = np.square(1 - np.minimum(np.square(off / (4.685 * scale)), 1))
        return cls(centre, half, np.asarray(fitted, dtype=np.float64))

    def at(self, column: FloatArray, row: FloatArray) -> NDArray[np.float64]:
        """Disparity of the surface at pixels of the patch."""
        return np.asarray(_terms(np.column_stack((column, row)), self.centre, self.half) @ self.coefficients)

    def bend_px(self, column: FloatArray, row: FloatArray) -> float:
        """Root mean square over the pixels of what no plane in disparity explains."""
        terms = _terms(np.column_stack((column, row)), self.centre, self.half)
        values = terms @ self.coefficients
        return float(np.sqrt(np.mean(np.square(values - terms[:, :3] @ np.linalg.lstsq(terms[:, :3], values)[0]))))


def _terms(places: FloatArray, centre: FloatArray, half: FloatArray) -> NDArray[np.float64]:
    x, y = ((places - centre) / half).T
    return np.column_stack((np.ones(len(x)), x, y, x * x, x * y, y * y))


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """Tiles as columns (M,): the middle of their pixels, mean distance from the surface, and pixels."""

    column: NDArray[np.float64]
    row: NDArray[np.float64]
    off_px: NDArray[np.float64]
    count: NDArray[np.float64]
    thin: int


def _cut(column: NDArray[np.float64], row: NDArray[np.float64], off_px: FloatArray, settings: TileSettings) -> _Cut:
    size = settings.size_px
    tile = ((row // size) * (column.max() // size + 1) + column // size).astype(np.intp)
    counted = np.bincount(tile).astype(np.float64)
    full = np.flatnonzero(counted >= settings.min_share * size**2)
    columns, rows, offs = (np.bincount(tile, values)[full] / counted[full] for values in (column, row, off_px))
    return _Cut(columns, rows, offs, counted[full], int((counted > 0).sum()) - len(full))


def _model_variance_px2(patch: _Patch, noise: DisparityNoise, settings: TileSettings) -> float:
    """Of a full tile's mean by the noise model; frame to frame as measured, where there were frames to measure it."""
    temporal_px = patch.temporal_px if np.isfinite(patch.temporal_px) else noise.temporal_px
    of_pixel_px2 = temporal_px**2 / patch.frames + noise.fixed_px**2
    return of_pixel_px2 / independent_patches(settings.size_px, noise.correlation_px)


def _sigma_px(
    middle: NDArray[np.float64], disparity_px: NDArray[np.float64], count: NDArray[np.float64], model_px2: float
) -> NDArray[np.float64]:
    """Standard uncertainty (M,) of tiles: model and scatter about a smooth surface, pooled; more where pixels lack."""
    centre, half = middle.mean(axis=0), np.maximum(np.ptp(middle, axis=0) / 2, 1.0)
    terms = _terms(middle, centre, half)
    off_px = disparity_px - terms @ np.linalg.lstsq(terms, disparity_px)[0]
    freedom = max(len(middle) - SURFACE_TERMS, 0)
    pooled_px2 = (MODEL_FREEDOM * model_px2 + float(off_px @ off_px)) / (MODEL_FREEDOM + freedom)
    return np.asarray(np.sqrt(pooled_px2 * count.max() / count))


def _near(off_px: FloatArray, sigmas: float) -> NDArray[np.bool_]:
    """Within so many robust standard deviations of zero."""
    return np.abs(off_px) <= sigmas * max(_robust_sigma(np.abs(off_px)), 1e-6)


def _robust_sigma(distances: FloatArray) -> float:
    """Standard deviation of a normal distribution with this median of absolute values."""
    return MAD_TO_SIGMA * float(np.median(distances)) if len(distances) else 0.0
