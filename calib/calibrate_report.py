"""A calibration from the command line: what is asked in words, what is written, what is told afterwards."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from depthcell.calib.calibrate_run import Calibrated, CalibrationPlan
from depthcell.calib.certify.certificate import WrittenCertificate, write_certificate
from depthcell.calib.certify.certificate_content import Issuer, PartUncertainty
from depthcell.calib.certify.certificate_fill import CertificateRequest, certificate_of, part_map
from depthcell.calib.certify.uncertaintymap import part_uncertainties
from depthcell.calib.solving.suspicion import Suspicion
from depthcell.calib.target.board import Board
from depthcell.errors import DepthcellError
from depthcell.processes import default_jobs

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Written:
    """Files that were written; `certificate` None where none was asked for. `part`: how well the part is known."""

    cell: Path
    certificate: WrittenCertificate | None
    part: tuple[PartUncertainty, ...]


def chosen(kind: type[E], word: str, option: str) -> E:
    """The member that `word` names.

    Raises:
        DepthcellError: there is none; the message lists those there are.
    """
    try:
        return kind(word)
    except ValueError:
        raise DepthcellError(f"{option} {word}: unknown; choose one of {', '.join(kind)}") from None


def planned(
    source: Path,
    boards: Sequence[str],
    name: str | None,
    pitch_u_um: float,
    plate: Path | None,
    tolerate: Sequence[str],
    jobs: int,
) -> CalibrationPlan:
    """The plan that the options ask for.

    Raises:
        DepthcellError: an option is impossible; the message names it.
    """
    parsed = tuple(Board.parse(text) for text in boards)
    if not np.isfinite(pitch_u_um) or pitch_u_um < 0:
        raise DepthcellError(f"--pitch-u-um {pitch_u_um}: must be zero or more")
    if jobs < 0:
        raise DepthcellError(f"--jobs {jobs}: must be 0 or more")
    smallest_m = min(board.pitch_m for board in parsed)
    return CalibrationPlan(
        source=source,
        boards=parsed,
        name=name or source.resolve().name,
        pitch_u=pitch_u_um * 1e-6 / smallest_m,
        plate=plate,
        tolerated=frozenset(chosen(Suspicion, word, "--tolerate") for word in tolerate),
        jobs=jobs or default_jobs(),
    )


def requested(
    board_certificate: str | None, volume: str | None, valid_days: float, laboratory: str, person: str
) -> CertificateRequest:
    """What the certificate is to say besides."""
    issuer = Issuer(laboratory=laboratory, person=person)
    return CertificateRequest(issuer, board_certificate, valid_days, None if volume is None else volume_mm(volume))


def volume_mm(text: str) -> tuple[float, float, float]:
    """Sides of a box in millimetres, from "120x80x60".

    Raises:
        DepthcellError: the text has another form, or a side is not positive.
    """
    try:
        x, y, z = (float(side) for side in text.removesuffix("mm").split("x"))
    except ValueError:
        raise DepthcellError(f"--volume {text}: must look like 120x80x60, in millimetres") from None
    if not min(x, y, z) > 0 or not np.isfinite((x, y, z)).all():
        raise DepthcellError(f"--volume {text}: every side must be positive")
    return x, y, z


def check_outputs(out: Path, certificate: Path | None) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        DepthcellError: a name has the wrong ending, or nothing can be written there.
    """
    if out.suffix != ".json":
        raise DepthcellError(f"--out {out}: a cell file ends in .json")
    if certificate is not None and certificate.suffix != ".pdf":
        raise DepthcellError(f"--certificate {certificate}: must end in .pdf; an HTML is written beside it")
    _check_place(out, "--out")
    if certificate is not None:
        _check_place(certificate, "--certificate")


