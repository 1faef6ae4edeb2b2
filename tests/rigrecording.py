"""Recordings of simulated rigs, as `solve_rig` takes them, with their truth."""

from dataclasses import replace

import numpy as np

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.synthetic_rig import RigSettings, RigTruth, synthetic_rig
from depthcell.calib.solving.rig import RigRecording
from depthcell.calib.target.boardview import BoardView

COLOR = Intrinsics(1280, 720, 920.0, 920.0, 639.5, 359.5, Distortion.BROWN_CONRADY, (0.1, -0.2, 0.0, 0.0, 0.0))


def recorded(seed: int, settings: RigSettings) -> tuple[RigRecording, RigTruth]:
    """A rig as it would be recorded; factory intrinsics are the nominal ones, `T_color_depth` is true."""
    problem, truth = synthetic_rig(settings, np.random.default_rng(seed))
    T_color_depth = (
        {} if settings.color is None else {serial: color_depth(truth, serial) for serial in problem.baselines_m}
    )
    return (
        RigRecording(
            boards=problem.boards,
            views=problem.views,
            factory=problem.streams,
            T_color_depth=T_color_depth,
            depth=problem.depth,
            baselines_m=problem.baselines_m if problem.depth else {},
        ),
        truth,
    )


def color_depth(truth: RigTruth, serial: str) -> RigidTransform:
    return truth.T_cell_stream[f"color:{serial}"].inverse() @ truth.T_cell_stream[f"depth:{serial}"]


def moved(view: BoardView, stream: str) -> BoardView:
    """The same view, of another stream."""
    return replace(view, stream=stream)
