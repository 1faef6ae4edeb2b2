"""A cell that is not known to be healthy cannot issue OK: what stands against it becomes missing evidence."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from depthcell.calib.cell import Cell
from depthcell.calib.verify.health import CellHealth, load_health
from depthcell.errors import DepthcellError
from depthcell.inspect.recipe import CellSection


def utc_now() -> datetime:
    """The time now."""
    return datetime.now(UTC)


class CellGate:
    """Watches a cell's health file and its age while parts are judged.

    The file is read again whenever it changes, so that a check that fails between two parts stops the second.

    Args:
        cell: that judges.
        section: what the recipe asks of it.
        path: of the health file, which need not exist.
        now: clock, for tests.
    """

    def __init__(self, cell: Cell, section: CellSection, path: Path, now: Callable[[], datetime] = utc_now) -> None:
        self.path = path
        self._cell_sha256 = cell.sha256
        self._calibrated_at = cell.calibrated_at
        self._section = section
        self._now = now
        self._stamp: tuple[int, int] | None = None
        self._health: CellHealth | None = None
        self._unreadable: str | None = None

    def gaps(self) -> tuple[str, ...]:
        """Why the cell may not say OK now, in words; empty where it may."""
        return (*self._calibration_gaps(), *self._health_gaps())

    def _calibration_gaps(self) -> tuple[str, ...]:
        days = self._section.valid_days
        if days is None:
            return ()
        try:
            calibrated_at = datetime.fromisoformat(self._calibrated_at)
            until = calibrated_at + timedelta(days=days)
            is_stale = self._now() > until
        except (ValueError, TypeError, OverflowError):
            return (f"when the cell was calibrated is not known ('{self._calibrated_at}'), and the recipe asks for it",)
        if not is_stale:
            return ()
        return (
            f"the cell's calibration is stale: of {self._calibrated_at}, good for {days:g} days; calibrate it anew",
        )

    def _health_gaps(self) -> tuple[str, ...]:
        self._refresh()
        if self._unreadable is not None:
            return (f"the cell's health is not known: {self._unreadable}",)
        if self._health is None:
            if self._section.health == "required" or self._section.max_age_days is not None:
                return (f"the cell was never checked, and the recipe asks for it: run depthcell verify ({self.path})",)
            return ()
        complaints = self._health.complaints(self._cell_sha256, self._now())
        checked_at, days = self._health.checked_at, self._section.max_age_days
        if complaints or checked_at is None or days is None or self._now() - checked_at <= timedelta(days=days):
            return complaints
        last = checked_at.isoformat(timespec="seconds")
        return (f"the cell was last checked at {last}, the recipe asks for every {days:g} days: run depthcell verify",)

    def _refresh(self) -> None:
        """Read the file if it is not the one that was read last, or could not be read then."""
        try:
            found = self.path.stat()
        except OSError as error:
            self._health = None
            self._unreadable = None if isinstance(error, FileNotFoundError) else f"{self.path}: {error.strerror}"
            return
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp and self._health is not None:
            return
        self._stamp, self._health, self._unreadable = stamp, None, None
        try:
            self._health = load_health(self.path)
        except DepthcellError as error:
            self._unreadable = str(error)
