"""A certificate as sections of paragraphs, tables and pictures, which PDF and HTML print alike.

The order is that of a calibration laboratory; in brackets the clause of ISO/IEC 17025:2017 that asks for it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from depthcell.calib.certify.certificate_content import CertificateContent, Check, Picture, Result

NOT_STATED = "not stated"
MINUS = "−"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A text; `warning` is for what the reader must not miss."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head; `numeric` columns stand right. `widths` are shares of the page."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[float, ...]
    numeric: frozenset[int] = frozenset()
    title: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A numbered part of the certificate."""

    title: str
    blocks: tuple[Paragraph | Table | Picture, ...]


def head_of(content: CertificateContent) -> tuple[tuple[str, str], ...]:
    """What stands on top of page 1 [7.8.2.1]: (what, value)."""
    issuer = content.issuer
    return (
        ("Certificate number", content.number),
        ("Object", f"Inspection cell '{content.cell_name}' of {_count(len(content.cameras), 'depth camera')}"),
        ("Serial numbers", ", ".join(camera.serial for camera in content.cameras)),
        ("Issued by", _joined(issuer.laboratory, issuer.address)),
        ("Place of calibration", issuer.place or NOT_STATED),
        ("Customer", issuer.customer or NOT_STATED),
        ("Date of calibration", _moment(content.calibrated_at)),
        ("Date of issue", _moment(content.issued_at)),
        ("Valid until", _moment(content.valid_until) if content.valid_until else "no date was agreed"),
        ("Responsible", issuer.person or NOT_STATED),
    )


def sections_of(content: CertificateContent) -> tuple[Section, ...]:
    """All sections, in the order of printing; what there is nothing to say about is left out, and said to be."""
    sections = (
        Section("Statement", _statement(content)),
        Section("Item calibrated", (_items(content),)),
        Section("Reference standards and traceability", _standards(content)),
        Section("Conditions", (_conditions(content),)),
        Section("Method", tuple(map(Paragraph, content.method)) or (Paragraph("No method was stated.", warning=True),)),
        Section("Uncertainty of a measured point", _part(content)),
        Section("Validation on data that the calibration did not use", _validation(content)),
        Section("Lens models and outliers", _models(content)),
        Section("Results", _results(content)),
        Section("Pictures", content.pictures),
        Section("Uncertainty of measurement", _uncertainty()),
        Section("Inputs and software", _inputs(content)),
    )
    return tuple(section for section in sections if section.blocks)


def signed(text: str) -> str:
    """A number with a minus sign, not a hyphen; zero has none."""
    if not text.startswith("-"):
        return text
    return text[1:] if float(text) == 0 else f"{MINUS}{text[1:]}"


def format_value(value: float, u: float | None) -> str:
    """A value to the digit to which its uncertainty is given; to six significant digits without one."""
    return signed(f"{value:.6g}" if not u else f"{value:.{_decimals(u)}f}")


def format_u(u: float | None) -> str:
    """A standard uncertainty to two significant digits (GUM 7.2.6); 0 is exact by definition."""
    if u is None:
        return "—"
    return f"{u:.{_decimals(u)}f}" if u > 0 else "exact"


def format_interval(result: Result) -> str:
    """The 95 % interval of a result, to the digit of its uncertainty."""
    if result.interval is None or not result.u:
        return "—"
    low, high = (signed(f"{end:.{_decimals(result.u)}f}") for end in result.interval)
    return f"{low} to {high}"


def _decimals(u: float) -> int:
    return max(0, 1 - math.floor(math.log10(float(f"{u:.1e}"))))


def _statement(content: CertificateContent) -> tuple[Paragraph, ...]:
    failed, checks = content.failed_checks, [*content.validation, *content.halves]
    limited = [check for check in checks if check.limit is not None]
    paragraphs = [
        Paragraph(
            "This certificate is issued by the operator of the cell on its own authority, not by an accredited "
            "laboratory. The results relate only to the item described, as it stood at the time of calibration; moving "
            "a camera, its lens or the fixture ends their validity. It may be reproduced in full only."
        )
    ]
    if failed:
        names = "; ".join(check.name for check in failed)
        paragraphs.append(
            Paragraph(f"NOT PASSED: {len(failed)} of {len(limited)} checks exceed their limit: {names}.", warning=True)
        )
    elif limited:
        paragraphs.append(
            Paragraph(
                f"All {len(limited)} checks that have a limit keep it. Decision rule: a check passes if the value "
                "found is at most the limit, without a guard band."
            )
        )
    if not checks:
        paragraphs.append(Paragraph("NOT VALIDATED: no data were held out to check the results with.", warning=True))
    if not content.is_traceable:
        paragraphs.append(
            Paragraph(
                "NOT TRACEABLE: no calibration certificate of the board was given, so that lengths rest on its nominal "
                "size and on the uncertainty that the operator states for it. Angles, ratios and repeatability are not "
                "affected; every length may be wrong by a common factor.",
                warning=True,
            )
        )
    paragraphs.extend(Paragraph(text) for text in content.statements)
    return tuple(paragraphs)


