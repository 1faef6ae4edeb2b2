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
from collections.abc import Callable, Sequence
from contextlib import suppress
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
"""Parts that get reports of their own; of a longer run those that are not OK, then the first."""
LONGEST_NAME = 80
PICTURES = (("Colour map", "map.png", deviation_map), ("Sections", "sections.png", sections_picture))
LINKS = (("turnable view", "view.html"), ("PDF", "report.pdf"), ("all parts", "../index.html"))


def write_measurement(
    parts: Sequence[MeasuredPart],
    facts: MeasurementFacts,
    out: Path | None,
    qif: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write everything into the folder `out`, and the QIF document to `qif`; either may be None.

    `advance` is called after each part.

    Raises:
        DepthcellError: there is no part; parts have different gauges; or a file cannot be written, `DISK_FULL` where
            that is why. What was begun is removed.
    """
    if not parts:
        raise DepthcellError("measurement: there is no part to write; name a recording or a folder of recordings")
    folders = part_folders(parts)
    if out is not None:
        for part, folder in zip(parts, folders, strict=True):
            if folder is not None:
                write_part(part, facts, out / folder)
            advance()
        _write(out / "measurements.csv", measurement_csv(parts).encode("utf-8"))
        _write(out / "measurements.json", to_json(report_of(parts, facts)))
        _write(out / "measurements.dfq", dfq_file(parts, facts))
    if qif is not None:
        _write(qif, qif_document(parts, facts))
    if out is not None:
        _write(out / INDEX, index_html(parts, facts, folders).encode("utf-8"))


def check_room(out: Path | None) -> None:
    """Refuse a folder that holds other things than an earlier measurement, before anything is measured.

    Raises:
        DepthcellError: it does, or is a file.
    """
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise DepthcellError(f"--report {out}: is a file; name a folder")
    if any(out.iterdir()) and not (out / INDEX).is_file():
        raise DepthcellError(f"--report {out}: holds other things; name a new folder")
    (out / INDEX).unlink(missing_ok=True)  # where it is, everything is: not so until the new one is written


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


def part_folders(parts: Sequence[MeasuredPart]) -> list[str | None]:
    """A folder's name for each part, safe on every file system and its own; None for parts that get no report."""
    order = sorted(range(len(parts)), key=lambda number: parts[number].decision is Decision.OK)
    reported = set(order[:MOST_REPORTED])
    taken: set[str] = set()
    names: list[str | None] = []
    for number, part in enumerate(parts):
        if number not in reported:
            names.append(None)
            continue
        base = re.sub(r"[^A-Za-z0-9._-]+", "_", part.part_id).strip("._")[:LONGEST_NAME] or "part"
        name, attempt = base, 1
        while name.lower() in taken:
            attempt += 1
            name = f"{base}-{attempt}"
        taken.add(name.lower())
        names.append(name)
    return names


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
