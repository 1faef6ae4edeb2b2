"""What is left of a face beside an edge: patches, and those too small to judge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import KDTree

from depthcell.inspect.gauges.edges import in_patches

PITCH_M, APART_M = 3e-4, 1.8e-3


def grid(rows: int, columns: int, at: tuple[float, float, float]) -> NDArray[np.float64]:
    """A face's points (rows * columns, 3), their first at `at`."""
    y, x = np.indices((rows, columns)) * PITCH_M
    return np.asarray(np.column_stack((x.ravel(), y.ravel(), np.zeros(rows * columns))) + np.array(at))


@given(st.integers(0, 10**6))
def test_a_small_patch_is_left_out_only_where_it_stands_apart(seed: int) -> None:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    face, some = grid(20, 20, (0, 0, 0)), 8
    for gap_m, stays in ((2.6e-3, False), (1.2e-3, True)):
        beside = grid(2, 4, (19 * PITCH_M + gap_m, 0, 0))
        kept = in_patches(np.vstack((face, beside)) @ turn.T, APART_M, some + 1)
        assert kept[: len(face)].all()
        assert (kept[len(face) :] == stays).all()
    assert in_patches(np.vstack((face, grid(2, 4, (0.02, 0, 0)))) @ turn.T, APART_M, some).all()


def test_patches_are_those_of_the_plain_search() -> None:
    """Random clusters: whoever has enough company by a walk from neighbour to neighbour stays."""
    rng = np.random.default_rng(5)
    middles = rng.uniform(0, 0.2, (12, 3))
    sizes = rng.integers(3, 60, len(middles))
    places = np.vstack([m + rng.uniform(-3e-4, 3e-4, (n, 3)) for m, n in zip(middles, sizes, strict=True)])
    neighbours = KDTree(places).query_ball_point(places, APART_M)
    plain = np.zeros(len(places), np.bool_)
    for start in range(len(places)):
        reached, waiting = {start}, [start]
        while waiting:
            new = set(neighbours[waiting.pop()]) - reached
            reached |= new
            waiting += new
        plain[start] = len(reached) >= 30
    assert 0 < plain.sum() < len(places)
    assert (in_patches(places, APART_M, 30) == plain).all()


@pytest.mark.parametrize("count", [0, 5])
def test_without_a_distance_all_are_one(count: int) -> None:
    assert in_patches(grid(1, count, (0, 0, 0)), 0.0, 1000).tolist() == [True] * count
