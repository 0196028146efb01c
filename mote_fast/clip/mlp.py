"""A block's MLP for inference on the CPU, where passes over the hidden layer are expensive beside the products.

QuickGELU(x) = x sigmoid(1.702 x) = silu(1.702 x) / 1.702, and a matrix product takes a scale factor at no cost: the
three passes over memory of open_clip's QuickGELU become one, in place.
"""

from __future__ import annotations

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

QUICK_GELU_SCALE = 1.702


def run_mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    """Run a block's MLP; equal to ``mlp(x)`` up to the rounding of float32 sums.

    An MLP of Linear, QuickGELU, Linear is fused in float32 on the CPU without gradients, eager or compiled. Any other
    runs unchanged, and so does every MLP in an exported graph, whose products must be plain.

    Args:
        mlp: the block's MLP.
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
