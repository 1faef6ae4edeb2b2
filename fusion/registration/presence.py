"""What lies in the fixture when the part does not lie where it should: nothing, two parts, another, or this one astray.

Called when `align` failed or left much of the cloud unexplained. It takes a second; an alignment takes milliseconds.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.align import Alignment, AlignmentSettings
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.posefit import TUKEY
from depthcell.fusion.region import Region
from depthcell.fusion.registration.evidence import CELL_M, Evidence, Scene
from depthcell.fusion.registration.globalstart import PoseSearch

UNEXPLAINED = 0.1
"""Share of a cloud off the reference from which on an alignment is looked at twice."""
FOOT_M = 2.5e-3
"""What faces up less than this above the lowest point of the part, or below it, is what the part stands on."""
UPWARDS = 0.9
MISSING = 0.2
"""Share of the surface due to be seen, below which what was measured is not a part."""
SIZEABLE = 0.2
"""The same, from which on a cluster is one of several parts."""
JOINED = 3.0
"""Averaged points within so many cubes of each other belong together."""
FLIPPED = -0.7
"""Cosine between the side of the part that should face up and up, below which it lies upside down."""


class Finding(StrEnum):
    """What was found in the place of a part."""

    AS_EXPECTED = "as expected"
    ASTRAY = "astray"
    UPSIDE_DOWN = "upside down"
    MISSING = "missing"
    SEVERAL = "several"
    ANOTHER = "another"


REASONS = {
    Finding.ASTRAY: Reason.WRONG_POSE,
    Finding.UPSIDE_DOWN: Reason.WRONG_POSE,
    Finding.MISSING: Reason.PART_MISSING,
    Finding.SEVERAL: Reason.SEVERAL_PARTS,
    Finding.ANOTHER: Reason.WRONG_PART,
}


@dataclass(frozen=True, slots=True, eq=False)
class Presence:
    """What lies there.

    Attributes:
        finding: in a word.
        text: for a person, one line.
        T_cell_part: where the part was found; None if it was not, or if there are several.
    """

    finding: Finding
    text: str
    T_cell_part: RigidTransform | None = None

    def refuse(self) -> None:
        """Raise what was found, unless the part lies as expected.

        Raises:
            DepthcellError: (`PART_MISSING`, `WRONG_POSE`, `SEVERAL_PARTS`, `WRONG_PART`).
        """
        if self.finding is not Finding.AS_EXPECTED:
            raise DepthcellError(f"part: {self.text}", REASONS[self.finding])


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """Where the recipe has the part.

    Attributes:
        T_cell_part: nominal pose.
        capture: how far from there it may lie.
        region: box that the cloud was cut to; None for all that was measured.
    """

    T_cell_part: RigidTransform
    capture: AlignmentSettings
    region: Region | None = None


def is_doubtful(alignment: Alignment) -> bool:
    """Whether an alignment leaves so much unexplained that `look` should have its say."""
    return alignment.inlier_fraction < 1 - UNEXPLAINED


def look(cloud: PartCloud, cell: Cell, search: PoseSearch, expected: Expectation) -> Presence:
    """Say what lies in the fixture.

    1. What faces up at the height of the part's foot or below is left out: the plate it stands on.
    2. Too little is left: no part.
    3. One pose explains nearly all of it: the part, where it should lie or astray.
    4. Two clusters are left, or what the best pose leaves unexplained is a part again: several parts.
    5. Nothing explains it: another part.

    A second part is seen only within the region that the cloud was cut to.

    Args:
        cloud: all that was measured of it.
        cell: of its cameras.
        search: for the part.
        expected: where it should lie.
    """
    nominal = expected.T_cell_part
    count, due, scene = 0, 1, None
    if len(cloud):
        whole = Scene.of(cloud, cell, search.settings.form_m, expected.region)
        above = ~_is_support(whole, search, nominal)
        count, scene = int(above.sum()), whole.part(above) if above.any() else None
        due = len(whole.due(nominal, search.reference, search.samples))
    if scene is None or count < MISSING * due:
        return Presence(Finding.MISSING, "no part: what the cameras see is the fixture or the ground alone")
    ranked = search.ranked(scene)
    pose, best = ranked[0]
    if best.explained >= search.settings.min_explained and best.covered >= search.settings.min_covered:
        return _placed(ranked, scene, search, expected)
    clusters = _clusters(scene, SIZEABLE * due)
    if len(clusters) < 2:
        clusters = _touching(scene, pose, search, SIZEABLE * due)
    if len(clusters) > 1:
        return _several(cloud, clusters)
    return Presence(
        Finding.ANOTHER,
        f"another part: the best of all poses explains {best.explained:.0%} of the points, and of the surface that "
        f"should be seen in it {best.covered:.0%} was measured",
    )


def explained(
    failure: DepthcellError, cloud: PartCloud, cell: Cell, search: PoseSearch, expected: Expectation
) -> DepthcellError:
    """A failed alignment's error with what lies there added, or the error itself where the part lies as expected."""
    found = look(cloud, cell, search, expected)
    if found.finding is Finding.AS_EXPECTED:
        return failure
    return DepthcellError(f"{failure}; {found.text}", REASONS[found.finding])


