"""`depthcell explain`: one part judged again, and why, as one HTML file that needs nothing else."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError
from depthcell.files import write_text
from depthcell.inspect.inspection import Inspector
from depthcell.inspect.inspection_run import RunPlan, load_recipe
from depthcell.inspect.learning.explain_pictures import (
    color_picture,
    curves_picture,
    cut_out,
    data_uri,
    deviation_picture,
    heat_picture,
    png_uri,
)
from depthcell.inspect.learning.explanation import ExplainedFinding, Explanation, check_explainable, explain_part
from depthcell.inspect.learning.modelreasons import ModelReasons
from depthcell.inspect.report import signed, with_uncertainty
from depthcell.models.artifact import load_model
from depthcell.models.explanation.findingfeatures import FEATURES, IN_WORDS
from depthcell.models.explanation.tree import ReasonTree
from depthcell.webpage import page_templates

TEMPLATE = "explain.html.j2"
MOST_NAMED = 40
"""Part numbers that a refusal lists."""


@dataclass(frozen=True, slots=True)
class ExplainPlan:
    """What to explain.

    Attributes:
        run: folder of parts, and recipe and cell if not those beside them.
        model: folder of the model.
        part: which part: its name, the number its name ends with, or its place in the run from 1.
        out: HTML file to write.
    """

    run: RunPlan
    model: Path
    part: str
    out: Path


def explain_run(plan: ExplainPlan) -> Explanation:
    """Judge one part with a model, explain the verdict, write the page.

    Raises:
        DepthcellError: source, recipe, cell or model cannot be used, there is no such part, or nothing of it was seen.
    """
    if plan.out.is_dir():
        raise DepthcellError(f"--out {plan.out}: is a folder; name an HTML file")
    part = chosen_part(find_parts(plan.run.source), plan.part, plan.run.source)
    reasons = ModelReasons.of(load_model(plan.model))
    recipe = load_recipe(plan.run)
    inspector = Inspector.load(recipe, Cell.load(plan.run.cell or recipe.cell_path), plan.model)
    check = inspector.model_check
    assert check is not None  # noqa: S101 - a model was given; tells the type checker
    inspection = inspector.judge(part, 1, f"explained:{part.part_id}")
    check_explainable(inspection, plan.run.source)
    assert inspection.fused is not None  # noqa: S101 - checked above
    assert inspection.alignment is not None  # noqa: S101
    seen = check.part_input(inspection.fused, inspection.alignment.T_cell_part, part.part_id)
    explanation = explain_part(inspection, seen, check.model, reasons, check.views)
    limit_mm = 2 * recipe.surface.tolerance_mm
    write_text(plan.out, explanation_html(explanation, reasons.tree, f"{recipe.name}, model {plan.model}", limit_mm))
    return explanation


def chosen_part(parts: Sequence[PartFolder], wanted: str, source: Path) -> PartFolder:
    """The part that a person means: its name, else the number its name ends with, else its place from 1.

    Raises:
        DepthcellError: there is none, or several; the message lists what there is.
    """
    named = [part for part in parts if part.part_id == wanted]
    if not named and wanted.isdecimal():
        numbers = [re.search(r"(\d+)$", part.part_id) for part in parts]
        named = [p for p, n in zip(parts, numbers, strict=True) if n is not None and int(n[1]) == int(wanted)]
        if not named and not all(numbers) and 1 <= int(wanted) <= len(parts):
            named = [parts[int(wanted) - 1]]
    if len(named) == 1:
        return named[0]
    there = ", ".join(part.part_id for part in parts[:MOST_NAMED])
    more = f" and {len(parts) - MOST_NAMED} more" if len(parts) > MOST_NAMED else ""
    which = "several such parts" if named else "no such part"
    raise DepthcellError(f"--part {wanted}: {which} in {source}; there are {there}{more}")


def explanation_html(explanation: Explanation, tree: ReasonTree | None, what: str, limit_mm: float) -> str:
    """The page as text.

    Args:
        explanation: of one part.
        tree: of the model.
        what: recipe and model in words.
        limit_mm: deviation that is drawn in full colour.
    """
    folder = Path(__file__).parent
    environment = page_templates(folder, folder.parent)
    environment.filters |= {"pm": with_uncertainty, "signed": signed}
    measured = explanation.faithfulness
    return environment.get_template(TEMPLATE).render(
        explanation=explanation,
        verdict=explanation.verdict,
        what=what,
        rows=[_row(found, explanation, limit_mm) for found in explanation.findings],
        views=_views(explanation),
        faithfulness=measured,
        curves=png_uri(curves_picture(measured)) if measured else None,
        tree=None if tree is None else png_uri(tree.picture()),
        limit_mm=limit_mm,
    )


def _row(found: ExplainedFinding, explanation: Explanation, limit_mm: float) -> dict[str, Any]:
    part, good, view, mask = explanation.part, explanation.good, found.view, found.mask
    heat, pixels = explanation.opinion.pixel_probability, explanation.saliency.pixels
    pictures = [
        ("this part, colour", color_picture(part, view)),
        (f"{explanation.good_id}, colour", color_picture(good, view)),
        ("this part, deviation", deviation_picture(part, view, limit_mm)),
        (f"{explanation.good_id}, deviation", deviation_picture(good, view, limit_mm)),
        ("probability of a defect", heat_picture(part, view, heat[view], 1.0)),
        (f"saliency: {explanation.saliency.name}", heat_picture(part, view, pixels[view], float(pixels.max()))),
    ]
    return {
        "finding": found.finding,
        "serial": part.serials[view],
        "pictures": [(title, cut_out(picture, mask)) for title, picture in pictures],
        "features": _features(found),
        "reason": found.reason,
        "saliency_share": found.saliency_share,
    }


def _features(found: ExplainedFinding) -> list[tuple[str, str]]:
    if found.features is None:
        return []
    values = zip(FEATURES, found.features.values(), strict=True)
    return [(IN_WORDS[name][0], f"{value:.3g} {IN_WORDS[name][1]}".strip()) for name, value in values]


def _views(explanation: Explanation) -> list[tuple[str, str, str]]:
    """For each view its serial number, what the camera saw, and the model's map over it."""
    part, heat = explanation.part, explanation.opinion.pixel_probability
    return [
        (serial, data_uri(color_picture(part, view)), data_uri(heat_picture(part, view, heat[view], 1.0)))
        for view, serial in enumerate(part.serials)
    ]
