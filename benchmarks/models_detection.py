"""The learned model on simulated parts that it never saw: hits, false rejects, kinds held out of training.

The demonstration's cell (bracket under three D405, 8 frames, seed 7). 60 good parts to learn from, numbers from 1001;
330 good and 330 defective parts to test on, numbers from 5001, one defect each, each kind as often, sizes as the
simulator draws them. They were judged by earlier models too and told where to look, though nothing was chosen on them:
`collect --first 7001` judges others, drawn likewise; `evaluate` tells of both.

A defect of shape counts towards the goal if it is deeper than the planner states for a dent of its diameter at the
cell's distance; colour has no such statement, so all of its defects count. Found means: the part is rejected (NOK).
Beside that stands what the model alone does, and shape and colour checks alone, at the same parts; and how well five
golden scans part good from bad without any training: no threshold can be had of five, so the area under the ROC is
told, and what would be found at the score that one good test part of a hundred exceeds.

`train` and `collect` are long and resumable, `collect` with one process a core; `evaluate` prints and writes the
figures. Recordings that lie in WORK/test already are taken as they are and kept; others are simulated, judged, removed.
`--good N` records N good parts to learn from; folder and figures get a name of their own.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does, before numpy loads

import argparse
import math
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from itertools import product
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch
from harness import ROOT, Goal, Report, timing_of
from matplotlib.figure import Figure

from depthcell.acquisition.partfolder import find_parts
from depthcell.acquisition.simulator.actualpart import possible_kinds
from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.partrun import PartTask, simulate_part
from depthcell.acquisition.simulator.station import StationPlan, Stream, build_station
from depthcell.acquisition.simulator.truth import PartTruth
from depthcell.calib.cell import Cell
from depthcell.calib.planning.plan import PlannedDefect, PlanRequest, plan
from depthcell.errors import DepthcellError
from depthcell.inspect.golden import MIN_PARTS
from depthcell.inspect.inspection import Inspection, Inspector
from depthcell.inspect.inspection_run import RunPlan
from depthcell.inspect.learning.golden_run import golden_run
from depthcell.inspect.learning.train_run import TrainPlan, run_training
from depthcell.inspect.pod_result import Share
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.simulated_station import RunSettings, simulate_station
from depthcell.inspect.verdict import Decision
from depthcell.models.decision.calibration import calibration_error, reliability
from depthcell.models.goodonly.goodmodel import GoodModel
from depthcell.models.metrics import auroc_estimate
from depthcell.models.trained import TrainedModel
from depthcell.models.training.settings import TrainingSettings
from depthcell.models.views.partstore import PartStore

SEED, FRAMES, DISTANCE_M = 7, 8, 0.16
FEW, GOOD, FIRST_GOOD, TESTED, FIRST_TESTED, ORDER_SEED = 5, 60, 1001, 330, 5001, 99
FIRST_FRESH = 7001
"""Of more parts, since those from `FIRST_TESTED` on had told where to look."""
WANTED_FOUND, MOST_REJECTED, MOST_LOWER = 0.99, 0.01, 0.05
HELD_OUT = (DefectKind.SCRATCH, DefectKind.POROSITY, DefectKind.BURR, DefectKind.RUST)
MODELS: dict[str, tuple[DefectKind, ...]] = {"model": (), "model_held_out": HELD_OUT}
STATION = StationPlan(part="bracket", camera_model="D405", cameras=3, seed=SEED, frames=FRAMES, defect_rate=0.0)


Task = TypeVar("Task")
Result = TypeVar("Result")


class Outcome(msgspec.Struct, frozen=True):
    """One test part: its truth; verdicts without and with the model; scores of the model, its judges, `FEW` scans."""

    truth: PartTruth
    checks: str
    verdict: str
    score: float
    threshold: float
    probability: float
    strange: bool
    network: float
    good: float
    few: float
    seconds: float


class Quiet:
    """Prints what a training says."""

    def begin(self, what: str, total: int) -> None:
        """A stage begins."""
        print(f"{what}: {total}", flush=True)

    def advance(self) -> None:
        """A step is done."""

    def say(self, what: str) -> None:
        """A note."""
        print(what, flush=True)


def study_name(good: int) -> str:
    """Of the working folder and of the figures."""
    return "models_detection" if good == GOOD else f"models_detection_{good}"


def prepare(work: Path, good: int) -> None:
    """Cell, recipe, the good parts to learn from, and the statistics of these."""
    if not (work / "recipe.toml").is_file():
        simulate_station(STATION, RunSettings(parts=1, golden=MIN_PARTS), work, lambda _: None)
        for used in (work / "golden", work / "part_0001"):
            shutil.rmtree(used)
        (work / "golden.npz").unlink()
    (work / "good").mkdir(exist_ok=True)
    numbers = range(FIRST_GOOD, FIRST_GOOD + good)
    parts = [PartTask(Stream.LINE, number, work / "good" / f"part_{number}") for number in numbers]
    missing = [part for part in parts if not part.folder.is_dir()]
    for truth in in_processes(partial(simulate_part, STATION), missing):
        print(truth.part_id, flush=True)
    if not (work / "golden.npz").is_file():
        golden_run(RunPlan(work / "good", work / "recipe.toml", work / "cell.json"), work / "golden.npz")


def train(work: Path, held_out: tuple[DefectKind, ...], name: str, good: int) -> None:
    """Train a model unless it is there; seconds by the clock are in its card."""
    prepare(work, good)
    if (work / name).is_dir():
        return
    torch.set_num_threads(2)
    settings = TrainingSettings(held_out=held_out)
    source = RunPlan(work / "good", work / "recipe.toml", work / "cell.json")
    run_training(TrainPlan(source, work / name, settings, resume=True), Quiet())


def tested_parts(first: int) -> list[tuple[int, tuple[DefectKind, ...]]]:
    """Numbers and defects: a good part, then a defective one, each kind as often as the others."""
    kinds = possible_kinds(build_station(STATION))
    rng = np.random.default_rng(ORDER_SEED + first - FIRST_TESTED)
    order: list[DefectKind] = []
    while len(order) < TESTED:
        order += [kinds[place] for place in rng.permutation(len(kinds))]
    pairs = [part for kind in order[:TESTED] for part in ((), (kind,))]
    return [(first + place, kinds_of) for place, kinds_of in enumerate(pairs)]


def outcomes_file(work: Path, name: str, first: int) -> Path:
    """Where the outcomes of a model on parts from a number on are kept."""
    return work / (f"{name}.jsonl" if first == FIRST_TESTED else f"{name}_{first}.jsonl")


def collect(work: Path, names: Sequence[str], first: int) -> None:
    """Judge the test parts that are not in the outcomes of every model yet; a process for each core."""
    done = {name: {one.truth.part_id for one in read_outcomes(outcomes_file(work, name, first))} for name in names}
    tasks = [
        (PartTask(Stream.LINE, number, work / "test" / f"part_{number}", kinds), missing)
        for number, kinds in tested_parts(first)
        if (missing := tuple(name for name in names if f"part_{number}" not in done[name]))
    ]
    for judged_part in in_processes(Judges.outcomes, tasks, partial(Judges.prepare, work, tuple(names))):
        for name, outcome in judged_part:
            with outcomes_file(work, name, first).open("ab") as kept:
                kept.write(msgspec.json.encode(outcome) + b"\n")


def in_processes(
    run: Callable[[Task], Result], tasks: Sequence[Task], prepare_worker: Callable[[], object] | None = None
) -> Iterator[Result]:
    """Run each task in one process a core, and give the results as they are ready."""
    if not tasks:
        return
    # A fresh interpreter for each worker: the SDK's and torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context, prepare_worker) as pool:
        try:
            for future in as_completed([pool.submit(run, task) for task in tasks]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class Judges:
    """What a worker judges parts with: each model's inspector, and the few golden scans."""

    _plain: Inspector
    _inspectors: dict[str, Inspector]
    _few: GoodModel

    @classmethod
    def prepare(cls, work: Path, names: tuple[str, ...]) -> None:
        """Load everything once."""
        torch.set_num_threads(1)
        recipe = Recipe.load(work / "recipe.toml")
        cell = Cell.load(recipe.cell_path)
        cls._plain = Inspector.load(recipe, cell)
        cls._inspectors = {name: Inspector.load(recipe, cell, work / name) for name in names}
        store = PartStore.open(work / f"{names[0]}.training" / "parts")
        scans = store.load_all(sorted(part.part_id for part in store.parts)[:FEW])
        cls._few = GoodModel.fit(list(scans), seed=0)

    @classmethod
    def outcomes(cls, task: tuple[PartTask, tuple[str, ...]]) -> list[tuple[str, Outcome]]:
        """One part, by each model that has not judged it."""
        part, names = task
        was_there = part.folder.is_dir()
        try:
            if not was_there:
                simulate_part(STATION, part)
        except DepthcellError as error:  # no room for the defect on it
            print(f"{part.folder.name} left out: {error}", flush=True)
            return []
        checks = str(inspected(cls._plain, part).verdict.verdict)
        outcomes = [(name, judged(cls._inspectors[name], cls._few, part, checks)) for name in names]
        if not was_there:
            shutil.rmtree(part.folder)
        for name, one in outcomes:
            print(part.folder.name, name, *part.defects, one.checks, one.verdict, f"{one.score:.2f}", flush=True)
        return outcomes


