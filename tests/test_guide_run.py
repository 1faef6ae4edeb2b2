"""Guidance from recordings on disk: advice on a small simulated run, and what is missing where there is too little."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcell.acquisition.simulator.calibrationcell import CalibrationPlan, build_calibration_cell
from depthcell.acquisition.simulator.targetbodies import Target
from depthcell.acquisition.simulator.targetrun import Session, plan_session, record_session
from depthcell.calib.guiding.guidance_information import Advice
from depthcell.calib.guiding.guide_run import advise_from
from depthcell.calib.simulated_run import board_print
from depthcell.calib.target.board import Board
from depthcell.errors import DepthcellError

BOARD = Board.parse("charuco:9x6:30mm")
PLAN = CalibrationPlan("D415", cameras=2, seed=5, places=8, frames=1)


@pytest.fixture(scope="module")
def session() -> Session:
    printed = board_print(BOARD)
    left, top, right, bottom = printed.printed.extent_m
    return plan_session(
        Target.BOARD, build_calibration_cell(PLAN, ((left + right) / 2, -(top + bottom) / 2, 0.0)), printed
    )


def recorded(session: Session, folder: Path) -> Path:
    for camera, body in enumerate(session.cell.cameras):
        path = folder / "board" / f"{body.serial}.db3"
        path.parent.mkdir(parents=True, exist_ok=True)
        record_session(session, camera, path)
    return folder


@pytest.fixture(scope="module")
def run(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(session, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def advice(run: Path) -> Advice:
    return advise_from(run, (BOARD,), None, run / "guide.png")


def test_eight_places_are_enough_for_an_advice(run: Path, advice: Advice) -> None:
    assert advice.tried > 100
    assert not advice.enough
    assert 0 < advice.then_mm < advice.now_mm < 5
    assert "should fall from" in advice.sentence
    assert advice.stream.removeprefix("depth:") in advice.sentence
    assert np.asarray(Image.open(run / "guide.png")).std() > 5


def test_the_advice_is_given_in_the_frame_of_the_cell(session: Session, advice: Advice) -> None:
    """The board's middle comes within the reach of the camera that is to see it, in front of it."""
    assert advice.T_cell_board.target == "cell"
    middle_cell = advice.T_cell_board @ BOARD.points_board.mean(axis=0)
    assert np.linalg.norm(middle_cell) < session.cell.standoff_m
    assert advice.T_cell_board.rotation[2, 2] < 0  # z into the board, and the cell's z out of the fixture


def test_two_places_are_refused_with_what_is_missing(session: Session, tmp_path: Path) -> None:
    source = recorded(replace(session, poses=session.poses[:2]), tmp_path)
    with pytest.raises(DepthcellError, match=r"too little data to advise on yet: .*has [12] views of the board, 4 are"):
        advise_from(source, (BOARD,), None, tmp_path / "guide.png")
    assert not (tmp_path / "guide.png").exists()


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match="holds no recording"):
        advise_from(tmp_path, (BOARD,), None, tmp_path / "guide.png")
