"""The whole cycle on one page of verbs: one part's frames in, one verdict out, with all that a report needs."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from depthcell import __version__
from depthcell.acquisition.partfolder import PartFolder
from depthcell.calib.cell import Cell
from depthcell.calib.verify.health import health_path
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.align import Alignment
from depthcell.fusion.fuse import FusedPart, PartAccumulator
from depthcell.fusion.scan import Scan
from depthcell.inspect.cell_gate import CellGate
from depthcell.inspect.decision import combine
from depthcell.inspect.gauges.gauged import GaugeResult, gauge_all
from depthcell.inspect.golden import Golden
from depthcell.inspect.judgement import Judgement, judge
from depthcell.inspect.observation import Observation, Observer
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.verdict import Provenance, Verdict, sealed

if TYPE_CHECKING:
    from depthcell.inspect.model_check import ModelCheck

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which part this is and who asked.

    Attributes:
        part_id: which part.
        trigger_id: which trigger asked for it.
        sequence: counts the verdicts of this run from 1.
        recording_sha256: of what was recorded; empty where nothing could be read.
    """

    part_id: str
    trigger_id: str
    sequence: int
    recording_sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """A verdict and what it was drawn from. Everything per point is in the order of `fused.cloud`.

    Attributes:
        verdict: sealed.
        fused: the part as the cameras saw it, its views included; None where nothing could be fused.
        alignment: where the part lies; None where that failed.
        deviation_m: (N,) float32, signed distance from the reference, positive outside the material; NaN where the
            point was not compared.
        significance: (N,) float32, signed deviation from good parts over its standard uncertainty, the largest of all
            scales at the point's place; NaN where it was not compared.
        color_score: (N,) float32, colour difference from good parts over its standard uncertainty; NaN where there is
            no colour or no colour check.
        finding_points: for each of `verdict.findings`, the indices of its points.
    """

    verdict: Verdict
    fused: FusedPart | None
    alignment: Alignment | None
    deviation_m: NDArray[np.float32]
    significance: NDArray[np.float32]
    color_score: NDArray[np.float32]
    finding_points: tuple[NDArray[np.intp], ...]


