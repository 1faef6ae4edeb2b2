"""The 2D side: a U-Net of plain convolutions over each view, in two halves so that points can join in between."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from depthcell.models.network.goodreference import COMPARED, DEVIATION, GoodReference
from depthcell.models.network.partinput import CHANNELS

SIGMA_FLOOR_MM = 0.02
"""Added to sigma before a deviation is divided by it; and sigma below it is believed no more."""

SIGMA = slice(CHANNELS.index("sigma"), CHANNELS.index("sigma") + 1)

UNITS = {"inverse_depth": 0.1, "sigma": 0.1}
"""What counts as one in channels whose values are small, in their own units; 1 in all others."""


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, ReLU. `runtime.prepare` folds the second into the first."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels_out)

    def forward(self, maps: Tensor) -> Tensor:
        """(n, out, H / stride, W / stride)."""
        return functional.relu(self.norm(self.conv(maps)), inplace=True)

    @torch.no_grad()
    def fold(self) -> None:
        """Take the normalisation into the convolution, for good."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class Stem(nn.Module):
    """The first convolution of a view, over its channels and over what is derived from them.

    That is, in units of one: the channels, deviation over sigma (whether a deviation is more than noise), and departure
    from good parts. One convolution over all, taken as a sum of two, for on a CPU that is quicker than to lay the
    channels together and to reorder them.
    """

    unit: Tensor

    def __init__(self, views: int, side_px: int, channels_out: int) -> None:
        super().__init__()
        self.reference = GoodReference(views, side_px)
        joint = nn.Conv2d(len(CHANNELS) + 1 + len(COMPARED), channels_out, 3, 2, 1, bias=False)  # for how weights start
        self.channels = nn.Parameter(joint.weight[:, : len(CHANNELS)].detach().clone())
        self.derived = nn.Parameter(joint.weight[:, len(CHANNELS) :].detach().clone())
        self.norm: nn.Module = nn.BatchNorm2d(channels_out)
        unit = torch.tensor([UNITS.get(name, 1.0) for name in CHANNELS])
        self.register_buffer("unit", unit[:, None, None], persistent=False)

    def forward(self, images: Tensor, view: Tensor | None = None) -> Tensor:
        """(n, out, S / 2, S / 2) of images (n, C, S, S); `view` as `GoodReference.forward` has it."""
        meaning = significance(images[:, DEVIATION], images[:, SIGMA])
        derived = torch.cat((meaning, self.reference(images, view) / 2), dim=1)
        maps = functional.conv2d(images / self.unit, self.channels, None, 2, 1)
        maps = maps + functional.conv2d(derived, self.derived, None, 2, 1)
        return functional.relu(self.norm(maps), inplace=True).contiguous(memory_format=torch.channels_last)


class Pyramid(NamedTuple):
    """Feature maps of the views at every half, quarter, eighth and sixteenth of the pixels."""

    half: Tensor
    quarter: Tensor
    eighth: Tensor
    sixteenth: Tensor


def significance(deviation_mm: Tensor, sigma_mm: Tensor) -> Tensor:
    """Deviation over its standard uncertainty, within ±10, divided by 5."""
    return (deviation_mm / (sigma_mm + SIGMA_FLOOR_MM)).clamp(-10, 10) / 5


class ImageBranch(nn.Module):
    """Encoder and decoder. Widths are multiples of `width` at the four scales, `width` at half the pixels."""

    def __init__(self, views: int, side_px: int, width: int) -> None:
        super().__init__()
        self.widths = (width, 2 * width, 4 * width, 6 * width)
        half, quarter, eighth, sixteenth = self.widths
        self.stem = Stem(views, side_px, half)
        self.to_half = ConvBlock(half, half)
        self.to_quarter = _stage(half, quarter)
        self.to_eighth = _stage(quarter, eighth)
        self.to_sixteenth = _stage(eighth, sixteenth)
        self.lateral_eighth = nn.Conv2d(sixteenth, eighth, 1)
        self.lateral_quarter = nn.Conv2d(eighth, quarter, 1)
        self.lateral_half = nn.Conv2d(quarter, half, 1)
        self.up_eighth = ConvBlock(eighth, eighth)
        self.up_quarter = ConvBlock(quarter, quarter)
        self.up_half = ConvBlock(half, half)

    def shallow(self, images: Tensor, view: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps at half and at a quarter of the pixels, before points join at the quarter; `view` as the stem has it."""
        half = self.to_half(self.stem(images, view))
        return half, self.to_quarter(half)

    def deep(self, half: Tensor, quarter: Tensor) -> Pyramid:
        """The maps that follow."""
        eighth = self.to_eighth(quarter)
        return Pyramid(half, quarter, eighth, self.to_sixteenth(eighth))

    def decoded(self, pyramid: Pyramid) -> Tensor:
        """(n, width, S / 2, S / 2), what all scales say together."""
        eighth = self.up_eighth(pyramid.eighth + _doubled(self.lateral_eighth(pyramid.sixteenth)))
        quarter = self.up_quarter(pyramid.quarter + _doubled(self.lateral_quarter(eighth)))
        half: Tensor = self.up_half(pyramid.half + _doubled(self.lateral_half(quarter)))
        return half


def _stage(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(ConvBlock(channels_in, channels_out, stride=2), ConvBlock(channels_out, channels_out))


def _doubled(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, scale_factor=2.0, mode="nearest")
