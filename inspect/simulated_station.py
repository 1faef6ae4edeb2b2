"""A simulated cell as a folder that the other verbs take: recordings, cell, recipe, reference, golden parts, truth."""

import json
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from depthcell.acquisition.partfolder import GOLDEN_FOLDER, find_parts
from depthcell.acquisition.simulator.actualpart import possible_kinds
from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.partmesh import save_stl
from depthcell.acquisition.simulator.partrun import PartTask, simulate_part
from depthcell.acquisition.simulator.station import StationPlan, Stream, build_station
from depthcell.acquisition.simulator.truth import PartTruth
from depthcell.calib.earlier_run import RunLayout, take_out
from depthcell.errors import DepthcellError, Reason
from depthcell.files import write_text
from depthcell.inspect.golden import MIN_PARTS, fit_golden
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.simulated_cell import calibrated_cell
from depthcell.inspect.simulated_recipe import recipe_text

RUN_FILE, CELL_FILE, RECIPE_FILE, GOLDEN_FILE = "simulation.json", "cell.json", "recipe.toml", "golden.npz"
BYTES_PER_INSTANT = 1.3e6
"""Of one camera's depth and colour image, compressed, with some reserve."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a simulated run is laid out.

    Attributes:
        parts: on the line; golden: good parts before it.
        jobs: processes.
        first: number of the line's first part. A part is what its number and the seed make it, whichever run it is in.
    """

    parts: int
    golden: int = 10
    jobs: int = 1
    first: int = 1

    def __post_init__(self) -> None:
        for name, least in (("parts", 1), ("golden", 0), ("jobs", 1), ("first", 1)):
            if getattr(self, name) < least:
                raise DepthcellError(f"--{name} {getattr(self, name)}: must be {least} or more")
        if 0 < self.golden < MIN_PARTS:
            raise DepthcellError(f"--golden {self.golden}: must be 0, or {MIN_PARTS} or more to learn from")


def simulate_station(
    plan: StationPlan, settings: RunSettings, out: Path, report: Callable[[PartTruth], None]
) -> tuple[PartTruth, ...]:
    """Write a whole run into the folder `out`, and return the truth of the line's parts in order.

    `report` is called for each part, golden ones included, as it is finished.

    Raises:
        DepthcellError: the plan asks for what cannot be had.
    """
    check_plan(plan)
    station = build_station(plan)
    write_text(out / RUN_FILE, _effective_configuration(plan, settings))
    save_stl(out / f"{station.part.name}.stl", station.part.mesh)
    cell = calibrated_cell(station)
    cell.save(out / CELL_FILE)
    write_text(out / RECIPE_FILE, recipe_text(station, CELL_FILE, golden=None))
    tasks = planned_tasks(plan, settings, out)
    truths: dict[Path, PartTruth] = {}
    unlearned = {task.folder for task in tasks if task.stream is Stream.GOLDEN}
    for task, truth in _finished(plan, tasks, settings.jobs):
        truths[task.folder] = truth
        report(truth)
        unlearned.discard(task.folder)
        if task.stream is Stream.GOLDEN and not unlearned:
            # The other processes go on with the line meanwhile.
            golden = fit_golden(find_parts(out / GOLDEN_FOLDER), Recipe.load(out / RECIPE_FILE), cell)
            golden.save(out / GOLDEN_FILE)
            write_text(out / RECIPE_FILE, recipe_text(station, CELL_FILE, golden=GOLDEN_FILE))
    return tuple(truths[task.folder] for task in tasks if task.stream is Stream.LINE)


def run_station(
    plan: StationPlan, settings: RunSettings, out: Path, *, force: bool = False, as_json: bool = False
) -> None:
    """What `depthcell simulate` does: check, make room, record with a progress bar, say what came of it.

    Raises:
        DepthcellError: the plan asks for what cannot be had, or the folder cannot be written to.
    """
    from rich.console import Console  # noqa: PLC0415 - heavy, and only the verb shows anything
    from rich.progress import Progress  # noqa: PLC0415

    check_plan(plan)
    make_room(out, force=force)
    check_space(plan, settings, out)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("simulate", total=settings.parts + settings.golden)
        truths = simulate_station(plan, settings, out, lambda _: progress.advance(bar))
    if as_json:
        print(json.dumps(summary(truths, out)))
    else:
        defective = sum(not truth.good for truth in truths)
        print(f"{len(truths)} parts, {defective} of them defective, in {out}", file=sys.stderr)


