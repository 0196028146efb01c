"""Attention: all backends give the same result, and the reported backend is the one that runs."""

from __future__ import annotations

import pytest
import torch

from mote_fast.clip import load_towers
from mote_fast.errors import BackendError
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
    with pytest.raises(BackendError, match="unknown"):
        resolve_backend("cpu", torch.float32, "flash")
    if xformers_problem("cpu") is not None:
        with pytest.raises(BackendError, match="xformers"):
            resolve_backend("cpu", torch.float32, "xformers")
        with pytest.raises(BackendError, match="xformers"):
            load_towers("ViT-test", attention="xformers")


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("no xformers"), AttributeError("torch has no\nthat"), SystemError()]
)
def test_a_broken_xformers_is_a_reason_and_no_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Absent, built for another PyTorch, or failing in its own way: auto takes PyTorch's, and doctor can say why."""

    def fails(name: str) -> None:
        raise error

    monkeypatch.setattr("mote_fast.ops.attention.importlib.import_module", fails)
    xformers_problem.cache_clear()
    try:
        assert resolve_backend("cuda", torch.float16) == "sdpa"
        problem = xformers_problem("cuda", torch.float16)
    finally:
        xformers_problem.cache_clear()
    assert problem is not None
    assert problem.startswith("xformers does not import")
    assert "\n" not in problem


def test_auto_serves_everywhere() -> None:
    """Auto always resolves, and on the CPU to PyTorch's own."""
    assert resolve_backend("cpu", torch.float32) == "sdpa"


def test_towers_resolve_when_built_and_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward pass probes nothing: the choice is made for the device and dtype that the towers are moved to."""
    asked: list[tuple[str, torch.dtype, str]] = []
    monkeypatch.setattr("mote_fast.clip.towers.resolve_backend", lambda *what: asked.append(what) or "sdpa")
    towers = load_towers("ViT-test")
    towers.half()
    assert asked[0] == ("cpu", torch.float32, "auto")
    assert asked[-1] == ("cpu", torch.float16, "auto")
    asked.clear()
    towers.float().encode_frames(torch.zeros(1, 3, towers.image_size, towers.image_size))
    assert len(asked) == 1


def test_masked_attention_is_sdpas() -> None:
    """The towers' choice is for the image tower: xformers is not asked for the text tower's masked attention."""
    q, mask = torch.randn(1, 2, 1, 8), torch.zeros(2, 2)
    assert_close(attend(q, q, q, mask, backend="xformers"), attend(q, q, q, mask), "exact")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="xformers' operators need a CUDA device")
def test_xformers_matches_sdpa() -> None:
    """If both run, they agree to half precision."""
    q, k, v = torch.randn(3, 2, 8, 4, 64, device="cuda", dtype=torch.float16).unbind(0)
    assert_close(attend(q, k, v, backend="xformers").float(), attend(q, k, v, backend="sdpa").float(), "float16")