def inspected(inspector: Inspector, task: PartTask) -> Inspection:
    """One recorded part."""
    return inspector.judge(find_parts(task.folder)[0], task.number, f"study:{task.folder.name}")


def judged(inspector: Inspector, few: GoodModel, task: PartTask, checks: str) -> Outcome:
    """One part with a model; `checks` is the verdict without."""
    started_s = time.perf_counter()
    inspection = inspected(inspector, task)
    seconds = time.perf_counter() - started_s
    check = inspector.model_check
    assert check is not None
    truth = PartTruth.load(task.folder / "truth.json")
    if inspection.fused is None or inspection.alignment is None:
        lost = math.inf
        return Outcome(truth, checks, str(inspection.verdict.verdict), lost, 0, 1, True, lost, lost, lost, seconds)
    seen = check.part_input(inspection.fused, inspection.alignment.T_cell_part, truth.part_id)
    assert isinstance(check.model, TrainedModel)
    opinion = check.model.judge(seen)
    return Outcome(
        truth,
        checks,
        str(inspection.verdict.verdict),
        opinion.part_score,
        opinion.threshold,
        opinion.part_probability,
        opinion.is_out_of_distribution,
        opinion.branch_scores["network"],
        opinion.branch_scores["good"],
        few.judge(seen).part_score,
        seconds,
    )


