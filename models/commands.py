"""Command-line verbs of the models room."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def evaluate(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder in MVTec 3D-AD layout: train, validation, test.")
    ],
    method: Annotated[
        Literal["rgb", "depth", "fused"], typer.Option(help="Judge by colour edges, by surface normals, or by both.")
    ] = "fused",
    maps: Annotated[
        Path | None, typer.Option(help="Write each anomaly map there as float32 TIFF, named like its input.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the baseline on a data set: image AUROC, pixel AUROC, AUPRO, overall and per defect, with intervals.

    It learns from train/good, takes its threshold from validation/good alone and judges test.

    Example: depthcell evaluate ../shared/data/mvtec3d_subset/cable_gland --maps runs/maps
    """
    import msgspec
    from rich.console import Console
    from rich.progress import Progress

    from depthcell.models.baseline import BaselineSettings, Method
    from depthcell.models.evaluation import EvaluationPlan, run_evaluation
    from depthcell.models.evaluation_table import evaluation_in_words, evaluation_table

    plan = EvaluationPlan(source, BaselineSettings(method=Method(method)), seed, maps)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("evaluate", total=None)
        result = run_evaluation(plan, lambda steps: progress.update(task, total=steps), lambda: progress.advance(task))
    if as_json:
        print(msgspec.json.encode(result).decode())
        return
    console = Console()
    console.print(evaluation_table(result))
    console.print(evaluation_in_words(result), highlight=False, soft_wrap=True)
