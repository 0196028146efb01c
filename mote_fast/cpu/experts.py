"""The expert operators on a CPU, forward and backward, over flattened tokens.

Shapes: E experts, d embedding width, N tokens, P values in one expert (layout: ``kernels/reference.py``).
QuickGELU is ``silu(1.702 z) / 1.702``: the two factors ride in the projections' ``alpha`` for free, and ``silu`` and
its backward are one pass each. ``scaled`` below is always ``1.702 z``, z the pre-activation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.cpu.memory import empty, empty_like
from mote_fast.kernels.reference import EXPANSION, Expert, unpack_expert

SLOPE = 1.702
# Values of a row handled at a time when several rows are combined: their slices and the result fit a core's L2 cache.
SLICE = 1 << 18
# Up to this many tokens a projection is bound by reading its weight, which the library's product does 20 to 30% faster
# as its left factor; the transposed result is small to turn around.
FEW_TOKENS = 64


def merge_experts_forward(experts: Tensor, weights: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    """Return ``weights @ experts`` [P], reading every expert once.

    Args:
        experts: [E, P].
        weights: [E].
        out_dtype: dtype of the result; None keeps that of ``experts``.
    """
    width = experts.shape[1]
    inner = torch.promote_types(experts.dtype, torch.float32)
    merged = empty((width,), inner)
    weights = weights.to(inner)
    if experts.dtype == inner:
        torch.mv(experts.t(), weights, out=merged)
        return merged.to(out_dtype or inner)
    # Low-precision experts are widened a slice at a time.
    for start in range(0, width, SLICE):
        part = experts[:, start : start + SLICE].to(inner)
        torch.mv(part.t(), weights, out=merged[start : start + SLICE])
    return merged.to(out_dtype or experts.dtype)


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
        [E, P], written once; and [E], or None.
    """
    dtype = out_dtype or (grad_merged.dtype if experts is None else experts.dtype)
    grad_experts = empty((weights.shape[0], grad_merged.shape[0]), dtype)
    torch.mul(weights.to(dtype)[:, None], grad_merged.to(dtype), out=grad_experts)
    if experts is None:
        return grad_experts, None
    return grad_experts, torch.mv(experts.to(weights.dtype), grad_merged.to(weights.dtype))


