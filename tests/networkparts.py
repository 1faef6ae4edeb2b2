"""Parts for tests of the network: points on a lumpy ball, seen by cameras that look from several sides."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from depthcell.models.network.partinput import CHANNELS, NEIGHBOURS, POINT_FEATURES, Labels, PartInput

SERIALS = ("left", "right", "top")


def ball_part(seed: int, count: int = 200, side_px: int = 32, views: int = 3) -> PartInput:
    """A part of `count` points; a camera sees the half that faces it, orthographically."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    points = 0.05 * normals * (1 + 0.1 * np.sin(5 * normals[:, :1])) + rng.normal(scale=0.1, size=3)
    features = rng.random((count, len(POINT_FEATURES)))
    features[:, :3], features[:, -1] = normals, 1
    return PartInput(
        part_id=f"ball-{seed}",
        serials=SERIALS[:views],
        images=images(rng, views, side_px),
        points_part=points.astype(np.float32),
        features=features.astype(np.float32),
        neighbours=nearest(points),
        pixel=np.stack([seen_at(normals, axis, side_px) for axis in range(views)], axis=1),
    )


def images(rng: np.random.Generator, views: int, side_px: int) -> NDArray[np.float32]:
    """Noise on a disc, nothing around it."""
    row, column = np.indices((side_px, side_px)) - (side_px - 1) / 2
    disc = np.hypot(row, column) < 0.45 * side_px
    values = rng.random((views, len(CHANNELS), side_px, side_px))
    values[:, [CHANNELS.index("measured"), CHANNELS.index("colored")]] = 1
    values *= disc
    return values.astype(np.float32)


def nearest(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """The nearest neighbours of each point, itself left out, repeated where there are too few."""
    found = min(NEIGHBOURS, len(points) - 1)
    columns = np.arange(NEIGHBOURS) % found + 1
    order = np.asarray(KDTree(points).query(points, found + 1)[1], np.int32)
    return order[:, columns]


def seen_at(normals: NDArray[np.float64], axis: int, side_px: int) -> NDArray[np.int32]:
    """Pixel of each point in a camera that looks against `axis`; -1 on the far side."""
    others = [other for other in range(3) if other != axis]
    cell = np.floor((normals[:, others] * 0.44 + 0.5) * side_px).astype(np.int32)
    return np.where(normals[:, axis] > 0, cell[:, 0] * side_px + cell[:, 1], -1).astype(np.int32)


def without_points(part: PartInput) -> PartInput:
    """All depth lost: no point is left."""
    pictures = part.images.copy()
    for name in ("inverse_depth", "normal_x", "normal_y", "normal_z", "deviation", "sigma", "measured"):
        pictures[:, CHANNELS.index(name)] = 0
    empty = np.zeros(0, np.intp)
    return replace(
        part,
        images=pictures,
        points_part=part.points_part[empty],
        features=part.features[empty],
        neighbours=part.neighbours[empty],
        pixel=part.pixel[empty],
        labels=None,
    )


def without_color(part: PartInput) -> PartInput:
    """All colour lost."""
    pictures, features = part.images.copy(), part.features.copy()
    pictures[:, [CHANNELS.index(name) for name in ("red", "green", "blue", "colored")]] = 0
    features[:, [POINT_FEATURES.index(name) for name in ("red", "green", "blue", "colored")]] = 0
    return replace(part, images=pictures, features=features)


def without_camera(part: PartInput, view: int) -> PartInput:
    """One camera lost: its image black, no point seen by it."""
    pictures, pixel = part.images.copy(), part.pixel.copy()
    pictures[view], pixel[:, view] = 0, -1
    return replace(part, images=pictures, pixel=pixel)


def shuffled(part: PartInput, order: NDArray[np.intp]) -> PartInput:
    """The same part, its points in another order."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return replace(
        part,
        points_part=part.points_part[order],
        features=part.features[order],
        neighbours=place[part.neighbours[order]].astype(np.int32),
        pixel=part.pixel[order],
    )


def labelled(part: PartInput, kind: int) -> PartInput:
    """With a defect of that class on a few pixels and points."""
    pixels = np.zeros((len(part.serials), *part.images.shape[2:]), np.uint8)
    pixels[:, 10:14, 10:14] = kind
    points = np.zeros(len(part.points_part), np.uint8)
    points[:5] = kind
    return replace(part, labels=Labels(pixels, points))
