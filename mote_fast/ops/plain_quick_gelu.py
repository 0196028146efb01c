"""QuickGELU and its gradient in plain PyTorch, by the functions of ``mote_fast.kernels.quick_gelu``.

QuickGELU(x) = x sigmoid(1.702 x) = silu(1.702 x) / 1.702, and PyTorch has silu and its gradient as one operator each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

QUICK_GELU_SCALE = 1.702


def quick_gelu_forward(x: Tensor) -> Tensor:
    """Return QuickGELU of ``x``, any shape and floating dtype."""
    return F.silu(x * QUICK_GELU_SCALE, inplace=True).mul_(1 / QUICK_GELU_SCALE)


def quick_gelu_backward(dy: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of ``x`` from that of the result, ``dy``, same shape and dtype."""
    return torch.ops.aten.silu_backward(dy, x * QUICK_GELU_SCALE)
