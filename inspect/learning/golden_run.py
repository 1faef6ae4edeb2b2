"""`depthcell golden`: recordings of good parts become the statistics that a recipe names as `reference.golden`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError
from depthcell.inspect.golden import Golden, fit_golden
from depthcell.inspect.inspection_run import RunPlan, load_recipe
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
        DepthcellError: `out` is no npz; recipe or cell cannot be used; there are too few parts, or one is labelled
            defective, is there twice, or cannot be read, fused or aligned.
    """
    if out.suffix != ".npz":
        raise DepthcellError(f"--out {out}: must end in .npz")
    recipe = load_recipe(run)
    cell = Cell.load(run.cell or recipe.cell_path)
    parts = find_parts(run.source)
    _check_good_once(parts, run.source)
    begin(len(parts))
    golden = fit_golden(parts, recipe, cell, advance)
    golden.save(out)
    return golden


def _check_good_once(parts: Sequence[PartFolder], source: Path) -> None:
    refused: list[str] = []
    seen: dict[str, str] = {}
    for part in parts:
        labels = PartLabels.beside(part.paths[0].parent)
        if labels is not None and not labels.good:
            refused.append(f"{part.part_id} is labelled defective")
        twin = seen.setdefault(part.sha256, part.part_id)
        if twin != part.part_id:
            refused.append(f"{part.part_id} is the same recording as {twin}")
    if refused:
        raise DepthcellError(f"{source}: golden takes good parts alone, each once; remove: {'; '.join(refused)}")
