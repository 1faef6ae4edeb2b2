"""Command-line verbs about what is learned: statistics of good parts, a trained model, why it says what it says."""

from pathlib import Path
from typing import Annotated

import typer


def golden(
    recipe: Annotated[Path, typer.Argument(help="Recipe of the parts.")],
    data: Annotated[Path, typer.Argument(help="Folder of recorded good parts; four or more, thirty are better.")],
    out: Annotated[Path, typer.Option(help="File to write, .npz; name it in the recipe as reference.golden.")],
    cell: Annotated[Path | None, typer.Option(help="Cell file; the one that the recipe names if not given.")] = None,
) -> None:
    """Learn what good parts look like, without any training: the statistics of shape and colour for reference.golden.

    Example: depthcell golden examples/bracket.toml runs/good --out golden.npz
    """
    from rich.console import Console

    from depthcell.inspect.inspection_run import RunPlan
    from depthcell.inspect.learning.golden_run import golden_run
    from depthcell.inspect.learning.train_screen import TrainScreen

    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    with TrainScreen(notes) as screen:
        fitted = golden_run(
            RunPlan(data, recipe, cell), out, lambda count: screen.begin("observe good parts", count), screen.advance
        )
    print(f"{out}: {len(fitted.part_ids)} good parts, colours of {len(fitted.colors)} cameras")


def train(  # noqa: PLR0913, PLR0917 - one parameter for each option of the verb
    recipe: Annotated[Path, typer.Argument(help="Recipe of the parts.")],
    data: Annotated[Path, typer.Argument(help="Folder of recorded parts: good ones, and labelled defective ones.")],
    out: Annotated[Path, typer.Option(help="Folder of the model to write.")],
    cell: Annotated[Path | None, typer.Option(help="Cell file; the one that the recipe names if not given.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides everything that chance decides.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="At most so many steps.")] = 1600,
    false_reject: Annotated[float, typer.Option(help="Share of good parts that may be rejected.")] = 0.01,
    held_out: Annotated[
        list[str] | None, typer.Option(help="Kind of defect that training never sees, such as scratch.")
    ] = None,
    student: Annotated[
        bool, typer.Option("--student", help="Try a student-teacher too; it counts only if validation parts say so.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Of the network's arithmetic.")] = 2,
    device: Annotated[str, typer.Option(help="On which the network learns: cpu, or cuda for a GPU.")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was cut off.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the model card as JSON.")] = False,
) -> None:
    """Train a model on recordings of good parts: defects are drawn onto them, labelled ones are added.

    Beside the model stands OUT.training with the parts as the network takes them, checkpoints, and a TensorBoard log.
    A model holds for the recipe, cell and calibration that it was trained with, and is signed by this station.

    Example: depthcell train examples/bracket.toml runs/good --out models/bracket
    """
    import json

    import torch
    from rich.console import Console

    from depthcell.inspect.inspection_run import RunPlan
    from depthcell.inspect.learning.train_run import TrainPlan, run_training
    from depthcell.inspect.learning.train_screen import TrainScreen, kinds_of
    from depthcell.models.goodonly.goodmodel import GoodSettings
    from depthcell.models.goodonly.student import STUDENT_STEPS
    from depthcell.models.network.runtime import usable_device
    from depthcell.models.training.settings import TrainingSettings

    torch.set_num_threads(threads)
    usable_device(device)
    settings = TrainingSettings(
        seed=seed,
        steps=steps,
        false_reject=false_reject,
        held_out=kinds_of(held_out or ()),
        good=GoodSettings(student_steps=STUDENT_STEPS if student else 0),
        device=device,
    )
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    with TrainScreen(notes) as screen:
        card, text = run_training(TrainPlan(RunPlan(data, recipe, cell), out, settings, resume), screen)
    if as_json:
        print(json.dumps(card))
    else:
        print(text)
    notes.print(f"model: {out}", markup=False)


def explain(
    source: Annotated[Path, typer.Argument(help="Folder of recorded parts.")],
    model: Annotated[Path, typer.Option(help="Folder of the model, see depthcell train.")],
    part: Annotated[str, typer.Option(help="Which part: its name, or the number that this ends with.")],
    out: Annotated[Path, typer.Option(help="HTML file to write; it needs no other file.")],
    recipe: Annotated[Path | None, typer.Option(help="Recipe; SOURCE/recipe.toml if not given.")] = None,
    cell: Annotated[Path | None, typer.Option(help="Cell file; the one that the recipe names if not given.")] = None,
) -> None:
    """Say why a part was judged as it was: saliency and how faithful it is, reasons, the most similar good part.

    Example: depthcell explain runs/sim --model models/bracket --part 7 --out why.html
    """
    from rich.console import Console

    from depthcell.inspect.inspection_run import RunPlan
    from depthcell.inspect.learning.explain_run import ExplainPlan, explain_run

    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    with notes.status("explain"):
        explained = explain_run(ExplainPlan(RunPlan(source, recipe, cell), model, part, out))
    verdict = explained.verdict
    print(f"{verdict.part_id}: {verdict.verdict}")
    for reason in verdict.reasons:
        print(f"  {reason}")
    notes.print(f"written: {out}", markup=False)
