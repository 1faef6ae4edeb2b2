"""A judge that has seen good parts alone: no training, no defects, from three good parts up.

Each group of features is compared place by place with what good parts show there (`places.py`); so is what a student
fails by, where one was taught (`student.py`). What good parts, each judged by the others, usually score around a place
is divided out, as the baseline for scans does; so every branch speaks in one unit: 1 is what the worst places of a
middling good part score. The branches are then joined by a gate of weights that good and painted validation parts
choose (`gate.py`); no branch alone may do better there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.models.baseline_features import CELL_PX
from depthcell.models.goodonly.features import Branch, Group, part_features
from depthcell.models.goodonly.maps import BRANCHES, at_points, joined, on_cells, on_pixels, power_mean, worst_mean
from depthcell.models.goodonly.places import Places, PlaceSettings
from depthcell.models.goodonly.student import Student, fit_student, seen_of
from depthcell.models.network.partinput import PartInput

Judge = Literal["rgb", "depth", "student", "fused"]
FEWEST_PARTS = 3
FEWEST_FOR_STUDENT = 2 * FEWEST_PARTS
STUDENT = "student_network."


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
        student_steps: so long half of the good parts teach a student, by whose failures the others judge; 0 for none.
    """

    places: PlaceSettings = field(default_factory=PlaceSettings)
    power: float = 4.0
    worst_cells: int = 20
    spread_cells: int = 5
    smoothing_cells: float = 0.8
    most_parts: int = 96
    folds: int = 4
    student_steps: int = 0


@dataclass(frozen=True, slots=True)
class Gate:
    """How much each branch counts in the fusion, 0 to 1."""

    rgb: float = 0.5
    depth: float = 0.5
    student: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class GoodJudgement:
    """How unlike good parts a part is; 1 is what the worst places of a middling good part score.

    Attributes:
        pixel_score: (V, S, S) float32, fused.
        point_score: (N,) float32: the highest of the pixels where it shows, 0 where no camera sees it.
        part_score: fused.
        branch_scores: part score of "rgb", "depth", of "student" where it counts, and "fused"; 0 for a branch that saw
            nothing.
        branch_cells: (V, S / 2, S / 2) float32 of each branch, NaN where it knows nothing.
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
        student: None where there is none, or it does not count.
    """

    settings: GoodSettings
    serials: tuple[str, ...]
    side_px: int
    groups: Mapping[Group, GroupMemory]
    scales: Mapping[Branch, float]
    gate: Gate
    n_parts: int
    student: Student | None = None

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
        serials, side_px, values, seen = _gathered(parts, drawn, with_images=settings.student_steps > 0)
        student = _taught(seen, values, settings, seed) if settings.student_steps else None
        groups: dict[Group, GroupMemory] = {}
        scored: list[dict[Group, NDArray[np.float32]]] = [{} for _ in drawn]
        for group in list(values):
            found = values.pop(group)
            groups[group], unlike = _remembered(group, np.stack(found), side_px // CELL_PX, settings)
            for one, members in zip(unlike, scored[-len(found) :], strict=True):
                members[group] = groups[group].score(one.astype(np.float32))
        maps = [joined(one, settings.power, settings.smoothing_cells) for one in scored]
        worst = [{branch: worst_mean(cells, settings.worst_cells) for branch, cells in one.items()} for one in maps]
        scales: dict[Branch, float] = {}
        for branch in BRANCHES:
            of_parts = [one[branch] for one in worst if branch in one]
            if of_parts:
                scales[branch] = max(float(np.median(of_parts)), 1e-6)
        return cls(settings, serials, side_px, groups, scales, Gate(), len(drawn), student)

    def judge(self, part: PartInput) -> GoodJudgement:
        """How unlike good parts a part is.

        Raises:
            DepthcellError: the part is of other views than the good ones.
        """
        _check_fits(part, self.serials, self.side_px)
        features, side = part_features(part), self.side_px // CELL_PX
        if self.student is not None and self.gate.student > 0:
            features["student"] = self.student.failure(seen_of(part), features["lite0"])
        scored: dict[Group, NDArray[np.float32]] = {
            group: memory.score(on_cells(memory.places.unlikeness(features[group]), side))
            for group, memory in self.groups.items()
            if group in features
        }
        branches: dict[Branch, NDArray[np.float32]] = {
            branch: (cells / self.scales[branch]).astype(np.float32, copy=False)
            for branch, cells in joined(scored, self.settings.power, self.settings.smoothing_cells).items()
        }
        fused = self.fuse(branches)
        pixels = on_pixels(fused, self.side_px)
        scores: dict[Judge, float] = {branch: self.part_score(cells) for branch, cells in branches.items()}
        scores["fused"] = self.part_score(fused)
        return GoodJudgement(
            pixel_score=pixels,
            point_score=at_points(pixels, part.pixel),
            part_score=scores["fused"],
            branch_scores=scores,
            branch_cells=branches,
            degraded=degraded_in_words(part),
        )

    def with_gate(self, gate: Gate) -> "GoodModel":
        """The same good parts, their branches weighed otherwise."""
        return replace(self, gate=gate)

    def trimmed(self) -> "GoodModel":
        """The same judge, without a student that does not count."""
        if self.gate.student > 0:
            return self
        groups = dict(self.groups)
        groups.pop("student", None)
        return replace(self, student=None, groups=groups)

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
        if self.student is not None:
            found |= {STUDENT + name: values for name, values in self.student.tensors().items()}
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
            reach = _place_settings(group, header.settings).reach_cells
            places = Places(center.astype(np.float32), weight.astype(np.float32), reach)
            groups[group] = GroupMemory(places, usual.astype(np.float32), scale)
        student = None
        weights = {name.removeprefix(STUDENT): tensors[name] for name in tensors if name.startswith(STUDENT)}
        if "student" in groups:
            try:
                student = Student.from_tensors(weights)
            except (KeyError, RuntimeError) as error:
                why = str(error).splitlines()[0]
                raise DepthcellError(f"good parts: weights of the student do not fit ({why}); train again") from error
        return cls(
            header.settings,
            header.serials,
            header.side_px,
            groups,
            header.scales,
            header.gate,
            header.n_parts,
            student,
        )

    def fuse(self, branches: Mapping[Branch, NDArray[np.float32]]) -> NDArray[np.float32]:
        """(V, c, c) power mean of the branches by the gate's weights."""
        weights = asdict(self.gate)
        return power_mean(list(branches.values()), [weights[branch] for branch in branches], self.settings.power)

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
    parts: Sequence[PartInput], drawn: NDArray[np.intp], *, with_images: bool
) -> tuple[tuple[str, ...], int, dict[Group, list[NDArray[np.float16]]], list[NDArray[np.float32]]]:
    """Cameras, side, features and, where asked for, colour images of the parts drawn; each part is read once."""
    serials: tuple[str, ...] = ()
    side_px = 0
    values: dict[Group, list[NDArray[np.float16]]] = {}
    seen: list[NDArray[np.float32]] = []
    for index in drawn:
        part = parts[int(index)]
        if not serials:
            serials, side_px = part.serials, part.images.shape[-1]
        _check_fits(part, serials, side_px)
        if part.labels is not None and part.labels.is_defect:
            raise DepthcellError(f"part {part.part_id}: is labelled defective; give good parts alone")
        for group, found in part_features(part).items():
            values.setdefault(group, []).append(found.astype(np.float16))
        seen += [seen_of(part)] if with_images else []
    return serials, side_px, values, seen


