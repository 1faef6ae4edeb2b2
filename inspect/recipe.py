"""The recipe: what a part must be, as people write it. One TOML file, checked field by field before anything runs.

Lengths are millimetres and angles degrees, because people write and read them; the properties ending in `_m` give SI.
"""

import hashlib
import json
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.files import sha256_of_file
from depthcell.fusion.registration.allowedmotions import MOTIONS, AllowedMotions
from depthcell.inspect.featuresections import DatumSection, FeatureSection
from depthcell.inspect.gaugesections import GaugeSection, check_gauging
from depthcell.inspect.recipe_refusal import told
from depthcell.inspect.section import (
    Fraction,
    Name,
    NotNegative,
    Positive,
    Section,
    Vector,
    checked_direction,
    unit_vector,
)

SMALLEST_TOLERANCE_MM = 0.005


class CellSection(Section):
    """Which cell inspects, and which of its cameras must be there.

    Attributes:
        file: the cell file, relative to the recipe.
        cameras: serial numbers without which no part is OK.
        health: whether the cell must have been checked by `depthcell verify` for a part to be OK. A check that failed,
            has expired or is of another cell forbids OK either way.
        max_age_days: the latest check may be so old; None leaves it to what the checks themselves say.
        valid_days: the calibration may be so old; None for any age.
    """

    file: Name = "cell.json"
    cameras: Annotated[tuple[Name, ...], Field(min_length=1)]
    health: Literal["if present", "required"] = "if present"
    max_age_days: Positive | None = None
    valid_days: Positive | None = None

    @field_validator("cameras")
    @classmethod
    def _each_once(cls, cameras: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(cameras)) != len(cameras):
            raise ValueError("names a serial number twice; name each camera once")
        return cameras


class ReferenceSection(Section):
    """What the part is compared with.

    Attributes:
        mesh: STL, PLY, OBJ or, with the extra `depthcell[cad]`, STEP in the frame "part", relative to the recipe.
        mesh_unit: length unit of the mesh's numbers. STEP carries its own, which this must not contradict.
        mesh_chord_mm: how far the triangles that a STEP file is cut into may lie from its surface.
        golden: statistics of good parts (npz, see `depthcell.inspect.golden`), or None.
    """

    mesh: Name
    mesh_unit: Literal["mm", "m", "inch"] = "mm"
    mesh_chord_mm: Positive = 0.002
    golden: Name | None = None

    @property
    def stated_unit(self) -> Literal["mm", "m", "inch"] | None:
        """The mesh's unit; None where the recipe leaves it to a STEP file."""
        left_out = "mesh_unit" not in self.model_fields_set
        return None if left_out and Path(self.mesh).suffix.lower() in {".step", ".stp"} else self.mesh_unit


class PoseSection(Section):
    """Where the fixture holds the part, `T_cell_part`, and how far from there a part may lie.

    Attributes:
        rotation_deg: axis times angle.
        translation_mm: of the part's origin in the cell.
        max_shift_mm, max_turn_deg: how far from there a part is looked for.
        allowed: motions along and about the part's axes that the points decide; the fixture holds the others.
        held_sigma_mm, held_sigma_deg: standard uncertainty, from part to part, of what the fixture holds.
        form_mm: how far good parts may differ in form; what stands out less tells nothing of where a part lies.
    """

    rotation_deg: Vector = (0.0, 0.0, 0.0)
    translation_mm: Vector = (0.0, 0.0, 0.0)
    max_shift_mm: Positive = 5.0
    max_turn_deg: Positive = 5.0
    allowed: Annotated[tuple[Literal["rx", "ry", "rz", "x", "y", "z"], ...], Field(min_length=1)] = MOTIONS
    held_sigma_mm: NotNegative | None = None
    held_sigma_deg: NotNegative | None = None
    form_mm: Positive = 0.5

    @model_validator(mode="after")
    def _held_is_uncertain(self) -> Self:
        if len(set(self.allowed)) < len(self.allowed):
            raise ValueError("allowed names a motion twice; name each once")
        stated = self.held_sigma_mm is not None and self.held_sigma_deg is not None
        if len(self.allowed) < len(MOTIONS) and not stated:
            raise ValueError(
                "allowed leaves motions to the fixture; say how well it holds them by held_sigma_mm and held_sigma_deg"
            )
        if len(self.allowed) == len(MOTIONS) and (self.held_sigma_mm, self.held_sigma_deg) != (None, None):
            raise ValueError("held_sigma_mm and held_sigma_deg serve what the fixture holds; say what is `allowed`")
        return self

    @property
    def allowed_motions(self) -> AllowedMotions | None:
        """What the points decide; None for all six."""
        if len(self.allowed) == len(MOTIONS):
            return None
        sigma_mm, sigma_deg = self.held_sigma_mm or 0.0, self.held_sigma_deg or 0.0
        return AllowedMotions(self.allowed, self.T_cell_part, sigma_mm / 1000.0, math.radians(sigma_deg))

    @property
    def T_cell_part(self) -> RigidTransform:  # noqa: N802 - a transform's name says its frames
        """The nominal pose."""
        return RigidTransform.from_rotation_vector(
            "cell", "part", np.radians(self.rotation_deg), np.array(self.translation_mm) / 1000.0
        )

    @property
    def max_shift_m(self) -> float:
        """Largest accepted distance from the nominal position, metres."""
        return self.max_shift_mm / 1000.0

    @property
    def max_turn_rad(self) -> float:
        """Largest accepted angle from the nominal orientation, radians."""
        return math.radians(self.max_turn_deg)


