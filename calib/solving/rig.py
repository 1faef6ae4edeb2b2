"""From what the cameras saw of the boards to a calibrated rig, checked before, between and after: `solve_rig`."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSettings, BundleSolution, Place, solve_bundle
from depthcell.calib.solving.intrinsics_choice import LensChoice, choose_intrinsics, rough_lens
from depthcell.calib.solving.rig_candidate import sight_of_stream
from depthcell.calib.solving.rig_evidence import Evidence, EvidenceLimits, require_evidence, weigh_evidence
from depthcell.calib.solving.rig_kept import with_choices
from depthcell.calib.solving.rig_lens import as_supported, start_intrinsics
from depthcell.calib.solving.rig_split import held_out_instants
from depthcell.calib.solving.rig_standing import StandingRig
from depthcell.calib.solving.rig_start import RigInput, RigStart, factory_pose, start_rig
from depthcell.calib.solving.suspicion import Suspected, Suspicion, SuspicionLimits, refuse_suspected, suspect_views
from depthcell.calib.solving.suspicion_rig import suspect_rig
from depthcell.calib.solving.validation import (
    DepthCheck,
    StreamCheck,
    by_place,
    check_depth,
    check_streams,
    refit_place,
)
from depthcell.calib.solving.validation_halves import Halves, compare_halves
from depthcell.calib.solving.validation_lengths import LengthCheck, check_lengths
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView, DepthTiles
from depthcell.errors import DepthcellError

Progress = Callable[[str, float], None]
"""Told what is being done and how much of the whole is behind, 0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class RigRecording:
    """What was seen, and what the devices say of themselves.

    Attributes:
        boards: board number -> board.
        views: of all streams; those of one board and instant see it in one pose.
        factory: stream -> the device's intrinsics; streams left out are calibrated from nothing but `sizes_px`.
        sizes_px: stream -> (width, height), for streams without `factory`.
        T_color_depth: serial -> the factory's transform from "depth:<serial>" to "color:<serial>".
        depth: depth on boards, counted with `factory`'s fx and `baselines_m`.
        baselines_m: serial -> distance of the stereo pair, for devices with `depth`.
    """

    boards: tuple[Board, ...]
    views: tuple[BoardView, ...]
    factory: Mapping[str, Intrinsics]
    sizes_px: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    T_color_depth: Mapping[str, RigidTransform] = field(default_factory=dict)
    depth: tuple[DepthTiles, ...] = ()
    baselines_m: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class SolveSettings:
    """How a rig is solved.

    Attributes:
        origin: place (board, instant) whose board defines the frame "cell"; None takes the first seen by most streams.
        T_cell_origin: pose of that board in the cell; None puts z towards the viewer, x along the board's x.
        hold_out_every: every so many instants one is kept out of the fit, to judge it.
        folds: of the cross-validation that chooses lenses.
        choose_lenses: False keeps each stream's own lens model and refines it.
        hold_factory: whether factory intrinsics that predict as well as any fit are kept as they are.
        board_scale_u: relative standard uncertainty of the certified pitch.
        tolerated: suspicions that are reported only.
        evidence, suspicion, bundle: limits and settings of the steps.
        compare_halves: whether to solve two halves for comparison.
        threads: for what can be done side by side.
    """

    origin: Place | None = None
    T_cell_origin: RigidTransform | None = None
    hold_out_every: int = 5
    folds: int = 5
    choose_lenses: bool = True
    hold_factory: bool = True
    board_scale_u: float = 1e-4
    tolerated: frozenset[Suspicion] = frozenset()
    evidence: EvidenceLimits = field(default_factory=EvidenceLimits)
    suspicion: SuspicionLimits = field(default_factory=SuspicionLimits)
    bundle: BundleSettings = field(default_factory=BundleSettings)
    compare_halves: bool = True
    threads: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Validation:
    """How the calibration did on what it had not seen.

    Attributes:
        streams, depth, lengths: on held-out instants; `lengths` is None where no two devices saw one board.
        halves: of the views that were fitted, two solutions compared.
        instants: that were held out.
    """

    streams: tuple[StreamCheck, ...]
    depth: tuple[DepthCheck, ...]
    lengths: LengthCheck | None
    halves: Halves
    instants: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RigSolution:
    """A calibrated rig, and all that a certificate says about how.

    Attributes:
        problem: what was adjusted.
        bundle: what came out.
        start: where it started.
        choices: stream -> which lens model, and why; empty where models were not chosen.
        kept_factory: streams whose factory intrinsics were kept.
        factory_tied: `T_cell_stream` of streams that no view ties, from the factory's `T_color_depth`.
        evidence: what each stream saw.
        suspected: what was tolerated.
        validation: on held-out views.
        focal_baseline_m: serial -> f B of the calibrated camera, with which corrections count.
    """

    problem: BundleProblem
    bundle: BundleSolution
    start: RigStart
    choices: Mapping[str, LensChoice]
    kept_factory: frozenset[str]
    factory_tied: Mapping[str, RigidTransform]
    evidence: tuple[Evidence, ...]
    suspected: tuple[Suspected, ...]
    validation: Validation
    focal_baseline_m: Mapping[str, float]


