"""A simulated calibration run: genuine recordings that agree with the truth beside them, and faults made on purpose."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.acquisition.frameset import CameraFrame
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.recording import open_recording
from depthcell.acquisition.simulator import targetrun
from depthcell.acquisition.simulator.calibrationcell import (
    Bump,
    CalibrationPlan,
    Faults,
    board_pose_in_fixture,
    build_calibration_cell,
)
from depthcell.acquisition.simulator.calibrationtruth import CalibrationTruth, CameraTruth, PlaceTruth
from depthcell.acquisition.simulator.cameras import SystematicError, stereo_model
from depthcell.acquisition.simulator.recordingwriter import WrittenDevice, WrittenFrame, write_recording
from depthcell.acquisition.simulator.shapes import Warp
from depthcell.acquisition.simulator.targetbodies import BAR_DISTANCE_MM, SPHERE_MM, Target
from depthcell.acquisition.simulator.targetrun import PLACEMENTS, Session, plan_session, record_session
from depthcell.calib import simulated_run
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.simulated_run import (
    CalibrationSettings,
    RecordingTask,
    board_print,
    check_plan,
    make_room,
    simulate_calibration,
)
from depthcell.calib.target.board import Board
from depthcell.calib.target.detect import detect
from depthcell.calib.verify.artefact import Plate, load_artefact
from depthcell.cli import main
from depthcell.errors import DepthcellError

PLAN = CalibrationPlan("D415", cameras=2, seed=5, places=3, frames=2, artefact_frames=2)
SETTINGS = CalibrationSettings(targets=(Target.BOARD, Target.PLATE, Target.BALL_BAR))
BOARD = Board.parse(simulated_run.DEFAULT_BOARD)
PRINT = board_print(BOARD)
SERIALS = ("415000001", "415000002")


def ignore(_: RecordingTask) -> None:
    pass


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    simulate_calibration(PLAN, SETTINGS, out, ignore)
    return out


@pytest.fixture(scope="module")
def truth(run: Path) -> CalibrationTruth:
    return CalibrationTruth.load(run / "truth.json")


def frames_of(path: Path) -> list[CameraFrame]:
    return list(open_recording(path).camera_frames())


def session(faults: Faults, places: int = 3, board: Board = BOARD) -> Session:
    plan = replace(PLAN, faults=faults, places=places, frames=1)
    printed = board_print(board, mirrored=faults.mirrored, factor=faults.board_factor)
    left, top, right, bottom = printed.printed.extent_m
    return plan_session(
        Target.BOARD, build_calibration_cell(plan, ((left + right) / 2, -(top + bottom) / 2, 0.0)), printed
    )


def recorded(faults: Faults, tmp_path: Path, places: int = 3) -> list[CameraFrame]:
    path = tmp_path / "camera.db3"
    record_session(session(faults, places), 0, path)
    return frames_of(path)


def correction_of(camera: CameraTruth) -> DepthCorrection:
    return DepthCorrection(
        camera.scale,
        camera.disparity_offset_px,
        camera.curvature_px,
        camera.wave_px,
        camera.scale_per_k,
        camera.reference_c,
    )


def corrected_m(frame: CameraFrame, camera: CameraTruth, temperature_c: float) -> np.ndarray:
    """Depth put right by the correction that the truth states."""
    assert frame.depth is not None
    assert frame.depth.baseline_m is not None
    lens, correction = frame.depth.intrinsics, correction_of(camera)
    focal_baseline_m = lens.fx_px * frame.depth.baseline_m
    read_px = focal_baseline_m / frame.depth.depth_m.astype(np.float64)
    pixels = np.stack(np.meshgrid(np.arange(lens.width_px), np.arange(lens.height_px)), axis=-1).astype(np.float64)
    return np.asarray(
        correction.scale_at(temperature_c) * focal_baseline_m / (read_px + correction.added_px(lens, read_px, pixels))
    )


# --- depth errors and the correction that undoes them ---------------------------------------------------------------


@given(
    scale=st.floats(0.99, 1.01),
    offset_px=st.floats(-0.5, 0.5),
    curvature_px=st.floats(-2, 2),
    waves=st.lists(st.floats(-0.2, 0.2), min_size=11, max_size=11),
)
def test_a_correction_of_the_same_values_undoes_the_error(
    scale: float, offset_px: float, curvature_px: float, waves: list[float]
) -> None:
    wave = ((0.0, *waves[:3]), tuple(waves[3:7]), tuple(waves[7:]))
    depth_m = np.linspace(0.3, 2.0, 24 * 32).reshape(24, 32)
    read_px = SystematicError(scale, offset_px, curvature_px, wave).disparity_px(depth_m, 33.5)
    lens = Intrinsics(32, 24, 610.0, 610.0, 15.5, 11.5)
    pixels = np.stack(np.meshgrid(np.arange(32.0), np.arange(24.0)), axis=-1)
    added_px = DepthCorrection(scale, offset_px, curvature_px, wave).added_px(lens, read_px, pixels)
    # The wave is drawn in float32, as images are: 1e-7 of a quarter of a pixel, of 17 pixels at two metres.
    np.testing.assert_allclose(scale * 33.5 / (read_px + added_px), depth_m, rtol=1e-7)


def test_an_error_without_curvature_and_wave_is_what_it_was() -> None:
    depth_m = np.linspace(0.3, 2.0, 100, dtype=np.float32).reshape(10, 10)
    plain = SystematicError(1.002, 0.05).disparity_px(depth_m, 33.5)
    np.testing.assert_array_equal(plain, 1.002 * 33.5 / depth_m - 0.05)
    assert np.abs(SystematicError(1.002, 0.05, 0.3).disparity_px(depth_m, 33.5) - plain).max() > 0.1


# --- recordings -----------------------------------------------------------------------------------------------------


def test_recordings_hold_depth_infrared_and_colour_of_every_instant(run: Path, truth: CalibrationTruth) -> None:
    for serial in SERIALS:
        frames = frames_of(run / "board" / f"{serial}.db3")
        assert len(frames) == PLAN.places * PLAN.frames
        for frame in frames:
            assert frame.depth is not None
            assert frame.infrared is not None
            assert frame.color is not None
            assert frame.infrared.timestamp_ns == frame.depth.timestamp_ns
            assert frame.infrared.intrinsics == frame.depth.intrinsics
            assert frame.color.timestamp_ns - frame.depth.timestamp_ns == stereo_model("D415").color_delay_ns
        times_ns = np.array([frame.timestamp_ns for frame in frames]).reshape(PLAN.places, PLAN.frames)
        stated_ns = [place.timestamp_ns for place in truth.places["board"]]
        np.testing.assert_allclose(times_ns[:, 0], stated_ns, atol=20_000)
        assert np.ptp(times_ns, axis=1).max() < 34e6
        assert np.diff(times_ns[:, 0]).min() > 5e9
        plate = frames_of(run / "plate" / f"{serial}.db3")
        assert len(plate) == PLACEMENTS[Target.PLATE] * PLAN.artefact_frames
        assert plate[0].infrared is not None
        assert plate[0].color is None


def test_recordings_carry_the_temperature(run: Path, truth: CalibrationTruth) -> None:
    """Of every frame in whole degrees, as the SDK keeps it; of the beginning in tenths, as the sensor's option."""
    recording = open_recording(run / "board" / f"{SERIALS[0]}.db3")
    stated_c = [place.temperature_c for place in truth.places["board"] for _ in range(PLAN.frames)]
    read_c = [frame.metadata["Temperature"] for frame in recording.camera_frames()]
    np.testing.assert_allclose(read_c, stated_c, atol=0.5)
    assert recording.options[0]["Asic Temperature"] == pytest.approx(stated_c[0], abs=0.05)