class RegionSection(Section):
    """The box in the frame "part" that is inspected, and how much of the surface in it must have been measured."""

    min_mm: Vector
    max_mm: Vector
    min_coverage: Fraction = 0.9

    @model_validator(mode="after")
    def _has_volume(self) -> Self:
        for axis, low, high in zip("xyz", self.min_mm, self.max_mm, strict=True):
            if not low < high:
                raise ValueError(f"min_mm must be below max_mm on axis {axis}, got {low:g} and {high:g}")
        return self

    @property
    def min_m(self) -> NDArray[np.float64]:
        """Lower corner, (3,) metres, frame "part"."""
        return np.array(self.min_mm) / 1000.0

    @property
    def max_m(self) -> NDArray[np.float64]:
        """Upper corner, (3,) metres, frame "part"."""
        return np.array(self.max_mm) / 1000.0


class SurfaceSection(Section):
    """The check of the shape.

    Attributes:
        tolerance_mm: a region that deviates from the reference by more than this is NOK.
        min_area_mm2: smallest region to speak of.
        significance: deviation over standard uncertainty from which on it is taken for real.
    """

    tolerance_mm: Positive
    min_area_mm2: Positive = 4.0
    significance: Annotated[float, Field(ge=3, le=50)] = 5.0

    @field_validator("tolerance_mm")
    @classmethod
    def _is_in_millimetres(cls, tolerance_mm: float) -> float:
        if tolerance_mm < SMALLEST_TOLERANCE_MM:
            raise ValueError(f"{tolerance_mm:g} mm is below {SMALLEST_TOLERANCE_MM} mm; write millimetres, not metres")
        return tolerance_mm

    @property
    def tolerance_m(self) -> float:
        """`tolerance_mm` in metres."""
        return self.tolerance_mm / 1000.0

    @property
    def min_area_m2(self) -> float:
        """`min_area_mm2` in square metres."""
        return self.min_area_mm2 * 1e-6


class ColorSection(Section):
    """The check of the colour against good parts.

    Attributes:
        significance: colour difference over its standard uncertainty from which on it is taken for real.
        min_area_mm2: smallest region to speak of.
    """

    significance: Annotated[float, Field(ge=3, le=50)] = 6.0
    min_area_mm2: Positive = 2.0

    @property
    def min_area_m2(self) -> float:
        """`min_area_mm2` in square metres."""
        return self.min_area_mm2 * 1e-6


