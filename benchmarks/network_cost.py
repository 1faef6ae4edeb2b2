"""What a forward of the network costs in arithmetic and memory traffic, and how far its time is from either floor."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from depthcell.models.network.batch import PartBatch
from depthcell.models.network.runtime import ReadyNetwork


@dataclass(frozen=True, slots=True)
class Card:
    """What the maker states of a device, dense and without sparsity.

    Attributes:
        flops: floating-point operations per second at the precision used.
        bytes_per_s: of its memory.
    """

    flops: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one forward.

    Attributes:
        flops: of convolutions and matrix products, a multiplication and an addition counting two.
        least_bytes: weights, inputs and outputs, each once: what no way of computing can avoid.
        eager_bytes: what goes in and out of every operation as it is written, one after the other.
    """

    flops: int
    least_bytes: int
    eager_bytes: int

    def floor_s(self, card: Card) -> tuple[float, str]:
        """Least seconds on a card by the roofline (Williams et al., CACM 52, 2009), and which roof that is."""
        arithmetic, memory = self.flops / card.flops, self.least_bytes / card.bytes_per_s
        return (arithmetic, "arithmetic") if arithmetic > memory else (memory, "memory")


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of tensors in and out of each operation; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.bytes += _bytes((args, kwargs, out))
        return out


def cost_of(ready: ReadyNetwork, batch: PartBatch) -> Cost:
    """Counted on the network uncompiled, at the precision it computes in."""
    plain = ReadyNetwork(ready.network, ready.device, ready.half, ready.network)
    with FlopCounterMode(display=False) as counter:
        output = plain.judge_batch(batch)
    with _Traffic() as traffic:
        plain.judge_batch(batch)
    weights = _bytes([*ready.network.parameters(), *ready.network.buffers()])
    return Cost(counter.get_total_flops(), weights + _bytes((tuple(batch), tuple(output))), traffic.bytes)


def profile_of(ready: ReadyNetwork, batch: PartBatch, rows: int = 30) -> str:
    """Where the time goes, operation by operation, as a table."""
    on_gpu = ready.device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if on_gpu else []
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(5):
            ready.judge_batch(batch)
        if on_gpu:
            torch.cuda.synchronize()
    by = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    return str(profile.key_averages().table(sort_by=by, row_limit=rows, max_name_column_width=60))


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
