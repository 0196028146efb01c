"""Compiles what a training step of the experts launches, several kernels at a time, before the first step."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from mote_fast.kernels.expert_ffn import expert_pair_backward, expert_pair_forward
from mote_fast.kernels.factored_adamw import adamw_factored
from mote_fast.kernels.launch import compiling
from mote_fast.kernels.merge import expand_expert_gradient


def compile_step(experts: Tensor, width: int, tokens: int, dtype: torch.dtype, factors: int) -> None:
    """Compile forward, backward and update of one layer's experts; nothing is run, and no value is read.

    Args:
        experts: [E, P], the parameter.
        width: d.
        tokens: N of one stream in a pass, clips times frames.
        dtype: of the activations.
        factors: passes of a step, whose factors one update takes; 0 if gradients are dense.
    """
    x = experts.new_empty((tokens, width), dtype=dtype)
    weights = experts.new_empty(experts.shape[0], dtype=torch.float32)
    index = experts.new_empty((), dtype=torch.int64)
    with torch.no_grad(), compiling(os.cpu_count() or 1):
        *_, saved, rows = expert_pair_forward(x, x, experts, weights, index)
        *_, grads = expert_pair_backward(x, x, x, x, experts, rows, index, saved)
        factor = (grads[1], grads[0], weights, index)
        if factors:
            adamw_factored(experts, experts, experts, [factor] * factors, 1.0, 1e-4)
        else:
            expand_expert_gradient(*factor)
