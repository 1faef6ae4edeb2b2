"""A camera that moved while the board was shown: found where its images jump against what the others say."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle_problem import Place
from depthcell.calib.solving.rig_pose import PoseStack, nearest_pose, robust_mean
from depthcell.calib.solving.rig_standing import StandingRig
from depthcell.calib.solving.suspicion import Suspected, Suspicion, SuspicionLimits
from depthcell.calib.target.boardview import BoardView

EXCHANGED_SHARE = 0.25
"""Two cameras were exchanged if each now stands nearer to the other's place than this share of how far it moved."""
LEAST_SIDE = 4
"""Views there must be before and after a jump."""
PAIR_SHARE = 0.7
"""Measured on simulated rigs with corners of 0.1 px: none of 160 sound ones (2 to 4 cameras, 10 to 29 places) was
suspected; of 24 with three cameras and 20 places, one camera moved by 0.8 mm and 0.05 degrees half way, all were."""
LEAST_AGREEING = 4
"""Imagers that must all jump at one instant where there are no others: colour and infrared of two cameras. Of 60 sound
rigs of that kind with 20 places, the one that jumped least did so by 2.2 standard errors at most."""


@dataclass(frozen=True, slots=True)
class Jump:
    """The likeliest instant at which a camera moved against another.

    Attributes:
        stream: in whose image it is seen.
        against: the other device, or the device's own other stream where there is no other.
        before, after: last instant before, first one after.
        jump_px: by how much the boards moved in the image against what the other says.
        over_error: the jump over its standard error.
        over_scatter: the jump over the scatter on either side.
    """

    stream: str
    against: str
    before: int
    after: int
    jump_px: float
    over_error: float
    over_scatter: float

    def is_beyond(self, limits: SuspicionLimits) -> bool:
        """Whether it is more than chance makes."""
        return (
            self.jump_px > limits.bump_px
            and self.over_error > limits.bump_sigmas
            and self.over_scatter > limits.bump_effect
        )


def suspect_bump(rig: StandingRig, limits: SuspicionLimits) -> list[Suspected]:
    """At most one suspicion: the device that jumps against most others, and when; or two that changed places.

    A camera that moved jumps against all others at one instant, the others only against it; two alone cannot say which
    one it was. One pair must reach `bump_sigmas`; where a device jumps against two others at one instant, or all
    imagers of two devices do, each need reach `PAIR_SHARE` of that only.
    """
    jumps = find_jumps(rig)
    slight = [jump for jump in jumps if jump.is_beyond(replace(limits, bump_sigmas=PAIR_SHARE * limits.bump_sigmas))]
    if not slight:
        return []
    worst = max(slight, key=lambda jump: jump.over_error)
    beyond = [jump for jump in slight if jump.before < worst.after and jump.after > worst.before]
    partners = {device: (_partners(device, beyond), _partners(device, jumps)) for device in _devices(jumps)}
    agree = max(len(found) for found, _ in partners.values()) >= 2 or (len(beyond) == len(jumps) >= LEAST_AGREEING)
    if not worst.is_beyond(limits) and not agree:
        return []
    shares = {device: len(found) / len(known) for device, (found, known) in partners.items()}
    moved = [device for device, share in shares.items() if share == max(shares.values())]
    shown = max(beyond, key=lambda jump: (device_of(jump.stream) in moved, jump.over_error))
    exchanged = next((pair for pair in combinations(moved, 2) if _is_exchanged(rig, pair, shown)), None)
    if exchanged is not None:
        sentence = (
            f"cameras {exchanged[0]} and {exchanged[1]} changed places between instants {shown.before} and "
            f"{shown.after}: each then sees what the other saw; check which recording is of which camera"
        )
        return [Suspected(Suspicion.CAMERAS_SWAPPED, shown.stream, sentence)]
    who = f"camera {moved[0]}" if len(moved) == 1 else f"one of the cameras {', '.join(moved)}"
    sentence = (
        f"{who} moved between instants {shown.before} and {shown.after}: the boards jump by {shown.jump_px:.2f} px in "
        f"{shown.stream} against {shown.against}, {shown.over_error:.0f} standard errors; fix it and record anew"
    )
    return [Suspected(Suspicion.RIG_BUMPED, shown.stream, sentence)]


def _devices(jumps: Sequence[Jump]) -> list[str]:
    return sorted({device_of(jump.stream) for jump in jumps})


def _partners(device: str, jumps: Sequence[Jump]) -> set[str]:
    """The devices (or, for one device alone, streams) against which one jumps, in its own image or in theirs."""
    seen = {jump.against for jump in jumps if device_of(jump.stream) == device}
    return seen | {device_of(jump.stream) for jump in jumps if jump.against == device}


def _is_exchanged(rig: StandingRig, devices: tuple[str, str], jump: Jump) -> bool:
    """Whether the second stands to the first, after the jump, as the first stood to the second before it."""
    for kind in ("depth", "color"):
        own: dict[str, dict[Place, RigidTransform]] = {f"{kind}:{device}": {} for device in devices}
        for view in rig.views:
            if view.stream in own and view.place in rig.T_cell_board:
                own[view.stream][view.place] = _own_pose(rig, view)
        first, second = own.values()
        shared = {place[1]: first[place] @ second[place].inverse() for place in sorted(first.keys() & second.keys())}
        before = [pose for instant, pose in shared.items() if instant <= jump.before]
        after = [pose for instant, pose in shared.items() if instant >= jump.after]
        if before and after:
            reach_m = float(np.median([np.linalg.norm(pose.translation_m) for pose in first.values()]))
            T_before, T_after = robust_mean(before, reach_m)[0], robust_mean(after, reach_m)[0]
            moved_m, off_m = PoseStack.of([T_before, T_before.inverse()]).distances_m(PoseStack.of([T_after]), reach_m)
            return bool(off_m[0] < EXCHANGED_SHARE * moved_m[0])
    return False


