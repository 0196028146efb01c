"""AdamW on stacked experts from their factored gradient. Reference: adamw_factored_step.

The gradient of expert i is ``sum_f w_f[i] * G_f + [i == k_f] * g_f`` over the micro-batches f. One launch reads each
factor once and every parameter and moment once; the [E, P] gradient never exists. Same mathematics as
torch.optim.AdamW (decoupled weight decay), float32 inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from mote_fast.kernels.launch import check_dense, dense, launch
from mote_fast.kernels.tiles import SMALL_VECTOR_TILE, VECTOR_TILE, VectorTile, readable_wide

# (G [P], g [P], w [E], k): merged and routed gradient, merge weights, routed index of one micro-batch.
Factor = tuple[Tensor, Tensor, Tensor, Tensor]


@triton.jit
def adamw_kernel(
    param,
    exp_avg,
    exp_avg_sq,
    merged,
    routed,
    weights,
    indices,
    step_at,
    lr_at,
    grad_scale_at,
    found_inf_at,
    lr,
    grad_scale,
    correction1,
    correction2,
    log2_beta1,
    log2_beta2,
    beta1,
    beta2,
    rate1,
    rate2,
    eps,
    weight_decay,
    SIZE: tl.constexpr,
    EXPERTS: tl.constexpr,
    FACTORS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update param, exp_avg and exp_avg_sq [E, P] in place; merged, routed, weights, indices: tuples of pointers.

    step_at, lr_at and grad_scale_at are None, or one number on the device that replaces the one passed by value; rate
    is 1 - beta and correction 1 - beta**step. found_inf_at is None, or a number that lets nothing be updated unless it
    is zero.
    """
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = column < SIZE
    if found_inf_at is not None:
        mask = mask & (tl.load(found_inf_at).to(tl.int32) == 0)
    if lr_at is not None:
        lr = tl.load(lr_at).to(tl.float32)
    if grad_scale_at is not None:
        grad_scale = tl.load(grad_scale_at).to(tl.float32)
    if step_at is not None:
        # float64, because 1 - 0.999**step loses half its digits in float32.
        step = tl.load(step_at).to(tl.float64)
        correction1 = (1.0 - tl.exp2(step * log2_beta1)).to(tl.float32)
        correction2 = (1.0 - tl.exp2(step * log2_beta2)).to(tl.float32)
    root = tl.sqrt(tl.zeros((BLOCK,), tl.float32) + correction2)
    first = tl.load(merged[0] + column, mask=mask, other=0.0).to(tl.float32)
    for i in tl.static_range(EXPERTS):  # pyright: ignore[reportGeneralTypeIssues]
        grad = tl.zeros((BLOCK,), tl.float32)
        for f in tl.static_range(FACTORS):  # pyright: ignore[reportGeneralTypeIssues]
            shared = first if f == 0 else tl.load(merged[f] + column, mask=mask, other=0.0).to(tl.float32)
            grad += tl.load(weights[f] + i).to(tl.float32) * shared
            own = mask & (tl.load(indices[f]) == i)
            grad += tl.load(routed[f] + column, mask=own, other=0.0).to(tl.float32)
        grad /= grad_scale
        at = i * SIZE + column
        mean = tl.load(exp_avg + at, mask=mask, other=0.0).to(tl.float32)
        square = tl.load(exp_avg_sq + at, mask=mask, other=0.0).to(tl.float32)
        value = tl.load(param + at, mask=mask, other=0.0).to(tl.float32)
        mean = beta1 * mean + rate1 * grad
        square = beta2 * square + rate2 * grad * grad
        value -= lr * weight_decay * value
        value -= lr / correction1 * mean / (tl.sqrt(square) / root + eps)
        tl.store(exp_avg + at, mean.to(exp_avg.dtype.element_ty), mask=mask)
        tl.store(exp_avg_sq + at, square.to(exp_avg_sq.dtype.element_ty), mask=mask)
        tl.store(param + at, value.to(param.dtype.element_ty), mask=mask)


def _split(number: float | Tensor) -> tuple[Tensor | None, float]:
    """Return a number as the pair (tensor on the device or None, value)."""
    return (number, 0.0) if isinstance(number, Tensor) else (None, float(number))


def adamw_factored(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    factors: Sequence[Factor],
    step: float | Tensor,
    lr: float | Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.2,
    grad_scale: float | Tensor = 1.0,
    found_inf: Tensor | None = None,
    tile: VectorTile | None = None,
) -> None:
    """Update stacked experts and their moments in place; one launch.

    Args:
        param: [E, P], contiguous.
        exp_avg: [E, P], contiguous, first moment.
        exp_avg_sq: [E, P], contiguous, second moment.
        factors: at least one (G [P], g [P], w [E], k), all on the device; each number of factors compiles once.
        step: the number of this step, from 1; a number, or a tensor of one element on the device (CUDA graphs).
        lr: learning rate, likewise.
        betas: decay of the moments.
        eps: added to the root of the second moment.
        weight_decay: decay per unit of learning rate.
        grad_scale: the gradient is divided by it; a number, or a tensor of one element on the device.
        found_inf: a tensor of one element on the device; unless it is zero, nothing is updated.
        tile: share of one program; chosen by alignment by default.

    Raises:
        ShapeError: a tensor that is updated is not contiguous.
    """
    check_dense(param=param, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    count, size = param.shape
    step_at, step_value = _split(step)
    lr_at, lr_value = _split(lr)
    scale_at, scale_value = _split(grad_scale)
    beta1, beta2 = betas
    merged, routed, weights, indices = (dense(*tensors) for tensors in zip(*factors, strict=True))
    wide = readable_wide(param, exp_avg, exp_avg_sq, *merged, *routed)
    tile = tile or (VECTOR_TILE if wide else SMALL_VECTOR_TILE)
    launch(
        adamw_kernel,
        (triton.cdiv(size, tile.block),),
        param,
        exp_avg,
        exp_avg_sq,
        merged,
        routed,
        weights,
        indices,
        step_at,
        lr_at,
        scale_at,
        found_inf,
        lr_value,
        scale_value,
        1 - beta1**step_value,
        1 - beta2**step_value,
        math.log2(beta1) if beta1 else -math.inf,
        math.log2(beta2) if beta2 else -math.inf,
        beta1,
        beta2,
        1 - beta1,
        1 - beta2,
        eps,
        weight_decay,
        size,
        count,
        len(factors),
        tile.block,
        warps=tile.warps,
    )
