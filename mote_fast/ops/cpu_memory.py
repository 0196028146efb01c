"""Reused memory for large CPU tensors.

PyTorch returns large CPU blocks to the operating system when a tensor is freed, so every step touches fresh pages; for
the sizes of this head, the page faults cost more than the arithmetic on those pages. Blocks allocated here return to a
free list when their last tensor is freed.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

# Below this size the C allocator keeps and reuses memory by itself.
SMALLEST = 1 << 18
# Sizes are rounded up to a multiple of this, so that nearly equal shapes share blocks.
GRANULE = 1 << 18
# Bytes that the free list may hold: several times the memory of a training step of the largest head, and a bound on
# the blocks of many batch sizes.
KEEP_AT_MOST = 1 << 30
# Cache lines; vector loads that straddle two of them take twice as long.
ALIGNMENT = 64

_free: defaultdict[int, list[np.ndarray]] = defaultdict(list)
_live = 0
_peak = 0


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised contiguous CPU tensor, on reused memory if it is large.

    Args:
        shape: sizes, zero included.
        dtype: any dtype.
    """
    count = math.prod(shape)
    size = count * dtype.itemsize
    if size < SMALLEST:
        return torch.empty(shape, dtype=dtype)
    rounded = -(-size // GRANULE) * GRANULE
    try:
        block = _free[rounded].pop()
    except IndexError:
        block = _aligned(rounded)
    # The tensor owns this view: when the view is collected, the block is free.
    lease = block[:]
    weakref.finalize(lease, _give_back, block).atexit = False
    _count(rounded)
    return torch.frombuffer(lease, dtype=dtype, count=count).view(shape)


def empty_like(x: Tensor) -> Tensor:
    """Return an uninitialised contiguous tensor with the shape and dtype of ``x``; see ``empty``."""
    return empty(tuple(x.shape), x.dtype)


def kept_bytes() -> int:
    """Bytes in the free list, ready for reuse."""
    return sum(size * len(blocks) for size, blocks in _free.items())


def peak_bytes() -> int:
    """Peak bytes held by tensors since ``reset_peak``."""
    return _peak


def reset_peak() -> None:
    """Restart the measurement of ``peak_bytes``."""
    global _peak
    _peak = _live


def release() -> None:
    """Return the memory of the free list to the operating system."""
    _free.clear()


def _give_back(block: np.ndarray) -> None:
    if kept_bytes() + block.nbytes <= KEEP_AT_MOST:
        _free[block.nbytes].append(block)
    _count(-block.nbytes)


def _count(change: int) -> None:
    global _live, _peak
    _live += change
    _peak = max(_peak, _live)


def _aligned(size: int) -> np.ndarray:
    raw = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
