"""What the installation offers: the device that models go to, and the folder of shipped models and videos."""

from __future__ import annotations

from pathlib import Path

import torch

PRESETS = Path(__file__).parents[1] / "presets"


def best_device() -> str:
    """Return "cuda" where PyTorch sees a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"
