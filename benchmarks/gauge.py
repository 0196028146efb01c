"""The most memory that a call takes above what was held before it.

On a GPU this is PyTorch's allocator's own account. On Linux it is the process's high-water mark, which the kernel lets
a process reset; memory that earlier calls left in free lists goes back to the system first, or it would be taken again
unseen. Elsewhere there is no figure.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mote_fast.ops import cpu_memory

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
# What resets the high-water mark, see proc(5).
_RESET_PEAK = "5"


def measured(call: Callable[[], Any], device: torch.device) -> tuple[Any, float | None]:
    """Return what the call returns, and the MiB that it took at its peak; None where that cannot be told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        torch.cuda.synchronize(device)
        return result, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if not reset_peak():
        return call(), None
    before = status("VmRSS")
    result = call()
    return result, max(0.0, status("VmHWM") - before)


def reset_peak() -> bool:
    """Return free memory and reset the high-water mark; False if the system cannot."""
    cpu_memory.release()
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        _CLEAR.write_text(_RESET_PEAK)
    except (OSError, AttributeError):
        return False
    return True


def status(field: str) -> float:
    """MiB of an entry of /proc/self/status, such as VmRSS (resident) or VmHWM (the most that was)."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) / 1024


def in_new_process(function: Callable[..., float], *arguments: object) -> float:
    """What the function returns in a process of its own, which holds nothing of this one's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