def _check_place(path: Path, option: str) -> None:
    if path.is_dir():
        raise DepthcellError(f"{option} {path}: is a folder; name a file in it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise DepthcellError(f"{option} {path}: cannot be written, since {folder} is no folder; name another place")
    if not os.access(folder, os.W_OK):
        raise DepthcellError(f"{option} {path}: nothing may be written to {folder}; name another place")


def write_results(
    plan: CalibrationPlan, calibrated: Calibrated, request: CertificateRequest, out: Path, certificate: Path | None
) -> Written:
    """Write the cell, and then the certificate if asked for: a disk that fills up leaves no certificate without a cell.

    Raises:
        DepthcellError: no camera sees the part, or the certificate cannot be filled in; nothing was written.
    """
    if certificate is None:
        part = part_uncertainties(calibrated.cell, part_map(calibrated, request))
        calibrated.cell.save(out)
        return Written(out, None, part)
    content = certificate_of(plan, calibrated, request)
    calibrated.cell.save(out)
    return Written(out, write_certificate(content, certificate), content.part)


def summary(calibrated: Calibrated, written: Written) -> dict[str, object]:
    """For programs: lengths in millimetres, angles in degrees."""
    cell, rig = calibrated.cell, calibrated.rig
    return {
        "cell": str(written.cell),
        "cell_sha256": cell.sha256,
        "certificate": None if written.certificate is None else str(written.certificate.pdf),
        "cameras": [
            {
                "serial": serial,
                "fx_px": camera.depth.fx_px,
                "fx_u_px": camera.u("fx_px"),
                "lens": camera.depth.distortion.value,
                "position_mm": (1e3 * camera.T_cell_depth.translation_m).tolist(),
                "depth_scale": camera.correction.scale,
                "noise_temporal_px": camera.noise.temporal_px,
            }
            for serial, camera in cell.cameras.items()
        ],
        "streams": [
            {"stream": one.stream, "held_out_rms_px": one.rms_px, "corners": one.corners, "within_95": one.within_95}
            for one in rig.validation.streams
        ],
        "depth": [
            {
                "serial": one.serial,
                "tiles": one.tiles,
                "bias_before_mm": one.bias_before_mm,
                "bias_after_mm": one.bias_after_mm,
            }
            for one in rig.validation.depth
        ],
        "halves_consistency": rig.validation.halves.consistency if rig.validation.halves.streams else None,
        "part": [
            {"place": one.place, "point_mm": one.point_mm, "u_largest_mm": one.u_largest_mm} for one in written.part
        ],
        "suspected": [suspected.sentence for suspected in rig.suspected],
    }


def print_summary(calibrated: Calibrated, request: CertificateRequest, written: Written) -> None:
    """For people, on the terminal."""
    cell, rig = calibrated.cell, calibrated.rig
    console = Console(highlight=False)
    table = Table(title=f"cell '{cell.name}'", title_justify="left")
    for heading in ("camera", "fx / px", "held out / px", "position / mm", "depth error before", "after / mm"):
        table.add_column(heading, justify="left" if heading == "camera" else "right")
    streams = {one.stream: one for one in rig.validation.streams}
    depth = {one.serial: one for one in rig.validation.depth}
    for serial, camera in cell.cameras.items():
        held_out, own = streams.get(f"depth:{serial}"), depth.get(serial)
        table.add_row(
            serial,
            f"{camera.depth.fx_px:.2f} ± {2 * camera.u('fx_px'):.2f}",
            "-" if held_out is None else f"{held_out.rms_px:.3f}",
            " ".join(f"{1e3 * value:.2f}" for value in camera.T_cell_depth.translation_m),
            "-" if own is None else f"{own.bias_before_mm:+.3f}",
            "-" if own is None else f"{own.bias_after_mm:+.3f}",
        )
    console.print(table)
    for one in written.part:
        known = f"{one.place}: known to {one.u_largest_mm:.3f} mm"
        console.print(f"{known} (standard uncertainty, mean of {request.frames} frames)", soft_wrap=True)
    for suspected in rig.suspected:
        console.print(f"[yellow]tolerated:[/] {suspected.sentence}", soft_wrap=True)
    console.print(f"cell: {written.cell}", soft_wrap=True)
    if written.certificate is not None:
        console.print(
            f"certificate {written.certificate.number}: {written.certificate.pdf}, {written.certificate.html}",
            soft_wrap=True,
        )
