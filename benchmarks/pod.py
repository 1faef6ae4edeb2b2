"""What the demonstration's cell detects: probability of detection over size, per kind of defect.

A bracket under three D405, 8 frames a part, on three stations of their own seeds, each with ten good parts learnt.
Sizes spread evenly in their logarithm through the region where detection goes from never to always. Parts carry up to
three defects of different kinds, a warp comes alone; good parts between them give the false calls. Each part is a
genuine recording that is simulated, inspected and thrown away; what is kept of it is its truth and its verdict.

The long step is resumable: `collect` takes up where it was left, `evaluate` draws curves from what there is and counts
how often a90/95 holds for curves that are known.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does, before numpy loads

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from harness import ROOT, Goal, Report, timing_of
from numpy.typing import NDArray

from depthcell.acquisition.partfolder import find_parts
from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.partrun import PartTask, simulate_part
from depthcell.acquisition.simulator.placement import SizeRange
from depthcell.acquisition.simulator.station import StationPlan, Stream
from depthcell.acquisition.simulator.truth import PartTruth
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError
from depthcell.inspect.comparison import Comparison
from depthcell.inspect.inspection import Inspector
from depthcell.inspect.pod import Scale, fit_hit_miss, fit_response
from depthcell.inspect.pod_report import false_calls_in_words, markdown_rows, render_picture
from depthcell.inspect.pod_study import study_of
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.simulated_station import RunSettings, simulate_station
from depthcell.inspect.verdict import Verdict

STATION_SEEDS = (2301, 2302, 2303)
GOLDEN, FRAMES, CAMERAS = 10, 8, 3
WIDE_ROUNDS = 8
"""First so many rounds over wide ranges, which hold the depths that a tolerance is about; then where hits begin."""

WIDE = {
    DefectKind.DENT: SizeRange((4.0, 7.0), (-1.6, -0.2), even_in_log=True),
    DefectKind.BUMP: SizeRange((4.0, 7.0), (0.2, 1.6), even_in_log=True),
    DefectKind.MISSING_MATERIAL: SizeRange((3.0, 5.5), (-2.4, -0.25), even_in_log=True),
    DefectKind.EXCESS_MATERIAL: SizeRange((3.0, 5.5), (0.25, 2.4), even_in_log=True),
    DefectKind.WARP: SizeRange((0.0, 0.0), (0.15, 1.6), even_in_log=True),
    DefectKind.BURR: SizeRange((6.0, 8.0), (0.3, 2.4), even_in_log=True),
    DefectKind.POROSITY: SizeRange((5.5, 7.0), (-2.5, -0.3), even_in_log=True),
    DefectKind.SCRATCH: SizeRange((0.8, 7.5), (0.0, 0.0), even_in_log=True),
    DefectKind.STAIN: SizeRange((0.4, 5.0), (0.0, 0.0), even_in_log=True),
    DefectKind.DISCOLOURATION: SizeRange((0.4, 6.0), (0.0, 0.0), even_in_log=True),
    DefectKind.RUST: SizeRange((0.4, 5.0), (0.0, 0.0), even_in_log=True),
}
FINE = {
    DefectKind.DENT: SizeRange((4.0, 7.0), (-0.4, -0.03), even_in_log=True),
    DefectKind.BUMP: SizeRange((4.0, 7.0), (0.03, 0.4), even_in_log=True),
    DefectKind.MISSING_MATERIAL: SizeRange((3.0, 5.5), (-0.5, -0.04), even_in_log=True),
    DefectKind.EXCESS_MATERIAL: SizeRange((3.0, 5.5), (0.04, 0.5), even_in_log=True),
    DefectKind.WARP: SizeRange((0.0, 0.0), (0.2, 1.0), even_in_log=True),
    DefectKind.BURR: SizeRange((6.0, 8.0), (0.05, 0.6), even_in_log=True),
    DefectKind.POROSITY: SizeRange((5.5, 7.0), (-0.5, -0.04), even_in_log=True),
    DefectKind.SCRATCH: SizeRange((0.2, 1.5), (0.0, 0.0), even_in_log=True),
    DefectKind.STAIN: SizeRange((0.3, 2.0), (0.0, 0.0), even_in_log=True),
    DefectKind.DISCOLOURATION: SizeRange((0.4, 3.0), (0.0, 0.0), even_in_log=True),
    DefectKind.RUST: SizeRange((0.3, 3.0), (0.0, 0.0), even_in_log=True),
}
TOGETHER = 3
"""Defects on one part."""


class Outcome(msgspec.Struct, frozen=True):
    """One part: what it was, and what was said of it."""

    station: int
    truth: PartTruth
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Planned:
    """One part to make: of which station, its number there, its defects, and how large they may be."""

    seed: int
    number: int
    kinds: tuple[DefectKind, ...]
    sizes: dict[DefectKind, SizeRange]


def planned_parts(rounds: int) -> Iterator[Planned]:
    """In each round every kind once on every station, and a good part or two; stop anywhere, and kinds are even."""
    others = [kind for kind in DefectKind if kind is not DefectKind.WARP]
    rng = np.random.default_rng(20)
    numbers = dict.fromkeys(STATION_SEEDS, 0)
    for round_number in range(rounds):
        sizes = WIDE if round_number < WIDE_ROUNDS else FINE
        for seed in STATION_SEEDS:
            shuffled = [others[place] for place in rng.permutation(len(others))]
            groups = [tuple(shuffled[start : start + TOGETHER]) for start in range(0, len(others), TOGETHER)]
            goods: list[tuple[DefectKind, ...]] = [()] * (1 + round_number % 2)
            for kinds in (*groups, (DefectKind.WARP,), *goods):
                numbers[seed] += 1
                yield Planned(seed, numbers[seed], kinds, sizes)


def station_plan(seed: int, sizes: dict[DefectKind, SizeRange]) -> StationPlan:
    """The demonstration's cell with the study's sizes."""
    return StationPlan(
        part="bracket",
        camera_model="D405",
        cameras=CAMERAS,
        seed=seed,
        frames=FRAMES,
        defect_rate=0.0,
        sizes=tuple(sizes.items()),
    )


def prepared_inspector(seed: int, folder: Path) -> Inspector:
    """The station's cell, recipe and statistics of good parts, simulated unless they are there."""
    if not (folder / "golden.npz").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        simulate_station(station_plan(seed, WIDE), RunSettings(parts=1, golden=GOLDEN), folder, lambda _: None)
        for used in (folder / "golden", folder / "part_0001"):
            shutil.rmtree(used)
    recipe = Recipe.load(folder / "recipe.toml")
    return Inspector.load(recipe, Cell.load(recipe.cell_path))


