"""A measured part as PDF: verdict with reasons, gauges with limits, uncertainty budgets, colour map and sections.

A4, page number and count on every page, fonts embedded; the same content gives the same bytes.
"""

import io
from typing import Any
from xml.sax.saxutils import escape

from reportlab.graphics.shapes import Drawing, Line, Rect
from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus.doctemplate import SimpleDocTemplate
from reportlab.platypus.flowables import CondPageBreak, Flowable, Image, KeepTogether, Spacer
from reportlab.platypus.paragraph import Paragraph
from reportlab.platypus.tables import Table

from depthcell.calib.certify.pdfpages import BOLD, FONT, numbered, register_fonts
from depthcell.inspect.gauges.gauged import GaugeResult
from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts
from depthcell.inspect.measurement_deviation import DeviationRecord
from depthcell.inspect.measurement_words import (
    chance_text,
    contribution_text,
    limits_text,
    shown_reasons,
    tolerance_bar,
    value_text,
)
from depthcell.inspect.report import signed
from depthcell.inspect.verdict import Decision

MARGIN, FRAME_PADDING = 18 * mm, 6
WIDTH, HEIGHT = A4[0] - 2 * MARGIN, A4[1] - 50 * mm
INK, SOFT, RULE = (colors.HexColor(code) for code in ("#1d2733", "#56616f", "#c3cad3"))
INSIDE, LIMIT = colors.HexColor("#cfe3d5"), colors.HexColor("#14692f")
TONE = {
    Decision.OK: colors.HexColor("#14692f"),
    Decision.NOK: colors.HexColor("#a61b12"),
    Decision.CANNOT_TELL: colors.HexColor("#7a4b00"),
}
BAR_WIDTH, BAR_HEIGHT = 31 * mm, 4 * mm
COLUMNS = (0.215, 0.18, 0.145, 0.195, 0.12, 0.145)
SHOWN_ROWS = 8
"""Contributions of a budget that are listed; smaller ones are summed up."""


def measurement_pdf(part: MeasuredPart, facts: MeasurementFacts, pictures: tuple[tuple[str, bytes], ...]) -> bytes:
    """The PDF file.

    Args:
        part: what it is about.
        facts: of the run.
        pictures: (title, PNG) shown at the end.
    """
    register_fonts()
    story: list[Flowable] = [_title(part), _facts(part, facts), Spacer(0, 3 * mm), *_verdict(part)]
    story += [CondPageBreak(45 * mm), _heading("Gauges", keep=False), *_gauges(part.results)]
    deviation = part.deviation
    if deviation is not None:
        story.append(KeepTogether([_heading("Deviation from the reference"), _deviation(deviation)]))
    for title, png in pictures:
        story.append(KeepTogether([_heading(title), _image(png)]))
    story += _budgets(part.results)
    stream = io.BytesIO()
    document = SimpleDocTemplate(
        stream,
        pagesize=A4,
        leftMargin=MARGIN - FRAME_PADDING,
        rightMargin=MARGIN - FRAME_PADDING,
        topMargin=22 * mm,
        bottomMargin=20 * mm,
        title=f"Measurement of {part.part_id}",
        author="depthcell",
        subject=f"recipe {facts.recipe_name}, cell {facts.cell_name}",
        creator="depthcell",
        invariant=True,
    )
    document.build(story, canvasmaker=numbered(lambda canvas, page: _frame_page(canvas, part, facts, page)))
    return stream.getvalue()


def _frame_page(canvas: Canvas, part: MeasuredPart, facts: MeasurementFacts, page: str) -> None:
    canvas.setStrokeColor(RULE)
    canvas.setFillColor(SOFT)
    canvas.setFont(FONT, 7.5)
    top, bottom = A4[1] - 15 * mm, 13 * mm
    canvas.drawString(MARGIN, top, f"Measurement of {_short(part.part_id)}")
    canvas.drawRightString(A4[0] - MARGIN, top, f"recipe {_short(facts.recipe_name)}")
    canvas.line(MARGIN, top - 2 * mm, A4[0] - MARGIN, top - 2 * mm)
    canvas.line(MARGIN, bottom + 4 * mm, A4[0] - MARGIN, bottom + 4 * mm)
    canvas.drawString(MARGIN, bottom, f"{part.provenance.software}, {part.measured_at}")
    canvas.drawRightString(A4[0] - MARGIN, bottom, page)


def _short(text: str) -> str:
    return text if len(text) <= 50 else f"{text[:49]}…"