def planned_tasks(plan: StationPlan, settings: RunSettings, out: Path) -> tuple[PartTask, ...]:
    """Golden parts first, then the line.

    Chance says which parts are defective and with what; their share is exact, and each kind comes as often as the
    others, give or take one.
    """
    golden = [
        PartTask(Stream.GOLDEN, number, out / GOLDEN_FOLDER / f"part_{number:04d}")
        for number in range(1, settings.golden + 1)
    ]
    defective = round(plan.defect_rate * settings.parts)
    # No part has the number 0, so this draw is of the stretch of line that begins at `first` and of nothing else.
    rng = plan.generator(Stream.LINE, *(() if settings.first == 1 else (0, settings.first)))
    possible = plan.defect_kinds or possible_kinds(build_station(plan))
    kinds = [possible[number] for number in rng.permutation(len(possible))]
    place = rng.permutation(settings.parts)
    line = [
        PartTask(
            Stream.LINE,
            settings.first + index,
            out / f"part_{settings.first + index:04d}",
            (kinds[place[index] % len(kinds)],) if place[index] < defective else (),
        )
        for index in range(settings.parts)
    ]
    return (*golden, *line)


def _finished(plan: StationPlan, tasks: tuple[PartTask, ...], jobs: int) -> Iterator[tuple[PartTask, PartTruth]]:
    if jobs == 1:
        for task in tasks:
            yield task, simulate_part(plan, task)
        return
    # A fresh interpreter for each worker: the SDK's and open3d's threads do not survive a fork.
    # Ctrl-C is the parent's to answer: it lets the parts at work be finished, so that none is left half written.
    with ProcessPoolExecutor(
        min(jobs, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        futures = {pool.submit(simulate_part, plan, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def make_room(out: Path, *, force: bool) -> None:
    """Take an earlier run out of the folder `out`; what else lies in it, such as results of inspections, stays.

    Raises:
        DepthcellError: `out` cannot be made, or holds something and no earlier run, and `force` is not given.
    """
    files = (RUN_FILE, CELL_FILE, RECIPE_FILE, GOLDEN_FILE)
    take_out(RunLayout("run", RUN_FILE, files, (GOLDEN_FOLDER, "part_[0-9]*")), out, force=force)


def check_space(plan: StationPlan, settings: RunSettings, out: Path) -> None:
    """Refuse a run that would fill the disk, before anything is written.

    Raises:
        DepthcellError: the folder `out` has less free space than the recordings will need.
    """
    images = (settings.parts + settings.golden) * plan.cameras * plan.frames
    needed_gb, free_gb = images * BYTES_PER_INSTANT / 1e9, shutil.disk_usage(out).free / 1e9
    if needed_gb > free_gb:
        message = f"--out {out}: the run needs about {needed_gb:.1f} GB, {free_gb:.1f} GB are free; ask for less"
        raise DepthcellError(message, Reason.DISK_FULL)


def parse_kinds(text: str) -> tuple[DefectKind, ...]:
    """Kinds of defects from their names with commas between; empty text gives none.

    Raises:
        DepthcellError: a name is unknown; the message lists the known ones.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in set(DefectKind):
            raise DepthcellError(f"--defects {name}: unknown; choose from {', '.join(DefectKind)}")
    return tuple(dict.fromkeys(DefectKind(name) for name in names))


def summary(truths: tuple[PartTruth, ...], out: Path) -> dict[str, object]:
    """What a program wants to know about a finished run."""
    return {
        "out": str(out),
        "recipe": str(out / RECIPE_FILE),
        "cell": str(out / CELL_FILE),
        "parts": [
            {"part_id": truth.part_id, "good": truth.good, "defects": [defect.kind for defect in truth.defects]}
            for truth in truths
        ],
    }


def check_plan(plan: StationPlan) -> None:
    """Refuse what cannot be simulated, before anything is written.

    Raises:
        DepthcellError: part, mesh, camera or kind of defect cannot be had; the message lists what can.
    """
    station = build_station(plan)
    possible = possible_kinds(station)
    for kind in station.plan.defect_kinds:
        if kind not in possible:
            names = ", ".join(possible)
            raise DepthcellError(f"--defects {kind}: part {station.part.name} cannot have it; choose from {names}")


def _effective_configuration(plan: StationPlan, settings: RunSettings) -> str:
    content = {"plan": asdict(plan), "settings": asdict(settings)}
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"
