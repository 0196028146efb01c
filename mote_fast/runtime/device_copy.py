"""Copies from the host to the device of a model for which the host does not wait."""

from __future__ import annotations

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
