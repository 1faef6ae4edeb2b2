"""A golden part from scans alone: mean and process spread come out as they were put in, and a defect stands out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from depthcell.acquisition.simulator.parts import PartKind, build_part
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.inspect.goldensurface import MIN_SCANS, GoldenSurface, golden_surface

NOISE_M, PROCESS_M, SPACING_M = 2e-5, 8e-5, 1.5e-3
SAMPLED_M, SCANS = 8e-4, 10
SOFT_M = np.array([0.012, 0.006])
"""Where good parts vary, in the middle of the bracket's pocket, over 6 mm."""
T_CELL_PART = RigidTransform.from_rotation_vector("cell", "part", np.array([0.0, 0.0, 0.3]), np.array([0, 0, 0.01]))


@pytest.fixture(scope="module")
def nominal() -> Reference:
    mesh = build_part(PartKind.BRACKET).mesh
    return Reference(mesh.vertices_m, mesh.triangles)


def soft(points: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of the process a place has: 1 in the middle of the soft spot, nothing on walls."""
    away = np.hypot(*(points[:, :2] - SOFT_M).T) / 0.006
    return np.asarray(np.exp(-(away**2)) * (normals[:, 2] > 0.9))


def scan(nominal: Reference, seed: int, dent_m: float = 0.0) -> PartCloud:
    """What cameras above would give of one part: points all over, noise along the normal, laid down a little off."""
    rng = np.random.default_rng(seed)
    samples = nominal.surface_samples(SAMPLED_M)
    chosen = (samples.normals_part[:, 2] > -0.1) & (rng.random(len(samples.points_part)) < 0.8)
    points, normals = samples.points_part[chosen], samples.normals_part[chosen].astype(np.float64)
    height = PROCESS_M * rng.standard_normal() * soft(points, normals) + NOISE_M * rng.standard_normal(len(points))
    height -= dent_m * (np.hypot(*(points[:, :2] - (0.03, -0.015)).T) < 0.004) * (normals[:, 2] > 0.9)
    off = RigidTransform.from_rotation_vector("cell", "cell", rng.normal(0, 2e-3, 3), rng.normal(0, 2e-4, 3))
    T_cell_part = off @ T_CELL_PART
    count = len(points)
    return PartCloud(
        points_cell=np.asarray(T_cell_part @ (points + height[:, None] * normals)),
        normals_cell=T_cell_part.rotate(normals).astype(np.float32),
        colors=np.zeros((count, 3), np.uint8),
        random_sigma_m=np.full(count, NOISE_M, np.float32),
        systematic_sigma_m=np.zeros(count, np.float32),
        correlation_m=np.full(count, 1e-6, np.float32),
        share=np.ones((count, 1), np.float32),
        camera=np.zeros(count, np.uint8),
        pixel=np.zeros((count, 2), np.int32),
        serials=("1",),
    )


@pytest.fixture(scope="module")
def golden(nominal: Reference) -> GoldenSurface:
    return golden_surface([scan(nominal, seed) for seed in range(SCANS)], T_CELL_PART, SPACING_M)


def on_flat(golden: GoldenSurface, nominal: Reference) -> NDArray[np.bool_]:
    """Places well away from edges, where a mean over a disc is that of one face."""
    step = 2.5e-3 * np.cross(golden.normals_part, [[0.6, 0.48, 0.64]])
    sides = [golden.points_part + sign * step - 5e-4 * golden.normals_part for sign in (-1, 1)]
    return np.asarray(np.all([nominal.signed_distance(side) < -3e-4 for side in sides], axis=0))


def test_the_mean_is_the_nominal_surface(golden: GoldenSurface, nominal: Reference) -> None:
    chosen = on_flat(golden, nominal) & (golden.normals_part[:, 2] > 0.99)
    chosen &= soft(golden.points_part, golden.normals_part) < 0.01
    points, normals = golden.points_part[chosen], golden.normals_part[chosen]
    off_m = nominal.exact_signed_distance(points)
    # The first scan lies where nobody knows: a small motion is free.
    motions = np.column_stack((normals, np.cross(points, normals)))
    off_m -= motions @ np.linalg.lstsq(motions, off_m, rcond=None)[0]
    assert chosen.sum() > 600
    assert np.quantile(np.abs(off_m), 0.95) < 6e-6  # noise alone, of ten scans and some ten points each: 2e-6
    assert golden.scans.min() >= MIN_SCANS


def test_the_spread_of_good_parts_comes_out_within_its_uncertainty(golden: GoldenSurface, nominal: Reference) -> None:
    rng_amplitudes = []
    for seed in range(SCANS):
        rng = np.random.default_rng(seed)
        rng.random(len(nominal.surface_samples(SAMPLED_M).points_part))
        rng_amplitudes.append(PROCESS_M * rng.standard_normal())
    weight = soft(golden.points_part, golden.normals_part)
    middle, quiet = weight > 0.6, (weight < 0.01) & on_flat(golden, nominal)
    assert middle.sum() >= 4
    drawn_m = float(np.std(rng_amplitudes, ddof=1) * np.mean(weight[middle]))
    assert np.median(golden.process_m[middle]) == pytest.approx(drawn_m, rel=0.15)
    assert np.median(golden.process_u_m[middle] / golden.process_m[middle]) == pytest.approx(
        1 / np.sqrt(2 * (SCANS - 1)), rel=0.15
    )
    assert np.median(golden.process_m[quiet]) < 1e-5  # noise is not taken for process
    assert np.median(golden.mean_u_m[middle]) == pytest.approx(drawn_m / np.sqrt(SCANS), rel=0.15)


def test_the_surface_is_open_and_made_of_its_places(golden: GoldenSurface, nominal: Reference) -> None:
    edges = np.sort(golden.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    assert (uses == 1).any()  # the foot, which nobody saw, is not closed
    corners = golden.points_part[golden.triangles]
    vectors = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", vectors, golden.normals_part[golden.triangles[:, 0]]) > 0).mean() > 0.99
    area_m2 = np.linalg.norm(vectors, axis=1).sum() / 2
    samples = nominal.surface_samples(SAMPLED_M)
    seen_m2 = samples.area_m2[samples.normals_part[:, 2] > -0.1].sum()
    assert area_m2 == pytest.approx(seen_m2, rel=0.15)


def test_a_dent_stands_out_and_a_good_part_does_not(golden: GoldenSurface, nominal: Reference) -> None:
    start = T_CELL_PART.inverse()
    flat = on_flat(golden, nominal)
    good = golden.significance(golden.read(scan(nominal, 100), start))[flat]
    assert np.nanstd(good) == pytest.approx(1.0, abs=0.35)
    assert np.nanmax(np.abs(good)) < 7
    reading = golden.read(scan(nominal, 101, dent_m=3e-4), start)
    dented = flat & (np.hypot(*(golden.points_part[:, :2] - (0.03, -0.015)).T) < 0.002)
    dented &= golden.normals_part[:, 2] > 0.9
    assert np.median(reading.deviation_m[dented]) == pytest.approx(-3e-4, abs=3e-5)
    assert (golden.significance(reading)[dented] < -8).all()


def test_it_comes_back_from_its_file_and_a_damaged_one_is_refused(golden: GoldenSurface, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    golden.save(path)
    again = GoldenSurface.load(path)
    np.testing.assert_array_equal(again.points_part, golden.points_part)
    np.testing.assert_array_equal(again.process_m, golden.process_m)
    assert again.spacing_m == golden.spacing_m
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DepthcellError, match=r"golden\.npz: missing or damaged"):
        GoldenSurface.load(path)


def test_too_few_scans_and_another_part_are_refused(nominal: Reference) -> None:
    scans = [scan(nominal, seed) for seed in range(3)]
    with pytest.raises(DepthcellError, match="needs 4 good scans or more, got 3"):
        golden_surface(scans, T_CELL_PART, SPACING_M)
    lost = scan(nominal, 3)
    far = replace(lost, points_cell=lost.points_cell + 0.05)
    with pytest.raises(DepthcellError, match=r"scan 4: only 0% of the scan lies on the surface") as refusal:
        golden_surface([*scans, far], T_CELL_PART, SPACING_M)
    assert refusal.value.reason is Reason.ALIGNMENT_FAILED
