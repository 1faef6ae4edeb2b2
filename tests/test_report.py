"""Pictures and report: the right pixels in the right colours, one file that asks nobody for anything."""

import base64
import dataclasses
import hashlib
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from depthcell.calib.cell import Cell
from depthcell.inspect.inspection import Inspection
from depthcell.inspect.marks import Mark, labelled
from depthcell.inspect.pictures import (
    BAND_COLORS,
    BAND_EDGES,
    ViewPicture,
    band_colors,
    view_pictures,
)
from depthcell.inspect.report import (
    ReportedPart,
    RunFacts,
    after_last_frame_ms,
    charts,
    render_report,
    signed,
    total_ms,
    with_uncertainty,
)
from depthcell.inspect.verdict import Decision, Verdict

MakeVerdict = Callable[..., Verdict]
TOLERANCE_MM = 0.3
TINY = 1e-6
DENT_MM, STAIN_MM = (10.0, 5.0), (-18.0, -8.0)


@pytest.fixture(scope="module")
def pictures(inspected_plate: Inspection, plate_cell: Cell) -> tuple[ViewPicture, ...]:
    return view_pictures(inspected_plate, plate_cell, TOLERANCE_MM)


def pixels_of(uri: str) -> NDArray[np.uint8]:
    encoded = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1].astype(np.uint8)


def pixel_at(picture: ViewPicture, cell: Cell, inspection: Inspection, xy_mm: tuple[float, float]) -> tuple[int, int]:
    """(column, row) at which a point on the plate must be seen: an oracle that uses the camera alone."""
    assert inspection.fused is not None
    (view,) = [view for view in inspection.fused.views if view.serial == picture.serial]
    point_depth = cell.camera(picture.serial).T_cell_depth.inverse() @ (np.array([*xy_mm, 0.0]) / 1000.0)
    column, row = view.intrinsics.project(point_depth)
    return round(float(column)), round(float(row))


# --- pictures -------------------------------------------------------------------------------------------------------


def test_each_camera_has_its_picture(pictures: tuple[ViewPicture, ...]) -> None:
    assert [picture.serial for picture in pictures] == ["405000001", "405000002"]
    for picture in pictures:
        assert pixels_of(picture.deviation_uri).shape == (picture.height_px, picture.width_px, 3)


def test_the_dent_is_blue_where_it_is_and_grey_elsewhere(
    pictures: tuple[ViewPicture, ...], plate_cell: Cell, inspected_plate: Inspection
) -> None:
    for picture in pictures:
        pixels = pixels_of(picture.deviation_uri).astype(int)
        column, row = pixel_at(picture, plate_cell, inspected_plate, DENT_MM)
        red, green, blue = pixels[row, column]
        assert blue > green > red
        column, row = pixel_at(picture, plate_cell, inspected_plate, (-10.0, 10.0))
        assert np.ptp(pixels[row, column]) <= 2


def test_findings_are_marked_where_they_lie(
    pictures: tuple[ViewPicture, ...], plate_cell: Cell, inspected_plate: Inspection
) -> None:
    for picture in pictures:
        assert [mark.number for mark in picture.marks] == [1, 2]
        for mark, place in zip(picture.marks, (DENT_MM, STAIN_MM), strict=True):
            column, row = pixel_at(picture, plate_cell, inspected_plate, place)
            assert math.hypot(mark.column_px - column, mark.row_px - row) < 2.5
            corners = np.array(re.findall(r"([\d.]+),([\d.]+)", mark.outlines), dtype=float)
            assert corners.min(axis=0) == pytest.approx((column, row), abs=mark.radius_px + 5)
            assert (corners.min(axis=0) < (column, row)).all()
            assert (corners.max(axis=0) > (column, row)).all()
        assert picture.marks[0].label == "1: −0.82 mm"
        assert picture.marks[1].label == "2: 12 mm²"


