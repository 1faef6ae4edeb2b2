"""A student that learns from good parts to say what frozen features say of them; where it fails, a part is unlike them.

The idea of S. Wang et al., "Student-teacher feature pyramid matching for anomaly detection" (BMVC 2021), with one
difference that canonical views allow: the student also knows which place it looks at, by an embedding of its own. It
is an option (`depthcell train --student`); the gate leaves it out unless validation parts say that it helps.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from depthcell.models.network.partinput import PartInput
from depthcell.models.samebits import same_bits

STUDENT_STEPS = 400
"""Enough for some tens of good parts."""
PLACE_CHANNELS = 32
BATCH_VIEWS = 6
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-4
SEEN = ("red", "green", "blue", "colored")


class Student(nn.Module):
    """Four convolutions to stride 8, joined with what is known of each place of each view.

    Args:
        views: V.
        side: h, cells of a view along each side, pixels / 8.
        features: F, values of the teacher in a cell.
    """

    def __init__(self, views: int, side: int, features: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(views, PLACE_CHANNELS, side, side))
        self.eye = nn.Sequential(
            *(nn.Conv2d(len(SEEN), 24, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(48, 64, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU()),
        )
        self.mouth = nn.Sequential(nn.Conv2d(64 + PLACE_CHANNELS, 96, 3, 1, 1), nn.ReLU(), nn.Conv2d(96, features, 1))

    def forward(self, images: Tensor, view: Tensor) -> Tensor:
        """(B, F, h, h) of images (B, 4, 8 h, 8 h) as `seen_of` gives them; `view` (B,) says which view each is."""
        said: Tensor = self.mouth(torch.cat([self.eye(images), self.place[view]], dim=1))
        return said

    def failure(self, seen: NDArray[np.float32], taught: NDArray[np.float32]) -> NDArray[np.float32]:
        """(V, F, h, h): what the teacher says of a part less what the student says; NaN where the teacher says nothing.

        Args:
            seen: of the part, see `seen_of`.
            taught: (V, F, h, h), what the teacher says.
        """
        with torch.inference_mode():
            said = self(torch.from_numpy(seen), torch.arange(len(seen)))
        return np.asarray(taught - said.numpy(), np.float32)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Weights by name; `from_tensors` takes them back."""
        return {name: values.detach().numpy() for name, values in self.state_dict().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "Student":
        """Take back what `tensors` gave.

        Raises:
            KeyError, RuntimeError: a weight is lacking or of another shape.
        """
        views, _, side, _ = tensors["place"].shape
        student = cls(views, side, len(tensors["mouth.2.bias"]))
        student.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in tensors.items()})
        return student.eval()


def seen_of(part: PartInput) -> NDArray[np.float32]:
    """(V, 4, S, S): what a student sees of a part, its colour and where it was seen."""
    return np.stack([part.channel(name) for name in SEEN], axis=1).astype(np.float32)


@same_bits()
def fit_student(seen: NDArray[np.float32], taught: NDArray[np.floating[Any]], steps: int, seed: int = 0) -> Student:
    """Teach a student by N good parts.

    Args:
        seen: (N, V, 4, S, S), see `seen_of`.
        taught: (N, V, F, S / 8, S / 8), what the teacher says; NaN where it says nothing.
        steps: of six views each.
        seed: of weights and draws.
    """
    views = seen.shape[1]
    images = torch.from_numpy(seen).flatten(0, 1)
    wanted = torch.from_numpy(taught.astype(np.float32)).flatten(0, 1)
    view = torch.arange(views).repeat(len(seen))
    known, wanted = wanted.isfinite(), wanted.nan_to_num(0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Student(views, wanted.shape[-1], wanted.shape[1])
    draws = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(student.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        drawn = torch.randint(len(images), (BATCH_VIEWS,), generator=draws)
        off = (student(images[drawn], view[drawn]) - wanted[drawn]).square()
        loss = (off * known[drawn]).sum() / known[drawn].sum().clamp_min(1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return student.eval()
