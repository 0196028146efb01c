"""Properties of the installation: the default device of models, and the folder of shipped models and videos."""

from __future__ import annotations

from pathlib import Path

import torch

PRESETS = Path(__file__).parents[1] / "presets"


def best_device() -> str:
    """Return "cuda" if PyTorch sees a GPU, otherwise "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"