def _text(text: str, size: float = 8.5, **changes: Any) -> Paragraph:
    style = {"fontName": FONT, "fontSize": size, "leading": 1.32 * size, "textColor": INK} | changes
    return Paragraph(escape(text), ParagraphStyle("house", **style))


def _title(part: MeasuredPart) -> Table:
    badge = _text(part.decision.value, 11, fontName=BOLD, textColor=colors.white, alignment=1)
    table = Table(
        [[_text(part.part_id, 18, fontName=BOLD), badge]], colWidths=[WIDTH - 36 * mm, 36 * mm], hAlign="LEFT"
    )
    table.setStyle(
        [
            ("BACKGROUND", (1, 0), (1, 0), TONE[part.decision]),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ("LEFTPADDING", (0, 0), (0, 0), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 4),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 6),
        ]
    )
    return table


def _heading(text: str, *, keep: bool = True) -> Paragraph:
    return _text(text, 11.5, fontName=BOLD, spaceBefore=5 * mm, spaceAfter=2 * mm, keepWithNext=int(keep))


def _facts(part: MeasuredPart, facts: MeasurementFacts) -> Table:
    source = part.provenance
    pairs = (
        ("Measured", part.measured_at),
        ("Source", facts.source),
        ("Recipe", f"{facts.recipe_name}, SHA-256 {source.recipe}"),
        ("Cell", f"{facts.cell_name}, SHA-256 {source.cell}"),
        ("Recording", f"SHA-256 {source.recording}"),
        ("Software", ", ".join(f"{name} {version}" for name, version in facts.versions.items()) or source.software),
    )
    rows = [[_text(name, 8, textColor=SOFT), _text(value, 7.5)] for name, value in pairs]
    table = Table(rows, colWidths=[0.14 * WIDTH, 0.86 * WIDTH], hAlign="LEFT")
    table.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *_padding(1.2)])
    return table


def _verdict(part: MeasuredPart) -> list[Flowable]:
    story: list[Flowable] = [_heading(f"Verdict: {part.decision.value}")]
    story += [_text(f"• {signed(reason)}", 8.5, leftIndent=3 * mm) for reason in shown_reasons(part)]
    return story


def _gauges(results: tuple[GaugeResult, ...]) -> list[Flowable]:
    if not results:
        return [_text("The recipe has no gauges.", textColor=SOFT)]
    head = [_cell(name, head=True) for name in ("Gauge", "Value ± U", "Limits", "", "Conforms", "Decision")]
    rows: list[list[Flowable]] = [head]  # type: ignore[list-item]
    for result in results:
        said = f"{result.kind.replace('_', ' ')}; {signed(result.reason if result.value is None else result.note)}"
        name = [_cell(result.name), _text(said, 6.3, textColor=SOFT)]
        bar = _bar(result)
        rows.append(
            [
                name,  # type: ignore[list-item]
                _cell(value_text(result), alignment=TA_RIGHT),
                _cell(limits_text(result), alignment=TA_RIGHT),
                bar if bar is not None else _cell(""),
                _cell(chance_text(result), alignment=TA_RIGHT),
                _cell(result.decision.value, fontName=BOLD, textColor=TONE[result.decision]),
            ]
        )
    note = 'U = 2u covers about 95 %. Decided with guard bands (ISO 14253-1); "conforms" is the probability of it.'
    return [_table(rows, COLUMNS), _text(note, 7, textColor=SOFT, spaceBefore=1 * mm)]


def _bar(result: GaugeResult) -> Drawing | None:
    bar = tolerance_bar(result)
    if bar is None:
        return None
    drawing = Drawing(BAR_WIDTH, BAR_HEIGHT)
    middle = BAR_HEIGHT / 2
    band = BAR_HEIGHT * 0.55
    start, end = bar.start * BAR_WIDTH, bar.end * BAR_WIDTH
    drawing.add(_block(start, middle - band / 2, end - start, band, INSIDE))
    for limit in (bar.lower, bar.upper):
        if limit is not None:
            x = limit * BAR_WIDTH
            drawing.add(Line(x, 0, x, BAR_HEIGHT, strokeColor=LIMIT, strokeWidth=1.1))
    low, high = bar.low * BAR_WIDTH, bar.high * BAR_WIDTH
    drawing.add(Line(low, middle, high, middle, strokeColor=TONE[result.decision], strokeWidth=1.1))
    x = bar.value * BAR_WIDTH
    drawing.add(_block(x - 1.1, middle - 2.4, 2.2, 4.8, TONE[result.decision]))
    return drawing


