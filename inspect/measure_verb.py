"""What `depthcell measure` does: gauge every part, say it, write it."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from depthcell.inspect.inspection_run import RunPlan
from depthcell.inspect.measure_run import measure_source, now
from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts
from depthcell.inspect.measurement_files import MeasurementWriter, check_room
from depthcell.inspect.measurement_record import part_record
from depthcell.inspect.measurement_words import limits_text, value_text
from depthcell.inspect.terminal import wide_console


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to write besides the terminal: a folder of reports, and a QIF file; None for neither."""

    report: Path | None
    qif: Path | None


def measure_parts(plan: RunPlan, wanted: Wanted, *, json_wanted: bool) -> None:
    """Gauge every part with a progress bar; print a table for each, or one line of JSON; write what is wanted.

    Ctrl-C keeps what was measured until then: reports and tables, without an index.

    Raises:
        DepthcellError: see `measure_source` and `MeasurementWriter`.
    """
    check_room(wanted.report)
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    console = wide_console()
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("measure", total=None)
        writers: list[MeasurementWriter] = []

        def begin(parts: int, facts: MeasurementFacts) -> None:
            progress.update(task, total=parts)
            writers.append(MeasurementWriter(facts, wanted.report, wanted.qif))

        def show(part: MeasuredPart) -> None:
            if json_wanted:
                print(msgspec.json.encode(part_record(part)).decode(), flush=True)
            else:
                console.print(part_table(part))
            writers[0].add(part)
            progress.advance(task)

        try:
            measure_source(plan, show, begin)
        except KeyboardInterrupt:
            if writers and writers[0].is_begun:
                writers[0].finish(now(), whole=False)
            raise
        writers[0].finish(now())
    for path in (wanted.report, wanted.qif):
        if path is not None:
            notes.print(f"written: {path}", markup=False)


def part_table(part: MeasuredPart) -> Table:
    """The gauges of one part as a person reads them."""
    table = Table("gauge", "value", "limits", "decision", title=f"{part.part_id}: {part.decision}")
    for result in part.results:
        if result.value is None:
            table.add_row(result.name, "–", limits_text(result), f"{result.decision}: {result.reason}")
        else:
            table.add_row(result.name, value_text(result), limits_text(result), str(result.decision))
    return table
