"""Frames of all cameras become one part: time first, then one geometric pass per camera, then one merged cloud."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from depthcell.acquisition.frameset import FrameSet
from depthcell.calib.cell import Cell
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.region import Region
from depthcell.fusion.view import View


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How frames become a part.

    Attributes:
        region: box that holds the part; None keeps all that was measured.
        min_fraction: share of frames that must have measured a pixel.
        edge_margin_px: pixels dropped on both sides of a depth jump, where the matching window mixes two surfaces.
        normal_radii_px: half sizes of the windows for normals, the first that is whole is taken.
        max_incidence_rad: surfaces that a camera sees at a flatter angle are left to the other cameras.
        voxel_m: edge of the cells in which views are merged; None takes the median footprint of a pixel.
        with_color: whether colour is averaged and projected.
    """

    region: Region | None = None
    min_fraction: float = 0.5
    edge_margin_px: int = 2
    normal_radii_px: tuple[int, ...] = (4, 2)
    max_incidence_rad: float = math.radians(75.0)
    voxel_m: float | None = None
    with_color: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class FusedPart:
    """One part as all cameras saw it.

    Attributes:
        views: one per camera that gave depth, in the cell's order.
        cloud: all views merged.
        missing: serial numbers of the cell's cameras that gave no depth.
        frames: frame sets that were absorbed.
        warnings: what a person should know, in words.
    """

    views: tuple[View, ...]
    cloud: PartCloud
    missing: tuple[str, ...]
    frames: int
    warnings: tuple[str, ...]


class PartAccumulator:
    """Absorbs frame sets as they arrive; `fuse` is all that is left to do after the last one."""

    def __init__(self, cell: Cell, settings: FusionSettings | None = None) -> None:
        raise NotImplementedError

    def add(self, frameset: FrameSet) -> None:
        """Absorb one instant of all cameras.

        Raises:
            DepthcellError: a camera is not of this cell, or its image does not fit the cell's intrinsics.
        """
        raise NotImplementedError

    def fuse(self) -> FusedPart:
        """The part as seen so far.

        Raises:
            DepthcellError: no camera gave any depth.
        """
        raise NotImplementedError


def fuse(framesets: Iterable[FrameSet], cell: Cell, settings: FusionSettings | None = None) -> FusedPart:
    """All `framesets` of one resting part, averaged, placed in the cell and merged."""
    raise NotImplementedError
