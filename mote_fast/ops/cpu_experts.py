"""The expert operators on a CPU, forward and backward, over flattened tokens.

Shapes: E experts, d embedding width, N tokens, P values in one expert (layout: ``kernels/reference.py``).
QuickGELU is ``silu(1.702 z) / 1.702``: the projections' ``alpha`` takes the two factors at no cost, and ``silu`` and
its backward are one pass each. ``scaled`` below is always ``1.702 z``, z the pre-activation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.kernels.reference import EXPANSION, Expert, unpack_expert
from mote_fast.ops.cpu_memory import empty, empty_like
from mote_fast.ops.products import product, scaled_product

# A tensor of each stream: the routed one's and the merged one's.
_Streams = tuple[Tensor, Tensor]

SLOPE = 1.702
# Values of a row per slice when several rows are combined: the slices and the result fit a core's L2 cache.
SLICE = 1 << 18
# The same when all rows are summed into one: the last-level cache is enough, and larger slices need fewer calls.
MERGE_SLICE = 1 << 20
# Up to this many tokens, reading its weight bounds a projection, and the BLAS product is 20 to 30% faster with the
# weight as left factor; transposing the small result is cheap.
FEW_TOKENS = 64
# The pair, which takes most of the training time, keeps tokens in columns: weights are the left factor of every
# product, 1 to 14% faster for both passes together. With fewer columns than this, that BLAS product is twice as slow.
FEW_COLUMNS = 16
# From so many tokens on, products go to the library that serves linear layers (``products.py``): 1.7 to 1.8 times as
# fast forward and 1.3 to 1.75 backward where that is oneDNN. It copies a transposed left factor, which costs more than
# it gains for fewer.
MANY_TOKENS = 64
# Experts of up to this width keep tokens in rows, and one stream's activations are used while they are in cache: the
# transposes would cost more than the products gain. Of width 64 the two passes then take four fifths of the time;
# of width 512 as long, and of 768 a tenth more.
NARROW = 128


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
    if width <= SLICE and experts.dtype == inner:
        # Calls cost more than memory here: this is one, three to six times as fast as those below.
        return torch.mv(experts.t(), weights.to(inner), out=merged).to(out_dtype or inner)
    first, *others = weights.tolist()
    # One pass per expert over a slice that stays in cache reads memory faster than the BLAS matrix-vector product of so
    # flat a matrix; low-precision experts are converted on the way.
    for start in range(0, width, MERGE_SLICE):
        part = slice(start, start + MERGE_SLICE)
        torch.mul(experts[0, part].to(inner), first, out=merged[part])
        for row, weight in zip(experts[1:, part], others, strict=True):
            merged[part].add_(row, alpha=weight)
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
    x_routed: Tensor, x_merged: Tensor, experts: Tensor, weights: Tensor, index: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Expert ``index`` on one input and the merged expert on the other.

    Args:
        x_routed: [N, d].
        x_merged: [N, d].
        experts: [E, P].
        weights: [E].
        index: int64 scalar.

    Returns:
        The two outputs, [N, d]; and for backward ``scaled [2, N, 4d]``, which beyond ``NARROW`` is the memory of
        ``[2, 4d, N]``, and the merged row [1, P] in the dtype of the inputs.
    """
    merged = merge_experts_forward(experts, weights, x_merged.dtype)
    tokens, width = x_routed.shape
    if width <= NARROW:
        return *_narrow_forward((x_routed, x_merged), _rows(experts, merged, index, x_routed)), merged[None]
    scaled = empty((2, EXPANSION * width, tokens), x_routed.dtype)
    hidden = empty_like(scaled)
    rows = _rows(experts, merged, index, x_routed)
    for x, row, pre in zip((x_routed, x_merged), rows, scaled, strict=True):
        _affine(row.w_up, row.b_up, _transposed(x), SLOPE, SLOPE, pre)
    torch.ops.aten.silu.out(scaled, out=hidden)
    routed, mixed = (
        _transposed(_affine(row.w_down, row.b_down, act, 1 / SLOPE, 1.0, empty((width, tokens), act.dtype)))
        for row, act in zip(rows, hidden, strict=True)
    )
    return routed, mixed, scaled.view(2, tokens, EXPANSION * width), merged[None]


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
    del expanded
    tokens, width = x_routed.shape
    row_grads = empty((2, experts.shape[1]), experts.dtype)
    both = _rows(experts, rows[0], index, x_routed)
    if width <= NARROW:
        return *_narrow_backward((dy_routed, dy_merged), (x_routed, x_merged), both, saved, row_grads), row_grads
    scaled = saved.view(2, EXPANSION * width, tokens)
    hidden, d_hidden = empty_like(scaled), empty_like(scaled)
    torch.ops.aten.silu.out(scaled, out=hidden)
    dys = [_transposed(dy) for dy in (dy_routed, dy_merged)]
    for dy, row, d_act in zip(dys, both, d_hidden, strict=True):
        _transposed_product(row.w_down, dy, d_act)
    torch.ops.aten.silu_backward.grad_input(d_hidden, scaled, grad_input=d_hidden)
    for dy, x, act, d_pre, grad in zip(dys, (x_routed, x_merged), hidden, d_hidden, row_grads, strict=True):
        _row_gradient(dy, x, act, d_pre, grad)
    dx_routed, dx_merged = (
        _transposed(_transposed_product(row.w_up, d_pre, empty(tuple(dy.shape), dy.dtype)))
        for row, dy, d_pre in zip(both, dys, d_hidden, strict=True)
    )
    return dx_routed, dx_merged, row_grads


