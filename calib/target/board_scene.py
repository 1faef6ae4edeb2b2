"""A board seen by a camera, drawn with known truth: what detection is measured against."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.target.board import Board
from depthcell.calib.target.board_picture import board_picture


@dataclass(frozen=True, slots=True)
class BoardLight:
    """How the picture comes to be.

    Attributes:
        white, black, background: grey values of paper, ink, and all around the board, 0 to 255.
        blur_px: standard deviation of a Gaussian blur, besides the averaging over each pixel.
        noise: standard deviation of each pixel's grey value.
        slope: brightness falls by this share from the left border of the image to the right one.
        motion_px: the board's shift along the columns during the exposure.
    """

    white: float = 210.0
    black: float = 25.0
    background: float = 110.0
    blur_px: float = 0.6
    noise: float = 2.0
    slope: float = 0.0
    motion_px: float = 0.0


def board_image(
    board: Board,
    intrinsics: Intrinsics,
    T_cam_board: RigidTransform,
    light: BoardLight,
    rng: np.random.Generator,
    steps: int = 4,
) -> NDArray[np.uint8]:
    """The image (H, W) uint8 of a flat board.

    Each pixel is the mean of `steps` x `steps` rays, traced through the lens model to the board's plane.

    Args:
        board: what is seen.
        intrinsics: of the camera.
        T_cam_board: where the board is.
        light: brightness, blur and noise.
        rng: draws the noise.
        steps: rays per pixel along each side.
    """
    image: NDArray[np.float64] = np.full((intrinsics.height_px, intrinsics.width_px), light.background)
    window = _window(board, intrinsics, T_cam_board)
    if window is not None:
        rows, columns = window
        image[rows, columns] = _traced(board, intrinsics, T_cam_board, light, (rows, columns), steps)
    if light.blur_px > 0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), light.blur_px), np.float64)
    if light.motion_px > 0:
        image = _smeared(image, light.motion_px)
    image = image * (1 - light.slope * np.arange(intrinsics.width_px) / intrinsics.width_px)
    image += light.noise * rng.standard_normal(image.shape)
    grey: NDArray[np.uint8] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return grey


def true_pixels(board: Board, intrinsics: Intrinsics, T_cam_board: RigidTransform) -> NDArray[np.float64]:
    """Where each feature is seen, (N, 2) as (column, row); row number = id."""
    return intrinsics.project(T_cam_board @ board.points_board)


def _window(board: Board, intrinsics: Intrinsics, T_cam_board: RigidTransform) -> tuple[slice, slice] | None:
    """Rows and columns that the board's paper covers; None where it is outside the image."""
    left, top, right, bottom = board.extent_m
    margin_m = board.pitch_m
    x, y = np.meshgrid(
        np.linspace(left - margin_m, right + margin_m, 9), np.linspace(top - margin_m, bottom + margin_m, 9)
    )
    border = intrinsics.project(T_cam_board @ np.stack((x.ravel(), y.ravel(), 0 * x.ravel()), axis=-1))
    low = np.floor(np.nanmin(border, axis=0)).astype(int) - 2
    high = np.ceil(np.nanmax(border, axis=0)).astype(int) + 3
    low = np.maximum(low, 0)
    high = np.minimum(high, (intrinsics.width_px, intrinsics.height_px))
    if (low >= high).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def _traced(
    board: Board,
    intrinsics: Intrinsics,
    T_cam_board: RigidTransform,
    light: BoardLight,
    window: tuple[slice, slice],
    steps: int,
) -> NDArray[np.float64]:
    """Grey values of a window, before blur."""
    rows, columns = window
    ideal = _fine_rays(intrinsics, rows, columns, steps)
    # A ray r = (x, y, 1) meets the plane spanned by the board's axes e1, e2 at t: r ~ [e1 e2 t] (X, Y, 1).
    plane = np.column_stack((T_cam_board.rotation[:, :2], T_cam_board.translation_m))
    flat = cv2.perspectiveTransform(ideal.reshape(1, -1, 2), np.linalg.inv(plane))
    on_board = np.asarray(flat, np.float64).reshape(ideal.shape)
    nearest_m = float((T_cam_board @ board.points_board)[:, 2].min())
    picture = board_picture(board, max(steps * intrinsics.fx_px / nearest_m, 4 / board.pitch_m))
    where = picture.pixels(on_board).astype(np.float32)
    seen = cv2.remap(picture.image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(256,))  # type: ignore[call-overload]
    height, width = picture.image.shape
    inside = (where[..., 0] > 0) & (where[..., 0] < width - 1) & (where[..., 1] > 0) & (where[..., 1] < height - 1)
    grey = np.where(inside, light.black + (light.white - light.black) * seen.astype(np.float64) / 255, light.background)
    shape = (rows.stop - rows.start, steps, columns.stop - columns.start, steps)
    return np.asarray(grey.reshape(shape).mean(axis=(1, 3)), np.float64)


def _fine_rays(intrinsics: Intrinsics, rows: slice, columns: slice, steps: int) -> NDArray[np.float64]:
    """Ideal coordinates (steps H, steps W, 2) of points within each pixel, linear from its centre."""
    column, row = np.meshgrid(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop))
    ideal = intrinsics.normalized(np.stack((column, row), axis=-1).astype(np.float64))
    down, across = np.asarray(np.gradient(ideal, axis=0)), np.asarray(np.gradient(ideal, axis=1))
    fine = (np.arange(steps) + 0.5) / steps - 0.5
    points = ideal[:, None, :, None] + fine[:, None] * across[:, None, :, None]
    points = points + (fine[:, None, None, None] * down[:, None, :, None])
    return np.asarray(points.reshape(ideal.shape[0] * steps, ideal.shape[1] * steps, 2), np.float64)


def _smeared(image: FloatArray, motion_px: float) -> NDArray[np.float64]:
    """Mean over a shift along the columns, its middle at rest."""
    reach = int(np.ceil(motion_px / 2 + 0.5))
    edges = np.clip(np.arange(-reach, reach + 2) - 0.5, -motion_px / 2, motion_px / 2)
    kernel = np.diff(edges) / motion_px
    return np.asarray(cv2.filter2D(image, cv2.CV_64F, kernel[None]), np.float64)
