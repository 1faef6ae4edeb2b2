"""What good parts look like, patch by patch: the statistics that tell a defect from ordinary variation."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.partfolder import PartFolder
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.files import written_beside
from depthcell.inspect.color_check import ViewStatistics, fit_view, score_view
from depthcell.inspect.coverage import largest_gap
from depthcell.inspect.deviation import DeviationMap, DeviationScales
from depthcell.inspect.observation import Observation, Observer
from depthcell.inspect.pooling import neighbourhood_max
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.shape_check import ShapeStatistics, fit_shape, score_shape
from depthcell.inspect.view_color import ViewColor

T = TypeVar("T")
SCHEMA_VERSION = 1
MIN_PARTS = 4
MOST_GROUPS = 12
"""Good parts are judged by the others one by one; more than so many in so many groups, as each takes a fit."""
USUAL = 3.0
"""Score that the most extreme good part reaches somewhere about a patch when the model holds."""


@dataclass(frozen=True, slots=True, eq=False)
class GoodPart:
    """What the statistics take of one good part; its points and images would fill the memory.

    Attributes:
        part_id: which part.
        deviation: from the reference, without the points.
        colors: serial number -> the colours of its patches.
        free_motions: how many motions its alignment leaves undetermined.
    """

    part_id: str
    deviation: DeviationMap
    colors: Mapping[str, ViewColor]
    free_motions: int

    @classmethod
    def of(cls, observation: Observation, part_id: str) -> "GoodPart":
        """Of a part as seen."""
        free_motions = len(observation.alignment.free_directions)
        return cls(part_id, observation.deviation.without_points(), observation.colors, free_motions)


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Statistics of good parts.

    Attributes:
        surface: identity of the patches they belong to, see `Surface.identity`.
        calibrated_at: of the cell that saw them; another calibration sees other deviations.
        part_ids: which parts.
        shape: of their deviations from the reference.
        largest_gap_m2: largest connected surface that one of them left unmeasured though the others show it.
        free_motions: how many motions their alignment leaves undetermined at most, as along a prismatic part.
        colors: serial number -> of the colours that this camera saw; empty without colour.
    """

    surface: str
    calibrated_at: str
    part_ids: tuple[str, ...]
    shape: ShapeStatistics
    largest_gap_m2: float
    free_motions: int
    colors: Mapping[str, ViewStatistics]

    def save(self, path: Path) -> None:
        """Write the statistics as one npz, whole or not at all."""
        about = {
            "schema_version": SCHEMA_VERSION,
            "surface": self.surface,
            "calibrated_at": self.calibrated_at,
            "part_ids": self.part_ids,
            "largest_gap_m2": self.largest_gap_m2,
            "free_motions": self.free_motions,
            "serials": list(self.colors),
        }
        arrays = {"about": np.array(json.dumps(about, sort_keys=True))} | _columns("shape", self.shape)
        for serial, statistics in self.colors.items():
            arrays |= _columns(f"color/{serial}", statistics)
        with written_beside(path) as partial:
            np.savez_compressed(partial, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Golden":
        """Read statistics.

        Raises:
            DepthcellError: the file is missing or damaged, or of another schema.
        """
        advice = "fit it again from recordings of good parts"
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                if about["schema_version"] != SCHEMA_VERSION:
                    version = about["schema_version"]
                    raise DepthcellError(f"golden {path}: schema {version}, need {SCHEMA_VERSION}; {advice}")
                return cls._from_file(about, arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DepthcellError(f"golden {path}: missing or damaged ({error}); {advice}", Reason.BAD_INPUT) from error

    @classmethod
    def _from_file(cls, about: dict[str, Any], arrays: Any) -> "Golden":
        colors = {
            serial: ViewStatistics(**_read(f"color/{serial}", ViewStatistics, arrays)) for serial in about["serials"]
        }
        return cls(
            surface=about["surface"],
            calibrated_at=about["calibrated_at"],
            part_ids=tuple(about["part_ids"]),
            shape=ShapeStatistics(**_read("shape", ShapeStatistics, arrays)),
            largest_gap_m2=about["largest_gap_m2"],
            free_motions=about["free_motions"],
            colors=MappingProxyType(colors),
        )

    def check_fits(self, observer: Observer) -> None:
        """Refuse statistics of another mesh, region or calibration.

        Raises:
            DepthcellError: they do not belong to this recipe and cell; the message says what differs.
        """
        what = ""
        if self.surface != observer.surface.identity:
            what = "was fitted with another mesh or region"
        elif self.calibrated_at != observer.cell.calibrated_at:
            what = f"was seen by the cell as calibrated at {self.calibrated_at}, not {observer.cell.calibrated_at}"
        if what:
            raise DepthcellError(
                f"recipe '{observer.recipe.name}': reference.golden {what}; fit it again", Reason.RECIPE_INVALID
            )


def fit_golden(parts: Sequence[PartFolder], recipe: Recipe, cell: Cell) -> Golden:
    """Learn what good parts look like.

    Args:
        parts: recordings of good parts; the more the better, at least `MIN_PARTS`.
        recipe: of these parts; its `reference.golden` need not exist yet.
        cell: that recorded them.

    Raises:
        DepthcellError: there are too few parts, or one of them cannot be read, fused or aligned.
    """
    observer = Observer(recipe, cell)
    return golden_of([GoodPart.of(observed_good(observer, part), part.part_id) for part in parts], observer)


def golden_of(parts: Sequence[GoodPart], observer: Observer) -> Golden:
    """Statistics of good parts that have been observed already; see `fit_golden`."""
    if len(parts) < MIN_PARTS:
        raise DepthcellError(f"golden: needs {MIN_PARTS} good parts or more, got {len(parts)}; record more")
    shape = _calibrated_shape([part.deviation for part in parts], observer)
    colors = {}
    for serial in observer.recipe.cell.cameras:
        views = [part.colors[serial] for part in parts if serial in part.colors]
        if len(views) >= MIN_PARTS:
            colors[serial] = _calibrated_view(views, observer.scales)
    gaps = [largest_gap(shape.known, part.deviation, observer.scales) for part in parts]
    return Golden(
        surface=observer.surface.identity,
        calibrated_at=observer.cell.calibrated_at,
        part_ids=tuple(part.part_id for part in parts),
        shape=shape,
        largest_gap_m2=max(gap.area_m2 for gap in gaps),
        free_motions=max(part.free_motions for part in parts),
        colors=MappingProxyType(colors),
    )


def observed_good(observer: Observer, part: PartFolder) -> Observation:
    """A good part as seen.

    Raises:
        DepthcellError: it cannot be read, fused or aligned, or a camera is missing.
    """
    frames = observer.accumulator()
    for frameset in part.framesets(observer.recipe.cell.cameras):
        if frameset.missing:
            raise DepthcellError(
                f"golden part {part.part_id}: camera {frameset.missing[0]} is missing from a frame; record it again"
            )
        frames.add(frameset)
    return observer.observe(frames.fuse())


def _calibrated_shape(maps: Sequence[DeviationMap], observer: Observer) -> ShapeStatistics:
    """Fit to all parts; set the factors by judging parts with the statistics of the others."""
    scales = observer.scales
    scores = [
        score_shape(one, others, observer.sight, observer.negligible_m)
        for some, rest in _groups_and_rest(maps)
        for others in [fit_shape(rest, scales)]
        for one in some
    ]
    significance = np.abs(np.stack([score.significance for score in scores]))
    factor = [_factor(significance[:, number], scales.neighbours[-1]) for number in range(significance.shape[1])]
    return replace(fit_shape(maps, scales), factor=np.stack(factor))


def _calibrated_view(views: Sequence[ViewColor], scales: DeviationScales) -> ViewStatistics:
    scores = [
        score_view(one, others, scales)
        for some, rest in _groups_and_rest(views)
        for others in [fit_view(rest, scales)]
        for one in some
    ]
    lab, lines = np.stack([score.lab for score in scores]), np.stack([score.lines for score in scores])
    near = scales.neighbours[-1]
    return replace(
        fit_view(views, scales),
        lab_factor=np.stack([_factor(lab[:, number], near) for number in range(lab.shape[1])]),
        lines_factor=np.stack([_factor(lines[..., number], near) for number in range(2)], axis=1),
    )


def _groups_and_rest(samples: Sequence[T]) -> Iterator[tuple[Sequence[T], Sequence[T]]]:
    """Each part, or each group of a dozenth of many parts, and all others."""
    groups = min(len(samples), MOST_GROUPS)
    for number in range(groups):
        yield samples[number::groups], [one for place, one in enumerate(samples) if place % groups != number]


def _factor(scores: NDArray[Any], near: Any) -> NDArray[np.float32]:
    """(K,) by which the scores (n, K) of good parts are too large about each patch; at least 1.

    Edges, highlights and silhouettes vary more than a handful of parts shows at one patch. What the largest score of
    any good part in the neighbourhood exceeds `USUAL` by, the uncertainty there was too small by.
    """
    largest = neighbourhood_max(near, np.nan_to_num(scores).max(axis=0))
    return np.maximum(largest / USUAL, 1.0).astype(np.float32)


def _columns(prefix: str, statistics: ShapeStatistics | ViewStatistics) -> dict[str, NDArray[Any]]:
    return {f"{prefix}/{field.name}": np.asarray(getattr(statistics, field.name)) for field in fields(statistics)}


def _read(prefix: str, kind: type[ShapeStatistics] | type[ViewStatistics], arrays: Any) -> dict[str, Any]:
    return {field.name: arrays[f"{prefix}/{field.name}"] for field in fields(kind)}