def test_the_stain_is_dark_in_the_colour_image(
    pictures: tuple[ViewPicture, ...], plate_cell: Cell, inspected_plate: Inspection
) -> None:
    for picture in pictures:
        assert picture.photo_uri is not None
        pixels = pixels_of(picture.photo_uri).astype(int)
        stain = pixels[pixel_at(picture, plate_cell, inspected_plate, STAIN_MM)[::-1]]
        plate = pixels[pixel_at(picture, plate_cell, inspected_plate, (15.0, -10.0))[::-1]]
        assert stain.sum() < 0.6 * plate.sum()


def test_a_finding_without_points_gets_a_circle(inspected_plate: Inspection, plate_cell: Cell) -> None:
    nowhere = np.empty(0, dtype=np.intp)
    inspection = dataclasses.replace(inspected_plate, finding_points=(nowhere, nowhere))
    for picture in view_pictures(inspection, plate_cell, TOLERANCE_MM):
        for mark, place in zip(picture.marks, (DENT_MM, STAIN_MM), strict=True):
            column, row = pixel_at(picture, plate_cell, inspected_plate, place)
            assert math.hypot(mark.column_px - column, mark.row_px - row) < 1.5
            assert "a" in mark.outlines  # an SVG arc


def test_a_part_that_could_not_be_fused_has_no_picture(inspected_plate: Inspection, plate_cell: Cell) -> None:
    assert view_pictures(dataclasses.replace(inspected_plate, fused=None), plate_cell, TOLERANCE_MM) == ()


def test_no_view_shows_what_it_does_not_see(inspected_plate: Inspection, plate_cell: Cell) -> None:
    """Points whose normals face away are on the far side: with all of them turned, nothing is to be seen."""
    assert inspected_plate.fused is not None
    findings = [msgspec.structs.replace(finding, cameras=()) for finding in inspected_plate.verdict.findings]
    verdict = msgspec.structs.replace(inspected_plate.verdict, findings=tuple(findings))
    cloud = inspected_plate.fused.cloud
    turned = dataclasses.replace(cloud, normals_cell=-cloud.normals_cell)
    hidden = dataclasses.replace(
        inspected_plate, verdict=verdict, fused=dataclasses.replace(inspected_plate.fused, cloud=turned)
    )
    for picture in view_pictures(hidden, plate_cell, TOLERANCE_MM):
        assert picture.marks == ()
        assert "nothing was compared" in picture.text


def test_bands_hold_what_their_legend_says() -> None:
    middles = [-4.0, -2.5, -1.5, -0.75, 0.0, 0.75, 1.5, 2.5, 4.0]
    assert len(BAND_COLORS) == len(BAND_EDGES) + 1 == len(middles)
    colors = band_colors(np.array(middles) * 0.2, 0.2)
    assert ["#" + bytes(color).hex() for color in colors] == list(BAND_COLORS)


# --- numbers as people read them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "u", "text"),
    [
        (-0.8234, 0.0912, "−0.82 ± 0.18"),
        (41.52, 2.13, "41.5 ± 4.3"),
        (1234.6, 120.0, "1235 ± 240"),
        (0.1, 0.000012, "0.1000 ± 0.0000"),
        (None, None, "—"),
        (12.0714, None, "12.1"),
    ],
)
def test_a_value_is_rounded_to_its_uncertainty(value: float | None, u: float | None, text: str) -> None:
    assert with_uncertainty(value, u) == text


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3))
def test_rounding_moves_a_value_by_a_tenth_of_its_uncertainty_at_most(value: float, u: float) -> None:
    read = float(with_uncertainty(value, u).partition(" ± ")[0].replace("−", "-"))
    assert abs(read - value) <= 0.1 * u + 1e-9


def test_minus_is_no_hyphen() -> None:
    assert signed("-1.0 to -2 mm, CANNOT-TELL, 3-5") == "−1.0 to −2 mm, CANNOT-TELL, 3-5"