def find_jumps(rig: StandingRig) -> list[Jump]:
    """For each stream and each other device the likeliest instant at which one moved, however likely that is.

    The boards' poses as the other device sees them are projected into the stream; how far its own features lie from
    there, as shift, magnification and turn in the image (all in px), is a series over instants. It is split where that
    lowers the sum of absolute deviations from the median most, in units of the scatter of successive differences. The
    standard error of the jump of medians is 1.2533 s sqrt(1/n + 1/m), s being 1.4826 times the median absolute
    deviation on the side where it is larger, or a third of a corner's noise.
    """
    own = {(view.stream, view.place): _own_pose(rig, view) for view in rig.views if view.place in rig.T_cell_board}
    by_place: dict[Place, list[str]] = defaultdict(list)
    for stream, place in own:
        by_place[place].append(stream)
    alone = len({device_of(stream) for stream, _ in own}) == 1
    series: dict[tuple[str, str], list[tuple[int, NDArray[np.float64]]]] = defaultdict(list)
    for view in rig.views:
        seen: dict[str, list[RigidTransform]] = defaultdict(list)
        for stream in by_place[view.place]:
            if stream != view.stream and (alone or device_of(stream) != device_of(view.stream)):
                pose = rig.T_cell_stream[stream] @ own[stream, view.place]
                seen[stream if alone else device_of(stream)].append(pose)
        for other, poses in seen.items():
            reach_m = float(np.linalg.norm(own[view.stream, view.place].translation_m))
            T_cell_board = poses[0] if len(poses) == 1 else robust_mean(poses, reach_m)[0]
            predicted = rig.T_cell_stream[view.stream].inverse() @ T_cell_board
            series[view.stream, other].append((view.instant, _offset_px(rig, view, predicted)))
    sigma_px = {view.stream: view.sigma_px for view in rig.views}
    jumps = [
        _largest_jump(pair, sorted(items, key=lambda item: item[0]), sigma_px[pair[0]] / 3)
        for pair, items in series.items()
    ]
    return [jump for jump in jumps if jump is not None]


def device_of(stream: str) -> str:
    """Serial of the device that a stream is of."""
    return stream.partition(":")[2]


def _own_pose(rig: StandingRig, view: BoardView) -> RigidTransform:
    near = rig.T_cell_stream[view.stream].inverse() @ rig.T_cell_board[view.place]
    return nearest_pose(view, rig.boards[view.board], rig.streams[view.stream], near)


def _offset_px(rig: StandingRig, view: BoardView, T_stream_board: RigidTransform) -> NDArray[np.float64]:
    """Similarity (4,) from predicted to seen features, in px: shift x and y, and radius times growth and turn."""
    points = rig.boards[view.board].points_board[view.ids]
    predicted = rig.streams[view.stream].project(T_stream_board @ points)
    shift = view.pixels - predicted
    arms = predicted - predicted.mean(axis=0)
    radius = float(np.sqrt(np.mean(np.sum(arms**2, axis=1))))
    turned = np.stack((-arms[:, 1], arms[:, 0]), axis=1)
    growth, turn = (float(np.sum(part * shift)) / (len(arms) * radius) for part in (arms, turned))
    return np.array([*np.median(shift, axis=0), growth, turn])


def _largest_jump(
    pair: tuple[str, str], series: Sequence[tuple[int, NDArray[np.float64]]], least_px: float
) -> Jump | None:
    instants = [instant for instant, _ in series]
    offsets = np.array([offset for _, offset in series])
    splits = [k for k in range(LEAST_SIDE, len(series) - LEAST_SIDE + 1) if instants[k] != instants[k - 1]]
    if not splits:
        return None
    step_px = np.maximum(np.median(np.abs(np.diff(offsets, axis=0)), axis=0) / 0.9539, least_px)
    costs = [float(np.sum((_spread(offsets[:k]) + _spread(offsets[k:])) / step_px)) for k in splits]
    split = splits[int(np.argmin(costs))]
    first, second = offsets[:split], offsets[split:]
    jump_px = np.abs(np.median(second, axis=0) - np.median(first, axis=0))
    scatter_px = np.maximum(1.4826 * np.maximum(_deviation(first), _deviation(second)), least_px)
    error_px = 1.2533 * scatter_px * np.sqrt(1 / len(first) + 1 / len(second))
    which = int(np.argmax(jump_px / error_px))
    return Jump(
        *pair,
        instants[split - 1],
        instants[split],
        float(jump_px[which]),
        float(jump_px[which] / error_px[which]),
        float(jump_px[which] / scatter_px[which]),
    )


def _spread(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of absolute deviations of each column from its median."""
    return np.asarray(np.sum(np.abs(offsets - np.median(offsets, axis=0)), axis=0))


def _deviation(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median absolute deviation of each column."""
    return np.asarray(np.median(np.abs(offsets - np.median(offsets, axis=0)), axis=0))
