"""The gauges of a recipe: what is to be measured, as people write it.

A gauge names features by `name` and datums by `label`, see `featuresections`. Lengths are millimetres, angles degrees.
`docs/gauges.md` shows each with its standard and formula.
"""

import difflib
from collections.abc import Collection, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from depthcell.inspect.featuresections import DatumSection, FeatureSection, Label, Level
from depthcell.inspect.section import Finite, Name, NotNegative, Positive, Section, Vector, checked_direction

Limits = Positive | tuple[Finite, Finite]
"""Plus and minus one value, or lower and upper deviation from nominal."""
Criterion = Literal["minimum zone", "least squares"]


class ProcessSection(Section):
    """How good parts spread: mean and standard deviation of the true values, in the gauge's unit (mm, deg or mm³)."""

    mean: Finite
    sd: Positive


class _Gauge(Section):
    """Any gauge; with `process` it also says how often it errs over the whole production (JCGM 106, 9.3)."""

    name: Name
    process: ProcessSection | None = None


class _Sized(_Gauge):
    """A dimension with a nominal value and limits; without `tolerance` it is reported and decides nothing."""

    nominal_mm: Finite | None = None
    tolerance_mm: Limits | None = None

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        if self.tolerance_mm is not None and self.nominal_mm is None:
            raise ValueError("tolerance_mm needs nominal_mm; add it")
        if isinstance(self.tolerance_mm, tuple) and not self.tolerance_mm[0] < self.tolerance_mm[1]:
            raise ValueError("tolerance_mm: the lower deviation must stand before the upper one, as [-0.1, 0.2]")
        return self

    @property
    def limits_mm(self) -> tuple[float | None, float | None]:
        """Smallest and largest value allowed; None without."""
        if self.tolerance_mm is None or self.nominal_mm is None:
            return None, None
        if isinstance(self.tolerance_mm, tuple):
            low, high = self.tolerance_mm
            return self.nominal_mm + low, self.nominal_mm + high
        return self.nominal_mm - self.tolerance_mm, self.nominal_mm + self.tolerance_mm


class _Zoned(_Gauge):
    """A geometrical tolerance (ISO 1101): the width of the zone, from 0 up to `tolerance_mm`."""

    tolerance_mm: Positive | None = None
    criterion: Criterion = "minimum zone"

    @property
    def limits_mm(self) -> tuple[float | None, float | None]:
        """There is no lower limit."""
        return None, self.tolerance_mm


class DistanceGauge(_Sized):
    """Distance between two features: parallel planes, a plane and an axis or centre, two axes, two centres."""

    kind: Literal["distance"]
    between: tuple[Name, Name]


class StepHeightGauge(_Sized):
    """Height of a face over a reference face, positive out of the material of `over`."""

    kind: Literal["step_height"]
    over: Name
    feature: Name


class AngleGauge(_Gauge):
    """Angle between normals or axes of two features: 0 to 180 degrees of planes, to 90 where an axis takes part."""

    kind: Literal["angle"]
    between: tuple[Name, Name]
    nominal_deg: Finite | None = None
    tolerance_deg: Positive | None = None

    @property
    def limits_deg(self) -> tuple[float | None, float | None]:
        """Smallest and largest angle allowed; None without."""
        if self.tolerance_deg is None or self.nominal_deg is None:
            return None, None
        return self.nominal_deg - self.tolerance_deg, self.nominal_deg + self.tolerance_deg


class DiameterGauge(_Sized):
    """Diameter of a cylinder, circle or sphere: least squares, or as `criterion` says (ISO 14405-1 GG, GX, GN)."""

    kind: Literal["diameter"]
    feature: Name
    criterion: Literal["least squares", "maximum inscribed", "minimum circumscribed"] = "least squares"


class CoordinateGauge(_Sized):
    """One coordinate of a feature's centre or axis along `direction`, in the part's frame or that of `datums`."""

    kind: Literal["coordinate"]
    feature: Name
    direction: Vector
    datums: tuple[Level, ...] = ()

    _direction = field_validator("direction")(checked_direction)


