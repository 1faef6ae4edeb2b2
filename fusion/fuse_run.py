"""From what a person names on the command line to a fused part: which part, which cell, how many frames."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.acquisition.recording import open_recording
from depthcell.calib.cell import Cell
from depthcell.calib.factory import factory_cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.fuse import FusedPart, PartAccumulator
from depthcell.fusion.partcloud import PartCloud

CELL_FILE = "cell.json"


def fuse_source(
    source: Path, cell_path: Path | None, frames: int | None, absorbed: Callable[[], None]
) -> tuple[FusedPart, Cell]:
    """Fuse the one part that `source` holds.

    Args:
        source: a recording, a part's folder, or a folder with a single part in it.
        cell_path: of the cell file; None looks for one beside the recordings.
        frames: use only the first so many frame sets; None takes all.
        absorbed: called after each frame set.

    Raises:
        DepthcellError: the source holds several parts or none, or they and the cell do not fit.
    """
    part = _only_part(source)
    cell = _cell_for(part, source, cell_path)
    accumulator = PartAccumulator(cell)
    for frameset in islice(part.framesets(tuple(cell.cameras)), frames):
        accumulator.add(frameset)
        absorbed()
    return accumulator.fuse(), cell


def summarized(fused: FusedPart, cell: Cell) -> dict[str, object]:
    """What a program may want to know of a fused part; lengths in millimetres."""
    return {
        "points": len(fused.cloud),
        "cameras": [view.serial for view in fused.views],
        "missing": list(fused.missing),
        "frames": fused.frames,
        "extent_mm": _extent_mm(fused.cloud),
        "median_random_sigma_mm": _median_mm(fused.cloud.random_sigma_m),
        "median_systematic_sigma_mm": _median_mm(fused.cloud.systematic_sigma_m),
        "cell": cell.name,
        "cell_sha256": cell.sha256,
        "warnings": list(fused.warnings),
    }


def _only_part(source: Path) -> PartFolder:
    parts = find_parts(source)
    if len(parts) == 1:
        return parts[0]
    raise DepthcellError(f"{source}: holds {len(parts)} parts; name one of them, such as {source / parts[0].part_id}")


def _cell_for(part: PartFolder, source: Path, cell_path: Path | None) -> Cell:
    """The named cell file, else one in the part's folder or in the run's, else the camera as the factory built it."""
    folder = part.paths[0].absolute().parent
    beside = [path for path in (folder / CELL_FILE, folder.parent / CELL_FILE) if path.is_file()]
    path = cell_path or (beside[0] if beside else None)
    recordings = [open_recording(path) for path in part.paths]
    serials = sorted({recording.serial for recording in recordings})
    if path is None:
        if len(serials) > 1:
            raise DepthcellError(f"{source}: holds cameras {', '.join(serials)}; say how they stand with --cell")
        return factory_cell(frame for recording in recordings for frame in recording.camera_frames())
    cell = Cell.load(path)
    if not cell.cameras.keys() & set(serials):
        raise DepthcellError(
            f"cell {path}: has none of the cameras {', '.join(serials)} of {source}; name the right one with --cell",
            Reason.CELL_INVALID,
        )
    return cell


def _extent_mm(cloud: PartCloud) -> list[float]:
    if not len(cloud):
        return [0.0, 0.0, 0.0]
    return [round(float(np.ptp(cloud.points_cell[:, axis])) * 1e3, 3) for axis in range(3)]


def _median_mm(sigma_m: np.ndarray) -> float | None:
    return round(float(np.median(sigma_m)) * 1e3, 5) if len(sigma_m) else None
