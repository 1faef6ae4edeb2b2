"""Targets to print: a PDF at true scale, drawn as shapes, with rulers that show whether the printer kept the scale."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reportlab.pdfgen.canvas import Canvas

from depthcell.calib.target.board import Board, BoardKind
from depthcell.calib.target.board_picture import BoardShapes, board_shapes
from depthcell.calib.target.board_text import format_length, parse_length_m
from depthcell.errors import DepthcellError
from depthcell.files import written_beside

POINTS_PER_M = 72 / 0.0254
PAGES_M = {"A4": (0.210, 0.297), "letter": (0.2159, 0.2794), "A3": (0.297, 0.420), "A2": (0.420, 0.594)}
BORDER_M, STRIP_M, TEXT_M = 0.006, 0.012, 0.030
"""What printers leave white, the place of the upright ruler, and that of the flat one with the text."""
RULER_M = 0.1
SPECKLE_M = 0.0015
NOT_PRINTABLE = {
    "sphere": "a matt sphere of 30 to 50 mm with a certificate of its diameter (ceramic, or steel sprayed matt)",
    "ballbar": "a ball bar, two matt spheres a certified distance of 100 to 300 mm apart",
    "ball_bar": "a ball bar, two matt spheres a certified distance of 100 to 300 mm apart",
    "step": "a step gauge, or gauge blocks of grade 1 wrung onto a flat plate, sprayed matt",
    "step_gauge": "a step gauge, or gauge blocks of grade 1 wrung onto a flat plate, sprayed matt",
}


@dataclass(frozen=True, slots=True)
class PrintedPage:
    """Where things are on the page; lengths from its top left corner.

    Attributes:
        width_m, height_m: of the page.
        left_m, top_m: of the target with its quiet margin.
    """

    width_m: float
    height_m: float
    left_m: float
    top_m: float


@dataclass(frozen=True, slots=True, eq=False)
class _Target:
    """What is printed and what is said of it."""

    shapes: BoardShapes
    inverted: bool
    spec: str
    check: str


def write_board_pdf(spec: str, path: Path, page: str = "A4") -> PrintedPage:
    """Write the target that `spec` names, to be printed at 100 %; the same call gives the same bytes.

    Args:
        spec: a board as `Board.parse` reads it, or `plate:WIDTHxHEIGHT[:DOT]`, as plate:180x120mm, a random texture to
            be glued on a flat plate, on which a stereo camera can measure depth.
        path: where to.
        page: A4, A3, A2, letter (turned if it fits better), WIDTHxHEIGHT such as 600x400mm, or `fit` for a page just
            large enough.

    Raises:
        DepthcellError: the target cannot be printed, or does not fit; the page that would hold it is named.
    """
    target = _target(spec)
    placed = _placed(target.shapes, spec, page)
    out = io.BytesIO()
    size = (placed.width_m * POINTS_PER_M, placed.height_m * POINTS_PER_M)
    canvas = Canvas(out, pagesize=size, invariant=1, pageCompression=0)
    canvas.setTitle(f"depthcell {target.spec}")
    canvas.setAuthor("depthcell")
    canvas.setViewerPreference("PrintScaling", "None")
    _draw_shapes(canvas, target, placed)
    _draw_crop_marks(canvas, target.shapes, placed)
    _draw_rulers(canvas, placed)
    _draw_text(canvas, target, placed)
    canvas.showPage()
    canvas.save()
    with written_beside(path) as partial:
        partial.write_bytes(out.getvalue())
    return placed


def speckle(width_m: float, height_m: float, dot_m: float) -> NDArray[np.float64]:
    """Black rectangles (K, 4), left, top, right, bottom, of a random pattern of squares, half of them black."""
    rows, columns = int(height_m / dot_m + 1e-6), int(width_m / dot_m + 1e-6)
    is_black = np.random.default_rng(20260105).random((rows, columns)) < 0.5
    padded = np.pad(is_black, ((0, 0), (1, 1))).astype(np.int8)
    row, start = np.nonzero(np.diff(padded, axis=1) == 1)
    _, end = np.nonzero(np.diff(padded, axis=1) == -1)
    return np.asarray(np.stack((start, row, end, row + 1), axis=-1) * dot_m, np.float64)


def _target(spec: str) -> _Target:
    kind = spec.strip().partition(":")[0].lower()
    if kind in NOT_PRINTABLE:
        raise DepthcellError(f"target '{spec}': can not be printed; buy {NOT_PRINTABLE[kind]}")
    if kind == "plate":
        return _plate(spec)
    board = Board.parse(spec)
    unit = {BoardKind.CHARUCO: "squares", BoardKind.CHESSBOARD: "squares"}.get(board.kind, "pitches")
    steps = board.grid_shape[1] + (1 if unit == "squares" else -1)
    check = f"{steps} {unit} from left to right measure {format_length(steps * board.pitch_m)}."
    return _Target(board_shapes(board), board.inverted, board.spec, check)


def _plate(spec: str) -> _Target:
    match = re.fullmatch(r"plate:([0-9.]+)x([0-9.]+)([a-z]+)(?::([0-9.]+[a-z]+))?", spec.strip().lower())
    if match is None:
        raise DepthcellError(f"target '{spec}': write plate:WIDTHxHEIGHT[:DOT], as plate:180x120mm:1.5mm")
    width, height, unit, dot = match.groups()
    where = f"target '{spec}'"
    width_m, height_m = parse_length_m(width + unit, where), parse_length_m(height + unit, where)
    dot_m = SPECKLE_M if dot is None else parse_length_m(dot, f"{where}, dot")
    if not (0.0003 <= dot_m <= 0.02 and 10 * dot_m <= min(width_m, height_m) <= max(width_m, height_m) <= 2.0):
        raise DepthcellError(f"{where}: dots of {format_length(dot_m)} need 0.3 to 20 mm and a plate of 10 dots to 2 m")
    shapes = BoardShapes(speckle(width_m, height_m, dot_m), np.zeros((0, 3)), (0.0, 0.0, width_m, height_m))
    check = "Glue it flat on glass or a ground plate; dots should be 3 to 5 pixels wide in the infrared image."
    return _Target(shapes, False, spec.strip(), check)


def _size_m(shapes: BoardShapes) -> tuple[float, float]:
    left, top, right, bottom = shapes.extent_m
    return right - left, bottom - top


def _needed_m(shapes: BoardShapes) -> tuple[float, float]:
    """Width and height of the smallest page that holds the target, rulers and text."""
    width_m, height_m = _size_m(shapes)
    least_m = RULER_M + 0.05
    return (
        max(width_m + BORDER_M + STRIP_M, least_m + BORDER_M) + BORDER_M,
        max(height_m, RULER_M + 0.02) + BORDER_M + TEXT_M + BORDER_M,
    )


def _placed(shapes: BoardShapes, spec: str, page: str) -> PrintedPage:
    needed_m, size_m = _needed_m(shapes), _size_m(shapes)
    page_m = needed_m if page.lower() == "fit" else _fitting(_page_m(page), needed_m)
    if page_m is None:
        holds = [name for name, given in PAGES_M.items() if _fitting(given, needed_m) is not None]
        exact = "x".join(f"{1e3 * np.ceil(1e3 * side) / 1e3:.0f}" for side in needed_m) + "mm"
        instead = f"--page {holds[0]}" if holds else f"--page {exact} (a plotter) or fewer squares"
        size = " x ".join(format_length(round(side, 4)) for side in size_m)
        raise DepthcellError(f"board '{spec}': {size} with its margin does not fit on {page}; take {instead}")
    left_m = BORDER_M + STRIP_M + (page_m[0] - 2 * BORDER_M - STRIP_M - size_m[0]) / 2
    top_m = BORDER_M + (page_m[1] - 2 * BORDER_M - TEXT_M - size_m[1]) / 2
    return PrintedPage(page_m[0], page_m[1], left_m, top_m)


def _page_m(page: str) -> tuple[float, float]:
    for name, size_m in PAGES_M.items():
        if page.lower() == name.lower():
            return size_m
    match = re.fullmatch(r"([0-9.]+)x([0-9.]+)([a-z]+)", page.strip().lower())
    if match is None:
        raise DepthcellError(f"page '{page}': is unknown; take {', '.join(PAGES_M)}, fit, or a size such as 600x400mm")
    width, height, unit = match.groups()
    return parse_length_m(width + unit, f"page '{page}'"), parse_length_m(height + unit, f"page '{page}'")


def _fitting(page_m: tuple[float, float], needed_m: tuple[float, float]) -> tuple[float, float] | None:
    """The page as it is or turned; None if the target fits neither way."""
    for turned in (page_m, (page_m[1], page_m[0])):
        if turned[0] >= needed_m[0] - 1e-6 and turned[1] >= needed_m[1] - 1e-6:
            return turned
    return None


def _draw_shapes(canvas: Canvas, target: _Target, placed: PrintedPage) -> None:
    """All black in one path, so that no viewer draws seams; white on a black ground where inverted."""
    left, top, right, bottom = target.shapes.extent_m
    shift = np.array([placed.left_m - left, placed.top_m - top])
    if target.inverted:
        canvas.setFillGray(0)
        canvas.rect(*_rectangle(np.array([left, top, right, bottom]) + np.tile(shift, 2), placed), stroke=0, fill=1)
    canvas.setFillGray(1 if target.inverted else 0)
    path = canvas.beginPath()
    for rectangle in target.shapes.rectangles_m:
        path.rect(*_rectangle(rectangle + np.tile(shift, 2), placed))
    for x, y, diameter in target.shapes.discs_m:
        column, row = _point(np.array([x, y]) + shift, placed)
        path.circle(column, row, diameter / 2 * POINTS_PER_M)
    canvas.drawPath(path, stroke=0, fill=1)
    canvas.setFillGray(0)


def _point(page_point_m: NDArray[np.float64], placed: PrintedPage) -> tuple[float, float]:
    """PDF points, from the bottom left corner, of a place on the page in metres from its top left corner."""
    return float(page_point_m[0]) * POINTS_PER_M, float(placed.height_m - page_point_m[1]) * POINTS_PER_M


def _rectangle(page_rectangle_m: NDArray[np.float64], placed: PrintedPage) -> tuple[float, float, float, float]:
    x, y = _point(page_rectangle_m[[0, 3]], placed)
    width, height = (page_rectangle_m[2:] - page_rectangle_m[:2]) * POINTS_PER_M
    return x, y, float(width), float(height)


def _draw_crop_marks(canvas: Canvas, shapes: BoardShapes, placed: PrintedPage) -> None:
    """Short hairlines just outside the corners at which the target may be cut out."""
    width_m, height_m = _size_m(shapes)
    canvas.setLineWidth(0.25)
    for x, outwards_x in ((placed.left_m, -1), (placed.left_m + width_m, 1)):
        for y, outwards_y in ((placed.top_m, -1), (placed.top_m + height_m, 1)):
            for dx, dy in ((outwards_x, 0), (0, outwards_y)):
                near, far = (np.array([x + dx * step, y + dy * step]) for step in (0.001, 0.004))
                canvas.line(*_point(near, placed), *_point(far, placed))


def _draw_rulers(canvas: Canvas, placed: PrintedPage) -> None:
    """100 mm along each direction with a tick every 10 mm: printers stretch paper along its way only."""
    corner = np.array([BORDER_M + 0.002, placed.height_m - BORDER_M - 0.002])
    canvas.setLineWidth(0.4)
    canvas.setFont("Helvetica", 7)
    for along, aside in ((np.array([1.0, 0.0]), np.array([0.0, -1.0])), (np.array([0.0, -1.0]), np.array([1.0, 0.0]))):
        canvas.line(*_point(corner, placed), *_point(corner + RULER_M * along, placed))
        for tick in range(11):
            at = corner + 0.01 * tick * along
            canvas.line(*_point(at, placed), *_point(at + (0.004 if tick % 5 == 0 else 0.002) * aside, placed))
    canvas.drawString(*_point(corner + np.array([0.102, 0.0]), placed), "100.0 mm")
    canvas.drawString(*_point(corner - np.array([0.0, 0.103]), placed), "100.0 mm")


def _draw_text(canvas: Canvas, target: _Target, placed: PrintedPage) -> None:
    lines = (
        target.spec,
        f"Print at 100 % (actual size). Both rulers must measure 100.0 mm. {target.check}",
        "If a ruler does not measure 100.0 mm: switch 'fit to page' off and print again. If both are off by the same "
        "share, name the board with the lengths you measure instead.",
        "If they are off by different shares, do not use this print. Mount it matt side up on glass or aluminium.",
    )
    left_m, width_m = BORDER_M + 0.009, placed.width_m - 2 * BORDER_M - 0.010
    at_m = placed.height_m - BORDER_M - TEXT_M + 0.004
    canvas.setFont("Helvetica", 6)
    for line in lines:
        for part in _wrapped(canvas, line, width_m * POINTS_PER_M):
            canvas.drawString(*_point(np.array([left_m, at_m]), placed), part)
            at_m += 0.0026


def _wrapped(canvas: Canvas, text: str, width_pt: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if canvas.stringWidth(longer, "Helvetica", 6) <= width_pt:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
