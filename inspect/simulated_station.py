"""A simulated cell as a folder that the other verbs take: recordings, cell, recipe, reference, golden parts, truth."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.partfolder import GOLDEN_FOLDER, find_parts
from depthcell.acquisition.simulator.actualpart import possible_kinds
from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.partmesh import save_stl
from depthcell.acquisition.simulator.partrun import PartTask, simulate_part
from depthcell.acquisition.simulator.rig import StationCamera
from depthcell.acquisition.simulator.station import Station, StationPlan, Stream, build_station
from depthcell.acquisition.simulator.truth import PartTruth
from depthcell.calib.cell import Cell, CellCamera, DepthCorrection, DisparityNoise
from depthcell.errors import DepthcellError, Reason
from depthcell.files import write_text
from depthcell.inspect.golden import MIN_PARTS, fit_golden
from depthcell.inspect.recipe import Recipe

RUN_FILE, CELL_FILE, RECIPE_FILE, GOLDEN_FILE = "simulation.json", "cell.json", "recipe.toml", "golden.npz"
CALIBRATED_AT = "2026-01-05T06:00:00Z"
POSE_U_RAD = float(np.radians(0.01))
POSE_U_M = 5e-5
SCALE_U = 3e-4
OFFSET_U_PX = 0.01
BYTES_PER_INSTANT = 1.3e6
"""Of one camera's depth and colour image, compressed, with some reserve."""
REGION_MARGIN_MM = 3.0
ABOVE_FOOT_MM = 2.0


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a simulated run is laid out.

    Attributes:
        parts: on the line; golden: good parts before it.
        jobs: processes.
        takt_ms: of the line, for the recipe.
    """

    parts: int
    golden: int = 6
    jobs: int = 1
    takt_ms: float = 2000.0

    def __post_init__(self) -> None:
        for name, least in (("parts", 1), ("golden", 0), ("jobs", 1)):
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
    write_text(out / RECIPE_FILE, recipe_text(station, settings, golden=None))
    tasks = planned_tasks(plan, settings, out)
    truths: dict[Path, PartTruth] = {}
    golden_left = settings.golden
    for task, truth in _finished(plan, tasks, settings.jobs):
        truths[task.folder] = truth
        report(truth)
        if task.stream is Stream.GOLDEN:
            golden_left -= 1
            if not golden_left:
                # The other processes go on with the line meanwhile.
                fit_golden(find_parts(out / GOLDEN_FOLDER), Recipe.load(out / RECIPE_FILE), cell).save(
                    out / GOLDEN_FILE
                )
                write_text(out / RECIPE_FILE, recipe_text(station, settings, golden=GOLDEN_FILE))
    return tuple(truths[task.folder] for task in tasks if task.stream is Stream.LINE)


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
    rng = plan.generator(Stream.LINE)
    possible = plan.defect_kinds or possible_kinds(build_station(plan))
    kinds = [possible[number] for number in rng.permutation(len(possible))]
    place = rng.permutation(settings.parts)
    line = [
        PartTask(
            Stream.LINE,
            number,
            out / f"part_{number:04d}",
            (kinds[place[number - 1] % len(kinds)],) if place[number - 1] < defective else (),
        )
        for number in range(1, settings.parts + 1)
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
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DepthcellError(f"--out {out}: cannot be made ({error.strerror}); name another folder") from error
    if not any(out.iterdir()):
        return
    if not (out / RUN_FILE).is_file() and not force:
        raise DepthcellError(f"--out {out}: is not empty and no earlier run; name another folder or add --force")
    for folder in (out / GOLDEN_FOLDER, *out.glob("part_[0-9]*")):
        shutil.rmtree(folder, ignore_errors=True)
    for name in (RUN_FILE, CELL_FILE, RECIPE_FILE, GOLDEN_FILE):
        (out / name).unlink(missing_ok=True)


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


def calibrated_cell(station: Station) -> Cell:
    """What a calibration would have found: the truth, missed by a draw from the uncertainty that the cell states."""
    cameras = {
        camera.serial: _calibrated(station, camera, station.plan.generator(Stream.CALIBRATION, number))
        for number, camera in enumerate(station.cameras)
    }
    return Cell(f"simulated {station.plan.camera_model} cell", cameras, CALIBRATED_AT)


def _calibrated(station: Station, camera: StationCamera, rng: np.random.Generator) -> CellCamera:
    model, noise = camera.model, station.plan.noise
    # Turns are about the cell's origin, which lies at the part, so 0.01 degrees there are 0.01 mm on the part's rim.
    sigma: NDArray[np.float64] = np.array([POSE_U_RAD] * 3 + [POSE_U_M] * 3)
    has_own_color = model.color_focal_px is not None
    return CellCamera(
        serial=camera.serial,
        model=model.name,
        depth=model.depth_intrinsics,
        color=model.color_intrinsics,
        T_cell_depth=camera.T_cell_depth.perturbed(rng.normal(0, sigma)),
        pose_covariance=np.diag(sigma**2),
        T_color_depth=camera.T_color_depth if not has_own_color else model.factory_T_color_depth(camera.serial),
        baseline_m=model.baseline_m,
        noise=DisparityNoise(
            temporal_px=noise.temporal_px, fixed_px=noise.lasting_px, correlation_px=noise.correlation_px
        ),
        correction=DepthCorrection(
            scale=camera.error.scale + rng.normal(0, SCALE_U),
            scale_u=SCALE_U,
            disparity_offset_px=camera.error.disparity_offset_px + rng.normal(0, OFFSET_U_PX),
            disparity_offset_u_px=OFFSET_U_PX,
        ),
    )


def recipe_text(station: Station, settings: RunSettings, golden: str | None) -> str:
    """The recipe as a person would write it for this part and cell."""
    part, pose = station.part, station.T_cell_part
    low = part.mesh.min_m * 1e3 - REGION_MARGIN_MM
    high = part.mesh.max_m * 1e3 + REGION_MARGIN_MM
    # The foot of the part lies close to the plate, where no camera looks.
    low[2] = part.mesh.min_m[2] * 1e3 + ABOVE_FOOT_MM
    serials = ", ".join(f'"{camera.serial}"' for camera in station.cameras)
    sections = [
        f'schema_version = 1\nname = "{part.name}"\ntakt_ms = {settings.takt_ms:g}\n',
        f'[cell]\nfile = "{CELL_FILE}"\ncameras = [{serials}]\n',
        f'[reference]\nmesh = "{part.name}.stl"\nmesh_unit = "mm"\n' + (f'golden = "{golden}"\n' if golden else ""),
        f"[pose]\nrotation_deg = {_numbers(np.degrees(pose.rotation_vector_rad))}\n"
        f"translation_mm = {_numbers(pose.translation_m * 1e3)}\nmax_shift_mm = 5.0\nmax_turn_deg = 5.0\n",
        f"[region]\nmin_mm = {_numbers(low)}\nmax_mm = {_numbers(high)}\nmin_coverage = 0.8\n",
        "[surface]\ntolerance_mm = 0.5\nmin_area_mm2 = 4.0\nsignificance = 5.0\n",
    ]
    if golden:
        sections.append("[color]\nsignificance = 6.0\nmin_area_mm2 = 2.0\n")
    sections += [
        f'[[bore]]\nname = "{bore.name}"\nposition_mm = {_numbers(bore.position_mm)}\n'
        f"axis = {_numbers(bore.axis)}\ndiameter_mm = {bore.diameter_mm:g}\ntolerance_mm = 0.5\n"
        for bore in part.bores
    ]
    return "\n".join(sections)


def _numbers(values: NDArray[np.float64] | tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{float(value) + 0.0:.4f}" for value in values) + "]"


def _effective_configuration(plan: StationPlan, settings: RunSettings) -> str:
    content = {"plan": asdict(plan), "settings": asdict(settings)}
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"


def default_jobs() -> int:
    """One process for each core that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
