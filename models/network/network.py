"""The network: a 2D CNN over the views and a point network over the cloud, which exchange features both ways."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from depthcell.errors import DepthcellError, Reason
from depthcell.models.network.batch import PartBatch
from depthcell.models.network.crossing import Crossing, cells_of, gather_mean, scatter_mean
from depthcell.models.network.heads import (
    CELL_PX,
    START,
    Evidence,
    PartHead,
    PixelHead,
    PointHead,
    pixel_evidence,
    point_evidence,
)
from depthcell.models.network.imagebranch import ImageBranch
from depthcell.models.network.partinput import CHANNELS, CLASSES
from depthcell.models.network.pointbranch import PointBranch

COARSEST = 16
"""Pixels of a side that become one at the coarsest scale."""


SEEN = slice(CHANNELS.index("measured"), CHANNELS.index("colored") + 1)
"""The two channels that say where depth and colour were measured."""


class Reading(StrEnum):
    """Which branch is listened to; each alone sees nothing of the other."""

    BOTH = "both"
    IMAGE = "image"
    POINTS = "points"


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """The size of the network.

    Attributes:
        views: of a part.
        side_px: of a view, a multiple of 16.
        image_width: channels at half the pixels; 2, 4 and 6 times as many at the coarser scales.
        point_width: channels of the first edge convolution, even; twice as many in the next.
        strongest: cells of 4 x 4 pixels, and points, whose mean logit speaks for the part beside the highest.
    """

    views: int = 3
    side_px: int = 256
    image_width: int = 16
    point_width: int = 32
    strongest: int = 16

    def __post_init__(self) -> None:
        for name in ("views", "side_px", "image_width", "point_width", "strongest"):
            if getattr(self, name) < 1:
                raise DepthcellError(f"network: {name} must be at least 1, got {getattr(self, name)}")
        if self.side_px % COARSEST:
            raise DepthcellError(f"network: side_px must be a multiple of {COARSEST}, got {self.side_px}")
        if self.point_width % 2:
            raise DepthcellError(f"network: point_width must be even, got {self.point_width}")


class NetworkOutput(NamedTuple):
    """Logits of a batch of B parts with V views of S x S pixels, M points and n classes (`partinput.CLASSES`).

    Attributes:
        pixel_anomaly: (B, V, S, S); where neither depth nor colour was measured it means nothing.
        pixel_class: (B, V, n, S / 2, S / 2).
        point_anomaly: (M,).
        point_class: (M, n).
        part_anomaly: (B,); 0 where nothing at all was measured.
        part_class: (B, n).
        branch_anomaly: (B, 2), what pixels and what points say of the part; 0 of one that has no evidence.
        gate: (B, 2), how much each counts in `part_anomaly`; sums to 1, or to 0 where nothing was measured.
    """

    pixel_anomaly: Tensor
    pixel_class: Tensor
    point_anomaly: Tensor
    point_class: Tensor
    part_anomaly: Tensor
    part_class: Tensor
    branch_anomaly: Tensor
    gate: Tensor


class PartNetwork(nn.Module):
    """See models/README.md for the design and its figures."""

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        self.settings = settings = settings or NetworkSettings()
        classes = len(CLASSES)
        self.image = ImageBranch(settings.views, settings.side_px, settings.image_width)
        self.point = PointBranch(settings.point_width)
        half, quarter, *_ = self.image.widths
        near, wide, last = self.point.widths
        self.early = Crossing(quarter, near)
        self.late = Crossing(half, wide)
        self.pixel_head = PixelHead(half, classes)
        self.point_head = PointHead(last, classes)
        self.part_head = PartHead(half, last, classes, settings.strongest)

    def forward(self, batch: PartBatch, reading: Reading = Reading.BOTH) -> NetworkOutput:
        """All that the network says of a batch.

        Read alone, a branch speaks for the other's places too: the image's logits are read where a point shows, the
        points' are laid on the pixels in cells of 4 x 4. Places that it does not reach start at -3 and good.

        Args:
            batch: of `batch.collate`.
            reading: which branch is listened to.

        Raises:
            DepthcellError: the batch has other views than the network was made for.
        """
        self._check(batch)
        health = _health(batch)
        if reading is Reading.IMAGE:
            features = self._image_features(batch)
            pixels = self.pixel_head(features)
            return self._output(batch, health, pixels, _at_points(batch, *pixels), (features, None))
        if reading is Reading.POINTS:
            near = self.point.seen_near(batch)
            values = self._last(self.point.second(near, near, batch.edge_index), batch)
            points = self.point_head(values)
            return self._output(batch, health, _at_pixels(batch, *points), points, (None, values))
        features, values = self._crossed(batch, health)
        return self._output(batch, health, self.pixel_head(features), self.point_head(values), (features, values))

    def view_anomaly(self, images: Tensor, view: Tensor) -> Tensor:
        """The fast path: anomaly logits (n, S, S) of images (n, C, S, S) of the views (n,), by the image alone."""
        half, quarter = self.image.shallow(images, view)
        anomaly: Tensor = self.pixel_head(self.image.decoded(self.image.deep(half, quarter)))[0]
        return anomaly

    def _check(self, batch: PartBatch) -> None:
        wanted = (self.settings.views, len(CHANNELS), self.settings.side_px)
        actual = (batch.views, *batch.images.shape[1:3])
        if actual != wanted or len(batch.images) != batch.parts * batch.views:
            raise DepthcellError(
                f"the network is for (views, channels, pixels) {wanted}, the batch has {actual}; "
                "use the model of these canonical views",
                Reason.MODEL_INVALID,
            )

    def _image_features(self, batch: PartBatch) -> Tensor:
        half, quarter = self.image.shallow(batch.images)
        return self.image.decoded(self.image.deep(half, quarter))

    def _crossed(self, batch: PartBatch, health: Tensor) -> tuple[Tensor, Tensor]:
        """Features of pixels and of points, which have met twice: at a quarter of the pixels and at half."""
        half, quarter = self.image.shallow(batch.images)
        near = self.point.seen_near(batch)
        quarter, near = self.early(quarter, near, cells_of(batch, 4), health)
        features = self.image.decoded(self.image.deep(half, quarter))
        wide = self.point.second(near, near, batch.edge_index)
        features, wide = self.late(features, wide, cells_of(batch, 2), health)
        return features, self._last(wide, batch)

    def _last(self, wide: Tensor, batch: PartBatch) -> Tensor:
        deeper: Tensor = self.point.third(wide, wide, batch.edge_index)
        return wide + deeper

    def _output(
        self,
        batch: PartBatch,
        health: Tensor,
        pixels: tuple[Tensor, Tensor],
        points: tuple[Tensor, Tensor],
        features: tuple[Tensor | None, Tensor | None],
    ) -> NetworkOutput:
        """`features` of pixels and of points; None closes that witness."""
        anomaly, kind, scores, gate = self.part_head(
            self._pixel_evidence(batch, pixels[0], features[0]),
            self._point_evidence(batch, points[0], features[1]),
            health.view(batch.parts, batch.views, 2).mean(dim=1),
        )
        shape = (batch.parts, batch.views)
        pixel_anomaly, pixel_class = (logits.reshape(*shape, *logits.shape[1:]) for logits in pixels)
        return NetworkOutput(pixel_anomaly, pixel_class, *points, anomaly, kind, scores, gate)

    def _pixel_evidence(self, batch: PartBatch, anomaly: Tensor, features: Tensor | None) -> Evidence:
        if features is None:
            side = batch.side_px // 2
            features = anomaly.new_zeros((len(anomaly), self.image.widths[0], side, side))
            seen = torch.zeros_like(batch.images[:, :1])
        else:
            seen = batch.images[:, SEEN].amax(dim=1, keepdim=True)
        return pixel_evidence(anomaly, features, seen, batch.parts)

    def _point_evidence(self, batch: PartBatch, anomaly: Tensor, features: Tensor | None) -> Evidence:
        if features is None:
            nowhere = torch.full_like(batch.points_of_part, -1)
            return point_evidence(anomaly, anomaly.new_zeros((len(anomaly), self.point.widths[-1])), nowhere)
        return point_evidence(anomaly, features, batch.points_of_part)


def _health(batch: PartBatch) -> Tensor:
    """(B·V, 2): shares of each image with depth and with colour."""
    return batch.images[:, SEEN].mean(dim=(2, 3))


def _unreached(classes: int, like: Tensor) -> Tensor:
    """(1 + classes,) logits of a place that a branch does not reach."""
    logits = like.new_zeros(1 + classes)
    logits[0], logits[1] = START, -START
    return logits


def _at_points(batch: PartBatch, anomaly: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    """The image's logits at the points: anomaly (M,) and class (M, n)."""
    fine, coarse = cells_of(batch, 1), cells_of(batch, 2)
    logits = torch.cat((gather_mean(anomaly[:, None], fine), gather_mean(kind, coarse)), dim=1)
    reached = fine.seen.amax(dim=1, keepdim=True) > 0
    logits = torch.where(reached, logits, _unreached(kind.shape[1], logits))
    return logits[:, 0], logits[:, 1:]


def _at_pixels(batch: PartBatch, anomaly: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    """The points' logits at the pixels: anomaly (B·V, S, S) and class (B·V, n, S / 2, S / 2)."""
    cells, images = cells_of(batch, CELL_PX), len(batch.images)
    logits = torch.cat((anomaly[:, None], kind), dim=1)
    laid = scatter_mean(torch.cat((logits, torch.ones_like(logits[:, :1])), dim=1), cells, images)
    unreached = _unreached(kind.shape[1], laid)[:, None, None]
    laid = torch.where(laid[:, -1:] > 0, laid[:, :-1], unreached)
    fine = functional.interpolate(laid[:, :1], scale_factor=float(CELL_PX), mode="nearest")
    return fine[:, 0], functional.interpolate(laid[:, 1:], scale_factor=CELL_PX / 2, mode="nearest")
