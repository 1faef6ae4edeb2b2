"""Detection on drawn boards with known truth: accuracy, honest uncertainty, numbering, partial views; real images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.target.board import Board, opencv_charuco
from depthcell.calib.target.board_scene import BoardLight, board_image, true_pixels
from depthcell.calib.target.detect import Detection, detect
from depthcell.calib.target.detect_circle import ellipse_shift_px
from depthcell.calib.target.detect_corner import CornerStart, fit_corners
from depthcell.calib.target.detect_marker import local_homographies
from depthcell.errors import DepthcellError

PINHOLE = Intrinsics(480, 320, 330.0, 330.0, 239.5, 159.5)
LENS = Intrinsics(480, 320, 330.0, 330.0, 239.5, 159.5, Distortion.BROWN_CONRADY, (-0.25, 0.06, 1e-3, -5e-4, 0.0))
SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
SPECS = (
    "charuco:7x5:30mm",
    "charuco:7x6:25mm:legacy:inverted",
    "chessboard:7x4:27mm",
    "aruco:4x3:50mm:35mm",
    "april:4x3:50mm:35mm",
    "circles:6x5:30mm:marked",
)


def pose(board: Board, distance_m: float, rng: np.random.Generator, tilt_rad: float = 0.5) -> RigidTransform:
    axis = rng.normal(size=3) * (1, 1, 0.5)
    rotation = Rotation.from_rotvec(axis / np.linalg.norm(axis) * tilt_rad).as_matrix()
    middle = board.points_board.mean(axis=0)
    return RigidTransform(
        "cam", "board", rotation, np.array([*rng.uniform(-0.02, 0.02, 2), distance_m]) - rotation @ middle
    )


def errors_px(board: Board, lens: Intrinsics, light: BoardLight, seeds: range) -> tuple[np.ndarray, np.ndarray, int]:
    """Errors (n, 2), the same over the stated sigma, and how many features there were to see."""
    errors, standardised, count = [], [], 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        T_cam_board = pose(board, 0.36, rng)
        found = detect(board, board_image(board, lens, T_cam_board, light, rng))
        error = found.pixels - true_pixels(board, lens, T_cam_board)[found.ids]
        errors.append(error)
        standardised.append(error / found.sigma_px)
        count += len(board.points_board)
    return np.concatenate(errors), np.concatenate(standardised), count


@pytest.mark.parametrize("spec", SPECS)
def test_features_are_found_to_a_hundredth_and_sigma_is_honest(spec: str) -> None:
    board = Board.parse(spec)
    error, standardised, count = errors_px(board, LENS, BoardLight(blur_px=0.7, noise=2.0, slope=0.2), range(3))
    assert len(error) > 0.93 * count
    assert np.sqrt((error**2).mean()) < (0.03 if "a" in spec[:1] else 0.015)
    assert np.abs(error.mean(axis=0)).max() < 0.01
    assert 0.6 < np.sqrt((standardised**2).mean()) < 1.6


def test_the_fit_beats_opencvs_own_refinement_fivefold() -> None:
    board = Board.parse("charuco:7x5:25mm")
    ours, theirs = [], []
    detector = cv2.aruco.CharucoDetector(opencv_charuco(board))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        T_cam_board = pose(board, 0.36, rng)
        image = board_image(board, PINHOLE, T_cam_board, BoardLight(), rng)
        truth = true_pixels(board, PINHOLE, T_cam_board)
        found = detect(board, image)
        ours.append(found.pixels - truth[found.ids])
        corners, ids, _, _ = detector.detectBoard(image)
        theirs.append(np.asarray(corners).reshape(-1, 2) - truth[np.asarray(ids, int).ravel()])
    rms = [np.sqrt((np.concatenate(errors) ** 2).mean()) for errors in (ours, theirs)]
    assert rms[0] < rms[1] / 5
    assert len(np.concatenate(ours)) >= len(np.concatenate(theirs))


def test_part_of_a_charuco_board_counts() -> None:
    board = Board.parse("charuco:9x6:30mm")
    rng = np.random.default_rng(3)
    rotation = Rotation.from_rotvec((0.3, -0.3, 0.2)).as_matrix()
    T_cam_board = RigidTransform("cam", "board", rotation, np.array([-0.19, -0.13, 0.25]))
    found = detect(board, board_image(board, PINHOLE, T_cam_board, BoardLight(), rng))
    truth = true_pixels(board, PINHOLE, T_cam_board)
    visible = ((truth > 6) & (truth < (473, 313))).all(axis=1)
    assert 8 <= visible.sum() < len(truth)
    assert set(np.flatnonzero(visible)) <= set(found.ids)
    assert np.abs(found.pixels - truth[found.ids]).max() < 0.06


def test_what_covers_a_corner_takes_only_that_corner_away() -> None:
    board = Board.parse("charuco:9x6:30mm")
    rng = np.random.default_rng(4)
    T_cam_board = pose(board, 0.4, rng)
    truth = true_pixels(board, PINHOLE, T_cam_board)
    image = board_image(board, PINHOLE, T_cam_board, BoardLight(), rng)
    column, row = np.rint(truth[12]).astype(int)
    cv2.circle(image, (int(column) + 4, int(row) + 3), 14, 90, -1)
    found = detect(board, image)
    assert 12 not in found.ids
    assert len(found.ids) > 30
    assert np.abs(found.pixels - truth[found.ids]).max() < 0.06


@pytest.mark.parametrize("spec", ["chessboard:7x4:27mm", "chessboard:6x6:25mm:marked", "circles:6x5:30mm:marked"])
def test_numbers_stay_when_the_board_turns(spec: str) -> None:
    board = Board.parse(spec)
    middle = board.points_board.mean(axis=0)
    for turn_rad in np.radians((0, 100, 180, 290)):
        rotation = (Rotation.from_rotvec((0.25, -0.2, 0)) * Rotation.from_rotvec((0, 0, turn_rad))).as_matrix()
        T_cam_board = RigidTransform("cam", "board", rotation, np.array([0, 0, 0.5]) - rotation @ middle)
        found = detect(board, board_image(board, PINHOLE, T_cam_board, BoardLight(), np.random.default_rng(0)))
        assert len(found.ids) == len(board.points_board)
        assert np.abs(found.pixels - true_pixels(board, PINHOLE, T_cam_board)).max() < 0.1


@pytest.mark.parametrize("spec", SPECS)
def test_a_mirrored_board_is_never_a_quiet_detection(spec: str) -> None:
    board = Board.parse(spec)
    image = board_image(
        board, PINHOLE, pose(board, 0.36, np.random.default_rng(1)), BoardLight(), np.random.default_rng(1)
    )
    found = detect(board, np.ascontiguousarray(image[:, ::-1]))
    assert len(found.ids) == 0 or not board.tells_mirrored
    assert found.mirrored == board.marked


def test_a_plain_image_holds_no_board() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 140), dtype=np.uint8)
    for spec in SPECS:
        for image in (np.full((100, 140), 128, np.uint8), noise):
            found = detect(Board.parse(spec), image)
            assert isinstance(found, Detection)
            assert len(found.ids) == 0
            assert np.isnan(found.sigma_px)


def test_colour_is_taken_as_rgb_and_other_arrays_are_refused() -> None:
    board = Board.parse("charuco:7x5:30mm")
    rng = np.random.default_rng(2)
    grey = board_image(board, PINHOLE, pose(board, 0.36, rng), BoardLight(), rng)
    np.testing.assert_array_equal(detect(board, np.dstack([grey] * 3)).pixels, detect(board, grey).pixels)
    for image in (grey.astype(np.float32), grey[None, None], np.dstack([grey] * 4)):
        with pytest.raises(DepthcellError, match="uint8"):
            detect(board, image)  # type: ignore[arg-type]


def test_the_centre_of_an_ellipse_is_not_the_centre_of_its_disc() -> None:
    """Against a plain twin: the centroid of many points within the disc, mapped."""
    H = np.array([[900.0, 100.0, 300.0], [-80.0, 950.0, 200.0], [0.9, -0.6, 1.0]])
    centre_m, radius_m = np.array([0.1, 0.05]), 0.02
    n = 2000
    x, y = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n))
    inside = x**2 + y**2 < 1
    points = centre_m + radius_m * np.column_stack((x[inside], y[inside]))
    ahead = np.column_stack((points, np.ones(len(points)))) @ H.T
    weight = 1 / ahead[:, 2] ** 3  # area in the image per area on the board
    centroid = (ahead[:, :2] / ahead[:, 2:] * weight[:, None]).sum(axis=0) / weight.sum()
    middle = H @ (*centre_m, 1)
    shift = ellipse_shift_px(H, centre_m, radius_m)
    np.testing.assert_allclose(shift, centroid - middle[:2] / middle[2], atol=1e-4)
    assert np.abs(shift).max() > 0.05


def test_local_maps_follow_a_bent_image() -> None:
    board = Board.parse("charuco:9x6:30mm")
    T_cam_board = pose(board, 0.3, np.random.default_rng(5))
    pixels = true_pixels(board, LENS, T_cam_board)
    points_m = board.points_board[:, :2]
    maps = local_homographies(points_m, pixels, points_m)
    predicted = np.einsum("nij,nj->ni", maps, np.column_stack((points_m, np.ones(len(points_m)))))
    whole = cv2.perspectiveTransform(points_m[None], cv2.findHomography(points_m, pixels)[0])[0]
    local_error_px = np.abs(predicted[:, :2] / predicted[:, 2:] - pixels).max()
    assert local_error_px < 1.0
    assert local_error_px < np.abs(whole - pixels).max() / 2
    assert np.isnan(local_homographies(points_m[:3], pixels[:3], points_m)).all()
    line = points_m[:5]
    assert np.isnan(local_homographies(line, pixels[:5], points_m[:1])).all()


def test_a_corner_fit_refuses_what_is_no_corner() -> None:
    flat = np.full((40, 40), 100, np.uint8)
    edge = flat.copy()
    edge[:, 20:] = 200
    along = np.array([[20.0, 0.0]]), np.array([[0.0, 20.0]])
    for image in (flat, edge):
        fit = fit_corners(image, CornerStart(np.array([[20.0, 20.0]]), *along, -0.45, 0.45, np.inf, True))
        assert not (fit.is_good & (fit.sigma_px < 0.3)).any()


def test_real_chessboards_are_all_found_and_closer_to_a_lens_than_opencvs_corners() -> None:
    """13 pairs of OpenCV's own images; the residual of a calibration judges, and the pair's numbering must agree."""
    folder = SHARED / "calib_opencv"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: OpenCV's samples/data left*.jpg and right*.jpg are needed")
    board = Board.parse("chessboard:9x6:25mm")
    ours, theirs, model = [], [], board.points_board.astype(np.float32)
    for path in sorted(folder.glob("left[01]?.jpg"))[:8]:
        left, right = (
            np.asarray(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE), np.uint8)
            for p in (path, path.with_name(path.name.replace("left", "right")))
        )
        pair = [detect(board, image) for image in (left, right)]
        assert [len(found.ids) for found in pair] == [54, 54]
        shift = pair[0].pixels - pair[1].pixels  # a turned numbering would spread this over twice the board
        assert np.ptp(shift, axis=0).max() < 150
        ours.append(pair[0].pixels.astype(np.float32))
        _, corners = cv2.findChessboardCorners(left, (9, 6))
        theirs.append(cv2.cornerSubPix(left, corners, (5, 5), (-1, -1), (3, 50, 1e-4)))
    rms = [
        cv2.calibrateCamera([model] * len(corners), corners, (640, 480), None, None)[0] for corners in (ours, theirs)
    ]
    assert rms[0] < 0.9 * rms[1]


def test_a_real_april_grid_is_found_behind_what_covers_it() -> None:
    folder = SHARED / "realsense_apriltag_seq" / "sequence"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: ViSP's AprilTag sequence is needed and may not be shipped")
    board = Board.parse("april:4x3:114mm:95.5mm")
    for path in sorted(folder.glob("color_image_*.png"))[::7]:
        found = detect(board, np.asarray(cv2.imread(str(path)), np.uint8))
        assert len(found.ids) >= 24
        assert found.sigma_px < 0.2
