"""A place that a learned model doubts, measured: area and position, and depth and volume where its shape deviates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from depthcell.inspect.decision import COVERAGE_FACTOR
from depthcell.inspect.findings import (
    MM,
    Evidence,
    Found,
    cameras_in_depth,
    listed,
    outline_u_m2,
    quantity,
    region_points,
    region_position,
    shape_finding,
)
from depthcell.inspect.judgement import overlap
from depthcell.inspect.naming import region_shape
from depthcell.inspect.patch_regions import PatchRegion
from depthcell.inspect.verdict import Finding

SOURCE_WITH = {"depth": "depth+model", "color": "color+model", "depth+color": "depth+color+model"}
"""Source of a finding that a model confirms."""


@dataclass(frozen=True, slots=True, eq=False)
class DoubtedPlace:
    """A region that a model takes for a defect.

    Attributes:
        region: its patches; its significance is the probability of its likeliest patch.
        kind: what the model calls it.
        cameras: in whose views it stands out.
    """

    region: PatchRegion
    kind: str
    cameras: tuple[str, ...]

    @property
    def probability(self) -> float:
        """Of a defect, at its likeliest patch."""
        return self.region.significance


def model_finding(place: DoubtedPlace, evidence: Evidence, significance: float) -> Found:
    """Measure a place that a model doubts.

    Its depth and volume are stated where the deviation from good parts exceeds `significance` standard uncertainties
    anywhere on it, as for a finding of shape; a stain has none.
    """
    patches = place.region.patches
    sigma = float(np.nan_to_num(np.abs(evidence.shape.significance[:, patches])).max())
    region = PatchRegion(patches, sigma)
    points = region_points(region, evidence.observation)
    cameras = place.cameras or cameras_in_depth(points, evidence.observation)
    measured = shape_finding(region, evidence, in_color=False).finding if sigma >= significance else None
    shape = region_shape(region, evidence.scales.surface, np.ones(len(evidence.scales.surface)))
    outline_m2 = outline_u_m2(shape, evidence.scales.surface.spacing_m)
    area = quantity(shape.area_m2 * MM**2, outline_m2 * MM**2, digits=1) if measured is None else measured.area_mm2
    finding = Finding(
        kind=place.kind,
        depth_mm=None if measured is None else measured.depth_mm,
        area_mm2=area,
        volume_mm3=None if measured is None else measured.volume_mm3,
        position_mm=region_position(region, shape, evidence) if measured is None else measured.position_mm,
        sigma=round(sigma, 1),
        source="model",
        cameras=cameras,
        text="",
    )
    return Found(msgspec.structs.replace(finding, text=_in_words(finding, place.probability)), region, points)


def merged(found: Sequence[Found], rejecting: int, places: Sequence[Found]) -> tuple[Found, ...]:
    """Findings of shape and colour with those of a model; what lies on one place is one finding, measured once.

    Args:
        found: of shape and colour, worst first.
        rejecting: how many of them, from the first, reject the part by themselves.
        places: of the model, most likely first.
    """
    confirmed = [_confirmed(one) if any(overlap(one.region, p.region) for p in places) else one for one in found]
    new = [place for place in places if not any(overlap(place.region, one.region) for one in found)]
    return (*confirmed[:rejecting], *new, *confirmed[rejecting:])


def _confirmed(found: Found) -> Found:
    finding = found.finding
    text = f"{finding.text}; the model sees it too"
    source = SOURCE_WITH.get(finding.source, finding.source)
    return Found(msgspec.structs.replace(finding, source=source, text=text), found.region, found.points)


def _in_words(finding: Finding, probability: float) -> str:
    depth = finding.depth_mm
    size = f"{finding.area_mm2.value:.0f} ± {COVERAGE_FACTOR * finding.area_mm2.u:.0f} mm²"
    if depth is not None and math.isfinite(depth.u):
        word = "deep" if depth.value < 0 else "high"
        size = f"{abs(depth.value):.2f} ± {COVERAGE_FACTOR * depth.u:.2f} mm {word}, {size}"
    x, y, z = finding.position_mm.value
    return (
        f"{finding.kind.replace('_', ' ')} {size} at ({x:.1f}, {y:.1f}, {z:.1f}) mm, seen by the model "
        f"(probability {probability:.2f} at its likeliest place) in {listed(finding.cameras)}"
    )
