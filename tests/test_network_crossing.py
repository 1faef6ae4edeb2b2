"""Where pixels and points meet, and the edge convolution, against plain loops and PyTorch Geometric's own layer."""

from dataclasses import replace

import networkparts as parts
import torch
from torch import Tensor, nn

from depthcell.models.network.batch import PartBatch, collate
from depthcell.models.network.crossing import Crossing, cells_of, gather_mean, scatter_mean
from depthcell.models.network.geometric import EdgeConv
from depthcell.models.network.partinput import NEIGHBOURS
from depthcell.models.network.pointbranch import EdgeLayer, positions


def two_parts() -> PartBatch:
    return collate([parts.ball_part(0, 50), parts.without_camera(parts.ball_part(1, 30), 2)])


def cell_of(batch: PartBatch, point: int, view: int, stride: int) -> tuple[int, int, int] | None:
    pixel = int(batch.pixel[point, view])
    if pixel < 0:
        return None
    image = int(batch.part_of_point[point]) * batch.views + view
    return image, pixel // batch.side_px // stride, pixel % batch.side_px // stride


def gathered_slowly(maps: Tensor, batch: PartBatch, stride: int) -> Tensor:
    """Point by point, view by view."""
    means = torch.zeros(len(batch.points), maps.shape[1])
    for point in range(len(batch.points)):
        cells = [cell_of(batch, point, view, stride) for view in range(batch.views)]
        values = [maps[image, :, row, column] for image, row, column in (cell for cell in cells if cell)]
        if values:
            means[point] = torch.stack(values).mean(dim=0)
    return means


def scattered_slowly(values: Tensor, batch: PartBatch, stride: int) -> Tensor:
    """Point by point into lists, then the mean of each list."""
    lists: dict[tuple[int, int, int], list[Tensor]] = {}
    for point in range(len(batch.points)):
        for view in range(batch.views):
            cell = cell_of(batch, point, view, stride)
            if cell:
                lists.setdefault(cell, []).append(values[point])
    side = batch.side_px // stride
    maps = torch.zeros(len(batch.images), values.shape[1], side, side)
    for (image, row, column), found in lists.items():
        maps[image, :, row, column] = torch.stack(found).mean(dim=0)
    return maps


