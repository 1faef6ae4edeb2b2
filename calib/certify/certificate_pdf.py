"""A certificate as PDF: A4, number and page count on every page, fonts embedded; same content, same bytes."""

import io
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus.doctemplate import SimpleDocTemplate
from reportlab.platypus.flowables import CondPageBreak, Flowable, Image, KeepTogether, Spacer
from reportlab.platypus.paragraph import Paragraph as PdfParagraph
from reportlab.platypus.tables import Table as PdfTable

from depthcell.calib.certify.certificate_content import CertificateContent, Picture
from depthcell.calib.certify.certificate_sections import Paragraph, Section, Table, head_of, sections_of
from depthcell.calib.certify.pdfpages import BOLD, FONT, numbered, register_fonts

MARGIN = 20 * mm
FRAME_PADDING = 6  # points that the document's frame adds on each side
WIDTH = A4[0] - 2 * MARGIN
HEIGHT = A4[1] - 52 * mm
INK, SOFT, LINE, ALARM = (colors.HexColor(code) for code in ("#1d2733", "#56616f", "#c3cad3", "#a61b12"))
LONG_TABLE = 30
"""Rows above which a table may run over two pages."""


def certificate_pdf(content: CertificateContent, printed_seal: tuple[tuple[str, str], ...]) -> bytes:
    """The PDF file.

    Args:
        content: what it says.
        printed_seal: (what, value) of the signature over the content, printed at its end.
    """
    register_fonts()
    story: list[Flowable] = [_title("Calibration certificate"), _facts(head_of(content)), Spacer(0, 3 * mm)]
    for number, section in enumerate(sections_of(content), 1):
        story += _section(number, section)
    story.append(KeepTogether([_heading("Signature"), _facts(printed_seal), Spacer(0, 4 * mm), _end()]))
    stream = io.BytesIO()
    document = SimpleDocTemplate(
        stream,
        pagesize=A4,
        leftMargin=MARGIN - FRAME_PADDING,
        rightMargin=MARGIN - FRAME_PADDING,
        topMargin=24 * mm,
        bottomMargin=22 * mm,
        title=f"Calibration certificate {content.number}",
        author=content.issuer.laboratory or "depthcell",
        subject=f"Inspection cell {content.cell_name}",
        creator="depthcell",
        invariant=True,
    )
    document.build(story, canvasmaker=numbered(lambda canvas, page: _frame_page(canvas, content, page)))
    return stream.getvalue()


def _frame_page(canvas: Canvas, content: CertificateContent, page: str) -> None:
    canvas.setStrokeColor(LINE)
    canvas.setFillColor(SOFT)
    canvas.setFont(FONT, 7.5)
    top, bottom = A4[1] - 16 * mm, 15 * mm
    canvas.drawString(MARGIN, top, content.issuer.laboratory or "Issued by the operator of the cell")
    canvas.drawRightString(A4[0] - MARGIN, top, f"Calibration certificate {content.number}")
    canvas.line(MARGIN, top - 2 * mm, A4[0] - MARGIN, top - 2 * mm)
    canvas.line(MARGIN, bottom + 4 * mm, A4[0] - MARGIN, bottom + 4 * mm)
    canvas.drawString(MARGIN, bottom, f"Inspection cell '{content.cell_name}'")
    canvas.drawRightString(A4[0] - MARGIN, bottom, page)


def _style(size: float, **changes: Any) -> ParagraphStyle:
    settings = {"fontName": FONT, "fontSize": size, "leading": 1.32 * size, "textColor": INK} | changes
    return ParagraphStyle("house", **settings)


def _text(text: str, size: float = 8.5, **changes: Any) -> PdfParagraph:
    return PdfParagraph(escape(text), _style(size, **changes))


def _title(text: str) -> PdfParagraph:
    return _text(text, 20, fontName=BOLD, spaceAfter=6 * mm)


