"""Whether 95 % intervals of gauges hold, kind by kind: parts of known form, errors counted against what was stated.

Each part is a bracket of its own form (a third of them perfect), lying a little otherwise, seen by a cell that errs as
its covariance says (`inspect.simulated_scan`), and goes the real way: views merged, aligned, gauged by
`examples/bracket.toml`. What a gauge should have read is what it reads of the true surface at the very same points.
Then the same on recordings of the full simulator, which also has matching windows, rounding and subpixel staircases
that no cell states; their parts have no form.

Run `.venv/bin/python benchmarks/gauge_coverage.py [--parts 200] [--recorded 24]`; data:
`benchmarks/results/gauge_coverage.json`. What was measured already is kept beside it until the benchmark is done.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: small matrices only lose by more threads

import argparse
import json
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, ROOT, Goal, Report, timing_of, wilson

from depthcell.acquisition.partfolder import find_parts
from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.simulator.partrun import PartTask, simulate_part
from depthcell.acquisition.simulator.station import Station, StationPlan, Stream, build_station
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.fusion.align import align
from depthcell.fusion.budget import uncertainty_budget
from depthcell.fusion.fuse import FusionSettings, PartAccumulator
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.region import Region
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.extraction import Features
from depthcell.inspect.gauges.gauging import MEASURES, measure_gauge
from depthcell.inspect.gauges.reading import Quantity, Reading
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.simulated_cell import calibrated_cell
from depthcell.inspect.simulated_scan import ScanConditions, drawn_cell, scan_cloud

BAND = (0.93, 0.97)
SEED = 11
PERFECT_EVERY, LARGEST_FORM_M = 3, 4e-4
EXACT_M = 1e-9
KEPT = RESULTS / "gauge_coverage.jsonl"
ZONES = {
    "flatness", "straightness", "roundness", "cylindricity", "parallelism", "perpendicularity", "angularity",
    "position", "runout", "profile_surface", "profile_line",
}  # fmt: skip


class Bench:
    """The station, its cell and the recipe."""

    def __init__(self) -> None:
        self.plan = StationPlan("bracket", "D405", 3, SEED)
        self.station: Station = build_station(self.plan)
        self.cell = calibrated_cell(self.station)
        mesh = self.station.part.mesh
        self.reference = Reference(mesh.vertices_m, mesh.triangles)
        content = tomllib.loads((ROOT / "examples" / "bracket.toml").read_text(encoding="utf-8"))
        self.recipe = Recipe.model_validate(content)
        self.nominal = self.station.T_cell_part
        low, high = (np.array(corner) / 1e3 for corner in (self.recipe.region.min_mm, self.recipe.region.max_mm))
        self.region = Region(self.nominal, low, high)

    def simulated(self, number: int) -> dict[str, Any]:
        """One part by `simulated_scan`, every gauge against the truth at its points."""
        rng = np.random.default_rng([SEED, number])
        perfect = number % PERFECT_EVERY == 0
        mesh = self.station.part.mesh if perfect else formed(self.station.part.mesh, rng)
        pose = self.nominal.perturbed(np.concatenate((rng.normal(0, 4e-3, 3), rng.normal(0, 4e-4, 3))))
        conditions = ScanConditions(self.cell, self.region, self.plan.frames)
        cloud = scan_cloud(mesh, pose, drawn_cell(self.cell, rng), conditions, rng)
        return {"number": number, "source": "scan", "perfect": perfect, "gauges": self.gauged(cloud, mesh, pose)}

    def recorded(self, number: int) -> dict[str, Any]:
        """One part by the simulator's recordings."""
        with tempfile.TemporaryDirectory() as folder:
            task = PartTask(Stream.LINE, number, Path(folder) / f"part_{number:04d}")
            truth = simulate_part(self.plan, task)
            frames = PartAccumulator(self.cell, FusionSettings(region=self.region, with_color=False))
            for frameset in find_parts(Path(folder))[0].framesets(tuple(self.cell.cameras)):
                frames.add(frameset)
        pose = truth.T_cell_part.transform("cell", "part")
        mesh = self.station.part.mesh
        scaled = mesh.with_vertices(mesh.vertices_m * np.array(truth.size_scale))
        gauges = self.gauged(frames.fuse().cloud, scaled, pose)
        return {"number": number, "source": "recording", "perfect": True, "gauges": gauges}

    def gauged(self, cloud: PartCloud, mesh: PartMesh, pose: RigidTransform) -> dict[str, Any]:
        """Each gauge by name: error, standard uncertainty, its rows, and the truth; SI units."""
        scan = Scan.of(cloud, align(cloud, self.reference, self.nominal, self.cell), self.cell, self.reference)
        true_cloud = on_surface(cloud, mesh, pose)
        true_pose = align(true_cloud, self.reference, self.nominal, self.cell)
        weighed = Scan.of(true_cloud, true_pose, self.cell, self.reference)
        sigma_m = np.full(len(cloud), EXACT_M, np.float32)
        exact = Scan.of(replace(true_cloud, random_sigma_m=sigma_m), true_pose, self.cell, self.reference)
        sections = (self.recipe.feature, self.recipe.datum)
        # The true features rest on the same points: outliers are told by the same noise.
        features, true_features = Features(scan, *sections), Features(weighed, *sections)
        gauges: dict[str, Any] = {}
        for section in self.recipe.gauge:
            if type(section) not in MEASURES or section.kind == "volume":
                continue
            try:
                reading, true = measure_gauge(section, scan, features), measure_gauge(section, exact, true_features)
                gauges[section.name] = {"kind": section.kind, **outcome(reading, true, scan, section.kind)}
            except DepthcellError as error:
                gauges[section.name] = {"kind": section.kind, "refused": str(error)}
        return gauges


