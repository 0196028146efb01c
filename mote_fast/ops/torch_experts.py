"""The expert operators in plain PyTorch for any device: no value is read on the host, products are batched.

Both streams are one batch of two products, so that a layer is two calls of cuBLAS forward and four backward. This
serves GPUs that the Triton kernels do not, and is what those kernels are compared with on a GPU that they serve.

Shapes: E experts, d embedding width, N tokens, P values in one expert (layout: ``kernels/reference.py``).
QuickGELU is ``silu(1.702 z) / 1.702``: the products' factors take the two constants. ``scaled`` is ``1.702 z``, z the
pre-activation; ``silu`` of it and its derivative are kept for backward. Products have the dtype of the activations, and
so have gradients until they are cast to that of the experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.kernels.reference import Expert, unpack_expert

SLOPE = 1.702


def merge_experts_forward(experts: Tensor, weights: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    """Return ``weights @ experts`` [P] in ``out_dtype``, that of ``experts`` by default; sums are float32 or wider.

    Args:
        experts: [E, P].
        weights: [E].
        out_dtype: dtype of the result.
    """
    inner = torch.promote_types(experts.dtype, torch.float32)
    return torch.mv(experts.to(inner).t(), weights.to(inner)).to(out_dtype or experts.dtype)


def merge_experts_backward(
    grad_merged: Tensor,
    weights: Tensor,
    experts: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the merge.

    Args:
        grad_merged: [P].
        weights: [E].
        experts: [E, P]; given, the gradient of the weights is computed too.
        out_dtype: dtype of the experts' gradient; None takes that of ``experts``, or else of ``grad_merged``.

    Returns:
        [E, P]; and [E] in the dtype of ``weights``, or None.
    """
    inner = torch.promote_types(grad_merged.dtype, torch.float32)
    dtype = out_dtype or (grad_merged if experts is None else experts).dtype
    grad_experts = torch.outer(weights.to(inner), grad_merged.to(inner)).to(dtype)
    if experts is None:
        return grad_experts, None
    inner = torch.promote_types(experts.dtype, inner)
    return grad_experts, torch.mv(experts.to(inner), grad_merged.to(inner)).to(weights.dtype)


