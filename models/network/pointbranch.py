"""The 3D side: edge convolutions over the points of a part and their nearest neighbours."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from depthcell.models.network.batch import PartBatch
from depthcell.models.network.geometric import MessagePassing, scatter
from depthcell.models.network.imagebranch import UNITS, significance
from depthcell.models.network.partinput import NEIGHBOURS, POINT_FEATURES

INPUTS = len(POINT_FEATURES) + 1 + 3
"""Features of a point, deviation over sigma, position."""


class EdgeLayer(MessagePassing):  # type: ignore[misc]
    """Edge convolution (Wang et al., "Dynamic Graph CNN", ACM TOG 38, 2019) over K edges per point, made thin.

    With `h_ij = ReLU(A x_i + B (y_j - y_i) + b)` over the edge from neighbour j to point i, a point becomes
    `ReLU(norm(own x_i + [max_j C h_ij, mean_j D h_ij]))`: half of its channels say what is strongest around it, half
    what is common. `A x + b - B y` and `B y` are computed once per point, not per edge, for `B (y_j - y_i) = B y_j -
    B y_i`; and the mean goes before D. x and y are the same but in the first layer, where y measures positions in
    spacings of the points and x in radii of the part.
    """

    def __init__(self, channels_in: int, hidden: int, channels_out: int) -> None:
        super().__init__(aggr=None)
        self.hidden = hidden
        self.centre = nn.Linear(channels_in, hidden)
        self.difference = nn.Linear(channels_in, hidden, bias=False)
        self.strongest = nn.Linear(hidden, channels_out // 2, bias=False)
        self.common = nn.Linear(hidden, channels_out // 2, bias=False)
        self.own = nn.Linear(channels_in, channels_out, bias=False)
        self.norm: nn.Module = nn.BatchNorm1d(channels_out)

    def forward(self, x: Tensor, y: Tensor, edge_index: Tensor) -> Tensor:
        """(M, out) of points x, y (M, in), edges sorted by point, K of each."""
        sent = self.difference(y)
        around = self.propagate(edge_index, sent=sent, kept=self.centre(x) - sent)
        return functional.relu(self.norm(self.own(x) + around), inplace=True)

    def message(self, sent_j: Tensor) -> Tensor:
        """(M·K, hidden) over the edges."""
        return sent_j

    def aggregate(self, inputs: Tensor, kept: Tensor) -> Tensor:
        """(M, out) over the K edges of each point, which stand together: a reshape takes the place of a scatter."""
        edges = functional.relu(inputs.view(len(kept), NEIGHBOURS, self.hidden) + kept[:, None], inplace=True)
        return torch.cat((self.strongest(edges).amax(dim=1), self.common(edges.mean(dim=1))), dim=1)


class PointBranch(nn.Module):
    """Three edge convolutions; pixels join after the first and after the second."""

    unit: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widths = (width, 2 * width, 2 * width)
        near, wide, last = self.widths
        self.first = EdgeLayer(INPUTS, width // 2, near)
        self.second = EdgeLayer(near, width // 2, wide)
        self.third = EdgeLayer(wide, width // 2, last)
        unit = torch.tensor([UNITS.get(name, 1.0) for name in POINT_FEATURES])
        self.register_buffer("unit", unit, persistent=False)

    def seen_near(self, batch: PartBatch) -> Tensor:
        """(M, width) after the first layer. In float32 always: positions in spacings need more digits than bfloat16."""
        with torch.autocast(batch.points.device.type, enabled=False):
            deviation, sigma = (batch.features[:, POINT_FEATURES.index(name), None] for name in ("deviation", "sigma"))
            features = torch.cat((batch.features / self.unit, significance(deviation, sigma)), dim=1)
            in_radii, in_spacings = positions(batch)
            out: Tensor = self.first(
                torch.cat((features, in_radii), dim=1), torch.cat((features, in_spacings), dim=1), batch.edge_index
            )
            return out


def positions(batch: PartBatch) -> tuple[Tensor, Tensor]:
    """(M, 3) twice: places relative to the centre of the part's points, in radii of the part and in spacings.

    The centre is the mean of the points, the radius the distance of the farthest from it, the spacing the mean distance
    of neighbours.
    """
    parts, part = batch.parts, batch.part_of_point
    centre = scatter(batch.points, part, dim=0, dim_size=parts, reduce="mean")
    offset = batch.points - centre[part]
    radius = scatter(offset.norm(dim=1), part, dim=0, dim_size=parts, reduce="max")
    neighbours = offset[batch.edge_index[0]].view(len(offset), NEIGHBOURS, 3)
    length = (neighbours - offset[:, None]).norm(dim=2).mean(dim=1)
    spacing = scatter(length, part, dim=0, dim_size=parts, reduce="mean")
    scales = torch.stack((radius, spacing), dim=1).clamp(min=1e-6)[part]
    return offset / scales[:, :1], offset / scales[:, 1:]
