"""The cell that a faultless calibration of a simulated rig would give, for benchmarks of what comes after it."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.rig import StationCamera
from depthcell.acquisition.simulator.stereo import StereoNoise
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise

STATED = np.diag(np.array([1e-4] * 3 + [3e-5] * 3) ** 2)
"""Covariance of a pose: 0.1 mrad and 30 um about each axis."""


def cell_of(cameras: Iterable[StationCamera], noise: StereoNoise, covariance: NDArray[np.float64] = STATED) -> Cell:
    """Poses and lenses as they truly are; `covariance` (6, 6) is what is stated of each pose."""
    found = {
        camera.serial: CellCamera(
            serial=camera.serial,
            model=camera.model.name,
            depth=camera.model.depth_intrinsics,
            color=None,
            T_cell_depth=camera.T_cell_depth,
            covariance=covariance,
            T_color_depth=None,
            baseline_m=camera.model.baseline_m,
            noise=DisparityNoise(noise.temporal_px, noise.lasting_px, noise.correlation_px),
        )
        for camera in cameras
    }
    return Cell("benchmark", found, "2026-01-01T00:00:00Z")
