"""Corners of boards: ours against OpenCV's own detectors on the same drawn images, by time and by error.

Boards are drawn with known truth through a lens with distortion, blurred and with noise (`board_scene`).
Peers: CharucoDetector for ChArUco; findChessboardCornersSB with its accuracy flags, and findChessboardCorners with
cornerSubPix (5 x 5 half window), for chessboards; ArucoDetector with sub-pixel refinement; findCirclesGrid.
Goal: half the error of the best peer at no more than three times its time. Losses are printed like gains.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from harness import Goal, Peer, Report
from harness import measure as timed
from scipy.spatial.transform import Rotation

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.target.board import Board, BoardKind, marker_dictionary, opencv_charuco
from depthcell.calib.target.board_scene import BoardLight, board_image, true_pixels
from depthcell.calib.target.detect import detect

LENS = Intrinsics(848, 480, 430.0, 430.0, 423.5, 239.5, Distortion.BROWN_CONRADY, (-0.05, 0.06, 4e-4, -3e-4, 0.0))
SPECS = (
    "charuco:9x6:30mm",
    "chessboard:8x5:30mm",
    "aruco:5x3:50mm:35mm",
    "april:5x3:50mm:35mm",
    "circles:9x6:30mm:marked",
)
BLURS_PX = (0.3, 0.6, 1.0, 1.5, 2.0, 2.5, 3.0)
IMAGES, NOISE, SEED = 8, 2.0, 11
Found = tuple[np.ndarray, np.ndarray]


def images(board: Board, blur_px: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and the true pixels of all features; tilts up to 45 degrees, distances of 0.35 to 0.55 m."""
    rng = np.random.default_rng(SEED)
    for _ in range(IMAGES):
        axis = rng.normal(size=3) * (1, 1, 0.4)
        rotation = Rotation.from_rotvec(axis / np.linalg.norm(axis) * rng.uniform(0.1, 0.8)).as_matrix()
        z_m = rng.uniform(0.35, 0.55)
        middle = np.array([*rng.uniform(-0.08, 0.08, 2) * z_m, z_m])
        pose = RigidTransform("cam", "board", rotation, middle - rotation @ board.points_board.mean(axis=0))
        yield (
            board_image(board, LENS, pose, BoardLight(blur_px=blur_px, noise=NOISE), rng),
            true_pixels(board, LENS, pose),
        )


NOTHING = np.zeros(0, int), np.zeros((0, 2))


def whole(found: bool, corners: np.ndarray | None) -> Found:
    """A grid with all its features, or nothing."""
    pixels = np.asarray(corners, float).reshape(-1, 2)
    return (np.arange(len(pixels)), pixels) if found else NOTHING


def charuco(board: Board) -> Callable[[np.ndarray], Found]:
    """OpenCV's detector of ChArUco boards with its own settings."""
    detector = cv2.aruco.CharucoDetector(opencv_charuco(board))

    def find(image: np.ndarray) -> Found:
        corners, ids, _, _ = detector.detectBoard(image)
        return NOTHING if ids is None else (np.ravel(ids), np.asarray(corners, float).reshape(-1, 2))

    return find


def aruco(board: Board) -> Callable[[np.ndarray], Found]:
    """OpenCV's detector of markers with sub-pixel refinement."""
    settings = cv2.aruco.DetectorParameters()
    settings.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    markers = cv2.aruco.ArucoDetector(marker_dictionary(board.dictionary or ""), settings)
    turned = 2 if board.kind is BoardKind.APRIL else 0

    def find(image: np.ndarray) -> Found:
        corners, ids, _ = markers.detectMarkers(image)
        if ids is None:
            return NOTHING
        ordered = np.roll(np.asarray(corners, float).reshape(-1, 4, 2), turned, axis=1)
        return (4 * np.ravel(ids)[:, None] + np.arange(4)).ravel(), ordered.reshape(-1, 2)

    return find


def chess_sb(image: np.ndarray, size: tuple[int, int]) -> Found:
    """The sector-based detector at its most accurate."""
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_ACCURACY
    return whole(*cv2.findChessboardCornersSB(image, size, flags=flags))


def chess_subpix(image: np.ndarray, size: tuple[int, int]) -> Found:
    """The classic detector, refined."""
    found, corners = cv2.findChessboardCorners(image, size)
    return whole(found, cv2.cornerSubPix(image, corners, (5, 5), (-1, -1), (3, 50, 1e-4)) if found else None)


