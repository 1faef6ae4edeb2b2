"""Tables of gauge studies: what is read, and what is refused by its line and column."""

from pathlib import Path

import numpy as np
import pytest
from studydata import written

from depthcell.calib.study.study_table import read_study_table
from depthcell.errors import DepthcellError, Reason


def refusal(path: Path) -> str:
    with pytest.raises(DepthcellError) as caught:
        read_study_table(path, labels=("part",), numbers=("value",), optional=("subgroup",))
    assert caught.value.reason is Reason.BAD_INPUT
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_reads_columns_in_any_order_and_case(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "Note, VALUE ,part", ["x,1.5,p1", "", "y,-2e-3, p2 "])
    table = read_study_table(path, labels=("part",), numbers=("value",), optional=("subgroup",))
    assert table.labels == {"part": ("p1", "p2")}
    assert table.lines == (2, 4)
    np.testing.assert_array_equal(table.numbers["value"], [1.5, -0.002])
    assert len(table) == 2


def test_reads_what_a_spreadsheet_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfpart,value\r\n1,2.5\r\n")
    assert read_study_table(path, labels=("part",), numbers=("value",)).numbers["value"].tolist() == [2.5]


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("part,value", ["p1,1.0", "p2,"], "line 3, column 'value' is empty"),
        ("part,value", ["p1,1.0", ",2.0"], "line 3, column 'part' is empty"),
        ("part,value", ["p1,1.0 mm"], "line 2, column 'value': '1.0 mm' is no number: write a plain number"),
        ("part,value", ['p1,"1,5"'], "line 2, column 'value': '1,5' is no number: write decimals with a point"),
        ("part,value", ["p1,1,5"], "line 2 has 3 columns, the header 2"),
        ("part,value", ["p1,nan"], "line 2, column 'value': 'nan' is not finite"),
        ("part,value", ["p1,inf"], "line 2, column 'value': 'inf' is not finite"),
        ("part,size", ["p1,1"], "column 'value' is missing, found part, size"),
        ("part,value,value", ["p1,1,2"], "column 'value' is there 2 times"),
        ("part,value,subgroup,subgroup", ["p1,1,2,2"], "column 'subgroup' is there 2 times"),
        ("part;value", ["p1;1,5"], "columns are not separated by commas"),
        ("part,value", [], "there is no row of values"),
        ("", ["p1,1"], "line 1 must name the columns"),
    ],
)
def test_refuses_by_line_and_column(tmp_path: Path, header: str, rows: list[str], said: str) -> None:
    assert said in refusal(written(tmp_path / "bad.csv", header, rows))


def test_refuses_what_is_no_text_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"part,value\n\xff\xfe\x00")
    assert "cannot be read as UTF-8" in refusal(binary)
    (tmp_path / "folder.csv").mkdir()
    assert "cannot be read" in refusal(tmp_path / "folder.csv")
