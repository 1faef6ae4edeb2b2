"""Which QIF characteristic says what a gauge measures, and how its definition and nominal are written.

Names of types and the order of elements are those of the schema file Characteristics.xsd of QIF 3.0.0 (ISO 23952).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.association.elements import Circle, Cylinder, Line, Sphere
from depthcell.inspect.gauges.gauged import GaugeResult

SIZES = {
    "distance": "DistanceBetween",
    "step_height": "Height",
    "angle": "AngleBetween",
    "diameter": "Diameter",
    "coordinate": "DistanceFrom",
    "thickness": "Thickness",
    "gap": "Width",
    "flush": "Height",
}
"""Gauges whose QIF type takes limits on both sides, or none at all."""
ZONES = {
    "flatness": "Flatness",
    "straightness": "Straightness",
    "roundness": "Circularity",
    "cylindricity": "Cylindricity",
    "parallelism": "Parallelism",
    "perpendicularity": "Perpendicularity",
    "angularity": "Angularity",
    "position": "Position",
    "profile_surface": "SurfaceProfile",
    "profile_line": "LineProfile",
    "runout": "CircularRunout",
}
"""Gauges whose QIF type needs the width of a zone; without one they are told as lengths that the user defines."""
VOLUME_UNIT = "mm3"
_ILLEGAL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Characteristic:
    """How a gauge is told in QIF.

    Attributes:
        name: of the gauge.
        kind: QIF's: "Diameter", "Flatness" ...
        what: what is measured, where QIF leaves that to words.
        nominal, lower, upper: in the gauge's unit; None where there is none.
        zone: element that says the shape of the tolerance zone; "" where QIF asks for none.
        vector: (x, y, z) normal of the section of a line's profile, or None.
    """

    name: str
    kind: str
    what: str
    nominal: float | None
    lower: float | None
    upper: float | None
    zone: str = ""
    vector: tuple[float, float, float] | None = None


def characteristic_of(results: Sequence[GaugeResult]) -> Characteristic | None:
    """How one gauge, measured on some parts, is told; None for what QIF cannot say: a volume without a limit."""
    first = results[0]
    kind = SIZES.get(first.kind) or ZONES.get(first.kind, "UserDefinedLinear")
    vector = _section_normal(results) if kind == "LineProfile" else None
    if first.kind in ZONES and (first.upper is None or (kind == "LineProfile" and vector is None)):
        kind = "UserDefinedLinear"
    if kind == "CircularRunout" and any("total" in result.note for result in results):
        kind = "TotalRunout"
    if first.unit == VOLUME_UNIT:
        kind = "UserDefinedUnit"
        if first.upper is None and first.lower is None:
            return None
    what = first.kind.replace("_", " ")
    zone = _zone(kind, results)
    return Characteristic(first.name, kind, what, first.nominal, first.lower, first.upper, zone, vector)


def write_definition(into: ET.Element, told: Characteristic, number: int) -> None:
    """Add the characteristic's definition under the QIF id `number`."""
    definition = ET.SubElement(into, f"{told.kind}CharacteristicDefinition", id=str(number))
    _text(definition, "Description", told.what)
    _text(definition, "Name", legal(told.name))
    if told.kind == "UserDefinedUnit":
        return
    if told.kind in ZONES.values() or told.kind == "TotalRunout":
        _text(definition, "ToleranceValue", decimal(told.upper or 0.0))
        if told.kind in {"Parallelism", "Perpendicularity", "Angularity", "Position"}:
            _text(definition, "MaterialCondition", "NONE")
        if told.zone:
            ET.SubElement(ET.SubElement(definition, "ZoneShape"), told.zone)
        return
    if told.lower is None and told.upper is None:
        _text(definition, "NonTolerance", "MEASURED")
    else:
        _write_limits(ET.SubElement(definition, "Tolerance"), told)
    if told.kind == "UserDefinedLinear":
        _text(definition, "WhatToMeasure", told.what)


def write_nominal(into: ET.Element, told: Characteristic, number: int, definition: int) -> None:
    """Add the characteristic's nominal under the QIF id `number`."""
    nominal = ET.SubElement(into, f"{told.kind}CharacteristicNominal", id=str(number))
    _text(nominal, "CharacteristicDefinitionId", str(definition))
    _text(nominal, "Name", legal(told.name))
    if told.kind == "UserDefinedUnit":
        _text(nominal, "TargetValue", decimal(told.nominal or 0.0), unitName=VOLUME_UNIT)
        _write_limits(nominal, told, unitName=VOLUME_UNIT)
        return
    if told.nominal is not None and told.kind not in ZONES.values():
        _text(nominal, "TargetValue", decimal(told.nominal))
    if told.kind == "DistanceFrom":
        _text(nominal, "AnalysisMode", "ONEDIMENSIONAL")
    if told.kind in {"DistanceBetween", "AngleBetween"}:
        _text(nominal, "AnalysisMode", "THREEDIMENSIONAL")
    if told.vector is not None:
        _text(nominal, "Vector", " ".join(decimal(round(component, 12)) for component in told.vector))


def decimal(value: float) -> str:
    """A number as xs:decimal: the shortest digits that read back as the same number, never an exponent."""
    text = format(Decimal(repr(float(value))), "f")
    return "0" if text in {"-0.0", "-0"} else text


def legal(text: str) -> str:
    """Text whose every character XML 1.0 allows; others become U+FFFD."""
    return _ILLEGAL.sub("\ufffd", text)


def _text(into: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(into, name, attributes).text = text


def _write_limits(into: ET.Element, told: Characteristic, **attributes: str) -> None:
    for name, limit in (("MaxValue", told.upper), ("MinValue", told.lower)):
        if limit is not None:
            _text(into, name, decimal(limit), **attributes)
    _text(into, "DefinedAsLimit", "true")


def _zone(kind: str, results: Sequence[GaugeResult]) -> str:
    """The shape of the zone, by the first feature drawn: round about an axis or a ring, flat about a face."""
    if kind not in {"Straightness", "Parallelism", "Perpendicularity", "Angularity", "Position"}:
        return ""
    elements = [drawn.element for result in results for drawn in result.drawn if drawn.element is not None]
    if kind == "Position" and elements and isinstance(elements[0], Sphere):
        return "SphericalZone"
    axes = (Cylinder, Circle) if kind == "Straightness" else (Cylinder, Circle, Line)
    if elements and isinstance(elements[0], axes):
        return "DiametricalZone"
    return "PlanarZone" if kind in {"Parallelism", "Perpendicularity", "Angularity"} else "NonDiametricalZone"


def _section_normal(results: Sequence[GaugeResult]) -> tuple[float, float, float] | None:
    """Normal of the plane that the drawn profile lies in: the direction in which its points spread least."""
    for result in results:
        for drawn in result.drawn:
            if drawn.curve_part is not None and len(drawn.curve_part) > 1:
                points: NDArray[np.float64] = drawn.curve_part.reshape(-1, 3)
                x, y, z = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][-1]
                return float(x), float(y), float(z)
    return None
