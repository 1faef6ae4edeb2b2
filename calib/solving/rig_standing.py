"""A rig as it stands: what start values or an adjustment say of all cameras and boards, beside what was seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle_problem import Place
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView, DepthTiles


@dataclass(frozen=True, slots=True, eq=False)
class StandingRig:
    """A rig as start values or an adjustment have it.

    Attributes:
        boards: board number -> board.
        views: all views, those held out too.
        streams: stream -> lens.
        T_cell_stream, T_cell_board: poses of streams and of boards at their places.
        T_color_depth: serial -> the factory's transform.
        depth: depth on boards.
        focal_baseline_m: serial -> product f B in px m with which `depth` was counted.
    """

    boards: tuple[Board, ...]
    views: tuple[BoardView, ...]
    streams: Mapping[str, Intrinsics]
    T_cell_stream: Mapping[str, RigidTransform]
    T_cell_board: Mapping[Place, RigidTransform]
    T_color_depth: Mapping[str, RigidTransform] = field(default_factory=dict)
    depth: tuple[DepthTiles, ...] = ()
    focal_baseline_m: Mapping[str, float] = field(default_factory=dict)
