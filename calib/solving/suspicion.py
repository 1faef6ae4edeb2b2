"""What may be wrong with a recording of the board, each found by a test of its own and named with its camera.

Suspicions before the adjustment look at views alone; those after it (`suspicion_rig`) at what does not fit.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.calib.solving.rig_evidence import distance_px, distinct_views
from depthcell.calib.solving.rig_lens import fit_lens, mean_square_px2, residuals_px
from depthcell.calib.solving.rig_pose import is_usable
from depthcell.calib.target.board import Board, board_homography
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError

CHANCE = 1e-3
"""Probability below which chance is not believed, of the signed-rank test of F. Wilcoxon, Biometrics Bulletin 1 (1945)
80."""


class Suspicion(StrEnum):
    """What a calibration may have been given instead of what it needs."""

    SQUARE_SIZE = "square_size"
    CAMERAS_SWAPPED = "cameras_swapped"
    DUPLICATED_VIEWS = "duplicated_views"
    RIG_BUMPED = "rig_bumped"
    WRONG_BOARD = "wrong_board"
    MIRRORED = "mirrored"


@dataclass(frozen=True, slots=True)
class Suspected:
    """One suspicion: which, of which stream ("" where it concerns all), and a sentence that says what to do."""

    suspicion: Suspicion
    stream: str
    sentence: str


@dataclass(frozen=True, slots=True)
class SuspicionLimits:
    """From where on something is suspect.

    Attributes:
        duplicate_sigmas: two views of one stream nearer to each other than this many of their `sigma_px` are one image;
            two images of a board at rest differ by sqrt(2) sigma per coordinate.
        duplicate_share: share of views that may be repeats of another place before the recording is refused.
        misfit_share: RMS of a board's plane-to-image map, as share of the board's extent in the image; a lens bends the
            grid by less, another grid does not fit at all.
        swap_ratio: how many times better another camera's lens must fit than the camera's own, both ways.
        depth_scale: relative difference of depth read on boards from where the boards' size puts them.
        factory_baseline: likewise of the distance from colour to depth imager from what the factory says.
        factory_turn_rad, factory_shift_m: difference of that transform from the factory's.
        bump_px: least jump of a camera's image against what the others say.
        bump_sigmas: the jump over its standard error.
        bump_effect: the jump over the scatter on either side of it.
    """

    duplicate_sigmas: float = 0.5
    duplicate_share: float = 0.5
    misfit_share: float = 0.05
    swap_ratio: float = 4.0
    depth_scale: float = 0.04
    factory_baseline: float = 0.1
    factory_turn_rad: float = math.radians(1.5)
    factory_shift_m: float = 0.004
    bump_px: float = 0.15
    bump_sigmas: float = 8.0
    bump_effect: float = 2.0


def refuse_suspected(found: Iterable[Suspected], tolerated: frozenset[Suspicion] = frozenset()) -> None:
    """Refuse what is suspected, unless it is to be reported only.

    Raises:
        DepthcellError: one line with every sentence whose suspicion is not in `tolerated`.
    """
    sentences = [suspected.sentence for suspected in found if suspected.suspicion not in tolerated]
    if sentences:
        raise DepthcellError("; ".join(sentences))


def suspect_views(
    views: Sequence[BoardView],
    boards: Sequence[Board],
    factory: Mapping[str, Intrinsics],
    limits: SuspicionLimits | None = None,
) -> tuple[Suspected, ...]:
    """All suspicions that views alone raise: mirrored, another board, duplicated, cameras swapped.

    Args:
        views: of all streams.
        boards: board number -> board.
        factory: stream -> the device's own intrinsics, where they are known.
        limits: from where on something is suspect.
    """
    limits = limits or SuspicionLimits()
    by_stream: dict[str, list[BoardView]] = defaultdict(list)
    for view in views:
        by_stream[view.stream].append(view)
    found: list[Suspected] = []
    for stream, seen in sorted(by_stream.items()):
        usable = [view for view in seen if is_usable(view, boards[view.board])]
        # Another grid can look mirrored; the mirror image of the right one is a grid all the same.
        found += _wrong_board(stream, usable, boards, limits) or _mirrored(stream, usable, boards)
        found += _duplicated(stream, seen, limits)
    if not found:
        found += _swapped(by_stream, boards, factory, limits)
    return tuple(found)


def _mirrored(stream: str, views: Sequence[BoardView], boards: Sequence[Board]) -> list[Suspected]:
    """Seen from its face, a board keeps its sense of rotation: the map to pixels has a positive determinant."""
    signs = []
    for view in views:
        points = boards[view.board].points_board[view.ids, :2]
        linear = np.linalg.lstsq(np.c_[points, np.ones(len(points))], view.pixels, rcond=None)[0][:2]
        signs.append(np.linalg.det(linear) > 0)
    if signs and np.mean(signs) < 0.5:
        what = f"{stream}: {signs.count(False)} of {len(signs)} views show the board mirrored"
        return [Suspected(Suspicion.MIRRORED, stream, f"{what}; turn mirroring off where it was recorded or printed")]
    return []


def _wrong_board(
    stream: str, views: Sequence[BoardView], boards: Sequence[Board], limits: SuspicionLimits
) -> list[Suspected]:
    """Features of a flat board are a projective image of its grid but for the lens; of another board they are not."""
    misfits = []
    for view in views:
        board = boards[view.board]
        homography = board_homography(board, view.ids, view.pixels)
        if homography is None:
            continue
        mapped = np.c_[board.points_board[view.ids, :2], np.ones(len(view.ids))] @ homography.T
        off_px = np.sqrt(np.mean((mapped[:, :2] / mapped[:, 2:] - view.pixels) ** 2))
        misfits.append(off_px / np.linalg.norm(np.ptp(view.pixels, axis=0)))
    if misfits and np.median(misfits) > limits.misfit_share:
        what = f"{stream}: what was found does not lie on the grid of board {boards[views[0].board].spec}"
        return [Suspected(Suspicion.WRONG_BOARD, stream, f"{what}; check --board")]
    return []


def _duplicated(stream: str, views: Sequence[BoardView], limits: SuspicionLimits) -> list[Suspected]:
    """Images that are copies, and boards that mostly stood still, count for less than they seem to."""
    copies = [
        (first, second)
        for first, second in combinations(views, 2)
        if distance_px(first, second) < limits.duplicate_sigmas * np.sqrt(2) * min(first.sigma_px, second.sigma_px)
    ]
    repeated = len({id(second) for _, second in copies})
    distinct = len(distinct_views(views))
    if repeated > max(1, 0.1 * len(views)):
        first, second = copies[0]
        sentence = (
            f"{stream}: {repeated} of {len(views)} views are copies of another, as instant {second.instant} of "
            f"{first.instant}; {distinct} places count; record the board at more places"
        )
        return [Suspected(Suspicion.DUPLICATED_VIEWS, stream, sentence)]
    if len(views) - distinct > limits.duplicate_share * len(views):
        sentence = (
            f"{stream}: the board stood at {distinct} places in {len(views)} views; frames of one place belong to one "
            "instant; record the board at more places"
        )
        return [Suspected(Suspicion.DUPLICATED_VIEWS, stream, sentence)]
    return []


def _swapped(
    by_stream: Mapping[str, Sequence[BoardView]],
    boards: Sequence[Board],
    factory: Mapping[str, Intrinsics],
    limits: SuspicionLimits,
) -> list[Suspected]:
    """Two devices each of whose views fit the other's factory lens far better than their own."""
    scores = {
        (stream, owner): squares
        for stream, views in by_stream.items()
        for owner in factory
        if stream in factory and _comparable(stream, owner, factory)
        for squares in [_squares(views, boards, factory[stream], factory[owner])]
    }
    found = []
    for first, second in combinations(sorted(by_stream), 2):
        pairs = [(first, second), (second, first)]
        if all(pair in scores for pair in pairs) and all(
            _is_better(scores[stream, other], scores[stream, stream], limits) for stream, other in pairs
        ):
            sentence = (
                f"{first} and {second}: each one's images fit the other's factory intrinsics, not its own; "
                "check which recording is of which camera"
            )
            found.append(Suspected(Suspicion.CAMERAS_SWAPPED, first, sentence))
    return found


