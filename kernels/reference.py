"""The truth that every kernel is compared with: plain PyTorch, float32 or float64 inside, one downcast on the way out.

Shapes: E experts, d embedding width, N tokens (any leading dimensions), P = 8 d^2 + 5 d values in one expert.
An expert is one row of P values: ``w_up [4d, d]``, ``b_up [4d]``, ``w_down [d, 4d]``, ``b_down [d]``, in that order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Hidden width of the FFN over embedding width (spec section 2).
EXPANSION = 4


class Expert(NamedTuple):
    """Views into one row of expert parameters (or into a stack of rows, with the leading dimensions kept)."""

    w_up: Tensor  # [..., 4d, d]
    b_up: Tensor  # [..., 4d]
    w_down: Tensor  # [..., d, 4d]
    b_down: Tensor  # [..., d]


def expert_size(embed_dim: int) -> int:
    """Return P, the number of parameters of one expert FFN of width ``embed_dim``."""
    return 2 * EXPANSION * embed_dim * embed_dim + (EXPANSION + 1) * embed_dim


def unpack_expert(row: Tensor, embed_dim: int) -> Expert:
    """View ``row [..., P]`` as the two projections of an expert; nothing is copied."""
    hidden = EXPANSION * embed_dim
    sizes = (hidden * embed_dim, hidden, embed_dim * hidden, embed_dim)
    w_up, b_up, w_down, b_down = row.split(sizes, dim=-1)
    return Expert(w_up.unflatten(-1, (hidden, embed_dim)), b_up, w_down.unflatten(-1, (embed_dim, hidden)), b_down)


def pack_expert(expert: Expert) -> Tensor:
    """Lay the projections of one expert (or of a stack) out as one row ``[..., P]``; the inverse of unpack_expert."""
    return torch.cat((expert.w_up.flatten(-2), expert.b_up, expert.w_down.flatten(-2), expert.b_down), dim=-1)


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's activation, ``x * sigmoid(1.702 x)``, elementwise."""
    return x * torch.sigmoid(1.702 * x)


def inner_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that a reference computes in: float64 stays, everything else becomes float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def merge_experts(experts: Tensor, weights: Tensor) -> Tensor:
    """Merge stacked experts into one: ``sum_i weights[i] * experts[i]``.

    Args:
        experts: [E, P], floating point.
        weights: [E], any floating dtype.

    Returns:
        [P] in the dtype of ``experts``.

    Source: spec section 3, "Weight Merging Regularization"; section 4 at inference.
    """
    inner = inner_dtype(experts.dtype)
    return (weights.to(inner) @ experts.to(inner)).to(experts.dtype)


def expert_ffn(x: Tensor, row: Tensor) -> Tensor:
    """Run one expert: ``W_down QuickGELU(W_up x + b_up) + b_down``.

    Args:
        x: [..., d], floating point.
        row: [P], the expert's parameters.

    Returns:
        [..., d] in the dtype of ``x``.
    """
    inner = inner_dtype(x.dtype)
    expert = unpack_expert(row.to(inner), x.shape[-1])
    hidden = quick_gelu(F.linear(x.to(inner), expert.w_up, expert.b_up))
    return F.linear(hidden, expert.w_down, expert.b_down).to(x.dtype)


def expert_pair_ffn(
    x_routed: Tensor, x_merged: Tensor, experts: Tensor, weights: Tensor, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Both training streams of one layer: expert ``index`` on one input, the merged expert on the other.

    Args:
        x_routed: [..., d], input of the expert stream.
        x_merged: [..., d], input of the merged stream.
        experts: [E, P].
        weights: [E], merge weights of this step, ``softmax([1..E] / tau)``.
        index: int64 scalar in [0, E), the routed expert of this step.

    Returns:
        The two outputs, each shaped and typed like its input (spec section 3).
    """
    routed = experts.index_select(0, index.reshape(1)).squeeze(0)
    return expert_ffn(x_routed, routed), expert_ffn(x_merged, merge_experts(experts, weights))


def routed_ffn(x: Tensor, experts: Tensor, index: Tensor) -> Tensor:
    """Run each sample through its own expert.

    Args:
        x: [B, ..., d].
        experts: [E, P].
        index: int64 [B], values in [0, E).

    Returns:
        Shaped and typed like ``x``.
    """
    if x.shape[0] == 0:
        return torch.zeros_like(x)
    return torch.stack([expert_ffn(sample, experts[i]) for sample, i in zip(x, index.tolist(), strict=True)])
