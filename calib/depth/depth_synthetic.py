"""Tiles on boards as a camera with a known depth error would read them: truth for a depth calibration."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import CellCamera, DisparityNoise
from depthcell.calib.depth.depth_bias import BoardDepth
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.propagation import read_disparity_px
from depthcell.calib.target.boardview import DepthTiles

D435_LIKE = Intrinsics(848, 480, 430.0, 430.0, 423.5, 239.5)


@dataclass(frozen=True, slots=True)
class DepthScene:
    """How boards are held before a camera, and how it errs.

    Attributes:
        intrinsics, baseline_m: of the camera.
        views: boards, each at another place.
        near_m, far_m: range of their distance.
        half_m: half the sides of a board.
        tiles: columns and rows of tiles on each.
        tilt_rad: largest tilt to the camera's axis.
        sigma_px: noise of a tile's disparity, stated.
        common_px: noise that all tiles of a view share, not stated.
        turn_u_rad, shift_u_m: standard uncertainty of a board's pose, about its middle, stated.
        scale_u, offset_u_px, curvature_u_px, wave_u_px: standard deviations from which the camera's error is drawn; the
            wave's are those of the first coefficients, the others falling with `(1 + i + j)²`.
        wave: rows and columns of the true wave.
        warm_k: range of temperatures over the views; 0 leaves them unknown.
        per_k: true relative change of the scale.
    """

    intrinsics: Intrinsics = D435_LIKE
    baseline_m: float = 0.05
    views: int = 24
    near_m: float = 0.3
    far_m: float = 0.7
    half_m: tuple[float, float] = (0.135, 0.09)
    tiles: tuple[int, int] = (9, 6)
    tilt_rad: float = 0.6
    sigma_px: float = 0.02
    common_px: float = 0.01
    turn_u_rad: float = 5e-4
    shift_u_m: float = 1e-4
    scale_u: float = 0.006
    offset_u_px: float = 0.2
    curvature_u_px: float = 0.4
    wave_u_px: float = 0.15
    wave: tuple[int, int] = (3, 4)
    warm_k: float = 0.0
    per_k: float = 3e-5


def drawn_views(scene: DepthScene, rng: np.random.Generator) -> tuple[tuple[BoardDepth, ...], DepthCorrection]:
    """Views with noise, and the correction that undoes the camera's error exactly."""
    truth = drawn_correction(scene, rng)
    return tuple(_drawn_view(scene, truth, number, rng) for number in range(scene.views)), truth


def drawn_correction(scene: DepthScene, rng: np.random.Generator) -> DepthCorrection:
    """A correction that undoes a camera's error drawn by the scene's standard deviations."""
    rows, columns = scene.wave
    fall = 1 / np.square(1.0 + np.add.outer(np.arange(rows), np.arange(columns)))
    wave = 4 * scene.wave_u_px * fall * rng.standard_normal((rows, columns))
    wave[:1, :1] = 0.0
    return DepthCorrection(
        1 + scene.scale_u * rng.standard_normal(),
        scene.offset_u_px * rng.standard_normal(),
        scene.curvature_u_px * rng.standard_normal(),
        tuple(map(tuple, wave.tolist())),
        scene.per_k if scene.warm_k else 0.0,
        35.0 if scene.warm_k else None,
    )


def held_pose(scene: DepthScene, rng: np.random.Generator) -> RigidTransform:
    """A board somewhere in the image, at a random distance, tilted."""
    z_m = rng.uniform(scene.near_m, scene.far_m)
    pixel = rng.uniform((0.2, 0.2), (0.8, 0.8)) * (scene.intrinsics.width_px, scene.intrinsics.height_px)
    middle_m = np.append(scene.intrinsics.normalized(pixel), 1.0) * z_m
    axis = rng.standard_normal(3) * (1, 1, 0.3)
    turn = axis / np.linalg.norm(axis) * rng.uniform(0, scene.tilt_rad)
    return RigidTransform.from_rotation_vector("depth:1", "board", turn, middle_m)


def _drawn_view(scene: DepthScene, truth: DepthCorrection, number: int, rng: np.random.Generator) -> BoardDepth:
    pose = held_pose(scene, rng)
    x_m, y_m = (np.linspace(-half, half, count) for half, count in zip(scene.half_m, scene.tiles, strict=True))
    points_board = np.stack((*np.meshgrid(x_m, y_m), np.zeros((len(y_m), len(x_m)))), axis=-1).reshape(-1, 3)
    points_cam = pose @ points_board
    pixels = scene.intrinsics.project(points_cam)
    last = (scene.intrinsics.width_px - 1, scene.intrinsics.height_px - 1)
    seen = (pixels >= 0).all(axis=1) & (pixels <= last).all(axis=1)
    pixels, depth_m = pixels[seen], points_cam[seen, 2]
    warmer_k = rng.uniform(-0.5, 0.5) * scene.warm_k
    disparity_px = read_px(scene, truth, pixels, depth_m / (1 + truth.scale_per_k * warmer_k))
    disparity_px = disparity_px + scene.sigma_px * rng.standard_normal(len(depth_m))
    disparity_px = disparity_px + scene.common_px * rng.standard_normal()
    tiles = DepthTiles("1", number, 0, pixels, disparity_px, np.full(len(depth_m), scene.sigma_px))
    covariance = _pose_covariance(scene, pose)
    believed = pose.perturbed(rng.multivariate_normal(np.zeros(6), covariance))
    return BoardDepth(tiles, believed, covariance, 35.0 + warmer_k if scene.warm_k else None)


def read_px(scene: DepthScene, truth: DepthCorrection, pixels: FloatArray, depth_m: FloatArray) -> NDArray[np.float64]:
    """Disparity (M,) that the camera reads at true depths, without noise."""
    pose, noise = RigidTransform.identity("cell", "depth:1"), DisparityNoise(0.0, 0.0, 0.0)
    camera = CellCamera(
        "1", "synthetic", scene.intrinsics, None, pose, np.zeros((6, 6)), None, scene.baseline_m, noise, truth
    )
    return read_disparity_px(camera, pixels, depth_m)


def _pose_covariance(scene: DepthScene, pose: RigidTransform) -> NDArray[np.float64]:
    """Of turns and shifts about the board's middle, in the convention of `RigidTransform.perturbed`."""
    middle = pose.translation_m
    lever = np.array([[0, -middle[2], middle[1]], [middle[2], 0, -middle[0]], [-middle[1], middle[0], 0]])
    about = np.eye(6)
    about[3:, :3] = lever
    spread = np.diag([scene.turn_u_rad**2] * 3 + [scene.shift_u_m**2] * 3)
    return np.asarray(about @ spread @ about.T)
