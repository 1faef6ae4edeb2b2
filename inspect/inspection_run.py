"""A run: every part of a source judged in turn. First the verdict goes out, then it is kept, then it is pictured."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from depthcell.acquisition.frameset import FrameSet
from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.acquisition.synchronizer import SyncSettings
from depthcell.calib.cell import Cell
from depthcell.calib.verify.health import health_path
from depthcell.errors import DepthcellError, Reason
from depthcell.inspect.inspection import Inspection, Inspector
from depthcell.inspect.pictures import view_pictures
from depthcell.inspect.publisher import Outlet
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.report import MAX_PICTURED_PARTS, ReportedPart, RunFacts
from depthcell.inspect.run_folder import RunFolder, software_versions
from depthcell.inspect.verdict import Verdict

RECIPE_FILE, CELL_FILE = "recipe.toml", "cell.json"


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What to inspect, and how.

    Attributes:
        source: a folder of part folders, one part folder, or one recording.
        recipe: recipe file; None takes the one beside the parts.
        cell: cell file; None takes the one that the recipe names.
        out: folder for the results; None makes a new one beside the parts.
        frames: frames of each part to use; None for all.
        with_report: whether the report is written.
        listener_wait_s: how long to wait for somebody to tell before the first part.
        model: folder of a trained model that judges too; None for none.
    """

    source: Path
    recipe: Path | None = None
    cell: Path | None = None
    out: Path | None = None
    frames: int | None = None
    with_report: bool = True
    listener_wait_s: float = 2.0
    model: Path | None = None

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise DepthcellError(f"--frames {self.frames}: must be 1 or more")


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run left behind; `report` is None where none was asked for."""

    verdicts: tuple[Verdict, ...]
    folder: Path
    report: Path | None


@dataclass(frozen=True, slots=True)
class FirstFrames(PartFolder):
    """A part of which only the first `limit` frame sets are used."""

    limit: int = 1

    def framesets(
        self, expected: Sequence[str] | None = None, settings: SyncSettings | None = None
    ) -> Iterator[FrameSet]:
        """See `PartFolder.framesets`."""
        return islice(PartFolder.framesets(self, expected, settings), self.limit)


def run_inspection(
    plan: RunPlan,
    outlet: Outlet,
    show: Callable[[Verdict], None],
    begin: Callable[[int], None] = lambda _: None,
) -> RunResult:
    """Judge every part of `plan.source`. Whatever ends the run early, what was judged until then is kept and reported.

    Args:
        plan: what to inspect.
        outlet: where verdicts go, at once.
        show: called with each verdict after it was sent and kept.
        begin: called with the number of parts before the first is judged.

    Raises:
        DepthcellError: source, recipe, cell or model cannot be used, or the results cannot be written.
    """
    with outlet:
        record = _Record.opened(plan)
        try:
            outlet.wait_for_listener(plan.listener_wait_s)
            begin(len(record.parts))
            for sequence, part in enumerate(record.parts, start=1):
                inspection = record.inspector.judge(part, sequence, _trigger_id(part, plan))
                outlet.publish(inspection.verdict)
                record.keep(inspection.verdict)
                show(inspection.verdict)
                record.picture(inspection)
        finally:
            # Listeners hear of the end first; the report may take its time.
            outlet.close(complete=record.is_whole)
            record.close()
    return RunResult(tuple(part.verdict for part in record.reported), record.folder.path, record.report)


class _Record:
    """A run under way: what was prepared for it, and what it has found so far."""

    def __init__(self, plan: RunPlan, inspector: Inspector, parts: tuple[PartFolder, ...], folder: RunFolder) -> None:
        self.plan = plan
        self.inspector = inspector
        self.parts = parts
        self.folder = folder
        self.reported: list[ReportedPart] = []
        self.report: Path | None = None
        self._started_at = _utc_now()

    @classmethod
    def opened(cls, plan: RunPlan) -> "_Record":
        recipe = load_recipe(plan)
        cell = Cell.load(plan.cell or recipe.cell_path)
        parts = find_parts(plan.source)
        if plan.frames is not None:
            parts = tuple(FirstFrames(part.part_id, part.paths, plan.frames) for part in parts)
        inspector = Inspector.load(recipe, cell, plan.model)
        if plan.cell is not None:
            inspector.watch_health(health_path(plan.cell))
        folder = RunFolder.create(plan.source, plan.out, datetime.now(UTC))
        folder.write_configuration(recipe, cell, source=plan.source, frames=plan.frames, model=plan.model)
        return cls(plan, inspector, parts, folder)

    @property
    def is_whole(self) -> bool:
        """Whether every part was judged."""
        return len(self.reported) == len(self.parts)

    def keep(self, verdict: Verdict) -> None:
        """On disk first; a verdict that is only in memory is not kept."""
        self.folder.append(verdict)
        self.reported.append(ReportedPart(verdict))

    def picture(self, inspection: Inspection) -> None:
        """Pictures of the part just kept, if a person should look at it."""
        pictured = sum(bool(part.pictures) for part in self.reported)
        if self.plan.with_report and self.reported[-1].is_flagged and pictured < MAX_PICTURED_PARTS:
            recipe, cell = self.inspector.recipe, self.inspector.cell
            pictures = view_pictures(inspection, cell, recipe.surface.tolerance_mm)
            self.reported[-1] = ReportedPart(inspection.verdict, pictures)

    def close(self) -> None:
        """Write the report on what there is."""
        with self.folder as folder:
            if self.plan.with_report:
                self.report = folder.write_report(self._facts(), self.reported)

    def _facts(self) -> RunFacts:
        recipe, cell = self.inspector.recipe, self.inspector.cell
        return RunFacts(
            source=str(self.plan.source),
            recipe_name=recipe.name,
            cell_name=cell.name,
            recipe_json=recipe.to_json(),
            cell_json=cell.to_json(),
            started_at=self._started_at,
            finished_at=_utc_now(),
            takt_ms=recipe.takt_ms,
            tolerance_mm=recipe.surface.tolerance_mm,
            versions=software_versions(),
            interrupted=not self.is_whole,
        )


def load_recipe(plan: RunPlan) -> Recipe:
    """The recipe named, or the one beside the parts; the files it names may lie beside it or beside the parts.

    Raises:
        DepthcellError: there is none, or it is not as it should be.
    """
    path = _recipe_path(plan)
    folders = [folder for folder in (plan.source, plan.source.parent) if (folder / CELL_FILE).is_file()]
    return Recipe.load(path, folders[0] if folders else None)


def _recipe_path(plan: RunPlan) -> Path:
    """The recipe named, or the one beside the parts: in `source`, or above it where `source` is one part."""
    if plan.recipe is not None:
        return plan.recipe
    for folder in (plan.source, plan.source.parent):
        if (folder / RECIPE_FILE).is_file():
            return folder / RECIPE_FILE
    if not plan.source.exists():
        raise DepthcellError(f"{plan.source}: does not exist; name a recording or a folder of parts")
    raise DepthcellError(f"{plan.source}: holds no {RECIPE_FILE}; name one with --recipe", Reason.RECIPE_INVALID)


def _trigger_id(part: PartFolder, plan: RunPlan) -> str:
    """Recorded parts were not triggered by a line; this says what asked for the verdict, the same each time."""
    return f"recorded:{part.part_id}" + ("" if plan.frames is None else f":first-{plan.frames}-frames")


def _utc_now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
