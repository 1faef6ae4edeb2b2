"""The same bits by the same seed, however many threads compute."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def same_bits(device: torch.device | str = "cpu") -> Iterator[None]:
    """Within it PyTorch adds in one order; it may decorate a function, too.

    Otherwise threads add gradients of a value that was read several times in the order in which they come by, and after
    some dozens of steps the weights differ.

    Args:
        device: that computes. A GPU has no such way for everything; there PyTorch warns of what it has none for.
    """
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=torch.device(device).type != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
