"""A simulated calibration run as a folder: recordings of a board and of artefacts, certificates, and the truth."""

import json
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from depthcell.acquisition.simulator.calibrationcell import CalibrationCell, CalibrationPlan, build_calibration_cell
from depthcell.acquisition.simulator.calibrationtruth import CalibrationTruth, CameraTruth
from depthcell.acquisition.simulator.shapes import Print
from depthcell.acquisition.simulator.targetbodies import (
    BAR_DISTANCE_MM,
    BAR_SPHERES_MM,
    PLATE_FLATNESS_MM,
    PLATE_MM,
    SPHERE_MM,
    STEP_DEPTH_MM,
    STEP_HEIGHTS_MM,
    STEP_WIDTH_MM,
    Target,
)
from depthcell.acquisition.simulator.targetrun import (
    PLACEMENTS,
    BoardPrint,
    Session,
    place_truths,
    plan_session,
    record_session,
)
from depthcell.calib.earlier_run import RunLayout, take_out
from depthcell.calib.target.board import Board
from depthcell.calib.verify.artefact import ARTEFACT_FILE
from depthcell.errors import DepthcellError, Reason
from depthcell.files import write_text

RUN_FILE, TRUTH_FILE = "calibration.toml", "truth.json"
DEFAULT_BOARD, DEFAULT_PLACES, DEFAULT_FRAMES = "charuco:9x6:30mm", 40, 2
RECORDED_AT = "2026-01-05T06:00:00Z"
BYTES_PER_BOARD_INSTANT, BYTES_PER_ARTEFACT_INSTANT = 1.4e6, 0.8e6
"""Of one camera's images, compressed, with some reserve."""
PIXELS_PER_PITCH, LEAST_PIXELS_PER_M = 120, 3000.0
"""Of the printed picture: about four for each pixel that looks at it from the usual distance."""
U_MM = 0.001
"""Standard uncertainty of the simulated artefacts' certificates; their true sizes are the certified ones."""


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """How a run is made.

    Attributes:
        board: what people say it is, on the command line and in `calibration.toml`.
        printed: what it truly is; the same if None. Another one is a mistake to be noticed.
        targets: what is recorded.
        jobs: processes.
    """

    board: str = DEFAULT_BOARD
    printed: str | None = None
    targets: tuple[Target, ...] = tuple(Target)
    jobs: int = 1

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise DepthcellError(f"--jobs {self.jobs}: must be 1 or more")


@dataclass(frozen=True, slots=True)
class RecordingTask:
    """One recording to make: one camera, by its number, before one target."""

    target: Target
    camera: int
    path: Path


def simulate_calibration(
    plan: CalibrationPlan, settings: CalibrationSettings, out: Path, report: Callable[[RecordingTask], None]
) -> CalibrationTruth:
    """Write a whole run into the folder `out`; `report` is called for each recording as it is finished.

    The folder of a target appears when all cameras' recordings of it are there, `truth.json` and `calibration.toml`
    at the end.

    Raises:
        DepthcellError: the plan asks for what cannot be had.
    """
    cell, board = _cell_and_board(plan, settings)
    tasks = planned_recordings(plan, settings, out)
    missing = dict.fromkeys(settings.targets, plan.cameras)
    try:
        for task in _finished(plan, settings, tasks):
            report(task)
            missing[task.target] -= 1
            if not missing[task.target]:
                _complete(task, out)
    finally:
        for target in settings.targets:
            shutil.rmtree(_partial(out, target), ignore_errors=True)
    truth = CalibrationTruth(
        schema_version=1,
        seed=plan.seed,
        board=Board.parse(settings.printed or settings.board).spec,
        board_factor=plan.faults.board_factor,
        warp_m=cell.warp_m,
        cameras=tuple(CameraTruth.of(camera, cell) for camera in cell.cameras),
        places={target.value: place_truths(plan_session(target, cell, board)) for target in settings.targets},
    )
    truth.save(out / TRUTH_FILE)
    write_text(out / RUN_FILE, _run_text(plan, settings, cell))
    return truth


