"""The calibration of a simulated cell: what one would have found of it, and how well."""

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.rig import StationCamera
from depthcell.acquisition.simulator.station import Station, Stream
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise, camera_covariance
from depthcell.calib.depthcorrection import DepthCorrection

CALIBRATED_AT = "2026-01-05T06:00:00Z"
POSE_U_RAD = float(np.radians(0.01))
POSE_U_M = 5e-5
SCALE_U = 3e-4
OFFSET_U_PX = 0.01


def calibrated_cell(station: Station) -> Cell:
    """What a calibration would have found: the truth, missed by a draw from the uncertainty that the cell states."""
    cameras = {
        camera.serial: _calibrated(station, camera, station.plan.generator(Stream.CALIBRATION, number))
        for number, camera in enumerate(station.cameras)
    }
    return Cell(f"simulated {station.plan.camera_model} cell", cameras, CALIBRATED_AT)


def _calibrated(station: Station, camera: StationCamera, rng: np.random.Generator) -> CellCamera:
    model, noise = camera.model, station.plan.noise
    # Turns are about the cell's origin, which lies at the part, so 0.01 degrees there are 0.01 mm on the part's rim.
    sigma: NDArray[np.float64] = np.array([POSE_U_RAD] * 3 + [POSE_U_M] * 3)
    T_cell_depth = camera.T_cell_depth.perturbed(rng.normal(0, sigma))
    correction = DepthCorrection(
        scale=camera.error.scale + rng.normal(0, SCALE_U),
        disparity_offset_px=camera.error.disparity_offset_px + rng.normal(0, OFFSET_U_PX),
    )
    has_own_color = model.color_focal_px is not None
    return CellCamera(
        serial=camera.serial,
        model=model.name,
        depth=model.depth_intrinsics,
        color=model.color_intrinsics,
        T_cell_depth=T_cell_depth,
        covariance=camera_covariance(
            np.diag(sigma**2),
            model.depth_intrinsics,
            correction,
            {"scale": SCALE_U, "disparity_offset_px": OFFSET_U_PX},
        ),
        T_color_depth=camera.T_color_depth if not has_own_color else model.factory_T_color_depth(camera.serial),
        baseline_m=model.baseline_m,
        noise=DisparityNoise(
            temporal_px=noise.temporal_px, fixed_px=noise.lasting_px, correlation_px=noise.correlation_px
        ),
        correction=correction,
    )
