"""Printed targets: true scale, read back from the page's own drawing commands; refusals; the same bytes each time."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthcell.calib.target.board import Board
from depthcell.calib.target.board_pdf import PrintedPage, speckle, write_board_pdf
from depthcell.calib.target.board_picture import board_shapes
from depthcell.calib.target.detect import detect
from depthcell.errors import DepthcellError

POINTS_PER_MM = 72 / 25.4
NUMBER = r"(-?[0-9.]+)"


def content(path: Path) -> str:
    stream = path.read_bytes().decode("latin-1").split("stream\n", 1)[1]
    return stream.split("endstream", 1)[0].replace("\n", " ")


def rectangles_mm(path: Path, page: PrintedPage) -> np.ndarray:
    """Left, top, right, bottom of every rectangle, from the target's top left corner."""
    found = re.findall(rf"{NUMBER} {NUMBER} {NUMBER} {NUMBER} re", content(path))
    x, y, width, height = (np.array(found, float) / POINTS_PER_MM).T
    corner = 1e3 * np.array([page.left_m, page.top_m])
    bottom = 1e3 * page.height_m - y
    return np.column_stack((x, bottom - height, x + width, bottom)) - np.tile(corner, 2)


@pytest.mark.parametrize("spec", ["charuco:6x4:30mm", "chessboard:7x5:20mm:marked", "april:4x3:40mm", "aruco:5x4:32mm"])
def test_every_shape_is_printed_at_true_scale(spec: str, tmp_path: Path) -> None:
    page = write_board_pdf(spec, tmp_path / "board.pdf", "A4")
    shapes = board_shapes(Board.parse(spec))
    expected = 1e3 * (shapes.rectangles_m - np.tile(shapes.extent_m[:2], 2))
    found = rectangles_mm(tmp_path / "board.pdf", page)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert sorted((page.width_m, page.height_m)) == [0.210, 0.297]


def test_what_is_printed_is_what_is_found(tmp_path: Path) -> None:
    """The page, drawn from its own commands at 3 px per mm, holds the board with all corners where they should be."""
    board = Board.parse("charuco:6x4:30mm")
    page = write_board_pdf(board.spec, tmp_path / "board.pdf")
    image = np.full((int(3000 * page.height_m), int(3000 * page.width_m)), 255, np.uint8)
    corner = 1e3 * np.array([page.left_m, page.top_m])
    for left, top, right, bottom in np.rint(3 * (rectangles_mm(tmp_path / "board.pdf", page) + np.tile(corner, 2))):
        image[int(top) : int(bottom), int(left) : int(right)] = 0
    found = detect(board, cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.uint8))
    assert len(found.ids) == len(board.points_board)
    steps = np.diff(found.pixels.reshape(3, 5, 2), axis=1)[..., 0]
    assert np.abs(steps / 3 - 30).max() < 0.34  # the twin rounds each edge to a sixth of a millimetre
    assert steps.mean() / 3 == pytest.approx(30, abs=0.1)


def test_discs_are_round_and_of_true_size(tmp_path: Path) -> None:
    page = write_board_pdf("circles:5x4:30mm:15mm", tmp_path / "board.pdf")
    starts = re.findall(rf"{NUMBER} {NUMBER} m (?:{NUMBER} ){{5}}{NUMBER} c ", content(tmp_path / "board.pdf"))
    assert len(starts) == 20
    x = np.array(sorted({round(float(start[0]) / POINTS_PER_MM, 3) for start in starts}))
    np.testing.assert_allclose(np.diff(x), 30, atol=1e-3)
    curves = re.findall(rf"{NUMBER} {NUMBER} {NUMBER} {NUMBER} {NUMBER} {NUMBER} c ", content(tmp_path / "board.pdf"))
    ends = np.array(curves, float)[:, 4:].reshape(20, 4, 2) / POINTS_PER_MM
    np.testing.assert_allclose(np.ptp(ends, axis=1), 15, atol=1e-3)
    assert page.left_m > 0


