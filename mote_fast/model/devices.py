"""The device of a model, by its name or "auto"."""

from __future__ import annotations

import torch

from mote_fast.errors import ConfigError, one_line
from mote_fast.runtime.environment import best_device

# Characters of PyTorch's reason, which goes on with all that it knows.
_MAX_REASON = 160


def resolve_device(device: str | torch.device, dtype: object) -> torch.device:
    """Return the device; "auto" is a GPU if PyTorch sees one, and the CPU for int8.

    Raises:
        ConfigError: PyTorch does not know the device, or cannot use it here.
    """
    if device == "auto":
        device = "cpu" if dtype == "int8" else best_device()
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = one_line(error).split(". ")[0][:_MAX_REASON]
        raise ConfigError(f"device {str(device)!r}: {reason}; give 'auto', 'cpu', 'cuda' or 'cuda:N'") from error
