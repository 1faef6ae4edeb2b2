"""Whether a stream saw enough of the board to know its lens, and if not, what is missing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.calib.solving.rig_pose import board_poses
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True, slots=True)
class EvidenceLimits:
    """The least that a stream must have seen.

    Attributes:
        views: places of the board, repeats of one place counting once.
        tilted_views: of them, seen at `tilt_rad` or more from square on.
        tilt_rad: what counts as tilted.
        spread_rad: standard deviation of the tilt in the direction in which it varies least; a board that is only ever
            tilted about one axis leaves the other focal length open.
        zones: ninths of the image with a feature in them.
    """

    views: int = 8
    tilted_views: int = 3
    tilt_rad: float = math.radians(12.0)
    spread_rad: float = math.radians(3.0)
    zones: int = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a stream saw.

    Attributes:
        stream: whose.
        views: distinct places.
        tilted_views: those beyond `EvidenceLimits.tilt_rad`.
        spread_rad: see `EvidenceLimits`.
        empty_zones: names of the ninths of the image without a feature.
        missing: what must be shown yet, each a clause; empty where all is there.
    """

    stream: str
    views: int
    tilted_views: int
    spread_rad: float
    empty_zones: tuple[str, ...]
    missing: tuple[str, ...]


def weigh_evidence(
    views: Sequence[BoardView],
    boards: Sequence[Board],
    intrinsics: Intrinsics,
    stream: str,
    limits: EvidenceLimits | None = None,
) -> Evidence:
    """Count views, tilts and ninths of the image of one stream, against `limits`.

    A lens of focal length f is told from a board at another distance by perspective alone, so by tilt: Zhang, IEEE
    Transactions on Pattern Analysis and Machine Intelligence 22 (2000) 1330, section 4.
    """
    limits = limits or EvidenceLimits()
    views = distinct_views(views)
    normals = [
        found[0].T_stream_board.rotation[:, 2]
        for view in views
        if (found := board_poses(view, boards[view.board], intrinsics))
    ]
    lean = np.arcsin(np.clip(np.array(normals).reshape(-1, 3)[:, :2], -1, 1))
    tilted = int((np.linalg.norm(lean, axis=1) >= limits.tilt_rad).sum())
    spread_rad = float(np.sqrt(max(np.linalg.eigvalsh(np.cov(lean.T))[0], 0.0))) if len(lean) > 2 else 0.0
    empty = _empty_zones(views, intrinsics)
    missing = []
    if len(views) < limits.views:
        missing.append(f"{limits.views - len(views)} more places of the board ({len(views)} of {limits.views})")
    if tilted < limits.tilted_views:
        degrees = math.degrees(limits.tilt_rad)
        missing.append(
            f"{limits.tilted_views - tilted} more views tilted by {degrees:.0f} degrees or more, best 20 to 40"
        )
    elif spread_rad < limits.spread_rad:
        missing.append("views tilted about the board's other axis as well")
    if 9 - len(empty) < limits.zones:
        missing.append(f"corners in the image's {', '.join(empty)}")
    return Evidence(stream, len(views), tilted, spread_rad, empty, tuple(missing))


def require_evidence(evidence: Sequence[Evidence]) -> None:
    """Refuse streams that saw too little.

    Raises:
        DepthcellError: one line that says for each stream what is missing.
    """
    lacking = [f"{seen.stream}: {', '.join(seen.missing)}" for seen in evidence if seen.missing]
    if lacking:
        raise DepthcellError(f"too little to calibrate with; record also for {'; '.join(lacking)}")


def distinct_views(views: Sequence[BoardView], apart_px: float = 2.0) -> tuple[BoardView, ...]:
    """The views without repeats: of those of one stream and board whose common features all but coincide, the first.

    Frames of a board at rest share the detector's systematic error, so that fifty of them know no more than one; equal
    means an RMS distance of common features below `apart_px`.
    """
    kept: list[BoardView] = []
    for view in views:
        if all(distance_px(view, other) > apart_px for other in kept):
            kept.append(view)
    return tuple(kept)


def distance_px(first: BoardView, second: BoardView) -> float:
    """RMS distance of features common to two views; infinite where they are of different streams or share few."""
    if (first.stream, first.board) != (second.stream, second.board):
        return math.inf
    common, mine, others = np.intersect1d(first.ids, second.ids, assume_unique=True, return_indices=True)
    if 2 * len(common) < min(len(first.ids), len(second.ids)) or len(common) < 4:
        return math.inf
    apart: NDArray[np.float64] = first.pixels[mine] - second.pixels[others]
    return float(np.sqrt(np.mean(np.sum(apart**2, axis=1))))


def _empty_zones(views: Sequence[BoardView], intrinsics: Intrinsics) -> tuple[str, ...]:
    pixels = np.concatenate([view.pixels for view in views]) if views else np.zeros((0, 2))
    scaled = np.floor(3 * (pixels + 0.5) / (intrinsics.width_px, intrinsics.height_px)).astype(int).clip(0, 2)
    seen = {(int(row), int(column)) for column, row in scaled}
    return tuple(
        f"{ROWS[row]} {COLUMNS[column]}" for row in range(3) for column in range(3) if (row, column) not in seen
    )
