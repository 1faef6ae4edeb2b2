"""`depthcell verify --drift`: a minute of any body before the cameras, and whether the cell is still what it was."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import CameraFrame, FrameSet
from depthcell.acquisition.partfolder import find_parts
from depthcell.calib.cell import Cell
from depthcell.calib.target.board import Board
from depthcell.calib.target.detect import detect, grey_of
from depthcell.calib.verify.acceptance_points import SurfacePoints
from depthcell.calib.verify.artefact import (
    Artefact,
    BallBar,
    BoardArtefact,
    Plate,
    Sphere,
    StepGauge,
    load_artefact,
    parse_artefact,
)
from depthcell.calib.verify.drift import DriftCheck, DriftReference, Sighting, check_drift, reference_path
from depthcell.calib.verify.drift_sighting import (
    BoardSeen,
    board_turn,
    plate_middle,
    sighting_of_board,
    sighting_of_plate,
    sighting_of_spheres,
)
from depthcell.calib.verify.drift_trend import FEWEST_FRAMES, DepthTrend, depth_trend
from depthcell.calib.verify.health import DECISIONS, VALID_DAYS, HealthCheck, HealthRecord, add_record, health_record
from depthcell.errors import DepthcellError
from depthcell.fusion.fuse import PartAccumulator
from depthcell.inspect.placements import SETTINGS, points_of_view

FIRST_FRAMES = 4
"""Depth is compared with the mean of so many."""
BOARD_FRAMES = 4
NEGLIGIBLE_JUMP_SHARE = 0.5
"""A step in depth below this share of the cell's own uncertainty of scale is left to the comparison of cameras."""
MINUTES_AHEAD = 10.0
"""A drift matters if depth would leave the cell's stated scale within this time."""
LEAST_SCALE_U = 1e-4

Frame = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class DriftPlan:
    """What to check.

    Attributes:
        cell: cell file.
        source: one recording of each camera.
        artefact: as on the command line; None reads `artefact.toml` beside the recordings.
        reference: record a new reference instead of checking against the old one.
        valid_days: how long the check holds.
        keep: whether the outcome goes into the cell's health file.
    """

    cell: Path
    source: Path
    artefact: str | None = None
    reference: bool = False
    valid_days: float = VALID_DAYS
    keep: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class DriftResult:
    """What came of it.

    Attributes:
        check: cameras against each other.
        trends: of each camera's depth; empty where the recording is too short.
        notes: what a person should know.
        record: what goes into the cell's health; None where a reference was recorded.
    """

    check: DriftCheck
    trends: tuple[DepthTrend, ...]
    notes: tuple[str, ...]
    record: HealthRecord | None

    @property
    def passed(self) -> bool:
        """Whether nothing moved, jumped or still warms up."""
        return self.check.passed and not any(trend.jumped or trend.is_running for trend in self.trends)

    @property
    def exit_code(self) -> int:
        """Of the command: 0 if nothing moved, else 1."""
        return 0 if self.passed else 1


def run_drift(plan: DriftPlan, absorbed: Callable[[], None] = lambda: None) -> DriftResult:
    """Check the cell on one recording, or record what later ones are compared with.

    Args:
        plan: what to check.
        absorbed: called after each frame set.

    Raises:
        DepthcellError: cell, artefact or recording cannot be used, or fewer than two cameras see the body.
    """
    cell = Cell.load(plan.cell)
    artefact = parse_artefact(plan.artefact) if plan.artefact is not None else load_artefact(plan.source)
    scene = _Scene(cell, isinstance(artefact, BoardArtefact))
    for frameset in find_parts(plan.source)[0].framesets(tuple(cell.cameras)):
        scene.add(frameset)
        absorbed()
    path = reference_path(plan.cell)
    reference = DriftReference.load(path) if path.is_file() and not plan.reference else None
    if reference is not None and reference.artefact != _named(artefact):
        reference = None
    sightings, frame, notes = _sightings(artefact, scene, cell, None if reference is None else reference.frame)
    check = check_drift(sightings, cell, reference)
    trends, more = scene.trends()
    now = datetime.now(UTC)
    if plan.reference:
        DriftReference.of(sightings, cell, _named(artefact), now.isoformat(timespec="seconds"), frame).save(path)
        return DriftResult(check, trends, (*notes, *more, f"reference written: {path}"), None)
    record = _record(plan, check, trends, now)
    if plan.keep:
        add_record(cell, plan.cell, record)
    return DriftResult(check, trends, (*notes, *more), record)


