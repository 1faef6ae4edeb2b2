"""What is compared with what in a bundle adjustment: corners and depth of one board in one image, and priors.

A block takes the values of its parameters, one array per key, and answers with residuals in units of the stated sigma
and their derivatives. A pose's parameter is a small motion xi on top of a base pose, in the convention of
`RigidTransform.perturbed`. Its rotation is a vector w, and `exp(w + dw) = exp(J dw) exp(w)` to first order with the
left Jacobian `J = 1 + (1 - cos a) / a² [w] + (a - sin a) / a³ [w]²`, a the angle and [w] the matrix of `w x`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.adjustment.bundle_problem import Place
from depthcell.calib.adjustment.lens import project_with_jacobians, sight_of
from depthcell.calib.depthcorrection import FULL_DISPARITY_PX, wave_coordinates
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView, DepthTiles

Key = tuple[str, str | int | Place]
"""Kind of a parameter ("lens", "pose", "place", "warp", "scale", "depth") and whose it is."""
Bases = Mapping[Key, RigidTransform]
"""Pose that each "pose" and "place" parameter moves."""


class Evaluation(NamedTuple):
    """Residuals (N, D) in units of the stated sigma, and per key their derivatives (N, D, size); None if behind."""

    residuals: NDArray[np.float64]
    jacobians: list[NDArray[np.float64]]


class Block(Protocol):
    """Residuals that stand or fall together: `count` rows of `width` each."""

    @property
    def keys(self) -> tuple[Key, ...]:
        """Parameters that act on it, in the order of `values` and of the derivatives."""
        ...

    @property
    def group(self) -> str:
        """Whose variance factor it shares."""
        ...

    @property
    def count(self) -> int:
        """Rows: corners, tiles, statements."""
        ...

    @property
    def width(self) -> int:
        """Residuals per row."""
        ...

    @property
    def common(self) -> NDArray[np.float64] | None:
        """(N,) change of each residual per pixel of an error that all rows share; None where there is no such error."""
        ...

    def evaluate(self, values: Sequence[FloatArray], bases: Bases) -> Evaluation | None:
        """Residuals and derivatives; None where the values are impossible, such as a board behind its camera."""
        ...


class _Pose(NamedTuple):
    rotation: NDArray[np.float64]
    translation_m: NDArray[np.float64]
    jacobian: NDArray[np.float64]
    shift_m: NDArray[np.float64]


def _moved(base: RigidTransform, xi: FloatArray) -> _Pose:
    """The base pose moved by xi, and the left Jacobian there."""
    turn, jacobian = _turn(xi[:3].tobytes())
    return _Pose(turn @ base.rotation, turn @ base.translation_m + xi[3:], jacobian, np.array(xi[3:], np.float64))


@lru_cache(maxsize=4096)
def _turn(raw: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation of a rotation vector (Rodrigues) and its left Jacobian."""
    w = np.frombuffer(raw)
    angle = float(np.sqrt(w @ w))
    cross = np.array([[0.0, -w[2], w[1]], [w[2], 0.0, -w[0]], [-w[1], w[0], 0.0]])
    if angle < 1e-4:  # series; the next terms are below 1e-17
        first, second, third = 1 - angle**2 / 6, 0.5 - angle**2 / 24, 1 / 6 - angle**2 / 120
    else:
        first, second = np.sin(angle) / angle, (1 - np.cos(angle)) / angle**2
        third = (1 - first) / angle**2
    square = cross @ cross
    return np.eye(3) + first * cross + second * square, np.eye(3) + second * cross + third * square


class BoardShape:
    """A bent and scaled board: nominal (X, Y) becomes `(s X, s Y, w_x (1 - x²) + w_y (1 - y²))`.

    x and y run from -1 to 1 over the board's features; the bend is zero at its outermost corners. This is the model of
    mrcal's two-parameter board deformation (github.com/dkogan/mrcal, issue 19).
    """

    def __init__(self, board: Board) -> None:
        flat = board.points_board[:, :2]
        low, high = flat.min(axis=0), flat.max(axis=0)
        self.middle_m, self.half_m = (low + high) / 2, (high - low) / 2

    def bends(self, flat_m: FloatArray) -> NDArray[np.float64]:
        """(N, 2): 1 - x² and 1 - y² of nominal positions (N, 2)."""
        relative = (flat_m - self.middle_m) / self.half_m
        return np.asarray(1 - relative * relative)

    def slopes(self, flat_m: FloatArray) -> NDArray[np.float64]:
        """(N, 2): derivatives of the two bends by X and Y, per metre."""
        return np.asarray(-2 * (flat_m - self.middle_m) / self.half_m**2)

    def points_board(self, flat_m: FloatArray, warp_m: FloatArray, scale: float) -> NDArray[np.float64]:
        """(N, 3), metres, frame "board", of features at nominal positions (N, 2)."""
        return np.concatenate((scale * np.asarray(flat_m, np.float64), (self.bends(flat_m) @ warp_m)[:, None]), axis=1)


