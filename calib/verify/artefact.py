"""Artefacts: bodies whose size somebody certified, by which a cell is accepted and its drift watched.

The certificate is a TOML file, `artefact.toml`, in the folder of the recording. Lengths are millimetres, because people
write and read them; the properties that end in `_m` give SI. See `docs/acceptance.md`.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from depthcell.errors import DepthcellError

ARTEFACT_FILE = "artefact.toml"

Length = Annotated[float, Field(gt=0.5, lt=5000, allow_inf_nan=False)]
"""Millimetres; the bounds catch metres and inches written by mistake."""
Height = Annotated[float, Field(gt=-5000, lt=5000, allow_inf_nan=False)]
Uncertainty = Annotated[float, Field(ge=0, lt=50, allow_inf_nan=False)]
"""Standard uncertainty (k = 1) in millimetres; certificates mostly state U with k = 2, of which this is half."""
Count = Annotated[int, Field(ge=1)]


class _Certified(BaseModel):
    """What every artefact's certificate may say.

    Attributes:
        serial: engraved on it.
        certificate: number of the certificate, or where the values come from.
        frames_per_placement: where one recording holds several placements, one after the other: frame sets of each.
            None: each recording, or each folder of recordings, is one placement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    serial: str = ""
    certificate: str = ""
    frames_per_placement: Count | None = None


