"""Tile products that the expert kernels share: called from other kernels, never launched.

All accumulate in float32. Weights are cast to the activations' dtype right after the load; float32 activations go
through ``tf32x3`` (three tensor-core products of split operands, close to float32's own rounding). Offsets of tokens
are int64: tokens times hidden width may pass 2**31. Loads outside the matrix give zeros, which add nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def quick_gelu(x):
    """CLIP's activation of float32 ``x``, ``x * sigmoid(1.702 x)``."""
    return x / (1.0 + tl.exp(-1.702 * x))


@triton.jit
def quick_gelu_gradient(x):
    """Derivative of quick_gelu at float32 ``x``."""
    s = 1.0 / (1.0 + tl.exp(-1.702 * x))
    return s * (1.0 + 1.702 * x * (1.0 - s))


@triton.jit
def within(row_mask, columns, LIMIT: tl.constexpr, EVEN: tl.constexpr):
    """Mask [rows, columns] of a tile; the column test is left out where tiles divide the width evenly."""
    if EVEN:
        return row_mask[:, None] & tl.full((1, columns.shape[0]), 1, tl.int1)
    return row_mask[:, None] & (columns < LIMIT)[None, :]


@triton.jit
def linear_tile(
    a,
    a_rows,
    row_mask,
    a_step,
    weight,
    columns,
    INNER: tl.constexpr,
    OUTER: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ACTIVATE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Tile [R, C] of ``f(a) @ weight.T`` (or of ``f(a) @ weight`` where TRANSPOSED), f QuickGELU where ACTIVATE.

    a: element (row, k) at ``a_rows[row] + k * a_step``, k < INNER; weight: row-major [OUTER, INNER], or [INNER, OUTER]
    where TRANSPOSED; columns [C]: the tile's columns of the product, masked at OUTER.
    """
    dtype = a.dtype.element_ty
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    column_mask = columns < OUTER
    for start in range(0, INNER, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        left = tl.load(
            a + (a_rows[:, None] + (k * a_step)[None, :]),
            mask=within(row_mask, k, INNER, INNER % BLOCK_K == 0),
            other=0.0,
        )
        if ACTIVATE:
            left = quick_gelu(left.to(tl.float32)).to(dtype)
        if TRANSPOSED:
            right = tl.load(
                weight + (k[:, None] * OUTER + columns[None, :]),
                mask=(k < INNER)[:, None] & column_mask[None, :],
                other=0.0,
            )
        else:
            right = tl.load(
                weight + (columns[None, :] * INNER + k[:, None]),
                mask=(k < INNER)[:, None] & column_mask[None, :],
                other=0.0,
            )
        total = tl.dot(left, right.to(dtype), total, input_precision="tf32x3")
    return total


@triton.jit
def token_offsets(n, mask, order, frames, stride_sample, stride_row):
    """Offsets (int64) of tokens ``n``: rows of a matrix, or, where ``order`` is given, frame n % frames of the sample
    that ``order`` puts at place n // frames.
    """
    if order is None:
        offsets = n.to(tl.int64) * stride_row
    else:
        sample = tl.load(order + n // frames, mask=mask, other=0)
        offsets = sample.to(tl.int64) * stride_sample + (n % frames).to(tl.int64) * stride_row
    return offsets


@triton.jit
def outer_tile(
    a,
    a_order,
    a_sample,
    a_row,
    a_step,
    b,
    b_order,
    b_sample,
    b_row,
    b_step,
    frames,
    first,
    last,
    rows,
    columns,
    OUTER: tl.constexpr,
    INNER: tl.constexpr,
    ACTIVATE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Tile [R, C] of ``a.T @ f(b)`` over tokens first..last, f QuickGELU where ACTIVATE.

    a: [tokens, OUTER], b: [tokens, INNER], addressed as in token_offsets; rows [R] and columns [C] of the product.
    """
    dtype = a.dtype.element_ty
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for start in range(first, last, BLOCK_K):
        n = start + tl.arange(0, BLOCK_K)
        mask = n < last
        left = tl.load(
            a + (token_offsets(n, mask, a_order, frames, a_sample, a_row)[:, None] + (rows * a_step)[None, :]),
            mask=mask[:, None] & (rows < OUTER)[None, :],
            other=0.0,
        )
        right = tl.load(
            b + (token_offsets(n, mask, b_order, frames, b_sample, b_row)[:, None] + (columns * b_step)[None, :]),
            mask=mask[:, None] & (columns < INNER)[None, :],
            other=0.0,
        )
        if ACTIVATE:
            right = quick_gelu(right.to(tl.float32)).to(dtype)
        total = tl.dot(tl.trans(left), right, total, input_precision="tf32x3")
    return total


@triton.jit
def token_sum(
    a,
    a_order,
    a_sample,
    a_row,
    a_step,
    frames,
    first,
    last,
    rows,
    OUTER: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Sum [R] of ``a`` over tokens first..last, float32: the gradient of a bias. Addressed as in outer_tile."""
    total = tl.zeros((BLOCK_R,), tl.float32)
    for start in range(first, last, BLOCK_K):
        n = start + tl.arange(0, BLOCK_K)
        mask = n < last
        tile = tl.load(
            a + (token_offsets(n, mask, a_order, frames, a_sample, a_row)[:, None] + (rows * a_step)[None, :]),
            mask=mask[:, None] & (rows < OUTER)[None, :],
            other=0.0,
        )
        total += tl.sum(tile.to(tl.float32), 0)
    return total
