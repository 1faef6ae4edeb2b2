"""The three checks of `depthcell verify` as a person asks for them: progress, table, picture, health file."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from depthcell.calib.cell import Cell
from depthcell.calib.health import VALID_DAYS, add_record
from depthcell.calib.onchip import on_chip_health, on_chip_record
from depthcell.errors import DepthcellError
from depthcell.inspect.drift_run import DriftPlan, DriftResult, run_drift
from depthcell.inspect.terminal import wide_console
from depthcell.inspect.verification import VerifyPlan, as_json, verify
from depthcell.inspect.verification_view import draw_verification, print_drift, print_verification

PICTURE_FILE = "deviations.png"
DRIFT_VALID_DAYS = 1.0
"""A drift check says little about the day after."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the verb.

    Attributes:
        cell: cell file.
        source: recordings; None where none are needed.
        artefact, limits, out: as in `VerifyPlan`.
        valid_days: how long the check holds; None takes what is usual for it.
        keep: whether the outcome goes into the cell's health file.
        as_json: whether a program listens.
    """

    cell: Path
    source: Path | None
    artefact: str | None
    limits: tuple[str, ...]
    valid_days: float | None
    out: Path | None
    keep: bool
    as_json: bool

    @property
    def recordings(self) -> Path:
        """The folder of recordings.

        Raises:
            DepthcellError: none was named.
        """
        if self.source is None:
            raise DepthcellError("verify: name the folder of recordings of the artefact, such as runs/cal/plate")
        return self.source


def verify_artefact(asked: Asked) -> bool:
    """Test on a certified artefact; whether the cell passed."""
    plan = VerifyPlan(
        asked.cell,
        asked.recordings,
        asked.artefact,
        asked.limits,
        asked.out,
        VALID_DAYS if asked.valid_days is None else asked.valid_days,
        asked.keep,
    )
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("verify", total=None)
        result = verify(plan, lambda _name: progress.advance(task))
    picture = result.folder / PICTURE_FILE
    draw_verification(result, picture)
    if asked.as_json:
        print(as_json(result))
    else:
        print_verification(result, wide_console())
    notes.print(f"results: {picture}", markup=False)
    return result.passed is True


def verify_drift(asked: Asked, reference: bool) -> bool:
    """Check whether the cameras still agree, or record what later checks compare with; whether the cell passed."""
    plan = DriftPlan(
        asked.cell,
        asked.recordings,
        asked.artefact,
        reference,
        DRIFT_VALID_DAYS if asked.valid_days is None else asked.valid_days,
        asked.keep,
    )
    notes = Console(stderr=True, highlight=False)
    with notes.status("looking at the artefact"):
        result = run_drift(plan)
    if asked.as_json:
        print(json.dumps(_drift_told(result), indent=2))
    else:
        print_drift(result, wide_console())
    return result.passed


def _drift_told(result: DriftResult) -> dict[str, object]:
    """For programs, lengths in millimetres."""
    return {
        "passed": result.passed,
        "moved": list(result.check.moved),
        "cameras": [
            {"serial": shift.serial, "shift_mm": 1e3 * shift.size_m, "u_mm": 1e3 * shift.u_m}
            for shift in result.check.shifts
        ],
        "notes": list(result.notes),
    }


def verify_on_chip(asked: Asked, serial: str) -> bool:
    """Ask a connected camera for its own health; whether it is good."""
    cell = Cell.load(asked.cell)
    cell.camera(serial)
    notes = Console(stderr=True, highlight=False)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("on-chip calibration", total=100.0)
        found = on_chip_health(serial, progress=lambda percent: progress.update(task, completed=percent))
    record = on_chip_record(found, VALID_DAYS if asked.valid_days is None else asked.valid_days)
    if asked.keep:
        add_record(cell, asked.cell, record)
    if asked.as_json:
        print(json.dumps({"serial": serial, "health": found.health, "passed": found.passed}))
    else:
        print(found.in_words)
    return found.passed is True
