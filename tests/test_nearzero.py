"""Distances that are never negative: zero is held as often as stated, and far from zero nothing is added."""

from dataclasses import replace

import numpy as np
import pytest
from gaugedscan import face, scan_of
from numpy.typing import NDArray
from stagedpart import plate_camera

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.fusion.align import Alignment
from depthcell.fusion.budget import uncertainty_budget
from depthcell.fusion.influence import Influence
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.nearzero import NEAR_ZERO, joint_covariance, near_zero_u, noise_covariance

SIGMA_M, SIDE = 1e-4, 8


@pytest.fixture(scope="module")
def scan() -> Scan:
    """64 points of one camera, too far apart in its image to share noise; a cell and a pose that are exact."""
    camera = replace(plate_camera("1001", 20.0), covariance=np.zeros((6, 6)))
    rows, columns = np.meshgrid(np.arange(SIDE) * 20 + 10, np.arange(SIDE) * 25 + 20, indexing="ij")
    pixel = np.stack((rows.ravel(), columns.ravel()), axis=1)
    rays = np.column_stack((camera.depth.normalized(pixel[:, ::-1].astype(float)), np.ones(len(pixel))))
    points_cell, count = np.asarray(camera.T_cell_depth @ (0.16 * rays), dtype=np.float64), len(pixel)
    towards = np.asarray(camera.T_cell_depth.rotate(np.array([[0.0, 0.0, -1.0]])))
    cloud = PartCloud(
        points_cell=points_cell,
        normals_cell=np.tile(towards, (count, 1)).astype(np.float32),
        colors=np.zeros((count, 3), np.uint8),
        random_sigma_m=np.full(count, SIGMA_M, np.float32),
        systematic_sigma_m=np.zeros(count, np.float32),
        correlation_m=np.full(count, 1e-3, np.float32),
        share=np.ones((count, 1), np.float32),
        camera=np.zeros(count, np.uint8),
        pixel=pixel.astype(np.int32),
        serials=("1001",),
    )
    exact = Alignment(
        RigidTransform.identity("cell", "part"), np.zeros((6, 6)), np.zeros((6, 6)), 0, 1, 64, 1, 0, "", ()
    )
    cell = Cell("one", {"1001": camera}, "2026-01-02T03:04:05Z")
    return Scan.of(cloud, exact, cell)


def halves() -> tuple[Influence, Influence]:
    """Mean lifts of the first and of the second 32 points: independent, each with sigma / sqrt(32)."""
    mean = np.full(32, 1 / 32)
    return Influence(np.arange(32), mean, np.zeros(6)), Influence(np.arange(32, 64), mean, np.zeros(6))


def held(scan: Scan, true: NDArray[np.float64], seed: int, *, added: bool) -> bool:
    """Whether the interval of a length holds the true one, for one draw of noise."""
    across = halves()
    seen = true + np.random.default_rng(seed).normal(0, SIGMA_M / np.sqrt(32), 2)
    value = float(np.linalg.norm(seen))
    along = (across[0].scaled(seen[0] / value)) + (across[1].scaled(seen[1] / value))
    extra = near_zero_u(value, along, [across], scan) if added else ()
    u = uncertainty_budget(along, scan, extra=extra).u
    return abs(value - float(np.linalg.norm(true))) <= 2 * u


def test_zero_is_held_as_often_as_stated_and_without_the_row_less_often(scan: Scan) -> None:
    zero = np.zeros(2)
    with_row, without = (
        np.mean([held(scan, zero, seed, added=added) for seed in range(200)]) for added in (True, False)
    )
    assert 0.91 <= with_row <= 0.985
    assert without < 0.90


@pytest.mark.parametrize("size", [1.0, 2.0, 3.5, 8.0])
def test_other_lengths_are_held_too(scan: Scan, size: float) -> None:
    true = size * SIGMA_M / np.sqrt(32) * np.array([0.6, 0.8])
    assert np.mean([held(scan, true, seed, added=True) for seed in range(80)]) >= 0.90


def test_far_from_zero_nothing_is_added(scan: Scan) -> None:
    across = halves()
    assert near_zero_u(5 * SIGMA_M, across[0], [across], scan) == ()
    small = near_zero_u(2.3 * SIGMA_M / np.sqrt(32), across[0], [across], scan)
    assert [name for name, _ in small] == [NEAR_ZERO]


def test_the_joint_covariance_is_that_of_the_budgets_of_sums() -> None:
    """The slow twin: each variance by a budget of its own."""
    whole = scan_of([face((0, 0, 4), (0, 0, 1), (20, 20))])
    rng, count = np.random.default_rng(3), len(whole.cloud)
    chosen = [np.sort(rng.choice(count, 40, replace=False)) for _ in range(3)]
    influences = [Influence(points, rng.normal(size=40), rng.normal(size=6)) for points in chosen]
    covariance = joint_covariance(influences, whole) + noise_covariance(influences, whole)
    variance = [uncertainty_budget(influence, whole).u ** 2 for influence in influences]
    assert np.diag(covariance) == pytest.approx(variance)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        together = uncertainty_budget(influences[i] + influences[j], whole).u ** 2
        apart = (together - variance[i] - variance[j]) / 2
        assert covariance[i, j] == pytest.approx(apart, abs=1e-9 * max(variance))
    assert joint_covariance(influences, whole)[0, 0] > 0
