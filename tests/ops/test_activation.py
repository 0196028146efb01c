"""The QuickGELU operator: its values and gradients by every implementation, and its registration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mote_fast.kernels import reference
from mote_fast.ops.activation import quick_gelu
from mote_fast.ops.implementations import Implementation, implemented_by
from tests.tolerances import assert_close


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return (4 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


@pytest.mark.parametrize("implementation", ["cpu", "torch"])
@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, "float32"), (torch.bfloat16, "bfloat16")])
def test_values_and_gradients(implementation: Implementation, dtype: torch.dtype, kind: str) -> None:
    """Equal to the reference in float64, also for a transposed input, and of the input's dtype."""
    for x in (normal(3, 5, 8, dtype=dtype), normal(8, 6, dtype=dtype).t()):
        leaf, exact = x.clone().requires_grad_(), x.double().requires_grad_()
        dy = normal(*x.shape, dtype=dtype, seed=1)
        with implemented_by(implementation):
            y = quick_gelu(leaf)
            (dx,) = torch.autograd.grad(y, leaf, dy)
        (expected,) = torch.autograd.grad(reference.quick_gelu(exact), exact, dy.double())
        assert y.dtype == dx.dtype == dtype
        assert_close(y, reference.quick_gelu(x.double()), kind)
        assert_close(dx, expected, kind)


def test_only_the_input_is_kept_for_backward() -> None:
    """A tower's hidden layers are what fills the memory."""
    kept: list[Tensor] = []
    x = normal(4, 8).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        quick_gelu(x)
    assert [each.data_ptr() for each in kept] == [x.data_ptr()]


def test_registration() -> None:
    """PyTorch's own checks of schema, fake values and gradients; and gradients of gradients."""
    x = normal(3, 8, dtype=torch.float64).requires_grad_()
    torch.library.opcheck(torch.ops.mote_fast.quick_gelu.default, (x,))
    torch.library.opcheck(torch.ops.mote_fast.quick_gelu_backward.default, (x.detach(), x.detach()))
    assert torch.autograd.gradcheck(quick_gelu, (x,))
    assert torch.autograd.gradgradcheck(quick_gelu, (x,))
