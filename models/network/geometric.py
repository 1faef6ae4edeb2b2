"""PyTorch Geometric without the warning of its import (it uses `torch.jit.script`, which torch retires), and untyped.

Its own `MessagePassing` marks as abstract what a layer need not have; so type checkers see `Any`.
"""

import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric import nn, utils

MessagePassing: Any = nn.MessagePassing
EdgeConv: Any = nn.EdgeConv
scatter: Any = utils.scatter
