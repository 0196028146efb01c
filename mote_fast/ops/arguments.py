"""Checks of what the expert operators are given: shapes, dtypes and devices; ShapeError names the argument."""

from __future__ import annotations

import torch
from torch import Tensor

from mote_fast.errors import ShapeError
from mote_fast.kernels.reference import expert_size


def check_experts(x: Tensor, experts: Tensor) -> None:
    """Check that ``experts [E, P]`` are of the width of ``x [..., d]``, and dtypes and devices of both."""
    width = x.shape[-1] if x.ndim else 0
    if experts.ndim != 2 or experts.shape[1] != expert_size(width):
        raise ShapeError(f"experts must be [E, {expert_size(width)}] for width {width}, got {list(experts.shape)}")
    if not (x.is_floating_point() and experts.is_floating_point()):
        raise ShapeError(f"x and experts must be floating point, got {x.dtype} and {experts.dtype}")
    check_device("x", x, experts)


def check_weights(experts: Tensor, weights: Tensor) -> None:
    """Check that ``weights`` are [E] for ``experts [E, P]``, floating point, on their device."""
    if experts.ndim != 2 or weights.shape != experts.shape[:1]:
        raise ShapeError(f"weights must be [E] for experts [E, P], got {list(weights.shape)}, {list(experts.shape)}")
    if not weights.is_floating_point():
        raise ShapeError(f"weights must be floating point, got {weights.dtype}")
    check_device("weights", weights, experts)


def check_index(experts: Tensor, index: Tensor, values: bool) -> None:
    """Check the dtype and device of ``index``, and its values without reading them here."""
    if index.dtype != torch.int64:
        raise ShapeError(f"index must be int64, got {index.dtype}")
    check_device("index", index, experts)
    if values:
        inside = ((index >= 0) & (index < experts.shape[0])).all()
        torch.ops.aten._assert_async.msg(inside, f"index must be in [0, {experts.shape[0]})")


def check_device(name: str, tensor: Tensor, experts: Tensor) -> None:
    """Check that a tensor is on the device of the experts; ``name`` is for the message."""
    if tensor.device != experts.device:
        raise ShapeError(f"{name} must be on the device of the experts, {experts.device}, got {tensor.device}")
