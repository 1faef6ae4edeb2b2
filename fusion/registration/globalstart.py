"""Where a part lies when nobody knows: poses from all over the rotations, fitted at once, told apart by likelihood.

A pose is given only if it explains the cloud and no other does; else it is refused, and the refusal says why.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.region import Region
from depthcell.fusion.registration.evidence import CELL_M, Evidence, Scene
from depthcell.fusion.registration.posebatch import (
    OrientedPoints,
    PoseBatch,
    fitted,
    residuals,
    rotations_evenly,
)
from depthcell.fusion.registration.symmetry import Symmetry

ROUGH_SCALES = (0.12, 0.12, 0.09, 0.06, 0.045)
FINE_SCALES = (0.03, 0.02, 0.015, 0.01, 0.01, 0.008)
LAST_SCALES_M = (2e-3, 1e-3, 6e-4, 5e-4, 5e-4)
"""Of Geman and McClure's weight, step by step; the first two rows are shares of the part's diameter."""
POINTS = (100, 250, 800)
"""Averaged points that each of the three rows works on."""
KEPT = (400, 40)
"""Poses that go on after the first row and after the second."""
DISTINCT_M = 2.5e-3
"""Poses that move the surface apart by less on average are one."""
BARELY_SEEN = 0.25
"""Cosine of incidence below which a surface is taken for unseen when the middle of what is seen is guessed."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How far to look, and what to refuse.

    Attributes:
        rotations: starts, spread evenly over all.
        form_m: how far good parts may differ in form.
        min_explained: share of the cloud that must lie on the part.
        min_covered: share of the surface due to be seen that must have been measured.
        min_margin: by how much the logarithm of the likelihood must exceed that of every other pose, as a share of the
            cost of a cloud of which nothing is explained.
    """

    rotations: int = 3000
    form_m: float = 5e-4
    min_explained: float = 0.8
    min_covered: float = 0.7
    min_margin: float = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class FoundPose:
    """A pose, and what speaks for it.

    Attributes:
        T_cell_part: good to about a millimetre; `align` takes it from here.
        evidence: of it.
        margin: by which its log-likelihood exceeds that of the next pose that is not the same by symmetry, as a share
            of what a wholly unexplained cloud costs.
        equivalent: motions that carry the part onto itself, in words; empty for most parts. Poses that differ by one
            explain the cloud equally well.
        symmetry: the same as transforms.
    """

    T_cell_part: RigidTransform
    evidence: Evidence
    margin: float
    equivalent: tuple[str, ...]
    symmetry: Symmetry


class PoseSearch:
    """Looks for one part; what does not depend on the cloud is prepared once.

    Attributes:
        reference: the part.
        symmetry: what carries it onto itself.
    """

    def __init__(self, reference: Reference, settings: SearchSettings | None = None) -> None:
        self.reference, self.symmetry = reference, Symmetry.of(reference)
        self._settings = settings or SearchSettings()
        samples = reference.surface_samples(CELL_M)
        self._samples = OrientedPoints(samples.points_part, samples.normals_part.astype(np.float64))
        lower, upper = reference.bounds_part
        self._size_m = float(np.linalg.norm(upper - lower))
        self._rough = reference.field.thinned(4)

    @property
    def samples(self) -> OrientedPoints:
        """The part's surface, a point for each `CELL_M²`, frame "part"."""
        return self._samples

    @property
    def settings(self) -> SearchSettings:
        """How far to look, and what to refuse."""
        return self._settings

    def find(self, cloud: PartCloud, cell: Cell, region: Region | None = None) -> FoundPose:
        """The pose of the part in a cloud that shows it, and little else.

        Args:
            cloud: of the part.
            cell: of its cameras.
            region: box that the cloud was cut to.

        Raises:
            DepthcellError: (`ALIGNMENT_FAILED`) nothing explains the cloud, or several poses do that are not the same
                by the part's own symmetry.
        """
        settings, scene = self._settings, Scene.of(cloud, cell, self._settings.form_m, region)
        ranked = self.ranked(scene)
        pose, best = ranked[0]
        if best.explained < settings.min_explained or best.covered < settings.min_covered:
            raise _refused(
                f"the best pose explains {best.explained:.0%} of the points ({settings.min_explained:.0%} are needed) "
                f"and of the surface due to be seen {best.covered:.0%} was measured ({settings.min_covered:.0%} needed)"
            )
        whole = scene.worst_cost
        margin = (ranked[1][1].cost - best.cost) / whole if len(ranked) > 1 else 1.0
        if margin < settings.min_margin:
            raise _refused(
                f"two poses {self.symmetry.apart_m(pose, ranked[1][0], self._samples.points) * 1e3:.0f} mm apart "
                f"explain the cloud about equally ({self._between(pose, ranked[1][0])}); show more of the part"
            )
        return FoundPose(pose, best, margin, self.symmetry.in_words, self.symmetry)

    def ranked(self, scene: Scene) -> list[tuple[RigidTransform, Evidence]]:
        """Poses that are not the same, the most likely first."""
        data, size_m = scene.data, self._size_m
        batch = self._starts(scene)
        batch = fitted(batch, data.some(POINTS[0]), self._rough, tuple(share * size_m for share in ROUGH_SCALES))
        batch = self._best(batch, data.some(POINTS[0]), ROUGH_SCALES[-1] * size_m / 2, KEPT[0])
        batch = fitted(batch, data.some(POINTS[1]), self._rough, tuple(share * size_m for share in FINE_SCALES))
        batch = self._distinct(batch, data.some(POINTS[1]), FINE_SCALES[-1] * size_m, KEPT[1])
        batch = fitted(batch, data.some(POINTS[2]), self.reference.field, LAST_SCALES_M)
        poses = [batch.transform(number) for number in range(len(batch))]
        judged = [(pose, scene.evidence(pose, self.reference, self._samples)) for pose in poses]
        ranked: list[tuple[RigidTransform, Evidence]] = []
        for pose, evidence in sorted(judged, key=lambda one: one[1].cost):
            if all(self._apart_m(pose, other) > DISTINCT_M for other, _ in ranked):
                ranked.append((pose, evidence))
        return ranked

    def _starts(self, scene: Scene) -> PoseBatch:
        """One pose per rotation: the middle of the surface that would be seen lies on the middle of the cloud."""
        rotations = rotations_evenly(self._settings.rotations)  # R_part_cell
        middle_cell = scene.data.points.mean(axis=0)
        samples = self._samples.some(400)
        views = scene.eyes_cell - middle_cell
        views /= np.linalg.norm(views, axis=1, keepdims=True)
        cosine = np.einsum("nj,kij,ci->knc", samples.normals, rotations.transpose(0, 2, 1), views, optimize=True)
        weight = (cosine > BARELY_SEEN).any(axis=2).astype(np.float64) + 1e-9
        middles_part = weight @ samples.points / weight.sum(axis=1, keepdims=True)
        return PoseBatch(rotations, middles_part - rotations @ middle_cell)

    def _best(self, batch: PoseBatch, data: OrientedPoints, scale_m: float, count: int) -> PoseBatch:
        return batch[np.argsort(-residuals(batch, data, self._rough).agreement(scale_m))[:count]]

    def _distinct(self, batch: PoseBatch, data: OrientedPoints, scale_m: float, count: int) -> PoseBatch:
        """The best of those that are not the same, up to `count`."""
        order = np.argsort(-residuals(batch, data, self._rough).agreement(scale_m))
        spread = self._samples.some(12).points
        placed = np.einsum("kji,knj->kni", batch.rotations, spread - batch.shifts_m[:, None])
        kept: list[int] = []
        for number in order:
            away_m = np.linalg.norm(placed[kept] - placed[number], axis=2).mean(axis=1) if kept else np.array([np.inf])
            if away_m.min() > DISTINCT_M:
                kept.append(int(number))
            if len(kept) == count:
                break
        return batch[np.array(kept)]

    def _apart_m(self, pose: RigidTransform, other: RigidTransform) -> float:
        return self.symmetry.apart_m(pose, other, self._samples.some(60).points)

    def _between(self, pose: RigidTransform, other: RigidTransform) -> str:
        """What leads from one pose to the other, in words."""
        nearest = self.symmetry.alike(other, pose)
        turn_rad = (nearest @ pose.inverse()).rotation_vector_rad
        middle = self.symmetry.centre_part
        shift_mm = float(np.linalg.norm(nearest @ middle - pose @ middle)) * 1e3
        angle_deg = math.degrees(float(np.linalg.norm(turn_rad)))
        return f"turned by {angle_deg:.0f} degrees about {_axis(turn_rad)} and shifted by {shift_mm:.0f} mm"


def _axis(vector: NDArray[np.float64]) -> str:
    size = float(np.linalg.norm(vector))
    unit = vector / size if size else vector
    return "(" + ", ".join(f"{value + 0.0:.2f}" for value in unit.round(2)) + ")"


def _refused(why: str) -> DepthcellError:
    return DepthcellError(f"pose search: {why}", Reason.ALIGNMENT_FAILED)
