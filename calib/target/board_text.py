"""Lengths and sizes as people write them in a board's name: `30mm`, `1.5in`, `9x6`."""

import re
from decimal import Decimal

from depthcell.errors import DepthcellError

UNITS_M = {
    "um": Decimal("1e-6"),
    "mm": Decimal("1e-3"),
    "cm": Decimal("1e-2"),
    "m": Decimal(1),
    "in": Decimal("0.0254"),
}
_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)")


def parse_length_m(text: str, where: str) -> float:
    """Metres, to the nanometre, of a length with its unit.

    Args:
        text: such as `30mm`.
        where: what is being read, for the message.

    Raises:
        DepthcellError: no number, no unit, or a unit that is not um, mm, cm, m or in.
    """
    match = _LENGTH.fullmatch(text.strip())
    if match is None:
        raise DepthcellError(f"{where}: '{text}' is no length; write it as 30mm")
    number, unit = match.groups()
    if unit not in UNITS_M:
        what = f"unit '{unit}' is unknown" if unit else "has no unit"
        raise DepthcellError(f"{where}: '{text}' {what}; write um, mm, cm, m or in, as {number}mm")
    return round(float(Decimal(number) * UNITS_M[unit]), 9)


def format_length(length_m: float) -> str:
    """`0.0219` becomes `21.9mm`; read back it is the same number to the nanometre."""
    return f"{length_m * 1e3:.6f}".rstrip("0").rstrip(".") + "mm"


def parse_cells(text: str, where: str) -> tuple[int, int]:
    """Columns and rows of `9x6`.

    Raises:
        DepthcellError: not two whole numbers.
    """
    match = re.fullmatch(r"([0-9]{1,4})[xX×]([0-9]{1,4})", text.strip())
    if match is None:
        raise DepthcellError(f"{where}: '{text}' is no size; write columns and rows as 9x6")
    return int(match.group(1)), int(match.group(2))
