"""What lies in the fixture, named: cases made with the simulator's cameras, and what each was taken for.

Parts of the simulator under four D405, two frames of simulated depth, fused in a box of 0.24 m that holds the plate
they stand on. The part lies in its place (off by up to 3 mm and 3 degrees), upside down, turned by 40 to 140 degrees
about the vertical (the flange by 30: by 60 it is itself), not at all, twice, or another lies there.
Goal: every case named, and none named where the part lies in its place; within 3 s.
"""

import time

import numpy as np
from global_start import mesh_of
from harness import Goal, Report, timing_of
from registration import NOISE, rig_around, seen
from rigcell import cell_of
from scipy.spatial.transform import Rotation

from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.align import AlignmentSettings
from depthcell.fusion.reference import Reference
from depthcell.fusion.region import Region
from depthcell.fusion.registration.globalstart import PoseSearch
from depthcell.fusion.registration.presence import Expectation, Finding, look

PARTS, EACH, SEED = ("bracket", "step", "flange"), 2, 1
REST_M, HALF_M = 0.010, 0.12
CAPTURE = AlignmentSettings(capture_m=0.008, capture_rad=np.radians(8.0))


def standing(mesh: PartMesh, rotation: np.ndarray, at_m: np.ndarray) -> RigidTransform:
    """The part turned, its box over `at_m` (2,), its lowest point on the pins."""
    turned = mesh.vertices_m @ rotation.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    foot = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    return RigidTransform("cell", "part", rotation, np.array([*at_m, REST_M], np.float64) - foot)


def merged(first: PartMesh, T_cell_first: RigidTransform, second: PartMesh, T_cell_second: RigidTransform) -> PartMesh:
    """Two parts in the cell as one mesh in the frame of the first."""
    there = np.asarray((T_cell_first.inverse() @ T_cell_second) @ second.vertices_m)
    triangles = np.concatenate((first.triangles, second.triangles + len(first.vertices_m)))
    vertices_m = np.concatenate((first.vertices_m, there)).astype(np.float64)
    return PartMesh(vertices_m, triangles.astype(np.int32))


def staged(
    case: Finding, name: str, nominal: RigidTransform, rng: np.random.Generator
) -> tuple[PartMesh, RigidTransform]:
    """What lies there, and where."""
    mesh, level = mesh_of(name), np.eye(3)
    about_z = Rotation.from_rotvec([0, 0, rng.uniform(0, 2 * np.pi)]).as_matrix()
    spot = rng.uniform(-0.01, 0.01, 2)
    if case is Finding.AS_EXPECTED:
        motion = np.concatenate((rng.uniform(-1, 1, 3) * np.radians(1.7), rng.uniform(-1.7e-3, 1.7e-3, 3)))
        return mesh, nominal.perturbed(motion)
    if case is Finding.UPSIDE_DOWN:
        return mesh, standing(mesh, about_z @ np.diag([1.0, -1.0, -1.0]), spot)
    if case is Finding.ASTRAY:
        turn = np.radians(30 if name == "flange" else rng.uniform(40, 140))
        return mesh, standing(mesh, Rotation.from_rotvec([0, 0, turn]).as_matrix(), spot)
    if case is Finding.MISSING:
        return mesh, RigidTransform("cell", "part", level, np.array([3.0, 3.0, 0.01]))
    if case is Finding.SEVERAL:
        apart = Rotation.from_rotvec([0, 0, rng.uniform(0, 2 * np.pi)]).apply([0.058, 0, 0])[:2]
        places = [standing(mesh, turn, side * apart) for turn, side in ((level, 1), (about_z, -1))]
        return merged(mesh, places[0], mesh, places[1]), places[0]
    other = mesh_of(str(rng.choice([one for one in ("bracket", "step", "flange", "shaft", "weld") if one != name])))
    return other, standing(other, about_z, spot)


def main() -> None:
    """Every case for every part."""
    report = Report("presence")
    for name in PARTS:
        mesh = mesh_of(name)
        search = PoseSearch(Reference(mesh.vertices_m, mesh.triangles))
        nominal = standing(mesh, np.eye(3), np.zeros(2))
        rig = rig_around(np.array([0.0, 0.0, 0.03]), 0.11, SEED, 4)
        half = np.array([HALF_M, HALF_M, 0.1])
        region = Region(RigidTransform.identity("cell", "box"), half * (-1, -1, 0) - [0, 0, 0.005], half)
        expected = Expectation(nominal, CAPTURE, region)
        for case in Finding:
            seconds, named = [], []
            for number in range(EACH):
                rng = np.random.default_rng([SEED, number, *case.value.encode(), *name.encode()])
                lying, pose = staged(case, name, nominal, rng)
                cloud = seen(lying, pose, rig, region, number)
                start = time.perf_counter()
                found = look(cloud, cell_of(rig, NOISE), search, expected)
                seconds.append(time.perf_counter() - start)
                named.append(found)
            right = sum(one.finding is case for one in named)
            report.add(
                f"{name}, {case}: {EACH} cases, seed {SEED}",
                timing_of(seconds),
                Goal(seconds=3.0),
                None,
                named_right=f"{right} of {EACH}",
                said=sorted({one.text for one in named}),
            )
    report.write()


if __name__ == "__main__":
    main()
