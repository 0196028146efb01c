"""One expert per sample, and the gradients. Reference: routed_ffn and routed_ffn_backward.

Samples are grouped by expert on the device: one program counts and places them, and the grid is sized for the worst
case (a partly filled tile per expert), so the host reads nothing and shapes never depend on the routing. Tiles gather
their tokens from the input and scatter to the output; pre-activations stay in grouped order. Launches: 3 forward, 4
backward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mote_fast.kernels.blocks import linear_tile, quick_gelu_gradient, store_weight_gradient, token_offsets
from mote_fast.kernels.launch import Tokens, launch, rows_of
from mote_fast.kernels.reference import EXPANSION
from mote_fast.kernels.tiles import MatrixTile, matrix_tile

# Samples that the grouping kernel places per step of its loop.
GROUP_BLOCK = 256


class Grouping(NamedTuple):
    """Samples in the order of their experts."""

    order: Tensor  # int32 [B]: sample at each place
    starts: Tensor  # int32 [E + 1]: first place of each expert, then B


class Saved(NamedTuple):
    """Tensors for the backward pass."""

    pre: Tensor  # [B * T, 4d], grouped order
    grouping: Grouping


@triton.jit
def group_kernel(index, order, starts, samples, EXPERTS: tl.constexpr, SLOTS: tl.constexpr, BLOCK: tl.constexpr):
    """Stable counting sort of samples by expert, in one program; SLOTS is a power of two above EXPERTS."""
    slot = tl.arange(0, SLOTS)
    counts = tl.zeros((SLOTS,), tl.int32)
    for first in range(0, samples, BLOCK):
        sample = first + tl.arange(0, BLOCK)
        expert = tl.load(index + sample, mask=sample < samples, other=EXPERTS)
        counts += tl.sum((expert[:, None] == slot[None, :]).to(tl.int32), 0)
    counts = tl.where(slot < EXPERTS, counts, 0)
    place = tl.cumsum(counts, 0) - counts
    tl.store(starts + slot, place, mask=slot <= EXPERTS)
    for first in range(0, samples, BLOCK):
        sample = first + tl.arange(0, BLOCK)
        expert = tl.load(index + sample, mask=sample < samples, other=EXPERTS)
        chosen = ((expert[:, None] == slot[None, :]) & (slot < EXPERTS)[None, :]).to(tl.int32)
        rank = (place - 1)[None, :] + tl.cumsum(chosen, 0)
        tl.store(order + tl.sum(rank * chosen, 1), sample, mask=(expert >= 0) & (expert < EXPERTS))
        place += tl.sum(chosen, 0)


@triton.jit
def routed_linear_kernel(
    a,
    experts,
    starts,
    pre,
    out,
    out_order,
    frames,
    SIZE: tl.constexpr,
    AT: tl.constexpr,
    SHAPE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ACTIVATE: tl.constexpr,
    EXPERTS: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = f(a) @ weight of each token's expert (+ bias) (* QuickGELU'(pre)); gathered or scattered where an order is
    given. Programs past the last occupied tile leave at once. Arguments as of expert_ffn.linear_kernel.
    """
    slot = tl.arange(0, SLOTS)
    begin = tl.load(starts + slot, mask=slot < EXPERTS, other=0) * frames
    end = tl.load(starts + slot + 1, mask=slot < EXPERTS, other=0) * frames
    tiles = tl.cumsum((end - begin + BLOCK[0] - 1) // BLOCK[0], 0)
    tile = tl.program_id(0)
    expert = tl.sum((tiles <= tile).to(tl.int32), 0)
    if expert < EXPERTS:
        before = tl.sum(tl.where(slot + 1 == expert, tiles, 0), 0)
        first = tl.sum(tl.where(slot == expert, begin, 0), 0)
        last = tl.sum(tl.where(slot == expert, end, 0), 0)
        n = first + (tile - before) * BLOCK[0] + tl.arange(0, BLOCK[0])
        row_mask = n < last
        columns = tl.program_id(1) * BLOCK[1] + tl.arange(0, BLOCK[1])
        column_mask = columns < SHAPE[1]
        row = experts + expert.to(tl.int64) * SIZE
        rows = token_offsets(n, row_mask, a[1], frames, a[2], a[3])
        total = linear_tile(a[0], rows, row_mask, a[4], row + AT[0], columns, SHAPE, TRANSPOSED, ACTIVATE, BLOCK)
        if AT[1] is not None:
            total += tl.load(row + AT[1] + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
        mask = row_mask[:, None] & column_mask[None, :]
        if pre is not None:
            at = n.to(tl.int64)[:, None] * SHAPE[1] + columns[None, :]
            total *= quick_gelu_gradient(tl.load(pre + at, mask=mask, other=0.0).to(tl.float32))
        to = token_offsets(n, row_mask, out_order, frames, frames * SHAPE[1], SHAPE[1])
        tl.store(out + (to[:, None] + columns[None, :]), total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def routed_weight_gradient_kernel(
    a,
    b,
    starts,
    grad,
    frames,
    SIZE: tl.constexpr,
    AT: tl.constexpr,
    SHAPE: tl.constexpr,
    ACTIVATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Row e of grad [E, P]: a.T @ f(b) and the sum of ``a`` over the tokens of expert e, one expert per grid row."""
    expert = tl.program_id(1)
    first = tl.load(starts + expert) * frames
    last = tl.load(starts + expert + 1) * frames
    store_weight_gradient(grad + expert.to(tl.int64) * SIZE, a, b, frames, first, last, AT, SHAPE, ACTIVATE, BLOCK)


def _gathered(x: Tensor, grouping: Grouping) -> Tokens:
    return Tokens(x, grouping.order, *x.stride())


def group(index: Tensor, experts: int) -> Grouping:
    """Sort samples by expert; one launch, nothing read back.

    Args:
        index: int64 [B], values in [0, E) (unchecked: a check would make the host wait).
        experts: E.
    """
    index = index.contiguous()
    order = index.new_empty(index.shape, dtype=torch.int32)
    starts = index.new_empty(experts + 1, dtype=torch.int32)
    slots = triton.next_power_of_2(experts + 1)
    launch(group_kernel, (1,), index, order, starts, index.shape[0], experts, slots, GROUP_BLOCK, warps=4)
    return Grouping(order, starts)


def _linear(
    a: Tokens,
    experts: Tensor,
    grouping: Grouping,
    pre: Tensor | None,
    out: Tensor,
    scatter: bool,
    shape: tuple[int, int, int],
    at: tuple[int, int | None],
    transposed: bool,
    activate: bool,
    tile: MatrixTile | None,
) -> None:
    """Launch routed_linear_kernel; ``shape`` is (frames, inner, outer), ``at`` the offsets of weight and bias."""
    frames, inner, outer = shape
    count, size = experts.shape
    samples = grouping.order.shape[0]
    tokens = samples * frames
    if tokens == 0:
        return
    chosen = tile or matrix_tile("linear", (a.tensor, experts), tokens, outer)
    grid = (triton.cdiv(tokens, chosen.rows) + min(count, samples), triton.cdiv(outer, chosen.columns))
    launch(
        routed_linear_kernel,
        grid,
        a,
        experts,
        grouping.starts,
        pre,
        out,
        grouping.order if scatter else None,
        frames,
        size,
        at,
        (inner, outer),
        transposed,
        activate,
        count,
        triton.next_power_of_2(count + 1),
        chosen.block,
        warps=chosen.warps,
        stages=chosen.stages,
    )


def _weight_gradient(
    a: Tokens,
    b: Tokens,
    grouping: Grouping,
    grad: Tensor,
    shape: tuple[int, int, int],
    at: tuple[int, int],
    activate: bool,
    tile: MatrixTile | None,
) -> None:
    """Launch routed_weight_gradient_kernel; ``shape`` is (frames, outer, inner)."""
    frames, outer, inner = shape
    count, size = grad.shape
    chosen = tile or matrix_tile("gradient", (a.tensor, b.tensor), outer, inner, groups=count)
    grid = (triton.cdiv(outer, chosen.rows) * triton.cdiv(inner, chosen.columns), count)
    launch(
        routed_weight_gradient_kernel,
        grid,
        a,
        b,
        grouping.starts,
        grad,
        frames,
        size,
        at,
        (outer, inner),
        activate,
        chosen.block,
        warps=chosen.warps,
        stages=chosen.stages,
    )


def routed_forward(x: Tensor, experts: Tensor, index: Tensor, tile: MatrixTile | None = None) -> tuple[Tensor, Saved]:
    """Run each sample through its own expert; three launches.

    Args:
        x: [B, T, d], any strides; float32, bfloat16 or float16; d a multiple of 16.
        experts: [E, P], float32 or lower precision, cast when loaded.
        index: int64 [B], on the device, values in [0, E).
        tile: share of one program; chosen by shape by default.

    Returns:
        The output [B, T, d], contiguous, and the tensors for backward.
    """
    experts = experts.contiguous()
    samples, frames, width = x.shape
    hidden = EXPANSION * width
    area = hidden * width
    grouping = group(index, experts.shape[0])
    pre = x.new_empty((samples * frames, hidden))
    y = x.new_empty((samples, frames, width))
    up, down = (frames, width, hidden), (frames, hidden, width)
    _linear(_gathered(x, grouping), experts, grouping, None, pre, False, up, (0, area), False, False, tile)
    at = (area + hidden, 2 * area + hidden)
    _linear(rows_of(pre), experts, grouping, None, y, True, down, at, False, True, tile)
    return y, Saved(pre, grouping)


def routed_backward(
    dy: Tensor,
    x: Tensor,
    experts: Tensor,
    index: Tensor,
    saved: Saved,
    grad_dtype: torch.dtype | None = None,
    tile: MatrixTile | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of routed_forward; four launches.

    Args:
        dy: [B, T, d], gradient of the output, any strides.
        x: [B, T, d], input of the forward pass.
        experts: [E, P].
        index: int64 [B], input of the forward pass.
        saved: second result of the forward pass.
        grad_dtype: dtype of the experts' gradient; that of ``experts`` by default.
        tile: share of one program; chosen by shape by default.

    Returns:
        Gradient of ``x`` [B, T, d] and of all experts [E, P], each written once; an expert without samples gets zeros.
    """
    experts = experts.contiguous()
    samples, frames, width = x.shape
    del index
    hidden = EXPANSION * width
    area = hidden * width
    pre, grouping = saved
    dpre = torch.empty_like(pre)
    dx = x.new_empty((samples, frames, width))
    grad = experts.new_empty(experts.shape, dtype=grad_dtype or experts.dtype)
    dy_rows, x_rows = _gathered(dy, grouping), _gathered(x, grouping)
    up, down = (frames, hidden, width), (frames, width, hidden)
    _linear(dy_rows, experts, grouping, pre, dpre, False, down, (area + hidden, None), True, False, tile)
    _weight_gradient(dy_rows, rows_of(pre), grouping, grad, down, (area + hidden, 2 * area + hidden), True, tile)
    _weight_gradient(rows_of(dpre), x_rows, grouping, grad, up, (0, area), False, tile)
    _linear(rows_of(dpre), experts, grouping, None, dx, True, up, (0, None), True, False, tile)
    return dx, grad
