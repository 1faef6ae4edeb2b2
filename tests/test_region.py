"""The box that holds the part: the quick first choice of pixels loses none that the exact one keeps."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.region import NEAR_M, Region

CAMERA = Intrinsics(80, 60, 90.0, 85.0, 41.3, 28.9)


@given(st.integers(0, 10_000))
def test_the_first_choice_keeps_all_that_lies_inside_and_little_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T_cell_box = RigidTransform.from_rotation_vector("cell", "box", rng.normal(0, 1, 3), rng.normal(0, 0.01, 3))
    T_cell_cam = RigidTransform.from_rotation_vector(
        "cell", "cam", rng.normal(0, 0.2, 3), np.array([0, 0, -0.3]) + rng.normal(0, 0.02, 3)
    )
    region = Region(T_cell_box, np.array([-0.06, -0.04, -0.02]), np.array([0.05, 0.03, 0.03]))
    depth_m = rng.uniform(0.25, 0.35, (60, 80)).astype(np.float32)
    depth_m[rng.random(depth_m.shape) < 0.1] = np.nan
    points_cell = T_cell_cam @ CAMERA.deproject(depth_m)
    exact, first = region.contains(points_cell), region.may_contain(depth_m, CAMERA.rays(), T_cell_cam)
    wider = Region(T_cell_box, region.lower_m - 2 * NEAR_M, region.upper_m + 2 * NEAR_M).contains(points_cell)
    assume(exact.any())
    assert not exact.all()
    assert (first | ~exact).all()
    assert (wider | ~first).all()
    assert not first[np.isnan(depth_m)].any()


def test_a_box_that_is_missed_holds_nothing() -> None:
    region = Region(RigidTransform.identity("cell", "box"), np.full(3, 1.0), np.full(3, 1.1))
    depth_m = np.full((60, 80), 0.3, np.float32)
    assert not region.may_contain(depth_m, CAMERA.rays(), RigidTransform.identity("cell", "cam")).any()
