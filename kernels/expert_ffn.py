"""Both training streams of one layer through their experts, and the gradients. Reference: expert_pair_ffn and
expert_pair_ffn_backward.

Group 0 of a launch is the routed stream, whose weights are row ``index`` of the stacked experts (read on the device),
group 1 the merged stream. Forward: up-projection with its bias; down-projection that applies QuickGELU as it loads, so
that only the pre-activations are stored. Backward: gradient of the pre-activations; of the inputs; of both projections.
Launches: 2 forward (3 with the merge), 4 backward (5 with the expansion to all experts).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mote_fast.kernels.blocks import linear_tile, quick_gelu_gradient, store_weight_gradient
from mote_fast.kernels.launch import dense, launch, rows_of
from mote_fast.kernels.merge import expand_expert_gradient
from mote_fast.kernels.reference import EXPANSION
from mote_fast.kernels.tiles import MatrixTile, matrix_tile

__all__ = ["expand_expert_gradient", "expert_pair_backward", "expert_pair_forward"]


@triton.jit
def linear_stream(
    a,
    row,
    pre,
    out,
    tokens,
    AT: tl.constexpr,
    SHAPE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ACTIVATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One tile of one stream of linear_kernel; ``row`` points at the expert's parameters."""
    # Token tiles vary fastest, so that programs that run together share a weight tile.
    tiles = tl.cdiv(tokens, BLOCK[0])
    program = tl.program_id(0)
    n = (program % tiles) * BLOCK[0] + tl.arange(0, BLOCK[0])
    columns = (program // tiles) * BLOCK[1] + tl.arange(0, BLOCK[1])
    row_mask, column_mask = n < tokens, columns < SHAPE[1]
    rows = n.to(tl.int64)
    total = linear_tile(a[0], rows * a[3], row_mask, a[4], row + AT[0], columns, SHAPE, TRANSPOSED, ACTIVATE, BLOCK)
    if AT[1] is not None:
        total += tl.load(row + AT[1] + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
    at = rows[:, None] * SHAPE[1] + columns[None, :]
    mask = row_mask[:, None] & column_mask[None, :]
    if pre is not None:
        total *= quick_gelu_gradient(tl.load(pre + at, mask=mask, other=0.0).to(tl.float32))
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def linear_kernel(
    a_routed,
    a_merged,
    experts,
    merged,
    index,
    pre,
    out,
    tokens,
    SIZE: tl.constexpr,
    AT: tl.constexpr,
    SHAPE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ACTIVATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out [N, OUTER] = f(a) [N, INNER] @ weight (+ bias) (* QuickGELU'(pre)) for both streams, one per grid row.

    a: matrices as ``launch.Tokens``; pre, out: pairs of pointers, routed and merged; AT: offsets of weight and bias (or
    None) in an expert's row of SIZE values; SHAPE: (INNER, OUTER); BLOCK: (R, C, K) of a tile.
    """
    if tl.program_id(1) == 0:
        row = experts + tl.load(index) * SIZE
        linear_stream(a_routed, row, pre[0], out[0], tokens, AT, SHAPE, TRANSPOSED, ACTIVATE, BLOCK)
    else:
        linear_stream(a_merged, merged, pre[1], out[1], tokens, AT, SHAPE, TRANSPOSED, ACTIVATE, BLOCK)


@triton.jit
def weight_gradient_kernel(
    a_routed,
    a_merged,
    b_routed,
    b_merged,
    grad,
    tokens,
    AT: tl.constexpr,
    SHAPE: tl.constexpr,
    ACTIVATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """grad [OUTER, INNER] = a.T @ f(b) over all tokens, and the sum of ``a``, for both streams, one per grid row.

    Arguments as of linear_kernel; SHAPE is (OUTER, INNER).
    """
    if tl.program_id(1) == 0:
        store_weight_gradient(grad[0], a_routed, b_routed, 1, 0, tokens, AT, SHAPE, ACTIVATE, BLOCK)
    else:
        store_weight_gradient(grad[1], a_merged, b_merged, 1, 0, tokens, AT, SHAPE, ACTIVATE, BLOCK)


def _layout(width: int) -> tuple[int, int, int, int, int]:
    """Return P and the offsets of w_up, b_up, w_down and b_down in an expert's row (kernels/reference.py)."""
    hidden = EXPANSION * width
    area = hidden * width
    return 2 * area + hidden + width, 0, area, area + hidden, 2 * area + hidden


def _linear(
    a: tuple[Tensor, Tensor],
    experts: Tensor,
    merged: Tensor,
    index: Tensor,
    pre: Tensor | None,
    out: tuple[Tensor, Tensor],
    at: tuple[int, int | None],
    transposed: bool,
    activate: bool,
    tile: MatrixTile | None,
) -> None:
    """Launch linear_kernel; ``at`` gives the offsets of weight and bias in a row, ``out`` is contiguous."""
    tokens, inner = a[0].shape
    outer = out[0].shape[1]
    if tokens == 0:
        return
    chosen = tile or matrix_tile("linear", (*a, experts, merged), tokens, outer, groups=2)
    grid = (triton.cdiv(tokens, chosen.rows) * triton.cdiv(outer, chosen.columns), 2)
    launch(
        linear_kernel,
        grid,
        *map(rows_of, a),
        experts,
        merged,
        index,
        (None, None) if pre is None else (pre[0], pre[1]),
        out,
        tokens,
        merged.shape[0],
        at,
        (inner, outer),
        transposed,
        activate,
        chosen.block,
        warps=chosen.warps,
        stages=chosen.stages,
    )


def _weight_gradient(
    a: tuple[Tensor, Tensor],
    b: tuple[Tensor, Tensor],
    grads: Tensor,
    at: tuple[int, int],
    activate: bool,
    tile: MatrixTile | None,
) -> None:
    """Launch weight_gradient_kernel; ``grads [2, P]`` holds the routed row, then the merged one."""
    tokens, outer = a[0].shape
    inner = b[0].shape[1]
    chosen = tile or matrix_tile("gradient", (*a, *b), outer, inner, groups=2)
    grid = (triton.cdiv(outer, chosen.rows) * triton.cdiv(inner, chosen.columns), 2)
    launch(
        weight_gradient_kernel,
        grid,
        *map(rows_of, (*a, *b)),
        (grads[0], grads[1]),
        tokens,
        at,
        (outer, inner),
        activate,
        chosen.block,
        warps=chosen.warps,
        stages=chosen.stages,
    )


def expert_pair_forward(
    x_routed: Tensor,
    x_merged: Tensor,
    experts: Tensor,
    merged: Tensor,
    index: Tensor,
    tile: MatrixTile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run row ``index`` of the experts on one input and the merged expert on the other; two launches.

    Args:
        x_routed: [N, d], any strides; float32, bfloat16 or float16; d a multiple of 16.
        x_merged: [N, d], same dtype.
        experts: [E, P], float32 or lower precision, cast when loaded.
        merged: [P]: merge_experts_forward, usually in the dtype of the inputs.
        index: int64 scalar on the device, in [0, E).
        tile: share of one program; chosen by shape by default.

    Returns:
        The outputs, [N, d] each, and the pre-activations [2, N, 4d] (routed first), which backward needs.
    """
    experts, merged = dense(experts, merged)
    tokens, width = x_routed.shape
    _, w_up, b_up, w_down, b_down = _layout(width)
    pre = x_routed.new_empty((2, tokens, EXPANSION * width))
    y_routed, y_merged = x_routed.new_empty((tokens, width)), x_routed.new_empty((tokens, width))
    hidden = (pre[0], pre[1])
    _linear((x_routed, x_merged), experts, merged, index, None, hidden, (w_up, b_up), False, False, tile)
    _linear(hidden, experts, merged, index, None, (y_routed, y_merged), (w_down, b_down), False, True, tile)
    return y_routed, y_merged, pre


def expert_pair_backward(
    dy_routed: Tensor,
    dy_merged: Tensor,
    x_routed: Tensor,
    x_merged: Tensor,
    experts: Tensor,
    merged: Tensor,
    index: Tensor,
    saved: Tensor,
    grad_dtype: torch.dtype | None = None,
    tile: MatrixTile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of expert_pair_forward; four launches.

    Args:
        dy_routed: [N, d], gradient of the routed output, any strides, dtype of the inputs.
        dy_merged: [N, d], gradient of the merged output.
        x_routed: [N, d], input of the forward pass.
        x_merged: [N, d], input of the forward pass.
        experts: [E, P].
        merged: [P].
        index: int64 scalar on the device.
        saved: [2, N, 4d], the pre-activations from the forward pass.
        grad_dtype: dtype of the weight gradients; that of ``experts`` by default.
        tile: share of one program; chosen by shape by default.

    Returns:
        Gradients of both inputs, [N, d] each, and row gradients [2, P]: g, of the routed expert's row, then G, of the
        merged row. expand_expert_gradient computes the gradient of all experts from them.
    """
    experts, merged, saved = dense(experts, merged, saved)
    tokens, width = x_routed.shape
    size, w_up, b_up, w_down, b_down = _layout(width)
    dpre = torch.empty_like(saved)
    dx_routed, dx_merged = x_routed.new_empty((tokens, width)), x_routed.new_empty((tokens, width))
    grads = experts.new_empty((2, size), dtype=grad_dtype or experts.dtype)
    dhidden, hidden = (dpre[0], dpre[1]), (saved[0], saved[1])
    dy = (dy_routed, dy_merged)
    _linear(dy, experts, merged, index, saved, dhidden, (w_down, None), True, False, tile)
    _weight_gradient(dy, hidden, grads, (w_down, b_down), True, tile)
    _weight_gradient(dhidden, (x_routed, x_merged), grads, (w_up, b_up), False, tile)
    _linear(dhidden, experts, merged, index, None, (dx_routed, dx_merged), (w_up, None), True, False, tile)
    return dx_routed, dx_merged, grads
