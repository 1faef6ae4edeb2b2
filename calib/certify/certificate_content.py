"""What a calibration certificate says: one value from which PDF and HTML are printed, and whose digest is signed.

Elements and their order follow ISO/IEC 17025:2017, 7.8.2 and 7.8.4, as far as they apply to a cell that its own station
calibrates.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from scipy.special import betaincinv

from depthcell.errors import DepthcellError
from depthcell.jsontext import canonical_json

COVERAGE_FACTOR = 1.96
"""Of a normal distribution for 95 % (GUM G.1.3, table G.1)."""


@dataclass(frozen=True, slots=True)
class Result:
    """One result with its standard uncertainty.

    Attributes:
        name: of the quantity.
        value: as estimated, in `unit`.
        u: standard uncertainty in `unit`; None where nobody measured it.
        unit: "mm", "px", "deg", "1"; "1" stands for none.
    """

    name: str
    value: float
    u: float | None
    unit: str

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval: value -/+ 1.96 u; None without an uncertainty."""
        if self.u is None:
            return None
        return self.value - COVERAGE_FACTOR * self.u, self.value + COVERAGE_FACTOR * self.u


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Results that belong together, with what must be known to read them."""

    title: str
    note: str
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class CertifiedCamera:
    """A camera of the cell.

    Attributes:
        serial, model: as the device names itself.
        firmware: None where the recording does not say.
        temperature_c: lowest and highest during the recording; None where it carries none.
        streams: what was calibrated, in words: "depth 848x480, colour 1280x720".
    """

    serial: str
    model: str
    firmware: str | None
    temperature_c: tuple[float, float] | None
    streams: str


@dataclass(frozen=True, slots=True)
class ReferenceBoard:
    """The standard that the lengths come from.

    Attributes:
        spec: `Board.spec`.
        pitch_mm: certified, or nominal where there is no certificate.
        pitch_u_mm: its standard uncertainty.
        certificate: number and laboratory of the board's own certificate; None where it has none.
        warp_mm: largest departure from a plane as the calibration found it; None where it was not estimated.
    """

    spec: str
    pitch_mm: float
    pitch_u_mm: float
    certificate: str | None
    warp_mm: float | None


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A lens model that was tried on one stream.

    Attributes:
        stream: "depth:<serial>" or "color:<serial>".
        model: in words: "OpenCV, 8 coefficients".
        held_out_px: RMS of reprojection on views that the fit did not see.
        fitted_px: the same on those that it saw.
        chosen: it is the one in the cell.
    """

    stream: str
    model: str
    held_out_px: float
    fitted_px: float
    chosen: bool


