"""Projection through a lens, with its derivatives by the point and by the lens: what an adjustment needs.

Models are those of `Intrinsics` that OpenCV can write down: `NONE`, `BROWN_CONRADY` (5 coefficients), `RATIONAL` (8)
and `THIN_PRISM` (12); formulas in OpenCV calib3d, "Detailed Description". A lens is here a vector
`(fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4)`, cut after the last coefficient that its model has,
in the order of `cell.lens_names`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import FloatArray
from depthcell.errors import DepthcellError

SUPPORTED = (Distortion.NONE, Distortion.BROWN_CONRADY, Distortion.RATIONAL, Distortion.THIN_PRISM)
NEWTON_STEPS = 20
FOLDED = "lens: cannot be inverted within the image; its coefficients fold the image over"


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Where points fall, and how that moves.

    Attributes:
        pixels: (N, 2) float64, (column, row).
        by_point: (N, 2, 3), change of `pixels` per metre of the point.
        by_lens: (N, 2, L), change of `pixels` per unit of each lens parameter.
    """

    pixels: NDArray[np.float64]
    by_point: NDArray[np.float64]
    by_lens: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """Directions in which pixels look, and how they turn with the lens.

    Attributes:
        ideal: (N, 2) float64, (x / z, y / z).
        by_lens: (N, 2, L), change of `ideal` per unit of each lens parameter, the pixels held.
    """

    ideal: NDArray[np.float64]
    by_lens: NDArray[np.float64]


def lens_vector(intrinsics: Intrinsics) -> NDArray[np.float64]:
    """The lens as a vector (L,), L being 4, 9, 12 or 16.

    Raises:
        DepthcellError: the model is one of librealsense's own, which this adjustment does not refine.
    """
    if intrinsics.distortion not in SUPPORTED:
        raise DepthcellError(
            f"lens: {intrinsics.distortion} is not refined; start from brown_conrady, rational, thin_prism or none"
        )
    pinhole = (intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px)
    own = () if intrinsics.distortion is Distortion.NONE else intrinsics.coefficients
    return np.array((*pinhole, *own))


def lens_from_vector(lens: FloatArray, like: Intrinsics) -> Intrinsics:
    """The `Intrinsics` of a lens vector, with image size and model of `like`."""
    fx, fy, cx, cy, *own = (float(value) for value in lens)
    coefficients = tuple(own) if own else (0.0,) * 5
    return Intrinsics(like.width_px, like.height_px, fx, fy, cx, cy, like.distortion, coefficients)


def project_points(lens: FloatArray, points_cam: FloatArray) -> NDArray[np.float64]:
    """Pixels (N, 2) of points (N, 3) in front of the camera, in metres; no derivatives."""
    x: FloatArray = points_cam[:, 0] / points_cam[:, 2]
    y: FloatArray = points_cam[:, 1] / points_cam[:, 2]
    if len(lens) > 4:
        x, y = _bent(lens, x, y)
    return np.stack((lens[0] * x + lens[2], lens[1] * y + lens[3]), axis=1)


def project_with_jacobians(lens: FloatArray, points_cam: FloatArray) -> Projection:
    """Pixels of points (N, 3) in front of the camera, in metres, and their derivatives (chain rule, written out)."""
    inverse_z = 1 / points_cam[:, 2]
    x, y = points_cam[:, 0] * inverse_z, points_cam[:, 1] * inverse_z
    bent_x, bent_y, slope, by_coefficient = _bent_with_jacobians(lens, x, y)
    count = len(x)
    by_lens = np.zeros((count, 2, len(lens)))
    by_lens[:, 0, 0], by_lens[:, 1, 1] = bent_x, bent_y
    by_lens[:, 0, 2] = by_lens[:, 1, 3] = 1
    focal = np.asarray(lens[:2])[:, None]
    by_point = np.empty((count, 2, 3))
    if by_coefficient is None:
        by_point[:, 0, 0], by_point[:, 1, 1] = lens[0] * inverse_z, lens[1] * inverse_z
        by_point[:, 0, 1] = by_point[:, 1, 0] = 0
    else:
        by_lens[:, :, 4:] = focal * by_coefficient
        by_point[:, :, :2] = slope * (focal * inverse_z[:, None, None])
    by_point[:, :, 2] = -(by_point[:, :, 0] * x[:, None] + by_point[:, :, 1] * y[:, None])
    pixels = np.empty((count, 2))
    pixels[:, 0], pixels[:, 1] = lens[0] * bent_x + lens[2], lens[1] * bent_y + lens[3]
    return Projection(pixels, by_point, by_lens)