def test_recordings_state_what_the_factory_believed_and_not_the_truth(run: Path, truth: CalibrationTruth) -> None:
    frame = frames_of(run / "board" / f"{SERIALS[1]}.db3")[0]
    camera = truth.camera(SERIALS[1])
    assert frame.depth is not None
    assert frame.color is not None
    assert frame.T_color_depth is not None
    for stated, true in (
        (frame.depth.intrinsics, camera.depth.intrinsics),
        (frame.color.intrinsics, camera.color.intrinsics),
    ):
        assert 1e-5 < abs(stated.fx_px / true.fx_px - 1) < 8e-3
        assert 0 < np.hypot(stated.cx_px - true.cx_px, stated.cy_px - true.cy_px) < 6
    shift_m = frame.T_color_depth.translation_m - camera.T_color_depth.transform("c", "d").translation_m
    assert 1e-5 < np.linalg.norm(shift_m) < 1.5e-3
    with pytest.raises(DepthcellError, match="truth: has no camera 7; it knows 415000001, 415000002"):
        truth.camera("7")


# --- truth ----------------------------------------------------------------------------------------------------------


def features_of(truth: CalibrationTruth) -> np.ndarray:
    points = BOARD.points_board.copy()
    points[:, 2] = Warp(*truth.warp_m, PRINT.features_m).height_m(points[:, 0], points[:, 1])
    return points


