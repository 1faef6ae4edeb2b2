"""From what a person names on the command line to a fused part and its files: part, cell, track, how many frames."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import FrameSet
from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.acquisition.recording import open_recording
from depthcell.calib.cell import Cell
from depthcell.calib.factory import factory_cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.cloud_file import CLOUD_ENDINGS, unknown_ending, write_cloud
from depthcell.fusion.fuse import FusedPart, PartAccumulator
from depthcell.fusion.mesh_file import MESH_ENDINGS, write_mesh
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.track import Track
from depthcell.fusion.track_box import BoxFinder
from depthcell.fusion.track_file import read_track
from depthcell.fusion.track_fuse import FusedMotion, MotionAccumulator, MotionSettings
from depthcell.fusion.track_time import instant_ns
from depthcell.fusion.tsdf_surface import SurfaceMesh, mesh_of
from depthcell.fusion.tsdf_views import field_of_views

CELL_FILE = "cell.json"


@dataclass(frozen=True, slots=True)
class FuseRequest:
    """What the verb `fuse` was asked.

    Attributes:
        source: a recording, a part's folder, or a folder with a single part in it.
        out: file of the cloud (`CLOUD_ENDINGS`); one that ends in .stl takes the mesh.
        cell_path: of the cell file; None looks for one beside the recordings.
        frames: use only the first so many frame sets; None takes all.
        track_path: of the track of a moving part or rig; None: everything rests.
        mesh_path: file of the mesh (`MESH_ENDINGS`), beside the cloud.
        motion: voxel, memory and refinement; the voxel is also that of the mesh of a resting part.
    """

    source: Path
    out: Path
    cell_path: Path | None = None
    frames: int | None = None
    track_path: Path | None = None
    mesh_path: Path | None = None
    motion: MotionSettings = field(default_factory=MotionSettings)


def fuse_to_files(request: FuseRequest, absorbed: Callable[[], None]) -> dict[str, object]:
    """All that the verb `fuse` does: fuse the one part of the source, write its cloud, its mesh, or both.

    Returns:
        What a program may want to know, lengths in millimetres; `warnings` among it, for people.

    Raises:
        DepthcellError: an ending is unknown (before any work), source, cell and track do not fit, or nothing was
            measured.
    """
    cloud_path, mesh_paths = _outputs(request)
    mesh: SurfaceMesh | None = None
    if request.track_path is None:
        fused, cell = fuse_source(request.source, request.cell_path, request.frames, absorbed)
        summary, warnings, cloud = summarized(fused, cell), fused.warnings, fused.cloud
        if mesh_paths:
            mesh = mesh_of(field_of_views(fused.views, cell, request.motion.voxel_m, request.motion.limit_bytes))
    else:
        moved, cell = fuse_moving_source(request, absorbed)
        summary, warnings, cloud = motion_summarized(moved, cell), moved.warnings, moved.cloud
        if mesh_paths:
            mesh = mesh_of(moved.field, moved.least_frames).placed(moved.T_cell_part)
    written: dict[str, object] = {"out": str(request.out)}
    if cloud_path is not None:
        write_cloud(cloud_path, cloud)
    if mesh is not None:
        for path in mesh_paths:
            warnings = (*warnings, *write_mesh(path, mesh))
        written |= {"mesh": [str(path) for path in mesh_paths], "triangles": len(mesh.triangles)}
    return {**written, **summary, "warnings": list(warnings)}


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


def fuse_moving_source(request: FuseRequest, absorbed: Callable[[], None]) -> tuple[FusedMotion, Cell]:
    """Fuse the one part that the source holds, along its track; the recordings are read twice.

    The reference pose is that of the frame set in the middle. Where the track's file names no volume, one is taken from
    what was measured.

    Raises:
        DepthcellError: the source holds several parts or none, holds no depth, or it, cell and track do not fit.
    """
    if request.track_path is None:
        raise DepthcellError("fuse: no track was named; a moving part needs one")
    part = _only_part(request.source)
    cell = _cell_for(part, request.source, request.cell_path)
    described = read_track(request.track_path)

    def framesets() -> Iterator[FrameSet]:
        return islice(part.framesets(tuple(cell.cameras)), request.frames)

    times_ns = _times_ns(framesets(), described.track, request.source)
    box_m, found = described.box_m, False
    if box_m is None:
        finder = BoxFinder(cell, described.track)
        for frameset in framesets():
            finder.add(frameset)
        box_m, found = finder.box_m(), True
    accumulator = MotionAccumulator(cell, described.track, box_m, times_ns[len(times_ns) // 2], request.motion)
    accumulator.add_all(framesets(), absorbed)
    fused = accumulator.fuse()
    return (fused.warned(_found_box_words(box_m)) if found else fused), cell


def motion_summarized(fused: FusedMotion, cell: Cell) -> dict[str, object]:
    """What a program may want to know of a part fused along a track; lengths in millimetres."""
    pose = fused.T_cell_part
    return {
        "points": len(fused.cloud),
        "cameras": [serial for serial in cell.cameras if serial not in fused.missing],
        "missing": list(fused.missing),
        "frames": fused.frames,
        "extent_mm": _extent_mm(fused.cloud),
        "median_random_sigma_mm": _median_mm(fused.cloud.random_sigma_m),
        "median_systematic_sigma_mm": _median_mm(fused.cloud.systematic_sigma_m),
        "voxel_mm": fused.field.box.voxel_m * 1e3,
        "truncation_mm": round(fused.field.truncation_m * 1e3, 3),
        "memory_stated_mib": round(fused.bytes_stated / 2**20, 1),
        "memory_used_mib": round(fused.bytes_used / 2**20, 1),
        "reference_translation_mm": [round(value * 1e3, 4) for value in pose.translation_m.tolist()],
        "reference_rotation_vector_rad": [round(value, 7) for value in pose.rotation_vector_rad.tolist()],
        "cell": cell.name,
        "cell_sha256": cell.sha256,
        "warnings": list(fused.warnings),
    }


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


def _outputs(request: FuseRequest) -> tuple[Path | None, list[Path]]:
    """Where the cloud and where meshes go."""
    meshes = [] if request.mesh_path is None else [request.mesh_path]
    for path in meshes:
        if path.suffix.lower() not in MESH_ENDINGS:
            raise unknown_ending(path, MESH_ENDINGS)
    if request.out.suffix.lower() == ".stl":
        return None, [request.out, *meshes]
    if request.out.suffix.lower() not in CLOUD_ENDINGS:
        raise unknown_ending(request.out, (*CLOUD_ENDINGS, ".stl"))
    if request.mesh_path == request.out:
        raise DepthcellError(f"{request.out}: cloud and mesh cannot share a file; name two")
    return request.out, meshes


def _times_ns(framesets: Iterator[FrameSet], track: Track, source: Path) -> list[int]:
    """Instants of all depth frames, in order; refused where the track does not hold them all."""
    times_ns = [
        instant_ns(frameset, frame)
        for frameset in framesets
        for frame in frameset.frames.values()
        if frame.depth is not None
    ]
    if not times_ns:
        raise DepthcellError(f"{source}: holds no depth frame; record the depth stream", Reason.NOT_MEASURED)
    track.check_covers(times_ns)
    return sorted(times_ns)


def _found_box_words(box_m: tuple[NDArray[np.float64], NDArray[np.float64]]) -> str:
    low, high = (", ".join(f"{value * 1e3:.0f}" for value in corner) for corner in box_m)
    return (
        f"the track names no volume, so all that was measured from ({low}) to ({high}) mm was taken for the part; "
        "name [volume] in a .toml track"
    )


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