def collect(work: Path, rounds: int) -> None:
    """Simulate and inspect what is not in `outcomes.jsonl` yet."""
    work.mkdir(parents=True, exist_ok=True)
    done = {(outcome.station, outcome.truth.part_id) for outcome in read_outcomes(work)}
    inspectors = {seed: prepared_inspector(seed, work / f"station_{seed}") for seed in STATION_SEEDS}
    with (work / "outcomes.jsonl").open("ab") as kept:
        for part in planned_parts(rounds):
            folder = work / f"station_{part.seed}" / f"part_{part.number:04d}"
            if (part.seed, folder.name) in done:
                continue
            started_s = time.monotonic()
            try:
                task = PartTask(Stream.LINE, 100 + part.number, folder, part.kinds)
                truth = simulate_part(station_plan(part.seed, part.sizes), task)
            except DepthcellError as error:  # no room for three defects on it: another part takes its place
                print(f"{folder.name} of {part.seed} left out: {error}", flush=True)
                continue
            verdict = inspectors[part.seed].judge(find_parts(folder)[0], part.number, f"study:{folder.name}").verdict
            shutil.rmtree(folder)
            kept.write(msgspec.json.encode(Outcome(part.seed, truth, verdict)) + b"\n")
            kept.flush()
            kinds = ", ".join(part.kinds) or "good"
            print(
                f"{part.seed} {folder.name} {kinds}: {verdict.verdict} {time.monotonic() - started_s:.1f} s", flush=True
            )


def read_outcomes(work: Path) -> list[Outcome]:
    """What was collected so far."""
    path = work / "outcomes.jsonl"
    if not path.is_file():
        return []
    return [msgspec.json.decode(line, type=Outcome) for line in path.read_bytes().splitlines()]


LEAST_MM, MOST_MM, HALF_MM = 0.2, 1.6, 0.56
"""Sizes and a50 of the known curves."""


def hit_miss_repeat(rng: np.random.Generator, slope: float, count: int, *, firth: bool) -> tuple[float, float]:
    """True a90 and a90/95 of one repeat, mm: logistic curve in ln size."""
    x = rng.uniform(np.log(LEAST_MM), np.log(MOST_MM), count)
    hit: NDArray[np.bool_] = rng.random(count) < 1 / (1 + np.exp(-slope * (x - np.log(HALF_MM))))
    truth = HALF_MM * float(np.exp(np.log(9) / slope))
    if hit.all() or not hit.any():
        return truth, float("nan")
    return truth, fit_hit_miss(np.exp(x), hit, firth=firth).size_bound_mm(0.9)