def run_calibration(
    plan: CalibrationPlan, settings: CalibrationSettings, out: Path, *, force: bool = False, as_json: bool = False
) -> None:
    """What `depthcell simulate --calibration` does: check, make room, record with a progress bar, say what came of it.

    Raises:
        DepthcellError: the plan asks for what cannot be had, or the folder cannot be written to.
    """
    from rich.console import Console  # noqa: PLC0415 - heavy, and only the verb shows anything
    from rich.progress import Progress  # noqa: PLC0415

    check_plan(plan, settings)
    make_room(out, force=force)
    check_space(plan, settings, out)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("simulate", total=len(settings.targets) * plan.cameras)
        truth = simulate_calibration(plan, settings, out, lambda _: progress.advance(bar))
    if as_json:
        print(json.dumps(summary(truth, out)))
    else:
        places = len(truth.places.get(Target.BOARD.value, ()))
        print(f"{len(truth.cameras)} cameras, {places} places of {settings.board}, in {out}", file=sys.stderr)


def planned_recordings(plan: CalibrationPlan, settings: CalibrationSettings, out: Path) -> tuple[RecordingTask, ...]:
    """Every recording: the longest ones, of the board, first."""
    cell, _ = _cell_and_board(plan, settings)
    return tuple(
        RecordingTask(target, number, _partial(out, target) / f"{camera.serial}.db3")
        for target in settings.targets
        for number, camera in enumerate(cell.cameras)
    )


def record_task(plan: CalibrationPlan, settings: CalibrationSettings, task: RecordingTask) -> None:
    """Make one recording. The same plan and task give the same images, in any process."""
    record_session(_session(plan, settings, task.target), task.camera, task.path)


def check_plan(plan: CalibrationPlan, settings: CalibrationSettings) -> None:
    """Refuse what cannot be simulated, before anything is written.

    Raises:
        DepthcellError: board, camera or their number cannot be had.
    """
    _cell_and_board(plan, settings)


def make_room(out: Path, *, force: bool) -> None:
    """Take an earlier calibration run out of the folder `out`; what else lies in it stays.

    Raises:
        DepthcellError: `out` cannot be made, or holds something and no earlier run, and `force` is not given.
    """
    targets = tuple(target.value for target in Target)
    take_out(RunLayout("calibration run", RUN_FILE, (RUN_FILE, TRUTH_FILE), targets), out, force=force)


def check_space(plan: CalibrationPlan, settings: CalibrationSettings, out: Path) -> None:
    """Refuse a run that would fill the disk, before anything is written.

    Raises:
        DepthcellError: the folder `out` has less free space than the recordings will need.
    """
    needed = sum(
        plan.places * plan.frames * BYTES_PER_BOARD_INSTANT
        if target is Target.BOARD
        else PLACEMENTS[target] * plan.artefact_frames * BYTES_PER_ARTEFACT_INSTANT
        for target in settings.targets
    )
    needed_gb, free_gb = needed * plan.cameras / 1e9, shutil.disk_usage(out).free / 1e9
    if needed_gb > free_gb:
        message = f"--out {out}: the run needs about {needed_gb:.1f} GB, {free_gb:.1f} GB are free; ask for less"
        raise DepthcellError(message, Reason.DISK_FULL)


def board_print(board: Board, *, mirrored: bool = False, factor: float = 1.0) -> BoardPrint:
    """The board as the simulator takes it, printed `factor` times as large as it should be."""
    picture = board.picture(max(PIXELS_PER_PITCH / board.pitch_m, LEAST_PIXELS_PER_M))
    printed = Print(picture.image, picture.pixels_per_m, np.asarray(picture.origin_m)).scaled(factor)
    low, high = board.points_board[:, :2].min(axis=0) * factor, board.points_board[:, :2].max(axis=0) * factor
    features_m = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return BoardPrint(printed.mirrored() if mirrored else printed, features_m)


def summary(truth: CalibrationTruth, out: Path) -> dict[str, object]:
    """What a program wants to know about a finished run."""
    return {
        "out": str(out),
        "board": truth.board,
        "cameras": [camera.serial for camera in truth.cameras],
        "places": {folder: len(places) for folder, places in truth.places.items()},
    }