class _Scene:
    """All frames of a recording: depth averaged, its course over time, and the first pictures."""

    def __init__(self, cell: Cell, is_board: bool) -> None:
        self.cell = cell
        self.pictures: dict[str, list[NDArray[np.uint8]]] = {serial: [] for serial in cell.cameras}
        self._is_board = is_board
        self._accumulator = PartAccumulator(cell, SETTINGS)
        self._first: dict[str, list[NDArray[np.float32]]] = {serial: [] for serial in cell.cameras}
        self._courses: dict[str, list[tuple[float, float]]] = {serial: [] for serial in cell.cameras}

    def add(self, frameset: FrameSet) -> None:
        """Absorb one instant."""
        self._accumulator.add(frameset)
        for serial, frame in frameset.frames.items():
            picture = _picture(frame)
            if self._is_board and picture is not None and len(self.pictures[serial]) < BOARD_FRAMES:
                self.pictures[serial].append(picture)
            if frame.depth is not None:
                self._follow(serial, frame.depth.depth_m, frame.depth.timestamp_ns / 1e9)

    def points(self) -> dict[str, SurfacePoints]:
        """What each camera measured alone."""
        return {view.serial: points_of_view(view) for view in self._accumulator.fuse().views if view.valid.any()}

    def trends(self) -> tuple[tuple[DepthTrend, ...], tuple[str, ...]]:
        """The course of each camera's depth, and what could not be told."""
        trends, notes = [], []
        for serial, course in self._courses.items():
            if len(course) < FEWEST_FRAMES:
                notes.append(f"camera {serial}: too short a recording to see whether it still warms up")
                continue
            times_s, depths = np.array(course).T
            scale_u = max(self.cell.camera(serial).u("scale"), LEAST_SCALE_U)
            trends.append(
                depth_trend(serial, times_s, depths, scale_u / MINUTES_AHEAD, NEGLIGIBLE_JUMP_SHARE * scale_u)
            )
        return tuple(trends), tuple(notes)

    def _follow(self, serial: str, depth_m: NDArray[np.float32], time_s: float) -> None:
        first = self._first[serial]
        if len(first) < FIRST_FRAMES:
            first.append(depth_m)
            if len(first) == FIRST_FRAMES:
                first[:] = [np.mean(first, axis=0)] * FIRST_FRAMES
            return
        ratio = depth_m / first[0]
        known = ratio[np.isfinite(ratio)]
        if len(known):
            self._courses[serial].append((time_s, float(np.median(known))))


def _sightings(
    artefact: Artefact, scene: _Scene, cell: Cell, frame: Frame | None
) -> tuple[dict[str, Sighting], Frame, tuple[str, ...]]:
    """Where each camera finds the body, from where that is counted, and which cameras do not find it."""
    if isinstance(artefact, BoardArtefact):
        return _boards(Board.parse(artefact.board), scene, cell, frame)
    sightings: dict[str, Sighting] = {}
    notes: list[str] = []
    for serial, points in scene.points().items():
        try:
            match artefact:
                case Sphere():
                    sightings[serial] = sighting_of_spheres(points, (artefact.diameter_m,), cell)
                case BallBar():
                    sightings[serial] = sighting_of_spheres(points, artefact.diameters_m, cell)
                case Plate():
                    x, y, z = (float(v) for v in plate_middle(points, artefact.size_m)) if frame is None else frame
                    frame = (x, y, z)
                    sightings[serial] = sighting_of_plate(points, artefact.size_m, np.array(frame), cell)
                case StepGauge():
                    raise DepthcellError(
                        "drift: a step gauge slides along itself unseen; take a sphere, plate or board"
                    )
        except DepthcellError as error:
            if isinstance(artefact, StepGauge):
                raise
            notes.append(f"camera {serial}: {error}")
    return sightings, frame or (0.0, 0.0, 0.0), tuple(notes)


