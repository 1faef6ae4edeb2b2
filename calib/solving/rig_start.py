"""Start values of a rig: where cameras and boards stand, from what each camera saw alone; which ties are missing."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle_problem import Place
from depthcell.calib.solving.rig_pose import BOARD_FRAME, PlanarPose, PoseStack, board_poses, is_usable, robust_mean
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError

ROUNDS = 4


@dataclass(frozen=True, slots=True, eq=False)
class RigInput:
    """All that a calibration starts from.

    Attributes:
        boards: board number -> board.
        views: what was seen; views of one place (board, instant) see that board in one pose.
        intrinsics: stream -> intrinsics to start from.
        T_color_depth: serial -> factory transform from "depth:<serial>" to "color:<serial>".
    """

    boards: tuple[Board, ...]
    views: tuple[BoardView, ...]
    intrinsics: Mapping[str, Intrinsics]
    T_color_depth: Mapping[str, RigidTransform] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class RigStart:
    """Where everything stands, good enough to start the adjustment.

    Attributes:
        T_cell_stream: stream -> pose, from its frame to "cell".
        T_cell_board: place -> pose of the board there, from "board" to "cell".
        origin: the place whose board holds the frame "cell".
        factory_tied: streams that no shared view ties to the rest, only the factory's `T_color_depth`.
        views: the views that were usable and belong to what is tied by views.
        dropped: how many views had too few features, or all on a line.
    """

    T_cell_stream: Mapping[str, RigidTransform]
    T_cell_board: Mapping[Place, RigidTransform]
    origin: Place
    factory_tied: tuple[str, ...]
    views: tuple[BoardView, ...]
    dropped: int


def start_rig(rig: RigInput, origin: Place | None = None, T_cell_origin: RigidTransform | None = None) -> RigStart:
    """Start values for all streams and places.

    Each view gives one or two poses of its board (`rig_pose.board_poses`). Two streams that saw a board at the same
    instants are related by the pose on which most of these instants agree, which also settles which of the two answers
    was right. Streams are then reached from the one that sees most along the chain of least variance, and all poses are
    averaged over everything that speaks for them, boards and streams in turn.

    Args:
        rig: what was seen.
        origin: place whose board defines the frame "cell"; default is the first one seen by most streams.
        T_cell_origin: pose of that board, from "board" to "cell"; default has its z axis towards the viewer, its x axis
            along the board's.

    Raises:
        DepthcellError: a view is of an unknown board or stream, nothing usable was seen, `origin` was not seen, or the
            rig can not be tied; the message names the missing link.
    """
    _check(rig)
    views = [view for view in rig.views if is_usable(view, rig.boards[view.board])]
    poses = {
        (view.stream, view.place): found
        for view in views
        if (found := board_poses(view, rig.boards[view.board], rig.intrinsics[view.stream]))
    }
    if not poses:
        raise DepthcellError("views: no board was seen well enough for a pose; check --board, light and focus")
    streams = sorted({stream for stream, _ in poses} | _unseen_streams(rig))
    groups = _groups(streams, poses)
    main = max(groups, key=lambda group: sum(stream in group for stream, _ in poses))
    tied = _factory_tied(rig, groups, main)
    kept = {key: found for key, found in poses.items() if key[0] in main}
    T_root_stream = _chained(sorted(main), kept)
    T_root_stream, T_root_board = _averaged(T_root_stream, kept)
    origin = _origin(kept, origin)
    T_cell_origin = T_cell_origin or RigidTransform("cell", BOARD_FRAME, np.diag([1.0, -1.0, -1.0]), np.zeros(3))
    T_cell_root = T_cell_origin @ T_root_board[origin].inverse()
    T_cell_stream = {stream: T_cell_root @ pose for stream, pose in T_root_stream.items()}
    T_cell_board = {place: T_cell_root @ pose for place, pose in T_root_board.items()}
    T_cell_board[origin] = T_cell_origin
    for stream in tied:
        T_cell_stream[stream] = factory_pose(stream, T_cell_stream, rig.T_color_depth)
    chosen = tuple(view for view in views if (view.stream, view.place) in kept)
    return RigStart(T_cell_stream, T_cell_board, origin, tied, chosen, len(rig.views) - len(views))


def factory_pose(
    stream: str, T_cell_stream: Mapping[str, RigidTransform], T_color_depth: Mapping[str, RigidTransform]
) -> RigidTransform:
    """`T_cell_stream` of one stream of a device from its other stream's and the factory's transform between them."""
    kind, serial = stream.split(":", 1)
    if kind == "depth":
        return T_cell_stream[f"color:{serial}"] @ T_color_depth[serial]
    return T_cell_stream[f"depth:{serial}"] @ T_color_depth[serial].inverse()


def partner(stream: str) -> str:
    """The other stream of the same device."""
    kind, serial = stream.split(":", 1)
    return f"{'color' if kind == 'depth' else 'depth'}:{serial}"


def _check(rig: RigInput) -> None:
    for view in rig.views:
        where = f"view {view.instant} of {view.stream}"
        if not 0 <= view.board < len(rig.boards):
            raise DepthcellError(f"{where}: board {view.board} is not among the {len(rig.boards)} named")
        if view.stream not in rig.intrinsics:
            raise DepthcellError(f"{where}: nobody gave intrinsics of {view.stream}")
        count = len(rig.boards[view.board].points_board)
        if len(view.ids) and not 0 <= view.ids[0] <= view.ids[-1] < count:
            raise DepthcellError(
                f"{where}: feature {view.ids[-1]} is not on the board, which has {count}; check --board"
            )


def _unseen_streams(rig: RigInput) -> set[str]:
    """Streams without views whose device says how they stand to one that may have some."""
    return {f"{kind}:{serial}" for serial in rig.T_color_depth for kind in ("depth", "color")} & set(rig.intrinsics)


def tied_groups(views: Iterable[BoardView]) -> list[frozenset[str]]:
    """Streams that boards seen by several of them at one instant hold together, the largest group first."""
    seen = {(view.stream, view.place) for view in views}
    return _groups(sorted({stream for stream, _ in seen}), seen)


def _groups(streams: Sequence[str], seen: Iterable[tuple[str, Place]]) -> list[frozenset[str]]:
    pairs = list(seen)
    places = {place: len(streams) + number for number, place in enumerate(sorted({place for _, place in pairs}))}
    size = len(streams) + len(places)
    rows = [streams.index(stream) for stream, _ in pairs]
    columns = [places[place] for _, place in pairs]
    graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    count, labels = connected_components(graph, directed=False)
    found = [frozenset(s for s, label in zip(streams, labels, strict=False) if label == k) for k in range(count)]
    return sorted((group for group in found if group), key=len, reverse=True)


def _factory_tied(rig: RigInput, groups: Sequence[frozenset[str]], main: frozenset[str]) -> tuple[str, ...]:
    """Single streams outside `main` that the factory's transform joins to it.

    Raises:
        DepthcellError: something is left that nothing ties.
    """
    rest = [group for group in groups if group != main]
    tied = tuple(
        stream
        for group in rest
        for stream in group
        if len(group) == 1 and stream.split(":", 1)[1] in rig.T_color_depth and partner(stream) in main
    )
    loose = sorted(",".join(sorted(group)) for group in rest if not group <= set(tied))
    if loose:
        parts = [",".join(sorted(main)), *loose]
        ones = " and ".join(f"one of {part}" if "," in part else part for part in parts)
        raise DepthcellError(
            f"rig: cameras {' and '.join(parts)} never see a board at the same instant; "
            f"show the board where {ones} see it"
        )
    return tied


def _reach_m(poses: Mapping[tuple[str, Place], Sequence[PlanarPose]]) -> float:
    """Median distance of the boards: the lever at which an angle counts."""
    return float(np.median([np.linalg.norm(found[0].T_stream_board.translation_m) for found in poses.values()]))


def _chained(
    streams: Sequence[str], poses: Mapping[tuple[str, Place], Sequence[PlanarPose]]
) -> dict[str, RigidTransform]:
    """`T_root_stream`, each along the chain of least summed variance from the stream with most views."""
    reach_m = _reach_m(poses)
    places: dict[str, set[Place]] = defaultdict(set)
    for stream, place in poses:
        places[stream].add(place)
    edges: dict[tuple[str, str], RigidTransform] = {}
    rows, columns, variances = [], [], []
    for number, first in enumerate(streams):
        for second in streams[number + 1 :]:
            shared = sorted(places[first] & places[second])
            if shared:
                T_first_second, u_m = _relation([(poses[first, p], poses[second, p]) for p in shared], reach_m)
                edges[first, second], edges[second, first] = T_first_second, T_first_second.inverse()
                rows.append(streams.index(first))
                columns.append(streams.index(second))
                variances.append(u_m**2)
    size = len(streams)
    root = max(range(size), key=lambda number: len(places[streams[number]]))
    graph = csr_array((variances, (rows, columns)), shape=(size, size))
    distances, before = dijkstra(graph, directed=False, indices=root, return_predecessors=True)
    T_root_stream = {streams[root]: RigidTransform("root", streams[root], np.eye(3), np.zeros(3))}
    for number in np.argsort(distances):
        if number != root:
            last, stream = streams[int(before[number])], streams[int(number)]
            T_root_stream[stream] = T_root_stream[last] @ edges[last, stream]
    return T_root_stream


def _relation(
    shared: Sequence[tuple[Sequence[PlanarPose], Sequence[PlanarPose]]], reach_m: float
) -> tuple[RigidTransform, float]:
    """Pose of the second stream in the first on which most shared places agree, and its standard uncertainty in m.

    Every combination of answers at every place is a hypothesis; at each place the nearest combination votes, distances
    being capped so that places with a wrong detection have no more than one vote against.
    """
    pairs = [(number, a, b) for number, (firsts, seconds) in enumerate(shared) for a in firsts for b in seconds]
    combined = [a.T_stream_board @ b.T_stream_board.inverse() for _, a, b in pairs]
    owner = np.array([number for number, _, _ in pairs])
    chosen = _agreeing(combined, owner, np.array([a.rms_px + b.rms_px for _, a, b in pairs]), reach_m)
    mean, scatter_m = robust_mean([combined[number] for number in chosen], reach_m)
    return mean, (scatter_m + 1e-4) / np.sqrt(len(chosen))


def _agreeing(poses: Sequence[RigidTransform], owner: np.ndarray, misfit_px: np.ndarray, reach_m: float) -> list[int]:
    """One number per owner: the pose nearest to the hypothesis that all owners together like best."""
    stack = PoseStack.of(poses)
    apart_m = np.minimum(stack.distances_m(stack, reach_m), 0.1 * reach_m)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    cost = np.minimum.reduceat(apart_m, starts, axis=1).sum(axis=1)
    tie_break = 1e-3 * reach_m * misfit_px / max(float(misfit_px.max()), 1e-12)
    best = int(np.argmin(cost + tie_break))
    ends = [*starts[1:], len(poses)]
    nearest = [int(start + np.argmin(apart_m[best, start:end])) for start, end in zip(starts, ends, strict=True)]
    limit_m = max(3 * float(np.median(apart_m[best, nearest])), 0.005 * reach_m)
    return [number for number in nearest if apart_m[best, number] <= limit_m]


def _averaged(
    T_root_stream: Mapping[str, RigidTransform], poses: Mapping[tuple[str, Place], Sequence[PlanarPose]]
) -> tuple[dict[str, RigidTransform], dict[Place, RigidTransform]]:
    """Poses of streams and boards, averaged in turn over all that was seen of them."""
    reach_m = _reach_m(poses)
    root = next(iter(T_root_stream))
    by_place: dict[Place, list[str]] = defaultdict(list)
    by_stream: dict[str, list[Place]] = defaultdict(list)
    for stream, place in poses:
        by_place[place].append(stream)
        by_stream[stream].append(place)
    streams = dict(T_root_stream)
    boards: dict[Place, RigidTransform] = {}
    for _ in range(ROUNDS):
        for place, seen_by in by_place.items():
            answers = [[(streams[s] @ pose.T_stream_board, pose.rms_px) for pose in poses[s, place]] for s in seen_by]
            boards[place] = _settled(answers, reach_m)
        for stream, seen in by_stream.items():
            answers = [
                [(boards[place] @ pose.T_stream_board.inverse(), pose.rms_px) for pose in poses[stream, place]]
                for place in seen
            ]
            if stream != root:
                streams[stream] = _settled(answers, reach_m)
    return streams, boards


def _settled(answers: Sequence[Sequence[tuple[RigidTransform, float]]], reach_m: float) -> RigidTransform:
    """The pose on which most owners of answers agree; each owner has one or two poses with their misfit in px."""
    candidates = [pose for own in answers for pose, _ in own]
    owner = np.array([number for number, own in enumerate(answers) for _ in own])
    misfit_px = np.array([rms_px for own in answers for _, rms_px in own])
    chosen = _agreeing(candidates, owner, misfit_px, reach_m)
    return robust_mean([candidates[number] for number in chosen], reach_m)[0]


def _origin(seen: Mapping[tuple[str, Place], object], wanted: Place | None) -> Place:
    counts: dict[Place, int] = defaultdict(int)
    for _, place in seen:
        counts[place] += 1
    if wanted is None:
        return min(counts, key=lambda place: (-counts[place], place[1], place[0]))
    if wanted not in counts:
        raise DepthcellError(f"origin: board {wanted[0]} at instant {wanted[1]} was not seen well enough for a pose")
    return wanted