def test_gathering_is_the_mean_over_views_that_see_the_point() -> None:
    batch = two_parts()
    for stride in (1, 2, 4):
        maps = torch.randn(6, 5, 32 // stride, 32 // stride, generator=torch.manual_seed(stride))
        slow = gathered_slowly(maps, batch, stride)
        torch.testing.assert_close(gather_mean(maps, cells_of(batch, stride)), slow)
        in_memory_order = maps.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(gather_mean(in_memory_order, cells_of(batch, stride)), slow)


def test_scattering_is_the_mean_over_points_in_the_cell() -> None:
    batch = two_parts()
    values = torch.randn(80, 5, generator=torch.manual_seed(0))
    for stride in (1, 2, 4, 8):
        fast = scatter_mean(values, cells_of(batch, stride), 6)
        torch.testing.assert_close(fast, scattered_slowly(values, batch, stride))
    assert not scatter_mean(values, cells_of(batch, 4), 6)[5].any(), "a lost camera receives nothing"


def test_a_point_that_no_camera_sees_crosses_nowhere() -> None:
    part = parts.ball_part(0, 50)
    pixel = part.pixel.copy()
    pixel[7] = -1
    hidden, seen = collate([replace(part, pixel=pixel)]), collate([part])
    torch.manual_seed(0)
    crossing, maps, values = Crossing(4, 6), torch.randn(3, 4, 8, 8), torch.randn(50, 6)
    loud = values.clone()
    loud[7] = 1000
    health = torch.ones(3, 2)
    quiet = crossing(maps, values, cells_of(hidden, 4), health)
    with_loud = crossing(maps, loud, cells_of(hidden, 4), health)
    torch.testing.assert_close(quiet[0], with_loud[0])
    torch.testing.assert_close(with_loud[1][7], loud[7])
    control = crossing(maps, loud, cells_of(seen, 4), health)  # the same point with its visibility believed
    assert not torch.allclose(quiet[0], control[0])
    assert not torch.allclose(control[1][7], loud[7])


def test_a_gate_that_closes_keeps_the_view_out() -> None:
    batch = collate([parts.ball_part(0, 50)])
    crossing, maps, values = Crossing(4, 6), torch.randn(3, 4, 8, 8), torch.randn(50, 6)
    health = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    with torch.no_grad():
        crossing.gate.weight.copy_(torch.tensor([[1000.0, 0.0], [1000.0, 0.0]]))
        crossing.gate.bias.fill_(-500)
    out, points = crossing(maps, values, cells_of(batch, 4), health)
    torch.testing.assert_close(out[1], maps[1])
    changed = maps.clone()
    changed[1] += 1
    torch.testing.assert_close(crossing(changed, values, cells_of(batch, 4), health)[1], points)
    changed[0] += 1
    assert not torch.allclose(crossing(changed, values, cells_of(batch, 4), health)[1], points)


def layer(channels_in: int = 5, channels_out: int = 6) -> EdgeLayer:
    torch.manual_seed(3)
    made: EdgeLayer = EdgeLayer(channels_in, 4, channels_out).eval()
    return made


def own_and(made: EdgeLayer, x: Tensor, around: Tensor) -> Tensor:
    out: Tensor = torch.relu(made.norm(made.own(x) + around))
    return out


def test_an_edge_layer_is_a_loop_over_points_and_neighbours() -> None:
    batch = two_parts()
    made, x, y = layer(), torch.randn(80, 5), torch.randn(80, 5)
    around = torch.zeros(80, 6)
    for point in range(80):
        sources = batch.edge_index[0, point * NEIGHBOURS : (point + 1) * NEIGHBOURS]
        hidden = [torch.relu(made.centre(x[point]) + made.difference(y[j] - y[point])) for j in sources]
        around[point, :3] = torch.stack([made.strongest(h) for h in hidden]).amax(dim=0)
        around[point, 3:] = torch.stack([made.common(h) for h in hidden]).mean(dim=0)
    torch.testing.assert_close(made(x, y, batch.edge_index), own_and(made, x, around), rtol=1e-5, atol=1e-5)


def test_an_edge_layer_is_the_edge_convolution_of_pytorch_geometric() -> None:
    batch = two_parts()
    made, x = layer(), torch.randn(80, 5)
    first = nn.Linear(10, 4)
    halves = [
        EdgeConv(nn.Sequential(first, nn.ReLU(), made.strongest), aggr="max"),
        EdgeConv(nn.Sequential(first, nn.ReLU(), made.common), aggr="mean"),
    ]
    with torch.no_grad():  # after they were made, for that draws the weights anew
        first.weight.copy_(torch.cat((made.centre.weight, made.difference.weight), dim=1))
        first.bias.copy_(made.centre.bias)
    around = torch.cat([half(x, batch.edge_index) for half in halves], dim=1)
    torch.testing.assert_close(made(x, x, batch.edge_index), own_and(made, x, around), rtol=1e-5, atol=1e-5)


def test_positions_are_relative_to_each_part() -> None:
    batch = two_parts()
    in_radii, in_spacings = positions(batch)
    for part in range(2):
        mine = batch.part_of_point == part
        offset = batch.points[mine] - batch.points[mine].mean(dim=0)
        torch.testing.assert_close(in_radii[mine], offset / offset.norm(dim=1).max())
        source, target = batch.edge_index[:, mine.repeat_interleave(NEIGHBOURS)]
        spacing = (batch.points[source] - batch.points[target]).norm(dim=1).mean()
        torch.testing.assert_close(in_spacings[mine], offset / spacing, rtol=1e-4, atol=1e-4)