def _items(content: CertificateContent) -> Table:
    rows = tuple(
        (
            camera.serial,
            camera.model,
            camera.firmware or NOT_STATED,
            _temperatures(camera.temperature_c),
            camera.streams,
        )
        for camera in content.cameras
    )
    head = ("Serial number", "Model", "Firmware", "Temperature", "Streams")
    return Table(head, rows, (0.18, 0.25, 0.15, 0.17, 0.25))


def _standards(content: CertificateContent) -> tuple[Table | Paragraph, ...]:
    rows = tuple(
        (
            board.spec,
            format_value(board.pitch_mm, board.pitch_u_mm or None),
            format_u(board.pitch_u_mm),
            f"{board.warp_mm:.3f}" if board.warp_mm is not None else NOT_STATED,
            board.certificate or "none",
        )
        for board in content.boards
    )
    head = ("Board", "Pitch / mm", "u / mm", "Warp found / mm", "Certificate of the board")
    table = Table(head, rows, (0.34, 0.12, 0.12, 0.14, 0.28), frozenset({1, 2, 3}))
    if content.is_traceable:
        text = (
            "Lengths are traceable to the SI through the certificates of the boards named above; their uncertainty is "
            "part of every uncertainty in this document."
        )
        return table, Paragraph(text)
    return table, Paragraph("Lengths are not traceable to the SI; see the statement above.", warning=True)


def _conditions(content: CertificateContent) -> Table:
    rows = (("Views of boards", str(content.views)), ("Places of boards", str(content.instants)), *content.conditions)
    return Table(("Condition", "Value"), rows, (0.35, 0.65))


def _part(content: CertificateContent) -> tuple[Table | Paragraph, ...]:
    if not content.part:
        return (Paragraph("The uncertainty in the work volume was not evaluated.", warning=True),)
    rows = tuple(
        (
            one.place,
            ", ".join(signed(f"{value:.0f}") for value in one.point_mm),
            *(format_u(u) for u in one.u_xyz_mm),
            format_u(one.u_largest_mm),
            str(one.cameras),
        )
        for one in content.part
    )
    head = ("Place", "x, y, z / mm", "u(x) / mm", "u(y) / mm", "u(z) / mm", "largest u / mm", "Cameras")
    note = (
        f"Standard uncertainties (k = 1) of one point of a surface, mean of {content.part_frames} frames, calibration "
        "and noise together, in the frame of the cell. The largest is along the direction in which the point is known "
        "worst."
    )
    widths = (0.3, 0.17, 0.1, 0.1, 0.1, 0.13, 0.1)
    return (Table(head, rows, widths, frozenset(range(1, 7)), note=note),)


def _validation(content: CertificateContent) -> tuple[Table | Paragraph, ...]:
    blocks: list[Table | Paragraph] = []
    for title, checks in (("Held-out data", content.validation), ("Two halves of the data", content.halves)):
        if checks:
            blocks.append(_checks(title, checks))
        else:
            blocks.append(Paragraph(f"{title}: nothing was checked.", warning=True))
    if content.coverage:
        rows = tuple(
            (
                one.name,
                f"{one.inside} of {one.n}",
                f"{100 * one.inside / one.n:.1f} %",
                "{:.1f} to {:.1f} %".format(*(100 * end for end in one.share_interval)),
            )
            for one in content.coverage
        )
        head = ("Quantity", "Inside", "Share", "95 % interval of the share")
        note = "How often the stated 95 % interval held what was found; the share should be 95 %."
        title = "Coverage of the stated intervals"
        blocks.append(Table(head, rows, (0.4, 0.2, 0.15, 0.25), frozenset({1, 2, 3}), title, note))
    return tuple(blocks)