def read_outcomes(path: Path) -> list[Outcome]:
    """What was collected so far, in the order of the parts."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return sorted((msgspec.json.decode(line, type=Outcome) for line in lines), key=lambda one: one.truth.part_id)


def stated_depth_mm(area_mm2: float) -> float:
    """What the planner states for a dent of that area at the cell's distance; infinite where it states nothing."""
    diameter_m = 2e-3 * math.sqrt(area_mm2 / math.pi)
    stated = plan(PlanRequest("D405", DISTANCE_M, FRAMES, PlannedDefect.DENT, diameter_m)).smallest_depth_m
    return math.inf if stated is None else 1e3 * stated


def counts(outcome: Outcome) -> bool:
    """Whether the part's defect is one that must be found."""
    defect = outcome.truth.defects[0]
    return defect.depth_mm is None or abs(defect.depth_mm) > stated_depth_mm(defect.area_mm2)


Found = Callable[[Outcome], bool]
JUDGES: dict[str, Found] = {
    "model": lambda outcome: outcome.score > outcome.threshold,
    "shape and colour": lambda outcome: outcome.checks == str(Decision.NOK),
    "verdict with model": lambda outcome: outcome.verdict == str(Decision.NOK),
}


def figures(
    outcomes: Sequence[Outcome], found: Found, held_out: Sequence[DefectKind]
) -> dict[str, Share | dict[str, Share] | None]:
    """Shares with exact intervals: all defects that count, surface, volumetric, kinds, held out; false rejects."""
    good = [outcome for outcome in outcomes if outcome.truth.good]
    wanted = [outcome for outcome in outcomes if not outcome.truth.good and counts(outcome)]

    def share(chosen: Sequence[Outcome]) -> Share | None:
        return Share.of(sum(map(found, chosen)), len(chosen)) if chosen else None

    def of(*kinds: str) -> list[Outcome]:
        return [outcome for outcome in wanted if outcome.truth.defects[0].kind in kinds]

    surface = [outcome for outcome in wanted if outcome.truth.defects[0].defect_class == "surface"]
    volumetric = [outcome for outcome in wanted if outcome.truth.defects[0].defect_class == "volumetric"]
    names = [str(kind) for kind in held_out]
    every = [outcome for outcome in outcomes if not outcome.truth.good]
    return {
        "found": share(wanted),
        "surface": share(surface),
        "volumetric": share(volumetric),
        "any size": share(every),
        "false rejects": share(good),
        "kinds": {name: one for name in map(str, DefectKind) if (one := share(of(name)))},
        "kinds held out": share(of(*names)),
        "kinds trained on": share([o for o in wanted if o.truth.defects[0].kind not in names]),
    }


def as_notes(shares: Mapping[str, object]) -> dict[str, object]:
    """Shares as the report keeps them."""
    return {key.replace(" ", "_"): msgspec.to_builtins(value) for key, value in shares.items()}


def detection_goal(shares: Mapping[str, Share | dict[str, Share] | None]) -> Goal:
    """99 % found at 1 % false rejects, kinds held out at most 5 points below the others; by the shares as counted."""

    def value(name: str) -> float:
        share = shares[name]
        return share.count / share.total if isinstance(share, Share) else math.nan

    held_out = value("kinds held out")
    if math.isnan(held_out):
        words, reached = "99 % found at 1 % false rejects", value("found") >= WANTED_FOUND
    else:
        words = "kinds held out at most 5 points lower, at 1 % false rejects"
        reached = held_out >= value("kinds trained on") - MOST_LOWER
    return Goal(words=words, reached=reached and value("false rejects") <= MOST_REJECTED)


