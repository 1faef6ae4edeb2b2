"""Images to views: still places, repeats that count once, moving boards and bad images that are refused by name."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from depthcell.acquisition.frameset import CameraFrame, ColorImage, FrameSet, InfraredImage
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.target.board import Board
from depthcell.calib.target.board_scene import BoardLight, board_image, true_pixels
from depthcell.calib.target.board_views import BoardImage, board_views, frameset_images
from depthcell.calib.target.imagequality import QualityIssue
from depthcell.errors import DepthcellError

LENS = Intrinsics(320, 240, 260.0, 260.0, 159.5, 119.5)
BOARD = Board.parse("charuco:5x4:30mm")
LEFT, RIGHT = "depth:1", "depth:2"
STEP_NS = 33_000_000


def pose(place: int, aside_m: float = 0.0) -> RigidTransform:
    tilt = np.random.default_rng(place).uniform(-0.4, 0.4, 3)
    rotation = Rotation.from_rotvec(tilt).as_matrix()
    translation_m = np.array([aside_m, 0, 0.3]) - rotation @ BOARD.points_board.mean(axis=0)
    return RigidTransform("cam", "board", rotation, translation_m)


def image(
    place: int, seed: int, aside_m: float = 0.0, light: BoardLight | None = None, board: Board = BOARD
) -> np.ndarray:
    return board_image(board, LENS, pose(place, aside_m), light or BoardLight(), np.random.default_rng(seed), steps=3)


def shot(instant: int, picture: np.ndarray, stream: str = LEFT, time_ns: int | None = None) -> BoardImage:
    return BoardImage(stream, instant, instant * STEP_NS if time_ns is None else time_ns, picture)


def test_frames_of_one_place_become_one_view_with_less_noise() -> None:
    frames = [shot(number, image(number // 4, number)) for number in range(12)]
    found = board_views((BOARD,), frames)
    assert [place.instants for place in found.places] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert [view.instant for view in found.views] == [0, 4, 8]
    assert not found.refused
    single = board_views((BOARD,), frames[:1]).views[0]
    assert found.views[0].sigma_px < 0.8 * single.sigma_px
    errors = [view.pixels - true_pixels(BOARD, LENS, pose(place))[view.ids] for place, view in enumerate(found.views)]
    standardised = np.concatenate([e / v.sigma_px for e, v in zip(errors, found.views, strict=True)])
    assert 0.45 < np.sqrt((standardised**2).mean()) < 1.6


def test_one_view_fifty_times_is_one_view_and_no_surer() -> None:
    picture = image(0, 0)
    frames = [shot(number, picture, time_ns=number * 6_000_000_000) for number in range(20)]
    frames.insert(10, shot(100, image(1, 1), time_ns=57_000_000_000))
    found = board_views((BOARD,), frames)
    assert len(found.views) == 2
    assert len(found.merged) == 1
    assert len(found.merged[0].instants) == 20
    single = board_views((BOARD,), frames[:1]).views[0]
    assert found.views[0].sigma_px == pytest.approx(single.sigma_px, rel=1e-6)


def test_a_return_seen_differently_by_one_camera_is_not_a_repeat() -> None:
    """A camera that was bumped in between must not be averaged away."""
    frames = [
        shot(0, image(0, 0), LEFT, 0),
        shot(0, image(0, 1, 0.02), RIGHT, 0),
        shot(1, image(0, 2), LEFT, 9_000_000_000),
        shot(1, image(0, 3, 0.0215), RIGHT, 9_000_000_000),
        shot(2, image(0, 4), LEFT, 18_000_000_000),
        shot(2, image(0, 5, 0.02), RIGHT, 18_000_000_000),
    ]
    found = board_views((BOARD,), frames)
    assert [place.instants for place in found.places] == [(0, 2), (1,)]
    assert len(found.views) == 4


def test_a_moving_board_is_refused_between_places_where_it_stands() -> None:
    asides = [0, 0, 0.004, 0.010, 0.016, 0.02, 0.02, 0.02]
    found = board_views((BOARD,), [shot(number, image(0, number, aside)) for number, aside in enumerate(asides)])
    assert [place.instants for place in found.places] == [(0, 1), (5, 6, 7)]
    assert [refusal.instant for refusal in found.refused] == [2, 3, 4]
    assert {refusal.issue.kind for refusal in found.refused} == {QualityIssue.MOVING}
    assert "hold it still" in found.refused[0].issue.sentence


def test_images_far_apart_in_time_say_nothing_of_motion() -> None:
    frames = [shot(number, image(0, number, 0.004 * number), time_ns=number * 10**9) for number in range(3)]
    found = board_views((BOARD,), frames)
    assert len(found.views) == 3
    assert not found.refused


def test_bad_images_are_listed_with_their_reason() -> None:
    frames = [
        shot(0, image(0, 0)),
        shot(1, np.ascontiguousarray(image(1, 1)[:, ::-1])),
        shot(2, image(2, 2, light=BoardLight(white=500.0, black=60.0))),
        shot(3, np.full((240, 320), 120, np.uint8)),
    ]
    found = board_views((BOARD,), frames)
    assert len(found.views) == 1
    kinds = {refusal.instant: refusal.issue.kind for refusal in found.refused}
    assert kinds == {1: QualityIssue.MIRRORED, 2: QualityIssue.OVEREXPOSED, 3: QualityIssue.NO_BOARD}


def test_two_boards_keep_apart() -> None:
    other = Board.parse("charuco:5x4:30mm:DICT_4X4_50")
    frames = [shot(0, image(0, 0)), shot(1, image(0, 1, board=other))]
    found = board_views((BOARD, other), frames)
    assert [(view.board, view.instant) for view in found.views] == [(0, 0), (1, 1)]


def test_a_board_that_turns_onto_itself_is_refused_for_several_cameras() -> None:
    board = Board.parse("chessboard:5x3:30mm")
    frames = [shot(0, image(0, 0, board=board), LEFT), shot(0, image(0, 1, board=board), RIGHT)]
    assert len(board_views((board,), frames[:1]).views) == 1
    with pytest.raises(DepthcellError, match="turned by half"):
        board_views((board,), frames)


def test_two_images_of_one_stream_and_instant_are_refused() -> None:
    with pytest.raises(DepthcellError, match="two images"):
        board_views((BOARD,), [shot(0, image(0, 0)), shot(0, image(0, 1))])


def test_a_frame_sets_images_are_named_by_the_imager_that_took_them() -> None:
    lens = Intrinsics(4, 3, 5.0, 5.0, 1.5, 1.0)
    infrared = InfraredImage(np.zeros((3, 4), np.uint8), lens, 7, 1)
    color = ColorImage(np.zeros((3, 4, 3), np.uint8), lens, 8, 1)
    aside = RigidTransform("color:a", "depth:a", np.eye(3), np.array([0.015, 0, 0]))
    together = RigidTransform.identity("color:b", "depth:b")
    frames = {
        "a": CameraFrame("a", "D415", None, color, aside, infrared=infrared),
        "b": CameraFrame("b", "D405", None, color, together),
        "c": CameraFrame("c", "D405", None, color, together, infrared=infrared),
    }
    streams = [(i.stream, i.instant, i.timestamp_ns) for i in frameset_images(FrameSet(frames, ("a", "b", "c")), 5)]
    assert streams == [("depth:a", 5, 7), ("color:a", 5, 8), ("depth:b", 5, 8), ("depth:c", 5, 7), ("color:c", 5, 8)]
