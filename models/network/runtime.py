"""The network made ready to judge: normalisation folded away, memory laid out for the machine, compiled on a GPU."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from depthcell.errors import DepthcellError
from depthcell.models.network.batch import PartBatch, collate
from depthcell.models.network.imagebranch import ConvBlock
from depthcell.models.network.network import NetworkOutput, PartNetwork, Reading
from depthcell.models.network.partinput import PartInput


@dataclass(frozen=True, slots=True, eq=False)
class ReadyNetwork:
    """A network that judges and learns no more.

    Attributes:
        network: in evaluation mode, on `device`; called through `call` where that is compiled.
        device: where it computes.
        half: whether convolutions and products are taken in bfloat16.
        call: the network, compiled or not.
    """

    network: PartNetwork
    device: torch.device
    half: bool
    call: Any

    @torch.inference_mode()
    def judge(self, parts: Sequence[PartInput], reading: Reading = Reading.BOTH) -> NetworkOutput:
        """What the network says of parts; float32, still on the device."""
        return self.judge_batch(collate(parts).to(self.device), reading)

    @torch.inference_mode()
    def judge_batch(self, batch: PartBatch, reading: Reading = Reading.BOTH) -> NetworkOutput:
        """The same of a batch that lies on the device."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            output: NetworkOutput = self.call(batch, reading)
        return NetworkOutput(*(logits.float() for logits in output))

    @torch.inference_mode()
    def view_anomaly(self, images: Tensor, view: Tensor) -> Tensor:
        """The fast path, see `PartNetwork.view_anomaly`."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.network.view_anomaly(images, view).float()


def usable_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        DepthcellError: it is neither "cpu" nor "cuda", or PyTorch finds no GPU here.
    """
    if name not in {"cpu", "cuda"}:
        raise DepthcellError(f"device '{name}': is neither cpu nor cuda; name one of them")
    if name == "cuda" and not torch.cuda.is_available():
        raise DepthcellError(
            f"device cuda: PyTorch {torch.__version__} finds no GPU here; take --device cpu, "
            "or install a PyTorch for CUDA"
        )
    return torch.device(name)


def prepare(network: PartNetwork, device: torch.device | str = "cpu", compiled: bool | None = None) -> ReadyNetwork:
    """A copy of a network, ready to judge on a device; the network itself stays as it is.

    Batch normalisation is folded into the convolutions before it, whose weights then lie channels last. On a GPU it
    computes in bfloat16 and is compiled, unless `compiled` says otherwise; on a CPU in float32 and uncompiled, for a
    compiler is lacking on most machines that judge.

    Args:
        network: with its weights.
        device: "cpu", "cuda" or the like.
        compiled: whether to compile; None decides by the device.
    """
    target = torch.device(device)
    on_gpu = target.type != "cpu"
    ready = copy.deepcopy(network).eval().requires_grad_(False)
    for module in ready.modules():
        if isinstance(module, ConvBlock):
            module.fold()
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ready = ready.to(target)
    wanted = on_gpu if compiled is None else compiled
    return ReadyNetwork(ready, target, on_gpu, torch.compile(ready, dynamic=None) if wanted else ready)
