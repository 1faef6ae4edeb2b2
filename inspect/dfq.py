"""Measured parts as a Q-DAS ASCII file (DFQ), for statistical process control.

The format is that of "Q-DAS ASCII Transfer Format", V12 (Hexagon), published as ISO/TR 11462-5: one K-field a line, a
description of the part (K1...) and of each characteristic (K2.../number) first, then the values. Values are written as
K-fields too, `K0001/number` and what belongs to it, which every reader takes, rather than in the compact lines whose
separators are control characters. A value that could not be measured has the attribute 256, which readers leave out of
every statistic; its K0001 is a placeholder. What a decision rests on does not fit this format: it is in JSON and QIF.

K2120 and K2121 (kind of a limit) are not written: readers then take K2110 and K2111 for limits, which they are.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from depthcell.errors import DepthcellError
from depthcell.inspect.gauges.gauged import GaugeResult
from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts

VALID, NOT_MEASURED = 0, 256
DECIMALS = {"mm": 4, "deg": 4, "mm3": 2}
PART_NUMBER, PART_TITLE, TEXT, NUMBER, UNIT, SERIAL = 30, 80, 80, 20, 20, 40
"""Longest texts of K1001, K1002, K2002, K2001, K2142 and K0014."""
ENCODING = "cp1252"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def dfq_file(parts: Sequence[MeasuredPart], facts: MeasurementFacts) -> bytes:
    """The file; lines end with CR LF, characters that Windows' code page 1252 lacks become "?".

    Raises:
        DepthcellError: there is no part, parts have different gauges, or a time is not ISO 8601.
    """
    if not parts:
        raise DepthcellError("DFQ: there is no part to write; name a recording")
    gauges = parts[0].results
    names = [gauge.name for gauge in gauges]
    for part in parts:
        if [result.name for result in part.results] != names:
            raise DepthcellError(
                f"DFQ: part '{part.part_id}' has other gauges than '{parts[0].part_id}'; write one file per recipe"
            )
    lines = [
        f"K0100 {len(gauges)}",
        f"K1001/1 {_text(facts.recipe_name, PART_NUMBER)}",
        f"K1002/1 {_text(f'{facts.recipe_name}, cell {facts.cell_name}', PART_TITLE)}",
    ]
    lines += [line for number, gauge in enumerate(gauges, 1) for line in _description(number, gauge)]
    lines += [line for part in parts for line in _values(part)]
    return "\r\n".join([*lines, ""]).encode(ENCODING, errors="replace")


def _description(number: int, gauge: GaugeResult) -> list[str]:
    lines = [
        f"K2001/{number} {number}",
        f"K2002/{number} {_text(gauge.name, TEXT)}",
        f"K2004/{number} 0",
        f"K2022/{number} {DECIMALS.get(gauge.unit, 4)}",
    ]
    limits = (("K2101", gauge.nominal), ("K2110", gauge.lower), ("K2111", gauge.upper))
    lines += [f"{field}/{number} {_number(value)}" for field, value in limits if value is not None]
    return [*lines, f"K2142/{number} {_text(gauge.unit, UNIT)}"]


def _values(part: MeasuredPart) -> list[str]:
    try:
        moment = datetime.fromisoformat(part.measured_at).astimezone(UTC)
    except ValueError as error:
        raise DepthcellError(f"part '{part.part_id}': measured_at '{part.measured_at}' is not ISO 8601") from error
    lines = []
    for number, result in enumerate(part.results, 1):
        attribute = VALID if result.value is not None else NOT_MEASURED
        lines += [
            f"K0001/{number} {_number(result.value or 0.0)}",
            f"K0002/{number} {attribute}",
            f"K0004/{number} {moment:%d.%m.%Y/%H:%M:%S}",
            f"K0014/{number} {_text(part.part_id, SERIAL)}",
        ]
    return lines


def _number(value: float) -> str:
    """Nine decimals at most, so that a length fits the 22 characters that the format allows for a number."""
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _text(text: str, longest: int) -> str:
    """One line, cut to the field's length; never empty, since a field without content is none."""
    return _CONTROL.sub(" ", text).strip()[:longest].strip() or "-"