def test_corners_in_every_image_are_where_the_truth_says(run: Path, truth: CalibrationTruth) -> None:
    points_board, errors = features_of(truth), []
    for serial in SERIALS:
        camera = truth.camera(serial)
        T_color_depth = camera.T_color_depth.transform("color", "depth")
        frames = frames_of(run / "board" / f"{serial}.db3")
        for place, frame in zip(truth.places["board"], frames[:: PLAN.frames], strict=True):
            assert frame.infrared is not None
            assert frame.color is not None
            T_depth_cell = place.T_cell_depth[serial].transform("cell", "depth").inverse()
            T_depth_board = T_depth_cell @ place.T_cell_body.transform("cell", "board")
            for image, lens, T_stream_board in (
                (frame.infrared.intensity, camera.depth.intrinsics, T_depth_board),
                (frame.color.rgb, camera.color.intrinsics, T_color_depth @ T_depth_board),
            ):
                found = detect(BOARD, image)
                errors.append(found.pixels - lens.project(T_stream_board @ points_board[found.ids]))
    together = np.concatenate(errors)
    assert len(together) > 250
    assert np.abs(together.mean(axis=0)).max() < 0.008
    # Some boards are seen at a glancing angle.
    assert np.sqrt(np.median(together**2)) < 0.02


def test_the_first_place_is_flat_in_the_fixture_and_seen_by_all(run: Path, truth: CalibrationTruth) -> None:
    first = truth.places["board"][0].T_cell_body.transform("cell", "board")
    np.testing.assert_allclose(first.matrix, board_pose_in_fixture().matrix, atol=1e-12)
    # The board's z goes into it, the cell's up out of it.
    np.testing.assert_allclose(first.rotate(np.array([[0.0, 0.0, 1.0]])), [[0.0, 0.0, -1.0]], atol=1e-12)
    for serial in SERIALS:
        frame = frames_of(run / "board" / f"{serial}.db3")[0]
        assert frame.infrared is not None
        assert len(detect(BOARD, frame.infrared.intensity).ids) == len(BOARD.points_board)


def test_depth_put_right_lies_on_the_board_and_as_read_it_does_not(run: Path, truth: CalibrationTruth) -> None:
    for serial in SERIALS:
        camera = truth.camera(serial)
        frame, place = frames_of(run / "board" / f"{serial}.db3")[0], truth.places["board"][0]
        assert frame.depth is not None
        right = away_from_board_m(corrected_m(frame, camera, place.temperature_c), place, camera, truth)
        as_read = away_from_board_m(frame.depth.depth_m, place, camera, truth)
        assert len(right) > 15_000
        assert abs(np.median(right)) < 5e-5
        assert abs(np.median(as_read)) > 4 * abs(np.median(right))
        assert 1e-4 < right.std() < 1.2e-3


def away_from_board_m(
    depth_m: np.ndarray, place: PlaceTruth, camera: CameraTruth, truth: CalibrationTruth
) -> np.ndarray:
    """Height of measured points over the bent board, its borders left out, metres."""
    T_cell_depth = place.T_cell_depth[camera.serial].transform("cell", "depth")
    T_board_depth = place.T_cell_body.transform("cell", "board").inverse() @ T_cell_depth
    points = T_board_depth @ camera.depth.intrinsics.deproject(depth_m.astype(np.float32))
    x, y, z = np.moveaxis(points.astype(np.float64), -1, 0)
    left, top, right, bottom = PRINT.features_m
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    excess_m = z - Warp(*truth.warp_m, PRINT.features_m).height_m(x, y)
    return np.asarray(excess_m[inside & (np.abs(excess_m) < 0.02)])


