"""From the last frame in memory to the verdict: three cameras at 848 x 480, a part after another.

Frames are averaged as they arrive, so what counts for the line is what is left to do once the last one is there:
absorb it, fuse, align, compare, decide. Reading recordings is measured elsewhere. The goal is 150 ms on two cores.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does, before numpy loads

import argparse
import tempfile
import time
from pathlib import Path

from harness import Goal, Report, timing_of

from depthcell.acquisition.frameset import FrameSet
from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.acquisition.simulator.station import StationPlan
from depthcell.calib.cell import Cell
from depthcell.inspect.inspection import Identity, Inspection, Inspector
from depthcell.inspect.pictures import view_pictures
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.simulated_station import RunSettings, simulate_station
from depthcell.processes import default_jobs

GOAL = Goal(seconds=0.150)


def last_frame_to_verdict_s(
    inspector: Inspector, framesets: list[FrameSet], part: PartFolder
) -> tuple[float, Inspection]:
    """Seconds from the last frame set to the verdict, and the inspection."""
    frames = inspector.accumulator()
    for frameset in framesets[:-1]:
        frames.add(frameset)
    identity = Identity(part.part_id, "benchmark", 1, "")
    started_s = time.perf_counter()
    frames.add(framesets[-1])
    inspection = inspector.judge_frames(frames, identity)
    return time.perf_counter() - started_s, inspection


def main() -> None:
    """Simulate a line, or take one given, and measure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--source", type=Path, help="a folder of `depthcell simulate`; a fresh one if not given")
    options.add_argument("--repetitions", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = given.source or Path(folder) / "sim"
        if given.source is None:
            plan = StationPlan(part="bracket", camera_model="D405", cameras=3, seed=11)
            simulate_station(plan, RunSettings(parts=8, golden=6, jobs=default_jobs()), source, lambda _: None)
        measure_line(source, given.repetitions)


def measure_line(source: Path, repetitions: int) -> None:
    """Every part of `source`, several times."""
    recipe = Recipe.load(source / "recipe.toml")
    cell = Cell.load(recipe.cell_path)
    inspector = Inspector.load(recipe, cell)
    parts = [(part, list(part.framesets(recipe.cell.cameras))) for part in find_parts(source)]
    # The first judgement of a process also builds tables; a line does that before it starts.
    last_frame_to_verdict_s(inspector, parts[0][1], parts[0][0])
    seconds: list[float] = []
    picture_seconds: list[float] = []
    stages: dict[str, list[float]] = {}
    for part, framesets in parts:
        for _ in range(repetitions):
            took_s, inspection = last_frame_to_verdict_s(inspector, framesets, part)
            seconds.append(took_s)
            for stage, took_ms in inspection.verdict.timings_ms.items():
                stages.setdefault(stage, []).append(took_ms / 1e3)
            started_s = time.perf_counter()
            view_pictures(inspection, cell, recipe.surface.tolerance_mm)
            picture_seconds.append(time.perf_counter() - started_s)
    report = Report("inspect_latency")
    what = f"inspect, last of {len(parts[0][1])} frames to verdict, {len(cell.cameras)} cameras, {recipe.name}"
    medians_ms = {stage: round(timing_of(took).median_s * 1e3, 1) for stage, took in stages.items()}
    report.add(what, timing_of(seconds), GOAL, parts=len(parts), stages_ms=medians_ms)
    report.add("pictures of one part for the report, after the verdict", timing_of(picture_seconds), Goal(seconds=0.5))
    report.write()


if __name__ == "__main__":
    main()
