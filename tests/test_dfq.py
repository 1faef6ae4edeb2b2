"""The Q-DAS file: a strict reader finds every value, limit and part again, and refuses what the format has not."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measuredplate import FACTS, gauge, measured_plate, missing_plate

from depthcell.errors import DepthcellError
from depthcell.inspect.dfq import ENCODING, dfq_file

FIELD = re.compile(r"(K\d{4})(?:/(\d+))? (\S(?:.*\S)?)")
NUMBERS = {"K0001", "K2101", "K2110", "K2111"}
LONGEST = {
    "K0001": 22,
    "K2101": 22,
    "K2110": 22,
    "K2111": 22,
    "K1001": 30,
    "K1002": 80,
    "K2001": 20,
    "K2002": 80,
    "K2142": 20,
    "K0014": 40,
}
ONCE = ("K0001", "K0002", "K0004", "K0014")


@dataclass
class DfqContent:
    """What the strict reader found: descriptions by characteristic, values in their order."""

    part: dict[str, str] = field(default_factory=dict)
    characteristics: dict[int, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    values: dict[int, list[dict[str, str]]] = field(default_factory=lambda: defaultdict(list))


def read_strictly(content: bytes) -> DfqContent:
    """Refuses whatever ISO/TR 11462-5 does not have; nothing is skipped or guessed."""
    text = content.decode(ENCODING)
    lines = text.split("\r\n")
    assert lines[-1] == "", "the last line must end with CR LF"
    assert not re.search(r"[\n\r]", "".join(lines)), "lines end with CR LF only"
    declared = re.fullmatch(r"K0100 ([0-9]+)", lines[0])
    assert declared, "K0100 comes first"
    found, count = DfqContent(), int(declared[1])
    for line in lines[1:-1]:
        _read_line(line, found, count)
    assert set(found.characteristics) == set(range(1, count + 1)), "every characteristic is described"
    return found


def _read_line(line: str, found: DfqContent, count: int) -> None:
    matched = FIELD.fullmatch(line)
    assert matched, f"not a K-field: {line!r}"
    key, number, content = matched[1], int(matched[2] or 0), matched[3]
    assert len(content) <= LONGEST.get(key, 255), f"{key} is too long"
    if key in NUMBERS:
        assert re.fullmatch(r"-?\d+(\.\d+)?", content), f"{key} is not a number: {content}"
    if key == "K0004":
        datetime.strptime(content, "%d.%m.%Y/%H:%M:%S")
    if key.startswith("K1"):
        assert not found.characteristics, "the part is described before its characteristics"
        found.part[key] = content
        return
    assert 1 <= number <= count, f"{key} is of characteristic {number}, K0100 says {count}"
    if key.startswith("K2"):
        assert not found.values, "characteristics are described before the values"
        assert key not in found.characteristics[number], f"{key}/{number} is told twice"
        found.characteristics[number][key] = content
        return
    assert key in ONCE, f"{key} is not known here"
    if key == "K0001":
        found.values[number].append({})
    assert found.values[number], f"{key} comes before its K0001"
    assert key not in found.values[number][-1], f"{key}/{number} is told twice for one value"
    found.values[number][-1][key] = content


def test_every_gauge_is_described_with_its_limits_and_unit() -> None:
    part = measured_plate()
    found = read_strictly(dfq_file((part,), FACTS))
    assert found.part == {"K1001": "plate", "K1002": "plate, cell plate cell"}
    for number, result in enumerate(part.results, 1):
        told = found.characteristics[number]
        assert (told["K2002"], told["K2142"], told["K2004"]) == (result.name, result.unit, "0")
        for key, limit in (("K2101", result.nominal), ("K2110", result.lower), ("K2111", result.upper)):
            assert (float(told[key]) if key in told else None) == limit


def test_every_value_of_every_part_is_found_again() -> None:
    parts = (measured_plate("first"), missing_plate("second"), measured_plate("third"))
    found = read_strictly(dfq_file(parts, FACTS))
    for number in range(1, len(parts[0].results) + 1):
        values = found.values[number]
        assert [value["K0014"] for value in values] == ["first", "second", "third"]
        assert {value["K0004"] for value in values} == {"04.03.2026/05:06:07"}
        for part, value in zip(parts, values, strict=True):
            measured = part.results[number - 1].value
            assert value["K0002"] == ("0" if measured is not None else "256")
            if measured is not None:
                assert float(value["K0001"]) == measured


def test_a_time_of_another_zone_becomes_utc() -> None:
    found = read_strictly(dfq_file((measured_plate(measured_at="2026-03-04T01:30:00+02:00"),), FACTS))
    assert found.values[1][0]["K0004"] == "03.03.2026/23:30:00"


@pytest.mark.parametrize(
    ("whole", "broken", "fault"),
    [
        ("K0100 8", "K0100 7", "K0100 says 7"),
        ("K0001/1 12.03", "K0001/1 12,03", "not a number"),
        ("K0002/1 0\r\n", "K0002/1 0\r\nK0002/1 0\r\n", "told twice"),
        ("K2002/1 bore A\r\n", "K2002/1 \r\n", "not a K-field"),
        ("K2142/8 mm\r\n", "K2142/8 mm\r\nK1003 late\r\n", "described before"),
        ("\r\nK2001/1", "\nK2001/1", "CR LF only"),
    ],
)
def test_the_strict_reader_sees_what_is_wrong(whole: str, broken: str, fault: str) -> None:
    text = dfq_file((measured_plate(),), FACTS).decode(ENCODING)
    assert whole in text
    with pytest.raises(AssertionError, match=fault):
        read_strictly(text.replace(whole, broken, 1).encode(ENCODING))


@given(st.text(max_size=120), st.floats(-1e9, 1e9))
def test_any_name_and_number_give_a_readable_file(name: str, value: float) -> None:
    part = measured_plate(name, results=(gauge("gap", value, (None, None), name=name),))
    found = read_strictly(dfq_file((part,), FACTS))
    assert float(found.values[1][0]["K0001"]) == pytest.approx(value, abs=1e-9)


def test_parts_of_two_recipes_do_not_go_into_one_file() -> None:
    with pytest.raises(DepthcellError, match="other gauges"):
        dfq_file((measured_plate(), measured_plate("other", results=())), FACTS)


def test_no_part_at_all_is_refused() -> None:
    with pytest.raises(DepthcellError, match="no part"):
        dfq_file((), FACTS)


def test_a_time_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match="part 'odd': measured_at 'yesterday'"):
        (tmp_path / "x.dfq").write_bytes(dfq_file((measured_plate("odd", measured_at="yesterday"),), FACTS))
