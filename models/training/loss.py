"""What a network's answer costs: pixels, points and the part, whether anything is wrong and what."""

import torch
from torch import Tensor
from torch.nn import functional

from depthcell.models.network.batch import LabelBatch, PartBatch
from depthcell.models.network.network import SEEN, NetworkOutput

FOCUS = 2.0
"""Gamma of the focal loss (T.-Y. Lin et al., ICCV 2017): what is answered well counts little."""
DEFECT_WEIGHT = 0.75
"""Alpha of the focal loss: defects cover a hundredth of the places."""
DICE_WEIGHT, CLASS_WEIGHT, BRANCH_WEIGHT = 0.5, 0.2, 0.3


def part_loss(output: NetworkOutput, batch: PartBatch, labels: LabelBatch) -> Tensor:
    """The sum of all losses, a scalar. Pixels where neither depth nor colour was measured do not count."""
    seen = batch.images[:, SEEN].amax(dim=1).view_as(output.pixel_anomaly) > 0
    pixels = _places(output.pixel_anomaly[seen], labels.pixels[seen])
    points = _places(output.point_anomaly, labels.points)
    wrong = (labels.parts > 0).float()
    part = functional.binary_cross_entropy_with_logits(output.part_anomaly, wrong)
    branches = functional.binary_cross_entropy_with_logits(output.branch_anomaly, wrong[:, None].expand(-1, 2))
    half = labels.pixels[..., ::2, ::2].flatten(0, 1)
    kinds = _kinds(output.pixel_class.flatten(0, 1), half) + _kinds(output.point_class, labels.points)
    kinds = kinds + _kinds(output.part_class, labels.parts)
    return pixels + points + part + BRANCH_WEIGHT * branches + CLASS_WEIGHT * kinds


def _places(logits: Tensor, classes: Tensor) -> Tensor:
    """Focal loss over the number of defective places, and soft Dice (F. Milletari et al., 3DV 2016)."""
    wrong = (classes > 0).float()
    each = functional.binary_cross_entropy_with_logits(logits, wrong, reduction="none")
    weight = torch.where(wrong > 0, DEFECT_WEIGHT, 1 - DEFECT_WEIGHT)
    focal = (weight * (1 - torch.exp(-each)) ** FOCUS * each).sum() / wrong.sum().clamp(min=100.0)
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * wrong).sum() + 1
    dice = 1 - overlap / (probability.sum() + wrong.sum() + 1)
    return focal + DICE_WEIGHT * dice * (wrong.sum() > 0)


def _kinds(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of the kinds (n, classes, ...) of defective places; 0 where there is none."""
    wrong = classes > 0
    if not bool(wrong.any()):
        return logits.sum() * 0
    flat = logits if logits.dim() == 2 else logits.movedim(1, -1)
    return functional.cross_entropy(flat[wrong], classes[wrong])
