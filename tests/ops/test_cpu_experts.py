"""The merge on a CPU with more values than a slice, and with experts of low precision."""

from __future__ import annotations

import pytest
import torch

from mote_fast.ops import cpu_experts, products
from mote_fast.ops.products import Serving
from tests.ops.test_products import needs_onednn
from tests.tolerances import assert_close


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_merge_over_several_slices(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Low-precision experts are converted to float32 before they are weighted: there is no other rounding."""
    monkeypatch.setattr(cpu_experts, "MERGE_SLICE", 100)
    stack = torch.randn(3, 250).to(dtype)
    weights = torch.tensor([0.31, -0.17, 0.86])
    inner = torch.promote_types(dtype, torch.float32)
    merged = cpu_experts.merge_experts_forward(stack, weights, inner)
    assert merged.dtype == inner
    assert_close(merged, weights.double() @ stack.double(), "float32")


@needs_onednn
@pytest.mark.parametrize("tokens", [8, 64, 90])
def test_either_library_computes_the_experts(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Outputs and gradients through oneDNN are those of BLAS; few tokens stay with BLAS."""
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
