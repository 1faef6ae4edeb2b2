"""What is known of a cell's health: the checks made since it was calibrated, in a sealed file beside the cell file.

`cell.json` has its health in `cell.health.json`. Each kind of check has one record there, the latest; a failed one
stands until the same check passes. Checks of another cell, or of this one before it was calibrated anew, do not count.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from depthcell import __version__
from depthcell.calib.cell import Cell
from depthcell.calib.seal import Seal, sign, verify
from depthcell.errors import DepthcellError, Reason
from depthcell.files import write_text
from depthcell.jsontext import canonical_json

PURPOSE = "cell health"
VALID_DAYS = 30.0
"""How long a check holds unless somebody says otherwise; how fast a cell drifts, its history will tell."""

CheckDecision = Literal["pass", "fail", "cannot-tell"]
DECISIONS: dict[bool | None, CheckDecision] = {True: "pass", False: "fail", None: "cannot-tell"}


class HealthCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One value that was checked.

    Attributes:
        name: what, where and by which camera, in words.
        value: the result in `unit`; None where nothing could be measured.
        u: its standard uncertainty as the cell states it.
        limit: largest permissible size of the value; None where there is none.
        unit: of all three.
        decision: pass, fail or cannot-tell.
    """

    name: str
    value: float | None
    u: float | None
    limit: float | None
    unit: str
    decision: CheckDecision


class HealthRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One check of the cell.

    Attributes:
        test: kind of check, such as "acceptance on a sphere", "drift" or "on-chip self-calibration".
        checked_at, valid_until: ISO 8601, UTC.
        passed: whether every value passed.
        checks: the values, those that decide first.
        summary: the outcome in one line.
        source: what was looked at: folder of the recording, or serial number.
    """

    test: str
    checked_at: str
    valid_until: str
    passed: bool
    checks: tuple[HealthCheck, ...]
    summary: str
    source: str


class CellHealth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that is known of one cell's health.

    Attributes:
        schema_version: of this file.
        cell_sha256: which cell, see `Cell.sha256`.
        records: latest check of each kind.
        software: that wrote this.
        seal: over all the rest; None only while it is being written.
    """

    schema_version: Literal[1]
    cell_sha256: str
    records: tuple[HealthRecord, ...]
    software: str
    seal: Seal | None = None

    def complaints(self, cell_sha256: str, now: datetime) -> tuple[str, ...]:
        """Why the cell may not be relied on, in words; empty where it may.

        Args:
            cell_sha256: of the cell that is asked about.
            now: with zone.
        """
        if cell_sha256 != self.cell_sha256:
            return (
                f"the health record belongs to another cell ({self.cell_sha256[:12]}, this one is {cell_sha256[:12]}): "
                "run depthcell verify on this cell",
            )
        if not self.records:
            return ("the health record holds no check: run depthcell verify",)
        failed = [f"the cell failed its check '{r.test}': {r.summary}" for r in self.records if not r.passed]
        expired = [
            f"the check '{r.test}' of the cell held until {r.valid_until}: run depthcell verify again"
            for r in self.records
            if r.passed and now > _time(r.valid_until)
        ]
        return (*failed, *expired)

    @property
    def checked_at(self) -> datetime | None:
        """When the cell was last checked; None without a check."""
        return max((_time(record.checked_at) for record in self.records), default=None)


def health_path(cell_path: Path) -> Path:
    """Where the health of a cell file is kept."""
    return cell_path.with_suffix(".health.json")


def health_record(
    test: str,
    *,
    passed: bool,
    checks: tuple[HealthCheck, ...],
    summary: str,
    source: str,
    now: datetime | None = None,
    valid_days: float = VALID_DAYS,
) -> HealthRecord:
    """A check made now.

    Raises:
        DepthcellError: `valid_days` is not positive.
    """
    if not 0 < valid_days < 36500:
        raise DepthcellError(f"--valid-days {valid_days:g}: must be above 0")
    now = now or datetime.now(UTC)
    until = now + timedelta(days=valid_days)
    return HealthRecord(test, _text(now), _text(until), passed, checks, summary, source)


def add_record(cell: Cell, cell_path: Path, record: HealthRecord) -> CellHealth:
    """Put a check into the cell's health file, in place of the earlier one of its kind; returns what it now holds.

    A file of another cell is replaced; so is one whose seal does not fit, since nothing in it can be believed.

    Raises:
        DepthcellError: the file cannot be written, or this station has no usable key.
    """
    path = health_path(cell_path)
    earlier: tuple[HealthRecord, ...] = ()
    if path.is_file():
        try:
            kept = load_health(path)
            earlier = kept.records if kept.cell_sha256 == cell.sha256 else ()
        except DepthcellError:
            earlier = ()
    records = (*(one for one in earlier if one.test != record.test), record)
    health = CellHealth(1, cell.sha256, records, f"depthcell {__version__}")
    health = msgspec.structs.replace(health, seal=sign(PURPOSE, _sealed_bytes(msgspec.json.encode(health))))
    try:
        write_text(path, msgspec.json.format(msgspec.json.encode(health), indent=2).decode() + "\n")
    except OSError as error:
        raise DepthcellError(f"health {path}: cannot be written ({error.strerror})") from error
    return health


def load_health(path: Path) -> CellHealth:
    """Read a health file.

    Raises:
        DepthcellError: it is missing or no such file, or its seal is missing, does not fit or is not trusted.
    """
    try:
        text = path.read_bytes()
        health = msgspec.json.decode(text, type=CellHealth)
        for text_of_time in (time for record in health.records for time in (record.checked_at, record.valid_until)):
            _time(text_of_time)
    except OSError as error:
        raise DepthcellError(f"health {path}: cannot be read ({error.strerror})", Reason.CELL_INVALID) from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise DepthcellError(f"health {path}: {error}; run depthcell verify again", Reason.CELL_INVALID) from error
    if health.seal is None:
        raise DepthcellError(f"health {path}: seal: is missing; run depthcell verify again", Reason.CELL_INVALID)
    try:
        verify(health.seal, PURPOSE, _sealed_bytes(text))
    except DepthcellError as error:
        raise DepthcellError(f"health {path}: {error}; run depthcell verify again", Reason.CELL_INVALID) from error
    return health


def _sealed_bytes(text: bytes) -> bytes:
    content = msgspec.json.decode(text)
    content.pop("seal", None)
    return canonical_json(content)


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds")


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"time '{text}' must have a zone")
    return time