def _checks(title: str, checks: Iterable[Check]) -> Table:
    words = {True: "kept", False: "EXCEEDED", None: "—"}
    rows = tuple(
        (
            check.name,
            f"{signed(f'{check.value:.3g}')} {spelled(check.unit)}".strip(),
            "—" if check.limit is None else f"{check.limit:.3g} {spelled(check.unit)}".strip(),
            words[check.passed],
            str(check.n),
            check.how,
        )
        for check in checks
    )
    head = ("Check", "Found", "Limit", "Limit is", "n", "How")
    return Table(head, rows, (0.25, 0.12, 0.11, 0.11, 0.07, 0.34), frozenset({1, 2, 4}), title)


def _models(content: CertificateContent) -> tuple[Table, ...]:
    tables = []
    if content.models:
        rows = tuple(
            (one.stream, one.model, f"{one.held_out_px:.4f}", f"{one.fitted_px:.4f}", "chosen" if one.chosen else "")
            for one in content.models
        )
        head = ("Stream", "Lens model", "RMS held out / px", "RMS fitted / px", "")
        note = "The model is chosen by how it predicts views that it was not fitted to."
        tables.append(Table(head, rows, (0.24, 0.3, 0.17, 0.17, 0.12), frozenset({2, 3}), "Lens models tried", note))
    if content.outliers:
        counted = tuple(
            (one.stream, str(one.views), str(one.features), str(one.outliers), _share(one.outliers, one.features))
            for one in content.outliers
        )
        head = ("Stream", "Views", "Features", "Left out", "Share")
        title, note = "Outliers", "Features too far from where the adjustment expects them; they have no part in it."
        tables.append(Table(head, counted, (0.36, 0.16, 0.16, 0.16, 0.16), frozenset({1, 2, 3, 4}), title, note))
    return tuple(tables)


def _results(content: CertificateContent) -> tuple[Table, ...]:
    head = ("Quantity", "Unit", "Value", "u (k = 1)", "95 % interval")
    return tuple(
        Table(
            head,
            tuple(
                (r.name, spelled(r.unit) or "1", format_value(r.value, r.u), format_u(r.u), format_interval(r))
                for r in table.results
            ),
            (0.32, 0.1, 0.18, 0.14, 0.26),
            frozenset({2, 3, 4}),
            table.title,
            table.note,
        )
        for table in content.results
    )


def _uncertainty() -> tuple[Paragraph, ...]:
    return (
        Paragraph(
            "Uncertainties are evaluated by the Guide to the Expression of Uncertainty in Measurement (JCGM 100:2008): "
            "u is a standard uncertainty (k = 1); 95 % intervals are value ± 1.96 u, for a normal distribution. They "
            "come from the covariance of one adjustment over all views, with the noise found in its residuals and the "
            "stated uncertainty of the boards; results of one camera, and of several, are correlated. The joint "
            "covariance is in the cell file."
        ),
        Paragraph(
            "What is not in them: changes after the calibration, such as warm-up, drift and shocks; and systematic "
            "errors of a kind that neither model nor data show. The checks on held-out data and the difference of two "
            "halves are there to reveal the latter."
        ),
    )


def _inputs(content: CertificateContent) -> tuple[Table, ...]:
    software = Table(("Software", "Version"), content.software, (0.4, 0.6))
    rows = (("cell file (content)", content.cell_sha256), *content.inputs)
    return software, Table(("Input", "SHA-256"), rows, (0.32, 0.68))


def spelled(unit: str) -> str:
    """A unit as people read it; "1" stands for none."""
    return {"1": "", "deg": "°", "percent": "%"}.get(unit, unit)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def _joined(*texts: str) -> str:
    return ", ".join(filter(None, texts)) or NOT_STATED


def _moment(text: str) -> str:
    """ISO 8601 without its T: "2026-03-04 08:00:00 UTC"."""
    return text.replace("T", " ").removesuffix("Z") + (" UTC" if text.endswith("Z") else "")


def _temperatures(limits_c: tuple[float, float] | None) -> str:
    if limits_c is None:
        return "not recorded"
    low, high = limits_c
    return signed(f"{low:.1f}") + (f" to {signed(f'{high:.1f}')}" if high > low else "") + " °C"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "—"