def _narrow_forward(xs: _Streams, rows: tuple[Expert, Expert]) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs [N, d] of both streams, and ``scaled [2, N, 4d]``."""
    tokens, width = xs[0].shape
    scaled = empty((2, tokens, EXPANSION * width), xs[0].dtype)
    hidden = empty_like(scaled[0])
    outputs = []
    for x, row, pre in zip(xs, rows, scaled.unbind(), strict=True):
        _project(x, row.w_up, row.b_up, SLOPE, SLOPE, pre)
        torch.ops.aten.silu.out(pre, out=hidden)
        outputs.append(_project(hidden, row.w_down, row.b_down, 1 / SLOPE, 1.0, empty_like(x)))
    routed, merged = outputs
    return routed, merged, scaled


def _narrow_backward(
    dys: _Streams, xs: _Streams, rows: tuple[Expert, Expert], scaled: Tensor, row_grads: Tensor
) -> _Streams:
    """Gradients [N, d] of both inputs; those of the rows are written to ``row_grads [2, P]``."""
    hidden, d_pre, gate = empty((3, *scaled.shape[1:]), scaled.dtype).unbind()
    dxs = []
    for dy, x, row, pre, grad in zip(dys, xs, rows, scaled.unbind(), row_grads.unbind(), strict=True):
        _product(dy, row.w_down, d_pre)
        _silu_both_ways(pre, hidden, d_pre, gate)
        _row_gradient(dy.t(), x, hidden.t(), d_pre.t(), grad)
        dxs.append(_product(d_pre, row.w_up, empty_like(x)))
    of_routed, of_merged = dxs
    return of_routed, of_merged


def _silu_both_ways(x: Tensor, out: Tensor, grad: Tensor, gate: Tensor) -> None:
    """Write ``silu(x)`` to ``out``, and multiply ``grad`` by its derivative; ``gate`` is room for as many values."""
    if x.dtype not in (torch.float32, torch.float64):
        # Sums of rounded parts would lose digits.
        torch.ops.aten.silu.out(x, out=out)
        torch.ops.aten.silu_backward.grad_input(grad, x, grad_input=grad)
        return
    # One exponential for both, which is most of their time: the derivative is s + s (x - silu(x)), s the sigmoid.
    torch.sigmoid(x, out=gate)
    torch.mul(x, gate, out=out)
    grad.mul_(gate)
    grad.addcmul_(grad, torch.sub(x, out, out=gate))


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
    """Tensors for the backward pass of routed_forward."""

    scaled: Tensor  # [1, B * T, 4d], grouped order
    grouping: Grouping


def routed_forward(x: Tensor, experts: Tensor, index: Tensor) -> tuple[Tensor, Saved]:
    """Run each sample through its own expert: samples are sorted by expert, and each expert runs once.

    Args:
        x: [B, T, d].
        experts: [E, P].
        index: int64 [B].

    Returns:
        [B, T, d], and the tensors for backward.
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
    return _ungrouped(y, order, x), Saved(scaled[None], grouping)


