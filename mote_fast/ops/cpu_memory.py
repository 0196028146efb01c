"""Reused memory for large CPU tensors.

PyTorch gives large CPU blocks back to the operating system when a tensor dies, so every step touches fresh pages
again; for the sizes of this head, faulting those pages in costs more than the arithmetic that fills them. Blocks taken
here return to a free list when the last tensor on them dies.
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
# Bytes that the free list may hold: several times what a training step of the largest head takes, and an end to what
# new batch sizes could pile up.
KEEP_AT_MOST = 1 << 30
# Cache lines; vector loads that straddle two of them take twice as long.
ALIGNMENT = 64

_free: defaultdict[int, list[np.ndarray]] = defaultdict(list)
_live = 0
_peak = 0


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised contiguous CPU tensor, on reused memory where it is large.

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
    # The tensor owns this view; the view's death says that nothing uses the block any more.
    lease = block[:]
    weakref.finalize(lease, _give_back, block).atexit = False
    _count(rounded)
    return torch.frombuffer(lease, dtype=dtype, count=count).view(shape)


def empty_like(x: Tensor) -> Tensor:
    """Return an uninitialised contiguous tensor shaped and typed like ``x``; see ``empty``."""
    return empty(tuple(x.shape), x.dtype)


def kept_bytes() -> int:
    """Bytes that lie in the free list, ready for reuse."""
    return sum(size * len(blocks) for size, blocks in _free.items())


def peak_bytes() -> int:
    """The most bytes that tensors held at one time since ``reset_peak``."""
    return _peak


def reset_peak() -> None:
    """Start measuring ``peak_bytes`` anew."""
    global _peak
    _peak = _live


def release() -> None:
    """Give the memory in the free list back to the operating system."""
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