def response_repeat(rng: np.random.Generator, sigma_mm: float, count: int) -> tuple[float, float]:
    """The same for responses 0.95 a + noise, reported from 0.3 mm, decided at 0.6 mm."""
    a = np.exp(rng.uniform(np.log(LEAST_MM), np.log(MOST_MM), count))
    y = 0.95 * a + sigma_mm * rng.standard_normal(count)
    fit = fit_response(a, np.where(y > 0.3, y, np.nan), np.full(count, 0.3), Scale.LINEAR)
    return (0.6 + 1.2815515655446004 * sigma_mm) / 0.95, fit.curve(0.6).size_bound_mm(0.9)


def measure_coverage(report: Report, repeats: int) -> None:
    """How often the bound holds, for curves from flat to steep."""
    for slope in (3.0, 6.0, 12.0, 40.0):
        for firth in (True, False) if slope <= 6 else (True,):
            what = f"hit/miss, 60 defects, slope {slope:g} in ln size, {'Firth' if firth else 'plain likelihood'}"
            rng = np.random.default_rng([7, int(slope)])
            add_coverage(report, what, repeats, partial(hit_miss_repeat, rng, slope, 60, firth=firth))
    for count, sigma_mm in ((40, 0.05), (40, 0.15), (60, 0.05)):
        rng = np.random.default_rng([8, count, int(100 * sigma_mm)])
        what = f"response, {count} defects, sigma {sigma_mm:g} mm"
        add_coverage(report, what, repeats, partial(response_repeat, rng, sigma_mm, count))


def add_coverage(report: Report, what: str, repeats: int, repeat: Callable[[], tuple[float, float]]) -> None:
    """One row: how many bounds were finite, how many of those held, and how wide they are."""
    pairs, seconds = [], []
    for _ in range(repeats):
        started_s = time.perf_counter()
        pairs.append(repeat())
        seconds.append(time.perf_counter() - started_s)
    truth, bound = np.array(pairs).T
    known = np.isfinite(bound)
    share = float((truth[known] <= bound[known]).mean())
    notes: dict[str, object] = {
        "repeats": len(pairs),
        "without_bound": int((~known).sum()),
        "holds": round(share, 4),
        "true_a90_mm": round(float(truth[0]), 4),
        "median_a90_95_mm": round(float(np.median(bound[known])), 4),
    }
    goal = Goal(words="a90 below a90/95 in at least 93 % of repeats", reached=share >= 0.93)
    report.add(what, timing_of(seconds), goal, None, **notes)


def evaluate(work: Path, repeats: int) -> None:
    """Curves of what was collected, coverage of known ones, both written; the README's rows printed."""
    outcomes = read_outcomes(work)
    recipe = Recipe.load(work / f"station_{STATION_SEEDS[0]}" / "recipe.toml")
    compared = [Comparison(outcome.truth, outcome.verdict) for outcome in outcomes]
    study = study_of(compared, recipe.surface.tolerance_mm, recipe.surface.significance)
    report = Report("pod")
    seconds = [outcome.verdict.timings_ms["total"] / 1e3 for outcome in outcomes]
    report.add(
        f"{study.defects} defects on {study.parts} brackets, {CAMERAS} D405, {FRAMES} frames, recording to verdict",
        timing_of(seconds),
        Goal(),
        None,
        station_seeds=STATION_SEEDS,
        good_parts_learnt=GOLDEN,
        min_area_mm2=recipe.surface.min_area_mm2,
        ranges_mm={
            name: {str(kind): (sizes.size_mm, sizes.depth_mm) for kind, sizes in ranges.items()}
            for name, ranges in (("wide", WIDE), ("fine", FINE))
        },
        study=msgspec.to_builtins(study),
    )
    measure_coverage(report, repeats)
    report.write()
    render_picture(study, ROOT / "docs" / "pictures" / "pod.png")
    print(markdown_rows(study))
    print("\n".join(false_calls_in_words(study)))


def main() -> None:
    """Collect or evaluate."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("step", choices=("collect", "evaluate"))
    options.add_argument("--work", type=Path, default=Path("runs/pod"), help="folder for what is collected")
    options.add_argument("--rounds", type=int, default=22, help="each gives one defect a kind and station")
    options.add_argument("--repeats", type=int, default=400, help="of each known curve")
    given = options.parse_args()
    if given.step == "collect":
        collect(given.work, given.rounds)
    else:
        evaluate(given.work, given.repeats)


if __name__ == "__main__":
    main()
