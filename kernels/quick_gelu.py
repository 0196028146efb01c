"""CLIP's activation of a tower's hidden layer, and its gradient. Reference: quick_gelu, quick_gelu_gradient.

Plain PyTorch takes three passes forward and five backward over the largest activation of the network, and keeps two
tensors of its size. Here it is one each way: read, compute in float32, write; only the input is kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mote_fast.kernels.launch import dense, launch
from mote_fast.kernels.tiles import VECTOR_TILE, VectorTile


@triton.jit
def forward_kernel(x, y, count, BLOCK: tl.constexpr):
    """y = QuickGELU(x) for ``count`` values."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + at, (value / (1.0 + tl.exp(-1.702 * value))).to(y.dtype.element_ty), mask=mask)


@triton.jit
def backward_kernel(dy, x, dx, count, BLOCK: tl.constexpr):
    """dx = dy * QuickGELU'(x) for ``count`` values."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(dy + at, mask=mask, other=0.0).to(tl.float32)
    gate = 1.0 / (1.0 + tl.exp(-1.702 * value))
    grad *= gate * (1.0 + 1.702 * value * (1.0 - gate))
    tl.store(dx + at, grad.to(dx.dtype.element_ty), mask=mask)


def quick_gelu_forward(x: Tensor, tile: VectorTile = VECTOR_TILE) -> Tensor:
    """Return QuickGELU of ``x``, any shape and strides, float32, bfloat16 or float16; one launch."""
    (x,) = dense(x)
    y = torch.empty_like(x)
    launch(forward_kernel, (triton.cdiv(x.numel(), tile.block),), x, y, x.numel(), tile.block, warps=tile.warps)
    return y


def quick_gelu_backward(dy: Tensor, x: Tensor, tile: VectorTile = VECTOR_TILE) -> Tensor:
    """Return the gradient of ``x`` from that of the result, ``dy``, same shape and dtype; one launch."""
    dy, x = dense(dy, x)
    dx = torch.empty_like(x)
    launch(backward_kernel, (triton.cdiv(x.numel(), tile.block),), dy, x, dx, x.numel(), tile.block, warps=tile.warps)
    return dx
