"""Certificates of artefacts: read, written short, and refused by field."""

import math
from pathlib import Path

import pytest

from depthcell.calib.verify.artefact import (
    ARTEFACT_FILE,
    BallBar,
    BoardArtefact,
    Plate,
    Sphere,
    StepGauge,
    load_artefact,
    parse_artefact,
)
from depthcell.errors import DepthcellError

SPHERE = 'kind = "sphere"\ndiameter_mm = 50.0012\ndiameter_u_mm = 0.0008\nserial = "S7"\n'
BAR = (
    'kind = "ball_bar"\ndiameter_a_mm = 30\ndiameter_a_u_mm = 0.001\ndiameter_b_mm = 30\ndiameter_b_u_mm = 0.001\n'
    "distance_mm = 200\ndistance_u_mm = 0.002\n"
)
STEPS = (
    'kind = "step_gauge"\nwidth_mm = 120\ndepth_mm = 60\nheights_mm = [0, 5, 10]\nheights_u_mm = [0, 0.001, 0.001]\n'
)


def written(folder: Path, text: str) -> Path:
    (folder / ARTEFACT_FILE).write_text(text)
    return folder


def test_every_kind_is_read_from_its_certificate(tmp_path: Path) -> None:
    sphere = load_artefact(written(tmp_path, SPHERE))
    assert isinstance(sphere, Sphere)
    assert sphere.diameter_m == pytest.approx(0.0500012)
    assert sphere.serial == "S7"
    bar = load_artefact(written(tmp_path, BAR))
    assert isinstance(bar, BallBar)
    assert bar.distance_m == pytest.approx(0.2)
    steps = load_artefact(written(tmp_path, STEPS))
    assert isinstance(steps, StepGauge)
    assert steps.heights_mm == (0, 5, 10)


def test_a_plate_is_read_too(tmp_path: Path) -> None:
    plate = load_artefact(written(tmp_path, 'kind = "plate"\nwidth_mm = 300\nheight_mm = 200\nflatness_mm = 0.02\n'))
    assert isinstance(plate, Plate)
    assert plate.size_m == (0.3, 0.2)


def test_a_board_is_read_too(tmp_path: Path) -> None:
    board = load_artefact(written(tmp_path, 'kind = "board"\nboard = "charuco:9x6:30mm"\n'))
    assert isinstance(board, BoardArtefact)


def test_the_certificate_lies_beside_a_single_recording_too(tmp_path: Path) -> None:
    recording = written(tmp_path, SPHERE) / "1001.db3"
    recording.touch()
    assert load_artefact(recording) == load_artefact(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SPHERE.replace("50.0012", "0.0500012"), "diameter_mm: .*0.05"),
        (SPHERE.replace("diameter_u_mm = 0.0008\n", ""), "diameter_u_mm: is missing"),
        (SPHERE + "radius_mm = 25\n", "radius_mm: unknown field"),
        (SPHERE.replace("0.0008", "-0.0008"), "diameter_u_mm: "),
        (SPHERE.replace("sphere", "cube"), "kind must be one of plate, sphere"),
        (SPHERE.replace("50.0012", "nan"), "diameter_mm: "),
        (SPHERE + "frames_per_placement = 0\n", "frames_per_placement: "),
        (BAR.replace("distance_mm = 200", "distance_mm = 20"), "distance_mm 20 must be more than half the sum"),
        (STEPS.replace("[0, 0.001, 0.001]", "[0, 0.001]"), "heights_u_mm must have 3 values"),
        (STEPS.replace("[0, 5, 10]", "[1, 5, 10]"), "heights_mm must begin with 0"),
        (STEPS.replace("[0, 5, 10]", "[0, 0, 0]"), "all alike"),
        ("kind = ", "is no valid TOML"),
    ],
)
def test_a_wrong_certificate_is_refused_by_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DepthcellError, match=said) as refusal:
        load_artefact(written(tmp_path, text))
    assert ARTEFACT_FILE in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_folder_without_certificate_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match="--artefact sphere:50mm"):
        load_artefact(tmp_path)


def test_an_artefact_on_the_command_line_is_worth_its_digits() -> None:
    coarse, fine, stated = (parse_artefact(f"sphere:{word}") for word in ("50mm", "50.00mm", "50mm±0.02mm"))
    assert isinstance(coarse, Sphere)
    assert isinstance(fine, Sphere)
    assert isinstance(stated, Sphere)
    assert coarse.diameter_u_mm == pytest.approx(0.5 / math.sqrt(3))
    assert fine.diameter_u_mm == pytest.approx(0.005 / math.sqrt(3))
    assert stated.diameter_u_mm == 0.02
    bar = parse_artefact("ballbar:30mm:30.0mm:200mm+-0.1mm")
    assert isinstance(bar, BallBar)
    assert (bar.diameter_a_mm, bar.distance_mm, bar.distance_u_mm) == (30, 200, 0.1)
    plate = parse_artefact("plate:300x200mm:0.05mm")
    assert isinstance(plate, Plate)
    assert (plate.width_mm, plate.height_mm, plate.flatness_mm) == (300, 200, 0.05)
    board = parse_artefact("board:charuco:9x6:30mm")
    assert isinstance(board, BoardArtefact)
    assert board.board == "charuco:9x6:30mm"


@pytest.mark.parametrize("text", ["", "sphere", "sphere:big", "cube:3mm", "plate:300mm", "sphere:50mm:3mm", "board:"])
def test_what_cannot_be_read_is_refused_with_examples(text: str) -> None:
    with pytest.raises(DepthcellError, match=r"--artefact .*sphere:50mm"):
        parse_artefact(text)
