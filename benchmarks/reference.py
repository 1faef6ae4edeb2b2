"""What a part is compared with: how long a mesh's check takes, and how well a golden surface stands in for a drawing.

The check is measured beside open3d's own search for crossings, on the bracket as it is and refined to 186,000
triangles. The golden surface is built from eight good brackets, simulated as genuine recordings, without a drawing;
then other good ones and dented ones are read on it.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does, before numpy loads

import tempfile
import time
from pathlib import Path

import numpy as np
from harness import Goal, Peer, Report, measure, timing_of

from depthcell.acquisition.partfolder import find_parts
from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.partrun import PartTask, simulate_part
from depthcell.acquisition.simulator.parts import PartKind, build_part
from depthcell.acquisition.simulator.placement import SizeRange
from depthcell.acquisition.simulator.station import StationPlan, Stream, build_station
from depthcell.acquisition.simulator.truth import PartTruth
from depthcell.fusion.fuse import FusionSettings, PartAccumulator
from depthcell.fusion.meshcheck import first_flaw
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.region import Region
from depthcell.inspect.goldensurface import GoldenSurface, golden_surface
from depthcell.inspect.simulated_cell import calibrated_cell

SEED, GOOD, FRESH, DENTED, DENT_MM = 2401, 8, 4, 4, 0.6
PLAN = StationPlan(
    "bracket",
    "D405",
    3,
    SEED,
    defect_rate=0.0,
    sizes=((DefectKind.DENT, SizeRange((5.0, 6.0), (-DENT_MM, -DENT_MM))),),
)


def check_meshes(report: Report) -> None:
    """The bracket, coarse and fine."""
    mesh = build_part(PartKind.BRACKET).mesh
    o3d = open3d()
    legacy = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices_m), o3d.utility.Vector3iVector(mesh.triangles)
    )
    peer = Peer("open3d is_self_intersecting alone", measure(legacy.is_self_intersecting, 3))
    us = measure(lambda: first_flaw(mesh.vertices_m, mesh.triangles), 5)
    report.add(f"all checks of a mesh of {len(mesh.triangles)} triangles", us, Goal(ratio=1.0), peer)
    fine = legacy.subdivide_midpoint(2)
    vertices, triangles = np.asarray(fine.vertices), np.asarray(fine.triangles)
    assert first_flaw(vertices, triangles) is None
    what = f"all checks of a mesh of {len(triangles)} triangles"
    report.add(what, measure(lambda: first_flaw(vertices, triangles), 5), Goal(seconds=5.0))


def scanned(number: int, folder: Path, kinds: tuple[DefectKind, ...] = ()) -> tuple[PartCloud, PartTruth]:
    """One part, recorded and fused, and the truth of it."""
    station = build_station(PLAN)
    task = PartTask(Stream.LINE, number, folder / f"part_{number:04d}", kinds)
    truth = simulate_part(PLAN, task)
    cell = calibrated_cell(station)
    margin_m = 3e-3
    region = Region(station.T_cell_part, station.part.mesh.min_m - margin_m, station.part.mesh.max_m + margin_m)
    frames = PartAccumulator(cell, FusionSettings(region=region, edge_margin_px=4))
    for frameset in find_parts(task.folder)[0].framesets(tuple(cell.cameras)):
        frames.add(frameset)
    return frames.fuse().cloud, truth


def judge_golden(report: Report, folder: Path) -> None:
    """Build from good parts, read others."""
    T_cell_part = build_station(PLAN).T_cell_part
    start = T_cell_part.inverse()
    good = [scanned(number, folder)[0] for number in range(1, GOOD + 1)]
    began_s = time.perf_counter()
    golden = golden_surface(good, T_cell_part)
    took_s = time.perf_counter() - began_s
    fresh = [golden.read(scanned(100 + number, folder)[0], start) for number in range(FRESH)]
    z = np.concatenate([golden.significance(reading) for reading in fresh])
    z = z[np.isfinite(z)]
    dents = [read_dent(golden, 200 + number, folder) for number in range(DENTED)]
    report.add(
        f"golden surface of {GOOD} brackets, 3 D405, 8 frames, {len(good[0])} points each",
        timing_of([took_s]),
        Goal(),
        None,
        seed=SEED,
        places=len(golden.points_part),
        process_um_median_and_90=np.round(1e6 * np.quantile(golden.process_m, [0.5, 0.9]), 1).tolist(),
        fresh_good_parts=FRESH,
        their_significance_standard_deviation=round(float(z.std()), 3),
        their_share_beyond_5=round(float((np.abs(z) > 5).mean()), 5),
        dent_true_mm=DENT_MM,
        dents_read_mm=[round(depth, 3) for depth, _ in dents],
        dents_significance=[round(beyond, 1) for _, beyond in dents],
    )


def read_dent(golden: GoldenSurface, number: int, folder: Path) -> tuple[float, float]:
    """Deepest place about a dent, mm, and how significant it is."""
    cloud, truth = scanned(number, folder, (DefectKind.DENT,))
    reading = golden.read(cloud, build_station(PLAN).T_cell_part.inverse())
    near = np.linalg.norm(golden.points_part - np.array(truth.defects[0].position_mm) / 1e3, axis=1) < 2e-3
    return float(np.nanmin(reading.deviation_m[near])) * 1e3, float(np.nanmin(golden.significance(reading)[near]))


def main() -> None:
    """Both."""
    report = Report("reference")
    check_meshes(report)
    with tempfile.TemporaryDirectory() as folder:
        judge_golden(report, Path(folder))
    report.write()


if __name__ == "__main__":
    main()
