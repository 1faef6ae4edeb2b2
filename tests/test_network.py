"""The network as a whole: what it promises whatever its weights are."""

from collections.abc import Callable
from dataclasses import replace

import networkparts as parts
import numpy as np
import pytest
import torch

from depthcell.errors import DepthcellError
from depthcell.models.network.batch import PartBatch, collate, collate_labels
from depthcell.models.network.network import NetworkOutput, NetworkSettings, PartNetwork, Reading
from depthcell.models.network.partinput import CHANNELS, CLASSES, NEIGHBOURS, POINT_FEATURES, Labels, PartInput

SMALL = NetworkSettings(side_px=32, image_width=8, point_width=8, strongest=4)


def network(seed: int = 0) -> PartNetwork:
    """Random weights, and running statistics that are not those of a fresh layer."""
    torch.manual_seed(seed)
    made = PartNetwork(SMALL)
    with torch.no_grad():
        for layer in made.modules():
            if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 2)
                layer.bias.normal_()
    return made.eval()


@torch.inference_mode()
def read(made: PartNetwork, batch: PartBatch, reading: Reading = Reading.BOTH) -> NetworkOutput:
    output: NetworkOutput = made(batch, reading)
    for name, values in output._asdict().items():
        assert values.isfinite().all(), name
    return output


