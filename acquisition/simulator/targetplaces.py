"""Where a person would hold a board before the cameras, and where the artefacts of an acceptance test would lie."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.calibrationcell import CalibrationCamera, CalibrationCell, board_pose_in_fixture
from depthcell.acquisition.transform import FloatArray, RigidTransform

NEAREST, FARTHEST = 0.76, 1.3
"""Of the stand-off: how near to a camera and how far from it the board is held."""
TILT_DEG, TILT_SHARED_DEG, TILT_ARTEFACT_DEG = (12.0, 45.0), (0.0, 28.0), (0.0, 25.0)
SPIN_DEG = 40.0
IMAGE_SHARE = 0.40
"""How far from the image's middle the board's middle may come: so far that a part of it is cut off."""
SHARED_REACH, ARTEFACT_REACH = (0.14, 0.14, 0.16), (0.12, 0.12, 0.10)
"""Half of the work volume, of the stand-off."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Left, top, right and bottom of a board's or plate's face in its own frame, metres."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> NDArray[np.float64]:
        """(3,) of the face."""
        return np.array([(self.left + self.right) / 2, (self.top + self.bottom) / 2, 0.0])


def board_places(cell: CalibrationCell, extent: Extent, rng: np.random.Generator) -> tuple[RigidTransform, ...]:
    """`T_cell_board` of every place.

    First flat in the fixture, where all cameras see it. Then in turn: somewhere in the work volume, facing up, for all
    cameras together; and for one camera after the other somewhere in its image, near or far, tilted by up to 45°.
    """
    poses = [board_pose_in_fixture()]
    for place in range(1, cell.plan.places):
        if place % 2:
            poses.append(_shared(cell, extent, rng))
        else:
            camera = cell.cameras[(place // 2 - 1) % len(cell.cameras)]
            poses.append(_before(camera, cell.standoff_m, extent, rng))
    return tuple(poses)


def artefact_places(cell: CalibrationCell, count: int, rng: np.random.Generator) -> tuple[RigidTransform, ...]:
    """`T_cell_artefact`, z up out of the fixture, spread over the work volume: the first in its middle, level."""
    level = RigidTransform("cell", "artefact", np.eye(3), np.array(cell.middle_cell))
    poses = [level]
    for _ in range(1, count):
        turn = _tilt(TILT_ARTEFACT_DEG, rng) @ _spin(180.0, rng)
        place = np.array(cell.middle_cell) + cell.standoff_m * rng.uniform(-1, 1, 3) * ARTEFACT_REACH
        poses.append(RigidTransform("cell", "artefact", turn, place))
    return tuple(poses)


def _shared(cell: CalibrationCell, extent: Extent, rng: np.random.Generator) -> RigidTransform:
    face_up = board_pose_in_fixture().rotation
    turn = _tilt(TILT_SHARED_DEG, rng) @ face_up @ _spin(SPIN_DEG, rng)
    middle = np.array(cell.middle_cell) + cell.standoff_m * rng.uniform(-1, 1, 3) * SHARED_REACH
    return RigidTransform("cell", "board", turn, middle - turn @ extent.middle)


def _before(camera: CalibrationCamera, standoff_m: float, extent: Extent, rng: np.random.Generator) -> RigidTransform:
    lens, frame = camera.depth, camera.body.T_cell_depth.source
    turn = _tilt(TILT_DEG, rng) @ _spin(SPIN_DEG, rng)
    depth_m = standoff_m * rng.uniform(NEAREST, FARTHEST)
    pixel = np.array([lens.width_px, lens.height_px]) * (0.5 + IMAGE_SHARE * rng.uniform(-1, 1, 2))
    ideal = (pixel - (lens.cx_px, lens.cy_px)) / (lens.fx_px, lens.fy_px)
    middle = depth_m * np.array([*ideal, 1.0])
    T_depth_board = RigidTransform(frame, "board", turn, middle - turn @ extent.middle)
    return camera.body.T_cell_depth @ T_depth_board


def _tilt(range_deg: tuple[float, float], rng: np.random.Generator) -> FloatArray:
    """About some axis in the plane."""
    angle, azimuth = np.radians(rng.uniform(*range_deg)), rng.uniform(0, 2 * np.pi)
    axis = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    return RigidTransform.from_rotation_vector("cell", "cell", angle * axis, np.zeros(3)).rotation


def _spin(reach_deg: float, rng: np.random.Generator) -> FloatArray:
    """About the normal."""
    angle = np.radians(rng.uniform(-reach_deg, reach_deg))
    return RigidTransform.from_rotation_vector("cell", "cell", np.array([0.0, 0.0, angle]), np.zeros(3)).rotation
