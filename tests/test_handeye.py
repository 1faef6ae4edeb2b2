"""Hand-eye calibration: recovery of known mounts, honest intervals, derivatives, real recordings, and bad ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.spatial.transform import Rotation

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.robot.handeye import (
    CameraPoses,
    HandEye,
    HandEyeSettings,
    Mount,
    calibrate_handeye,
    handeye_of,
)
from depthcell.calib.robot.handeye_problem import HandEyeState, Samples, chart, misfit
from depthcell.calib.robot.handeye_refine import NoiseModel, inefficiency
from depthcell.calib.robot.handeye_report import handeye_json, handeye_sentence, handeye_table
from depthcell.calib.robot.handeye_simulated import HandEyeScene, SimulatedHandEye, simulate_handeye
from depthcell.calib.robot.handeye_start import check_motion, guess_offset
from depthcell.calib.robot.handeye_trajectory import Poses, Trajectory, read_trajectory
from depthcell.errors import DepthcellError, Reason

DATA = Path(__file__).parent / "data" / "handeye_asl"
QUIET = (1e-9, 1e-9, 1e-9, 1e-9, 1e-9, 1e-9)


def simulated(scene: HandEyeScene, seed: int = 1) -> SimulatedHandEye:
    return simulate_handeye(scene, np.random.default_rng(seed))


def solved(sim: SimulatedHandEye, scene: HandEyeScene, noise: NoiseModel = NoiseModel.ISOTROPIC) -> HandEye:
    stated = HandEyeSettings(scene.mount, paired=scene.rate_hz is None, noise=noise)
    return handeye_of(sim.robot, sim.camera, stated)


def twist_between(truth: RigidTransform, found: RigidTransform) -> np.ndarray:
    """xi with `truth = found.perturbed(xi)`."""
    turn = truth.rotation @ found.rotation.T
    return np.hstack([Rotation.from_matrix(turn).as_rotvec(), truth.translation_m - turn @ found.translation_m])


def csv_of(path: Path, trajectory: Trajectory) -> Path:
    quaternion = Rotation.from_matrix(trajectory.poses.rotation).as_quat()
    table = np.column_stack([trajectory.times_s, trajectory.poses.translation_m, quaternion])
    path.write_text("\n".join(",".join(f"{value:.12g}" for value in row) for row in table) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("mount", Mount)
@pytest.mark.parametrize("rate_hz", [None, 20.0])
def test_recovers_the_mount_exactly_without_noise(mount: Mount, rate_hz: float | None) -> None:
    scene = HandEyeScene(mount, poses=120, rate_hz=rate_hz, noise=QUIET, offset_s=0.0 if rate_hz is None else 0.137)
    sim = simulated(scene)
    result = solved(sim, scene)
    assert np.abs(twist_between(sim.T_mount_camera, result.T_mount_camera)).max() < 1e-7
    assert np.abs(twist_between(sim.T_fixed_target, result.T_fixed_target)).max() < 1e-7
    assert result.T_mount_camera.target == ("hand" if mount is Mount.HAND else "base")
    assert result.T_fixed_target.target == ("base" if mount is Mount.HAND else "hand")
    if rate_hz is not None:
        assert result.offset_s == pytest.approx(0.137, abs=1e-6)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(Mount)))
def test_the_truth_is_within_six_standard_uncertainties(seed: int, mount: Mount) -> None:
    scene = HandEyeScene(mount, poses=30)
    sim = simulated(scene, seed)
    result = solved(sim, scene)
    off = twist_between(sim.T_mount_camera, result.T_mount_camera)
    assert (np.abs(off) < 6 * np.sqrt(np.diag(result.mount_covariance))).all()
    assert (np.sqrt(np.diag(result.mount_covariance)) < (1e-3,) * 6).all()


@pytest.mark.slow
@pytest.mark.parametrize("noise", NoiseModel)
def test_intervals_of_the_mount_hold(noise: NoiseModel) -> None:
    """95 % intervals contain the truth in 93 to 97 % of 200 seeds, six parameters each."""
    scene = HandEyeScene(poses=40 if noise is NoiseModel.ISOTROPIC else 200)
    inside = []
    for seed in range(200):
        sim = simulated(scene, seed)
        result = solved(sim, scene, noise)
        u = np.sqrt(np.diag(result.mount_covariance))
        inside.append(np.abs(twist_between(sim.T_mount_camera, result.T_mount_camera)) <= 1.96 * u)
    assert 0.93 <= np.mean(inside) <= 0.97


def test_full_weights_are_sharper_where_directions_differ_and_refused_where_poses_are_few() -> None:
    scene = HandEyeScene(poses=220)
    sim = simulated(scene, 12)
    isotropic, full = (solved(sim, scene, noise) for noise in NoiseModel)
    assert np.trace(full.mount_covariance) < 0.8 * np.trace(isotropic.mount_covariance)
    off = twist_between(sim.T_mount_camera, full.T_mount_camera)
    assert (np.abs(off) < 5 * np.sqrt(np.diag(full.mount_covariance))).all()
    few = HandEyeScene(poses=40)
    with pytest.raises(DepthcellError, match="40 pairs of poses, noise model 'full' needs 100"):
        solved(simulated(few), few, NoiseModel.FULL)


def test_wrong_camera_poses_are_counted_and_do_no_harm() -> None:
    scene = HandEyeScene(poses=80, outliers=0.1)
    sim = simulated(scene, 3)
    result = solved(sim, scene)
    assert set(result.outliers) == set(np.flatnonzero(sim.wrong))
    assert len(result.outliers) > 3
    off = twist_between(sim.T_mount_camera, result.T_mount_camera)
    assert (np.abs(off) < 5 * np.sqrt(np.diag(result.mount_covariance))).all()
    assert np.abs(off[3:]).max() < 5e-4


def test_errors_that_stay_alike_widen_the_interval() -> None:
    """The same motion and the same size of error, once independent, once alike over a second."""
    scene = HandEyeScene(poses=400, rate_hz=20.0, offset_s=0.02)
    alike = replace(scene, memory_s=1.0)
    narrow, wide = (solved(simulated(one, 4), one) for one in (scene, alike))
    assert narrow.memory.max() < 2
    assert wide.memory.min() > 8
    assert np.trace(wide.covariance) > 4 * np.trace(narrow.covariance)
    off = twist_between(simulated(alike, 4).T_mount_camera, wide.T_mount_camera)
    assert (np.abs(off) < 5 * np.sqrt(np.diag(wide.mount_covariance))).all()


def test_refinement_beats_its_start_on_noisy_poses() -> None:
    better = []
    for seed in range(4):
        scene = HandEyeScene(poses=30)
        result = solved(simulated(scene, seed), scene)
        better.append(np.linalg.norm(result.scatter.samples_m) <= np.linalg.norm(result.start.samples_m) * 1.001)
    assert sum(better) >= 3


@pytest.fixture
def problem() -> tuple[Samples, HandEyeState]:
    rng = np.random.default_rng(5)

    def poses(count: int) -> Poses:
        return Poses(Rotation.from_rotvec(rng.normal(0, 0.6, (count, 3))).as_matrix(), rng.normal(0, 0.5, (count, 3)))

    trajectory = Trajectory("robot", np.linspace(0.0, 1.9, 20), poses(20))
    times_s = np.array([0.33, 0.47, 0.81, 1.13, 1.42, 1.66])
    mount, target = (
        RigidTransform.from_rotation_vector(*frames, rng.normal(size=3), rng.normal(size=3))
        for frames in (("hand", "camera"), ("base", "target"))
    )
    samples = Samples(poses(6), trajectory.at(times_s).poses, False, trajectory, times_s)
    return samples, HandEyeState(mount, target, 0.01)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("far", [0.0, 0.4])
def test_the_jacobian_is_the_derivative(problem: tuple[Samples, HandEyeState], beside: bool, far: float) -> None:
    """Analytic against central differences, at the state and away from it through `chart`."""
    samples, state = replace(problem[0], beside=beside), problem[1]
    twist = far * np.random.default_rng(6).normal(size=13) * ([1.0] * 12 + [0.01])
    local = misfit(samples, state.perturbed(twist), offset=True).jacobian @ chart(twist)

    def error(step: np.ndarray) -> np.ndarray:
        return misfit(samples, state.perturbed(twist + step), offset=True).error

    numeric = np.stack([(error(step) - error(-step)) / 2e-6 for step in 1e-6 * np.eye(13)], axis=-1)
    np.testing.assert_allclose(local, numeric, atol=2e-7)


def test_interpolation_is_exact_for_steady_motion() -> None:
    times_s = np.array([0.0, 0.3, 1.0])
    rate, speed = np.array([0.3, -0.5, 0.7]), np.array([0.1, 0.2, -0.3])
    rotation = Rotation.from_rotvec(times_s[:, None] * rate).as_matrix()
    trajectory = Trajectory("robot", times_s, Poses(rotation, times_s[:, None] * speed))
    motion = trajectory.at(np.array([0.1, 0.77]))
    expected = Rotation.from_rotvec(np.array([[0.1], [0.77]]) * rate).as_matrix()
    np.testing.assert_allclose(motion.poses.rotation, expected, atol=1e-12)
    np.testing.assert_allclose(motion.angular_rad_s, [rate, rate], atol=1e-12)
    np.testing.assert_allclose(motion.linear_m_s, [speed, speed], atol=1e-12)


@pytest.mark.parametrize("offset_s", [-0.7, -0.02, 0.0, 0.31])
def test_the_offset_is_guessed_from_rates(offset_s: float) -> None:
    scene = HandEyeScene(poses=400, rate_hz=20.0, offset_s=offset_s)
    sim = simulated(scene, 7)
    guess = guess_offset(sim.robot, sim.camera, 1.0)
    assert guess.offset_s == pytest.approx(offset_s, abs=0.01)
    assert guess.correlation > 0.9


def test_inefficiency_of_known_series() -> None:
    rng = np.random.default_rng(8)
    white = rng.normal(size=20000)
    assert inefficiency(white) == pytest.approx(1, abs=0.15)
    alike = np.empty_like(white)
    alike[0] = white[0]
    for index in range(1, white.size):
        alike[index] = 0.8 * alike[index - 1] + 0.6 * white[index]
    assert inefficiency(alike) == pytest.approx((1 + 0.8) / (1 - 0.8), rel=0.15)
    assert inefficiency(np.ones(10)) == 1


def moved(rotation_vectors: np.ndarray, seed: int = 9) -> SimulatedHandEye:
    """A paired scene whose hand has these orientations."""
    scene = HandEyeScene(poses=len(rotation_vectors), noise=(1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4))
    sim = simulated(scene, seed)
    return replace(
        sim,
        robot=replace(
            sim.robot, poses=replace(sim.robot.poses, rotation=Rotation.from_rotvec(rotation_vectors).as_matrix())
        ),
    )


def test_motion_that_is_not_enough_is_refused_with_what_is_missing() -> None:
    rng = np.random.default_rng(10)
    about_z = rng.uniform(-1, 1, (30, 1)) * [0.0, 0.0, 1.0]
    for vectors, said in (
        (rng.normal(0, 1e-3, (30, 3)), "moved but not turned"),
        (about_z + rng.normal(0, 1e-3, (30, 3)), r"about one axis only, \([+-]0\.00, [+-]0\.00, \+1\.00\)"),
    ):
        with pytest.raises(DepthcellError, match=said) as caught:
            handeye_of(moved(vectors).robot, moved(vectors).camera, HandEyeSettings(Mount.HAND, paired=True))
        assert caught.value.reason is Reason.BAD_INPUT
    check_motion(Rotation.from_rotvec(about_z + rng.normal(0, 0.1, (30, 3))).as_matrix())


def test_few_repeated_or_unequal_poses_are_refused() -> None:
    scene = HandEyeScene(poses=30)
    sim = simulated(scene)
    stated = HandEyeSettings(Mount.HAND, paired=True)
    few = np.arange(9)
    with pytest.raises(DepthcellError, match="9 different places"):
        handeye_of(
            Trajectory("r", sim.robot.times_s[few], sim.robot.poses.take(few)),
            Trajectory("c", sim.camera.times_s[few], sim.camera.poses.take(few)),
            stated,
        )
    again = np.arange(30) % 6
    with pytest.raises(DepthcellError, match="6 different places"):
        handeye_of(replace(sim.robot, poses=sim.robot.poses.take(again)), sim.camera, stated)
    with pytest.raises(DepthcellError, match="robot has 30 poses, c 9"):
        handeye_of(sim.robot, Trajectory("c", sim.camera.times_s[few], sim.camera.poses.take(few)), stated)


def test_clocks_that_do_not_overlap_are_refused() -> None:
    scene = HandEyeScene(poses=100, rate_hz=20.0)
    sim = simulated(scene)
    late = replace(sim.camera, times_s=sim.camera.times_s + 1000)
    with pytest.raises(DepthcellError, match="the clocks do not overlap"):
        handeye_of(sim.robot, late, HandEyeSettings(Mount.HAND))


def test_pauses_of_the_robot_are_not_bridged() -> None:
    scene = HandEyeScene(poses=300, rate_hz=20.0)
    sim = simulated(scene)
    keep = (sim.robot.times_s < 104) | (sim.robot.times_s > 106)
    gapped = Trajectory("robot", sim.robot.times_s[keep], sim.robot.poses.take(keep))
    result = handeye_of(gapped, sim.camera, HandEyeSettings(Mount.HAND))
    assert result.unused >= 39
    assert np.abs(twist_between(sim.T_mount_camera, result.T_mount_camera)[3:]).max() < 2e-3


@pytest.mark.parametrize("mount", Mount)
def test_files_read_the_wrong_way_round_are_refused(mount: Mount) -> None:
    scene = HandEyeScene(mount, poses=40)
    sim = simulated(scene)
    other = next(one for one in Mount if one is not mount)
    inverted = HandEyeSettings(mount, CameraPoses.CAMERA_IN_TARGET, paired=True)
    with pytest.raises(DepthcellError, match=f"poses are 'target-in-camera' or the mount is '{other}'"):
        handeye_of(sim.robot, sim.camera, inverted)
    elsewhere = HandEyeSettings(other, paired=True)
    with pytest.raises(DepthcellError, match=f"poses are 'camera-in-target' or the mount is '{mount}'"):
        handeye_of(sim.robot, sim.camera, elsewhere)


def test_poses_that_do_not_belong_together_are_refused() -> None:
    scene = HandEyeScene(poses=40)
    sim, rng = simulated(scene), np.random.default_rng(11)
    shuffled = sim.camera.poses.take(rng.permutation(40))
    with pytest.raises(DepthcellError, match="turned by different angles"):
        handeye_of(sim.robot, replace(sim.camera, poses=shuffled), HandEyeSettings(Mount.HAND, paired=True))


GOOD = "1.0,0,0,0,0,0,0,1"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([GOOD, "2.0,0,0,x,0,0,0,1", GOOD], "line 2, column 'z': 'x' is no number"),
        ([GOOD, "2.0,0,nan,0,0,0,0,1"], "line 2, column 'y': 'nan' is not finite"),
        ([GOOD, "2.0,0,0,0,0,0,1"], "line 2 has 7 columns"),
        ([GOOD, "2.0,0,0,0,0,0,0,0.9"], "line 2, columns 'qx' to 'qw': the quaternion has length 0.9"),
        ([GOOD, "1.0,0,0,0.1,0,0,0,1", "2.0,0,0,0,0,0,0,1"], "time 1 is there twice"),
        ([GOOD, "2.0,0,0,0,0,0,0,1"], "2 poses: at least 3"),
        ([f"{t},500,0,0,0,0,0,1" for t in range(4)], "write metres"),
        ([f"{t}e7,0,0,0,0,0,0,1" for t in range(4)], "not nanoseconds"),
        ([], "0 poses"),
    ],
)
def test_bad_files_are_refused_by_line_and_column(tmp_path: Path, lines: list[str], said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DepthcellError) as caught:
        read_trajectory(path)
    assert said in str(caught.value)
    assert "bad.csv" in str(caught.value)


def test_files_may_have_headers_repeats_and_any_order(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        f"t,x,y,z,qx,qy,qz,qw\n# arm\n3.0,0,0,3,0,0,0,1\n{GOOD}\n{GOOD}\n2.0,0,0,2,0,0,0,-1\n\n", encoding="utf-8"
    )
    trajectory = read_trajectory(path)
    assert trajectory.times_s.tolist() == [1.0, 2.0, 3.0]
    assert trajectory.poses.translation_m[:, 2].tolist() == [0.0, 2.0, 3.0]
    with pytest.raises(DepthcellError, match="no such file"):
        read_trajectory(tmp_path / "none.csv")


def test_files_give_what_memory_gives(tmp_path: Path) -> None:
    scene = HandEyeScene(Mount.BESIDE, poses=100, rate_hz=20.0, offset_s=0.05)
    sim = simulated(scene)
    paths = csv_of(tmp_path / "robot.csv", sim.robot), csv_of(tmp_path / "camera.csv", sim.camera)
    read, held = calibrate_handeye(*paths, HandEyeSettings(Mount.BESIDE)), solved(sim, scene)
    np.testing.assert_allclose(read.T_mount_camera.matrix, held.T_mount_camera.matrix, atol=1e-6)


def test_a_real_recording_scatters_less_after_refinement() -> None:
    """25 s of an SR300 on an arm (ETH ASL): the camera's clock is 17 ms behind; halves are compared honestly."""
    stated = HandEyeSettings(Mount.HAND, CameraPoses.CAMERA_IN_TARGET)
    result = calibrate_handeye(DATA / "sr300_hand.csv", DATA / "sr300_camera.csv", stated)
    assert result.offset_s == pytest.approx(-0.017, abs=0.005)
    assert np.linalg.norm(result.scatter.samples_m) < np.linalg.norm(result.start.samples_m)
    assert (result.scatter.common_m < (1.6e-3, 1.7e-3, 2.7e-3)).all()
    assert result.memory.max() > 5
    assert result.held_out is not None
    with pytest.raises(DepthcellError, match="poses are 'camera-in-target' or"):
        calibrate_handeye(DATA / "sr300_hand.csv", DATA / "sr300_camera.csv", HandEyeSettings(Mount.HAND))


def test_reports_say_the_same_in_json_table_and_sentence() -> None:
    scene = HandEyeScene(poses=100, rate_hz=20.0)
    result = solved(simulated(scene), scene)
    content = json.loads(handeye_json(result))
    assert content["transforms"][0]["target"] == "hand"
    assert np.array(content["covariance"]).shape == (13, 13)
    assert content["parameters"][12] == "offset_s"
    assert content["residuals"]["translation_rms_m"] == result.translation_rms_m
    console = Console(width=140)
    with console.capture() as captured:
        console.print(handeye_table(result))
    assert "T_hand_camera" in captured.get()
    assert "100 pairs, 0 outliers" in handeye_sentence(result)


@pytest.mark.parametrize("name", ["most_offset_s", "longest_gap_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_senseless_settings_are_refused(name: str, value: float) -> None:
    changed: dict[str, Any] = {name: value}
    with pytest.raises(DepthcellError, match=name):
        HandEyeSettings(Mount.HAND, **changed)
