"""The demonstration: a simulated line, a model trained on the spot, a controller beside it, truth against verdict."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress

from depthcell.acquisition.simulator.station import StationPlan
from depthcell.acquisition.simulator.truth import PartTruth
from depthcell.errors import DepthcellError, Reason
from depthcell.inspect.comparison import Comparison, comparison_table, summary, summary_in_words
from depthcell.inspect.inspection_run import RunPlan, run_inspection
from depthcell.inspect.listener import VerdictHeard
from depthcell.inspect.publisher import VerdictPublisher
from depthcell.inspect.report import total_ms
from depthcell.inspect.simulated_station import (
    CELL_FILE,
    RECIPE_FILE,
    RUN_FILE,
    RunSettings,
    check_space,
    make_room,
    simulate_station,
)
from depthcell.inspect.verdict import Verdict, from_json
from depthcell.inspect.wire import Endpoint
from depthcell.processes import default_jobs

CONTROLLER_START_S = 30.0
CONTROLLER_END_S = 10.0
CONTROLLER_LOG = "controller.log"


class Controller:
    """`depthcell listen` in a process of its own, as a line controller would hear the verdicts.

    Attributes:
        pid: of the process.
        verdicts: what it has heard so far, in order.
    """

    def __init__(self, endpoint: str, count: int, log: Path, heard: Callable[[Verdict], None]) -> None:
        words = ["listen", "--connect", endpoint, "--count", str(count), "--json"]
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "depthcell", *words], stdout=subprocess.PIPE, stderr=stream
            )
        self.pid = self._process.pid
        self.verdicts: list[Verdict] = []
        self._log = log
        self._heard = heard
        self._reader = threading.Thread(target=self._read, name="controller-output", daemon=True)
        self._reader.start()

    def finished(self) -> tuple[Verdict, ...]:
        """Everything it heard, once it has left.

        Raises:
            DepthcellError: it did not hear everything.
        """
        try:
            code = self._process.wait(timeout=CONTROLLER_END_S)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            raise DepthcellError(f"the controller did not hear every verdict; see {self._log}", Reason.TRANSPORT)
        self._reader.join()
        return tuple(self.verdicts)

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe above; tells the type checker
        for line in self._process.stdout:
            verdict = from_json(line)
            self.verdicts.append(verdict)
            self._heard(verdict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


FIRST_TAUGHT = 1001
"""Number of the first part to train on: none of those on the line."""
TAUGHT_STEPS = 150
"""Far from all that training can do; enough to see it work, within a minute or two."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What to show.

    Attributes:
        out: folder of the line; beside it OUT.good and OUT.model where a model is trained.
        parts, seed, frames, golden: of the simulated line.
        taught: good parts that a model is trained on; 0 shows none.
        jobs: processes that simulate.
    """

    out: Path
    parts: int
    seed: int
    frames: int = 8
    golden: int = 10
    taught: int = 36
    jobs: int = field(default_factory=default_jobs)

    @property
    def model(self) -> Path | None:
        """Folder of the model."""
        return self.out.with_name(f"{self.out.name}.model") if self.taught else None


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came of it. `seconds`: of the whole demonstration."""

    comparisons: tuple[Comparison, ...]
    report: Path
    seconds: float


def run_demo(plan: DemoPlan, console: Console) -> DemoResult:
    """Simulate, inspect and listen; progress and the controller's words go to `console`.

    Raises:
        DepthcellError: the folder is not ours, or the controller did not hear everything.
    """
    started_s = time.monotonic()
    check_out(plan.out)
    console.print(f"1. simulating {plan.parts} parts and {plan.golden} good ones to learn from, 3 cameras, {plan.out}")
    truths = _simulated(plan, console)
    if plan.model is not None:
        _taught(plan, plan.model, console)
    with VerdictPublisher(Endpoint("127.0.0.1", "*")) as outlet:
        log = plan.out / CONTROLLER_LOG

        def heard(verdict: Verdict) -> None:
            console.print(f"   controller {controller.pid}: {VerdictHeard(verdict, b'')}", markup=False)

        with Controller(outlet.endpoint, plan.parts, log, heard) as controller:
            console.print(f"2. inspecting; verdicts go to process {controller.pid} over {outlet.endpoint}")
            inspection_plan = RunPlan(plan.out, listener_wait_s=CONTROLLER_START_S, model=plan.model)
            result = run_inspection(inspection_plan, outlet, lambda _: None)
            verdicts = controller.finished()
    truth_of = {truth.part_id: truth for truth in truths}
    comparisons = tuple(Comparison(truth_of[verdict.part_id], verdict) for verdict in verdicts)
    assert result.report is not None  # noqa: S101 - asked for by the plan; tells the type checker
    return DemoResult(comparisons, result.report, time.monotonic() - started_s)