def expert_pair_forward(
    x_routed: Tensor, x_merged: Tensor, experts: Tensor, weights: Tensor, index: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Expert ``index`` on one input and the merged expert on the other.

    Args:
        x_routed: [N, d].
        x_merged: [N, d].
        experts: [E, P].
        weights: [E].
        index: int64 scalar on the device.

    Returns:
        The two outputs, [N, d]; and for backward ``silu`` and its derivative of both streams, [4, N, 4d], and the
        routed and the merged row [2, P] in the dtype of the inputs.
    """
    routed = experts.index_select(0, index.reshape(1)).to(x_routed.dtype)
    rows = torch.cat((routed, merge_experts_forward(experts, weights, x_routed.dtype)[None]))
    pair = unpack_expert(rows, x_routed.shape[-1])
    x = _both(x_routed, x_merged)
    kept = _silu_and_slope(torch.baddbmm(pair.b_up[:, None], x, pair.w_up.mT, beta=SLOPE, alpha=SLOPE))
    y_routed, y_merged = torch.baddbmm(pair.b_down[:, None], kept[0], pair.w_down.mT, alpha=1 / SLOPE)
    # Outputs of an operator may not share memory.
    return y_routed.clone(), y_merged.clone(), kept.flatten(0, 1), rows


def expert_pair_backward(
    dy_routed: Tensor,
    dy_merged: Tensor,
    x_routed: Tensor,
    x_merged: Tensor,
    experts: Tensor,
    rows: Tensor,
    index: Tensor,
    saved: Tensor,
    expanded: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``expert_pair_forward``; ``expanded`` is a hint that only the Triton kernels take.

    Returns:
        dx_routed and dx_merged, [N, d]; then the gradients of the routed and of the merged row, [2, P] in the dtype of
        ``experts``. That of expert i is ``weights[i] * merged + [i == index] * routed``.
    """
    del index, expanded
    x, dy = _both(x_routed, x_merged), _both(dy_routed, dy_merged)
    grads = experts.new_empty((2, experts.shape[1]))
    hidden, slope = saved.unflatten(0, (2, 2))
    dx = _products_backward(dy, x, hidden, slope, unpack_expert(rows, x_routed.shape[-1]), grads)
    return dx[0].clone(), dx[1].clone(), grads


def expand_expert_gradient(
    grad_merged: Tensor, g: Tensor, weights: Tensor, index: Tensor, out: Tensor | None = None
) -> Tensor:
    """Return ``weights[i] * grad_merged + [i == index] * g``, [E, P] in the dtype of ``g``, or written to ``out``.

    Args:
        grad_merged: [P].
        g: [P].
        weights: [E].
        index: int64 scalar on the device.
        out: [E, P].
    """
    inner = torch.promote_types(g.dtype, torch.float32)
    grad = torch.outer(weights.to(inner), grad_merged.to(inner))
    grad.index_add_(0, index.reshape(1), g.to(inner)[None])
    return grad.to(g.dtype) if out is None else out.copy_(grad)


class Grouping(NamedTuple):
    """Samples in the order of their experts."""

    order: Tensor  # int32 [B]: sample at each place
    starts: Tensor  # int32 [E + 1]: first place of each expert, then B


class Saved(NamedTuple):
    """Tensors for the backward pass of routed_forward."""

    kept: Tensor  # [2, B * T, 4d], in the order of the samples: silu and its derivative
    grouping: Grouping


def routed_forward(x: Tensor, experts: Tensor, index: Tensor) -> tuple[Tensor, Saved]:
    """Run each sample through its own expert, without the host knowing which: every expert runs on all samples.

    That is E times the products, but no wait for the device, and as few calls for any routing.

    Args:
        x: [B, T, d].
        experts: [E, P].
        index: int64 [B], on the device.

    Returns:
        [B, T, d], and the tensors for backward.
    """
    count, (samples, frames, width) = experts.shape[0], x.shape
    stack = unpack_expert(experts.to(x.dtype), width)
    tokens = x.reshape(1, samples * frames, width).expand(count, -1, -1)
    every = torch.baddbmm(stack.b_up[:, None], tokens, stack.w_up.mT, beta=SLOPE, alpha=SLOPE)
    own = index.repeat_interleave(frames, output_size=samples * frames)
    place = torch.arange(len(own), device=x.device)
    kept = _silu_and_slope(every[own, place])
    hidden = kept[0].expand(count, -1, -1)
    y = torch.baddbmm(stack.b_down[:, None], hidden, stack.w_down.mT, alpha=1 / SLOPE)[own, place]
    chosen = index[:, None] == torch.arange(count, device=x.device)
    starts = torch.nn.functional.pad(chosen.sum(0).cumsum(0), (1, 0))
    return y.view(x.shape), Saved(kept, Grouping(index.argsort(stable=True).int(), starts.int()))


def routed_backward(dy: Tensor, x: Tensor, experts: Tensor, index: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
    """Gradients of ``routed_forward``: dx [B, T, d] and [E, P]; experts without samples get zeros."""
    count, (samples, frames, width) = experts.shape[0], x.shape
    stack = unpack_expert(experts.to(x.dtype), width)
    own = index.repeat_interleave(frames, output_size=samples * frames)
    chosen = (own == torch.arange(count, device=x.device)[:, None])[..., None]
    # An expert's gradients come from its own samples: the others' are zero for it.
    dys = torch.where(chosen, dy.reshape(1, samples * frames, width), 0)
    grads = torch.empty_like(experts)
    tokens = x.reshape(1, samples * frames, width).expand(count, -1, -1)
    hidden, slope = saved.kept.unsqueeze(1).expand(-1, count, -1, -1)
    dx = _products_backward(dys, tokens, hidden, slope, stack, grads)
    return dx.sum(0).view(x.shape), grads


def _silu_and_slope(scaled: Tensor) -> Tensor:
    """Return ``silu`` of a tensor and its derivative, stacked."""
    kept = scaled.new_empty((2, *scaled.shape))
    torch.ops.aten.silu.out(scaled, out=kept[0])
    torch.ops.aten.silu_backward.grad_input(scaled.new_ones(1).expand_as(scaled), scaled, grad_input=kept[1])
    return kept


def _products_backward(dy: Tensor, x: Tensor, hidden: Tensor, slope: Tensor, stack: Expert, grads: Tensor) -> Tensor:
    """Write the gradients [S, P] of S experts to ``grads`` and return that of their inputs [S, N, d].

    Args:
        dy: [S, N, d], gradient of the outputs.
        x: [S, N, d].
        hidden: [S, N, 4d], ``silu`` of the scaled pre-activations.
        slope: [S, N, 4d], its derivative.
        stack: the experts in the dtype of ``x``.
        grads: [S, P].
    """
    d_pre = torch.bmm(dy, stack.w_down).mul_(slope)
    into = unpack_expert(grads, x.shape[-1])
    into.w_up.copy_(torch.bmm(d_pre.mT, x))
    into.b_up.copy_(d_pre.sum(1))
    into.w_down.copy_(torch.bmm(dy.mT, hidden) / SLOPE)
    into.b_down.copy_(dy.sum(1))
    return torch.bmm(d_pre, stack.w_up)


def _both(routed: Tensor, merged: Tensor) -> Tensor:
    """The two streams as one batch [2, N, C]; nothing is copied if they are the same tensor."""
    return routed.expand(2, -1, -1) if merged is routed else torch.stack((routed, merged))
