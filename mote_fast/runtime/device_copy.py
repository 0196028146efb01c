"""Copies from the host to the device of a model for which the host does not wait, and neither does the GPU's work."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on ``device``; a copy from the host to a GPU is only begun.

    The host would wait for a copy from ordinary memory until the GPU has done all earlier work. Small tensors are
    meant: they are copied to pinned memory first, which PyTorch keeps and reuses.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def beside_compute(device: torch.device, copy: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return what ``copy`` returns: tensors that it copies from the host to ``device`` and prepares there.

    On a GPU it runs on a stream of its own. The host is ahead of the GPU by what is queued, so the copy for the next
    step runs while the GPU computes this one, and only what uses the tensors waits for it.
    """
    if device.type != "cuda":
        return copy()
    compute, side = torch.cuda.current_stream(device), _copies_on(device)
    with torch.cuda.stream(side):
        copied = copy()
    compute.wait_stream(side)
    for tensor in copied:
        # Otherwise their memory could be given to the next copy while the step still reads them.
        tensor.record_stream(compute)
    return copied


@lru_cache(maxsize=64)
def _copies_on(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
