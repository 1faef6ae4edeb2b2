"""Poses in time: screws between them against the matrix exponential, coverage of frames, stated covariances."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.fusion.track import Track, TrackUncertainty, between

angles = st.floats(-1.5, 1.5)
shifts = st.floats(-2.0, 2.0)
twists = st.tuples(angles, angles, angles, shifts, shifts, shifts).map(np.array)


def pose_of(twist: NDArray[np.float64]) -> RigidTransform:
    return RigidTransform.from_rotation_vector("cell", "part", twist[:3], twist[3:])


def turntable(axis_point_m: NDArray[np.float64], rad_per_s: float) -> Callable[[float], RigidTransform]:
    start = pose_of(np.array([0.1, -0.2, 0.3, 0.05, -0.02, 0.01]))

    def at(seconds: float) -> RigidTransform:
        turn = RigidTransform.from_rotation_vector("cell", "cell", np.array([0, 0, rad_per_s * seconds]), np.zeros(3))
        return RigidTransform("cell", "cell", turn.rotation, axis_point_m - turn.rotation @ axis_point_m) @ start

    return at


def track_of(
    at: Callable[[float], RigidTransform],
    seconds: list[float],
    uncertainty: TrackUncertainty | None = None,
    pivot_m: NDArray[np.float64] | None = None,
) -> Track:
    times_ns = np.array([round(s * 1e9) for s in seconds], dtype=np.int64)
    stated = uncertainty or TrackUncertainty()
    return Track("test.csv", times_ns, [at(s) for s in seconds], stated, pivot_cell=pivot_m)


@settings(max_examples=60, deadline=None)
@given(twists, twists, st.floats(0, 1))
def test_a_pose_between_two_is_that_of_the_matrix_exponential(
    one: NDArray[np.float64], other: NDArray[np.float64], share: float
) -> None:
    first, second = pose_of(one), pose_of(other)
    motion = np.linalg.inv(first.matrix) @ second.matrix
    assume(np.linalg.norm((first.inverse() @ second).rotation_vector_rad) < 3.0)  # at half a turn there are two ways
    expected = first.matrix @ scipy.linalg.expm(share * np.real(scipy.linalg.logm(motion)))
    np.testing.assert_allclose(between(first, second, share).matrix, expected, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(twists, twists, st.floats(0, 1))
def test_the_way_between_does_not_depend_on_who_moves(
    one: NDArray[np.float64], other: NDArray[np.float64], share: float
) -> None:
    """A part before a camera and a camera before a part are interpolated alike."""
    first, second = pose_of(one), pose_of(other)
    assume(np.linalg.norm((first.inverse() @ second).rotation_vector_rad) < 3.0)
    inverted = between(first.inverse(), second.inverse(), share).inverse()
    np.testing.assert_allclose(between(first, second, share).matrix, inverted.matrix, atol=1e-7)


def test_a_turntable_is_met_exactly_between_poses_ten_degrees_apart() -> None:
    at = turntable(np.array([0.3, -0.1, 0.0]), np.radians(100))
    track = track_of(at, [0.0, 0.1, 0.2])
    for seconds in (0.0, 0.033, 0.1, 0.177, 0.2):
        np.testing.assert_allclose(track.pose(round(seconds * 1e9)).matrix, at(seconds).matrix, atol=1e-9)
    straight = (at(0.0).translation_m + at(0.1).translation_m) / 2
    assert np.linalg.norm(straight - at(0.05).translation_m) > 1e-4  # a straight line would be wrong


def test_an_offset_of_the_clock_shifts_the_poses() -> None:
    at = turntable(np.zeros(3), 1.0)
    track = track_of(at, [10.0, 10.1, 10.2]).shifted(10_000_000_000)
    assert track.span_ns == (0, 200_000_000)
    np.testing.assert_allclose(track.pose(50_000_000).matrix, at(10.05).matrix, atol=1e-9)


@pytest.mark.parametrize(
    ("frames_s", "message"),
    [
        ([5.0, 5.1], r"share no frame, so they are of two clocks or two runs; give time_offset_ms"),
        ([0.1, 0.25], r"runs from 0.000 to 0.200 s, the recording from 0.100 to 0.250 s: 1 of 2 frames lie outside"),
        ([-0.01, 0.1], r"1 of 2 frames lie outside; record the track from before"),
    ],
)
def test_frames_outside_the_track_are_refused(frames_s: list[float], message: str) -> None:
    track = track_of(turntable(np.zeros(3), 1.0), [0.0, 0.1, 0.2])
    with pytest.raises(DepthcellError, match=message):
        track.check_covers([round(s * 1e9) for s in frames_s])
    with pytest.raises(DepthcellError, match=r"test.csv"):
        track.pose(round(max(frames_s, key=lambda s: abs(s - 0.1)) * 1e9))


def test_what_is_no_track_is_refused() -> None:
    at = turntable(np.zeros(3), 1.0)
    for times_s, message in (([0.0], "two poses"), ([0.0, 0.2, 0.1], "ascend"), ([0.0, 0.0], "ascend")):
        with pytest.raises(DepthcellError, match=message):
            track_of(at, times_s)
    wrong = [RigidTransform.identity("base", "part")] * 2
    with pytest.raises(DepthcellError, match="from part to cell"):
        Track("x", np.array([0, 1], dtype=np.int64), wrong)
    with pytest.raises(DepthcellError, match="translation_m must be zero or more"):
        TrackUncertainty(translation_m=float("nan"))


def sampled_lifts(
    draws: list[RigidTransform], T_cell_part: RigidTransform, points_part: NDArray[np.float64]
) -> NDArray[np.float64]:
    lifts = np.array([drawn @ points_part - T_cell_part @ points_part for drawn in draws])
    return np.asarray(lifts.std(axis=0), dtype=np.float64)


def stated_lifts(
    covariance: NDArray[np.float64], T_cell_part: RigidTransform, points_part: NDArray[np.float64]
) -> NDArray[np.float64]:
    sigmas = []
    for x, y, z in np.asarray(T_cell_part @ points_part):
        jacobian = np.hstack((-np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.eye(3)))
        sigmas.append(np.sqrt(np.diag(jacobian @ covariance @ jacobian.T)))
    return np.array(sigmas)


def test_covariances_are_those_of_tracks_drawn_at_random() -> None:
    """Monte Carlo: time offset, counts per degree and axis direction of a turntable, each of them alone."""
    rng, axis_m = np.random.default_rng(4), np.array([0.1, 0.05, 0.0])
    speed, reference_ns, now_ns = np.radians(60), 100_000_000, 700_000_000
    seconds = np.linspace(0, 1, 21).tolist()
    points_part = rng.uniform(-0.05, 0.05, (5, 3))
    at = turntable(axis_m, speed)
    T_now = at(0.7)

    def with_axis(tilt_rad: NDArray[np.float64]) -> RigidTransform:
        turn = np.array([0, 0, speed * 0.6]) + np.cross(tilt_rad, [0, 0, speed * 0.6])
        rotation = RigidTransform.from_rotation_vector("cell", "cell", turn, np.zeros(3)).rotation
        return RigidTransform("cell", "cell", rotation, axis_m - rotation @ axis_m) @ at(0.1)

    cases: list[tuple[TrackUncertainty, Callable[[], RigidTransform], float]] = [
        (TrackUncertainty(time_ns=1e6), lambda: at(0.7 + rng.normal(0, 1e-3)), 0.06),
        (TrackUncertainty(relative=2e-3), lambda: at(0.1 + 0.6 * (1 + rng.normal(0, 2e-3))), 0.06),
        (TrackUncertainty(direction_rad=1e-3), lambda: with_axis(rng.normal(0, 1e-3, 3)), 0.2),
    ]
    for uncertainty, draw, tolerance in cases:
        track = track_of(at, seconds, uncertainty, axis_m)
        pose = track.part_pose(now_ns, track.pose(reference_ns))
        assert not pose.own_covariance.any()
        drawn = sampled_lifts([draw() for _ in range(3000)], T_now, points_part)
        stated = stated_lifts(pose.shared_covariance, T_now, points_part)
        np.testing.assert_allclose(stated, drawn, rtol=tolerance, atol=0.05 * drawn.max())


@pytest.mark.parametrize("is_rig_moving", [False, True])
def test_each_pose_turns_about_the_part_or_about_the_moving_rig(is_rig_moving: bool) -> None:
    stated = TrackUncertainty(translation_m=1e-4, rotation_rad=1e-3)
    at = turntable(np.zeros(3), 1.0)
    times_ns = np.array([0, 1_000_000_000], dtype=np.int64)
    track = Track("t", times_ns, [at(0.0), at(1.0)], stated, is_rig_moving=is_rig_moving)
    pose = track.part_pose(500_000_000, track.pose(0))
    origin_sigma_m = stated_lifts(pose.own_covariance, pose.T_cell_part, np.zeros((1, 3)))[0]
    lever_m = np.linalg.norm(pose.T_cell_part.translation_m) if is_rig_moving else 0.0
    assert np.linalg.norm(origin_sigma_m) == pytest.approx(np.sqrt(3 * 1e-8 + 2 * (1e-3 * lever_m) ** 2))
    assert not pose.shared_covariance.any()
