"""AdamW over factored expert gradients on a CPU, in slices that stay in cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mote_fast.kernels.launch import check_dense
from mote_fast.ops.cpu_memory import empty

# Values per thread and slice, over all experts: the gradient of a slice is written and read while it is in cache.
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
    # For small layers too: the slices together are no larger than the two rows of the factored gradient.
    size = max(1, min(SLICE * torch.get_num_threads(), 2 * width) // experts)
    rows = [[row.split(size) for row in stack.unbind()] for stack in (param, exp_avg, exp_avg_sq)]
    terms = [
        (merged.split(size), routed.split(size), weights.to(param.dtype)[:, None], int(index))
        for merged, routed, weights, index in factors
    ]
    counters = [torch.tensor(float(step))] * experts
    buffer = empty((experts * min(size, width),), param.dtype)
    for part, first in enumerate(rows[0][0]):
        grads = buffer[: experts * first.shape[0]].view(experts, -1)
        _gradients(terms, part, grads)
        # One call for all experts: one call per expert and slice took a tenth of the update.
        torch.ops.aten._fused_adamw_(
            [row[part] for row in rows[0]],
            grads.unbind(),
            [row[part] for row in rows[1]],
            [row[part] for row in rows[2]],
            [],
            counters,
            lr=float(lr),
            beta1=betas[0],
            beta2=betas[1],
            weight_decay=weight_decay,
            eps=eps,
            amsgrad=False,
            maximize=False,
        )


def _gradients(terms: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor, int]], part: int, out: Tensor) -> None:
    """Write one slice of every expert's gradient, ``out [E, S]``."""
    for order, (merged, routed, weights, index) in enumerate(terms):
        if order:
            out.addcmul_(weights, merged[part])
        else:
            torch.mul(weights, merged[part], out=out)
        out[index].add_(routed[part])
