"""AdamW over factored expert gradients on a CPU, in slices that stay in cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mote_fast.kernels.launch import check_dense
from mote_fast.ops.cpu_memory import empty

# Values per thread and slice, over all its experts: the gradient of a slice is written and read while it is in cache.
SLICE = 1 << 19


def adamw_factored(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    factors: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
    step: float | Tensor,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    found_inf: Tensor | None = None,
) -> None:
    """One AdamW step of ``param [E, P]`` in place; the gradient [E, P] never exists.

    Args:
        param: [E, P].
        exp_avg: [E, P], first moment.
        exp_avg_sq: [E, P], second moment.
        factors: for each backward pass: gradient of the merged row [P], of the routed row [P], weights [E], index.
        step: the number of this step, from 1; a number, or a scalar.
        lr: learning rate, likewise.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay, per unit of learning rate.
        found_inf: a number; unless it is zero, nothing is updated.

    Raises:
        ShapeError: a tensor that is updated is not contiguous: PyTorch's update ignores strides.

    Source: torch.optim.AdamW; docs/method.md, Optimisation.
    """
    check_dense(param=param, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    if found_inf is not None and bool(found_inf):
        return
    experts, width = param.shape
    terms = [
        (merged, routed, weights.to(param.dtype)[:, None], int(index)) for merged, routed, weights, index in factors
    ]
    counters = [torch.tensor(float(step))] * experts
    most = SLICE * torch.get_num_threads()
    # Whole experts are one tensor to PyTorch; two are as large as the rows of the factored gradient, and are the most.
    whole = 2 * width <= most
    rows, columns = (min(2, experts), width) if whole else (experts, max(1, most // experts))
    buffer = empty((rows * columns,), param.dtype)
    for top in range(0, experts, rows):
        for left in range(0, width, columns):
            height, length = min(rows, experts - top), min(columns, width - left)
            grads = buffer[: height * length].view(height, length)
            _gradients(terms, top, left, grads)
            blocks = [
                block.view(1, -1).unbind() if whole else block[:, left : left + length].unbind()
                for block in (stack[top : top + height] for stack in (param, exp_avg, exp_avg_sq))
            ]
            # One call for all experts: one call per expert and slice took a tenth of the update.
            torch.ops.aten._fused_adamw_(
                blocks[0],
                grads.view(1, -1).unbind() if whole else grads.unbind(),
                blocks[1],
                blocks[2],
                [],
                counters[: len(blocks[0])],
                lr=float(lr),
                beta1=betas[0],
                beta2=betas[1],
                weight_decay=weight_decay,
                eps=eps,
                amsgrad=False,
                maximize=False,
            )


def _gradients(terms: list[tuple[Tensor, Tensor, Tensor, int]], top: int, left: int, out: Tensor) -> None:
    """Write the gradient of experts from ``top`` on, values from ``left`` on, to ``out [R, S]``."""
    height, length = out.shape
    part = slice(left, left + length)
    for order, (merged, routed, weights, index) in enumerate(terms):
        shares = weights[top : top + height]
        if order:
            out.addcmul_(shares, merged[part])
        else:
            torch.mul(shares, merged[part], out=out)
        if top <= index < top + height:
            out[index - top].add_(routed[part])