class Inspector:
    """Judges parts by one recipe in one cell. Everything that does not depend on the part is prepared once.

    Attributes:
        recipe: what a part must be.
        cell: what sees it.
        model_check: the check by a learned model, None without.
    """

    def __init__(
        self, observer: Observer, cell: Cell, golden: Golden | None, model_check: "ModelCheck | None" = None
    ) -> None:
        self.recipe = observer.recipe
        self.cell = cell
        self.model_check = model_check
        self._observer = observer
        self._golden = golden
        self._cell_sha256, self._recipe_sha256 = cell.sha256, observer.recipe.sha256
        self._gate = CellGate(cell, observer.recipe.cell, health_path(observer.recipe.cell_path))

    @classmethod
    def load(cls, recipe: Recipe, cell: Cell, model: Path | None = None) -> "Inspector":
        """Prepare the reference, its distance field, the statistics of good parts and what each camera should see.

        Args:
            recipe: what a part must be.
            cell: what sees it.
            model: folder of a trained model that judges too; None for none.

        Raises:
            DepthcellError: the recipe does not fit the cell, or one of its files is missing or does not fit; or the
                model is no whole, trusted one for this recipe and cell.
        """
        observer = Observer(recipe, cell)
        golden = None if recipe.golden_path is None else Golden.load(recipe.golden_path)
        if golden is not None:
            golden.check_fits(observer)
            if recipe.color is not None and not golden.colors:
                raise DepthcellError(
                    f"recipe '{recipe.name}': color: reference.golden holds no colours; fit it again from recordings "
                    "with colour, or drop [color]",
                    Reason.RECIPE_INVALID,
                )
        if model is None:
            return cls(observer, cell, golden)
        from depthcell.inspect.model_check import ModelCheck  # noqa: PLC0415 - only a model needs that room

        return cls(observer, cell, golden, ModelCheck.load(model, observer))

    def watch_health(self, path: Path) -> None:
        """Heed this health file, where the cell does not lie where the recipe says."""
        self._gate = CellGate(self.cell, self.recipe.cell, path)

    def judge(self, part: PartFolder, sequence: int, trigger_id: str) -> Inspection:
        """Read, fuse and judge one recorded part. A bad part or recording never raises: it is CANNOT-TELL or NOK."""
        clock = _Clock()
        frames, gaps = self.accumulator(), []
        recording_sha256 = ""
        with clock.stage("read"):
            try:
                recording_sha256 = part.sha256
                for frameset in part.framesets(self.recipe.cell.cameras):
                    frames.add(frameset)
            except (DepthcellError, OSError) as error:
                gaps.append(f"the recording is not whole: {error}")
        identity = Identity(part.part_id, trigger_id, sequence, recording_sha256)
        return self.judge_frames(frames, identity, tuple(gaps), clock)

    def accumulator(self) -> PartAccumulator:
        """A fresh accumulator for the frames of one part, set to the recipe's region."""
        return self._observer.accumulator()

    def judge_frames(
        self, frames: PartAccumulator, identity: Identity, gaps: tuple[str, ...] = (), clock: "_Clock | None" = None
    ) -> Inspection:
        """Judge a part whose frames have all arrived: all that is left to do after the last frame.

        Args:
            frames: from `accumulator`, with every frame set of the part added.
            identity: which part this is.
            gaps: evidence that is known to be missing, in words; with any of them the part cannot be OK.
            clock: that has timed the stages so far; None starts one.
        """
        clock = clock or _Clock()
        fused, observation, judgement = None, None, None
        gaps = (*gaps, *self._gate.gaps())
        try:
            with clock.stage("fuse"):
                fused = frames.fuse()
            with clock.stage("observe"):
                observation = self._observer.observe(fused)
            with clock.stage("judge"):
                judgement = judge(observation, self._observer, self._golden)
            if self.recipe.gauge:
                with clock.stage("gauge"):
                    judgement = judgement.with_gauges(self._gauged(fused, observation.alignment))
            if self.model_check is not None:
                with clock.stage("model"):
                    judgement = self.model_check.added_to(judgement, identity.part_id)
        except DepthcellError as error:
            gaps = (*gaps, str(error))
        except Exception as error:  # an error of ours must not stop the line, nor let a part pass
            _LOG.exception("part %s", identity.part_id)
            gaps = (*gaps, f"internal error ({type(error).__name__}: {error}); report it with this recording")
        verdict = self._verdict(identity, judgement, gaps, clock)
        return _inspection(verdict, fused, observation, judgement)

    def _gauged(self, fused: FusedPart, alignment: Alignment) -> tuple[GaugeResult, ...]:
        """Every gauge of the recipe."""
        return gauge_all(self.recipe, Scan.of(fused.cloud, alignment, self._observer.cell, self._observer.reference))

    def _verdict(
        self, identity: Identity, judgement: Judgement | None, gaps: tuple[str, ...], clock: "_Clock"
    ) -> Verdict:
        """Everything that was found, combined, sealed."""
        checks = () if judgement is None else judgement.checks
        gaps = gaps if judgement is None else (*gaps, *judgement.gaps)
        decision, reasons = combine(checks, gaps)
        return sealed(
            Verdict(
                schema_version=1,
                verdict=decision,
                part_id=identity.part_id,
                trigger_id=identity.trigger_id,
                sequence=identity.sequence,
                findings=() if judgement is None else tuple(found.finding for found in judgement.found),
                measurements=() if judgement is None else judgement.measurements,
                reasons=reasons,
                timings_ms=clock.timings_ms(),
                issued_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                provenance=Provenance(
                    recording=identity.recording_sha256,
                    cell=self._cell_sha256,
                    recipe=self._recipe_sha256,
                    model=None if self.model_check is None else self.model_check.model.sha256,
                    software=f"depthcell {__version__}",
                ),
            )
        )


class _Clock:
    """Times the stages of one part."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()
        self._stages_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self._stages_ms[name] = round((time.perf_counter() - started_s) * 1e3, 3)

    def timings_ms(self) -> dict[str, float]:
        """Each stage in its order, and the total since the part was begun."""
        return self._stages_ms | {"total": round((time.perf_counter() - self._started_s) * 1e3, 3)}


def _inspection(
    verdict: Verdict, fused: FusedPart | None, observation: Observation | None, judgement: Judgement | None
) -> Inspection:
    count = 0 if fused is None else len(fused.cloud)
    unknown = np.full(count, np.nan, np.float32)
    deviation_m, significance, color_score = unknown, unknown, unknown
    if observation is not None and judgement is not None:
        points = observation.deviation.points
        compared = points.patch >= 0
        deviation_m = np.where(compared, points.deviation_m, np.nan).astype(np.float32)
        significance = np.where(compared, judgement.significance[points.patch], np.nan).astype(np.float32)
        color_score = np.where(compared, judgement.color_score[points.patch], np.nan).astype(np.float32)
    return Inspection(
        verdict=verdict,
        fused=fused,
        alignment=None if observation is None else observation.alignment,
        deviation_m=deviation_m,
        significance=significance,
        color_score=color_score,
        finding_points=() if judgement is None else tuple(found.points for found in judgement.found),
    )