def outcome(reading: Reading, true: Reading, scan: Scan, kind: str) -> dict[str, Any]:
    """Error and what was stated of it."""
    budget = uncertainty_budget(reading.influence, scan, reading.noise_u, reading.extra_u)
    low = reading.value - 2 * budget.u
    low = max(low, 0.0) if kind in ZONES else low
    return {
        "held": bool(low <= true.value <= reading.value + 2 * budget.u),
        "error": reading.value - true.value,
        "true": true.value,
        "u": budget.u,
        "unit": reading.quantity.value,
        "rows": {row.source: row.u for row in budget.rows},
    }


def formed(mesh: PartMesh, rng: np.random.Generator) -> PartMesh:
    """A part of its own form: bowed, twisted and waved, faces and walls alike, by up to `LARGEST_FORM_M`."""
    half = (mesh.max_m - mesh.min_m) / 2
    x, y, z = ((mesh.vertices_m - (mesh.max_m + mesh.min_m) / 2) / half).T
    waves = [x**2, x * y, y**2, np.sin(2.5 * x + rng.uniform(0, 6)) * np.cos(2 * y), 0.3 * z * x]
    size_m = LARGEST_FORM_M * rng.uniform(0, 1)
    moved = np.array([np.tensordot(rng.normal(0, 0.4, len(waves)), waves, axes=1) for _ in range(3)]).T
    return mesh.with_vertices(mesh.vertices_m + size_m * moved)


def on_surface(cloud: PartCloud, mesh: PartMesh, pose: RigidTransform) -> PartCloud:
    """The cloud with each point moved to the nearest place of the true surface, and with its normal."""
    core, scene = open3d().core, open3d().t.geometry.RaycastingScene(nthreads=1)
    vertices = core.Tensor(np.ascontiguousarray(pose @ mesh.vertices_m, dtype=np.float32))
    scene.add_triangles(vertices, core.Tensor(mesh.triangles.astype(np.uint32)))
    found = scene.compute_closest_points(core.Tensor(cloud.points_cell.astype(np.float32)), nthreads=1)
    normals = found["primitive_normals"].numpy()
    outward = np.sign(np.einsum("ij,ij->i", normals, cloud.normals_cell))[:, None]
    points_cell = found["points"].numpy().astype(np.float64)
    return replace(cloud, points_cell=points_cell, normals_cell=(normals * outward).astype(np.float32))


def measured(bench: Bench, source: str, numbers: range) -> Iterator[dict[str, Any]]:
    """Parts that were measured before, and the others, kept as they come."""
    kept = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    known = {part["number"]: part for part in kept if part["source"] == source}
    for number in numbers:
        if number not in known:
            start = time.perf_counter()
            part = bench.simulated(number) if source == "scan" else bench.recorded(number)
            part["seconds"] = time.perf_counter() - start
            with KEPT.open("a", encoding="utf-8") as file:
                file.write(json.dumps(part) + "\n")
            known[number] = part
        yield known[number]


def add_rows(report: Report, parts: list[dict[str, Any]], what: str) -> None:
    """One row for each gauge, and one for each kind that has several."""
    names = list(parts[0]["gauges"])
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(parts[0]["gauges"][name]["kind"], []).append(name)
    seconds = timing_of([part["seconds"] for part in parts])
    for kind, members in kinds.items():
        for chosen in [[name] for name in members] + ([members] if len(members) > 1 else []):
            got = [part["gauges"][name] | {"perfect": part["perfect"]} for part in parts for name in chosen]
            done = [one for one in got if "held" in one]
            if not done:
                continue
            held, count = sum(one["held"] for one in done), len(done)
            factor, unit = (180 / np.pi, "deg") if done[0]["unit"] == Quantity.ANGLE.value else (1e3, "mm")
            root = {key: factor * float(np.sqrt(np.mean([one[key] ** 2 for one in done]))) for key in ("error", "u")}
            rows = {
                source: np.sqrt(np.mean([one["rows"].get(source, 0.0) ** 2 for one in done]))
                for source in done[0]["rows"]
            }
            low, high = wilson(held, count)
            report.add(
                f"{kind}: {chosen[0] if len(chosen) == 1 else 'all of them'}, {what}",
                seconds,
                Goal(
                    words=f"95 % intervals hold {BAND[0]:.0%} to {BAND[1]:.0%}, within what so many parts can tell",
                    reached=low <= BAND[1] and high >= BAND[0],
                ),
                n=count,
                held=round(held / count, 4),
                held_interval=(round(low, 4), round(high, 4)),
                held_perfect=share_held(done, perfect=True),
                held_formed=share_held(done, perfect=False),
                unit=unit,
                rms_error=round(root["error"], 5),
                mean_error=round(factor * float(np.mean([one["error"] for one in done])), 5),
                rms_u=round(root["u"], 5),
                rows={source: round(factor * float(u), 5) for source, u in rows.items()},
                refused=len(got) - count,
            )


def share_held(done: list[dict[str, Any]], *, perfect: bool) -> tuple[float, int] | None:
    """Of the perfect parts, or of the others, the share of intervals that hold, and how many there are."""
    held = [one["held"] for one in done if one["perfect"] == perfect]
    return (round(float(np.mean(held)), 4), len(held)) if held else None


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--recorded", type=int, default=24)
    chosen = parser.parse_args()
    bench, report = Bench(), Report("gauge_coverage")
    add_rows(report, list(measured(bench, "scan", range(chosen.parts))), "scans made straight from the mesh")
    if chosen.recorded:
        parts = list(measured(bench, "recording", range(1, chosen.recorded + 1)))
        add_rows(report, parts, "recordings of the simulator")
    report.write()
    KEPT.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
