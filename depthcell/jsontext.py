"""JSON that programs in any language can check: the canonical form, and schemas that explain their fields."""

import math
import re
from decimal import Decimal
from inspect import cleandoc
from typing import Any

import msgspec


def canonical_json(content: Any) -> bytes:
    """`content` by RFC 8785: keys sorted, no white space, UTF-8, numbers as ECMAScript writes them."""
    return msgspec.json.encode(_with_canonical_numbers(content), order="deterministic")


def _with_canonical_numbers(content: Any) -> Any:
    match content:
        case float():
            return msgspec.Raw(_ecmascript(content).encode())
        case dict():
            return {name: _with_canonical_numbers(value) for name, value in content.items()}
        case list() | tuple():
            return [_with_canonical_numbers(value) for value in content]
        case _:
            return content


def _ecmascript(number: float) -> str:
    """`number` as ECMAScript's Number::toString gives it (ECMA-262, 6.1.6.1.20), which RFC 8785 prescribes."""
    if not math.isfinite(number):
        return "null"
    # repr gives the shortest digits that read back as the same number: value = 0.digits * 10**point
    sign, mantissa, exponent = Decimal(repr(number)).normalize().as_tuple()
    if not isinstance(exponent, int) or mantissa == (0,):
        return "0"
    digits, minus = "".join(map(str, mantissa)), "-" * sign
    point = len(digits) + exponent
    if 0 < point <= 21:
        whole, fraction = digits[:point].ljust(point, "0"), digits[point:]
        return f"{minus}{whole}.{fraction}" if fraction else f"{minus}{whole}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if digits[1:] else ""
    return f"{minus}{digits[0]}{fraction}e{point - 1:+d}"


def describe_properties(definition: dict[str, Any]) -> None:
    """Turn the "Attributes:" of a class's docstring into the descriptions of its properties."""
    # Python 3.13 strips a docstring's indentation, older ones keep it: `cleandoc` makes them the same.
    summary, _, attributes = cleandoc(definition["description"]).partition("\n\nAttributes:\n")
    definition["description"] = " ".join(summary.split("\n\nRaises:\n")[0].split())
    listed = attributes.split("\n\n")[0]
    for names, text in re.findall(r"^ {4}([A-Za-z][\w, ]*): (.*(?:\n {8,}.*)*)$", listed, flags=re.MULTILINE):
        for name in names.split(", "):
            definition["properties"][name]["description"] = " ".join(text.split()).replace("None", "null")