def solve_rig(
    recording: RigRecording, settings: SolveSettings | None = None, progress: Progress | None = None
) -> RigSolution:
    """Calibrate all streams of all cameras together.

    Views are checked for what is known to go wrong, start values are found, and everything is adjusted at once without
    the instants held out. With boards as bent as they then are, a lens model is chosen for each stream; where that is
    another one, the rig is adjusted again. Then it is searched for what does not fit and judged on what was held out.

    Raises:
        DepthcellError: too little was seen, the rig can not be tied, something is suspected, or the adjustment fails;
            one line that names camera and instant and says what to do.
    """
    settings, say = settings or SolveSettings(), progress or _silent
    say("checking views", 0.0)
    suspected = list(suspect_views(recording.views, recording.boards, recording.factory, settings.suspicion))
    refuse_suspected(suspected, settings.tolerated)
    say("finding start values", 0.05)
    lenses = _start_lenses(recording)
    given = RigInput(recording.boards, recording.views, lenses, recording.T_color_depth)
    start = start_rig(given, settings.origin, settings.T_cell_origin)
    held_out = held_out_instants(start.views, settings.hold_out_every, start.origin)
    fitted = tuple(view for view in start.views if view.instant not in held_out)
    streams = sorted({view.stream for view in fitted})
    seen = {stream: tuple(view for view in fitted if view.stream == stream) for stream in streams}
    evidence = tuple(weigh_evidence(seen[s], recording.boards, lenses[s], s, settings.evidence) for s in streams)
    require_evidence(evidence)
    standing = _standing(recording, start, lenses)
    suspected += _new(suspected, suspect_rig(standing, _coarse(settings.suspicion)))
    refuse_suspected(suspected, settings.tolerated)

    say("adjusting", 0.1)
    rough = _rough_lenses(recording, seen, lenses, settings) if settings.choose_lenses else lenses
    problem = _problem(recording, start, fitted, {s: rough[s] for s in streams}, settings)
    solution = solve_bundle(problem, settings.bundle)
    # Before lenses are chosen: a choice among what a bump has spoilt would be refused for another reason.
    suspected += _new(suspected, suspect_rig(_solved(recording, start, solution), settings.suspicion))
    refuse_suspected(suspected, settings.tolerated)
    say("choosing lens models", 0.4)
    choices = _choices(recording, problem, solution, lenses, settings) if settings.choose_lenses else {}
    problem, solution, kept = with_choices(problem, solution, choices, settings.bundle, settings.hold_factory)
    say("searching for what does not fit", 0.6)
    suspected += _new(suspected, suspect_rig(_solved(recording, start, solution), settings.suspicion))
    refuse_suspected(suspected, settings.tolerated)
    say("validating", 0.7)
    focal_baseline_m = {s: solution.streams[f"depth:{s}"].fx_px * b for s, b in problem.baselines_m.items()}
    validation = _validated(recording, start, problem, solution, settings)
    say("done", 1.0)
    tied = _tied_poses(start, solution, recording)
    return RigSolution(
        problem, solution, start, choices, kept, tied, evidence, tuple(suspected), validation, focal_baseline_m
    )


def _silent(what: str, done: float) -> None:
    """Nobody wants to know."""


def _new(known: Sequence[Suspected], found: Sequence[Suspected]) -> list[Suspected]:
    already = {(suspected.suspicion, suspected.stream) for suspected in known}
    return [suspected for suspected in found if (suspected.suspicion, suspected.stream) not in already]


def _start_lenses(recording: RigRecording) -> dict[str, Intrinsics]:
    lenses = {stream: as_supported(intrinsics) for stream, intrinsics in recording.factory.items()}
    for stream in sorted({view.stream for view in recording.views} - set(lenses)):
        if stream not in recording.sizes_px:
            raise DepthcellError(f"{stream}: neither factory intrinsics nor the image's size are known")
        views = [view for view in recording.views if view.stream == stream]
        lenses[stream] = start_intrinsics(views, recording.boards, recording.sizes_px[stream])
    return lenses


def _coarse(limits: SuspicionLimits) -> SuspicionLimits:
    """Limits for start values, whose lenses are not refined yet."""
    return replace(
        limits,
        bump_px=max(5.0, limits.bump_px),
        bump_effect=max(4.0, limits.bump_effect),
        factory_shift_m=5 * limits.factory_shift_m,
        factory_turn_rad=3 * limits.factory_turn_rad,
        factory_baseline=5 * limits.factory_baseline,
    )


