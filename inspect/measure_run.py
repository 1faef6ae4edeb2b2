"""`depthcell measure`: every part of a source gauged in turn, and everything that is written about them."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from depthcell import __version__
from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.calib.cell import Cell
from depthcell.calib.verify.health import health_path
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.scan import Scan
from depthcell.inspect.cell_gate import CellGate
from depthcell.inspect.decision import combine
from depthcell.inspect.gauges.gauged import gauge_all, not_gauged
from depthcell.inspect.inspection_run import FirstFrames, RunPlan, load_recipe
from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts
from depthcell.inspect.observation import Observer
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.run_folder import software_versions
from depthcell.inspect.verdict import Provenance

_LOG = logging.getLogger(__name__)


class Measurer:
    """Gauges parts by one recipe in one cell. Everything that does not depend on the part is prepared once.

    Attributes:
        recipe: what is to be measured.
        cell: what sees it.
    """

    def __init__(self, recipe: Recipe, cell: Cell, health: Path) -> None:
        """Prepare the reference.

        Args:
            recipe: with gauges.
            cell: of which the recipe's cameras are.
            health: the cell's health file; a cell that failed its check can not say OK.

        Raises:
            DepthcellError: the recipe has no gauge, or does not fit the cell, or its mesh is not usable.
        """
        if not recipe.gauge:
            raise DepthcellError(
                f"recipe '{recipe.name}': has no [[gauge]]; add what is to be measured, see docs/gauges.md",
                Reason.RECIPE_INVALID,
            )
        self.recipe, self.cell = recipe, cell
        self._observer = Observer(recipe, cell)
        self._gate = CellGate(cell, recipe.cell, health)
        self._cell_sha256, self._recipe_sha256 = cell.sha256, recipe.sha256

    def measure(self, part: PartFolder) -> MeasuredPart:
        """Read, fuse, align and gauge one recorded part. A bad part or recording never raises: it is CANNOT-TELL."""
        gaps = list(self._gate.gaps())
        scan, deviation_m, recording_sha256 = None, None, ""
        try:
            recording_sha256 = part.sha256
            frames = self._observer.accumulator()
            for frameset in part.framesets(self.recipe.cell.cameras):
                frames.add(frameset)
            fused = frames.fuse()
            gaps += [f"camera {serial} gave no depth" for serial in fused.missing]
            gaps += [pair.in_words for pair in fused.disagreements]
            observation = self._observer.observe(fused)
            scan = Scan.of(fused.cloud, observation.alignment, self.cell, self._observer.reference)
            points = observation.deviation.points
            deviation_m = np.where(points.patch >= 0, points.deviation_m, np.nan)
            results = gauge_all(self.recipe, scan)
        except (DepthcellError, OSError) as error:
            gaps.append(str(error))
            results = not_gauged(self.recipe, str(error))
        except Exception as error:  # an error of ours must not stop the run, nor pass a part
            _LOG.exception("part %s", part.part_id)
            gaps.append(f"internal error ({type(error).__name__}: {error}); report it with this recording")
            results = not_gauged(self.recipe, gaps[-1])
        decision, reasons = combine([result.judged for result in results], gaps)
        return MeasuredPart(
            part_id=part.part_id,
            scan=scan,
            results=results,
            deviation_m=deviation_m,
            deviation_u_m=None if scan is None else scan.cloud.sigma_m.astype(np.float64),
            decision=decision,
            reasons=reasons,
            provenance=self._provenance(recording_sha256),
            measured_at=now(),
        )

    def _provenance(self, recording_sha256: str) -> Provenance:
        return Provenance(
            recording=recording_sha256,
            cell=self._cell_sha256,
            recipe=self._recipe_sha256,
            model=None,
            software=f"depthcell {__version__}",
        )


def measure_source(
    plan: RunPlan,
    show: Callable[[MeasuredPart], None],
    begin: Callable[[int, MeasurementFacts], None] = lambda _parts, _facts: None,
) -> None:
    """Gauge every part of `plan.source`. Only one part is held at a time.

    Args:
        plan: source, recipe, cell and number of frames, as for an inspection.
        show: called with each part when it was measured.
        begin: called before the first part with their number and what holds for all of them.

    Raises:
        DepthcellError: source, recipe or cell cannot be used.
    """
    recipe = load_recipe(plan)
    cell_path = plan.cell or recipe.cell_path
    cell = Cell.load(cell_path)
    parts = find_parts(plan.source)
    measurer = Measurer(recipe, cell, health_path(cell_path))
    tolerance_mm = recipe.surface.tolerance_mm
    facts = MeasurementFacts(str(plan.source), recipe.name, cell.name, tolerance_mm, now(), software_versions())
    begin(len(parts), facts)
    for part in parts:
        used = part if plan.frames is None else FirstFrames(part.part_id, part.paths, plan.frames)
        show(measurer.measure(used))


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