def _heading(text: str) -> PdfParagraph:
    return _text(text, 11.5, fontName=BOLD, spaceBefore=5 * mm, spaceAfter=2 * mm, keepWithNext=1)


def _end() -> PdfParagraph:
    return _text("End of the certificate", 8, textColor=SOFT, alignment=1)


def _facts(pairs: tuple[tuple[str, str], ...]) -> PdfTable:
    rows = [
        [_text(name, textColor=SOFT), _text(value, wordWrap="CJK" if " " not in value else None)]
        for name, value in pairs
    ]
    table = PdfTable(rows, hAlign="LEFT", colWidths=[0.26 * WIDTH, 0.74 * WIDTH])
    table.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *_padding(1.4)])
    return table


def _padding(points: float) -> list[tuple[Any, ...]]:
    whole = ((0, 0), (-1, -1))
    sides = [("LEFTPADDING", *whole, 6), ("LEFTPADDING", (0, 0), (0, -1), 0), ("RIGHTPADDING", *whole, 2)]
    return [*sides, ("TOPPADDING", *whole, points), ("BOTTOMPADDING", *whole, points)]


def _section(number: int, section: Section) -> list[Flowable]:
    """Heading and blocks; no block is torn apart but a long table, and the heading stays with the first."""
    story: list[Flowable] = []
    heading: list[Flowable] = [_heading(f"{number}  {section.title}")]
    for block in section.blocks:
        if isinstance(block, Table) and len(block.rows) > LONG_TABLE:
            story += [CondPageBreak(60 * mm), *heading, *_flowables(block)]
        else:
            story.append(KeepTogether([*heading, *_flowables(block)]))
        heading = []
    return story


def _flowables(block: Paragraph | Table | Picture) -> list[Flowable]:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        return _picture(block)
    style: dict[str, Any] = {"textColor": ALARM, "fontName": BOLD} if block.warning else {}
    return [_text(block.text, spaceAfter=1.6 * mm, **style)]


def _table(block: Table) -> list[Flowable]:
    def cell(text: str, column: int, *, head: bool = False) -> PdfParagraph:
        style: dict[str, Any] = {"fontName": BOLD, "textColor": SOFT} if head else {}
        if column in block.numeric:
            style["alignment"] = TA_RIGHT
        if len(text) > 40 and " " not in text:
            style["wordWrap"] = "CJK"  # breaks a hash anywhere
        return _text(text, 7.5, **style)

    rows = [[cell(text, column, head=True) for column, text in enumerate(block.head)]]
    rows += [[cell(text, column) for column, text in enumerate(row)] for row in block.rows]
    table = PdfTable(rows, hAlign="LEFT", colWidths=[share * WIDTH for share in block.widths], repeatRows=1)
    rules = [("LINEBELOW", (0, 0), (-1, 0), 0.8, SOFT), ("LINEBELOW", (0, 1), (-1, -1), 0.3, LINE)]
    table.setStyle([*rules, ("VALIGN", (0, 0), (-1, -1), "TOP"), *_padding(1.6)])
    title = [_text(block.title, 8.5, fontName=BOLD, spaceBefore=2.5 * mm, spaceAfter=1 * mm)] if block.title else []
    note = [_text(block.note, 7.5, textColor=SOFT, spaceAfter=1 * mm)] if block.note else []
    return [*title, *note, table, Spacer(0, 3 * mm)]


def _picture(block: Picture) -> list[Flowable]:
    width, height = ImageReader(io.BytesIO(block.png)).getSize()
    scale = min(WIDTH / width, (HEIGHT - 25 * mm) / height)
    image = Image(io.BytesIO(block.png), width=scale * width, height=scale * height)
    title = _text(block.title, 8.5, fontName=BOLD, spaceBefore=2 * mm, spaceAfter=1.5 * mm)
    return [title, image, _text(block.caption, 7.5, textColor=SOFT), Spacer(0, 4 * mm)]