class CornerBlock:
    """Corners of one board in one image: `(projected - found) / sigma`, two per corner."""

    width = 2
    common = None

    def __init__(self, view: BoardView, board: Board) -> None:
        self.group = view.stream
        self.keys: tuple[Key, ...] = (
            ("lens", view.stream),
            ("pose", view.stream),
            ("place", view.place),
            ("warp", view.board),
            ("scale", view.board),
        )
        self.count = len(view.ids)
        self._pixels, self._sigma_px = view.pixels, view.sigma_px
        self._flat_m = np.array(board.points_board[view.ids, :2])
        self._bends = BoardShape(board).bends(self._flat_m)

    def evaluate(self, values: Sequence[FloatArray], bases: Bases) -> Evaluation | None:
        """See `Block`; None where a corner is behind the camera."""
        lens, xi_stream, xi_place, warp_m, scale = values
        stream, place = _moved(bases[self.keys[1]], xi_stream), _moved(bases[self.keys[2]], xi_place)
        points_board = np.empty((self.count, 3))
        points_board[:, :2] = scale[0] * self._flat_m
        points_board[:, 2] = self._bends @ warp_m
        points_cell = points_board @ place.rotation.T + place.translation_m
        points_cam = (points_cell - stream.translation_m) @ stream.rotation
        if not points_cam[:, 2].min() > 0:
            return None
        image = project_with_jacobians(lens, points_cam)
        by_cell = (image.by_point / self._sigma_px) @ stream.rotation.T
        by_board = by_cell @ place.rotation
        by_scale = by_board[:, :, 0] * self._flat_m[:, :1] + by_board[:, :, 1] * self._flat_m[:, 1:]
        return Evaluation(
            (image.pixels - self._pixels) / self._sigma_px,
            [
                image.by_lens / self._sigma_px,
                _by_motion(-by_cell, points_cell - stream.shift_m, stream.jacobian),
                _by_motion(by_cell, points_cell - place.shift_m, place.jacobian),
                by_board[:, :, 2:] * self._bends[:, None, :],
                by_scale[:, :, None],
            ],
        )


def _by_motion(by_point: FloatArray, points: FloatArray, jacobian: FloatArray) -> NDArray[np.float64]:
    """(N, D, 6): by a small motion of points (N, 3); `a . (u x q) = u . (q x a)` with u = J dw."""
    out = np.empty((*by_point.shape[:2], 6))
    x, y, z = points[:, None, 0], points[:, None, 1], points[:, None, 2]
    ax, ay, az = by_point[:, :, 0], by_point[:, :, 1], by_point[:, :, 2]
    turned = np.empty(by_point.shape)
    turned[:, :, 0], turned[:, :, 1], turned[:, :, 2] = y * az - z * ay, z * ax - x * az, x * ay - y * ax
    out[:, :, :3] = turned @ jacobian
    out[:, :, 3:] = by_point
    return out


