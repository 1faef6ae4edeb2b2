"""How much colour and depth count: chosen where the answer is known, so fusion is no worse there than either alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.models.baseline_features import CELL_PX
from depthcell.models.goodonly.features import Branch
from depthcell.models.goodonly.goodmodel import Gate, GoodJudgement, GoodModel
from depthcell.models.metrics import ScoredImage, auroc, curve
from depthcell.models.network.partinput import PartInput

CANDIDATES = tuple(Gate(rgb, 1 - rgb) for rgb in (0.5, 0.9, 0.1, 0.99, 0.01, 1.0, 0.0))
"""Both alone are among them; the first of equals is taken."""
WITH_STUDENT = (*CANDIDATES, Gate(0.45, 0.45, 0.1), Gate(1 / 3, 1 / 3, 1 / 3), Gate(0.0, 0.0, 1.0))
"""The same where there is a student, which counts only where no gate without it does as well."""
FALSE_POSITIVES = 0.01

Cells = dict[Branch, NDArray[np.float16]]


@dataclass(frozen=True, slots=True)
class GateChoice:
    """What each gate gave on the validation parts.

    Attributes:
        gate: the best: highest image AUROC, then highest AUPRO@1 %.
        image_auroc, aupro_1: of "rgb", "depth", "student" if there is one, and "fused", the last with `gate`.
    """

    gate: Gate
    image_auroc: dict[str, float]
    aupro_1: dict[str, float]


def choose_gate(model: GoodModel, good: Sequence[PartInput], defective: Sequence[PartInput]) -> GateChoice:
    """Try the gates on validation parts that the model has not learned from.

    Args:
        model: what judges.
        good: good parts.
        defective: parts with labels, such as good ones with painted defects.

    Raises:
        DepthcellError: one of the two is empty, or a defective part has no label of a defect.
    """
    if not good or not defective:
        raise DepthcellError("gate: needs good and defective validation parts to choose by")
    labels = [_mask(part) for part in defective]
    masks = [np.zeros_like(labels[0])] * len(good) + labels
    is_defect = np.array([False] * len(good) + [True] * len(defective))
    candidates = CANDIDATES if model.student is None else WITH_STUDENT
    hearing_all = model if model.student is None else model.with_gate(Gate(1 / 3, 1 / 3, 1 / 3))
    judged = [_branches(hearing_all.judge(part)) for part in (*good, *defective)]
    found = {gate: _figures(model, gate, judged, masks, is_defect) for gate in candidates}
    best = max(candidates, key=lambda gate: found[gate])
    by_name = {"rgb": found[Gate(1.0, 0.0)], "depth": found[Gate(0.0, 1.0)], "fused": found[best]}
    if model.student is not None:
        by_name["student"] = found[Gate(0.0, 0.0, 1.0)]
    return GateChoice(best, {name: f[0] for name, f in by_name.items()}, {name: f[1] for name, f in by_name.items()})


def _branches(judgement: GoodJudgement) -> Cells:
    return {branch: cells.astype(np.float16) for branch, cells in judgement.branch_cells.items()}


def _figures(
    model: GoodModel,
    gate: Gate,
    judged: Sequence[Cells],
    masks: Sequence[NDArray[np.bool_]],
    is_defect: NDArray[np.bool_],
) -> tuple[float, float]:
    fuser = model.with_gate(gate)
    fused = [fuser.fuse({branch: cells.astype(np.float32) for branch, cells in one.items()}) for one in judged]
    scores = np.array([fuser.part_score(cells) for cells in fused])
    images = [
        ScoredImage.of(np.nan_to_num(view), mask)
        for cells, view_masks in zip(fused, masks, strict=True)
        for view, mask in zip(cells, view_masks, strict=True)
    ]
    return auroc(is_defect, scores), curve(images).aupro(FALSE_POSITIVES)


def _mask(part: PartInput) -> NDArray[np.bool_]:
    """(V, c, c) where the part is defective, on cells of two pixels."""
    if part.labels is None or not part.labels.is_defect:
        raise DepthcellError(f"part {part.part_id}: is given as defective but labels no defect")
    return part.labels.pixels[:, ::CELL_PX, ::CELL_PX] > 0