class Plate(_Certified):
    """A plate, held to be flat within `flatness_mm`.

    Attributes:
        width_mm, height_mm: of its face.
        flatness_mm: distance of the two parallel planes that enclose the face.
    """

    kind: Literal["plate"]
    width_mm: Length
    height_mm: Length
    flatness_mm: Annotated[float, Field(ge=0, lt=50, allow_inf_nan=False)]
    flatness_u_mm: Uncertainty = 0.0

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height of the face, metres."""
        return self.width_mm / 1e3, self.height_mm / 1e3


class Sphere(_Certified):
    """One sphere."""

    kind: Literal["sphere"]
    diameter_mm: Length
    diameter_u_mm: Uncertainty

    @property
    def diameter_m(self) -> float:
        """Diameter, metres."""
        return self.diameter_mm / 1e3


class BallBar(_Certified):
    """Two spheres, a and b, whose centres are a certified distance apart."""

    kind: Literal["ball_bar"]
    diameter_a_mm: Length
    diameter_a_u_mm: Uncertainty
    diameter_b_mm: Length
    diameter_b_u_mm: Uncertainty
    distance_mm: Length
    distance_u_mm: Uncertainty

    @model_validator(mode="after")
    def _is_a_bar(self) -> Self:
        if self.distance_mm <= (self.diameter_a_mm + self.diameter_b_mm) / 2:
            raise ValueError(
                f"distance_mm {self.distance_mm:g} must be more than half the sum of the diameters; "
                "it is between the centres"
            )
        return self

    @property
    def diameters_m(self) -> tuple[float, float]:
        """Of both spheres, metres."""
        return self.diameter_a_mm / 1e3, self.diameter_b_mm / 1e3

    @property
    def distance_m(self) -> float:
        """Between the centres, metres."""
        return self.distance_mm / 1e3


class StepGauge(_Certified):
    """Parallel faces side by side, each `heights_mm` above the first one.

    Attributes:
        width_mm: of the whole gauge along the row of its faces; all faces are equally wide.
        depth_mm: of the faces, across the row.
        heights_mm: of every face above the first, in order along the row; the first is 0.
        heights_u_mm: standard uncertainty of each.
    """

    kind: Literal["step_gauge"]
    width_mm: Length
    depth_mm: Length
    heights_mm: Annotated[tuple[Height, ...], Field(min_length=2, max_length=50)]
    heights_u_mm: tuple[Uncertainty, ...]

    @model_validator(mode="after")
    def _is_a_gauge(self) -> Self:
        if len(self.heights_u_mm) != len(self.heights_mm):
            raise ValueError(f"heights_u_mm must have {len(self.heights_mm)} values, one for each of heights_mm")
        if self.heights_mm[0] != 0:
            raise ValueError(f"heights_mm must begin with 0, the first face itself, got {self.heights_mm[0]:g}")
        if len(set(self.heights_mm)) == 1:
            raise ValueError("heights_mm are all alike; a gauge has a step")
        return self


class BoardArtefact(_Certified):
    """A printed board, taken as a body whose place each camera can tell: for drift, not for acceptance.

    Attributes:
        board: as on the command line, such as "charuco:9x6:30mm".
    """

    kind: Literal["board"]
    board: Annotated[str, Field(min_length=3)]


Artefact = Plate | Sphere | BallBar | StepGauge | BoardArtefact
"""Any of them; `kind` tells which."""

_READER: TypeAdapter[Artefact] = TypeAdapter(Annotated[Artefact, Field(discriminator="kind")])
_KINDS = ("plate", "sphere", "ball_bar", "step_gauge", "board")
MAX_ERRORS_TOLD = 3
NO_CERTIFICATE = "none; nominal value"


def load_artefact(folder: Path) -> Artefact:
    """Read the certificate that lies in a recording's folder, or beside the recording.

    Raises:
        DepthcellError: there is none, it is no TOML, or a field is wrong; the message names file and field.
    """
    path = (folder if folder.is_dir() else folder.parent) / ARTEFACT_FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DepthcellError(
            f"{path}: cannot be read ({error.strerror}); write the certificate there, or say --artefact sphere:50mm"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DepthcellError(f"{path}: is no valid TOML: {error}") from error
    return _checked(content, str(path))


def parse_artefact(text: str) -> Artefact:
    """Read an artefact from the command line.

    "sphere:50mm", "ballbar:30mm:30mm:200mm" (both diameters, distance), "plate:300x200mm" or "plate:300x200mm:0.05mm"
    (size, flatness), "board:charuco:9x6:30mm". Nothing certified stands behind it, so its uncertainty is stated by a
    ±, as in "sphere:50mm±0.001mm", and is otherwise half the last digit written, taken as a rectangular distribution
    (GUM 4.3.7): "50mm" is worth 0.29 mm, "50.00mm" 0.0029 mm.

    Raises:
        DepthcellError: it cannot be read so.
    """
    kind, _, rest = text.partition(":")
    words = rest.split(":") if rest else []
    match kind, len(words):
        case "board", _ if words:
            content: dict[str, object] = {"kind": "board", "board": rest}
        case "sphere", 1:
            content = {"kind": "sphere"} | _length("diameter", words[0], text)
        case "ballbar" | "ball_bar", 3:
            names = ("diameter_a", "diameter_b", "distance")
            content = {"kind": "ball_bar"}
            for name, word in zip(names, words, strict=True):
                content |= _length(name, word, text)
        case "plate", 1 | 2:
            width, _, height = words[0].partition("x")
            content = {"kind": "plate", "flatness_mm": 0.0}
            content |= {"width_mm": _millimetres(width, text)[0], "height_mm": _millimetres(height, text)[0]}
            content |= _length("flatness", words[1], text) if len(words) == 2 else {}
        case _:
            raise _unreadable(text)
    return _checked(content | {"certificate": NO_CERTIFICATE}, f"--artefact {text}")


def _checked(content: dict[str, object], where: str) -> Artefact:
    if content.get("kind") not in _KINDS:
        raise DepthcellError(f"{where}: kind must be one of {', '.join(_KINDS)}, got {content.get('kind')!r}")
    try:
        return _READER.validate_python(content)
    except ValidationError as error:
        raise DepthcellError(f"{where}: {_told(error)}") from error


def _told(error: ValidationError) -> str:
    """The first few errors, each as `field: what is wrong`."""
    told = []
    for found in error.errors(include_url=False)[:MAX_ERRORS_TOLD]:
        field = ".".join(str(part) for part in found["loc"][1:])  # the first is the kind
        match found["type"]:
            case "extra_forbidden":
                text = "unknown field; remove it or correct its name"
            case "missing":
                text = "is missing; add it"
            case "value_error":
                text = found["msg"].removeprefix("Value error, ")
            case _:
                text = f"{found['msg']}, got {found.get('input')!r}"
        told.append(f"{field}: {text}" if field else text)
    return "; ".join(told)


def _length(name: str, word: str, text: str) -> dict[str, object]:
    value, u = _millimetres(word, text)
    return {f"{name}_mm": value, f"{name}_u_mm": u}


def _millimetres(word: str, text: str) -> tuple[float, float]:
    """Value and standard uncertainty of a word such as "50.00mm" or "50mm±0.01mm"; the unit may stand at the end alone.

    Half the last digit, as a rectangular distribution: u = step / (2 sqrt 3).
    """
    number, _, spread = word.replace("+-", "±").partition("±")
    number = number.strip().removesuffix("mm").strip()
    try:
        value = float(number)
        u = float(spread.strip().removesuffix("mm")) if spread else 10.0 ** -_decimals(number) / (2 * 3**0.5)
    except ValueError:
        raise _unreadable(text) from None
    return value, u


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])


def _unreadable(text: str) -> DepthcellError:
    return DepthcellError(
        f"--artefact {text}: cannot be read; write sphere:50mm, ballbar:30mm:30mm:200mm, plate:300x200mm:0.05mm or "
        "board:charuco:9x6:30mm"
    )
