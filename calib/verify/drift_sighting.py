"""Where one camera alone finds a body: spheres and plates by their measured depth, a board by its picture."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import PINHOLE_NAMES, Cell, lens_names
from depthcell.calib.target.board import Board
from depthcell.calib.verify.acceptance_points import SurfacePoints, distance_jacobian
from depthcell.calib.verify.acceptance_shapes import find_plate, find_spheres, fit_plane, fit_sphere, sphere_bias_m
from depthcell.calib.verify.drift import Sighting
from depthcell.errors import DepthcellError

FEWEST_FEATURES = 8
PLATE_ARM_M = 0.04
PLACE_GRID_M = 0.05


def sighting_of_spheres(points: SurfacePoints, diameters_m: tuple[float, ...], cell: Cell) -> Sighting:
    """Centres of one or two spheres, as the fit and the matching window leave them uncertain.

    Raises:
        DepthcellError: a sphere was not found.
    """
    centres, noises, jacobians = [], [], []
    for members, diameter_m in zip(find_spheres(points, diameters_m), diameters_m, strict=True):
        fit = fit_sphere(points[members].thinned(), diameter_m / 2)
        gain = fit.gain[:3]
        window_m = gain @ (np.square(2 * fit.points.correlation_m) / (12 * fit.parameters[3]))
        centres.append((fit.parameters - sphere_bias_m(fit, cell))[:3])
        noises.append(gain @ fit.points.noise @ gain.T + np.outer(window_m, window_m))
        jacobians.append(gain @ distance_jacobian(fit.points, fit.directions, cell))
    count = len(centres)
    noise = np.zeros((3 * count, 3 * count))
    for number, block in enumerate(noises):
        noise[3 * number : 3 * number + 3, 3 * number : 3 * number + 3] = block
    return Sighting(np.concatenate(centres), noise, np.concatenate(jacobians), np.tile(np.eye(3), count) / count)


def plate_middle(points: SurfacePoints, size_m: tuple[float, float]) -> NDArray[np.float64]:
    """About where a plate lies, (3,) on a grid, so that it is the same for all cameras and for the reference."""
    middle = points.points_cell[find_plate(points, size_m)].mean(axis=0)
    return np.asarray(np.round(middle / PLACE_GRID_M) * PLACE_GRID_M, dtype=np.float64)


def sighting_of_plate(
    points: SurfacePoints, size_m: tuple[float, float], middle_cell: FloatArray, cell: Cell
) -> Sighting:
    """How high a plate lies at three points about `middle_cell`, along the cell's axis that it faces most.

    Raises:
        DepthcellError: the plate was not found.
    """
    fit = fit_plane(points[find_plate(points, size_m)].thinned())
    normal = fit.directions[0]
    axis = int(np.argmax(np.abs(normal)))
    across = [other for other in range(3) if other != axis]
    turns = np.array([0.0, 2.0, 4.0]) * np.pi / 3
    places = np.tile(np.asarray(middle_cell, dtype=np.float64), (3, 1))
    places[:, across] += PLATE_ARM_M * np.column_stack((np.cos(turns), np.sin(turns)))
    offset = places - np.average(fit.points.points_cell, axis=0, weights=1 / np.square(fit.points.sigma_m))
    # The plane's height at a place follows from its parameters as a point's distance there does, over n along the axis.
    in_plane = np.linalg.lstsq(
        fit.points.points_cell - fit.points.points_cell.mean(axis=0), fit.design[:, 1:], rcond=None
    )
    design = np.column_stack((np.ones(3), offset @ in_plane[0])) / normal[axis]
    height = middle_cell[axis] + (fit.parameters[0] - places @ normal) / normal[axis]
    gain = design @ fit.gain
    to_middle = np.zeros((3, 3))
    to_middle[axis] = 1 / 3
    noise = gain @ fit.points.noise @ gain.T
    return Sighting(height, noise, gain @ distance_jacobian(fit.points, fit.directions, cell), to_middle)


@dataclass(frozen=True, slots=True, eq=False)
class BoardSeen:
    """A board in one camera's left imager: which features (N,), where (N, 2), and how surely."""

    serial: str
    ids: NDArray[np.int64]
    pixels: NDArray[np.float64]
    sigma_px: float


def board_turn(seen: BoardSeen, board: Board, cell: Cell) -> NDArray[np.float64]:
    """How one camera finds the board turned in the cell, as a rotation vector (3,): to count all cameras' turns from.

    Raises:
        DepthcellError: too few features.
    """
    rotation = _solved(seen, board, cell)[0]
    turn = Rotation.from_matrix(cell.camera(seen.serial).T_cell_depth.rotation @ rotation).as_rotvec()
    return np.asarray(turn, dtype=np.float64)


