"""The fused MLP: equal to the block's own MLP, and used only where it is safe."""

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn

from mote_fast.clip.mlp import run_mlp
from tests.tolerances import assert_close


def mlp_of(activation: type[nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return ResidualAttentionBlock(64, 1, act_layer=activation).mlp.to(dtype)


def activations(mlp: nn.Module) -> list[int]:
    """Collect one entry per run of the activation's own module."""
    calls: list[int] = []
    next(each for each in mlp.children() if not isinstance(each, nn.Linear)).register_forward_hook(
        lambda *_: calls.append(1)
    )
    return calls


@torch.no_grad()
@pytest.mark.parametrize("shape", [(64,), (5, 64), (3, 7, 64)])
def test_fused_equals_plain(shape: tuple[int, ...]) -> None:
    """Any leading shape; inputs large enough that the sigmoid saturates both ways."""
    mlp = mlp_of(QuickGELU)
    x = 20 * torch.randn(shape)
    expected = mlp(x)
    calls = activations(mlp)
    assert_close(run_mlp(mlp, x), expected)
    assert not calls


@torch.no_grad()
def test_input_is_left_alone() -> None:
    """In-place operations change only tensors that the MLP created."""
    x = torch.randn(3, 7, 64)
    kept = x.clone()
    run_mlp(mlp_of(QuickGELU), x)
    assert torch.equal(x, kept)


@torch.no_grad()
@pytest.mark.parametrize(("activation", "dtype"), [(nn.GELU, torch.float32), (QuickGELU, torch.bfloat16)])
def test_others_run_as_they_are(activation: type[nn.Module], dtype: torch.dtype) -> None:
    """GELU, and reduced precision, whose rounding the scaled hidden layer would change."""
    mlp = mlp_of(activation, dtype)
    x = torch.randn(3, 64, dtype=dtype)
    calls = activations(mlp)
    assert torch.equal(run_mlp(mlp, x), mlp(x))
    assert len(calls) == 2


def test_training_runs_as_it_is() -> None:
    """With gradients nothing runs in place, and the gradients are those of the plain MLP."""
    mlp = mlp_of(QuickGELU)
    x = torch.randn(3, 7, 64, requires_grad=True)
    found = torch.autograd.grad(run_mlp(mlp, x).square().sum(), [x, *mlp.parameters()])
    expected = torch.autograd.grad(mlp(x).square().sum(), [x, *mlp.parameters()])
    assert all(torch.equal(mine, other) for mine, other in zip(found, expected, strict=True))
