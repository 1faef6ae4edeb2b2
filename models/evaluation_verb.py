"""What `depthcell evaluate` does with a data set: learn, judge, print the figures."""

import msgspec
from rich.console import Console
from rich.progress import Progress

from depthcell.models.evaluation import Evaluation, EvaluationPlan, run_evaluation
from depthcell.models.evaluation_seeds import SeedsEvaluation, run_seeds
from depthcell.models.evaluation_table import evaluation_in_words, evaluation_table


def evaluate_data_set(plan: EvaluationPlan, *, seeds: int | None = None, json_wanted: bool) -> None:
    """Evaluate with a progress bar and print a table, or JSON alone.

    Args:
        plan: what to evaluate.
        seeds: evaluate so many times, each on its own draw of the good parts; None evaluates once, on all of them.
        json_wanted: print JSON alone.

    Raises:
        DepthcellError: see `run_evaluation` and `run_seeds`.
    """
    result: Evaluation | SeedsEvaluation
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("evaluate", total=None)

        def begin(steps: int) -> None:
            progress.update(task, total=steps)

        def advance() -> None:
            progress.advance(task)

        result = run_evaluation(plan, begin, advance) if seeds is None else run_seeds(plan, seeds, begin, advance)
    if json_wanted:
        print(msgspec.json.encode(result).decode())
        return
    console = Console()
    console.print(evaluation_table(result))
    console.print(evaluation_in_words(result), highlight=False, soft_wrap=True)
