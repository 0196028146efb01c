"""A block's MLP with fewer passes over the hidden layer, the largest activation of a tower.

QuickGELU(x) = x sigmoid(1.702 x) = silu(1.702 x) / 1.702, and a matrix product takes a scale factor at no cost: for
inference on the CPU the three passes over memory of open_clip's QuickGELU become one, in place. With gradients, and on
a GPU, it is one operator (``ops/activation.py``).
"""

from __future__ import annotations

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast.ops.activation import quick_gelu
from mote_fast.ops.plain_quick_gelu import QUICK_GELU_SCALE
from mote_fast.ops.products import affine, even_rows, run_linear, transformed

# Values from which the operator pays on a CPU: at 2^16 its call cost as much as the passes that it saves; at 2^18 the
# two directions took 0.9 of the time, at 2^20 0.4.
LEAST_ON_CPU = 1 << 18


def run_mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    """Run a block's MLP; equal to ``mlp(x)`` up to the rounding of float32 sums.

    An MLP of Linear, QuickGELU, Linear is fused in float32 on the CPU without gradients, eager or compiled, and its
    activation is one operator in float32 on the CPU with gradients, and on a GPU. In an exported graph no MLP is fused,
    because its products must be plain.

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
                y = run_linear(down, _activate(activation, run_linear(up, rows)))
            # The slice of a whole would be a pass over memory in backward.
            return (y if rows is tokens else y[: tokens.shape[0]]).view_as(x)
    return mlp(x)


def _fuses(x: Tensor) -> bool:
    return not torch.is_grad_enabled() and x.device.type == "cpu" and x.dtype == torch.float32


def _activate(activation: nn.Module, x: Tensor) -> Tensor:
    """Run the activation on the hidden layer ``x``."""
    hooked = activation._forward_hooks or activation._forward_pre_hooks
    # The compiler takes the formula: it makes one kernel of it each way by itself, with what stands beside it, and
    # keeps as much for backward; an operator of ours would be a wall between them.
    if type(activation) is not QuickGELU or hooked or torch.compiler.is_compiling() or transformed():
        return activation(x)
    if x.device.type == "cuda" or (x.requires_grad and x.dtype == torch.float32 and x.numel() >= LEAST_ON_CPU):
        return quick_gelu(x)
    return activation(x)
