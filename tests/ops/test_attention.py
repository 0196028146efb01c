"""Attention: one answer whichever backend, and honest about which one it is."""

from __future__ import annotations

import pytest
import torch

from mote_fast import BackendError
from mote_fast.ops.attention import attend, resolve_backend, xformers_problem
from tests.tolerances import assert_close


def test_sdpa_matches_the_formula() -> None:
    """softmax(q k / sqrt(h)) v, with and without a mask."""
    q, k, v = torch.randn(3, 2, 5, 4, 8).unbind(0)
    mask = torch.full((5, 5), float("-inf")).triu_(1)
    for bias in (None, mask):
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5
        weights = (scores if bias is None else scores + bias).softmax(-1)
        assert_close(attend(q, k, v, bias), torch.einsum("bhqk,bkhd->bqhd", weights, v))


def test_forced_backend_that_cannot_serve_raises() -> None:
    """A forced choice is never silently replaced."""
    q = torch.randn(1, 2, 1, 8)
    with pytest.raises(BackendError, match="unknown"):
        attend(q, q, q, backend="flash")
    with pytest.raises(BackendError, match="mask"):
        attend(q, q, q, torch.zeros(2, 2), backend="xformers")
    if xformers_problem("cpu") is not None:
        with pytest.raises(BackendError, match="xformers"):
            attend(q, q, q, backend="xformers")


def test_auto_serves_everywhere() -> None:
    """Auto always resolves, and on the CPU to PyTorch's own."""
    assert resolve_backend("cpu", torch.float32) == "sdpa"
    assert resolve_backend("cuda", torch.float16, masked=True) == "sdpa"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="xformers' operators need a CUDA device")
def test_xformers_matches_sdpa() -> None:
    """Where both run they agree to half precision."""
    q, k, v = torch.randn(3, 2, 8, 4, 64, device="cuda", dtype=torch.float16).unbind(0)
    assert_close(attend(q, k, v, backend="xformers").float(), attend(q, k, v, backend="sdpa").float(), "float16")
