"""A judge that has seen good parts alone: no training, no defects, from five good parts up.

Each group of features is compared place by place with what good parts show there (`places.py`). What good parts, each
judged by the others, usually score around a place is divided out, as the baseline for scans does; so every branch
speaks in one unit: 1 is what the worst places of a middling good part score. Colour and depth are then joined by a
gate of weights that good and painted validation parts choose (`gate.py`); no branch alone may do better there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.models.baseline_features import CELL_PX
from depthcell.models.goodonly.features import BRANCH_OF_GROUP, Branch, Features, Group, part_features
from depthcell.models.goodonly.places import Places, PlaceSettings
from depthcell.models.network.partinput import PartInput

Judge = Literal["rgb", "depth", "fused"]
BRANCHES: tuple[Branch, ...] = ("rgb", "depth")
FEWEST_PARTS = 3


@dataclass(frozen=True, slots=True)
class GoodSettings:
    """How good parts judge.

    Attributes:
        places: how a place is described.
        power: of the power mean that joins groups, and branches; large ones come near to the largest.
        worst_cells: a part's score is the mean of its so many highest cells of two pixels.
        spread_cells: side of the neighbourhood over which a good part's scores count as usual.
        smoothing_cells: standard deviation of the final smoothing.
        most_parts: more good parts than that are thinned out by the seed, so that memory stays bounded.
        folds: good parts are judged by those of the other folds.
    """

    places: PlaceSettings = field(default_factory=PlaceSettings)
    power: float = 4.0
    worst_cells: int = 20
    spread_cells: int = 5
    smoothing_cells: float = 0.8
    most_parts: int = 96
    folds: int = 4


@dataclass(frozen=True, slots=True)
class Gate:
    """How much each branch counts in the fusion, 0 to 1."""

    rgb: float = 0.5
    depth: float = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class GoodJudgement:
    """How unlike good parts a part is; 1 is what the worst places of a middling good part score.

    Attributes:
        pixel_score: (V, S, S) float32, fused.
        point_score: (N,) float32: the highest of the pixels where it shows, 0 where no camera sees it.
        part_score: fused.
        branch_scores: part score of "rgb", "depth" and "fused"; 0 for a branch that saw nothing.
        branch_cells: (V, S / 2, S / 2) float32 of "rgb" and "depth", NaN where a branch knows nothing.
        degraded: what was lacking, in words; empty if nothing.
    """

    pixel_score: NDArray[np.float32]
    point_score: NDArray[np.float32]
    part_score: float
    branch_scores: Mapping[Judge, float]
    branch_cells: Mapping[Branch, NDArray[np.float32]]
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class GroupMemory:
    """One group of features: what good parts show, and what they usually score. A cell is two pixels, c = S / 2.

    Attributes:
        places: what they show.
        usual: (V, c, c) float32, what good parts score around each place, never near 0.
        scale: what the worst cells of a middling good part score, over `usual`.
    """

    places: Places
    usual: NDArray[np.float32]
    scale: float

    def score(self, unlike: NDArray[np.float32]) -> NDArray[np.float32]:
        """(V, c, c) unlikeness in the unit of this group; NaN stays NaN."""
        score: NDArray[np.float32] = (unlike / (self.usual * self.scale)).astype(np.float32, copy=False)
        return score


@dataclass(frozen=True, slots=True, eq=False)
class GoodModel:
    """Good parts, ready to judge others by. Built by `GoodModel.fit`.

    Attributes:
        settings: how they judge.
        serials: cameras, in the order of the views.
        side_px: of a view, S.
        groups: memory of each group of features.
        scales: what the worst cells of a middling good part score in each branch.
        gate: how branches count.
        n_parts: good parts learned from.
    """

    settings: GoodSettings
    serials: tuple[str, ...]
    side_px: int
    groups: Mapping[Group, GroupMemory]
    scales: Mapping[Branch, float]
    gate: Gate
    n_parts: int

    @classmethod
    def fit(cls, parts: Sequence[PartInput], seed: int = 0, settings: GoodSettings | None = None) -> "GoodModel":
        """Learn from good parts; what is drawn by chance is which parts share a fold, and which are left out if many.

        Args:
            parts: at least three good parts in the same canonical views; each is asked for once.
            seed: of the draw.
            settings: how to judge; the default if None.

        Raises:
            DepthcellError: too few parts, one with a defect, or parts of different views.
        """
        settings = settings or GoodSettings()
        if len(parts) < FEWEST_PARTS:
            raise DepthcellError(f"good parts: {len(parts)} to learn from; at least {FEWEST_PARTS} are needed")
        drawn = np.random.default_rng(seed).permutation(len(parts))[: settings.most_parts]
        serials, side_px, values = _gathered(parts, drawn)
        groups: dict[Group, GroupMemory] = {}
        scored: list[dict[Group, NDArray[np.float32]]] = [{} for _ in drawn]
        for group in BRANCH_OF_GROUP:
            groups[group], unlike = _remembered(group, np.stack(values.pop(group)), side_px // CELL_PX, settings)
            for index, one in enumerate(unlike):
                scored[index][group] = groups[group].score(one.astype(np.float32))
        worst = [{b: worst_mean(m, settings.worst_cells) for b, m in joined(s, settings).items()} for s in scored]
        scales: dict[Branch, float] = {
            branch: max(float(np.median([one[branch] for one in worst])), 1e-6) for branch in BRANCHES
        }
        return cls(settings, serials, side_px, groups, scales, Gate(), len(drawn))

    def judge(self, part: PartInput) -> GoodJudgement:
        """How unlike good parts a part is.

        Raises:
            DepthcellError: the part is of other views than the good ones.
        """
        _check_fits(part, self.serials, self.side_px)
        features, side = part_features(part), self.side_px // CELL_PX
        scored: dict[Group, NDArray[np.float32]] = {
            group: memory.score(_on_cells(_unlike(group, memory.places, features, self.settings), side))
            for group, memory in self.groups.items()
        }
        branches: dict[Branch, NDArray[np.float32]] = {
            branch: (cells / self.scales[branch]).astype(np.float32, copy=False)
            for branch, cells in joined(scored, self.settings).items()
        }
        fused = self.fuse(branches)
        pixels = _on_pixels(fused, self.side_px)
        judged: dict[Judge, NDArray[np.float32]] = {"rgb": branches["rgb"], "depth": branches["depth"], "fused": fused}
        scores: dict[Judge, float] = {name: self.part_score(cells) for name, cells in judged.items()}
        return GoodJudgement(
            pixel_score=pixels,
            point_score=_at_points(pixels, part.pixel),
            part_score=scores["fused"],
            branch_scores=scores,
            branch_cells=branches,
            degraded=degraded_in_words(part),
        )

    def with_gate(self, gate: Gate) -> "GoodModel":
        """The same good parts, their branches weighed otherwise."""
        return replace(self, gate=gate)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays for safetensors, features as float16; `from_tensors` takes them back."""
        header = {
            "settings": msgspec.to_builtins(self.settings),
            "serials": self.serials,
            "side_px": self.side_px,
            "group_scales": {group: memory.scale for group, memory in self.groups.items()},
            "scales": self.scales,
            "gate": msgspec.to_builtins(self.gate),
            "n_parts": self.n_parts,
        }
        found: dict[str, NDArray[Any]] = {"header": np.frombuffer(msgspec.json.encode(header), np.uint8)}
        for group, memory in self.groups.items():
            found[f"{group}.center"] = memory.places.center.astype(np.float16)
            found[f"{group}.weight"] = memory.places.weight.astype(np.float32)
            found[f"{group}.usual"] = memory.usual.astype(np.float32)
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "GoodModel":
        """Take back what `tensors` gave.

        Raises:
            DepthcellError: an array is lacking or of another shape, or the header cannot be read.
        """
        header = _header(tensors)
        groups = {}
        for group, scale in header.group_scales.items():
            center, weight, usual = (_lacking_or(tensors, f"{group}.{name}") for name in ("center", "weight", "usual"))
            if center.shape != weight.shape or usual.shape != (len(header.serials), *(header.side_px // CELL_PX,) * 2):
                raise DepthcellError(f"good parts: {group} holds arrays of shapes that do not fit; train again")
            places = Places(center.astype(np.float32), weight.astype(np.float32))
            groups[group] = GroupMemory(places, usual.astype(np.float32), scale)
        return cls(header.settings, header.serials, header.side_px, groups, header.scales, header.gate, header.n_parts)

    def fuse(self, branches: Mapping[Branch, NDArray[np.float32]]) -> NDArray[np.float32]:
        """(V, c, c) power mean of the branches by the gate's weights."""
        weights = {"rgb": self.gate.rgb, "depth": self.gate.depth}
        return power_mean([branches[b] for b in BRANCHES], [weights[b] for b in BRANCHES], self.settings.power)

    def part_score(self, cells: NDArray[np.float32]) -> float:
        """A part's score from its cells: the mean of the worst."""
        return worst_mean(cells, self.settings.worst_cells)


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is no array."""

    settings: GoodSettings
    serials: tuple[str, ...]
    side_px: int
    group_scales: dict[Group, float]
    scales: dict[Branch, float]
    gate: Gate
    n_parts: int


def joined(scored: Mapping[Group, NDArray[np.float32]], settings: GoodSettings) -> dict[Branch, NDArray[np.float32]]:
    """(V, c, c) of each branch: power mean of its groups among those that know a place, smoothed; NaN if none does."""
    branches: dict[Branch, NDArray[np.float32]] = {}
    for branch in BRANCHES:
        members = [scored[group] for group, owner in BRANCH_OF_GROUP.items() if owner == branch]
        mean = power_mean(members, [1.0] * len(members), settings.power)
        known = np.isfinite(mean)
        smooth = [cv2.GaussianBlur(view, (0, 0), settings.smoothing_cells) for view in np.where(known, mean, 0)]
        branches[branch] = np.where(known, np.stack(smooth), np.nan).astype(np.float32)
    return branches


def power_mean(maps: Sequence[NDArray[np.float32]], weights: Sequence[float], power: float) -> NDArray[np.float32]:
    """Weighted power mean; a map that does not know a place (NaN) adds nothing there, so that it never raises a score.

    Where those that know it weigh under 5 % of all, they are taken for all. NaN where none knows it.
    """
    stacked = np.stack(maps)
    known = np.isfinite(stacked)
    share = np.where(known, np.maximum(np.asarray(weights, np.float32), 1e-9).reshape(-1, *(1,) * maps[0].ndim), 0)
    summed = (share * np.where(known, stacked, 0) ** power).sum(axis=0)
    heard = share.sum(axis=0)
    total = np.where(heard < 0.05 * sum(weights), heard, sum(weights))
    mean = (summed / np.maximum(total, 1e-20)) ** (1 / power)
    return np.where(heard > 0, mean, np.nan).astype(np.float32)


def worst_mean(found: NDArray[np.float32], cells: int) -> float:
    """Mean of the highest cells; 0 where nothing is known."""
    known = found[np.isfinite(found)]
    return float(np.partition(known, -cells)[-cells:].mean()) if len(known) >= cells else 0.0


def degraded_in_words(part: PartInput) -> tuple[str, ...]:
    """What a part lacks: cameras, depth or colour."""
    words = []
    for view, serial in enumerate(part.serials):
        has_depth, has_color = (bool(part.channel(name)[view].any()) for name in ("measured", "colored"))
        if not has_depth and not has_color:
            words.append(f"camera {serial} saw nothing")
        elif not has_depth:
            words.append(f"camera {serial} measured no depth")
        elif not has_color:
            words.append(f"camera {serial} saw no colour")
    return tuple(words)


def _gathered(
    parts: Sequence[PartInput], drawn: NDArray[np.intp]
) -> tuple[tuple[str, ...], int, dict[Group, list[NDArray[np.float16]]]]:
    """Cameras, side and features of the parts drawn; each part is read once."""
    serials: tuple[str, ...] = ()
    side_px = 0
    values: dict[Group, list[NDArray[np.float16]]] = {group: [] for group in BRANCH_OF_GROUP}
    for index in drawn:
        part = parts[int(index)]
        if not serials:
            serials, side_px = part.serials, part.images.shape[-1]
        _check_fits(part, serials, side_px)
        if part.labels is not None and part.labels.is_defect:
            raise DepthcellError(f"part {part.part_id}: is labelled defective; give good parts alone")
        for group, found in part_features(part).items():
            values[group].append(found.astype(np.float16))
    return serials, side_px, values


def _remembered(
    group: Group, values: NDArray[np.float16], side: int, settings: GoodSettings
) -> tuple[GroupMemory, NDArray[np.float16]]:
    """Memory of one group from (N, V, F, h, w), and (N, V, c, c) what each part scores by those of other folds."""
    folds = np.arange(len(values)) % min(settings.folds, len(values))
    unlike = np.full((len(values), values.shape[1], side, side), np.nan, np.float16)
    for fold in np.unique(folds):
        places = Places.learn(values[folds != fold], settings.places)
        for index in np.flatnonzero(folds == fold):
            one: Features = {group: values[index].astype(np.float32)}
            unlike[index] = _on_cells(_unlike(group, places, one, settings), side)
    box = np.ones((settings.spread_cells, settings.spread_cells), np.uint8)
    summed, counted = np.zeros(unlike.shape[1:], np.float32), np.zeros(unlike.shape[1:], np.float32)
    for part in unlike:
        for view, found in enumerate(part.astype(np.float32)):
            summed[view] += cv2.GaussianBlur(cv2.dilate(np.nan_to_num(found), box), (0, 0), 1.0)
            counted[view] += np.isfinite(found)
    usual = summed / len(values)
    floor = float(summed[counted > 0].sum() / max(float(counted[counted > 0].sum()), 1.0)) or 1.0
    memory = GroupMemory(Places.learn(values, settings.places), (usual + floor).astype(np.float32), 1.0)
    worst = [worst_mean(memory.score(part.astype(np.float32)), settings.worst_cells) for part in unlike]
    return replace(memory, scale=max(float(np.median(worst)), 1e-6)), unlike


def _unlike(group: Group, places: Places, features: Features, settings: GoodSettings) -> NDArray[np.float32]:
    return places.unlikeness(features[group], 0 if group == "missing" else settings.places.reach_cells)


def _on_cells(found: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(V, h, w) enlarged to (V, c, c) where smaller; unknown stays unknown."""
    if found.shape[-1] == side:
        return found
    known = np.isfinite(found)
    large = [cv2.resize(view, (side, side), interpolation=cv2.INTER_LINEAR) for view in np.where(known, found, 0)]
    share = [cv2.resize(view, (side, side), interpolation=cv2.INTER_LINEAR) for view in known.astype(np.float32)]
    weight = np.stack(share)
    return np.where(weight > 0.25, np.stack(large) / np.maximum(weight, 1e-6), np.nan).astype(np.float32)


def _on_pixels(found: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """(V, S, S) from (V, c, c), 0 where nothing is known."""
    return np.stack(
        [
            cv2.resize(view, (side_px, side_px), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
            for view in np.nan_to_num(found)
        ]
    )


def _at_points(pixels: NDArray[np.float32], pixel: NDArray[np.int32]) -> NDArray[np.float32]:
    """(N,) the highest score among the pixels (N, V) where each point shows."""
    score = np.zeros(len(pixel), np.float32)
    for view, image in enumerate(pixels):
        seen = pixel[:, view] >= 0
        score[seen] = np.maximum(score[seen], image.ravel()[pixel[seen, view]])
    return score


def _check_fits(part: PartInput, serials: tuple[str, ...], side_px: int) -> None:
    if part.serials != serials or part.images.shape[-1] != side_px:
        raise DepthcellError(
            f"part {part.part_id}: views of {', '.join(part.serials)} at {part.images.shape[-1]} px do not fit good "
            f"parts of {', '.join(serials)} at {side_px} px; learn from good parts of this cell"
        )


def _header(tensors: Mapping[str, NDArray[Any]]) -> _Header:
    try:
        return msgspec.json.decode(_lacking_or(tensors, "header").tobytes(), type=_Header)
    except msgspec.MsgspecError as error:
        raise DepthcellError(f"good parts: header cannot be read ({error}); train again") from error


def _lacking_or(tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in tensors:
        raise DepthcellError(f"good parts: {name} is lacking; train again")
    return tensors[name]
