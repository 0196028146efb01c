"""One step of the experts' AdamW from given moments, and its float64 truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mote_fast.kernels import reference
from mote_fast.kernels.reference import expert_size
from mote_fast.ops.implementations import Implementation, launchers

STEP, LR, DECAY = 3.0, 1e-3, 0.2
BETAS, EPS = (0.9, 0.999), 1e-8
EXPERTS = 4
# The parts of a factor, for layouts: merged and routed gradient, merge weights, routed index.
FACTOR_PARTS = ("merged gradient", "routed gradient", "weights", "index")


@dataclass(frozen=True)
class AdamwInputs:
    """Parameters [E, P], both moments, and the factors (G [P], g [P], w [E], k) of the gradient."""

    param: Tensor
    mean: Tensor
    square: Tensor
    factors: list[tuple[Tensor, Tensor, Tensor, Tensor]]


def adamw_inputs(width: int, factors: int, device: torch.device) -> AdamwInputs:
    """Draw the state of one layer and its factors."""
    size = expert_size(width)
    param, mean, square = torch.randn(3, EXPERTS, size, device=device).unbind()
    weights = torch.full((EXPERTS,), 1 / EXPERTS, device=device)
    made = [
        (torch.randn(size, device=device), torch.randn(size, device=device), weights, torch.tensor(k, device=device))
        for k in range(factors)
    ]
    return AdamwInputs(param, mean, square.square(), made)


def run_adamw(given: AdamwInputs, implementation: Implementation, *, on_device: bool) -> list[Tensor]:
    """Return parameters and moments after the step; step and learning rate are numbers, or tensors on the device."""
    state = [each.clone() for each in (given.param, given.mean, given.square)]
    numbers = [torch.tensor(number, device=given.param.device) if on_device else number for number in (STEP, LR)]
    update = launchers("factored_adamw", implementation).adamw_factored
    update(*state, given.factors, *numbers, BETAS, EPS, DECAY)
    return state


def adamw_truth(given: AdamwInputs) -> list[Tensor]:
    """What ``run_adamw`` should return, float64."""
    factors = [(g.double(), own.double(), weights.double(), k) for g, own, weights, k in given.factors]
    param, mean, square = (each.double() for each in (given.param, given.mean, given.square))
    return list(reference.adamw_factored_step(param, mean, square, factors, STEP, LR))
