"""A classical baseline without any trained network: a part is compared with the good parts that look most alike.

It finds the part above its back plane, lays the most alike good parts over it, and asks of each place how far its
patch is from the nearest patch that a good part shows there, in edges (colour image) and in surface normals (depth).
What good parts themselves differ by at a place, each judged by the others, is divided out. The two branches are fused
as a root of the mean square, each in units of what a whole good part usually scores. models/README.md has the figures,
and what else was tried.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

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
        scale_parts: good parts, evenly picked, that say what a whole good part scores.
    """

    method: Method = Method.FUSED
    neighbours: int = 12
    edge_reach: int = 3
    normal_reach: int = 2
    smoothing_px: float = 3.0
    floor: float = 1.0
    scale_parts: int = 30


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


class Baseline:
    """Good parts, ready to judge others by. Built by `Baseline.fit`."""

    def __init__(
        self, settings: BaselineSettings, scale: Scale, bank: ReferenceBank, branches: Sequence[_Branch]
    ) -> None:
        self.settings = settings
        self._scale = scale
        self._bank = bank
        self._branches = tuple(branches)

    @classmethod
    def fit(cls, scans: Sequence[Scan], settings: BaselineSettings, advance: Callable[[], None]) -> "Baseline":
        """Learn from good parts.

        Args:
            scans: at least three good parts; each is asked for twice, so they may be read on demand.
            settings: how to compare.
            advance: called `fit_steps(len(scans), settings)` times.

        Raises:
            DepthcellError: fewer than three parts, or one of them does not stand out from its back plane.
        """
        if len(scans) < 3:
            raise DepthcellError(f"baseline: {len(scans)} good parts to learn from; at least 3 are needed")
        scale = common_scale(scans)
        bank = ReferenceBank([view_part(scan, scale) for scan in scans])
        blank = cls(settings, scale, bank, _blank_branches(settings, scale))
        return blank._with_usual(advance)._with_scale(advance)

    def judge(self, scan: Scan) -> AnomalyMap:
        """How unlike a good part each pixel of a part looks.

        Raises:
            DepthcellError: no part stands out from its back plane.
        """
        view = view_part(scan, self._scale)
        scored = self._fused(self._scores(view, self._bank.overlays(view, self.settings.neighbours)))
        return AnomalyMap(view.to_image(scored, self._scale.factor), worst(scored), f"baseline-{self.settings.method}")

    def _with_usual(self, advance: Callable[[], None]) -> "Baseline":
        """Judge each good part by the others: what good parts differ by, and where."""
        usual: list[list[NDArray[np.float32]]] = [[] for _ in self._branches]
        means: list[list[float]] = [[] for _ in self._branches]
        for index, view in enumerate(self._bank.views):
            overlays = self._bank.overlays(view, self.settings.neighbours, leave_out=index)
            for number, distance in enumerate(self._distances(view, overlays)):
                spread = cv2.dilate(distance, np.ones((9, 9), np.uint8))
                usual[number].append(cv2.GaussianBlur(spread, (0, 0), 2.0).astype(np.float32, copy=False))
                means[number].append(float(distance[distance > 0].mean()))
            advance()
        return self._with_branches(
            replace(branch, usual=tuple(maps), floor=self.settings.floor * float(np.mean(mean)))
            for branch, maps, mean in zip(self._branches, usual, means, strict=True)
        )

    def _with_scale(self, advance: Callable[[], None]) -> "Baseline":
        """Judge some good parts once more, now over what is usual: what a whole good part scores."""
        scores = []
        for index in _evenly(len(self._bank.views), self.settings.scale_parts):
            view = self._bank.views[index]
            overlays = self._bank.overlays(view, self.settings.neighbours, leave_out=index)
            scores.append([worst(scored) for scored in self._scores(view, overlays)])
            advance()
        return self._with_branches(
            replace(branch, scale=max(float(median), 1e-9))
            for branch, median in zip(self._branches, np.median(scores, axis=0), strict=True)
        )

    def _with_branches(self, branches: Iterable[_Branch]) -> "Baseline":
        return Baseline(self.settings, self._scale, self._bank, tuple(branches))

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


def fit_steps(parts: int, settings: BaselineSettings) -> int:
    """How many steps `Baseline.fit` reports for so many good parts."""
    return parts + len(_evenly(parts, settings.scale_parts))


def worst(scored: NDArray[np.float32]) -> float:
    """A part's score: the mean of the highest `WORST_PIXELS` pixels of its map."""
    return float(np.partition(scored, -WORST_PIXELS, axis=None)[-WORST_PIXELS:].mean())


def _blank_branches(settings: BaselineSettings, scale: Scale) -> list[_Branch]:
    branches = []
    if settings.method is not Method.DEPTH:
        branches.append(_Branch(lambda view: edge_features(view.lightness), settings.edge_reach))
    if settings.method is not Method.RGB:
        branches.append(_Branch(lambda view: normal_features(view.height_mm, scale.pixel_mm), settings.normal_reach))
    return branches


def _evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices below `count`, evenly spaced."""
    return sorted(set(np.linspace(0, count - 1, min(count, wanted)).astype(int).tolist()))
