"""What a bundle adjustment is given: boards, where cameras saw them, where everything stood to begin with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.lens import lens_vector
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView, DepthTiles
from depthcell.errors import DepthcellError, Reason

Place = tuple[int, int]
"""(board, instant): one board standing still."""


@dataclass(frozen=True, slots=True)
class DepthPrior:
    """What is known of a depth correction before any measurement: standard uncertainties of its terms.

    They are wide, so that data decide; where data say nothing about a term it stays near zero, and its uncertainty here
    is what the covariance then holds.

    Attributes:
        scale_u: of the factor on depth, about 1.
        offset_u_px, curvature_u_px: of the terms in disparity, about 0.
        wave_u_px: of each coefficient of the wave, about 0.
        wave_shape: rows and columns of the wave's table; (0, 0) leaves the wave out.
    """

    scale_u: float = 0.05
    offset_u_px: float = 2.0
    curvature_u_px: float = 2.0
    wave_u_px: float = 0.5
    wave_shape: tuple[int, int] = (3, 4)


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """How an adjustment is done.

    Attributes:
        outlier_level: a corner further off than this many standard deviations is left out. A Gaussian error in two
            dimensions is further off with probability exp(-level² / 2): 4.5 costs one good corner in 25,000.
        warp_u_m: standard uncertainty of each of a board's two bends before any measurement.
        lens_u: standard uncertainty of each distortion coefficient before any measurement, as the relative shift that
            it causes in the image's corner.
        depth: what is known of depth before any measurement.
        focal_limit: a lens whose focal length stays more uncertain than this share of it is refused as undetermined.
        center_limit: likewise the principal point, as a share of the image's width.
        max_iterations: of the solver, each time it is called.
        max_rounds: of outlier search and weighting; the set of outliers must have settled by then.
        threads: of the solver's linear algebra.
    """

    outlier_level: float = 4.5
    warp_u_m: float = 1e-3
    lens_u: float = 1.0
    depth: DepthPrior = field(default_factory=DepthPrior)
    focal_limit: float = 0.03
    center_limit: float = 0.05
    max_iterations: int = 100
    max_rounds: int = 20
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class BundleProblem:
    """Everything that one adjustment is about.

    Attributes:
        boards: by number.
        views: where features were found.
        streams: lens of each imager to start from, by frame "depth:<serial>" or "color:<serial>".
        T_cell_stream: pose of each imager to start from.
        T_cell_board: pose of each board at each instant to start from, by (board, instant).
        origin: the place whose pose is held: it is what the frame "cell" means.
        depth: depth on faces of boards; `disparity_px` counted with the start's fx and `baselines_m`.
        baselines_m: of the cameras that have `depth`, by serial.
        board_scale_u: relative standard uncertainty of the boards' certified pitch; 0 holds the pitch.
        fixed_intrinsics: streams whose lens is held.

    Raises:
        DepthcellError: something is missing or does not fit together; the message names it.
    """

    boards: tuple[Board, ...]
    views: tuple[BoardView, ...]
    streams: Mapping[str, Intrinsics]
    T_cell_stream: Mapping[str, RigidTransform]
    T_cell_board: Mapping[Place, RigidTransform]
    origin: Place
    depth: tuple[DepthTiles, ...] = ()
    baselines_m: Mapping[str, float] = field(default_factory=dict)
    board_scale_u: float = 0.0
    fixed_intrinsics: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.views:
            raise DepthcellError("adjustment: no board was seen; record views of the board first")
        for stream, intrinsics in self.streams.items():
            if stream not in self.T_cell_stream:
                raise DepthcellError(f"adjustment: {stream} has a lens but no pose to start from")
            lens_vector(intrinsics)
        for view in self.views:
            self._check_view(view)
        for tiles in self.depth:
            self._check_tiles(tiles)
        self._check_ties()

    def _check_view(self, view: BoardView) -> None:
        where = f"view {view.instant} of {view.stream}"
        if view.stream not in self.streams:
            raise DepthcellError(f"{where}: the stream has no lens to start from")
        if view.place not in self.T_cell_board:
            raise DepthcellError(f"{where}: board {view.board} has no pose to start from at this instant")
        if not 0 <= view.board < len(self.boards):
            raise DepthcellError(f"{where}: board {view.board} is not among the {len(self.boards)} boards")
        count = len(self.boards[view.board].points_board)
        if len(view.ids) and not (view.ids[0] >= 0 and view.ids[-1] < count):
            raise DepthcellError(f"{where}: a feature's id is outside 0 to {count - 1} of board {view.board}")

    def _check_tiles(self, tiles: DepthTiles) -> None:
        where = f"depth of view {tiles.instant}, camera {tiles.serial}"
        if f"depth:{tiles.serial}" not in self.streams:
            raise DepthcellError(f"{where}: depth:{tiles.serial} has no lens to start from")
        if tiles.serial not in self.baselines_m:
            raise DepthcellError(f"{where}: its baseline is not known; give it in baselines_m")
        if all(view.place != tiles.place for view in self.views):
            raise DepthcellError(f"{where}: no camera saw the corners of board {tiles.board} at this instant")

    def _check_ties(self) -> None:
        """All streams hang together through boards that two of them saw at one instant."""
        streams, places = list(self.streams), list({view.place for view in self.views})
        if self.origin not in places:
            raise DepthcellError(f"adjustment: no view of the origin, board {self.origin[0]} at {self.origin[1]}")
        rows = [streams.index(view.stream) for view in self.views]
        columns = [len(streams) + places.index(view.place) for view in self.views]
        size = len(streams) + len(places)
        _, part = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size)), False)
        main = part[len(streams) + places.index(self.origin)]
        loose = [stream for number, stream in enumerate(streams) if part[number] != main]
        if loose:
            raise DepthcellError(
                f"adjustment: nothing ties {', '.join(loose)} to the origin; record a view in which it and another "
                "camera see one board at the same instant",
                Reason.CELL_INVALID,
            )
