"""What the demonstration's cell detects: probability of detection over size, per kind of defect.

A bracket under three D405, 8 frames a part, on three stations of their own seeds, each with ten good parts learnt.
Sizes spread evenly in their logarithm through the region where detection goes from never to always. Parts carry up to
three defects of different kinds, a warp comes alone; good parts between them give the false calls. Each part is a
genuine recording that is simulated, inspected and thrown away; what is kept of it is its truth and its verdict.

The long step is resumable: `collect` takes up where it was left, `evaluate` draws curves from what there is.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does, before numpy loads

import argparse
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from depthcell.acquisition.partfolder import find_parts
from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.partrun import PartTask, simulate_part
from depthcell.acquisition.simulator.placement import SizeRange
from depthcell.acquisition.simulator.station import StationPlan, Stream
from depthcell.acquisition.simulator.truth import PartTruth
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError
from depthcell.inspect.inspection import Inspector
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


def main() -> None:
    """Collect, evaluate, or both."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("step", choices=("collect", "evaluate"))
    options.add_argument("--work", type=Path, default=Path("runs/pod"), help="folder for what is collected")
    options.add_argument("--rounds", type=int, default=22, help="each gives one defect a kind and station")
    given = options.parse_args()
    if given.step == "collect":
        collect(given.work, given.rounds)


if __name__ == "__main__":
    main()
