"""Checks of what the operators are given: shapes, dtypes, devices and derivatives; ShapeError names the argument."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.autograd import forward_ad

from mote_fast.errors import DerivativeError, ShapeError
from mote_fast.kernels.reference import expert_size
from mote_fast.ops.products import transformed

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_experts(x: Tensor, experts: Tensor) -> None:
    """Check that ``experts [E, P]`` are of the width of ``x [..., d]``, and dtypes and devices of both."""
    width = x.shape[-1] if x.ndim else 0
    if experts.ndim != 2 or experts.shape[1] != expert_size(width):
        raise ShapeError(f"experts must be [E, {expert_size(width)}] for width {width}, got {list(experts.shape)}")
    check_dtype("x", x)
    _check_stack(experts)
    check_device("x", x, experts)


def check_weights(experts: Tensor, weights: Tensor) -> None:
    """Check that ``weights`` are [E] for ``experts [E, P]``, floating point, on their device."""
    if experts.ndim != 2 or weights.shape != experts.shape[:1]:
        raise ShapeError(f"weights must be [E] for experts [E, P], got {list(weights.shape)}, {list(experts.shape)}")
    check_dtype("weights", weights)
    _check_stack(experts)
    check_device("weights", weights, experts)


def check_index(experts: Tensor, index: Tensor, values: bool) -> None:
    """Check the dtype and device of ``index``, and its values without reading them here."""
    if index.dtype != torch.int64:
        raise ShapeError(f"index must be int64, got {index.dtype}")
    check_device("index", index, experts)
    if values:
        inside = ((index >= 0) & (index < experts.shape[0])).all()
        torch.ops.aten._assert_async.msg(inside, f"index must be in [0, {experts.shape[0]})")


def check_dtype(name: str, tensor: Tensor) -> None:
    """Check that the operators compute in the dtype of a tensor; ``name`` is for the message."""
    if tensor.dtype not in DTYPES:
        raise ShapeError(f"{name} must be floating point, of 16, 32 or 64 bits, got {tensor.dtype}")


def check_derivatives(*tensors: Tensor) -> None:
    """Raise DerivativeError where torch.func or forward mode asks for a derivative with respect to a tensor.

    PyTorch itself would leave out a tangent without a word.
    """
    if torch.compiler.is_compiling() or not transformed():
        return
    if any(_differentiated(tensor) for tensor in tensors):
        raise DerivativeError(
            "the expert operators have gradients by backward alone: use mote_fast.kernels.reference for forward mode "
            "and for torch.func.grad and its like"
        )


def _check_stack(experts: Tensor) -> None:
    check_dtype("experts", experts)
    if experts.shape[0] == 0:
        raise ShapeError("experts must hold at least one expert, got none")


def _differentiated(tensor: Tensor) -> bool:
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
        return True
    if tensor.requires_grad and torch.is_grad_enabled() and torch._C._are_functorch_transforms_active():
        return True
    return is_functorch_wrapped_tensor(tensor) and _differentiated(get_unwrapped(tensor))


def check_device(name: str, tensor: Tensor, experts: Tensor) -> None:
    """Check that a tensor is on the device of the experts; ``name`` is for the message."""
    if tensor.device != experts.device:
        raise ShapeError(f"{name} must be on the device of the experts, {experts.device}, got {tensor.device}")
