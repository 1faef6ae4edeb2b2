"""The board and the artefacts as bodies: what they are made of, and how large they are."""

from enum import StrEnum
from functools import lru_cache

import cv2
import numpy as np

from depthcell.acquisition.simulator.shapes import Ball, Block, Ground, Print, Shape, Sheet, Warp
from depthcell.acquisition.transform import FloatArray, RigidTransform

GROUND_BELOW = 0.75
"""The floor under the work volume, of the stand-off; nothing that is held reaches it."""
PLATE_MM, PLATE_BENDS_M, PLATE_FLATNESS_MM = (260.0, 180.0), (3e-6, -2e-6), 0.006
PLATE_PIXELS_PER_M, PLATE_SPECKLE_M = 3000.0, 1.2e-3
SPHERE_MM = 50.0
BAR_SPHERES_MM, BAR_DISTANCE_MM, BAR_ROD_MM = (50.0, 50.0), 150.0, 12.0
STEP_WIDTH_MM, STEP_DEPTH_MM, STEP_HEIGHTS_MM = 175.0, 60.0, (0.0, 5.0, 10.0, 15.0, 20.0)
STEP_BASE_MM = 20.0


class Target(StrEnum):
    """What is held before the cameras; the name of its folder."""

    BOARD = "board"
    PLATE = "plate"
    SPHERE = "sphere"
    BALL_BAR = "ballbar"
    STEP_GAUGE = "step"


def ground_below(middle_cell: FloatArray, standoff_m: float) -> Ground:
    """The floor."""
    foot = np.array(middle_cell, np.float64) - (0.0, 0.0, GROUND_BELOW * standoff_m)
    return Ground(RigidTransform("cell", "ground", np.eye(3), foot))


def board_sheet(T_cell_board: RigidTransform, printed: Print, warp: Warp) -> tuple[Shape, ...]:
    """The board, bent."""
    return (Sheet(T_cell_board, printed, warp),)


def artefact_bodies(target: Target, T_cell_artefact: RigidTransform) -> tuple[Shape, ...]:
    """The bodies of an artefact whose z points up.

    Origin: the middle of the plate's face, of the sphere, of the line between the two spheres (a at negative x), and of
    the step gauge on the level of its first face, with the row of faces along x.
    """
    match target:
        case Target.PLATE:
            turn = RigidTransform("artefact", "sheet", np.diag([1.0, -1.0, -1.0]), np.zeros(3))
            return (Sheet(T_cell_artefact @ turn, plate_print(), _plate_warp()),)
        case Target.SPHERE:
            return (Ball(T_cell_artefact, SPHERE_MM / 2e3),)
        case Target.BALL_BAR:
            half_m = BAR_DISTANCE_MM / 2e3
            balls = [
                Ball(T_cell_artefact @ _shifted(side * half_m, 0.0), diameter_mm / 2e3)
                for side, diameter_mm in zip((-1, 1), BAR_SPHERES_MM, strict=True)
            ]
            rod = Block(T_cell_artefact @ _shifted(0.0, 0.0), np.array([half_m, *[BAR_ROD_MM / 2e3] * 2]), 0.3)
            return (*balls, rod)
        case Target.STEP_GAUGE:
            return _steps(T_cell_artefact)
        case Target.BOARD:
            raise ValueError("the board is no artefact")


def _steps(T_cell_artefact: RigidTransform) -> tuple[Shape, ...]:
    width_m = STEP_WIDTH_MM / 1e3 / len(STEP_HEIGHTS_MM)
    blocks = []
    for number, height_mm in enumerate(STEP_HEIGHTS_MM):
        x_m = (number + 0.5) * width_m - STEP_WIDTH_MM / 2e3
        half = np.array([width_m / 2, STEP_DEPTH_MM / 2e3, (height_mm + STEP_BASE_MM) / 2e3])
        blocks.append(Block(T_cell_artefact @ _shifted(x_m, (height_mm - STEP_BASE_MM) / 2e3), half))
    return tuple(blocks)


def _shifted(x_m: float, z_m: float) -> RigidTransform:
    return RigidTransform("artefact", "body", np.eye(3), np.array([x_m, 0.0, z_m]))


def _plate_warp() -> Warp:
    return Warp(*PLATE_BENDS_M, plate_print().extent_m)


@lru_cache(maxsize=1)
def plate_print() -> Print:
    """Speckles on the plate, always the same ones: dark on light, about a millimetre wide."""
    size = tuple(round(side_mm / 1e3 * PLATE_PIXELS_PER_M) for side_mm in PLATE_MM)
    white = np.random.default_rng(0).standard_normal((size[1], size[0]), dtype=np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), PLATE_SPECKLE_M * PLATE_PIXELS_PER_M / 2)
    image = np.clip(np.rint(160 + 60 * smooth / smooth.std()), 0, 255).astype(np.uint8)
    origin_m = -np.array(PLATE_MM) / 2e3 + 0.5 / PLATE_PIXELS_PER_M
    return Print(image, PLATE_PIXELS_PER_M, origin_m)