def _taught(
    seen: Sequence[NDArray[np.float32]],
    values: dict[Group, list[NDArray[np.float16]]],
    settings: GoodSettings,
    seed: int,
) -> Student:
    """A student of the first half of the parts; what it fails by on the others joins `values`."""
    if len(seen) < FEWEST_FOR_STUDENT:
        raise DepthcellError(f"student: {len(seen)} good parts to learn from; at least {FEWEST_FOR_STUDENT} are needed")
    half = len(seen) // 2
    taught = np.stack(values["lite0"])
    student = fit_student(np.stack(seen[:half]), taught[:half], settings.student_steps, seed)
    failures = [student.failure(one, said.astype(np.float32)) for one, said in zip(seen, taught, strict=True)]
    values["student"] = [one.astype(np.float16) for one in failures[half:]]
    return student


def _remembered(
    group: Group, values: NDArray[np.float16], side: int, settings: GoodSettings
) -> tuple[GroupMemory, NDArray[np.float16]]:
    """Memory of one group from (N, V, F, h, w), and (N, V, c, c) what each part scores by those of other folds."""
    folds = np.arange(len(values)) % min(settings.folds, len(values))
    unlike = np.full((len(values), values.shape[1], side, side), np.nan, np.float16)
    how = _place_settings(group, settings)
    for fold in np.unique(folds):
        places = Places.learn(values[folds != fold], how)
        for index in np.flatnonzero(folds == fold):
            unlike[index] = on_cells(places.unlikeness(values[index].astype(np.float32)), side)
    box = np.ones((settings.spread_cells, settings.spread_cells), np.uint8)
    summed, counted = np.zeros(unlike.shape[1:], np.float32), np.zeros(unlike.shape[1:], np.float32)
    for part in unlike:
        for view, found in enumerate(part.astype(np.float32)):
            summed[view] += cv2.GaussianBlur(cv2.dilate(np.nan_to_num(found), box), (0, 0), 1.0)
            counted[view] += np.isfinite(found)
    usual = summed / len(values)
    floor = float(summed[counted > 0].sum() / max(float(counted[counted > 0].sum()), 1.0)) or 1.0
    memory = GroupMemory(Places.learn(values, how), (usual + floor).astype(np.float32), 1.0)
    worst = [worst_mean(memory.score(part.astype(np.float32)), settings.worst_cells) for part in unlike]
    return replace(memory, scale=max(float(np.median(worst)), 1e-6)), unlike


def _place_settings(group: Group, settings: GoodSettings) -> PlaceSettings:
    return replace(settings.places, reach_cells=0) if group == "missing" else settings.places


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