# --- the report -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(pictures: tuple[ViewPicture, ...], make_verdict: MakeVerdict) -> str:
    doubt = msgspec.structs.replace(
        make_verdict(3, Decision.CANNOT_TELL),
        reasons=("camera <405000002>: gave no depth & is missing",),
        timings_ms={"fuse": 2000.0, "align": 345.0},
    )
    parts = [
        ReportedPart(make_verdict(1, Decision.OK)),
        ReportedPart(make_verdict(2), pictures),
        ReportedPart(doubt),
    ]
    return render_report(facts(), parts)


def facts(**changes: object) -> RunFacts:
    known: dict[str, object] = {
        "source": "runs/<sim>",
        "recipe_name": "bracket",
        "cell_name": "plate cell",
        "recipe_json": '{"takt_ms": 2000}',
        "cell_json": "{}",
        "started_at": "2026-01-02 03:04:05 UTC",
        "finished_at": "2026-01-02 03:05:00 UTC",
        "takt_ms": 2000.0,
        "tolerance_mm": TOLERANCE_MM,
        "versions": {"depthcell": "0.1.0"},
    }
    return RunFacts(**(known | changes))  # type: ignore[arg-type]


class Page(HTMLParser):
    """What the tests ask about a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in {"meta", "link", "br", "img", "hr"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def references(page: Page) -> list[str]:
    """Everything a browser would follow or load."""
    names = {"href", "src", "srcset", "action", "data", "poster", "xlink:href"}
    return [value or "" for _, attributes in page.tags for name, value in attributes.items() if name in names]


def test_the_report_is_well_formed_and_every_link_leads_somewhere(report: str) -> None:
    page = Page(report)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    inner = {link[1:] for link in references(page) if link.startswith("#")}
    assert inner <= set(page.ids)
    assert {"part-2", "part-3"} <= inner


def outside(report: str) -> list[str]:
    """References that leave the file, and ways to run code."""
    page = Page(report)
    leaving = [link for link in references(page) if not link.startswith(("#", "data:image/"))]
    scripts = [tag for tag, attributes in page.tags if tag == "script" or any(a.startswith("on") for a in attributes)]
    return leaving + scripts + re.findall(r"url\([^)]*\)|@import", report)


def test_the_report_asks_nobody_for_anything(report: str) -> None:
    assert outside(report) == []
    assert len(report) < 2_000_000


def test_a_planted_request_is_seen(report: str) -> None:
    for planted in (
        '<img src="https://example.org/x.png">',
        "<script>fetch()</script>",
        '<p onclick="x()"></p>',
        "<style>@import 'x'</style>",
    ):
        assert outside(report.replace("<footer>", planted + "<footer>")) != []


def test_the_policy_allows_this_style_sheet_and_nothing_else(report: str) -> None:
    (policy,) = [
        attributes["content"] or ""
        for tag, attributes in Page(report).tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    (style,) = re.findall(r"<style>(.*?)</style>", report, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert not any("style" in attributes for _, attributes in Page(report).tags)  # the policy would ignore them


def test_text_from_outside_cannot_become_markup(report: str) -> None:
    assert "camera &lt;405000002&gt;: gave no depth &amp; is missing" in report
    assert "runs/&lt;sim&gt;" in report


def test_the_report_says_what_was_found_in_millimetres(report: str) -> None:
    for text in ("−0.82 ± 0.18 mm", "41.5 ± 4.2 mm²", "−17.3 ± 3.6 mm³", "10.0, 5.0, 0.0 mm", "9.1 sigma", "12.070"):
        assert text in report
    assert "part_002" in report
    assert "1: −0.82 mm" in report


def test_every_picture_has_words_for_those_who_cannot_see_it(report: str) -> None:
    page = Page(report)
    svgs = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(svgs) > 5
    decorative = [attributes for attributes in svgs if not attributes.get("aria-label")]
    assert all(attributes.get("preserveaspectratio") == "none" for attributes in decorative)  # the colour scale alone
    assert ("html", {"lang": "en"}) in page.tags


def test_late_verdicts_are_said_to_be_late(report: str) -> None:
    assert "2 of 3" in report
    assert "This verdict took 2,345 ms; the takt is 2,000 ms." in report
    assert "Late." not in render_report(facts(takt_ms=3000.0), [])


def test_an_interrupted_run_says_so(make_verdict: MakeVerdict) -> None:
    parts = [ReportedPart(make_verdict(1, Decision.OK))]
    assert "Cut short." in render_report(facts(interrupted=True), parts)
    assert "Cut short." not in render_report(facts(), parts)


def test_an_empty_run_has_a_report_too() -> None:
    assert "0 parts" in render_report(facts(interrupted=True), [])


def test_the_close_up_is_of_the_camera_that_sees_most(
    pictures: tuple[ViewPicture, ...], make_verdict: MakeVerdict
) -> None:
    part = ReportedPart(make_verdict(2), pictures)
    for number in (1, 2):
        most = max(mark.points for picture in pictures for mark in picture.marks if mark.number == number)
        view = part.best_view(number)
        assert view is not None
        assert most in [mark.points for mark in view.marks if mark.number == number]
    assert part.best_view(99) is None


def test_charts_hold_each_measured_value_between_its_limits(make_verdict: MakeVerdict) -> None:
    good = make_verdict(1, Decision.OK)
    unmeasured = msgspec.structs.replace(good.measurements[0], value=None, u=None, decision=Decision.CANNOT_TELL)
    too_large = msgspec.structs.replace(good.measurements[0], value=12.5, decision=Decision.NOK)
    verdicts = [good] + [msgspec.structs.replace(good, measurements=(m,)) for m in (unmeasured, too_large)]
    (chart,) = charts(verdicts)
    assert (len(chart.points), chart.unmeasured) == (2, 1)
    assert chart.lower is not None
    assert chart.upper is not None
    within, above = chart.points
    assert chart.lower < within.low < within.value < within.high < chart.upper < above.value
    assert all(0 <= share <= 1 for point in chart.points for share in (point.low, point.high))


def test_total_time_is_the_stages_sum_where_no_total_is_given(make_verdict: MakeVerdict) -> None:
    verdict = make_verdict()
    assert total_ms(verdict) == 54.1
    assert total_ms(msgspec.structs.replace(verdict, timings_ms={"a": 1.0, "b": 2.0})) == 3.0


def test_reading_a_recording_is_not_what_a_line_waits_for(make_verdict: MakeVerdict) -> None:
    verdict = msgspec.structs.replace(make_verdict(), timings_ms={"read": 30.0, "fuse": 10.0, "total": 42.0})
    assert (total_ms(verdict), after_last_frame_ms(verdict)) == (42.0, 12.0)


@given(
    st.lists(st.tuples(st.floats(0, 200), st.floats(0, 150), st.floats(1, 60)), max_size=14),
)
def test_labels_stay_inside_the_picture_and_off_each_other(places: list[tuple[float, float, float]]) -> None:
    marks = tuple(
        Mark(number, "", column, row, radius, 9, f"{number}: −0.82 mm", "a dent")
        for number, (column, row, radius) in enumerate(places, start=1)
    )
    boxes: list[tuple[float, float, float, float]] = []
    for mark in labelled(marks, (0, 0, 200, 150)):
        if not mark.label:
            continue
        width = len(mark.label) * 5.0
        left = mark.label_column_px - (width if mark.label_side == "end" else 0.0)
        box = (left, mark.label_row_px - 5.0, left + width, mark.label_row_px + 5.0)
        assert box[0] >= -TINY
        assert box[1] >= -TINY
        assert box[2] <= 200 + TINY
        assert box[3] <= 150 + TINY
        for other in boxes:
            across = min(box[2], other[2]) - max(box[0], other[0])
            down = min(box[3], other[3]) - max(box[1], other[1])
            assert across < TINY or down < TINY
        boxes.append(box)


def test_a_single_label_stands_right_of_its_mark() -> None:
    (mark,) = labelled((Mark(1, "", 50.0, 60.0, 10.0, 9, "1: −0.82 mm", "a dent"),), (0, 0, 200, 150))
    assert (mark.label_side, mark.label_row_px) == ("start", 60.0)
    assert 60.0 < mark.label_column_px < 66.0
