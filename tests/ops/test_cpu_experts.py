"""The merge on a CPU with more values than a slice, and with experts of low precision."""

from __future__ import annotations

import pytest
import torch

from mote_fast.ops import cpu_experts
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
