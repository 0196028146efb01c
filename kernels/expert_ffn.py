"""Both training streams of one layer through their experts, and the gradients. Reference: expert_pair_ffn and
expert_pair_ffn_backward.

A first launch merges the experts and casts the routed one, so that both streams are one batch of two products of equal
dtype: group 0 of a launch is the routed stream, group 1 the merged one. Forward: up-projection, which stores QuickGELU
and its derivative, so that no other launch takes an exponential; down-projection. Backward: gradient of the
pre-activations; of both projections; of the inputs.
Launches: 3 forward, 4 backward (5 with the expansion to all experts).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mote_fast.kernels.blocks import linear_tile, quick_gelu, store_weight_gradient
from mote_fast.kernels.launch import dense, launch, with_wide_rows
from mote_fast.kernels.merge import expand_expert_gradient, merge_and_route
from mote_fast.kernels.reference import EXPANSION
from mote_fast.kernels.split_products import clear_counters, ends_last, memory_for_parts, share_of, sum_of_parts
from mote_fast.kernels.tiles import MAX_SPLIT_TILES, MatrixTile, matrix_tile

__all__ = ["expand_expert_gradient", "expert_pair_backward", "expert_pair_forward"]

# A routed and a merged matrix, [N, C] each, whose rows can be read wide.
Pair = tuple[Tensor, Tensor]


@triton.jit
def store_product(
    total, row, factor, out, slope, n, row_mask, columns, column_mask, AT: tl.constexpr, SHAPE: tl.constexpr
):
    """Add the bias to a tile [R, C] of a product and store what linear_kernel makes of it; arguments as there."""
    routed = tl.program_id(1) == 0
    if AT[1] is not None:
        total += tl.load(row + AT[1] + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
    at = n.to(tl.int64)[:, None] * SHAPE[1] + columns[None, :]
    mask = row_mask[:, None] & column_mask[None, :]
    if factor is not None:
        total *= tl.load(tl.where(routed, factor[0], factor[1]) + at, mask=mask, other=0.0).to(tl.float32)
    dtype = out[0].dtype.element_ty
    if slope is not None:
        total, derivative = quick_gelu(total)
        tl.store(tl.where(routed, slope[0], slope[1]) + at, derivative.to(dtype), mask=mask)
    tl.store(tl.where(routed, out[0], out[1]) + at, total.to(dtype), mask=mask)


@triton.jit(do_not_specialize=["tokens", "parts"])
def linear_kernel(
    a,
    steps,
    rows,
    factor,
    out,
    slope,
    stored,
    counters,
    parts,
    tokens,
    SIZE: tl.constexpr,
    AT: tl.constexpr,
    SHAPE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK: tl.constexpr,
    COUNTERS: tl.constexpr,
):
    """out [N, OUTER] = a [N, INNER] @ weight (+ bias) (* factor) for both streams, one per grid row.

    If ``slope`` is given, ``out`` receives QuickGELU of that, and ``slope`` its derivative.

    a, factor, out, slope: pairs of pointers, routed and merged, or None; steps: strides of the rows of ``a``; rows:
    [2, SIZE], both experts; AT: offsets of weight and bias (or None) in an expert's row; SHAPE: (INNER, OUTER); BLOCK:
    (R, C, K) of a tile. If ``stored`` is given, the grid's third axis has so many ``parts`` of each tile (see
    split_products); ``counters`` without it are a later launch's, to be cleared.
    """
    routed = tl.program_id(1) == 0
    row = rows + tl.program_id(1) * SIZE
    # Token tiles vary fastest, so that programs that run together share a weight tile.
    tiles = tl.cdiv(tokens, BLOCK[0])
    program = tl.program_id(0)
    n = (program % tiles) * BLOCK[0] + tl.arange(0, BLOCK[0])
    columns = (program // tiles) * BLOCK[1] + tl.arange(0, BLOCK[1])
    row_mask, column_mask = n < tokens, columns < SHAPE[1]
    at = n.to(tl.int64) * tl.where(routed, steps[0], steps[1])
    left, weight = tl.where(routed, a[0], a[1]), row + AT[0]
    if stored is None:
        if counters is not None:
            clear_counters(counters, COUNTERS)
        total = linear_tile(left, at, row_mask, weight, columns, 0, SHAPE[0], SHAPE, TRANSPOSED, BLOCK)
        store_product(total, row, factor, out, slope, n, row_mask, columns, column_mask, AT, SHAPE)
    else:
        tile = tl.program_id(1) * tl.num_programs(0) + program
        stored += tile * parts * (BLOCK[0] * BLOCK[1])
        part = tl.program_id(2)
        first, last = share_of(part, parts, SHAPE[0], BLOCK[2])
        total = linear_tile(left, at, row_mask, weight, columns, first, last, SHAPE, TRANSPOSED, BLOCK)
        if ends_last(total, stored, part, parts, counters + tile, BLOCK):
            whole = sum_of_parts(stored, parts, BLOCK)
            store_product(whole, row, factor, out, slope, n, row_mask, columns, column_mask, AT, SHAPE)


@triton.jit(do_not_specialize=["tokens"])
def weight_gradient_kernel(
    a,
    a_steps,
    b,
    b_steps,
    grad,
    tokens,
    SIZE: tl.constexpr,
    AT: tl.constexpr,
    SHAPE: tl.constexpr,
    BLOCK: tl.constexpr,
    HINT: tl.constexpr,
):
    """grad [OUTER, INNER] = a.T @ b over all tokens, and the sum of ``a``, for both streams, one per grid row.

    grad: [2, SIZE], the gradients of both experts; SHAPE is (OUTER, INNER); HINT: their eviction policy; the rest as of
    linear_kernel.
    """
    routed = tl.program_id(1) == 0
    left = (tl.where(routed, a[0], a[1]), None, 0, tl.where(routed, a_steps[0], a_steps[1]))
    right = (tl.where(routed, b[0], b[1]), None, 0, tl.where(routed, b_steps[0], b_steps[1]))
    store_weight_gradient(grad + tl.program_id(1) * SIZE, left, right, 1, 0, tokens, AT, SHAPE, BLOCK, HINT)


def _layout(width: int) -> tuple[int, int, int, int, int]:
    """Return P and the offsets of w_up, b_up, w_down and b_down in an expert's row (kernels/reference.py)."""
    hidden = EXPANSION * width
    area = hidden * width
    return 2 * area + hidden + width, 0, area, area + hidden, 2 * area + hidden


