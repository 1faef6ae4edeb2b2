"""All files of a measurement: a report, a turnable view and pictures for each part; tables and an index for all.

    out/index.html                     all parts, each gauge over the parts
    out/measurements.csv, .json, .dfq  every gauge of every part
    out/PART/report.html, report.pdf   verdict, gauges, budgets, colour map, sections
    out/PART/view.html                 turnable view
    out/PART/map.png, sections.png     where the part has a reference

Each file is whole or absent, and the index is written last: where it is, everything is.
"""

import errno
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from depthcell.errors import DepthcellError, Reason
from depthcell.files import written_beside
from depthcell.inspect.dfq import dfq_file
from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts
from depthcell.inspect.measurement_csv import measurement_csv
from depthcell.inspect.measurement_html import index_html, measurement_html
from depthcell.inspect.measurement_map import deviation_map
from depthcell.inspect.measurement_pdf import measurement_pdf
from depthcell.inspect.measurement_record import report_of, to_json
from depthcell.inspect.measurement_sections import sections_picture
from depthcell.inspect.qif import qif_document
from depthcell.inspect.verdict import Decision
from depthcell.inspect.viewer.viewer_page import viewer_page

INDEX = "index.html"
MOST_REPORTED = 200
"""Parts of each verdict that get reports of their own: the first."""
LONGEST_NAME = 80
PICTURES = (("Colour map", "map.png", deviation_map), ("Sections", "sections.png", sections_picture))
TABLES = ("measurements.csv", "measurements.json", "measurements.dfq")
REPORT_FILES = ("report.html", "report.pdf", "view.html", *(name for _, name, _ in PICTURES))
LINKS = (("turnable view", "view.html"), ("PDF", "report.pdf"), ("all parts", "../index.html"))


class MeasurementWriter:
    """Writes a measurement while it goes on: each part's report as it comes, tables and index at the end.

    A part's points are let go once its report is written, so that a long run needs no more memory than one part.
    """

    def __init__(self, facts: MeasurementFacts, out: Path | None, qif: Path | None = None) -> None:
        """Begin in the folder `out`; the QIF document will go to `qif`. Either may be None."""
        self._facts, self._out, self._qif = facts, out, qif
        self._parts: list[MeasuredPart] = []
        self._folders: list[str | None] = []
        self._reported: Counter[Decision] = Counter()
        self._taken: set[str] = set()

    def add(self, part: MeasuredPart) -> None:
        """Write the part's report where it gets one.

        Raises:
            DepthcellError: a file cannot be written, `DISK_FULL` where that is why. What was begun is removed.
        """
        folder = self._folder(part)
        if self._out is not None and folder is not None:
            write_part(part, self._facts, self._out / folder)
        self._parts.append(part.without_points())
        self._folders.append(folder)

    @property
    def is_begun(self) -> bool:
        """Whether a part was added."""
        return bool(self._parts)

    def finish(self, written_at: str = "", *, whole: bool = True) -> None:
        """Write tables and index of all parts that were added.

        Args:
            written_at: ISO 8601, UTC, for the tables; as the facts say if not given.
            whole: whether all parts were added. Of a run that was broken off the tables are kept, without an index.

        Raises:
            DepthcellError: there is no part; parts have different gauges; or a file cannot be written.
        """
        parts, out = self._parts, self._out
        facts = replace(self._facts, written_at=written_at or self._facts.written_at)
        if not parts:
            raise DepthcellError("measurement: there is no part to write; name a recording or a folder of recordings")
        if out is not None:
            csv, json = measurement_csv(parts).encode("utf-8"), to_json(report_of(parts, facts))
            for name, content in zip(TABLES, (csv, json, dfq_file(parts, facts)), strict=True):
                _write(out / name, content)
        if self._qif is not None:
            _write(self._qif, qif_document(parts, facts))
        if out is not None and whole:
            _write(out / INDEX, index_html(parts, facts, self._folders).encode("utf-8"))

    def _folder(self, part: MeasuredPart) -> str | None:
        """A folder's name, safe on every file system and the part's own; None for a part that gets no report."""
        if self._reported[part.decision] == MOST_REPORTED:
            return None
        self._reported[part.decision] += 1
        base = re.sub(r"[^A-Za-z0-9._-]+", "_", part.part_id).strip("._")[:LONGEST_NAME] or "part"
        name, attempt = base, 1
        while name.lower() in self._taken:
            attempt += 1
            name = f"{base}-{attempt}"
        self._taken.add(name.lower())
        return name


def write_measurement(
    parts: Sequence[MeasuredPart],
    facts: MeasurementFacts,
    out: Path | None,
    qif: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write everything about parts that were measured already, see `MeasurementWriter`; `advance` follows each part.

    Raises:
        DepthcellError: see there.
    """
    writer = MeasurementWriter(facts, out, qif)
    for part in parts:
        writer.add(part)
        advance()
    writer.finish()


def check_room(out: Path | None) -> None:
    """Refuse a folder that holds other things than a measurement, whole or broken off, before anything is measured.

    Raises:
        DepthcellError: it does, or is a file.
    """
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise DepthcellError(f"--report {out}: is a file; name a folder")
    if not (out / INDEX).is_file() and not all(map(_is_ours, out.iterdir())):
        raise DepthcellError(f"--report {out}: holds other things; name a new folder")
    (out / INDEX).unlink(missing_ok=True)  # where it is, everything is: not so until the new one is written


def _is_ours(entry: Path) -> bool:
    """Whether a run that was broken off left it: a table, or a part's folder with nothing but its report."""
    if entry.is_dir():
        return all(file.name in REPORT_FILES and file.is_file() for file in entry.iterdir())
    return entry.name in TABLES or entry.suffix == ".qif"


def write_part(part: MeasuredPart, facts: MeasurementFacts, folder: Path) -> None:
    """One part's report as HTML and PDF, its turnable view, and its pictures where it has a reference.

    Raises:
        DepthcellError: a file cannot be written.
    """
    pictures = []
    for title, name, draw in PICTURES:
        png = _drawn(draw, part, facts.tolerance_mm)
        if png is not None:
            _write(folder / name, png)
            pictures.append((title, png))
    _write(folder / "view.html", viewer_page(part, facts).encode("utf-8"))
    _write(folder / "report.pdf", measurement_pdf(part, facts, tuple(pictures)))
    _write(folder / "report.html", measurement_html(part, facts, pictures, LINKS).encode("utf-8"))


def _drawn(draw: Callable[[MeasuredPart, float], bytes], part: MeasuredPart, tolerance_mm: float) -> bytes | None:
    """The picture, or None for a part that has nothing to show."""
    if part.scan is None or part.scan.reference is None or not len(part.seen):
        return None
    return draw(part, tolerance_mm)


def _write(path: Path, content: bytes) -> None:
    try:
        with written_beside(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        with suppress(OSError):
            path.parent.rmdir()  # a folder made for this file alone is left empty, and goes; one with others stays
        reason = Reason.DISK_FULL if error.errno == errno.ENOSPC else Reason.BAD_INPUT
        why = error.strerror or str(error)
        raise DepthcellError(f"{path}: cannot be written ({why}); name another folder with --report", reason) from error
