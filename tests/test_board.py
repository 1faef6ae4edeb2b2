"""Boards: their names, where their features lie, and that the picture agrees with OpenCV's own numbering."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.calib.target.board import MARKER_KINDS, Board, BoardKind, marker_dictionary, opencv_charuco
from depthcell.calib.target.board_picture import board_picture, board_shapes, mark_rectangle_m
from depthcell.errors import DepthcellError

SPECS = (
    "charuco:9x6:30mm",
    "charuco:8x6:30mm:legacy",
    "charuco:4x5:54mm:40.5mm:DICT_4X4_1000:inverted",
    "chessboard:9x6:25mm",
    "aruco:5x3:40mm",
    "april:4x3:40mm:30mm",
    "circles:9x7:20mm:marked",
)


@st.composite
def boards(draw: st.DrawFn) -> Board:
    kind = draw(st.sampled_from(list(BoardKind)))
    pitch_m = draw(st.floats(0.001, 1.0))
    share = draw(st.floats(0.31, 0.94))
    return Board(
        kind,
        draw(st.integers(3, 14)),
        draw(st.integers(3, 14)),
        pitch_m,
        None if kind is BoardKind.CHESSBOARD else share * pitch_m,
        legacy=kind is BoardKind.CHARUCO and draw(st.booleans()),
        inverted=draw(st.booleans()),
        marked=kind not in MARKER_KINDS and draw(st.booleans()),
    )


@given(boards())
def test_a_spec_read_back_is_the_same_board(board: Board) -> None:
    assert Board.parse(board.spec) == board
    assert Board.parse(board.spec).spec == board.spec


def test_a_short_spec_is_completed() -> None:
    assert Board.parse("charuco:9x6:30mm").spec == "charuco:9x6:30mm:21.9mm:DICT_5X5_50"
    assert Board.parse("charuco:14x9:20mm").dictionary == "DICT_5X5_100"  # 63 markers
    assert Board.parse("april:6x6:2.4cm:0.018m").spec == "april:6x6:24mm:18mm:DICT_APRILTAG_36h11"
    assert Board.parse("chessboard:9x6:1in").pitch_m == 0.0254


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("charuco:9x6", "KIND:COLUMNSxROWS:PITCH"),
        ("checker:9x6:30mm", "'checker' is unknown"),
        ("charuco:9by6:30mm", "'9by6' is no size"),
        ("charuco:2x6:30mm", "2x6 is no size"),
        ("charuco:9x6:30", "has no unit"),
        ("charuco:9x6:30furlong", "unit 'furlong' is unknown"),
        ("charuco:9x6:30m", "outside 1 mm to 1 m"),
        ("charuco:9x6:-30mm", "is no length"),
        ("charuco:9x6:30mm:31mm", "0.3 to 0.95 of the pitch"),
        ("charuco:9x6:30mm:2mm", "0.3 to 0.95 of the pitch"),
        ("charuco:9x6:30mm:20mm:21mm", "'21mm' is not understood"),
        ("charuco:9x6:30mm:DICT_9X9_1", "'DICT_9X9_1' is unknown"),
        ("charuco:20x20:10mm:7mm:DICT_4X4_50", "has 50 markers, 20x20 needs 200"),
        ("aruco:40x40:10mm", "1600 markers are more"),
        ("april:6x6:24mm:DICT_4X4_50", "only DICT_APRILTAG_36h11"),
        ("april:30x30:24mm", "has 587 markers"),
        ("chessboard:9x6:25mm:20mm", "has no markers"),
        ("chessboard:9x6:25mm:DICT_4X4_50", "no dictionary"),
        ("chessboard:9x6:25mm:legacy", "'legacy' is a property of charuco"),
        ("charuco:9x6:30mm:marked", "leave 'marked' out"),
        ("charuco:9x6:30mm:shiny", "'shiny' is no length"),
    ],
)
def test_an_impossible_board_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(DepthcellError, match=named):
        Board.parse(text)


@pytest.mark.parametrize("spec", ["charuco:9x6:30mm", "charuco:8x6:30mm", "charuco:8x6:30mm:legacy", "charuco:7x5:9mm"])
def test_opencv_numbers_and_places_charuco_corners_as_we_do(spec: str) -> None:
    board = Board.parse(spec)
    theirs = np.asarray(opencv_charuco(board).getChessboardCorners())
    np.testing.assert_allclose(theirs - [board.pitch_m, board.pitch_m, 0], board.points_board, atol=1e-7)
    their_markers = np.asarray(opencv_charuco(board).getObjPoints())[..., :2]
    np.testing.assert_allclose(their_markers - board.pitch_m, board.marker_corners(), atol=1e-7)


def tilted(board: Board, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture seen at an angle, and the map from picture to that view."""
    height, width = picture.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    seen = np.array([[60, 50], [590, 90], [560, 430], [95, 400]], np.float32)
    H = cv2.getPerspectiveTransform(corners, seen)
    image = 255 - picture if board.inverted else picture
    return cv2.warpPerspective(image, H, (640, 480), flags=cv2.INTER_AREA, borderValue=(255,)), H


