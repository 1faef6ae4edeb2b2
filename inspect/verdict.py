"""What the inspection room hands on: a `Verdict`, the one message a line controller needs for one part."""

import hashlib
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from depthcell.errors import DepthcellError
from depthcell.jsontext import canonical_json, describe_properties

SCHEMA_VERSION = 1

NotNegative = Annotated[float, Meta(ge=0)]


class Decision(StrEnum):
    """What the line may do with the part. Whoever is in doubt rejects: only `OK` lets a part pass."""

    OK = "OK"
    NOK = "NOK"
    CANNOT_TELL = "CANNOT-TELL"


class Quantity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A measured value and its standard uncertainty (k = 1), both in the unit that the field's name ends with."""

    value: float
    u: NotNegative


class Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A point in the frame "part", millimetres, and the standard uncertainty of each coordinate."""

    value: tuple[float, float, float]
    u: tuple[NotNegative, NotNegative, NotNegative]


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One connected region that differs from what a good part shows.

    Attributes:
        kind: "dent", "bump", "missing_material", "excess_material", "missing_bore", "stain", "scratch" ...;
            "anomaly" for what a learned model has no name for.
        depth_mm: signed deviation at its extreme, positive outside the material; None for a finding in colour alone,
            and for one of a learned model where the shape does not deviate.
        area_mm2: of the region on the surface.
        volume_mm3: signed, integral of the deviation over the region; None where there is no depth.
        position_mm: centre of the region.
        sigma: deviation over its standard uncertainty; how far this is from chance.
        source: which evidence shows it; "model" is a learned model, which sees depth and colour at once.
        cameras: serial numbers of the cameras that saw it.
        text: the finding in a metrologist's words.
    """

    kind: str
    depth_mm: Quantity | None
    area_mm2: Quantity
    volume_mm3: Quantity | None
    position_mm: Position
    sigma: float
    source: Literal["depth", "color", "depth+color", "model", "depth+model", "color+model", "depth+color+model"]
    cameras: tuple[str, ...]
    text: str


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A measurand with its tolerance and what follows by ISO 14253-1 (guard band on both sides of each limit).

    Attributes:
        name: as the recipe calls it.
        value, u: result and standard uncertainty in `unit`; None where nothing could be measured.
        unit: "mm", "mm2", "deg" ...
        lower, upper: tolerance limits in `unit`; None where there is none.
        decision: OK, NOK or CANNOT-TELL.
        provenance: how it came about: points used, fit, cameras.
    """

    name: str
    value: float | None
    u: NotNegative | None
    unit: str
    lower: float | None
    upper: float | None
    decision: Decision
    provenance: str


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SHA-256 of everything the verdict rests on, lower-case hexadecimal; `model` is None without a learned model."""

    recording: str
    cell: str
    recipe: str
    model: str | None
    software: str


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The verdict on one part.

    Attributes:
        schema_version: of this message.
        verdict: OK, NOK or CANNOT-TELL.
        part_id: which part.
        trigger_id: which trigger asked for it.
        sequence: counts the verdicts of this run from 1, without a gap.
        findings: what differs, worst first.
        measurements: in the recipe's order.
        reasons: why, in words, worst first; never empty.
        timings_ms: duration of each stage; not part of the digest.
        issued_at: ISO 8601, UTC; not part of the digest.
        provenance: what the verdict rests on.
        digest: SHA-256 over all of this but `timings_ms`, `issued_at` and itself: see `digest_of`.
    """

    schema_version: Literal[1]
    verdict: Decision
    part_id: str
    trigger_id: str
    sequence: Annotated[int, Meta(ge=1)]
    findings: tuple[Finding, ...]
    measurements: tuple[Measurement, ...]
    reasons: Annotated[tuple[str, ...], Meta(min_length=1)]
    timings_ms: dict[str, float]
    issued_at: str
    provenance: Provenance
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] = ""


def digest_of(verdict: Verdict) -> str:
    """SHA-256 of the verdict's canonical JSON without timings, times and the digest itself.

    Canonical as RFC 8785 (JSON Canonicalization Scheme) says, so that a controller in any language can check it.
    """
    content: dict[str, Any] = msgspec.to_builtins(verdict)
    for name in ("timings_ms", "issued_at", "digest"):
        del content[name]
    return hashlib.sha256(canonical_json(content)).hexdigest()


def sealed(verdict: Verdict) -> Verdict:
    """The verdict with its digest filled in.

    Raises:
        DepthcellError: the reader of the wire would refuse it, as with a value that is not finite (JSON has no NaN).
    """
    complete = msgspec.structs.replace(verdict, digest=digest_of(verdict))
    try:
        from_json(to_json(complete))
    except msgspec.ValidationError as error:
        raise DepthcellError(f"verdict on part '{verdict.part_id}': {error}") from error
    return complete


def to_json(verdict: Verdict) -> bytes:
    """One line of JSON, keys in the order of the schema, without a line end."""
    return msgspec.json.encode(verdict)


def from_json(line: bytes) -> Verdict:
    """Read a verdict from the wire.

    Raises:
        msgspec.ValidationError: a field is missing, unknown or of the wrong type; the message names it.
    """
    return msgspec.json.decode(line, type=Verdict)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a verdict on the wire; `docs/verdict.schema.json` is this, committed."""
    schema = msgspec.json.schema(Verdict)
    for definition in schema["$defs"].values():
        describe_properties(definition)
    on_the_wire = schema["$defs"]["Verdict"]
    del on_the_wire["properties"]["digest"]["default"]
    on_the_wire["required"].append("digest")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "depthcell verdict"} | schema