def _block(x: float, y: float, width: float, height: float, color: colors.Color) -> Rect:
    block = Rect(x, y, width, height)
    block.fillColor, block.strokeColor = color, None
    return block


def _deviation(found: DeviationRecord) -> Table:
    pairs = (
        ("Points compared", f"{found.points}"),
        ("Mean", signed(f"{found.mean_mm:+.3f} mm")),
        ("Root mean square", f"{found.rms_mm:.3f} mm"),
        ("95 of 100 points", signed(f"{found.low_mm:+.3f} … {found.high_mm:+.3f} mm")),
        (
            "Smallest, largest",
            signed(f"{found.smallest_mm:+.3f}, {found.largest_mm:+.3f} mm (single points, with noise)"),
        ),
    )
    rows = [[_text(name, 8, textColor=SOFT), _text(value, 8)] for name, value in pairs]
    table = Table(rows, colWidths=[0.22 * WIDTH, 0.78 * WIDTH], hAlign="LEFT")
    table.setStyle(_padding(1.2))
    return table


def _budgets(results: tuple[GaugeResult, ...]) -> list[Flowable]:
    rows: list[list[Flowable]] = [[_cell(name, head=True) for name in ("Gauge", "Source", "u", "Share of u²")]]
    blocks = []
    for result in results:
        shown = _shown_rows(result)
        if shown:
            blocks.append((len(rows), len(rows) + len(shown) - 1))
        for number, (source, u, share) in enumerate(shown):
            rows.append(
                [
                    _cell(result.name if number == 0 else ""),
                    _cell(source),
                    _cell(u, alignment=TA_RIGHT),
                    _cell(f"{100 * share:.0f} %", alignment=TA_RIGHT),
                ]
            )
    if len(rows) == 1:
        return []
    table = _table(rows, (0.32, 0.40, 0.15, 0.13))
    table.setStyle([("LINEABOVE", (0, first), (-1, first), 0.6, SOFT) for first, _ in blocks[1:]])
    table.setStyle([("NOSPLIT", (0, first), (-1, last)) for first, last in blocks])
    note = "Standard uncertainties (k = 1) of the contributions; their squares add up to that of the gauge (GUM 5.1.2)."
    said = _text(note, 7, textColor=SOFT, spaceAfter=1 * mm)
    return [CondPageBreak(45 * mm), _heading("Uncertainty budgets", keep=False), said, table]


def _shown_rows(result: GaugeResult) -> list[tuple[str, str, float]]:
    rows = [(row.source, contribution_text(row.u, result.unit), row.share) for row in result.budget[:SHOWN_ROWS]]
    rest = result.budget[SHOWN_ROWS:]
    if rest:
        together = sum(row.u**2 for row in rest) ** 0.5
        share = sum(row.share for row in rest)
        rows.append((f"{len(rest)} smaller", contribution_text(together, result.unit), share))
    return rows


def _cell(text: str, *, head: bool = False, **changes: Any) -> Paragraph:
    style: dict[str, Any] = {"fontName": BOLD, "textColor": SOFT} if head else {}
    return _text(text, 7.5, **(style | changes))


def _table(rows: list[list[Flowable]], shares: tuple[float, ...]) -> Table:
    table = Table(rows, colWidths=[share * WIDTH for share in shares], repeatRows=1, hAlign="LEFT")
    rules = [("LINEBELOW", (0, 0), (-1, 0), 0.8, SOFT), ("LINEBELOW", (0, 1), (-1, -1), 0.3, RULE)]
    table.setStyle([*rules, ("VALIGN", (0, 0), (-1, -1), "TOP"), *_padding(1.8)])
    return table


def _padding(points: float) -> list[tuple[Any, ...]]:
    whole = ((0, 0), (-1, -1))
    sides = [("LEFTPADDING", *whole, 4), ("LEFTPADDING", (0, 0), (0, -1), 0), ("RIGHTPADDING", *whole, 2)]
    return [*sides, ("TOPPADDING", *whole, points), ("BOTTOMPADDING", *whole, points)]


def _image(png: bytes) -> Image:
    width, height = ImageReader(io.BytesIO(png)).getSize()
    scale = min(WIDTH / width, (HEIGHT - 25 * mm) / height)
    return Image(io.BytesIO(png), width=scale * width, height=scale * height)
