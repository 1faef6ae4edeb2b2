"""The table of a gauge study: a CSV file read into columns, or refused by the row and column that is wrong."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError, Reason


@dataclass(frozen=True, slots=True, eq=False)
class StudyTable:
    """Columns of equal length, in the order of the file.

    Attributes:
        source: what the values come from, for messages and reports.
        lines: (N,) line of each row in the file, 1 is the header.
        labels: text columns by name, each of N entries, never empty.
        numbers: number columns by name, each (N,) float64, finite.
    """

    source: str
    lines: tuple[int, ...]
    labels: dict[str, tuple[str, ...]]
    numbers: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.lines)


def read_study_table(
    path: Path, labels: Sequence[str], numbers: Sequence[str], optional: Sequence[str] = ()
) -> StudyTable:
    """Read a comma-separated file with a header line.

    Header names count without regard to case; further columns are ignored.

    Args:
        path: the CSV file, UTF-8.
        labels: columns that must be there and are taken as text, such as "part".
        numbers: columns that must be there and hold numbers with a decimal point.
        optional: label columns that may be missing.

    Raises:
        DepthcellError: the file or a column is missing, or a cell is empty or no finite number; the line of the file
            and the column are named.
    """
    rows = list(csv.reader(io.StringIO(_text(path)), strict=False))
    if not rows or not any(cell.strip() for cell in rows[0]):
        raise _refused(path, "line 1 must name the columns", f"write {','.join([*labels, *numbers])}")
    header = [cell.strip().lower() for cell in rows[0]]
    _check_header(path, header, [*labels, *numbers], optional)
    present = [name for name in optional if name in header]
    texts: dict[str, list[str]] = {name: [] for name in [*labels, *present]}
    values: dict[str, list[float]] = {name: [] for name in numbers}
    lines = []
    for line, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            wrong = f"line {line} has {len(row)} columns, the header {len(header)}"
            raise _refused(path, wrong, "write decimals with a point, and one column for each name")
        lines.append(line)
        cells = dict(zip(header, row, strict=True))
        for name, entries in texts.items():
            entries.append(_label(path, line, name, cells[name]))
        for name, column in values.items():
            column.append(_number(path, line, name, cells[name]))
    if not lines:
        raise _refused(path, "there is no row of values below the header", "write one measurement a line")
    return StudyTable(
        source=path.name,
        lines=tuple(lines),
        labels={name: tuple(entries) for name, entries in texts.items()},
        numbers={name: np.array(column) for name, column in values.items()},
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _refused(path, "no such file", "name the CSV file of the study") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(path, f"cannot be read as UTF-8 text ({error.__class__.__name__})", "save it as CSV") from None


def _check_header(path: Path, header: list[str], needed: Sequence[str], optional: Sequence[str]) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise _refused(path, "columns are not separated by commas", "save it as comma-separated CSV")
    for name in needed:
        if name not in header:
            raise _refused(path, f"column '{name}' is missing, found {', '.join(header)}", "name it in line 1")
    for name in [*needed, *optional]:
        if header.count(name) > 1:
            raise _refused(path, f"column '{name}' is there {header.count(name)} times", "keep one of them")


def _label(path: Path, line: int, name: str, cell: str) -> str:
    if not cell.strip():
        raise _refused(path, f"line {line}, column '{name}' is empty", "fill it in or delete the line")
    return cell.strip()


def _number(path: Path, line: int, name: str, cell: str) -> float:
    where, text = f"line {line}, column '{name}'", cell.strip()
    if not text:
        raise _refused(path, f"{where} is empty", "fill it in or delete the line")
    try:
        value = float(text)
    except ValueError:
        hint = "write decimals with a point" if "," in text else "write a plain number without its unit"
        raise _refused(path, f"{where}: '{text[:40]}' is no number", hint) from None
    if not math.isfinite(value):
        raise _refused(path, f"{where}: '{text}' is not finite", "delete the line; a value not measured is no value")
    return value


def _refused(path: Path, wrong: str, remedy: str) -> DepthcellError:
    return DepthcellError(f"{path}: {wrong}: {remedy}", Reason.BAD_INPUT)


def refused_setting(name: str, value: object, remedy: str) -> DepthcellError:
    """The refusal of one setting of a study."""
    return DepthcellError(f"{name} = {value!r}: {remedy}", Reason.BAD_INPUT)


def check_share(name: str, value: float) -> None:
    """Refuse a level of confidence or significance that is not between 0 and 1."""
    if not (math.isfinite(value) and 0.0 < value < 1.0):
        raise refused_setting(name, value, "must lie between 0 and 1, such as 0.95")
