"""What the targets hand to the adjustment: where a board's features stand in one image, and depth on its face."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError


@dataclass(frozen=True, slots=True, eq=False)
class BoardView:
    """One board in one image.

    Attributes:
        stream: frame of the imager, "depth:<serial>" (left infrared) or "color:<serial>".
        instant: number of the place at which the board stood; views of one board and instant see it in one pose.
        board: number of the board.
        ids: (N,) int64, features that were found, ascending; index into `Board.points_board`.
        pixels: (N, 2) float64, where, as (column, row).
        sigma_px: standard uncertainty of one coordinate, as the detector states it.
    """

    stream: str
    instant: int
    board: int
    ids: NDArray[np.int64]
    pixels: NDArray[np.float64]
    sigma_px: float

    def __post_init__(self) -> None:
        where = f"view {self.instant} of {self.stream}"
        if self.pixels.shape != (len(self.ids), 2) or not np.isfinite(self.pixels).all():
            raise DepthcellError(f"{where}: pixels must be finite and ({len(self.ids)}, 2), got {self.pixels.shape}")
        if (np.diff(self.ids) <= 0).any():
            raise DepthcellError(f"{where}: ids must ascend, each once")
        if not self.sigma_px > 0:
            raise DepthcellError(f"{where}: sigma_px must be positive, got {self.sigma_px}")

    @property
    def place(self) -> tuple[int, int]:
        """Board and instant: the key of the board's pose."""
        return self.board, self.instant


@dataclass(frozen=True, slots=True, eq=False)
class DepthTiles:
    """Depth that one camera read on the face of a board, averaged over small tiles.

    Attributes:
        serial: the camera's.
        instant, board: as in `BoardView`; the board's pose says what the depth should be.
        pixels: (M, 2) float64, centres of the tiles as (column, row).
        disparity_px: (M,) float64, f B / z of the mean depth as read, with f and B that the cell will hold.
        sigma_px: (M,) float64, standard uncertainty of `disparity_px` from noise, the fixed pattern included.
    """

    serial: str
    instant: int
    board: int
    pixels: NDArray[np.float64]
    disparity_px: NDArray[np.float64]
    sigma_px: NDArray[np.float64]

    def __post_init__(self) -> None:
        where, count = f"depth of view {self.instant}, camera {self.serial}", len(self.disparity_px)
        if self.pixels.shape != (count, 2) or self.sigma_px.shape != (count,):
            raise DepthcellError(f"{where}: pixels and sigma_px must hold {count} tiles")
        if not ((self.disparity_px > 0).all() and (self.sigma_px > 0).all()):
            raise DepthcellError(f"{where}: disparity and its uncertainty must be positive")

    @property
    def place(self) -> tuple[int, int]:
        """Board and instant: the key of the board's pose."""
        return self.board, self.instant