@lru_cache(maxsize=2)
def _cell_and_board(plan: CalibrationPlan, settings: CalibrationSettings) -> tuple[CalibrationCell, BoardPrint]:
    """The middle of the work volume is the middle of the board as it first lies in the fixture."""
    board = Board.parse(settings.printed or settings.board)
    printed = board_print(board, mirrored=plan.faults.mirrored, factor=plan.faults.board_factor)
    left, top, right, bottom = printed.printed.extent_m
    return build_calibration_cell(plan, ((left + right) / 2, -(top + bottom) / 2, 0.0)), printed


@lru_cache(maxsize=2)
def _session(plan: CalibrationPlan, settings: CalibrationSettings, target: Target) -> Session:
    return plan_session(target, *_cell_and_board(plan, settings))


def _finished(
    plan: CalibrationPlan, settings: CalibrationSettings, tasks: tuple[RecordingTask, ...]
) -> Iterator[RecordingTask]:
    if settings.jobs == 1:
        for task in tasks:
            record_task(plan, settings, task)
            yield task
        return
    # A fresh interpreter for each worker: the SDK's threads do not survive a fork. Ctrl-C is the parent's to answer.
    with ProcessPoolExecutor(
        min(settings.jobs, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        futures = {pool.submit(record_task, plan, settings, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _partial(out: Path, target: Target) -> Path:
    return out / f"{target.value}.partial"


def _complete(task: RecordingTask, out: Path) -> None:
    """Give the folder its name, with the artefact's certificate in it."""
    partial, folder = _partial(out, task.target), out / task.target.value
    if task.target is not Target.BOARD:
        write_text(partial / ARTEFACT_FILE, _certificate(task.target))
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _certificate(target: Target) -> str:
    """`artefact.toml`, as `artefact.load_artefact` reads it."""
    match target:
        case Target.PLATE:
            lines = [
                'kind = "plate"',
                f"width_mm = {PLATE_MM[0]}",
                f"height_mm = {PLATE_MM[1]}",
                f"flatness_mm = {PLATE_FLATNESS_MM}",
                f"flatness_u_mm = {U_MM}",
            ]
        case Target.SPHERE:
            lines = ['kind = "sphere"', f"diameter_mm = {SPHERE_MM}", f"diameter_u_mm = {U_MM}"]
        case Target.BALL_BAR:
            lines = ['kind = "ball_bar"']
            for name, value_mm in zip("ab", BAR_SPHERES_MM, strict=True):
                lines += [f"diameter_{name}_mm = {value_mm}", f"diameter_{name}_u_mm = {U_MM}"]
            lines += [f"distance_mm = {BAR_DISTANCE_MM}", f"distance_u_mm = {U_MM}"]
        case Target.STEP_GAUGE:
            lines = [
                'kind = "step_gauge"',
                f"width_mm = {STEP_WIDTH_MM}",
                f"depth_mm = {STEP_DEPTH_MM}",
                f"heights_mm = {list(STEP_HEIGHTS_MM)}",
                f"heights_u_mm = {[U_MM] * len(STEP_HEIGHTS_MM)}",
            ]
        case Target.BOARD:
            raise ValueError("the board is no artefact")
    return "\n".join(lines) + "\n"


def _run_text(plan: CalibrationPlan, settings: CalibrationSettings, cell: CalibrationCell) -> str:
    """`calibration.toml`: what lies where, as a person would have noted it."""
    head = [
        "schema_version = 1",
        "simulated = true",
        f"seed = {plan.seed}",
        f"recorded_at = {RECORDED_AT}",
        f'board = "{Board.parse(settings.board).spec}"',
        f'camera_model = "{plan.camera_model}"',
        "cameras = [" + ", ".join(f'"{camera.serial}"' for camera in cell.cameras) + "]",
        f"standoff_mm = {cell.standoff_m * 1e3:g}",
    ]
    for target in settings.targets:
        is_board = target is Target.BOARD
        head += [
            "",
            f"[recordings.{target.value}]",
            f'folder = "{target.value}"',
            f"places = {plan.places if is_board else PLACEMENTS[target]}",
            f"frames_per_place = {plan.frames if is_board else plan.artefact_frames}",
        ]
    return "\n".join(head) + "\n"
