"""Bodies of which calibration targets are made, and where a ray meets them: exact, without a mesh.

Every body lies in the cell by a `T_cell_body`. A ray is an origin and directions whose z in the camera's frame is 1, so
that the distance along it, in units of the direction, is depth.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform

WARP_ROUNDS = 4
WARP_REACH = 1.6
"""Beyond this many half widths a sheet goes on straight: there is none any more, and a parabola would run away."""

_CUBE = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


class Shape(Protocol):
    """A body that can be seen."""

    @property
    def T_cell_body(self) -> RigidTransform:  # noqa: N802 - a transform's name says its frames
        """Where it is."""
        ...

    @property
    def corners_m(self) -> NDArray[np.float64] | None:
        """Points (N, 3) in the frame of the body with the body between them; None where it has no end."""
        ...

    @property
    def albedo(self) -> float:
        """Share of light sent back where nothing is printed."""
        ...

    def met(self, origin_body: FloatArray, directions_body: FloatArray) -> FloatArray:
        """Distance (...) along rays with `directions_body` (..., 3) to the first meeting; inf where there is none."""
        ...

    def normals(self, points_body: FloatArray) -> FloatArray:
        """Outward unit normals (..., 3) at points of its surface."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Print:
    """What is printed on a sheet.

    Attributes:
        image: (H, W) uint8, 0 ink and 255 paper; each pixel holds the mean over its area.
        pixels_per_m: scale.
        origin_m: (2,) position of the centre of pixel (0, 0) on the sheet.
    """

    image: NDArray[np.uint8]
    pixels_per_m: float
    origin_m: NDArray[np.float64]

    @property
    def extent_m(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the sheet."""
        left, top = self.origin_m - 0.5 / self.pixels_per_m
        height, width = self.image.shape
        return float(left), float(top), float(left + width / self.pixels_per_m), float(top + height / self.pixels_per_m)

    def scaled(self, factor: float) -> "Print":
        """The same picture printed `factor` times as large."""
        return Print(self.image, self.pixels_per_m / factor, self.origin_m * factor)

    def mirrored(self) -> "Print":
        """The picture as its mirror image, on the same sheet."""
        return Print(np.ascontiguousarray(self.image[:, ::-1]), self.pixels_per_m, self.origin_m)


@dataclass(frozen=True, slots=True)
class Warp:
    """How a sheet is bent: `z = x_m (1 - x̂²) + y_m (1 - ŷ²)`, as mrcal models it (its `calobject_warp`).

    Attributes:
        x_m, y_m: height of the middle over the borders along either axis, towards positive z.
        extent_m: left, top, right, bottom of the features, at which x̂ and ŷ are -1 and 1.
    """

    x_m: float
    y_m: float
    extent_m: tuple[float, float, float, float]

    def height_m(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Height of the sheet at its points."""
        across, down = self._normalized(x, y)
        height: FloatArray = self.x_m * (1 - across * across) + self.y_m * (1 - down * down)
        return height

    def slopes(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """dz/dx and dz/dy."""
        left, top, right, bottom = self.extent_m
        across, down = self._normalized(x, y)
        return -4 * self.x_m * across / (right - left), -4 * self.y_m * down / (bottom - top)

    def _normalized(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        left, top, right, bottom = self.extent_m
        across, down = (2 * x - left - right) / (right - left), (2 * y - top - bottom) / (bottom - top)
        return np.clip(across, -WARP_REACH, WARP_REACH), np.clip(down, -WARP_REACH, WARP_REACH)


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A printed sheet, bent a little. Frame: x right and y down as printed, z into it, away from who looks at it."""

    T_cell_body: RigidTransform
    printed: Print
    warp: Warp | None = None
    albedo: float = 0.25

    @property
    def corners_m(self) -> NDArray[np.float64] | None:
        """See `Shape`."""
        left, top, right, bottom = self.printed.extent_m
        bend_m = 0.0 if self.warp is None else WARP_REACH**2 * (abs(self.warp.x_m) + abs(self.warp.y_m))
        return np.array([[x, y, z] for x in (left, right) for y in (top, bottom) for z in (-bend_m, bend_m)])

    def met(self, origin_body: FloatArray, directions_body: FloatArray) -> FloatArray:
        """See `Shape`."""
        distance = self.plane_met(origin_body, directions_body)
        left, top, right, bottom = self.printed.extent_m
        x = origin_body[0] + distance * directions_body[..., 0]
        y = origin_body[1] + distance * directions_body[..., 1]
        inside = (x > left) & (x < right) & (y > top) & (y < bottom) & (distance > 0)
        return np.where(inside, distance, np.float32(np.inf))

    def plane_met(self, origin_body: FloatArray, directions_body: FloatArray) -> FloatArray:
        """As `met`, as if the sheet had no borders.

        The bent sheet is met by iteration from the flat one. Each round shrinks the error by the slope of the sheet
        times the tangent of the angle of incidence, here some thousandths.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            distance: FloatArray = -origin_body[2] / directions_body[..., 2]
            if self.warp is not None:
                for _ in range(WARP_ROUNDS):
                    x = origin_body[0] + distance * directions_body[..., 0]
                    y = origin_body[1] + distance * directions_body[..., 1]
                    distance = (self.warp.height_m(x, y) - origin_body[2]) / directions_body[..., 2]
        return distance

    def normals(self, points_body: FloatArray) -> FloatArray:
        """See `Shape`."""
        normals = np.zeros_like(points_body)
        normals[..., 2] = -1
        if self.warp is not None:
            normals[..., 0], normals[..., 1] = self.warp.slopes(points_body[..., 0], points_body[..., 1])
            normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        return normals


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
    """A sphere around the origin of its frame."""

    T_cell_body: RigidTransform
    radius_m: float
    albedo: float = 0.55

    @property
    def corners_m(self) -> NDArray[np.float64] | None:
        """See `Shape`."""
        return np.asarray(self.radius_m * _CUBE)

    def met(self, origin_body: FloatArray, directions_body: FloatArray) -> FloatArray:
        """See `Shape`."""
        square = (directions_body * directions_body).sum(axis=-1)
        along = directions_body @ np.asarray(origin_body)
        inside = along * along - square * float(origin_body @ origin_body - self.radius_m**2)
        distance = (-along - np.sqrt(np.maximum(inside, 0))) / square
        return np.where((inside > 0) & (distance > 0), distance, np.inf).astype(np.float32)

    def normals(self, points_body: FloatArray) -> FloatArray:
        """See `Shape`."""
        normals: FloatArray = points_body / np.float32(self.radius_m)
        return normals


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A cuboid around the origin of its frame; `half_m` (3,) are half its sides."""

    T_cell_body: RigidTransform
    half_m: NDArray[np.float64]
    albedo: float = 0.5

    @property
    def corners_m(self) -> NDArray[np.float64] | None:
        """See `Shape`."""
        return np.asarray(self.half_m * _CUBE)

    def met(self, origin_body: FloatArray, directions_body: FloatArray) -> FloatArray:
        """See `Shape`; by slabs (T. L. Kay and J. T. Kajiya, SIGGRAPH 1986)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = ((side * self.half_m - origin_body) / directions_body for side in (-1, 1))
        enters = np.minimum(first, second).max(axis=-1)
        leaves = np.maximum(first, second).min(axis=-1)
        return np.where((enters < leaves) & (enters > 0), enters, np.inf).astype(np.float32)

    def normals(self, points_body: FloatArray) -> FloatArray:
        """See `Shape`: of the face that the point lies nearest to."""
        outwards = np.abs(points_body) - self.half_m
        axis = outwards.argmax(axis=-1)
        normals = np.zeros_like(points_body)
        signs = np.sign(np.take_along_axis(points_body, axis[..., None], axis=-1))
        np.put_along_axis(normals, axis[..., None], signs, axis=-1)
        return normals


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """The plane z = 0 of its frame, without end, seen from above."""

    T_cell_body: RigidTransform
    albedo: float = 0.10

    @property
    def corners_m(self) -> NDArray[np.float64] | None:
        """See `Shape`."""
        return None

    def met(self, origin_body: FloatArray, directions_body: FloatArray) -> FloatArray:
        """See `Shape`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.float32(-origin_body[2]) / directions_body[..., 2]
        return np.where(distance > 0, distance, np.float32(np.inf))

    def normals(self, points_body: FloatArray) -> FloatArray:
        """See `Shape`."""
        normals = np.zeros_like(points_body)
        normals[..., 2] = 1
        return normals
