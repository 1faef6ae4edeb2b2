"""What `depthcell evaluate --pod` does: inspect a simulated run, print what it detects."""

import msgspec
from rich.console import Console
from rich.progress import Progress

from depthcell.inspect.inspection_run import RunPlan
from depthcell.inspect.pod_report import classes_in_words, false_calls_in_words, pod_table
from depthcell.inspect.pod_run import run_pod
from depthcell.inspect.terminal import wide_console


def evaluate_detection(plan: RunPlan, *, json_wanted: bool) -> None:
    """Inspect every part with a progress bar and print a table, or JSON alone.

    Raises:
        DepthcellError: see `run_pod`.
    """
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("inspect", total=None)
        run = run_pod(plan, lambda parts: progress.update(task, total=parts), lambda: progress.advance(task))
    if json_wanted:
        print(msgspec.json.encode(run.study).decode())
    else:
        console = wide_console()
        console.print(pod_table(run.study))
        for line in (*classes_in_words(run.study), *false_calls_in_words(run.study)):
            console.print(line, highlight=False, soft_wrap=True)
    notes.print(f"results: {run.folder}", markup=False)