def _steps(pair: Pair) -> tuple[int, int]:
    return pair[0].stride(0), pair[1].stride(0)


def _linear(
    a: Pair,
    rows: Tensor,
    factor: Pair | None,
    out: Pair,
    slope: Pair | None,
    at: tuple[int, int | None],
    transposed: bool,
    tile: MatrixTile | None,
    stored: Tensor | None,
    counters: Tensor | None,
) -> None:
    """Launch linear_kernel; ``at`` gives the offsets of weight and bias in a row; other pairs are contiguous."""
    tokens, inner = a[0].shape
    outer = out[0].shape[1]
    if tokens == 0:
        return
    chosen = tile or matrix_tile("linear", a[0], tokens, outer, groups=2)
    parts = 1 if stored is None else chosen.parts
    grid = (triton.cdiv(tokens, chosen.rows) * triton.cdiv(outer, chosen.columns), 2, parts)
    launch(
        linear_kernel,
        grid,
        a,
        _steps(a),
        rows,
        factor,
        out,
        slope,
        stored,
        counters,
        parts,
        tokens,
        rows.shape[1],
        at,
        (inner, outer),
        transposed,
        chosen.block,
        MAX_SPLIT_TILES,
        warps=chosen.warps,
        stages=chosen.stages,
    )


def _narrow(x: Tensor, tile: MatrixTile | None) -> tuple[MatrixTile, Tensor | None, Tensor | None]:
    """Return the tile of a product [N, 4d] -> [N, d], and memory for its parts and their counters where it is split."""
    tokens, width = x.shape
    chosen = tile or matrix_tile("linear", x, tokens, width, groups=2, inner=EXPANSION * width)
    tiles = 2 * triton.cdiv(tokens, chosen.rows) * triton.cdiv(width, chosen.columns)
    stored, counters = memory_for_parts(x, chosen, tiles)
    return chosen, stored, counters


