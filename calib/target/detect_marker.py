"""Markers of a board in an image, and whether they lie as the board's name says."""

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from cv2 import aruco
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.target.board import Board, BoardKind, marker_dictionary

INLIER_SHARE = 0.65
NEAREST = 12


@dataclass(frozen=True, slots=True, eq=False)
class FoundMarkers:
    """Markers of the board's dictionary.

    Attributes:
        numbers: (M,) int64, of the markers on the board.
        corners: (M, 4, 2) float64, pixels of their corners, in the board's order, to about half a pixel.
        strangers: markers of the same dictionary that are not on the board, or not where it has them.
        size_ratio: side of the markers over the distance of their centres, relative to what the board's name says;
            NaN where there are too few.
    """

    numbers: NDArray[np.int64]
    corners: NDArray[np.float64]
    strangers: int
    size_ratio: float


def find_markers(board: Board, image: NDArray[np.uint8]) -> FoundMarkers:
    """Markers in `image` (H, W), black on white, that agree on one place of the board.

    Where fewer than half are found the search is repeated on twice the pixels: OpenCV needs some 3 pixels per bit.
    """
    numbers, corners = _detected(board, image)
    if len(numbers) < board.marker_count / 2:
        fine = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        fine_numbers, fine_corners = _detected(board, fine.astype(np.uint8, copy=False))
        if len(fine_numbers) > len(numbers):
            numbers, corners = fine_numbers, (fine_corners - 0.5) / 2
    if board.kind is BoardKind.APRIL:
        corners = np.roll(corners, 2, axis=1)
    seen = len(numbers)
    known = numbers < board.marker_count
    once = np.bincount(numbers, minlength=1)[numbers] == 1 if seen else known
    numbers, corners = numbers[known & once], corners[known & once]
    keep = _agreeing(board, numbers, corners)
    order = np.argsort(numbers[keep])
    found = FoundMarkers(numbers[keep][order], corners[keep][order], seen - int(keep.sum()), np.nan)
    return replace(found, size_ratio=_size_ratio(board, found))


def local_homographies(
    points_m: FloatArray, pixels: FloatArray, wanted_m: FloatArray, nearest: int = NEAREST
) -> NDArray[np.float64]:
    """Maps (W, 3, 3) from board to image, each fitted to the known points nearest to a wanted one.

    A lens bends the board's image; nearby, a plane-to-plane map follows it closely. NaN where none can be fitted.

    Args:
        points_m: (K, 2) on the board.
        pixels: (K, 2) where they are seen.
        wanted_m: (W, 2) on the board.
        nearest: how many known points each map uses.
    """
    maps = np.full((len(wanted_m), 3, 3), np.nan)
    if len(points_m) < 4:
        return maps
    distance = np.linalg.norm(np.asarray(wanted_m)[:, None] - np.asarray(points_m)[None], axis=-1)
    chosen = np.sort(np.argpartition(distance, min(nearest, len(points_m)) - 1, axis=1)[:, :nearest], axis=1)
    made: dict[bytes, NDArray[np.float64]] = {}
    for row, members in enumerate(chosen):
        key = members.tobytes()
        if key not in made:
            made[key] = _homography(points_m[members], pixels[members])
        maps[row] = made[key]
    return maps


def mapped(homographies: FloatArray, points_m: FloatArray) -> NDArray[np.float64]:
    """Pixels (W, 2) of points (W, 2), each by its own map."""
    ahead = np.einsum("nij,nj->ni", homographies, np.column_stack((points_m, np.ones(len(points_m)))))
    return np.asarray(ahead[:, :2] / ahead[:, 2:])


def _homography(points_m: FloatArray, pixels: FloatArray) -> NDArray[np.float64]:
    centred = points_m - points_m.mean(axis=0)
    if np.linalg.matrix_rank(centred, tol=0.05 * float(np.abs(centred).max())) < 2:
        return np.full((3, 3), np.nan)
    found, _ = cv2.findHomography(np.asarray(points_m, np.float64), np.asarray(pixels, np.float64), 0)
    return np.full((3, 3), np.nan) if found is None else np.asarray(found, np.float64)


@lru_cache(maxsize=8)
def _detector(dictionary: str) -> aruco.ArucoDetector:
    settings = aruco.DetectorParameters()
    settings.minMarkerPerimeterRate = 0.015
    settings.adaptiveThreshWinSizeMin = 5
    settings.adaptiveThreshWinSizeMax = 45
    return aruco.ArucoDetector(marker_dictionary(dictionary), settings)


def _detected(board: Board, image: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    corners, numbers, _ = _detector(board.dictionary or "").detectMarkers(image)
    if numbers is None or len(numbers) == 0:
        return np.zeros(0, np.int64), np.zeros((0, 4, 2))
    return np.asarray(numbers, np.int64).ravel(), np.asarray(corners, np.float64).reshape(-1, 4, 2)


def _agreeing(board: Board, numbers: NDArray[np.int64], corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which markers (M,) lie where one and the same view of the board has them; none if too few agree."""
    none = np.zeros(len(numbers), np.bool_)
    if len(numbers) == 0:
        return none
    on_board = board.marker_corners()[numbers]
    side_px = float(np.median(np.linalg.norm(np.diff(corners, axis=1), axis=-1)))
    flat_board, flat_pixels = on_board.reshape(-1, 2), corners.reshape(-1, 2)
    cv2.setRNGSeed(0)
    H, _ = cv2.findHomography(flat_board, flat_pixels, cv2.RANSAC, max(0.25 * side_px, 2.0), maxIters=500)
    if H is None or np.linalg.det(H) <= 0:
        return none
    off_px = np.linalg.norm(cv2.perspectiveTransform(flat_board[None], H)[0] - flat_pixels, axis=-1)
    agrees: NDArray[np.bool_] = off_px.reshape(-1, 4).max(axis=1) < 0.6 * side_px
    return agrees if agrees.mean() >= INLIER_SHARE else none


def _size_ratio(board: Board, found: FoundMarkers) -> float:
    """Compares sides with the distances of neighbouring centres, both in the image and on the board.

    OpenCV's corners are centres of the outermost black pixels: one pixel is added to each side.
    """
    if len(found.numbers) < 6:
        return float("nan")
    on_board = board.marker_corners()[found.numbers]
    centres = on_board.mean(axis=1)
    if np.linalg.matrix_rank(centres - centres.mean(axis=0), tol=0.1 * board.pitch_m) < 2:
        return float("nan")
    maps = local_homographies(centres, found.corners.mean(axis=1), centres, 6)
    expected = np.stack([mapped(maps, on_board[:, corner]) for corner in range(4)], axis=1)
    sides = [np.linalg.norm(np.roll(c, -1, axis=1) - c, axis=-1).sum(axis=1) for c in (found.corners, expected)]
    return float(np.nanmedian((sides[0] + 4.0) / sides[1]))