def expert_pair_forward(
    x_routed: Tensor, x_merged: Tensor, experts: Tensor, merged: Tensor, index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Expert ``index`` on one input and the merged expert on the other.

    Args:
        x_routed: [N, d].
        x_merged: [N, d].
        experts: [E, P].
        merged: [P].
        index: int64 scalar.

    Returns:
        The two outputs, [N, d], and ``scaled [2, N, 4d]``, which backward needs.
    """
    tokens, width = x_routed.shape
    scaled = empty((2, tokens, EXPANSION * width), x_routed.dtype)
    hidden = empty_like(scaled)
    rows = _rows(experts, merged, index, x_routed)
    for x, row, pre in zip((x_routed, x_merged), rows, scaled, strict=True):
        _project(x, row.w_up, row.b_up, SLOPE, SLOPE, pre)
    torch.ops.aten.silu.out(scaled, out=hidden)
    routed, mixed = (
        _project(act, row.w_down, row.b_down, 1 / SLOPE, 1.0, empty((tokens, width), x_routed.dtype))
        for row, act in zip(rows, hidden, strict=True)
    )
    return routed, mixed, scaled


def expert_pair_backward(
    dy_routed: Tensor,
    dy_merged: Tensor,
    x_routed: Tensor,
    x_merged: Tensor,
    experts: Tensor,
    merged: Tensor,
    index: Tensor,
    scaled: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``expert_pair_forward``.

    Returns:
        dx_routed and dx_merged, [N, d]; then the gradients of the routed and of the merged row, [2, P] in the dtype of
        ``experts``. That of expert i is ``weights[i] * merged + [i == index] * routed``.
    """
    row_grads = empty((2, experts.shape[1]), experts.dtype)
    hidden, d_hidden = empty_like(scaled), empty_like(scaled)
    torch.ops.aten.silu.out(scaled, out=hidden)
    rows = _rows(experts, merged, index, x_routed)
    dys = (dy_routed, dy_merged)
    for dy, row, d_act in zip(dys, rows, d_hidden, strict=True):
        torch.mm(dy, row.w_down, out=d_act)
    torch.ops.aten.silu_backward.grad_input(d_hidden, scaled, grad_input=d_hidden)
    for dy, x, act, d_pre, grad in zip(dys, (x_routed, x_merged), hidden, d_hidden, row_grads, strict=True):
        _row_gradient(dy, x, act, d_pre, grad)
    dx_routed, dx_merged = (
        torch.mm(d_pre, row.w_up, out=empty(tuple(x_routed.shape), x_routed.dtype))
        for d_pre, row in zip(d_hidden, rows, strict=True)
    )
    return dx_routed, dx_merged, row_grads


def expand_expert_gradient(
    grad_merged: Tensor, grad_routed: Tensor, weights: Tensor, index: Tensor, out: Tensor | None = None
) -> Tensor:
    """Write the gradient of all experts once: ``weights[i] * grad_merged + [i == index] * grad_routed``, [E, P]."""
    width = grad_merged.shape[0]
    if out is None:
        out = empty((weights.shape[0], width), grad_merged.dtype)
    routed = int(index)
    shares = weights.tolist()
    for start in range(0, width, SLICE):
        part = slice(start, start + SLICE)
        for i, share in enumerate(shares):
            if i == routed:
                torch.add(grad_routed[part], grad_merged[part], alpha=share, out=out[i, part])
            else:
                torch.mul(grad_merged[part], share, out=out[i, part])
    return out


class Grouping(NamedTuple):
    """Samples in the order of their experts."""

    order: Tensor  # int32 [B]: sample at each place
    starts: Tensor  # int32 [E + 1]: first place of each expert, then B


class Saved(NamedTuple):
    """What the backward pass of routed_forward needs."""

    scaled: Tensor  # [B * T, 4d], grouped order
    grouping: Grouping


def routed_forward(x: Tensor, experts: Tensor, index: Tensor) -> tuple[Tensor, Saved]:
    """Run each sample through its own expert: samples are sorted by expert, and each expert runs once.

    Args:
        x: [B, T, d].
        experts: [E, P].
        index: int64 [B].

    Returns:
        [B, T, d], and what backward needs.
    """
    order = index.argsort(stable=True)
    counts = torch.bincount(index, minlength=experts.shape[0])
    grouping = Grouping(order.int(), torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int())
    rows = x[order].flatten(0, 1)
    scaled = empty((rows.shape[0], EXPANSION * x.shape[2]), x.dtype)
    hidden, y = empty_like(scaled), empty_like(rows)
    groups = _groups(experts, grouping, x)
    for row, part in groups:
        _project(rows[part], row.w_up, row.b_up, SLOPE, SLOPE, scaled[part])
    torch.ops.aten.silu.out(scaled, out=hidden)
    for row, part in groups:
        _project(hidden[part], row.w_down, row.b_down, 1 / SLOPE, 1.0, y[part])
    return _ungrouped(y, order, x), Saved(scaled, grouping)


def routed_backward(dy: Tensor, x: Tensor, experts: Tensor, index: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
    """Gradients of ``routed_forward``: dx [B, T, d] and [E, P], where experts that served no sample get zeros."""
    del index
    scaled, grouping = saved
    order = grouping.order.long()
    dy_rows, x_rows = dy[order].flatten(0, 1), x[order].flatten(0, 1)
    hidden, d_hidden, dx = empty_like(scaled), empty_like(scaled), empty_like(x_rows)
    grad_experts = empty(tuple(experts.shape), experts.dtype)
    torch.ops.aten.silu.out(scaled, out=hidden)
    groups = _groups(experts, grouping, x)
    for row, part in groups:
        torch.mm(dy_rows[part], row.w_down, out=d_hidden[part])
    torch.ops.aten.silu_backward.grad_input(d_hidden, scaled, grad_input=d_hidden)
    for (row, part), grad in zip(groups, grad_experts, strict=True):
        torch.mm(d_hidden[part], row.w_up, out=dx[part])
        _row_gradient(dy_rows[part], x_rows[part], hidden[part], d_hidden[part], grad)
    return _ungrouped(dx, order, x), grad_experts


def _groups(experts: Tensor, grouping: Grouping, x: Tensor) -> list[tuple[Expert, slice]]:
    """Each expert, in the dtype of the activations, with the rows of grouped tokens that it serves."""
    starts = [start * x.shape[1] for start in grouping.starts.tolist()]
    return [
        (unpack_expert(row.to(x.dtype), x.shape[2]), slice(first, last))
        for row, first, last in zip(experts, starts, starts[1:], strict=False)
    ]


def _ungrouped(rows: Tensor, order: Tensor, x: Tensor) -> Tensor:
    """Put grouped tokens [B * T, d] back in the order of the samples, shaped like ``x``."""
    out = empty(tuple(x.shape), x.dtype)
    out[order] = rows.view(x.shape)
    return out


def _rows(experts: Tensor, merged: Tensor, index: Tensor, x: Tensor) -> tuple[Expert, Expert]:
    """The routed and the merged row in the dtype of the activations."""
    routed = experts[int(index)]
    return unpack_expert(routed.to(x.dtype), x.shape[-1]), unpack_expert(merged.to(x.dtype), x.shape[-1])


def _project(x: Tensor, weight: Tensor, bias: Tensor, alpha: float, beta: float, out: Tensor) -> Tensor:
    """Write ``alpha * x @ weight.T + beta * bias`` to ``out`` and return it."""
    if x.shape[0] > FEW_TOKENS:
        return torch.addmm(bias, x, weight.t(), beta=beta, alpha=alpha, out=out)
    return out.copy_(torch.addmm(bias[:, None], weight, x.t(), beta=beta, alpha=alpha).t())


def _row_gradient(dy: Tensor, x: Tensor, hidden: Tensor, d_pre: Tensor, out: Tensor) -> None:
    """Write the gradient of one expert from its tokens' inputs, activations and their gradients to ``out [P]``."""
    # Products of low-precision activations come in that precision, as autocast's own gradients do.
    grad = out if out.dtype == x.dtype else empty(tuple(out.shape), x.dtype)
    row = unpack_expert(grad, x.shape[1])
    torch.mm(d_pre.t(), x, out=row.w_up)
    torch.sum(d_pre, 0, out=row.b_up)
    torch.addmm(row.w_down, dy.t(), hidden, beta=0, alpha=1 / SLOPE, out=row.w_down)
    torch.sum(dy, 0, out=row.b_down)
    if grad is not out:
        out.copy_(grad)