def peers(board: Board) -> dict[str, Callable[[np.ndarray], Found]]:
    """OpenCV's ways to find the board: ids and pixels."""
    size = (board.columns, board.rows)
    match board.kind:
        case BoardKind.CHARUCO:
            return {"CharucoDetector": charuco(board)}
        case BoardKind.CHESSBOARD:
            return {
                "findChessboardCornersSB": lambda image: chess_sb(image, size),
                "findChessboardCorners + cornerSubPix": lambda image: chess_subpix(image, size),
            }
        case BoardKind.CIRCLES:
            return {"findCirclesGrid": lambda image: whole(*cv2.findCirclesGrid(image, size))}
        case _:
            return {"ArucoDetector, sub-pixel": aruco(board)}


def ours(board: Board) -> Callable[[np.ndarray], Found]:
    """Our own detector in the shape of a peer."""

    def find(image: np.ndarray) -> Found:
        found = detect(board, image)
        return found.ids, found.pixels

    return find


def errors(find: Callable[[np.ndarray], Found], scenes: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Errors (n, 2) of all features found; a grid numbered from another corner counts by its nearest features."""
    found = []
    for image, truth in scenes:
        ids, pixels = find(image)
        if len(ids) == len(truth) and np.abs(pixels - truth[ids]).max() > 5:
            ids = np.linalg.norm(truth[None] - pixels[:, None], axis=-1).argmin(axis=1)
        found.append(pixels - truth[ids])
    return np.concatenate(found)


def summary(error: np.ndarray, total: int) -> str:
    """How many were found, and how far off they are."""
    if len(error) == 0:
        return f"0 of {total}"
    return f"{len(error)} of {total}, rms {np.sqrt((error**2).mean()):.4f} px, largest {np.abs(error).max():.3f} px"


def compare(report: Report, spec: str, blur_px: float) -> None:
    """One board at one blur: every peer, and ours with the ratio of error to stated uncertainty."""
    board = Board.parse(spec)
    scenes = list(images(board, blur_px))
    total = sum(len(truth) for _, truth in scenes)
    founds = [detect(board, image) for image, _ in scenes]
    own = np.concatenate([found.pixels - truth[found.ids] for found, (_, truth) in zip(founds, scenes, strict=True)])
    scaled = [
        (found.pixels - truth[found.ids]) / found.sigma_px for found, (_, truth) in zip(founds, scenes, strict=True)
    ]
    us = timed(lambda: detect(board, scenes[0][0]), 5)
    standardised = np.concatenate(scaled)
    notes: dict[str, object] = {"ours": summary(own, total)}
    if len(own):
        notes["error over stated sigma"] = round(float(np.sqrt((standardised**2).mean())), 2)
        notes["mean error px"] = [round(float(value), 4) for value in own.mean(axis=0)]
    best: Peer | None = None
    for name, find in peers(board).items():
        timing = timed(lambda find=find: find(scenes[0][0]), 5)
        notes[name] = summary(errors(find, scenes), total)
        if best is None or timing.median_s < best.timing.median_s:
            best = Peer(name, timing)
    report.add(f"{spec}, blur {blur_px} px, noise {NOISE}", us, Goal(ratio=1 / 3), best, **notes)


def real_pairs(report: Report) -> None:
    """OpenCV's 13 left images: the residual of a 5-parameter calibration on each detector's corners."""
    folder = Path(__file__).parents[1] / ".." / "shared" / "data" / "calib_opencv"
    if not folder.is_dir():
        print("calib_opencv is absent: real images are left out")
        return
    board = Board.parse("chessboard:9x6:25mm")
    pictures = [
        np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)
        for path in sorted(folder.glob("left[01]?.jpg"))
    ]
    finders = {"ours": ours(board), **peers(board)}
    notes: dict[str, object] = {}
    for name, find in finders.items():
        pairs = [find(picture) for picture in pictures]
        used = [(ids, pixels) for ids, pixels in pairs if len(ids)]
        points = [board.points_board[ids].astype(np.float32) for ids, _ in used]
        rms, K, *_ = cv2.calibrateCamera(points, [p.astype(np.float32) for _, p in used], (640, 480), None, None)
        notes[name] = f"{len(used)} images, rms {rms:.4f} px, fx {K[0, 0]:.2f} px"
    report.add("calib_opencv, left images", timed(lambda: detect(board, pictures[0]), 5), Goal(), None, **notes)


def main() -> None:
    """All boards at all blurs, then the real images."""
    report = Report("detect_board")
    for spec in SPECS:
        for blur_px in BLURS_PX:
            compare(report, spec, blur_px)
    real_pairs(report)
    report.write()


if __name__ == "__main__":
    main()