def sight_of(lens: FloatArray, pixels: FloatArray, start: NDArray[np.float64] | None = None) -> Sight:
    """Where `pixels` (N, 2) look, and how that turns with the lens, by the theorem of implicit functions.

    The lens is inverted by Newton's method, which doubles the digits in each step, from `start` (N, 2) if there is one.

    Raises:
        DepthcellError: the lens cannot be inverted at a pixel: its polynomial folds over there.
    """
    bent = (np.asarray(pixels, np.float64) - lens[2:4]) / lens[:2]
    ideal = bent.copy() if start is None or len(lens) == 4 else start.copy()
    if len(lens) > 4:
        for _ in range(NEWTON_STEPS):
            now_x, now_y, slope, _ = _bent_with_jacobians(lens, ideal[:, 0], ideal[:, 1], by_coefficients=False)
            ahead_x, ahead_y = bent[:, 0] - now_x, bent[:, 1] - now_y
            determinant = slope[:, 0, 0] * slope[:, 1, 1] - slope[:, 0, 1] * slope[:, 1, 0]
            step_x = (slope[:, 1, 1] * ahead_x - slope[:, 0, 1] * ahead_y) / determinant
            step_y = (slope[:, 0, 0] * ahead_y - slope[:, 1, 0] * ahead_x) / determinant
            ideal[:, 0] += step_x
            ideal[:, 1] += step_y
            if not max(np.abs(step_x).max(initial=0.0), np.abs(step_y).max(initial=0.0)) > 1e-8:
                break  # the next step would be its square
        else:
            raise DepthcellError(FOLDED)
    _, _, slope, by_coefficient = _bent_with_jacobians(lens, ideal[:, 0], ideal[:, 1])
    if not (np.minimum(slope[:, 0, 0] + slope[:, 1, 1], np.linalg.det(slope)) > 0).all():
        raise DepthcellError(FOLDED)
    by_lens = np.zeros((len(ideal), 2, len(lens)))
    by_lens[:, 0, 0], by_lens[:, 1, 1] = -bent[:, 0] / lens[0], -bent[:, 1] / lens[1]
    by_lens[:, 0, 2], by_lens[:, 1, 3] = -1 / lens[0], -1 / lens[1]
    if by_coefficient is not None:
        by_lens[:, :, 4:] = -by_coefficient
        by_lens[:] = np.linalg.solve(slope, by_lens)
    return Sight(ideal, by_lens)


def _bent(lens: FloatArray, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    k1, k2, p1, p2, k3 = lens[4:9]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    if len(lens) >= 12:
        radial = radial / (1 + r2 * (lens[9] + r2 * (lens[10] + r2 * lens[11])))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    if len(lens) == 16:
        s1, s2, s3, s4 = lens[12:]
        bent_x, bent_y = bent_x + r2 * (s1 + r2 * s2), bent_y + r2 * (s3 + r2 * s4)
    return bent_x, bent_y


def _bent_with_jacobians(
    lens: FloatArray, x: FloatArray, y: FloatArray, by_coefficients: bool = True
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray | None]:
    """Distorted x and y (N,), their slope by ideal x and y (N, 2, 2), and by coefficients (N, 2, C) if any."""
    if len(lens) == 4:
        return x, y, np.broadcast_to(np.eye(2), (len(x), 2, 2)), None
    k1, k2, p1, p2, k3 = lens[4:9]
    r2 = x * x + y * y
    numerator = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    by_r2 = k1 + r2 * (2 * k2 + 3 * k3 * r2)
    below = np.ones_like(r2)
    if len(lens) >= 12:
        k4, k5, k6 = lens[9:12]
        below = 1 / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        by_r2 = (by_r2 - numerator * below * (k4 + r2 * (2 * k5 + 3 * k6 * r2))) * below
    radial = numerator * below
    xy2 = 2 * x * y
    tangent_x, tangent_y = r2 + 2 * x * x, r2 + 2 * y * y
    bent_x = x * radial + p1 * xy2 + p2 * tangent_x
    bent_y = y * radial + p1 * tangent_y + p2 * xy2
    slope = np.empty((len(x), 2, 2))
    slope[:, 0, 0] = radial + 2 * x * x * by_r2 + 2 * p1 * y + 6 * p2 * x
    slope[:, 0, 1] = slope[:, 1, 0] = xy2 * by_r2 + 2 * p1 * x + 2 * p2 * y
    slope[:, 1, 1] = radial + 2 * y * y * by_r2 + 6 * p1 * y + 2 * p2 * x
    if len(lens) == 16:
        s1, s2, s3, s4 = lens[12:]
        bent_x, bent_y = bent_x + r2 * (s1 + r2 * s2), bent_y + r2 * (s3 + r2 * s4)
        along_x, along_y = 2 * (s1 + 2 * r2 * s2), 2 * (s3 + 2 * r2 * s4)
        slope[:, 0, 0] += along_x * x
        slope[:, 0, 1] += along_x * y
        slope[:, 1, 0] += along_y * x
        slope[:, 1, 1] += along_y * y
    by = _by_coefficients(len(lens) - 4, x, y, radial, below) if by_coefficients else None
    return bent_x, bent_y, slope, by


def _by_coefficients(
    count: int, x: FloatArray, y: FloatArray, radial: FloatArray, below: FloatArray
) -> NDArray[np.float64]:
    """(N, 2, count): distorted x and y by each coefficient; `below` is one over the radial denominator."""
    r2, xy2 = x * x + y * y, 2 * x * y
    r4 = r2 * r2
    by = np.zeros((len(x), 2, count))
    for column, power in ((0, r2), (1, r4), (4, r2 * r4)):
        by[:, 0, column], by[:, 1, column] = x * power * below, y * power * below
        if count >= 8:
            less = -radial * below * power
            place = {0: 5, 1: 6, 4: 7}[column]
            by[:, 0, place], by[:, 1, place] = x * less, y * less
    by[:, 0, 2], by[:, 1, 2], by[:, 0, 3], by[:, 1, 3] = xy2, r2 + 2 * y * y, r2 + 2 * x * x, xy2
    if count == 12:
        by[:, 0, 8], by[:, 0, 9], by[:, 1, 10], by[:, 1, 11] = r2, r4, r2, r4
    return by
