"""Where pixels and points meet: features carried both ways along the known projection, visibility checked.

After FFB6D (He et al., CVPR 2021), which showed that crossing in both directions at several depths of the network does
better than joining the two before or after. There a pixel and a point find each other by nearest neighbours; here the
cells are calibrated and each point knows its pixel in every camera that sees it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from depthcell.models.network.batch import PartBatch
from depthcell.models.network.geometric import scatter


class Cells(NamedTuple):
    """Where each point falls in feature maps (B·V, C, side, side).

    Attributes:
        cell: (M, V) int64 into B·V·side·side, view by view; 0 where not seen.
        seen: (M, V) float32, 1 where the camera sees the point, else 0.
        side: of the map.
    """

    cell: Tensor
    seen: Tensor
    side: int


def cells_of(batch: PartBatch, stride: int) -> Cells:
    """Cells of `stride` x `stride` pixels; the side of the images must be a multiple of it."""
    side = batch.side_px // stride
    seen = batch.pixel >= 0
    pixel = batch.pixel.clamp(min=0)
    row, column = pixel // batch.side_px // stride, pixel % batch.side_px // stride
    view = torch.arange(batch.views, device=pixel.device)
    image = batch.part_of_point[:, None] * batch.views + view
    return Cells(((image * side + row) * side + column) * seen, seen.to(torch.float32), side)


def gather_mean(maps: Tensor, cells: Cells, weight: Tensor | None = None) -> Tensor:
    """(M, C): of each point, the mean over the views that see it; 0 where none does.

    Args:
        maps: (B·V, C, side, side).
        cells: where the points fall.
        weight: (M, V), how much each view counts in the sum; the mean still divides by the number of views.
    """
    flat = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    share = cells.seen if weight is None else cells.seen * weight
    taken = flat[cells.cell.reshape(-1)].view(*cells.cell.shape, maps.shape[1]).float()
    return (taken * share[..., None]).sum(dim=1) / cells.seen.sum(dim=1, keepdim=True).clamp(min=1)


def scatter_mean(values: Tensor, cells: Cells, images: int) -> Tensor:
    """(B·V, C, side, side): in each cell the mean of the points that fall into it and are seen there; 0 without any.

    Args:
        values: (M, C) of the points.
        cells: where they fall.
        images: B·V.
    """
    size = images * cells.side**2
    views = cells.cell.shape[1]
    index = cells.cell.reshape(-1)
    ones = torch.ones_like(values[:, :1])
    spread = torch.cat((values, ones), dim=1).float()[:, None].expand(-1, views, -1) * cells.seen[..., None]
    summed: Tensor = scatter(spread.reshape(len(index), spread.shape[-1]), index, dim=0, dim_size=size, reduce="sum")
    mean = summed[:, :-1] / summed[:, -1:].clamp(min=1)
    return mean.view(images, cells.side, cells.side, -1).permute(0, 3, 1, 2)


class Crossing(nn.Module):
    """Adds to each pixel what the points there know, and to each point what the pixels there know.

    A gate per view and direction, learned from the shares of its pixels with depth and with colour, decides how much
    is believed of a view that lost one of them.
    """

    def __init__(self, pixel_channels: int, point_channels: int) -> None:
        super().__init__()
        self.to_points = nn.Linear(pixel_channels, point_channels, bias=False)
        self.to_pixels = nn.Linear(point_channels, pixel_channels, bias=False)
        self.gate = nn.Linear(2, 2)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 2.0)

    def forward(self, maps: Tensor, values: Tensor, cells: Cells, health: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides after the exchange.

        Args:
            maps: (B·V, C, side, side) of the pixels.
            values: (M, F) of the points.
            cells: where the points fall in `maps`.
            health: (B·V, 2), shares of each image with depth and with colour.
        """
        gate = torch.sigmoid(self.gate(health))
        image = torch.div(cells.cell, cells.side**2, rounding_mode="floor")
        from_pixels = gather_mean(maps, cells, gate[:, 0].float()[image])
        from_points = scatter_mean(self.to_pixels(values), cells, len(maps))
        return (
            maps + from_points * gate[:, 1, None, None, None],
            values + self.to_points(from_pixels),
        )
