"""Gradients that threads add have the same bits each time."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from depthcell.models.samebits import same_bits


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def gradient() -> Tensor:
    """Of fifty values, each of which is read some four thousand times."""
    draws = torch.Generator().manual_seed(1)
    values = torch.rand(50, 16, generator=draws).requires_grad_()
    index, weight = torch.randint(50, (200_000,), generator=draws), torch.rand(200_000, 16, generator=draws)
    (found,) = torch.autograd.grad((values[index] * weight).sum(), values)
    return found


def test_threads_add_gradients_in_one_order() -> None:
    with same_bits():
        first, *others = [gradient() for _ in range(10)]
    assert all(torch.equal(other, first) for other in others)


def test_what_was_set_before_holds_again_afterwards_even_after_an_error() -> None:
    @same_bits()
    def cut_off() -> None:
        raise ValueError(torch.are_deterministic_algorithms_enabled())

    torch.use_deterministic_algorithms(False)
    with pytest.raises(ValueError, match="True"):
        cut_off()
    assert not torch.are_deterministic_algorithms_enabled()
