"""Hand-written backward references against float64 autograd, and the factored AdamW against torch.optim.AdamW."""

from __future__ import annotations

import pytest
import torch

from mote_fast.kernels import reference
from tests.tolerances import assert_close

WIDTH, EXPERTS = 16, 3


@pytest.fixture
def experts() -> torch.Tensor:
    return 0.1 * torch.randn(EXPERTS, reference.expert_size(WIDTH), dtype=torch.float64, generator=seeded(0))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def test_merge(experts: torch.Tensor) -> None:
    """Both gradients of the merge are autograd's."""
    weights, grad = normal(EXPERTS, seed=1).softmax(0), normal(experts.shape[1], seed=2)
    inputs = (experts.requires_grad_(), weights.requires_grad_())
    wanted = torch.autograd.grad(reference.merge_experts(*inputs), inputs, grad)
    actual = reference.merge_experts_backward(grad, weights.detach(), experts.detach())
    for a, w in zip(actual, wanted, strict=True):
        assert_close(a, w, "float64")


@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_pair(experts: torch.Tensor, tokens: int) -> None:
    """Gradients of inputs and, once expanded, of all experts are autograd's."""
    x_routed, x_merged, dy_routed, dy_merged = normal(4, tokens, WIDTH, seed=3)
    weights, index = normal(EXPERTS, seed=4).softmax(0), torch.tensor(2)
    inputs = (x_routed.requires_grad_(), x_merged.requires_grad_(), experts.requires_grad_())
    outputs = reference.expert_pair_ffn(*inputs, weights, index)
    wanted = torch.autograd.grad(outputs, inputs, (dy_routed, dy_merged))
    detached = [t.detach() for t in inputs]
    dx_routed, dx_merged, g, grad_merged = reference.expert_pair_ffn_backward(
        dy_routed, dy_merged, *detached, weights, index
    )
    grad_experts = reference.expand_expert_gradient(grad_merged, g, weights, index)
    actual = (dx_routed, dx_merged, grad_experts)
    for a, w in zip(actual, wanted, strict=True):
        assert_close(a, w, "float64")


def test_routed(experts: torch.Tensor) -> None:
    """Gradients are autograd's, and zero for an expert without samples."""
    x, dy = normal(2, 5, 3, WIDTH, seed=5)
    index = torch.tensor([2, 0, 2, 2, 0])
    inputs = (x.requires_grad_(), experts.requires_grad_())
    wanted = torch.autograd.grad(reference.routed_ffn(*inputs, index), inputs, dy)
    actual = reference.routed_ffn_backward(dy, x.detach(), experts.detach(), index)
    for a, w in zip(actual, wanted, strict=True):
        assert_close(a, w, "float64")
    assert not actual[1][1].any()


def test_adamw(experts: torch.Tensor) -> None:
    """Three steps on the sum of two factors equal torch.optim.AdamW on the dense gradient."""
    param = torch.nn.Parameter(experts.clone())
    optimizer = torch.optim.AdamW([param], lr=1e-2, weight_decay=0.2)
    mine = experts.clone(), torch.zeros_like(experts), torch.zeros_like(experts)
    for step in (1, 2, 3):
        factors = []
        for micro in range(2):
            grad_merged, g = normal(2, experts.shape[1], seed=10 * step + micro)
            weights = normal(EXPERTS, seed=20 * step + micro).softmax(0)
            factors.append((grad_merged, g, weights, torch.tensor(micro)))
        mine = reference.adamw_factored_step(*mine, factors, step, 1e-2, grad_scale=4.0)
        param.grad = sum((reference.expand_expert_gradient(*f) for f in factors), torch.zeros_like(experts)) / 4.0
        optimizer.step()
    assert_close(mine[0], param.detach(), "float64")