def test_rulers_measure_100_mm_in_both_directions(tmp_path: Path) -> None:
    write_board_pdf("charuco:6x4:30mm", tmp_path / "board.pdf")
    text = content(tmp_path / "board.pdf")
    lines = np.array(re.findall(rf"{NUMBER} {NUMBER} m {NUMBER} {NUMBER} l", text), float) / POINTS_PER_MM
    lengths = np.abs(lines[:, 2:] - lines[:, :2])
    assert (np.abs(lengths - (100, 0)).max(axis=1) < 1e-3).sum() == 1
    assert (np.abs(lengths - (0, 100)).max(axis=1) < 1e-3).sum() == 1
    for said in ("does not measure 100.0 mm", "charuco:6x4:30mm:21.9mm:DICT_5X5_50", "6 squares", "measure 180mm"):
        assert said in " ".join(re.findall(r"\((.*?)\) Tj", text.replace("\\(", "[").replace("\\)", "]")))


def test_the_same_call_gives_the_same_bytes_and_no_viewer_scales_them(tmp_path: Path) -> None:
    for name in ("one.pdf", "two.pdf"):
        write_board_pdf("charuco:6x4:30mm", tmp_path / name)
    data = (tmp_path / "one.pdf").read_bytes()
    assert data == (tmp_path / "two.pdf").read_bytes()
    assert b"/PrintScaling /None" in data


def test_an_inverted_board_is_white_on_black(tmp_path: Path) -> None:
    board = Board.parse("charuco:5x4:30mm:inverted")
    page = write_board_pdf(board.spec, tmp_path / "board.pdf")
    ground, *shapes = rectangles_mm(tmp_path / "board.pdf", page)
    np.testing.assert_allclose(ground, [0, 0, 180, 150], atol=1e-3)
    assert len(shapes) == len(board_shapes(board).rectangles_m)


def test_a_board_too_large_names_the_page_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "board.pdf"
    with pytest.raises(DepthcellError, match="300mm x 210mm with its margin does not fit on A4; take --page A3"):
        write_board_pdf("charuco:9x6:30mm", path)
    with pytest.raises(DepthcellError, match=r"take --page \d+x\d+mm \(a plotter\) or fewer squares"):
        write_board_pdf("charuco:20x14:60mm", path, "A2")
    assert not path.exists()
    assert write_board_pdf("charuco:9x6:30mm", path, "A3").width_m == 0.420  # turned
    assert write_board_pdf("charuco:20x14:60mm", path, "1400x1000mm").height_m == 1.0
    fit = write_board_pdf("charuco:9x6:30mm", path, "fit")
    assert 0.3 < fit.width_m < 0.33


@pytest.mark.parametrize(
    ("spec", "page", "named"),
    [
        ("sphere:38mm", "A4", "buy a matt sphere"),
        ("ball_bar:200mm", "A4", "buy a ball bar"),
        ("step:10mm", "A4", "buy a step gauge"),
        ("charuco:6x4:30mm", "A9", "page 'A9': is unknown"),
        ("charuco:6x4:30mm", "600x400", "page '600x400'"),
        ("plate:10x10", "A4", "write plate:WIDTHxHEIGHT"),
        ("plate:100x100mm:30mm", "A4", "dots of 30mm"),
        ("plate:400x300mm", "A4", "take --page A2"),
        ("nothing:1x1:1mm", "A4", "kind 'nothing' is unknown"),
    ],
)
def test_what_cannot_be_printed_says_what_to_do(spec: str, page: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match=re.escape(named)):
        write_board_pdf(spec, tmp_path / "board.pdf", page)


def test_a_plate_gets_a_texture_that_no_shift_repeats(tmp_path: Path) -> None:
    page = write_board_pdf("plate:180x120mm:2mm", tmp_path / "plate.pdf")
    found = rectangles_mm(tmp_path / "plate.pdf", page)
    np.testing.assert_allclose(found, 1e3 * speckle(0.18, 0.12, 0.002), atol=1e-3)
    black = np.zeros((60, 90))
    for left, top, right, bottom in np.rint(found / 2).astype(int):
        black[top:bottom, left:right] += 1
    assert black.max() == 1
    assert 0.45 < black.mean() < 0.55
    rows = black - 0.5
    matches = [abs((rows[:, :-shift] * rows[:, shift:]).mean() * 4) for shift in range(1, 40)]
    assert max(matches) < 0.1
