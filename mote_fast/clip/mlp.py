"""A block's MLP for inference on the CPU, where passes over the hidden layer are expensive beside the products.

QuickGELU(x) = x sigmoid(1.702 x) = silu(1.702 x) / 1.702, and a matrix product takes a scale factor at no cost: the
three passes over memory of open_clip's QuickGELU become one, in place.
"""

from __future__ import annotations

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast.ops.products import affine, even_rows, run_linear

QUICK_GELU_SCALE = 1.702


def run_mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    """Run a block's MLP; equal to ``mlp(x)`` up to the rounding of float32 sums.

    An MLP of Linear, QuickGELU, Linear is fused in float32 on the CPU without gradients, eager or compiled. In an
    exported graph no MLP is, because its products must be plain.

    Args:
        mlp: the block's MLP.
        x: [..., w].

    Returns:
        [..., w].
    """
    if torch.compiler.is_exporting():
        return mlp(x)
    match list(mlp.children()):
        case [nn.Linear() as up, activation, nn.Linear() as down] if type(mlp) is nn.Sequential:
            tokens = x.reshape(-1, x.shape[-1])
            rows = even_rows(tokens, up.weight)
            if isinstance(activation, QuickGELU) and type(up) is type(down) is nn.Linear and _fuses(x):
                hidden = affine(rows, up.weight, up.bias, QUICK_GELU_SCALE, QUICK_GELU_SCALE)
                y = affine(F.silu(hidden, inplace=True), down.weight, down.bias, 1 / QUICK_GELU_SCALE, 1.0)
            else:
                y = run_linear(down, activation(run_linear(up, rows)))
            # The slice of a whole would be a pass over memory in backward.
            return (y if rows is tokens else y[: tokens.shape[0]]).view_as(x)
    return mlp(x)


def _fuses(x: Tensor) -> bool:
    return not torch.is_grad_enabled() and x.device.type == "cpu" and x.dtype == torch.float32
