"""What the network says: of each pixel, of each point, and of the part from the strongest evidence of both."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from depthcell.models.network.imagebranch import ConvBlock

LOWEST = -30.0
"""Logit of what was not measured, among evidence."""

START = -3.0
"""Logit with which every pixel and point starts out: defects are rare."""

CELL_PX = 4
"""Evidence of pixels is gathered from the strongest of 4 x 4."""


class PixelHead(nn.Module):
    """Of maps at half the pixels: an anomaly logit per pixel and a class per two by two."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.shared = ConvBlock(channels, channels)
        self.anomaly = nn.Conv2d(channels, 4, 3, padding=1)
        self.kind = nn.Conv2d(channels, classes, 1)
        nn.init.constant_(_bias(self.anomaly), START)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, S, S) and (n, classes, S / 2, S / 2)."""
        shared = self.shared(maps)
        return functional.pixel_shuffle(self.anomaly(shared), 2)[:, 0], self.kind(shared)


class PointHead(nn.Module):
    """Of each point: an anomaly logit and a class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.anomaly = nn.Linear(channels, 1)
        self.kind = nn.Linear(channels, classes)
        nn.init.constant_(_bias(self.anomaly), START)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (M,) and (M, classes)."""
        return self.anomaly(values)[:, 0], self.kind(values)


class Evidence(NamedTuple):
    """Places of one kind that may speak for their part. L of them, B parts.

    Attributes:
        logits: (B, L) anomaly.
        features: (B, L, C).
        present: (B, L) bool, measured.
    """

    logits: Tensor
    features: Tensor
    present: Tensor


def pixel_evidence(anomaly: Tensor, features: Tensor, images: Tensor, parts: int) -> Evidence:
    """Of all views of a part, cell by cell; a cell is present where any of its pixels was measured.

    Args:
        anomaly: (B·V, S, S) logits.
        features: (B·V, C, S / 2, S / 2).
        images: (B·V, 1, S, S), above 0 where depth or colour was measured.
        parts: B.
    """
    present = images > 0
    masked = anomaly[:, None].float().masked_fill(~present, LOWEST)
    strongest = functional.max_pool2d(masked, CELL_PX)
    pooled = functional.avg_pool2d(features.float(), CELL_PX // 2)
    return Evidence(
        strongest.reshape(parts, -1),
        pooled.permute(0, 2, 3, 1).reshape(parts, -1, pooled.shape[1]),
        functional.max_pool2d(images, CELL_PX).reshape(parts, -1) > 0,
    )


def point_evidence(anomaly: Tensor, features: Tensor, points_of_part: Tensor) -> Evidence:
    """Of the points (M,), (M, C) of each part (B, L), -1 behind the last."""
    present = points_of_part >= 0
    if not len(anomaly):
        features = features.new_zeros((1, features.shape[1]))
        anomaly = features[:, 0]
    index = points_of_part.clamp(min=0)
    return Evidence(anomaly.float()[index].masked_fill(~present, LOWEST), features.float()[index], present)


class Witness(nn.Module):
    """What one kind of evidence says of the part: a score from the strongest places, and what they look like."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.score = nn.Linear(2, 1)
        nn.init.constant_(self.score.weight, 0.5)
        nn.init.zeros_(_bias(self.score))

    def forward(self, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
        """Score (B,), features (B, C) and whether there is any evidence (B,); score and features are 0 without.

        The score rests on the highest logit and on the mean of the `count` highest; features are a mean whose weights
        are the softmax of the logits, so that the most anomalous place is described.
        """
        present = evidence.present.float()
        any_present = present.amax(dim=1)
        top = evidence.logits.topk(min(self.count, evidence.logits.shape[1]), dim=1)
        counted = present.gather(1, top.indices)
        mean = (top.values * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        score = self.score(torch.stack((top.values[:, 0], mean), dim=1))[:, 0]
        weight = torch.softmax(evidence.logits, dim=1) * present
        features = torch.einsum("bl,blc->bc", weight, evidence.features)
        return score * any_present, features * any_present[:, None], any_present


class PartHead(nn.Module):
    """The part, from pixels and points. A gate learned from what was measured shares the word among them.

    The gate is a softmax over both, closed for one without evidence; so the loss of one leaves the other's score, and
    without either the logit is 0: nothing is known.
    """

    def __init__(self, pixel_channels: int, point_channels: int, classes: int, strongest: int) -> None:
        super().__init__()
        self.pixels = Witness(strongest)
        self.points = Witness(strongest)
        self.gate = nn.Linear(2, 2)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(_bias(self.gate))
        self.kind = nn.Linear(pixel_channels + point_channels, classes)

    def forward(self, pixels: Evidence, points: Evidence, health: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Anomaly (B,), class (B, classes), anomaly by branch (B, 2) and gate (B, 2), pixels before points.

        Args:
            pixels: their evidence.
            points: their evidence.
            health: (B, 2), shares of the part's images with depth and with colour.
        """
        pixel_score, pixel_features, pixel_any = self.pixels(pixels)
        point_score, point_features, point_any = self.points(points)
        scores = torch.stack((pixel_score, point_score), dim=1)
        known = torch.stack((pixel_any, point_any), dim=1)
        gate = torch.softmax(self.gate(health).float().masked_fill(known == 0, LOWEST), dim=1) * known
        gate = gate / gate.sum(dim=1, keepdim=True).clamp(min=1e-6)
        kind = self.kind(torch.cat((pixel_features, point_features), dim=1))
        return (gate * scores).sum(dim=1), kind, scores, gate


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    assert layer.bias is not None  # noqa: S101 - all layers here have one
    return layer.bias
