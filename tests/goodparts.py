"""Drawn parts as the network sees them: two canonical views of one patterned plate, and parts that differ by noise."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.models.network.partinput import CHANNELS, NEIGHBOURS, POINT_FEATURES, Labels, PartInput

SIDE_PX = 64
SERIALS = ("front", "back")
DEFECTS = ("dent", "stain", "hole")


def draw_good(rng: np.random.Generator, part_id: str = "good") -> PartInput:
    """Colour noise of 2 %, depth noise of 0.03 mm smoothed over 1 px, 2 % of the pixels unmeasured."""
    images = np.zeros((len(SERIALS), len(CHANNELS), SIDE_PX, SIDE_PX), np.float32)
    rows, columns = np.indices((SIDE_PX, SIDE_PX))
    for view in range(len(SERIALS)):
        pattern = 0.4 + 0.15 * np.sin(rows / (3 + view)) * np.cos(columns / 5)
        colors = [pattern, 0.9 * pattern, 0.7 * pattern + 0.05]
        noisy = [np.clip(color + rng.normal(0, 0.02, color.shape), 0, 1) for color in colors]
        measured = (rng.random(pattern.shape) > 0.02) & (rows > 4)
        deviation = cv2.GaussianBlur(rng.normal(0, 0.06, pattern.shape), (0, 0), 1.0)
        slope = [rng.normal(0, 0.03, pattern.shape) for _ in range(2)]
        depth = [0.1 * pattern, *slope, np.sqrt(1 - slope[0] ** 2 - slope[1] ** 2), deviation]
        values = [*noisy, *(channel * measured for channel in depth), 0.03 * measured, measured, np.ones_like(pattern)]
        images[view] = np.stack(values)
    return _with_points(part_id, images, rng)


def draw_defect(rng: np.random.Generator, kind: str, part_id: str = "bad") -> PartInput:
    """`kind`: "dent", 0.6 mm deep and of no colour; "stain", of colour alone; "hole", neither measured nor bright."""
    part = draw_good(rng, part_id)
    images = part.images.copy()
    view, (row, column) = int(rng.integers(len(SERIALS))), rng.integers(16, SIDE_PX - 16, 2)
    rows, columns = np.indices((SIDE_PX, SIDE_PX))
    radius = np.hypot(rows - row, columns - column)
    mask = radius < 6
    channel = {name: images[view, number] for number, name in enumerate(CHANNELS)}
    if kind == "dent":
        channel["deviation"] -= np.where(channel["measured"] > 0, 0.6 * np.clip(1 - radius / 6, 0, 1), 0)
    elif kind == "stain":
        channel["red"][mask] += 0.25
    else:
        for name in ("inverse_depth", "normal_x", "normal_y", "normal_z", "deviation", "sigma", "measured"):
            channel[name][mask] = 0
        for name in ("red", "green", "blue"):
            channel[name][mask] = 0.05
    labels = np.zeros((len(SERIALS), SIDE_PX, SIDE_PX), np.uint8)
    labels[view, mask] = 1
    hit = part.pixel[:, view] >= 0
    points = np.zeros(len(part.points_part), np.uint8)
    points[hit] = labels[view].ravel()[part.pixel[hit, view]]
    return replace(part, images=np.clip(images, -5, 5), labels=Labels(labels, points))


def _with_points(part_id: str, images: NDArray[np.float32], rng: np.random.Generator) -> PartInput:
    count = 300
    pixel = rng.integers(0, SIDE_PX * SIDE_PX, (count, len(SERIALS))).astype(np.int32)
    pixel[rng.random(pixel.shape) < 0.3] = -1
    return PartInput(
        part_id=part_id,
        serials=SERIALS,
        images=images,
        points_part=rng.normal(0, 0.02, (count, 3)).astype(np.float32),
        features=np.zeros((count, len(POINT_FEATURES)), np.float32),
        neighbours=rng.integers(0, count, (count, NEIGHBOURS)).astype(np.int32),
        pixel=pixel,
    )
