"""A block's MLP for inference on the CPU, where each pass over the hidden layer costs as much as a part of its product.

QuickGELU(x) = x sigmoid(1.702 x) = silu(1.702 x) / 1.702, and a matrix product takes a scale factor for nothing: what
are three passes over memory in open_clip's QuickGELU becomes one, in place.
"""

from __future__ import annotations

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

QUICK_GELU_SCALE = 1.702


def run_mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    """Run a block's MLP; equal to ``mlp(x)`` up to the rounding of float32 sums.

    Fused where it is Linear, QuickGELU, Linear in float32, on the CPU and without gradients, eager or compiled.
    Elsewhere it runs as it is, and in an exported graph too, whose products are to be plain ones.

    Args:
        mlp: the block's.
        x: [..., w].

    Returns:
        [..., w].
    """
    if torch.is_grad_enabled() or torch.compiler.is_exporting() or x.device.type != "cpu" or x.dtype != torch.float32:
        return mlp(x)
    match list(mlp.children()):
        case [nn.Linear() as up, QuickGELU(), nn.Linear() as down] if type(up) is type(down) is nn.Linear:
            scale = QUICK_GELU_SCALE
            hidden = torch.addmm(up.bias, x.reshape(-1, x.shape[-1]), up.weight.T, alpha=scale, beta=scale)
            hidden = F.silu(hidden, inplace=True)
            return torch.addmm(down.bias, hidden, down.weight.T, alpha=1 / scale).view_as(x)
    return mlp(x)
