"""The certificate: it says all that it was given, in PDF and HTML; a changed or foreign one is refused."""

import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from depthcell.acquisition.intrinsics import Distortion
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, camera_covariance
from depthcell.calib.certify.certificate import (
    CONTENT_PURPOSE,
    signature_path,
    verify_certificate,
    write_certificate,
)
from depthcell.calib.certify.certificate_content import (
    CertificateContent,
    Check,
    Coverage,
    Issuer,
    ModelChoice,
    OutlierCount,
    PartUncertainty,
    Picture,
    ReferenceBoard,
    Result,
    ResultTable,
    content_digest,
)
from depthcell.calib.certify.certificate_results import certified_camera, pose_slope, results_of
from depthcell.calib.certify.certificate_sections import (
    Paragraph,
    Table,
    format_interval,
    format_u,
    format_value,
    head_of,
    sections_of,
)
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.seal import Seal, fingerprint, station_public_key, trust, verify
from depthcell.errors import DepthcellError


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 20), "navy").save(stream, "png")
    return stream.getvalue()


def content_of(cell: Cell) -> CertificateContent:
    """All that a certificate can say, with texts that HTML and PDF must escape."""
    return CertificateContent(
        cell_name=cell.name,
        cell_sha256=cell.sha256,
        calibrated_at="2026-03-04T05:06:07Z",
        issued_at="2026-03-05T08:00:00Z",
        valid_until="2026-09-05T00:00:00Z",
        issuer=Issuer("Room <7> & Co", "Example Street 1", "line 4", "A. Person", "Works"),
        cameras=tuple(certified_camera(camera, "5.16", (36.0, 38.5)) for camera in cell.cameras.values()),
        boards=(ReferenceBoard("charuco:9x6:30mm", 30.0012, 0.0021, "PTB 123/26", 0.213),),
        views=79,
        instants=20,
        conditions=(("Ambient temperature", "21.4 °C"),),
        method=("One bundle adjustment.",),
        results=results_of(cell),
        models=(ModelChoice("depth:1", "OpenCV, 8 coefficients", 0.1432, 0.1399, chosen=True),),
        validation=(Check("reprojection", 0.143, "px", 0.3, 5, "RMS"),),
        halves=(Check("points", 0.08, "mm", None, 200, "largest"),),
        coverage=(Coverage("corner positions", 952, 1000),),
        outliers=(OutlierCount("depth:1", 20, 800, 6),),
        part=(PartUncertainty("middle", (1.0, -2.0, 3.0), (0.011, 0.012, 0.034), 0.036, 2),),
        part_frames=30,
        pictures=(Picture("Residuals", "Small.", "A blue field", png()),),
        statements=("The lamp was off.",),
        software=(("depthcell", "0.1.0"),),
        inputs=(("board/1.db3", "ab" * 32),),
    )


@pytest.fixture(scope="module")
def content(plate_cell: Cell) -> CertificateContent:
    return content_of(plate_cell)


def texts_of(content: CertificateContent) -> list[str]:
    found = [text for pair in head_of(content) for text in pair]
    for section in sections_of(content):
        found.append(section.title)
        for block in section.blocks:
            if isinstance(block, Paragraph):
                found.append(block.text)
            elif isinstance(block, Table):
                found += [block.title, block.note, *block.head, *(text for row in block.rows for text in row)]
            else:
                found += [block.title, block.caption]
    return [text for text in found if text]


