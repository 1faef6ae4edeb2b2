"""A good scan that defects are drawn onto: images and points in one place, so that both tell the same story."""

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError
from depthcell.models.network.partinput import (
    CHANNELS,
    CLASSES,
    DEVIATION_LIMIT_MM,
    POINT_FEATURES,
    Labels,
    PartInput,
)
from depthcell.models.views.canonical import CanonicalViews
from depthcell.models.views.imaging import nearest

RGB = slice(0, 3)
INVERSE_DEPTH, DEVIATION, SIGMA = (CHANNELS.index(name) for name in ("inverse_depth", "deviation", "sigma"))
NORMAL = slice(CHANNELS.index("normal_x"), CHANNELS.index("normal_z") + 1)
MEASURED, COLORED = CHANNELS.index("measured"), CHANNELS.index("colored")
GEOMETRY = [INVERSE_DEPTH, *range(NORMAL.start, NORMAL.stop), DEVIATION, SIGMA, MEASURED]
POINT_NORMAL = slice(0, 3)
POINT_DEVIATION, POINT_SIGMA = POINT_FEATURES.index("deviation"), POINT_FEATURES.index("sigma")
POINT_RGB = slice(POINT_FEATURES.index("red"), POINT_FEATURES.index("blue") + 1)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Sightlines:
    """Where the cameras of canonical views stand and look, frame "part".

    Attributes:
        centres: (V, 3) metres.
        rays: (V, S·S, 3) float32, unit length, away from the camera.
        axes: (V, 3) optical axes: depth is what a ray covers along them.
    """

    centres: NDArray[np.float64]
    rays: Floats
    axes: NDArray[np.float64]


@lru_cache(maxsize=4)
def sightlines(views: CanonicalViews) -> Sightlines:
    """Of canonical views.

    Raises:
        DepthcellError: the views do not say what they are taken with.
    """
    if not views.cameras:
        raise DepthcellError("canonical views: without cameras no defect can be drawn; build them with build_canonical")
    centres, rays, axes = [], [], []
    for camera in views.cameras:
        T_part_depth = camera.T_depth_part.inverse()
        along = T_part_depth.rotate(camera.intrinsics.rays().reshape(-1, 3))
        centres.append(T_part_depth.translation_m)
        rays.append((along / np.linalg.norm(along, axis=1, keepdims=True)).astype(np.float32))
        axes.append(T_part_depth.rotation[:, 2])
    return Sightlines(np.stack(centres), np.stack(rays), np.stack(axes))


