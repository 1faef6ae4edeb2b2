"""The box that holds what moved along a track, found from what was measured, for tracks that name none."""

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import FrameSet
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.track import Track
from depthcell.fusion.track_time import instant_ns

STRIDE_PX = 16
OUTLIERS = 0.5
"""Percent of the points at either end of an axis that may be ghosts."""
MARGIN = 0.02
"""Of the box's longest side, added all around."""


class BoxFinder:
    """Collects some points of every frame; `add` frame sets, then ask for `box_m`."""

    def __init__(self, cell: Cell, track: Track) -> None:
        self._cell, self._track = cell, track
        self._points: list[NDArray[np.float64]] = []

    def add(self, frameset: FrameSet) -> None:
        """Take every 16th pixel of every 16th row.

        Raises:
            DepthcellError: a frame lies outside the track.
        """
        for serial, frame in frameset.frames.items():
            if frame.depth is None:
                continue
            camera = self._cell.camera(serial)
            some = (slice(STRIDE_PX // 2, None, STRIDE_PX), slice(STRIDE_PX // 2, None, STRIDE_PX))
            points_cam = camera.depth.rays()[some] * frame.depth.depth_m[some][..., None]
            points_cam = points_cam[np.isfinite(points_cam).all(axis=-1)].astype(np.float64)
            T_part_cam = self._track.pose(instant_ns(frameset, frame)).inverse() @ camera.T_cell_depth
            self._points.append(np.asarray(T_part_cam @ points_cam, dtype=np.float64))

    def box_m(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper corner (3,), metres, frame "part".

        Raises:
            DepthcellError: (`NOT_MEASURED`) no frame held any depth.
        """
        points = np.concatenate(self._points) if self._points else np.zeros((0, 3))
        if not len(points):
            raise DepthcellError(f"track {self._track.name}: no frame holds any depth", Reason.NOT_MEASURED)
        low, high = np.percentile(points, [OUTLIERS, 100 - OUTLIERS], axis=0)
        margin_m = MARGIN * float((high - low).max())
        return low - margin_m, high + margin_m
