"""Reference implementations that every kernel is tested against, in plain PyTorch.

They compute in float32 or float64 and cast the result once.

Shapes: E experts, d embedding width, N tokens (any leading dimensions), P = 8 d^2 + 5 d values in one expert.
An expert is one row of P values: ``w_up [4d, d]``, ``b_up [4d]``, ``w_down [d, 4d]``, ``b_down [d]``, in that order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Hidden width of the FFN over embedding width (eq. (5)).
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
    """Pack the projections of one expert (or of a stack) into one row ``[..., P]``; the inverse of unpack_expert."""
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

    Source: eq. (9); eq. (13) at inference.
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
        The two outputs, each with the shape and dtype of its input (eq. (8) and eq. (9)).
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


def merge_experts_backward(grad_merged: Tensor, weights: Tensor, experts: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of merge_experts.

    Args:
        grad_merged: [P], gradient of the merged row.
        weights: [E].
        experts: [E, P].

    Returns:
        Gradient of ``experts`` [E, P] in its dtype, ``weights[i] * grad_merged`` in row i, and of ``weights`` [E] in
        its dtype, ``experts[i] . grad_merged``.
    """
    inner = inner_dtype(experts.dtype)
    grad = grad_merged.to(inner)
    return torch.outer(weights.to(inner), grad).to(experts.dtype), (experts.to(inner) @ grad).to(weights.dtype)


def quick_gelu_gradient(x: Tensor) -> Tensor:
    """Derivative of quick_gelu, elementwise."""
    s = torch.sigmoid(1.702 * x)
    return s * (1 + 1.702 * x * (1 - s))


def expert_ffn_backward(dy: Tensor, x: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of expert_ffn.

    Args:
        dy: [..., d], gradient of the output.
        x: [..., d], the input.
        row: [P], the expert's parameters.

    Returns:
        Gradient of ``x``, shaped and typed like it, and of ``row`` [P] in its dtype.
    """
    inner = inner_dtype(x.dtype)
    width = x.shape[-1]
    expert = unpack_expert(row.to(inner), width)
    tokens, dtokens = x.to(inner).reshape(-1, width), dy.to(inner).reshape(-1, width)
    pre = F.linear(tokens, expert.w_up, expert.b_up)  # [N, 4d]
    dpre = (dtokens @ expert.w_down) * quick_gelu_gradient(pre)
    grad = Expert(dpre.T @ tokens, dpre.sum(0), dtokens.T @ quick_gelu(pre), dtokens.sum(0))
    return (dpre @ expert.w_up).reshape(x.shape).to(x.dtype), pack_expert(grad).to(row.dtype)


def expert_pair_ffn_backward(
    dy_routed: Tensor,
    dy_merged: Tensor,
    x_routed: Tensor,
    x_merged: Tensor,
    experts: Tensor,
    weights: Tensor,
    index: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of expert_pair_ffn with respect to its inputs, before the experts' gradient is expanded.

    Args:
        dy_routed: [..., d], gradient of the routed output.
        dy_merged: [..., d], gradient of the merged output.
        x_routed: [..., d].
        x_merged: [..., d].
        experts: [E, P].
        weights: [E].
        index: int64 scalar.

    Returns:
        Gradients of ``x_routed`` and of ``x_merged``, then g [P], the gradient of the routed expert's row, and G [P],
        that of the merged row. Expert i receives ``weights[i] * G + [i == index] * g``: expand_expert_gradient.
    """
    routed = experts.index_select(0, index.reshape(1)).squeeze(0)
    dx_routed, g = expert_ffn_backward(dy_routed, x_routed, routed)
    dx_merged, grad_merged = expert_ffn_backward(dy_merged, x_merged, merge_experts(experts, weights))
    return dx_routed, dx_merged, g, grad_merged


def expand_expert_gradient(grad_merged: Tensor, g: Tensor, weights: Tensor, index: Tensor) -> Tensor:
    """Gradient of all experts from its two factors: ``weights[i] * grad_merged + [i == index] * g``.

    Args:
        grad_merged: G [P], gradient of the merged row.
        g: [P], gradient of the routed row.
        weights: [E].
        index: int64 scalar.

    Returns:
        [E, P] in the dtype of ``g``.
    """
    inner = inner_dtype(g.dtype)
    chosen = torch.arange(weights.shape[0], device=index.device) == index
    grad = torch.outer(weights.to(inner), grad_merged.to(inner)) + torch.outer(chosen.to(inner), g.to(inner))
    return grad.to(g.dtype)


def routed_ffn_backward(dy: Tensor, x: Tensor, experts: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of routed_ffn.

    Args:
        dy: [B, ..., d], gradient of the output.
        x: [B, ..., d].
        experts: [E, P].
        index: int64 [B].

    Returns:
        Gradient of ``x`` in its shape and dtype, and of ``experts`` [E, P]; an expert without samples gets 0.
    """
    inner = inner_dtype(x.dtype)
    dx, grad_experts = torch.zeros_like(x), torch.zeros_like(experts, dtype=inner)
    for sample, expert in enumerate(index.tolist()):
        dx[sample], grad = expert_ffn_backward(dy[sample], x[sample], experts[expert].to(inner))
        grad_experts[expert] += grad
    return dx, grad_experts.to(experts.dtype)


def adamw_factored_step(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    factors: list[tuple[Tensor, Tensor, Tensor, Tensor]],
    step: float,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.2,
    grad_scale: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """One AdamW step (decoupled weight decay) whose gradient is the sum of expanded factors.

    Args:
        param: [E, P].
        exp_avg: [E, P], first moment.
        exp_avg_sq: [E, P], second moment.
        factors: (G [P], g [P], w [E], k) per micro-batch; the gradient is the sum of their expansions.
        step: the number of this step, from 1.
        lr: learning rate.
        betas: decay of the moments.
        eps: added to the root of the second moment.
        weight_decay: decay per unit of learning rate.
        grad_scale: the gradient is divided by it (loss scaling, times any clipping).

    Returns:
        The new ``param``, ``exp_avg`` and ``exp_avg_sq``.

    Source: the mathematics of torch.optim.AdamW.
    """
    inner = inner_dtype(param.dtype)
    grad = torch.zeros_like(param, dtype=inner)
    for grad_merged, g, weights, index in factors:
        grad += expand_expert_gradient(grad_merged.to(inner), g.to(inner), weights, index)
    grad /= grad_scale
    beta1, beta2 = betas
    mean = exp_avg.to(inner).lerp(grad, 1 - beta1)
    square = beta2 * exp_avg_sq.to(inner) + (1 - beta2) * grad * grad
    denominator = (square / (1 - beta2**step)).sqrt() + eps
    updated = param.to(inner) * (1 - lr * weight_decay) - lr / (1 - beta1**step) * mean / denominator
    return updated.to(param.dtype), mean.to(exp_avg.dtype), square.to(exp_avg_sq.dtype)