def _weight_gradient(a: Pair, b: Pair, grads: Tensor, at: tuple[int, int], hint: str, tile: MatrixTile | None) -> None:
    """Launch weight_gradient_kernel; ``grads [2, P]`` holds the routed row, then the merged one."""
    tokens, outer = a[0].shape
    inner = b[0].shape[1]
    chosen = tile or matrix_tile("gradient", a[0], outer, inner, groups=2)
    grid = (triton.cdiv(outer, chosen.rows) * triton.cdiv(inner, chosen.columns), 2)
    launch(
        weight_gradient_kernel,
        grid,
        a,
        _steps(a),
        b,
        _steps(b),
        grads,
        tokens,
        grads.shape[1],
        at,
        (outer, inner),
        chosen.block,
        hint,
        warps=chosen.warps,
        stages=chosen.stages,
    )


def expert_pair_forward(
    x_routed: Tensor,
    x_merged: Tensor,
    experts: Tensor,
    weights: Tensor,
    index: Tensor,
    tile: MatrixTile | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run row ``index`` of the experts on one input and the merged expert on the other; three launches.

    Args:
        x_routed: [N, d], any strides; float32, bfloat16 or float16; d a multiple of 16, or all is slow.
        x_merged: [N, d], same dtype.
        experts: [E, P], float32 or lower precision, cast to the dtype of the inputs.
        weights: [E], merge weights.
        index: int64 scalar on the device, in [0, E).
        tile: share of one program; chosen by shape by default.

    Returns:
        The outputs, [N, d] each, and what backward needs in the dtype of the inputs: QuickGELU of the pre-activations
        and its derivative, routed and merged, [4, N, 4d]; both experts' rows [2, P].
    """
    x = with_wide_rows(x_routed), with_wide_rows(x_merged)
    tokens, width = x_routed.shape
    _, w_up, b_up, w_down, b_down = _layout(width)
    rows = merge_and_route(experts, weights, index, x_routed.dtype)
    saved = x_routed.new_empty((4, tokens, EXPANSION * width))
    hidden, slope = (saved[0], saved[1]), (saved[2], saved[3])
    y = x_routed.new_empty((tokens, width)), x_routed.new_empty((tokens, width))
    narrow, stored, counters = _narrow(x[0], tile)
    _linear(x, rows, None, hidden, slope, (w_up, b_up), False, tile, None, counters)
    _linear(hidden, rows, None, y, None, (w_down, b_down), False, narrow, stored, counters)
    return *y, saved, rows


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
    grad_dtype: torch.dtype | None = None,
    tile: MatrixTile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of expert_pair_forward; four launches.

    Args:
        dy_routed: [N, d], gradient of the routed output, any strides, dtype of the inputs.
        dy_merged: [N, d], gradient of the merged output.
        x_routed: [N, d], input of the forward pass.
        x_merged: [N, d], input of the forward pass.
        experts: [E, P]; its values are not read again.
        rows: [2, P], the rows from the forward pass.
        index: int64 scalar, not read again.
        saved: [4, N, 4d], from the forward pass.
        expanded: whether expand_expert_gradient reads the row gradients next, so that L2 should keep them.
        grad_dtype: dtype of the weight gradients; that of ``experts`` by default.
        tile: share of one program; chosen by shape by default.

    Returns:
        Gradients of both inputs, [N, d] each, and row gradients [2, P]: g, of the routed expert's row, then G, of the
        merged row. expand_expert_gradient computes the gradient of all experts from them.
    """
    del index
    x, dy = (
        (with_wide_rows(x_routed), with_wide_rows(x_merged)),
        (with_wide_rows(dy_routed), with_wide_rows(dy_merged)),
    )
    rows, saved = dense(rows, saved)
    tokens, width = x_routed.shape
    size, w_up, b_up, w_down, b_down = _layout(width)
    hidden, slope = (saved[0], saved[1]), (saved[2], saved[3])
    dpre = torch.empty_like(saved[0]), torch.empty_like(saved[1])
    dx = x_routed.new_empty((tokens, width)), x_routed.new_empty((tokens, width))
    grads = experts.new_empty((2, size), dtype=grad_dtype or experts.dtype)
    hint = "" if expanded else "evict_first"
    narrow, stored, counters = _narrow(x[0], tile)
    _linear(dy, rows, slope, dpre, None, (w_down, None), True, tile, None, counters)
    _weight_gradient(dy, hidden, grads, (w_down, b_down), hint, tile)
    _weight_gradient(dpre, x, grads, (w_up, b_up), hint, tile)
    _linear(dpre, rows, None, dx, None, (w_up, None), True, narrow, stored, counters)
    return *dx, grads
