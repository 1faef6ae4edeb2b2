"""A classical baseline without any trained network: a part is compared with the good parts that look most alike.

It finds the part above its back plane, lays the most alike good parts over it, and asks of each place how far its
patch is from the nearest patch that a good part shows there, in edges (colour image) and in surface normals (depth).
What good parts themselves differ by at a place, each judged by the others, is divided out. The two branches are fused
as a root of the mean square, each in units of what a whole good part usually scores. models/README.md has the figures,
and what else was tried.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.models.anomaly import AnomalyMap
from depthcell.models.baseline_align import Overlay, ReferenceBank
from depthcell.models.baseline_features import CELL_PX, edge_features, least_distance, normal_features
from depthcell.models.baseline_view import PartView, Scale, common_scale, view_part
from depthcell.models.mvtec3d import Scan

WORST_PIXELS = 20


class Method(StrEnum):
    """What the baseline looks at."""

    RGB = "rgb"
    DEPTH = "depth"
    FUSED = "fused"


@dataclass(frozen=True, slots=True)
class BaselineSettings:
    """How the baseline compares; chosen on good parts with painted defects, never on test labels.

    Attributes:
        method: the branches used.
        neighbours: good parts laid over each judged part.
        edge_reach, normal_reach: largest shift of a patch, in cells of two pixels.
        smoothing_px: standard deviation of the final smoothing of the map.
        floor: share of the mean distance added to the usual distance before dividing by it.
    """

    method: Method = Method.FUSED
    neighbours: int = 12
    edge_reach: int = 3
    normal_reach: int = 2
    smoothing_px: float = 3.0
    floor: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    """One modality: its features, and how far good parts are from each other in them.

    Attributes:
        features: of a view, (C, S / 2, S / 2).
        reach: largest shift of a patch, in cells.
        usual: for each good part, (S, S) float32, its distance from the other good parts, spread to its neighbourhood.
        floor: added to the usual distance before dividing by it.
        scale: median score of a whole good part.
    """

    features: Callable[[PartView], NDArray[np.float32]]
    reach: int
    usual: tuple[NDArray[np.float32], ...] = ()
    floor: float = 1.0
    scale: float = 1.0

    def distance(self, judged: PartView, laid: Sequence[PartView]) -> NDArray[np.float32]:
        """(S, S) how far each place of a part is from what good parts laid over it show there; 0 off the part."""
        cells = least_distance(self.features(judged), [self.features(view) for view in laid], self.reach)
        full = cv2.warpAffine(
            cells,
            np.diag((float(CELL_PX), float(CELL_PX), 1.0))[:2],
            judged.part.shape[::-1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        expected = np.any([judged.part, *(view.part for view in laid[:2])], axis=0)
        region = cv2.dilate(expected.astype(np.uint8), np.ones((5, 5), np.uint8))
        return (full * region).astype(np.float32, copy=False)

    def score(self, distance: NDArray[np.float32], overlays: Sequence[Overlay], blur_px: float) -> NDArray[np.float32]:
        """(S, S) the distance over what is usual at each place, in units of what a whole good part scores."""
        usual = np.mean([overlay.carry(self.usual[overlay.reference]) for overlay in overlays], axis=0)
        smooth = cv2.GaussianBlur(distance / (usual + self.floor), (0, 0), blur_px)
        return np.asarray(smooth / self.scale, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """A good part compared with the others: how far it is from them in each branch, and how they were laid over it."""

    distances: tuple[NDArray[np.float16], ...]
    overlays: tuple[Overlay, ...]


class Baseline:
    """Good parts, ready to judge others by. Built by `Baseline.fit`.

    Attributes:
        settings: how it compares.
        good_scores: part score of each good part, judged by the others.
    """

    def __init__(
        self, settings: BaselineSettings, scale: Scale, bank: ReferenceBank, branches: Sequence[_Branch]
    ) -> None:
        self.settings = settings
        self.good_scores: tuple[float, ...] = ()
        self._scale = scale
        self._bank = bank
        self._branches = tuple(branches)

    @classmethod
    def fit(cls, scans: Sequence[Scan], settings: BaselineSettings, advance: Callable[[], None]) -> "Baseline":
        """Learn from good parts.

        Args:
            scans: at least three good parts; each is asked for twice, so they may be read on demand.
            settings: how to compare.
            advance: called `fit_steps(len(scans))` times.

        Raises:
            DepthcellError: fewer than three parts, two of them are copies, or one does not stand out from its back
                plane.
        """
        if len(scans) < 3:
            raise DepthcellError(f"baseline: {len(scans)} good parts to learn from; at least 3 are needed")
        scale = common_scale(scans)
        bank = ReferenceBank([view_part(scan, scale) for scan in scans])
        baseline = cls(settings, scale, bank, _blank_branches(settings, scale))
        compared = []
        for index in range(len(scans)):
            compared.append(baseline._compared(index))
            advance()
        baseline._learn_usual(compared)
        baseline._learn_scale(compared)
        return baseline

    def judge(self, scan: Scan) -> AnomalyMap:
        """How unlike a good part each pixel of a part looks.

        Raises:
            DepthcellError: no part stands out from its back plane.
        """
        view = view_part(scan, self._scale)
        scored = self._fused(self._scores(view, self._bank.overlays(view, self.settings.neighbours)))
        return AnomalyMap(view.to_image(scored, self._scale.factor), worst(scored), f"baseline-{self.settings.method}")

    def _compared(self, index: int) -> _Compared:
        view = self._bank.views[index]
        overlays = self._bank.overlays(view, self.settings.neighbours, leave_out=index)
        distances = tuple(distance.astype(np.float16) for distance in self._distances(view, overlays))
        if not all(distance.any() for distance in distances):
            which = f"good part {index + 1} of {len(self._bank.views)}"
            raise DepthcellError(f"baseline: {which} shows exactly what another one shows; leave copies out")
        return _Compared(distances, tuple(overlay.thinned() for overlay in overlays))

    def _learn_usual(self, compared: Sequence[_Compared]) -> None:
        """What good parts differ by, and where."""
        learned = []
        for number, branch in enumerate(self._branches):
            distances = [part.distances[number].astype(np.float32) for part in compared]
            spread = [cv2.GaussianBlur(cv2.dilate(one, np.ones((9, 9), np.uint8)), (0, 0), 2.0) for one in distances]
            floor = self.settings.floor * float(np.mean([one[one > 0].mean() for one in distances]))
            usual = tuple(one.astype(np.float32, copy=False) for one in spread)
            learned.append(replace(branch, usual=usual, floor=floor))
        self._branches = tuple(learned)

    def _learn_scale(self, compared: Sequence[_Compared]) -> None:
        """What a whole good part scores, over what is usual: in each branch, then fused."""
        blur_px = self.settings.smoothing_px
        scored = []
        for part in compared:
            overlays = [overlay.whole() for overlay in part.overlays]
            maps = zip(self._branches, part.distances, strict=True)
            scored.append([b.score(d.astype(np.float32), overlays, blur_px).astype(np.float16) for b, d in maps])
        medians = np.median([[worst(one) for one in maps] for maps in scored], axis=0)
        scales = [max(float(median), 1e-9) for median in medians]
        self._branches = tuple(replace(b, scale=scale) for b, scale in zip(self._branches, scales, strict=True))
        self.good_scores = tuple(
            worst(self._fused([one / np.float32(scale) for one, scale in zip(maps, scales, strict=True)]))
            for maps in scored
        )

    def _distances(self, view: PartView, overlays: Sequence[Overlay]) -> list[NDArray[np.float32]]:
        laid = [overlay.carry_view(self._bank.views[overlay.reference]) for overlay in overlays]
        return [branch.distance(view, laid) for branch in self._branches]

    def _scores(self, view: PartView, overlays: Sequence[Overlay]) -> list[NDArray[np.float32]]:
        distances = self._distances(view, overlays)
        return [
            branch.score(distance, overlays, self.settings.smoothing_px)
            for branch, distance in zip(self._branches, distances, strict=True)
        ]

    @staticmethod
    def _fused(scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        squared = np.mean([score**2 for score in scores], axis=0)
        return np.asarray(np.sqrt(squared), dtype=np.float32)


def fit_steps(parts: int) -> int:
    """How many steps `Baseline.fit` reports for so many good parts."""
    return parts


def worst(scored: NDArray[np.floating[Any]]) -> float:
    """A part's score: the mean of the highest `WORST_PIXELS` pixels of its map."""
    highest = np.partition(scored, -WORST_PIXELS, axis=None)[-WORST_PIXELS:]
    return float(highest.astype(np.float32, copy=False).mean())


def _blank_branches(settings: BaselineSettings, scale: Scale) -> list[_Branch]:
    branches = []
    if settings.method is not Method.DEPTH:
        branches.append(_Branch(lambda view: edge_features(view.lightness), settings.edge_reach))
    if settings.method is not Method.RGB:
        branches.append(_Branch(lambda view: normal_features(view.height_mm, scale.pixel_mm), settings.normal_reach))
    return branches
