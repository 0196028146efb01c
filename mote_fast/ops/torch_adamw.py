"""AdamW over factored expert gradients in plain PyTorch, for any device; no value is read on the host of a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mote_fast.kernels.launch import check_dense
from mote_fast.ops.torch_experts import expand_expert_gradient


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
    """One AdamW step of ``param [E, P]`` in place: the dense gradient [E, P], then PyTorch's fused update.

    Args:
        param: [E, P].
        exp_avg: [E, P], first moment.
        exp_avg_sq: [E, P], second moment.
        factors: for each backward pass: gradient of the merged row [P], of the routed row [P], weights [E], index.
        step: the number of this step, from 1; a number, or float32 scalar on the device.
        lr: learning rate, likewise.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay, per unit of learning rate.
        found_inf: float32 scalar on the device; unless it is zero, nothing is updated.

    Raises:
        ShapeError: a tensor that is updated is not contiguous: PyTorch's update ignores strides.

    Source: torch.optim.AdamW; docs/method.md, Optimisation.
    """
    check_dense(param=param, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    grad = expand_expert_gradient(*factors[0])
    for factor in factors[1:]:
        grad += expand_expert_gradient(*factor)
    if not isinstance(step, Tensor):
        step = torch.full((), step, dtype=torch.float32, device=param.device)
    torch.ops.aten._fused_adamw_(
        [param],
        [grad.to(param.dtype)],
        [exp_avg],
        [exp_avg_sq],
        [],
        [step],
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
        found_inf=found_inf,
    )