def sighting_of_board(seen: BoardSeen, board: Board, from_turn: FloatArray, cell: Cell) -> Sighting:
    """Pose of a board by the left imager: its middle, then its turn from `from_turn` times half its size; metres.

    Least squares on the features' ideal image points x (2N): with J their slopes with the pose, G = (J^T J)⁻¹ J^T maps
    errors of x to the pose. Noise enters by `sigma_px / f`, the lens by how x moves with its parameters at a fixed
    pixel, the camera's own pose by turning and shifting what it sees. A small turn changes a rotation vector by the
    inverse of the left Jacobian of SO(3).

    Args:
        seen: what the camera sees of it.
        board: which it is.
        from_turn: (3,) rotation vector in the cell, the same for all sightings that are compared.
        cell: as it says it is.

    Raises:
        DepthcellError: too few features.
    """
    camera = cell.camera(seen.serial)
    rotation, middle_cam = _solved(seen, board, cell)
    arms, half_m = _arms(seen, board)
    slopes = _slopes(arms @ rotation.T, middle_cam)
    to_cell = camera.T_cell_depth.rotation
    turn = (Rotation.from_matrix(to_cell @ rotation) * Rotation.from_rotvec(from_turn).inv()).as_rotvec()
    charted = half_m * _left_jacobian_inverse(turn)
    in_cell = np.zeros((6, 6))
    in_cell[:3, :3], in_cell[3:, 3:] = to_cell, charted @ to_cell
    gain = in_cell @ np.linalg.solve(slopes.T @ slopes, slopes.T)
    middle_cell = np.asarray(camera.T_cell_depth @ middle_cam, dtype=np.float64)
    own = np.zeros((6, len(camera.parameter_names)))
    own[:3, :3], own[:3, 3:6], own[3:, :3] = -_cross(middle_cell), np.eye(3), charted
    lens = _lens_slopes(camera.depth, seen.pixels).reshape(2 * len(seen.ids), -1)
    own[:, 6 : 6 + lens.shape[1]] = gain @ lens
    jacobian = np.zeros((6, len(cell.joint_covariance)))
    jacobian[:, cell.rows_of(seen.serial)] = own
    noise = (seen.sigma_px / camera.depth.fx_px) ** 2 * gain @ gain.T
    return Sighting(np.concatenate((middle_cell, half_m * turn)), noise, jacobian, np.eye(3, 6))


def _arms(seen: BoardSeen, board: Board) -> tuple[NDArray[np.float64], float]:
    """The features seen, from the board's middle (N, 3), and half of its size, metres."""
    arms = board.points_board - board.points_board.mean(axis=0)
    return arms[seen.ids], float(np.linalg.norm(arms, axis=1).max())


def _solved(seen: BoardSeen, board: Board, cell: Cell) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation (3, 3) and middle (3,) of a board in the camera, by OpenCV's solver for planes, then refined by it."""
    if len(seen.ids) < FEWEST_FEATURES:
        raise DepthcellError(
            f"camera {seen.serial}: sees {len(seen.ids)} features of the board, {FEWEST_FEATURES} are needed"
        )
    arms, _ = _arms(seen, board)
    ideal = np.ascontiguousarray(cell.camera(seen.serial).depth.normalized(seen.pixels))
    lens, none = np.eye(3), np.zeros(5)
    found, turn, middle = cv2.solvePnP(arms, ideal, lens, none, flags=cv2.SOLVEPNP_IPPE)
    if not found:
        raise DepthcellError(f"camera {seen.serial}: the board's pose cannot be told; show more of it")
    turn, middle = cv2.solvePnPRefineLM(arms, ideal, lens, none, turn, middle)
    rotation = Rotation.from_rotvec(np.asarray(turn, dtype=np.float64).ravel()).as_matrix()
    return rotation, np.asarray(middle, dtype=np.float64).ravel()


def _left_jacobian_inverse(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = float(np.linalg.norm(turn))
    cross = _cross(turn)
    square = 1 / 12 if angle < 1e-4 else 1 / angle**2 - (1 + np.cos(angle)) / (2 * angle * np.sin(angle))
    return np.asarray(np.eye(3) - cross / 2 + square * cross @ cross)


def _lens_slopes(intrinsics: Intrinsics, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """How the ideal image points of fixed pixels (N, 2) move with the lens's parameters, (N, 2, K): by differences."""
    names = lens_names(intrinsics)
    slopes = np.empty((len(pixels), 2, len(names)))
    for place, name in enumerate(names):
        step = 1e-3 if name in PINHOLE_NAMES else 1e-5
        ahead, back = (_changed(intrinsics, place, sign * step).normalized(pixels) for sign in (1, -1))
        slopes[:, :, place] = (ahead - back) / (2 * step)
    return slopes


def _changed(intrinsics: Intrinsics, place: int, step: float) -> Intrinsics:
    if place < len(PINHOLE_NAMES):
        name = PINHOLE_NAMES[place]
        return replace(intrinsics, **{name: getattr(intrinsics, name) + step})
    coefficients = list(intrinsics.coefficients)
    coefficients[place - len(PINHOLE_NAMES)] += step
    return replace(intrinsics, coefficients=tuple(coefficients))


def _slopes(arms: NDArray[np.float64], middle_cam: NDArray[np.float64]) -> NDArray[np.float64]:
    """How ideal image points move with shift and turn (about the middle) of the body, (2N, 6)."""
    x, y, z = (arms + middle_cam).T
    zero = np.zeros(len(z))
    per_point = np.stack((np.column_stack((1 / z, zero, -x / z**2)), np.column_stack((zero, 1 / z, -y / z**2))), axis=1)
    turns = np.stack([-_cross(arm) for arm in arms])
    return np.concatenate((per_point, per_point @ turns), axis=2).reshape(-1, 6)


def _cross(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