class Reader(HTMLParser):
    """Text, tags and what the file would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        named = dict(attrs)
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named.get("content") or ""

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    return reader


def test_html_says_everything_and_asks_nobody(content: CertificateContent, tmp_path: Path) -> None:
    reader = read(write_certificate(content, tmp_path / "cell.pdf").html)
    said = " ".join(" ".join(reader.words).split())
    for text in texts_of(content):
        assert " ".join(text.split()) in said
    assert reader.sources
    assert all(source.startswith("data:image/png;base64,") for source in reader.sources)
    assert "script" not in reader.tags
    assert reader.policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert content.number in said


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="reading a PDF back needs pdftotext (poppler-utils)")
def test_pdf_says_everything_on_numbered_pages(content: CertificateContent, tmp_path: Path) -> None:
    written = write_certificate(content, tmp_path / "cell.pdf")
    read_back = subprocess.run(["pdftotext", "-layout", written.pdf, "-"], capture_output=True, check=True)
    pages = read_back.stdout.decode().split("\f")[:-1]
    everything = re.sub(r"\s+", "", "".join(pages))
    for section in sections_of(content):
        assert re.sub(r"\s+", "", section.title) in everything
    for words in (
        "PTB 123/26",
        "Room <7> & Co",
        "952 of 1000",
        "−2",
        "kept",
        written.key_fingerprint,
        "End of the cert",
    ):
        assert re.sub(r"\s+", "", words) in everything
    for number, page in enumerate(pages, 1):
        assert f"page {number} of {len(pages)}" in page
        assert content.number in page


def test_the_same_content_gives_the_same_files(content: CertificateContent, tmp_path: Path) -> None:
    first = write_certificate(content, tmp_path / "a" / "cell.pdf")
    second = write_certificate(content_of_again(content), tmp_path / "b" / "cell.pdf")
    for one, two in ((first.pdf, second.pdf), (first.html, second.html)):
        assert one.read_bytes() == two.read_bytes()
        assert signature_path(one).read_bytes() == signature_path(two).read_bytes()
    assert first.pdf.read_bytes().startswith(b"%PDF-")
    assert b"DejaVuSans" in first.pdf.read_bytes()  # embedded, so that it prints the same anywhere


def content_of_again(content: CertificateContent) -> CertificateContent:
    return replace(content, pictures=tuple(replace(picture) for picture in content.pictures))


def test_an_untouched_certificate_is_accepted(content: CertificateContent, tmp_path: Path) -> None:
    written = write_certificate(content, tmp_path / "cell.pdf")
    for path in (written.pdf, written.html):
        assert verify_certificate(path) == fingerprint(station_public_key()) == written.key_fingerprint
        signature = json.loads(signature_path(path).read_text())
        assert signature["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert signature["fingerprint"] == written.key_fingerprint


def change_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap_signature(path: Path) -> None:
    other = path.with_suffix(".html" if path.suffix == ".pdf" else ".pdf")
    shutil.copy(signature_path(other), signature_path(path))


@pytest.mark.parametrize("tamper", [change_byte, swap_signature, lambda path: path.write_bytes(b"")])
def test_a_changed_certificate_is_refused(
    content: CertificateContent, tmp_path: Path, tamper: Callable[[Path], object]
) -> None:
    written = write_certificate(content, tmp_path / "cell.pdf")
    for path in (written.pdf, written.html):
        before = path.read_bytes(), signature_path(path).read_bytes()
        tamper(path)
        with pytest.raises(DepthcellError, match="was changed after it was signed"):
            verify_certificate(path)
        path.write_bytes(before[0])
        signature_path(path).write_bytes(before[1])
        verify_certificate(path)


def test_a_missing_or_broken_signature_is_said(content: CertificateContent, tmp_path: Path) -> None:
    written = write_certificate(content, tmp_path / "cell.pdf")
    signature_path(written.pdf).write_text("{}")
    with pytest.raises(DepthcellError, match=r"cell\.pdf\.sig is no signature: .*schema_version"):
        verify_certificate(written.pdf)
    signature_path(written.pdf).unlink()
    with pytest.raises(DepthcellError, match=r"cell\.pdf\.sig cannot be read"):
        verify_certificate(written.pdf)


def test_a_foreign_certificate_is_refused_until_its_station_is_trusted(
    content: CertificateContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPTHCELL_HOME", str(tmp_path / "there"))
    written = write_certificate(content, tmp_path / "cell.pdf")
    monkeypatch.setenv("DEPTHCELL_HOME", str(tmp_path / "here"))
    with pytest.raises(DepthcellError, match=rf"sealed by key {written.key_fingerprint}, .*not trust"):
        verify_certificate(written.pdf)
    trust(tmp_path / "there" / "station.pub")
    assert verify_certificate(written.pdf) == written.key_fingerprint


def test_the_printed_signature_is_over_the_content(content: CertificateContent, tmp_path: Path) -> None:
    page = write_certificate(content, tmp_path / "cell.pdf").html.read_text()
    embedded = re.search(r'<pre id="content">(.*?)</pre>', page, re.DOTALL)
    signature = re.search(r"Signature \(Ed25519\)</dt><dd>([0-9a-f]{128})<", page)
    assert embedded
    assert signature
    reader = Reader()
    reader.feed(embedded[1])
    plain = "".join(reader.words).encode()
    assert hashlib.sha256(plain).hexdigest() == content_digest(content)
    assert content_digest(content) in page
    verify(Seal(station_public_key(), signature[1]), CONTENT_PURPOSE, plain)


def test_every_field_is_part_of_the_digest(content: CertificateContent) -> None:
    digest = content_digest(content)
    picture = content.pictures[0]
    changes = [
        {"valid_until": "2027-01-01T00:00:00Z"},
        {"boards": (replace(content.boards[0], pitch_mm=30.0013),)},
        {"pictures": (replace(picture, png=picture.png + b"\0"),)},
        {"inputs": ()},
    ]
    for change in changes:
        assert content_digest(replace(content, **change)) != digest  # type: ignore[arg-type]
    assert content.number.startswith("DC-20260305-")


def warnings_of(content: CertificateContent) -> str:
    blocks = [block for section in sections_of(content) for block in section.blocks]
    return " ".join(block.text for block in blocks if isinstance(block, Paragraph) and block.warning)


def test_what_is_missing_is_said_in_red(content: CertificateContent) -> None:
    assert warnings_of(content) == ""
    bare = replace(content, boards=(replace(content.boards[0], certificate=None),))
    assert "NOT TRACEABLE" in warnings_of(bare)
    assert "not traceable to the SI" in warnings_of(bare)
    failed = replace(content, validation=(Check("reprojection", 0.5, "px", 0.3, 5, "RMS"),))
    assert "NOT PASSED: 1 of 1 checks exceed their limit: reprojection" in warnings_of(failed)
    unchecked = replace(content, validation=(), halves=(), part=(), method=())
    for words in ("NOT VALIDATED", "Held-out data: nothing was checked", "work volume was not evaluated", "No method"):
        assert words in warnings_of(unchecked)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cameras": ()}, "one camera and one board"),
        ({"results": (ResultTable("t", "", (Result("fx", float("nan"), 0.1, "px"),)),)}, "fx: value and uncertainty"),
        ({"results": (ResultTable("t", "", (Result("fx", 1.0, -0.1, "px"),)),)}, "fx: value and uncertainty"),
        ({"validation": (Check("plane", float("inf"), "mm", None, 1, ""),)}, "plane: value"),
    ],
)
def test_impossible_content_is_refused(content: CertificateContent, change: dict[str, object], words: str) -> None:
    with pytest.raises(DepthcellError, match=words):
        replace(content, **change)  # type: ignore[arg-type]


def test_the_name_must_be_that_of_a_pdf(content: CertificateContent, tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match=r"must end in \.pdf"):
        write_certificate(content, tmp_path / "cell.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "u", "texts"),
    [
        (609.31519, 0.0264, ("609.315", "0.026", "609.263 to 609.367")),
        (-0.0041, 0.24, ("0.00", "0.24", "−0.47 to 0.47")),
        (-381.4567, 0.0996, ("−381.46", "0.10", "−381.65 to −381.26")),
        (12345.6, 123.0, ("12346", "123", "12105 to 12587")),
        (1.5, 0.0, ("1.5", "exact", "—")),
        (0.123456789, None, ("0.123457", "—", "—")),
    ],
)
def test_numbers_are_given_to_the_digits_they_are_worth(
    value: float, u: float | None, texts: tuple[str, str, str]
) -> None:
    assert (format_value(value, u), format_u(u), format_interval(Result("x", value, u, "px"))) == texts


@given(st.floats(-1e4, 1e4), st.floats(1e-5, 10))
def test_rounding_costs_little_of_the_uncertainty(value: float, u: float) -> None:
    read_back = float(format_value(value, u).replace("−", "-"))
    assert abs(read_back - value) <= 0.051 * u
    assert float(format_u(u)) == pytest.approx(u, rel=0.051)


def test_coverage_has_an_interval_of_its_own() -> None:
    low, high = Coverage("x", 190, 200).share_interval
    assert (round(low, 4), round(high, 4)) == (0.9100, 0.9758)  # R: binom.test(190, 200)$conf.int
    assert Coverage("x", 0, 10).share_interval[0] == 0
    assert Coverage("x", 10, 10).share_interval[1] == 1


def full_camera(plate_cell: Cell) -> CellCamera:
    camera = next(iter(plate_cell.cameras.values()))
    lens = replace(
        camera.depth, distortion=Distortion.RATIONAL, coefficients=(0.1, -0.2, 1e-3, 2e-3, 0.05, 0.0, 0.0, 0.01)
    )
    correction = DepthCorrection(1.01, 0.2, -0.1, ((0.0, 0.05), (0.02, 0.01)), 1e-5, 35.0)
    u = {"fx_px": 0.31, "k2": 0.004, "scale": 0.002, "wave_1_0": 0.007}
    covariance = camera_covariance(np.diag([1e-8] * 3 + [1e-10] * 3), lens, correction, u)
    color = np.diag([1e-8] * 3 + [4e-10] * 3 + [0.04] * 4)
    return replace(camera, depth=lens, correction=correction, covariance=covariance, color_covariance=color)


def test_results_are_those_of_the_cell(plate_cell: Cell) -> None:
    camera = full_camera(plate_cell)
    tables = results_of(Cell("one", {camera.serial: camera}, "2026-01-01T00:00:00Z"))
    by_title = {table.title.split(": ")[1]: {r.name: r for r in table.results} for table in tables}
    lens = by_title["lens of the depth stream"]
    assert (lens["fx"].value, lens["k2"].value) == (430.0, -0.2)
    assert (lens["fx"].u or 0, lens["k2"].u or 0) == pytest.approx((0.31, 0.004))
    correction = by_title["depth correction"]
    assert (correction["wave 1,0"].value, correction["wave 1,0"].u or 0) == pytest.approx((0.02, 0.007))
    assert by_title["lens of the colour stream"]["cx"].u == pytest.approx(0.2)
    pose = by_title["pose of the depth stream in the cell"]
    assert pose["position z"].value == pytest.approx(300.0)
    # 0.1 mrad about an origin 300 mm away, and 0.01 mm
    assert pose["position x"].u == pytest.approx(np.hypot(0.03, 0.01))
    assert "35.0 °C" in next(table.note for table in tables if "correction" in table.title)
    unmeasured = results_of(plate_cell)
    assert all(r.u is None for table in unmeasured if "colour" in table.title for r in table.results)


@given(st.tuples(*[st.floats(-1.7, 1.7)] * 3), st.tuples(*[st.floats(-2, 2)] * 3))
def test_the_slope_of_a_pose_is_that_of_its_numbers(turn: tuple[float, ...], at: tuple[float, ...]) -> None:
    pose = RigidTransform.from_rotation_vector("cell", "camera", np.array(turn), np.array(at))
    slope, step = pose_slope(pose), 1e-6
    for place in range(6):
        ahead, back = (pose.perturbed(sign * step * np.eye(6)[place]) for sign in (1, -1))
        numbers = [np.concatenate((one.translation_m, one.rotation_vector_rad)) for one in (ahead, back)]
        np.testing.assert_allclose((numbers[0] - numbers[1]) / (2 * step), slope[:, place], atol=1e-6)