class FlatnessGauge(_Zoned):
    """Flatness of a plane (ISO 12781-1)."""

    kind: Literal["flatness"]
    feature: Name


class StraightnessGauge(_Zoned):
    """Straightness of a line feature, or of a cylinder's median line (ISO 12780-1)."""

    kind: Literal["straightness"]
    feature: Name


class RoundnessGauge(_Zoned):
    """Roundness of a circle feature (ISO 12181-1)."""

    kind: Literal["roundness"]
    feature: Name


class CylindricityGauge(_Zoned):
    """Cylindricity (ISO 12180-1)."""

    kind: Literal["cylindricity"]
    feature: Name


class ParallelismGauge(_Zoned):
    """Parallelism of a plane or an axis to a datum (ISO 1101, 17.11)."""

    kind: Literal["parallelism"]
    feature: Name
    datum: Label


class PerpendicularityGauge(_Zoned):
    """Perpendicularity of a plane or an axis to a datum (ISO 1101)."""

    kind: Literal["perpendicularity"]
    feature: Name
    datum: Label


class AngularityGauge(_Zoned):
    """Angularity of a plane or an axis at `angle_deg` to a datum (ISO 1101)."""

    kind: Literal["angularity"]
    feature: Name
    datum: Label
    angle_deg: Finite


class PositionGauge(_Zoned):
    """True position of an axis, a centre or a plane from a datum system (ISO 5458): twice the largest distance."""

    kind: Literal["position"]
    feature: Name
    datums: Annotated[tuple[Level, ...], Field(min_length=1, max_length=3)]


class SurfaceProfileGauge(_Zoned):
    """Profile of a surface (ISO 1660): twice the largest deviation from the reference within the box.

    Without datums the part is best-fitted; with them it is held by the datum system. `edge_mm` is as of a feature.
    """

    kind: Literal["profile_surface"]
    min_mm: Vector
    max_mm: Vector
    datums: tuple[Level, ...] = ()
    edge_mm: NotNegative | None = None


class LineProfileGauge(_Zoned):
    """Profile of a line: as of a surface, within `width_mm` of a section plane through `point_mm` with `normal`."""

    kind: Literal["profile_line"]
    point_mm: Vector
    normal: Vector
    width_mm: Positive = 1.0
    min_mm: Vector
    max_mm: Vector
    datums: tuple[Level, ...] = ()
    edge_mm: NotNegative | None = None

    _direction = field_validator("normal")(checked_direction)


class RunoutGauge(_Zoned):
    """Run-out of a cylinder or a flat face against a datum axis: circular (section by section) or total (ISO 1101)."""

    kind: Literal["runout"]
    feature: Name
    datum: Label
    scope: Literal["circular", "total"] = "circular"


class ThicknessGauge(_Sized):
    """Thickness of a wall seen from both sides, along `direction`, within the box: its mean, or its smallest value."""

    kind: Literal["thickness"]
    min_mm: Vector
    max_mm: Vector
    direction: Vector
    statistic: Literal["mean", "smallest"] = "mean"

    _direction = field_validator("direction")(checked_direction)


class _Joint(_Sized):
    """Two faces side by side with a gap between: the gauge looks at a section across it.

    Attributes:
        point_mm: in the middle of the gap, at the level of the faces.
        across: direction from the first face to the second, across the gap.
        normal: out of the faces.
        reach_mm: how far each face is looked at from the middle.
        length_mm: how long the stretch along the gap is.
    """

    point_mm: Vector
    across: Vector
    normal: Vector
    reach_mm: Positive = 10.0
    length_mm: Positive = 5.0

    _direction = field_validator("across", "normal")(checked_direction)


class GapGauge(_Joint):
    """Width of the gap between two edges."""

    kind: Literal["gap"]


class FlushGauge(_Joint):
    """Height of the second face over the first at the middle of the gap."""

    kind: Literal["flush"]


