"""The files of a measurement: all of them, whole, saying what was measured; names safe, a full disk survived."""

import base64
import errno
import gc
import hashlib
import io
import json
import re
import shutil
import subprocess
import tempfile
import weakref
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measuredplate import FACTS, gauge, measured_plate, missing_plate
from PIL import Image

from depthcell.errors import DepthcellError, Reason
from depthcell.inspect import measurement_files
from depthcell.inspect.dfq import dfq_file
from depthcell.inspect.measurement import MeasuredPart
from depthcell.inspect.measurement_csv import measurement_csv
from depthcell.inspect.measurement_files import (
    LONGEST_NAME,
    MOST_REPORTED,
    MeasurementWriter,
    check_room,
    write_measurement,
)
from depthcell.inspect.measurement_html import index_html, measurement_html
from depthcell.inspect.measurement_pdf import measurement_pdf
from depthcell.inspect.measurement_record import report_of
from depthcell.inspect.measurement_words import EDGE, chance_text, limits_text, shown_reasons, tolerance_bar, value_text
from depthcell.inspect.qif import qif_document
from depthcell.inspect.verdict import Decision

PARTS = (measured_plate(), missing_plate(), measured_plate("plate_003", decision=Decision.OK, reasons=("all is well",)))
WITH_PICTURES = {"report.html", "report.pdf", "view.html", "map.png", "sections.png"}
WITHOUT = {"report.html", "report.pdf", "view.html"}


