"""The device that models go to."""

from __future__ import annotations

import torch


def best_device() -> str:
    """Return "cuda" where PyTorch sees a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"