def evaluate(work: Path, good: int) -> None:
    """Print and write the figures of each model."""
    report = Report(study_name(good))
    for first, (name, held_out) in product((FIRST_TESTED, FIRST_FRESH), MODELS.items()):
        outcomes = read_outcomes(outcomes_file(work, name, first))
        for judge, found in JUDGES.items() if outcomes else ():
            shares = figures(outcomes, found, held_out)
            held = f", trained without {', '.join(map(str, held_out))}" if held_out else ""
            report.add(
                f"{judge}{held}: {len(outcomes)} parts of one cell from {first} on, recording to verdict",
                timing_of([outcome.seconds for outcome in outcomes]),
                detection_goal(shares),
                None,
                seeds={"station": SEED, "order": ORDER_SEED, "training": 0},
                good_parts_recorded=good,
                **as_notes(shares),
            )
    outcomes = read_outcomes(outcomes_file(work, "model", FIRST_TESTED))
    if outcomes:
        _zero_shot(outcomes, report)
        _probabilities(outcomes, report)
        _judges(outcomes, report)
    report.write()


def _probabilities(outcomes: Sequence[Outcome], report: Report) -> None:
    """Whether the stated probabilities hold on the test parts, half of which are good; as figures and as a picture."""
    is_defect = np.array([not outcome.truth.good for outcome in outcomes])
    bins = reliability(np.array([outcome.probability for outcome in outcomes]), is_defect)
    error = calibration_error(bins)
    report.add(
        f"probabilities of the model: {len(outcomes)} parts",
        timing_of([0.0]),
        Goal(),
        None,
        calibration_error=error,
        reliability=[msgspec.to_builtins(one) for one in bins],
    )
    figure = Figure(figsize=(4.5, 5.0), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    axes.plot([one.probability for one in bins], [one.share for one in bins], "o-")
    axes.set(ylabel="share of parts with a defect", title="Reliability")
    below.bar([one.probability for one in bins], [one.count for one in bins], width=0.02)
    below.set(xlabel="probability of a defect, as stated", ylabel="parts", yscale="log")
    figure.savefig(ROOT / "docs" / "pictures" / "reliability.png", dpi=110)


def _zero_shot(outcomes: Sequence[Outcome], report: Report) -> None:
    """Five golden scans, no training."""
    is_defect = np.array([not outcome.truth.good for outcome in outcomes])
    scores = np.array([outcome.few for outcome in outcomes])
    limit = float(np.quantile(scores[~is_defect], 0.99, method="higher"))
    shares = figures(outcomes, lambda outcome: outcome.few > limit, ())
    report.add(
        f"{FEW} golden scans, no training: {len(outcomes)} parts",
        timing_of([outcome.seconds for outcome in outcomes]),
        Goal(),
        None,
        auroc=msgspec.to_builtins(auroc_estimate(is_defect, scores)),
        limit="score that 1 % of the good test parts exceed: a point of the ROC, not a threshold that was chosen",
        **as_notes(shares),
    )


def _judges(outcomes: Sequence[Outcome], report: Report) -> None:
    """Whether network and good parts together are no worse than either alone."""
    is_defect = np.array([not outcome.truth.good for outcome in outcomes])
    scores = {
        name: auroc_estimate(is_defect, np.array([getattr(outcome, field) for outcome in outcomes]))
        for name, field in (("together", "score"), ("network", "network"), ("good parts", "good"))
    }
    best = max(scores["network"].value, scores["good parts"].value)
    report.add(
        f"both judges of the model together: {len(outcomes)} parts",
        timing_of([outcome.seconds for outcome in outcomes]),
        Goal(words="AUROC no worse than of either alone", reached=scores["together"].value >= best),
        None,
        auroc=msgspec.to_builtins(scores),
    )


def main() -> None:
    """Train, collect, evaluate; or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", nargs="?", choices=("train", "collect", "evaluate"))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--good", type=int, default=GOOD)
    parser.add_argument("--first", type=int, default=FIRST_TESTED, choices=(FIRST_TESTED, FIRST_FRESH))
    given = parser.parse_args()
    work: Path = given.work or ROOT / "runs" / study_name(given.good)
    work.mkdir(parents=True, exist_ok=True)
    if given.step in {None, "train"}:
        for name, held_out in MODELS.items():
            train(work, held_out, name, given.good)
    if given.step in {None, "collect"}:
        collect(work, tuple(MODELS), given.first)
    if given.step in {None, "evaluate"}:
        evaluate(work, given.good)


if __name__ == "__main__":
    main()
