"""The ``torch.library`` registration of QuickGELU: the largest activation of a tower, in one pass each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mote_fast.kernels import reference
from mote_fast.ops.arguments import check_dtype
from mote_fast.ops.implementations import launchers_for
from mote_fast.ops.products import transformed

# On whose tensors the operators run.
DEVICES = ("cpu", "cuda")


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's activation, ``x * sigmoid(1.702 x)``: one pass over memory each way, and only ``x`` is kept for backward.

    Args:
        x: any shape, floating point.

    Returns:
        Shaped and typed like ``x``.

    Raises:
        ShapeError: ``x`` is of another dtype.
    """
    check_dtype("x", x)
    # Transforms have no rules for the operator; forward mode would leave out its tangent.
    if not torch.compiler.is_compiling() and transformed():
        return reference.quick_gelu(x)
    return _quick_gelu(x.contiguous())


@torch.library.custom_op("mote_fast::quick_gelu", mutates_args=(), device_types=DEVICES)
def _quick_gelu(x: Tensor) -> Tensor:
    return launchers_for("quick_gelu", x).quick_gelu_forward(x.contiguous())


@_quick_gelu.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("mote_fast::quick_gelu_backward", mutates_args=(), device_types=DEVICES)
def _quick_gelu_backward(dy: Tensor, x: Tensor) -> Tensor:
    return launchers_for("quick_gelu", x).quick_gelu_backward(dy.contiguous(), x.contiguous())


@_quick_gelu_backward.register_fake
def _(dy: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, dy: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    # With gradients on, this pass is itself to be differentiated.
    if torch.is_grad_enabled():
        return dy * reference.quick_gelu_gradient(x)
    return _quick_gelu_backward(dy, x)


_quick_gelu.register_autograd(_gradient, setup_context=_context)
