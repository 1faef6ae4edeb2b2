"""The features and datums of a recipe: where each surface of the part lies nominally, as people write it.

Millimetres, in the frame "part". Gauges name features by `name` and datums by `label`, see `gaugesections`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from depthcell.inspect.section import Name, NotNegative, Positive, Section, Vector, checked_direction

Label = Annotated[str, Field(pattern=r"^[A-Z]{1,3}$")]
Level = Annotated[str, Field(pattern=r"^[A-Z]{1,3}(-[A-Z]{1,3})*$")]
"""One place in a datum system: a label, or those of a common datum with hyphens between, such as "A-B"."""


class _Box(Section):
    """A box in the frame "part", and how far from the nominal surface points may lie.

    Attributes:
        min_mm, max_mm: the box; points outside are no part of the feature.
        capture_mm: points farther than this from the nominal surface are not either.
        edge_mm: points nearer than this to an edge of the reference are left out: there the matching window of a stereo
            camera mixes two surfaces. None for twice the distance over which the camera's noise is alike; 0 keeps all.
    """

    name: Name
    min_mm: Vector
    max_mm: Vector
    capture_mm: Positive = 2.0
    edge_mm: NotNegative | None = None

    @model_validator(mode="after")
    def _has_volume(self) -> Self:
        for axis, low, high in zip("xyz", self.min_mm, self.max_mm, strict=True):
            if not low < high:
                raise ValueError(f"min_mm must be below max_mm on axis {axis}, got {low:g} and {high:g}")
        return self


class PlaneFeature(_Box):
    """A flat face: `normal` out of the material, `point_mm` anywhere on it (the middle of the box if not given)."""

    kind: Literal["plane"]
    normal: Vector
    point_mm: Vector | None = None

    _direction = field_validator("normal")(checked_direction)


class CylinderFeature(_Box):
    """A bore's wall or a shaft's: `position_mm` on the axis; `side` says where the air is."""

    kind: Literal["cylinder"]
    position_mm: Vector
    axis: Vector
    diameter_mm: Positive
    side: Literal["inside", "outside"]

    _direction = field_validator("axis")(checked_direction)


class CircleFeature(_Box):
    """A ring of a cylinder's wall: the points of the box, projected along the axis onto the plane of the circle."""

    kind: Literal["circle"]
    position_mm: Vector
    axis: Vector
    diameter_mm: Positive
    side: Literal["inside", "outside"]

    _direction = field_validator("axis")(checked_direction)


class SphereFeature(_Box):
    """A ball or a dimple: `side` says where the air is."""

    kind: Literal["sphere"]
    position_mm: Vector
    diameter_mm: Positive
    side: Literal["inside", "outside"]


class LineFeature(_Box):
    """A line on a flat face: the points of the narrow box, as a profile along `direction` over a face with `normal`."""

    kind: Literal["line"]
    position_mm: Vector
    direction: Vector
    normal: Vector

    _direction = field_validator("direction", "normal")(checked_direction)


FeatureSection = Annotated[
    PlaneFeature | CylinderFeature | CircleFeature | SphereFeature | LineFeature, Field(discriminator="kind")
]


class ReferencePointSection(Section):
    """A point of a 3-2-1 or RPS alignment: there, along `direction` out of the material, the surface must lie."""

    name: Name
    position_mm: Vector
    direction: Vector

    _direction = field_validator("direction")(checked_direction)


class DatumSection(Section):
    """A datum under a label: a feature's associated element (ISO 5459), or reference points (3-2-1, RPS).

    Attributes:
        label: "A", "B" ...
        feature: whose element it is.
        criterion: "tangent" lets a plane touch from outside, a shaft be circumscribed, a bore inscribed: ISO 5459's
            own, for surfaces whose form is larger than their noise.
        points: in place of a feature; six that hold all motions, or more, are met by least squares.
        radius_mm, capture_mm: the surface at a point is the plane through what was measured so near it.
    """

    label: Label
    feature: Name | None = None
    criterion: Literal["least squares", "tangent"] = "least squares"
    points: tuple[ReferencePointSection, ...] = ()
    radius_mm: Positive = 3.0
    capture_mm: Positive = 5.0

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.feature is None) == (not self.points):
            raise ValueError(f"datum '{self.label}': name either a feature or reference points, not both nor neither")
        names = [point.name for point in self.points]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"datum '{self.label}': the point '{name}' stands twice; each needs its own name")
        return self
