"""Command-line verbs of the inspect room."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def inspect() -> None:
    """Not built yet."""
    raise NotImplementedError


def listen() -> None:
    """Not built yet."""
    raise NotImplementedError


def demo() -> None:
    """Not built yet."""
    raise NotImplementedError


def simulate(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    part: Annotated[
        str, typer.Option(help="bracket, flange, sheet, shaft, weld, or the path of an STL, PLY or OBJ mesh.")
    ] = "bracket",
    mesh_unit: Annotated[str, typer.Option(help="Length unit of a mesh file: mm, m or inch.")] = "mm",
    parts: Annotated[int, typer.Option(help="Parts on the line.")] = 12,
    cameras: Annotated[int, typer.Option(help="1 to 6.")] = 3,
    camera_model: Annotated[str, typer.Option(help="D405, D415, D435 or D455.")] = "D405",
    seed: Annotated[int, typer.Option(help="Decides everything that chance decides.")] = 0,
    frames: Annotated[int, typer.Option(help="Frames of each camera for each part.")] = 8,
    defect_rate: Annotated[float, typer.Option(help="Share of defective parts, 0 to 1.")] = 0.5,
    defects: Annotated[str, typer.Option(help="Kinds to choose from, with commas between; all if not given.")] = "",
    golden: Annotated[int, typer.Option(help="Good parts to learn colour and process variation from.")] = 6,
    jobs: Annotated[int, typer.Option(help="Processes; 0 takes one for each core.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/sim"),
    force: Annotated[bool, typer.Option("--force", help="Empty the folder first, whatever is in it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Record parts in a simulated cell, with the truth beside each recording, and the cell and recipe to inspect them.

    Example: depthcell simulate --part bracket --parts 12 --cameras 3 --camera-model D405 --seed 7 --out runs/sim
    """
    from rich.console import Console
    from rich.progress import Progress

    from depthcell.acquisition.simulator.station import StationPlan
    from depthcell.inspect import simulated_station as station

    plan = StationPlan(
        part=part,
        camera_model=camera_model,
        cameras=cameras,
        seed=seed,
        mesh_unit=mesh_unit,
        frames=frames,
        defect_rate=defect_rate,
        defect_kinds=station.parse_kinds(defects),
    )
    settings = station.RunSettings(parts=parts, golden=golden, jobs=jobs or station.default_jobs())
    station.check_plan(plan)
    station.clear_run(out, force=force)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("simulate", total=parts + golden)
        truths = station.simulate_station(plan, settings, out, lambda _: progress.advance(task))
    if as_json:
        print(json.dumps(station.summary(truths, out)))
    else:
        defective = sum(not truth.good for truth in truths)
        print(f"{len(truths)} parts, {defective} of them defective, in {out}", file=sys.stderr)
