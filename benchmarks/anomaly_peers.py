"""Two peers of the design of anomalib's models (Apache-2.0), written anew for timing: what they compute per image.

PatchCore (Roth et al., CVPR 2022) and EfficientAD-S (Batzner et al., WACV 2024), with the layers, sizes and steps of
anomalib 2's `patchcore` and `efficient_ad` (`model_size = small`). Weights are random, but for Lite0's: time does not
depend on them, accuracy does, so nothing here says how well they find. anomalib itself needs torchvision,
which has no CPU build for our torch.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from depthcell.models.goodonly.lite0 import WIDTHS, load_lite0

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BANK, WEIGHED = 10_000, 9
"""Patches of the memory, and the neighbours by which PatchCore weighs the score of the image."""


class Residual(nn.Module):
    """Basic block of a ResNet (He et al., CVPR 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, 1)
        self.second = nn.Conv2d(channels_out, channels_out, 3, 1, 1)
        changed = stride != 1 or channels_in != channels_out
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride) if changed else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Half the size where the stride is 2."""
        return functional.relu(self.second(functional.relu(self.first(maps))) + self.shortcut(maps))


class ResNet18(nn.Module):
    """Up to its third layer, normalisation folded away: maps of 128 channels at H / 8 and of 256 at H / 16."""

    widths = (128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.first = nn.Sequential(Residual(64, 64, 1), Residual(64, 64, 1))
        self.second = nn.Sequential(Residual(64, 128, 2), Residual(128, 128, 1))
        self.third = nn.Sequential(Residual(128, 256, 2), Residual(256, 256, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of layers 2 and 3."""
        middle = self.second(self.first(self.stem(images)))
        return middle, self.third(middle)


class Lite0Middle(nn.Module):
    """EfficientNet-Lite0's maps at H / 8 and H / 16: a backbone far lighter than any anomalib uses by default."""

    widths = WIDTHS[1:]

    def __init__(self) -> None:
        super().__init__()
        self.whole = load_lite0()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of 40 and of 112 channels."""
        found = self.whole(images)
        return found.middle, found.coarse


class PatchCore(nn.Module):
    """Distance of each patch of an image from the nearest of a memory of good ones.

    A patch is the mean over 3 x 3 of two layers' maps laid over each other at H / 8.
    """

    bank: Tensor
    kernel: Tensor

    def __init__(self, backbone: nn.Module, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("bank", torch.randn(BANK, sum(widths)))
        kernel = torch.exp(-0.5 * (torch.arange(-16, 17) / 4) ** 2)
        self.register_buffer("kernel", kernel / kernel.sum())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n, H, W) and score (n,)."""
        middle, coarse = (functional.avg_pool2d(maps, 3, 1, 1) for maps in self.backbone(images))
        coarse = functional.interpolate(coarse, middle.shape[-2:], mode="bilinear")
        patches = torch.cat((middle, coarse), dim=1).permute(0, 2, 3, 1)
        distance, nearest = torch.cdist(patches.flatten(0, 2), self.bank).min(dim=1)
        by_image = distance.view(len(images), -1)
        highest, place = by_image.max(dim=1)
        center = self.bank[nearest.view(len(images), -1).gather(1, place[:, None])[:, 0]]
        around = torch.cdist(center, self.bank).topk(WEIGHED, largest=False).indices
        worst = patches.flatten(1, 2)[torch.arange(len(images)), place]
        spread = torch.cdist(worst[:, None], self.bank[around])[:, 0]
        score = (1 - torch.softmax(spread, dim=1)[:, 0]) * highest
        return self._smoothed(by_image.view(len(images), 1, *middle.shape[-2:]), images.shape[-2:]), score

    def _smoothed(self, distance: Tensor, size: torch.Size) -> Tensor:
        large = functional.pad(functional.interpolate(distance, size, mode="bilinear"), [16] * 4, mode="reflect")
        rows = functional.conv2d(large, self.kernel[None, None, :, None])
        return functional.conv2d(rows, self.kernel[None, None, None])[:, 0]


def description_network(channels_out: int) -> nn.Sequential:
    """The small patch description network, without padding: (n, 3, 256, 256) to (n, out, 56, 56)."""
    return nn.Sequential(
        nn.Conv2d(3, 128, 4),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(128, 256, 4),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(256, 256, 3),
        nn.ReLU(),
        nn.Conv2d(256, channels_out, 4),
    )


class AutoEncoder(nn.Module):
    """EfficientAD's: six convolutions down to one pixel, eight up to 56, resized in between."""

    def __init__(self, channels_out: int) -> None:
        super().__init__()
        widths = (3, 32, 32, 64, 64, 64)
        down: list[nn.Module] = []
        for before, after in pairwise(widths):
            down += [nn.Conv2d(before, after, 4, 2, 1), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Conv2d(64, 64, 8))
        self.sizes = (3, 8, 15, 32, 63, 127)
        self.up = nn.ModuleList(nn.Conv2d(64, 64, 4, 1, 2) for _ in self.sizes)
        self.last = nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, channels_out, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(n, out, 56, 56) of (n, 3, 256, 256)."""
        maps = self.encoder(images)
        for size, layer in zip(self.sizes, self.up, strict=True):
            maps = functional.relu(layer(functional.interpolate(maps, (size, size), mode="bilinear")))
        found: Tensor = self.last(functional.interpolate(maps, (56, 56), mode="bilinear"))
        return found


class EfficientAD(nn.Module):
    """A student that imitates a teacher on good images, and an auto-encoder on what is global; where either fails."""

    channels = 384
    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.teacher = description_network(self.channels)
        self.student = description_network(2 * self.channels)
        self.encoded = AutoEncoder(self.channels)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("spread", torch.tensor(SPREAD)[:, None, None])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n, H, W) and score (n,) of images (n, 3, 256, 256)."""
        images = (images - self.mean) / self.spread
        student = self.student(images)
        local = (self.teacher(images) - student[:, : self.channels]).square().mean(dim=1, keepdim=True)
        whole = (self.encoded(images) - student[:, self.channels :]).square().mean(dim=1, keepdim=True)
        maps = functional.pad((local + whole) / 2, [4] * 4)
        maps = functional.interpolate(maps, images.shape[-2:], mode="bilinear")[:, 0]
        return maps, maps.amax(dim=(1, 2))


PEERS: dict[str, Callable[[], nn.Module]] = {
    "PatchCore, Lite0, memory of 10,000": lambda: PatchCore(Lite0Middle(), Lite0Middle.widths),
    "PatchCore, ResNet18, memory of 10,000": lambda: PatchCore(ResNet18(), ResNet18.widths),
    "EfficientAD-S": EfficientAD,
}
"""Each as anomalib is laid out, ready to time."""


def ready(name: str, device: str = "cpu") -> nn.Module:
    """A peer in evaluation mode, its convolutions channels last as ours are."""
    torch.manual_seed(0)
    made = PEERS[name]().eval().requires_grad_(False).to(device)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
