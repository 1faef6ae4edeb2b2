"""The network made ready to judge says what it said in training, on each kind of machine."""

from dataclasses import replace

import networkparts as parts
import pytest
import torch
from test_network import SMALL, assert_same, network, read

from depthcell.errors import DepthcellError
from depthcell.models.network.batch import collate
from depthcell.models.network.network import PartNetwork, Reading
from depthcell.models.network.partinput import PartInput
from depthcell.models.network.runtime import ReadyNetwork, prepare, usable_device


def two() -> list[PartInput]:
    return [parts.ball_part(0, 50), parts.without_camera(parts.ball_part(1, 30), 1)]


@pytest.mark.parametrize("reading", list(Reading))
def test_a_ready_network_says_the_same(reading: Reading) -> None:
    made = network()
    before = read(made, collate(two()), reading)
    ready = prepare(made)
    assert ready.network is not made
    after = ready.judge(two(), reading)
    for name, values in before._asdict().items():
        assert_same(getattr(after, name), values, name)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in ready.network.image.up_half.modules())
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in made.image.up_half.modules())


def test_a_network_in_training_is_not_changed() -> None:
    made = network().train()
    state = {name: values.clone() for name, values in made.state_dict().items()}
    prepare(made).judge(two())
    assert made.training
    assert all(weight.requires_grad for weight in made.parameters())
    for name, values in made.state_dict().items():
        torch.testing.assert_close(values, state[name])


def test_the_fast_path_of_a_ready_network() -> None:
    made, batch = network(), collate(two())
    ready = prepare(made)
    view = torch.tensor([0, 1, 2, 0, 1, 2])
    assert_same(ready.view_anomaly(batch.images, view), read(made, batch, Reading.IMAGE).pixel_anomaly.flatten(0, 1))


def test_bfloat16_differs_by_its_rounding_alone() -> None:
    """As on a GPU, on the CPU: autocast leaves no mismatch of types and no loss where digits are needed."""
    torch.manual_seed(0)
    made = PartNetwork(SMALL).eval()
    exact = prepare(made)
    rough = ReadyNetwork(exact.network, exact.device, half=True, call=exact.network)
    for name, values in exact.judge(two())._asdict().items():
        other = getattr(rough.judge(two()), name)
        assert other.dtype == torch.float32
        assert (other - values).abs().max() < 0.03 * values.abs().max() + 0.02, name
    moved = [replace(part, points_part=part.points_part * 3) for part in two()]
    torch.testing.assert_close(rough.judge(moved).point_anomaly, rough.judge(two()).point_anomaly, rtol=0.05, atol=0.05)


@pytest.mark.slow
def test_the_whole_is_one_graph_for_the_compiler() -> None:
    ready = prepare(network())
    torch.compiler.reset()
    call = torch.compile(ready.network, fullgraph=True, backend="aot_eager")
    compiled = ReadyNetwork(ready.network, ready.device, half=False, call=call)
    for chosen in (two(), two()[:1]):
        plain = ready.judge(chosen)
        for name, values in compiled.judge(chosen)._asdict().items():
            assert_same(values, getattr(plain, name), name)


def test_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("cpu") == torch.device("cpu")
    with pytest.raises(DepthcellError, match="finds no GPU here; take --device cpu"):
        usable_device("cuda")
    with pytest.raises(DepthcellError, match="device 'tpu': is neither cpu nor cuda"):
        usable_device("tpu")
