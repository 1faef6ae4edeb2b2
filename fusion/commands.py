"""Command-line verbs of the fusion room."""

import json
from pathlib import Path
from typing import Annotated

import typer


def fuse(
    source: Annotated[Path, typer.Argument(help="One recording, or one part's folder of recordings.")],
    out: Annotated[Path, typer.Option(help="PLY file to write.")],
    cell: Annotated[
        Path | None, typer.Option(help="Cell file; cell.json beside the recordings or one folder up if not given.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Use only the first so many frames.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Average a part's frames, place them in the cell, merge all cameras into one cloud with its uncertainty.

    Where there is no cell file, a single camera is taken as the factory built it, at the cell's origin.

    Example: depthcell fuse tests/data/single_depth_color_640x480.bag --out part.ply
    """
    from rich.console import Console
    from rich.progress import Progress

    from depthcell.fusion.cloud_file import write_ply
    from depthcell.fusion.fuse_run import fuse_source, summarized

    notes = Console(stderr=True)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("fuse", total=frames)
        fused, used_cell = fuse_source(source, cell, frames, lambda: progress.advance(task))
    write_ply(out, fused.cloud)
    summary = {"out": str(out), **summarized(fused, used_cell)}
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    for name, value in summary.items():
        words = ", ".join(map(str, value)) if isinstance(value, list) else value
        if words not in ("", None):
            print(f"{name.replace('_', ' '):<28}{words}")
