"""Weighted sum of stacked experts, and its gradient. Reference: merge_experts and merge_experts_backward.

The forward pass reads every master weight once, casts the merged row and writes it once. Backward reads the gradient of
the merged row once and writes the gradient of all experts once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mote_fast.kernels.launch import check_dense, dense, launch
from mote_fast.kernels.tiles import SMALL_VECTOR_TILE, VECTOR_TILE, VectorTile


@triton.jit
def merge_kernel(
    experts, weights, index, merged, routed, SIZE: tl.constexpr, EXPERTS: tl.constexpr, BLOCK: tl.constexpr
):
    """merged [P] = weights [E] @ experts [E, P], float32 inside; routed [P], if given, is a copy of row ``index``."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = column < SIZE
    total = tl.zeros((BLOCK,), tl.float32)
    chosen = tl.zeros((BLOCK,), tl.float32)
    for i in tl.static_range(EXPERTS):  # pyright: ignore[reportGeneralTypeIssues]
        row = tl.load(experts + i * SIZE + column, mask=mask, other=0.0).to(tl.float32)
        total += tl.load(weights + i).to(tl.float32) * row
        if routed is not None:
            chosen = tl.where(tl.load(index) == i, row, chosen)
    tl.store(merged + column, total.to(merged.dtype.element_ty), mask=mask)
    if routed is not None:
        tl.store(routed + column, chosen.to(routed.dtype.element_ty), mask=mask)


@triton.jit
def spread_kernel(
    grad_merged,
    g,
    weights,
    index,
    experts,
    grad_experts,
    partial,
    SIZE: tl.constexpr,
    EXPERTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """grad_experts [E, P] = outer(weights, grad_merged), plus g in row ``index`` if g is given.

    If ``experts`` is given, partial [programs, E] receives this program's share of experts @ grad_merged.
    """
    program = tl.program_id(0).to(tl.int64)
    column = program * BLOCK + tl.arange(0, BLOCK)
    mask = column < SIZE
    merged = tl.load(grad_merged + column, mask=mask, other=0.0).to(tl.float32)
    for i in tl.static_range(EXPERTS):  # pyright: ignore[reportGeneralTypeIssues]
        grad = tl.load(weights + i).to(tl.float32) * merged
        if g is not None:
            own = mask & (tl.load(index) == i)
            grad += tl.load(g + column, mask=own, other=0.0).to(tl.float32)
        tl.store(grad_experts + i * SIZE + column, grad.to(grad_experts.dtype.element_ty), mask=mask)
        if experts is not None:
            row = tl.load(experts + i * SIZE + column, mask=mask, other=0.0).to(tl.float32)
            tl.store(partial + program * EXPERTS + i, tl.sum(row * merged, 0))


def merge_experts_forward(
    experts: Tensor, weights: Tensor, out_dtype: torch.dtype | None = None, tile: VectorTile = VECTOR_TILE
) -> Tensor:
    """Merge stacked experts into one row; one launch.

    Args:
        experts: [E, P], float32, bfloat16 or float16.
        weights: [E], on the same device.
        out_dtype: dtype of the merged row; that of ``experts`` by default.
        tile: share of one program.

    Returns:
        [P].
    """
    experts, weights = dense(experts, weights)
    merged = experts.new_empty(experts.shape[1], dtype=out_dtype or experts.dtype)
    _launch_merge(experts, weights, None, merged, None, tile)
    return merged


def merge_and_route(
    experts: Tensor, weights: Tensor, index: Tensor, out_dtype: torch.dtype, tile: VectorTile = VECTOR_TILE
) -> Tensor:
    """Cast the routed expert and the merged one to the activations' dtype, reading each master weight once; one launch.

    Args:
        experts: [E, P], float32, bfloat16 or float16.
        weights: [E], on the same device.
        index: int64 scalar on the device, in [0, E): the routed expert.
        out_dtype: dtype of the rows.
        tile: share of one program.

    Returns:
        [2, P], the routed row, then the merged one.
    """
    experts, weights = dense(experts, weights)
    rows = experts.new_empty((2, experts.shape[1]), dtype=out_dtype)
    routed, merged = rows.unbind()
    _launch_merge(experts, weights, index, merged, routed, tile)
    return rows


def _launch_merge(
    experts: Tensor, weights: Tensor, index: Tensor | None, merged: Tensor, routed: Tensor | None, tile: VectorTile
) -> None:
    count, size = experts.shape
    launch(
        merge_kernel,
        (triton.cdiv(size, tile.block),),
        experts,
        weights,
        index,
        merged,
        routed,
        size,
        count,
        tile.block,
        warps=tile.warps,
    )


def merge_experts_backward(
    grad_merged: Tensor,
    weights: Tensor,
    experts: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    tile: VectorTile | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the merge; one launch, and a second to add partial sums if ``experts`` is given.

    Args:
        grad_merged: [P].
        weights: [E].
        experts: [E, P], only if the gradient of ``weights`` is needed.
        out_dtype: dtype of the experts' gradient; that of ``experts`` if given, else that of ``grad_merged``.
        tile: share of one program; chosen by what is computed by default.

    Returns:
        Gradient of the experts [E, P], and of ``weights`` [E] in its dtype (None without ``experts``).
    """
    grad_merged, weights = dense(grad_merged, weights)
    experts = None if experts is None else experts.contiguous()
    count, size = weights.shape[0], grad_merged.shape[0]
    # With the sums of the larger tile, Triton 3.6 spills.
    tile = tile or (VECTOR_TILE if experts is None else SMALL_VECTOR_TILE)
    programs = triton.cdiv(size, tile.block)
    dtype = out_dtype or (grad_merged if experts is None else experts).dtype
    grad_experts = grad_merged.new_empty((count, size), dtype=dtype)
    partial = None if experts is None else grad_merged.new_empty((programs, count), dtype=torch.float32)
    launch(
        spread_kernel,
        (programs,),
        grad_merged,
        None,
        weights,
        None,
        experts,
        grad_experts,
        partial,
        size,
        count,
        tile.block,
        warps=tile.warps,
    )
    return grad_experts, None if partial is None else partial.sum(0).to(weights.dtype)


def expand_expert_gradient(
    grad_merged: Tensor,
    g: Tensor,
    weights: Tensor,
    index: Tensor,
    out: Tensor | None = None,
    tile: VectorTile = VECTOR_TILE,
) -> Tensor:
    """Gradient of all experts from its two factors, ``weights[i] * G + [i == index] * g``; one launch.

    Args:
        grad_merged: G [P].
        g: [P].
        weights: [E].
        index: int64 scalar on the device.
        out: [E, P], contiguous, overwritten; a new tensor in the dtype of ``g`` by default.
        tile: share of one program.

    Returns:
        [E, P].

    Raises:
        ShapeError: ``out`` is not contiguous.
    """
    grad_merged, g, weights = dense(grad_merged, g, weights)
    count, size = weights.shape[0], g.shape[0]
    out = g.new_empty((count, size)) if out is None else out
    check_dense(out=out)
    launch(
        spread_kernel,
        (triton.cdiv(size, tile.block),),
        grad_merged,
        g,
        weights,
        index,
        None,
        out,
        None,
        size,
        count,
        tile.block,
        warps=tile.warps,
    )
    return out