def test_the_ball_bar_is_as_long_as_its_certificate_says(run: Path, truth: CalibrationTruth) -> None:
    """Over all placements; single ones scatter by 0.2 mm. At a sphere's rim the matching window spreads it outwards."""
    camera = truth.camera(SERIALS[0])
    frames = frames_of(run / "ballbar" / f"{camera.serial}.db3")
    errors_mm: dict[float, list[float]] = {0.5: [], 0.2: []}
    for place in truth.places["ballbar"]:
        T_cell_depth = place.T_cell_depth[camera.serial].transform("cell", "depth")
        T_bar_depth = place.T_cell_body.transform("cell", "bar").inverse() @ T_cell_depth
        depth_m = corrected_m(frames[place.number * place.frames], camera, place.temperature_c).astype(np.float32)
        points_bar = (T_bar_depth @ camera.depth.intrinsics.deproject(depth_m)).reshape(-1, 3)
        near = points_bar[np.linalg.norm(points_bar, axis=1) < 0.12]
        for least_cosine, errors in errors_mm.items():
            ends = [fitted_centre(near, T_bar_depth.translation_m, side, least_cosine) for side in (-1, 1)]
            errors.append(float(np.linalg.norm(ends[0] - ends[1])) * 1e3 - BAR_DISTANCE_MM)
    assert abs(np.mean(errors_mm[0.5])) < 0.25
    assert np.mean(errors_mm[0.2]) > 0.5


def fitted_centre(points: np.ndarray, eye: np.ndarray, side: int, least_cosine: float) -> np.ndarray:
    """Least squares with the certified radius on the cap that faces the camera: Gauss-Newton from the truth."""
    radius_m = SPHERE_MM / 2e3
    centre = np.array([side * BAR_DISTANCE_MM / 2e3, 0.0, 0.0])
    away, towards = points - centre, (eye - centre) / np.linalg.norm(eye - centre)
    apart = np.linalg.norm(away, axis=1)
    off_the_rod = side * away[:, 0] > -0.4 * radius_m
    cap = points[(np.abs(apart - radius_m) < 3e-3) & (away @ towards > least_cosine * apart) & off_the_rod]
    assert len(cap) > 250
    for _ in range(10):
        away = cap - centre
        length = np.linalg.norm(away, axis=1)
        centre = centre + np.linalg.lstsq(away / length[:, None], length - radius_m, rcond=None)[0]
    return np.asarray(centre)


def test_the_plate_has_a_certificate_and_the_run_says_what_lies_where(run: Path) -> None:
    plate = load_artefact(run / "plate")
    assert isinstance(plate, Plate)
    assert plate.size_m == (0.26, 0.18)
    notes = tomllib.loads((run / "calibration.toml").read_text())
    assert notes["board"] == BOARD.spec
    assert notes["simulated"] is True
    assert notes["cameras"] == list(SERIALS)
    assert notes["recordings"]["plate"] == {"folder": "plate", "places": 6, "frames_per_place": 2}
    assert sorted(path.name for path in run.iterdir()) == [
        "ballbar",
        "board",
        "calibration.toml",
        "plate",
        "truth.json",
    ]


@pytest.mark.parametrize("target", [target for target in Target if target is not Target.BOARD])
def test_every_certificate_can_be_read(target: Target, tmp_path: Path) -> None:
    (tmp_path / "artefact.toml").write_text(simulated_run._certificate(target))
    assert load_artefact(tmp_path).kind.replace("_", "").startswith(target.value)


# --- chance ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_images_and_another_seed_others(run: Path, tmp_path: Path) -> None:
    for seed, is_same in ((5, True), (6, False)):
        plan = replace(PLAN, seed=seed)
        cell, board = simulated_run._cell_and_board(plan, SETTINGS)
        path = tmp_path / f"{seed}.db3"
        record_session(plan_session(Target.BALL_BAR, cell, board), 1, path)
        again, first = frames_of(path), frames_of(run / "ballbar" / f"{SERIALS[1]}.db3")
        for one, other in zip(again, first, strict=True):
            assert one.depth is not None
            assert other.depth is not None
            assert np.array_equal(one.depth.depth_m, other.depth.depth_m, equal_nan=True) is is_same


@pytest.mark.slow
def test_two_processes_write_what_one_does(run: Path, tmp_path: Path) -> None:
    simulate_calibration(PLAN, replace(SETTINGS, jobs=2), tmp_path, ignore)
    assert (tmp_path / "truth.json").read_bytes() == (run / "truth.json").read_bytes()
    for one, other in zip(
        frames_of(tmp_path / "board" / f"{SERIALS[1]}.db3"), frames_of(run / "board" / f"{SERIALS[1]}.db3"), strict=True
    ):
        assert one.depth is not None
        assert other.depth is not None
        assert one.infrared is not None
        assert other.infrared is not None
        np.testing.assert_array_equal(one.depth.depth_m, other.depth.depth_m)
        np.testing.assert_array_equal(one.infrared.intensity, other.infrared.intensity)


