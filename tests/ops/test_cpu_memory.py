"""Reused CPU memory: a block is free when its last tensor is freed, and not before."""

from __future__ import annotations

import pytest
import torch

from mote_fast.ops import cpu_memory

SHAPE = (3, 1 << 18)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    cpu_memory.release()


def test_a_block_is_reused_after_its_last_view_dies() -> None:
    """A view keeps the block; once it is freed, the next tensor of that size gets the block."""
    first = cpu_memory.empty(SHAPE, torch.float32)
    address = first.data_ptr()
    view = first[1]
    del first
    second = cpu_memory.empty(SHAPE, torch.float32)
    assert second.data_ptr() != address
    del view
    assert cpu_memory.empty(SHAPE, torch.float32).data_ptr() == address


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("shape", [(0, 4), (5,), SHAPE])
def test_any_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Small and empty tensors too, all contiguous; large ones start on a cache line."""
    x = cpu_memory.empty(shape, dtype)
    assert (x.shape, x.dtype, x.is_contiguous()) == (shape, dtype, True)
    if x.nbytes >= cpu_memory.SMALLEST:
        assert x.data_ptr() % cpu_memory.ALIGNMENT == 0


def test_kept_bytes_and_release() -> None:
    """Free blocks are counted, and can be released."""
    x = cpu_memory.empty(SHAPE, torch.float32)
    size = x.nbytes
    assert cpu_memory.kept_bytes() == 0
    del x
    assert cpu_memory.kept_bytes() == size
    cpu_memory.release()
    assert cpu_memory.kept_bytes() == 0


def test_the_free_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks beyond the bound return to the operating system, so that new shapes do not accumulate memory."""
    size = cpu_memory.empty(SHAPE, torch.float32).nbytes
    cpu_memory.release()
    monkeypatch.setattr(cpu_memory, "KEEP_AT_MOST", 2 * size)
    tensors = [cpu_memory.empty(SHAPE, torch.float32) for _ in range(4)]
    del tensors
    assert cpu_memory.kept_bytes() == 2 * size