def _rough_lenses(
    recording: RigRecording,
    seen: Mapping[str, tuple[BoardView, ...]],
    lenses: Mapping[str, Intrinsics],
    settings: SolveSettings,
) -> dict[str, Intrinsics]:
    def fitted(stream: str) -> Intrinsics:
        return rough_lens(seen[stream], recording.boards, lenses[stream])

    with ThreadPoolExecutor(settings.threads) as pool:
        return dict(zip(seen, pool.map(fitted, seen), strict=True))


def _choices(
    recording: RigRecording,
    problem: BundleProblem,
    solution: BundleSolution,
    lenses: Mapping[str, Intrinsics],
    settings: SolveSettings,
) -> dict[str, LensChoice]:
    def choose(stream: str) -> LensChoice:
        factory = lenses[stream] if stream in recording.factory else None
        sight = sight_of_stream(solution, recording.boards, problem.views, stream)
        return choose_intrinsics(sight, factory, settings.folds)

    with ThreadPoolExecutor(settings.threads) as pool:
        return dict(zip(solution.streams, pool.map(choose, solution.streams), strict=True))


def _problem(
    recording: RigRecording,
    start: RigStart,
    fitted: tuple[BoardView, ...],
    chosen: Mapping[str, Intrinsics],
    settings: SolveSettings,
) -> BundleProblem:
    places = {view.place for view in fitted}
    depth = [_recounted(tiles, recording, chosen) for tiles in recording.depth if f"depth:{tiles.serial}" in chosen]
    return BundleProblem(
        boards=recording.boards,
        views=fitted,
        streams=chosen,
        T_cell_stream={stream: start.T_cell_stream[stream] for stream in chosen},
        T_cell_board={place: start.T_cell_board[place] for place in places},
        origin=start.origin,
        depth=tuple(tiles for tiles in depth if tiles.place in places),
        baselines_m={s: b for s, b in recording.baselines_m.items() if f"depth:{s}" in chosen},
        board_scale_u=settings.board_scale_u,
    )


def _recounted(tiles: DepthTiles, recording: RigRecording, lenses: Mapping[str, Intrinsics]) -> DepthTiles:
    """Disparities counted with another focal length than the factory's."""
    stream = f"depth:{tiles.serial}"
    if stream not in recording.factory:
        raise DepthcellError(
            f"depth of camera {tiles.serial}: needs factory intrinsics of {stream}, with which it counts"
        )
    ratio = lenses[stream].fx_px / recording.factory[stream].fx_px
    return replace(tiles, disparity_px=tiles.disparity_px * ratio, sigma_px=tiles.sigma_px * ratio)


def _standing(recording: RigRecording, start: RigStart, lenses: Mapping[str, Intrinsics]) -> StandingRig:
    return StandingRig(
        recording.boards,
        start.views,
        lenses,
        {s: T for s, T in start.T_cell_stream.items() if s not in start.factory_tied},
        start.T_cell_board,
        recording.T_color_depth,
        recording.depth,
        {s: recording.factory[f"depth:{s}"].fx_px * b for s, b in recording.baselines_m.items()},
    )


def _solved(recording: RigRecording, start: RigStart, solution: BundleSolution) -> StandingRig:
    """The rig as adjusted, boards that were held out standing where they started."""
    standing = _standing(recording, start, solution.streams)
    boards = {**start.T_cell_board, **solution.T_cell_board}
    return replace(standing, T_cell_stream=solution.T_cell_stream, T_cell_board=boards)


def _validated(
    recording: RigRecording,
    start: RigStart,
    problem: BundleProblem,
    solution: BundleSolution,
    settings: SolveSettings,
) -> Validation:
    fitted = {view.instant for view in problem.views}
    rest = [view for view in start.views if view.instant not in fitted and view.stream in solution.streams]
    places = [
        refit_place(solution, recording.boards, views, start.T_cell_board[place])
        for place, views in by_place(rest).items()
    ]
    poses = {place.views[0].place: place.T_cell_board for place in places}
    focal_baseline_m = {s: solution.streams[f"depth:{s}"].fx_px * b for s, b in problem.baselines_m.items()}
    depth = [
        _recounted(tiles, recording, solution.streams) for tiles in recording.depth if tiles.serial in focal_baseline_m
    ]
    halves = Halves((), float("nan"), "not asked for")
    if settings.compare_halves:
        halves = compare_halves(problem, solution, settings.bundle)
    return Validation(
        check_streams(solution, problem.views, places),
        check_depth(solution, recording.boards, depth, poses, focal_baseline_m),
        check_lengths(solution, recording.boards, places),
        halves,
        tuple(sorted({view.instant for view in rest})),
    )


def _tied_poses(start: RigStart, solution: BundleSolution, recording: RigRecording) -> dict[str, RigidTransform]:
    return {
        stream: factory_pose(stream, solution.T_cell_stream, recording.T_color_depth) for stream in start.factory_tied
    }
