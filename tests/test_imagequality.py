"""Images unfit to calibrate with: each reason is named, and a good image is let through."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.target.board import Board
from depthcell.calib.target.board_scene import BoardLight, board_image
from depthcell.calib.target.detect import detect
from depthcell.calib.target.imagequality import ImageIssue, QualityIssue, bend_px, judge, pitch_px

LENS = Intrinsics(480, 320, 330.0, 330.0, 239.5, 159.5)
SPECS = (
    "charuco:7x5:30mm",
    "chessboard:7x4:27mm",
    "chessboard:7x4:27mm:marked",
    "aruco:4x3:50mm:35mm",
    "april:4x3:50mm:35mm",
    "circles:6x5:30mm:marked",
)


def image_of(spec: str, light: BoardLight | None = None, distance_m: float = 0.36) -> np.ndarray:
    board = Board.parse(spec)
    rotation = Rotation.from_rotvec((0.3, -0.25, 0.15)).as_matrix()
    translation_m = np.array([0, 0, distance_m]) - rotation @ board.points_board.mean(axis=0)
    pose = RigidTransform("cam", "board", rotation, translation_m)
    return board_image(board, LENS, pose, light or BoardLight(), np.random.default_rng(0))


def issue(spec: str, image: np.ndarray, lens: Intrinsics | None = None) -> ImageIssue | None:
    board = Board.parse(spec)
    grey = np.ascontiguousarray(image, np.uint8)
    return judge(board, grey, detect(board, grey), lens)


@pytest.mark.parametrize("spec", SPECS)
def test_a_good_image_is_let_through(spec: str) -> None:
    assert issue(spec, image_of(spec), LENS) is None


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    ("light", "kinds"),
    [
        (BoardLight(blur_px=4.0), {QualityIssue.BLURRED}),
        (BoardLight(motion_px=14.0), {QualityIssue.BLURRED, QualityIssue.NO_BOARD}),
        (BoardLight(white=420.0, black=60.0), {QualityIssue.OVEREXPOSED}),
        (BoardLight(white=24.0, black=6.0, background=12.0, noise=1.0), {QualityIssue.UNDEREXPOSED}),
        (BoardLight(white=4.0, black=1.0, background=2.0, noise=0.5), {QualityIssue.UNDEREXPOSED}),
        (BoardLight(white=900.0, black=700.0, background=800.0), {QualityIssue.OVEREXPOSED}),
    ],
)
def test_bad_light_and_motion_are_named(spec: str, light: BoardLight, kinds: set[QualityIssue]) -> None:
    found = issue(spec, image_of(spec, light))
    assert found is not None
    assert found.kind in kinds
    assert ";" in found.sentence  # what it is; what to do


@pytest.mark.parametrize("spec", [spec for spec in SPECS if Board.parse(spec).tells_mirrored])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_image_is_named(spec: str, axis: int) -> None:
    found = issue(spec, np.flip(image_of(spec), axis))
    assert found is not None
    assert found.kind is QualityIssue.MIRRORED


@pytest.mark.parametrize(
    ("held", "named", "says"),
    [
        ("charuco:7x5:30mm:DICT_4X4_50", "charuco:7x5:30mm", "DICT_4X4_1000"),
        ("charuco:5x7:30mm", "charuco:7x5:30mm", "not as charuco:7x5"),
        ("charuco:8x5:28mm", "charuco:7x5:30mm", "not as charuco:7x5"),
        ("charuco:8x6:25mm:legacy", "charuco:8x6:25mm", ""),
        ("charuco:7x5:30mm:18mm", "charuco:7x5:30mm", "too small for their distance"),
        ("charuco:7x5:30mm:15mm", "charuco:7x5:30mm", ""),
        ("charuco:7x5:30mm:inverted", "charuco:7x5:30mm", "with ':inverted'"),
        ("charuco:7x5:30mm", "charuco:7x5:30mm:inverted", "without ':inverted'"),
        ("april:4x3:50mm:35mm", "aruco:4x3:50mm:35mm", "DICT_APRILTAG_36h11"),
        ("aruco:4x3:50mm:35mm", "april:4x3:50mm:35mm", "DICT_5X5_1000"),
        ("aruco:3x4:50mm:35mm", "aruco:4x3:50mm:35mm", "not as aruco:4x3"),
        ("circles:6x5:30mm:marked:inverted", "circles:6x5:30mm:marked", "with ':inverted'"),
    ],
)
def test_another_board_is_named(held: str, named: str, says: str) -> None:
    found = issue(named, image_of(held))
    assert found is not None
    assert found.kind is QualityIssue.WRONG_BOARD
    assert says in found.sentence


@pytest.mark.parametrize(
    ("held", "named", "kind"),
    [
        ("chessboard:8x5:27mm", "chessboard:7x4:27mm", QualityIssue.WRONG_BOARD),
        ("chessboard:6x3:27mm", "chessboard:7x4:27mm", QualityIssue.NO_BOARD),
        ("circles:7x6:25mm", "circles:6x5:25mm", QualityIssue.WRONG_BOARD),
        ("circles:5x4:30mm:marked", "circles:6x5:30mm:marked", QualityIssue.NO_BOARD),
        ("circles:6x5:30mm", "circles:6x5:30mm:marked", QualityIssue.NO_BOARD),
    ],
)
def test_a_grid_of_another_size_is_never_taken_for_the_one_named(held: str, named: str, kind: QualityIssue) -> None:
    found = issue(named, image_of(held))
    assert found is not None
    assert found.kind in (kind, QualityIssue.NO_BOARD)
    assert issue(held, image_of(held)) is None


def test_an_empty_scene_and_a_sliver_are_told_apart() -> None:
    empty = np.random.default_rng(0).normal(120, 5, (320, 480)).astype(np.uint8)
    found = issue("charuco:7x5:30mm", empty)
    assert found is not None
    assert found.kind is QualityIssue.NO_BOARD
    sliver = image_of("charuco:7x5:30mm", distance_m=0.3).copy()
    sliver[:, :300] = 110
    found = issue("charuco:7x5:30mm", sliver)
    assert found is not None
    assert found.kind is QualityIssue.TOO_LITTLE


def test_a_bent_board_is_named_where_the_lens_is_known() -> None:
    spec = "charuco:7x5:30mm"
    flat = image_of(spec)
    row, column = np.mgrid[:320, :480].astype(np.float32)
    bent = cv2.remap(flat, column, row + 60 * ((column - 240) / 240) ** 2, cv2.INTER_CUBIC)
    found = issue(spec, bent, LENS)
    assert found is not None
    assert found.kind is QualityIssue.BENT
    assert issue(spec, bent) is None
    board = Board.parse(spec)
    assert bend_px(board, detect(board, flat), LENS) < 0.05
    assert pitch_px(board, detect(board, flat)) == pytest.approx(330 * 0.030 / 0.36, rel=0.1)