class SeamGauge(_Sized):
    """A bead or weld seam, section by section along its line: width, height (reinforcement), throat or undercut.

    Attributes:
        start_mm, end_mm: the seam's nominal line, on the surfaces it joins.
        normal: out of the surfaces, middle of the two faces for a fillet.
        reach_mm: how far to each side of the line the surfaces are looked at.
        spacing_mm: distance of the sections.
        dimension: what of the section is measured (ISO 6520-1 / ISO 5817 words).
        statistic: which of the sections' values counts.
    """

    kind: Literal["seam"]
    start_mm: Vector
    end_mm: Vector
    normal: Vector
    reach_mm: Positive = 15.0
    spacing_mm: Positive = 2.0
    dimension: Literal["width", "height", "throat", "undercut"]
    statistic: Literal["mean", "smallest", "largest"] = "mean"

    _direction = field_validator("normal")(checked_direction)

    @model_validator(mode="after")
    def _has_length(self) -> Self:
        if self.start_mm == self.end_mm:
            raise ValueError("start_mm and end_mm are the same point; give the seam a length")
        return self


class VolumeGauge(_Gauge):
    """Volume that is missing, or in excess, against the reference within the box.

    Attributes:
        threshold_mm: deviations smaller than this do not count; what is left of noise is taken into account.
    """

    kind: Literal["volume"]
    min_mm: Vector
    max_mm: Vector
    of: Literal["missing", "excess"]
    threshold_mm: NotNegative = 0.0
    largest_mm3: Positive | None = None


GaugeSection = Annotated[
    DistanceGauge
    | StepHeightGauge
    | AngleGauge
    | DiameterGauge
    | CoordinateGauge
    | FlatnessGauge
    | StraightnessGauge
    | RoundnessGauge
    | CylindricityGauge
    | ParallelismGauge
    | PerpendicularityGauge
    | AngularityGauge
    | PositionGauge
    | SurfaceProfileGauge
    | LineProfileGauge
    | RunoutGauge
    | ThicknessGauge
    | GapGauge
    | FlushGauge
    | SeamGauge
    | VolumeGauge,
    Field(discriminator="kind"),
]


def check_gauging(
    features: Sequence[FeatureSection], datums: Sequence[DatumSection], gauges: Sequence[GaugeSection]
) -> None:
    """Everything that is named must be there, once.

    Raises:
        ValueError: it is not; the message names the field, and what comes near.
    """
    names, labels = [feature.name for feature in features], [datum.label for datum in datums]
    for field, words in (("feature.name", names), ("datum.label", labels)):
        for word in words:
            if words.count(word) > 1:
                raise ValueError(f"{field} '{word}' stands twice; each needs its own")
    for datum in datums:
        if datum.feature is not None:
            _need(datum.feature, names, f"datum '{datum.label}': feature")
    by_points = {datum.label for datum in datums if datum.points}
    for gauge in gauges:
        for name in _named(gauge, "feature", "over", "between"):
            _need(name, names, f"gauge '{gauge.name}': feature")
        _check_datums(gauge, labels, by_points)


def _check_datums(gauge: GaugeSection, labels: Sequence[str], by_points: Collection[str]) -> None:
    """Each datum that a gauge names is known and stands once; one of reference points stands alone."""
    each = [label for level in _named(gauge, "datum", "datums") for label in level.split("-")]
    for label in each:
        _need(label, labels, f"gauge '{gauge.name}': datum")
        if each.count(label) > 1:
            raise ValueError(f"gauge '{gauge.name}': datum '{label}' stands twice in its datums")
        if label in by_points and (len(each) > 1 or "datum" in type(gauge).model_fields):
            raise ValueError(
                f"gauge '{gauge.name}': datum '{label}' is of reference points, which hold the part by themselves; "
                "give it as the only one of `datums`, or name a datum of a feature"
            )


def _named(gauge: GaugeSection, *fields: str) -> list[str]:
    """What a gauge names in these fields, those it does not have left out."""
    values = [getattr(gauge, field) for field in fields if field in type(gauge).model_fields]
    return [name for value in values for name in ((value,) if isinstance(value, str) else value)]


def _need(name: str, known: Sequence[str], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known) or 'none'}"
        raise ValueError(f"{where} '{name}' is not in the recipe; {advice}")
