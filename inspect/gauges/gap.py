"""Gap and flush between two faces that lie side by side, as of a door in its frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.association.elements import Element, Plane
from depthcell.fusion.association.leastsquares import fit_plane
from depthcell.fusion.influence import Influence, combined
from depthcell.fusion.scan import Scan
from depthcell.inspect.featuresections import PlaneFeature
from depthcell.inspect.gauges.extraction import FEWEST, Found
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading, not_measured
from depthcell.inspect.gauges.response import answered
from depthcell.inspect.gaugesections import FlushGauge, GapGauge
from depthcell.inspect.section import metres, unit_vector

FACING = math.cos(math.radians(40.0))
BESIDE_M = 1e-3
"""Points of a face nearer to the middle of the joint than this may lie on rounded edges and are left out."""
LEVEL = 0.5
"""Points of a face lie within this share of `reach_mm` of the joint's level."""
DEEPEST = 1.0
"""Points of the walls lie at most this share of `reach_mm` below the level."""


@dataclass(frozen=True, slots=True, eq=False)
class _Joint:
    """The points about a joint in its own frame: (K,) indices, place across and over the level in metres."""

    points: NDArray[np.intp]
    across_m: NDArray[np.float64]
    over_m: NDArray[np.float64]
    across: NDArray[np.float64]
    normal: NDArray[np.float64]
    middle: NDArray[np.float64]
    scan: Scan

    @classmethod
    def of(cls, section: GapGauge | FlushGauge, scan: Scan) -> "_Joint":
        """Of a gauge; `across` is made square to `normal`."""
        normal, given = unit_vector(section.normal), unit_vector(section.across)
        across = given - (given @ normal) * normal
        if np.linalg.norm(across) < 0.1:
            raise not_measured(section.name, "across and normal are nearly the same direction; correct one of them")
        across /= np.linalg.norm(across)
        middle, along = metres(section.point_mm), np.cross(normal, across)
        offset = scan.points_part - middle
        reach_m = section.reach_mm / 1e3
        inside = np.abs(offset @ along) <= section.length_mm / 2e3
        inside &= (np.abs(offset @ across) <= reach_m) & (np.abs(offset @ normal) <= reach_m)
        points = np.flatnonzero(inside).astype(np.intp)
        if len(points) == 0:
            raise not_measured(section.name, "no point about point_mm; no camera saw the joint, or it lies elsewhere")
        return cls(points, offset[points] @ across, offset[points] @ normal, across, normal, middle, scan)

    def face(self, gauge: str, side: int, reach_m: float) -> Found:
        """The face before (-1) or beyond (+1) the gap, as a plane."""
        facing = self.scan.normals_part[self.points] @ self.normal
        chosen = (facing > FACING) & (side * self.across_m > BESIDE_M) & (np.abs(self.over_m) < LEVEL * reach_m)
        name = "first face" if side < 0 else "second face"
        return self._plane(gauge, name, self.points[chosen], self.normal)

    def wall(self, gauge: str, side: int, reach_m: float) -> Found:
        """The wall of the gap on the first (-1) or the second (+1) face's side, as a plane; it looks into the gap."""
        facing = -side * (self.scan.normals_part[self.points] @ self.across)
        chosen = (facing > FACING) & (self.over_m < 0) & (self.over_m > -DEEPEST * reach_m)
        chosen &= side * self.across_m > -BESIDE_M
        name = "first wall" if side < 0 else "second wall"
        return self._plane(gauge, name, self.points[chosen], -side * self.across)

    def _plane(self, gauge: str, name: str, points: NDArray[np.intp], normal: FloatArray) -> Found:
        if len(points) < FEWEST:
            why = f"{len(points)} points of the {name}, needs {FEWEST}: no camera saw enough of it within reach_mm"
            raise not_measured(gauge, why)
        at, normals = self.scan.points_part[points], self.scan.normals_part[points]
        sigma_m = self.scan.cloud.random_sigma_m[points]
        low_mm, high_mm = at.min(axis=0) * 1e3 - 1e-3, at.max(axis=0) * 1e3 + 1e-3
        section = PlaneFeature(
            kind="plane",
            name=name,
            normal=(float(normal[0]), float(normal[1]), float(normal[2])),
            min_mm=(float(low_mm[0]), float(low_mm[1]), float(low_mm[2])),
            max_mm=(float(high_mm[0]), float(high_mm[1]), float(high_mm[2])),
        )
        return Found(section, points, fit_plane(at, normals, sigma_m))


def measure_flush(section: FlushGauge, scan: Scan) -> Reading:
    """Height of the second face over the first at the middle of the gap, along the joint's normal.

    Both faces are least-squares planes of their points within reach, carried on to the line through `point_mm`:
    `h = ((p2 - m) . n2) / (n . n2) - ((p1 - m) . n1) / (n . n1)` for the joint's normal n and middle m.

    Raises:
        DepthcellError: (`NOT_MEASURED`) a face was not seen.
    """
    joint = _Joint.of(section, scan)
    reach_m = section.reach_mm / 1e3
    faces = (joint.face(section.name, -1, reach_m), joint.face(section.name, +1, reach_m))

    def height(elements: Sequence[Element]) -> float:
        first, second = (_level(plane, joint.middle, joint.normal) for plane in elements)
        return second - first

    value, influence = answered(height, faces)
    ends = np.stack([joint.middle + _level(face.element, joint.middle, joint.normal) * joint.normal for face in faces])
    shown = Drawn("flush", np.empty(0, np.intp), segment_part=ends)
    note = f"planes of {len(faces[0].used)} and {len(faces[1].used)} points, carried on to the middle of the gap"
    return Reading(value, Quantity.LENGTH, influence, (faces[0].drawn, faces[1].drawn, shown), note)


def measure_gap(section: GapGauge, scan: Scan) -> Reading:
    """Width of the gap across, at the level of the faces: the distance of its walls.

    The walls are least-squares planes of the points that look into the gap, carried up to the level of `point_mm`.
    Edges themselves are not measured: within a matching window of an edge a stereo camera mixes two surfaces, and those
    pixels are left out. So the gap must be so wide, and a camera stand so, that both walls are seen.

    Raises:
        DepthcellError: (`NOT_MEASURED`) a wall was not seen.
    """
    joint = _Joint.of(section, scan)
    reach_m = section.reach_mm / 1e3
    walls = (joint.wall(section.name, -1, reach_m), joint.wall(section.name, +1, reach_m))
    parts = [answered(lambda e: _level(e[0], joint.middle, joint.across), (wall,)) for wall in walls]
    value = parts[1][0] - parts[0][0]
    influence: Influence = combined((parts[1][1], parts[0][1].scaled(-1.0)))
    ends = np.stack([joint.middle + place * joint.across for place, _ in parts])
    shown = Drawn("gap", np.empty(0, np.intp), segment_part=ends)
    note = f"planes of {len(walls[0].used)} and {len(walls[1].used)} points of the walls, at the level of the faces"
    return Reading(value, Quantity.LENGTH, influence, (walls[0].drawn, walls[1].drawn, shown), note)


def _level(plane: Element, middle: FloatArray, direction: FloatArray) -> float:
    """How far from the middle, along a direction, the plane is met."""
    if not isinstance(plane, Plane):
        raise TypeError("faces and walls are planes")
    return float((plane.point - middle) @ plane.normal / (direction @ plane.normal))
