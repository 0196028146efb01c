"""AdamW over factored expert gradients on a CPU, in slices that stay in cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mote_fast.cpu.memory import empty

# Values of a row that each thread updates at a time: the slice of the gradient lives in its core's L2 cache while the
# experts read it in turn.
SLICE = 1 << 17


def adamw_factored(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    factors: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
    step: float,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """One AdamW step of ``param [E, P]`` in place; the gradient [E, P] never exists.

    Args:
        param: [E, P].
        exp_avg: [E, P], first moment.
        exp_avg_sq: [E, P], second moment.
        factors: for each backward pass: gradient of the merged row [P], of the routed row [P], weights [E], index.
        step: the number of this step, from 1.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay, per unit of learning rate.

    Source: torch.optim.AdamW; spec section 8.
    """
    size = SLICE * torch.get_num_threads()
    rows = [[row.split(size) for row in stack.unbind()] for stack in (param, exp_avg, exp_avg_sq)]
    terms = [
        (merged.split(size), routed.split(size), weights.tolist(), int(index))
        for merged, routed, weights, index in factors
    ]
    counter = torch.tensor(float(step))
    buffer = empty((min(size, param.shape[1]),), param.dtype)
    for part, first in enumerate(rows[0][0]):
        grad = buffer[: first.shape[0]]
        for expert, (values, average, square) in enumerate(zip(*rows, strict=True)):
            _gradient(terms, expert, part, grad)
            torch.ops.aten._fused_adamw_(
                [values[part]],
                [grad],
                [average[part]],
                [square[part]],
                [],
                [counter],
                lr=lr,
                beta1=betas[0],
                beta2=betas[1],
                weight_decay=weight_decay,
                eps=eps,
                amsgrad=False,
                maximize=False,
            )


def _gradient(
    terms: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...], list[float], int]], expert: int, part: int, out: Tensor
) -> None:
    """Write one slice of one expert's gradient."""
    for order, (merged, routed, weights, index) in enumerate(terms):
        if order:
            out.add_(merged[part], alpha=weights[expert])
            if index == expert:
                out.add_(routed[part])
        elif index == expert:
            torch.add(routed[part], merged[part], alpha=weights[expert], out=out)
        else:
            torch.mul(merged[part], weights[expert], out=out)