def _is_support(scene: Scene, search: PoseSearch, nominal: RigidTransform) -> NDArray[np.bool_]:
    lowest_m = float((nominal @ search.reference.vertices_part)[:, 2].min())
    return (scene.data.normals[:, 2] > UPWARDS) & (scene.data.points[:, 2] < lowest_m + FOOT_M)


def _placed(
    ranked: list[tuple[RigidTransform, Evidence]], scene: Scene, search: PoseSearch, expected: Expectation
) -> Presence:
    """One part, against where it should lie; of poses about equally likely the nearest to nominal counts."""
    nominal, middle = expected.T_cell_part, search.symmetry.centre_part
    limit = ranked[0][1].cost + search.settings.min_margin * scene.worst_cost
    alike = [search.symmetry.alike(pose, nominal) for pose, evidence in ranked if evidence.cost <= limit]
    pose = max(alike, key=lambda one: float(np.trace(nominal.rotation.T @ one.rotation)))
    turn_rad = (pose @ nominal.inverse()).rotation_vector_rad
    angle_rad, shift_m = float(np.linalg.norm(turn_rad)), float(np.linalg.norm(pose @ middle - nominal @ middle))
    if angle_rad <= expected.capture.capture_rad and shift_m <= expected.capture.capture_m:
        return Presence(Finding.AS_EXPECTED, "the part lies where it should", pose)
    up_part = nominal.rotation.T @ np.array([0.0, 0.0, 1.0])
    turned = f"turned by {math.degrees(angle_rad):.0f} degrees about {_direction(turn_rad)}"
    if float(pose.rotate(up_part)[2]) < FLIPPED:
        return Presence(Finding.UPSIDE_DOWN, f"upside down ({turned}); turn it over", pose)
    moved = f"{turned} and {shift_m * 1e3:.0f} mm from its place"
    limits = f"{math.degrees(expected.capture.capture_rad):.0f} degrees and {expected.capture.capture_m * 1e3:.0f} mm"
    return Presence(Finding.ASTRAY, f"astray ({moved}, allowed are {limits}); put it right", pose)


def _clusters(scene: Scene, smallest: float) -> list[NDArray[np.float64]]:
    """Averaged points (N, 3) of each cluster of at least `smallest` of them, the largest first."""
    points = scene.data.points
    pairs = KDTree(points).query_pairs(JOINED * CELL_M, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(points), len(points)))
    number = connected_components(links, directed=False)[1]
    sizes = np.bincount(number)
    order = np.argsort(-sizes)
    return [points[number == one] for one in order if sizes[one] >= smallest]


def _touching(scene: Scene, pose: RigidTransform, search: PoseSearch, smallest: float) -> list[NDArray[np.float64]]:
    """Points of two parts that touch: what the best pose explains, and a part in what it leaves."""
    on_it = scene.scaled(pose, search.reference) < 2 * TUKEY
    if min(on_it.sum(), (~on_it).sum()) < smallest:
        return []
    rest = scene.part(~on_it)
    explained = search.ranked(rest)[0][1].explained
    return [scene.data.points[on_it], rest.data.points] if explained >= search.settings.min_explained else []


def _several(cloud: PartCloud, clusters: list[NDArray[np.float64]]) -> Presence:
    near_m = np.stack([KDTree(one).query(cloud.points_cell, distance_upper_bound=CELL_M)[0] for one in clusters])
    owner = np.where(np.isfinite(near_m).any(axis=0), near_m.argmin(axis=0), -1)
    counts = " and ".join(str(int((owner == number).sum())) for number in range(len(clusters)))
    places = " and ".join(_place(one.mean(axis=0)) for one in clusters)
    many = {2: "two", 3: "three"}.get(len(clusters), str(len(clusters)))
    return Presence(Finding.SEVERAL, f"{many} parts in view: clusters of {counts} points at {places} mm")


def _place(point_m: FloatArray) -> str:
    return "(" + ", ".join(f"{value * 1e3:.0f}" for value in point_m) + ")"


def _direction(vector: FloatArray) -> str:
    unit = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return "(" + ", ".join(f"{value + 0.0:.2f}" for value in unit.round(2)) + ")"
