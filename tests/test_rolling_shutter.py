"""Poses of a moving board and the rows' time against the truth they were drawn from, and the Jacobian against steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.depth.rolling_shutter import RollingSight, _Problem, _start, fit_rolling, motions
from depthcell.errors import DepthcellError

CAMERA = Intrinsics(640, 480, 607.0, 607.0, 321.0, 242.0)
BENT = Intrinsics(640, 480, 607.0, 607.0, 321.0, 242.0, Distortion.BROWN_CONRADY, (0.1, -0.05, 0.0, 0.0, 0.0))
GRID = np.array([(0.06 * x - 0.18, 0.06 * y - 0.12, 0.0) for y in range(5) for x in range(7)])


def seen(
    pose: RigidTransform, motion: np.ndarray, share: float, camera: Intrinsics, sigma_px: float, seed: int
) -> RollingSight:
    """Each corner where the board was as its row was read; the row is found by repetition."""
    pixels = camera.project(np.asarray(pose @ GRID))
    for _ in range(30):
        later = share * (pixels[:, 1] - (camera.height_px - 1) / 2) / camera.height_px
        middle = np.asarray(pose @ GRID)
        points = middle + later[:, None] * (np.cross(motion[:3], middle) + motion[3:])
        pixels = camera.project(points)
    noise = np.random.default_rng(seed).normal(0, sigma_px, pixels.shape) if sigma_px else 0.0
    return RollingSight("color:1", GRID, pixels + noise, motion)


def drawn(
    count: int, share: float, camera: Intrinsics, sigma_px: float, seed: int, speed: float = 0.01
) -> tuple[list[RollingSight], list[RigidTransform]]:
    rng = np.random.default_rng(seed)
    poses, sights = [], []
    for number in range(count):
        turn = Rotation.from_euler("xyz", [*rng.normal(0, 0.25, 2), rng.normal(0, 0.1)]).as_matrix()
        poses.append(RigidTransform("color:1", "board", turn, np.array([0, 0, 1.0]) + rng.normal(0, 0.03, 3)))
        motion = np.append(rng.normal(0, speed / 3, 3), rng.normal(0, speed, 3))
        sights.append(seen(poses[-1], motion, share, camera, sigma_px, seed * 100 + number))
    return sights, poses


@given(st.floats(0.0, 1.0), st.integers(0, 1000), st.sampled_from([CAMERA, BENT]))
@settings(max_examples=15)
def test_what_was_drawn_without_noise_is_found(share: float, seed: int, camera: Intrinsics) -> None:
    sights, poses = drawn(4, share, camera, 0.0, seed)
    found = fit_rolling(sights, camera)
    assert abs(found.share - share) < 1e-4
    for one, truth in zip(found.poses, poses, strict=True):
        assert np.linalg.norm(one.translation_m - truth.translation_m) < 1e-5


def test_taking_corners_for_simultaneous_costs_a_millimetre_for_each_of_motion() -> None:
    pose = RigidTransform("color:1", "board", Rotation.from_euler("y", 0.4).as_matrix(), np.array([0, 0, 1.0]))
    motion = np.array([0, 0, 0, 0, 0.012, 0.0])
    sight = seen(pose, motion, 1.0, CAMERA, 0.0, 0)
    off_mm = 1e3 * (fit_rolling([sight], CAMERA, share=0.0).poses[0].translation_m - pose.translation_m)[2]
    right_mm = 1e3 * (fit_rolling([sight], CAMERA, share=1.0).poses[0].translation_m - pose.translation_m)[2]
    assert abs(off_mm) > 5
    assert abs(right_mm) < 0.01


def test_the_stated_uncertainty_is_that_of_the_scatter() -> None:
    scaled = []
    for seed in range(60):
        sights, _ = drawn(5, 0.7, CAMERA, 0.15, seed)
        found = fit_rolling(sights, CAMERA)
        scaled.append((found.share - 0.7) / found.u_share)
    assert 0.7 < np.std(scaled) < 1.35  # 60 draws: the standard error of a standard deviation of 1 is 0.09
    assert abs(np.mean(scaled)) < 0.4


def test_a_few_corners_far_off_hardly_matter() -> None:
    sights, poses = drawn(6, 0.8, CAMERA, 0.1, 3)
    for sight in sights[:3]:
        sight.pixels[4] += (9.0, -7.0)
    found = fit_rolling(sights, CAMERA)
    assert abs(found.share - 0.8) < 0.1
    off = [np.linalg.norm(a.translation_m - b.translation_m) for a, b in zip(found.poses, poses, strict=True)]
    assert max(off) < 3e-3


def test_the_jacobian_is_that_of_small_steps() -> None:
    sights, _ = drawn(2, 0.6, BENT, 0.1, 5)
    problem = _Problem(tuple(sights), tuple(_start(s, BENT) for s in sights), BENT, None)
    x = np.append(np.random.default_rng(1).normal(0, 0.05, 12), 0.4)
    _, exact = problem.residuals(x)
    steps = np.column_stack(
        [(problem.residuals(x + h)[0] - problem.residuals(x - h)[0]) / 2e-6 for h in 1e-6 * np.eye(len(x))]
    )
    np.testing.assert_allclose(exact, steps, atol=1e-3 * np.abs(exact).max() / 100)


def test_motions_lead_from_each_pose_to_the_next() -> None:
    step = np.array([0.01, -0.02, 0.005, 0.003, 0.012, -0.004])
    poses = [RigidTransform("color:1", "board", np.eye(3), np.array([0.1, 0.0, 1.0]))]
    for _ in range(5):
        poses.append(poses[-1].perturbed(step))
    twists = motions(poses)
    for pose, after, twist in zip(poses[1:4], poses[2:5], twists[1:4], strict=True):
        assert np.linalg.norm(pose.perturbed(twist).translation_m - after.translation_m) < 4e-4
    np.testing.assert_allclose(twists[1:5, :3], np.tile(step[:3], (4, 1)), atol=1e-12)


def test_a_board_at_rest_leaves_the_share_open() -> None:
    sights, _ = drawn(4, 0.7, CAMERA, 0.1, 2, speed=0.0)
    with pytest.raises(DepthcellError, match="move the board up and down"):
        fit_rolling(sights, CAMERA)
    assert fit_rolling(sights, CAMERA, share=0.7).rms_px < 0.15


def test_bad_sights_are_refused() -> None:
    with pytest.raises(DepthcellError, match="no view"):
        fit_rolling([], CAMERA)
    with pytest.raises(DepthcellError, match="at least 8"):
        RollingSight("color:1", GRID[:4], np.zeros((4, 2)), np.zeros(6))
    with pytest.raises(DepthcellError, match="finite"):
        RollingSight("color:1", GRID, np.full((35, 2), np.nan), np.zeros(6))
    with pytest.raises(DepthcellError, match="two poses"):
        motions([RigidTransform("color:1", "board", np.eye(3), np.zeros(3))])
