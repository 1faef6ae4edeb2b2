"""What a study of detection capability hands on: one record for each kind of defect, as it is written to JSON."""

from dataclasses import dataclass

from depthcell.inspect.pod import exact_interval


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`, and the exact 95 % interval of that share (Clopper and Pearson)."""

    count: int
    total: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int) -> "Share":
        """Of one or more."""
        return cls(count, total, *exact_interval(count, total))


@dataclass(frozen=True, slots=True)
class CurvePoints:
    """A curve to draw: size, probability of detection, and what that exceeds with 95 % confidence."""

    size_mm: tuple[float, ...]
    pod: tuple[float, ...]
    lower: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Detected:
    """What one model says of one kind.

    Attributes:
        n: defects that it rests on.
        a50_mm, a90_mm: sizes detected half and nine tenths of the time; None where the data do not determine them.
        a90_95_mm: what a90 lies below with 95 % confidence; None where the data do not determine it.
        undetermined: why, in words; None where all three stand.
        curve: None where there is none.
    """

    n: int
    a50_mm: float | None
    a90_mm: float | None
    a90_95_mm: float | None
    undetermined: str | None
    curve: CurvePoints | None


@dataclass(frozen=True, slots=True)
class Response:
    """Measured depth over true depth.

    Attributes:
        n, measured: defects, and those of them that gave a response.
        scale: linear or logarithmic, of both.
        intercept, slope, sigma: of the line, on that scale (mm or ln mm).
        curvature_p: probability of so much curvature where the line is straight.
        decision_mm: the response from which on a part is NOK: tolerance and guard band.
        at_decision: what is detected at that threshold.
        at_noise: what would be at the threshold that noise alone sets; None where that is not known.
    """

    n: int
    measured: int
    scale: str
    intercept: float
    slope: float
    sigma: float
    curvature_p: float
    decision_mm: float
    at_decision: Detected
    at_noise: Detected | None


@dataclass(frozen=True, slots=True)
class KindCapability:
    """One kind of defect.

    Attributes:
        kind: see `DefectKind`.
        size: what its size is, in words.
        smallest_mm, largest_mm: sizes that were tested.
        hits: of all defects of the kind.
        reported: those on which any finding lies.
        hit_miss: by hits and misses.
        response: by measured depth; None for kinds that have none or too few.
        sizes_mm, hit, responses_mm: of each defect; the response None where nothing was reported.
    """

    kind: str
    size: str
    smallest_mm: float
    largest_mm: float
    hits: Share
    reported: Share
    hit_miss: Detected
    response: Response | None
    sizes_mm: tuple[float, ...]
    hit: tuple[bool, ...]
    responses_mm: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Noise:
    """Largest deviation that good parts show, as a Gumbel distribution: of many means the largest.

    Attributes:
        n: values it rests on, two a good part: outwards and inwards.
        location_mm, scale_mm: of the distribution.
        threshold_mm: exceeded on `FALSE_CALLS` of all good parts, both directions together.
    """

    n: int
    location_mm: float
    scale_mm: float
    threshold_mm: float


@dataclass(frozen=True, slots=True)
class PodStudy:
    """What a run shows of its cell and recipe. Its fields are the keys of `depthcell evaluate --pod --json`.

    Attributes:
        parts, defects: how many.
        tolerance_mm: the recipe's.
        criterion: what a hit is.
        kinds: by kind of defect.
        classes: hits of all "volumetric" defects, which change the shape, and of all "surface" ones, which show in
            colour alone; a class without defects is left out.
        false_calls: good parts that were NOK; None without good parts.
        held_back: good parts that were CANNOT-TELL.
        findings_elsewhere: findings that make a part NOK where no defect is, on all parts.
        noise: of good parts; None with too few.
    """

    parts: int
    defects: int
    tolerance_mm: float
    criterion: str
    kinds: dict[str, KindCapability]
    classes: dict[str, Share]
    false_calls: Share | None
    held_back: Share | None
    findings_elsewhere: int
    noise: Noise | None