@pytest.mark.parametrize("name", ["D405", "D415", "D435", "D455"])
def test_every_camera_sees_the_board_at_the_first_place(name: str) -> None:
    plan = CalibrationPlan(name, cameras=6, seed=1)
    cell, board = simulated_run._cell_and_board(plan, SETTINGS)
    pose = plan_session(Target.BOARD, cell, board).poses[0]
    for camera in cell.cameras:
        points = camera.body.T_cell_depth.inverse() @ (pose @ BOARD.points_board)
        pixels = camera.depth.project(points)
        assert points[:, 2].min() > 1.02 * camera.body.model.min_depth_m
        assert (pixels > 0).all()
        assert (pixels < (848, 480)).all()


def test_a_d405_needs_no_infrared_since_its_left_imager_gives_the_colour(tmp_path: Path) -> None:
    plan = CalibrationPlan("D405", cameras=1, seed=2, places=3, frames=1)
    cell, board = simulated_run._cell_and_board(plan, SETTINGS)
    record_session(plan_session(Target.BOARD, cell, board), 0, tmp_path / "405.db3")
    first = frames_of(tmp_path / "405.db3")[0]
    assert first.infrared is None
    assert first.color is not None
    assert len(detect(BOARD, first.color.rgb).ids) == len(BOARD.points_board)


# --- faults made on purpose -----------------------------------------------------------------------------------------


def sharpness(frame: CameraFrame) -> float:
    assert frame.infrared is not None
    return float(cv2.Laplacian(cv2.GaussianBlur(frame.infrared.intensity, (0, 0), 1.0), cv2.CV_64F).std())


def test_a_place_can_be_blurred_or_burnt_out(tmp_path: Path) -> None:
    frames = recorded(Faults(blurred=(1,), overexposed=(2,)), tmp_path)
    assert sharpness(frames[1]) < 0.3 * sharpness(frames[0])
    burnt = [float((f.infrared.intensity == 255).mean()) for f in frames if f.infrared is not None]
    assert burnt[2] > 0.03 > 100 * burnt[0]


def test_a_mirrored_board_is_none(tmp_path: Path) -> None:
    frame = recorded(Faults(mirrored=True), tmp_path)[0]
    assert frame.infrared is not None
    assert len(detect(BOARD, frame.infrared.intensity).ids) == 0
    assert len(detect(BOARD, np.ascontiguousarray(frame.infrared.intensity[:, ::-1])).ids) > 20


def test_a_board_of_the_wrong_size_is_so_in_the_images(tmp_path: Path) -> None:
    frame = recorded(Faults(board_factor=1.02), tmp_path)[0]
    assert frame.infrared is not None
    found = detect(BOARD, frame.infrared.intensity)
    camera = session(Faults(board_factor=1.02)).cell.cameras[0]
    T_depth_board = camera.body.T_cell_depth.inverse() @ board_pose_in_fixture()
    for factor, is_right in ((1.02, True), (1.0, False)):
        error = found.pixels - camera.depth.project(T_depth_board @ (BOARD.points_board * factor)[found.ids])
        assert bool(np.abs(error).max() < 0.6) is is_right  # the bend alone shifts corners by some tenths


def test_a_wrong_board_shows_no_corner_of_the_right_one(tmp_path: Path) -> None:
    wrong = Board.parse("chessboard:8x5:30mm")
    record_session(session(Faults(), board=wrong), 0, tmp_path / "wrong.db3")
    frame = frames_of(tmp_path / "wrong.db3")[0]
    assert frame.infrared is not None
    assert len(detect(BOARD, frame.infrared.intensity).ids) == 0


def test_a_bump_moves_one_camera_from_its_place_on() -> None:
    bumped = targetrun.place_truths(session(Faults(bump=Bump(camera=1, from_place=2))))
    still = targetrun.place_truths(session(Faults()))
    for number, (moved, calm) in enumerate(zip(bumped, still, strict=True)):
        assert moved.T_cell_depth[SERIALS[0]] == calm.T_cell_depth[SERIALS[0]]
        there, here = (place.T_cell_depth[SERIALS[1]].transform("cell", "d") for place in (moved, calm))
        shift_m = np.linalg.norm(there.translation_m - here.translation_m)
        turn = here.rotation.T @ there.rotation
        assert shift_m == pytest.approx(2e-3 if number >= 2 else 0, abs=1e-12)
        assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(0.2 if number >= 2 else 0, abs=1e-5)


