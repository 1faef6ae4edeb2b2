"""`depthcell evaluate --pod`: every part of a simulated run inspected, and its verdict held against the truth."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.acquisition.simulator.partrun import TRUTH_FILE
from depthcell.acquisition.simulator.truth import PartTruth
from depthcell.calib.cell import Cell
from depthcell.calib.verify.health import health_path
from depthcell.errors import DepthcellError
from depthcell.files import write_text
from depthcell.inspect.comparison import Comparison
from depthcell.inspect.inspection import Inspector
from depthcell.inspect.inspection_run import FirstFrames, RunPlan, load_recipe
from depthcell.inspect.pod_report import render_page, render_picture
from depthcell.inspect.pod_result import PodStudy
from depthcell.inspect.pod_study import study_of
from depthcell.inspect.run_folder import RunFolder

STUDY_FILE, PICTURE_FILE, PAGE_FILE = "pod.json", "pod.png", "pod.html"


@dataclass(frozen=True, slots=True)
class PodRun:
    """What a run left behind: the study, and the folder with `pod.json`, `pod.png`, `pod.html` and the verdicts."""

    study: PodStudy
    folder: Path


def run_pod(
    plan: RunPlan, begin: Callable[[int], None] = lambda _: None, advance: Callable[[], None] = lambda: None
) -> PodRun:
    """Inspect every part of a simulated run and estimate what the cell detects under its recipe.

    Args:
        plan: source, recipe, cell, model, folder for results and number of frames, as for an inspection.
        begin: called with the number of parts before the first.
        advance: called after each.

    Raises:
        DepthcellError: source, recipe, cell or model cannot be used; a part has no truth beside it; or none has a
            defect.
    """
    parts = find_parts(plan.source)
    truths = [_truth_of(part) for part in parts]
    if all(truth.good for truth in truths):
        raise DepthcellError(f"{plan.source}: no part has a defect; simulate some with --defect-rate above 0")
    recipe = load_recipe(plan)
    cell = Cell.load(plan.cell or recipe.cell_path)
    inspector = Inspector.load(recipe, cell, plan.model)
    if plan.cell is not None:
        inspector.watch_health(health_path(plan.cell))
    folder = RunFolder.create(plan.source, plan.out, datetime.now(UTC))
    begin(len(parts))
    compared: list[Comparison] = []
    with folder:
        folder.write_configuration(recipe, cell, source=plan.source, frames=plan.frames, model=plan.model)
        for sequence, (part, truth) in enumerate(zip(parts, truths, strict=True), start=1):
            used = part if plan.frames is None else FirstFrames(part.part_id, part.paths, plan.frames)
            verdict = inspector.judge(used, sequence, f"recorded:{part.part_id}").verdict
            folder.append(verdict)
            compared.append(Comparison(truth, verdict))
            advance()
    study = study_of(compared, recipe.surface.tolerance_mm, recipe.surface.significance)
    judged_by = "" if plan.model is None else f", model {plan.model}"
    write_study(study, folder.path, f"recipe {recipe.name}, cell {cell.name}{judged_by}")
    return PodRun(study, folder.path)


def write_study(study: PodStudy, folder: Path, what: str) -> None:
    """Write data, picture and page into a folder; `what` says in words what was studied."""
    content = msgspec.json.format(msgspec.json.encode(study), indent=2).decode()
    write_text(folder / STUDY_FILE, content + "\n")
    render_picture(study, folder / PICTURE_FILE)
    write_text(folder / PAGE_FILE, render_page(study, folder / PICTURE_FILE, what))


def _truth_of(part: PartFolder) -> PartTruth:
    path = part.paths[0].parent / TRUTH_FILE
    if not path.is_file():
        raise DepthcellError(
            f"part {part.part_id}: no {TRUTH_FILE} beside its recordings; --pod needs a run of depthcell simulate"
        )
    return PartTruth.load(path)
