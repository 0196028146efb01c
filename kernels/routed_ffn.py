"""One expert per sample, and the gradients. Reference: routed_ffn and routed_ffn_backward.

Samples are grouped by expert on the device: one program counts and places them, and the grid is sized for the worst
case (a partly filled tile per expert), so the host reads nothing and shapes never depend on the routing. Tiles gather
their tokens from the input and scatter to the output; pre-activations stay in grouped order. Launches: 3 forward, 4
backward, and the cast of master weights to the dtype of the inputs before both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mote_fast.kernels.blocks import linear_tile, quick_gelu, store_weight_gradient, token_offsets
from mote_fast.kernels.launch import Tokens, launch, with_wide_rows
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

    hidden: Tensor  # [2, B * T, 4d], grouped order: QuickGELU and its derivative
    grouping: Grouping


@triton.jit(do_not_specialize=["samples"])
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


@triton.jit(do_not_specialize=["frames"])
def routed_linear_kernel(
    a,
    experts,
    starts,
    factor,
    out,
    slope,
    out_order,
    frames,
    SIZE: tl.constexpr,
    AT: tl.constexpr,
    SHAPE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    EXPERTS: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = a @ weight of each token's expert (+ bias) (* factor); gathered or scattered where an order is given.

    Programs past the last occupied tile leave at once. Arguments as of expert_ffn.linear_kernel, but one stream.
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
        total = linear_tile(a[0], rows, row_mask, row + AT[0], columns, 0, SHAPE[0], SHAPE, TRANSPOSED, BLOCK)
        if AT[1] is not None:
            total += tl.load(row + AT[1] + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
        mask = row_mask[:, None] & column_mask[None, :]
        at = n.to(tl.int64)[:, None] * SHAPE[1] + columns[None, :]
        if factor is not None:
            total *= tl.load(factor + at, mask=mask, other=0.0).to(tl.float32)
        dtype = out.dtype.element_ty
        if slope is not None:
            total, derivative = quick_gelu(total)
            tl.store(slope + at, derivative.to(dtype), mask=mask)
        to = token_offsets(n, row_mask, out_order, frames, frames * SHAPE[1], SHAPE[1])
        tl.store(out + (to[:, None] + columns[None, :]), total.to(dtype), mask=mask)


@triton.jit(do_not_specialize=["frames"])
def routed_weight_gradient_kernel(
    a,
    b,
    starts,
    grad,
    frames,
    SIZE: tl.constexpr,
    AT: tl.constexpr,
    SHAPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Row e of grad [E, P]: a.T @ b and the sum of ``a`` over the tokens of expert e, one expert per grid row."""
    expert = tl.program_id(1)
    first = tl.load(starts + expert) * frames
    last = tl.load(starts + expert + 1) * frames
    store_weight_gradient(grad + expert.to(tl.int64) * SIZE, a, b, frames, first, last, AT, SHAPE, BLOCK, "evict_first")


def _gathered(x: Tensor, grouping: Grouping) -> Tokens:
    """Tokens of ``x [B, T, C]`` in grouped order."""
    x = with_wide_rows(x)
    return Tokens(x, grouping.order, x.stride(0), x.stride(1))


def _in_order(x: Tensor) -> Tokens:
    """Rows of ``x [N, C]``."""
    return Tokens(x, None, 0, x.stride(0))


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
    factor: Tensor | None,
    out: Tensor,
    slope: Tensor | None,
    scatter: bool,
    shape: tuple[int, int, int],
    at: tuple[int, int | None],
    transposed: bool,
    tile: MatrixTile | None,
) -> None:
    """Launch routed_linear_kernel; ``shape`` is (frames, inner, outer), ``at`` the offsets of weight and bias."""
    frames, inner, outer = shape
    count, size = experts.shape
    samples = grouping.order.shape[0]
    tokens = samples * frames
    if tokens == 0:
        return
    chosen = tile or matrix_tile("linear", a.tensor, tokens, outer)
    grid = (triton.cdiv(tokens, chosen.rows) + min(count, samples), triton.cdiv(outer, chosen.columns))
    launch(
        routed_linear_kernel,
        grid,
        a,
        experts,
        grouping.starts,
        factor,
        out,
        slope,
        grouping.order if scatter else None,
        frames,
        size,
        at,
        (inner, outer),
        transposed,
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
    tile: MatrixTile | None,
) -> None:
    """Launch routed_weight_gradient_kernel; ``shape`` is (frames, outer, inner)."""
    frames, outer, inner = shape
    count, size = grad.shape
    chosen = tile or matrix_tile("gradient", a.tensor, outer, inner, groups=count)
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
        chosen.block,
        warps=chosen.warps,
        stages=chosen.stages,
    )


def routed_forward(x: Tensor, experts: Tensor, index: Tensor, tile: MatrixTile | None = None) -> tuple[Tensor, Saved]:
    """Run each sample through its own expert; three launches.

    Args:
        x: [B, T, d], any strides; float32, bfloat16 or float16; d a multiple of 16, or all is slow.
        experts: [E, P], float32 or lower precision, cast to the dtype of ``x``.
        index: int64 [B], on the device, values in [0, E).
        tile: share of one program; chosen by shape by default.

    Returns:
        The output [B, T, d], contiguous, and the tensors for backward.
    """
    experts = experts.contiguous().to(x.dtype)
    samples, frames, width = x.shape
    hidden = EXPANSION * width
    area = hidden * width
    grouping = group(index, experts.shape[0])
    saved = x.new_empty((2, samples * frames, hidden))
    act, slope = saved.unbind()
    y = x.new_empty((samples, frames, width))
    up, down = (frames, width, hidden), (frames, hidden, width)
    _linear(_gathered(x, grouping), experts, grouping, None, act, slope, False, up, (0, area), False, tile)
    at = (area + hidden, 2 * area + hidden)
    _linear(_in_order(act), experts, grouping, None, y, None, True, down, at, False, tile)
    return y, Saved(saved, grouping)


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
    del index
    rows = experts.contiguous().to(x.dtype)
    samples, frames, width = x.shape
    hidden = EXPANSION * width
    area = hidden * width
    (act, slope), grouping = saved
    dpre = torch.empty_like(act)
    dx = x.new_empty((samples, frames, width))
    grad = experts.new_empty(experts.shape, dtype=grad_dtype or experts.dtype)
    dy_rows, x_rows = _gathered(dy, grouping), _gathered(x, grouping)
    up, down = (frames, hidden, width), (frames, width, hidden)
    _linear(dy_rows, rows, grouping, slope, dpre, None, False, down, (area + hidden, None), True, tile)
    _weight_gradient(dy_rows, _in_order(act), grouping, grad, down, (area + hidden, 2 * area + hidden), tile)
    _weight_gradient(_in_order(dpre), x_rows, grouping, grad, up, (0, area), tile)
    _linear(_in_order(dpre), rows, grouping, None, dx, None, True, up, (0, None), True, tile)
    return dx, grad