def routed_backward(dy: Tensor, x: Tensor, experts: Tensor, index: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
    """Gradients of ``routed_forward``: dx [B, T, d] and [E, P]; experts without samples get zeros."""
    del index
    (scaled,), grouping = saved
    order = grouping.order.long()
    dy_rows, x_rows = dy[order].flatten(0, 1), x[order].flatten(0, 1)
    hidden, d_hidden, dx = empty_like(scaled), empty_like(scaled), empty_like(x_rows)
    grad_experts = empty(tuple(experts.shape), experts.dtype)
    torch.ops.aten.silu.out(scaled, out=hidden)
    groups = _groups(experts, grouping, x)
    for row, part in groups:
        _product(dy_rows[part], row.w_down, d_hidden[part])
    torch.ops.aten.silu_backward.grad_input(d_hidden, scaled, grad_input=d_hidden)
    for (row, part), grad in zip(groups, grad_experts, strict=True):
        _product(d_hidden[part], row.w_up, dx[part])
        _row_gradient(dy_rows[part].t(), x_rows[part], hidden[part].t(), d_hidden[part].t(), grad)
    return _ungrouped(dx, order, x), grad_experts


def _groups(experts: Tensor, grouping: Grouping, x: Tensor) -> list[tuple[Expert, slice]]:
    """Each expert, in the dtype of the activations, with its rows of the grouped tokens."""
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
        return _scaled(bias, x, weight.t(), alpha, beta, out)
    return out.copy_(torch.addmm(bias[:, None], weight, x.t(), beta=beta, alpha=alpha).t())


def _product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write ``left @ right`` to ``out`` and return it; one of the three sizes is the number of tokens."""
    if min(*left.shape, right.shape[1]) >= MANY_TOKENS:
        return product(left, right, out)
    return torch.mm(left, right, out=out)


def _scaled(bias: Tensor, left: Tensor, right: Tensor, alpha: float, beta: float, out: Tensor) -> Tensor:
    """Write ``alpha * left @ right + beta * bias`` to ``out`` and return it, as ``_product`` does."""
    if min(*left.shape, right.shape[1]) >= MANY_TOKENS:
        return scaled_product(bias, left, right, alpha, beta, out)
    return torch.addmm(bias, left, right, beta=beta, alpha=alpha, out=out)


def _transposed(x: Tensor) -> Tensor:
    """Return a contiguous transpose of a matrix."""
    return empty((x.shape[1], x.shape[0]), x.dtype).copy_(x.t())


def _affine(weight: Tensor, bias: Tensor, x: Tensor, alpha: float, beta: float, out: Tensor) -> Tensor:
    """Write ``alpha * weight @ x + beta * bias`` for tokens ``x [k, N]`` in columns to ``out [m, N]``; return it."""
    if x.shape[1] < FEW_COLUMNS:
        x = x.t().contiguous().t()
    return _scaled(bias[:, None], weight, x, alpha, beta, out)


def _transposed_product(weight: Tensor, dy: Tensor, out: Tensor) -> Tensor:
    """Write ``weight.T @ dy`` for tokens ``dy [m, N]`` in columns to ``out [k, N]``; return it."""
    if dy.shape[1] < FEW_COLUMNS:
        return out.copy_(torch.mm(dy.t(), weight).t())
    return _product(weight.t(), dy, out)


def _row_gradient(dy: Tensor, x: Tensor, hidden: Tensor, d_pre: Tensor, out: Tensor) -> None:
    """Write the gradient of one expert to ``out [P]``.

    Args:
        dy: [d, N], gradient of its outputs.
        x: [N, d], its inputs.
        hidden: [4d, N], 1.702 times its activations.
        d_pre: [4d, N], gradient of its pre-activations.
        out: [P].
    """
    # Products of low-precision activations have that precision, like autocast's own gradients.
    grad = out if out.dtype == x.dtype else empty(tuple(out.shape), x.dtype)
    row = unpack_expert(grad, x.shape[1])
    _product(d_pre, x, row.w_up)
    torch.sum(d_pre, 1, out=row.b_up)
    _scaled(row.w_down, dy, hidden.t(), 1 / SLOPE, 0.0, row.w_down)
    torch.sum(dy, 1, out=row.b_down)
    if grad is not out:
        out.copy_(grad)
