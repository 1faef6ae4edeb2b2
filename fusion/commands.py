"""Command-line verbs of the fusion room."""

import json
from pathlib import Path
from typing import Annotated

import typer


def fuse(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    source: Annotated[Path, typer.Argument(help="One recording, or one part's folder of recordings.")],
    out: Annotated[Path, typer.Option(help="Cloud to write: .ply, .pcd or .e57; or a mesh: .stl.")],
    cell: Annotated[
        Path | None, typer.Option(help="Cell file; cell.json beside the recordings or one folder up if not given.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Use only the first so many frames.")] = None,
    track: Annotated[
        Path | None, typer.Option(help="The part or the rig moves: its trajectory (.csv) or encoder (.toml).")
    ] = None,
    mesh: Annotated[Path | None, typer.Option(help="Write the surface too: .ply or .stl.")] = None,
    voxel_mm: Annotated[float, typer.Option(min=0.05, help="Edge of a voxel of mesh and moving part, mm.")] = 1.0,
    refine: Annotated[bool, typer.Option("--refine", help="With --track: refine poses on the surface so far.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Average a part's frames, place them in the cell, merge all cameras into one cloud with its uncertainty.

    Where there is no cell file, a single camera is taken as the factory built it, at the cell's origin.

    Example: depthcell fuse tests/data/single_depth_color_640x480.bag --out part.ply

    Example: depthcell fuse runs/belt/part_0001 --track runs/belt/part_0001/track.toml --out part.e57 --mesh part.stl
    """
    from rich.console import Console
    from rich.progress import Progress

    from depthcell.fusion.fuse_run import FuseRequest, fuse_to_files
    from depthcell.fusion.track_fuse import MotionSettings

    motion = MotionSettings(voxel_m=voxel_mm / 1e3, is_refined=refine)
    request = FuseRequest(source, out, cell, frames, track, mesh, motion)
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("fuse", total=frames)
        summary = fuse_to_files(request, lambda: progress.advance(task))
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    for name, value in summary.items():
        words = ", ".join(map(str, value)) if isinstance(value, list) else value
        if words not in ("", None):
            print(f"{name.replace('_', ' '):<28}{words}")
