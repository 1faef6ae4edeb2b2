"""`depthcell verify` from recordings to the record of the cell's health, in memory."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from artefactscene import Surface, plate, recorded, scene_cell, sphere
from rich.console import Console
from stagedpart import StagedFolder

from depthcell.acquisition.frameset import FrameSet, InfraredImage
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera
from depthcell.calib.target.board import Board
from depthcell.calib.verify.artefact import ARTEFACT_FILE
from depthcell.calib.verify.drift import reference_path
from depthcell.calib.verify.health import health_path, load_health
from depthcell.errors import DepthcellError
from depthcell.inspect import drift_run, placements
from depthcell.inspect.drift_run import DriftPlan, run_drift
from depthcell.inspect.placements import read_placements
from depthcell.inspect.verification import RESULT_FILE, VerifyPlan, verify
from depthcell.inspect.verification_view import PICTURE_FILE, draw_verification, print_drift, print_verification
from depthcell.inspect.verify_verbs import drift_verb, on_chip_verb, verify_verb

FLOOR = plate(RigidTransform("cell", "plate", np.eye(3), np.array([0, 0, -0.3])), (2.0, 2.0))
PLACES: list[list[Surface]] = [[sphere((x, 0.0, 0.02), 0.05), FLOOR] for x in (-0.02, 0.0, 0.02)]
SPHERE = 'kind = "sphere"\ndiameter_mm = 50.0\ndiameter_u_mm = 0.001\n'


@pytest.fixture
def station(tmp_path: Path) -> tuple[Cell, Path]:
    """A cell of two cameras in a file, and an empty folder of recordings with a certificate."""
    scene_cell(("1001", "1002")).save(tmp_path / "cell.json")
    (tmp_path / "sphere").mkdir()
    (tmp_path / "sphere" / ARTEFACT_FILE).write_text(SPHERE)
    return Cell.load(tmp_path / "cell.json"), tmp_path


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[FrameSet]], None]:
    """A function that lets frame sets stand for what the folder of recordings holds."""

    def staged(sets: list[FrameSet]) -> None:
        part = StagedFolder("sphere", (), tuple(sets))
        for module in (placements, drift_run):
            monkeypatch.setattr(module, "find_parts", lambda _: (part,))

    return staged


def bumped(cell: Cell, serial: str, shift_m: float) -> Cell:
    camera = cell.camera(serial)
    moved = replace(camera, T_cell_depth=camera.T_cell_depth.perturbed(np.array([0, 0, 0, 0, 0, shift_m])))
    return Cell(cell.name, {**cell.cameras, serial: moved}, cell.calibrated_at)


def test_a_true_cell_passes_and_says_so_everywhere(
    station: tuple[Cell, Path], play: Callable[[list[FrameSet]], None]
) -> None:
    cell, folder = station
    play(recorded(PLACES, cell, cell))
    done: list[str] = []
    result = verify(VerifyPlan(folder / "cell.json", folder / "sphere"), done.append)
    assert done == ["place 1", "place 2", "place 3"]
    assert result.passed, result.record.summary
    assert result.exit_code == 0
    assert {one.value.source for one in result.tested} == {"1001", "1002", "merged"}
    assert len(result.tested) == 18
    (record,) = load_health(health_path(folder / "cell.json")).records
    assert record.passed
    assert record == result.record
    assert record.test == "acceptance on a sphere"
    told = json.loads((result.folder / RESULT_FILE).read_text())
    assert told["passed"] is True
    assert len(told["worst"]) == 6
    assert result.folder.parent == folder / "sphere" / "inspections"
    console = Console(record=True, width=140)
    print_verification(result, console)
    text = console.export_text()
    assert "PASS" in text
    assert "probing error, size" in text
    draw_verification(result, folder / "picture.png")
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_bumped_cell_fails_and_may_not_issue_ok(
    station: tuple[Cell, Path], play: Callable[[list[FrameSet]], None]
) -> None:
    cell, folder = station
    play(recorded(PLACES, cell, bumped(cell, "1002", 4e-3)))
    result = verify(VerifyPlan(folder / "cell.json", folder / "sphere", out=folder / "results"))
    assert result.passed is False
    assert result.exit_code == 1
    health = load_health(health_path(folder / "cell.json"))
    assert not health.records[0].passed
    console = Console(record=True, width=140)
    print_verification(result, console)
    assert "it cannot issue OK until it passes" in console.export_text()


def test_stated_limits_decide_and_nothing_is_kept_unless_wanted(
    station: tuple[Cell, Path], play: Callable[[list[FrameSet]], None]
) -> None:
    cell, folder = station
    play(recorded(PLACES[:1], cell, cell))
    plan = VerifyPlan(
        folder / "cell.json", folder / "sphere", limits=("PF=9mm", "PS=9mm"), out=folder / "r", keep=False
    )
    kept = verify(plan)
    assert kept.passed is True
    assert all(one.limit_is_stated for one in kept.tested)
    assert any("say little of the whole work volume" in note for note in kept.notes)
    refused = verify(replace(plan, limits=("PF=0.01mm",)))
    assert refused.passed is False
    assert not health_path(folder / "cell.json").exists()


def test_a_recording_is_cut_at_pauses_or_by_count(
    station: tuple[Cell, Path], play: Callable[[list[FrameSet]], None]
) -> None:
    cell, folder = station
    sets = recorded(PLACES[:2], cell, cell, frames=4)
    play(sets)
    assert [place.fused.frames for place in read_placements(folder, cell, None)] == [4, 4]
    assert [place.fused.frames for place in read_placements(folder, cell, 2)] == [2, 2, 2, 2]


def test_what_cannot_be_verified_is_refused(station: tuple[Cell, Path], play: Callable[[list[FrameSet]], None]) -> None:
    cell, folder = station
    play(recorded([[FLOOR]], cell, cell))
    with pytest.raises(DepthcellError, match="sphere was found at no placement"):
        verify(VerifyPlan(folder / "cell.json", folder / "sphere"))
    with pytest.raises(DepthcellError, match="drift check"):
        verify(VerifyPlan(folder / "cell.json", folder / "sphere", artefact="board:charuco:9x6:30mm"))
    assert not health_path(folder / "cell.json").exists()


def test_drift_is_checked_against_the_reference_and_kept(
    station: tuple[Cell, Path], play: Callable[[list[FrameSet]], None]
) -> None:
    cell, folder = station
    path, source = folder / "cell.json", folder / "sphere"
    play(recorded(PLACES[:1], cell, cell, seed=1, frames=14))
    referred = run_drift(DriftPlan(path, source, reference=True))
    assert referred.record is None
    assert reference_path(path).is_file()
    assert not health_path(path).exists()
    play(recorded(PLACES[:1], cell, cell, seed=2, frames=14))
    steady = run_drift(DriftPlan(path, source))
    assert steady.passed, steady.check.in_words
    assert steady.check.with_reference
    assert load_health(health_path(path)).records[0].passed
    play(recorded(PLACES[:1], cell, bumped(cell, "1002", 4e-3), seed=3, frames=14))
    moved = run_drift(DriftPlan(path, source))
    assert not moved.passed
    assert moved.exit_code == 1
    assert moved.check.moved == ("1001", "1002")
    assert not load_health(health_path(path)).records[0].passed
    console = Console(record=True, width=140)
    print_drift(moved, console)
    assert "FAIL" in console.export_text()


def test_a_cell_that_still_warms_up_fails_its_drift_check(
    station: tuple[Cell, Path], play: Callable[[list[FrameSet]], None]
) -> None:
    cell, folder = station
    play(recorded(PLACES[:1], cell, cell, frames=24, growth=2e-6))
    result = run_drift(DriftPlan(folder / "cell.json", folder / "sphere"))
    assert result.check.passed
    assert all(trend.is_running for trend in result.trends)
    assert not result.passed
    assert result.record is not None
    assert "still warms up" in result.record.summary


def test_the_verbs_print_json_and_leave_with_the_outcome(
    station: tuple[Cell, Path], play: Callable[[list[FrameSet]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    cell, folder = station
    plan = VerifyPlan(folder / "cell.json", folder / "sphere", out=folder / "results")
    play(recorded(PLACES[:1], cell, cell, frames=14))
    assert verify_verb(plan, json_wanted=True) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True
    assert (folder / "results" / PICTURE_FILE).is_file()
    assert drift_verb(DriftPlan(plan.cell, plan.source), json_wanted=True) == 0
    assert json.loads(capsys.readouterr().out)["moved"] == []
    play(recorded(PLACES[:1], cell, bumped(cell, "1002", 6e-3), frames=14))
    assert drift_verb(DriftPlan(plan.cell, plan.source)) == 1
    assert "FAIL" in capsys.readouterr().out
    with pytest.raises(DepthcellError, match="has no camera 9999"):
        on_chip_verb(plan.cell, "9999")


def photographed(board: Board, T_cell_board: RigidTransform, camera: CellCamera) -> np.ndarray:
    """The board as the left imager sees it: its picture through the homography of its plane, 4 x 4 rays a pixel."""
    picture, fine = board.picture(8000.0), 4
    T_cam_board = camera.T_cell_depth.inverse() @ T_cell_board
    lens = camera.depth
    matrix = np.array([[lens.fx_px, 0, lens.cx_px], [0, lens.fy_px, lens.cy_px], [0, 0, 1]])
    step_m, (left_m, top_m) = 1 / picture.pixels_per_m, picture.origin_m
    sheet = np.array([[step_m, 0, left_m], [0, step_m, top_m], [0, 0, 1]])
    plane = np.column_stack((T_cam_board.rotation[:, :2], T_cam_board.translation_m))
    # Pixel centres lie at integers, so that the fine image's first centre lies 3/8 of a pixel before the coarse one's.
    finer = np.array([[fine, 0, (fine - 1) / 2], [0, fine, (fine - 1) / 2], [0, 0, 1]])
    size = (fine * lens.width_px, fine * lens.height_px)
    image = cv2.warpPerspective(picture.image, finer @ matrix @ plane @ sheet, size, borderValue=(120,))
    small = cv2.resize(image, (lens.width_px, lens.height_px), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 0.6).astype(np.uint8)


def test_a_board_names_the_moved_camera_by_its_pictures(tmp_path: Path, play: Callable[[list[FrameSet]], None]) -> None:
    scene_cell().save(tmp_path / "cell.json")
    cell, board = Cell.load(tmp_path / "cell.json"), Board.parse("charuco:7x5:30mm")
    T_cell_board = RigidTransform.from_rotation_vector(
        "cell", "board", np.array([np.pi, 0, 0]), np.array([-0.1, 0.07, 0])
    )
    for shift_m, moved in ((0.0, ()), (4e-3, ("1003",))):
        truth = bumped(cell, "1003", shift_m)
        pictured = []
        for one in recorded([[FLOOR]], cell, truth):
            shots = {
                serial: replace(
                    frame,
                    infrared=InfraredImage(
                        photographed(board, T_cell_board, truth.camera(serial)), cell.camera(serial).depth, 1, 1
                    ),
                )
                for serial, frame in one.frames.items()
            }
            pictured.append(replace(one, frames=shots))
        play(pictured)
        result = run_drift(DriftPlan(tmp_path / "cell.json", tmp_path, artefact=f"board:{board.spec}"))
        assert result.check.moved == moved, result.check.in_words
        assert len(result.check.shifts) == 3


def test_a_board_needs_pictures_and_two_cameras(
    station: tuple[Cell, Path], play: Callable[[list[FrameSet]], None]
) -> None:
    cell, folder = station
    play(recorded(PLACES[:1], cell, cell))
    with pytest.raises(DepthcellError, match="two cameras or more must see the body"):
        run_drift(DriftPlan(folder / "cell.json", folder / "sphere", artefact="board:charuco:9x6:15mm"))
