"""What `depthcell evaluate` does with a data set: learn, judge, print the figures."""

import msgspec
from rich.console import Console
from rich.progress import Progress

from depthcell.models.evaluation import EvaluationPlan, run_evaluation
from depthcell.models.evaluation_table import evaluation_in_words, evaluation_table


def evaluate_data_set(plan: EvaluationPlan, *, json_wanted: bool) -> None:
    """Evaluate with a progress bar and print a table, or JSON alone.

    Raises:
        DepthcellError: see `run_evaluation`.
    """
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("evaluate", total=None)
        result = run_evaluation(plan, lambda steps: progress.update(task, total=steps), lambda: progress.advance(task))
    if json_wanted:
        print(msgspec.json.encode(result).decode())
        return
    console = Console()
    console.print(evaluation_table(result))
    console.print(evaluation_in_words(result), highlight=False, soft_wrap=True)