class Canvas:
    """A copy of a part's arrays that is drawn on.

    Attributes:
        views: of the part.
        places: (V·S·S, 3) places of the reference behind the pixels, NaN off the part.
        normals: (V·S·S, 3) of the reference there.
        images: (V, C, S·S); points (N, 3), features (N, F), pixel (N, V): as of the part, changed in place.
        pixel_class, point_class: labels so far.
    """

    def __init__(self, part: PartInput, views: CanonicalViews) -> None:
        if part.serials != views.serials or part.images.shape[-1] != views.side_px:
            raise DepthcellError(f"part {part.part_id}: is of other views than those given; draw on its own")
        self._part = part
        self.views = views
        self.places, self.normals = views.points_part.reshape(-1, 3), views.normals_part.reshape(-1, 3)
        count, channels, side, _ = part.images.shape
        self.images = part.images.reshape(count, channels, side * side).copy()
        self.points, self.features, self.pixel = part.points_part.copy(), part.features.copy(), part.pixel.copy()
        before = part.labels
        self.pixel_class = np.zeros(count * side * side, np.uint8) if before is None else before.pixels.ravel().copy()
        self.point_class = np.zeros(len(self.points), np.uint8) if before is None else before.points.copy()

    def usable(self, channel: int) -> NDArray[np.bool_]:
        """(V, S, S) places of the part at which a channel says that it was measured."""
        side = self.views.side_px
        return self.views.expected & (self.images[:, channel].reshape(-1, side, side) > 0)

    def near(self, centre_m: Floats, reach_m: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Pixels (flat over all views) and points whose place lies in a box of that reach about a centre."""
        return _within(self.places, centre_m, reach_m), _within(self.points, centre_m, reach_m)

    def move_pixels(
        self, pixels: NDArray[np.intp], lift_m: Floats, normals: Floats, least_cosine: float, edge_m: float
    ) -> None:
        """Move the surface behind pixels by `lift_m` along the reference's normal; there it then has `normals`.

        A camera sees what lies on the pixel's own ray: the depth changes by `d / (n . r) * (r . a)`, a the optical
        axis, r the ray, n the reference's normal. What it would see at a flatter angle than `least_cosine` is lost, and
        what lies within `edge_m` of that. What a raised place hides behind it stays.
        """
        view, place = np.divmod(pixels, self.images.shape[2])
        lines = sightlines(self.views)
        ray, axis = lines.rays[view, place], lines.axes[view]
        facing = np.minimum(_dot(self.normals[pixels], ray), -0.05)
        z_nominal_m = self.views.z_nominal_m[view]
        z_m = z_nominal_m / (1 + self.images[view, INVERSE_DEPTH, place])
        z_m = z_m + lift_m / facing * _dot(ray, axis)
        seen = self.images[view, MEASURED, place] > 0
        self.images[view, INVERSE_DEPTH, place] = np.where(seen, z_nominal_m / z_m - 1, 0)
        self.images[view, DEVIATION, place] += np.where(seen, lift_m * 1e3, 0)
        for number, channel in enumerate(range(NORMAL.start, NORMAL.stop)):
            self.images[view, channel, place] = np.where(seen, normals[:, number], 0)
        lost = _dot(normals, ray) > -least_cosine
        self.lose_pixels(pixels[lost], edge_m)

    def lose_pixels(self, pixels: NDArray[np.intp], edge_m: float) -> None:
        """Nothing is measured there, nor within `edge_m` in the image."""
        view, place = np.divmod(pixels, self.images.shape[2])
        side = self.views.side_px
        for number in np.unique(view):
            lost = np.zeros((side, side), np.uint8)
            lost.ravel()[place[view == number]] = 1
            width_px = 2 * round(edge_m / float(self.views.pixel_m[number])) + 1
            around = np.flatnonzero(cv2.dilate(lost, np.ones((width_px, width_px), np.uint8)))
            self.images[number][np.array(GEOMETRY)[:, None], around] = 0

    def move_points(self, points: NDArray[np.intp], lift_m: Floats, along: Floats, normals: Floats) -> None:
        """Move points by `lift_m` along `along`; they then have `normals`."""
        self.points[points] += lift_m[:, None] * along
        self.features[points, POINT_DEVIATION] += lift_m * 1e3
        self.features[points, POINT_NORMAL] = normals

    def label(self, pixels: NDArray[np.intp], points: NDArray[np.intp], kind: str) -> None:
        """Mark pixels and points as of a kind; pixels without depth and without colour show nothing."""
        number = CLASSES.index(kind)
        view, place = np.divmod(pixels, self.images.shape[2])
        shown = (self.images[view, MEASURED, place] > 0) | (self.images[view, COLORED, place] > 0)
        self.pixel_class[pixels[shown]] = number
        self.point_class[points] = number

    def finished(self) -> PartInput:
        """The part as it is now."""
        shape = self._part.images.shape
        limit = np.float32(DEVIATION_LIMIT_MM)
        np.clip(self.images[:, DEVIATION], -limit, limit, out=self.images[:, DEVIATION])
        np.clip(self.images[:, RGB], 0, 1, out=self.images[:, RGB])
        np.clip(self.features[:, POINT_DEVIATION], -limit, limit, out=self.features[:, POINT_DEVIATION])
        np.clip(self.features[:, POINT_RGB], 0, 1, out=self.features[:, POINT_RGB])
        pixels = self.pixel_class.reshape(shape[0], *shape[2:])
        moved = len(self.points) > 1 and not np.array_equal(self.points, self._part.points_part)
        return replace(
            self._part,
            images=self.images.reshape(shape),
            points_part=self.points,
            features=self.features,
            neighbours=nearest(self.points) if moved else self._part.neighbours,
            pixel=self.pixel,
            labels=Labels(pixels, self.point_class),
        )


def _within(places: Floats, centre_m: Floats, reach_m: float) -> NDArray[np.intp]:
    """Rows of places (n, 3) in a box about a centre; NaN is in none. Axis by axis, so that most are looked at once."""
    found = np.flatnonzero(np.abs(places[:, 0] - centre_m[0]) < reach_m)
    for axis in (1, 2):
        found = found[np.abs(places[found, axis] - centre_m[axis]) < reach_m]
    return found


def _dot(left: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->i", left, right))