def test_swapped_cameras_stand_in_each_others_place() -> None:
    places = targetrun.place_truths(session(Faults(swapped=(0, 1), swapped_from=2)))
    before, after = places[1].T_cell_depth, places[2].T_cell_depth
    assert before[SERIALS[0]] == after[SERIALS[1]]
    assert before[SERIALS[1]] == after[SERIALS[0]]
    assert before[SERIALS[0]] != after[SERIALS[0]]


def test_a_repeated_place_gives_the_same_images_at_later_times(tmp_path: Path) -> None:
    frames = recorded(Faults(repeated=1, repeats=4), tmp_path)
    assert len(frames) == 7
    for copy in frames[3:]:
        assert copy.infrared is not None
        assert frames[1].infrared is not None
        np.testing.assert_array_equal(copy.infrared.intensity, frames[1].infrared.intensity)
    assert np.diff([frame.timestamp_ns for frame in frames]).min() > 5e9
    assert [place.T_cell_body for place in targetrun.place_truths(session(Faults(repeated=1, repeats=4)))][3:] == [
        targetrun.place_truths(session(Faults()))[1].T_cell_body
    ] * 4


# --- the verb -------------------------------------------------------------------------------------------------------

BAD_CALLS = [
    (["--camera-model", "D999"], "--camera-model D999: unknown; choose one of D405"),
    (["--cameras", "7"], "--cameras 7: must be 1 to 6"),
    (["--parts", "2"], "--parts 2: with --calibration the board needs 3 places or more"),
    (["--frames", "0"], "--frames 0: must be 1 or more"),
    (["--seed", "-1"], "--seed -1: must be 0 or more"),
    (["--jobs", "-1"], "--jobs -1: must be 1 or more"),
    (["--depth-units-mm", "0"], "--depth-units-mm 0.0: must be 0.001 to 10"),
    (["--board", "charuco:9x6:30"], "'30' has no unit; write um, mm, cm, m or in, as 30mm"),
    (["--parts", "100000000"], "GB are free; ask for less"),
]


@pytest.mark.parametrize(("words", "message"), BAD_CALLS)
def test_bad_input_is_named_and_nothing_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["simulate", "--calibration", "--out", str(tmp_path / "run"), *words])
    assert exit_info.value.code == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not list(tmp_path.glob("run/*"))


def test_a_stand_off_nearer_than_the_camera_can_see_is_refused() -> None:
    with pytest.raises(DepthcellError, match=r"stand-off 0.3 m: must be 0.3\d to 2 m"):
        check_plan(CalibrationPlan("D415", 1, 0, standoff_m=0.3), SETTINGS)


def test_the_verb_prints_a_summary_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in PLACEMENTS:
        monkeypatch.setitem(PLACEMENTS, target, 1)
    words = ["--cameras", "1", "--camera-model", "D415", "--parts", "3", "--frames", "1", "--jobs", "1", "--json"]
    with pytest.raises(SystemExit) as exit_info:
        main(["simulate", "--calibration", "--out", str(tmp_path), *words])
    assert exit_info.value.code == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["places"] == {"board": 3, "plate": 1, "sphere": 1, "ballbar": 1, "step": 1}
    assert summary["cameras"] == ["415000001"]
    assert load_artefact(tmp_path / "step").kind == "step_gauge"


def test_a_folder_of_others_is_left_alone_and_an_earlier_run_makes_way(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DepthcellError, match="is not empty and no earlier calibration run"):
        make_room(tmp_path, force=False)
    make_room(tmp_path, force=True)
    (tmp_path / "calibration.toml").touch()
    (tmp_path / "truth.json").touch()
    for name in ("board", "sphere"):
        (tmp_path / name).mkdir()
    make_room(tmp_path, force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(DepthcellError, match="cannot be made"):
        make_room(tmp_path / "notes.txt", force=False)


def test_a_folder_of_recordings_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the second camera records."""

    def interrupted(path: Path, device: WrittenDevice, frames: tuple[WrittenFrame, ...]) -> None:
        if path.name == f"{SERIALS[1]}.db3":
            raise KeyboardInterrupt
        write_recording(path, device, frames[:1])

    monkeypatch.setattr(targetrun, "write_recording", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate_calibration(PLAN, replace(SETTINGS, targets=(Target.BOARD,)), tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []


def test_the_truth_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text('{"schema_version": 1, "seed": "five"}')
    with pytest.raises(DepthcellError, match=r"truth\.json: Expected `int`, got `str` - at `\$\.seed`"):
        CalibrationTruth.load(tmp_path / "truth.json")
    with pytest.raises(DepthcellError, match="cannot be read"):
        CalibrationTruth.load(tmp_path / "absent.json")
