"""The merge on a CPU, in slices and at once; the experts by either library, and with tokens in rows and in columns."""

from __future__ import annotations

import pytest
import torch

from mote_fast.kernels import reference
from mote_fast.ops import cpu_experts, products
from mote_fast.ops.products import Serving
from tests.ops.test_products import needs_onednn
from tests.tolerances import assert_close


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_merge_over_several_slices(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Low-precision experts are converted to float32 before they are weighted: there is no other rounding."""
    monkeypatch.setattr(cpu_experts, "MERGE_SLICE", 100)
    monkeypatch.setattr(cpu_experts, "SLICE", 100)
    stack = torch.randn(3, 250).to(dtype)
    weights = torch.tensor([0.31, -0.17, 0.86])
    inner = torch.promote_types(dtype, torch.float32)
    merged = cpu_experts.merge_experts_forward(stack, weights, inner)
    assert merged.dtype == inner
    assert_close(merged, weights.double() @ stack.double(), "float32")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_merge_at_once(dtype: torch.dtype) -> None:
    """A row that fits a slice is merged in one call, unless its experts are to be converted first."""
    stack, weights = torch.randn(3, 250).to(dtype), torch.tensor([0.31, -0.17, 0.86])
    inner = torch.promote_types(dtype, torch.float32)
    merged = cpu_experts.merge_experts_forward(stack, weights, inner)
    assert merged.dtype == inner
    assert_close(merged, weights.double() @ stack.double(), "float32")


@pytest.mark.parametrize("narrow", [0, cpu_experts.NARROW])
@pytest.mark.parametrize("tokens", [3, 40, 90])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_tokens_in_rows_and_in_columns(monkeypatch: pytest.MonkeyPatch, narrow: int, tokens: int, dtype: str) -> None:
    """Outputs and gradients of the pair are those of its definition in float64, however the tokens lie."""
    monkeypatch.setattr(cpu_experts, "NARROW", narrow)
    width, kind = 16, getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    experts = torch.randn(3, reference.expert_size(width), generator=generator).to(kind)
    x_routed, x_merged, *dys = (torch.randn(tokens, width, generator=generator).to(kind) for _ in range(4))
    index, weights = torch.tensor(1), torch.tensor([0.5, 0.3, 0.2])
    *outputs, saved, rows = cpu_experts.expert_pair_forward(x_routed, x_merged, experts, weights, index)
    *of_inputs, of_rows = cpu_experts.expert_pair_backward(*dys, x_routed, x_merged, experts, rows, index, saved)
    inputs = [x_routed.double().requires_grad_(), x_merged.double().requires_grad_()]
    both = torch.stack((experts[1].double(), weights.double() @ experts.double())).requires_grad_()
    expected = [reference.expert_ffn(x, row) for x, row in zip(inputs, both, strict=True)]
    torch.autograd.backward(expected, [dy.double() for dy in dys])
    for found, wanted in zip(
        (*outputs, *of_inputs, of_rows), (*expected, *(x.grad for x in (*inputs, both))), strict=True
    ):
        assert wanted is not None
        assert_close(found, wanted, "float32" if dtype == "float64" else dtype)


@needs_onednn
@pytest.mark.parametrize("narrow", [0, cpu_experts.NARROW])
@pytest.mark.parametrize("tokens", [8, 64, 90])
def test_either_library_computes_the_experts(monkeypatch: pytest.MonkeyPatch, tokens: int, narrow: int) -> None:
    """Outputs and gradients through oneDNN are those of BLAS; few tokens stay with BLAS."""
    monkeypatch.setattr(cpu_experts, "NARROW", narrow)
    width, count = 64, 3
    generator = torch.Generator().manual_seed(0)
    experts = torch.randn(count, 8 * width * width + 5 * width, generator=generator)
    x = torch.randn(4, tokens, width, generator=generator)
    index, weights = torch.tensor(1), torch.tensor([0.5, 0.3, 0.2])
    called: list[int] = []
    original = products._operator
    monkeypatch.setattr(products, "_operator", lambda *given: called.append(0) or original(*given))
    monkeypatch.setattr(products, "LEAST_ROWS", 0)
    monkeypatch.setattr(products, "LEAST", 1)
    found = []
    for by_onednn in (False, True):
        monkeypatch.setattr(products, "_DECIDED", {"float32": Serving(by_onednn, "asked for")})
        *outputs, saved, rows = cpu_experts.expert_pair_forward(x[0], x[1], experts, weights, index)
        gradients = cpu_experts.expert_pair_backward(x[2], x[3], x[0], x[1], experts, rows, index, saved)
        routed, kept = cpu_experts.routed_forward(x, experts, torch.tensor([0, 1, 1, 2]))
        of_routed = cpu_experts.routed_backward(x, x, experts, torch.tensor([0, 1, 1, 2]), kept)
        found.append((*outputs, *gradients, routed, *of_routed))
        # The routed form gives one expert two samples, and the others one each.
        assert bool(called) == (by_onednn and tokens >= 64)
    for mine, expected in zip(*reversed(found), strict=True):
        assert_close(mine, expected)
