"""`depthcell verify`: recordings of a certified artefact become a judged test, and a record of the cell's health."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from depthcell import __version__
from depthcell.acquisition.partfolder import INSPECTIONS_FOLDER
from depthcell.calib.cell import Cell
from depthcell.calib.verify.acceptance import MERGED, Limits, Tested, judged, outcome, worst
from depthcell.calib.verify.acceptance_evaluation import Evaluated, evaluate
from depthcell.calib.verify.artefact import Artefact, BoardArtefact, load_artefact, parse_artefact
from depthcell.calib.verify.health import DECISIONS, VALID_DAYS, HealthCheck, HealthRecord, add_record, health_record
from depthcell.errors import DepthcellError
from depthcell.files import write_text
from depthcell.inspect.placements import Placement, read_placements

RESULT_FILE = "verification.json"
FEW_PLACEMENTS = 3
SEED = 20260
"""Of what is drawn to say how large a range should be: the same recording is judged the same twice."""


@dataclass(frozen=True, slots=True)
class VerifyPlan:
    """What to verify.

    Attributes:
        cell: cell file.
        source: recordings of the artefact.
        artefact: as on the command line; None reads `artefact.toml` beside the recordings.
        limits: as on the command line, such as "PS=0.1mm".
        out: folder for the results; None makes one among the recordings.
        valid_days: how long the check holds.
        keep: whether the outcome goes into the cell's health file.
    """

    cell: Path
    source: Path
    artefact: str | None = None
    limits: tuple[str, ...] = ()
    out: Path | None = None
    valid_days: float = VALID_DAYS
    keep: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One placement as one source saw it, for pictures and for the history."""

    placement: str
    source: str
    evaluated: Evaluated


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """A cell tested on one artefact.

    Attributes:
        cell: that was tested.
        artefact: on which.
        placements: how many.
        tested: every value, in the order of placements.
        failures: what failed that is no value, in words.
        notes: what a person should know, in words.
        shown: what the values were drawn from.
        record: what goes into the cell's health.
        folder: where the results are.
    """

    cell: Cell
    artefact: Artefact
    placements: int
    tested: tuple[Tested, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    shown: tuple[Shown, ...]
    record: HealthRecord
    folder: Path

    @property
    def passed(self) -> bool | None:
        """Whether the cell passed; None where it cannot be decided."""
        return False if self.failures else outcome(self.tested)

    @property
    def exit_code(self) -> int:
        """Of the command: 0 if the cell passed, else 1."""
        return 0 if self.passed else 1


@dataclass
class _Found:
    """What has been evaluated so far."""

    shown: list[Shown] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    placements: int = 0


def verify(plan: VerifyPlan, done: Callable[[str], None] = lambda _: None) -> Verification:
    """Test the cell on every placement, write the results, and keep the outcome in the cell's health file.

    Args:
        plan: what to verify.
        done: called with the name of each placement that was evaluated.

    Raises:
        DepthcellError: cell, artefact, limits or recordings cannot be used, or the artefact is nowhere to be found.
    """
    cell, limits = Cell.load(plan.cell), Limits.parse(plan.limits)
    artefact = parse_artefact(plan.artefact) if plan.artefact is not None else load_artefact(plan.source)
    if isinstance(artefact, BoardArtefact):
        raise DepthcellError("a board has no certified shape; it serves the drift check: depthcell verify --drift")
    found = _Found()
    for placement in read_placements(plan.source, cell, artefact.frames_per_placement):
        _evaluate(placement, artefact, cell, found)
        done(placement.name)
    if not found.shown:
        raise DepthcellError(
            f"{plan.source}: the {artefact.kind} was found at no placement; {'; '.join(found.notes[:3])}"
        )
    values = [
        replace(value, source=one.source, placement=one.placement)
        for one in found.shown
        for value in one.evaluated.values
    ]
    tested = judged(values, limits)
    if found.placements < FEW_PLACEMENTS:
        found.notes.append(
            f"{found.placements} placement(s) say little of the whole work volume; use {FEW_PLACEMENTS} or more"
        )
    passed = False if found.failures else outcome(tested)
    now = datetime.now(UTC)
    record = _record(plan, artefact, tested, tuple(found.failures), passed, now)
    folder = plan.out or _results_folder(plan.source, now)
    result = Verification(
        cell,
        artefact,
        found.placements,
        tested,
        tuple(found.failures),
        tuple(found.notes),
        tuple(found.shown),
        record,
        folder,
    )
    _write(folder / RESULT_FILE, as_json(result))
    if plan.keep:
        add_record(cell, plan.cell, record)
    return result


def as_json(result: Verification) -> str:
    """The result for programs, lengths in millimetres."""
    return json.dumps(
        {
            "passed": result.passed,
            "cell": result.cell.name,
            "cell_sha256": result.cell.sha256,
            "artefact": result.artefact.model_dump(mode="json"),
            "placements": result.placements,
            "worst": [_told(one) for one in worst(result.tested)],
            "tested": [_told(one) for one in result.tested],
            "failures": list(result.failures),
            "notes": list(result.notes),
            "checked_at": result.record.checked_at,
            "valid_until": result.record.valid_until,
            "software": f"depthcell {__version__}",
        },
        indent=2,
    )


def _evaluate(placement: Placement, artefact: Artefact, cell: Cell, found: _Found) -> None:
    """Evaluate every source of a placement; what cannot be found is a note, or a failure of the merged cloud."""
    rng = np.random.default_rng((SEED, found.placements))
    found.placements += 1
    found.notes += [f"{placement.name}: {warning}" for warning in placement.fused.warnings]
    seen_alone = 0
    for source, points in placement.sources().items():
        try:
            evaluated = evaluate(artefact, points, cell, rng)
        except DepthcellError as error:
            if source == MERGED and seen_alone > 1:
                found.failures.append(f"{placement.name}: cameras see it apart, so that merged {error}")
            elif source != MERGED:
                found.notes.append(f"{placement.name}, camera {source}: {error}")
            continue
        seen_alone += source != MERGED
        found.shown.append(Shown(placement.name, source, evaluated))


def _record(
    plan: VerifyPlan,
    artefact: Artefact,
    tested: tuple[Tested, ...],
    failures: tuple[str, ...],
    passed: bool | None,
    now: datetime,
) -> HealthRecord:
    deciding = sorted(worst(tested), key=lambda one: (one.passed is not False, one.passed is not None, -one.exhausted))
    summary = failures[0] if failures else deciding[0].in_words
    return health_record(
        f"acceptance on a {artefact.kind.replace('_', ' ')}",
        passed=passed is True,
        checks=tuple(_health_check(one) for one in deciding),
        summary=summary,
        source=str(plan.source),
        now=now,
        valid_days=plan.valid_days,
    )


def _health_check(one: Tested) -> HealthCheck:
    value = one.value
    name = " ".join(filter(None, (value.characteristic.in_words, value.source, value.placement, value.detail)))
    value_mm, u_mm, limit_mm = (round(length_m * 1e3, 5) for length_m in (value.value_m, value.u_m, one.limit_m))
    return HealthCheck(name, value_mm, u_mm, limit_mm, "mm", DECISIONS[one.passed])


def _told(one: Tested) -> dict[str, object]:
    value = one.value
    lengths_m = {
        "value_mm": value.value_m,
        "expected_mm": value.expected_m,
        "u_mm": value.u_m,
        "u_test_mm": value.u_test_m,
        "u_noise_mm": value.u_noise_m,
        "u_certificate_mm": value.u_certificate_m,
        "u_cell_mm": value.u_cell_m,
        "limit_mm": one.limit_m,
    }
    return {
        "characteristic": value.characteristic.value,
        "source": value.source,
        "placement": value.placement,
        "detail": value.detail,
        **{name: round(length_m * 1e3, 6) for name, length_m in lengths_m.items()},
        "limit_from": "stated" if one.limit_is_stated else "cell",
        "decision": DECISIONS[one.passed],
        "points": value.points,
    }


def _results_folder(source: Path, now: datetime) -> Path:
    """A new folder among the recordings, where no part is looked for."""
    parent = (source if source.is_dir() else source.parent) / INSPECTIONS_FOLDER
    names: Iterator[str] = (
        f"verify-{now:%Y%m%dT%H%M%SZ}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 1000)))
    )
    return next(parent / name for name in names if not (parent / name).exists())


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise DepthcellError(f"{path}: cannot be written ({error.strerror}); name another folder with --out") from error