@pytest.mark.parametrize("spec", [s for s in SPECS if s.startswith("charuco")])
def test_a_tilted_picture_is_found_where_the_points_say(spec: str) -> None:
    board = Board.parse(spec)
    picture = board.picture(480 / (board.extent_m[3] - board.extent_m[1]))
    image, H = tilted(board, picture.image)
    found, ids, _, _ = cv2.aruco.CharucoDetector(opencv_charuco(board)).detectBoard(image)
    assert len(ids) == len(board.points_board)
    expected = cv2.perspectiveTransform(picture.pixels(board.points_board[:, :2])[None], H)[0]
    error_px = np.asarray(found).reshape(-1, 2) - expected[np.asarray(ids, int).ravel()]
    assert np.abs(error_px).max() < 0.5  # OpenCV's own refinement; `detect` is held to less
    assert np.abs(error_px.mean(axis=0)).max() < 0.05


@pytest.mark.parametrize("spec", ["aruco:5x3:40mm", "april:4x3:40mm:30mm"])
def test_markers_carry_their_ids_where_the_points_say(spec: str) -> None:
    board = Board.parse(spec)
    picture = board.picture(2000)
    dictionary = marker_dictionary(board.dictionary or "")
    corners, ids, _ = cv2.aruco.ArucoDetector(dictionary).detectMarkers(picture.image)
    assert sorted(np.ravel(ids)) == list(range(board.marker_count))
    turned = 2 if board.kind is BoardKind.APRIL else 0  # OpenCV's first corner is AprilTag's third
    found = np.roll(np.asarray(corners).reshape(-1, 4, 2), turned, axis=1)
    expected = picture.pixels(board.points_board[:, :2]).reshape(-1, 4, 2)[np.asarray(ids, int).ravel()]
    # OpenCV reports the outermost black pixels' centres without refinement: half a pixel inside the border.
    assert np.abs(found - expected).max() < 0.51
    assert np.abs((found - expected).mean(axis=(0, 1))).max() < 0.01


@pytest.mark.parametrize("spec", SPECS)
def test_every_pixel_is_the_mean_over_its_area(spec: str) -> None:
    """A fine picture, averaged, is the coarse one: the plain twin of exact coverage."""
    board = Board.parse(spec)
    coarse = board_picture(board, 6 / board.pitch_m)
    fine = board_picture(board, 96 / board.pitch_m)
    height, width = (16 * size for size in coarse.image.shape)
    black = np.zeros((height, width))  # the last fine row and column may fall away in rounding to whole pixels
    rows, columns = (min(pair) for pair in zip(fine.image.shape, black.shape, strict=True))
    black[:rows, :columns] = 255 - fine.image[:rows, :columns].astype(float)
    averaged = 255 - black.reshape(height // 16, 16, width // 16, 16).mean(axis=(1, 3))
    assert np.abs(averaged - coarse.image)[:-1, :-1].max() <= 4
    np.testing.assert_allclose(coarse.pixels(coarse.origin_m), 0, atol=1e-9)


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_overlaps_and_the_margin_is_white(spec: str) -> None:
    board = Board.parse(spec)
    shapes = board_shapes(board)
    left, top, right, bottom = shapes.extent_m
    area = np.prod(shapes.rectangles_m[:, 2:] - shapes.rectangles_m[:, :2], axis=1).sum()
    area += (np.pi / 4 * shapes.discs_m[:, 2] ** 2).sum()
    picture = board_picture(board, 24 / board.pitch_m)
    black = picture.image / 255 if board.inverted else 1 - picture.image / 255
    assert black.mean() * black.size / picture.pixels_per_m**2 == pytest.approx(area, rel=2e-3)
    border = np.concatenate((black[0], black[-1], black[:, 0], black[:, -1]))
    assert border.max() == 0
    assert (shapes.rectangles_m >= [left, top, left, top]).all()
    assert (shapes.rectangles_m <= [right, bottom, right, bottom]).all()


def test_a_mark_tells_how_the_board_lies() -> None:
    plain, marked = Board.parse("circles:9x7:20mm"), Board.parse("circles:9x7:20mm:marked")
    assert plain.turns_onto_itself
    assert not marked.turns_onto_itself
    assert marked.tells_mirrored
    assert not Board.parse("chessboard:9x6:25mm").turns_onto_itself
    assert Board.parse("chessboard:9x7:25mm").turns_onto_itself
    assert not Board.parse("chessboard:9x6:25mm").tells_mirrored
    picture = marked.picture(2000)
    column, row = picture.pixels(np.array(mark_rectangle_m(marked)).reshape(2, 2).mean(axis=0))
    assert picture.image[round(row), round(column)] == 0
    assert picture.image[round(row), -1 - round(column)] == 255


def test_a_picture_too_large_or_too_coarse_is_refused() -> None:
    board = Board.parse("charuco:9x6:30mm")
    for scale in (50.0, 1e6):
        with pytest.raises(DepthcellError, match="choose another scale"):
            board.picture(scale)