@dataclass(frozen=True, slots=True)
class Check:
    """Something measured on data that the calibration did not use.

    Attributes:
        name: what was checked.
        value: what came out, in `unit`.
        unit: as in `Result`.
        limit: what it was held against (value <= limit passes); None where it is only reported.
        n: how many views, points or pairs it rests on.
        how: in words.
    """

    name: str
    value: float
    unit: str
    limit: float | None
    n: int
    how: str

    @property
    def passed(self) -> bool | None:
        """Whether the limit is kept; None without a limit."""
        return None if self.limit is None else self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often a stated 95 % interval held what was found in data that the calibration did not use."""

    name: str
    inside: int
    n: int

    @property
    def share_interval(self) -> tuple[float, float]:
        """95 % interval of the true share (Clopper & Pearson, Biometrika 26 (1934) 404), if all cases are alike."""
        outside = self.n - self.inside
        low = float(betaincinv(self.inside, outside + 1, 0.025)) if self.inside else 0.0
        high = float(betaincinv(self.inside + 1, outside, 0.975)) if outside else 1.0
        return low, high


@dataclass(frozen=True, slots=True)
class OutlierCount:
    """Features of one stream that were found, and those that the adjustment did not believe."""

    stream: str
    views: int
    features: int
    outliers: int


@dataclass(frozen=True, slots=True)
class PartUncertainty:
    """Standard uncertainty of a measured point somewhere in the work volume.

    Attributes:
        place: where, in words: "centre of the work volume", "worst corner".
        point_mm: frame "cell".
        u_xyz_mm: along the cell's axes.
        u_largest_mm: along the direction in which it is largest.
        cameras: how many see the place.
    """

    place: str
    point_mm: tuple[float, float, float]
    u_xyz_mm: tuple[float, float, float]
    u_largest_mm: float
    cameras: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot: `png` as a file's bytes, `alt` for those who can not see it."""

    title: str
    caption: str
    alt: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who answers for the certificate; empty texts are printed as "not stated"."""

    laboratory: str = ""
    address: str = ""
    place: str = ""
    person: str = ""
    customer: str = ""


@dataclass(frozen=True, slots=True)
class CertificateContent:
    """All that a certificate says.

    Attributes:
        cell_name, cell_sha256: the cell that is certified.
        calibrated_at, issued_at, valid_until: ISO 8601, UTC; `valid_until` None where no date was agreed.
        issuer: who answers for it.
        cameras: the calibration item.
        boards: the standards used.
        views, instants: images of boards, and places at which boards stood.
        conditions: (what, value) in words.
        method: one paragraph each.
        results: intrinsics, poses, depth correction, noise; `certificate_results.results_of` makes them from a cell.
        models: lens models tried.
        validation: on held-out views.
        halves: difference of two calibrations, each from half of the data.
        coverage: of the stated intervals.
        outliers: by stream.
        part: uncertainty in the work volume.
        part_frames: frames averaged in `part`.
        pictures: in the order of printing.
        statements: what the reader must know besides, such as what is missing.
        software: (name, version).
        inputs: (file, SHA-256) of all that went in.
    """

    cell_name: str
    cell_sha256: str
    calibrated_at: str
    issued_at: str
    valid_until: str | None
    issuer: Issuer
    cameras: tuple[CertifiedCamera, ...]
    boards: tuple[ReferenceBoard, ...]
    views: int
    instants: int
    conditions: tuple[tuple[str, str], ...]
    method: tuple[str, ...]
    results: tuple[ResultTable, ...]
    models: tuple[ModelChoice, ...]
    validation: tuple[Check, ...]
    halves: tuple[Check, ...]
    coverage: tuple[Coverage, ...]
    outliers: tuple[OutlierCount, ...]
    part: tuple[PartUncertainty, ...]
    part_frames: int
    pictures: tuple[Picture, ...]
    statements: tuple[str, ...]
    software: tuple[tuple[str, str], ...]
    inputs: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if not self.cameras or not self.boards:
            raise DepthcellError("certificate: needs at least one camera and one board")
        bad = [r.name for table in self.results for r in table.results if not _is_number(r.value, r.u)]
        bad += [check.name for check in (*self.validation, *self.halves) if not math.isfinite(check.value)]
        bad += [one.place for one in self.part if not _is_number(one.u_largest_mm, *one.u_xyz_mm)]
        if bad:
            raise DepthcellError(f"certificate: {bad[0]}: value and uncertainty must be finite, u not negative")

    @property
    def number(self) -> str:
        """What identifies this certificate on each of its pages: day of issue, and the head of its digest."""
        return f"DC-{self.issued_at[:10].replace('-', '')}-{content_digest(self)[:12]}"

    @property
    def is_traceable(self) -> bool:
        """Whether every board has a certificate of its own."""
        return all(board.certificate for board in self.boards)

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        """Checks whose limit is not kept."""
        return tuple(check for check in (*self.validation, *self.halves) if check.passed is False)


def content_digest(content: CertificateContent) -> str:
    """SHA-256 of the content as canonical JSON (RFC 8785), pictures standing as the SHA-256 of their files."""
    return hashlib.sha256(canonical_content(content)).hexdigest()


def canonical_content(content: CertificateContent) -> bytes:
    """The content as canonical JSON; the pictures' bytes are replaced by their SHA-256."""
    bare = replace(content, pictures=tuple(replace(picture, png=b"") for picture in content.pictures))
    plain: dict[str, Any] = msgspec.to_builtins(bare)
    for entry, picture in zip(plain["pictures"], content.pictures, strict=True):
        entry["png"] = hashlib.sha256(picture.png).hexdigest()
    return canonical_json(plain)


def _is_number(value: float, *uncertainties: float | None) -> bool:
    return math.isfinite(value) and all(u is None or (math.isfinite(u) and u >= 0) for u in uncertainties)
