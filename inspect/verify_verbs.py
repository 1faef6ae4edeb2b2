"""What `depthcell verify` does, in its three forms: each does the work, says what came of it, gives the exit code."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress

from depthcell.calib.cell import Cell
from depthcell.calib.verify.health import VALID_DAYS, add_record
from depthcell.calib.verify.onchip import on_chip_health, on_chip_record
from depthcell.inspect.drift_run import DriftPlan, DriftResult, run_drift
from depthcell.inspect.terminal import wide_console
from depthcell.inspect.verification import VerifyPlan, as_json, verify
from depthcell.inspect.verification_view import PICTURE_FILE, draw_verification, print_drift, print_verification


def verify_verb(plan: VerifyPlan, *, json_wanted: bool = False) -> int:
    """Acceptance on a certified artefact: 0 if the cell passed, 1 if not.

    Raises:
        DepthcellError: see `verify`.
    """
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("verify", total=None)
        result = verify(plan, lambda name: progress.update(task, description=f"verify {name}"))
    picture = result.folder / PICTURE_FILE
    draw_verification(result, picture)
    if json_wanted:
        print(as_json(result))
    else:
        print_verification(result, wide_console())
    notes.print(f"results: {picture}", markup=False)
    return result.exit_code


def drift_verb(plan: DriftPlan, *, json_wanted: bool = False) -> int:
    """Drift check on any small body: 0 if nothing moved, 1 if something did.

    Raises:
        DepthcellError: see `run_drift`.
    """
    result = run_drift(plan)
    if json_wanted:
        print(_drift_json(result))
    else:
        print_drift(result, wide_console())
    return result.exit_code


def on_chip_verb(cell_path: Path, serial: str, *, valid_days: float = VALID_DAYS, json_wanted: bool = False) -> int:
    """The health a connected camera of this cell states of itself: 0 if good, 1 if not.

    Raises:
        DepthcellError: the cell has no such camera, or see `on_chip_health`.
    """
    cell = Cell.load(cell_path)
    cell.camera(serial)
    found = on_chip_health(serial)
    add_record(cell, cell_path, on_chip_record(found, valid_days))
    if json_wanted:
        print(json.dumps({"passed": found.passed, "serial": serial, "health": found.health}))
    else:
        print(found.in_words, file=sys.stdout)
    return 0 if found.passed else 1


def _drift_json(result: DriftResult) -> str:
    content = {
        "passed": result.passed,
        "moved": list(result.check.moved),
        "statistic": result.check.statistic,
        "limit": result.check.limit,
        "with_reference": result.check.with_reference,
        "cameras": [asdict(shift) for shift in result.check.shifts],
        "trends": [asdict(trend) | {"jumped": trend.jumped, "is_running": trend.is_running} for trend in result.trends],
        "notes": list(result.notes),
        "record": None if result.record is None else msgspec.to_builtins(result.record),
    }
    return json.dumps(content, indent=2)