class _Addresses(HTMLParser):
    """Everything a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured") / "out"
    write_measurement(PARTS[:2], FACTS, folder, folder / "results.qif")
    return folder


def test_every_file_is_there_and_nothing_else(out: Path) -> None:
    tables = {"index.html", "measurements.csv", "measurements.json", "measurements.dfq", "results.qif"}
    assert {path.name for path in out.iterdir() if path.is_file()} == tables
    assert {path.name for path in (out / "plate_001").iterdir()} == WITH_PICTURES
    assert {path.name for path in (out / "plate_002").iterdir()} == WITHOUT


def test_every_link_leads_to_a_file(out: Path) -> None:
    for page in (out / "index.html", *out.glob("*/report.html")):
        addresses = [
            address for address in _Addresses(page.read_text(encoding="utf-8")).found if "data:" not in address
        ]
        assert addresses
        assert all((page.parent / address).is_file() for address in addresses)


def test_reports_run_nothing_and_allow_only_their_own_style(out: Path) -> None:
    for page in (out / "index.html", out / "plate_001" / "report.html"):
        text = page.read_text(encoding="utf-8")
        assert _Addresses(text).scripts == 0
        style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
        assert style
        assert policy
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert f"style-src 'sha256-{digest}'" in policy[1]
        assert policy[1].startswith("default-src 'none'")


def test_the_pictures_of_the_report_are_those_beside_it(out: Path) -> None:
    text = (out / "plate_001" / "report.html").read_text(encoding="utf-8")
    within = [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]
    assert within == [(out / "plate_001" / name).read_bytes() for name in ("map.png", "sections.png")]
    assert all(Image.open(io.BytesIO(png)).format == "PNG" for png in within)


def test_the_report_says_verdict_values_budgets_and_what_it_rests_on(out: Path) -> None:
    text = (out / "plate_001" / "report.html").read_text(encoding="utf-8")
    for words in ("12.03 ± 0.10 mm", "11.7 … 12.3 mm", "≤ 0.4 mm", "calibration of 1001", "64 %", "1" * 64, "2" * 64):
        assert words in text
    assert "top, flat &amp; &lt;even&gt;" in text
    assert "<even>" not in text
    missing = (out / "plate_002" / "report.html").read_text(encoding="utf-8")
    assert "the part is missing" in missing
    assert "data:image" not in missing


def test_the_tables_hold_all_parts(out: Path) -> None:
    content = json.loads((out / "measurements.json").read_text(encoding="utf-8"))
    assert [part["part_id"] for part in content["parts"]] == ["plate_001", "plate_002"]
    assert len((out / "measurements.csv").read_bytes().split(b"\r\n")) == 2 + 2 * len(PARTS[0].results)
    assert b"plate_002" in (out / "measurements.dfq").read_bytes()
    assert b"<SerialNumber>plate_002<" in (out / "results.qif").read_bytes()


def test_the_index_counts_and_charts() -> None:
    text = index_html(PARTS, FACTS, ["a", None, "c"])
    assert 'href="a/report.html"' in text
    assert text.count("/report.pdf") == 2
    assert re.findall(r"<b>(\d)</b><span>", text) == ["3", "1", "1", "1"]
    assert "Not measured on 1 part." in text


def test_nothing_breaks_out_of_a_report() -> None:
    wild = "</style><script>alert(1)</script>"
    part = measured_plate(wild, results=(gauge("gap", 1.0, (0.0, 2.0), name=wild, note=wild),), reasons=(wild,))
    facts = replace(FACTS, recipe_name=wild, source=wild, cell_name=wild)
    for text in (measurement_html(part, facts, [], []), index_html((part,), facts, [None])):
        assert _Addresses(text).scripts == 0
    assert measurement_pdf(part, facts, ()).startswith(b"%PDF")


def test_the_pdf_is_the_same_each_time_and_numbered() -> None:
    once = measurement_pdf(PARTS[0], FACTS, ())
    assert once == measurement_pdf(PARTS[0], FACTS, ())
    assert once.startswith(b"%PDF")
    assert int(re.findall(rb"/Count (\d+)", once)[0]) >= 1
    assert len(measurement_pdf(measured_plate(results=()), FACTS, ())) < len(once)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="reading a PDF back needs pdftotext (poppler-utils)")
def test_the_pdf_says_verdict_values_budgets_and_what_it_rests_on(out: Path) -> None:
    read_back = subprocess.run(
        ["pdftotext", "-layout", str(out / "plate_001" / "report.pdf"), "-"],
        capture_output=True,
        check=True,
    )
    text = read_back.stdout.decode()
    for words in (
        "Verdict: NOK",
        "top, flat & <even>",
        "0.61 ± 0.10 mm",
        "≤ 0.4 mm",
        "< 0.1 %",
        "CANNOT-TELL",
        "1" * 64,
    ):
        assert words in text
    for words in ("Uncertainty budgets", "calibration of 1001", "0.04 mm", "64 %", "Root mean square", "page 1 of"):
        assert words in text


def test_a_long_recipe_fills_pages() -> None:
    many = tuple(gauge("distance", 12.0 + n / 100, (11.0, 13.0), name=f"distance {n}") for n in range(90))
    assert int(re.findall(rb"/Count (\d+)", measurement_pdf(measured_plate(results=many), FACTS, ()))[0]) > 5


@pytest.mark.parametrize("failing", ["plate_001/view.html", "measurements.json", "results.qif", "index.html"])
def test_a_full_disk_leaves_nothing_half(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if Path(failing).stem in self.name and "partial" in self.name:
            write(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    part = measured_plate(deviation_m=None, deviation_u_m=None)
    with pytest.raises(DepthcellError, match="No space left") as caught:
        write_measurement((part,), FACTS, tmp_path / "out", tmp_path / "out" / "results.qif")
    assert caught.value.reason is Reason.DISK_FULL
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in left if "partial" in path.name or path.match(f"*/{failing}")]
    assert tmp_path / "out" / "index.html" not in left


def test_a_folder_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(DepthcellError, match=r"out.*cannot be written"):
        write_measurement((measured_plate(results=(), deviation_m=None),), FACTS, tmp_path / "out")


def test_qif_alone_can_be_written(tmp_path: Path) -> None:
    write_measurement(PARTS[:1], FACTS, None, tmp_path / "only.qif")
    assert [path.name for path in tmp_path.iterdir()] == ["only.qif"]


def test_no_part_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match="no part"):
        write_measurement((), FACTS, tmp_path)


@given(st.lists(st.text(max_size=100), min_size=1, max_size=8))
def test_folders_are_safe_and_each_parts_own(names: list[str]) -> None:
    folders = _folders([missing_plate(name) for name in names])
    assert len({str(folder).lower() for folder in folders}) == len(names)
    for folder in folders:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", folder) or folder[0] in "-"
        assert len(folder) <= LONGEST_NAME + 3
        assert ".." not in folder.split("/")


def test_the_first_parts_of_each_verdict_get_a_report() -> None:
    good: list[MeasuredPart] = [replace(PARTS[2], part_id=f"good {n}") for n in range(MOST_REPORTED + 5)]
    folders = _folders([*good, missing_plate("last")])
    assert folders == [f"good_{n}" for n in range(MOST_REPORTED)] + ["last"]


def _folders(parts: list[MeasuredPart]) -> list[str]:
    with tempfile.TemporaryDirectory() as out, pytest.MonkeyPatch.context() as patch:
        written: list[Path] = []
        patch.setattr(measurement_files, "write_part", lambda _part, _facts, folder: written.append(folder))
        writer = MeasurementWriter(FACTS, Path(out))
        for part in parts:
            writer.add(part)
    assert all(folder.parent == Path(out) for folder in written)
    return [folder.name for folder in written]


def test_a_folder_with_other_things_is_refused_and_one_broken_off_is_not(tmp_path: Path) -> None:
    check_room(None)
    check_room(tmp_path / "new")
    out = tmp_path / "out"
    write_measurement(PARTS[1:2], FACTS, out, out / "results.qif")
    check_room(out)
    assert not (out / "index.html").exists()
    check_room(out)
    (out / "plate_002" / "photo.png").touch()
    with pytest.raises(DepthcellError, match="holds other things"):
        check_room(out)
    with pytest.raises(DepthcellError, match="is a file"):
        check_room(out / "measurements.csv")


def test_tables_need_no_points() -> None:
    light = [part.without_points() for part in PARTS]
    for part in light:
        assert part.scan is None
        assert part.deviation_m is None
        assert part.deviation_u_m is None
        assert not any(drawn.points.size or drawn.lift_m is not None for g in part.results for drawn in g.drawn)
    assert light[0].is_placed
    assert not light[1].is_placed
    assert light[0].without_points().deviation == PARTS[0].deviation
    assert PARTS[0].deviation is not None
    assert measurement_csv(light) == measurement_csv(PARTS)
    assert report_of(light, FACTS) == report_of(PARTS, FACTS)
    assert dfq_file(light, FACTS) == dfq_file(PARTS, FACTS)
    assert qif_document(light, FACTS) == qif_document(PARTS, FACTS)
    assert index_html(light, FACTS, ["a", "b", "c"]) == index_html(PARTS, FACTS, ["a", "b", "c"])


def test_a_writer_holds_no_points(tmp_path: Path) -> None:
    part = measured_plate("once", results=())
    assert part.deviation_m is not None
    deviation = weakref.ref(part.deviation_m)
    writer = MeasurementWriter(FACTS, tmp_path / "out")
    writer.add(part)
    del part
    gc.collect()
    assert deviation() is None


def test_the_bar_shows_where_the_value_lies() -> None:
    bar = tolerance_bar(gauge("distance", 12.0, (11.7, 12.3)))
    assert bar is not None
    assert bar.lower is not None
    assert bar.upper is not None
    assert bar.lower < bar.low < bar.value < bar.high < bar.upper
    assert bar.value == pytest.approx((bar.lower + bar.upper) / 2)
    beyond = tolerance_bar(gauge("distance", 13.0, (11.7, 12.3)))
    assert beyond is not None
    assert beyond.low > (beyond.upper or 1.0)


def test_zero_is_in_the_bar_only_where_the_tolerance_begins_there() -> None:
    between = tolerance_bar(gauge("distance", 12.0, (11.7, 12.3), floor=0.0))
    assert between is not None
    assert between.lower == pytest.approx(EDGE)
    assert between.upper == pytest.approx(1 - EDGE)
    width = tolerance_bar(gauge("flatness", 0.3, (None, 0.5), floor=0.0))
    assert width is not None
    assert width.start == pytest.approx(EDGE)
    assert width.value == pytest.approx(EDGE + (1 - 2 * EDGE) * 0.6)


def test_reasons_leave_out_what_the_table_of_gauges_says() -> None:
    fine = gauge("distance", 12.0, (11.7, 12.3), name="width", reason="12 mm, wanted 11.7 to 12.3 mm")
    free = gauge("roundness", 0.1, (None, None), name="ring", reason="no limit")
    bad = gauge("gap", 3.0, (0.0, 2.0), decision=Decision.NOK, reason="3 mm, wanted at most 2 mm")
    part = measured_plate(
        results=(fine, free, bad),
        decision=Decision.NOK,
        reasons=("gap: 3 mm, wanted at most 2 mm", "also missing: camera 2", f"width: {fine.reason}", "ring: no limit"),
    )
    counted = "2 of 3 gauges are OK; the recipe states no limit for 1 of these"
    assert shown_reasons(part) == ("gap: 3 mm, wanted at most 2 mm", "also missing: camera 2", counted)
    good = measured_plate(results=(fine,), decision=Decision.OK, reasons=(f"width: {fine.reason}",))
    assert shown_reasons(good) == ("1 of 1 gauges are OK",)
    assert shown_reasons(missing_plate()) == missing_plate().reasons


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.sampled_from(["both", "lower", "upper"]))
def test_the_bar_stays_within_itself(value: float, low: float, width: float, which: str) -> None:
    limits = (low if which != "upper" else None, low + width if which != "lower" else None)
    bar = tolerance_bar(gauge("distance", value, limits))
    assert bar is not None
    assert 0 <= bar.start <= bar.end <= 1
    assert 0 <= bar.low <= bar.value <= bar.high <= 1


def test_without_value_or_limits_there_is_no_bar() -> None:
    assert tolerance_bar(gauge("distance", None, (11.7, 12.3))) is None
    assert tolerance_bar(gauge("distance", 12.0, (None, None))) is None


@pytest.mark.parametrize(
    ("conformance", "text"),
    [(None, "—"), (1.0, "> 99.9 %"), (0.99951, "> 99.9 %"), (0.5, "50.0 %"), (0.0, "< 0.1 %"), (0.999, "99.9 %")],
)
def test_a_probability_is_never_told_as_certainty(conformance: float | None, text: str) -> None:
    assert chance_text(replace(gauge("gap", 1.0, (0.0, 2.0)), conformance=conformance)) == text


def test_words_of_values_and_limits() -> None:
    assert value_text(gauge("gap", -1.234, (None, None))) == "−1.23 ± 0.10 mm"
    assert value_text(gauge("gap", None, (None, None))) == "—"
    assert limits_text(gauge("gap", 1.0, (-0.5, 0.5))) == "−0.5 … 0.5 mm"
    assert limits_text(gauge("gap", 1.0, (0.5, None))) == "≥ 0.5 mm"
    assert limits_text(gauge("volume", 1.0, (None, 20.0), unit="mm3")) == "≤ 20 mm³"
    assert limits_text(gauge("gap", 1.0, (None, None))) == "none"
