"""Ideal scans by the staged plate's cell, and gauges named as a recipe does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from stagedpart import plate_cell

from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan
from depthcell.inspect.featuresections import DatumSection, FeatureSection
from depthcell.inspect.gauges.extraction import Features
from depthcell.inspect.gauges.gauging import measure_gauge
from depthcell.inspect.gauges.reading import Reading
from depthcell.inspect.gaugesections import GaugeSection
from depthcell.inspect.ideal_scan import Measured, Patch, ball, face, ideal_scan, tube

__all__ = [
    "Measured",
    "Patch",
    "ball",
    "face",
    "features_of",
    "lifted",
    "measured",
    "plane_feature",
    "round_feature",
    "scan_of",
    "tube",
    "twisted",
]

_FEATURE: TypeAdapter[FeatureSection] = TypeAdapter(FeatureSection)
_GAUGE: TypeAdapter[GaugeSection] = TypeAdapter(GaugeSection)


def scan_of(patches: Sequence[Patch], how: Measured | None = None, reference: Reference | None = None) -> Scan:
    """A scan of these surfaces, by a cell of three cameras."""
    return ideal_scan(patches, plate_cell(), how, reference)


def lifted(scan: Scan, along_m: NDArray[np.float64]) -> Scan:
    """The scan with each point moved along its own measured normal."""
    normals = scan.cloud.normals_cell.astype(np.float64)
    cloud = replace(scan.cloud, points_cell=scan.cloud.points_cell + along_m[:, None] * normals)
    return Scan.of(cloud, scan.alignment, scan.cell, scan.reference)


def twisted(scan: Scan, twist: NDArray[np.float64]) -> Scan:
    """The scan with another pose of the part, the points staying in the cell."""
    alignment = replace(scan.alignment, T_cell_part=scan.T_cell_part.perturbed(twist))
    return Scan.of(scan.cloud, alignment, scan.cell, scan.reference)


def features_of(scan: Scan, features: Sequence[Mapping[str, object]], **datums: str | Mapping[str, object]) -> Features:
    """Features of a scan as a recipe has them; datums as `A="name of the feature"`, or with all their fields."""
    sections = [_FEATURE.validate_python(feature) for feature in features]
    written = [{"feature": said} if isinstance(said, str) else said for said in datums.values()]
    labelled = zip(datums, written, strict=True)
    return Features(scan, sections, [DatumSection.model_validate({"label": label, **said}) for label, said in labelled])


def measured(scan: Scan, features: Features, **gauge: object) -> Reading:
    """One gauge of that scan."""
    return measure_gauge(_GAUGE.validate_python({"name": "gauge", **gauge}), scan, features)


def plane_feature(name: str, normal: Sequence[float], low: Sequence[float], high: Sequence[float]) -> dict[str, object]:
    """A face, in the middle of its box."""
    return {"name": name, "kind": "plane", "normal": list(normal), "min_mm": list(low), "max_mm": list(high)}


def round_feature(
    name: str, kind: str, at_mm: Sequence[float], diameter_mm: float, half_mm: float, **more: object
) -> dict[str, object]:
    """A cylinder, circle or sphere, outside unless said; its box reaches 3 mm past the wall and `half_mm` along z."""
    reach = diameter_mm / 2 + 3.0
    x, y, z = at_mm
    box = {"min_mm": [x - reach, y - reach, z - half_mm], "max_mm": [x + reach, y + reach, z + half_mm]}
    axis = {} if kind == "sphere" else {"axis": [0, 0, 1]}
    own = {"name": name, "kind": kind, "position_mm": list(at_mm), "diameter_mm": diameter_mm, "side": "outside"}
    return {**own, **axis, **box, **more}