def _boards(
    board: Board, scene: _Scene, cell: Cell, frame: Frame | None
) -> tuple[dict[str, Sighting], Frame, tuple[str, ...]]:
    sightings: dict[str, Sighting] = {}
    notes: list[str] = []
    for serial, pictures in scene.pictures.items():
        try:
            seen = _board_seen(serial, pictures, board)
            if frame is None:
                x, y, z = (float(v) for v in board_turn(seen, board, cell))
                frame = (x, y, z)
            sightings[serial] = sighting_of_board(seen, board, np.array(frame), cell)
        except DepthcellError as error:
            notes.append(str(error))
    return sightings, frame or (0.0, 0.0, 0.0), tuple(notes)


def _board_seen(serial: str, pictures: list[NDArray[np.uint8]], board: Board) -> BoardSeen:
    """Features that all pictures show, where they are on average."""
    if not pictures:
        raise DepthcellError(
            f"camera {serial}: recorded no infrared picture, by which a board is seen; record one, or use a sphere"
        )
    found = [detect(board, picture) for picture in pictures]
    common = found[0].ids
    for one in found[1:]:
        common = np.intersect1d(common, one.ids)
    if not len(common):
        raise DepthcellError(f"camera {serial}: does not see the board {board.spec}")
    pixels = np.mean([one.pixels[np.isin(one.ids, common)] for one in found], axis=0)
    # What a detector errs by stays from frame to frame, so that averaging is not taken to help.
    return BoardSeen(serial, common, pixels, max(one.sigma_px for one in found))


def _picture(frame: CameraFrame) -> NDArray[np.uint8] | None:
    """The left imager's picture; of a camera whose colour comes from that imager, the colour picture."""
    if frame.infrared is not None:
        return frame.infrared.intensity
    is_left = frame.T_color_depth is not None and np.array_equal(frame.T_color_depth.matrix, np.eye(4))
    return grey_of(frame.color.rgb) if frame.color is not None and is_left else None


def _record(plan: DriftPlan, check: DriftCheck, trends: tuple[DepthTrend, ...], now: datetime) -> HealthRecord:
    bad = [trend for trend in trends if trend.jumped or trend.is_running]
    statistic, limit = check.statistic, check.limit
    checks = [
        HealthCheck("cameras against each other (chi²)", statistic, None, limit, "1", DECISIONS[check.passed]),
        *(
            HealthCheck(
                f"offset of camera {shift.serial}",
                shift.size_m * 1e3,
                shift.u_m * 1e3,
                None,
                "mm",
                DECISIONS[shift.serial not in check.moved],
            )
            for shift in check.shifts
        ),
        *(
            HealthCheck(
                f"course of depth, camera {trend.serial}",
                trend.slope_per_min * 1e6,
                trend.u_slope_per_min * 1e6,
                trend.negligible_per_min * 1e6,
                "ppm/min",
                DECISIONS[trend not in bad],
            )
            for trend in trends
        ),
    ]
    said = [check.in_words] if not check.passed or not bad else []
    return health_record(
        "drift",
        passed=check.passed and not bad,
        checks=tuple(checks),
        summary="; ".join((*said, *(trend.in_words for trend in bad))),
        source=str(plan.source),
        now=now,
        valid_days=plan.valid_days,
    )


def _named(artefact: Artefact) -> str:
    """The body, so that a reference of another one is not taken for this one's."""
    return artefact.model_dump_json(exclude={"frames_per_placement", "certificate"})
