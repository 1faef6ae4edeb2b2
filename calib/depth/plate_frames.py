"""A resting plate in recordings: frames cut into places where it lay still, and where in each image it is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import DepthImage, FrameSet
from depthcell.calib.cell import DisparityNoise
from depthcell.calib.depth.noise_model import NoiseMeasurement, PlateFrames, measure_noise
from depthcell.errors import DepthcellError

PAUSE_NS = 1_500_000_000
"""Frames farther apart than this show two places of what was moved meanwhile."""
SMOOTHING_PX = 9
CURVED_PX = 0.12
"""Smoothed disparity of a plane bends by less from pixel to pixel over twice `SMOOTHING_PX`; an edge bends by more."""
LEAST_AREA_PX = 4000
FLAT_PX = 0.3
"""Scatter of a plate's smoothed disparity about a plane; what scatters more is no plate."""


def noise_on_plates(framesets: Iterable[FrameSet], baselines_m: Mapping[str, float]) -> dict[str, NoiseMeasurement]:
    """Noise of each camera, from recordings of a flat plate that lay still at several places.

    Args:
        framesets: of all cameras, in order of time, with a pause wherever the plate was moved.
        baselines_m: serial -> distance of the stereo pair.

    Raises:
        DepthcellError: a camera saw too few plates, or one has too little depth or too few frames.
    """
    plates: dict[str, list[PlateFrames]] = {serial: [] for serial in baselines_m}
    for place in resting_places(framesets):
        for serial, baseline_m in baselines_m.items():
            images = [s.frames[serial].depth for s in place if serial in s.frames]
            plate = plate_in([image for image in images if image is not None], baseline_m)
            if plate is not None:
                plates[serial].append(plate)
    measured = {}
    for serial, seen in plates.items():
        try:
            measured[serial] = measure_noise(seen, baselines_m[serial])
        except DepthcellError as error:
            raise DepthcellError(f"camera {serial}: {error}") from error
    return measured


def resting_places(framesets: Iterable[FrameSet]) -> Iterator[list[FrameSet]]:
    """Frame sets of one place after the other."""
    place: list[FrameSet] = []
    for frameset in framesets:
        if place and frameset.timestamp_ns - place[-1].timestamp_ns > PAUSE_NS:
            yield place
            place = []
        place.append(frameset)
    if place:
        yield place


def plate_in(images: Sequence[DepthImage], baseline_m: float) -> PlateFrames | None:
    """The nearest flat surface in still images of one camera; None where there is none of `LEAST_AREA_PX`.

    A surface is a connected part of the image in which disparity, which is linear over a plane, does not bend.
    """
    if not images:
        return None
    stack = np.stack([image.depth_m for image in images]).astype(np.float64)
    whole = np.asarray(np.isfinite(stack).all(axis=0))
    disparity_px = np.zeros(whole.shape)
    disparity_px[whole] = images[0].intrinsics.fx_px * baseline_m / stack[:, whole].mean(axis=0)
    smooth_px, is_known = _smoothed(disparity_px, whole)
    is_flat = (is_known & (_bend_px(smooth_px) < CURVED_PX)).astype(np.uint8)
    count, label, stats, _ = cv2.connectedComponentsWithStats(is_flat, connectivity=4)
    surfaces = [
        (float(np.median(smooth_px[label == number])), number)
        for number in range(1, count)
        if stats[number, cv2.CC_STAT_AREA] >= LEAST_AREA_PX and _is_plane(smooth_px, label == number)
    ]
    if not surfaces:
        return None
    row, column = np.nonzero(label == max(surfaces)[1])
    hull = cv2.convexHull(np.column_stack((column, row)).astype(np.float32))
    return PlateFrames(tuple(images), hull[:, 0].astype(np.float64))


def noise_of(measured: Mapping[str, NoiseMeasurement]) -> dict[str, DisparityNoise]:
    """The models alone."""
    return {serial: found.noise for serial, found in measured.items()}


def _smoothed(
    disparity_px: NDArray[np.float64], whole: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Mean over a window of what is known, and where at least half of it is."""
    size = (2 * SMOOTHING_PX + 1, 2 * SMOOTHING_PX + 1)
    weight = cv2.blur(whole.astype(np.float64), size)
    total = cv2.blur(disparity_px, size)
    return np.where(weight > 0.5, total / np.maximum(weight, 1e-9), 0.0), np.asarray((weight > 0.5) & whole)


def _bend_px(smooth_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest second difference over twice the smoothing, along rows and columns."""
    step = 2 * SMOOTHING_PX
    bend = np.zeros_like(smooth_px)
    for axis in (0, 1):
        far = np.roll(smooth_px, step, axis) + np.roll(smooth_px, -step, axis)
        bend = np.maximum(bend, np.abs(far / 2 - smooth_px))
    return bend


def _is_plane(smooth_px: NDArray[np.float64], inside: NDArray[np.bool_]) -> bool:
    row, column = np.nonzero(inside)
    design = np.column_stack((np.ones(len(row)), column, row)).astype(np.float64)
    values = smooth_px[inside]
    off = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(np.sqrt(np.mean(off**2))) < FLAT_PX