def print_result(result: DemoResult, console: Console) -> None:
    """Table, counts and where the report lies, for people."""
    console.print("3. truth against verdict")
    console.print(comparison_table(result.comparisons))
    for sentence in summary_in_words(summary(result.comparisons)):
        console.print(sentence, soft_wrap=True)
    console.print(f"done in {result.seconds:.0f} s; pictures of every finding: {result.report}", soft_wrap=True)


def as_json_object(result: DemoResult) -> dict[str, object]:
    """The same for programs."""
    parts = [
        {
            "part_id": comparison.truth.part_id,
            "good": comparison.truth.good,
            "defects": [defect.kind for defect in comparison.truth.defects],
            "verdict": comparison.verdict.verdict.value,
            "reasons": comparison.verdict.reasons,
            "outcome": comparison.outcome.value,
            "ms": total_ms(comparison.verdict),
        }
        for comparison in result.comparisons
    ]
    return {"parts": parts, "summary": summary(result.comparisons), "report": str(result.report)}


def _simulated(plan: DemoPlan, console: Console) -> tuple[PartTruth, ...]:
    settings = RunSettings(parts=plan.parts, golden=plan.golden, jobs=plan.jobs)
    return _recorded(_station(plan), settings, plan.out, console)


def _station(plan: DemoPlan) -> StationPlan:
    return StationPlan(part="bracket", camera_model="D405", cameras=3, seed=plan.seed, frames=plan.frames)


def _recorded(station: StationPlan, settings: RunSettings, out: Path, console: Console) -> tuple[PartTruth, ...]:
    make_room(out, force=False)
    check_space(station, settings, out)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("   simulate", total=settings.parts + settings.golden)
        return simulate_station(station, settings, out, lambda _: progress.advance(task))


def _taught(plan: DemoPlan, model: Path, console: Console) -> None:
    """Train a small model on other good parts of the same cell."""
    from depthcell.inspect.learning.train_run import TrainPlan, run_training  # noqa: PLC0415 - torch takes seconds
    from depthcell.inspect.learning.train_screen import TrainScreen  # noqa: PLC0415
    from depthcell.models.training.settings import TrainingSettings  # noqa: PLC0415

    good = plan.out.with_name(f"{plan.out.name}.good")
    console.print(f"   training a small model on {plan.taught} other good parts, {model}")
    settings = RunSettings(parts=plan.taught, golden=0, jobs=plan.jobs, first=FIRST_TAUGHT)
    _recorded(replace(_station(plan), defect_rate=0.0), settings, good, console)
    training = TrainPlan(
        RunPlan(good, plan.out / RECIPE_FILE, plan.out / CELL_FILE),
        model,
        TrainingSettings(steps=TAUGHT_STEPS, validate_every=TAUGHT_STEPS, painted=1),
    )
    shutil.rmtree(training.work, ignore_errors=True)
    with TrainScreen(console) as screen:
        run_training(training, screen)


def check_out(out: Path) -> None:
    """Refuse a folder that is not ours.

    Raises:
        DepthcellError: `out` is a file, or holds something and no earlier demonstration.
    """
    if out.exists() and not out.is_dir():
        raise DepthcellError(f"--out {out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / RUN_FILE).is_file():
        raise DepthcellError(f"--out {out}: is not empty and no earlier demo; name another folder")
