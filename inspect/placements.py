"""An artefact at one place after another: its recordings cut into placements, each fused, as points for a test."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import radians
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import FrameSet
from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.calib.cell import Cell
from depthcell.calib.depth.plate_frames import resting_places
from depthcell.calib.verify.acceptance import MERGED
from depthcell.calib.verify.acceptance_points import SurfacePoints
from depthcell.errors import DepthcellError
from depthcell.fusion.fuse import FusedPart, FusionSettings, PartAccumulator
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.view import View

SETTINGS = FusionSettings(with_color=False, max_incidence_rad=radians(60.0))
"""Flatter than 60° a matching window covers so much of a sphere that its depth says little of one place."""


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """An artefact standing at one place.

    Attributes:
        name: which.
        fused: all that was measured there.
    """

    name: str
    fused: FusedPart

    def sources(self) -> dict[str, SurfacePoints]:
        """Points by who measured them: each camera alone, and all merged where there are several."""
        by_camera = {view.serial: points_of_view(view) for view in self.fused.views if view.valid.any()}
        return by_camera | ({MERGED: points_of_cloud(self.fused.cloud)} if len(by_camera) > 1 else {})


def read_placements(source: Path, cell: Cell, frames_per_placement: int | None) -> Iterator[Placement]:
    """Every placement in turn, fused.

    Args:
        source: a folder of placements' folders, or one with a recording of each camera that holds all placements one
            after the other.
        cell: the cameras.
        frames_per_placement: frame sets of each; None takes a pause of more than 1.5 s for a move.

    Raises:
        DepthcellError: the source holds no recording, or none of the cell's cameras.
    """
    parts = find_parts(source)
    for part in parts:
        framesets = part.framesets(tuple(cell.cameras))
        cuts = resting_places(framesets) if frames_per_placement is None else _counted(framesets, frames_per_placement)
        for number, place in enumerate(cuts, start=1):
            name = part.part_id if len(parts) > 1 else f"place {number}"
            yield Placement(name, _fused(part, place, cell))


def points_of_view(view: View) -> SurfacePoints:
    """What one camera measured, alone."""
    chosen = np.flatnonzero(view.valid)

    def column(image: NDArray[np.float32], width: tuple[int, ...] = ()) -> NDArray[np.float64]:
        return image.reshape(-1, *width).take(chosen, axis=0).astype(np.float64)

    return SurfacePoints(
        points_cell=column(view.points_cell, (3,)),
        normals_cell=column(view.normals_cell, (3,)),
        sigma_m=column(view.random_sigma_m),
        correlation_m=column(view.correlation_m),
        share=np.ones((len(chosen), 1)),
        serials=(view.serial,),
    )


def points_of_cloud(cloud: PartCloud) -> SurfacePoints:
    """What all cameras measured, merged."""
    return SurfacePoints(
        points_cell=cloud.points_cell,
        normals_cell=cloud.normals_cell.astype(np.float64),
        sigma_m=cloud.random_sigma_m.astype(np.float64),
        correlation_m=cloud.correlation_m.astype(np.float64),
        share=cloud.share.astype(np.float64),
        serials=cloud.serials,
    )


def _counted(framesets: Iterable[FrameSet], count: int) -> Iterator[list[FrameSet]]:
    remaining = iter(framesets)
    while place := list(islice(remaining, count)):
        yield place


def _fused(part: PartFolder, framesets: list[FrameSet], cell: Cell) -> FusedPart:
    accumulator = PartAccumulator(cell, SETTINGS)
    for frameset in framesets:
        accumulator.add(frameset)
    try:
        return accumulator.fuse()
    except DepthcellError as error:
        raise DepthcellError(f"{part.part_id}: {error}") from error