def assert_same(actual: torch.Tensor, expected: torch.Tensor, name: str = "") -> None:
    """But for the order of sums."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5, msg=lambda text: f"{name}: {text}")


# --- the batch -------------------------------------------------------------------------------------------------------


def test_a_batch_lays_points_end_to_end() -> None:
    two = [parts.ball_part(0, 40), parts.ball_part(1, 60)]
    batch = collate(two)
    assert (batch.parts, batch.views, batch.side_px) == (2, 3, 32)
    assert batch.images.shape == (6, len(CHANNELS), 32, 32)
    assert batch.part_of_point.tolist() == [0] * 40 + [1] * 60
    assert batch.points_of_part[0, :40].tolist() == list(range(40))
    assert (batch.points_of_part[0, 40:] == -1).all()
    assert batch.points_of_part[1].tolist() == list(range(40, 100))
    for part, start in zip(two, (0, 40), strict=True):
        for point in range(len(part.points_part)):
            edges = slice((start + point) * NEIGHBOURS, (start + point + 1) * NEIGHBOURS)
            assert (batch.edge_index[1, edges] == start + point).all()
            assert (batch.edge_index[0, edges] - start).tolist() == part.neighbours[point].tolist()
            np.testing.assert_array_equal(batch.points[start + point], part.points_part[point])


def test_a_batch_is_a_copy() -> None:
    part = parts.ball_part(0)
    collate([part]).images.zero_()
    assert part.images.any()


def test_labels_of_a_part_are_those_of_most_places() -> None:
    batch = collate_labels([parts.labelled(parts.ball_part(0), 0), parts.labelled(parts.ball_part(1), 4)])
    assert batch.parts.tolist() == [0, 4]
    assert batch.pixels.shape == (2, 3, 32, 32)
    assert batch.points.shape == (400,)
    with pytest.raises(DepthcellError, match="ball-2: has no labels"):
        collate_labels([parts.ball_part(2)])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DepthcellError, match="at least one part"):
        collate([])
    with pytest.raises(DepthcellError, match="ball-1: images of"):
        collate([parts.ball_part(0), parts.ball_part(1, side_px=48)])
    with pytest.raises(DepthcellError, match="use the model of these"):
        network()(collate([parts.ball_part(0, views=2)]))
    with pytest.raises(DepthcellError, match="use the model of these"):
        network()(collate([parts.ball_part(0, side_px=48)]))
    for wrong in ({"side_px": 250}, {"image_width": 0}, {"point_width": 7}):
        with pytest.raises(DepthcellError, match=next(iter(wrong))):
            NetworkSettings(**wrong)


# --- the whole -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", list(Reading))
def test_shapes(reading: Reading) -> None:
    output = read(network(), collate([parts.ball_part(0, 40), parts.ball_part(1, 60)]), reading)
    kinds = len(CLASSES)
    assert [tuple(values.shape) for values in output] == [
        (2, 3, 32, 32),
        (2, 3, kinds, 16, 16),
        (100,),
        (100, kinds),
        (2,),
        (2, kinds),
        (2, 2),
        (2, 2),
    ]


@pytest.mark.parametrize("reading", list(Reading))
def test_a_batch_says_what_each_part_says_alone(reading: Reading) -> None:
    made, both = network(), [parts.ball_part(0, 40), parts.without_camera(parts.ball_part(1, 60), 1)]
    together = read(made, collate(both), reading)
    alone = [read(made, collate([part]), reading) for part in both]
    for name, values in together._asdict().items():
        expected = torch.cat([getattr(output, name) for output in alone])
        assert_same(values, expected, name)


@pytest.mark.parametrize("reading", list(Reading))
def test_the_order_of_points_does_not_matter(reading: Reading) -> None:
    made, part = network(), parts.ball_part(0)
    order = np.random.default_rng(1).permutation(len(part.points_part))
    straight, mixed = read(made, collate([part]), reading), read(made, collate([parts.shuffled(part, order)]), reading)
    for name, values in straight._asdict().items():
        expected = values[torch.from_numpy(order)] if name.startswith("point") else values
        assert_same(getattr(mixed, name), expected)


def test_where_the_part_stands_does_not_matter() -> None:
    made, part = network(), parts.ball_part(0)
    moved = replace(part, points_part=part.points_part + np.array([0.02, -0.3, 0.1], np.float32))
    torch.testing.assert_close(read(made, collate([part])), read(made, collate([moved])), rtol=1e-3, atol=1e-3)


DEGRADED: dict[str, Callable[[PartInput], PartInput]] = {
    "camera": lambda part: parts.without_camera(part, 0),
    "color": parts.without_color,
    "depth": parts.without_points,
    "all": lambda part: parts.without_color(parts.without_points(part)),
    "one point": lambda part: replace(parts.ball_part(7, 2), images=part.images),
}


@pytest.mark.parametrize("lost", list(DEGRADED))
@pytest.mark.parametrize("reading", list(Reading))
def test_what_is_lost_degrades_and_gives_no_nan(lost: str, reading: Reading) -> None:
    made, whole = network(), parts.ball_part(0)
    degraded = DEGRADED[lost](whole)
    alone = read(made, collate([degraded]), reading)
    beside = read(made, collate([whole, degraded]), reading)
    assert_same(beside.part_anomaly[1:], alone.part_anomaly)
    assert_same(beside.part_anomaly[:1], read(made, collate([whole]), reading).part_anomaly)


def test_the_gate_is_closed_for_what_has_no_evidence() -> None:
    made, part = network(), parts.ball_part(0)
    assert read(made, collate([part])).gate.min() > 0.1
    without_depth = read(made, collate([parts.without_points(part)]))
    assert without_depth.gate.numpy().tolist() == [[1, 0]]
    assert without_depth.part_anomaly == without_depth.branch_anomaly[0, 0]
    nothing = read(made, collate([DEGRADED["all"](part)]))
    assert nothing.gate.numpy().tolist() == [[0, 0]]
    assert nothing.part_anomaly == 0


@pytest.mark.parametrize(("reading", "open_gate"), [(Reading.IMAGE, [1, 0]), (Reading.POINTS, [0, 1])])
def test_a_branch_read_alone_sees_nothing_of_the_other(reading: Reading, open_gate: list[int]) -> None:
    made, part = network(), parts.ball_part(0)
    if reading is Reading.IMAGE:
        other = replace(part, features=part.features + 1, points_part=part.points_part * 2)
    else:
        changed = part.images.copy()
        changed[:, :3] += 0.5
        other = replace(part, images=changed)
    before, after = read(made, collate([part]), reading), read(made, collate([other]), reading)
    assert before.gate.numpy().tolist() == [open_gate]
    torch.testing.assert_close(before, after)
    crossed = (read(made, collate([part])), read(made, collate([other])))  # the control: together it does matter
    assert not torch.allclose(crossed[0].pixel_anomaly, crossed[1].pixel_anomaly)
    assert not torch.allclose(crossed[0].point_anomaly, crossed[1].point_anomaly)


def test_pixels_not_measured_say_nothing_of_the_part() -> None:
    made, part = network(), parts.ball_part(0)
    with torch.no_grad():
        made.pixel_head.anomaly.weight.zero_()
    made.pixel_head.anomaly.register_forward_hook(_corner_on_fire)
    assert read(made, collate([part]), Reading.IMAGE).part_anomaly < 0
    lit = part.images.copy()
    lit[:, CHANNELS.index("colored"), :2, :2] = 1  # the control: were it measured, it would speak
    assert read(made, collate([replace(part, images=lit)]), Reading.IMAGE).part_anomaly > 0


def _corner_on_fire(_layer: torch.nn.Module, _maps: object, logits: torch.Tensor) -> torch.Tensor:
    burning = logits.clone()
    burning[..., 0, 0] = 20
    return burning


def test_the_fast_path_is_the_image_read_alone() -> None:
    made, batch = network(), collate([parts.ball_part(0)])
    whole = read(made, batch, Reading.IMAGE)
    with torch.inference_mode():
        single = made.view_anomaly(batch.images[1:2], torch.tensor([1]))
    assert_same(single, whole.pixel_anomaly[:, 1])


def test_every_weight_learns() -> None:
    made = network().train()
    batch = collate([parts.ball_part(seed) for seed in range(2)])
    torch.autograd.backward(torch.stack([values.square().mean() for values in made(batch)[:6]]).sum())
    lacking = [name for name, weight in made.named_parameters() if weight.grad is None]
    assert lacking == []
    assert all(weight.grad.isfinite().all() for weight in made.parameters() if weight.grad is not None)


def good_parts(count: int) -> list[PartInput]:
    rng = np.random.default_rng(0)
    first = parts.ball_part(0)
    noise = rng.normal(scale=0.05, size=(count, *first.images.shape)).astype(np.float32)
    noise[:, :, -2:] = 0
    return [replace(first, images=(first.images + one * (first.images != 0)).astype(np.float32)) for one in noise]


def test_departure_from_good_parts_has_spread_one_on_a_good_part() -> None:
    made, goods = network(), good_parts(20)
    view = torch.arange(3)
    images = collate(goods[:1]).images
    assert not made.image.stem.reference(images, view).any()
    before = read(made, collate(goods[:1]))
    made.image.stem.reference.learn(goods)
    departure = torch.cat([made.image.stem.reference(collate([part]).images, view) for part in good_parts(30)[20:]])
    seen = images[:, CHANNELS.index("measured")].repeat(10, 1, 1) > 0
    assert 0.85 < departure[:, 0][seen].std() < 1.25
    assert not departure[:, :, ~seen[0]].any()
    assert not torch.allclose(before.pixel_anomaly, read(made, collate(goods[:1])).pixel_anomaly)
    restored = PartNetwork(SMALL)
    restored.load_state_dict(made.state_dict())
    torch.testing.assert_close(restored.image.stem.reference.mean, made.image.stem.reference.mean)


def test_a_reference_needs_parts_of_the_same_views() -> None:
    reference = network().image.stem.reference
    with pytest.raises(DepthcellError, match="at least 3"):
        reference.learn(good_parts(2))
    with pytest.raises(DepthcellError, match="ball-1: images"):
        reference.learn([*good_parts(3), parts.ball_part(1, side_px=48)])


LEVELS = np.array([0.5, 0.5, 0.5, 0, 0, 0, 0.9, 0, 0.05], np.float32)


def dented(seed: int) -> PartInput:
    """A smooth grey part; every second one with a dent, seen in one view and on the points there."""
    part, rng = parts.ball_part(seed), np.random.default_rng(seed)
    pictures, features = part.images.copy(), part.features.copy()
    pictures[:, :-2] = (0.05 * (pictures[:, :-2] - 0.5) + LEVELS[:, None, None]) * pictures[:, -1:]
    features[:, 3:8] = 0.05 * (features[:, 3:8] - 0.5) + [0, 0.05, 0.5, 0.5, 0.5]
    labels = Labels(np.zeros((3, 32, 32), np.uint8), np.zeros(len(part.points_part), np.uint8))
    if seed % 2:
        view, (row, column) = rng.integers(3), rng.integers(8, 20, 2)
        labels.pixels[view, row : row + 4, column : column + 4] = 1
        pictures[:, CHANNELS.index("deviation")] -= 0.4 * (labels.pixels > 0)
        seen = part.pixel[:, view]
        inside = (seen >= 0) & (labels.pixels[view].ravel()[seen] > 0)
        labels.points[inside] = 1
        features[inside, POINT_FEATURES.index("deviation")] -= 0.4
    return replace(part, images=pictures, features=features, labels=labels)


def test_it_learns_to_find_a_dent_on_parts_it_never_saw() -> None:
    torch.manual_seed(0)
    made = PartNetwork(SMALL)
    steps = torch.optim.AdamW(made.parameters(), lr=0.01)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    train = [dented(seed) for seed in range(16)]
    batch, labels = collate(train), collate_labels(train)
    for _ in range(40):
        output = made(batch)
        losses = (
            cross_entropy(output.pixel_anomaly, (labels.pixels > 0).float()),
            cross_entropy(output.point_anomaly, (labels.points > 0).float()),
            cross_entropy(output.part_anomaly, (labels.parts > 0).float()),
        )
        steps.zero_grad()
        torch.autograd.backward(torch.stack(losses).sum())
        steps.step()
    fresh = [dented(seed) for seed in range(100, 120)]
    output, labels = read(made.eval(), collate(fresh)), collate_labels(fresh)
    for logits, truth in ((output.part_anomaly, labels.parts), (output.pixel_anomaly, labels.pixels)):
        assert area_under_curve(logits, truth > 0) > 0.9


def area_under_curve(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of pairs of a defective and a good one in which the defective stands higher."""
    return float((logits[truth][:, None] > logits[~truth]).float().mean())
