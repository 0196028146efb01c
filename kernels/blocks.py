"""Tile products that the expert kernels share: called from other kernels, never launched.

Both operands of a product have the activations' dtype, so that the tensor cores read them from shared memory as loaded:
a cast in the loop would make each step wait for the one before. All accumulate in float32; float32 operands go through
``tf32x3`` (three tensor-core products of split operands, close to float32's own rounding). Offsets of tokens are int64:
tokens times hidden width may exceed 2**31. Loads outside the matrix give zeros, which add nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def quick_gelu(x):
    """CLIP's activation of float32 ``x``, ``x * sigmoid(1.702 x)``, and its derivative."""
    s = 1.0 / (1.0 + tl.exp(-1.702 * x))
    return x * s, s * (1.0 + 1.702 * x * (1.0 - s))


@triton.jit
def within(row_mask, columns, LIMIT: tl.constexpr, EVEN: tl.constexpr):
    """Mask [rows, columns] of a tile; there is no column test if tiles divide the width evenly."""
    if EVEN:
        return row_mask[:, None] & tl.full((1, columns.shape[0]), 1, tl.int1)
    return row_mask[:, None] & (columns < LIMIT)[None, :]


@triton.jit
def zeros(BLOCK: tl.constexpr):
    """Tile [R, C] of float32 zeros."""
    # By names of their own: Triton 3.6 cannot make a shape of a tuple's elements.
    ROWS: tl.constexpr = BLOCK[0]
    COLUMNS: tl.constexpr = BLOCK[1]
    return tl.zeros((ROWS, COLUMNS), tl.float32)


@triton.jit
def linear_tile(
    a,
    rows,
    row_mask,
    weight,
    columns,
    first,
    last,
    SHAPE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Tile [R, C] of ``a @ weight.T`` (or of ``a @ weight`` if TRANSPOSED), over ``first`` <= k < ``last``.

    a: element (row, k) at ``rows[row] + k``, k < INNER; weight: row-major [OUTER, INNER], or [INNER, OUTER] where
    TRANSPOSED, in the dtype of ``a``; columns [C]: the tile's columns of the product, masked at OUTER. SHAPE is (INNER,
    OUTER), BLOCK (R, C, K), whose K divides ``first``, and ``last`` unless that is INNER.
    """
    INNER: tl.constexpr = SHAPE[0]
    OUTER: tl.constexpr = SHAPE[1]
    total = zeros(BLOCK)
    column_mask = columns < OUTER
    for start in range(first, last, BLOCK[2]):
        k = start + tl.arange(0, BLOCK[2])
        left_mask = within(row_mask, k, INNER, INNER % BLOCK[2] == 0)
        left = tl.load(a + (rows[:, None] + k[None, :]), mask=left_mask, other=0.0)
        at = k[:, None] * OUTER + columns[None, :] if TRANSPOSED else columns[None, :] * INNER + k[:, None]
        right = tl.load(weight + at, mask=(k < INNER)[:, None] & column_mask[None, :], other=0.0)
        total = tl.dot(left, right, total, input_precision="tf32x3")
    return total


@triton.jit
def token_offsets(n, mask, order, frames, stride_sample, stride_row):
    """Offsets (int64) of tokens ``n``: rows of a matrix, or, if ``order`` is given, frame n % frames of the sample at
    place n // frames of ``order``.
    """
    if order is None:
        offsets = n.to(tl.int64) * stride_row
    else:
        sample = tl.load(order + n // frames, mask=mask, other=0)
        offsets = sample.to(tl.int64) * stride_sample + (n % frames).to(tl.int64) * stride_row
    return offsets


@triton.jit
def token_tile(a, n, mask, frames, columns, WIDTH: tl.constexpr):
    """Columns [C] of the tokens ``n`` [K] of ``a``, a matrix [tokens, WIDTH] as ``launch.Tokens`` describes it."""
    at = token_offsets(n, mask, a[1], frames, a[2], a[3])[:, None] + columns[None, :]
    return tl.load(a[0] + at, mask=mask[:, None] & (columns < WIDTH)[None, :], other=0.0)


@triton.jit
def outer_tile(a, b, frames, first, last, rows, columns, SHAPE: tl.constexpr, BLOCK: tl.constexpr):
    """Tile [R, C] of ``a.T @ b`` over tokens first..last.

    a: [tokens, OUTER], b: [tokens, INNER], see ``token_tile``; rows [R] and columns [C] of the product. SHAPE is
    (OUTER, INNER), BLOCK (R, C, K).
    """
    total = zeros(BLOCK)
    for start in range(first, last, BLOCK[2]):
        n = start + tl.arange(0, BLOCK[2])
        left = token_tile(a, n, n < last, frames, rows, SHAPE[0])
        right = token_tile(b, n, n < last, frames, columns, SHAPE[1])
        total = tl.dot(tl.trans(left), right, total, input_precision="tf32x3")
    return total


@triton.jit
def token_sum(a, frames, first, last, rows, SHAPE: tl.constexpr, BLOCK: tl.constexpr):
    """Sum [R] of ``a`` over tokens first..last, float32: the gradient of a bias. Arguments as of outer_tile."""
    ROWS: tl.constexpr = BLOCK[0]
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(first, last, BLOCK[2]):
        n = start + tl.arange(0, BLOCK[2])
        total += tl.sum(token_tile(a, n, n < last, frames, rows, SHAPE[0]).to(tl.float32), 0)
    return total


@triton.jit
def store_weight_gradient(
    grad,
    a,
    b,
    frames,
    first,
    last,
    AT: tl.constexpr,
    SHAPE: tl.constexpr,
    BLOCK: tl.constexpr,
    hint,
):
    """This program's tile of the gradients of one expert's weight, ``a.T @ b``, and bias, the sum of ``a``.

    grad: the gradient of the expert's row; AT: the offsets of weight and bias in it; hint: eviction policy of the
    weight's gradient, evict_first where the next launches do not read it, but activations; the rest as of outer_tile.
    """
    TILES: tl.constexpr = (SHAPE[1] + BLOCK[1] - 1) // BLOCK[1]
    program = tl.program_id(0)
    rows = (program // TILES) * BLOCK[0] + tl.arange(0, BLOCK[0])
    columns = (program % TILES) * BLOCK[1] + tl.arange(0, BLOCK[1])
    total = outer_tile(a, b, frames, first, last, rows, columns, SHAPE, BLOCK)
    mask = (rows < SHAPE[0])[:, None] & (columns < SHAPE[1])[None, :]
    at = rows[:, None] * SHAPE[1] + columns[None, :]
    tl.store(grad + AT[0] + at, total.to(grad.dtype.element_ty), mask=mask, eviction_policy=hint)
    # After the hot loop: a sum inside it would pull every tile of ``a`` from shared memory into registers.
    if program % TILES == 0:
        bias = token_sum(a, frames, first, last, rows, SHAPE, BLOCK)
        tl.store(grad + AT[1] + rows, bias.to(grad.dtype.element_ty), mask=rows < SHAPE[0])
