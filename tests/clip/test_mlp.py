"""The fused MLP: equal to the block's own MLP, and used only where it is safe."""

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn

from mote_fast.clip.mlp import LEAST_ON_CPU, run_mlp
from tests.pretended_cuda import pretended_cuda
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


@pytest.mark.parametrize(("tokens", "hidden_layers"), [(7, 4), (1 + LEAST_ON_CPU // 256, 2)])
def test_training(tokens: int, hidden_layers: int) -> None:
    """The gradients are those of the plain MLP; a large hidden layer is kept once, beside its activation."""
    mlp = mlp_of(QuickGELU)
    x = torch.randn(tokens, 64, requires_grad=True)
    found = torch.autograd.grad(run_mlp(mlp, x).square().sum(), [x, *mlp.parameters()])
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.shape) or each, lambda each: each):
        run_mlp(mlp, x)
    assert kept.count(torch.Size([tokens, 256])) == hidden_layers
    expected = torch.autograd.grad(mlp(x).square().sum(), [x, *mlp.parameters()])
    for mine, other in zip(found, expected, strict=True):
        assert_close(mine, other)


def test_transforms_of_functions_take_the_plain_activation() -> None:
    """torch.func has no rules for the operator."""
    mlp = mlp_of(QuickGELU)
    x = torch.randn(1 + LEAST_ON_CPU // 256, 64)
    found = torch.func.grad(lambda each: run_mlp(mlp, each).square().sum())(x)
    leaf = x.requires_grad_()
    assert_close(found, torch.autograd.grad(mlp(leaf).square().sum(), leaf)[0])


def test_a_gpu_runs_the_operator_and_the_compiler_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without gradients; compiled code takes what the compiler can fuse."""
    mlp = mlp_of(QuickGELU)
    called: list[torch.Size] = []
    monkeypatch.setattr("mote_fast.clip.mlp.quick_gelu", lambda x: called.append(x.shape) or x)
    with pretended_cuda():
        mlp.to("cuda")
        for training in (True, False):
            with torch.set_grad_enabled(training):
                run_mlp(mlp, torch.empty(3, 64, device="cuda"))
        assert called == [torch.Size([3, 256])] * 2
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        run_mlp(mlp, torch.empty(3, 64, device="cuda"))
    assert len(called) == 2