def _comparable(stream: str, owner: str, factory: Mapping[str, Intrinsics]) -> bool:
    mine, other = factory[stream], factory[owner]
    same_size = (mine.width_px, mine.height_px) == (other.width_px, other.height_px)
    return stream.partition(":")[0] == owner.partition(":")[0] and same_size


def _squares(
    views: Sequence[BoardView], boards: Sequence[Board], own: Intrinsics, lens: Intrinsics
) -> NDArray[np.float64]:
    """Mean square residual in px² of each view under `lens`, above that of the lens that fits best; twenty at most."""
    usable = [view for view in views if is_usable(view, boards[view.board])]
    usable = usable[:: max(1, len(usable) // 20)]
    if len(usable) < 5:
        return np.zeros(0)
    best = fit_lens(usable, boards, own, Distortion.BROWN_CONRADY)
    return np.array(
        [
            mean_square_px2(residuals_px(view, boards[view.board], lens, near)) - mean_square_px2(floor)
            for view, near, floor in zip(usable, best.poses, best.residuals_px, strict=True)
        ]
    )


def _is_better(other: NDArray[np.float64], own: NDArray[np.float64], limits: SuspicionLimits) -> bool:
    """Whether the other lens fits better, view by view beyond chance and by the ratio asked for."""
    if len(own) < 5:
        return False
    if own.mean() <= limits.swap_ratio * max(float(other.mean()), 0.0):
        return False
    gain = own - other
    # Few views with much to gain widen the scatter; that nearly all of them gain says enough.
    by_mean = gain.mean() > 4 * gain.std(ddof=1) / np.sqrt(len(gain))
    p_value = np.asarray(wilcoxon(gain, alternative="greater"), np.float64)[1]
    return bool(by_mean or p_value < CHANCE)
