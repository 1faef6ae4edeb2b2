"""How the part looks in colour: texture, one lamp and scattered light, highlights, sensor noise."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.parts import Finish
from depthcell.acquisition.simulator.scene import SurfaceView
from depthcell.acquisition.transform import FloatArray

TILE_PX = 1024
TILE_STEP_M = 1.2e-4
GAMMA = 2.2
PLATE = Finish((0.10, 0.10, 0.11), mottle=0.08, grain=1.0, specular=0.02, gloss=12.0)


@dataclass(frozen=True, slots=True)
class Lamp:
    """A small lamp and the light scattered by the hall.

    Attributes:
        position_m: in the cell.
        intensity: of the lamp on a surface facing it at the part; ambient: of the scattered light from everywhere.
    """

    position_m: tuple[float, float, float]
    intensity: float
    ambient: float


@dataclass(frozen=True, slots=True)
class ColorSensor:
    """Of a colour camera: gain on light, and noise in 8-bit counts of a mid grey."""

    gain: float = 1.0
    noise_counts: float = 1.5
    blur_px: float = 0.6


def texture_tile(finish: Finish, rng: np.random.Generator) -> NDArray[np.float32]:
    """A periodic (1024, 1024) float32 picture of relative albedo, mean 1, two octaves, drawn out along x by `grain`."""
    tile = np.zeros((TILE_PX, TILE_PX), dtype=np.float32)
    for width_px, share in ((1.2, 0.8), (6.0, 0.6)):
        white = rng.standard_normal((TILE_PX, TILE_PX), dtype=np.float32)
        along, across = width_px * np.sqrt(finish.grain), width_px / np.sqrt(finish.grain)
        reach = int(4 * max(along, across)) + 1
        wrapped = cv2.copyMakeBorder(white, reach, reach, reach, reach, cv2.BORDER_WRAP)
        smooth = cv2.GaussianBlur(wrapped, (0, 0), sigmaX=along, sigmaY=max(across, 0.3))[reach:-reach, reach:-reach]
        tile += share * smooth / smooth.std()
    return (1.0 + finish.mottle * tile).astype(np.float32)


def sampled(tile: NDArray[np.float32], points: FloatArray) -> NDArray[np.float32]:
    """The tile laid on points (H, W, 3): along x and y, sheared with z so that upright faces are not streaked."""
    columns = ((points[..., 0] + 0.37 * points[..., 2]) / TILE_STEP_M).astype(np.float32)
    rows = ((points[..., 1] + 0.53 * points[..., 2]) / TILE_STEP_M).astype(np.float32)
    columns, rows = np.mod(np.nan_to_num(columns), TILE_PX), np.mod(np.nan_to_num(rows), TILE_PX)
    return cv2.remap(tile, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).astype(np.float32, copy=False)


def shaded(
    view: SurfaceView, albedo: FloatArray, gloss: FloatArray, lamp: Lamp, lit: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Light sent to the camera, linear: diffuse (H, W, 3) and highlight (H, W).

    Lambert and Blinn-Phong with one lamp (J. F. Blinn, SIGGRAPH 1977), the highlight normalised by (n + 8) / 8.

    Args:
        view: what is seen.
        albedo: (H, W, 3) share of light sent back diffusely.
        gloss: (H, W, 2) strength of the highlight and its exponent.
        lamp: the light.
        lit: (H, W) where the lamp reaches.
    """
    position = np.asarray(lamp.position_m, dtype=np.float32)
    to_lamp, to_camera = position - view.points_cell, view.camera_cell.astype(np.float32) - view.points_cell
    distance = np.linalg.norm(to_lamp, axis=-1)
    falloff = lamp.intensity * (np.linalg.norm(position) / distance) ** 2 * lit
    to_lamp /= distance[..., None]
    to_camera /= np.linalg.norm(to_camera, axis=-1, keepdims=True)
    incidence = np.clip(np.einsum("hwk,hwk->hw", view.normals_cell, to_lamp), 0, 1)
    half = to_lamp + to_camera
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    facing = np.clip(np.einsum("hwk,hwk->hw", view.normals_cell, half), 0, 1)
    sky = lamp.ambient * (0.6 + 0.4 * np.clip(view.normals_cell[..., 2], 0, 1))
    diffuse = albedo * (falloff * incidence + sky)[..., None]
    highlight = gloss[..., 0] * (gloss[..., 1] + 8) / 8 * facing ** gloss[..., 1] * falloff * (incidence > 0)
    return np.nan_to_num(diffuse).astype(np.float32), np.nan_to_num(highlight).astype(np.float32)


def exposed(linear: FloatArray, sensor: ColorSensor) -> NDArray[np.float32]:
    """What the sensor gives on average: (H, W, 3) float32 in 8-bit counts, blurred by the lens, gamma 1/2.2."""
    blurred = cv2.GaussianBlur(np.asarray(linear, dtype=np.float32), (0, 0), sensor.blur_px)
    return np.asarray(255 * np.clip(sensor.gain * blurred, 0, 1) ** (1 / GAMMA), dtype=np.float32)


def color_frame(mean_counts: FloatArray, sensor: ColorSensor, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One frame: (H, W, 3) uint8 with the sensor's noise."""
    noise = rng.standard_normal(mean_counts.shape, dtype=np.float32)
    noise *= sensor.noise_counts
    noise += mean_counts
    return np.clip(np.rint(noise), 0, 255).astype(np.uint8)
