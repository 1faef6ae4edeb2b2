"""Where the cameras stand around the part, and what is believed about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from depthcell.acquisition.simulator.cameras import StereoModel, SystematicError
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError

MAX_CAMERAS = 6
# Tilt from the vertical and azimuth, degrees. The fourth looks straight down; one camera alone does so too.
_RING = ((32.0, 20.0), (32.0, 140.0), (32.0, 260.0), (0.0, 0.0), (24.0, 80.0), (24.0, 200.0))


@dataclass(frozen=True, slots=True, eq=False)
class StationCamera:
    """A camera as it truly stands and errs.

    Attributes:
        serial: serial number.
        model: type of camera.
        T_cell_depth: true pose of its depth stream.
        T_color_depth: true pose of the depth stream in the colour camera; the factory's differs a little.
        error: of its depth, in the state in which the cell was calibrated.
    """

    serial: str
    model: StereoModel
    T_cell_depth: RigidTransform
    T_color_depth: RigidTransform
    error: SystematicError

    @property
    def right_imager_cell(self) -> FloatArray:
        """(3,) metres: where the right imager stands, a baseline along the left one's x axis."""
        return self.T_cell_depth @ np.array([self.model.baseline_m, 0.0, 0.0])


def looking_at(serial: str, target_cell: FloatArray, camera_cell: FloatArray) -> RigidTransform:
    """Pose of a camera at `camera_cell` whose axis goes through `target_cell`, its x axis level with the plate."""
    forward = (target_cell - camera_cell) / np.linalg.norm(target_cell - camera_cell)
    beside = np.cross(forward, (0.0, 0.0, 1.0))
    if np.linalg.norm(beside) < 1e-6:
        beside = np.array([1.0, 0.0, 0.0])
    beside /= np.linalg.norm(beside)
    rotation = np.stack((beside, np.cross(forward, beside), forward), axis=1)
    return RigidTransform("cell", f"depth:{serial}", rotation, np.asarray(camera_cell, dtype=np.float64))


def build_rig(
    model: StereoModel, count: int, target_cell: FloatArray, radius_m: float, rng: np.random.Generator
) -> tuple[StationCamera, ...]:
    """Place `count` cameras around `target_cell` so that a part of `radius_m` stays in view and above min-Z.

    Mounting tolerance, depth error and colour extrinsics are drawn from `rng`.
    """
    if not 1 <= count <= MAX_CAMERAS:
        raise DepthcellError(f"--cameras {count}: must be 1 to {MAX_CAMERAS}")
    fits_m = radius_m * model.focal_px / (0.92 * model.depth_intrinsics.height_px / 2)
    standoff_m = max(model.standoff_m, fits_m, 1.05 * model.min_depth_m + 0.8 * radius_m)
    ring: Sequence[tuple[float, float]] = _RING[3:4] if count == 1 else _RING[:count]
    cameras = []
    for number, (tilt_deg, azimuth_deg) in enumerate(ring, start=1):
        serial = f"{model.name[-3:]}{number:06d}"
        tilt, azimuth = np.radians((tilt_deg, azimuth_deg))
        outward = np.array([np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), np.cos(tilt)])
        mounted = looking_at(serial, target_cell, target_cell + standoff_m * outward)
        twist = np.concatenate((rng.normal(0, np.radians(0.3), 3), rng.normal(0, 5e-4, 3)))
        cameras.append(
            StationCamera(
                serial,
                model,
                mounted.perturbed(twist),
                _true_color_pose(model, serial, rng),
                SystematicError(1.0 + rng.normal(0, 2e-3), rng.normal(0, 0.05)),
            )
        )
    return tuple(cameras)


def _true_color_pose(model: StereoModel, serial: str, rng: np.random.Generator) -> RigidTransform:
    """The factory's extrinsics are off by some hundredths of a degree and tenths of a millimetre."""
    factory = model.factory_T_color_depth(serial)
    twist = np.concatenate((rng.normal(0, np.radians(0.03), 3), rng.normal(0, 2e-4, 3)))
    return factory if model.color_focal_px is None else factory.perturbed(twist)
