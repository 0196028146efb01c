"""The device of a model, by its name or "auto"."""

from __future__ import annotations

import torch

from mote_fast.clip.int8 import BACKENDS
from mote_fast.errors import ConfigError, one_line
from mote_fast.runtime.environment import best_device

# Characters of PyTorch's reason, which goes on with all that it knows.
_MAX_REASON = 160


def named_device(device: str | torch.device, dtype: object) -> str | torch.device:
    """Return what is meant: "auto" is a GPU if PyTorch sees one, and the CPU for int8."""
    if device == "auto":
        return "cpu" if dtype in BACKENDS else best_device()
    return device


def why_unusable(device: str | torch.device) -> str | None:
    """Why PyTorch does not know a device, or cannot use it here; None if it can."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        return one_line(error).split(". ")[0][:_MAX_REASON]
    return None


def resolve_device(device: str | torch.device, dtype: object) -> torch.device:
    """Return the device that ``named_device`` names.

    Raises:
        ConfigError: PyTorch does not know the device, or cannot use it here.
    """
    device = named_device(device, dtype)
    reason = why_unusable(device)
    if reason is not None:
        raise ConfigError(f"device {str(device)!r}: {reason}; give 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return torch.empty(0, device=device).device