class BoreSection(Section):
    """One bore: it must be there, and its diameter within tolerance.

    Attributes:
        name: what the verdict calls it.
        position_mm: centre at the mouth, frame "part".
        axis: direction out of the material; need not be of unit length.
        diameter_mm: nominal.
        tolerance_mm: of the diameter, plus and minus. Without it the bore has to be there, and its diameter is
            reported but decides nothing: right for a cell that sees too little of the wall.
    """

    name: Name
    position_mm: Vector
    axis: Vector = (0.0, 0.0, 1.0)
    diameter_mm: Positive
    tolerance_mm: Positive | None = None

    _direction = field_validator("axis")(checked_direction)

    @model_validator(mode="after")
    def _tolerance_is_smaller(self) -> Self:
        if self.tolerance_mm is not None and self.tolerance_mm >= self.diameter_mm / 2:
            raise ValueError(f"tolerance_mm {self.tolerance_mm:g} must be below half of diameter_mm")
        return self

    @property
    def position_m(self) -> NDArray[np.float64]:
        """Centre at the mouth, (3,) metres, frame "part"."""
        return np.array(self.position_mm) / 1000.0

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vector (3,) out of the material, frame "part"."""
        return unit_vector(self.axis)

    @property
    def limits_mm(self) -> tuple[float | None, float | None]:
        """Smallest and largest diameter allowed; None without a tolerance."""
        if self.tolerance_mm is None:
            return None, None
        return self.diameter_mm - self.tolerance_mm, self.diameter_mm + self.tolerance_mm

    @property
    def radius_m(self) -> float:
        """Nominal radius, metres."""
        return self.diameter_mm / 2000.0


class Recipe(Section):
    """Everything that decides a verdict and is not measured. See `docs/judgement.md` and `examples/recipe.toml`."""

    schema_version: Literal[1]
    name: Name
    takt_ms: Positive = 2000.0
    cell: CellSection
    reference: ReferenceSection
    pose: PoseSection = PoseSection()
    region: RegionSection
    surface: SurfaceSection
    color: ColorSection | None = None
    bore: tuple[BoreSection, ...] = ()
    feature: tuple[FeatureSection, ...] = ()
    datum: tuple[DatumSection, ...] = ()
    gauge: tuple[GaugeSection, ...] = ()
    _folders: tuple[Path, ...] = PrivateAttr(default=(Path(),))

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.color is not None and self.reference.golden is None:
            raise ValueError("color: needs reference.golden, the statistics of good parts; add it or drop [color]")
        names = [measured.name for measured in (*self.bore, *self.gauge)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"the name '{name}' stands twice among bores and gauges; each measurement needs its own"
                )
        check_gauging(self.feature, self.datum, self.gauge)
        for bore in self.bore:
            outside = np.any((bore.position_m < self.region.min_m) | (bore.position_m > self.region.max_m))
            if outside:
                raise ValueError(f"bore '{bore.name}': position_mm lies outside region; move one of them")
        extent_mm = max(high - low for low, high in zip(self.region.min_mm, self.region.max_mm, strict=True))
        if self.surface.tolerance_mm > extent_mm / 10:
            raise ValueError(
                f"surface.tolerance_mm {self.surface.tolerance_mm:g} is more than a tenth of the region's "
                f"{extent_mm:g} mm; check that region and tolerance are both in millimetres"
            )
        return self

    @classmethod
    def load(cls, path: Path, beside: Path | None = None) -> "Recipe":
        """Read and check a recipe file.

        Args:
            path: of the recipe.
            beside: where else the files it names may lie: the folder of the parts. The recipe's own folder comes first.

        Raises:
            DepthcellError: one line that names the file, the field, what is wrong with it and what to do.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise _refusal(path, f"cannot be read ({error.strerror}); name an existing recipe file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise _refusal(path, f"is no valid TOML: {error}") from error
        try:
            recipe = cls.model_validate(content)
        except ValidationError as error:
            raise _refusal(path, told(error, cls)) from error
        recipe._folders = (path.parent,) if beside is None else (path.parent, beside)
        if not recipe.mesh_path.is_file():
            places = ", ".join(str(folder) for folder in recipe._folders[1:])
            also = f", nor is there one in {places}" if places else ""
            raise _refusal(
                path, f"reference.mesh: {recipe.mesh_path} is no file; paths are relative to the recipe{also}"
            )
        return recipe

    @property
    def cell_path(self) -> Path:
        """Where the cell file lies."""
        return self._found(self.cell.file)

    @property
    def mesh_path(self) -> Path:
        """Where the reference mesh lies."""
        return self._found(self.reference.mesh)

    @property
    def golden_path(self) -> Path | None:
        """Where the statistics of good parts lie, None without."""
        return None if self.reference.golden is None else self._found(self.reference.golden)

    def _found(self, name: str) -> Path:
        """The file in the first folder that has it; in the recipe's own where none has."""
        places = [folder / name for folder in self._folders]
        return next((place for place in places if place.is_file()), places[0])

    def to_json(self) -> str:
        """The effective configuration, defaults included, as indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"

    @property
    def sha256(self) -> str:
        """The recipe's identity in a verdict: SHA-256 of its effective content.

        File names are replaced by the SHA-256 of what the files hold, so that a copied folder keeps its identity and
        an exchanged mesh or golden does not. The cell has its own place in the provenance. What a recipe does not ask
        for leaves no trace, so that a new section does not change the identity of recipes without it.
        """
        content: dict[str, Any] = self.model_dump(mode="json")
        content["cell"].pop("file")
        for name in ("health", "max_age_days", "valid_days"):
            if content["cell"][name] == CellSection.model_fields[name].default:
                del content["cell"][name]
        if content["reference"]["mesh_chord_mm"] == ReferenceSection.model_fields["mesh_chord_mm"].default:
            del content["reference"]["mesh_chord_mm"]
        for name in ("allowed", "held_sigma_mm", "held_sigma_deg", "form_mm"):
            if getattr(self.pose, name) == PoseSection.model_fields[name].default:
                del content["pose"][name]
        for number, datum in enumerate(self.datum):
            content["datum"][number] = datum.model_dump(mode="json", exclude_defaults=True)
        for name in ("feature", "datum", "gauge"):
            if not content[name]:
                del content[name]
        content["reference"]["mesh"] = sha256_of_file(self.mesh_path)
        golden = self.golden_path
        content["reference"]["golden"] = sha256_of_file(golden) if golden is not None and golden.is_file() else None
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _refusal(path: Path, what: str) -> DepthcellError:
    return DepthcellError(f"recipe {path}: {what}", Reason.RECIPE_INVALID)
