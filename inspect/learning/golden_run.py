"""`depthcell golden`: recordings of good parts become the statistics that a recipe names as `reference.golden`."""

from collections.abc import Callable
from pathlib import Path

from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError
from depthcell.inspect.golden import Golden, GoodPart, golden_of, observed_good
from depthcell.inspect.inspection_run import RunPlan, load_recipe
from depthcell.inspect.judgement import judge
from depthcell.inspect.learning.training_parts import check_is_good, check_no_part_refused
from depthcell.inspect.observation import Observation, Observer
from depthcell.models.views.partlabels import PartLabels


def golden_run(
    run: RunPlan,
    out: Path,
    begin: Callable[[int], None] = lambda _: None,
    advance: Callable[[], None] = lambda: None,
) -> Golden:
    """Fit the statistics to every part of a folder, and write them to `out`.

    Args:
        run: the folder of good parts, recipe and cell.
        out: npz to write.
        begin: called with the number of parts before the first.
        advance: called after each.

    Raises:
        DepthcellError: `out` is no npz; recipe or cell cannot be used; there are too few parts; or some are labelled
            defective, deviate far beyond the tolerance, are there twice, or cannot be read, fused or aligned: these
            are named together, after all were read.
    """
    if out.suffix != ".npz" or out.is_dir():
        raise DepthcellError(f"--out {out}: name a file that ends in .npz")
    recipe = load_recipe(run)
    observer = Observer(recipe, Cell.load(run.cell or recipe.cell_path))
    parts = find_parts(run.source)
    begin(len(parts))
    refused: list[str] = []
    seen: dict[str, str] = {}
    good: list[GoodPart] = []
    for part in parts:
        try:
            twin = seen.setdefault(part.sha256, part.part_id)
            if twin != part.part_id:
                refused.append(f"{part.part_id} is the same recording as {twin}; remove one")
            else:
                good.append(GoodPart.of(_good(part, observer), part.part_id))
        except DepthcellError as error:
            named = part.part_id in str(error)
            refused.append(str(error) if named else f"{part.part_id}: {error}")
        advance()
    check_no_part_refused(refused, f"{run.source}: golden takes good parts alone, each once")
    golden = golden_of(good, observer)
    golden.save(out)
    return golden


def _good(part: PartFolder, observer: Observer) -> Observation:
    """The part observed, unless its labels or its shape say that it is not good."""
    labels = PartLabels.beside(part.paths[0].parent)
    if labels is not None and not labels.good:
        raise DepthcellError(f"{part.part_id} is labelled defective; remove it")
    observation = observed_good(observer, part)
    found = (one.finding for one in judge(observation, observer, None).found)
    check_is_good(part.part_id, found, observer.recipe.surface.tolerance_mm)
    return observation