class TileBlock:
    """Depth on the face of one board: `(d - expected) / sigma`, in disparity.

    z is where the tile's pixel, through the lens as it stands, meets the bent and scaled board, and `expected` is the
    disparity that the camera should then read: the root of `e + offset + curvature (e / 126)² + W = scale f B / z`.
    (The noisy d itself in that square biases the scale: docs/bundle-adjustment.md.) d and
    f B are those of the start; `bundle_covariance.public_correction` converts to the refined f B.
    """

    width = 1

    def __init__(self, tiles: DepthTiles, board: Board, focal_baseline_m: float, wave: FloatArray) -> None:
        stream = f"depth:{tiles.serial}"
        self.group = f"depth of {tiles.serial}"
        self.keys: tuple[Key, ...] = (
            ("lens", stream),
            ("pose", stream),
            ("place", tiles.place),
            ("warp", tiles.board),
            ("scale", tiles.board),
            ("depth", tiles.serial),
        )
        self.count = len(tiles.disparity_px)
        self.common: NDArray[np.float64] | None = 1 / tiles.sigma_px
        self._tiles, self._shape = tiles, BoardShape(board)
        self._looked: NDArray[np.float64] | None = None
        self._focal_baseline_m, self._wave = focal_baseline_m, np.asarray(wave, np.float64)

    def evaluate(self, values: Sequence[FloatArray], bases: Bases) -> Evaluation | None:
        """See `Block`; None where a pixel does not meet the board's face."""
        lens, xi_stream, xi_place, warp_m, scale, depth = values
        stream, place = _moved(bases[self.keys[1]], xi_stream), _moved(bases[self.keys[2]], xi_place)
        sight = sight_of(lens, self._tiles.pixels, self._looked)
        self._looked = sight.ideal  # where the next inversion of a lens a little different starts from
        rays_cam = np.concatenate((sight.ideal, np.ones((self.count, 1))), axis=1)
        rays_board = rays_cam @ (place.rotation.T @ stream.rotation).T
        origin_board = place.rotation.T @ (stream.translation_m - place.translation_m)
        met = _meeting(self._shape, origin_board, rays_board, warp_m, float(scale[0]))
        if met is None:
            return None
        z_m, normals_board, flat_m = met
        facing = np.einsum("ij,ij->i", normals_board, rays_board)
        # F(z, parameters) = 0 on the board's face, so dz = -(dF by a parameter) / facing
        normals_cell = normals_board @ place.rotation.T
        points_cell = (rays_cam * z_m[:, None]) @ stream.rotation.T + stream.translation_m
        true_px = self._focal_baseline_m / z_m
        read = self._expected(depth, true_px)
        if read is None:
            return None
        expected_px, gain = read
        by_z = gain * depth[0] * true_px / (z_m * self._tiles.sigma_px)
        along = (-by_z / facing)[:, None, None]
        by_cell = along * normals_cell[:, None, :]
        by_ideal = z_m[:, None] * (normals_cell @ stream.rotation)[:, :2]
        bends, slopes = self._shape.bends(flat_m), self._shape.slopes(flat_m)
        by_scale = (slopes * warp_m * flat_m).sum(axis=1) / scale[0]
        by_depth = np.empty((self.count, 1, len(depth)))
        by_depth[:, 0, 0], by_depth[:, 0, 2] = -true_px, np.square(expected_px / FULL_DISPARITY_PX)
        by_depth[:, 0, 1], by_depth[:, 0, 3:] = 1, self._wave
        jacobians = [
            along * np.einsum("nk,nkl->nl", by_ideal, sight.by_lens)[:, None, :],
            _by_motion(by_cell, points_cell - stream.shift_m, stream.jacobian),
            _by_motion(-by_cell, points_cell - place.shift_m, place.jacobian),
            along * -bends[:, None, :],
            along * by_scale[:, None, None],
            by_depth * (gain / self._tiles.sigma_px)[:, None, None],
        ]
        return Evaluation(((self._tiles.disparity_px - expected_px) / self._tiles.sigma_px)[:, None], jacobians)

    def _expected(
        self, depth: FloatArray, true_px: FloatArray
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Disparity that should be read (N,), and its change per change of the sum without the square (N,)."""
        straight_px = depth[0] * true_px - depth[1] - self._wave @ depth[3:]
        bend = depth[2] / FULL_DISPARITY_PX**2
        inside = 1 + 4 * bend * straight_px
        if not inside.min() > 0:
            return None
        expected_px = 2 * straight_px / (1 + np.sqrt(inside))
        return np.asarray(expected_px), np.asarray(1 / (1 + 2 * bend * expected_px))


def _meeting(
    shape: BoardShape, origin_board: FloatArray, rays_board: FloatArray, warp_m: FloatArray, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Where rays meet the bent face: distance along each (N,), normal (N, 3) there, nominal position (N, 2); Newton."""
    z_m: NDArray[np.float64] = -origin_board[2] / rays_board[:, 2]
    normals, flat_m = np.ones(rays_board.shape), np.empty((len(z_m), 2))
    for _ in range(5):
        points_board = origin_board + rays_board * z_m[:, None]
        flat_m = points_board[:, :2] / scale
        normals[:, :2] = -shape.slopes(flat_m) * warp_m / scale
        excess_m = points_board[:, 2] - shape.bends(flat_m) @ warp_m
        step_m = excess_m / np.einsum("ij,ij->i", normals, rays_board)
        z_m = z_m - step_m
        if np.abs(step_m).max() < 1e-8:  # Newton: the next step would be below 1e-15 m
            break
    return (z_m, normals, flat_m) if np.isfinite(z_m).all() and z_m.min() > 0 else None


def wave_terms(tiles: DepthTiles, intrinsics: Intrinsics, shape: tuple[int, int]) -> NDArray[np.float64]:
    """(M, waves): what each coefficient of a correction's wave adds to disparity, row by row but for the first."""
    if min(shape) == 0:
        return np.zeros((len(tiles.disparity_px), 0))
    x, y = wave_coordinates(intrinsics, tiles.pixels[:, 0], tiles.pixels[:, 1])
    across = np.polynomial.chebyshev.chebvander(x, shape[1] - 1)
    down = np.polynomial.chebyshev.chebvander(y, shape[0] - 1)
    return np.asarray((down[:, :, None] * across[:, None, :]).reshape(len(x), -1)[:, 1:])


@dataclass(frozen=True, slots=True, eq=False)
class PriorBlock:
    """What is known beforehand: `matrix @ (values of all keys, one after the other) - target`, over its sigma."""

    keys: tuple[Key, ...]
    matrix: NDArray[np.float64]
    target: NDArray[np.float64]
    group: str = "prior"
    width: int = 1
    common: NDArray[np.float64] | None = None

    @property
    def count(self) -> int:
        """How many statements."""
        return len(self.target)

    def evaluate(self, values: Sequence[FloatArray], bases: Bases) -> Evaluation:  # noqa: ARG002 - as the protocol says
        """See `Block`."""
        residuals = self.matrix @ np.concatenate(values) - self.target
        ends = np.cumsum([len(value) for value in values])[:-1]
        return Evaluation(residuals[:, None], [part[:, None, :] for part in np.split(self.matrix, ends, axis=1)])
